"""Routing of a run that never was: each token's experts, and the files that a run makes of them.

Tests compute statistics from the raw choices by plain loops, and the programs from the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

NONE = -1
KINDS = ("ffn", "zero", "copy", "constant", "null")


@dataclass(frozen=True)
class Plan:
    """What the run was like. A layer with fewer experts than another has absent ones."""

    experts: tuple[int, ...] = (6, 6)  # by layer
    slots: tuple[int, ...] = (3, 3)
    sources: tuple[str, ...] = ("bible", "python")
    vocabulary: int = 10
    sequences: int = 4  # of a step
    length: int = 16
    steps: int = 12
    interval_steps: int = 3
    checkpoint_steps: int = 4
    probes: int = 24
    seed: int = 7
    bias: float = 1.0  # how uneven the experts' popularity is
    # The file's format and what it has
    variable: bool = False  # tokens have 1 to `slots` experts
    drops: bool = False  # a copy in ten reaches no expert
    all_dropped: bool = False
    halves: bool = False
    drift: bool = False
    from_seed: bool = True  # the first weights are known
    ranked: bool = False  # probe choices best first
    extras: bool = False  # gate_mass, experts_per_token, logit_norm, slots
    kinds: bool = False  # expert_kind, with an expert of each kind last
    token_counts: bool = True
    occurrences: bool = True  # token_count, which files of earlier versions lack
    shuffled_axes: bool = False  # axes of the file in another order
    deck: dict[str, object] = field(default_factory=dict)

    @property
    def layers(self) -> int:
        return len(self.experts)

    @property
    def tokens_of_step(self) -> int:
        return self.sequences * self.length


@dataclass(frozen=True)
class Trace:
    """Of some tokens: what they are, and the experts of each in every layer."""

    token: np.ndarray  # (tokens) ids
    source: np.ndarray  # (tokens)
    sequence: np.ndarray  # (tokens), within the step
    choice: list[np.ndarray]  # by layer (tokens, slots), best first; NONE: no expert or dropped
    dropped: np.ndarray  # (layers), copies
    softmax: list[np.ndarray]  # by layer (tokens, experts)
    logits: list[np.ndarray]


class Run:
    """Choices of every step and of the probe at every checkpoint."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        rng = np.random.default_rng(plan.seed)
        shape = [(plan.vocabulary, experts) for experts in plan.experts]
        self._start = [rng.normal(size=s) for s in shape]
        self._by_token = [rng.normal(size=s) * 1.5 for s in shape]
        self._by_source = [rng.normal(size=(len(plan.sources), e)) for e in plan.experts]
        self._bias = [rng.normal(size=e) * plan.bias for e in plan.experts]
        self.steps = [self._trace(rng, step, plan.tokens_of_step) for step in range(plan.steps)]
        wanted = range(plan.checkpoint_steps, plan.steps + 1, plan.checkpoint_steps)
        self.checkpoints = [*wanted]
        if self.checkpoints[-1:] != [plan.steps]:
            self.checkpoints.append(plan.steps)
        self.intervals = [*range(plan.interval_steps, plan.steps + 1, plan.interval_steps)]
        probe = rng.integers(plan.vocabulary, size=plan.probes)
        sources = rng.integers(len(plan.sources), size=plan.probes)
        self.probe_token = probe
        self.probe = [
            self._route(rng, step, probe, sources, noise=0, drops=False)
            for step in self.checkpoints
        ]
        if plan.all_dropped:
            for trace in self.probe:
                for choice in trace.choice:
                    choice[...] = NONE
        self.weights = self._walk(np.random.default_rng(plan.seed + 2))

    def _walk(self, rng: np.random.Generator) -> list[dict[str, list[np.ndarray]]]:
        """At the start and at each checkpoint, by kind and layer: (experts, elements)."""
        sizes = {"expert": 5, "router": 3}
        weights = [
            {k: [rng.normal(size=(e, n)) for e in self.plan.experts] for k, n in sizes.items()}
        ]
        for _ in self.checkpoints:
            weights.append(
                {
                    k: [w + 0.1 * rng.normal(size=w.shape) for w in of]
                    for k, of in weights[-1].items()
                }
            )
        return weights

    def _trace(self, rng: np.random.Generator, step: int, tokens: int) -> Trace:
        plan = self.plan
        token = np.minimum(rng.geometric(4 / plan.vocabulary, tokens) - 1, plan.vocabulary - 1)
        sequence = np.repeat(np.arange(plan.sequences), plan.length)
        source = rng.integers(len(plan.sources), size=plan.sequences)[sequence]
        return self._route(rng, step, token, source, sequence=sequence)

    def _route(self, rng, step, token, source, sequence=None, noise=0.5, drops=True) -> Trace:
        plan, now = self.plan, ((step + 1) / max(self.plan.steps, 1)) ** 0.5
        choices, dropped, masses, all_logits = [], [], [], []
        for layer, slots in enumerate(plan.slots):
            settled = self._by_token[layer][token] + self._by_source[layer][source]
            logits = now * settled + (1 - now) * self._start[layer][token] + self._bias[layer]
            logits = logits + noise * rng.normal(size=logits.shape)
            choice = np.argsort(-logits, 1, kind="stable")[:, :slots]
            if plan.variable:
                number = rng.integers(1, slots + 1, size=len(token))
                choice = np.where(np.arange(slots) < number[:, None], choice, NONE)
            lost = np.zeros(choice.shape, bool)
            if plan.drops and drops:
                lost = (rng.random(choice.shape) < 0.1) & (choice != NONE)
            if plan.all_dropped and drops:
                lost = choice != NONE
            choices.append(np.where(lost, NONE, choice))
            dropped.append(int(lost.sum()))
            e = np.exp(logits)
            masses.append(e / e.sum(1, keepdims=True))
            all_logits.append(logits)
        return Trace(token, source, sequence, choices, np.array(dropped), masses, all_logits)

    def rows(self, ends: list[int]) -> list[list[Trace]]:
        """Steps of each interval or checkpoint: those since the one before."""
        begins = [0, *ends[:-1]]
        return [self.steps[begin:end] for begin, end in zip(begins, ends)]


