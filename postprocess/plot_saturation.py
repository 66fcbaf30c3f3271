#!/usr/bin/env python3
"""How early routing settles: agreement of each checkpoint's choices with the last one's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import figures
from routing_statistics import chance_agreement, mean_known, saturation
from routing_tables import RoutingTables
from statistics_file import StatisticsFile


def main() -> int:
    top = figures.parser(
        "Draws router saturation: of the experts that a checkpoint chooses for the fixed probe "
        "tokens, the share that the last checkpoint chooses too, in every MoE layer.",
        "routing.h5 of a run with probe tokens",
    )
    figures.add_layers(top, "all")
    return figures.run(top, "routing.h5", draw)


def draw(file: StatisticsFile, arguments: argparse.Namespace) -> Mapping[str, Figure]:
    tables = RoutingTables(file)
    layers = tables.layers
    steps = file.checkpoints()
    if "probe_choice" not in file:
        raise file.failure("no probe tokens; the deck's statistics.probe_tokens asks for them")
    if len(steps) < 2:
        raise file.failure(
            f"only one checkpoint, of step {steps[0]}; saturation compares earlier ones to the last"
        )
    chosen = file.chosen_layers(arguments.layers) if arguments.layers else list(range(len(layers)))
    choices = [tables.probe_choice(layer) for layer in chosen]
    curves = [saturation(choice) for choice in choices]
    if not np.isfinite(np.array(curves)).any():
        raise file.failure(f"no probe token has an expert at the checkpoint of step {steps[-1]}")
    probes = choices[0].shape[1]
    chance = mean_known(
        [
            chance_agreement(choice[-1], choice[-1], len(tables.experts(layer)))
            for layer, choice in zip(chosen, choices)
        ]
    )
    slots = {tables.slots(layer) if tables.fixed_k(layer) else None for layer in chosen}
    which = {(tables.slots(layer), len(tables.experts(layer))) for layer in chosen}
    words = f"about {chance:.0%}"
    if len(which) == 1 and None not in slots:
        words = f"{'/'.join(map(str, which.pop()))} = {chance:.0%}"
    many = f"{slots.pop()} " if len(slots) == 1 and None not in slots else ""

    figure, axes = plt.subplots(figsize=(9, 5.2))
    depth = figures.Depth(layers[chosen].tolist())
    for position, curve in enumerate(curves):
        axes.plot(steps, curve, "o-", color=depth[position], linewidth=1.6, markersize=4)
    depth.bar(figure, axes, 24)
    figures.reference_line(axes, chance, f"random choice, {words}")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", color="0.93")
    axes.set_ylabel(f"share of a token's {many}experts")
    figures.step_axis(axes)
    axes.set_title(
        f"Router saturation: how many of a token's experts are those of the last checkpoint, step "
        f"{steps[-1]:,}\n(mean over {probes:,} probe tokens)"
    )
    return {"saturation": figure}


if __name__ == "__main__":
    sys.exit(main())
