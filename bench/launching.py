"""How programs are started: on several ranks, and with what in their environment."""

from __future__ import annotations

import os


def mpi_command(ranks: int) -> list[str]:
    """What comes before a command that is to run on so many ranks."""
    command = ["mpirun", "-q", "-n", str(ranks), "--bind-to", "none"]
    return [*command, "--oversubscribe"] if ranks > (os.cpu_count() or 1) else command


def environment(threads: int, ranks: int = 1) -> dict[str, str]:
    """What the environment gets besides."""
    added = {"OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "false"}
    if os.geteuid() == 0:  # Open MPI wants to be told twice
        added |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if ranks > (os.cpu_count() or 1):
        added["OMPI_MCA_mpi_yield_when_idle"] = "1"
    return added
