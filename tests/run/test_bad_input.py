"""Bad input: status 2, one line that says where, what and what would be right; nothing written."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from conftest import Launch, TinyRun
from running_program import PATIENCE_S, running, wait_for

Finished = subprocess.CompletedProcess[str]


def said(finished: Finished) -> list[str]:
    """The lines on standard error, without the banners that mpirun adds unless it is quiet."""
    return re.sub(r"-{70,}\n.*?-{70,}\n", "", finished.stderr, flags=re.DOTALL).splitlines()


def files(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder with its content; none where there is no folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(finished: Finished, *fragments: object) -> None:
    """Status 2 and a single line, which holds the fragments."""
    assert finished.returncode == 2, finished.stderr
    assert finished.stdout == ""
    lines = said(finished)
    assert len(lines) == 1, finished.stderr
    for fragment in ("hearth: ", *fragments):
        assert str(fragment) in lines[0]


def edit_deck(tiny: TinyRun, old: str, new: str) -> int:
    """Changes a line of the deck; returns its number."""
    deck = tiny.deck.read_text()
    assert f"\n{old}\n" in deck
    tiny.deck.write_text(deck.replace(f"\n{old}\n", f"\n{new}\n"))
    return deck[: deck.index(f"\n{old}\n") + 1].count("\n") + 1


def newest_checkpoint(tiny: TinyRun) -> Path:
    return tiny.output / "checkpoints" / "step_00000006.h5"


@pytest.fixture
def trained(launch: Launch, tiny: TinyRun) -> TinyRun:
    """A finished tiny run with checkpoints of steps 3 and 6."""
    finished = launch(1, "train", str(tiny.deck))
    assert finished.returncode == 0, finished.stderr
    assert newest_checkpoint(tiny).is_file()
    return tiny


# ---- The command line


@pytest.mark.parametrize("ranks", [1, 2])
def test_unknown_command(launch: Launch, ranks: int) -> None:
    assert_refused(launch(ranks, "tarin"), "'tarin'", "expected train, check, evaluate")


@pytest.mark.parametrize("task", ["train", "check", "evaluate"])
def test_no_deck(launch: Launch, task: str) -> None:
    assert_refused(launch(1, task), f"hearth {task} needs a deck")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("task", ["train", "check"])
def test_deck_that_is_not_there(launch: Launch, tmp_path: Path, task: str, ranks: int) -> None:
    deck = tmp_path / "none.deck"
    assert_refused(launch(ranks, task, str(deck)), deck, "cannot be read; expected a deck")
    assert files(tmp_path) == {}


def test_deck_that_is_a_folder(launch: Launch, tmp_path: Path) -> None:
    assert_refused(launch(1, "train", str(tmp_path)), tmp_path, "expected a deck")


@pytest.mark.parametrize("ranks", ["0", "-2", "two", "4x", ""])
def test_check_of_no_number_of_ranks(launch: Launch, tiny: TinyRun, ranks: str) -> None:
    finished = launch(1, "check", str(tiny.deck), f"--ranks={ranks}")
    assert_refused(finished, f"--ranks={ranks}", "expected a number of ranks")


# ---- The deck


@pytest.mark.parametrize("ranks", [1, 2])
def test_unknown_key(launch: Launch, tiny: TinyRun, ranks: int) -> None:
    line = edit_deck(tiny, "hidden = 24", "hiden = 24")
    finished = launch(ranks, "train", str(tiny.deck))
    assert_refused(finished, f"{tiny.deck}:{line}: ", "'model.hiden'", "'model.hidden'")
    assert not tiny.output.exists()


# What the deck's line becomes; what the error names beside file and line.
LINES = [
    ("steps = 6", "steps = six", "run.steps", "expected integer"),
    ("steps = 6", "steps = 0", "run.steps = 0", "at least 1"),
    ("steps = 6", "steps = 6.5", "run.steps", "expected integer"),
    ("steps = 6", "steps = 99999999999999999999", "run.steps", "expected integer"),
    ("layers = 2", "layers = -1", "model.layers = -1", "from 1 to 10000"),
    ("learning_rate = 1e-2", "learning_rate = nan", "optimizer.learning_rate", "at least 0"),
    ("learning_rate = 1e-2", "learning_rate = inf", "optimizer.learning_rate", "a finite number"),
]


@pytest.mark.parametrize(("old", "new", "key", "right"), LINES)
def test_bad_value(launch: Launch, tiny: TinyRun, old: str, new: str, key: str, right: str) -> None:
    line = edit_deck(tiny, old, new)
    finished = launch(1, "train", str(tiny.deck))
    assert_refused(finished, f"{tiny.deck}:{line}: ", key, right)
    assert not tiny.output.exists()


def test_key_given_twice(launch: Launch, tiny: TinyRun) -> None:
    line = edit_deck(tiny, "layers = 2", "layers = 2\nlayers = 3") + 1
    finished = launch(1, "train", str(tiny.deck))
    assert_refused(finished, f"{tiny.deck}:{line}: ", "model.layers is given twice")


def test_line_of_no_meaning(launch: Launch, tiny: TinyRun) -> None:
    line = edit_deck(tiny, "layers = 2", "layers 2")
    finished = launch(1, "train", str(tiny.deck))
    assert_refused(finished, f"{tiny.deck}:{line}: 'layers 2'", "[section]", "key = value")


@pytest.mark.parametrize("task", ["train", "check"])
def test_empty_deck(launch: Launch, tmp_path: Path, task: str) -> None:
    deck = tmp_path / "empty.deck"
    deck.write_text("\n")
    assert_refused(launch(1, task, str(deck)), deck, "is empty; expected a deck")


# An override, and what the error says.
OVERRIDES = [
    ("--model.hiden=24", "command line", "'model.hiden'", "'model.hidden'"),
    ("--hidden=24", "command line", "'model.hidden'"),
    ("--model.hidden=wide", "command line", "model.hidden", "expected integer"),
    ("hidden=24", "command line", "'hidden=24'", "expected --section.key=value"),
    ("--model.hidden=", "command line", "model.hidden", "expected integer"),
    ("--model.vocabulary=9223372036854775807", "model.vocabulary", "at most 2147483647"),
    ("--optimizer.beta2=1", "optimizer.beta2 = 1", "less than 1"),
    ("--moe.top_k=8", "moe.top_k = 8", "moe.experts = 7", "at most as many"),
    ("--model.heads=5", "model.hidden = 24", "model.heads = 5", "not a multiple"),
    ("--model.kv_heads=3", "model.kv_heads = 3", "does not divide model.heads = 4"),
    ("--model.head_dim=258", "258", "more than 256"),
    ("--model.compute_type=fp8", "model.compute_type = fp8", "one of fp32, bf16, fp64"),
    ("--batch.cell_sequences=10", "batch.cell_sequences = 10", "batch.global_batch = 9"),
    ("--data.sources=even", "data.sources", "'even'", "right is name:prefix"),
    ("--data.sources=even:here:much", "data.sources", "'much'", "not a number above 0"),
    ("--data.split=0,1", "data.split", "'0,1'", "the train split no share"),
    ("--data.split=most", "data.split", "'most'", "such as 90,5,5"),
]


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda case: case[0])
def test_bad_override(launch: Launch, tiny: TinyRun, override: tuple[str, ...]) -> None:
    argument, *fragments = override
    assert_refused(launch(1, "train", str(tiny.deck), argument), *fragments)
    assert not tiny.output.exists()


@pytest.mark.parametrize(("ranks", "divisors"), [(1, "1"), (2, "1, 2"), (4, "1, 2, 4")])
def test_expert_ranks_that_do_not_divide_the_ranks(
    launch: Launch, tiny: TinyRun, ranks: int, divisors: str
) -> None:
    finished = launch(ranks, "train", str(tiny.deck), "--parallel.expert_ranks=3")
    assert_refused(finished, "parallel.expert_ranks", divisors)
    assert not tiny.output.exists()


# ---- Token files


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("probe_tokens", [0, 64])
def test_token_id_beyond_the_vocabulary(
    launch: Launch, tiny: TinyRun, ranks: int, probe_tokens: int
) -> None:
    finished = launch(
        ranks,
        "train",
        str(tiny.deck),
        "--model.vocabulary=20",
        f"--statistics.probe_tokens={probe_tokens}",
    )
    assert finished.returncode == 2, finished.stderr
    *progress, error = said(finished)  # a batch is read after the run has said how it is laid out
    assert error.startswith("hearth: ") and not any("hearth: " in line for line in progress)
    for fragment in (".bin", "token id", "model.vocabulary is 20"):
        assert fragment in error
    assert not any(files(tiny.output).values())


def test_truncated_bin(launch: Launch, tiny: TinyRun) -> None:
    tokens = tiny.folder / "even.bin"
    tokens.write_bytes(tokens.read_bytes()[:-1])
    assert_refused(launch(2, "train", str(tiny.deck)), tokens, "is truncated")
    assert not tiny.output.exists()


def test_empty_bin(launch: Launch, tiny: TinyRun) -> None:
    tokens = tiny.folder / "odd.bin"
    tokens.write_bytes(b"")
    assert_refused(launch(1, "train", str(tiny.deck)), tokens, "it holds 0 bytes")
    assert not tiny.output.exists()


@pytest.mark.parametrize("suffix", ["idx", "bin"])
def test_missing_half_of_a_pair(launch: Launch, tiny: TinyRun, suffix: str) -> None:
    missing = tiny.folder / f"even.{suffix}"
    missing.unlink()
    assert_refused(launch(2, "train", str(tiny.deck)), missing, "data.sources", ".idx")
    assert not tiny.output.exists()


def of_another_format(index: bytes) -> bytes:
    return b"TNTIDX\0\0" + index[8:]


def of_a_later_version(index: bytes) -> bytes:
    return index[:9] + struct.pack("<Q", 2) + index[17:]


def of_floats(index: bytes) -> bytes:
    return index[:17] + b"\6" + index[18:]


def truncated(index: bytes) -> bytes:
    return index[:-8]


def of_few_bytes(index: bytes) -> bytes:
    return index[:20]


def of_many_sequences(index: bytes) -> bytes:
    return index[:18] + struct.pack("<QQ", 2**62, 2**62 + 1) + index[34:]


@pytest.mark.parametrize(
    ("damage", "fragment"),
    [
        (of_another_format, "MMIDIDX"),
        (of_a_later_version, "only version 1"),
        (of_floats, "token type 6"),
        (truncated, "truncated"),
        (of_few_bytes, "truncated"),
        (of_many_sequences, "truncated"),
    ],
)
def test_damaged_index(
    launch: Launch, tiny: TinyRun, damage: Callable[[bytes], bytes], fragment: str
) -> None:
    index = tiny.folder / "even.idx"
    index.write_bytes(damage(index.read_bytes()))
    assert_refused(launch(1, "train", str(tiny.deck)), index, fragment)
    assert not tiny.output.exists()


def test_more_samples_than_can_be_ordered(launch: Launch, tiny: TinyRun) -> None:
    finished = launch(1, "train", str(tiny.deck), "--run.steps=2000000000")
    assert_refused(finished, ".bin", "samples", "lower run.steps or batch.global_batch")
    assert not tiny.output.exists()


# ---- The output folder and its checkpoints


@pytest.mark.parametrize("ranks", [1, 2])
def test_output_below_a_file(launch: Launch, tiny: TinyRun, ranks: int) -> None:
    before = files(tiny.folder)
    output = tiny.deck / "output"
    finished = launch(ranks, "train", str(tiny.deck), f"--run.output={output}")
    assert_refused(finished, output, "cannot be written")
    assert files(tiny.folder) == before


@pytest.mark.parametrize("ranks", [1, 2])
def test_checkpoint_of_another_model(launch: Launch, trained: TinyRun, ranks: int) -> None:
    before = files(trained.output)
    finished = launch(ranks, "train", str(trained.deck), "--moe.expert_ffn=24")
    assert_refused(
        finished, newest_checkpoint(trained), "moe.expert_ffn = 20", "24", "another run.output"
    )
    assert files(trained.output) == before


def test_resume_none_beside_a_checkpoint(launch: Launch, trained: TinyRun) -> None:
    before = files(trained.output)
    finished = launch(2, "train", str(trained.deck), "--checkpoint.resume=none")
    assert_refused(finished, newest_checkpoint(trained), "checkpoint.resume = none", "run.output")
    assert files(trained.output) == before


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", ["tiny.deck", "even.bin", "none.h5"])
def test_resume_from_no_checkpoint(launch: Launch, tiny: TinyRun, name: str, ranks: int) -> None:
    file = tiny.folder / name
    finished = launch(ranks, "train", str(tiny.deck), f"--checkpoint.resume={file}")
    assert_refused(finished, file)
    assert files(tiny.output) == {}


def test_resume_from_statistics(launch: Launch, trained: TinyRun) -> None:
    before = files(trained.output)
    file = trained.output / "training.h5"
    finished = launch(1, "train", str(trained.deck), f"--checkpoint.resume={file}")
    assert_refused(finished, file, "not a checkpoint")
    assert files(trained.output) == before


def test_evaluate_without_checkpoint(launch: Launch, tiny: TinyRun) -> None:
    finished = launch(2, "evaluate", str(tiny.deck))
    assert_refused(finished, tiny.output, "no checkpoint to evaluate")
    assert not tiny.output.exists()


def test_evaluate_from_no_checkpoint(launch: Launch, trained: TinyRun) -> None:
    finished = launch(2, "evaluate", str(trained.deck), "--checkpoint.resume=none")
    assert_refused(finished, "checkpoint.resume = none", "evaluate needs a checkpoint", "a file")


def truncate(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])


def cut_last_byte(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])


def empty(checkpoint: Path) -> None:
    checkpoint.write_bytes(b"")


def flip_byte(checkpoint: Path, group: str) -> None:
    """Flips the lowest bit of the first value of a group's largest tensor."""
    found: list[h5py.Dataset] = []
    with h5py.File(checkpoint) as file:
        file[group].visititems(
            lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None
        )
        at = max(found, key=lambda tensor: tensor.size).id.get_offset()
    content = bytearray(checkpoint.read_bytes())
    content[at] ^= 1
    checkpoint.write_bytes(content)


