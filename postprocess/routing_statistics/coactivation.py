"""Which experts are chosen together. Counts N (experts, experts) are symmetric.

N_ij is the number of tokens that chose both i and j, N_ii of those that chose i.
"""

from __future__ import annotations

import numpy as np


def conditional(counts: np.ndarray, min_count: int = 1) -> np.ndarray:
    """P(j | i) = N_ij / N_i: of the tokens of i, the share that chose j too; asymmetric.

    (experts, experts) with a diagonal of zeros; a row of zeros where i has fewer than `min_count`
    tokens, which tell nothing. FLAME-MoE's co-activation. OLMoE's script counts only neighbours in
    rank: its figures are lower.
    """
    tokens = np.diagonal(counts)[:, None]
    share = np.where(tokens >= max(min_count, 1), counts / np.maximum(tokens, 1), 0)
    np.fill_diagonal(share, 0)
    return share


def chance_conditional(counts: np.ndarray, min_count: int = 1) -> float:
    """P(j | i) if each token drew its experts at random: Σ_{i≠j} N_ij / ((E − 1) Σ_i N_ii).

    A token with n experts adds n (n − 1) to the first sum and n to the second, so with k experts
    for every token this is (k − 1) / (E − 1), exactly. Over the experts i with `min_count` tokens
    or more; NaN without any or with one expert.
    """
    experts, frequent = counts.shape[0], np.diagonal(counts) >= max(min_count, 1)
    tokens = int(np.diagonal(counts)[frequent].sum())
    if experts < 2 or tokens == 0:
        return np.nan
    return (int(counts[frequent].sum()) - tokens) / ((experts - 1) * tokens)


def pair_ratio(counts: np.ndarray) -> np.ndarray:
    """N_ij / mean of N over i ≠ j: a pair's tokens relative to the mean pair's; symmetric.

    (experts, experts) with a diagonal of NaN; random choice gives 1. All NaN without any pair.
    """
    experts = counts.shape[0]
    pairs = int(counts.sum()) - int(np.trace(counts))
    if pairs == 0:
        return np.full(counts.shape, np.nan)
    ratio = counts * (experts * (experts - 1)) / pairs
    np.fill_diagonal(ratio, np.nan)
    return ratio


def strongest_pair(table: np.ndarray) -> tuple[int, int]:
    """(i, j) of the largest P(j | i); of equal ones the first."""
    i, j = np.unravel_index(int(table.argmax()), table.shape)
    return int(i), int(j)
