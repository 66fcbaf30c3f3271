"""Single kernels by name."""

from __future__ import annotations

from measure.plan import Piece, label
from measure.results import HEARTH, PYTORCH
from measure.setting import Setting


def name_of(piece: Piece, kernel: str) -> str:
    return f"{label(piece.deck)}, {kernel}"


def measure(setting: Setting) -> None:
    for piece in setting.plan.kernels:
        for turn in setting.rounds(piece.rounds):
            what = f"kernels: {label(piece.deck)}: round {turn + 1}"
            for kind in setting.options.types:
                with setting.turn(f"{what}: {HEARTH} {kind}"):
                    _of_hearth(setting, piece, kind)
            if setting.pytorch:
                with setting.turn(f"{what}: {PYTORCH}"):
                    _of_pytorch(setting, piece)


def _of_hearth(setting: Setting, piece: Piece, kind: str) -> None:
    given = [f"--warmup={piece.warmup}", f"--repeat={piece.repeats}", "--batch.cell_sequences=1"]
    given += [f"--model.sequence_length={setting.plan.length}"]
    for row in setting.hearth.bench("kernels", piece.deck, kind, *given):
        _add(setting, piece, HEARTH, kind, row)


def _of_pytorch(setting: Setting, piece: Piece) -> None:
    length = str(setting.plan.length)
    given = ["--deck", str(piece.deck), "--tokens", length, "--sequence-length", length]
    given += ["--warmup", str(piece.warmup), "--repeats", str(piece.repeats)]
    for row in setting.pytorch.kernels(*given, *([] if setting.plan.fused else ["--eager"])):
        if "name" in row:
            _add(setting, piece, PYTORCH, f"{row['type']} {row['form']}", row)


def _add(setting: Setting, piece: Piece, program: str, variant: str, row: dict) -> None:
    name = name_of(piece, row["name"])
    case = setting.results.case("kernels", name, setting.options.threads)
    entry = case.entry(program, variant)
    if "error" in row:
        entry.errors.append(row["error"])
        return
    case.flops = 1e9 * row["gflop_per_s"] * row["median_s"]
    entry.times_s.append(row["median_s"])
