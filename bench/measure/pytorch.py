"""Runs the yardstick of bench/pytorch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import child
from measure.child import ChildError
from measure.options import ROOT
from measure.progress import say

SCRIPTS = ROOT / "bench/pytorch"


@dataclass(frozen=True)
class PyTorch:
    """A Python with PyTorch, and how many threads it may take."""

    python: Path
    threads: int

    def missing(self) -> str | None:
        """What to do where PyTorch is not there, in one line."""
        make = "bench/pytorch/environment.sh build/bench-venv makes it"
        if not self.python.exists():
            return f"no PyTorch at {self.python}: {make}"
        try:
            list(child.lines([str(self.python), "-c", "import torch"]))
        except ChildError as error:
            return f"{self.python}: {error}: {make}"
        return None

    def train_step(self, variant: str, *arguments: str) -> dict[str, Any]:
        return self._last("train_step.py", "--variant", variant, *arguments)

    def moe_layer(self, variant: str, *arguments: str) -> dict[str, Any]:
        return self._last("moe_layer.py", "--variant", variant, *arguments)

    def kernels(self, *arguments: str) -> Iterator[dict[str, Any]]:
        return child.json_lines(self._command("kernels.py", *arguments))

    def trial(self, script: str, names: str, *arguments: str) -> list[tuple[str, float]]:
        """Variants and their seconds, the fastest first; those that failed are left out."""
        found: list[tuple[str, float]] = []
        for row in child.json_lines(self._command(script, "--variant", names, *arguments)):
            if "median_s" in row:
                found.append((row["variant"], row["median_s"]))
                say(f"  trial of PyTorch {row['variant']}: {row['median_s']:.3f} s")
            elif "error" in row:
                say(f"  trial of PyTorch {row['variant']}: {row['error']}")
        return sorted(found, key=lambda pair: pair[1])

    def _last(self, script: str, *arguments: str) -> dict[str, Any]:
        rows = list(child.json_lines(self._command(script, *arguments)))
        if not rows:
            raise ChildError(f"{script} printed nothing")
        return rows[-1]

    def _command(self, script: str, *arguments: str) -> list[str]:
        threads = ["--threads", str(self.threads)]
        return [str(self.python), str(SCRIPTS / script), *threads, *arguments]
