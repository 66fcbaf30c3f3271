"""What bitwise equality on any layout costs: gradients summed as integers beside floating point."""

from __future__ import annotations

from measure import steps
from measure.plan import Piece, label
from measure.progress import say
from measure.results import HEARTH
from measure.setting import Setting

WAYS = {True: "", False: "plain sums"}  # by run.reproducible
ROUTING = "MoE layer, balanced"  # of hearth-bench: the same work in every pass


def variant_of(kind: str, reproducible: bool) -> str:
    return steps.variant_of(kind, WAYS[reproducible])


def name_of_layer(setting: Setting, piece: Piece, sequences: int) -> str:
    return f"{label(piece.deck)}, MoE layer, cell of {sequences} x {setting.plan.length}"


def measure(setting: Setting) -> None:
    for case in setting.plan.promise_steps:
        steps.in_turns(setting, "promise", case, {way: [_switch(on)] for on, way in WAYS.items()})
    for piece in setting.plan.promise_layers:
        for sequences in setting.plan.promise_cells:
            _layer(setting, piece, sequences)


def _layer(setting: Setting, piece: Piece, sequences: int) -> None:
    found = setting.results.case(
        "promise", name_of_layer(setting, piece, sequences), setting.options.threads
    )
    given = [f"--warmup={piece.warmup}", f"--repeat={piece.repeats}"]
    given += [f"--batch.cell_sequences={sequences}", f"--batch.global_batch={sequences}"]
    given += [f"--model.sequence_length={setting.plan.length}"]
    for turn in setting.rounds(piece.rounds):
        for kind in setting.options.types:
            for reproducible in (True, False):
                entry = found.entry(HEARTH, variant_of(kind, reproducible))
                with setting.turn(f"promise: {found.name}: round {turn + 1}: {entry.name}", entry):
                    switch = _switch(reproducible)
                    for row in setting.hearth.bench("moe-layer", piece.deck, kind, *given, switch):
                        if row.get("name") == ROUTING:
                            found.flops = 1e9 * row["gflop_per_s"] * row["median_s"]
                            entry.times_s.append(row["median_s"])
                            say(f"  {entry.name}: {row['median_s']:.3f} s")


def _switch(reproducible: bool) -> str:
    return f"--run.reproducible={str(reproducible).lower()}"
