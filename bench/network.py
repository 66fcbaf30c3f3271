"""A network of one latency and one bandwidth, and the collectives that Hearth makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from power_law import least_squares

BYTES_PER_GRADIENT = 8  # int64


@dataclass(frozen=True)
class Network:
    """Seconds a message, bytes a second that a rank sends while it receives as many.

    Gradients are summed and weights gathered as in a ring: each rank sends, and receives, as many
    parts as there are other ranks. `overlap`: the share of the time that work beside an exchange
    takes in which the network makes progress.
    """

    latency_s: float
    exchange_bytes_per_s: float
    reduce_bytes_per_s: float  # adding included
    gather_bytes_per_s: float
    overlap: float = 0

    @staticmethod
    def plain(
        latency_s: float, bytes_per_s: float, adding_s: float = 0, overlap: float = 0
    ) -> Network:
        """One bandwidth for all; `adding_s`: what a rank takes to add an element to a sum."""
        reduce_bytes_per_s = 1 / (1 / bytes_per_s + adding_s / BYTES_PER_GRADIENT)
        return Network(latency_s, bytes_per_s, reduce_bytes_per_s, bytes_per_s, overlap)

    @property
    def adding_s(self) -> float:
        """Seconds by which an element of a sum takes longer than its bytes if only passed on."""
        byte_s = 1 / self.reduce_bytes_per_s - 1 / self.gather_bytes_per_s
        return BYTES_PER_GRADIENT * max(0.0, byte_s)

    def exchange_s(self, sent_bytes: float) -> float:
        """Of the bytes of an all-to-all; its messages' latency is counted apart."""
        return sent_bytes / self.exchange_bytes_per_s

    def visible_s(self, exchange_s: float, beside_s: float) -> float:
        """What remains of exchanges beside which there is so much work."""
        return max(0.0, exchange_s - self.overlap * beside_s)

    def reduce_scatter_s(self, array_bytes: float, ranks: int) -> float:
        return self._ring_s(array_bytes, self.reduce_bytes_per_s, ranks)

    def all_gather_s(self, array_bytes: float, ranks: int) -> float:
        return self._ring_s(array_bytes, self.gather_bytes_per_s, ranks)

    def sum_s(self, ranks: int) -> float:
        """A few numbers to all ranks: up a tree and down again."""
        return 2 * levels(ranks) * self.latency_s

    def _ring_s(self, array_bytes: float, bytes_per_s: float, ranks: int) -> float:
        messages, share = ring(ranks)
        return messages * self.latency_s + share * array_bytes / bytes_per_s


def levels(ranks: int) -> int:
    """Of a binomial tree."""
    return (ranks - 1).bit_length()


def ring(ranks: int) -> tuple[int, float]:
    """Messages one after the other, and the share of the array that they carry together."""
    return ranks - 1, (ranks - 1) / ranks


def fitted(measured: Iterable[Mapping[str, Any]], overlap: float = 0) -> Network:
    """From the lines of `hearth-bench exchange`, of one or more numbers of ranks."""
    points: dict[str, list[Mapping[str, Any]]] = {}
    for point in measured:
        if point["ranks"] > 1:
            points.setdefault(point["name"], []).append(point)
    latency_s, exchange = _fit_pair(
        [
            (p["ranks"] - 1, p["bytes"] * (p["ranks"] - 1) / p["ranks"])
            for p in points["all_to_all"]
        ],
        [p["median_s"] for p in points["all_to_all"]],
    )
    bandwidth = {}
    for name in ("reduce_scatter", "all_gather"):
        largest = max(points[name], key=lambda p: p["bytes"])  # gradients fit no cache
        messages, share = ring(int(largest["ranks"]))
        byte_s = largest["median_s"] - messages * latency_s
        bandwidth[name] = share * largest["bytes"] / byte_s
    return Network(
        latency_s, exchange, bandwidth["reduce_scatter"], bandwidth["all_gather"], overlap
    )


def _fit_pair(rows: list[tuple[float, float]], times: list[float]) -> tuple[float, float]:
    """Seconds a message and bytes a second."""
    message_s, byte_s = least_squares(rows, times)
    return float(message_s), 1 / float(byte_s) if byte_s > 0 else float("inf")
