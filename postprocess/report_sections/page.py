"""One HTML file with everything in it: text, tables, and figures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #59636e;
  --line: #d5dae0; --link: #0969da; --box: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --paper: #14171a; --faint: #a3adb8; --line: #363c43; --link: #6cb6ff;
    --box: #1e2226; }
  /* Figures are black on nothing: turned over, with their hues kept. */
  figure img { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 46rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 0.25rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 0.5rem; padding-top: 0.5rem;
  border-top: 1px solid var(--line); }
p { margin: 0.75rem 0; }
a { color: var(--link); }
.subtitle, figcaption, caption, footer { color: var(--faint); font-size: 0.875rem; }
nav, .summary { background: var(--box); border-radius: 0.5rem; padding: 0.75rem 1rem;
  margin: 1.25rem 0; }
nav h2, .summary h2 { border: 0; margin: 0 0 0.25rem; padding: 0; font-size: 1rem; }
nav ol { margin: 0; padding-left: 1.4rem; columns: 2 14rem; }
.summary ul { margin: 0; padding-left: 1.2rem; }
.summary li { margin: 0.35rem 0; }
figure { margin: 1.5rem 0; }
figure img { display: block; width: 100%; max-width: 38rem; height: auto; margin: 0 auto; }
figcaption { margin-top: 0.5rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
caption { text-align: left; padding-bottom: 0.35rem; }
th, td { padding: 0.3rem 0.6rem 0.3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 0.75rem; }
@media print { nav { display: none; } figure, tr { break-inside: avoid; } }
""".strip()


@dataclass(frozen=True)
class Picture:
    """The caption says what is shown: definition, unit, and what random choice would give."""

    draw: Callable[[], Figure]  # called when the page is made
    alt: str  # what a reader who does not see it should know
    caption: str


@dataclass(frozen=True)
class Table:
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int = 1  # columns from here on are numbers, right-aligned


Block = str | Picture | Table


@dataclass
class Section:
    anchor: str
    title: str
    headline: str = ""  # a sentence for the summary; empty: nothing to say there
    blocks: list[Block] = field(default_factory=list)

    def say(self, *sentences: str) -> None:
        """A paragraph of those that are not empty."""
        text = " ".join(sentence for sentence in sentences if sentence)
        if text:
            self.blocks.append(text)

    def show(self, block: Picture | Table) -> None:
        self.blocks.append(block)


def render(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page. Closes the figures."""
    contents = "".join(
        f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections
    )
    points = "".join(
        f"<li>{escape(section.headline)}</li>" for section in sections if section.headline
    )
    summary = f'<section class="summary"><h2>In short</h2><ul>{points}</ul></section>'
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>",
            f'<h1>{escape(title)}</h1>\n<p class="subtitle">{escape(subtitle)}</p>',
            summary if points else "",
            f'<nav aria-label="Contents"><h2>Contents</h2><ol>{contents}</ol></nav>',
            *map(_section, sections),
            f"</main>\n<footer>{escape(footer)}</footer>\n</body>\n</html>\n",
        ]
    )


def _section(section: Section) -> str:
    blocks = "\n".join(map(_block, section.blocks))
    title = escape(section.title)
    return f'<section id="{section.anchor}">\n<h2>{title}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    return _table(block) if isinstance(block, Table) else _figure(block)


def _table(table: Table) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        kinds = ['class="number"' if i >= table.numbers_from else "" for i in range(len(cells))]
        if tag == "th":
            kinds = [f'scope="col" {kind}' for kind in kinds]
        marks = [f" {kind.strip()}" if kind.strip() else "" for kind in kinds]
        parts = (f"<{tag}{m}>{escape(cell)}</{tag}>" for m, cell in zip(marks, cells))
        return f"<tr>{''.join(parts)}</tr>"

    head = f"<thead>{row('th', table.head)}</thead>" if table.head else ""
    body = "\n".join(row("td", cells) for cells in table.rows)
    # Reachable by keyboard: a wide table scrolls.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}">'
        f"<table><caption>{escape(table.caption)}</caption>{head}<tbody>\n{body}\n</tbody></table>"
        "</div>"
    )


def _figure(picture: Picture) -> str:
    return (
        f'<figure><img src="{_data_uri(picture.draw())}" alt="{escape(picture.alt)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _data_uri(figure: Figure) -> str:
    """An SVG without background, so that the page's shows; nothing in it points elsewhere."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(figure)
    text = buffer.getvalue()
    image = text[text.index("<svg") :]  # without the XML document type, which names a URL
    return f"data:image/svg+xml;base64,{base64.b64encode(image.encode()).decode()}"
