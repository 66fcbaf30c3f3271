"""Which tensors of two checkpoints differ, and whether one of them is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import h5py
import numpy as np

from bitwise import Difference, compare_whole, mismatch, slabs
from settings_comparison import deck, text_attribute

FORMAT = "hearth checkpoint"
# Sums over unfinished intervals: of the same steps where the deck has the same intervals. A
# checkpoint where none was open lacks some.
OPEN_STATISTICS = "/statistics/"
INTERVALS = ("statistics.every_steps", "checkpoint.every_steps")


@dataclass(frozen=True)
class TensorDifference:
    name: str  # "/model/layers/01/experts/gate"
    text: str


@dataclass
class CheckpointComparison:
    step: int
    tensors: int = 0  # compared
    differences: list[TensorDifference] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return not self.differences


def is_checkpoint(file: h5py.File) -> bool:
    return text_attribute(file, "format") == FORMAT


def compare_checkpoints(a: h5py.File, b: h5py.File, trust: bool) -> CheckpointComparison:
    """With `trust`, tensors whose stored checksums agree are not read."""
    result = CheckpointComparison(int(a.attrs["step"]))
    if a.attrs["step"] != b.attrs["step"]:
        text = f"after {a.attrs['step']} / {b.attrs['step']} steps"
        result.differences.append(TensorDifference("/", text))
    decks = deck(a), deck(b)
    alike = all(decks[0].get(key) == decks[1].get(key) for key in INTERVALS)
    first, second = dict(tensors(a)), dict(tensors(b))
    for name in [*first, *(name for name in second if name not in first)]:
        both = name in first and name in second
        if name.startswith(OPEN_STATISTICS) and not (both and alike):
            continue
        if both:
            result.tensors += 1
            text = _difference(first[name], second[name], trust)
        else:
            text = f"is in {'A' if name in first else 'B'} only"
        if text:
            result.differences.append(TensorDifference(name, text))
    return result


def tensors(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Weights, moments, open statistics."""
    found: list[tuple[str, h5py.Dataset]] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found.append((f"/{name}", item))

    file.visititems(visit)
    return iter(found)


def _difference(a: h5py.Dataset, b: h5py.Dataset, trust: bool) -> str:
    problem = mismatch(a, b)
    if problem is not None:
        return problem
    stored = (a.attrs.get("checksum"), b.attrs.get("checksum"))
    agree = stored[0] is not None and stored[0] == stored[1]
    if agree and trust:
        return ""
    difference = compare_whole(a, b)
    if difference is None and agree:
        return ""
    return _text(difference) + "".join(
        f"; {side} is damaged: its checksum is another" if checksum(data) != value else ""
        for side, data, value in (("A", a, stored[0]), ("B", b, stored[1]))
        if value is not None
    )


def _text(difference: Difference | None) -> str:
    return "checksums differ, elements do not" if difference is None else difference.text()


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, as in src/base/hash.hpp."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def checksum(dataset: h5py.Dataset) -> np.uint64:
    """What the attribute `checksum` of an undamaged dataset holds (docs/file_formats.md)."""
    tile, one = np.uint64(512), np.uint64(1)
    total, begin_element = 0, 0
    for begin, end in slabs(dataset):
        values = dataset[begin:end].ravel()
        bits = values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
        index = np.arange(begin_element, begin_element + bits.size, dtype=np.uint64)
        keys = (mix(index % tile) | one) * (mix(tile + index // tile) | one)
        total += int((keys * bits).sum(dtype=np.uint64))
        begin_element += bits.size
    return np.uint64(total % 2**64)
