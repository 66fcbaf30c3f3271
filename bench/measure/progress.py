"""Lines on standard error that say how far a run is."""

from __future__ import annotations

import sys
import time

_start = time.monotonic()


def elapsed_s() -> float:
    return time.monotonic() - _start


def say(text: str) -> None:
    minutes, seconds = divmod(int(elapsed_s()), 60)
    print(f"[{minutes:3d}:{seconds:02d}] {text}", file=sys.stderr, flush=True)
