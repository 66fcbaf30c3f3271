"""What the whole-program tests share: the program, a launcher and a tiny run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in ("preprocess", "postprocess"):
    sys.path.insert(0, str(ROOT / folder))

from compare import report  # noqa: E402
from indexed_dataset import Writer  # noqa: E402
from run_comparison import STATISTICS, compare_runs  # noqa: E402
from statistics_comparison import datasets  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: minutes; left out of ctest without -C slow")


Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def hearth() -> str:
    """Path of the program."""
    return os.environ.get("HEARTH", str(ROOT / "build/release/hearth"))


@pytest.fixture(scope="session")
def command(hearth: str) -> Callable[[int], list[str]]:
    """The command line that starts the program on a number of ranks."""

    def build(ranks: int) -> list[str]:
        return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), hearth]

    return build


@pytest.fixture(scope="session")
def launch(command: Callable[[int], list[str]]) -> Launch:
    """Runs the program to its end on `ranks` ranks."""

    def run(ranks: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command(ranks), *arguments],
            # Threads that wait do not spin: there are more of them than cores.
            env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@dataclass
class TinyRun:
    """A corpus of two sources and a deck of a model that trains in a second."""

    folder: Path
    deck: Path
    output: Path


DECK = """\
# A model with every part in small.
[run]
output = {output}
steps = 6
[model]
layers = 2
hidden = 24
heads = 4
kv_heads = 2
dense_ffn = 40
vocabulary = 64
sequence_length = 16
[moe]
experts = 7
top_k = 3
expert_ffn = 20
shared_ffn = 24
[batch]
# Five cells, the last one shorter: uneven over 2, 3 and 4 ranks.
global_batch = 9
cell_sequences = 2
[optimizer]
learning_rate = 1e-2
[data]
sources = even:{folder}/even
sources = odd:{folder}/odd
split = 80,20,0
[checkpoint]
every_steps = 3
[statistics]
every_steps = 2
probe_tokens = 64
"""


def write_source(prefix: Path, seed: int, vocabulary: int, step: int) -> None:
    """Documents of tokens that a model can learn something about: noisy counting by `step`."""
    random = np.random.default_rng(seed)
    with Writer(prefix, vocabulary) as writer:
        for _ in range(60):
            length = int(random.integers(10, 90))
            counting = random.integers(vocabulary) + step * np.arange(length)
            noise = random.integers(0, 2, size=length)
            writer.extend((counting + noise) % vocabulary, [length])


def make_tiny_run(folder: Path) -> TinyRun:
    """Writes its corpus and deck."""
    write_source(folder / "even", 1, 64, 2)
    write_source(folder / "odd", 2, 64, 3)
    output = folder / "output"
    deck = folder / "tiny.deck"
    deck.write_text(DECK.format(output=output, folder=folder))
    return TinyRun(folder, deck, output)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRun:
    """A fresh tiny run in a folder of its own."""
    return make_tiny_run(tmp_path)


# ranks, expert_ranks, threads a rank
Layout = tuple[int, int, int]


def train(launch: Launch, tiny: TinyRun, name: str, layout: Layout, *more: str) -> str:
    """Trains into <folder>/<name>; returns the checksum of the weights that it ends with."""
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
    found = re.findall(r"weights checksum ([0-9a-f]{16})", finished.stderr)
    assert found, finished.stderr
    return found[-1]


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every dataset outside /timing."""
    with h5py.File(path) as file:
        return {name: dataset[()] for name, dataset in datasets(file).items()}


def assert_same_run(one: Path, other: Path, step: int = 6) -> None:
    """Every row of statistics, and the checkpoints of both, the step's among them, are the same."""
    comparison = compare_runs(one, other)
    assert comparison.same, "\n".join(report(comparison))
    assert comparison.statistics.keys() == set(STATISTICS)
    for statistics in comparison.statistics.values():
        assert not statistics.notes
    assert step in [checkpoint.step for checkpoint in comparison.checkpoints]
