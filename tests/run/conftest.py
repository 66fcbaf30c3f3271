"""What the whole-program tests share: the program, a launcher and a tiny run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import TinyRun, contents, differences, make_tiny_run

__all__ = ["TinyRun", "contents"]

ROOT = Path(__file__).resolve().parents[2]

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
def launch(command: Callable[[int], list[str]]) -> Launch:
    """Runs the program to its end on `ranks` ranks."""

    def run(ranks: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command(ranks), *arguments],
            env={**os.environ, **environment},
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


def assert_same_run(one: Path, other: Path, step: int = 6) -> None:
    """Weights, moments and statistics after the step are the same, to the bit."""
    assert differences(one, other, step) == []
