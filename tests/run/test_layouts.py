"""The promise: weights and statistics are bitwise the same on any layout, through restarts."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Launch, TinyRun, assert_same_run, contents

# ranks, expert_ranks, threads a rank
LAYOUTS = [(1, 1, 2), (2, 1, 1), (2, 2, 2), (3, 1, 1), (3, 3, 1), (4, 2, 1), (4, 4, 2), (8, 8, 1)]


def checksum(stderr: str) -> str:
    """The checksum of the weights that the program ends with."""
    found = re.findall(r"weights checksum ([0-9a-f]{16})", stderr)
    assert found, stderr
    return found[-1]


def train(
    launch: Launch, tiny: TinyRun, name: str, layout: tuple[int, int, int], *more: str
) -> str:
    """Trains into <folder>/<name>; returns the program's last checksum."""
    ranks, expert_ranks, threads = layout
    finished = launch(
        ranks,
        "train",
        str(tiny.deck),
        f"--run.output={tiny.folder / name}",
        f"--parallel.expert_ranks={expert_ranks}",
        *more,
        OMP_NUM_THREADS=str(threads),
    )
    assert finished.returncode in (0, 75), finished.stderr
    return checksum(finished.stderr)


def test_any_layout(launch: Launch, tiny: TinyRun) -> None:
    expected = train(launch, tiny, "reference", (1, 1, 1))
    for layout in LAYOUTS:
        name = "-".join(map(str, layout))
        assert train(launch, tiny, name, layout) == expected, layout
        assert_same_run(tiny.folder / "reference", tiny.folder / name)


def test_any_layout_in_bfloat16(launch: Launch, tiny: TinyRun) -> None:
    bf16 = "--model.compute_type=bf16"
    expected = train(launch, tiny, "reference", (1, 1, 1), bf16)
    assert expected != train(launch, tiny, "wide", (1, 1, 1))
    for layout in [(1, 1, 2), (2, 1, 1), (3, 3, 1), (4, 2, 2)]:
        name = "-".join(map(str, layout))
        assert train(launch, tiny, name, layout, bf16) == expected, layout
        assert_same_run(tiny.folder / "reference", tiny.folder / name)


@pytest.mark.parametrize("compute_type", ["fp32", "bf16"])
def test_restart_on_another_layout(launch: Launch, tiny: TinyRun, compute_type: str) -> None:
    option = f"--model.compute_type={compute_type}"
    expected = train(launch, tiny, "reference", (1, 1, 1), option)
    train(launch, tiny, "restarted", (2, 2, 1), option, "--run.stop_step=3")
    assert train(launch, tiny, "restarted", (3, 3, 1), option) == expected
    assert_same_run(tiny.folder / "reference", tiny.folder / "restarted")


def test_running_blocks_again_changes_no_bit(launch: Launch, tiny: TinyRun) -> None:
    expected = train(launch, tiny, "reference", (1, 1, 1))
    for layout in [(1, 1, 1), (3, 3, 1)]:
        name = f"again-{layout[0]}"
        assert train(launch, tiny, name, layout, "--model.recompute=block") == expected, layout
        assert_same_run(tiny.folder / "reference", tiny.folder / name)


def test_a_stop_between_checkpoints_leaves_no_trace(launch: Launch, tiny: TinyRun) -> None:
    evaluate = "--evaluate.every_steps=2"
    expected = train(launch, tiny, "reference", (1, 1, 1), evaluate)
    # In the first period twice, in the second once: no stop is at a checkpoint of the deck.
    train(launch, tiny, "stopped", (2, 2, 1), evaluate, "--run.stop_step=1")
    train(launch, tiny, "stopped", (3, 1, 1), evaluate, "--run.stop_step=2")
    train(launch, tiny, "stopped", (1, 1, 2), evaluate, "--run.stop_step=5")
    assert train(launch, tiny, "stopped", (4, 2, 1), evaluate) == expected
    assert_same_run(tiny.folder / "reference", tiny.folder / "stopped")
    with h5py.File(tiny.folder / "stopped" / "routing.h5") as file:
        assert file["checkpoint"][:].tolist() == [3, 6]
    with h5py.File(tiny.folder / "stopped" / "training.h5") as file:
        assert file["validation_step"][:].tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    "change",
    [
        "--moe.experts=0",
        "--model.tie_embeddings=true",
        "--model.qk_norm=true",
        "--moe.shared_ffn=0",
        "--moe.experts=2 --moe.top_k=1",
        "--batch.cell_sequences=9",
        "--batch.global_batch=1 --batch.cell_sequences=1",
        "--model.sequence_length=1",
        "--model.compute_type=fp64",
        "--data.order=sequential",
    ],
)
def test_other_models_on_three_ranks(launch: Launch, tiny: TinyRun, change: str) -> None:
    options = change.split()
    assert train(launch, tiny, "one", (1, 1, 1), *options) == train(
        launch, tiny, "three", (3, 3, 1), *options
    )


