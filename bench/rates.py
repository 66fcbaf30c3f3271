"""Rates of one rank, for scaling_model: from whole steps, or from kernels timed alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from deck_model import FLOPS_PER_WEIGHT, Model
from hearth_runs import Layout, Run
from power_law import least_squares
from scaling_model import Rates, Work, work_of

# Each phase of a step, and the pieces of work that it is made of.
PIECES_OF_PHASE = {
    "attention": ("attention", "attention scores"),
    "feed-forward": ("feed-forward",),
    "router": ("router",),
    "dispatch, combine": ("dispatch, combine",),
    "shared expert": ("shared expert",),
    "experts": ("experts",),
    "head": ("head",),
}
# Without messages these are bookkeeping.
OTHER_PHASES = ("wait for counts", "exchange", "rest")


def model_of(run: Mapping[str, int], deck: Model) -> Model:
    """The deck with a run's settings."""
    return replace(deck, **{key.split(".")[1]: value for key, value in run.items()})


def from_runs(runs: Iterable[Run], deck: Model) -> Rates:
    """Least squares over the runs of one rank alone, phase by phase."""
    alone = [run for run in runs if run.layout.ranks == 1 and run.layout.copies == 1]
    models = [model_of(run.settings, deck) for run in alone]
    cells = [-(-m.global_batch // m.cell_sequences) for m in models]
    tokens = [m.global_batch * m.sequence_length for m in models]
    works = [work_of(model) for model in models]
    per_element: dict[str, float] = {}
    per_work: dict[str, float] = {}

    def fit(phases: tuple[str, ...], columns: list[list[float]]) -> list[float]:
        times = [sum(run.phase_s[phase] for phase in phases) for run in alone]
        used = [i for i, seconds in enumerate(times) if seconds > 0]
        if not used:
            return [0.0] * len(columns)
        rows = [[column[i] for column in columns] for i in used]
        return least_squares(rows, [times[i] for i in used]).tolist()

    for phase, pieces in PIECES_OF_PHASE.items():
        columns: list[list[float]] = []
        owners: list[tuple[dict[str, float], str]] = []
        for piece in pieces:
            each: list[Work] = [work[piece] for work in works]
            if any(work.elements for work in each):
                columns.append([n * work.elements for n, work in zip(cells, each, strict=True)])
                owners.append((per_element, piece))
            columns.append([n * work.per_token for n, work in zip(tokens, each, strict=True)])
            owners.append((per_work, piece))
        for (rates, piece), value in zip(owners, fit((phase,), columns), strict=True):
            rates[piece] = value

    elements: list[float] = [model.elements for model in models]
    rest = [n * work["rest"].per_token for n, work in zip(tokens, works, strict=True)]
    (update_s,) = fit(("update",), [elements])
    step_s, per_work["rest"] = fit(OTHER_PHASES, [elements, rest])
    return Rates(per_element, per_work, update_s, step_s)


def slowdowns(runs: Iterable[Run]) -> dict[str, float]:
    """By phase: how much longer independent runs take side by side than one of them alone."""
    known = list(runs)
    together = next(run for run in known if run.layout.copies > 1)
    alone = next(
        run for run in known if run.settings == together.settings and run.layout == Layout(ranks=1)
    )
    return {
        phase: together.phase_s[phase] / alone.phase_s[phase] if alone.phase_s[phase] > 0 else 1
        for phase in alone.phase_s
    }


def slowed(rates: Rates, by_phase: Mapping[str, float]) -> Rates:
    """Rates of a rank whose phases take so many times as long."""
    times = {
        piece: by_phase[phase]
        for phase, pieces in {**PIECES_OF_PHASE, "rest": ("rest",)}.items()
        for piece in pieces
    }
    return Rates(
        {piece: s * times[piece] for piece, s in rates.per_element.items()},
        {piece: s * times[piece] for piece, s in rates.per_work.items()},
        rates.update_s * by_phase["update"],
        rates.step_s * by_phase["rest"],
    )


def from_kernels(lines: Iterable[str], deck: Model) -> Rates:
    """From `hearth-bench kernels DECK`, run with the cell and the type of `deck`.

    What is not timed there takes the rate of its kind: projections, the dense layer and the shared
    expert that of the head's products.
    """
    found = {line["name"]: line for line in map(json.loads, lines)}
    seconds = {name: line["median_s"] for name, line in found.items()}
    tokens = deck.cell_sequences * deck.sequence_length

    def s_per_flop(*names: str) -> float:
        flops = sum(found[name]["gflop_per_s"] * 1e9 * seconds[name] for name in names)
        return sum(seconds[name] for name in names) / flops

    logits = "head: logits of a block"
    product = s_per_flop(
        logits, "head: input gradient of a block", "head: weight gradient of a block"
    )
    # Rows times weights of a block: two FLOPs each in the logits.
    row_weights = found[logits]["gflop_per_s"] * 1e9 * seconds[logits] / 2
    loss = seconds["cross-entropy of a block"] / (FLOPS_PER_WEIGHT * row_weights)
    # A layer's scores count as 6 A S for each token, as in work_of.
    scores = FLOPS_PER_WEIGHT * deck.attention_width * deck.sequence_length * tokens
    attention = (seconds["attention"] + seconds["attention backward"]) / scores
    sum_s = seconds["gradient sum of one stack"] / (deck.experts * deck.hidden * deck.expert_ffn)
    layer = deck.experts * deck.hidden
    routing = ("router: softmax and top-k", "router: counts and sums", "router backward")
    router = product + sum(seconds[name] for name in routing) / (FLOPS_PER_WEIGHT * layer * tokens)
    moves = ("dispatch", "combine", "combine backward", "dispatch backward")
    moved = deck.top_k * deck.hidden * tokens
    norms = 2 * (seconds["norm"] + seconds["norm backward"]) / (deck.hidden * tokens)
    updated = -(-deck.head_elements // 4096) * 4096
    products_of_experts = ("one product", "one input gradient", "one weight gradient")
    experts = s_per_flop(*(f"experts: {name}" for name in products_of_experts))
    names = ("attention", "feed-forward", "router", "shared expert", "experts", "head")
    return Rates(
        {name: sum_s for name in names},
        {
            "attention": product,
            "attention scores": attention,
            "feed-forward": product,
            "router": router,
            "dispatch, combine": sum(seconds[name] for name in moves) / moved,
            "shared expert": product,
            "experts": experts,
            "head": product + loss,
            "rest": norms,
        },
        (seconds["squared norm of one embedding"] + seconds["Adam of one embedding"]) / updated,
        0.0,
    )
