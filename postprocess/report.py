#!/usr/bin/env python3
"""Tells a run's routing story: one HTML file with figures and text, all computed from its data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt

import figures
from arguments import positive
from plot_specialisation import token_names
from report_sections import (
    copies,
    domains,
    drift,
    load,
    losses,
    overview,
    pairs,
    router,
    settling,
    vocabulary,
)
from report_sections.page import Section, render
from report_sections.run import Run, open_run
from statistics_file import InputError
from whole_file import write_whole

STORY = (overview, losses)
ROUTING = (load, copies, router, settling, drift, pairs, domains, vocabulary)


def main() -> int:
    arguments = parser().parse_args()
    output: Path = arguments.output or arguments.run / "report.html"
    try:
        label_of = token_names(arguments.tokenizer)
        with open_run(arguments.run, arguments.layers, arguments.min_count, plain(label_of)) as run:
            text = report(run)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, text)
        print(output)
    except InputError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        where = error.filename or output
        print(f"report.py: {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description="Writes one HTML file about a run, with everything in it: losses, load of the "
        "experts, drops, the router's entropy and losses, saturation, drift, co-activation, and "
        "specialisation by data source and token. Its sentences are computed from the files.",
        epilog="Exit status: 0 done, 1 the report cannot be written, 2 bad input.",
    )
    top.add_argument("run", type=Path, metavar="RUN", help="output folder of a run")
    top.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the report (default: report.html in the run's folder)",
    )
    figures.add_layers(top)
    top.add_argument(
        "--min-count",
        type=positive,
        default=100,
        metavar="N",
        help="a token id must be seen so often to count as an expert's (default 100)",
    )
    figures.add_tokenizer(top)
    return top


def plain(label_of: Callable[[int], str]) -> Callable[[int], str]:
    """A token's text without what Matplotlib's labels need."""
    return lambda token: label_of(token).replace(r"\$", "$")


def report(run: Run) -> str:
    """The HTML text."""
    with plt.rc_context({"font.size": 9}):
        return render(
            f"Routing report: {run.folder.resolve().name}",
            subtitle(run),
            sections(run),
            "Made by postprocess/report.py. Definitions: docs/routing_statistics.md. One run is "
            "one sample: what differs between seeds, a single run cannot tell.",
        )


def sections(run: Run) -> list[Section]:
    parts = STORY if run.routing is None else STORY + ROUTING
    return [part.section(run) for part in parts]


def subtitle(run: Run) -> str:
    version = run.file.attribute("version")
    return f"hearth {version}" if version else "hearth"


if __name__ == "__main__":
    sys.exit(main())
