"""Saturation: how far two routers agree on the experts of the same tokens.

Choices are expert numbers (..., tokens, slots); −1 is a slot without an expert, so that tokens may
have any number of experts. A token's experts are different ones.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

NONE = -1


def chosen_experts(choice: np.ndarray) -> np.ndarray:
    """|A| by token (..., tokens): slots with an expert."""
    return (choice != NONE).sum(-1)


def in_order_of_rank(choice: np.ndarray) -> bool:
    """Whether slots are sorted by rank, best first, and not by expert number.

    Files that sort by number cannot tell which of a token's experts came first. Sorted by rank,
    hardly any set of tokens has all its experts in ascending order of number.
    """
    left, right = choice[..., :-1], choice[..., 1:]
    return bool(((left != NONE) & (right != NONE) & (left > right)).any())


def first_choices(choice: np.ndarray, k: int) -> np.ndarray:
    """The k best of choices in order of rank: fewer slots, (..., tokens, k)."""
    return choice[..., :k]


def agreement(choice: np.ndarray, reference: np.ndarray) -> float:
    """Mean over tokens of |A ∩ B| / |B|, B the reference's experts of a token; (tokens, slots).

    Tokens without an expert in the reference are left out; NaN where none is left. With k experts
    for every token this is the router saturation of OLMoE (arXiv:2409.02060) and FLAME-MoE. It is
    symmetric where both have as many experts. The mean is formed exactly and rounded once.
    """
    common = ((choice[:, :, None] == reference[:, None, :]) & (reference != NONE)[:, None, :]).sum(
        (1, 2)
    )
    sizes = chosen_experts(reference)
    tokens = int((sizes > 0).sum())
    if tokens == 0:
        return np.nan
    parts = (Fraction(int(common[sizes == s].sum()), int(s)) for s in np.unique(sizes) if s > 0)
    return float(sum(parts) / tokens)


def chance_agreement(choice: np.ndarray, reference: np.ndarray, experts: int) -> float:
    """What `agreement` would be, were each token's |A| experts drawn at random: mean |A| / E.

    Over the tokens that `agreement` counts; k/E with k experts for every token.
    """
    counted = chosen_experts(reference) > 0
    if not counted.any():
        return np.nan
    return float(Fraction(int(chosen_experts(choice)[counted].sum()), experts * int(counted.sum())))


def saturation(choice: np.ndarray, against: str = "final", k: int | None = None) -> np.ndarray:
    """Agreement of each checkpoint (checkpoints, tokens, slots) with another one: (checkpoints).

    `against` is "final", the last checkpoint (which has 1 with itself), or "previous" (NaN for the
    first). `k`: of the k best experts only, of choices in order of rank.
    """
    if k is not None:
        choice = first_choices(choice, k)
    if against == "final":
        return np.array([agreement(now, choice[-1]) for now in choice])
    assert against == "previous"
    pairs = zip(choice[1:], choice[:-1])
    return np.array([np.nan, *(agreement(now, before) for now, before in pairs)][: len(choice)])
