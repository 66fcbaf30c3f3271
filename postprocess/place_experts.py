#!/usr/bin/env python3
"""Which rank should own which expert: a file for parallel.placement, and what it would save."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arguments import positive
from routing_statistics import placement
from routing_tables import RoutingTables
from settings_comparison import deck_values
from statistics_file import InputError, StatisticsFile
from whole_file import write_whole

SIMULATED_STEPS = 16
MEASURED_STEPS = 10


def main() -> int:
    arguments = parse(parser())
    try:
        if arguments.by is not None:
            lines = place(arguments)
        else:
            with StatisticsFile(arguments.run / "training.h5", "training.h5") as training:
                lines = list(measured(training, arguments.steps or MEASURED_STEPS))
        for line in lines:
            print(line)
        sys.stdout.flush()
    except InputError as error:
        print(f"place_experts.py: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        where = error.filename or arguments.run
        print(f"place_experts.py: {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def parse(top: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for; none of it is ignored."""
    arguments = top.parse_args()
    if arguments.by is not None:
        if arguments.steps is not None:
            top.error("--steps is of what a run measured, and goes without --by")
        return arguments
    for name in ("expert_ranks", "ranks", "output"):
        if getattr(arguments, name) is not None:
            top.error(f"--{name.replace('_', '-')} needs --by, which chooses a placement")
    return arguments


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description="Says how many token copies of a run stayed on their rank and how many ranks a "
        "token's copies reached. With --by it computes from routing.h5 which rank should own which "
        "expert, says what to expect of it, and with --output writes a file for "
        "parallel.placement, which changes no result of a run.",
        epilog="Exit status: 0 done, 1 the file cannot be written, 2 bad input.",
    )
    top.add_argument("run", type=Path, metavar="RUN", help="output directory of a run")
    top.add_argument(
        "--by",
        choices=("coactivation", "source"),
        help="coactivation: experts that tokens choose together share a rank; source: experts of a "
        "data source do, so that parallel.cells = source can bring its sequences there",
    )
    top.add_argument("--expert-ranks", type=positive, metavar="R", help="ranks to place on")
    top.add_argument(
        "--ranks", type=positive, metavar="N", help="all ranks, a multiple of R (default R)"
    )
    top.add_argument("--output", type=Path, metavar="FILE", help="where the placement goes")
    top.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help=f"last ones measured (default {MEASURED_STEPS})",
    )
    return top


def measured(file: StatisticsFile, steps: int) -> Iterator[str]:
    """What the run's last steps of one number of expert ranks sent."""
    if "layout/copies" not in file:
        raise file.failure("no group 'layout': a dense model, or a file of an older program")
    expert_ranks = file.array("layout/expert_ranks", ["step"])
    if expert_ranks.size == 0:
        raise file.failure("no steps yet")
    others = np.flatnonzero(expert_ranks != expert_ranks[-1])
    first = max(0, len(expert_ranks) - steps, others[-1] + 1 if others.size else 0)
    tokens = file.array("layout/tokens", ["step"])[first:].sum()
    copies, kept, reached, other = (
        file.array(f"layout/{name}", ["step", "layer"])[first:]
        for name in ("copies", "copies_kept", "ranks_reached", "other_ranks_reached")
    )
    step = file.array("step", ["step"])
    passes = max(1, int(tokens) * copies.shape[1])  # of tokens through layers
    yield f"measured in steps {step[first]} to {step[-1]}, {expert_ranks[-1]} expert ranks"
    yield f"  token copies that stayed on their rank    {kept.sum() / max(1, copies.sum()):8.2%}"
    yield f"  ranks that a token's copies reached       {reached.sum() / passes:8.3f}"
    yield f"  the same without the token's own          {other.sum() / passes:8.3f}"


@dataclass(frozen=True)
class Plan:
    """Owners by layer."""

    owners: list[np.ndarray]  # (layers) of (experts)
    to_rank: np.ndarray  # (sources, expert ranks): shares of a source's copies


