#!/usr/bin/env python3
"""Which experts are chosen together, in chosen layers at one checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import figures
from arguments import positive
from routing_statistics import chance_conditional, conditional
from routing_tables import RoutingTables
from statistics_file import StatisticsFile


def main() -> int:
    top = figures.parser(
        "Draws co-activation: of the tokens that chose one expert, the share that also chose "
        "another. Experts shown are those with the strongest partners.",
        "routing.h5 of a run",
    )
    figures.add_layers(top)
    top.add_argument(
        "--checkpoint",
        type=int,
        metavar="STEP",
        help="whose row, the tokens since the checkpoint before (default: the last with tokens)",
    )
    top.add_argument("--experts", type=positive, default=16, metavar="N", help="shown (default 16)")
    top.add_argument(
        "--min-count",
        type=positive,
        default=100,
        metavar="N",
        help="tokens that an expert needs for a share of its own (default 100)",
    )
    return figures.run(top, "routing.h5", draw)


def draw(file: StatisticsFile, arguments: argparse.Namespace) -> Mapping[str, Figure]:
    tables, chosen = RoutingTables(file), file.chosen_layers(arguments.layers)
    row = checkpoint_row(tables, arguments.checkpoint)
    counts = [tables.coactivation(row, layer) for layer in chosen]
    if all(chance_conditional(count) == 0 for count in counts):
        raise file.failure("each token goes to one expert, so none are chosen together")
    baselines = [chance_conditional(count, arguments.min_count) for count in counts]
    if not np.isfinite(baselines).any():
        most = max(int(np.diagonal(count).max()) for count in counts)
        raise file.failure(
            f"an expert has {most:,} tokens at most in {file.span(row)}, too few for a share of "
            "its own; --min-count N lowers the bound"
        )
    shares = [conditional(count, arguments.min_count) for count in counts]
    experts = max(len(share) for share in shares)
    shown = min(arguments.experts, experts)

    columns = min(len(chosen), 3)
    grid_rows = -(-len(chosen) // columns)
    # One panel alone would be narrower than its headings.
    width = max(1.6 + 4.1 * columns, 8.0)
    figure, grid = plt.subplots(
        grid_rows, columns, figsize=(width, 1.5 + 4.1 * grid_rows), squeeze=False
    )
    panels = grid.ravel()
    for spare in panels[len(chosen) :]:
        spare.set_axis_off()
    largest = max(share.max() for share in shares)
    top = max(largest, 2 * np.nanmax(baselines))
    for axes, layer, table, baseline in zip(panels, chosen, shares, baselines, strict=False):
        order = partners_together(table, strongest(table, shown))
        numbers = tables.experts(layer)
        image = axes.imshow(
            table[np.ix_(order, order)], cmap=figures.SEQUENTIAL, vmin=0, vmax=top, aspect="equal"
        )
        known = f"largest {table.max():.2f}, random {baseline:.3f}"
        if not np.isfinite(baseline):
            known = "too few tokens"
        axes.set_title(f"Layer {tables.block(layer)}: {known}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(range(len(order)), labels=[str(numbers[expert]) for expert in order])
            axis.set_tick_params(length=0, labelsize="small" if shown <= 16 else 5)
        axes.tick_params(axis="x", rotation=90 if shown > 8 else 0)
        axes.set_xlabel("also chose expert j")
        axes.spines[:].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("of the tokens of expert i")
    bar = figure.colorbar(image, ax=panels, pad=0.02, shrink=0.85, aspect=30)
    for baseline in {level for level in baselines if np.isfinite(level)}:
        bar.ax.axhline(baseline, color="black", linewidth=1.5)
    bar.outline.set_visible(False)
    bar.set_label("share of expert i's tokens that also chose j")
    which = f"the {shown} of {experts} experts with the strongest partners"
    figure.suptitle(
        f"Experts chosen together in {file.span(row)}"
        + (f": {which}" if shown < experts else "")
        + "\nRandom choice would give what is named random everywhere (lines in the colour "
        f"bar)\nRows of experts with fewer than {arguments.min_count:,} tokens are empty",
        x=0.01,
        ha="left",
    )
    return {"coactivation": figure}


def checkpoint_row(tables: RoutingTables, wanted: int | None) -> int:
    """Position of the row asked for."""
    file = tables.file
    steps = file.checkpoints().tolist()
    if wanted is None:
        return tables.last_counted()
    if wanted not in steps:
        listed = ", ".join(map(str, steps))
        raise file.failure(f"no row of checkpoint {wanted}; the rows are of {listed}")
    row = steps.index(wanted)
    if row not in tables.counted_rows():
        raise file.failure(f"no tokens in the row of checkpoint {wanted}")
    return row


def strongest(table: np.ndarray, count: int) -> list[int]:
    """The experts with the largest row maxima, first the largest."""
    return np.argsort(-table.max(1), kind="stable")[:count].tolist()


def partners_together(table: np.ndarray, experts: list[int]) -> list[int]:
    """An order for the eye: each expert is followed by its strongest partner not yet placed."""
    order, left = experts[:1], experts[1:]
    while left:
        row = table[order[-1], left]
        order.append(left.pop(int(row.argmax())))
    return order


if __name__ == "__main__":
    sys.exit(main())
