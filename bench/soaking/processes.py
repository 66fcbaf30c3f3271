"""Processes that work on an output folder, by their command line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path


def working_on(output: Path) -> list[int]:
    """Those that live: a zombie has no command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if f"--run.output={output}".encode() in arguments:
                found.append(int(process.name))
    return found


def wait_for_end(mpirun: subprocess.Popen[str], output: Path, patience_s: float) -> bool:
    """Waits for mpirun's end. One that outlives all its ranks (Open MPI 4.1.4 may, where a rank is
    killed while others start) is killed; whether that had to be."""
    seen_s = time.monotonic()  # when a rank was last seen
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            mpirun.wait(1.0)
            return False
        if any(pid != mpirun.pid for pid in working_on(output)):
            seen_s = time.monotonic()
        if time.monotonic() - seen_s > patience_s:
            mpirun.kill()
            mpirun.wait()
            return True


def wait_until_gone(output: Path, patience_s: float) -> int:
    """Waits for ranks that outlive their mpirun; kills those that do not go, and says how many."""
    limit = time.monotonic() + patience_s
    while working_on(output) and time.monotonic() < limit:
        time.sleep(0.05)
    left = working_on(output)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while working_on(output):
        time.sleep(0.05)
    return len(left)
