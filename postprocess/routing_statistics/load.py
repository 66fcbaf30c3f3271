"""How evenly experts are used. Counts are token copies (..., experts); NaN where there are none."""

from __future__ import annotations

import numpy as np

from routing_statistics.ratio import ratio


def share_of_copies(counts: np.ndarray) -> np.ndarray:
    """c_e / Σ_j c_j: each expert's share of the token copies, (..., experts). Even: 1/E."""
    return ratio(counts, counts.sum(-1, keepdims=True))


def busiest(counts: np.ndarray) -> np.ndarray:
    """max_e c_e / mean_e c_e (...): load of the busiest expert relative to the mean.

    From 1, an even load, to E, one expert for all. What FLAME-MoE's trace studies call max/mean.
    """
    return ratio(counts.max(-1) * counts.shape[-1], counts.sum(-1))


def gini(counts: np.ndarray) -> np.ndarray:
    """Σ_i Σ_j |c_i − c_j| / (2 E Σ_j c_j) (...): 0, an even load, to 1 − 1/E, one expert for all.

    With c sorted this is Σ_i (2 i − E − 1) c_i / (E Σ_j c_j), i from 1.
    """
    experts = counts.shape[-1]
    weight = 2 * np.arange(1, experts + 1) - experts - 1
    return ratio((np.sort(counts, -1) * weight).sum(-1), experts * counts.sum(-1))


def gini_of_chance(copies: np.ndarray, experts: int, per_token: np.ndarray | float) -> np.ndarray:
    """Gini that random, even choice of `per_token` experts would show by sampling alone (...).

    √((1 − k/E) / (π m)), m = copies / E: counts are then nearly normal with mean m and variance
    m (1 − k/E), and the Gini coefficient of a normal distribution is its deviation / (mean √π).
    Tokens of a text are not independent, so that this is a lower bound for real ones.
    """
    spread = np.maximum(1 - np.asarray(per_token, float) / experts, 0)
    return np.sqrt(ratio(spread, np.pi * np.asarray(copies, float) / experts))


def relative_entropy(counts: np.ndarray) -> np.ndarray:
    """−Σ_e p_e ln p_e / ln E with p = share_of_copies (...): 1, an even load, to 0, one for all.

    Of one expert: 1.
    """
    experts = counts.shape[-1]
    share = share_of_copies(counts)
    logarithm = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy = -(share * logarithm).sum(-1)
    even = np.where(np.isnan(entropy), np.nan, 1.0)
    return entropy / np.log(experts) if experts > 1 else even


def dead_experts(counts: np.ndarray) -> np.ndarray:
    """How many experts got no token copy at all (...)."""
    return (counts == 0).sum(-1)
