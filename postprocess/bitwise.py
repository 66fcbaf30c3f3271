"""Bitwise comparison of HDF5 datasets, a few megabytes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np

SLAB_BYTES = 16 << 20


@dataclass(frozen=True)
class Difference:
    """Of two arrays of one shape: how many elements differ and which is the first."""

    elements: int
    differing: int
    largest: float  # absolute difference; NaN where none is a number
    index: tuple[int, ...]
    values: tuple[object, object]  # at the index

    def text(self) -> str:
        a, b = self.values
        count = f"{self.differing} of {self.elements} elements differ"
        size = "" if np.isnan(self.largest) else f", by at most {self.largest:.3g}"
        where = f" at {self.index}" if self.index else ""
        if self.elements == 1:
            return f"{shown(a)} / {shown(b)}"
        return f"{count}{size}; the first{where}: {shown(a)} / {shown(b)}"


def shown(value: object) -> str:
    """A number with the digits that tell it from its neighbours; a checksum in hexadecimal."""
    if isinstance(value, np.uint64):
        return f"{int(value):016x}"
    if isinstance(value, np.generic):
        return str(value)
    return repr(value)


def differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays of one shape and type have other bits."""
    if a.dtype.kind == "f":
        bits = np.dtype(f"u{a.dtype.itemsize}")
        return np.asarray(a.view(bits) != b.view(bits))
    return np.asarray(a != b)


def mismatch(a: h5py.Dataset, b: h5py.Dataset, axes: slice = slice(None)) -> str | None:
    """Why two datasets cannot be compared element by element; `axes` are those that must agree."""
    if a.ndim != b.ndim or a.shape[axes] != b.shape[axes]:
        return f"shape {a.shape} / {b.shape}"
    if a.dtype != b.dtype:
        return f"type {a.dtype} / {b.dtype}"
    return None


def slabs(dataset: h5py.Dataset) -> Iterator[tuple[int, int]]:
    """Ranges of the first axis of a few megabytes each."""
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
    rows = max(1, SLAB_BYTES // row_bytes)
    for begin in range(0, dataset.shape[0], rows):
        yield begin, min(begin + rows, dataset.shape[0])


class Tally:
    """Gathers the Difference of arrays that are seen part by part."""

    def __init__(self) -> None:
        self._elements = self._differing = 0
        self._largest = np.nan
        self._first: tuple[tuple[int, ...], tuple[object, object]] | None = None

    def add(self, a: np.ndarray, b: np.ndarray, begin: int = 0) -> None:
        """Parts whose first axis begins at `begin` of the whole's."""
        where = differs(a, b)
        self._elements += a.size
        count = int(np.count_nonzero(where))
        if count == 0:
            return
        self._differing += count
        if a.dtype.kind in "fiu" and a.dtype != np.uint64:
            gap = np.abs(a[where].astype(float) - b[where].astype(float))
            self._largest = float(np.fmax.reduce(np.append(gap, self._largest)))
        if self._first is None:
            index = tuple(int(i) for i in np.argwhere(where)[0])
            values = (a[index], b[index])
            self._first = ((index[0] + begin, *index[1:]) if index else (), values)

    def difference(self) -> Difference | None:
        if self._first is None:
            return None
        index, values = self._first
        return Difference(self._elements, self._differing, self._largest, index, values)


def compare_arrays(a: np.ndarray, b: np.ndarray) -> Difference | None:
    """Of two arrays, or elements of arrays, of one shape and type; None: the same bits."""
    tally = Tally()
    tally.add(np.asarray(a), np.asarray(b))
    return tally.difference()


def compare_whole(a: h5py.Dataset, b: h5py.Dataset) -> Difference | None:
    """Of two datasets of one shape and type; None: the same bits."""
    if a.ndim == 0:
        return compare_arrays(a[()], b[()])
    tally = Tally()
    for begin, end in slabs(a):
        tally.add(a[begin:end], b[begin:end], begin)
    return tally.difference()
