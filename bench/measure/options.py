"""The command line of bench/run."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ("steps", "cores", "layers", "kernels", "promise", "statistics")
TYPES = ("fp32", "bf16")

DESCRIPTION = """\
Measures Hearth beside PyTorch on the same cores in turns, prints one table, and writes results.json
and results.png. The products' ceiling is measured first and last. Sections:

  steps       whole training steps of FLAME-38M and FLAME-98M; peak memory, phases, launch
  cores       one process on one core, one on two, two on one each; Hearth alone
  layers      one MoE layer of FLAME-290M and FLAME-1.7B, natural and balanced routing
  kernels     single kernels at the sizes of FLAME-38M and FLAME-290M
  promise     run.reproducible = true beside false: steps and a layer; Hearth alone
  statistics  FLAME-38M's steps with all routing statistics and traces, and the least; Hearth alone

Figures mean something only on a machine that does nothing else.
"""


@dataclass(frozen=True)
class Options:
    """What a call asks for."""

    sections: tuple[str, ...]
    types: tuple[str, ...]  # Hearth's compute types
    quick: bool
    hearth_only: bool
    variants: list[str]  # PyTorch's; none: chosen by a trial
    rounds: int | None  # instead of the plan's
    threads: int
    build: Path
    torch: Path
    output: Path


def parse(text: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        type=_several(SECTIONS),
        default=SECTIONS,
        metavar="LIST",
        help=f"sections, of {','.join(SECTIONS)} (default: all)",
    )
    parser.add_argument(
        "--types",
        type=_several(TYPES),
        default=TYPES,
        metavar="LIST",
        help=f"Hearth's compute types, of {','.join(TYPES)} (default: both)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one round: a test of this program"
    )
    parser.add_argument("--hearth-only", action="store_true", help="leave PyTorch out")
    parser.add_argument(
        "--variants",
        type=lambda text: text.split(","),
        default=[],
        metavar="LIST",
        help="PyTorch's in steps and layers, as bench/pytorch/train_step.py names them "
        "(default: the fastest of a trial)",
    )
    parser.add_argument("--rounds", type=_positive, help="turns of each program")
    parser.add_argument(
        "--threads",
        type=_positive,
        default=len(os.sched_getaffinity(0)),
        help="of each program (default: %(default)s, the cores here)",
    )
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build/release", help="where hearth was built"
    )
    parser.add_argument(
        "--torch",
        type=Path,
        default=ROOT / "build/bench-venv/bin/python",
        help="a Python with PyTorch (bench/pytorch/environment.sh)",
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "runs/bench", help="folder (default: runs/bench)"
    )
    a = parser.parse_args(text)
    return Options(
        a.only, a.types, a.quick, a.hearth_only, a.variants, a.rounds, a.threads, a.build, a.torch,
        a.output,
    )  # fmt: skip


def _several(known: tuple[str, ...]):
    def names(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of {', '.join(known)}")
        return found

    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return number
