"""What ends a job before its time under Slurm, and that it then goes on, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cluster import wait_until
from conftest import Job

Endless = Callable[..., Job]
DONE = ("COMPLETED", 0)
STOPPED = ("FAILED", 75)  # where the tests end a run, and the job may not start again


def test_time_limit_sends_a_signal(endless: Endless) -> None:
    # Slurm looks every 30 s, and sends the signal when 45 s or less are left of the minute.
    job = endless(
        "--time=1",
        "--signal=B:USR1@45",
        "--nodes=2",
        last_restart=1,
        HEARTH_MAX_RESTARTS="9",
        margin_s=0,
    )
    assert job.end() == DONE, job.log()
    # Of the three starts the second reached the end, and the third found nothing to do.
    assert job.cluster.restarts(job.number) == 2
    assert "exit status 75" in job.log() and job.resumed_at()[0] > 0
    assert [node for restart, node in job.ranks() if restart == "1"] == 2 * ["node1"] + 2 * [
        "node2"
    ]
    job.assert_undisturbed()


def test_hearth_stops_before_the_job_ends(endless: Endless) -> None:
    # No signal: the program itself sees the end of the job coming.
    job = endless("--time=1", "--signal=B:USR1@0", last_restart=2, margin_s=50)
    assert job.end() == STOPPED, job.log()
    assert job.cluster.restarts(job.number) == 2
    assert "the Slurm job ends in " in job.log()
    job.assert_undisturbed()


def test_restarts_are_bounded(endless: Endless) -> None:
    job = endless(more=("--run.walltime_s=0.001",), HEARTH_MAX_RESTARTS="1")
    assert job.end() == ("FAILED", 75), job.log()
    assert job.cluster.restarts(job.number) == 1
    assert job.newest_step() == 2


@pytest.mark.parametrize("options", [["--batch"], []], ids=["to the script", "to the ranks"])
def test_scancel_with_a_signal_requeues(endless: Endless, options: list[str]) -> None:
    job = endless(last_restart=1)
    job.wait_for_step(10)
    job.cluster.call("scancel", "--signal=USR1", *options, str(job.number))
    assert job.end() == STOPPED, job.log()
    assert "exit status 75" in job.log()
    job.assert_undisturbed()


def test_scancel_ends_the_job_at_a_checkpoint(endless: Endless) -> None:
    job = endless()
    job.wait_for_step(10)
    job.cluster.call("scancel", str(job.number))
    assert job.end()[0] == "CANCELLED"
    step = job.newest_step()
    assert f"step {step}, weights checksum " in job.log(), job.log()

    again = endless(last_restart=0)
    assert again.end() == STOPPED, again.log()
    assert again.resumed_at()[0] == step
    again.assert_undisturbed()


@pytest.mark.parametrize("launcher", ["srun", "mpirun -q"])
def test_preemption(endless: Endless, launcher: str) -> None:
    job = endless("--nodes=2", last_restart=1, HEARTH_LAUNCHER=launcher)
    job.wait_for_step(10)
    before = job.newest_step()
    urgent = job.cluster.submit(
        "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1", "--output=/dev/null"
    )
    assert job.cluster.end(urgent) == DONE
    assert job.end() == STOPPED, job.log()
    assert job.resumed_at()[0] >= before
    if launcher == "srun":  # has passed SIGTERM on, and the ranks had time for a checkpoint
        assert f"step {job.resumed_at()[0]}, weights checksum " in job.log()
    job.assert_undisturbed()


def test_killed_ranks_lose_what_came_after_the_checkpoint(endless: Endless) -> None:
    job = endless()
    job.wait_for_step(10)
    before = job.newest_step()
    job.cluster.call("scancel", "--signal=KILL", str(job.number))
    assert job.end()[0] in ("FAILED", "CANCELLED"), job.log()
    again = endless(last_restart=0)
    assert again.end() == STOPPED, again.log()
    assert again.resumed_at()[0] >= before
    again.assert_undisturbed()
    wait_until(lambda: not (again.run.output / "lock").exists(), "the lock is released")
