"""bench/scaling.py and bench/predict.py, with a launcher that calculates instead of running."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import RANK, synthetic_run

import predict
import scaling
import scaling_figures
from deck_model import InputError, Model, read_deck
from hearth_runs import Layout, Run, run_from_json
from network import Network

ROOT = Path(__file__).resolve().parents[2]
DECK = ROOT / "inputs/flame-38m.deck"

# Matplotlib warns of a layout that does not fit.
pytestmark = pytest.mark.filterwarnings("error")


class Calculator:
    """Stands in for a Launcher: ranks share the work evenly, and there are enough cores."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, settings: Mapping[str, int], layout: Layout) -> Run:
        run = synthetic_run(self.model, dict(settings))
        phases = {name: seconds / layout.ranks for name, seconds in run.phase_s.items()}
        return replace(run, layout=layout, median_s=sum(phases.values()), phase_s=phases)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What scaling.py writes, without the network, which it measures itself."""
    model = read_deck(DECK)
    measurement = scaling.Measurement(
        Calculator(model),  # type: ignore[arg-type]
        {"model.sequence_length": 512},
    )
    found: dict[str, Any] = {
        "side_by_side": scaling.side_by_side(measurement, 2),
        "strong": scaling.strong(measurement, [1, 2], 4),
        "weak": scaling.weak(measurement, [1, 2], 2),
        "work": [scaling.grow(measurement, axis) for axis in scaling.axes_of_work(model, 512)],
        "exchange": [
            {"name": name, "ranks": 2, "bytes": size, "median_s": 1e-6 + 1e-10 * size}
            for name in ("all_to_all", "reduce_scatter", "all_gather")
            for size in (1e3, 1e5, 1e7)
        ],
    }
    head = {"deck": "flame-38m.deck", "compute_type": "fp32", "cores": 2, "model": asdict(model)}
    return {**head, **found, "runs": [run.as_json() for run in measurement.runs]}


def test_runs_are_made_once(measured: dict[str, Any]) -> None:
    keys = [json.dumps([run["settings"], run["layout"]]) for run in measured["runs"]]
    assert len(keys) == len(set(keys))


def test_even_shares_scale(measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    strong = measured["strong"]
    assert [(row["ranks"], row["expert_ranks"]) for row in strong] == [(1, 1), (2, 1), (2, 2)]
    for row in strong:
        assert row["efficiency"] * row["cores"] == pytest.approx(row["ranks"])


def test_exponents_of_linear_work(measured: dict[str, Any]) -> None:
    found = {axis["name"]: axis["fit"] for axis in measured["work"]}
    for name in ("tokens of a cell", "top_k", "layers", "experts"):
        assert found[name]["exponent"] == pytest.approx(1, abs=0.02), name
        assert found[name]["constant"] > 0
    assert found["sequence length"]["exponent"] > 1


def test_pictures(measured: dict[str, Any], tmp_path: Path) -> None:
    paths = scaling_figures.draw(measured, tmp_path / "scaling.json")
    assert [path.name for path in paths] == ["scaling_work.png", "scaling_ranks.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_report(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scaling.json"
    file.write_text(json.dumps(measured))
    scaling.main([f"--report={file}"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("weak scaling: ") for line in lines)
    assert "  expected: 0 in products, 1 in weights and update" in lines
    scaling.main([f"--report={file}", "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "```text" and lines.count("```") == 1
    rows = lines[lines.index("```") + 2 :]
    assert rows[0].startswith("| what grows | seconds a step |") and rows[1] == "|" + "---|" * 6
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        f"| {axis['name']}" for axis in measured["work"]
    ]
    assert list(tmp_path.iterdir()) == [file]


def test_prediction(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = tmp_path / "scaling.json", tmp_path / "out/predict.json"
    file.write_text(json.dumps(measured))
    predict.main([str(file), str(DECK), "--ranks=1,2,4,8,16,32,64", f"--output={output}"])
    rows = json.loads(output.read_text())["decks"]["flame-38m"]
    assert len(rows) == 7 + 4 + 1
    assert rows[0]["efficiency"] == pytest.approx(1)
    assert (tmp_path / "out/predict_flame-38m.png").exists()
    assert re.search(r"^ +64 +64 +1024 +16 ", capsys.readouterr().out, re.MULTILINE)


def test_prediction_in_markdown(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = tmp_path / "scaling.json", tmp_path / "predict.json"
    file.write_text(json.dumps(measured))
    words = [str(file), str(DECK), str(DECK.with_stem("flame-1.7b")), "--ranks=8,64", "--markdown"]
    predict.main([*words, f"--output={output}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| deck | expert_ranks | ranks |")
    assert [line.split(" | ")[:4] for line in lines[2:]] == [
        [f"| `{deck}`", expert_ranks, ranks, "1024"]
        for deck in ("flame-38m", "flame-1.7b")
        for expert_ranks, ranks in (("1", "8"), ("1", "64"), ("8", "8"), ("8", "64"), ("64", "64"))
    ]
    hidden = json.loads(output.read_text())["network"]
    predict.main([*words, f"--output={output}", "--overlap=1"])
    shown = json.loads(output.read_text())
    assert shown["network"] == {**hidden, "overlap": 1}
    assert all(row["terms_s"]["exchange"] == 0 for row in shown["decks"]["flame-38m"])


def test_an_overlap_is_a_share(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict.parse(["scaling.json", "--overlap=1.5"])
    assert "from 0 to 1" in capsys.readouterr().err


def test_check(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = tmp_path / "scaling.json", tmp_path / "check.json"
    file.write_text(json.dumps(measured))
    predict.main([str(file), "--check", f"--output={output}"])
    rows = json.loads(output.read_text())["check"]
    alone = [row for row in rows if row["ranks"] == 1]
    assert max(abs(row["error"]) for row in alone) < 1e-6
    assert all(row["predicted_s"] > row["measured_s"] for row in rows if row["ranks"] > 1)
    assert "one rank, fitted: mean error 0.0%" in capsys.readouterr().out
    predict.main([str(file), "--check", "--markdown", f"--output={output}"])
    lines = capsys.readouterr().out.splitlines()
    table = lines[2 : lines.index("")]
    layouts = [tuple(line.strip("| ").split(" | ")[:3]) for line in table]
    assert layouts == [("1", "1", "2"), ("1", "1", "4"), ("2", "1", "4"), ("2", "2", "4")]
    assert table[0].endswith("| +0.0 % |") or table[0].endswith("| -0.0 % |")
    assert lines[-2].startswith("Mean error of the 2 with several ranks ")


def test_ranks_that_share_a_core_wait(measured: dict[str, Any]) -> None:
    run = next(run_from_json(run) for run in measured["runs"] if run["layout"]["ranks"] == 2)
    model = read_deck(DECK)
    net = Network.plain(1e-6, 1e9, overlap=0.5)
    alone, shared = (predict.predict_run(run, model, RANK, net, n) for n in (1, 2))
    for name, seconds in alone.terms.items():
        assert shared.terms[name] == (1 if name in ("latency", "sums") else 2) * seconds, name


def test_a_file_that_cannot_serve(measured: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.json.*scaling\.py"):
        predict.main([str(tmp_path / "missing.json")])
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(InputError, match=r"other\.json: no runs"):
        scaling.main([f"--report={other}"])
    few = {**measured, "runs": measured["runs"][:1]}
    arguments = argparse.Namespace(kernels=None, speedup=1, scaling=Path("scaling.json"))
    with pytest.raises(InputError, match="only ranks"):
        predict.choose_rates(arguments, few, read_deck(DECK))