def label(file: h5py.File, name: str, axes: tuple[str, ...], values, reverse: bool = False) -> None:
    """A dataset with named axes, in this order or backwards."""
    values = np.asarray(values)
    if reverse and values.ndim > 1:
        values, axes = values.transpose(), axes[::-1]
    if values.dtype.kind in "UO":
        values = values.astype(h5py.string_dtype())
    dataset = file.create_dataset(name, data=values)
    for axis, text in zip(dataset.dims, axes):
        axis.label = text


def deck_text(settings: dict[str, object]) -> str:
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        values = value if isinstance(value, list) else [value]
        sections.setdefault(section, []).extend(f"{name} = {one}" for one in values)
    return "\n".join("\n".join([f"[{name}]", *lines, ""]) for name, lines in sections.items())


def settings(plan: Plan) -> dict[str, object]:
    return {
        "run.steps": plan.steps,
        "run.seed": plan.seed,
        "model.layers": plan.layers + 1,
        "model.hidden": 32,
        "model.vocabulary": plan.vocabulary,
        "model.sequence_length": plan.length,
        "moe.experts": max(plan.experts, default=0),
        "moe.top_k": max(plan.slots, default=0),
        "moe.router": "top_k",
        "moe.balance_loss": 0.01,
        "moe.z_loss": 0.001,
        "batch.global_batch": plan.sequences,
        **plan.deck,
    }


