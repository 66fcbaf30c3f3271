"""What the routing statistics cost: steps with all that a deck can ask for, and with the least."""

from __future__ import annotations

from measure import steps
from measure.results import HEARTH
from measure.setting import Setting

ALL, LEAST = "all statistics", "least statistics"
SWITCHES = {
    ALL: (
        "--statistics.token_halves=true", "--statistics.drift=true", "--statistics.trace_every=10",
    ),
    LEAST: ("--statistics.token_counts=false",),
}  # fmt: skip


def variant_of(kind: str, which: str) -> str:
    return f"{kind} {which}"


def measure(setting: Setting) -> None:
    case = setting.plan.statistics_steps
    ready = steps.prepared(setting, "statistics", case)
    if ready is None:
        return
    found, prefix = ready
    for turn in setting.rounds(case.rounds):
        for kind in setting.options.types:
            given = steps.overrides(setting, case, kind, prefix, case.sequences)
            for which, switches in SWITCHES.items():
                entry = found.entry(HEARTH, variant_of(kind, which))
                with setting.turn(
                    f"statistics: {found.name}: round {turn + 1}: {entry.name}", entry
                ):
                    steps.train(setting, case, entry, [*given, *switches])
