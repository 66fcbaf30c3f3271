"""What the plot scripts share: the command line, saving, colours, labels."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager, ft2font
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from statistics_file import InputError, StatisticsFile

FORMATS = ("png", "svg", "pdf")

# Okabe and Ito's palette, which colour-blind readers tell apart; black is for the whole.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6000")
WHOLE = "black"
REFERENCE = "0.45"
SEQUENTIAL = "Blues"  # sparse tables: white for none
DIVERGING = "RdBu_r"

plt.rcParams.update(
    {
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "axes.titlelocation": "left",
        "figure.titlesize": "large",
        "legend.frameon": False,
        "savefig.dpi": 150,
        "svg.hashsalt": "hearth",  # the same file from the same data
    }
)

Draw = Callable[[StatisticsFile, argparse.Namespace], Mapping[str, Figure]]


def parser(description: str, file_help: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=description)
    top.add_argument("file", type=Path, metavar="FILE.h5", help=file_help)
    top.add_argument(
        "--output",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="where the pictures go (default: the current folder)",
    )
    top.add_argument(
        "--formats",
        type=_formats,
        default=("png", "svg"),
        metavar="LIST",
        help=f"of {', '.join(FORMATS)}, separated by commas (default png,svg)",
    )
    return top


def add_tokenizer(top: argparse.ArgumentParser) -> None:
    top.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json, for the tokens' text instead of their numbers (needs the Python "
        "package tokenizers)",
    )


def add_layers(top: argparse.ArgumentParser, default: str = "first, middle and last") -> None:
    top.add_argument(
        "--layers",
        type=_numbers,
        metavar="LIST",
        help=f"block numbers of MoE layers, separated by commas (default: {default})",
    )


def run(top: argparse.ArgumentParser, kind: str, draw: Draw) -> int:
    """Draws from the file and prints the pictures' paths; returns the exit status."""
    arguments = top.parse_args()
    try:
        with StatisticsFile(arguments.file, kind) as file:
            pictures = draw(file, arguments)
        for path in _save(pictures, arguments.output, arguments.formats):
            print(path)
        sys.stdout.flush()
    except InputError as error:
        print(f"{top.prog}: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:  # who reads the list, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        where = error.filename or arguments.file
        print(f"{top.prog}: {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _save(pictures: Mapping[str, Figure], folder: Path, formats: Sequence[str]) -> Iterable[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        for ending in formats:
            path = folder / f"{name}.{ending}"
            dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
            figure.savefig(path, metadata=dateless.get(ending))
            yield path
        plt.close(figure)


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(text.split(","))
    for ending in formats:
        if ending not in FORMATS:
            raise argparse.ArgumentTypeError(f"'{ending}' is none of {', '.join(FORMATS)}")
    return formats


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        message = f"'{text}': expected numbers separated by commas"
        raise argparse.ArgumentTypeError(message) from None


def step_axis(axes: Axes, nbins: int = 8) -> None:
    axes.set_xlabel("training steps")
    axes.xaxis.set_major_locator(MaxNLocator(nbins, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def reference_line(
    axes: Axes, level: float, text: str, above: bool = False, line: bool = True
) -> None:
    """A dashed level with its name under the line's right end, or above it."""
    if line:
        axes.axhline(level, color=REFERENCE, linestyle="--", linewidth=1, zorder=1)
    axes.annotate(
        text,
        (1, level),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-2, 2 if above else -3),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=REFERENCE,
        fontsize="small",
    )


def reference_curve(axes: Axes, x: np.ndarray, levels: np.ndarray, text: str = "") -> None:
    """The same of a level that may vary along x; its name stands at the last one."""
    low, high = axes.get_ylim()
    above = levels[-1] - low < 0.2 * (high - low)
    if np.ptp(levels) == 0:
        reference_line(axes, levels[-1], text, above)
        return
    reference_line(axes, levels[-1], text, above, line=False)
    axes.plot(x, levels, "--", color=REFERENCE, linewidth=1, zorder=1)


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], height_in: float) -> None:
    """Names lines right of the axes: (value, text, colour), moved apart where they would touch."""
    points = 9.0
    low, high = axes.get_ylim()
    gap = (high - low) * 1.3 * points / 72 / height_in
    for level, (_, text, colour) in zip(
        spread([value for value, _, _ in ends], gap), ends, strict=True
    ):
        axes.annotate(
            text,
            (1, level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=points,
            annotation_clip=False,
        )


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Positions at least `gap` apart, in the values' order and near them."""
    order = np.argsort(values, kind="stable")
    groups: list[list[float]] = []  # [sum of values, members]; a group is centred on its mean
    for value in (values[i] for i in order):
        groups.append([value, 1])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            last = groups.pop()
            groups[-1] = [groups[-1][0] + last[0], groups[-1][1] + last[1]]
    positions = np.empty(len(values))
    placed = [_bottom(g, gap) + gap * member for g in groups for member in range(int(g[1]))]
    positions[order] = placed
    return positions.tolist()


def _bottom(group: Sequence[float], gap: float) -> float:
    return group[0] / group[1] - gap * (group[1] - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return group[0] / group[1] + gap * (group[1] - 1) / 2


class Depth:
    """A colour for each layer, light to dark with depth, and the bar that explains it."""

    def __init__(self, layers: Sequence[int]) -> None:
        self._layers = layers
        span = np.linspace(0.85, 0.0, len(layers)) if len(layers) > 1 else [0.3]
        self._colours = plt.get_cmap("viridis")(span)

    def __getitem__(self, position: int) -> np.ndarray:
        return self._colours[position]

    def bar(
        self, figure: Figure, axes: Axes | Sequence[Axes], most: int, aspect: float = 25
    ) -> None:
        """A colour bar with at most so many numbers; `aspect`: its height ÷ width."""
        count = len(self._layers)
        ticks = tick_positions(self._layers, most)
        norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
        mappable = ScalarMappable(norm, ListedColormap(self._colours))
        bar = figure.colorbar(mappable, ax=axes, ticks=ticks, pad=0.02, aspect=aspect)
        bar.ax.set_yticklabels([str(self._layers[tick]) for tick in ticks])
        bar.minorticks_off()
        bar.ax.tick_params(length=0)
        bar.ax.invert_yaxis()  # the first layer on top
        bar.outline.set_visible(False)
        bar.set_label("MoE layer (block number)", labelpad=6)


def ratio_norm(ratios: np.ndarray) -> LogNorm:
    """Colours for ratios to an even share: 1 in the middle, as far to 1/x as to x."""
    above = ratios[ratios > 1]  # below there is no bottom
    power = np.ceil(np.log2(np.percentile(above, 98))) if above.size else 1
    power = int(np.clip(power, 1, 4))
    return LogNorm(2.0**-power, 2.0**power)


def ratio_bar(figure: Figure, mappable: ScalarMappable, axes: Sequence[Axes], text: str) -> None:
    bar: Colorbar = figure.colorbar(mappable, ax=axes, extend="both", pad=0.02, aspect=35)
    ratio_ticks(bar, mappable.norm)
    bar.set_label(text)


def ratio_ticks(bar: Colorbar, norm: LogNorm, most: int = 9) -> None:
    """Powers of two, at most so many: 1/2×, 1×, 2× …"""
    power = round(np.log2(norm.vmax))
    stride = 1 if 2 * power + 1 <= most else 2
    inner = power // stride * stride
    ticks = [2.0**p for p in range(-inner, inner + 1, stride)]
    bar.set_ticks(ticks, labels=[f"{t:g}×" if t >= 1 else f"1/{1 / t:g}×" for t in ticks])
    bar.minorticks_off()
    bar.outline.set_visible(False)


def tick_positions(values: Sequence[int], most: int) -> list[int]:
    """Of numbered rows or columns: all where they fit, else every 2nd, 4th, 8th …"""
    stride = 1
    while len(values) > most * stride:
        stride *= 2
    return list(range(0, len(values), stride))


def printable(text: str) -> str:
    """A token's text for a label: white space made visible, what the font lacks by its code."""
    shown = "".join(_glyph(character) for character in text)
    return shown.replace("$", r"\$")  # else the start of a formula


def _glyph(character: str) -> str:
    visible = {" ": "␣", "\n": "↵", "\t": "⇥"}.get(character, character)
    if visible.isprintable() and _font().get_char_index(ord(visible)):
        return visible
    return f"[U+{ord(character):04X}]"


def _font() -> ft2font.FT2Font:
    return font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
