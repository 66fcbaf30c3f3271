"""The model of scaling of docs/performance.md: arithmetic only, nothing is measured here.

A step's time on R = expert_ranks x data_ranks ranks is the slowest rank's cells, one after the
other, and what ranks say to each other. Work is taken from deck_model, rates from measurements
(rates.py), messages from a network of one latency and one bandwidth (network.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from deck_model import FLOPS_PER_WEIGHT, Model
from network import BYTES_PER_GRADIENT, Network

PADDED_ROWS = 32  # of a segment: kernels/permutation.hpp
EXCHANGES = 4  # of a MoE layer: dispatch, combine, and their adjoints
SUMS = 6  # all-reduces of a few numbers in a step
PIECES = (
    "attention",
    "attention scores",
    "feed-forward",
    "router",
    "dispatch, combine",
    "shared expert",
    "experts",
    "head",
    "rest",
)


@dataclass(frozen=True)
class Work:
    """What a piece costs: gradients are summed for `elements` weights once a cell."""

    elements: int
    per_token: float  # FLOPs of products; elements moved where there are none


def work_of(model: Model) -> dict[str, Work]:
    """By piece, of one cell."""
    products = {
        "attention": model.attention_elements,
        "feed-forward": model.dense_elements,
        "router": model.router_elements,
        "shared expert": model.shared_elements,
        "head": model.head_elements,
    }
    work = {name: Work(n, FLOPS_PER_WEIGHT * n) for name, n in products.items()}
    scores = model.layers * model.attention_width * model.sequence_length
    work["attention scores"] = Work(0, FLOPS_PER_WEIGHT * scores)
    work["experts"] = Work(model.expert_elements, FLOPS_PER_WEIGHT * model.active_expert_elements)
    work["dispatch, combine"] = Work(0, model.moe_layers * model.top_k * model.hidden)
    work["rest"] = Work(0, model.layers * model.hidden)
    return work


@dataclass(frozen=True)
class Rates:
    """What a rank of one kind takes for a unit of each piece's work, in seconds."""

    per_element: Mapping[str, float]  # of a weight, for each cell
    per_work: Mapping[str, float]  # of Work.per_token, for each token
    update_s: float  # of an element that a rank updates
    step_s: float  # of an element that a rank holds, once a step: sums are cleared

    def faster(self, times: float) -> Rates:
        """Those of a rank so many times as fast."""
        return Rates(
            {name: s / times for name, s in self.per_element.items()},
            {name: s / times for name, s in self.per_work.items()},
            self.update_s / times,
            self.step_s / times,
        )


