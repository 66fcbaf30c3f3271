"""Domain specialisation: which experts take which data sources."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import figures
import routing_statistics as statistics
from plot_specialisation import by_favourite
from report_sections import curves
from report_sections.page import Picture, Section, Table
from report_sections.run import Run
from report_sections.wording import listed, moved, percent, spread, times
from routing_tables import RoutingTables


def section(run: Run) -> Section:
    result = Section("domains", "Specialisation by data source")
    tables = run.routing
    assert tables is not None
    rows = tables.counted_rows()
    if not rows or "source_expert_count" not in tables.file:
        result.say("No checkpoint's row counts tokens by data source, so that nothing is known.")
        return result
    sources = tables.file.names("source")
    if len(sources) < 2:
        result.say(
            f"All tokens are of one data source ({listed(sources)}), so that experts cannot differ "
            "in which they take."
        )
        return result
    layers = range(len(tables.layers))
    last = rows[-1]
    counts = [tables.by_source(last, layer) for layer in layers]
    shares = [_share(run, tables, last, layer) for layer in layers]
    ratios = [statistics.preference(table, run.min_count) for table in counts]
    if not any(np.isfinite(ratio).any() for ratio in ratios):
        result.say(
            f"Of no data source would random choice give an expert {run.min_count:,} token copies "
            "in the last row, too few for a preference; --min-count N lowers the bound."
        )
        return result
    span = tables.file.span(last)
    peaks = [np.nanmax(share) if np.isfinite(share).any() else np.nan for share in shares]
    top = int(np.argmax([np.nan_to_num(ratio).max() for ratio in ratios]))
    source, expert = np.unravel_index(int(np.nan_to_num(ratios[top]).argmax()), ratios[top].shape)
    result.headline = (
        f"The strongest preference is in layer {tables.block(top)}: expert "
        f"{tables.experts(top)[expert]} gets {percent(shares[top][source, expert])} of the tokens "
        f"of {sources[source]}, {times(ratios[top][source, expert])} what random choice would give "
        f"({span})."
    )
    result.say(
        result.headline,
        f"The largest share of a source that one expert gets is, by layer, "
        f"{spread(peaks, run.names(), percent)}; random choice gives "
        f"{_chance(run, _levels(run, tables, last))}.",
        _exactness(run, tables, last),
    )
    result.say(_distance(run, tables, counts))
    result.show(_maps(run, tables, sources, ratios, span))
    known = [layer for layer in run.layers if np.isfinite(ratios[layer]).any()]
    if known:
        result.show(_table(tables, sources, shares, ratios, known[-1], span))
    if len(rows) > 1:
        result.show(_over_time(run, tables, sources, rows, shares, result))
    else:
        result.say("There is one row of counts, so that nothing can be said of a trend.")
    return result


def _share(run: Run, tables: RoutingTables, row: int, layer: int) -> np.ndarray:
    """S(e, source), (sources, experts); NaN for a source with too few tokens to mean anything."""
    counts = tables.by_source(row, layer)
    tokens = None if tables.fixed_k(layer) else source_tokens(run, tables, row)
    if tokens is None:
        tokens = statistics.occurrences(counts, _each(run, tables, row, layer))
    share = statistics.share_of_occurrences(counts, tokens)
    return np.where(tokens[:, None] >= run.min_count, share, np.nan)


def _each(run: Run, tables: RoutingTables, row: int, layer: int) -> float:
    """Mean experts of a row's tokens; of all the file's where neither file has their number."""
    each = tables.each_in_row(row, layer)
    if np.isfinite(each):
        return each
    tokens = source_tokens(run, tables, row)
    if tokens is None:
        return tables.each(layer)
    return int(tables.coactivation(row, layer).trace()) / int(tokens.sum())


def source_tokens(run: Run, tables: RoutingTables, row: int) -> np.ndarray | None:
    """Tokens of each source in the steps of a checkpoint's row, from training.h5.

    None where it lacks a step, or where a token that is routed need not be a target: then the
    step's targets are fewer than the batch's tokens.
    """
    batch = run.setting_number("batch.global_batch")
    length = run.setting_number("model.sequence_length")
    if run.training is None or not batch or not length:
        return None
    steps = run.training.array("step", ["step"])
    first = tables.checkpoints[row - 1] if row > 0 else 0
    inside = (steps > first) & (steps <= tables.checkpoints[row])
    if "skipped" in run.training:
        inside &= run.training.array("skipped", ["step"]) == 0
    tokens = run.training.array("source_tokens", ["step", "source"])[inside]
    expected = batch * length
    if not len(tokens) or (tokens.sum(1) != expected).any():
        return None
    return tokens.sum(0)


def _exactness(run: Run, tables: RoutingTables, row: int) -> str:
    if all(tables.fixed_k(layer) for layer in range(len(tables.layers))):
        return ""
    if source_tokens(run, tables, row) is not None:
        return "Tokens of a source are those of training.h5, since their number of experts varies."
    return (
        "Since the number of experts of a token varies, a source's tokens are estimated: its token "
        "copies ÷ the mean number of experts of all tokens."
    )


def _levels(run: Run, tables: RoutingTables, row: int) -> list[float]:
    """k/E of a row by layer: what random choice gives each expert of a source's tokens."""
    layers = range(len(tables.layers))
    return [_each(run, tables, row, layer) / len(tables.experts(layer)) for layer in layers]


def _chance(run: Run, levels: list[float]) -> str:
    if len({percent(level) for level in levels}) == 1:
        return percent(levels[0])
    return spread(levels, run.names(), percent)


