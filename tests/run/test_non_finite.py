"""Steps whose loss or gradient is not finite: what the run says about them, and skipping them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Launch, TinyRun, assert_same_run, contents
from tiny_run import write_source

from checkpoint_comparison import checksum

NAN = float("nan")
# Finite in single precision, not finite once multiplied.
HUGE = 3e38


def edit(checkpoint: Path, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Changes a tensor of a checkpoint, and its checksum, as if the run had made it so."""
    with h5py.File(checkpoint, "r+") as file:
        dataset = file[name]
        values = dataset[...]
        change(values)
        dataset[...] = values
        dataset.attrs.modify("checksum", checksum(dataset))


def error_of(launch: Launch, ranks: int, *arguments: str) -> str:
    """The error that a run ends with; status 1."""
    finished = launch(ranks, "train", *arguments)
    assert finished.returncode == 1, finished.stderr
    (error,) = [line for line in finished.stderr.splitlines() if line.startswith("hearth: ")]
    return error


@pytest.fixture
def begun(launch: Launch, tiny: TinyRun) -> TinyRun:
    """A tiny run with a checkpoint at step 3."""
    finished = launch(1, "train", str(tiny.deck), "--run.stop_step=3")
    assert finished.returncode == 75, finished.stderr
    return tiny


def checkpoint_of(run: TinyRun, step: int = 3) -> Path:
    return run.output / "checkpoints" / f"step_{step:08}.h5"


@pytest.mark.parametrize(("tensor", "value"), [("gate", NAN), ("up", HUGE), ("down", NAN)])
def test_expert_is_named(launch: Launch, begun: TinyRun, tensor: str, value: float) -> None:
    name = f"layers/01/experts/{tensor}"

    def spoil(weights: np.ndarray) -> None:
        weights[3] = value

    edit(checkpoint_of(begun), f"/model/{name}", spoil)
    said = [error_of(launch, ranks, str(begun.deck)) for ranks in (1, 2, 3)]
    assert said[0].startswith("hearth: step 4: ")
    assert "values not finite from expert 3 of layer 1 on (" in said[0]
    named = f"weights not finite: {name} of expert 3 (480);" in said[0]
    assert named == (value is NAN)
    assert said[0] == said[1] == said[2]  # whatever the layout
    assert not checkpoint_of(begun, 4).exists() and not checkpoint_of(begun, 6).exists()
    with h5py.File(begun.output / "training.h5") as file:
        assert list(file["step"]) == [1, 2, 3]


def test_source_is_named(launch: Launch, begun: TinyRun) -> None:
    # Two sources without a common token; the embedding of one of the second's is not a number.
    folder = begun.folder
    write_source(folder / "low", 3, 32, 2)
    high = folder / "high"
    write_source(high, 4, 32, 3)
    tokens = np.fromfile(high.with_suffix(".bin"), dtype=token_type(high))
    (tokens + 32).astype(tokens.dtype).tofile(high.with_suffix(".bin"))
    output = folder / "other"
    deck = begun.deck.with_name("other.deck")
    deck.write_text(
        begun.deck.read_text()
        .replace(f"even:{folder}/even", f"low:{folder}/low")
        .replace(f"odd:{folder}/odd", f"high:{folder}/high")
        .replace(str(begun.output), str(output))
    )
    assert launch(1, "train", str(deck), "--run.stop_step=3").returncode == 75

    def spoil(weights: np.ndarray) -> None:
        weights[32:] = NAN

    edit(output / "checkpoints/step_00000003.h5", "/model/embedding/weight", spoil)
    error = error_of(launch, 2, str(deck))
    assert "weights not finite: embedding/weight (768); " in error
    assert "values not finite from the embedding on (" in error
    assert "; loss not finite: high (" in error and "low (" not in error
    # The first that backward meets come first.
    assert re.search(r"; gradient: head/weight \(\d+ not finite\), final_norm/weight \(", error)


