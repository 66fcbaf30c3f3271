#!/usr/bin/env python3
"""Compares the study's runs: loss on the training's domains and on others, and what it cost.

Reads DIR/<variant>/seed_<seed>/ as inputs/study/run leaves it, and prints a table of means over
seeds with 95 % confidence intervals (Student's t), the differences to a reference paired by seed,
and what they do and do not support. Writes study.json and a figure beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import figures
from settings_comparison import deck_values
from statistics_file import InputError, StatisticsFile
from whole_file import write_whole

LN2 = math.log(2)
# 97.5 % points of Student's t for 1 to 10 degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
CORPUS = Path("build/corpus/quickstart/corpus.json")
TOLERANCE = 0.02  # of FLOPs that count as equal


@dataclass(frozen=True)
class Run:
    """One deck with one seed."""

    variant: str
    seed: int
    steps: int
    tokens: int  # of the training
    flops: float  # of the training, with the experts that tokens really had
    experts_per_token: float  # mean over steps and layers; 0: a dense model
    dropped: float  # share of the chosen copies
    specialisation: float  # mean over experts and layers; NaN: a dense model
    losses: Mapping[str, float]  # nats per token by source
    held_out: Mapping[str, float]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half width of its 95 % confidence interval."""

    mean: float
    half_width: float  # infinite with one seed

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "-"
        if not math.isfinite(self.half_width):
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {self.half_width:.4f}"

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half_width


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of independent values."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return Interval(float(array.mean()), math.inf)
    t = STUDENT[min(len(array) - 1, len(STUDENT)) - 1]
    return Interval(float(array.mean()), t * float(array.std(ddof=1)) / math.sqrt(len(array)))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the system or HDF5 fails with is an error of this file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def losses(path: Path) -> dict[str, float]:
    """What `hearth evaluate` has printed, by source; without the row of all."""
    with reading(path):
        text = path.read_text(errors="replace")
    rows = re.findall(r"^(\S+) +(\S+) +(\d+) tokens$", text, re.MULTILINE)
    found = {name: float(loss) for name, loss, _ in rows if name != "all"}
    if not found:
        raise InputError(f"{path}: has no losses; hearth evaluate prints one for each source")
    return found


def resolved_deck(text: str) -> dict[str, str]:
    """section.key: value of a resolved deck; of several lines with one key, the last."""
    return {key: values[-1] for key, values in deck_values(text).items()}


