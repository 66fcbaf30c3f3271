"""Counts by token id apart for two halves of the data: statistics.token_halves."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, Launch, TinyRun, assert_same_run, train

sys.path.insert(0, str(ROOT / "preprocess"))

from indexed_dataset import Reader  # noqa: E402

HALVES = "--statistics.token_halves=true"
LENGTH, VOCABULARY, TOP_K = 16, 64, 3  # of the tiny deck


def counts_of(output: Path) -> np.ndarray:
    with h5py.File(output / "routing.h5") as file:
        return file["token_expert_count"][:]


def test_halves_are_even_and_odd_samples_of_each_source(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (2, 2, 1), HALVES, "--data.order=sequential")
    with h5py.File(tiny.output / "routing.h5") as file:
        counts = file["token_expert_count"]
        labels = [dim.label for dim in counts.dims]
        assert labels == ["checkpoint", "layer", "half", "token", "expert"]
        assert [name.decode() for name in file["half"][:]] == ["even", "odd"]
        found = counts[:].sum(axis=(0, 4))  # (layer, half, token)
        occurrences = file["token_count"]
        assert [dim.label for dim in occurrences.dims] == ["checkpoint", "half", "token"]
        occurred = occurrences[:].sum(axis=0)  # (half, token)
    with h5py.File(tiny.output / "training.h5") as file:
        sequences = file["source_tokens"][:].sum(axis=0) // LENGTH
    # What was read: the first samples of each source, in the order of the file.
    expected = np.zeros((2, VOCABULARY), np.int64)
    for source, samples in zip(("even", "odd"), sequences, strict=True):
        reader = Reader(tiny.folder / source)
        tokens = np.concatenate([reader[i] for i in range(len(reader))])
        for sample in range(samples):
            of_sample = tokens[sample * LENGTH : (sample + 1) * LENGTH]
            expected[sample % 2] += np.bincount(of_sample, minlength=VOCABULARY)
    assert (found == TOP_K * expected).all()
    assert (occurred == expected).all()
    # A source is in both halves, whatever the order in which the sources take turns.
    assert abs(expected[0].sum() - expected[1].sum()) <= len(sequences) * LENGTH


def test_halves_change_nothing_else(launch: Launch, tiny: TinyRun) -> None:
    whole = train(launch, tiny, "whole", (1, 1, 1))
    assert train(launch, tiny, "halves", (1, 1, 1), HALVES) == whole
    halves = counts_of(tiny.folder / "halves")
    assert (halves.sum(axis=2) == counts_of(tiny.folder / "whole")).all()
    assert (halves.sum(axis=(0, 1, 3, 4)) > 0).all()


@pytest.mark.parametrize("layout", [(3, 3, 1), (4, 2, 2)])
def test_halves_on_any_layout_and_through_restarts(
    launch: Launch, tiny: TinyRun, layout: tuple[int, int, int]
) -> None:
    expected = train(launch, tiny, "one", (1, 1, 1), HALVES)
    train(launch, tiny, "other", layout, HALVES, "--run.stop_step=1")
    train(launch, tiny, "other", (2, 1, 1), HALVES, "--run.stop_step=5")
    assert train(launch, tiny, "other", layout, HALVES) == expected
    assert_same_run(tiny.folder / "one", tiny.folder / "other")


def test_a_resumed_run_keeps_the_halves(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 1), HALVES, "--run.stop_step=1")
    finished = launch(1, "train", str(tiny.deck), f"--run.output={tiny.output}")
    assert finished.returncode == 2, finished.stderr
    assert "statistics.token_halves" in finished.stderr


def test_without_counts_there_are_no_halves(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 1), HALVES, "--statistics.token_counts=false")
    with h5py.File(tiny.output / "routing.h5") as file:
        assert "token_expert_count" not in file and "half" not in file
