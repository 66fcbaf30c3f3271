"""Drift: how far weights moved, as a share of their length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routing_statistics.ratio import ratio


@dataclass(frozen=True)
class Drift:
    """Euclidean norms (checkpoints, experts): of the weights, of their difference to those of the
    checkpoint before (of the first one: to the first weights), of the first weights, and of the
    difference to these."""

    norm: np.ndarray
    moved: np.ndarray
    start_norm: np.ndarray
    start_moved: np.ndarray


def since_start(drift: Drift) -> np.ndarray:
    """‖W − W₀‖ / ‖W₀‖ (checkpoints, experts)."""
    return ratio(drift.start_moved, drift.start_norm)


def since_before(drift: Drift) -> np.ndarray:
    """‖W − W'‖ / ‖W'‖, W' at the checkpoint before (checkpoints, experts)."""
    before = np.concatenate([drift.start_norm[:1], drift.norm[:-1]])
    return ratio(drift.moved, before)


def cosine_to_start(drift: Drift) -> np.ndarray:
    """⟨W, W₀⟩ / (‖W‖ ‖W₀‖) (checkpoints, experts), of the three norms."""
    product = (drift.norm**2 + drift.start_norm**2 - drift.start_moved**2) / 2
    return ratio(product, drift.norm * drift.start_norm)
