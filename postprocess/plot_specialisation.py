#!/usr/bin/env python3
"""What experts specialise in: data sources, and tokens with their text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import figures
from statistics_file import InputError, StatisticsFile

TOKENS_EACH = 2  # most specialised tokens of an expert
PANEL_HEIGHT_IN = 2.0


def main() -> int:
    top = figures.parser(
        "Draws which experts prefer which data sources in chosen layers "
        "(specialisation_domain), and the tokens that chosen experts take most of, over training "
        "(specialisation_token; left out when the run kept no counts by token).",
        "routing.h5 of a run",
    )
    figures.add_layers(top)
    top.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json, for the tokens' text instead of their numbers (needs the Python "
        "package tokenizers)",
    )
    top.add_argument(
        "--token-layer", type=int, metavar="N", help="block number for the tokens (default: last)"
    )
    top.add_argument(
        "--experts",
        type=figures.positive,
        default=5,
        metavar="N",
        help="shown with their tokens, the most specialised first (default 5)",
    )
    top.add_argument(
        "--min-count",
        type=figures.positive,
        default=100,
        metavar="N",
        help="tokens must have been seen so often at the last point (default 100)",
    )
    top.add_argument(
        "--points",
        type=figures.positive,
        default=10,
        metavar="N",
        help="at most, over training; neighbouring checkpoints' counts are added (default 10)",
    )
    return figures.run(top, "routing.h5", draw)


def draw(file: StatisticsFile, arguments: argparse.Namespace) -> Mapping[str, Figure]:
    name_of = token_names(arguments.tokenizer)
    file.checkpoints()
    pictures = {"specialisation_domain": draw_domains(file, arguments)}
    if "token_expert_count" in file:
        pictures["specialisation_token"] = draw_tokens(file, arguments, name_of)
    else:
        print(
            f"{file.path}: no counts by token (statistics.token_counts = false), so no picture "
            "of them",
            file=sys.stderr,
        )
    return pictures


# By data source


def draw_domains(file: StatisticsFile, arguments: argparse.Namespace) -> Figure:
    layers, experts = file.layers(), file.experts()
    chosen = file.chosen_layers(arguments.layers)
    sources = file.names("source")
    k, row = file.top_k(), file.last_counted("source_expert_count")
    ratios = [preference(file.dataset("source_expert_count", 4)[row, layer]) for layer in chosen]

    height = max(0.24 * len(sources), 0.5)
    figure, grid = plt.subplots(
        len(chosen), 1, figsize=(11, 1.1 + (height + 0.85) * len(chosen)), squeeze=False
    )
    norm = figures.ratio_norm(np.nan_to_num(np.array(ratios)))
    for axes, layer, ratio in zip(grid[:, 0], chosen, ratios, strict=True):
        order = by_favourite(ratio)
        mesh = axes.imshow(
            np.clip(ratio[:, order], norm.vmin / 2, None),
            norm=norm,
            cmap=figures.DIVERGING,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_title(f"Layer {layers[layer]}")
        axes.set_yticks(range(len(sources)), labels=sources)
        ticks = figures.tick_positions(range(experts), 80)
        axes.set_xticks(ticks, labels=[str(order[tick]) for tick in ticks])
        if experts > 32:
            axes.tick_params(axis="x", rotation=90, labelsize=6.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    grid[-1, 0].set_xlabel("expert, in the order of the source it prefers")
    figures.ratio_bar(figure, mesh, grid[:, 0], "share of the source's tokens\n÷ random choice")
    if len(sources) == 1:
        what = "Use of experts by the one data source"
    else:
        what = "Experts' preference for data sources"
    figure.suptitle(
        f"{what}, {file.span(row)}\n"
        f"1× is random choice: {k}/{experts} = {k / experts:.1%} of a source's tokens for each",
        x=0.01,
        ha="left",
    )
    return figure


def preference(counts: np.ndarray) -> np.ndarray:
    """Share of a source's tokens that chose the expert, over k/E; NaN for a source not seen.

    The share is counts / (sum of counts / k), so k drops out of the ratio.
    """
    sums = counts.sum(1, keepdims=True).astype(float)
    sums[sums == 0] = np.nan
    return counts * counts.shape[1] / sums


def by_favourite(ratio: np.ndarray) -> list[int]:
    """Experts by the source they prefer most, the most pronounced first."""
    known = np.nan_to_num(ratio)
    return np.lexsort((-known.max(0), known.argmax(0))).tolist()


# By token


@dataclass(frozen=True)
class Traces:
    """Specialisation S(e, t), the share of t's occurrences that chose e, over training."""

    steps: np.ndarray  # (points)
    tokens: np.ndarray  # (experts, TOKENS_EACH); the most specialised at the last point
    share: np.ndarray  # (points, experts, TOKENS_EACH), NaN where a token did not occur


