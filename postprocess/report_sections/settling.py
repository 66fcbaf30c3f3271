"""Saturation: when the probe tokens' experts become those that they end with."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import figures
import routing_statistics as statistics
from report_sections import curves
from report_sections.page import Picture, Section
from report_sections.run import Run
from report_sections.wording import count, listed, percent, spread
from routing_tables import RoutingTables

SETTLED = 0.8  # share that a reader may call settled: the report says when it is reached


def section(run: Run) -> Section:
    result = Section("saturation", "How early routing settles")
    tables = run.routing
    assert tables is not None
    steps = tables.checkpoints
    if "probe_choice" not in tables.file:
        result.say(
            "There is no probe set (statistics.probe_tokens = 0), so that choices of the same "
            "tokens cannot be compared over training."
        )
        return result
    if len(steps) < 2:
        result.say(
            f"The run has {count(len(steps), 'checkpoint')}; comparing choices takes two or more."
        )
        return result
    choices = [tables.probe_choice(layer) for layer in range(len(tables.layers))]
    final = np.column_stack([statistics.saturation(choice) for choice in choices])
    before = np.column_stack([statistics.saturation(choice, "previous") for choice in choices])
    if not np.isfinite(final[0]).any():
        result.say("No probe token has an expert at the last checkpoint.")
        return result
    mean_chance = _chance(tables, choices, max(choice.shape[2] for choice in choices))
    names, probes = run.names(), choices[0].shape[1]
    result.headline = (
        f"Of a probe token's experts at the end, {percent(statistics.mean_known(final[0]))} were "
        f"chosen at step {steps[0]:,} already (mean over layers; random choice: "
        f"{percent(mean_chance)})"
    )
    if len(steps) > 2:
        kept = percent(statistics.mean_known(before[-1]))
        result.headline += f", and {kept} at step {steps[-2]:,}, the checkpoint before the end"
    result.headline += "."
    result.say(result.headline, _order(run, tables, final), _settled(tables, final))
    if len(steps) > 2:
        result.say(
            "From one checkpoint to the next, choices kept (mean over layers) "
            f"{percent(statistics.mean_known(before[1]))} at step {steps[1]:,} and "
            f"{percent(statistics.mean_known(before[-1]))} at the end. Checkpoints close in "
            "time agree for that reason alone, and the last one agrees with itself."
        )
    label = f"random choice, {percent(mean_chance)}"
    panels = [
        curves.Panel(
            f"Agreement with the {which}", table, mean_chance, label, top=1.04, shares=True
        )
        for which, table in (("final checkpoint", final), ("checkpoint before", before))
    ]
    result.show(
        Picture(
            lambda: curves.over_checkpoints(panels, steps, tables.layers.tolist()),
            f"Curves by layer over checkpoints. With the final checkpoint, at step {steps[0]:,}: "
            f"{spread(final[0], names, percent)}; with the one before, at the end: "
            f"{spread(before[-1], names, percent)}.",
            f"Saturation: mean over {probes:,} fixed probe tokens of the validation split of "
            "|A ∩ B| / |B|, A the token's experts at a checkpoint, B those at the reference: above "
            "the final checkpoint, below the one before. Tokens without an expert in B are left "
            f"out. Random choice gives mean |A| / E{_k_over_e(tables)}.",
        )
    )
    _best(run, tables, choices, result)
    return result


def _chance(tables: RoutingTables, choices: list[np.ndarray], k: int) -> float:
    """Agreement of random choices, of the k best alone, in the mean over layers."""
    cut = [statistics.first_choices(choice, k) for choice in choices]
    chance = [
        statistics.chance_agreement(choice[0], choice[-1], len(tables.experts(layer)))
        for layer, choice in enumerate(cut)
    ]
    return float(statistics.mean_known(chance))


def _k_over_e(tables: RoutingTables) -> str:
    layers = range(len(tables.layers))
    pairs = {(tables.slots(layer), len(tables.experts(layer))) for layer in layers}
    if len(pairs) != 1 or not all(tables.fixed_k(layer) for layer in layers):
        return ""
    k, experts = pairs.pop()
    return f" = {k}/{experts} = {percent(k / experts)}"


def _order(run: Run, tables: RoutingTables, final: np.ndarray) -> str:
    """Which layers settle first, at the checkpoint halfway."""
    half = (len(final) - 1) // 2
    return (
        f"Halfway, at step {tables.checkpoints[half]:,}, it is "
        f"{spread(final[half], run.names(), percent)}."
        if len(final) > 2
        else ""
    )


def _settled(tables: RoutingTables, final: np.ndarray) -> str:
    mean = statistics.mean_known(final[:-1], 1)
    reached = np.flatnonzero(mean >= SETTLED)
    if not len(reached):
        return f"The mean over layers is below {SETTLED:.0%} at every checkpoint before the last."
    return (
        f"The mean over layers reaches {SETTLED:.0%} at step "
        f"{tables.checkpoints[reached[0]]:,} first."
    )


def _best(run: Run, tables: RoutingTables, choices: list[np.ndarray], result: Section) -> None:
    """Agreement of the k best experts alone, for k below the router's."""
    most = max(choice.shape[2] for choice in choices)
    if most < 2:
        return
    if not any(statistics.in_order_of_rank(choice) for choice in choices):
        result.say(
            "The file has a token's experts in the order of their numbers, not of rank, so that "
            "the agreement of its best few alone cannot be told."
        )
        return
    ks = [k for k in (1, 2, 4, 8, 16) if k < most] + [most]
    by_k = np.array(
        [
            [
                statistics.mean_known([statistics.saturation(c, "final", k)[row] for c in choices])
                for k in ks
            ]
            for row in range(len(tables.checkpoints))
        ]
    )
    first = [f"{percent(value)} (k = {k})" for k, value in zip(ks, by_k[0])]
    result.say(
        f"Of the k best experts alone, the agreement with the final checkpoint at step "
        f"{tables.checkpoints[0]:,} is {listed(first)}, in the mean over layers."
    )
    chance = [f"{percent(_chance(tables, choices, k))} for k = {k}" for k in ks]
    result.show(
        Picture(
            lambda: _draw_best(tables, ks, by_k),
            f"Curves by k over checkpoints; at the first {listed(first)}.",
            "Saturation against the final checkpoint, of a token's k best experts of either "
            "checkpoint alone, in the mean over layers. Random choice gives the mean of |A| / "
            f"E: {listed(chance)}.",
        )
    )


def _draw_best(tables: RoutingTables, ks: list[int], by_k: np.ndarray) -> Figure:
    figure, axes = plt.subplots(figsize=(curves.WIDTH_IN, 2.9))
    for position, colour in zip(range(len(ks)), figures.COLOURS):
        axes.plot(
            tables.checkpoints, by_k[:, position], "o-", color=colour, linewidth=1.5, markersize=3.5
        )
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", color="0.9")
    axes.legend([f"top {k}" for k in ks], loc="lower right")
    figures.step_axis(axes, 5)
    return figure