def _distance(run: Run, tables: RoutingTables, counts: list[np.ndarray]) -> str:
    """How far sources' use of experts is from the use by all: total variation distance."""
    parts = []
    for layer in run.layers:
        table = counts[layer]
        seen = table.sum(1) > 0
        if not seen.any():
            continue
        by_source = statistics.share_of_copies(table[seen])
        distance = np.abs(by_source - statistics.share_of_copies(table.sum(0))).sum(1) / 2
        weight = table[seen].sum(1) / table.sum()
        parts.append(f"{percent(float(distance @ weight))} in layer {tables.block(layer)}")
    return (
        "For every source to use the experts as all tokens together do, this share of the token "
        f"copies would have to change experts: {listed(parts)}."
    )


def _maps(
    run: Run, tables: RoutingTables, sources: list[str], ratios: list[np.ndarray], span: str
) -> Picture:
    strongest = []
    for layer in run.layers:
        known = np.nan_to_num(ratios[layer])
        if not known.any():
            continue
        source, expert = np.unravel_index(int(known.argmax()), known.shape)
        strongest.append(
            f"{sources[source]} in expert {tables.experts(layer)[expert]} of layer "
            f"{tables.block(layer)} ({times(known.max())})"
        )
    return Picture(
        lambda: _draw_maps(run, tables, sources, ratios),
        f"Heat maps of experts (columns) by data source (rows); strongest: {listed(strongest)}.",
        "Share of a source's token copies that an expert gets ÷ 1/E; with k experts for every "
        "token this is N(e, source) / N(source) ÷ k/E. 1× is random choice. "
        "Rows of sources of which random choice would give an expert fewer than "
        f"{run.min_count:,} copies are empty. Experts stand in the "
        f"order of the source that they prefer, {span}. Strongest: {listed(strongest)}.",
    )


def _draw_maps(
    run: Run, tables: RoutingTables, sources: list[str], ratios: list[np.ndarray]
) -> Figure:
    height = max(0.2 * len(sources), 0.5)
    figure, grid = plt.subplots(
        len(run.layers),
        1,
        figsize=(curves.WIDTH_IN, 0.8 + (height + 0.55) * len(run.layers)),
        squeeze=False,
    )
    known = np.concatenate([np.nan_to_num(ratios[layer], nan=1).ravel() for layer in run.layers])
    norm = figures.ratio_norm(known)
    for axes, layer in zip(grid[:, 0], run.layers):
        order, experts = by_favourite(ratios[layer]), tables.experts(layer)
        mesh = axes.imshow(
            np.clip(ratios[layer][:, order], norm.vmin / 2, None),
            norm=norm,
            cmap=figures.DIVERGING,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_title(f"Layer {tables.block(layer)}")
        axes.set_yticks(range(len(sources)), labels=sources)
        ticks = figures.tick_positions(order, 32)
        axes.set_xticks(ticks, labels=[str(experts[order[tick]]) for tick in ticks])
        axes.tick_params(axis="x", rotation=90 if len(order) > 16 else 0, labelsize=5.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    grid[-1, 0].set_xlabel("expert")
    bar = figure.colorbar(
        mesh, ax=grid[:, 0], location="bottom", pad=0.03, aspect=40, extend="both"
    )
    figures.ratio_ticks(bar, norm)
    bar.set_label("share of the source's copies ÷ random choice")
    return figure


def _table(
    tables: RoutingTables,
    sources: list[str],
    shares: list[np.ndarray],
    ratios: list[np.ndarray],
    layer: int,
    span: str,
) -> Table:
    rows = []
    for source, name in enumerate(sources):
        if not np.isfinite(ratios[layer][source]).any():
            rows.append([name, "too few copies", "", ""])
            continue
        expert = int(np.nan_to_num(ratios[layer][source]).argmax())
        rows.append(
            [
                name,
                str(tables.experts(layer)[expert]),
                percent(shares[layer][source, expert]),
                times(ratios[layer][source, expert]),
            ]
        )
    return Table(
        f"Each source's most used expert in layer {tables.block(layer)}, {span}: its share of the "
        "source's tokens, and that share relative to random choice",
        ["source", "expert", "share", "÷ random"],
        rows,
    )


def _over_time(
    run: Run,
    tables: RoutingTables,
    sources: list[str],
    rows: list[int],
    shares: list[np.ndarray],
    result: Section,
) -> Picture:
    """Mean over experts of S of the source that each prefers at the end."""
    layers = range(len(tables.layers))
    means = np.full((len(rows), len(layers)), np.nan)
    for layer in layers:
        favourite = np.nan_to_num(shares[layer]).argmax(0)
        experts = np.arange(len(favourite))
        for at, row in enumerate(rows):
            share = shares[layer] if row == rows[-1] else _share(run, tables, row, layer)
            means[at, layer] = statistics.mean_share(share[favourite, experts][:, None])[0]
    mean = statistics.mean_known(means, 1)
    result.say(
        "Of the source that an expert prefers at the end, it gets a share of the tokens that "
        f"{moved(mean[0], mean[-1], percent)} (mean over experts and layers, from "
        f"{tables.file.span(rows[0])} to {tables.file.span(rows[-1])})."
    )
    levels = statistics.mean_known([_levels(run, tables, row) for row in rows], 1)
    label = f"random choice, {percent(levels[-1])}"
    panel = curves.Panel("Share of the preferred source", means, levels, label, shares=True)
    steps = tables.checkpoints[rows]
    return Picture(
        lambda: curves.over_checkpoints([panel], steps, tables.layers.tolist()),
        f"Curves by layer over checkpoints; at the end {spread(means[-1], run.names(), percent)}.",
        "Domain specialisation N(e, source) / N(source) of each expert for the source of which it "
        "gets the largest share at the last point, in the mean over experts, by layer. The source "
        "is chosen at the last point, which favours that point; sources are few and large, so that "
        "it does so by little.",
    )
