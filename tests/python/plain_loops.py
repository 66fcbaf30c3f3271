"""Statistics of routing from the raw choices of single tokens, slowly and without the programs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from synthetic_routing import NONE, Trace


def chosen(trace: Trace, layer: int) -> list[set[int]]:
    """Each token's experts."""
    return [{int(e) for e in row if e != NONE} for row in trace.choice[layer]]


def copies(row: list[Trace], layer: int, experts: int) -> list[int]:
    """Token copies of each expert."""
    found = [0] * experts
    for trace in row:
        for who in chosen(trace, layer):
            for expert in who:
                found[expert] += 1
    return found


def agreement(now: np.ndarray, reference: np.ndarray) -> float:
    """Mean of |A ∩ B| / |B| over tokens that have a B."""
    parts = []
    for a_row, b_row in zip(now.tolist(), reference.tolist()):
        a, b = {e for e in a_row if e != NONE}, {e for e in b_row if e != NONE}
        if b:
            parts.append(Fraction(len(a & b), len(b)))
    return float(sum(parts) / len(parts))


def seen(row: list[Trace], kind: str, half: int | None = None) -> dict[int, int]:
    """Tokens of each source or token id."""
    found: dict[int, int] = {}
    for trace in row:
        for token, kind_of in enumerate(getattr(trace, kind).tolist()):
            if half is None or trace.sequence[token] % 2 == half:
                found[kind_of] = found.get(kind_of, 0) + 1
    return found


def taken(row: list[Trace], layer: int, kind: str, half: int | None = None) -> dict:
    """Tokens by (source or token id, expert)."""
    found: dict[tuple[int, int], int] = {}
    for trace in row:
        kinds = getattr(trace, kind).tolist()
        for token, who in enumerate(chosen(trace, layer)):
            if half is None or trace.sequence[token] % 2 == half:
                for expert in who:
                    key = (kinds[token], expert)
                    found[key] = found.get(key, 0) + 1
    return found


def best(n: dict, n_e: dict, expert: int, eligible: list[int], each: int) -> list[int]:
    def key(token: int) -> tuple[Fraction, int]:
        return (-Fraction(n_e.get((token, expert), 0), n[token]), token)

    return sorted(eligible, key=key)[:each]
