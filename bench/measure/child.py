"""Programs that are run and timed: their output, their end, their failure."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

TIMEOUT_S = 900.0


class ChildError(Exception):
    """A program failed; the message is one line."""


@contextlib.contextmanager
def started(
    command: list[str], environment: Mapping[str, str] | None = None, **pipes: Any
) -> Iterator[subprocess.Popen[str]]:
    """Starts a program; at the end it and all that it started are gone."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        **pipes,
    )
    timer = threading.Timer(TIMEOUT_S, kill, (process,))
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        kill(process)
        process.wait()


def kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def lines(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """The program's lines of output as they come."""
    with tempfile.TemporaryFile("w+") as errors:
        pipes = {"stdout": subprocess.PIPE, "stderr": errors}
        with started(command, environment, **pipes) as process:
            yield from process.stdout
            status = process.wait()
        errors.seek(0)
        check(status, errors.read(), (0,))


def check(status: int, errors: str, good: tuple[int, ...]) -> None:
    """ChildError unless the status is good."""
    if status in good:
        return
    said = errors.strip().splitlines() or ["no message"]
    ended = f"signal {-status}" if status < 0 else f"status {status}"
    raise ChildError(f"{ended}: {said[-1]}")


def json_lines(
    command: list[str], environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """The objects of JSON that the program prints, one a line."""
    for line in lines(command, environment):
        if line.startswith("{"):
            yield json.loads(line)
