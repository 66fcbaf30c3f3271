"""One layer with experts alone, forward and backward: natural routing, and balanced."""

from __future__ import annotations

from measure import trial
from measure.plan import Piece, label
from measure.progress import say
from measure.results import HEARTH, PYTORCH, Case
from measure.setting import Setting

# Names of the two routings in hearth-bench and in moe_layer.py.
ROUTINGS = {"MoE layer, routing of random weights": "natural", "MoE layer, balanced": "balanced"}
Variants = dict[str, list[str]]  # PyTorch's, by routing


def measure(setting: Setting) -> None:
    variants = {routing: setting.options.variants for routing in ROUTINGS.values()}
    for piece in setting.plan.layers:
        variants = _piece(setting, piece, variants)


def _piece(setting: Setting, piece: Piece, variants: Variants) -> Variants:
    """Measures a deck's layer; returns PyTorch's variants for the next deck."""
    model = label(piece.deck)
    cases = {
        routing: setting.results.case(
            "layers", f"{model}, MoE layer, {routing}", setting.options.threads
        )
        for routing in ROUTINGS.values()
    }
    arguments = ["--deck", str(piece.deck), "--rows", str(setting.plan.length)]
    later = variants
    if not variants["natural"]:
        found = _trial(setting, arguments)
        variants = {routing: ranking[:1] for routing, ranking in found.items()}
        later = _finalists(found)
    for turn in setting.rounds(piece.rounds):
        what = f"layers: {model}: round {turn + 1}"
        for kind in setting.options.types:
            _of_hearth(setting, piece, kind, cases, what)
        for routing, case in cases.items():
            for variant in variants[routing] if setting.pytorch else ():
                _of_pytorch(setting, piece, routing, variant, case, arguments, what)
    return later


def _trial(setting: Setting, arguments: list[str]) -> Variants:
    """All variants with natural routing; with balanced routing the winner's with every product."""
    found: Variants = {}
    names = "all"
    for routing in ROUTINGS.values():
        few = ("--routing", routing, "--warmup", "1", "--repeats", "1")
        found[routing] = trial.ranking(setting, "moe_layer.py", names, *arguments, *few)
        if found[routing]:
            names = ",".join(
                _with_product(found[routing][0], p) for p in ("loop", "bmm", "grouped")
            )
    return found


def _finalists(found: Variants) -> Variants:
    """Natural routing's, and for balanced routing the same types with its fastest product."""
    natural = trial.finalists(found["natural"])
    products = [variant.split("-")[1] for variant in found["balanced"][:1]]
    return {
        "natural": natural,
        "balanced": [_with_product(variant, p) for variant in natural for p in products],
    }


def _with_product(variant: str, product: str) -> str:
    kind, _, *compiled = variant.split("-")
    return "-".join((kind, product, *compiled))


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
