"""How evenly the experts of each layer are used."""

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
from report_sections.wording import count, listed, moved, number, spread, times
from routing_tables import RoutingTables


def section(run: Run) -> Section:
    result = Section("load", "Load of the experts")
    tables = run.routing
    assert tables is not None
    if not len(tables.intervals):
        result.say(run.no_interval())
        return result
    layers = range(len(tables.layers))
    if not any(tables.counts(layer)[-1].any() for layer in layers):
        result.say("No expert received a token copy in the last interval.")
        return result
    loads = [tables.counts(layer)[:, tables.with_weights(layer)] for layer in layers]
    peak, gini, entropy, dead = (
        np.column_stack([statistic(load) for load in loads])
        for statistic in (
            statistics.busiest,
            statistics.gini,
            statistics.relative_entropy,
            statistics.dead_experts,
        )
    )
    names = run.names()
    result.headline = (
        "Relative to an even share, the busiest expert of a layer got "
        f"{spread(peak[-1], names, times)} in the last interval; {_dead(tables, loads)}"
    )
    result.say(result.headline, _trend(tables, peak, gini, entropy), _chance(tables, loads, gini))
    result.say(_worst_moment(tables, dead), _without_weights(tables))
    panels = [
        curves.Panel("Busiest expert ÷ mean", peak, 1, "even"),
        curves.Panel("Gini coefficient", gini),
        curves.Panel("Entropy of the load ÷ ln E", entropy, 1, "even", bottom=None),
        curves.Panel("Experts without any token", dead, counts=True),
    ]
    edges = interval_edges(tables.intervals)
    result.show(
        Picture(
            lambda: curves.over_intervals(panels, edges, tables.layers.tolist()),
            f"Four curves by layer over training. At the end: busiest expert "
            f"{spread(peak[-1], names, times)}; Gini {spread(gini[-1], names)}; relative entropy "
            f"{spread(entropy[-1], names)}; {int(dead[-1].sum())} experts without tokens.",
            "Of the token copies c of a layer's E experts in an interval, pure numbers: max c ÷ "
            "mean c (1: even, E: one expert gets all); Gini coefficient Σᵢⱼ|cᵢ − cⱼ| / (2 E Σ c) "
            "(0: even); −Σ p ln p ÷ ln E with p = c / Σ c (1: even); and the number of experts "
            "with c = 0. An even load is what random choice tends to; how far sampling alone "
            "leaves it from there is said above.",
        )
    )
    result.show(_maps(run, tables, edges))
    return result


def _dead(tables: RoutingTables, loads: list[np.ndarray]) -> str:
    total = sum(load.shape[1] for load in loads)
    idle = {
        tables.block(layer): tables.experts(layer)[tables.with_weights(layer)][load[-1] == 0]
        for layer, load in enumerate(loads)
    }
    number_idle = sum(map(len, idle.values()))
    if number_idle == 0:
        return f"no expert, of {total:,}, was without tokens."
    where = [f"layer {block}: {listed(who, 8)}" for block, who in idle.items() if len(who)]
    return (
        f"{number_idle:,} of {count(total, 'expert')} got no token at all ({'; '.join(where[:6])}"
        f"{'; …' if len(where) > 6 else ''})."
    )


def _trend(tables: RoutingTables, peak: np.ndarray, gini: np.ndarray, entropy: np.ndarray) -> str:
    if len(peak) < 2:
        return "There is one interval only, so that nothing can be said of a trend."
    mean = [statistics.mean_known(table, 1) for table in (peak, gini, entropy)]
    return (
        f"From the first interval to the last, in the mean over layers, the busiest expert's load "
        f"{moved(mean[0][0], mean[0][-1], times)} the even share, the Gini coefficient "
        f"{moved(mean[1][0], mean[1][-1])} and the entropy relative to an even load "
        f"{moved(mean[2][0], mean[2][-1])}."
    )