def token_type(prefix: Path) -> np.dtype:
    """Of a token file, from its index: the codes of Megatron."""
    return np.dtype({4: np.int32, 8: np.uint16}[prefix.with_suffix(".idx").read_bytes()[17]])


def test_diverging_run(launch: Launch, tiny: TinyRun) -> None:
    rate = "--optimizer.learning_rate=1e18"
    said = [
        error_of(launch, ranks, str(tiny.deck), rate, f"--run.output={tiny.folder / str(ranks)}")
        for ranks in (1, 3)
    ]
    assert "lower optimizer.learning_rate" in said[0]
    assert said[0] == said[1]
    assert not list(tiny.folder.glob("*/checkpoints/*.h5*"))


def test_plain_sums_that_are_not_finite_are_named(launch: Launch, tiny: TinyRun) -> None:
    said = error_of(
        launch, 2, str(tiny.deck), "--optimizer.learning_rate=1e18", "--run.reproducible=false"
    )
    assert "gradient: head/weight (1536 not finite)" in said  # (64, 24): every element


def test_skip_limit(launch: Launch, begun: TinyRun) -> None:
    def spoil(weights: np.ndarray) -> None:
        weights[3] = HUGE

    edit(checkpoint_of(begun), "/model/layers/01/experts/up", spoil)
    skip = ("--optimizer.on_non_finite=skip", "--optimizer.skip_limit=4", "--run.steps=20")
    finished = launch(2, "train", str(begun.deck), *skip)
    assert finished.returncode == 1, finished.stderr
    lines = finished.stderr.splitlines()
    assert len([line for line in lines if "skipped: " in line]) == 3
    (error,) = [line for line in lines if line.startswith("hearth: ")]
    assert error.startswith("hearth: step 7: ") and "step 4 in a row" in error
    # The count goes through a restart.
    stopped = launch(1, "train", str(begun.deck), *skip, "--checkpoint.resume="
                     + str(checkpoint_of(begun)), "--run.stop_step=5")  # fmt: skip
    assert stopped.returncode == 75, stopped.stderr
    error = error_of(launch, 3, str(begun.deck), *skip)
    assert error.startswith("hearth: step 7: ") and "step 4 in a row" in error


RARE = 63
SKIPPING = ("--optimizer.on_non_finite=skip", "--run.steps=14", "--model.norm_epsilon=1e-30",
            "--statistics.every_steps=1", "--checkpoint.every_steps=1")  # fmt: skip


@pytest.fixture
def stumbling(launch: Launch, tiny: TinyRun) -> TinyRun:
    """A run at step 1 in which a step with a certain rare token has a gradient that is too large.

    That token's embedding is tiny, and so is the norm's epsilon: its gradient goes with 1 / |row|.
    """
    for name, step in (("even", 2), ("odd", 3)):
        write_source(tiny.folder / name, step, RARE, step)
        path = (tiny.folder / name).with_suffix(".bin")
        tokens = np.fromfile(path, dtype=token_type(tiny.folder / name))
        tokens[150::400] = RARE
        tokens.tofile(path)
    finished = launch(1, "train", str(tiny.deck), *SKIPPING, "--run.stop_step=1")
    assert finished.returncode == 75, finished.stderr
    first = checkpoint_of(tiny, 1)

    def shrink(weights: np.ndarray) -> None:
        weights[RARE] = np.linspace(1e-12, 2e-12, weights.shape[1])

    def forget(moments: np.ndarray) -> None:
        moments[RARE] = 0

    edit(first, "/model/embedding/weight", shrink)
    for moment in ("first_moment", "second_moment"):
        edit(first, f"/optimizer/{moment}/embedding/weight", forget)
    return tiny


def test_skipped_steps_leave_no_trace(launch: Launch, stumbling: TinyRun) -> None:
    tracing = "--statistics.trace_every=1"
    finished = launch(2, "train", str(stumbling.deck), *SKIPPING, tracing)
    assert finished.returncode == 0, finished.stderr
    with h5py.File(stumbling.output / "training.h5") as file:
        skipped = file["skipped"][:]
        loss, norm, rate = file["loss"][:], file["gradient_norm"][:], file["learning_rate"][:]
    assert 2 <= skipped.sum() <= 11, skipped
    assert np.isfinite(loss).all()  # the forward pass is finite
    assert (np.isnan(norm) == (skipped == 1)).all()

    said = [line for line in finished.stderr.splitlines() if " skipped: " in line]
    assert [int(line.split()[1]) for line in said] == list(1 + np.flatnonzero(skipped))

    lines = (stumbling.output / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in lines]
    assert [m["skipped"] for m in metrics] == list(skipped)
    assert [m["gradient_norm"] is None for m in metrics] == list(skipped == 1)

    with h5py.File(stumbling.output / "routing.h5") as file:
        for rows in ("interval", "checkpoint"):
            assert list(file[rows]) == list(range(1, 15))
        k, tokens = 3, 9 * 16
        for name, whole in (("tokens", tokens), ("expert_count", k * tokens),
                            ("source_expert_count", k * tokens), ("token_expert_count", k * tokens),
                            ("coactivation", k * k * tokens)):  # fmt: skip
            sums = file[name][:].reshape(14, -1).sum(axis=1)
            assert list(sums) == [0 if s else whole for s in skipped], name
        assert not file["dropped"][:].any()
        mass = file["probability_mass"][:].reshape(14, -1).sum(axis=1)
        np.testing.assert_allclose(mass, np.where(skipped, 0, tokens), rtol=1e-5)
    with h5py.File(stumbling.output / "traces.h5") as file:
        # Step 1 was done before the traces began.
        assert list(file["trace"]) == [step for step in range(2, 15) if not skipped[step - 1]]
        assert (file["choice"][:] >= 0).all()

    # Weights and moments stay; otherwise they take AdamW's step, whose correction counts updates.
    for step in range(2, 15):
        before, after = (contents(checkpoint_of(stumbling, s)) for s in (step - 1, step))
        names = [name for name in after if name.startswith(("model/", "optimizer/"))]
        changed = [name for name in names if before[name].tobytes() != after[name].tobytes()]
        assert bool(changed) == (not skipped[step - 1])
        if skipped[step - 1]:
            continue
        updates = step - skipped[:step].sum()
        w = before["model/head/weight"].astype(float)
        m, v = (after[f"optimizer/{n}_moment/head/weight"].astype(float)
                for n in ("first", "second"))  # fmt: skip
        direction = m / (1 - 0.9**updates) / (np.sqrt(v / (1 - 0.999**updates)) + 1e-8)
        expected = w - rate[step - 1] * (direction + 0.01 * w)
        np.testing.assert_allclose(after["model/head/weight"], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("stop", [4, 9])
def test_skipping_on_other_layouts_and_through_a_restart(
    launch: Launch, stumbling: TinyRun, stop: int
) -> None:
    start = checkpoint_of(stumbling, 1)
    whole, parts = stumbling.folder / "whole", stumbling.folder / "parts"
    for output in (whole, parts):
        (output / "checkpoints").mkdir(parents=True)
        for file in ("training.h5", "routing.h5", f"checkpoints/{start.name}"):
            (output / file).write_bytes((stumbling.output / file).read_bytes())
    deck = str(stumbling.deck)
    one = launch(1, "train", deck, *SKIPPING, f"--run.output={whole}")
    assert one.returncode == 0, one.stderr
    assert "skipped: " in one.stderr
    first = launch(2, "train", deck, *SKIPPING, f"--run.output={parts}", f"--run.stop_step={stop}")
    assert first.returncode == 75, first.stderr
    second = launch(3, "train", deck, *SKIPPING, f"--run.output={parts}", "--model.recompute=block")
    assert second.returncode == 0, second.stderr
    assert_same_run(whole, parts, 14)
