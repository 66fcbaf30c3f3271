#!/usr/bin/env python3
"""Tells whether two runs are the same, bit for bit, and if not, where they part."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from run_comparison import RunComparison, compare_runs
from statistics_comparison import StatisticsComparison
from statistics_file import InputError

COLUMN = "weights_checksum"


def main() -> int:
    arguments = parser().parse_args()
    try:
        comparison = compare_runs(arguments.a, arguments.b, arguments.trust_checksums)
        for line in report(comparison, arguments.most):
            print(line)
        sys.stdout.flush()
    except InputError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:  # who reads the report, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0 if comparison.same else 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description="Compares two runs bit for bit: their statistics by step and the tensors of "
        "their checkpoints. Where they part it names the step, the dataset and row, and the "
        "tensors of the first checkpoint that differs. Timings and layout are left aside; of runs "
        "of different lengths the common steps are compared. A statistics file that one run alone "
        "has is a difference.",
        epilog="Exit status: 0 the same, 1 different, 2 bad input.",
    )
    kind = "output directory, training.h5, routing.h5, traces.h5 or checkpoint"
    top.add_argument("a", type=Path, metavar="A", help=kind)
    top.add_argument("b", type=Path, metavar="B", help="the same of another run")
    top.add_argument(
        "--trust-checksums",
        action="store_true",
        help="do not read tensors whose stored checksums agree; fast, and blind to damaged files",
    )
    top.add_argument(
        "--most",
        type=_count,
        default=10,
        metavar="N",
        help="lines for datasets and tensors that differ (default 10; 0: all)",
    )
    return top


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 or more")
    return number


def report(comparison: RunComparison, most: int = 10) -> Iterator[str]:
    """Lines for people; values are A's / B's."""
    yield from (f"note: {note}" for note in comparison.notes)
    yield from (f"setting: {setting}" for setting in comparison.settings)
    yield from comparison.lacking
    for name, statistics in comparison.statistics.items():
        yield from _statistics_lines(name, statistics, most)
    parted = comparison.parted
    if parted is not None:
        count = len(parted.differences)
        yield f"checkpoint of step {parted.step}: {count} of {parted.tensors} datasets differ"
        lines = [f"  {tensor.name}: {tensor.text}" for tensor in parted.differences]
        yield from _first(lines, most)
    if comparison.same:
        yield f"the same, bit for bit: {_extent(comparison)}"
    elif comparison.first_step is None:
        yield "different"
    else:
        yield f"different from step {comparison.first_step} on"


def _statistics_lines(name: str, statistics: StatisticsComparison, most: int) -> Iterator[str]:
    column = [row for row in statistics.rows if row.dataset == COLUMN]
    for row in column:
        yield f"{name}: weights part at step {row.step}: {row.difference.text()}"
    if statistics.same:
        return
    rows = [row for row in statistics.rows if row.dataset != COLUMN]
    lines = [
        f"  step {row.step}, row {_row(row.row)}, {row.dataset}: {row.difference.text()}"
        for row in rows
    ]
    if lines or statistics.others:
        yield f"{name}: the first row of each dataset that differs"
    yield from _first([*(f"  {text}" for text in statistics.others), *lines], most)


def _row(rows: tuple[int, int]) -> str:
    return str(rows[0]) if rows[0] == rows[1] else f"{rows[0]} / {rows[1]}"


def _first(lines: list[str], most: int) -> Iterator[str]:
    shown = len(lines) if most == 0 else most
    yield from lines[:shown]
    if len(lines) > shown:
        yield f"  and {len(lines) - shown} more (--most 0 lists them)"


def _extent(comparison: RunComparison) -> str:
    parts = []
    for name, statistics in comparison.statistics.items():
        rows = [f"{steps.size} of {axis}" for axis, steps in statistics.common.items()]
        parts.append(f"{name} ({', '.join(rows)})")
    if comparison.checkpoints:
        steps = ", ".join(str(checkpoint.step) for checkpoint in comparison.checkpoints)
        parts.append(f"checkpoints {steps}")
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
