"""The router of docs/adding_a_router.md trains; tests/example_router.cmake builds it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable

import h5py
import pytest
from conftest import TinyRun, assert_same_run


@pytest.fixture
def program() -> str:
    """The program with one more router."""
    path = os.environ.get("HEARTH_WITH_EXAMPLE")
    if path is None:
        pytest.skip("HEARTH_WITH_EXAMPLE is not set: expected the path of hearth_with_example")
    return path


def test_the_example_trains_on_any_layout(
    program: str, command: Callable[[int], list[str]], tiny: TinyRun
) -> None:
    sums = []
    for ranks in (1, 3):
        started = [program] if ranks == 1 else [*command(ranks)[:-1], program]
        finished = subprocess.run(
            [*started, "train", str(tiny.deck), "--moe.router=second_within",
             f"--run.output={tiny.folder / str(ranks)}"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        sums.append(re.findall(r"weights checksum ([0-9a-f]{16})", finished.stderr)[-1])
    assert sums[0] == sums[1]
    assert_same_run(tiny.folder / "1", tiny.folder / "3")
    with h5py.File(tiny.folder / "3" / "routing.h5") as file:
        tokens = file["tokens"][:]
        by_number = file["experts_per_token"][:, 0]
    # Each token has its best expert, some the second too: the margin on initial logits is wide.
    assert (by_number[:, 1:].sum(axis=1) == tokens).all() and (by_number[:, 2] > 0).all()


def test_the_manual_of_the_deck_has_it(program: str) -> None:
    keys = subprocess.run([program, "keys"], capture_output=True, text=True, check=True).stdout
    assert "second_within: the best expert, and the second where its logit is within 0.5" in keys
    assert "`second_within`" in keys