def flops_per_token(deck: Mapping[str, str], experts_per_layer: Sequence[float]) -> float:
    """Of training, as docs/equations.md counts ("Counting"), with so many experts of a token."""

    def number(key: str) -> int:
        return int(deck[key])

    hidden, layers = number("model.hidden"), number("model.layers")
    heads = number("model.heads")
    width = heads * (number("model.head_dim") or hidden // heads)
    kv_width = width * (number("model.kv_heads") or heads) // heads
    weights: float = layers * 2 * hidden * (width + kv_width) + number("model.vocabulary") * hidden
    weights += (layers - len(experts_per_layer)) * 3 * hidden * number("model.dense_ffn")
    destinations = [int(n) for n in deck["moe.experts"].split(",")]
    light = sum(number(f"moe.{kind}_experts") for kind in ("copy", "constant", "zero", "null"))
    for layer, experts in enumerate(experts_per_layer):
        weights += 3 * hidden * number("moe.shared_ffn")
        weights += experts * 3 * hidden * number("moe.expert_ffn")
        if deck["moe.router"] not in ("hash", "random"):
            rows = destinations[layer % len(destinations)] + light
            weights += rows * hidden
        weights += 3 * number("moe.constant_experts") * hidden
    attention = layers * width * number("model.sequence_length")
    return 6 * (weights + attention)


@dataclass(frozen=True)
class Routing:
    """What a run's tokens had of its experts, over the whole training."""

    experts_per_token: Sequence[float]  # by MoE layer, with matrices
    dropped: float  # share of the chosen copies
    specialisation: float


DENSE = Routing((), 0.0, math.nan)


def is_dense(deck: Mapping[str, str]) -> bool:
    """Whether no layer has experts: such a run has no routing.h5."""
    experts = [int(n) for n in deck["moe.experts"].split(",")]
    return not any(experts) or int(deck["moe.dense_layers"]) >= int(deck["model.layers"])


def read_routing(path: Path, deck: Mapping[str, str]) -> Routing:
    """Of a model with experts: without its file nobody knows how many a token had."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; the run has experts (moe.experts = {deck['moe.experts']}), "
            "and how many a token had is written there alone"
        )
    with reading(path), StatisticsFile(path, "routing.h5") as file:
        file.intervals()  # at least one
        file.checkpoints()
        of_interval = ["interval", "layer", "expert"]
        ffn = file.array("expert_kind", ["layer", "expert"]) == b"ffn"
        count = file.array("expert_count", of_interval).sum(axis=0)
        lost = file.array("expert_dropped", of_interval).sum(axis=0)
        tokens = float(file.array("tokens", ["interval"]).sum())
        by_source = file.array(
            "source_expert_count", ["checkpoint", "layer", "source", "expert"]
        ).sum(axis=0)
        if tokens == 0:
            raise file.failure("no tokens were routed; a finished run has some")
    return Routing(
        experts_per_token=list(np.where(ffn, count, 0).sum(axis=1) / tokens),
        dropped=float(lost.sum() / max(1, lost.sum() + count.sum())),
        specialisation=mean_specialisation(by_source, ffn),
    )


def read_run(folder: Path) -> Run:
    """A run that inputs/study/run has finished."""
    path = folder / "training.h5"
    with reading(path), StatisticsFile(path, "training.h5") as file:
        deck = resolved_deck(file.attribute("deck"))
        steps = int(file.rows("step", "a finished run has one for each step")[-1])
        tokens = int(file.array("tokens", ["step"]).sum())
        try:
            routing = DENSE if is_dense(deck) else read_routing(folder / "routing.h5", deck)
            per_token = flops_per_token(deck, routing.experts_per_token)
            seed = int(deck["run.seed"])
        except KeyError as missing:
            raise file.failure(f"no key {missing.args[0]} in its deck; hearth writes all") from None
    return Run(
        variant=folder.parent.name,
        seed=seed,
        steps=steps,
        tokens=tokens,
        flops=tokens * per_token,
        experts_per_token=float(np.mean(routing.experts_per_token or [0])),
        dropped=routing.dropped,
        specialisation=routing.specialisation,
        losses=losses(folder / "evaluation.txt"),
        held_out=losses(folder / "held_out.txt"),
    )


def mean_specialisation(by_source: np.ndarray, ffn: np.ndarray) -> float:
    """How unevenly sources go to experts; 0: alike, near 1: an expert for each source.

    The mean over layers and experts of the total variation between the sources' shares of an
    expert's copies and their shares of all.
    """
    distances = []
    for counts, with_matrices in zip(by_source, ffn, strict=True):  # (source, expert)
        used = with_matrices & (counts.sum(axis=0) > 0)
        shares = counts[:, used] / counts[:, used].sum(axis=0)
        overall = counts.sum(axis=1, keepdims=True) / counts.sum()
        distances.append(np.abs(shares - overall).sum(axis=0).mean() / 2)
    return float(np.mean(distances))


def read_study(output: Path) -> list[Run]:
    """All runs of a study that are finished."""
    runs = [
        read_run(path.parent)
        for path in sorted(output.glob("*/seed_*/evaluation.txt"))
        if (path.parent / "held_out.txt").exists()
    ]
    if not runs:
        raise InputError(f"{output}: has no finished runs; inputs/study/run makes them")
    return runs


def variants_of(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Runs by variant and seed."""
    table: dict[str, dict[int, Run]] = {}
    for run in runs:
        table.setdefault(run.variant, {})[run.seed] = run
    return table


def bytes_per_token(corpus: Path) -> dict[str, float]:
    """By source, from the corpus' manifest."""
    if not corpus.is_file():
        raise InputError(f"{corpus}: no such file; expected a corpus.json of preprocess/prepare.py")
    with reading(corpus):
        content = corpus.read_bytes()
    try:
        domains = json.loads(content)["domains"]
        found = {name: float(entry["bytes_per_token"]) for name, entry in domains.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        found = {}
    if not found or not all(of_token > 0 for of_token in found.values()):
        raise InputError(
            f"{corpus}: no bytes_per_token of domains; expected a corpus.json of "
            "preprocess/prepare.py"
        )
    return found


def known_bytes_per_token(asked: Path | None, runs: Sequence[Run]) -> dict[str, float]:
    """Those of --corpus, or of the quick start's where there is one; says what is not known."""
    corpus = asked or CORPUS
    try:
        found = bytes_per_token(corpus)
    except InputError as error:
        if asked is not None:
            raise
        note(f"{error}; without it no bits/byte (--corpus names another)")
        return {}
    sources = {source for run in runs for source in (*run.losses, *run.held_out)}
    if unknown := sorted(sources - found.keys()):
        note(f"{corpus}: has no bytes per token of {', '.join(unknown)}; bits/byte need them")
    return found


def note(text: str) -> None:
    print(f"study.py: note: {text}", file=sys.stderr)


def mean_loss(by_source: Mapping[str, float]) -> float:
    """In nats per token, every source alike."""
    return float(np.mean(list(by_source.values())))


def bits_per_byte(by_source: Mapping[str, float], of_token: Mapping[str, float]) -> float:
    """Every source alike; NaN where the bytes of a source's tokens are not known."""
    return float(np.mean([loss / LN2 / of_token.get(s, math.nan) for s, loss in by_source.items()]))


def paired(
    table: Mapping[str, Mapping[int, Run]], one: str, other: str, measure: Callable[[Run], float]
) -> Interval | None:
    """The difference one - other over the seeds that both have; None: they share none."""
    seeds = sorted(table[one].keys() & table[other].keys())
    if not seeds:
        return None
    return interval([measure(table[one][seed]) - measure(table[other][seed]) for seed in seeds])


def matched_steps(runs: Sequence[Run], reference: str) -> list[tuple[str, int, int]]:
    """(variant, seed, steps) of the runs whose FLOPs differ from the reference's of that seed."""
    table = variants_of(runs)
    if reference not in table:
        raise InputError(f"no finished run of {reference}, whose FLOPs the others are to match")
    found = []
    for variant, by_seed in table.items():
        for seed, run in by_seed.items():
            wanted = table[reference].get(seed)
            if variant.endswith("-flops") or wanted is None:
                continue
            if abs(run.flops / wanted.flops - 1) > TOLERANCE:
                found.append((variant, seed, max(1, round(run.steps * wanted.flops / run.flops))))
    return found


def _or_dash(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def table_lines(table: Mapping[str, Mapping[int, Run]], of_token: Mapping[str, float]) -> list[str]:
    """Markdown: a row for each variant."""
    header = (
        "variant",
        "seeds",
        "loss, trained domains",
        "loss, held out",
        "bits/byte, trained",
        "bits/byte, held out",
        "FLOPs",
        "experts a token",
        "dropped",
        "specialisation",
    )
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for variant, by_seed in table.items():
        runs = list(by_seed.values())

        def over(measure: Callable[[Run], float], runs: Sequence[Run] = runs) -> Interval:
            return interval([measure(run) for run in runs])

        cells = (
            variant,
            str(len(runs)),
            str(over(lambda r: mean_loss(r.losses))),
            str(over(lambda r: mean_loss(r.held_out))),
            str(over(lambda r: bits_per_byte(r.losses, of_token))),
            str(over(lambda r: bits_per_byte(r.held_out, of_token))),
            f"{np.mean([r.flops for r in runs]):.2e}",
            f"{np.mean([r.experts_per_token for r in runs]):.2f}",
            f"{100 * np.mean([r.dropped for r in runs]):.1f} %",
            _or_dash(float(np.mean([r.specialisation for r in runs]))),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def statements(table: Mapping[str, Mapping[int, Run]], reference: str) -> list[str]:
    """What the differences to the reference support, at 95 % confidence and no more."""
    lines = []
    measures: dict[str, Callable[[Run], float]] = {
        "on the trained domains": lambda run: mean_loss(run.losses),
        "on held-out domains": lambda run: mean_loss(run.held_out),
    }
    flops = np.mean([run.flops for run in table[reference].values()])
    for variant, by_seed in table.items():
        if variant == reference:
            continue
        cost = np.mean([run.flops for run in by_seed.values()]) / flops
        equal = "equal" if abs(cost - 1) <= TOLERANCE else f"{cost:.2f} times the"
        for where, measure in measures.items():
            difference = paired(table, variant, reference, measure)
            if difference is None:
                lines.append(f"{variant} and {reference} share no seed: nothing can be said.")
                break
            amount = f"{abs(difference.mean):.4f} ± {difference.half_width:.4f} nats per token"
            if not math.isfinite(difference.half_width):
                verdict = "one seed does not tell"
                amount = f"{abs(difference.mean):.4f} nats per token"
            elif difference.excludes_zero:
                verdict = "supported"
            else:
                verdict = "not supported: the interval holds 0"
            better = "better" if difference.mean < 0 else "worse"
            lines.append(
                f"{variant} is {better} than {reference} {where} by {amount} at {equal} FLOPs "
                f"({verdict})."
            )
    lines.append(
        "Intervals are over seeds, of initial weights and of the order of the data. They say "
        "nothing of other sizes, data or learning rates."
    )
    return lines


def figure(table: Mapping[str, Mapping[int, Run]], of_token: Mapping[str, float]) -> figures.Figure:
    """A row for each variant: its seeds, their mean and its interval, in both kinds of domains."""
    known = all(
        math.isfinite(bits_per_byte({**run.losses, **run.held_out}, of_token))
        for by_seed in table.values()
        for run in by_seed.values()
    )

    def measure(by_source: Mapping[str, float]) -> float:
        return bits_per_byte(by_source, of_token) if known else mean_loss(by_source)

    chart, both = figures.plt.subplots(1, 2, sharey=True, figsize=(9, 1.4 + 0.35 * len(table)))
    sides = (
        ("trained domains", lambda run: run.losses),
        ("held-out domains", lambda run: run.held_out),
    )
    for axes, (title, losses) in zip(both, sides):
        for row, by_seed in enumerate(table.values()):
            values = [measure(losses(run)) for run in by_seed.values()]
            over = interval(values)
            axes.plot(values, [row] * len(values), "|", color="0.5", markersize=9)
            axes.errorbar(
                over.mean,
                row,
                xerr=over.half_width if math.isfinite(over.half_width) else None,
                fmt="o",
                color=figures.COLOURS[0],
                capsize=3,
            )
        axes.set_xlabel(f"{title}, {'bits per byte' if known else 'nats per token'}")
        axes.grid(axis="y", linewidth=0.5)
    both[0].set_yticks(range(len(table)), list(table))
    both[0].invert_yaxis()
    chart.suptitle(
        "Loss after training: seeds, their mean, and its 95 % interval", x=0.01, ha="left",
        fontsize="medium",
    )  # fmt: skip
    return chart


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 done, 1 the output cannot be written, 2 bad input.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, help="folder that inputs/study/run has filled")
    parser.add_argument("--reference", default="top_k", help="(default: %(default)s)")
    parser.add_argument(
        "--corpus",
        type=Path,
        help="manifest with bytes per token of each source, for the columns of bits/byte "
        f"(default: {CORPUS}, where it is there)",
    )
    parser.add_argument(
        "--output", type=Path, help="folder of study.json and study.png (the study)"
    )
    parser.add_argument(
        "--matched-steps",
        action="store_true",
        help="print variant, seed and steps of the runs that are to be repeated with the FLOPs of "
        "dense, and nothing else",
    )
    return parser.parse_args()


def known(run: Run) -> dict[str, object]:
    """Its fields, null where there is no number: JSON has no NaN."""
    nan = {name: None for name, value in asdict(run).items() if value != value}
    return asdict(run) | nan


def report(asked: argparse.Namespace) -> None:
    runs = read_study(asked.study)
    if asked.matched_steps:
        for variant, seed, steps in matched_steps(runs, "dense"):
            print(variant, seed, steps)
        return
    table = variants_of(runs)
    if asked.reference not in table:
        raise InputError(
            f"{asked.study}: no finished run of {asked.reference}; there are {', '.join(table)}"
        )
    of_token = known_bytes_per_token(asked.corpus, runs)
    print("\n".join(table_lines(table, of_token)))
    print()
    print("\n".join(statements(table, asked.reference)))
    output = asked.output or asked.study
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "study.json", json.dumps([known(run) for run in runs], indent=1) + "\n")
    figure(table, of_token).savefig(output / "study.png")


def main() -> int:
    try:
        report(parse())
        sys.stdout.flush()
    except InputError as error:
        print(f"study.py: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:  # who reads the table, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        where = error.filename or "output"
        print(f"study.py: {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
