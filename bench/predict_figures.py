"""The picture of predict.py: step time, efficiency, and what a step consists of, by ranks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from hearth_runs import ROOT

sys.path.insert(0, str(ROOT / "postprocess"))
import matplotlib.pyplot as plt  # noqa: E402

import figures  # noqa: E402  (sets Matplotlib up)

COLOUR_OF_TERM = {
    "compute": figures.COLOURS[0],
    "accumulate": figures.COLOURS[5],
    "imbalance": figures.COLOURS[6],
    "exchange": figures.COLOURS[1],
    "latency": figures.COLOURS[4],
    "gradients": figures.COLOURS[2],
    "weights": "#5DC9A8",
    "optimizer": figures.COLOURS[3],
    "sums": "0.6",
}
Rows = list[dict[str, Any]]


def draw(name: str, rows: Rows, result: Mapping[str, Any], output: Path) -> Path:
    """Writes a PNG file beside `output`; returns its path."""
    path = output.with_name(f"{output.stem}_{name}.png")
    curves: dict[int, Rows] = {}
    for row in rows:
        curves.setdefault(row["expert_ranks"], []).append(row)
    figure = plt.figure(figsize=(11, 7.6))
    widths = [1] * (2 * len(curves)) + [0.75]  # the last for a legend
    grid = figure.add_gridspec(2, len(widths), height_ratios=[1.15, 1], width_ratios=widths)
    times = figure.add_subplot(grid[0, : len(curves)])
    shares_of_ideal = figure.add_subplot(grid[0, len(curves) : -1])
    for colour, (expert_ranks, curve) in zip(
        (figures.WHOLE, *figures.COLOURS), curves.items(), strict=False
    ):
        ranks = [row["ranks"] for row in curve]
        label = f"expert_ranks {expert_ranks}"
        times.plot(ranks, [row["step_s"] for row in curve], ".-", color=colour, label=label)
        shares_of_ideal.plot(ranks, [row["efficiency"] for row in curve], ".-", color=colour)
    draw_ideal(times, rows)
    times.set_yscale("log")
    times.set_ylabel("seconds a step")
    times.legend(fontsize="small")
    shares_of_ideal.set_ylabel("efficiency: sequences a second and rank")
    shares_of_ideal.set_ylim(0, 1.05)
    shares_of_ideal.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (times, shares_of_ideal):
        ranks_axis(axes, rows)
        mark_batch(axes, rows, axes is shares_of_ideal)
        axes.grid(color="0.93")
    for column, (expert_ranks, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(grid[1, 2 * column : 2 * column + 2])
        stack(axes, curve)
        ranks_axis(axes, rows)
        axes.set_title(f"expert_ranks {expert_ranks}")
        if column == 0:
            axes.set_ylabel("share of the step")
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.add_subplot(grid[1, -1])
    legend.legend(handles[::-1], labels[::-1], loc="center left", fontsize="small")
    legend.axis("off")
    net = result["network"]
    faster = f", ranks {result['speedup']:g} times as fast" if result["speedup"] != 1 else ""
    hidden = f", overlap {net['overlap']:g}" if net["overlap"] else ""
    figure.suptitle(
        f"Predicted: {name}; {1e6 * net['latency_s']:.3g} µs, "
        f"{1e-9 * net['exchange_bytes_per_s']:.3g} GB/s a rank{hidden}{faster}"
    )
    figure.savefig(path)
    plt.close(figure)
    return path


def draw_ideal(axes: Axes, rows: Rows) -> None:
    """One rank's time divided by ranks, for the same sequences."""
    first = min(rows, key=lambda row: row["ranks"])
    each = first["step_s"] * first["ranks"] / first["sequences"]
    ranks = sorted({row["ranks"]: row["sequences"] for row in rows}.items())
    axes.plot(
        [n for n, _ in ranks],
        [each * sequences / n for n, sequences in ranks],
        "--",
        color=figures.REFERENCE,
        linewidth=1,
        label="ideal",
    )


def mark_batch(axes: Axes, rows: Rows, in_words: bool) -> None:
    """Where the deck's batch has one sequence for each rank."""
    limit = min(row["sequences"] for row in rows)
    if limit < max(row["ranks"] for row in rows):
        axes.axvline(limit, color=figures.REFERENCE, linestyle=":", linewidth=1)
        if not in_words:
            return
        axes.annotate(
            "a sequence a rank;\nbeyond, a larger batch",
            (limit, 0.04),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            color=figures.REFERENCE,
            fontsize="small",
        )


def ranks_axis(axes: Axes, rows: Rows) -> None:
    axes.set_xscale("log", base=2)
    fewest, most = min(row["ranks"] for row in rows), max(row["ranks"] for row in rows)
    if fewest < most:
        axes.set_xlim(fewest, most)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("ranks")


def stack(axes: Axes, curve: Rows) -> None:
    ranks = [row["ranks"] for row in curve]
    shares = np.array(
        [[row["terms_s"][term] / row["step_s"] for row in curve] for term in COLOUR_OF_TERM]
    )
    if len(curve) == 1:
        return
    axes.stackplot(ranks, shares, colors=COLOUR_OF_TERM.values(), labels=COLOUR_OF_TERM.keys())
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
