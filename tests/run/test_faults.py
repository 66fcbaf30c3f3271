"""Disks that fail and processes that are killed in the middle of a write lose no checkpoint.

One that cannot be read is passed over.

tests/faults/faults.h says how calls of the system are made to fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import FAULTS, Launch, TinyRun, assert_same_run

REQUEUE = 75
STEPS = 3
EVERY_STEP = (f"--run.steps={STEPS}", "--checkpoint.every_steps=1", "--checkpoint.keep=2")
BACKGROUND = "--checkpoint.background=true"

# What a broken disk says, and for how long: at one call, or from it on.
DISKS = [
    ("EIO", "", "Input/output error"),
    ("ENOSPC", "+", "No space left on device"),
    ("EDQUOT", "", "Disk quota exceeded"),
    ("EROFS", "+", "Read-only file system"),
]

# What reading meets, for how long, what is said, and the status where there is no other checkpoint:
# a broken disk is a failure, a file that ends too early is bad input.
READS = [("READ_EIO", "", "Input/output error", 1), ("READ_END", "+", "", 2)]

Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def train(launch: Launch, tiny: TinyRun) -> Train:
    """Trains a step a checkpoint; `fault` happens to files of the output folder, or to `file`, on
    rank `victim`, whose calls go to `calls`."""

    def run(
        ranks: int,
        *options: str,
        fault: str = "EIO 1000000",
        victim: int = 0,
        calls: Path | None = None,
        file: Path | None = None,
        command: str = "train",
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            "LD_PRELOAD": FAULTS,
            "HEARTH_FAULT": f"{fault} {file or f'{tiny.output}/'}",
            "HEARTH_FAULT_RANK": str(victim),
        }
        if ranks == 1:
            environment["OMPI_COMM_WORLD_RANK"] = "0"  # there is no mpirun that would say so
        if calls is not None:
            environment["HEARTH_FAULT_CALLS"] = str(calls)
        return launch(ranks, command, str(tiny.deck), *EVERY_STEP, *options, **environment)

    return run


def reference(launch: Launch, tiny: TinyRun) -> Path:
    """An undisturbed run's output."""
    output = tiny.folder / "undisturbed"
    finished = launch(1, "train", str(tiny.deck), *EVERY_STEP, f"--run.output={output}")
    assert finished.returncode == 0, finished.stderr
    return output


def newest(tiny: TinyRun) -> Path | None:
    return max((tiny.output / "checkpoints").glob("step_*.h5"), default=None)


