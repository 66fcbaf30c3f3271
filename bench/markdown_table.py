"""Tables as docs/performance.md shows them."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines."""
    return [_line(heads), "|" + "---|" * len(heads), *map(_line, rows)]


def percent(share: float, form: str = ".0f") -> str:
    return f"{100 * share:{form}} %"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
