"""What the whole-program tests share: the program, a launcher and a tiny run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import TinyRun, contents, make_tiny_run

__all__ = ["TinyRun", "contents", "make_tiny_run"]

ROOT = Path(__file__).resolve().parents[2]
# Loaded before the program, makes calls of the system fail: tests/faults/faults.h.
FAULTS = os.environ.get("HEARTH_FAULTS", str(ROOT / "build/release/tests/libhearth_faults.so"))
sys.path.insert(0, str(ROOT / "postprocess"))

from compare import report  # noqa: E402
from run_comparison import STATISTICS, compare_runs  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: minutes; left out of ctest without -C slow")


Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def hearth() -> str:
    """Path of the program."""
    return os.environ.get("HEARTH", str(ROOT / "build/release/hearth"))


@pytest.fixture(scope="session")
def command(hearth: str) -> Callable[[int], list[str]]:
    """The command line that starts the program on a number of ranks."""

    def build(ranks: int) -> list[str]:
        return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), hearth]

    return build


@pytest.fixture(scope="session")
def launch(hearth: str, command: Callable[[int], list[str]]) -> Launch:
    """Runs the program to its end on `ranks` ranks; one without mpirun, which takes two seconds to
    end where the status is not 0."""

    def run(ranks: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*(command(ranks) if ranks > 1 else [hearth]), *arguments],
            # Threads that wait do not spin: there are more of them than cores.
            env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRun:
    """A fresh tiny run in a folder of its own."""
    return make_tiny_run(tmp_path)


# ranks, expert_ranks, threads a rank
Layout = tuple[int, int, int]


def train(launch: Launch, tiny: TinyRun, name: str, layout: Layout, *more: str) -> str:
    """Trains into <folder>/<name>; returns the checksum of the weights that it ends with."""
    ranks, expert_ranks, threads = layout
    finished = launch(
        ranks,
        "train",
        str(tiny.deck),
        f"--run.output={tiny.folder / name}",
        f"--parallel.expert_ranks={expert_ranks}",
        *more,
        OMP_NUM_THREADS=str(threads),
    )
    assert finished.returncode in (0, 75), finished.stderr
    found = re.findall(r"weights checksum ([0-9a-f]{16})", finished.stderr)
    assert found, finished.stderr
    return found[-1]


def assert_same_run(one: Path, other: Path, step: int = 6) -> None:
    """Every row of statistics, and the checkpoints of both, the step's among them, are the same."""
    comparison = compare_runs(one, other)
    assert comparison.same, "\n".join(report(comparison))
    assert comparison.statistics.keys() == set(STATISTICS)
    for statistics in comparison.statistics.values():
        assert not statistics.notes
    assert step in [checkpoint.step for checkpoint in comparison.checkpoints]
