"""What routing.h5 holds, by layer and without absent experts, whatever the order of its axes."""

from __future__ import annotations

import numpy as np

from routing_statistics import Drift, mean_of_histogram, occurrences
from routing_statistics.agreement import NONE
from statistics_file import StatisticsFile

ABSENT = "absent"
WITH_WEIGHTS = "ffn"


class RoutingTables:
    """Layers are positions here; `layers` has their block numbers.

    Arrays by expert hold the layer's own experts alone; `experts` has their numbers.
    """

    def __init__(self, file: StatisticsFile) -> None:
        self.file = file
        self.layers: np.ndarray = file.layers()
        self.checkpoints: np.ndarray = file.array("checkpoint", ["checkpoint"])
        tokens = file.array("tokens", ["interval"])
        # An interval of steps that changed no weight has none.
        self._busy: np.ndarray = tokens > 0
        self.tokens: np.ndarray = tokens[self._busy]
        self.intervals: np.ndarray = file.array("interval", ["interval"])[self._busy]
        self._kinds = self._read_kinds()
        self._fixed: dict[int, bool] = {}

    def _read_kinds(self) -> np.ndarray:
        """(layer, expert) texts; files without them have feed-forward networks alone."""
        experts = self.file.array("expert", ["expert"]).size
        if "expert_kind" not in self.file:
            return np.full((len(self.layers), experts), WITH_WEIGHTS, dtype=object)
        stored = self.file.array("expert_kind", ["layer", "expert"])
        texts = [kind.decode() if isinstance(kind, bytes) else str(kind) for kind in stored.flat]
        return np.array(texts, dtype=object).reshape(stored.shape)

    def block(self, layer: int) -> int:
        return int(self.layers[layer])

    def experts(self, layer: int) -> np.ndarray:
        """Numbers of the experts that the layer has."""
        return np.flatnonzero(self._kinds[layer] != ABSENT)

    def kinds(self, layer: int) -> np.ndarray:
        """Of those experts, texts."""
        return self._kinds[layer, self.experts(layer)]

    def with_weights(self, layer: int) -> np.ndarray:
        """Which of those experts are feed-forward networks."""
        return self.kinds(layer) == WITH_WEIGHTS

    # By interval that has tokens

    def last_interval(self) -> int:
        """Last step of the last complete interval, with tokens or without; 0 before the first."""
        ends = self.file.array("interval", ["interval"])
        return int(ends[-1]) if len(ends) else 0

    def by_expert(self, name: str, layer: int) -> np.ndarray:
        """(intervals, experts)"""
        table = self.file.array(name, ["interval", "expert"], layer=layer)
        return table[self._busy][:, self.experts(layer)]

    def by_layer(self, name: str) -> np.ndarray:
        """(intervals, layers)"""
        return self.file.array(name, ["interval", "layer"])[self._busy]

    def counts(self, layer: int) -> np.ndarray:
        """Token copies (intervals, experts)."""
        return self.by_expert("expert_count", layer)

    # By checkpoint

    def counted_rows(self) -> list[int]:
        """Checkpoints whose rows count any token: not those right after another."""
        if not len(self.checkpoints) or "coactivation" not in self.file:
            return []
        return [row for row in range(len(self.checkpoints)) if self.coactivation(row, 0).any()]

    def last_counted(self) -> int:
        """The last of them; throws where there is none."""
        rows = self.counted_rows()
        if not rows:
            raise self.file.failure("no tokens in any checkpoint's row")
        return rows[-1]

    def coactivation(self, row: int, layer: int) -> np.ndarray:
        """(experts, experts)"""
        axes = ["expert", "expert_with"]
        table = self.file.array("coactivation", axes, checkpoint=row, layer=layer)
        there = self.experts(layer)
        return table[np.ix_(there, there)]

    def by_source(self, row: int, layer: int) -> np.ndarray:
        """Token copies (sources, experts)."""
        axes = ["source", "expert"]
        table = self.file.array("source_expert_count", axes, checkpoint=row, layer=layer)
        return table[:, self.experts(layer)]

    @property
    def has_halves(self) -> bool:
        return "half" in self.file.axes("token_expert_count")

    def by_token(self, row: int, layer: int, half: int | None = None) -> np.ndarray:
        """Token copies (token ids, experts), of even (0) or odd (1) sequences or of all."""
        at = {"checkpoint": row, "layer": layer}
        axes = ["token", "expert"]
        if not self.has_halves:
            assert half is None
            table = self.file.array("token_expert_count", axes, **at)
        elif half is None:
            table = self.file.array("token_expert_count", ["half", *axes], **at).sum(0)
        else:
            table = self.file.array("token_expert_count", axes, **at, half=half)
        return table[:, self.experts(layer)]

    def summed_by_token(self, rows: list[int], layer: int, half: int | None = None) -> np.ndarray:
        """The same, added over checkpoints, which are read one by one."""
        total = self.by_token(rows[0], layer, half)
        for row in rows[1:]:
            total += self.by_token(row, layer, half)
        return total

    def occurrences(self, row: int, half: int | None = None) -> np.ndarray | None:
        """Tokens of each id (token ids), the same in all layers; None where the file lacks them."""
        if "token_count" not in self.file:
            return None
        if "half" not in self.file.axes("token_count"):
            assert half is None
            return self.file.array("token_count", ["token"], checkpoint=row)
        if half is None:
            return self.file.array("token_count", ["half", "token"], checkpoint=row).sum(0)
        return self.file.array("token_count", ["token"], checkpoint=row, half=half)

    def knows_occurrences(self, layer: int) -> bool:
        """Whether tokens of each id are known: counted, or copies ÷ k of a k that does not vary."""
        return "token_count" in self.file or self.fixed_k(layer)

    def summed_occurrences(
        self, rows: list[int], layer: int, copies: np.ndarray, half: int | None = None
    ) -> np.ndarray:
        """The same, added over checkpoints; `copies`: what summed_by_token gives for them."""
        assert self.knows_occurrences(layer)
        if "token_count" not in self.file:
            return occurrences(copies, self.slots(layer))
        return np.sum([self.occurrences(row, half) for row in rows], 0)

    def counted_by_token(
        self, rows: list[int], layer: int, half: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Copies (token ids, experts) and occurrences (token ids), added over checkpoints."""
        copies = self.summed_by_token(rows, layer, half)
        return copies, self.summed_occurrences(rows, layer, copies, half)

    def tokens_of_row(self, row: int) -> int | None:
        """Tokens that a checkpoint's row counts; None where the file cannot tell."""
        counted = self.occurrences(row)
        if counted is not None:
            return int(counted.sum())
        ends = self.file.array("interval", ["interval"])
        first = self.checkpoints[row - 1] if row > 0 else 0
        last = self.checkpoints[row]
        if not np.isin([first, last], [0, *ends]).all():
            return None
        tokens = self.file.array("tokens", ["interval"])
        return int(tokens[(ends > first) & (ends <= last)].sum())

    def each_in_row(self, row: int, layer: int) -> float:
        """Mean experts of the tokens that a checkpoint's row counts; NaN where not known."""
        if self.fixed_k(layer):
            return self.slots(layer)
        tokens = self.tokens_of_row(row)
        return int(self.coactivation(row, layer).trace()) / tokens if tokens else np.nan

    def probe_choice(self, layer: int) -> np.ndarray:
        """Expert numbers (checkpoints, probes, slots); −1: none in the slot."""
        choice = self.file.array("probe_choice", ["checkpoint", "probe", "k"], layer=layer)
        return choice[..., : self.slots(layer)]

    @property
    def has_drift(self) -> bool:
        return "expert_drift" in self.file

    def drift(self, kind: str, layer: int) -> Drift:
        """How far the layer's feed-forward experts ("expert"), or their rows of its router
        ("router"), moved."""
        there = self.experts(layer)[self.with_weights(layer)]
        norm, moved, start_norm, start_moved = (
            self.file.array(f"{kind}_{name}", ["checkpoint", "expert"], layer=layer)[:, there]
            for name in ("norm", "drift", "start_norm", "start_drift")
        )
        return Drift(norm, moved, start_norm, start_moved)

    # Experts of a token

    def each(self, layer: int) -> float:
        """Experts of a token: k, or the mean where the number varies."""
        return self.slots(layer) if self.fixed_k(layer) else self.experts_per_token(layer)

    def slots(self, layer: int) -> int:
        """The most experts that a token can have, k where each has as many."""
        if "slots" in self.file:
            return int(self.file.array("slots", ["layer"])[layer])
        if "probe_choice" in self.file:
            shape = dict(
                zip(self.file.axes("probe_choice"), self.file.dataset("probe_choice", 4).shape)
            )
            return shape["k"]
        rows = self.counted_rows()
        if rows:  # a token adds k to the diagonal and k² to the table
            table = self.coactivation(rows[-1], layer)
            return round(table.sum() / table.trace())
        return round(self.experts_per_token(layer)) if self.tokens.any() else 0

    def histogram(self, layer: int) -> np.ndarray | None:
        """Tokens by number of experts (intervals, numbers from 0), where the run has them."""
        if "experts_per_token" not in self.file:
            return None
        table = self.file.array("experts_per_token", ["interval", "number"], layer=layer)
        return table[self._busy]

    def experts_per_token(self, layer: int) -> float:
        """Mean over all tokens of the file; NaN without any."""
        histogram = self.histogram(layer)
        if histogram is not None:
            return float(mean_of_histogram(histogram.sum(0)))
        tokens = int(self.tokens.sum())
        return float(self.counts(layer).sum() / tokens) if tokens else np.nan

    def fixed_k(self, layer: int) -> bool:
        """Whether every token has the same number of experts, as far as the file can tell."""
        if layer not in self._fixed:
            self._fixed[layer] = self._find_fixed_k(layer)
        return self._fixed[layer]

    def _find_fixed_k(self, layer: int) -> bool:
        histogram = self.histogram(layer)
        if histogram is not None:
            tokens = histogram.sum(0)
            return int(tokens.sum()) == tokens[self.slots(layer)]
        copies = self.counts(layer).sum(1)
        if (copies != self.slots(layer) * self.tokens).any():
            return False
        return "probe_choice" not in self.file or not (self.probe_choice(layer) == NONE).any()
