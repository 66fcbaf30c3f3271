"""The layouts, cells, types and routers over which a run must be the same, to the bit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import combinations, product
from pathlib import Path

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "deck.md"

RANKS = (1, 2, 3, 4, 5, 6, 8)
THREADS = (1, 2)
CELLS = ("even", "uneven", "fewer than ranks")
COMPUTE_TYPES = ("fp32", "bf16")


@dataclass(frozen=True)
class Case:
    """One run: where it runs, and what it computes."""

    ranks: int
    expert_ranks: int
    threads: int
    cells: str
    compute_type: str
    router: str

    def __str__(self) -> str:
        return "-".join(str(value).replace(" ", "_") for value in astuple(self))

    @property
    def layout(self) -> tuple[int, int, int]:
        return self.ranks, self.expert_ranks, self.threads

    def model(self) -> tuple[str, ...]:
        """Options of the run that are not its layout."""
        sequences, cell_sequences = self._sequences()
        return (
            f"--batch.global_batch={sequences}",
            f"--batch.cell_sequences={cell_sequences}",
            f"--model.compute_type={self.compute_type}",
            f"--moe.router={self.router}",
        )

    def _sequences(self) -> tuple[int, int]:
        if self.cells == "uneven":  # over any number of ranks but 1; the last cell is shorter
            return 21, 2
        if self.cells == "even":
            return 2 * self.ranks * max(1, 6 // self.ranks), 2
        return 2 * (self.ranks // 2), 2


def routers() -> list[str]:
    """Those that the deck knows; test_manual_is_current holds the manual to the option table."""
    row = re.search(r"^\| `router` \|.*\(one of: ([^)]*)\)", MANUAL.read_text(), re.MULTILINE)
    assert row, f"{MANUAL}: no list of routers"
    return re.findall(r"`(\w+)`", row[1])


def layouts() -> Iterator[tuple[int, int, int]]:
    """ranks, expert_ranks, threads"""
    for ranks, threads in product(RANKS, THREADS):
        for expert_ranks in range(1, ranks + 1):
            if ranks % expert_ranks == 0:
                yield ranks, expert_ranks, threads


def all_cases() -> list[Case]:
    return [
        Case(*layout, cells, compute_type, router)
        for layout, cells, compute_type, router in product(
            layouts(), CELLS, COMPUTE_TYPES, routers()
        )
        if cells != "fewer than ranks" or layout[0] > 1
    ]


def pairs(case: Case) -> set[tuple[object, ...]]:
    """Every two of its values, with the places where they stand."""
    return {(*a, *b) for a, b in combinations(enumerate(astuple(case)), 2)}


def covering(cases: Sequence[Case]) -> list[Case]:
    """A few of the cases in which every pair of values appears that appears in all of them."""
    left = set().union(*map(pairs, cases))
    chosen: list[Case] = []
    while left:
        best = max(cases, key=lambda case: len(pairs(case) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen
