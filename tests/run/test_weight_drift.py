"""statistics.drift: how far experts moved, held against the weights in the checkpoints."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Launch, TinyRun, assert_same_run, train

DRIFT = "--statistics.drift=true"
STILL = ("--optimizer.learning_rate=0", "--optimizer.min_learning_rate=0")
MEASURES = ("norm", "drift", "start_norm", "start_drift")
# Two layers with different numbers of experts, of which light ones have no matrices, and matrices
# of several blocks of 4096 elements.
MODEL = (
    "--moe.dense_layers=0",
    "--moe.experts=7,4",
    "--moe.copy_experts=1",
    "--moe.expert_ffn=200",
    "--model.hidden=48",
)
EXPERTS, DESTINATIONS = (7, 4), 8


def measures(output: Path) -> dict[str, np.ndarray]:
    """(checkpoints, layers, experts) each"""
    with h5py.File(output / "routing.h5") as file:
        for kind in ("expert", "router"):
            for name in MEASURES:
                dataset = file[f"{kind}_{name}"]
                assert [dim.label for dim in dataset.dims] == ["checkpoint", "layer", "expert"]
                assert dataset.attrs["units"] in ("1", b"1")
        return {f"{k}_{n}": file[f"{k}_{n}"][:] for k in ("expert", "router") for n in MEASURES}


def weights(output: Path, step: int) -> dict[str, list[list[np.ndarray]]]:
    """By kind and layer, what each expert has, in one row."""
    with h5py.File(output / f"checkpoints/step_{step:08}.h5") as file:
        found: dict[str, list[list[np.ndarray]]] = {"expert": [], "router": []}
        for layer in range(len(EXPERTS)):
            group = file[f"model/layers/{layer:02}"]
            matrices = [
                group[f"experts/{name}"][:].astype(float) for name in ("gate", "up", "down")
            ]
            found["expert"].append(
                [np.concatenate([m[e].ravel() for m in matrices]) for e in range(EXPERTS[layer])]
            )
            found["router"].append(list(group["router/weight"][:].astype(float)))
        return found


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp64"])
def test_drift_is_that_of_the_checkpoints(launch: Launch, tiny: TinyRun, kind: str) -> None:
    options = (*MODEL, DRIFT, f"--model.compute_type={kind}", "--checkpoint.every_steps=2")
    train(launch, tiny, "run", (2, 2, 1), *options)
    train(launch, tiny, "still", (1, 1, 1), *options, *STILL)
    start = weights(tiny.folder / "still", 2)  # the first ones: nothing has changed them
    rows = [weights(tiny.folder / "run", step) for step in (2, 4, 6)]
    found = measures(tiny.folder / "run")
    for values in found.values():
        assert values.shape == (3, len(EXPERTS), DESTINATIONS)
    for which in ("expert", "router"):
        for row, now in enumerate(rows):
            before = rows[row - 1] if row > 0 else start
            for layer in range(len(EXPERTS)):
                for e in range(DESTINATIONS):
                    got = [found[f"{which}_{name}"][row, layer, e] for name in MEASURES]
                    if e >= len(now[which][layer]):
                        assert np.isnan(got).all()
                        continue
                    w, then, first = (x[which][layer][e] for x in (now, before, start))
                    expected = [np.linalg.norm(v) for v in (w, w - then, first, w - first)]
                    np.testing.assert_allclose(got, expected, rtol=1e-11)
                    assert min(expected) > 0
    assert (measures(tiny.folder / "still")["expert_drift"][:, 0, :7] == 0).all()


def test_drift_changes_nothing_else(launch: Launch, tiny: TinyRun) -> None:
    plain = train(launch, tiny, "plain", (1, 1, 1))
    assert train(launch, tiny, "drift", (1, 1, 1), DRIFT) == plain
    with h5py.File(tiny.folder / "plain" / "routing.h5") as file:
        assert not any("drift" in name for name in file)


@pytest.mark.parametrize("background", ["true", "false"])
def test_drift_through_stops_on_any_layout(launch: Launch, tiny: TinyRun, background: str) -> None:
    # A checkpoint between two rows has the weights of the row before, since files of rows may be
    # gone by then.
    options = (*MODEL, DRIFT, "--checkpoint.keep=1", f"--checkpoint.background={background}")
    expected = train(launch, tiny, "one", (1, 1, 1), *options)
    train(launch, tiny, "other", (3, 3, 1), *options, "--run.stop_step=1")
    train(launch, tiny, "other", (4, 2, 2), *options, "--run.stop_step=5")
    files = list((tiny.folder / "other" / "checkpoints").iterdir())
    assert [file.name for file in files] == ["step_00000005.h5"]
    with h5py.File(files[0]) as file:
        assert "row_before" in file
    assert train(launch, tiny, "other", (2, 1, 1), *options) == expected
    assert_same_run(tiny.folder / "one", tiny.folder / "other")
    with h5py.File(tiny.folder / "other" / "checkpoints/step_00000006.h5") as file:
        assert "row_before" not in file
    # Stopped at a row, too.
    train(launch, tiny, "at-row", (2, 2, 1), *options, "--run.stop_step=3")
    assert train(launch, tiny, "at-row", (1, 1, 2), *options) == expected
    assert_same_run(tiny.folder / "one", tiny.folder / "at-row")


def test_routers_without_weights_have_no_drift(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 1), DRIFT, "--moe.router=hash")
    found = measures(tiny.output)
    for name in MEASURES:
        assert np.isnan(found[f"router_{name}"]).all()
        assert (found[f"expert_{name}"] > 0).all()


def test_the_first_weights_of_a_model_made_of_another_are_not_known(
    launch: Launch, tiny: TinyRun
) -> None:
    train(launch, tiny, "output", (1, 1, 1), DRIFT)
    made = tiny.folder / "made"
    pruned = launch(1, "prune", str(tiny.deck), DRIFT, "--experts=5", f"--output={made}")
    assert pruned.returncode == 0, pruned.stderr
    deck = str(made / "run.deck")
    for stop in (1, 6):  # through a stop before the first row
        finished = launch(1, "train", deck, f"--run.stop_step={stop}")
        assert finished.returncode in (0, 75), finished.stderr
    found = measures(made)
    assert np.isnan(found["expert_start_norm"]).all()
    assert np.isnan(found["router_start_drift"]).all()
    assert (found["expert_drift"] > 0).all() and (found["router_norm"] > 0).all()
    with (
        h5py.File(made / "checkpoints/step_00000000.h5") as first,
        h5py.File(made / "checkpoints/step_00000003.h5") as row,
    ):
        names = [f"model/layers/01/experts/{name}" for name in ("gate", "up", "down")]
        square = sum(
            ((row[name][:].astype(float) - first[name][:]) ** 2).sum((1, 2)) for name in names
        )
    np.testing.assert_allclose(found["expert_drift"][0, 0], np.sqrt(square), rtol=1e-6)


def test_a_resumed_run_keeps_the_key(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 1), "--run.stop_step=1")
    finished = launch(1, "train", str(tiny.deck), DRIFT)
    assert finished.returncode == 2, finished.stderr
    assert "statistics.drift" in finished.stderr


def test_check_prints_what_is_kept(launch: Launch, tiny: TinyRun) -> None:
    options = ("check", str(tiny.deck), "--model.vocabulary=1048576")
    line = "weights of the last row of statistics there, GiB: "
    # Embedding and head, (2^20, 24) each, in single precision.
    assert f"{line}0.18" in launch(1, *options, DRIFT).stdout
    assert f"{line}0.09" in launch(1, *options, DRIFT, "--ranks=2").stdout
    assert line not in launch(1, *options).stdout
