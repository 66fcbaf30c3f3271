"""The router itself: how decided it is, where its mass goes, its losses."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

import routing_statistics as statistics
from plot_expert_load import interval_edges
from report_sections import curves
from report_sections.page import Picture, Section
from report_sections.run import Run
from report_sections.wording import listed, moved, number, spread, times
from routing_tables import RoutingTables

UNLEARNED = ("hash", "random")  # without logits; the file has equal shares of the chosen experts


@dataclass(frozen=True)
class Scores:
    """What probability_mass sums over tokens, and what the entropy is of."""

    summed: str
    p: str  # sums to 1

    @classmethod
    def of(cls, run: Run) -> Scores:
        """As src/ has it: by the router and its setting `score`."""
        router = run.setting("moe.router")
        if not router:
            several = "softmax; sigmoids or rectified logits over their sum"
            return cls("the router's scores", f"the router's normalised scores p ({several}),")
        if router == "relu":
            return cls(
                "the rectified logits",
                "a token's rectified logits over their sum, p, (0 for a token without any)",
            )
        group = "top_k" if router == "frozen" else router
        if router == "scaled_input" or run.setting(f"{group}.score") == "sigmoid":
            name = "a token's sigmoids over their sum"
            return cls(name, f"{name}, p,")
        return cls("the router's softmax", "the router's softmax p,")


@dataclass
class Story:
    """What the parts below add to; a part is about one dataset."""

    run: Run
    tables: RoutingTables
    section: Section
    panels: list[curves.Panel] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    alts: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def layers(self) -> range:
        return range(len(self.tables.layers))

    @property
    def scores(self) -> Scores:
        return Scores.of(self.run)

    def has(self, name: str, what: str) -> bool:
        """Whether the file has it with any number in it; else it is named as missing."""
        if name in self.tables.file:
            axes = self.tables.file.axes(name)
            if np.isfinite(self.tables.file.array(name, axes)).any():
                return True
        self.missing.append(f"{what} ({name})")
        return False

    def show(self, panel: curves.Panel, caption: str, alt: str) -> None:
        self.panels.append(panel)
        self.captions.append(caption)
        self.alts.append(alt)

    def ends(self, values: np.ndarray, form=number) -> str:
        """Of a value for each layer."""
        return spread(values, self.run.names(), form)


def section(run: Run) -> Section:
    result = Section("router", "The router")
    tables = run.routing
    assert tables is not None
    if not len(tables.intervals):
        result.say(run.no_interval())
        return result
    story = Story(run, tables, result)
    parts = (_entropy, _mass, _gates, _logits, _balance, _z)
    router = run.setting("moe.router")
    if router in UNLEARNED:
        result.say(
            f"Router {router} chooses by a hash and has no weight, so that it has no logits, no "
            "scores and no losses."
        )
        parts = (_gates,)
    for part in parts:
        part(story)
    if story.missing:
        result.say(
            "Not in this run's files, or without a meaning for its router: "
            f"{listed(story.missing)}."
        )
    if story.panels:
        edges = interval_edges(tables.intervals)
        result.show(
            Picture(
                lambda: curves.over_intervals(story.panels, edges, tables.layers.tolist()),
                f"Curves by layer over training. In the last interval: {'; '.join(story.alts)}.",
                f"From top to bottom, by layer and interval: {'; '.join(story.captions)}.",
            )
        )
    return result


def _entropy(story: Story) -> None:
    if not story.has("entropy", "entropy of the router"):
        return
    tables = story.tables
    nats = statistics.per_token(tables.by_layer("entropy"), tables.tokens)
    experts = np.array([len(tables.experts(layer)) for layer in story.layers])
    relative = statistics.ratio(nats, np.log(experts))
    story.section.headline = (
        f"The entropy of the router's scores, relative to that of equal ones, {_trend(relative)} "
        "in the mean over layers; at the end a token's scores are as spread as over so many equal "
        f"experts: {story.ends(np.exp(nats[-1]))}."
    )
    story.section.say(story.section.headline)
    story.show(
        curves.Panel("Entropy of the scores ÷ ln E", relative, 1, "undecided", bottom=None),
        f"mean over tokens of the entropy −Σ p ln p of {story.scores.p} relative to ln E (1: all "
        "E experts alike; 0: certain)",
        f"relative entropy {story.ends(relative[-1])}",
    )


def _mass(story: Story) -> None:
    if not story.has("probability_mass", "mass by expert"):
        return
    tables = story.tables
    mass = [tables.by_expert("probability_mass", layer) for layer in story.layers]
    peak = np.column_stack([statistics.busiest(table) for table in mass])
    correlation = [
        _correlation(mass[layer][-1], tables.counts(layer)[-1]) for layer in story.layers
    ]
    story.show(
        curves.Panel("Largest mass of scores ÷ mean", peak, 1, "even", bottom=None),
        f"sum over tokens of {story.scores.summed}, of the expert with most of it ÷ the mean over "
        "experts (1: even)",
        f"largest mass {story.ends(peak[-1], times)} the mean",
    )
    related = ""
    if np.isfinite(correlation).any():
        related = (
            f"Over experts, mass and load correlate with {story.ends(correlation)} (1: copies in "
            "proportion to mass, 0: no relation)."
        )
    story.section.say(
        f"Relative to the mean of its layer, the expert with most mass, the sum over tokens of "
        f"{story.scores.summed}, has "
        f"{story.ends(peak[-1], times)} in the last interval.",
        related,
    )


def _gates(story: Story) -> None:
    if not story.has("gate_mass", "gate mass"):
        return
    tables = story.tables
    gates = [tables.by_expert("gate_mass", layer) for layer in story.layers]
    weight = statistics.per_token(np.column_stack([table.sum(1) for table in gates]), tables.tokens)
    peak = np.array([statistics.busiest(table[-1]) for table in gates])
    story.show(
        curves.Panel("Sum of a token's gates", weight),
        "mean over tokens of the sum of the gates that weigh its experts' results (1 where gates "
        "are renormalised)",
        f"sum of gates {story.ends(weight[-1])}",
    )
    most = ""
    if np.isfinite(peak).any():
        most = f"The expert with most gate mass has {story.ends(peak, times)} of the mean."
    story.section.say(
        f"A token's gates sum to {story.ends(weight[-1])} in the last interval; in the mean over "
        f"layers the sum {_trend(weight)}.",
        most,
    )


def _logits(story: Story) -> None:
    if not story.has("logit_norm", "norm of the router's logits"):
        return
    tables = story.tables
    norm = statistics.per_token(tables.by_layer("logit_norm"), tables.tokens)
    story.show(
        curves.Panel("Norm of the router's logits", norm),
        "mean over tokens of the L2 norm of the router's logits (0: undecided)",
        f"norm of the logits {story.ends(norm[-1])}",
    )
    story.section.say(f"The norm of the router's logits {_trend(norm)} in the mean over layers.")


def _balance(story: Story) -> None:
    if not story.has("balance_loss", "balance loss"):
        return
    tables, run = story.tables, story.run
    loss = statistics.per_token(tables.by_layer("balance_loss"), steps_of_intervals(run, tables))
    if not loss.any():
        story.section.say("The balance loss is 0 throughout.")
        return
    # Under an even load this loss is its coefficient, where it is FLAME-MoE's.
    ours = run.setting("moe.router") in ("", "top_k")
    even = run.setting_number("moe.balance_loss") if ours else None
    note = f"; an even load gives {number(even)}" if even else ""
    story.show(
        curves.Panel("Balance loss of a step", loss, even or None, "even load", bottom=None),
        f"balance loss of a step, its coefficient included{note}",
        f"balance loss {story.ends(loss[-1])}",
    )
    story.section.say(
        f"The balance loss of a step is {story.ends(loss[-1])} at the end, coefficient "
        f"included{note}."
    )


def _z(story: Story) -> None:
    if not story.has("z_loss", "z loss"):
        return
    tables, run = story.tables, story.run
    loss = statistics.per_token(tables.by_layer("z_loss"), steps_of_intervals(run, tables))
    if not loss.any():
        story.section.say("The z loss is 0 throughout.")
        return
    meaning = ""
    if coefficient := run.setting_number("moe.z_loss"):
        even = sorted({number(np.log(len(tables.experts(layer)))) for layer in story.layers})
        meaning = (
            ": the log-sum-exp of the logits has a root mean square of "
            f"{story.ends(np.sqrt(loss[-1] / coefficient))}, where logits of 0 have ln E = "
            f"{listed(even)}"
        )
    story.show(
        curves.Panel("z loss of a step", loss),
        "z loss of a step, its coefficient included: coefficient × mean over tokens of the squared "
        "log-sum-exp of the router's logits",
        f"z loss {story.ends(loss[-1])}",
    )
    story.section.say(f"The z loss of a step is {story.ends(loss[-1])} at the end{meaning}.")


def steps_of_intervals(run: Run, tables: RoutingTables) -> np.ndarray:
    """Steps that each row sums: from its tokens where the deck has the batch, else from its ends.

    Steps that changed no weight are in no row.
    """
    batch = run.setting_number("batch.global_batch")
    length = run.setting_number("model.sequence_length")
    if batch and length:
        return tables.tokens / (batch * length)
    return np.diff(interval_edges(tables.intervals))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; NaN where one is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


def _trend(table: np.ndarray) -> str:
    """Of a quantity (intervals, layers), in the mean over layers."""
    mean = statistics.mean_known(table, 1)
    return f"is {number(mean[-1])}" if len(mean) < 2 else moved(mean[0], mean[-1])
