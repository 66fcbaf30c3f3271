"""The pictures of scaling.py: step time as work grows, and phases by number of ranks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hearth_runs import PHASES, ROOT
from power_law import PowerLaw

sys.path.insert(0, str(ROOT / "postprocess"))
import matplotlib.pyplot as plt  # noqa: E402

import figures  # noqa: E402  (sets Matplotlib up)

COLOUR_OF_PHASE = dict(
    zip(
        PHASES,
        (
            figures.COLOURS[0],
            figures.COLOURS[5],
            figures.COLOURS[3],
            "0.75",
            figures.COLOURS[4],
            figures.COLOURS[1],
            "#5DC9A8",
            figures.COLOURS[2],
            figures.COLOURS[6],
            "black",
            "0.9",
        ),
        strict=True,
    )
)


def draw(result: Mapping[str, Any], output: Path) -> list[Path]:
    """Writes PNG files beside `output`; returns their paths."""
    paths = []
    if "work" in result:
        paths.append(output.with_name(f"{output.stem}_work.png"))
        draw_work(result, paths[-1])
    if "strong" in result:
        paths.append(output.with_name(f"{output.stem}_ranks.png"))
        draw_ranks(result, paths[-1])
    return paths


def plain_ticks(axes: Axes, sizes: list[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))


def draw_curve(axes: Axes, axis: Mapping[str, Any], colour: str, label: str) -> None:
    law = PowerLaw(**axis["fit"])
    sizes = axis["sizes"]
    fine = np.geomspace(sizes[0], sizes[-1], 100)
    axes.plot(sizes, axis["median_s"], "o", color=colour)
    axes.plot(
        fine,
        law(fine),
        color=colour,
        linewidth=1.4,
        label=f"{label}{law.constant:.2g} s + c n$^{{{law.exponent:.2f}}}$, "
        f"log-log slope {law.slope:.2f}",
    )


def draw_work(result: Mapping[str, Any], path: Path) -> None:
    found = {axis["name"]: axis for axis in result["work"]}
    panels = [name for name in found if name != "sequence length"]
    columns = 2 if len(panels) > 1 else 1
    figure, grid = plt.subplots(
        -(-len(panels) // columns), columns, figsize=(10, 7.4), squeeze=False
    )
    for axes, name in zip(grid.flat, panels, strict=False):
        tokens = name == "tokens of a cell"
        draw_curve(axes, found[name], figures.COLOURS[0], "more sequences: " if tokens else "")
        sizes = list(found[name]["sizes"])
        if tokens and "sequence length" in found:
            draw_curve(axes, found["sequence length"], figures.COLOURS[1], "a longer one: ")
            sizes = sorted({*sizes, *found["sequence length"]["sizes"]})
        draw_update(axes, found[name])
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_ticks(axes, sizes)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * 1.6)  # room for the legend
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(minor_label))
        axes.grid(color="0.93")
        axes.set_xlabel(name)
        axes.set_ylabel("seconds a step")
        axes.legend(loc="upper left", fontsize="small")
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    figure.suptitle(
        f"Step time as one thing grows: {result['deck']}, {result['compute_type']}, one core"
    )
    figure.savefig(path)
    plt.close(figure)


def draw_update(axes: Axes, axis: Mapping[str, Any]) -> None:
    seconds = [phases["update"] for phases in axis["phase_s"]]
    axes.plot(axis["sizes"], seconds, ":", color=figures.REFERENCE, label="of which the update")


def minor_label(value: float, _: int) -> str:
    """2 and 5 of a decade."""
    digit = round(value / 10 ** np.floor(np.log10(value)))
    return f"{value:g}" if digit in (2, 5) else ""


def draw_ranks(result: Mapping[str, Any], path: Path) -> None:
    figure, panels = plt.subplots(
        1, 3, figsize=(11, 4.8), gridspec_kw={"width_ratios": [4, 4, 1.2]}
    )
    panels[1].sharey(panels[0])
    for axes, kind in zip(panels, ("strong", "weak"), strict=False):
        rows = result[kind]
        bottom = np.zeros(len(rows))
        for phase in PHASES:
            seconds = np.array([row["phase_s"][phase] for row in rows])
            axes.bar(
                range(len(rows)), seconds, bottom=bottom, color=COLOUR_OF_PHASE[phase], label=phase
            )
            bottom += seconds
        for x, row in enumerate(rows):
            text = f"{row['efficiency']:.0%}"
            axes.text(x, bottom[x], text, ha="center", va="bottom")
        axes.set_xticks(
            range(len(rows)),
            [f"{row['ranks']} rank{'s' * (row['ranks'] > 1)}\n"
             f"{row['expert_ranks']} × {row['ranks'] // row['expert_ranks']}" for row in rows],
        )  # fmt: skip
        axes.set_xlabel("expert_ranks × data_ranks")
        cells = rows[0]["cells"] if kind == "strong" else rows[0]["cells"] // rows[0]["ranks"]
        name = f"{cells} cells" if kind == "strong" else f"{cells} cells a rank"
        axes.set_title(f"{kind.capitalize()} scaling: {name}")
        axes.set_ylabel("seconds a step")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles[::-1], labels[::-1], loc="center left", fontsize="small")
    panels[-1].axis("off")
    figure.suptitle(
        f"Phases of the first rank, and efficiency by cores: {result['deck']}, "
        f"{result['compute_type']}, {result['cores']} cores"
    )
    figure.savefig(path)
    plt.close(figure)