def place(arguments: argparse.Namespace) -> list[str]:
    """Computes the placement, writes it where asked, and tells what to expect."""
    expert_ranks = arguments.expert_ranks
    if expert_ranks is None:
        raise InputError("--by needs --expert-ranks=R, the ranks that share out the experts")
    ranks = arguments.ranks or expert_ranks
    if ranks % expert_ranks:
        raise InputError(f"--ranks={ranks} is no multiple of --expert-ranks={expert_ranks}")
    with StatisticsFile(arguments.run / "routing.h5", "routing.h5") as file:
        tables = RoutingTables(file)
        row = tables.last_counted()
        together, by_source = counts_of_experts(tables, row)
        ranges = [placement.contiguous(len(table), expert_ranks) for table in together]
        if arguments.by == "coactivation":
            owners = [placement.by_coactivation(table, expert_ranks) for table in together]
        else:
            owners = placement.by_source(by_source, expert_ranks).owners
        plans = [
            Plan(chosen, placement.copies_to_ranks(by_source, chosen, expert_ranks))
            for chosen in (ranges, owners)
        ]
        lines = [
            f"placed by {arguments.by} on {expert_ranks} expert ranks, from {file.span(row)}",
            f"  {'expected':<42}{'contiguous':>10}{'placed':>10}",
        ]
        for name, text in expectations(tables, row, plans, together, by_source, ranks):
            lines.append(f"  {name:<42}" + "".join(f"{value:>10}" for value in text))
        if arguments.output is not None:
            write(arguments.output, file, tables, plans[1], arguments.by, expert_ranks)
            lines.append(f"written: {arguments.output}")
    return lines


def counts_of_experts(tables: RoutingTables, row: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """By layer: (experts, experts) and (sources, experts), of experts with matrices."""
    together, by_source = [], []
    for layer in range(len(tables.layers)):
        there = tables.with_weights(layer)
        together.append(tables.coactivation(row, layer)[np.ix_(there, there)])
        by_source.append(tables.by_source(row, layer)[:, there])
    return together, by_source


def expectations(
    tables: RoutingTables,
    row: int,
    plans: list[Plan],
    together: list[np.ndarray],
    by_source: list[np.ndarray],
    ranks: int,
) -> Iterator[tuple[str, list[str]]]:
    """Rows of the table: a name, and a value for each plan; means over layers."""
    expert_ranks = plans[0].to_rank.shape[1]
    deck = deck_values(tables.file.attribute("deck"))
    batch = int(deck["batch.global_batch"][0])
    cell_sequences = int(deck["batch.cell_sequences"][0])
    copies = sum(table.sum(1) for table in by_source)
    steps = placement.blend(copies, SIMULATED_STEPS * batch).reshape(SIMULATED_STEPS, batch)
    for how, by_gain in (("in order", False), ("by source", True)):
        kept = [
            np.mean(
                [
                    placement.share_kept(plan.to_rank, step, cell_sequences, ranks, by_gain)
                    for step in steps
                ]
            )
            for plan in plans
        ]
        yield f"copies that stay, cells {how}", [f"{share:.2%}" for share in kept]

    def mean(value) -> list[str]:
        found = [
            np.mean([value(layer, owner) for layer, owner in enumerate(plan.owners)])
            for plan in plans
        ]
        return [f"{number:.3f}" for number in found]

    if "probe_choice" in tables.file:
        choices = [tables.probe_choice(layer)[row] for layer in range(len(together))]
        yield (
            "ranks that a probe token's copies reach",
            mean(lambda at, owner: placement.ranks_reached(choices[at], owner) / len(choices[at])),
        )
    yield (
        "pairs of copies on one rank, of all",
        mean(
            lambda at, owner: (
                placement.pairs_together(together[at], owner)
                / max(1, int(np.triu(together[at], 1).sum()))
            )
        ),
    )
    yield (
        "copies of the busiest rank, of the mean's",
        mean(lambda at, o: placement.busiest_rank(np.diagonal(together[at]), o, expert_ranks)),
    )


def write(
    path: Path,
    file: StatisticsFile,
    tables: RoutingTables,
    plan: Plan,
    by: str,
    expert_ranks: int,
) -> None:
    """The file that parallel.placement names; docs/file_formats.md, "Placements"."""
    lines = [
        f"# Which expert rank owns which expert: by {by}.",
        f"expert_ranks = {expert_ranks}",
        "# Of each MoE layer, the rank of expert 0, 1, ...",
    ]
    for layer, owner in enumerate(plan.owners):
        lines.append(f"layer {tables.block(layer)} = {' '.join(map(str, owner.tolist()))}")
    lines.append("# Of a million copies of each data source, those to each rank.")
    for name, shares in zip(file.names("source"), plan.to_rank, strict=True):
        lines.append(f"source {name} = {' '.join(f'{round(1e6 * s)}' for s in shares.tolist())}")
    write_whole(path, "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
