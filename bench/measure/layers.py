"""One layer with experts alone, forward and backward: natural routing, and balanced."""

from __future__ import annotations

from measure.plan import Piece, label
from measure.progress import say
from measure.results import HEARTH, PYTORCH, Case
from measure.setting import Setting

# Names of the two routings in hearth-bench and in moe_layer.py.
ROUTINGS = {"MoE layer, routing of random weights": "natural", "MoE layer, balanced": "balanced"}
FINALISTS = 2


def measure(setting: Setting) -> None:
    names = dict.fromkeys(ROUTINGS.values(), setting.options.variant)
    for piece in setting.plan.layers:
        _piece(setting, piece, names)


def _piece(setting: Setting, piece: Piece, names: dict[str, str]) -> None:
    """Measures a deck's layer; `names` becomes the variants worth a trial in the next deck."""
    model = label(piece.deck)
    cases = {
        routing: setting.results.case(
            "layers", f"{model}, MoE layer, {routing}", setting.options.threads
        )
        for routing in ROUTINGS.values()
    }
    arguments = ["--deck", str(piece.deck), "--rows", str(setting.plan.length)]
    rankings = {}
    for routing in cases:
        trial = ["--routing", routing, "--warmup", "1", "--repeats", "1"]
        rankings[routing] = setting.trial("moe_layer.py", names[routing], *arguments, *trial)
        if names[routing] == "all" and rankings[routing]:
            names[routing] = ",".join(rankings[routing][:FINALISTS])
    for turn in setting.rounds(piece.rounds):
        what = f"layers: {model}: round {turn + 1}"
        for kind in setting.options.types:
            _of_hearth(setting, piece, kind, cases, what)
        for routing, ranking in rankings.items():
            if ranking:
                _of_pytorch(setting, piece, routing, ranking[0], cases[routing], arguments, what)


def _of_hearth(
    setting: Setting, piece: Piece, kind: str, cases: dict[str, Case], what: str
) -> None:
    entries = [case.entry(HEARTH, kind) for case in cases.values()]
    given = [f"--warmup={piece.warmup}", f"--repeat={piece.repeats}", "--batch.cell_sequences=1"]
    given += [f"--model.sequence_length={setting.plan.length}"]
    with setting.turn(f"{what}: {HEARTH} {kind}", *entries):
        for row in setting.hearth.bench("moe-layer", piece.deck, kind, *given):
            if row.get("name") not in ROUTINGS:
                continue
            case = cases[ROUTINGS[row["name"]]]
            case.flops = 1e9 * row["gflop_per_s"] * row["median_s"]
            case.entry(HEARTH, kind).times_s.append(row["median_s"])
            say(f"  {case.name}: {row['median_s']:.3f} s")


def _of_pytorch(
    setting: Setting, piece: Piece, routing: str, variant: str, case: Case, arguments: list[str],
    what: str,
) -> None:  # fmt: skip
    entry = case.entry(PYTORCH, variant)
    given = ["--warmup", str(piece.warmup), "--repeats", str(piece.repeats), "--routing", routing]
    with setting.turn(f"{what}: {entry.name}, {routing}", entry):
        row = setting.pytorch.moe_layer(variant, *arguments, *given)
        entry.times_s.append(row["median_s"])
        entry.peak_bytes = max(entry.peak_bytes, row["peak_bytes"])
        entry.details["imbalance"] = row["imbalance"]
        say(f"  {case.name}: {row['median_s']:.3f} s")