@dataclass(frozen=True)
class Layout:
    """How a step is cut."""

    ranks: int
    expert_ranks: int
    sequences: int  # of the step
    cell_sequences: int

    def __post_init__(self) -> None:
        if self.ranks % self.expert_ranks:
            raise ValueError("expert_ranks divides the number of ranks")

    @property
    def data_ranks(self) -> int:
        return self.ranks // self.expert_ranks

    @property
    def cells(self) -> int:
        return -(-self.sequences // self.cell_sequences)

    @property
    def rounds(self) -> int:
        """Cells of the slowest rank."""
        return -(-self.cells // self.ranks)


def layout_for(model: Model, ranks: int, expert_ranks: int) -> Layout:
    """The deck's batch. Where it has fewer cells than ranks, cells shrink, down to a sequence;
    beyond that the batch grows to a sequence a rank."""
    sequences = max(model.global_batch, ranks)
    return Layout(ranks, expert_ranks, sequences, min(model.cell_sequences, sequences // ranks))


@dataclass(frozen=True)
class StepTime:
    """A step's time by what it is spent on, in seconds."""

    compute: float  # of tokens, with evenly loaded experts
    accumulate: float  # what a cell costs however short: its gradients are made and summed
    imbalance: float  # what the rank with the most token copies takes longer
    exchange: float  # bytes of dispatch and combine, forward and backward, less what is hidden
    latency: float  # messages of dispatch and combine and of the counts before them
    gradients: float  # reduce-scatter of integer sums
    weights: float  # all-gather of updated weights
    optimizer: float  # sums cleared; norm and AdamW on a shard
    sums: float  # a few numbers over all ranks

    @property
    def terms(self) -> dict[str, float]:
        return vars(self)

    @property
    def total_s(self) -> float:
        return sum(self.terms.values())

    @property
    def dominant(self) -> str:
        return max(self.terms, key=lambda name: self.terms[name])

    @property
    def dominant_overhead(self) -> str:
        """The largest of all that is not compute."""
        return max((n for n in self.terms if n != "compute"), key=lambda name: self.terms[name])


def token_seconds(model: Model, rates: Rates) -> dict[str, float]:
    """Forward and backward of one token, by piece, on one rank."""
    work = work_of(model)
    return {name: rates.per_work.get(name, 0) * work[name].per_token for name in work}


def accumulate_seconds(model: Model, rates: Rates) -> dict[str, float]:
    """What one cell costs beside its tokens, by piece."""
    work = work_of(model)
    return {name: rates.per_element.get(name, 0) * work[name].elements for name in work}


def exchanged_rows(model: Model, tokens: int) -> float:
    """Rows that a cell sends through one exchange, its own rank's included.

    Each of its segments is padded to a multiple of 32 rows, half of that on average.
    """
    return model.top_k * tokens + model.experts * (PADDED_ROWS - 1) / 2


def exchange_bytes(model: Model, tokens: int, expert_ranks: int) -> float:
    """That a rank sends to others in one exchange of one layer."""
    row_bytes = model.hidden * model.activation_bytes
    return exchanged_rows(model, tokens) * row_bytes * (expert_ranks - 1) / expert_ranks


def gradient_bytes(model: Model, layout: Layout) -> tuple[float, float]:
    """Of the arenas that are summed over all ranks, and over the data ranks."""
    local = model.expert_elements / layout.expert_ranks
    return BYTES_PER_GRADIENT * model.everyone_elements, BYTES_PER_GRADIENT * local


def weight_bytes(model: Model, layout: Layout) -> tuple[float, float]:
    """The same of the weights that are gathered."""
    everyone, experts = gradient_bytes(model, layout)
    scale = model.activation_bytes / BYTES_PER_GRADIENT
    return scale * everyone, scale * experts


def state_bytes(model: Model, layout: Layout) -> float:
    """Weights and gradient sums of a rank, and its shard of moments and master weights."""
    local = model.everyone_elements + model.expert_elements / layout.expert_ranks
    masters = 4 if model.activation_bytes < 4 else 0
    shard = model.elements / layout.ranks
    return (model.activation_bytes + BYTES_PER_GRADIENT) * local + (8 + masters) * shard


def expected_maximum(count: int) -> float:
    """Of so many standard normal numbers (Blom's approximation); 0 of one."""
    return 0 if count == 1 else NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def imbalance_of_busiest(experts: int, busiest: float, expert_ranks: int) -> float:
    """The busiest rank's token copies over the mean rank's, for ranks of whole experts.

    `busiest`: the same ratio for single experts. Loads of experts are taken as independent normal
    numbers, so that n of them on a rank even out by sqrt(n).
    """
    if experts == 0 or expert_ranks == 1:
        return 1
    if expert_ranks >= experts:
        return busiest * expert_ranks / experts
    deviation = (busiest - 1) / expected_maximum(experts)
    each = -(-experts // expert_ranks)
    rounding = each * expert_ranks / experts
    return rounding * (1 + deviation * expected_maximum(expert_ranks) / math.sqrt(each))


def imbalance_of_shares(shares: Sequence[Sequence[float]], expert_ranks: int) -> float:
    """The same from measured shares (layer, expert), experts in contiguous ranges, mean of layers.

    Ranges as `share` of src/parallel/decomposition.hpp makes them: the larger ones first.
    """
    if not shares:
        return 1
    experts = len(shares[0])
    small, larger = divmod(experts, expert_ranks)
    sizes = [small + (rank < larger) for rank in range(expert_ranks)]
    busiest = []
    for layer in shares:
        begins = [sum(sizes[:rank]) for rank in range(expert_ranks)]
        loads = [sum(layer[b : b + n]) for b, n in zip(begins, sizes, strict=True)]
        busiest.append(max(loads) * expert_ranks / sum(layer))
    return sum(busiest) / len(busiest)


def step_time(
    model: Model, layout: Layout, rates: Rates, network: Network, imbalance: float
) -> StepTime:
    """`imbalance`: of token copies over the expert ranks, busiest over mean."""
    tokens = layout.cell_sequences * model.sequence_length
    token_s, cell_s = token_seconds(model, rates), accumulate_seconds(model, rates)
    local = model.everyone_elements + model.expert_elements / layout.expert_ranks
    exchanges = layout.rounds * model.moe_layers * EXCHANGES
    counts = layout.rounds * model.moe_layers
    sent = exchange_bytes(model, tokens, layout.expert_ranks)
    everyone, experts = gradient_bytes(model, layout)
    everyone_weights, expert_weights = weight_bytes(model, layout)
    peers = layout.expert_ranks - 1
    shared_s = layout.rounds * (tokens * token_s["shared expert"] + cell_s["shared expert"])
    return StepTime(
        compute=layout.rounds * tokens * sum(token_s.values()),
        accumulate=layout.rounds * sum(cell_s.values()),
        imbalance=layout.rounds * tokens * token_s["experts"] * (imbalance - 1),
        exchange=network.visible_s(exchanges * network.exchange_s(sent * imbalance), shared_s),
        latency=(exchanges + counts) * peers * network.latency_s,
        gradients=network.reduce_scatter_s(everyone, layout.ranks)
        + network.reduce_scatter_s(experts, layout.data_ranks),
        weights=network.all_gather_s(everyone_weights, layout.ranks)
        + network.all_gather_s(expert_weights, layout.data_ranks),
        optimizer=rates.step_s * local + rates.update_s * model.elements / layout.ranks,
        sums=SUMS * network.sum_s(layout.ranks),
    )


def efficiency(layout: Layout, time_s: float, alone: Layout, alone_s: float) -> float:
    """Sequences a second of a rank, over those of one rank that works alone."""
    return (layout.sequences / time_s / layout.ranks) / (alone.sequences / alone_s)
