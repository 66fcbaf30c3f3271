"""How much is measured: cases, rounds and repeats of a full run and of a quick one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from measure.options import ROOT

INPUTS = ROOT / "inputs"


@dataclass(frozen=True)
class Steps:
    """Whole training steps of a deck's model, all of a step's sequences in one cell."""

    deck: Path
    sequences: int
    rounds: int
    steps: int  # timed, of a turn
    warmup: int


@dataclass(frozen=True)
class Piece:
    """A layer or the kernels at a deck's sizes, one sequence."""

    deck: Path
    rounds: int
    repeats: int
    warmup: int


@dataclass(frozen=True)
class Plan:
    """Everything that is measured."""

    length: int  # tokens of a sequence
    launches: int
    ceiling: tuple[int, int]  # warm-up and timed runs
    steps: tuple[Steps, ...]  # PyTorch's variants are tried on the first
    cores: Steps  # its sequences are cells, one each
    layers: tuple[Piece, ...]  # the same
    kernels: tuple[Piece, ...]
    promise_steps: tuple[Steps, ...]
    promise_layers: tuple[Piece, ...]
    promise_cells: tuple[int, ...]  # sequences of a layer's cell
    statistics_steps: Steps
    fused: bool = True  # PyTorch's compiled forms too


_38M, _98M, _290M, _1700M = (
    INPUTS / f"flame-{size}.deck" for size in ("38m", "98m", "290m", "1.7b")
)
FULL = Plan(
    length=2048,
    launches=3,
    ceiling=(2, 7),
    steps=(
        Steps(_38M, sequences=1, rounds=2, steps=3, warmup=2),
        Steps(_38M, sequences=8, rounds=1, steps=2, warmup=1),
        Steps(_98M, sequences=1, rounds=2, steps=2, warmup=1),
    ),
    cores=Steps(_38M, sequences=2, rounds=2, steps=1, warmup=1),
    layers=(
        Piece(_290M, rounds=2, repeats=3, warmup=1),
        Piece(_1700M, rounds=1, repeats=2, warmup=1),
    ),
    kernels=(
        Piece(_38M, rounds=2, repeats=5, warmup=2),
        Piece(_290M, rounds=1, repeats=5, warmup=2),
    ),
    promise_steps=(
        Steps(_38M, sequences=1, rounds=3, steps=3, warmup=2),
        Steps(_38M, sequences=8, rounds=3, steps=1, warmup=1),
    ),
    promise_layers=(Piece(_290M, rounds=2, repeats=3, warmup=1),),
    promise_cells=(1, 8),
    statistics_steps=Steps(_38M, sequences=1, rounds=2, steps=40, warmup=2),
)

_TINY = ROOT / "bench/quick.deck"
QUICK = Plan(
    length=64,
    launches=1,
    ceiling=(0, 1),
    steps=(
        Steps(_TINY, sequences=1, rounds=1, steps=2, warmup=1),
        Steps(_TINY, sequences=8, rounds=1, steps=1, warmup=1),
    ),
    cores=Steps(_TINY, sequences=2, rounds=1, steps=1, warmup=1),
    layers=(Piece(_TINY, rounds=1, repeats=1, warmup=1),),
    kernels=(Piece(_TINY, rounds=1, repeats=1, warmup=1),),
    promise_steps=(Steps(_TINY, sequences=1, rounds=1, steps=1, warmup=1),),
    promise_layers=(Piece(_TINY, rounds=1, repeats=1, warmup=1),),
    promise_cells=(1, 8),
    statistics_steps=Steps(_TINY, sequences=1, rounds=1, steps=2, warmup=1),
    fused=False,
)


def label(deck: Path) -> str:
    """A model's name for the table: FLAME-38M."""
    return deck.stem.upper()
