"""How a time grows: a power law plus a constant, and the plain slope between logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXPONENTS = np.linspace(0.02, 3, 299)  # that are tried, 0.01 apart


@dataclass(frozen=True)
class PowerLaw:
    """time = constant + factor · size ** exponent."""

    constant: float
    factor: float
    exponent: float
    error: float  # root mean square of the relative errors
    exponent_range: tuple[float, float]  # of the fits that leave out one point each
    slope: float  # of log time over log size, without a constant

    def __call__(self, size: ArrayLike) -> NDArray[np.float64]:
        return self.constant + self.factor * np.asarray(size, float) ** self.exponent

    def describe(self) -> str:
        low, high = self.exponent_range
        return (
            f"exponent {self.exponent:.2f} ({low:.2f} to {high:.2f}) above a constant of "
            f"{self.constant:.3g} s; log-log slope {self.slope:.2f}"
        )


def least_squares(columns: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """Coefficients, none negative, that make the relative errors' squares least.

    Few columns only: every choice of those that may differ from zero is tried.
    """
    target = np.asarray(values, float)
    matrix = np.asarray(columns, float) / target[:, None]
    count = matrix.shape[1]
    size = np.abs(matrix).max(0)
    matrix = matrix / np.where(size > 0, size, 1)
    best, best_error = np.zeros(count), np.inf
    for chosen in (c for n in range(1, count + 1) for c in combinations(range(count), n)):
        part = matrix[:, chosen]
        found, *_ = np.linalg.lstsq(part, np.ones(len(target)), rcond=None)
        error = float(np.sum((part @ found - 1) ** 2))
        if (found >= 0).all() and error < best_error - 1e-12:
            best, best_error = np.zeros(count), error
            best[list(chosen)] = found
    return best / np.where(size > 0, size, 1)


def _fit(sizes: NDArray[np.float64], times: NDArray[np.float64]) -> tuple[float, ...]:
    best: tuple[float, ...] = (0, 0, 0, np.inf)
    for exponent in EXPONENTS:
        columns = np.stack([np.ones_like(sizes), sizes**exponent], 1)
        constant, factor = least_squares(columns, times)
        errors = (constant + factor * sizes**exponent) / times - 1
        error = float(np.sqrt(np.mean(errors**2)))
        if error < best[3] - 1e-9:
            best = (float(constant), float(factor), float(exponent), error)
    return best


def fit(sizes: Sequence[float], times: Sequence[float]) -> PowerLaw:
    """Fits at least four points."""
    x, y = np.asarray(sizes, float), np.asarray(times, float)
    if len(x) < 4:
        raise ValueError("a constant and a power law need four points or more")
    constant, factor, exponent, error = _fit(x, y)
    others = [_fit(np.delete(x, i), np.delete(y, i))[2] for i in range(len(x))]
    slope = float(np.polyfit(np.log(x), np.log(y), 1)[0])
    return PowerLaw(constant, factor, exponent, error, (min(others), max(others)), slope)
