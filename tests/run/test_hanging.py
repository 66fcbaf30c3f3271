"""A rank that hangs or dies: the others end in time and say which; the next start resumes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FAULTS, Launch, TinyRun
from running_program import PATIENCE_S, ranks_of, running, wait_for

Command = Callable[[int], list[str]]
TIMEOUT_S = 3.0
TICK_S = TIMEOUT_S / 20  # docs/architecture.md
SLACK_S = 10.0  # on a busy machine, with the launcher's own time to end the ranks
LONG = ("--run.steps=100000", "--checkpoint.every_steps=20", f"--run.hang_timeout_s={TIMEOUT_S}")


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def assert_ended(pids: list[int]) -> None:
    """No process is left, or will be in a moment."""
    limit = time.monotonic() + SLACK_S
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < limit
        time.sleep(0.02)


def wait_for_checkpoint(output: Path, process: subprocess.Popen[str]) -> None:
    """Waits until the run has a checkpoint to resume from."""
    wait_for(lambda: list((output / "checkpoints").glob("step_*.h5")), process)


def errors(stderr: str) -> list[str]:
    """The program's own errors."""
    return [line for line in stderr.splitlines() if line.startswith("hearth: ")]


@pytest.mark.parametrize(("ranks", "stopped"), [(2, 0), (2, 1), (3, 0), (3, 1)])
def test_stopped_rank(
    command: Command, launch: Launch, tiny: TinyRun, ranks: int, stopped: int
) -> None:
    with running([*command(ranks), "train", str(tiny.deck), *LONG]) as process:
        wait_for_checkpoint(tiny.output, process)
        time.sleep(2 * TICK_S)  # what a rank last said of itself may be as old as a tick
        pids = ranks_of(process, ranks)
        start = time.monotonic()
        os.kill(pids[stopped], signal.SIGSTOP)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        took_s = time.monotonic() - start
        assert process.returncode == 1, stderr
        assert TIMEOUT_S - 1 <= took_s <= TIMEOUT_S + SLACK_S
        (error,) = errors(stderr)
        found = re.fullmatch(
            rf"hearth: rank {stopped} \(\S+, process {pids[stopped]}\) has been silent for "
            rf"\d+ s in phase \"[a-z -]+\" of step [1-9]\d*; ended by run.hang_timeout_s = 3",
            error,
        )
        assert found, error
        assert_ended(pids)

    again = launch(ranks, "train", str(tiny.deck), "--run.stop_step=100000", "--run.steps=100000",
                   "--run.walltime_s=0.5")  # fmt: skip
    assert again.returncode == 75, again.stderr
    assert "resumed from" in again.stderr
    assert not (tiny.output / "heartbeat").exists()


def test_stopped_before_the_watch(command: Command, tiny: TinyRun) -> None:
    """A rank that the first one, which is at the lock, waits for when it begins to watch."""
    fault = {
        "LD_PRELOAD": FAULTS,
        "HEARTH_FAULT": f"WAIT 1 {tiny.output}/lock",
        "HEARTH_FAULT_RANK": "0",
    }
    with running([*command(2), "train", str(tiny.deck), *LONG], **fault) as process:
        wait_for(tiny.output.exists, process)
        time.sleep(1)  # for the other to come to where it waits for the lock
        assert not (tiny.output / "lock").exists()
        os.kill(ranks_of(process, 2)[1], signal.SIGSTOP)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1, stderr
        (error,) = errors(stderr)
        assert error.startswith("hearth: rank 1 (which never came so far) has been silent for ")


def test_stopped_while_it_starts(command: Command, tiny: TinyRun) -> None:
    """A rank that never comes to the first step."""
    with running([*command(2), "train", str(tiny.deck), *LONG]) as process:
        wait_for((tiny.output / "heartbeat").exists, process)
        os.kill(ranks_of(process, 2)[1], signal.SIGSTOP)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1, stderr
        (error,) = errors(stderr)
        assert error.startswith("hearth: rank 1 ") and "silent" in error


