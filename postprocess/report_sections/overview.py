"""What was trained: the deck's essentials."""

from __future__ import annotations

import numpy as np

from report_sections.page import Section, Table
from report_sections.run import Run
from report_sections.wording import count, listed, number

# Keys of the deck that a reader asks for first.
KEYS = (
    ("model.layers", "transformer blocks"),
    ("model.hidden", "width"),
    ("model.heads", "attention heads"),
    ("model.vocabulary", "vocabulary"),
    ("model.sequence_length", "sequence length (tokens)"),
    ("model.compute_type", "type of activations"),
    ("moe.router", "router"),
    ("moe.experts", "experts of an MoE layer"),
    ("moe.top_k", "experts of a token"),
    ("moe.expert_ffn", "inner width of an expert"),
    ("moe.shared_ffn", "inner width of the shared expert"),
    ("moe.dense_layers", "leading layers without experts"),
    ("moe.balance_loss", "coefficient of the balance loss"),
    ("moe.z_loss", "coefficient of the z loss"),
    ("batch.global_batch", "sequences of a step"),
    ("batch.cell_sequences", "sequences of a cell"),
    ("optimizer.learning_rate", "learning rate"),
    ("run.steps", "steps of the schedule"),
    ("run.seed", "seed"),
    ("run.reproducible", "bitwise reproducible"),
)


def section(run: Run) -> Section:
    result = Section("run", "The run")
    result.headline = " ".join(filter(None, [_model(run), _training(run)]))
    result.say(result.headline, run.why_no_routing)
    result.say(_rows(run))
    rows = [[f"{text} ({key})", run.setting(key)] for key, text in KEYS if run.setting(key)]
    if rows:
        dense = run.setting_number("moe.experts") == 0
        rows = [row for row in rows if not (dense and "(moe." in row[0])]
        version = " ".join(filter(None, [run.file.attribute("version"), _revision(run)]))
        if version:
            rows.append(["version of Hearth", version])
        table = Table("Essentials of the resolved deck", ["setting", "value"], rows)
        result.show(table)
    else:
        result.say("The files have no deck in them, so that its settings cannot be listed.")
    return result


def _revision(run: Run) -> str:
    revision = run.file.attribute("revision")
    return f"({revision})" if revision else ""


def _model(run: Run) -> str:
    tables = run.routing
    if tables is None:
        blocks = run.setting("model.layers")
        return f"A model of {blocks} transformer blocks." if blocks else ""
    layers = range(len(tables.layers))
    experts = sorted({len(tables.experts(layer)) for layer in layers})
    slots = sorted({tables.slots(layer) for layer in layers})
    fixed = all(tables.fixed_k(layer) for layer in layers)
    choice = f"each token goes to {listed(slots)}" if fixed else f"a token has up to {slots[-1]}"
    router = run.setting("moe.router")
    return (
        f"A model of {run.setting('model.layers') or 'several'} transformer blocks, "
        f"{len(tables.layers)} of them with {_routed(experts)}, of "
        f"which {choice}{f' (router {router})' if router else ''}."
    )


def _routed(experts: list[int]) -> str:
    """'64 routed experts', '6 or 7 routed experts'."""
    return f"{' or '.join(map(str, experts))} routed expert{'s' * (experts != [1])}"


def _training(run: Run) -> str:
    if run.training is None:
        return "training.h5 is missing, so that steps and losses are not known."
    steps = run.training.array("step", ["step"])
    if not len(steps):
        return "No step is done yet."
    tokens = int(run.training.array("tokens", ["step"]).sum())
    planned = run.setting_number("run.steps")
    of = f" of {planned:,.0f}" if planned is not None else ""
    sources = run.training.names("source")
    skipped = 0
    if "skipped" in run.training:
        skipped = int(np.count_nonzero(run.training.array("skipped", ["step"])))
    left_out = f"; {count(skipped, 'step')} of them changed no weight (not finite)"
    return (
        f"It is trained for {steps[-1]:,}{of} steps on {number(tokens)} tokens of "
        f"{count(len(sources), 'data source')}: {listed(sources, 12)}{left_out if skipped else ''}."
    )


def _rows(run: Run) -> str:
    tables = run.routing
    if tables is None:
        return ""
    rows = len(tables.intervals)
    if rows:
        said = (
            f"Router statistics are sums over {count(rows, 'interval')}, the last ending at step "
            f"{tables.intervals[-1]:,}"
        )
        end, last = tables.last_interval(), run.last_step()
        if end < last:
            after = f"step {last:,}" if last == end + 1 else f"steps {end + 1:,} to {last:,}"
            said += f", so that {after} {'is' if last == end + 1 else 'are'} in none"
    else:
        said = run.no_interval().removesuffix(".")
    checkpoints = len(tables.checkpoints)
    if not checkpoints:
        return f"{said}; there is no checkpoint's row yet."
    which = f"of step {tables.checkpoints[0]:,}"
    if checkpoints > 1:
        which = f"from step {tables.checkpoints[0]:,} to {tables.checkpoints[-1]:,}"
    return (
        f"{said}; co-activation and specialisation are sums between checkpoints, of which there "
        f"{'is' if checkpoints == 1 else 'are'} {checkpoints:,}, {which}. Sums are over the tokens "
        "that were trained on, with weights that changed meanwhile."
    )
