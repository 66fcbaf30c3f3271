"""A run of a model that trains in a second, and the comparison of two such runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "preprocess"))

from indexed_dataset import Writer  # noqa: E402


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
    """Writes corpus and deck into a folder."""
    write_source(folder / "even", 1, 64, 2)
    write_source(folder / "odd", 2, 64, 3)
    output = folder / "output"
    deck = folder / "tiny.deck"
    deck.write_text(DECK.format(output=output, folder=folder))
    return TinyRun(folder, deck, output)


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every dataset outside /timing and /layout, and the checksums of a checkpoint's tensors."""
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(("timing", "layout")):
            arrays[name] = item[()]
            if "checksum" in item.attrs:
                arrays[name + "/checksum"] = np.asarray(item.attrs["checksum"])

    with h5py.File(path) as file:
        file.visititems(visit)
    return arrays


MISSING = "is not there"


def differences(one: Path, other: Path, step: int = 6) -> list[str]:
    """Where weights, moments or statistics of two output folders differ after a step, in any bit.

    A line "<file>: <dataset>" for each dataset that differs or that one of them has not, and one
    for a file that is not there.
    """
    found = []
    for file in ("training.h5", "routing.h5", f"checkpoints/step_{step:08}.h5"):
        if not ((one / file).exists() and (other / file).exists()):
            found.append(f"{file}: {MISSING}")
            continue
        a, b = contents(one / file), contents(other / file)
        for name in sorted(a.keys() | b.keys()):
            if name not in a or name not in b or not same(a[name], b[name]):
                found.append(f"{file}: {name}")
    return found


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal type, shape and bits; texts by their characters."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