def write_training(path: Path, run: Run, validations: int = 2) -> None:
    """training.h5 with losses that fall from 6 nats to a level for each source."""
    plan, count = run.plan, len(run.plan.sources)
    rng = np.random.default_rng(plan.seed + 1)
    step = np.arange(1, plan.steps + 1)
    tokens = np.array([np.bincount(t.source, minlength=count) for t in run.steps])
    tokens = tokens.reshape(plan.steps, count)
    level = 2.5 + 0.5 * np.arange(count)
    loss = level + (6 - level) * np.exp(-4 * step / max(plan.steps, 1))[:, None]
    loss = np.where(tokens > 0, loss + rng.normal(0, 0.02, loss.shape), np.nan)
    mean = np.nansum(loss * tokens, 1) / np.maximum(tokens.sum(1), 1)
    at = np.linspace(0, plan.steps, validations + 1)[1:].astype(int)
    with h5py.File(path, "w", libver="v110") as file:
        file.attrs["deck"], file.attrs["version"] = deck_text(settings(plan)), "0.1.0"
        label(file, "source", ("source",), list(plan.sources))
        by_step = {
            "step": step,
            "tokens": tokens.sum(1),
            "cross_entropy": mean,
            "loss": mean + 0.011,
            "learning_rate": 2e-3 * np.minimum(step / 3, 1),
            "skipped": np.zeros(plan.steps, np.int64),
        }
        for name, values in by_step.items():
            label(file, name, ("step",), values)
        axes = ("step", "source")
        label(file, "source_loss", axes, loss, plan.shuffled_axes)
        label(file, "source_tokens", axes, tokens, plan.shuffled_axes)
        label(file, "validation_step", ("validation_step",), at)
        axes = ("validation_step", "source")
        rows = np.clip(at - 1, 0, None)
        label(file, "validation_loss", axes, loss[rows] + 0.05, plan.shuffled_axes)
        label(file, "validation_tokens", axes, tokens[rows], plan.shuffled_axes)


def write_routing(path: Path, run: Run) -> None:
    """routing.h5 of the choices."""
    plan, most = run.plan, max(run.plan.experts, default=0)

    def put(name: str, axes: tuple[str, ...], values) -> None:
        label(file, name, axes, values, plan.shuffled_axes)

    with h5py.File(path, "w", libver="v110") as file:
        file.attrs["deck"], file.attrs["version"] = deck_text(settings(plan)), "0.1.0"
        put("layer", ("layer",), np.arange(1, plan.layers + 1))
        put("expert", ("expert",), np.arange(most))
        put("source", ("source",), list(plan.sources))
        put("interval", ("interval",), np.array(run.intervals, np.int64))
        put("checkpoint", ("checkpoint",), np.array(run.checkpoints, np.int64))
        intervals, rows = run.rows(run.intervals), run.rows(run.checkpoints)
        put("tokens", ("interval",), [len(row) * plan.tokens_of_step for row in intervals])
        by_layer, by_expert = ("interval", "layer"), ("interval", "layer", "expert")
        shape = (len(intervals), plan.layers)
        count = np.zeros((*shape, most), np.int64)
        mass, gates = np.zeros((*shape, most)), np.zeros((*shape, most))
        entropy, dropped, norm = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape)
        numbers = np.zeros((*shape, max(plan.slots, default=0) + 1), np.int64)
        for at, row in enumerate(intervals):
            for layer, experts in enumerate(plan.experts):
                for trace in row:
                    choice, p = trace.choice[layer], trace.softmax[layer]
                    hits = one_hot(choice, most)
                    count[at, layer] += hits.sum(0)
                    mass[at, layer, :experts] += p.sum(0)
                    gates[at, layer, :experts] += (p * hits[:, :experts]).sum(0)
                    entropy[at, layer] -= (p * np.log(p)).sum()
                    dropped[at, layer] += trace.dropped[layer]
                    norm[at, layer] += np.sqrt((trace.logits[layer] ** 2).sum(1)).sum()
                    np.add.at(numbers[at, layer], (choice != NONE).sum(1), 1)
        put("expert_count", by_expert, count)
        put("probability_mass", by_expert, mass)
        put("entropy", by_layer, entropy)
        put("dropped", by_layer, dropped)
        put("balance_loss", by_layer, np.full(shape, 0.0102) * plan.interval_steps)
        put("z_loss", by_layer, np.full(shape, 0.004) * plan.interval_steps)
        if plan.extras:
            put("gate_mass", by_expert, gates)
            put("logit_norm", by_layer, norm)
            put("experts_per_token", ("interval", "layer", "number"), numbers)
            put("slots", ("layer",), list(plan.slots))
        if plan.kinds:
            put("expert_kind", ("layer", "expert"), expert_kinds(plan))
        _write_checkpoints(put, run, rows, most)


