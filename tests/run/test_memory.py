"""What `hearth check` says about memory, and what happens where there is too little of it."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable

import pytest
from conftest import Launch, TinyRun

LIMIT_KIB = 3_000_000
# Weights that fit into the limit with room to spare, activations that do not.
LARGE_CELL = [
    "--model.dense_ffn=40000",
    "--batch.global_batch=1024",
    "--batch.cell_sequences=512",
]


def activations(launch: Launch, tiny: TinyRun, *options: str) -> tuple[float, float]:
    """GiB of a cell with balanced routing and in the worst case, as check prints them."""
    finished = launch(1, "check", str(tiny.deck), *LARGE_CELL, *options)
    assert finished.returncode == 0, finished.stderr
    found = re.search(
        r"activations of a cell there, GiB: balanced routing ([0-9.]+), worst case ([0-9.]+)\n",
        finished.stdout,
    )
    assert found, finished.stdout
    return float(found[1]), float(found[2])


def test_check_prints_activations(launch: Launch, tiny: TinyRun) -> None:
    more = ["--moe.expert_ffn=20000", "--ranks=7", "--parallel.expert_ranks=7"]
    balanced, worst = activations(launch, tiny, *more)
    # The expert of a rank gets 3/7 of the tokens of 7 cells, or all of them.
    assert 1.2 * balanced < worst < 2.4 * balanced
    again_balanced, again_worst = activations(launch, tiny, *more, "--model.recompute=block")
    assert again_balanced < balanced
    assert again_worst < worst


def test_check_prints_what_equality_costs(launch: Launch, tiny: TinyRun) -> None:
    line = r"equality on any layout, at rates measured here: about ([0-9.]+) % of its step"
    found = re.search(line, launch(1, "check", str(tiny.deck)).stdout)
    assert found and 0 <= float(found[1]) <= 100
    off = launch(1, "check", str(tiny.deck), "--run.reproducible=false").stdout
    assert "equality" not in off
    sums = "gradient sums ([0-9.]+)"
    large = ("--model.vocabulary=1000000",)
    fixed, plain = (
        float(re.search(sums, launch(1, "check", str(tiny.deck), *large, *more).stdout)[1])
        for more in ((), ("--run.reproducible=false",))
    )
    assert plain == pytest.approx(fixed / 2, abs=2e-3)


def test_check_prints_token_statistics(launch: Launch, tiny: TinyRun) -> None:
    options = ["--model.vocabulary=1048576", "--moe.experts=64"]
    # (1 layer, 2^20 token ids, 64 experts) int64 are 0.5 GiB; two checkpoints.
    said = "token statistics there at the last checkpoint, GiB: "
    assert f"{said}3.000\n" in launch(1, "check", str(tiny.deck), *options).stdout
    halves = launch(1, "check", str(tiny.deck), *options, "--statistics.token_halves=true")
    assert f"{said}6.000\n" in halves.stdout
    off = launch(1, "check", str(tiny.deck), *options, "--statistics.token_counts=false")
    assert f"{said}0.000\n" in off.stdout


@pytest.mark.parametrize("ranks", [1, 3])
def test_out_of_memory(
    ranks: int, command: Callable[[int], list[str]], hearth: str, tiny: TinyRun
) -> None:
    def limited(*arguments: str) -> subprocess.CompletedProcess[str]:
        # The first rank alone has too little; the others wait for it in the exchange.
        script = (
            f'if [ "$OMPI_COMM_WORLD_RANK" = 0 ]; then ulimit -v {LIMIT_KIB}; fi; '
            f"exec {shlex.join([hearth, *arguments])}"
        )
        return subprocess.run(
            [*command(ranks)[:-1], "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    if limited("check", str(tiny.deck)).returncode != 0:
        pytest.skip("the program does not start with so little address space")
    finished = limited("train", str(tiny.deck), *LARGE_CELL, f"--parallel.expert_ranks={ranks}")
    assert finished.returncode == 1, finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith("hearth: ")]
    assert len(errors) == 1, finished.stderr
    assert re.match(
        r"hearth: rank 0: layer 0: no memory for '[a-z ]+', 8192 rows of 160000 bytes: "
        r"1310720000 bytes \(1\.2 GiB\) beside .* GiB of activations; a smaller "
        r"batch.cell_sequences, more parallel.expert_ranks or model.recompute = block",
        errors[0],
    )
