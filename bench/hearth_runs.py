"""Runs of `hearth train` for timing: on random tokens, on any ranks, one thread each.

Nothing is left behind. Times of the steps and phases come from training.h5, the experts' shares of
the tokens from routing.h5.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "preprocess"))
from failures import Failure, InputError  # noqa: E402
from launching import environment, mpi_command  # noqa: E402
from measure import child  # noqa: E402

MEMORY_FOLDER = Path("/dev/shm")  # a run ends in a checkpoint, which must not wait for a disk

# What is reported of a step, and the timers' names that make it up. "feed-forward" is a phase
# around others; "exchange" is to start it and to wait for it.
INNER_OF_FEED_FORWARD = {
    "router": ("router", "router backward"),
    "wait for counts": ("wait for counts",),
    "dispatch, combine": (
        "dispatch",
        "dispatch backward",
        "combine",
        "combine backward",
    ),
    "shared expert": ("shared expert", "shared expert backward"),
    "exchange": ("exchange",),
    "experts": ("experts", "experts backward"),
}
OUTER = {
    "attention": ("attention", "attention backward"),
    "feed-forward": ("feed-forward", "feed-forward backward"),
    "head": ("head",),
    "update": ("update",),
}
PHASES = (
    "attention",
    "feed-forward",
    "router",
    "wait for counts",
    "dispatch, combine",
    "exchange",
    "shared expert",
    "experts",
    "head",
    "update",
    "rest",
)


@dataclass(frozen=True)
class Layout:
    """How a run is laid out."""

    ranks: int = 1
    expert_ranks: int = 1
    copies: int = 1  # independent runs at the same time


@dataclass(frozen=True)
class Run:
    """What was measured of one run, warm-up left out."""

    layout: Layout
    settings: dict[str, int]  # overrides of the deck, as on the command line
    step_s: list[float]
    median_s: float
    phase_s: dict[str, float]  # of a median step of the first rank, by the names in PHASES
    peak_bytes: int  # of the first rank
    expert_share: list[list[float]] = field(default_factory=list)  # (moe layer, expert), sum 1

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def read_json(path: Path) -> dict[str, Any]:
    """What scaling.py wrote."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of scaling.py") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected a file of scaling.py") from None
    if not isinstance(found, dict) or "runs" not in found:
        raise InputError(f"{path}: no runs; expected a file of scaling.py")
    return found


def run_from_json(value: Mapping[str, object]) -> Run:
    layout = Layout(**value["layout"])  # type: ignore[arg-type]
    return Run(**{**value, "layout": layout})  # type: ignore[arg-type]


def phase_times(totals_s: Mapping[str, float], steps_s: float, median_s: float) -> dict[str, float]:
    """Phases of a median step that do not overlap and sum to it.

    The timers' totals are those of all steps, `steps_s` long together, the first and slower one
    included; each phase is taken to have the same share of a median step as of all.
    """
    scale = median_s / steps_s

    def total(names: tuple[str, ...]) -> float:
        return scale * sum(totals_s.get(name, 0.0) for name in names)

    times = {name: total(parts) for name, parts in (OUTER | INNER_OF_FEED_FORWARD).items()}
    times["feed-forward"] -= sum(times[name] for name in INNER_OF_FEED_FORWARD)
    times["rest"] = median_s - sum(times.values())
    return {name: max(0.0, times[name]) for name in PHASES}


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    if parent is None and os.access(MEMORY_FOLDER, os.W_OK):
        parent = MEMORY_FOLDER
    with tempfile.TemporaryDirectory(prefix="hearth-", dir=parent) as name:
        yield Path(name)


class Launcher:
    """Runs one deck with other settings, time after time."""

    def __init__(
        self,
        hearth: Path,
        deck: Path,
        prefix: Path,
        scratch: Path,
        warmup: int,
        steps: int,
        overrides: Sequence[str] = (),
    ) -> None:
        self.hearth, self.deck, self.prefix = hearth, deck, prefix
        self.scratch, self.warmup, self.steps = scratch, warmup, steps
        self.overrides = overrides

    def run(self, settings: Mapping[str, int], layout: Layout) -> Run:
        """Times one run; of several copies at a time the first is reported, with the mean step."""
        folders = [self.scratch / f"run-{copy}" for copy in range(layout.copies)]
        commands = [self._command(settings, layout, folder) for folder in folders]
        added = environment(threads=1, ranks=layout.ranks)
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        try:
            with ExitStack() as started:
                processes = [
                    started.enter_context(child.started(command, added, **pipes))
                    for command in commands
                ]
                for process in processes:
                    _, errors = process.communicate()
                    child.check(process.returncode, errors, (0,))
            found = [self._read(settings, layout, folder) for folder in folders]
        except child.ChildError as error:
            raise Failure(f"{' '.join(commands[0])}: {error}") from None
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
        if layout.copies == 1:
            return found[0]
        mean_s = statistics.mean(run.median_s for run in found)
        scale = mean_s / found[0].median_s
        phase_s = {name: scale * seconds for name, seconds in found[0].phase_s.items()}
        return Run(layout, dict(settings), found[0].step_s, mean_s, phase_s, found[0].peak_bytes)

    def _command(self, settings: Mapping[str, int], layout: Layout, folder: Path) -> list[str]:
        command = [] if layout.ranks == 1 else mpi_command(layout.ranks)
        command += [str(self.hearth), "train", str(self.deck)]
        command += [f"--{key}={value}" for key, value in settings.items()]
        command += self.overrides
        return [
            *command,
            f"--run.output={folder}",
            f"--run.steps={self.warmup + self.steps}",
            f"--parallel.expert_ranks={layout.expert_ranks}",
            f"--data.sources=zipf:{self.prefix}",
            "--data.split=1",
            "--data.order=sequential",
            "--checkpoint.every_steps=1000000",
            "--statistics.every_steps=1",
            "--statistics.probe_tokens=0",
            "--statistics.token_counts=false",
        ]

    def _read(self, settings: Mapping[str, int], layout: Layout, folder: Path) -> Run:
        with h5py.File(folder / "training.h5") as file:
            all_s = file["timing/step_seconds"][:]
            names = file["timing/phase"].asstr()[:].tolist()
            totals_s = dict(zip(names, file["timing/seconds"][:].tolist(), strict=True))
            peak_bytes = int(file["timing/peak_memory_bytes"][0])
        step_s = all_s[self.warmup :].tolist()
        median_s = statistics.median(step_s)
        phase_s = phase_times(totals_s, float(all_s.sum()), median_s)
        shares: list[list[float]] = []
        if (folder / "routing.h5").exists():
            with h5py.File(folder / "routing.h5") as file:
                counts = file["expert_count"][self.warmup :].sum(0).astype(float)
            shares = (counts / counts.sum(1, keepdims=True)).round(7).tolist()
        return Run(layout, dict(settings), step_s, median_s, phase_s, peak_bytes, shares)
