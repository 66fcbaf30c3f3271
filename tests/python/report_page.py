"""A report as a test sees it: its text, its images, its links."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from matplotlib.image import imread

EMPTY = {"meta", "img", "br", "link", "hr"}
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


@dataclass
class Page(HTMLParser):
    """Parsed; fails on tags that are not closed in order."""

    source: str
    text: str = ""
    images: list[dict[str, str]] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in EMPTY:
            self._open.append(tag)
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values["href"])
        if tag == "figcaption":
            self.captions.append("")
        if "id" in values:
            self.anchors.append(values["id"])

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "figcaption" in self._open:
            self.captions[-1] += data


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def picture(image: dict[str, str]) -> ElementTree.Element:
    """The SVG of an image, its own images decoded on the way."""
    head, data = image["src"].split(",", 1)
    assert head == "data:image/svg+xml;base64"
    root = ElementTree.fromstring(base64.b64decode(data, validate=True))
    assert root.tag == f"{SVG}svg"
    for inner in root.iter(f"{SVG}image"):
        kind, pixels = inner.get(HREF).split(",", 1)
        assert kind == "data:image/png;base64"
        assert imread(io.BytesIO(base64.b64decode(pixels)), format="png").size
    return root


def outside_references(page: Page) -> list[str]:
    """Whatever would be fetched: links, sources, style sheets' URLs, in the page and its images."""
    found = [link for link in page.links if not link.startswith("#")]
    found += [tag for tag in page.tags if tag in ("link", "script", "iframe", "object", "base")]
    found += re.findall(r"@import|url\((?!#)[^)]*\)", page.source)
    for image in page.images:
        for element in picture(image).iter():
            for name, value in element.attrib.items():
                local = value.startswith(("#", "data:image/png;base64,"))
                if name.endswith("href") and not local:
                    found.append(value)
                if re.search(r"url\((?!#)", value):
                    found.append(value)
    return found
