"""Stopping early: by the deck, a signal, the clock, a killed rank; and starting again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Launch, TinyRun, assert_same_run
from running_program import PATIENCE_S, ranks_of, running, wait_for

REQUEUE = 75
Command = Callable[[int], list[str]]

# Long enough to be stopped on the way; a checkpoint after each step.
LONG = ("--run.steps=100000", "--checkpoint.every_steps=1", "--run.log_every=1")


def checksum(stderr: str) -> str:
    """What the run ends with: the step and the checksum of its weights."""
    found = re.findall(r"step \d+, weights checksum [0-9a-f]{16}", stderr)
    assert len(found) == 1, stderr
    return found[0]


def steps_done(output: Path) -> int:
    """The step of the newest checkpoint."""
    names = (output / "checkpoints").glob("step_*.h5")
    return max((int(name.stem[5:]) for name in names), default=0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_stop_step(launch: Launch, tiny: TinyRun, ranks: int) -> None:
    deck = str(tiny.deck)
    whole = launch(ranks, "train", deck, f"--run.output={tiny.folder / 'whole'}")
    assert whole.returncode == 0, whole.stderr

    first = launch(ranks, "train", deck, "--run.stop_step=4")
    assert first.returncode == REQUEUE, first.stderr
    assert checksum(first.stderr).startswith("step 4,")
    assert steps_done(tiny.output) == 4
    assert not (tiny.output / "lock").exists()

    second = launch(ranks, "train", deck)
    assert second.returncode == 0, second.stderr
    assert checksum(second.stderr) == checksum(whole.stderr)


def test_start_past_stop_step(launch: Launch, tiny: TinyRun) -> None:
    deck = str(tiny.deck)
    assert launch(1, "train", deck, "--run.stop_step=4").returncode == REQUEUE
    for stop in (4, 2):
        again = launch(2, "train", deck, f"--run.stop_step={stop}")
        assert again.returncode == 0, again.stderr
        assert "nothing to do" in again.stderr
    assert steps_done(tiny.output) == 4
    assert not (tiny.output / "lock").exists()


def test_start_of_a_finished_run(launch: Launch, tiny: TinyRun) -> None:
    assert launch(1, "train", str(tiny.deck)).returncode == 0
    again = launch(1, "train", str(tiny.deck))
    assert again.returncode == 0 and "nothing to do" in again.stderr


def test_resume_from_an_older_checkpoint_is_the_new_course(launch: Launch, tiny: TinyRun) -> None:
    train = ("train", str(tiny.deck))
    whole = launch(1, *train)
    assert whole.returncode == 0, whole.stderr
    older = tiny.output / "checkpoints" / "step_00000003.h5"
    change = "--optimizer.learning_rate=2e-2"
    back = launch(1, *train, change, f"--checkpoint.resume={older}", "--run.stop_step=4")
    assert back.returncode == REQUEUE, back.stderr
    on = launch(2, *train, change)
    assert on.returncode == 0 and "at step 4\n" in on.stderr
    assert checksum(on.stderr) != checksum(whole.stderr)


def test_signal_to_mpirun(command: Command, launch: Launch, tiny: TinyRun) -> None:
    with running([*command(2), "train", str(tiny.deck), *LONG]) as process:
        wait_for(lambda: steps_done(tiny.output) >= 1, process)
        process.send_signal(signal.SIGUSR1)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == REQUEUE, stderr
    step = steps_done(tiny.output)
    stopped = checksum(stderr)
    assert stopped.startswith(f"step {step},")
    assert not (tiny.output / "lock").exists()

    stop = f"--run.stop_step={step + 2}"
    again = launch(2, "train", str(tiny.deck), *LONG, stop)
    assert again.returncode == REQUEUE, again.stderr
    assert f"at step {step}\n" in again.stderr
    whole = launch(1, "train", str(tiny.deck), *LONG, stop, f"--run.output={tiny.folder}/whole")
    assert checksum(again.stderr) == checksum(whole.stderr)


def test_a_signal_between_checkpoints_leaves_no_trace(
    command: Command, launch: Launch, tiny: TinyRun
) -> None:
    long = ("--run.steps=100000", "--run.log_every=1", "--checkpoint.every_steps=20")
    deck = str(tiny.deck)
    logged = tiny.output / "metrics.jsonl"

    def logged_bytes() -> int:
        return logged.stat().st_size if logged.exists() else 0

    def step_of_a_signal() -> int:
        before = logged_bytes()
        with running([*command(2), "train", deck, *long]) as process:
            wait_for(lambda: logged_bytes() > before, process)
            process.send_signal(signal.SIGUSR1)
            _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == REQUEUE, stderr
        return steps_done(tiny.output)

    step = step_of_a_signal()
    while step % 20 == 0:  # at a checkpoint of the deck it shows nothing
        step = step_of_a_signal()

    last = (step // 20 + 1) * 20
    whole = tiny.folder / "whole"
    for output, ranks in ((tiny.output, 3), (whole, 1)):
        stop = (f"--run.stop_step={last}", f"--run.output={output}")
        finished = launch(ranks, "train", deck, *long, *stop)
        assert finished.returncode == REQUEUE, finished.stderr
    assert_same_run(whole, tiny.output, last)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_to_a_single_process(hearth: str, tiny: TinyRun, number: signal.Signals) -> None:
    with running([hearth, "train", str(tiny.deck), *LONG]) as process:
        wait_for(lambda: steps_done(tiny.output) >= 1, process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == REQUEUE, stderr
    assert checksum(stderr).startswith(f"step {steps_done(tiny.output)},")


def test_a_reader_that_is_gone(hearth: str, tiny: TinyRun) -> None:
    """The run goes on without those who looked at it, as `| head -1` does."""
    reader, writer = os.pipe()
    with subprocess.Popen([hearth, "train", str(tiny.deck)], stderr=writer) as process:
        os.close(writer)
        os.close(reader)
        assert process.wait(timeout=PATIENCE_S) == 0
    assert steps_done(tiny.output) == 6


def test_signal_during_the_start(hearth: str, tiny: TinyRun) -> None:
    # A deck in a pipe: the program waits for it before it has read anything.
    pipe = tiny.folder / "pipe.deck"
    os.mkfifo(pipe)
    with running([hearth, "train", str(pipe), *LONG]) as process:
        ends: list[int] = []

        def is_open() -> bool:
            try:
                ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        wait_for(is_open, process)
        process.send_signal(signal.SIGUSR1)
        with os.fdopen(ends[0], "w") as writer:
            writer.write(tiny.deck.read_text())
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == REQUEUE, stderr
    assert steps_done(tiny.output) == 1


@pytest.mark.parametrize("ranks", [1, 2])
def test_walltime(launch: Launch, tiny: TinyRun, ranks: int) -> None:
    finished = launch(ranks, "train", str(tiny.deck), *LONG, "--run.walltime_s=0.01")
    assert finished.returncode == REQUEUE, finished.stderr
    assert checksum(finished.stderr).startswith(f"step {steps_done(tiny.output)},")


def test_end_of_the_slurm_job(launch: Launch, tiny: TinyRun) -> None:
    # Ten seconds of steps, and time enough for the checkpoint even on a busy machine.
    end = int(time.time()) + 40
    margin = "--run.walltime_margin_s=30"
    finished = launch(2, "train", str(tiny.deck), *LONG, margin, SLURM_JOB_END_TIME=f"{end}")
    assert finished.returncode == REQUEUE, finished.stderr
    assert time.time() < end
    assert "the Slurm job ends in " in finished.stderr
    assert steps_done(tiny.output) > 1
    assert checksum(finished.stderr).startswith(f"step {steps_done(tiny.output)},")


def test_end_of_the_slurm_job_within_the_margin(launch: Launch, tiny: TinyRun) -> None:
    end = f"{int(time.time()) + 3600}"
    deck = str(tiny.deck)
    short = launch(1, "train", deck, "--run.walltime_margin_s=7200", SLURM_JOB_END_TIME=end)
    assert short.returncode == REQUEUE, short.stderr
    assert steps_done(tiny.output) == 1  # every start gets one step further
    enough = launch(1, "train", deck, SLURM_JOB_END_TIME=end)
    assert enough.returncode == 0, enough.stderr


def test_end_of_the_slurm_job_that_is_no_time(launch: Launch, tiny: TinyRun) -> None:
    for value in ("", "tomorrow", "12:00"):
        refused = launch(2, "train", str(tiny.deck), SLURM_JOB_END_TIME=value)
        assert refused.returncode == 2, refused.stderr
        assert f"SLURM_JOB_END_TIME: found '{value}'; expected" in refused.stderr
    assert not tiny.output.exists()


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_rank(command: Command, launch: Launch, tiny: TinyRun, victim: int) -> None:
    deck = str(tiny.deck)
    with running([*command(2), "train", deck, *LONG]) as process:
        wait_for(lambda: steps_done(tiny.output) >= 2, process)
        os.kill(ranks_of(process, 2)[victim], signal.SIGKILL)
        killed = time.monotonic()
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode not in (0, REQUEUE), stderr
    assert time.monotonic() - killed < 30
    step = steps_done(tiny.output)

    stop = f"--run.stop_step={step + 2}"
    again = launch(2, "train", deck, *LONG, stop)
    assert again.returncode == REQUEUE, again.stderr
    assert f"at step {step}\n" in again.stderr
    whole = launch(1, "train", deck, *LONG, stop, f"--run.output={tiny.folder}/whole")
    assert checksum(again.stderr) == checksum(whole.stderr)
    assert not list(tiny.output.rglob("*.tmp"))


def test_second_writer(command: Command, launch: Launch, tiny: TinyRun) -> None:
    deck = str(tiny.deck)
    with running([*command(1), "train", deck, *LONG]) as process:
        wait_for(lambda: steps_done(tiny.output) >= 1, process)
        for ranks in (1, 2):
            second = launch(ranks, "train", deck, *LONG)
            assert second.returncode == 2, second.stderr
            assert second.stderr.count("hearth: ") == 1
            assert f"{tiny.output}: is in use by process " in second.stderr
        half_written = tiny.output / "checkpoints" / "step_99999999.h5.tmp"
        half_written.touch()
        looking = launch(2, "evaluate", deck, *LONG)
        assert looking.returncode == 0, looking.stderr
        assert "validation loss" in looking.stdout
        assert half_written.exists() and (tiny.output / "lock").exists()
        process.send_signal(signal.SIGUSR1)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == REQUEUE, stderr
