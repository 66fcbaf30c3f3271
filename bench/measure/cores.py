"""One process on one core, one on two, and two processes on one each, over the same batch."""

from __future__ import annotations

from measure import steps
from measure.results import HEARTH
from measure.setting import Setting

LAYOUTS = ((1, 1), (1, 2), (2, 1))  # processes, threads of each


def name_of(setting: Setting, processes: int, threads: int) -> str:
    """The case's name: all layouts have as many cells as the deck's case has sequences."""
    model = steps.name_of(setting, setting.plan.cores)
    plural = "processes" if processes > 1 else "process"
    return f"{model} in cells of 1, {processes} {plural} of {threads}"


def measure(setting: Setting) -> None:
    case = setting.plan.cores
    if setting.options.threads < 2:
        setting.results.errors.append("cores: left out, there is one core")
        return
    prefix = None
    with setting.turn("cores: data"):
        prefix = steps.data_set(setting, case)
        flops = setting.hearth.flops_per_token(case.deck, setting.plan.length)
    if prefix is None:
        return
    tokens = case.sequences * setting.plan.length
    kind = setting.options.types[0]
    given = steps.overrides(setting, case, kind, prefix, cell=1)
    for turn in setting.rounds(case.rounds):
        for processes, threads in LAYOUTS:
            found = setting.results.case(
                "cores", name_of(setting, processes, threads), processes * threads,
                tokens=tokens, flops=tokens * flops,
            )  # fmt: skip
            entry = found.entry(HEARTH, kind)
            with setting.turn(f"cores: {found.name}: round {turn + 1}", entry):
                steps.train(setting, case, entry, given, ranks=processes, threads=threads)
