"""What happens to a run while it is at work."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from soaking.layout import Layout

KILLS = ("one rank", "all ranks", "mpirun", "in a call that writes")
SIGNAL, DISK = "SIGUSR1", "disk error"


@dataclass(frozen=True)
class Disturbance:
    """One of KILLS, SIGNAL or DISK; and when."""

    kind: str
    after_s: float  # since the first rank lives
    victim: int  # rank
    call: int  # of those that change files, where the kind happens in one

    def is_in_a_call(self) -> bool:
        return self.kind in (KILLS[3], DISK)

    def environment(self, faults: Path, output: Path) -> dict[str, str]:
        """For calls that fail or kill: tests/faults/faults.h."""
        if not self.is_in_a_call():
            return {}
        effect = "KILL" if self.kind == KILLS[3] else "EIO"
        return {
            "LD_PRELOAD": str(faults),
            "HEARTH_FAULT": f"{effect} {self.call} {output}/",
            "HEARTH_FAULT_RANK": str(self.victim),
        }

    def happen(self, mpirun: subprocess.Popen[str]) -> None:
        """Waits for its time and does it; nothing where the run has ended before."""
        if self.is_in_a_call():
            return
        if not wait_for_ranks(mpirun):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            mpirun.wait(self.after_s)
        if mpirun.poll() is not None:
            return
        ranks = ranks_of(mpirun.pid)
        if self.kind == KILLS[0]:
            send(ranks[self.victim : self.victim + 1], signal.SIGKILL)
        elif self.kind == KILLS[1]:
            send(ranks, signal.SIGKILL)
        elif self.kind == KILLS[2]:
            send([mpirun.pid], signal.SIGKILL)
        else:
            send([mpirun.pid], signal.SIGUSR1)


def any_disturbance(
    dice: random.Random, layout: Layout, latest_s: float, with_faults: bool
) -> Disturbance:
    kinds = [*KILLS[:3], SIGNAL] + ([KILLS[3], KILLS[3], DISK] if with_faults else [])
    return Disturbance(
        dice.choice(kinds), dice.uniform(0.0, latest_s), dice.randrange(layout.ranks),
        int(dice.expovariate(1 / 400)) + 1,
    )  # fmt: skip


def ranks_of(pid: int) -> list[int]:
    """Process ids of what an mpirun has started; none when it is gone."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def wait_for_ranks(mpirun: subprocess.Popen[str]) -> bool:
    """Whether it has come so far as to start some."""
    while mpirun.poll() is None:
        if ranks_of(mpirun.pid):
            return True
        time.sleep(0.005)
    return False


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
