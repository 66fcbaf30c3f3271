"""Co-activation: which experts are chosen together."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import figures
import routing_statistics as statistics
from plot_coactivation import partners_together, strongest
from report_sections import curves
from report_sections.page import Picture, Section
from report_sections.run import Run
from report_sections.wording import listed, moved, percent, spread, times
from routing_tables import RoutingTables

SHOWN = 16  # experts of a map


def section(run: Run) -> Section:
    result = Section("coactivation", "Experts chosen together")
    tables = run.routing
    assert tables is not None
    rows = tables.counted_rows()
    if not rows:
        result.say("No checkpoint's row counts any token copy, so that no pairs are known.")
        return result
    layers = range(len(tables.layers))
    counts = [tables.coactivation(rows[-1], layer) for layer in layers]
    if not any(np.nan_to_num([statistics.chance_conditional(table) for table in counts])):
        result.say("Every token has one expert at most, so that none are chosen together.")
        return result
    chance = [statistics.chance_conditional(table, run.min_count) for table in counts]
    shares = [statistics.conditional(table, run.min_count) for table in counts]
    if not any(share.any() for share in shares):
        result.say(
            f"No expert has {run.min_count:,} tokens in the last row, too few for a share of its "
            "own; --min-count N lowers the bound."
        )
        return result
    span = tables.file.span(rows[-1])
    strongest_of = [statistics.strongest_pair(share) for share in shares]
    known = np.isfinite(chance)
    largest = np.where(known, [share.max() for share in shares], np.nan)
    top = int(np.nanargmax(largest))
    i, j = (int(tables.experts(top)[e]) for e in strongest_of[top])
    result.headline = (
        f"The closest pair is in layer {tables.block(top)}: {percent(largest[top])} of the tokens "
        f"of expert {i} also chose expert {j} ({times(largest[top] / chance[top])} random choice) "
        f"in {span}."
    )
    ratios = [statistics.pair_ratio(table) for table in counts]
    result.say(
        result.headline,
        f"The largest share by layer: {spread(largest, run.names(), percent)}; random choice gives "
        f"{spread(chance, run.names(), percent)}.",
    )
    result.say(_symmetric(run, tables, ratios))
    result.show(_maps(run, tables, shares, ratios, chance, span))
    if len(rows) > 1:
        result.show(_over_time(run, tables, rows, result))
    else:
        result.say("There is one row of counts, so that nothing can be said of a trend.")
    return result


def _symmetric(run: Run, tables: RoutingTables, ratios: list[np.ndarray]) -> str:
    """Counts of pairs relative to the mean pair: how uneven they are."""
    sentences = []
    for layer in run.layers:
        pairs = ratios[layer][np.triu_indices(len(ratios[layer]), 1)]
        pairs = pairs[np.isfinite(pairs)]
        if not pairs.size:
            continue
        sentences.append(
            f"in layer {tables.block(layer)} the most frequent pair has {times(pairs.max())} the "
            f"tokens of the mean pair, and {percent((pairs < 0.5).mean())} of the pairs have less "
            "than half of it"
        )
    return f"By counts, which are symmetric: {'; '.join(sentences)}." if sentences else ""


def _maps(
    run: Run,
    tables: RoutingTables,
    shares: list[np.ndarray],
    ratios: list[np.ndarray],
    chance: list[float],
    span: str,
) -> Picture:
    pairs = []
    for layer in run.layers:
        if not shares[layer].any():
            continue
        i, j = (int(tables.experts(layer)[e]) for e in statistics.strongest_pair(shares[layer]))
        pairs.append(f"{i} → {j} in layer {tables.block(layer)} ({percent(shares[layer].max())})")
    levels = spread([chance[layer] for layer in run.layers], run.names(run.layers), percent)
    return Picture(
        lambda: _draw_maps(run, tables, shares, ratios),
        f"Heat maps of co-activation in {listed(run.names(run.layers))}; strongest: "
        f"{listed(pairs)}.",
        f"The (up to {SHOWN}) experts with the strongest partners, {span}; rows of experts with "
        f"fewer than {run.min_count:,} tokens are empty. Left: P(j | i) = "
        "N(i, j) / N(i), of the tokens of expert i (row) the share that also chose j (column); the "
        "diagonal is left out. Random choice gives (k − 1) / (E − 1) for k experts of a token, "
        f"here {levels}. Right: the same pairs as symmetric counts N(i, j) "
        "relative to the mean over all pairs of the layer; random choice gives 1×. "
        f"Strongest: {listed(pairs)}.",
    )


def _draw_maps(
    run: Run, tables: RoutingTables, shares: list[np.ndarray], ratios: list[np.ndarray]
) -> Figure:
    figure, grid = plt.subplots(
        len(run.layers),
        2,
        figsize=(curves.WIDTH_IN, 0.8 + 2.25 * len(run.layers)),
        squeeze=False,
    )
    largest = max(shares[layer].max() for layer in run.layers)
    shown = [ratios[layer][np.isfinite(ratios[layer])] for layer in run.layers]
    norm = figures.ratio_norm(np.concatenate(shown))
    for (left, right), layer in zip(grid, run.layers):
        experts = tables.experts(layer)
        order = partners_together(shares[layer], strongest(shares[layer], min(SHOWN, len(experts))))
        part = np.ix_(order, order)
        share_map = left.imshow(
            shares[layer][part], cmap=figures.SEQUENTIAL, vmin=0, vmax=max(largest, 1e-9)
        )
        table = np.clip(ratios[layer][part], norm.vmin / 2, None)
        ratio_map = right.imshow(table, norm=norm, cmap=figures.DIVERGING)
        left.set_title(f"Layer {tables.block(layer)}")
        for axes in (left, right):
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_ticks(range(len(order)), labels=[str(experts[e]) for e in order])
                axis.set_tick_params(length=0, labelsize=5.5)
            axes.tick_params(axis="x", rotation=90)
            axes.spines[:].set_visible(False)
        left.set_ylabel("expert i")
    for axes in grid[-1]:
        axes.set_xlabel("expert j")
    bar = figure.colorbar(share_map, ax=grid[:, 0], location="bottom", pad=0.02, aspect=25)
    bar.outline.set_visible(False)
    bar.set_label("P(j | i)")
    ratio_bar = figure.colorbar(
        ratio_map, ax=grid[:, 1], location="bottom", pad=0.02, aspect=25, extend="both"
    )
    figures.ratio_ticks(ratio_bar, norm, most=5)
    ratio_bar.set_label("pairs ÷ mean pair")
    return figure


def _over_time(run: Run, tables: RoutingTables, rows: list[int], result: Section) -> Picture:
    layers = range(len(tables.layers))
    largest, typical, chance = (np.full((len(rows), len(layers)), np.nan) for _ in range(3))
    for at, row in enumerate(rows):
        for layer in layers:
            counts = tables.coactivation(row, layer)
            share = statistics.conditional(counts, run.min_count)
            used = np.diagonal(counts) >= run.min_count
            if used.any():
                largest[at, layer] = share.max()
                typical[at, layer] = share[used].max(1).mean()
            chance[at, layer] = statistics.chance_conditional(counts, run.min_count)
    steps = tables.checkpoints[rows]
    mean = statistics.mean_known(typical, 1)
    result.say(
        "An expert's closest partner is chosen along with it for a share of its tokens that "
        f"{moved(mean[0], mean[-1], percent)} (mean over experts and layers, "
        f"{tables.file.span(rows[0])} against {tables.file.span(rows[-1])})."
    )
    level = statistics.mean_known(chance, 1)
    label = f"random choice, {percent(level[-1])}"
    panels = [
        curves.Panel(title, table, level, label, shares=True)
        for title, table in (
            ("Largest P(j | i)", largest),
            ("Mean over experts i of the largest P(j | i)", typical),
        )
    ]
    return Picture(
        lambda: curves.over_checkpoints(panels, steps, tables.layers.tolist()),
        f"Curves by layer over checkpoints: at the end the largest P(j | i) is "
        f"{spread(largest[-1], run.names(), percent)}, the mean of each expert's largest "
        f"{spread(typical[-1], run.names(), percent)}.",
        "By layer and checkpoint (tokens since the one before): the largest P(j | i) of the layer, "
        "and the mean over experts of their largest, both of experts i with "
        f"{run.min_count:,} tokens or more, as is random choice's level (mean over layers). A "
        "maximum over partners lies above that level for few tokens even where choice is random.",
    )
