"""The figure: shares of the products' ceiling, and kernels beside PyTorch's fastest."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

import figures  # of postprocess/: settings of Matplotlib and its palette
from measure.results import HEARTH, PYTORCH, Case, Entry, Results
from measure.table import duration

BLUE, ORANGE, LIGHT = figures.COLOURS[0], figures.COLOURS[1], figures.COLOURS[5]
COLOURS = {"Hearth fp32": BLUE, "Hearth bf16": LIGHT, PYTORCH: ORANGE}
MARKERS = ("o", "D", "s", "^")  # of the kernels' models
BAR = 0.27  # of a case's height
INCHES_OF_CASE, INCHES_OF_KERNEL = 0.62, 0.27


def save(results: Results, path: Path) -> Path:
    """Draws what there is."""
    shares = ("steps", "layers") if results.ceiling else ()
    whole = [c for c in results.cases if c.section in shares and c.of(HEARTH)]
    kernels = [c for c in results.cases if c.section == "kernels" and c.of(HEARTH)]
    names = {_piece(case) for case in kernels}
    parts = [(_shares, whole)] if whole else []
    parts += [(_kernels, kernels)] if kernels else []
    height = max(2.0, INCHES_OF_CASE * len(whole), INCHES_OF_KERNEL * len(names))
    columns = max(1, len(parts))
    figure, axes = plt.subplots(1, columns, figsize=(6.4 * columns, 1.5 + height), squeeze=False)
    for axis in axes[0, len(parts) :]:
        axis.set_axis_off()
    for (draw, cases), axis in zip(parts, axes[0]):
        draw(axis, cases, results)
    figure.suptitle(_title(results), x=0.01, ha="left", fontsize="medium")
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return path


def _title(results: Results) -> str:
    machine = results.machine
    text = f"{machine['processor']}, {results.options['threads']} threads"
    if torch := machine.get("pytorch", {}).get("torch"):
        text += f"; PyTorch {torch}"
    return f"{text}; Hearth {machine['revision']}"


def _shown(case: Case) -> list[Entry]:
    """Hearth's entries, and PyTorch's fastest."""
    found = [entry for entry in case.entries if entry.program == HEARTH and entry.times_s]
    yardstick = case.of(PYTORCH)
    return [*found, yardstick] if yardstick else found


def _colour(entry: Entry) -> str:
    return COLOURS[entry.name if entry.program == HEARTH else PYTORCH]


def _shares(axes: Axes, cases: list[Case], results: Results) -> None:
    """A bar for each program in each case: its part of the ceiling of the fastest type."""
    tops = results.ceiling[cases[0].threads]
    kind = max(tops, key=tops.get)
    variants: dict[str, None] = {}
    for row, case in enumerate(cases):
        shown = _shown(case)
        for i, entry in enumerate(shown):
            share = results.shares(case, entry)[kind]
            at = row + (i - (len(shown) - 1) / 2) * BAR
            axes.barh(at, share, 0.88 * BAR, color=_colour(entry))
            axes.annotate(
                _bar_label(case, entry),
                (share, at),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
            variants[entry.name if entry.program == HEARTH else PYTORCH] = None
    axes.set_yticks(range(len(cases)), [_two_lines(case) for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    largest = max(results.shares(case, e)[kind] for case in cases for e in _shown(case))
    axes.set_xlim(0, 1.45 * largest)  # room for labels
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlabel(f"of the fastest product of matrices, {tops[kind] / 1e9:.0f} GFLOP/s in {kind}")
    axes.set_title("Share of the machine's products", pad=24)
    handles = [Patch(color=COLOURS[name], label=name) for name in COLOURS if name in variants]
    _legend(axes, handles)


def _two_lines(case: Case) -> str:
    return f"{_model(case)}\n{_piece(case)}".replace(" x ", " × ")


def _bar_label(case: Case, entry: Entry) -> str:
    text = duration(entry.median_s)
    if entry.program == PYTORCH:
        return f"{text}, {entry.variant}"
    ratio = case.ratio(entry)
    return f"{text}, {ratio:.2f}×" if ratio else text


def _kernels(axes: Axes, cases: list[Case], results: Results) -> None:
    """A dot for each kernel, type and model: speed beside PyTorch's fastest; without it, time."""
    beside = any(case.of(PYTORCH) for case in cases)
    cases = [case for case in cases if case.of(PYTORCH) or not beside]
    names = list(dict.fromkeys(_piece(case) for case in cases))
    models = list(dict.fromkeys(_model(case) for case in cases))
    types: dict[str, None] = {}
    for case in cases:
        row = names.index(_piece(case))
        for entry in _shown(case):
            if entry.program == PYTORCH:
                continue
            value = case.ratio(entry) if beside else entry.median_s * 1e3
            shift = 0.14 * (2 * models.index(_model(case)) - len(models) + 1)
            marker = MARKERS[models.index(_model(case)) % len(MARKERS)]
            axes.plot(value, row + shift, marker, color=_colour(entry), markersize=6)
            types[entry.name] = None
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="0.96", zorder=0)
    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}{'×' if beside else ''}"))
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[i % len(MARKERS)], color="0.4", label=model)
        for i, model in enumerate(models)
    ]
    handles = [Patch(color=COLOURS[name], label=name) for name in types] + handles
    if beside:
        axes.axvline(1, color=ORANGE, linewidth=1.5, zorder=1)
        axes.annotate(
            PYTORCH, (1, -0.5), xytext=(3, -2), textcoords="offset points", va="top", color=ORANGE,
            fontsize="small",
        )  # fmt: skip
        axes.set_xlabel("times as fast as PyTorch's fastest form and type")
    else:
        axes.set_xlabel("median time, ms")
    axes.set_title("Kernels", pad=24)
    _legend(axes, handles)


def _legend(axes: Axes, handles: list) -> None:
    """In one line between the title and the axes."""
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles),
        borderaxespad=0.3, handlelength=1.0, handletextpad=0.4, columnspacing=1.2, fontsize="small",
        borderpad=0,
    )  # fmt: skip


def _model(case: Case) -> str:
    return case.name.split(", ", 1)[0]


def _piece(case: Case) -> str:
    return case.name.split(", ", 1)[1]