def test_pause_shorter_than_the_time_out(command: Command, tiny: TinyRun) -> None:
    with running([*command(2), "train", str(tiny.deck), *LONG]) as process:
        wait_for_checkpoint(tiny.output, process)
        pids = ranks_of(process, 2)
        os.kill(pids[1], signal.SIGSTOP)
        time.sleep(0.5 * TIMEOUT_S)
        os.kill(pids[1], signal.SIGCONT)
        time.sleep(2 * TIMEOUT_S)
        assert process.poll() is None
        process.send_signal(signal.SIGUSR1)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 75, stderr
        assert errors(stderr) == []


def test_whole_run_suspended(command: Command, tiny: TinyRun) -> None:
    """As a scheduler does it: the time does not count."""
    with running([*command(2), "train", str(tiny.deck), *LONG]) as process:
        wait_for_checkpoint(tiny.output, process)
        pids = ranks_of(process, 2)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * TIMEOUT_S)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(1)
        process.send_signal(signal.SIGUSR1)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 75, stderr
        assert errors(stderr) == []


def test_time_out_of_zero_waits(command: Command, tiny: TinyRun) -> None:
    never = "--run.hang_timeout_s=0"
    with running([*command(2), "train", str(tiny.deck), *LONG[:2], never]) as process:
        wait_for_checkpoint(tiny.output, process)
        assert not (tiny.output / "heartbeat").exists()
        os.kill(ranks_of(process, 2)[1], signal.SIGSTOP)
        time.sleep(2 * TIMEOUT_S)
        assert process.poll() is None


@pytest.mark.parametrize("killed", [0, 1])
def test_killed_rank(command: Command, launch: Launch, tiny: TinyRun, killed: int) -> None:
    with running([*command(2), "train", str(tiny.deck), *LONG]) as process:
        wait_for_checkpoint(tiny.output, process)
        pids = ranks_of(process, 2)
        start = time.monotonic()
        os.kill(pids[killed], signal.SIGKILL)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert time.monotonic() - start < TIMEOUT_S + SLACK_S
        assert process.returncode not in (0, 75), stderr
        assert_ended(pids)
    again = launch(2, "train", str(tiny.deck), *LONG[:2], "--run.walltime_s=0.5")
    assert again.returncode == 75 and "resumed from" in again.stderr, again.stderr


def freeze_thread(thread: int) -> None:
    """Stops one thread of a process, until this one ends; as a debugger does."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, interrupt = 0x4206, 0x4207
    for request in (seize, interrupt):
        if libc.ptrace(request, thread, None, None) != 0:
            pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")


def await_end_of_traced(thread: int) -> None:
    """Its end is told to the one who traces it before its parent, and must be taken note of."""
    limit = time.monotonic() + PATIENCE_S
    wall = 0x40000000
    while True:
        pid, status = os.waitpid(thread, os.WNOHANG | wall)
        if pid == thread and not os.WIFSTOPPED(status):
            return
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_standard_error_that_nobody_reads(hearth: str, tiny: TinyRun) -> None:
    """The main thread stands still inside a line: the watch can say nothing, but ends the run."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # some 50 steps
    with subprocess.Popen([hearth, "train", str(tiny.deck), *LONG], stderr=writer) as process:
        os.close(writer)
        try:
            assert process.wait(timeout=PATIENCE_S) == 1
        finally:
            process.kill()
            os.close(reader)


@pytest.mark.parametrize(("ranks", "stuck"), [(1, 0), (2, 0), (3, 1)])
def test_main_thread_that_does_not_move(
    command: Command, tiny: TinyRun, ranks: int, stuck: int
) -> None:
    """The process lives and gives signs of it, but the work stands still."""
    with running([*command(ranks), "train", str(tiny.deck), *LONG]) as process:
        wait_for_checkpoint(tiny.output, process)
        pids = ranks_of(process, ranks)
        freeze_thread(pids[stuck])  # a process's first thread has its number
        await_end_of_traced(pids[stuck])
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1, stderr
        (error,) = errors(stderr)
        found = re.fullmatch(
            rf"hearth: rank {stuck} \(\S+, process {pids[stuck]}\) has made no progress for \d+ s "
            rf"in phase \"[a-z -]+\" of step [1-9]\d*, its main thread asleep; "
            rf"ended by run.hang_timeout_s = 3",
            error,
        )
        assert found, error
