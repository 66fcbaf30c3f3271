"""Quotients and means where a divisor may be zero."""

from __future__ import annotations

import numpy as np


def ratio(numerator: np.ndarray, denominator: np.ndarray | float) -> np.ndarray:
    """Element by element in double precision; NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    result = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)


def mean_known(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean of what is not NaN; NaN where nothing is."""
    values = np.asarray(values, float)
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis), known.sum(axis))
