"""What ends a job before its time under Slurm, and that it then goes on, bit for bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from cluster import NODES
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
    assert {node for restart, node in job.ranks() if restart == "1"} == set(NODES)
    job.assert_undisturbed()


def test_hearth_stops_before_the_job_ends(endless: Endless) -> None:
    # No signal: the program itself sees the end of the job coming.
    job = endless("--time=1", "--signal=B:USR1@0", last_restart=1, margin_s=50)
    assert job.end() == STOPPED, job.log()
    assert job.cluster.restarts(job.number) == 1
    assert "the Slurm job ends in " in job.log()
    job.assert_undisturbed()


def test_restarts_are_bounded(endless: Endless) -> None:
    # A margin longer than the job: every start does one step.
    job = endless(margin_s=1e6, HEARTH_MAX_RESTARTS="1")
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


# SIGTERM to all, which ends mpirun's ranks at once; or --signal's USR1 and time, where the site has
# both (GraceTime, preempt_send_user_signal).
@pytest.mark.parametrize(
    ("partition", "launcher"),
    [("batch", "srun"), ("batch", "mpirun -q"), ("graceful", "mpirun -q")],
)
def test_preemption(endless: Endless, partition: str, launcher: str) -> None:
    options = (f"--partition={partition}", "--nodes=2")
    job = endless(*options, last_restart=1, HEARTH_LAUNCHER=launcher)
    job.wait_for_step(10)
    before = job.newest_step()
    urgent = job.cluster.submit(
        "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1", "--output=/dev/null"
    )
    assert job.cluster.end(urgent) == DONE
    assert job.end() == STOPPED, job.log()
    (resumed,) = job.resumed_at()
    assert resumed >= before
    if (partition, launcher) != ("batch", "mpirun -q"):
        assert f"step {resumed}, weights checksum " in job.log()
    job.assert_undisturbed()


def test_node_failure(endless: Endless) -> None:
    job = endless("--nodes=1", last_restart=1)
    job.wait_for_step(10)
    before = job.newest_step()
    failed = job.ranks()[0][1]
    node = ("scontrol", "update", f"nodename={failed}")
    job.cluster.call(*node, "state=down", "reason=test")
    try:
        assert job.end() == STOPPED, job.log()
    finally:
        job.cluster.call(*node, "state=resume")
    # An idle node started it again.
    assert {node for restart, node in job.ranks() if restart == "1"} == set(NODES) - {failed}
    assert job.resumed_at()[0] >= before
    job.assert_undisturbed()


def test_killed_rank(endless: Endless) -> None:
    job = endless()
    job.wait_for_step(10)
    before = job.newest_step()
    os.kill(job.processes()[-1], signal.SIGKILL)
    assert job.end()[0] == "FAILED", job.log()
    assert job.cluster.restarts(job.number) == 0

    again = endless(last_restart=0)
    assert again.end() == STOPPED, again.log()
    assert again.resumed_at()[0] >= before
    again.assert_undisturbed()
