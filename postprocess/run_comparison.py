"""Two runs, or two files of runs, beside each other: settings, statistics, checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from checkpoint_comparison import CheckpointComparison, compare_checkpoints, is_checkpoint
from settings_comparison import deck, different_settings
from statistics_comparison import StatisticsComparison, compare_statistics
from statistics_file import InputError, open_file

STATISTICS = ("training.h5", "routing.h5")
TRACES = "traces.h5"  # of runs that trace
KIND = "training.h5, routing.h5, traces.h5 or checkpoint"


@dataclass
class RunComparison:
    settings: list[str] = field(default_factory=list)  # deck, version and data that differ
    statistics: dict[str, StatisticsComparison] = field(default_factory=dict)  # by file
    checkpoints: list[CheckpointComparison] = field(default_factory=list)  # to the first unlike
    lacking: list[str] = field(default_factory=list)  # files that one run alone has and both should
    notes: list[str] = field(default_factory=list)  # what was not compared

    @property
    def same(self) -> bool:
        parts = (*self.statistics.values(), *self.checkpoints)
        return not self.lacking and all(part.same for part in parts)

    @property
    def first_step(self) -> int | None:
        """The first step at which anything differs; None: nothing does, or nothing with a step."""
        steps = [part.rows[0].step for part in self.statistics.values() if part.rows]
        steps += [checkpoint.step for checkpoint in self.checkpoints if not checkpoint.same]
        return min(steps, default=None)

    @property
    def parted(self) -> CheckpointComparison | None:
        """The first checkpoint that differs."""
        return next((c for c in self.checkpoints if not c.same), None)


def compare_runs(a: Path, b: Path, trust: bool = False) -> RunComparison:
    """Output directories, or files of one kind. `trust`: do not read tensors of equal checksums.

    Throws InputError where a path is neither, or they have nothing in common.
    """
    for path in (a, b):
        if not path.exists():
            raise InputError(
                f"{path}: no such file or folder; expected an output directory, {KIND}"
            )
    result = RunComparison()
    if a.is_dir() and b.is_dir():
        _compare_folders(a, b, trust, result)
    elif a.is_dir() or b.is_dir():
        raise InputError(f"{a}, {b}: expected two output directories or two files")
    else:
        _compare_files(a, b, trust, result)
    if not result.checkpoints and not any(map(_compared, result.statistics.values())):
        detail = "; ".join([*result.lacking, *result.notes])
        raise InputError(f"{a}, {b}: have no step in common{': ' if detail else ''}{detail}")
    return result


def checkpoint_files(folder: Path) -> dict[int, Path]:
    """Whole checkpoints of an output directory by step."""
    found = {}
    for path in (folder / "checkpoints").glob("step_*.h5"):
        if match := re.fullmatch(r"step_(\d{8,})\.h5", path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _compared(statistics: StatisticsComparison) -> bool:
    return not statistics.same or any(steps.size for steps in statistics.common.values())


def _both(a: Path, b: Path, work: Callable[[h5py.File, h5py.File], None]) -> None:
    with open_file(a, KIND) as first, open_file(b, KIND) as second:
        try:
            work(first, second)
        except (OSError, RuntimeError, KeyError) as error:
            raise InputError(f"{a}, {b}: cannot be read: {error}") from None


def _compare_folders(a: Path, b: Path, trust: bool, result: RunComparison) -> None:
    for name in (*STATISTICS, TRACES):
        there = [(folder / name).is_file() for folder in (a, b)]
        if all(there):
            _compare_files(a / name, b / name, trust, result)
        elif any(there):
            expected = _should_have(b if there[0] else a, name)
            found = result.lacking if expected else result.notes
            found.append(f"{name} is in {'A' if there[0] else 'B'} only")
    first, second = checkpoint_files(a), checkpoint_files(b)
    common = sorted(first.keys() & second.keys())
    for step in common:
        if result.parted is not None:
            break
        _compare_files(first[step], second[step], trust, result)
    if first.keys() != second.keys():
        result.notes.append(
            f"checkpoints: A has {_steps(first)}, B {_steps(second)}; common are {_steps(common)}"
        )


def _should_have(folder: Path, name: str) -> bool:
    """Whether the run in the folder has made steps that such a file tells of."""
    if name == TRACES:
        if not (folder / STATISTICS[0]).is_file():
            return False  # it lacks more than that
        with open_file(folder / STATISTICS[0], KIND) as file:
            return deck(file).get("statistics.trace_every", ["0"]) != ["0"]
    statistics = any((folder / other).is_file() for other in STATISTICS)
    return statistics or any(step > 0 for step in checkpoint_files(folder))


def _steps(steps: dict[int, Path] | list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _compare_files(a: Path, b: Path, trust: bool, result: RunComparison) -> None:
    def work(first: h5py.File, second: h5py.File) -> None:
        kinds = [_kind(first), _kind(second)]
        if None in kinds or kinds[0] != kinds[1]:
            which = a if kinds[0] is None else b
            raise InputError(f"{which}: expected a {kinds[0] or KIND}")
        if not result.statistics and not result.checkpoints:
            result.settings = different_settings(first, second)
        if kinds[0] == "checkpoint":
            result.checkpoints.append(compare_checkpoints(first, second, trust))
        else:
            statistics = compare_statistics(first, second)
            result.statistics[kinds[0]] = statistics
            result.notes += [f"{kinds[0]}: {note}" for note in statistics.notes]

    _both(a, b, work)


def _kind(file: h5py.File) -> str | None:
    if is_checkpoint(file):
        return "checkpoint"
    of_axis = {"step": "training.h5", "interval": "routing.h5", "trace": TRACES}
    return next((kind for axis, kind in of_axis.items() if axis in file), None)
