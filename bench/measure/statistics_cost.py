"""What the routing statistics cost: steps with all that a deck can ask for, and with the least."""

from __future__ import annotations

from measure import steps
from measure.setting import Setting

ALL, LEAST = "all statistics", "least statistics"
SWITCHES = {
    ALL: (
        "--statistics.token_halves=true", "--statistics.drift=true", "--statistics.trace_every=10",
    ),
    LEAST: ("--statistics.token_counts=false",),
}  # fmt: skip


def measure(setting: Setting) -> None:
    steps.in_turns(setting, "statistics", setting.plan.statistics_steps, SWITCHES)
