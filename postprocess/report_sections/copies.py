"""What becomes of token copies: dropped ones, experts of a token, kinds of experts."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import figures
import routing_statistics as statistics
from plot_expert_load import interval_edges
from report_sections import curves
from report_sections.page import Picture, Section
from report_sections.run import Run
from report_sections.wording import count, listed, moved, number, percent, spread
from routing_tables import RoutingTables


def section(run: Run) -> Section:
    result = Section("copies", "Token copies")
    tables = run.routing
    assert tables is not None
    if not len(tables.intervals):
        result.say(run.no_interval())
        return result
    dropped = tables.by_layer("dropped")
    received = np.column_stack([tables.counts(layer).sum(1) for layer in range(len(tables.layers))])
    drops = statistics.drop_share(dropped, received)
    each = statistics.per_token(received, tables.tokens)
    result.headline = _drops(run, dropped, received, drops)
    result.say(result.headline, _experts_per_token(run, tables, each))
    for sentence in _kinds(tables):
        result.say(sentence)
    panels, parts, ends = [], [], []
    if dropped.any():
        panels.append(curves.Panel("Dropped ÷ all token copies", drops))
        ends.append(f"dropped {spread(drops[-1], run.names(), percent)}")
        parts.append(
            "dropped ÷ (dropped + received) token copies of an interval: 0 for a dropless router"
        )
    if not all(tables.fixed_k(layer) for layer in range(len(tables.layers))):
        panels.append(curves.Panel("Experts of a token that took it", each))
        ends.append(f"experts of a token {spread(each[-1], run.names())}")
        parts.append("token copies received ÷ tokens: the mean number of experts of a token")
    if panels:
        edges = interval_edges(tables.intervals)
        result.show(
            Picture(
                lambda: curves.over_intervals(panels, edges, tables.layers.tolist()),
                f"Curves by layer over training. At the end: {'; '.join(ends)}.",
                f"By layer and interval, pure numbers: {'; '.join(parts)}.",
            )
        )
    histogram = _histogram(run, tables)
    if histogram is not None:
        result.show(histogram)
    return result


def _drops(run: Run, dropped: np.ndarray, received: np.ndarray, drops: np.ndarray) -> str:
    every = int(dropped.sum() + received.sum())
    if not dropped.any():
        return f"No token copy was dropped, of {number(every)}{run.interval_end()}."
    share = dropped.sum() / every
    return (
        f"{percent(share)} of {number(every)} token copies{run.interval_end()} reached no expert; "
        f"in the last interval {spread(drops[-1], run.names(), percent)}."
    )


def _experts_per_token(run: Run, tables: RoutingTables, each: np.ndarray) -> str:
    layers = range(len(tables.layers))
    if all(tables.fixed_k(layer) for layer in layers):
        slots = sorted({tables.slots(layer) for layer in layers})
        return f"Every token goes to {listed(slots)} experts, always."
    first, last = float(statistics.mean_known(each[0])), float(statistics.mean_known(each[-1]))
    return (
        f"The number of experts that take a token varies: in the mean over tokens and layers it "
        f"{moved(first, last)} over training, in the last interval {spread(each[-1], run.names())}."
    )


def _kinds(tables: RoutingTables) -> list[str]:
    """Shares of copies by kind of expert, where there are several kinds."""
    copies: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for layer in range(len(tables.layers)):
        kinds, counts = tables.kinds(layer), tables.counts(layer)[-1]
        for kind in np.unique(kinds.astype(str)):
            chosen = kinds == kind
            copies[kind] = copies.get(kind, 0) + int(counts[chosen].sum())
            numbers[kind] = numbers.get(kind, 0) + int(chosen.sum())
    if len(copies) < 2:
        return []
    total, experts = sum(copies.values()), sum(numbers.values())
    parts = [
        f"{percent(copies[kind] / max(total, 1))} go to {count(numbers[kind], 'expert')} of kind "
        f"“{kind}” ({percent(numbers[kind] / experts)} of all)"
        for kind in sorted(copies, key=lambda kind: -copies[kind])
    ]
    return [
        f"Of the token copies of the last interval {listed(parts)}; random choice gives each kind "
        "its share of the experts."
    ]


def _histogram(run: Run, tables: RoutingTables) -> Picture | None:
    rows = [tables.histogram(layer) for layer in range(len(tables.layers))]
    if any(row is None for row in rows):
        return None
    last = np.array([row[-1] for row in rows])  # (layers, numbers)
    total = np.maximum(last.sum(1, keepdims=True), 1)
    share = last / total
    if (share > 0).sum(1).max() < 2:
        return None
    mean = [float(statistics.mean_of_histogram(row)) for row in last]
    return Picture(
        lambda: _draw_histogram(share, tables.layers.tolist()),
        f"Distribution of the number of experts of a token in the last interval; means "
        f"{spread(mean, run.names())}.",
        "Share of tokens by the number of experts that they have, in the last interval. A router "
        f"with a fixed k would have one point at 1. Means: {spread(mean, run.names())}.",
    )


def _draw_histogram(share: np.ndarray, layers: list[int]) -> Figure:
    figure, axes = plt.subplots(figsize=(curves.WIDTH_IN, 2.4))
    depth = figures.Depth(layers)
    for layer, row in enumerate(share):
        axes.plot(np.arange(len(row)), row, "o-", color=depth[layer], linewidth=1.5, markersize=4)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("experts of a token")
    axes.set_ylabel("share of tokens")
    axes.grid(axis="y", color="0.9")
    if len(layers) > 1:
        depth.bar(figure, axes, 24)
    return figure
