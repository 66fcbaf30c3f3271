"""How a run is started: ranks, threads, where its checkpoints are written."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from launching import environment, mpi_command


@dataclass(frozen=True)
class Layout:
    """One way to start a run."""

    ranks: int
    expert_ranks: int
    threads: int  # of a rank
    background: bool  # checkpoint.background

    def __str__(self) -> str:
        writing = "background" if self.background else "foreground"
        shape = f"{self.ranks} ranks, {self.expert_ranks} expert ranks, {self.threads} threads"
        return f"{shape}, {writing}"

    def command(self, hearth: Path, *arguments: str) -> list[str]:
        layout = [
            f"--parallel.expert_ranks={self.expert_ranks}",
            f"--checkpoint.background={str(self.background).lower()}",
        ]
        return [*mpi_command(self.ranks), str(hearth), *arguments, *layout]

    def environment(self) -> dict[str, str]:
        """Threads and ranks that wait leave their core to others: there are more than cores."""
        waiting = {"OMP_WAIT_POLICY": "passive", "OMPI_MCA_mpi_yield_when_idle": "1"}
        return environment(self.threads, self.ranks) | waiting


def any_layout(dice: random.Random, most_ranks: int) -> Layout:
    ranks = dice.randint(1, most_ranks)
    divisors = [divisor for divisor in range(1, ranks + 1) if ranks % divisor == 0]
    return Layout(ranks, dice.choice(divisors), dice.randint(1, 2), dice.random() < 0.5)