def flip_weight(checkpoint: Path) -> None:
    flip_byte(checkpoint, "model")


def flip_moment(checkpoint: Path) -> None:
    flip_byte(checkpoint, "optimizer")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("damage", [truncate, cut_last_byte, empty, flip_weight, flip_moment])
def test_damaged_newest_checkpoint(
    launch: Launch, trained: TinyRun, damage: Callable[[Path], None], ranks: int
) -> None:
    newest = newest_checkpoint(trained)
    damage(newest)
    finished = launch(ranks, "train", str(trained.deck))
    assert finished.returncode == 0, finished.stderr
    lines = said(finished)
    notes = [line for line in lines if "passed over" in line]
    assert len(notes) == 1 and str(newest) in notes[0], finished.stderr
    older = newest.with_name("step_00000003.h5")
    assert f"resumed from {older} at step 3" in lines
    assert any(line.startswith("step 6, weights checksum") for line in lines)


def test_pruning_spares_the_only_good_checkpoint(launch: Launch, trained: TinyRun) -> None:
    newest = newest_checkpoint(trained)
    empty(newest)
    finished = launch(2, "train", str(trained.deck), "--run.stop_step=4", "--checkpoint.keep=1")
    assert finished.returncode == 75, finished.stderr
    good = newest.with_name("step_00000004.h5")
    assert list(newest.parent.glob("*.h5")) == [good]
    assert newest.with_name("step_00000006.h5.aside").is_file()
    again = launch(1, "train", str(trained.deck))
    assert again.returncode == 0 and f"resumed from {good} at step 4" in again.stderr


