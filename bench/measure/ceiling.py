"""The machine's own products of matrices, by type and threads: what all else is a fraction of."""

from __future__ import annotations

from measure.options import TYPES
from measure.results import HEARTH, PYTORCH
from measure.setting import Setting


def measure(setting: Setting) -> None:
    """Measures once more, and keeps the best of all so far."""
    for threads in sorted({1, setting.options.threads}):
        for kind in TYPES:
            _of_hearth(setting, threads, kind)
        if setting.pytorch and threads == setting.options.threads:
            _of_pytorch(setting, threads)


def _of_hearth(setting: Setting, threads: int, kind: str) -> None:
    deck = setting.plan.steps[0].deck
    with setting.turn(f"ceiling: {HEARTH}'s products, {kind}, {threads} threads"):
        warmup, repeat = setting.plan.ceiling
        given = (f"--warmup={warmup}", f"--repeat={repeat}")
        for row in setting.hearth.bench("ceiling", deck, kind, *given, threads=threads):
            _keep(setting, threads, kind, HEARTH, "oneDNN", row)


def _of_pytorch(setting: Setting, threads: int) -> None:
    with setting.turn(f"ceiling: {PYTORCH}'s products, {threads} threads"):
        warmup, repeats = setting.plan.ceiling
        given = ("--only", "ceiling", "--warmup", str(warmup), "--repeats", str(repeats))
        for row in setting.pytorch.kernels(*given):
            if "process" in row:
                setting.results.machine["pytorch"] = row["process"]
            elif "error" not in row:
                _keep(setting, threads, row["type"], PYTORCH, "mm", row)


def _keep(setting: Setting, threads: int, kind: str, program: str, way: str, row: dict) -> None:
    flops = 1e9 * row["gflop_per_s"] * row["median_s"]
    name = f"{row['name']}, {kind}, {threads} thread{'s' if threads > 1 else ''}"
    case = setting.results.case("ceiling", name, threads, flops=flops)
    case.entry(program, way).times_s.append(row["least_s"])
    tops = setting.results.ceiling.setdefault(threads, {})
    tops[kind] = max(tops.get(kind, 0.0), flops / row["least_s"])
