#!/usr/bin/env python3
"""What experts specialise in: data sources, and tokens with their text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import figures
from arguments import positive
from routing_statistics import best_tokens, mean_known, preference, random_share, traced
from routing_tables import RoutingTables
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
    figures.add_tokenizer(top)
    top.add_argument(
        "--token-layer", type=int, metavar="N", help="block number for the tokens (default: last)"
    )
    top.add_argument(
        "--experts",
        type=positive,
        default=5,
        metavar="N",
        help="shown with their tokens, the most specialised first (default 5)",
    )
    top.add_argument(
        "--min-count",
        type=positive,
        default=100,
        metavar="N",
        help="tokens must have been seen so often at the last point, and random choice must give "
        "an expert so many copies of a data source (default 100)",
    )
    top.add_argument(
        "--points",
        type=positive,
        default=10,
        metavar="N",
        help="at most, over training; neighbouring checkpoints' counts are added (default 10)",
    )
    return figures.run(top, "routing.h5", draw)


def draw(file: StatisticsFile, arguments: argparse.Namespace) -> Mapping[str, Figure]:
    name_of = token_names(arguments.tokenizer)
    tables = RoutingTables(file)
    file.checkpoints()
    pictures = {"specialisation_domain": draw_domains(tables, arguments)}
    wish = None if arguments.token_layer is None else [arguments.token_layer]
    layer = file.chosen_layers(wish)[-1]
    missing = ""
    if "token_expert_count" not in file:
        missing = "no counts by token (statistics.token_counts = false)"
    elif not tables.knows_occurrences(layer):
        missing = (
            "the number of experts of a token varies and the file does not count the tokens of "
            "each id (token_count)"
        )
    if missing:
        print(f"{file.path}: {missing}, so no picture of specialisation by token", file=sys.stderr)
    else:
        pictures["specialisation_token"] = draw_tokens(tables, layer, arguments, name_of)
    return pictures


# By data source


def draw_domains(tables: RoutingTables, arguments: argparse.Namespace) -> Figure:
    file = tables.file
    chosen = file.chosen_layers(arguments.layers)
    sources, row = file.names("source"), tables.last_counted()
    counts = [tables.by_source(row, layer) for layer in chosen]
    ratios = [preference(table, arguments.min_count) for table in counts]
    if not any(np.isfinite(ratio).any() for ratio in ratios):
        even = max(table.sum(1).max() / table.shape[1] for table in counts)
        raise file.failure(
            f"random choice would give an expert at most {even:.0f} copies of a data source in "
            f"{file.span(row)}, too few; --min-count N lowers the bound"
        )

    height = max(0.24 * len(sources), 0.5)
    figure, grid = plt.subplots(
        len(chosen), 1, figsize=(11, 1.1 + (height + 0.85) * len(chosen)), squeeze=False
    )
    norm = figures.ratio_norm(np.concatenate([np.nan_to_num(ratio).ravel() for ratio in ratios]))
    for axes, layer, ratio in zip(grid[:, 0], chosen, ratios, strict=True):
        order, experts = by_favourite(ratio), tables.experts(layer)
        mesh = axes.imshow(
            np.clip(ratio[:, order], norm.vmin / 2, None),
            norm=norm,
            cmap=figures.DIVERGING,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_title(f"Layer {tables.block(layer)}")
        axes.set_yticks(range(len(sources)), labels=sources)
        ticks = figures.tick_positions(order, 80)
        axes.set_xticks(ticks, labels=[str(experts[order[tick]]) for tick in ticks])
        if len(experts) > 32:
            axes.tick_params(axis="x", rotation=90, labelsize=6.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    sizes = sorted({len(tables.experts(layer)) for layer in chosen})
    even = " or ".join(f"1/{size} = {1 / size:.1%}" for size in sizes)
    grid[-1, 0].set_xlabel("expert, in the order of the source it prefers")
    figures.ratio_bar(figure, mesh, grid[:, 0], "share of the source's copies\n÷ random choice")
    if len(sources) == 1:
        what = "Use of experts by the one data source"
    else:
        what = "Experts' preference for data sources"
    figure.suptitle(
        f"{what}, {file.span(row)}\n1× is random choice: {even} of a source's copies for each",
        x=0.01,
        ha="left",
    )
    return figure


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
    level: np.ndarray  # (points), of random choice


def draw_tokens(
    tables: RoutingTables,
    layer: int,
    arguments: argparse.Namespace,
    name_of: Callable[[int], str],
) -> Figure:
    experts = tables.experts(layer)
    traces = specialised(tables, layer, arguments.min_count, arguments.points)
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

    means = mean_known(traces.share, 1)
    names = ("best token", "second")
    draw_panel(panels[0], traces.steps, means, names)
    panels[0].set_title(f"Mean over all {len(experts)} experts")
    for axes, expert in zip(panels[1:], order, strict=False):
        texts = [name_of(int(token)) for token in traces.tokens[expert]]
        draw_panel(axes, traces.steps, traces.share[:, expert], texts)
        axes.set_title(f"Expert {experts[expert]}")
    for axes in panels[: len(order) + 1]:
        figures.reference_curve(axes, traces.steps, traces.level)
        axes.grid(axis="y", color="0.93")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.tick_params(labelbottom=True)
    for axes in panels[max(0, len(order) + 1 - columns) : len(order) + 1]:
        figures.step_axis(axes, 5)
    figure.supylabel("share of the token's occurrences that chose the expert", fontsize="medium")
    figure.suptitle(
        f"Experts' two most specialised tokens in layer {tables.block(layer)} "
        f"(dashed: random choice, {chance_text(traces.level[-1], len(experts))})\n"
        f"Chosen at the last point among tokens seen {arguments.min_count:,} times or more, "
        "which favours that point",
        x=0.01,
        ha="left",
    )
    return figure


def chance_text(share: float, experts: int) -> str:
    """'6/64 = 9.4%', what random choice gives at the last point."""
    return f"{share * experts:.3g}/{experts} = {share:.1%}"


def draw_panel(axes: Axes, steps: np.ndarray, share: np.ndarray, names: Sequence[str]) -> None:
    """Two curves with their names at the right."""
    ends = []
    for rank, line in enumerate(("o-", "s--")):
        colour = figures.COLOURS[rank]
        axes.plot(steps, share[:, rank], line, color=colour, linewidth=1.6, markersize=3.5)
        ends.append((share[-1, rank], names[rank], colour))
    figures.label_ends(axes, ends, PANEL_HEIGHT_IN)


def specialised(tables: RoutingTables, layer: int, min_count: int, points: int) -> Traces:
    rows = tables.counted_rows()
    groups = [[rows[at] for at in group] for group in row_groups(len(rows), points)]
    counts, tokens = tables.counted_by_token(groups[-1], layer)
    best = best_tokens(counts, tokens, min_count, TOKENS_EACH)
    if best is None:
        raise tables.file.failure(
            f"{(tokens >= min_count).sum()} tokens occur {min_count} times or more at the last "
            f"point, the most frequent {tokens.max():.0f} times; --min-count N lowers the bound"
        )
    shares, levels = [best.share], [random_share(counts, tokens)]
    for group in groups[-2::-1]:
        point = tables.counted_by_token(group, layer)
        shares.append(traced(best.kinds, *point))
        levels.append(random_share(*point))
    steps = tables.checkpoints[[group[-1] for group in groups]]
    return Traces(steps, best.kinds, np.array(shares[::-1]), np.array(levels[::-1]))


def row_groups(rows: int, points: int) -> list[range]:
    """Neighbouring rows in at most so many groups; the last, where tokens are chosen, is full."""
    size = -(-rows // points)
    return [range(max(0, end - size), end) for end in range(rows, 0, -size)][::-1]


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