def test_damaged_named_checkpoint(launch: Launch, trained: TinyRun) -> None:
    newest = newest_checkpoint(trained)
    flip_weight(newest)
    finished = launch(2, "train", str(trained.deck), f"--checkpoint.resume={newest}")
    assert_refused(finished, newest, "is damaged")


def test_resume_with_other_token_files(launch: Launch, trained: TinyRun) -> None:
    before = files(trained.output)
    for suffix in ("bin", "idx"):
        even, odd, aside = (trained.folder / f"{name}.{suffix}" for name in ("even", "odd", "x"))
        even.rename(aside)
        odd.rename(even)
        aside.rename(odd)
    finished = launch(2, "train", str(trained.deck), "--run.steps=9")
    assert_refused(finished, newest_checkpoint(trained), "other token files", "even: ", "restore")
    assert files(trained.output) == before


def test_resume_with_changed_tokens(launch: Launch, trained: TinyRun) -> None:
    """Of the same number, in the same places."""
    tokens = trained.folder / "even.bin"
    content = tokens.read_bytes()
    tokens.write_bytes(content[8:] + content[:8])
    finished = launch(2, "train", str(trained.deck), "--run.steps=9")
    assert_refused(finished, newest_checkpoint(trained), "other token files", "even: ", "restore")