def draw_tokens(
    file: StatisticsFile, arguments: argparse.Namespace, name_of: Callable[[int], str]
) -> Figure:
    layers, experts, k = file.layers(), file.experts(), file.top_k()
    wish = None if arguments.token_layer is None else [arguments.token_layer]
    layer = file.chosen_layers(wish)[-1]
    traces = specialised(file, layer, k, arguments.min_count, arguments.points)
    order = np.argsort(-traces.share[-1].mean(1), kind="stable")[: arguments.experts]

    columns = min(len(order) + 1, 3)
    # The first panel is the mean over all experts.
    rows = -(-(len(order) + 1) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(4.2 * columns, 1.3 + (PANEL_HEIGHT_IN + 0.6) * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    panels = grid.ravel()
    for spare in panels[len(order) + 1 :]:
        spare.set_axis_off()
    highest = np.nanmax(traces.share[:, order])
    panels[0].set_ylim(0, min(1.02, highest * 1.12))
    panels[0].set_xlim(0, traces.steps[-1] * 1.02)

    seen = np.isfinite(traces.share)
    with np.errstate(invalid="ignore"):
        means = np.nan_to_num(traces.share).sum(1) / seen.sum(1)
    names = ("best token", "second")
    draw_panel(panels[0], traces.steps, means, names)
    panels[0].set_title(f"Mean over all {experts} experts")
    for axes, expert in zip(panels[1:], order, strict=False):
        texts = [name_of(int(token)) for token in traces.tokens[expert]]
        draw_panel(axes, traces.steps, traces.share[:, expert], texts)
        axes.set_title(f"Expert {expert}")
    for axes in panels[: len(order) + 1]:
        axes.axhline(k / experts, color=figures.REFERENCE, linestyle="--", linewidth=1, zorder=1)
        axes.grid(axis="y", color="0.93")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.tick_params(labelbottom=True)
    for axes in panels[max(0, len(order) + 1 - columns) : len(order) + 1]:
        figures.step_axis(axes, 5)
    figure.supylabel("share of the token's occurrences that chose the expert", fontsize="medium")
    figure.suptitle(
        f"Experts' two most specialised tokens in layer {layers[layer]} "
        f"(dashed: random choice, {k}/{experts} = {k / experts:.1%})\n"
        f"Chosen at the last point among tokens seen {arguments.min_count:,} times or more, "
        "which favours that point",
        x=0.01,
        ha="left",
    )
    return figure


def draw_panel(axes: Axes, steps: np.ndarray, share: np.ndarray, names: Sequence[str]) -> None:
    """Two curves with their names at the right."""
    ends = []
    for rank, line in enumerate(("o-", "s--")):
        colour = figures.COLOURS[rank]
        axes.plot(steps, share[:, rank], line, color=colour, linewidth=1.6, markersize=3.5)
        ends.append((share[-1, rank], names[rank], colour))
    figures.label_ends(axes, ends, PANEL_HEIGHT_IN)


def specialised(file: StatisticsFile, layer: int, k: int, min_count: int, points: int) -> Traces:
    table = file.dataset("token_expert_count", 4)
    steps = file.checkpoints()
    groups = row_groups(len(steps), points)
    counts = summed(table, groups[-1], layer)
    while not counts.any() and len(groups) > 1:  # a checkpoint right after another
        groups.pop()
        counts = summed(table, groups[-1], layer)
    occurrences = counts.sum(1) / k
    eligible = np.flatnonzero(occurrences >= min_count)
    if len(eligible) < TOKENS_EACH:
        raise file.failure(
            f"{len(eligible)} tokens occur {min_count} times or more at the last point, the most "
            f"frequent {occurrences.max():.0f} times; --min-count N lowers the bound"
        )
    share = counts[eligible] / occurrences[eligible, None]
    best = np.argsort(-share, axis=0, kind="stable")[:TOKENS_EACH]
    tokens = eligible[best].T

    experts = np.arange(counts.shape[1])[:, None]
    traced = []
    for rows in groups:
        counts = summed(table, rows, layer)
        with np.errstate(invalid="ignore"):
            traced.append(counts[tokens, experts] / (counts.sum(1) / k)[tokens])
    return Traces(steps[[rows[-1] for rows in groups]], tokens, np.array(traced))


def row_groups(rows: int, points: int) -> list[range]:
    """Neighbouring rows in at most so many groups; the last, where tokens are chosen, is full."""
    size = -(-rows // points)
    return [range(max(0, end - size), end) for end in range(rows, 0, -size)][::-1]


def summed(table: h5py.Dataset, rows: range, layer: int) -> np.ndarray:
    """Counts (token, expert) added over checkpoints, read row by row."""
    total = table[rows[0], layer]
    for row in rows[1:]:
        total += table[row, layer]
    return total


def token_names(tokenizer: Path | None) -> Callable[[int], str]:
    """Text for a label from a token's number."""
    if tokenizer is None:
        return lambda token: f"token {token}"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError("--tokenizer needs the Python package tokenizers") from None
    if not tokenizer.is_file():
        raise InputError(f"{tokenizer}: no such file; expected a tokenizer.json")
    try:
        loaded = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # the package raises nothing more specific
        raise InputError(f"{tokenizer}: not a tokenizer.json ({error})") from None

    def name_of(token: int) -> str:
        text = loaded.decode([token], skip_special_tokens=False)
        # A byte of a longer character has no text of its own.
        return figures.printable(text) if text and "\ufffd" not in text else f"token {token}"

    return name_of


if __name__ == "__main__":
    sys.exit(main())
