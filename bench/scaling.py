#!/usr/bin/env python3
"""Measures how the time of a training step grows: with ranks, and with work.

Ranks: strong scaling (the same cells on more ranks) and weak scaling (as many cells a rank), for
experts on every rank and shared out over all ranks. More ranks than cores share them; efficiency
counts cores then. "Side by side" are independent runs of one rank, one for each core, which do not
talk to each other: what they lose, the machine loses.

Work: one rank; tokens of a cell, length of a sequence, experts, top_k and layers one at a time.

Each rank is a process of one thread. Every time is the median of a run's steps after the warm-up.
The JSON file holds all times and phases; bench/predict.py reads it, and --report prints its tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import power_law
from deck_model import InputError, Model, read_deck
from hearth_runs import (
    PHASES,
    ROOT,
    Failure,
    Launcher,
    Layout,
    Run,
    read_json,
    scratch_folder,
)
from launching import environment, mpi_command
from markdown_table import table
from measure.tokens import write_zipf

Settings = dict[str, int]
ALONE = Layout()


@dataclass(frozen=True)
class Axis:
    """Work that grows along one key of the deck."""

    name: str
    expected: str  # exponent
    settings: list[Settings]
    sizes: list[int]


def parse(text: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "deck", type=Path, nargs="?", default=ROOT / "inputs/flame-38m.deck", help="%(default)s"
    )
    parser.add_argument("--sequence-length", type=int, default=512, help="tokens (%(default)s)")
    parser.add_argument("--cells", type=int, default=4, help="of strong scaling (%(default)s)")
    parser.add_argument("--cells-a-rank", type=int, default=2, help="of weak scaling (%(default)s)")
    parser.add_argument("--ranks", default="1,2,4", help="numbers of ranks (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a run (%(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="steps before (%(default)s)")
    parser.add_argument("--compute-type", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--only", choices=("ranks", "work"), help="one half of it")
    parser.add_argument("--hearth", type=Path, default=ROOT / "build/release/hearth")
    parser.add_argument("--scratch", type=Path, help="parent folder of the runs' outputs")
    parser.add_argument(
        "--output", type=Path, default=Path("scaling.json"), help="JSON; figures beside it"
    )
    parser.add_argument("--report", type=Path, metavar="JSON", help="measure nothing, print this")
    parser.add_argument("--markdown", action="store_true", help="print as docs/performance.md does")
    arguments = parser.parse_args(text)
    if arguments.cells < 1 or arguments.steps < 1 or arguments.warmup < 1:
        parser.error("cells, steps and warm-up are 1 or more")
    return arguments


def batch(cells: int, cell_sequences: int = 1) -> Settings:
    return {
        "batch.global_batch": cells * cell_sequences,
        "batch.cell_sequences": cell_sequences,
    }


def changed(base: Settings, key: str, value: int, of_deck: int) -> Settings:
    """Settings are equal where runs are, so that these are made once."""
    return base if value == of_deck else {**base, key: value}


def axes_of_work(model: Model, length: int) -> list[Axis]:
    """Four or five points of each size, over a factor of eight or more."""
    shorter = {"model.sequence_length": length // 2}
    base = {**shorter, **batch(1, 4)}
    sequences = [1, 2, 4, 8, 16]
    lengths = [length // 2, length, 2 * length, 4 * length]
    axes = [
        Axis(
            "tokens of a cell",
            "1",
            [{**shorter, **batch(1, n)} for n in sequences],
            [n * length // 2 for n in sequences],
        ),
        Axis(
            "sequence length",
            "1, towards 2 where scores weigh",
            [{"model.sequence_length": n, **batch(1)} for n in lengths],
            lengths,
        ),
    ]
    if model.moe_layers > 0:
        experts = [n * model.experts // 8 for n in (1, 2, 4, 8, 16)]
        experts = [n for n in experts if n >= model.top_k]
        # Fewer copies would hide in the padding of segments to 32 rows.
        copies = [n for n in (2, 4, 8, 16, 32) if n <= model.experts]
        axes += [
            Axis(
                "experts",
                "0 in products, 1 in weights and update",
                [changed(base, "moe.experts", n, model.experts) for n in experts],
                experts,
            ),
            Axis(
                "top_k",
                "1",
                [changed(base, "moe.top_k", n, model.top_k) for n in copies],
                copies,
            ),
        ]
    layers = [model.dense_layers + n for n in (1, 2, 4, 8, 16)]
    axes.append(
        Axis(
            "layers",
            "1",
            [changed(base, "model.layers", n, model.layers) for n in layers],
            layers,
        )
    )
    return axes


class Measurement:
    """All runs, each made once."""

    def __init__(self, launcher: Launcher, common: Settings) -> None:
        self.launcher, self.common = launcher, common
        self.runs: list[Run] = []

    def run(self, settings: Settings, layout: Layout = ALONE) -> Run:
        merged = {**self.common, **settings}
        for run in self.runs:
            if run.settings == merged and run.layout == layout:
                return run
        run = self.launcher.run(merged, layout)
        self.runs.append(run)
        words = " ".join(f"{key.split('.')[1]}={value}" for key, value in settings.items())
        who = f"{layout.ranks} ranks, expert_ranks {layout.expert_ranks}"
        if layout.copies > 1:
            who = f"{layout.copies} runs side by side"
        print(f"  {who}: {words}: {run.median_s:.3f} s", flush=True)
        return run


def layouts(ranks: list[int]) -> list[Layout]:
    found = [Layout(n, e) for n in ranks for e in sorted({1, n})]
    return found if 1 in ranks else [ALONE, *found]


def strong(measurement: Measurement, ranks: list[int], cells: int) -> list[dict[str, object]]:
    first: Run | None = None
    rows = []
    for layout in layouts(ranks):
        run = measurement.run(batch(cells), layout)
        first = first or run
        rows.append(scaling_row(run, first.median_s, layout, cells))
    return rows


def weak(measurement: Measurement, ranks: list[int], each: int) -> list[dict[str, object]]:
    first: Run | None = None
    rows = []
    for layout in layouts(ranks):
        run = measurement.run(batch(each * layout.ranks), layout)
        first = first or run
        rows.append(scaling_row(run, first.median_s * layout.ranks, layout, each * layout.ranks))
    return rows


def scaling_row(run: Run, alone_s: float, layout: Layout, cells: int) -> dict[str, object]:
    """`alone_s`: what one rank takes, or would take, for the same cells."""
    cores = min(layout.ranks, os.cpu_count() or 1)
    return {
        "ranks": layout.ranks,
        "expert_ranks": layout.expert_ranks,
        "cores": cores,
        "cells": cells,
        "median_s": run.median_s,
        "efficiency": alone_s / run.median_s / cores,
        "phase_s": run.phase_s,
    }


def side_by_side(measurement: Measurement, cells: int) -> dict[str, float]:
    cores = os.cpu_count() or 1
    alone = measurement.run(batch(cells))
    together = measurement.run(batch(cells), Layout(copies=cores))
    return {
        "copies": cores,
        "alone_s": alone.median_s,
        "together_s": together.median_s,
        "slowdown": together.median_s / alone.median_s,
    }


def exchange(arguments: argparse.Namespace, ranks: list[int]) -> list[dict[str, object]]:
    """Times of the collectives between all ranks, for predict.py's network."""
    found = []
    for n in ranks:
        command = [*mpi_command(n), str(arguments.hearth.parent / "hearth-bench"), "exchange"]
        command += [str(arguments.deck), "--repeat=11"]
        done = subprocess.run(
            command,
            env={**os.environ, **environment(threads=1, ranks=n)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failure(f"{' '.join(command)}\n{done.stderr.strip()}")
        found += [json.loads(line) for line in done.stdout.splitlines()]
    return found


def grow(measurement: Measurement, axis: Axis) -> dict[str, object]:
    runs = [measurement.run(settings) for settings in axis.settings]
    times = [run.median_s for run in runs]
    law = power_law.fit(axis.sizes, times)
    return {
        "name": axis.name,
        "expected": axis.expected,
        "sizes": axis.sizes,
        "median_s": times,
        "phase_s": [run.phase_s for run in runs],
        "fit": asdict(law),
        "text": law.describe(),
    }


# The phases' names in the printed table.
SHORT = "attn dense router counts copies exch. shared expert head update rest".split()


def print_scaling(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}: seconds a step, efficiency by cores, the first rank's phases in seconds")
    heads = "".join(f"{name:>7s}" for name in SHORT)
    print(f"ranks expert_ranks cells  s/step  eff.{heads}")
    for row in rows:
        phases: Mapping[str, float] = row["phase_s"]  # type: ignore[assignment]
        print(
            f"{row['ranks']:5d} {row['expert_ranks']:12d} {row['cells']:5d} "
            f"{row['median_s']:7.3f} {row['efficiency']:5.0%}"
            + "".join(f"{phases[name]:7.3f}" for name in PHASES)
        )


def print_work(found: list[dict[str, object]]) -> None:
    print("\nwork: seconds a step of one rank")
    for axis in found:
        points = zip(axis["sizes"], axis["median_s"], strict=True)  # type: ignore[call-overload]
        print(f"{axis['name']}: " + ", ".join(f"{n}: {s:.3f}" for n, s in points))
        print(f"  {axis['text']}")
        print(f"  expected: {axis['expected']}")


def work_table(found: list[dict[str, object]]) -> list[str]:
    """Lines of Markdown."""
    heads = ["what grows", "seconds a step", "exponent above the constant", "constant, s", "slope"]
    rows = []
    for axis in found:
        fit: Mapping[str, Any] = axis["fit"]  # type: ignore[assignment]
        low, high = fit["exponent_range"]
        points = zip(axis["sizes"], axis["median_s"], strict=True)  # type: ignore[call-overload]
        rows.append(
            [
                f"{axis['name']}",
                ", ".join(f"{n}: {s:.2f}" for n, s in points),
                f"{fit['exponent']:.2f} ({low:.2f} to {high:.2f})",
                f"{fit['constant']:.2f}",
                f"{fit['slope']:.2f}",
                f"{axis['expected']}",
            ]
        )
    return table([*heads, "expected"], rows)


def report(result: Mapping[str, Any], markdown: bool) -> None:
    """All tables."""
    if "strong" in result:
        side = result["side_by_side"]
        print("```text" if markdown else "")
        print(
            f"{side['copies']:.0f} independent runs side by side: {side['together_s']:.3f} s a "
            f"step, alone {side['alone_s']:.3f} s: {side['slowdown']:.2f} times as slow"
        )
        print_scaling("strong scaling", result["strong"])
        print_scaling("weak scaling", result["weak"])
        if markdown:
            print("```")
    if "work" in result and markdown:
        print("", *work_table(result["work"]), sep="\n")
    elif "work" in result:
        print_work(result["work"])


def measure(arguments: argparse.Namespace, measurement: Measurement, model: Model) -> dict:
    ranks = [int(n) for n in arguments.ranks.split(",")]
    found: dict[str, object] = {}
    if arguments.only != "work":
        found["side_by_side"] = side_by_side(measurement, arguments.cells_a_rank)
        found["strong"] = strong(measurement, ranks, arguments.cells)
        found["weak"] = weak(measurement, ranks, arguments.cells_a_rank)
        cores = os.cpu_count() or 1
        found["exchange"] = exchange(arguments, [n for n in ranks if 1 < n <= cores])
    if arguments.only != "ranks":
        axes = axes_of_work(model, arguments.sequence_length)
        found["work"] = [grow(measurement, axis) for axis in axes]
    return found


def main(text: list[str] | None = None) -> None:
    arguments = parse(text)
    if arguments.report:
        report(read_json(arguments.report), arguments.markdown)
        return
    start = time.monotonic()
    model = read_deck(arguments.deck)
    for program in (arguments.hearth, arguments.hearth.parent / "hearth-bench"):
        if not program.exists():
            raise InputError(f"{program} is not there; build it, --hearth names another folder's")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    common = {"model.sequence_length": arguments.sequence_length}
    with scratch_folder(arguments.scratch) as scratch:
        most_ranks = max(int(n) for n in arguments.ranks.split(","))
        cells = max(arguments.cells, arguments.cells_a_rank * most_ranks, 8)
        steps = arguments.warmup + arguments.steps
        tokens = (steps * cells + 1) * arguments.sequence_length + 1
        write_zipf(scratch / "zipf", min(model.vocabulary, 50000), tokens)
        launcher = Launcher(
            arguments.hearth,
            arguments.deck,
            scratch / "zipf",
            scratch,
            arguments.warmup,
            arguments.steps,
            [f"--model.compute_type={arguments.compute_type}"],
        )
        measurement = Measurement(launcher, common)
        load = os.getloadavg()[0]
        print(f"{arguments.deck}, {os.cpu_count()} cores, load before: {load:.2f}", flush=True)
        found = measure(arguments, measurement, model)
    result = {
        "deck": arguments.deck.name,
        "compute_type": arguments.compute_type,
        "cores": os.cpu_count(),
        "load_before": load,
        "steps": arguments.steps,
        "model": asdict(model),
        **found,
        "runs": [run.as_json() for run in measurement.runs],
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    report(result, arguments.markdown)
    import scaling_figures  # here, since Matplotlib takes its time to load

    for path in scaling_figures.draw(result, arguments.output):
        print(path)
    print(f"{arguments.output}; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except Failure as error:
        print(f"scaling.py: {error}", file=sys.stderr)
        sys.exit(error.status)
