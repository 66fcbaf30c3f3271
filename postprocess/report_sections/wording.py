"""Numbers, lists and changes as parts of sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def number(value: float, digits: int = 3) -> str:
    """With so many significant digits, thousands apart; 'n/a' for NaN."""
    if not np.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # 0.9996 is 1.00
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(rounded)))))
    text = f"{value:.{digits - 1}e}" if decimals > 6 else f"{value:,.{decimals}f}"
    return text.replace("-", "−")


def percent(share: float) -> str:
    """With one decimal, more below 1 %; 'n/a' for NaN."""
    if not np.isfinite(share):
        return "n/a"
    if share == 0 or abs(share) >= 0.01:
        return f"{share:.1%}"
    return f"{number(100 * share, 2)}%"


def times(ratio: float) -> str:
    return f"{number(ratio)}×"


def count(value: int, noun: str, plural: str = "") -> str:
    """'1 layer', '3 layers', '1,024 layers'."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def listed(parts: Sequence[object], most: int = 0) -> str:
    """'a, b and c'; with `most`, so many and how many more there are."""
    texts = [str(part) for part in parts]
    if most and len(texts) > most:
        texts = [*texts[:most], f"{len(texts) - most} more"]
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def change(first: str, last: str, rose: bool) -> str:
    """'fell from a to b', of two numbers as they are written: equal texts are no change."""
    if first == last:
        return "is not defined" if last == "n/a" else f"stayed at {last}"
    return f"{'rose' if rose else 'fell'} from {first} to {last}"


def moved(first: float, last: float, form=number) -> str:
    return change(form(first), form(last), last > first)


def spread(values: Sequence[float], names: Sequence[str], form=number) -> str:
    """Of layers: '2.1 (layer 1) to 3.4 (layer 3)'; 'x in every layer' where they look the same."""
    known = [(value, name) for value, name in zip(values, names) if np.isfinite(value)]
    if not known:
        return "n/a"
    low, high = min(known), max(known)
    if len(known) == 1:
        return f"{form(high[0])} in {high[1]}"
    if form(low[0]) == form(high[0]):
        return f"{form(high[0])} in every layer"
    return f"{form(low[0])} ({low[1]}) to {form(high[0])} ({high[1]})"
