#!/usr/bin/env python3
"""Loss over training, in total and by data source, with validation and the learning rate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import figures
from statistics_file import StatisticsFile

POINTS = 150  # of a curve: more is noise to the eye
LINES = ("-", "--", "-.", ":")
LOSS_SHARE = 0.7  # of the figure's height


def main() -> int:
    top = figures.parser(
        "Draws the cross-entropy of training in total and by data source, the validation's points "
        "and the learning rate.",
        "training.h5 of a run",
    )
    top.add_argument(
        "--over",
        choices=("tokens", "steps"),
        default="tokens",
        help="what the horizontal axis counts (default tokens)",
    )
    top.add_argument("--log", action="store_true", help="a logarithmic horizontal axis")
    return figures.run(top, "training.h5", draw)


def draw(file: StatisticsFile, arguments: argparse.Namespace) -> Mapping[str, Figure]:
    return {"loss": loss_figure(file, arguments.over, arguments.log)}


def loss_figure(
    file: StatisticsFile, over: str, log: bool, size_in: tuple[float, float] = (9, 6.6)
) -> Figure:
    """`over`: "tokens" or "steps", on the horizontal axis; `log`: a logarithmic one."""
    steps = file.rows("step", "one is written for every step")
    tokens = file.read("tokens", 1)
    entropy = file.read("cross_entropy", 1)
    sources = file.names("source")
    source_loss, source_tokens = file.read("source_loss", 2), file.read("source_tokens", 2)
    if over == "tokens":
        unit, name = token_unit(tokens.sum())
        position = np.cumsum(tokens) / unit
    else:
        position, name = steps.astype(float), "training steps"

    figure, (losses, rates) = plt.subplots(
        2, 1, figsize=size_in, sharex=True, gridspec_kw={"height_ratios": [4, 1]}
    )
    ends = []
    width = -(-len(steps) // POINTS)
    if len(sources) > 1:
        for index, source in enumerate(sources):
            colour, line = source_style(index)
            loss, count = source_loss[:, index], source_tokens[:, index]
            x, y = averaged(position, loss, count, width)
            losses.plot(x, y, line, color=colour, linewidth=1.4, **dot_if_alone(x))
            if len(y):
                ends.append((y[-1], source, colour))
    if width > 1:  # the noise that the averages hide
        losses.plot(position, entropy, color="0.85", linewidth=0.7, zorder=0)
    x, y = averaged(position, entropy, tokens, width)
    losses.plot(x, y, color=figures.WHOLE, linewidth=2.2, **dot_if_alone(x))
    total = "all sources" if len(sources) != 1 else sources[0]
    if len(y):
        ends.append((y[-1], total, figures.WHOLE))

    validated = draw_validation(file, losses, sources, steps, position)
    losses.set_ylim(losses.get_ylim())  # fixed: the labels' places depend on it
    figures.label_ends(losses, ends, LOSS_SHARE * size_in[1])
    losses.set_ylabel("cross-entropy (nats per token)")
    losses.grid(axis="y", color="0.93")
    what = "in total (black) and by data source" if len(sources) > 1 else f"on {total}"
    losses.set_title(f"Training loss {what}{'; circles: validation' * validated}")

    rates.plot(
        position,
        file.read("learning_rate", 1),
        color=figures.WHOLE,
        linewidth=1.4,
        **dot_if_alone(position),
    )
    rates.set_ylim(bottom=0)
    rates.set_ylabel("learning rate")
    rates.ticklabel_format(axis="y", scilimits=(-2, 2))
    rates.set_xlabel(name if over == "steps" else f"{name}, up to step {steps[-1]:,}")
    if log:
        rates.set_xscale("log")
    elif len(steps) > 1:
        rates.set_xlim(0, position[-1] * 1.015)  # room for the last circles
    return figure


def draw_validation(
    file: StatisticsFile,
    axes: Axes,
    sources: list[str],
    steps: np.ndarray,
    position: np.ndarray,
) -> bool:
    if "validation_step" not in file:
        return False
    at = np.interp(file.read("validation_step", 1), np.append(0, steps), np.append(0.0, position))
    loss, tokens = file.read("validation_loss", 2), file.read("validation_tokens", 2)
    if not np.isfinite(loss).any():
        return False
    size = 22 if len(at) <= 40 else 9
    if len(sources) > 1:
        for index in range(len(sources)):
            colour, _ = source_style(index)
            axes.scatter(at, loss[:, index], size, "white", edgecolors=colour, zorder=3)
    counted = np.where(np.isfinite(loss), tokens, 0)
    with np.errstate(invalid="ignore"):
        total = (np.nan_to_num(loss) * counted).sum(1) / counted.sum(1)
    axes.scatter(at, total, size * 1.4, "white", edgecolors=figures.WHOLE, zorder=4)
    return True


def source_style(index: int) -> tuple[str, str]:
    turns = index // len(figures.COLOURS)
    return figures.COLOURS[index % len(figures.COLOURS)], LINES[turns % len(LINES)]


def averaged(
    position: np.ndarray, loss: np.ndarray, tokens: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss per token over each `width` rows, where there were tokens."""
    starts = np.arange(0, len(position), width)
    weight = np.where(np.isfinite(loss), tokens, 0)
    weights = np.add.reduceat(weight, starts)
    sums = np.add.reduceat(np.nan_to_num(loss) * weight, starts)
    rows = np.add.reduceat(np.ones(len(position)), starts)
    centres = np.add.reduceat(position, starts) / rows
    seen = weights > 0
    return centres[seen], sums[seen] / weights[seen]


def dot_if_alone(x: np.ndarray) -> dict[str, str]:
    return {"marker": "o"} if len(x) == 1 else {}


def token_unit(tokens: int) -> tuple[float, str]:
    for unit, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if tokens >= 2 * unit:
            return unit, f"{name} training tokens"
    return 1.0, "training tokens"


if __name__ == "__main__":
    sys.exit(main())
