"""Processes that work on an output folder, by their command line."""

from __future__ import annotations

import contextlib
import os
import signal
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
