"""A program at work: started, waited for, asked for its ranks, ended with all that it started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_S = 60.0


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command at work, mpirun or the program itself; what is left of it is killed in the end,
    stopped ranks too."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            for pid in [*children_of(process), process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate(timeout=PATIENCE_S)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits until a running program has come so far."""
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, "the program does not get so far"
        time.sleep(0.02)


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """Ids of the processes that its main thread has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def rank_number(pid: int) -> int:
    """A process's rank, from the environment that its launcher gave it; -1: not yet."""
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    found = re.search(rb"\0OMPI_COMM_WORLD_RANK=(\d+)", environment)
    return int(found[1]) if found else -1


def ranks_of(mpirun: subprocess.Popen[str], ranks: int) -> list[int]:
    """Process ids of an mpirun's ranks, in their order, once all are there."""
    pids: list[int] = []

    def all_there() -> bool:
        pids[:] = sorted(children_of(mpirun), key=rank_number)
        return [rank_number(pid) for pid in pids] == list(range(ranks))

    wait_for(all_there, mpirun)
    return pids
