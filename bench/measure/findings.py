"""What follows from the cases, beside the project's goals."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from measure import cores, promise, statistics_cost, steps
from measure.results import HEARTH, PYTORCH, Case, Entry, Finding
from measure.setting import Setting

# Phases of training that find experts and bring token copies to them and back.
ROUTING = ("router", "router backward", "wait for counts", "dispatch", "dispatch backward",
           "combine", "combine backward", "exchange")  # fmt: skip


def of(setting: Setting) -> list[Finding]:
    """All that can be said with what was measured."""
    return [
        *_ratios(setting), *_memory(setting), *_routing(setting), *_statistics(setting),
        *_cores(setting), *_launch(setting), *_promise(setting),
    ]  # fmt: skip


def _case(setting: Setting, section: str, name: str) -> Case | None:
    found = [c for c in setting.results.cases if (c.section, c.name) == (section, name)]
    return found[0] if found else None


def _entry(setting: Setting, section: str, name: str, variant: str | None = None) -> Entry | None:
    case = _case(setting, section, name)
    return case.of(HEARTH, variant) if case else None


def _ratios(setting: Setting) -> Iterator[Finding]:
    for case in setting.results.cases:
        best = case.of(HEARTH)
        if case.section in ("steps", "layers") and best and (ratio := case.ratio(best)):
            yield Finding(
                f"{case.name}: {best.name}, as fast as {PYTORCH}'s fastest", ratio, "times"
            )


def _memory(setting: Setting) -> Iterator[Finding]:
    """Of the case with the largest cell."""
    case = _case(
        setting,
        "steps",
        steps.name_of(setting, max(setting.plan.steps, key=attrgetter("sequences"))),
    )
    ours, theirs = (case.of(HEARTH), case.of(PYTORCH)) if case else (None, None)
    if ours and theirs:
        share = 100 * ours.peak_bytes / theirs.peak_bytes
        yield Finding.below(f"{case.name}: peak memory beside {PYTORCH}'s", share, "%", 50)


def _routing(setting: Setting) -> Iterator[Finding]:
    for case in setting.results.cases:
        if case.section not in ("steps", "cores"):
            continue
        for entry in case.entries:
            if all_s := entry.details.get("all_steps_s"):
                phases = entry.details["phase_s"]
                share = 100 * sum(phases.get(phase, 0.0) for phase in ROUTING) / all_s
                what = f"{case.name}, {entry.variant}: router, permutation and exchange"
                yield Finding.below(what, share, "%", 10)


def _statistics(setting: Setting) -> Iterator[Finding]:
    """By their phase in runs with all of them, and by steps with and without."""
    for case in setting.results.cases:
        if case.section != "statistics":
            continue
        for kind in setting.options.types:
            whole, least = (
                case.of(HEARTH, steps.variant_of(kind, which))
                for which in (statistics_cost.ALL, statistics_cost.LEAST)
            )
            if whole:
                phases = whole.details["phase_s"]
                seconds = sum(phases[name] for name in ("statistics", "statistics files"))
                share = 100 * seconds / whole.details["all_steps_s"]
                what = f"{case.name}, {kind}: all statistics, by their phases of a step"
                yield Finding.below(what, share, "%", 1)
            if whole and least:
                cost = 100 * (whole.median_s / least.median_s - 1)
                what = f"{case.name}, {kind}: steps with all statistics beside the least"
                yield Finding(what, cost, "%")


def _cores(setting: Setting) -> Iterator[Finding]:
    """Throughput by core: one over two, and two processes over one."""
    found = [_entry(setting, "cores", cores.name_of(setting, *layout)) for layout in cores.LAYOUTS]
    one, two, apart = found
    model = steps.name_of(setting, setting.plan.cores)
    if one and two:
        value = 2 * two.median_s / one.median_s
        what = f"{model}: one process by core, on one core over on two"
        yield Finding.at_least(what, value, "", 0.9)
    if two and apart:
        what = f"{model}: two cores, one process of two threads over two processes of one"
        yield Finding(what, apart.median_s / two.median_s, "")


def _launch(setting: Setting) -> Iterator[Finding]:
    for case in setting.results.cases:
        entry = case.of(HEARTH)
        if case.section == "launch" and entry:
            yield Finding.below(case.name, entry.median_s, "s", 2)


def _promise(setting: Setting) -> Iterator[Finding]:
    """Of the largest cells with a goal, of smaller ones without."""
    largest = {
        steps.name_of(setting, max(setting.plan.promise_steps, key=attrgetter("sequences"))),
        *(
            promise.name_of_layer(setting, piece, max(setting.plan.promise_cells))
            for piece in setting.plan.promise_layers
        ),
    }
    for case in setting.results.cases:
        if case.section != "promise":
            continue
        for kind in setting.options.types:
            ours, plain = (case.of(HEARTH, promise.variant_of(kind, r)) for r in (True, False))
            if ours and plain:
                cost = 100 * (ours.median_s / plain.median_s - 1)
                what = f"{case.name}, {kind}: sums as integers cost"
                goal = case.name in largest
                yield Finding.below(what, cost, "%", 5) if goal else Finding(what, cost, "%")