def test_tokens_that_become_fewer(hearth: str, tiny: TinyRun) -> None:
    """While a run reads them."""
    tokens = tiny.folder / "even.bin"
    size = tokens.stat().st_size
    with running([hearth, "train", str(tiny.deck), "--run.steps=100000"]) as process:
        wait_for((tiny.output / "metrics.jsonl").exists, process)
        os.truncate(tokens, 0)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, stderr
    last = stderr.splitlines()[-1]
    assert last.startswith("hearth: ") and f"{tokens}: ends at byte " in last
    assert last.endswith(f", but had {size} bytes when it was opened")


@pytest.mark.parametrize("ranks", [1, 2])
def test_damaged_model_of_another(launch: Launch, trained: TinyRun, ranks: int) -> None:
    """A pruned model's only checkpoint: no seed gives that model."""
    pruned = trained.folder / "pruned"
    made = launch(1, "prune", str(trained.deck), "--experts=5", f"--output={pruned}")
    assert made.returncode == 0, made.stderr
    (checkpoint,) = (pruned / "checkpoints").iterdir()
    for damage in (flip_weight, truncate):
        damage(checkpoint)
        before = files(pruned)
        finished = launch(ranks, "train", str(pruned / "run.deck"))
        assert finished.returncode == 2, finished.stderr
        last = said(finished)[-1]
        assert str(checkpoint) in last and "made of another: make it again" in last
        assert files(pruned) == before


