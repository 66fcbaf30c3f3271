#!/usr/bin/env python3
"""Each expert's load over training, by layer, against an even share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import figures
from routing_statistics import busiest, share_of_copies
from routing_tables import RoutingTables
from statistics_file import StatisticsFile


def main() -> int:
    top = figures.parser(
        "Draws how far the busiest expert of every MoE layer is above an even share over training, "
        "and every expert's load in chosen layers.",
        "routing.h5 of a run",
    )
    figures.add_layers(top)
    return figures.run(top, "routing.h5", draw)


def draw(file: StatisticsFile, arguments: argparse.Namespace) -> Mapping[str, Figure]:
    tables = RoutingTables(file)
    file.intervals()
    layers, chosen = tables.layers, file.chosen_layers(arguments.layers)
    counts = [tables.counts(layer) for layer in range(len(layers))]
    ratios = [share_of_copies(count) * count.shape[1] for count in counts]  # to the even share
    if not any(count.any() for count in counts):
        raise file.failure("no expert received a token copy in any interval")
    sizes = sorted({count.shape[1] for count in counts})
    experts = " or ".join(map(str, sizes))

    figure, (summary, *maps) = plt.subplots(
        1 + len(chosen),
        1,
        figsize=(9, 3.2 + 2.2 * len(chosen)),
        sharex=True,
        squeeze=True,
        gridspec_kw={"height_ratios": [1.25] + [1] * len(chosen)},
    )
    figure.suptitle(f"Load of {experts} experts over training", x=0.01, ha="left")

    depth = figures.Depth(layers.tolist())
    edges = interval_edges(tables.intervals)
    for position in range(len(layers)):
        summary.stairs(
            busiest(counts[position]),
            edges,
            baseline=None,
            color=depth[position],
            linewidth=1.6,
        )
    depth.bar(figure, summary, 9)
    summary.set_ylim(bottom=0)
    even = f"1/{sizes[0]} = {1 / sizes[0]:.1%}" if len(sizes) == 1 else "1/E"
    figures.reference_line(summary, 1, f"even share, {even}")
    summary.set_ylabel("busiest ÷ mean")
    summary.set_title("Load of the busiest expert, relative to the mean, in every MoE layer")

    known = np.concatenate([ratios[layer].ravel() for layer in chosen])
    norm = figures.ratio_norm(known[np.isfinite(known)])
    for axes, position in zip(maps, chosen, strict=True):
        ratio, numbers = ratios[position], tables.experts(position)
        mesh = axes.pcolormesh(
            edges,
            np.arange(len(numbers) + 1) - 0.5,
            np.clip(ratio.T, norm.vmin / 2, None),
            norm=norm,
            cmap=figures.DIVERGING,
            rasterized=True,
        )
        last = ratio[-1]
        ends = "no token copies"
        if np.isfinite(last).all():
            ends = f"{last.min():.2f} to {last.max():.2f} × even"
        axes.set_title(f"Layer {layers[position]}: at the end {ends}")
        axes.set_ylabel("expert")
        ticks = figures.tick_positions(numbers, 8)
        axes.set_yticks(ticks, labels=[str(numbers[tick]) for tick in ticks])
        axes.invert_yaxis()
    figures.ratio_bar(figure, mesh, maps, "load ÷ even share")
    figures.step_axis(maps[-1])
    return {"expert_load": figure}


def interval_edges(intervals: np.ndarray) -> np.ndarray:
    """A row covers the steps since the one before; the first, as many as the second."""
    first = max(0, 2 * intervals[0] - intervals[1]) if len(intervals) > 1 else 0
    return np.append(first, intervals)


if __name__ == "__main__":
    sys.exit(main())