def _chance(tables: RoutingTables, loads: list[np.ndarray], gini: np.ndarray) -> str:
    chance = [
        statistics.gini_of_chance(
            load[-1].sum(), load.shape[1], tables.counts(layer)[-1].sum() / tables.tokens[-1]
        )
        for layer, load in enumerate(loads)
    ]
    noise, seen = float(statistics.mean_known(chance)), float(statistics.mean_known(gini[-1]))
    if not np.isfinite(noise) or noise == 0:
        return ""
    return (
        f"Random, even choice of independent tokens would leave a Gini coefficient of about "
        f"{number(noise, 2)} by sampling alone; at the end it is {number(seen, 2)}."
    )


def _worst_moment(tables: RoutingTables, dead: np.ndarray) -> str:
    total = dead.sum(1)
    if not total.any() or total.argmax() == len(total) - 1:
        return ""
    worst = int(total.argmax())
    return (
        f"At worst {count(int(total[worst]), 'expert')} got no token, in the interval that ended "
        f"at step {tables.intervals[worst]:,}."
    )


def _without_weights(tables: RoutingTables) -> str:
    if all(tables.with_weights(layer).all() for layer in range(len(tables.layers))):
        return ""
    return (
        "These figures are of the experts that are feed-forward networks; the others are meant to "
        "take another load (see “Token copies”)."
    )


def _maps(run: Run, tables: RoutingTables, edges: np.ndarray) -> Picture:
    ratios = [statistics.share_of_copies(tables.counts(layer)) for layer in run.layers]
    ratios = [share * share.shape[1] for share in ratios]
    last = [(ratio[-1].min(), ratio[-1].max()) for ratio in ratios]
    ends = [
        f"{name}: {times(low)} to {times(high)}"
        for name, (low, high) in zip(run.names(run.layers), last)
        if np.isfinite(high)
    ]
    busiest = [
        f"expert {tables.experts(layer)[int(np.nan_to_num(ratio[-1]).argmax())]} in layer "
        f"{tables.block(layer)}"
        for layer, ratio in zip(run.layers, ratios)
        if np.isfinite(ratio[-1]).any()
    ]
    which = f"the busiest is {listed(busiest) or 'none'}"
    return Picture(
        lambda: _draw_maps(run, tables, ratios, edges),
        f"Heat maps of each expert's load over training. In the last interval {listed(ends)} of "
        f"an even share; {which}.",
        "Load of each expert: its share of the layer's token copies in an interval ÷ 1/E, on a "
        f"logarithmic colour scale; 1× is the even share. Shown: {listed(run.names(run.layers))}. "
        f"In the last interval {which}.",
    )


def _draw_maps(
    run: Run, tables: RoutingTables, ratios: list[np.ndarray], edges: np.ndarray
) -> Figure:
    figure, grid = plt.subplots(
        len(ratios),
        1,
        figsize=(curves.WIDTH_IN, 0.7 + 1.6 * len(ratios)),
        sharex=True,
        squeeze=False,
    )
    known = np.concatenate([ratio.ravel() for ratio in ratios])
    norm = figures.ratio_norm(np.nan_to_num(known, nan=1))
    for axes, layer, ratio in zip(grid[:, 0], run.layers, ratios):
        experts = tables.experts(layer)
        mesh = axes.pcolormesh(
            edges,
            np.arange(len(experts) + 1) - 0.5,
            np.clip(ratio.T, norm.vmin / 2, None),
            norm=norm,
            cmap=figures.DIVERGING,
            rasterized=True,
        )
        axes.set_title(f"Layer {tables.block(layer)}")
        axes.set_ylabel("expert")
        ticks = figures.tick_positions(experts, 8)
        axes.set_yticks(ticks, labels=[str(experts[tick]) for tick in ticks])
        axes.invert_yaxis()
    figures.ratio_bar(figure, mesh, grid[:, 0], "load ÷ even share")
    figures.step_axis(grid[-1, 0], 5)
    return figure