def test_check_says_what_is_there_of_the_data(launch: Launch, tiny: TinyRun) -> None:
    assert re.search(r"\n# data\neven +\d+ tokens in \d+ documents\nodd ",
                     launch(2, "check", str(tiny.deck)).stdout)  # fmt: skip
    (tiny.folder / "even.bin").unlink()
    checked = launch(1, "check", str(tiny.deck))
    assert checked.returncode == 0
    assert f"\nwarning: even: {tiny.folder / 'even.bin'}: cannot be read" in checked.stdout


@pytest.mark.parametrize("task", ["check", "evaluate", "keys"])
def test_standard_output_that_takes_nothing(hearth: str, trained: TinyRun, task: str) -> None:
    line = [hearth, task] if task == "keys" else [hearth, task, str(trained.deck)]
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        "hearth: standard output cannot be written: No space left on device"
    )


# ---- Statistics


@pytest.mark.parametrize("name", ["training.h5", "routing.h5"])
def test_damaged_statistics(launch: Launch, trained: TinyRun, name: str) -> None:
    statistics = trained.output / name
    truncate(statistics)
    before = files(trained.output)
    finished = launch(2, "train", str(trained.deck), "--run.steps=9")
    assert finished.returncode == 2, finished.stderr
    error = said(finished)[-1]
    assert error.startswith(f"hearth: {statistics}: ")
    assert "restore the file, or move it away to go on from step 6" in error
    assert files(trained.output) == before


@pytest.mark.parametrize("name", ["training.h5", "routing.h5"])
def test_missing_statistics(launch: Launch, trained: TinyRun, name: str) -> None:
    statistics = trained.output / name
    statistics.unlink()
    finished = launch(2, "train", str(trained.deck), "--run.steps=9")
    assert finished.returncode == 0, finished.stderr
    assert f"{statistics} is not there: its rows up to step 6 are lost" in said(finished)
    axis = "step" if name == "training.h5" else "interval"
    with h5py.File(statistics) as file:
        assert file[axis][:].min() > 6


def test_metrics_that_cannot_be_written(launch: Launch, tiny: TinyRun) -> None:
    tiny.output.mkdir()
    metrics = tiny.output / "metrics.jsonl"
    metrics.with_name("metrics.jsonl.tmp").symlink_to("/dev/full")
    finished = launch(2, "train", str(tiny.deck))
    assert finished.returncode == 1, finished.stderr
    assert said(finished)[-1] == f"hearth: {metrics}: cannot be written: No space left on device"


@pytest.mark.parametrize("ranks", [1, 2])
def test_weights_that_are_not_finite(launch: Launch, trained: TinyRun, ranks: int) -> None:
    newest = newest_checkpoint(trained)
    rate = ("--optimizer.learning_rate=1e300", "--checkpoint.every_steps=1")
    finished = launch(ranks, "train", str(trained.deck), "--run.steps=60", *rate)
    assert finished.returncode == 1, finished.stderr
    error = said(finished)[-1]
    unwritten = newest.with_name("step_00000007.h5")
    assert error.startswith(f"hearth: {unwritten}: not written, since after step 7 ")
    assert "elements of /model/" in error and "not finite" in error
    assert max(newest.parent.glob("step_*")) == newest
    # The run is not spoilt.
    again = launch(ranks, "train", str(trained.deck), "--run.steps=9")
    assert again.returncode == 0 and f"resumed from {newest} at step 6" in again.stderr
