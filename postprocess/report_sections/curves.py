"""Panels of curves by layer over training, one below the other: narrow enough for a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import figures

WIDTH_IN = 4.8  # 9 points are then 9 pixels on a phone
PANEL_HEIGHT_IN = 1.5


@dataclass(frozen=True)
class Panel:
    """A quantity (rows, layers); `chance`: a level to compare with, or one by row, and its name.

    The scale begins at `bottom`, or near the lowest value where that is None.
    """

    title: str
    values: np.ndarray
    chance: float | np.ndarray | None = None
    chance_name: str = ""
    bottom: float | None = 0.0
    top: float | None = None
    counts: bool = False  # whole numbers
    shares: bool = False  # written in per cent


def over_intervals(panels: Sequence[Panel], edges: np.ndarray, layers: Sequence[int]) -> Figure:
    """Steps of constant height: a row is about all steps of its interval."""

    def draw(axes: Axes, curve: np.ndarray, colour: np.ndarray) -> None:
        axes.stairs(curve, edges, baseline=None, color=colour, linewidth=1.5)

    return _stack(panels, layers, draw, edges[1:])


def over_checkpoints(panels: Sequence[Panel], steps: np.ndarray, layers: Sequence[int]) -> Figure:
    def draw(axes: Axes, curve: np.ndarray, colour: np.ndarray) -> None:
        axes.plot(steps, curve, "o-", color=colour, linewidth=1.5, markersize=3.5)

    return _stack(panels, layers, draw, steps)


def _stack(panels: Sequence[Panel], layers: Sequence[int], draw, rows: np.ndarray) -> Figure:
    """`rows`: the step at which each ends."""
    figure, grid = plt.subplots(
        len(panels),
        1,
        figsize=(WIDTH_IN, 0.7 + PANEL_HEIGHT_IN * len(panels)),
        sharex=True,
        squeeze=False,
    )
    depth = figures.Depth(layers)
    for axes, panel in zip(grid[:, 0], panels):
        for position in range(len(layers)):
            draw(axes, panel.values[:, position], depth[position])
        _scale(axes, panel)
        axes.set_title(panel.title)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color="0.9")
        levels = _levels(panel, len(rows))
        if np.isfinite(levels[-1:]).any():
            figures.reference_curve(axes, rows, levels, panel.chance_name)
    if len(layers) > 1:
        depth.bar(figure, grid[:, 0], 24, aspect=18 * len(panels))
    figures.step_axis(grid[-1, 0], 5)
    return figure


def _levels(panel: Panel, rows: int) -> np.ndarray:
    """The level to compare with by row, alike where it is one; NaN without one."""
    level = np.nan if panel.chance is None else panel.chance
    return np.full(rows, level) if np.ndim(level) == 0 else np.asarray(level)


def _scale(axes: Axes, panel: Panel) -> None:
    """From the bottom to a little above what is shown, the level to compare with inside."""
    shown = panel.values[np.isfinite(panel.values)].tolist()
    shown += [level for level in _levels(panel, 1).tolist() if np.isfinite(level)]
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    if panel.counts:
        axes.yaxis.get_major_locator().set_params(integer=True)
        high = max(high, 1)
    if panel.shares:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if panel.bottom is None:
        gap = max(high - low, 0.01 * abs(high), 1e-6)
        axes.set_ylim(low - 0.2 * gap, high + 0.1 * gap)
        axes.ticklabel_format(axis="y", useOffset=False)
        return
    top = panel.top if panel.top is not None else panel.bottom + 1.08 * (high - panel.bottom)
    axes.set_ylim(panel.bottom, top if top > panel.bottom else panel.bottom + 1)
