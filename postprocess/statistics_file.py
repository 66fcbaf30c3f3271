"""Reads the statistics files training.h5 and routing.h5; docs/file_formats.md has their layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from settings_comparison import text_attribute


class InputError(Exception):
    """The file or the request does not fit; the message is one line and says what would."""

    status = 2


def open_file(path: Path, kind: str) -> h5py.File:
    """For reading; `kind` is the name such files have, for messages."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a {kind}")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: not an HDF5 file; expected a {kind}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: damaged HDF5 file ({error})") from None


class StatisticsFile:
    """One open file; `kind` is the name such files have, for messages."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self._file = open_file(path, kind)

    def __enter__(self) -> StatisticsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def failure(self, message: str) -> InputError:
        return InputError(f"{self.path}: {message}")

    def __contains__(self, name: str) -> bool:
        return isinstance(self._file.get(name), h5py.Dataset)

    def dataset(self, name: str, axes: int) -> h5py.Dataset:
        """The dataset, not yet read: large tables are read by layer."""
        if name not in self:
            raise self.failure(f"no dataset '{name}'; expected a {self.kind}")
        dataset = self._file[name]
        if dataset.ndim != axes:
            raise self.failure(f"dataset '{name}' has {dataset.ndim} axes instead of {axes}")
        return dataset

    def read(self, name: str, axes: int) -> np.ndarray:
        return self.dataset(name, axes)[()]

    def axes(self, name: str) -> list[str]:
        """Names of the dataset's axes, in the file's order."""
        if name not in self:
            raise self.failure(f"no dataset '{name}'; expected a {self.kind}")
        return [axis.label for axis in self._file[name].dims]

    def array(self, name: str, axes: Sequence[str], **at: int) -> np.ndarray:
        """Along the named axes in this order, whatever the file's; `at`: positions on the others.

        Nothing is read but that. Throws where the dataset has other axes than these.
        """
        found = self.axes(name)
        if sorted(found) != sorted([*axes, *at]):
            wanted = ", ".join([*at, *axes])
            listed = ", ".join(label or "one without a name" for label in found)
            raise self.failure(f"dataset '{name}' has the axes ({listed}) instead of ({wanted})")
        values = self._file[name][tuple(at.get(label, slice(None)) for label in found)]
        left = [label for label in found if label not in at]
        return np.asarray(values).transpose([left.index(axis) for axis in axes])

    def attribute(self, name: str) -> str:
        """A text of the file as a whole; empty where there is none."""
        return text_attribute(self._file, name)

    def names(self, name: str) -> list[str]:
        return [str(text) for text in self.dataset(name, 1).asstr()[()]]

    def rows(self, name: str, hint: str) -> np.ndarray:
        """The steps of a time axis, at least one."""
        steps = self.read(name, 1)
        if steps.size == 0:
            raise self.failure(f"'{name}' has no rows yet; {hint}")
        return steps

    def intervals(self) -> np.ndarray:
        return self.rows("interval", "one is written every statistics.every_steps steps")

    def checkpoints(self) -> np.ndarray:
        return self.rows("checkpoint", "one is written with each checkpoint")

    def span(self, row: int) -> str:
        """The steps that a checkpoint's row counts."""
        steps = self.checkpoints()
        first = steps[row - 1] + 1 if row > 0 else 1
        return f"steps {first:,} to {steps[row]:,}"

    def layers(self) -> np.ndarray:
        """Block numbers of the MoE layers."""
        layers = self.read("layer", 1)
        if layers.size == 0:
            raise self.failure("no MoE layers: a dense model routes nothing")
        return layers

    def chosen_layers(self, blocks: Sequence[int] | None) -> list[int]:
        """Positions of the blocks asked for; of the first, middle and last without a wish."""
        layers = self.layers().tolist()
        if blocks is None:
            return sorted({0, (len(layers) - 1) // 2, len(layers) - 1})
        for block in blocks:
            if block not in layers:
                listed = ", ".join(map(str, layers))
                raise self.failure(f"block {block} is no MoE layer; the layers are {listed}")
        return [layers.index(block) for block in blocks]