def worthwhile_calls(
    train: Train, tiny: TinyRun, ranks: int, victim: int, *options: str
) -> list[int]:
    """Of the calls of a run of one step: the first and last of each row of equal ones, and one
    between them."""
    log = tiny.folder / "calls"
    finished = train(ranks, "--run.stop_step=1", *options, victim=victim, calls=log)
    assert finished.returncode == REQUEUE, finished.stderr
    what = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    edges = [i for i in range(1, len(what)) if what[i] != what[i - 1]]
    chosen: set[int] = set()
    for first, end in zip([0, *edges], [*edges, len(what)], strict=True):
        chosen |= {first + 1, (first + end) // 2 + 1, end}
    for file in sorted(tiny.output.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    return sorted(chosen)


def assert_resumed(stderr: str, checkpoint: Path | None) -> None:
    """The run went on from that checkpoint and found nothing wrong with it."""
    assert "passed over" not in stderr
    resumed = re.findall(r"^resumed from (\S+) at step", stderr, flags=re.MULTILINE)
    assert resumed == ([] if checkpoint is None else [str(checkpoint)]), stderr


@pytest.mark.parametrize(
    ("ranks", "victim", "options"),
    [(1, 0, ()), (2, 0, (BACKGROUND,)), (2, 1, ()), (2, 1, (BACKGROUND,))],
)
def test_killed_at_any_call(
    launch: Launch, tiny: TinyRun, train: Train, ranks: int, victim: int, options: tuple[str, ...]
) -> None:
    undisturbed = reference(launch, tiny)
    for call in worthwhile_calls(train, tiny, ranks, victim, *options):
        before = newest(tiny)
        finished = train(ranks, *options, fault=f"KILL {call}", victim=victim)
        assert finished.returncode not in (0, 1, 2, REQUEUE), finished.stderr
        if "first step after" in finished.stderr:  # it lived long enough to say so
            assert_resumed(finished.stderr, before)
        if newest(tiny) is not None and newest(tiny).name == f"step_{STEPS:08}.h5":
            break
    before = newest(tiny)
    finished = launch(3 - ranks, "train", str(tiny.deck), *EVERY_STEP)
    assert finished.returncode == 0, finished.stderr
    if "nothing to do" not in finished.stderr:
        assert_resumed(finished.stderr, before)
    assert_same_run(undisturbed, tiny.output, STEPS)
    assert not list(tiny.output.rglob("*.h5.tmp"))


@pytest.mark.parametrize(("victim", "options"), [(0, ()), (1, (BACKGROUND,))])
def test_disk_that_fails_at_any_call(
    launch: Launch, tiny: TinyRun, train: Train, victim: int, options: tuple[str, ...]
) -> None:
    undisturbed = reference(launch, tiny)
    for number, call in enumerate(worthwhile_calls(train, tiny, 2, victim, *options)):
        effect, plus, reason = DISKS[number % len(DISKS)]
        before = newest(tiny)
        finished = train(2, *options, fault=f"{effect} {call}{plus}", victim=victim)
        if finished.returncode in (0, REQUEUE):  # went on from a later step: fewer calls
            break
        errors = [line for line in finished.stderr.splitlines() if line.startswith("hearth: ")]
        assert len(errors) == 1, finished.stderr
        assert errors[0].startswith(f"hearth: {tiny.output}") and errors[0].endswith(reason)
        # A folder that cannot be written is the deck's mistake when the run starts.
        at_start = effect == "EROFS" and "first step after" not in finished.stderr
        assert finished.returncode == (2 if at_start else 1), finished.stderr
        if "first step after" in finished.stderr:
            assert_resumed(finished.stderr, before)
    before = newest(tiny)
    finished = launch(1, "train", str(tiny.deck), *EVERY_STEP)
    assert finished.returncode == 0, finished.stderr
    if "nothing to do" not in finished.stderr:
        assert_resumed(finished.stderr, before)
    assert_same_run(undisturbed, tiny.output, STEPS)


@pytest.mark.parametrize(("ranks", "victim"), [(1, 0), (2, 0), (2, 1)])
def test_checkpoint_that_cannot_be_read(
    launch: Launch, tiny: TinyRun, train: Train, ranks: int, victim: int
) -> None:
    undisturbed = reference(launch, tiny)
    assert train(1, f"--run.stop_step={STEPS - 1}").returncode == REQUEUE
    last, older = newest(tiny), tiny.output / f"checkpoints/step_{STEPS - 2:08}.h5"
    assert last is not None and last.name == f"step_{STEPS - 1:08}.h5" and older.exists()
    before = tiny.folder / "before"
    shutil.copytree(tiny.output, before)
    named = {"command": "evaluate", "victim": victim, "file": last}

    def again(fault: str, **more: Path) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(tiny.output)
        shutil.copytree(before, tiny.output)
        return train(ranks, fault=fault, victim=victim, file=last, **more)

    log = tiny.folder / "calls"
    whole = again("READ_EIO 1000000", calls=log)
    assert whole.returncode == 0, whole.stderr
    assert_resumed(whole.stderr, last)
    calls = len(log.read_text().splitlines())
    assert calls > 20
    for number, call in enumerate(np.linspace(1, calls, 5).astype(int)):
        effect, plus, reason, _ = READS[number % len(READS)]
        finished = again(f"{effect} {call}{plus}")
        assert finished.returncode == 0, finished.stderr
        passed = [line for line in finished.stderr.splitlines() if "passed over" in line]
        assert len(passed) == 1 and f"{last}: " in passed[0], finished.stderr
        assert reason in passed[0]
        assert f"resumed from {older} at step {STEPS - 2}\n" in finished.stderr
        assert_same_run(undisturbed, tiny.output, STEPS)

    shutil.rmtree(tiny.output)
    shutil.copytree(before, tiny.output)
    log.unlink()
    resume = f"--checkpoint.resume={last}"
    assert train(ranks, resume, fault="READ_EIO 1000000", calls=log, **named).returncode == 0
    calls = len(log.read_text().splitlines())
    for effect, plus, reason, status in READS:
        finished = train(ranks, resume, fault=f"{effect} {calls // 2}{plus}", **named)
        assert finished.returncode == status, finished.stderr
        errors = [line for line in finished.stderr.splitlines() if line.startswith("hearth: ")]
        assert len(errors) == 1 and errors[0].startswith(f"hearth: {last}: "), finished.stderr
        assert reason in errors[0]


def test_short_and_interrupted_reads_go_on(launch: Launch, tiny: TinyRun, train: Train) -> None:
    undisturbed = reference(launch, tiny)
    for step, fault in enumerate(("EIO 1000000", "READ_SHORT 1+", "READ_EINTR 9"), start=1):
        last = newest(tiny)
        finished = train(2, f"--run.stop_step={step}", fault=fault, victim=step % 2)
        assert finished.returncode == (0 if step == STEPS else REQUEUE), finished.stderr
        assert_resumed(finished.stderr, last)
    assert_same_run(undisturbed, tiny.output, STEPS)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system on a folder, for as long as it is needed."""
    folder.mkdir()
    made = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("background", ["false", "true"])
def test_full_disk(launch: Launch, tiny: TinyRun, background: str) -> None:
    steps = 12
    options = (f"--run.steps={steps}", "--checkpoint.every_steps=1")
    whole = tiny.folder / "undisturbed"
    assert launch(1, "train", str(tiny.deck), *options, f"--run.output={whole}").returncode == 0
    with mounted(tiny.output, "-t", "tmpfs", "-o", "size=2m", "none"):
        options += (f"--checkpoint.background={background}",)
        finished = launch(2, "train", str(tiny.deck), *options)
        assert finished.returncode == 1, finished.stderr
        errors = [line for line in finished.stderr.splitlines() if line.startswith("hearth: ")]
        assert len(errors) == 1 and errors[0].startswith(f"hearth: {tiny.output}/")
        assert errors[0].endswith("No space left on device")
        assert not list(tiny.output.rglob("*.h5.tmp"))
        last = newest(tiny)
        assert last is not None and last.name < f"step_{steps:08}.h5"
        subprocess.run(["mount", "-o", "remount,size=64m", str(tiny.output)], check=True)
        again = launch(1, "train", str(tiny.deck), *options)
        assert again.returncode == 0, again.stderr
        assert_resumed(again.stderr, last)
        assert_same_run(whole, tiny.output, steps)


def test_folder_that_cannot_be_written(launch: Launch, tiny: TinyRun) -> None:
    assert launch(1, "train", str(tiny.deck), "--run.stop_step=3").returncode == REQUEUE
    seen = tiny.folder / "seen"
    with mounted(seen, "--bind", str(tiny.output)):
        read_only = subprocess.run(["mount", "-o", "remount,bind,ro", str(seen)], check=False)
        if read_only.returncode != 0:
            pytest.skip("no folder can be made read-only here")
        finished = launch(2, "train", str(tiny.deck), f"--run.output={seen}")
        assert finished.returncode == 2, finished.stderr
        assert finished.stderr.count("hearth: ") == 1
        assert f"hearth: {seen}: cannot be written: Read-only file system" in finished.stderr
        looking = launch(2, "evaluate", str(tiny.deck), f"--run.output={seen}")
        assert looking.returncode == 0, looking.stderr
    assert launch(1, "train", str(tiny.deck)).returncode == 0


@pytest.mark.parametrize("ranks", [1, 2])
def test_background_changes_no_bit(launch: Launch, tiny: TinyRun, ranks: int) -> None:
    undisturbed = reference(launch, tiny)
    finished = launch(ranks, "train", str(tiny.deck), *EVERY_STEP, BACKGROUND)
    assert finished.returncode == 0, finished.stderr
    assert_same_run(undisturbed, tiny.output, STEPS)
    assert len(list((tiny.output / "checkpoints").iterdir())) == 2  # checkpoint.keep


def test_without_a_good_checkpoint_the_run_starts_again(launch: Launch, tiny: TinyRun) -> None:
    undisturbed = reference(launch, tiny)
    assert (
        launch(1, "train", str(tiny.deck), *EVERY_STEP, "--run.stop_step=2").returncode == REQUEUE
    )
    checkpoints = sorted((tiny.output / "checkpoints").glob("step_*.h5"))
    for file in checkpoints:
        os.truncate(file, file.stat().st_size - 1)
    finished = launch(2, "train", str(tiny.deck), *EVERY_STEP)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("passed over") == len(checkpoints) == 2
    said = f"no checkpoint in {tiny.output / 'checkpoints'} is good: the run starts from its seed\n"
    assert said in finished.stderr
    assert_same_run(undisturbed, tiny.output, STEPS)


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x40
    file.write_bytes(content)


def test_flipped_bytes_are_noticed_by_evaluate_and_train(launch: Launch, tiny: TinyRun) -> None:
    assert launch(1, "train", str(tiny.deck), *EVERY_STEP).returncode == 0
    last = newest(tiny)
    older = last.with_name(f"step_{STEPS - 1:08}.h5")
    content = last.read_bytes()
    random = np.random.default_rng(5)
    cases: list[tuple[str, int]] = []
    with h5py.File(last) as file:
        for group in ("model", "optimizer/first_moment", "optimizer/second_moment", "statistics"):
            tensors: list[h5py.Dataset] = []
            file[group].visititems(
                lambda _, item, into=tensors: (
                    into.append(item) if isinstance(item, h5py.Dataset) else None
                )
            )
            tensor = tensors[int(random.integers(len(tensors)))]
            first = tensor.id.get_offset()
            at = first + int(random.integers(tensor.id.get_storage_size()))
            cases.append((f"tensor {tensor.name} is damaged", at))
    cases.append((": ", content.index(b"hidden = 24")))  # of the deck in the file's metadata
    for what, at in cases:
        flip(last, at)
        command = ("evaluate", str(tiny.deck), *EVERY_STEP)
        if "/model/" in what:
            named = launch(2, *command, f"--checkpoint.resume={last}")
            assert named.returncode == 2 and f"{last}: {what}" in named.stderr, named.stderr
        finished = launch(2, "train", str(tiny.deck), *EVERY_STEP)
        assert finished.returncode == 0, finished.stderr
        passed = [line for line in finished.stderr.splitlines() if "passed over" in line]
        assert len(passed) == 1 and f"{last}: " in passed[0] and what in passed[0], finished.stderr
        assert f"resumed from {older} at step {STEPS - 1}" in finished.stderr
        aside = last.with_name(last.name + ".aside")
        assert f"set aside, since the run goes on from step {STEPS - 1}: {aside}" in finished.stderr
        assert last.read_bytes()[: len(content)] != b"" and aside.exists()
        aside.unlink()
        last.write_bytes(content)