def test_document_mask_on_three_ranks(launch: Launch, tiny: TinyRun) -> None:
    one = train(launch, tiny, "one", (1, 1, 1), "--model.document_mask=true")
    assert train(launch, tiny, "three", (3, 3, 1), "--model.document_mask=true") == one
    assert_same_run(tiny.folder / "one", tiny.folder / "three")


def test_document_mask_reaches_training_and_validation(launch: Launch, tiny: TinyRun) -> None:
    # Weights that stay as they are: only the mask can make a difference.
    still = ("--optimizer.learning_rate=0", "--optimizer.min_learning_rate=0")
    crossing = train(launch, tiny, "crossing", (1, 1, 1), *still)
    masked = train(launch, tiny, "masked", (1, 1, 1), *still, "--model.document_mask=true")
    assert masked == crossing
    a, b = (contents(tiny.folder / name / "training.h5") for name in ("crossing", "masked"))
    assert (a["cross_entropy"] != b["cross_entropy"]).all()
    assert (a["validation_loss"] != b["validation_loss"]).all()


def test_order_reaches_training(launch: Launch, tiny: TinyRun) -> None:
    shuffled = train(launch, tiny, "shuffled", (1, 1, 1))
    assert train(launch, tiny, "sequential", (1, 1, 1), "--data.order=sequential") != shuffled


def test_the_files_describe_themselves(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (2, 2, 1))
    with h5py.File(tiny.output / "routing.h5") as file:
        counts = file["expert_count"]
        assert [dim.label for dim in counts.dims] == ["interval", "layer", "expert"]
        assert counts.attrs["units"] in ("tokens", b"tokens")
        # Conservation: top_k copies of every token in every layer.
        copies = counts[:].sum(axis=2)
        assert (copies == 3 * file["tokens"][:][:, None]).all()
        assert (file["dropped"][:] == 0).all()
        # The diagonal of the co-activation counts each expert's tokens.
        pairs = file["coactivation"][:].sum(axis=0)
        assert (np.diagonal(pairs, axis1=1, axis2=2) == counts[:].sum(axis=0)).all()
        by_source = file["source_expert_count"][:].sum(axis=(0, 2))
        assert (by_source == counts[:].sum(axis=0)).all()
        by_token = file["token_expert_count"][:].sum(axis=(0, 2))
        assert (by_token == counts[:].sum(axis=0)).all()
        mass = file["probability_mass"][:].sum(axis=2)
        assert np.allclose(mass, file["tokens"][:][:, None], rtol=1e-6)
        choice = file["probe_choice"][:]
        assert (np.diff(choice, axis=-1) > 0).all()
    with h5py.File(tiny.output / "training.h5") as file:
        assert file["step"][:].tolist() == [1, 2, 3, 4, 5, 6]
        weighted = np.nansum(file["source_loss"][:] * file["source_tokens"][:], axis=1)
        assert np.allclose(weighted / file["tokens"][:], file["cross_entropy"][:], rtol=1e-9)
        assert file["cross_entropy"][-1] < file["cross_entropy"][0]


def test_manual_is_current(launch: Launch) -> None:
    manual = Path(__file__).resolve().parents[2] / "docs" / "deck.md"
    assert launch(1, "keys").stdout == manual.read_text(), "run: hearth keys > docs/deck.md"
