"""What routing.h5 should hold, in plain loops over traces.h5 with every token of every step.

Slow and simple on purpose: nothing here is shared with the program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np


@dataclass
class Traces:
    """The arrays of a traces.h5."""

    trace: np.ndarray  # (traces): steps done
    experts: np.ndarray  # (layers)
    slots: np.ndarray  # (layers)
    sources: int
    token: np.ndarray  # (traces, samples)
    sequence: np.ndarray  # (traces, samples)
    position: np.ndarray  # (traces, samples)
    token_source: np.ndarray  # (traces, samples)
    choice: np.ndarray  # (traces, layers, samples, k)
    gate: np.ndarray  # (traces, layers, samples, k)


def read_traces(path: Path) -> Traces:
    names = [name for name in Traces.__dataclass_fields__ if name != "sources"]
    with h5py.File(path) as file:
        arrays = {name: file[name][:] for name in names}
        return Traces(**arrays, sources=len(file["source"]))


@dataclass
class Shape:
    """Of the rows to be counted."""

    layers: int
    experts: int  # of the layer with the most
    slots: int  # of the layer with the most
    sources: int
    vocabulary: int


def shape_of(traces: Traces, vocabulary: int) -> Shape:
    return Shape(
        layers=len(traces.experts),
        experts=int(max(traces.experts)),
        slots=int(max(traces.slots)),
        sources=traces.sources,
        vocabulary=vocabulary,
    )


def chosen(traces: Traces, row: int, layer: int, sample: int) -> list[tuple[int, float]]:
    """A token's experts and their gates."""
    pairs = zip(traces.choice[row, layer, sample], traces.gate[row, layer, sample], strict=True)
    return [(int(expert), float(gate)) for expert, gate in pairs if expert >= 0]


def rows_between(traces: Traces, before: int, last: int) -> list[int]:
    """Traces of the steps after `before`, up to `last`."""
    return [row for row, step in enumerate(traces.trace) if before < step <= last]


def count_interval(traces: Traces, shape: Shape, before: int, last: int) -> dict[str, np.ndarray]:
    """A row by interval."""
    tokens = 0
    expert_count = np.zeros((shape.layers, shape.experts), np.int64)
    experts_per_token = np.zeros((shape.layers, shape.slots + 1), np.int64)
    gates: list[list[list[float]]] = [
        [[] for _ in range(shape.experts)] for _ in range(shape.layers)
    ]
    for row in rows_between(traces, before, last):
        tokens += len(traces.token[row])
        for layer in range(shape.layers):
            for sample in range(len(traces.token[row])):
                pairs = chosen(traces, row, layer, sample)
                experts_per_token[layer, len(pairs)] += 1
                for expert, gate in pairs:
                    expert_count[layer, expert] += 1
                    gates[layer][expert].append(gate)
    gate_mass = np.array([[math.fsum(terms) for terms in layer] for layer in gates])
    return {
        "tokens": np.int64(tokens),
        "expert_count": expert_count,
        "experts_per_token": experts_per_token,
        "gate_mass": gate_mass,
    }


def count_checkpoint(traces: Traces, shape: Shape, before: int, last: int) -> dict[str, np.ndarray]:
    """A row by checkpoint."""
    pairs = np.zeros((shape.layers, shape.experts, shape.experts), np.int64)
    by_source = np.zeros((shape.layers, shape.sources, shape.experts), np.int64)
    by_token = np.zeros((shape.layers, shape.vocabulary, shape.experts), np.int64)
    occurrences = np.zeros(shape.vocabulary, np.int64)
    for row in rows_between(traces, before, last):
        np.add.at(occurrences, traces.token[row], 1)
        for layer in range(shape.layers):
            for sample in range(len(traces.token[row])):
                experts = [expert for expert, _ in chosen(traces, row, layer, sample)]
                for expert in experts:
                    by_source[layer, traces.token_source[row, sample], expert] += 1
                    by_token[layer, traces.token[row, sample], expert] += 1
                    for other in experts:
                        pairs[layer, expert, other] += 1
    return {
        "coactivation": pairs,
        "source_expert_count": by_source,
        "token_expert_count": by_token,
        "token_count": occurrences,
    }
