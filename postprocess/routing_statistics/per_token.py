"""Sums over tokens as means, and what becomes of token copies."""

from __future__ import annotations

import numpy as np

from routing_statistics.ratio import ratio


def per_token(sums: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Sums by (interval, ...) over the tokens (intervals) that they are of; NaN without tokens."""
    return ratio(sums, tokens.reshape(-1, *[1] * (sums.ndim - 1)))


def drop_share(dropped: np.ndarray, received: np.ndarray) -> np.ndarray:
    """dropped / (dropped + received), both token copies: what capacity turned away."""
    return ratio(dropped, dropped + received)


def mean_of_histogram(tokens: np.ndarray) -> np.ndarray:
    """Mean number from tokens by number (..., numbers), which counts from 0."""
    return ratio((tokens * np.arange(tokens.shape[-1])).sum(-1), tokens.sum(-1))
