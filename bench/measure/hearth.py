"""Runs Hearth's programs and reads what they measured."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from launching import environment, mpi_command
from measure import child
from measure.child import ChildError

REQUEUE = 75  # the exit status of a run that stops at a checkpoint before its end


@dataclass(frozen=True)
class Training:
    """What one run of `hearth train` took."""

    step_s: list[float]  # all steps
    phase_s: dict[str, float]  # of all steps, the first rank's
    peak_bytes: int
    imbalance: list[float]  # the busiest expert's rows over the mean, worst layer, by step


@dataclass(frozen=True)
class Hearth:
    """The programs in a build folder."""

    build: Path
    threads: int

    def missing(self) -> str | None:
        for name in ("hearth", "hearth-bench"):
            if not (self.build / name).exists():
                return f"{self.build / name}: not built; ./quickstart build release"
        return None

    def version(self) -> str:
        return "".join(child.lines([str(self.build / "hearth"), "--version"])).strip()

    def onednn(self) -> str:
        """The file of the library that hearth is linked with."""
        done = subprocess.run(
            ["ldd", self.build / "hearth"], capture_output=True, text=True, check=False
        )
        found = re.search(r"libdnnl\S* => (\S+)", done.stdout)
        return Path(found[1]).resolve().name if found else ""

    def check(self, deck: Path, *overrides: str) -> dict[str, float]:
        """The numbers that `hearth check` prints: section.key of the deck, and sizes by name."""
        found: dict[str, float] = {}
        section = ""
        for line in child.lines([str(self.build / "hearth"), "check", str(deck), *overrides]):
            if heading := re.fullmatch(r"\[(\w+)\]\n", line):
                section = heading[1] + "."
            elif line.startswith("#"):
                section = ""
            elif number := re.fullmatch(r"(.*?)(?: =| ) *([0-9.]+(?:e[+-]?[0-9]+)?)\n", line):
                found[section + number[1].rstrip()] = float(number[2])
        return found

    def flops_per_token(self, deck: Path, length: int) -> float:
        name = "training FLOPs per token"
        found = self.check(deck, f"--model.sequence_length={length}")
        if name not in found:
            raise ChildError(f"hearth check {deck}: no line '{name}'")
        return found[name]

    def bench(
        self, what: str, deck: Path, kind: str, *arguments: str, threads: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows of hearth-bench."""
        command = [str(self.build / "hearth-bench"), what, str(deck)]
        command += [f"--model.compute_type={kind}", *arguments]
        return child.json_lines(command, environment(threads or self.threads))

    def train(
        self, deck: Path, folder: Path, steps: int, *overrides: str, ranks: int = 1,
        threads: int | None = None,
    ) -> Training:  # fmt: skip
        """Trains for so many steps of the deck's schedule."""
        command = [str(self.build / "hearth"), "train", str(deck), *overrides]
        command += [f"--run.output={folder}", f"--run.stop_step={steps}"]
        if ranks > 1:
            command = [*mpi_command(ranks), *command]
        added = environment(threads or self.threads, ranks)
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with child.started(command, added, **pipes) as process:
            _, errors = process.communicate()
            # mpirun tells of a rank's status that is not 0 after the rank's own words.
            child.check(process.returncode, errors, (0, REQUEUE))
        return _training(folder)

    def launch(self, deck: Path, folder: Path, *overrides: str) -> float:
        """Seconds from the start of the process until its first training step begins."""
        command = [str(self.build / "hearth"), "train", str(deck), *overrides]
        command += [f"--run.output={folder}"]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        begin = time.perf_counter()
        with child.started(command, environment(self.threads), **pipes) as process:
            said = ""
            for line in process.stderr:
                if "first step after" in line:
                    return time.perf_counter() - begin
                said += line
            child.check(process.wait(), said, ())
        raise ChildError("no first step")


def _training(folder: Path) -> Training:
    with h5py.File(folder / "training.h5") as file:
        timing = file["timing"]
        phases = zip(timing["phase"].asstr()[:], timing["seconds"][:].tolist())
        step_s, peak = timing["step_seconds"][:].tolist(), int(timing["peak_memory_bytes"][0])
        phase_s = dict(phases)
    busiest = re.findall(r'"busiest_over_mean": ([0-9.]+)', (folder / "metrics.jsonl").read_text())
    return Training(step_s, phase_s, peak, [float(value) for value in busiest])