def expert_kinds(plan: Plan) -> np.ndarray:
    """(layer, expert): feed-forward networks, then one of each other kind, then absent ones."""
    most = max(plan.experts)
    kinds = np.full((plan.layers, most), "absent", dtype=object)
    for layer, experts in enumerate(plan.experts):
        others = KINDS[1 : max(1, min(len(KINDS), experts - 1))]
        kinds[layer, : experts - len(others)] = "ffn"
        kinds[layer, experts - len(others) : experts] = others
    return kinds


def _write_checkpoints(put, run: Run, rows: list[list[Trace]], most: int) -> None:
    plan, halves = run.plan, 2
    shape = (len(rows), plan.layers)
    pairs = np.zeros((*shape, most, most), np.int64)
    by_source = np.zeros((*shape, len(plan.sources), most), np.int64)
    by_token = np.zeros((*shape, halves, plan.vocabulary, most), np.int64)
    occurrences = np.zeros((len(rows), halves, plan.vocabulary), np.int64)
    for at, row in enumerate(rows):
        for trace in row:
            np.add.at(occurrences[at], (trace.sequence % 2, trace.token), 1)
        for layer in range(plan.layers):
            for trace in row:
                hits = one_hot(trace.choice[layer], most)
                pairs[at, layer] += hits.T @ hits
                np.add.at(by_source[at, layer], trace.source, hits)
                np.add.at(by_token[at, layer], (trace.sequence % 2, trace.token), hits)
    put("coactivation", ("checkpoint", "layer", "expert", "expert_with"), pairs)
    put("source_expert_count", ("checkpoint", "layer", "source", "expert"), by_source)
    if plan.token_counts:
        axes = ("checkpoint", "layer", "half", "token", "expert")
        if plan.halves:
            put("token_expert_count", axes, by_token)
        else:
            put("token_expert_count", (*axes[:2], *axes[3:]), by_token.sum(2))
    if plan.token_counts and plan.occurrences:
        if plan.halves:
            put("token_count", ("checkpoint", "half", "token"), occurrences)
        else:
            put("token_count", ("checkpoint", "token"), occurrences.sum(1))
    if plan.probes:
        most_slots = max(plan.slots, default=0)
        choice = np.full((*shape, plan.probes, most_slots), NONE, np.int32)
        for at, trace in enumerate(run.probe):
            for layer, slots in enumerate(plan.slots):
                choice[at, layer, :, :slots] = stored(trace.choice[layer], plan.ranked)
        put("probe_token", ("probe",), run.probe_token.astype(np.int32))
        put("probe_choice", ("checkpoint", "layer", "probe", "k"), choice)
    if plan.drift:
        _write_drift(put, run, most)


def _write_drift(put, run: Run, most: int) -> None:
    """Norms (checkpoint, layer, expert), NaN where a layer has fewer."""
    start, *rows = run.weights
    for kind in ("expert", "router"):
        tables = np.full((4, len(rows), run.plan.layers, most), np.nan)
        for at, now in enumerate(rows):
            for layer, experts in enumerate(run.plan.experts):
                w, before, first = (x[kind][layer] for x in (now, run.weights[at], start))
                vectors = (w, w - before, first, w - first)
                tables[:, at, layer, :experts] = [np.linalg.norm(v, axis=1) for v in vectors]
        if not run.plan.from_seed:
            tables[2:] = np.nan
        for name, table in zip(("norm", "drift", "start_norm", "start_drift"), tables):
            put(f"{kind}_{name}", ("checkpoint", "layer", "expert"), table)


def stored(choice: np.ndarray, ranked: bool) -> np.ndarray:
    """Best first, or in ascending order of expert with empty slots last."""
    if ranked:
        return choice
    last = np.iinfo(np.int64).max
    ascending = np.sort(np.where(choice == NONE, last, choice), 1)
    return np.where(ascending == last, NONE, ascending)


def one_hot(choice: np.ndarray, experts: int) -> np.ndarray:
    """(tokens, experts) of 0 and 1."""
    return (choice[:, :, None] == np.arange(experts)).sum(1)


def write_run(folder: Path, plan: Plan | None = None, **changes) -> Run:
    """A folder with both files."""
    run = Run(plan if plan is not None else Plan(**changes))
    folder.mkdir(parents=True, exist_ok=True)
    write_training(folder / "training.h5", run)
    write_routing(folder / "routing.h5", run)
    return run
