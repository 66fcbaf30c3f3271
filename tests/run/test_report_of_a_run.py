"""postprocess/report.py on what hearth writes: the sentences that need the in-situ statistics."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT, Launch, TinyRun, train


def report_of(tiny: TinyRun) -> str:
    finished = subprocess.run(
        [sys.executable, ROOT / "postprocess/report.py", tiny.output, "--min-count", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert finished.returncode == 0, finished.stderr
    return (tiny.output / "report.html").read_text()


def test_what_a_run_records_is_in_its_report(launch: Launch, tiny: TinyRun) -> None:
    options = ("--statistics.token_halves=true", "--statistics.drift=true")
    train(launch, tiny, "output", (1, 1, 2), *options)
    text = report_of(tiny)
    assert "Of the k best experts alone" in text
    assert "there and" in text and "on the other in layer" in text
    assert "the other half of the point&#x27;s sequences" in text
    assert "From step 3 to step 6 an expert&#x27;s weights moved by" in text


def test_what_a_run_does_not_record_is_said(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 2))
    text = report_of(tiny)
    assert "(statistics.drift = false)" in text
    assert "the other half of the point&#x27;s sequences" not in text
