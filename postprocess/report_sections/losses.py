"""Loss over training, and what each data source contributes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import plot_loss
from report_sections import curves
from report_sections.page import Picture, Section, Table
from report_sections.run import Run
from report_sections.wording import listed, moved, number, percent
from statistics_file import StatisticsFile

SIZE_IN = (curves.WIDTH_IN, 4.6)
LAST_SHARE = 0.1  # of the steps, over which a loss at the end is averaged


def section(run: Run) -> Section:
    result = Section("loss", "Loss")
    file = run.training
    if file is None:
        result.say("training.h5 is missing, so that there is no loss to show.")
        return result
    steps = file.array("step", ["step"])
    if not len(steps):
        result.say("No step is done yet, so that there is no loss to show.")
        return result
    tokens = file.array("tokens", ["step"])
    entropy = file.array("cross_entropy", ["step"])
    late = slice(-max(1, round(LAST_SHARE * len(steps))), None)
    known = np.isfinite(entropy)
    if not known.any():
        result.say("No step has a finite loss, so that there is none to show.")
        return result
    first, last = entropy[known][0], mean_loss(entropy[late], tokens[late])
    several = len(steps[late])
    span = f"the last {several:,} steps" if several > 1 else "the last step"
    result.headline = (
        f"The training loss {moved(first, last)} nats per token (step {steps[known][0]:,} "
        f"against {'the mean of ' * (several > 1)}{span})."
        if len(steps) > 1
        else f"The training loss is {number(last)} nats per token after one step."
    )
    sources = file.names("source")
    by_source = late_losses(file, late)
    validation = last_validation(file)
    result.say(result.headline, _by_source(sources, by_source))
    result.say(_validation(sources, by_source, validation))
    result.show(
        Picture(
            lambda: _draw(file),
            f"Curves of the training loss over tokens: {moved(first, last)} nats per token in "
            "total. Below, the learning rate.",
            "Cross-entropy in nats per target token, averaged over neighbouring steps: the thick "
            "curve is all tokens, the others are one data source each; circles are the validation "
            "split. Below: the learning rate of the step's update. An untrained model that knew "
            f"nothing would have ln V{_uniform(run)} nats.",
        )
    )
    result.show(_table(file, sources, by_source, validation, span))
    return result


def _draw(file: StatisticsFile) -> Figure:
    figure = plot_loss.loss_figure(file, "tokens", False, SIZE_IN)
    figure.axes[0].set_title("")  # the caption says it
    return figure


def mean_loss(loss: np.ndarray, tokens: np.ndarray) -> float:
    """Mean per token over rows with tokens and a finite loss; NaN without any."""
    weight = np.where(np.isfinite(loss), tokens, 0)
    total = int(weight.sum())
    return float((np.nan_to_num(loss) * weight).sum() / total) if total else np.nan


def late_losses(file: StatisticsFile, late: slice) -> list[float]:
    loss = file.array("source_loss", ["source", "step"])[:, late]
    tokens = file.array("source_tokens", ["source", "step"])[:, late]
    return [mean_loss(*rows) for rows in zip(loss, tokens)]


def last_validation(file: StatisticsFile) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Step, loss (sources) and tokens (sources) of the last validation that has a loss."""
    if "validation_step" not in file:
        return None
    steps = file.array("validation_step", ["validation_step"])
    loss = file.array("validation_loss", ["validation_step", "source"])
    tokens = file.array("validation_tokens", ["validation_step", "source"])
    rows = np.flatnonzero(np.isfinite(loss).any(1))
    if not len(rows):
        return None
    return int(steps[rows[-1]]), loss[rows[-1]], tokens[rows[-1]]


def _uniform(run: Run) -> str:
    vocabulary = run.setting_number("model.vocabulary")
    return f" = ln {vocabulary:,.0f} = {number(np.log(vocabulary))}" if vocabulary else ""


def _by_source(sources: list[str], losses: list[float]) -> str:
    known = sorted((loss, name) for loss, name in zip(losses, sources) if np.isfinite(loss))
    if len(sources) == 1:
        return "All tokens are of one data source."
    if len(known) < 2:
        return ""
    (low, easy), (high, hard) = known[0], known[-1]
    return (
        f"By data source it ends between {number(low)} ({easy}) and {number(high)} ({hard}), "
        f"{number(high - low)} apart."
    )


def _validation(
    sources: list[str],
    training: list[float],
    validation: tuple[int, np.ndarray, np.ndarray] | None,
) -> str:
    if validation is None:
        return "There is no validation loss in the run."
    step, loss, tokens = validation
    total = mean_loss(loss, tokens)
    gaps = [
        (held_out - seen, name)
        for held_out, seen, name in zip(loss, training, sources)
        if np.isfinite(held_out) and np.isfinite(seen)
    ]
    text = f"Validation at step {step:,}: {number(total)} nats per token over all sources."
    if gaps:
        gap, name = max(gaps)
        side = "above" if gap >= 0 else "below"
        which = "The largest gap" if len(gaps) > 1 else "The gap"
        text += f" {which} to the end of training: {name}, {number(abs(gap))} {side} it."
    silent = [name for held_out, name in zip(loss, sources) if not np.isfinite(held_out)]
    if silent:
        text += f" {listed(silent, 6)}: no validation tokens."
    return text


def _table(
    file: StatisticsFile,
    sources: list[str],
    losses: list[float],
    validation: tuple[int, np.ndarray, np.ndarray] | None,
    span: str,
) -> Table:
    tokens = file.array("source_tokens", ["source", "step"]).sum(1)
    held_out = validation[1] if validation else np.full(len(sources), np.nan)
    rows = [
        [name, percent(seen / max(tokens.sum(), 1)), number(loss), number(check)]
        for name, seen, loss, check in zip(sources, tokens, losses, held_out)
    ]
    caption = f"By data source: share of the tokens, loss over {span}, validation loss (nats)"
    return Table(caption, ["source", "tokens", "training", "validation"], rows)
