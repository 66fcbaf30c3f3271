"""The cluster, and a tiny run whose end the tests choose."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from cluster import ROOT, Cluster, missing_programs, slurm_cluster, wait_until

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/run")]

from run.conftest import (  # noqa: E402, F401
    Launch,
    TinyRun,
    assert_same_run,
    command,
    hearth,
    launch,
    tiny,
)

# What stands for the program in jobs. It notes where every rank is, and lets a run end with a
# certain start of its job, three steps after the checkpoint that this one goes on from.
PROGRAM = """\
#!/usr/bin/env bash
arguments=("$@")
restarts=${{SLURM_RESTART_COUNT:-0}}
if [[ $1 == train ]]; then
  echo "$SLURM_JOB_ID $restarts $SLURMD_NODENAME ${{CUDA_VISIBLE_DEVICES-}}" >>{folder}/ranks
  echo "$SLURM_JOB_ID $$" >>{folder}/processes
fi
if [[ $1 == train && -n ${{LAST_RESTART-}} && $restarts -ge $LAST_RESTART ]]; then
  newest=$(find "$OUTPUT/checkpoints" -name 'step_????????.h5' | sort | tail -n 1)
  step=$((10#${{newest: -11:8}}))
  arguments+=(--run.stop_step=$((restarts == LAST_RESTART ? step + 3 : step)))
fi
exec {hearth} "${{arguments[@]}}"
"""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, hearth: str) -> Iterator[Cluster]:  # noqa: F811
    """Slurm with two nodes that share this machine."""
    missing = missing_programs()
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(missing)}; ./quickstart test installs them")
    if missing:
        pytest.skip(f"Slurm is not installed: no {', '.join(missing)} (docs/install.md)")
    folder = tmp_path_factory.mktemp("cluster")
    program = folder / "hearth"
    program.write_text(PROGRAM.format(folder=folder, hearth=hearth))
    program.chmod(0o755)
    with slurm_cluster(folder) as started:
        started.environment |= {
            "HEARTH": str(program),
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
            # Two nodes of one host: no memory that is named after the host.
            "OMPI_MCA_btl": "self,tcp",
            # Not PMIx's store in shared memory: about one start in a hundred under srun, of any MPI
            # program, crashed before MPI_Init was through.
            "PMIX_MCA_gds": "hash",
            "OMPI_MCA_mpi_yield_when_idle": "1",
            "OMPI_MCA_hwloc_base_binding_policy": "none",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
        if not has_network():
            started.environment |= {
                "OMPI_MCA_btl_tcp_if_include": "lo",
                "OMPI_MCA_oob_tcp_if_include": "lo",
            }
        yield started


def has_network() -> bool:
    """Whether this machine has an address that others could reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # of documentation; a datagram socket sends nothing yet
        except OSError:
            return False
    return True


@dataclass
class Job:
    """A job that trains the tiny deck without end, until start `last_restart` of it."""

    cluster: Cluster
    number: int
    run: TinyRun
    launch: Launch

    def newest_step(self) -> int:
        """The step of the newest checkpoint; 0: none."""
        names = (self.run.output / "checkpoints").glob("step_????????.h5")
        return max((int(name.stem[5:]) for name in names), default=0)

    def wait_for_step(self, step: int) -> None:
        wait_until(lambda: self.newest_step() >= step, f"step {step}")

    def ranks(self) -> list[tuple[str, ...]]:
        return self.cluster.ranks(self.number)

    def processes(self) -> list[int]:
        """Of all ranks so far."""
        lines = (self.cluster.folder / "processes").read_text().splitlines()
        return [int(p) for job, p in (line.split() for line in lines) if int(job) == self.number]

    def resumed_at(self) -> list[int]:
        """The steps that later starts went on from."""
        return [int(step) for step in re.findall(r"resumed from \S+ at step (\d+)", self.log())]

    def log(self) -> str:
        return self.cluster.log(self.number)

    def end(self) -> tuple[str, int]:
        return self.cluster.end(self.number)

    def assert_undisturbed(self) -> None:
        """The run is, to the bit, one that nothing interrupted, on one rank without Slurm."""
        step = self.newest_step()
        whole = self.run.folder / "whole"
        deck, output, stop = self.run.deck, f"--run.output={whole}", f"--run.stop_step={step}"
        twin = self.launch(1, "train", str(deck), *ENDLESS, output, stop, OMP_NUM_THREADS="1")
        assert twin.returncode in (0, 75), twin.stderr
        assert_same_run(whole, self.run.output, step)


# A schedule that no test reaches the end of, checkpoints in short distances. The clock ends what
# would be left behind where a test itself is killed.
ENDLESS = (
    "--run.steps=100000",
    "--run.walltime_s=600",
    "--checkpoint.every_steps=5",
    "--run.log_every=100",
)


@pytest.fixture
def endless(cluster: Cluster, tiny: TinyRun, launch: Launch) -> Callable[..., Job]:  # noqa: F811
    """Submits an endless training; options are sbatch's."""

    def submit(
        *options: str,
        margin_s: float = 5,
        last_restart: int | None = None,
        **environment: str,
    ) -> Job:
        variables = {"OUTPUT": str(tiny.output)}
        if last_restart is not None:
            variables["LAST_RESTART"] = variables["HEARTH_MAX_RESTARTS"] = str(last_restart)
        variables |= environment
        deck = [tiny.deck, *ENDLESS, f"--run.walltime_margin_s={margin_s}"]
        number = cluster.submit(*options, "jobscripts/cpu/train.sh", *deck, **variables)
        return Job(cluster, number, tiny, launch)

    return submit
