"""HTML pages as sections of readable text."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

HEADINGS = {"h1", "h2"}
BLOCKS = HEADINGS | {
    *("h3", "h4", "p", "div", "blockquote", "center", "hr", "pre", "body"),
    *("li", "ul", "ol", "dl", "dt", "dd", "table", "tr"),
}
IGNORED = {"head", "script", "style"}


class _Blocks(HTMLParser):
    """Collects (tag, text) for each block: a paragraph, a heading, a list item."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[str, str]] = []
        self._tag = "p"
        self._parts: list[str] = []
        self._ignored = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in IGNORED:
            self._ignored += 1
        elif tag == "br":
            self._parts.append("\n")
        elif tag in ("td", "th"):
            self._parts.append("  ")
        elif tag in BLOCKS:
            # A paragraph that opens a list item is still that item.
            tag = self._tag if tag == "p" and self._tag == "li" and not self._text() else tag
            self.flush(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in IGNORED:
            self._ignored -= 1
        elif tag in BLOCKS:
            self.flush("p")

    def handle_data(self, data: str) -> None:
        if not self._ignored:
            self._parts.append(data.replace("\n", " "))

    def _text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        return "\n".join(lines).strip()

    def flush(self, next_tag: str) -> None:
        if text := self._text():
            self.blocks.append((self._tag, text))
        self._tag, self._parts = next_tag, []


def sections(html: str) -> Iterator[str]:
    """The page cut at its h1 and h2 headings."""
    parser = _Blocks()
    parser.feed(html)
    parser.close()
    parser.flush("p")
    section: list[str] = []
    for tag, text in parser.blocks:
        if tag in HEADINGS and section:
            yield "\n\n".join(section)
            section = []
        section.append(f"- {text}" if tag == "li" else text)
    if section:
        yield "\n\n".join(section)
