"""The promise on models of other kinds and through stops; test_matrix.py has the layouts."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Launch, TinyRun, assert_same_run, contents, train


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
        assert (np.diff(np.sort(choice, axis=-1), axis=-1) > 0).all()
    with h5py.File(tiny.output / "training.h5") as file:
        assert file["step"][:].tolist() == [1, 2, 3, 4, 5, 6]
        weighted = np.nansum(file["source_loss"][:] * file["source_tokens"][:], axis=1)
        assert np.allclose(weighted / file["tokens"][:], file["cross_entropy"][:], rtol=1e-9)
        assert file["cross_entropy"][-1] < file["cross_entropy"][0]


def test_the_checksum_of_the_weights_is_everywhere_the_same(launch: Launch, tiny: TinyRun) -> None:
    # Of every step, with steps that a run was taken up after.
    train(launch, tiny, "output", (2, 1, 1), "--checkpoint.every_steps=1", "--run.stop_step=2")
    last = train(launch, tiny, "output", (3, 3, 1), "--checkpoint.every_steps=1")
    with h5py.File(tiny.output / "training.h5") as file:
        column = file["weights_checksum"]
        assert column.dtype == np.uint64
        by_step = [f"{checksum:016x}" for checksum in column[:]]
    stored = []
    for step in range(1, 7):
        with h5py.File(tiny.output / f"checkpoints/step_{step:08}.h5") as file:
            stored.append(f"{file.attrs['weights_checksum']:016x}")
    metrics = [json.loads(line) for line in (tiny.output / "metrics.jsonl").open()]
    assert by_step == stored == [line["weights_checksum"] for line in metrics]
    assert by_step[-1] == last
    assert len(set(by_step)) == 6


def test_manual_is_current(launch: Launch) -> None:
    manual = Path(__file__).resolve().parents[2] / "docs" / "deck.md"
    assert launch(1, "keys").stdout == manual.read_text(), "run: hearth keys > docs/deck.md"


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_plain_sums_repeat_on_one_layout_and_train_alike(
    launch: Launch, tiny: TinyRun, kind: str
) -> None:
    exact = train(launch, tiny, "exact", (1, 1, 1), f"--model.compute_type={kind}")
    plain = (f"--model.compute_type={kind}", "--run.reproducible=false")
    for layout in [(1, 1, 2), (3, 3, 1), (4, 2, 1)]:
        names = [f"{layout[0]}-{turn}" for turn in range(2)]
        sums = [train(launch, tiny, name, layout, *plain) for name in names]
        assert sums[0] == sums[1], layout
        if kind == "fp32":
            assert sums[0] != exact, "gradients were summed as integers"
        a, b = (contents(tiny.folder / name / "training.h5") for name in ("exact", names[0]))
        np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-4)
        np.testing.assert_allclose(b["gradient_norm"], a["gradient_norm"], rtol=1e-3)
