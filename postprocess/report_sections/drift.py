"""Drift: how far the experts' weights moved."""

from __future__ import annotations

import numpy as np

import routing_statistics as statistics
from report_sections import curves
from report_sections.page import Picture, Section
from report_sections.run import Run
from report_sections.wording import percent, spread
from routing_tables import RoutingTables


def section(run: Run) -> Section:
    result = Section("drift", "How far experts move")
    tables = run.routing
    assert tables is not None
    if not tables.has_drift or not len(tables.checkpoints):
        result.say(
            "The run did not record how far its experts' weights moved (statistics.drift = false)."
            if not tables.has_drift
            else "The run has no checkpoint of its deck yet, so that no drift is recorded."
        )
        return result
    steps, names = tables.checkpoints, run.names()
    before, start, router = (
        _by_layer(tables, measure, kind)
        for measure, kind in (
            (statistics.since_before, "expert"),
            (statistics.since_start, "expert"),
            (statistics.since_start, "router"),
        )
    )
    since = f"step {steps[-2]:,}" if len(steps) > 1 else "the start"
    result.headline = (
        f"From {since} to step {steps[-1]:,} an expert's weights moved by "
        f"{percent(statistics.mean_known(before[-1]))} of their length"
    )
    if np.isfinite(start[-1]).any():
        result.headline += f", since the start by {percent(statistics.mean_known(start[-1]))}"
    result.headline += " (mean over experts and layers)."
    result.say(result.headline, _most(tables, names), _router(router[-1], names))
    panels = [
        curves.Panel(f"Moved since the {which}", table, shares=True)
        for which, table in (("checkpoint before", before), ("start", start))
        if np.isfinite(table).any()
    ]
    ends = f"Since the checkpoint before {spread(before[-1], names, percent)}"
    if len(panels) > 1:
        ends += f"; since the start {spread(start[-1], names, percent)}"
    result.show(
        Picture(
            lambda: curves.over_checkpoints(panels, steps, tables.layers.tolist()),
            f"Curves by layer over checkpoints. At the end: {ends}.",
            "Drift of experts' weights, ‖W − W'‖ / ‖W'‖ with the Frobenius norm of an expert's "
            "three matrices together, in the mean over a layer's experts; W' are the weights at "
            "the checkpoint before (of the first one: at the start), and at the start. Weights "
            "that shrink by weight decay move too.",
        )
    )
    return result


def _by_layer(tables: RoutingTables, measure, kind: str) -> np.ndarray:
    """(checkpoints, layers), means over experts."""
    layers = range(len(tables.layers))
    moved = [measure(tables.drift(kind, layer)) for layer in layers]
    return np.column_stack([statistics.mean_known(table, 1) for table in moved])


def _most(tables: RoutingTables, names: list[str]) -> str:
    """Of the experts, which moved least and most since the checkpoint before the last."""
    found = []
    for layer, name in enumerate(names):
        numbers = tables.experts(layer)[tables.with_weights(layer)]
        moved = statistics.since_before(tables.drift("expert", layer))[-1]
        found += [
            (share, f"expert {e} in {name}")
            for share, e in zip(moved, numbers)
            if np.isfinite(share)
        ]
    if len(found) < 2:
        return ""
    low, high = min(found), max(found)
    return (
        f"It was least for {low[1]}, {percent(low[0])}, and most for {high[1]}, {percent(high[0])}."
    )


def _router(moved: np.ndarray, names: list[str]) -> str:
    if not np.isfinite(moved).any():
        return ""
    return (
        "An expert's row of the router moved since the start by "
        f"{spread(moved, names, percent)} (mean over experts)."
    )
