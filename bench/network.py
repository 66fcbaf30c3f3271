"""A network of one latency and one bandwidth, and the collectives that Hearth makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from power_law import least_squares

COLLECTIVES = ("turns", "ring")


@dataclass(frozen=True)
class Network:
    """Seconds a message, bytes a second that a rank sends while it receives as many.

    `collectives`: how gradients are summed and weights gathered. "turns" is what Hearth does over
    MPI, a reduction to (a broadcast from) each rank in turn, along binomial trees that start where
    the one before ended; "ring" is what NCCL does.
    """

    latency_s: float
    exchange_bytes_per_s: float
    reduce_bytes_per_s: float
    gather_bytes_per_s: float
    collectives: str = "turns"

    @staticmethod
    def plain(
        latency_s: float, bytes_per_s: float, collectives: str = "turns", adding_s: float = 0
    ) -> Network:
        """One bandwidth for all; `adding_s`: what a rank takes to add a byte to a sum."""
        reduce_bytes_per_s = 1 / (1 / bytes_per_s + adding_s)
        return Network(latency_s, bytes_per_s, reduce_bytes_per_s, bytes_per_s, collectives)

    @property
    def adding_s(self) -> float:
        """Seconds by which a byte of a sum takes longer than one that is only passed on."""
        return max(0.0, 1 / self.reduce_bytes_per_s - 1 / self.gather_bytes_per_s)

    def exchange_s(self, sent_bytes: float) -> float:
        """Of the bytes of an all-to-all; its messages' latency is counted apart."""
        return sent_bytes / self.exchange_bytes_per_s

    def reduce_scatter_s(self, array_bytes: float, ranks: int) -> float:
        return self._over_ranks(array_bytes, self.reduce_bytes_per_s, ranks)

    def all_gather_s(self, array_bytes: float, ranks: int) -> float:
        return self._over_ranks(array_bytes, self.gather_bytes_per_s, ranks)

    def sum_s(self, ranks: int) -> float:
        """A few numbers to all ranks: up a tree and down again."""
        return 2 * levels(ranks) * self.latency_s

    def _over_ranks(self, array_bytes: float, bytes_per_s: float, ranks: int) -> float:
        messages, parts = over_ranks(ranks, self.collectives)
        return messages * self.latency_s + parts * array_bytes / bytes_per_s


def levels(ranks: int) -> int:
    """Of a binomial tree."""
    return (ranks - 1).bit_length()


def over_ranks(ranks: int, collectives: str) -> tuple[int, float]:
    """Messages one after the other, and the share of the array that passes, times its passes."""
    if ranks == 1:
        return 0, 0
    if collectives == "ring":
        return ranks - 1, (ranks - 1) / ranks
    return ranks * levels(ranks), levels(ranks)


def fitted(measured: Iterable[Mapping[str, Any]], collectives: str = "turns") -> Network:
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
        messages, parts = over_ranks(int(largest["ranks"]), collectives)
        byte_s = largest["median_s"] - messages * latency_s
        bandwidth[name] = parts * largest["bytes"] / byte_s
    return Network(
        latency_s, exchange, bandwidth["reduce_scatter"], bandwidth["all_gather"], collectives
    )


def _fit_pair(rows: list[tuple[float, float]], times: list[float]) -> tuple[float, float]:
    """Seconds a message and bytes a second."""
    message_s, byte_s = least_squares(rows, times)
    return float(message_s), 1 / float(byte_s) if byte_s > 0 else float("inf")
