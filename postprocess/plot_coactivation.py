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
    return figures.run(top, "routing.h5", draw)


def draw(file: StatisticsFile, arguments: argparse.Namespace) -> Mapping[str, Figure]:
    tables, chosen = RoutingTables(file), file.chosen_layers(arguments.layers)
    row = checkpoint_row(tables, arguments.checkpoint)
    counts = [tables.coactivation(row, layer) for layer in chosen]
    baselines = [chance_conditional(count) for count in counts]
    if not any(baselines):
        raise file.failure("each token goes to one expert, so none are chosen together")
    shares = [conditional(count) for count in counts]
    experts = max(len(share) for share in shares)
    shown = min(arguments.experts, experts)

    columns = min(len(chosen), 3)
    grid_rows = -(-len(chosen) // columns)
    # One panel alone would be narrower than its headings.
    width = max(1.6 + 4.1 * columns, 8.0)
    figure, grid = plt.subplots(
        grid_rows, columns, figsize=(width, 0.9 + 4.1 * grid_rows), squeeze=False
    )
    panels = grid.ravel()
    for spare in panels[len(chosen) :]:
        spare.set_axis_off()
    largest = max(share.max() for share in shares)
    top = max(largest, 2 * max(baselines))
    for axes, layer, table in zip(panels, chosen, shares, strict=False):
        order = partners_together(table, strongest(table, shown))
        numbers = tables.experts(layer)
        image = axes.imshow(
            table[np.ix_(order, order)], cmap=figures.SEQUENTIAL, vmin=0, vmax=top, aspect="equal"
        )
        axes.set_title(f"Layer {tables.block(layer)}: largest {table.max():.2f}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(range(len(order)), labels=[str(numbers[expert]) for expert in order])
            axis.set_tick_params(length=0, labelsize="small" if shown <= 16 else 5)
        axes.tick_params(axis="x", rotation=90 if shown > 8 else 0)
        axes.set_xlabel("also chose expert j")
        axes.spines[:].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("of the tokens of expert i")
    bar = figure.colorbar(image, ax=panels, pad=0.02, shrink=0.85, aspect=30)
    for baseline in set(baselines):
        bar.ax.axhline(baseline, color="black", linewidth=1.5)
    bar.outline.set_visible(False)
    bar.set_label("share of expert i's tokens that also chose j")
    levels = " or ".join(sorted({f"{baseline:.3f}" for baseline in baselines}))
    k = " or ".join(sorted({f"{tables.each(layer):.3g}" for layer in chosen}))
    which = f"the {shown} of {experts} experts with the strongest partners"
    figure.suptitle(
        f"Experts chosen together in {file.span(row)}"
        + (f": {which}" if shown < experts else "")
        + f"\nRandom choice of {k} would give {levels} everywhere (line in the colour bar)",
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
