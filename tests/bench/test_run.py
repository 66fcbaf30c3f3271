"""`bench/run --quick`: everything is measured once at tiny sizes, and written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

ROOT = Path(__file__).resolve().parents[2]
HEARTH = Path(os.environ.get("HEARTH", ROOT / "build/release/hearth"))


def bench_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench/run"), "--quick", "--hearth-only"]
    command += ["--types", "fp32", "--threads", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that found nothing to complain of; the table is in table.txt."""
    folder = tmp_path_factory.mktemp("bench")
    finished = bench_run("--build", str(HEARTH.parent), "--output", str(folder))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (folder / "table.txt").write_text(finished.stdout)
    return folder


def test_results(output: Path) -> None:
    results = json.loads((output / "results.json").read_text())
    assert not results["errors"]
    assert {"processor", "cores", "features", "memory_bytes", "revision", "load_before"} <= set(
        results["machine"]
    )
    assert set(results["ceiling_flop_per_s"]) == {"1", "2"}
    assert all(rates["fp32"] > 0 for rates in results["ceiling_flop_per_s"].values())
    assert {case["section"] for case in results["cases"]} == {
        "ceiling", "steps", "launch", "cores", "layers", "kernels", "promise", "statistics",
    }  # fmt: skip
    for case in results["cases"]:
        for entry in case["entries"]:
            assert entry["median_s"] > 0, case["name"]
            assert not entry["errors"]
    steps = next(case for case in results["cases"] if case["section"] == "steps")
    assert steps["flops"] > 0
    assert steps["entries"][0]["peak_bytes"] > 0
    assert "router" in steps["entries"][0]["details"]["phase_s"]
    for words in ("exchange", "all statistics", "one core", "launch", "sums as integers"):
        assert any(words in finding["name"] for finding in results["findings"]), words


def test_table(output: Path) -> None:
    table = (output / "table.txt").read_text()
    for words in ("Whole training steps", "Kernels", "attention backward", "Findings"):
        assert words in table


def test_figure(output: Path) -> None:
    pixels = matplotlib.image.imread(output / "results.png")
    assert pixels.shape[0] > 300 and pixels.shape[1] > 600
    assert pixels[..., :3].min() < 0.5  # something is drawn


def test_a_failure_stays_with_its_case(tmp_path: Path) -> None:
    for name in ("hearth", "hearth-bench"):
        (tmp_path / name).symlink_to(HEARTH.parent / name)
    (tmp_path / "hearth-bench").unlink()
    (tmp_path / "hearth-bench").write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    (tmp_path / "hearth-bench").chmod(0o755)
    only = ("--only", "layers", "--output", str(tmp_path / "output"))
    finished = bench_run("--build", str(tmp_path), *only)
    assert finished.returncode == 1
    assert "failed: status 3: broken" in finished.stdout
    results = json.loads((tmp_path / "output/results.json").read_text())
    assert any("status 3: broken" in error for error in results["errors"])


def test_not_built(tmp_path: Path) -> None:
    finished = bench_run("--build", str(tmp_path), "--output", str(tmp_path))
    assert finished.returncode == 2
    assert "not built" in finished.stderr
