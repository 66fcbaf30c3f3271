"""What the whole-program tests share: the program, a launcher and a tiny run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "preprocess"))

from indexed_dataset import Writer  # noqa: E402

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
            env={**os.environ, **environment},
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


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRun:
    """A fresh tiny run in a folder of its own."""
    write_source(tmp_path / "even", 1, 64, 2)
    write_source(tmp_path / "odd", 2, 64, 3)
    output = tmp_path / "output"
    deck = tmp_path / "tiny.deck"
    deck.write_text(DECK.format(output=output, folder=tmp_path))
    return TinyRun(tmp_path, deck, output)


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every dataset outside /timing, and the checksums of a checkpoint's tensors."""
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("timing"):
            arrays[name] = item[()]
            if "checksum" in item.attrs:
                arrays[name + "/checksum"] = np.asarray(item.attrs["checksum"])

    with h5py.File(path) as file:
        file.visititems(visit)
    return arrays


def assert_same_run(one: Path, other: Path, step: int = 6) -> None:
    """Weights, moments and statistics after the step are the same, to the bit."""
    for file in ("training.h5", "routing.h5", f"checkpoints/step_{step:08}.h5"):
        a, b = contents(one / file), contents(other / file)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].tobytes() == b[name].tobytes() or (
                a[name].dtype == object and list(a[name]) == list(b[name])
            ), f"{file}: {name}"
