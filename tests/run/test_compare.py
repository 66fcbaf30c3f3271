"""postprocess/compare.py on real runs: what it says where they part, and where they do not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, Launch, TinyRun, make_tiny_run, train

from settings_comparison import WITHOUT_RESULT

GATE = "/model/layers/01/experts/gate"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return make_tiny_run(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def reference(launch: Launch, made: TinyRun) -> Path:
    train(launch, made, "reference", (1, 1, 1))
    return made.folder / "reference"


@pytest.fixture
def copy(reference: Path, tmp_path: Path) -> Path:
    """The reference's output, to be changed."""
    return Path(shutil.copytree(reference, tmp_path / "copy"))


def compare(*arguments: str | Path, status: int) -> str:
    """What the script prints: on standard output, or with status 2 its error."""
    finished = subprocess.run(
        [sys.executable, str(ROOT / "postprocess" / "compare.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == status, finished.stdout + finished.stderr
    if status == 2:
        assert finished.stdout == ""
        assert len(finished.stderr.splitlines()) == 1
        return finished.stderr
    assert finished.stderr == ""
    return finished.stdout


def test_other_layouts_are_the_same_run(launch: Launch, made: TinyRun, reference: Path) -> None:
    train(launch, made, "layout", (3, 3, 1), "--model.recompute=block")
    said = compare(reference, made.folder / "layout", status=0)
    assert said.splitlines() == [
        "the same, bit for bit: training.h5 (6 of step, 1 of validation_step); "
        "routing.h5 (2 of checkpoint, 3 of interval); checkpoints 3, 6"
    ]
    for file in ("training.h5", "routing.h5", "checkpoints/step_00000006.h5"):
        compare(reference / file, made.folder / "layout" / file, status=0)


def test_another_seed_parts_at_once(launch: Launch, made: TinyRun, reference: Path) -> None:
    train(launch, made, "seed", (2, 1, 1), "--run.seed=77")
    said = compare(reference, made.folder / "seed", "--most", "0", status=1)
    assert "setting: run.seed: 1234 / 77\n" in said
    assert "parallel.expert_ranks" not in said and "run.output" not in said
    assert re.search(r"training.h5: weights part at step 1: [0-9a-f]{16} / [0-9a-f]{16}\n", said)
    assert "checkpoint of step 3: " in said
    assert f"{GATE}: 3360 of 3360 elements differ, by at most " in said
    # Norm weights begin as ones, and the first update has learning rate 0.
    assert said.endswith("different from step 1 on\n")


def test_another_learning_rate_parts_where_it_begins(
    launch: Launch, made: TinyRun, reference: Path
) -> None:
    train(launch, made, "faster", (2, 2, 1), "--run.stop_step=3")
    train(launch, made, "faster", (1, 1, 1), "--optimizer.learning_rate=1.5e-2")
    said = compare(reference, made.folder / "faster", status=1)
    assert "setting: optimizer.learning_rate: 0.01 / 0.015\n" in said
    assert "training.h5: weights part at step 4: " in said
    assert "  step 4, row 3, learning_rate: 0.01 / 0.015\n" in said
    # The loss of a step is that of the weights before it.
    assert "  step 5, row 4, cross_entropy: " in said
    assert "  step 4, row 3, cross_entropy: " not in said
    assert "routing.h5: " in said and "  step 6, row 2, " in said
    assert "checkpoint of step 6: " in said
    assert said.endswith("different from step 4 on\n")


def test_a_changed_element_is_named(reference: Path, copy: Path) -> None:
    with h5py.File(copy / "checkpoints/step_00000003.h5", "r+") as file:
        gate = file[GATE]
        before = gate[2, 5, 7]
        after = np.nextafter(before, np.float32(9))
        gate[2, 5, 7] = after
    said = compare(reference, copy, status=1).splitlines()
    assert said[0] == f"checkpoint of step 3: 1 of {tensors(copy)} datasets differ"
    assert said[1] == (
        f"  {GATE}: 1 of 3360 elements differ, by at most {after - before:.3g}; "
        f"the first at (2, 5, 7): {before!s} / {after!s}; B is damaged: its checksum is another"
    )
    assert said[2:] == ["different from step 3 on"]
    # The stored checksums do not know of it.
    assert "checkpoints 3, 6" in compare(reference, copy, "--trust-checksums", status=0)
    assert "A is damaged" in compare(copy, reference, status=1)


def tensors(output: Path) -> int:
    with h5py.File(output / "checkpoints/step_00000003.h5") as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    return len(found)


def test_another_checksum_is_found_by_trust(reference: Path, copy: Path) -> None:
    with h5py.File(copy / "checkpoints/step_00000006.h5", "r+") as file:
        file["/optimizer/first_moment/embedding/weight"].attrs["checksum"] = np.uint64(1)
    for option in ((), ("--trust-checksums",)):
        said = compare(reference, copy, *option, status=1)
        assert (
            "  /optimizer/first_moment/embedding/weight: checksums differ, elements do not; "
            in said
        )
        assert said.endswith("different from step 6 on\n")


def test_a_changed_row_is_named(reference: Path, copy: Path) -> None:
    with h5py.File(copy / "routing.h5", "r+") as file:
        file["expert_count"][1, 0, 3] += 1
    said = compare(reference, copy, status=1).splitlines()
    assert said[0] == "routing.h5: the first row of each dataset that differs"
    assert re.fullmatch(
        r"  step 4, row 1, expert_count: 1 of 7 elements differ, by at most 1; "
        r"the first at \(0, 3\): \d+ / \d+",
        said[1],
    )
    assert said[2] == "different from step 4 on"


def test_of_different_lengths_the_common_steps_are_compared(
    launch: Launch, made: TinyRun, reference: Path
) -> None:
    train(launch, made, "short", (2, 2, 1), "--run.stop_step=4")
    said = compare(reference, made.folder / "short", status=0)
    assert (
        "note: training.h5: step: A has 6 rows (1 to 6), B 4 (1 to 4); "
        "4 that are about the same steps are compared\n"
    ) in said
    assert "note: checkpoints: A has 3, 6, B 3, 4; common are 3\n" in said
    assert said.endswith(
        "the same, bit for bit: training.h5 (4 of step, 0 of validation_step); "
        "routing.h5 (1 of checkpoint, 2 of interval); checkpoints 3\n"
    )


def test_intervals_of_other_lengths_are_not_mistaken(
    launch: Launch, made: TinyRun, reference: Path
) -> None:
    train(launch, made, "intervals", (1, 1, 1), "--statistics.every_steps=3")
    said = compare(reference, made.folder / "intervals", status=0)
    assert "setting: statistics.every_steps: 2 / 3\n" in said
    assert "note: routing.h5: interval: A has 3 rows (2 to 6), B 2 (3 to 6); 0 that are " in said


def test_another_model_has_other_shapes(launch: Launch, made: TinyRun, reference: Path) -> None:
    train(launch, made, "model", (1, 1, 1), "--moe.experts=5", "--model.qk_norm=true")
    said = compare(reference, made.folder / "model", "--most=0", status=1)
    assert "setting: moe.experts: 7 / 5\n" in said
    assert "  expert_count: shape (3, 1, 7) / (3, 1, 5)\n" in said
    assert f"  {GATE}: shape (7, 20, 24) / (5, 20, 24)\n" in said
    assert "  /model/layers/00/attention/query_norm: is in B only\n" in said


@pytest.mark.parametrize("name", ["training.h5", "routing.h5"])
def test_statistics_of_one_run_alone_are_a_difference(
    reference: Path, copy: Path, name: str
) -> None:
    (copy / name).unlink()
    assert compare(reference, copy, status=1).splitlines() == [f"{name} is in A only", "different"]
    assert compare(copy, reference, status=1).splitlines() == [f"{name} is in B only", "different"]
    # Neither has them: the rest is compared.
    (both := copy.with_name("both")).mkdir()
    shutil.copytree(copy, both, dirs_exist_ok=True)
    assert name not in compare(copy, both, status=0)


def test_a_run_that_has_not_begun_lacks_nothing(reference: Path, copy: Path) -> None:
    """As hearth prune leaves a folder: a checkpoint of step 0 and no statistics."""
    begun, bare = copy, copy.with_name("bare")
    (bare / "checkpoints").mkdir(parents=True)
    first = begun / "checkpoints/step_00000000.h5"
    shutil.copy(begun / "checkpoints/step_00000003.h5", first)
    with h5py.File(first, "r+") as file:
        file.attrs["step"] = type(file.attrs["step"])(0)
    shutil.copy(first, bare / "checkpoints")
    said = compare(begun, bare, status=0)
    assert "note: training.h5 is in A only\nnote: routing.h5 is in A only\n" in said
    assert said.endswith("the same, bit for bit: checkpoints 0\n")
    # A checkpoint of a later step is of a run that had statistics.
    shutil.copy(begun / "checkpoints/step_00000003.h5", bare / "checkpoints")
    assert compare(begun, bare, status=1).endswith("routing.h5 is in A only\ndifferent\n")


def test_traces_of_one_run_alone(launch: Launch, made: TinyRun, reference: Path) -> None:
    train(launch, made, "traced", (1, 1, 1), "--statistics.trace_every=2")
    traced = made.folder / "traced"
    # The other was told to leave none.
    said = compare(reference, traced, status=0)
    assert "note: traces.h5 is in B only\n" in said
    lost = Path(shutil.copytree(traced, made.folder / "lost"))
    (lost / "traces.h5").unlink()
    assert compare(lost, traced, status=1) == "traces.h5 is in B only\ndifferent\n"


def test_bad_input(reference: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert f"{missing}: no such file" in compare(reference / "training.h5", missing, status=2)
    for pair in ((reference, missing), (missing, reference), (missing, missing)):
        said = compare(*pair, status=2)
        assert f"compare.py: {missing}: no such file or folder; expected an output dir" in said
    assert "have no step in common" in compare(reference, tmp_path, status=2)
    assert "two output directories or two files" in compare(
        reference, reference / "training.h5", status=2
    )
    (tmp_path / "text.h5").write_text("no HDF5\n")
    assert "not an HDF5 file" in compare(reference / "training.h5", tmp_path / "text.h5", status=2)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    assert f"{tmp_path / 'other.h5'}: expected a training.h5" in compare(
        reference / "training.h5", tmp_path / "other.h5", status=2
    )
    assert "expected a training.h5" in compare(
        reference / "training.h5", reference / "routing.h5", status=2
    )
    cut = tmp_path / "cut.h5"
    whole = (reference / "checkpoints/step_00000006.h5").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    compare(reference / "checkpoints/step_00000006.h5", cut, status=2)


def test_keys_without_result_are_those_of_the_deck(launch: Launch) -> None:
    free, section = set(), ""
    for line in launch(1, "keys").stdout.splitlines():
        if match := re.fullmatch(r"## \[(\w+)\]", line):
            section = match[1]
        elif match := re.match(r"\| `(\w+)` (?:\|[^|]*){3}\| yes \|", line):
            free.add(f"{section}.{match[1]}")
    assert free, "the manual has another form"
    assert set(WITHOUT_RESULT) <= free
