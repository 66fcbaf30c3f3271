"""Vocabulary specialisation: the token ids that experts take most of."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import figures
import routing_statistics as statistics
from plot_specialisation import TOKENS_EACH, row_groups
from report_sections import curves
from report_sections.page import Picture, Section, Table
from report_sections.run import Run
from report_sections.wording import count, listed, moved, percent, spread
from routing_tables import RoutingTables

POINTS = 10  # over training, at most: neighbouring checkpoints' counts are added
LISTED = 10  # experts of the table


# Tokens chosen on some data, and their S (experts, TOKENS_EACH) on other data.
Way = tuple[statistics.BestTokens, np.ndarray]


@dataclass(frozen=True)
class Traces:
    """Of one layer: mean over experts by point."""

    steps: np.ndarray  # (points), the last step of each
    flame: np.ndarray  # (points, TOKENS_EACH), tokens chosen at the last point
    held_out: np.ndarray  # (points, TOKENS_EACH), tokens chosen on other data; NaN: none known
    level: np.ndarray  # (points), of random choice
    best: statistics.BestTokens  # at the last point
    occurrences: np.ndarray  # (token ids), at the last point
    ways: list[Way]  # at the last point; empty: none known


def section(run: Run) -> Section:
    result = Section("vocabulary", "Specialisation by token")
    tables = run.routing
    assert tables is not None
    if "token_expert_count" not in tables.file:
        result.say(
            "The run kept no counts by token (statistics.token_counts = false), so that the tokens "
            "that experts specialise in are not known."
        )
        return result
    rows = tables.counted_rows()
    if not rows:
        result.say("No checkpoint's row counts any token copy.")
        return result
    countable = [layer for layer in run.layers if tables.knows_occurrences(layer)]
    unknown = _unknown(run, [layer for layer in run.layers if layer not in countable])
    if not countable:
        result.say(unknown)
        return result
    traces = {layer: _traces(run, tables, rows, layer) for layer in countable}
    known = {layer: trace for layer, trace in traces.items() if trace is not None}
    if not known:
        result.say(_too_rare(run, tables, rows, countable[-1]), unknown)
        return result
    shown = list(known)
    result.headline = _headline(tables, known)
    result.say(result.headline, _trend(tables, known), unknown)
    result.say(_bias(run, tables, rows, known))
    result.show(_picture(run, tables, known))
    layer = shown[-1]
    result.show(_table(run, tables, layer, known[layer]))
    return result


def _traces(run: Run, tables: RoutingTables, rows: list[int], layer: int) -> Traces | None:
    groups = [[rows[i] for i in group] for group in row_groups(len(rows), POINTS)]

    whole, occurrences = tables.counted_by_token(groups[-1], layer)
    best = statistics.best_tokens(whole, occurrences, run.min_count, TOKENS_EACH)
    if best is None:
        return None
    flame, held_out, level, found = [], [], [], []
    before = None
    for group in groups:
        if tables.has_halves:
            even, odd = (tables.counted_by_token(group, layer, half) for half in (0, 1))
            point = even[0] + odd[0], even[1] + odd[1]
            pairs = [(even, odd), (odd, even)]
        else:
            point = tables.counted_by_token(group, layer)
            pairs = [] if before is None else [(before, point)]
        flame.append(statistics.mean_share(statistics.traced(best.kinds, *point)))
        level.append(statistics.random_share(*point))
        ways = [statistics.held_out(*a, *b, run.min_count, TOKENS_EACH) for a, b in pairs]
        found = [way for way in ways if way is not None]
        means = [statistics.mean_share(score) for _, score in found]
        held_out.append(np.mean(means, 0) if means else np.full(TOKENS_EACH, np.nan))
        before = point
    steps = tables.checkpoints[[group[-1] for group in groups]]
    curves_of = (np.array(curve) for curve in (flame, held_out, level))
    return Traces(steps, *curves_of, best, occurrences, found)


def _unknown(run: Run, layers: list[int]) -> str:
    """Of files of earlier versions."""
    if not layers:
        return ""
    where = "" if layers == run.layers else f" of {listed(run.names(layers))}"
    return (
        "The number of experts of a token varies and the file does not count the tokens of each id "
        f"(token_count), so that shares by token id{where} cannot be known from it."
    )


def _too_rare(run: Run, tables: RoutingTables, rows: list[int], layer: int) -> str:
    group = [rows[i] for i in row_groups(len(rows), POINTS)[-1]]
    most = tables.counted_by_token(group, layer)[1].max()
    return (
        f"Fewer than {TOKENS_EACH} token ids occur {run.min_count:,} times or more at the last "
        f"point; the most frequent one occurs {most:,.0f} times. --min-count N lowers the bound."
    )


def _headline(tables: RoutingTables, known: dict[int, Traces]) -> str:
    layer = max(known, key=lambda layer: known[layer].flame[-1, 0])
    trace = known[layer]
    text = (
        f"In layer {tables.block(layer)} an expert gets, in the mean, "
        f"{percent(trace.flame[-1, 0])} of the occurrences of the token that it takes most of "
        f"(random choice: {percent(trace.level[-1])})"
    )
    if np.isfinite(trace.held_out[-1, 0]):
        how = (
            "chosen on one half of the data and scored on the other"
            if tables.has_halves
            else "chosen at the point before and scored at the last"
        )
        text += f"; {how}, of ids frequent in both, {percent(trace.held_out[-1, 0])}"
    return f"{text}."


def _trend(tables: RoutingTables, known: dict[int, Traces]) -> str:
    parts = []
    for layer, trace in known.items():
        if len(trace.steps) > 1:
            first, last = trace.flame[0, 0], trace.flame[-1, 0]
            parts.append(f"{moved(first, last, percent)} in layer {tables.block(layer)}")
    if not parts:
        return "There is one point only, so that nothing can be said of a trend."
    return (
        "By FLAME-MoE's definition, which follows the tokens chosen at the last point, the mean "
        f"over experts for their best token {listed(parts)}."
    )


def _bias(run: Run, tables: RoutingTables, rows: list[int], known: dict[int, Traces]) -> str:
    """What the choice on the scored data adds, and how the other data came about."""
    if not tables.has_halves and len(rows) < 2:
        return (
            "There is one row of counts and it is not split in halves, so that a score on data "
            "that did not choose the tokens cannot be computed: the figures above favour the "
            "tokens that noise favours."
        )
    if tables.has_halves:
        data = "each point's data are two halves, the even and the odd sequences of each source"
        chosen, scored = "on one half", "on the other"
        bias = "the difference is selection bias (mean of both ways)"
    else:
        data = "counts are not split in halves, so that the data are two neighbouring points"
        chosen, scored = "at the point before the last", "at the last"
        bias = "the difference is selection bias and what training changed meanwhile"
    parts, rare = [], []
    for layer, trace in known.items():
        if not trace.ways:
            rare.append(
                f"In layer {tables.block(layer)} fewer than {TOKENS_EACH} token ids occur "
                f"{run.min_count:,} times or more in both, so that there is no such score."
            )
            continue
        there, elsewhere = (
            percent(np.mean([statistics.mean_share(share)[0] for share in shares]))
            for shares in zip(*((best.share, score) for best, score in trace.ways))
        )
        parts.append(f"{there} there and {elsewhere} {scored} in layer {tables.block(layer)}")
    text = f"Without selection bias: {data}."
    if parts:
        text += (
            f" Of the token that is its best {chosen}, an expert gets {'; '.join(parts)}: {bias}."
        )
    return " ".join([text, *rare])


def _picture(run: Run, tables: RoutingTables, known: dict[int, Traces]) -> Picture:
    ends = [
        f"layer {tables.block(layer)}: {percent(trace.flame[-1, 0])} for the best and "
        f"{percent(trace.flame[-1, 1])} for the second token, "
        f"{percent(trace.held_out[-1, 0])} scored on other data"
        for layer, trace in known.items()
    ]
    last = [trace.level[-1] for trace in known.values()]
    same = len({percent(level) for level in last}) == 1
    levels = percent(last[0]) if same else spread(last, run.names(list(known)), percent)
    if not all(tables.fixed_k(layer) for layer in known):
        levels += " at the last point, k the mean number of experts of a point's tokens"
    other = (
        "the other half of the point's sequences (mean of both ways)"
        if tables.has_halves
        else "the point after the one that chose them"
    )
    return Picture(
        lambda: _draw(tables, known),
        f"Curves over training; at the end {'; '.join(ends)}.",
        "Specialisation S(e, t) = copies of token id t to expert e ÷ occurrences of t, in the mean "
        f"over experts. Best and second token: the ids with an expert's largest S at the last "
        f"point, among those seen {run.min_count:,} times or more there, and traced back "
        "(FLAME-MoE's definition; the choice favours the last point). Scored on other data: "
        f"the best id is chosen anew at each point, and its S taken on {other}, with as many "
        f"occurrences in both. Random choice gives k/E = {levels}.",
    )


def _draw(tables: RoutingTables, known: dict[int, Traces]) -> Figure:
    figure, grid = plt.subplots(
        len(known),
        1,
        figsize=(curves.WIDTH_IN, 0.8 + 1.6 * len(known)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    styles = (("best token", "o-"), ("second token", "s--"), ("scored on other data", "^:"))
    for axes, (layer, trace) in zip(grid[:, 0], known.items()):
        lines = (trace.flame[:, 0], trace.flame[:, 1], trace.held_out[:, 0])
        for (name, style), line, colour in zip(styles, lines, figures.COLOURS):
            axes.plot(
                trace.steps, line, style, color=colour, linewidth=1.5, markersize=3.5, label=name
            )
        axes.set_title(f"Layer {tables.block(layer)}")
        axes.grid(axis="y", color="0.9")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    grid[0, 0].set_ylim(bottom=0)
    for axes, trace in zip(grid[:, 0], known.values()):
        name = f"random choice, {percent(trace.level[-1])}"
        figures.reference_curve(axes, trace.steps, trace.level, name)
    grid[0, 0].legend(
        loc="lower left", bbox_to_anchor=(0, 1.2), ncol=3, borderaxespad=0, columnspacing=1
    )
    figures.step_axis(grid[-1, 0], 5)
    return figure


def _table(run: Run, tables: RoutingTables, layer: int, trace: Traces) -> Table:
    """The experts whose best token is most theirs; where known, by data that did not choose it."""
    if trace.ways:
        best, score = trace.ways[0]
        chosen_on = "the even half" if tables.has_halves else "the point before"
        scored_on = "the odd half" if tables.has_halves else "the last point"
    else:
        best, score = trace.best, np.full(trace.best.share.shape, np.nan)
        chosen_on, scored_on = "the last point", "other data"
    key = np.where(np.isfinite(score[:, 0]), score[:, 0], best.share[:, 0])
    often = trace.occurrences[best.kinds[:, 0]]
    rows = [
        [
            str(tables.experts(layer)[expert]),
            run.name_of(int(best.kinds[expert, 0])),
            f"{often[expert]:,.0f}",
            percent(best.share[expert, 0]),
            percent(score[expert, 0]),
        ]
        for expert in np.lexsort((-often, -key))[:LISTED]
    ]
    return Table(
        f"The {count(len(rows), 'expert')} of layer {tables.block(layer)} with the most of one "
        f"token id, of {best.eligible:,} ids that are frequent enough: its "
        f"occurrences at the last point, and the expert's share of them on {chosen_on}, which "
        f"chose it, and on {scored_on}",
        ["expert", "token", "seen", "chosen", "scored"],
        rows,
        2,
    )
