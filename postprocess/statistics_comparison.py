"""Where training.h5, routing.h5 or traces.h5 of two runs part: the first step of each dataset."""

from __future__ import annotations

from dataclasses import dataclass, field

import h5py
import numpy as np

from bitwise import Difference, compare_arrays, compare_whole, differs, mismatch, slabs

# Axes of steps. Rows along some are sums over the steps since the row before.
STEP_AXES = ("step", "validation_step", "interval", "checkpoint", "trace")
AXES_OF_SUMS = ("interval", "checkpoint")
NOT_COMPARED = ("timing", "layout")  # groups; never the same twice, or of the layout itself


@dataclass(frozen=True)
class RowDifference:
    """The first row of a dataset that differs."""

    dataset: str
    step: int
    row: tuple[int, int]  # in either file
    difference: Difference


@dataclass
class StatisticsComparison:
    """Of two files of one name."""

    rows: list[RowDifference] = field(default_factory=list)  # by step
    others: list[str] = field(default_factory=list)  # differences without a step
    notes: list[str] = field(default_factory=list)  # what was not compared
    common: dict[str, np.ndarray] = field(default_factory=dict)  # axis: steps in both

    @property
    def same(self) -> bool:
        return not self.rows and not self.others


def compare_statistics(a: h5py.File, b: h5py.File) -> StatisticsComparison:
    """Rows are matched by step; rows that one file alone has are a note."""
    result = StatisticsComparison()
    first, second = datasets(a), datasets(b)
    for name in [*first, *(name for name in second if name not in first)]:
        if name not in first or name not in second:
            result.others.append(f"{name} is in {'B' if name in second else 'A'} only")
            continue
        axis = step_axis(first[name])
        if axis is None:
            _compare_fixed(name, first[name], second[name], result)
        elif axis == name:
            _match(axis, first[name][()], second[name][()], result)
        else:
            steps = (a[axis][()], b[axis][()])
            _compare_rows(name, axis, first[name], second[name], steps, result)
    result.rows.sort(key=lambda row: row.step)
    return result


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and name.split("/")[0] not in NOT_COMPARED:
            found[name] = item

    file.visititems(visit)
    return found


def step_axis(dataset: h5py.Dataset) -> str | None:
    label = dataset.dims[0].label if dataset.ndim > 0 else ""
    return label if label in STEP_AXES else None


def matched_rows(axis: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both that tell of the same steps."""
    steps, rows_a, rows_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    if axis not in AXES_OF_SUMS or steps.size == 0:
        return rows_a, rows_b
    before_a, before_b = np.append(0, a)[rows_a], np.append(0, b)[rows_b]
    same = before_a == before_b
    return rows_a[same], rows_b[same]


def _match(axis: str, a: np.ndarray, b: np.ndarray, result: StatisticsComparison) -> None:
    rows, _ = matched_rows(axis, a, b)
    result.common[axis] = a[rows]
    if rows.size == a.size == b.size:
        return
    result.notes.append(
        f"{axis}: A has {a.size} rows{_span(a)}, B {b.size}{_span(b)}; "
        f"{rows.size} that are about the same steps are compared"
    )


def _span(steps: np.ndarray) -> str:
    return f" ({steps[0]} to {steps[-1]})" if steps.size else ""


def _compare_fixed(
    name: str, a: h5py.Dataset, b: h5py.Dataset, result: StatisticsComparison
) -> None:
    problem = mismatch(a, b)
    if problem is None:
        difference = compare_whole(a, b)
        problem = None if difference is None else difference.text()
    if problem is not None:
        result.others.append(f"{name}: {problem}")


def _compare_rows(
    name: str,
    axis: str,
    a: h5py.Dataset,
    b: h5py.Dataset,
    steps: tuple[np.ndarray, np.ndarray],
    result: StatisticsComparison,
) -> None:
    problem = mismatch(a, b, slice(1, None))
    if problem is not None:
        result.others.append(f"{name}: {problem}")
        return
    rows_a, rows_b = matched_rows(axis, *steps)
    for begin, end in slabs(a):
        chosen = (rows_a >= begin) & (rows_a < end)
        if not chosen.any():
            continue
        in_a, in_b = rows_a[chosen], rows_b[chosen]
        part_a = a[begin:end][in_a - begin]
        part_b = b[in_b[0] : in_b[-1] + 1][in_b - in_b[0]]
        parted = differs(part_a, part_b).reshape(len(in_a), -1).any(axis=1)
        if parted.any():
            i = int(parted.argmax())
            row = (int(in_a[i]), int(in_b[i]))
            difference = compare_arrays(part_a[i], part_b[i])
            assert difference is not None
            result.rows.append(RowDifference(name, int(steps[0][row[0]]), row, difference))
            return
