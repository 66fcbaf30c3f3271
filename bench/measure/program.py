"""bench/run from its command line to its exit status."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from measure import (
    ceiling,
    cores,
    figure,
    findings,
    kernels,
    layers,
    machine,
    options,
    promise,
    statistics_cost,
    steps,
    table,
)
from measure.child import ChildError
from measure.hearth import Hearth
from measure.options import Options
from measure.plan import FULL, QUICK
from measure.progress import elapsed_s, say
from measure.pytorch import PyTorch
from measure.results import Results
from measure.setting import Setting

SECTIONS = {
    "steps": steps.measure,
    "cores": cores.measure,
    "layers": layers.measure,
    "kernels": kernels.measure,
    "promise": promise.measure,
    "statistics": statistics_cost.measure,
}


def main(text: list[str] | None = None) -> int:
    """Status 1 where a case failed, 2 where nothing can be measured."""
    asked = options.parse(text)
    hearth = Hearth(asked.build, asked.threads)
    if problem := hearth.missing():
        print(f"bench/run: {problem}", file=sys.stderr)
        return 2
    pytorch = None if asked.hearth_only else _pytorch(asked)
    asked.output.mkdir(parents=True, exist_ok=True)
    try:
        results = Results(machine.describe(hearth), _shown(asked))
    except ChildError as error:
        print(f"bench/run: {asked.build / 'hearth'}: {error}", file=sys.stderr)
        return 2
    say(machine.line(results.machine))
    with tempfile.TemporaryDirectory(prefix="hearth-bench-") as folder:
        plan = QUICK if asked.quick else FULL
        setting = Setting(asked, plan, hearth, pytorch, results, Path(folder))
        try:
            _measure(setting)
        except KeyboardInterrupt:
            results.errors.append("interrupted: what follows is not there")
    _finish(setting)
    return 1 if results.errors else 0


def _pytorch(asked: Options) -> PyTorch | None:
    found = PyTorch(asked.torch, asked.threads)
    if problem := found.missing():
        print(f"bench/run: {problem}; Hearth alone is measured", file=sys.stderr)
        return None
    return found


def _measure(setting: Setting) -> None:
    ceiling.measure(setting)
    for section in setting.options.sections:
        SECTIONS[section](setting)
        _save(setting)
    # Once more: neighbours may have come or gone meanwhile.
    ceiling.measure(setting)


def _save(setting: Setting) -> Path:
    results, output = setting.results, setting.options.output
    results.seconds = elapsed_s()
    path = output / "results.json"
    partial = path.with_suffix(".json.tmp")
    partial.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    partial.replace(path)
    return path


def _finish(setting: Setting) -> None:
    with setting.turn("findings"):
        setting.results.findings = findings.of(setting)
    written = [_save(setting)]
    results, output = setting.results, setting.options.output
    print(machine.line(results.machine))
    print(table.text(results))
    with setting.turn("figure"):
        written += [figure.save(results, output / "results.png")]
    for path in written:
        print(path)


def _shown(asked: Options) -> dict:
    return {key: str(v) if isinstance(v, Path) else v for key, v in vars(asked).items()}
