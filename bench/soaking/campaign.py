"""One run, disturbed until it ends, and its undisturbed twin."""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tiny_run import MISSING, TinyRun, contents, differences, make_tiny_run

from measure.child import ChildError, check, started
from soaking.damage import damage_checkpoint, leave_temporary_files
from soaking.disturbance import DISK, KILLS, SIGNAL, Disturbance, any_disturbance
from soaking.layout import Layout, any_layout
from soaking.processes import wait_for_end, wait_until_gone
from soaking.tally import Tally

REQUEUE, KEPT, STEPS = 75, 3, 96
PATIENCE_S = 30.0  # for ranks whose mpirun was killed
OPTIONS = (
    f"--run.steps={STEPS}",
    "--run.log_every=1000",
    "--checkpoint.every_steps=3",
    f"--checkpoint.keep={KEPT}",
    "--statistics.every_steps=4",
)


class SoakError(Exception):
    """A run did what it must not; the message says what and where."""


@dataclass(frozen=True)
class Programs:
    """What was built."""

    hearth: Path
    faults: Path  # tests/faults as a library; need not be there


class Campaign:
    """A tiny run in a folder of its own, started again and again."""

    def __init__(
        self, programs: Programs, folder: Path, most_ranks: int, dice: random.Random, tally: Tally
    ) -> None:
        self.programs, self.most_ranks, self.dice, self.tally = programs, most_ranks, dice, tally
        folder.mkdir(parents=True)
        self.run: TinyRun = make_tiny_run(folder)
        self.compute_type = dice.choice(("fp32", "bf16"))
        self.damaged: set[tuple[Path, int]] = set()  # path and inode: a name may come again

    def survive(self, disturbances: int, until: float) -> None:
        """Disturbs the run so many times, or until that time, lets it end, and compares."""
        twin = self.run.folder / "twin"
        start = time.monotonic()
        check(*self._start(Layout(1, 1, 1, False), None, twin), (0,))
        twin_s = time.monotonic() - start
        status = -1
        for _ in range(disturbances):
            if time.monotonic() > until or status == 0:
                break
            layout = any_layout(self.dice, self.most_ranks)
            disturbance = any_disturbance(
                self.dice, layout, 0.7 * twin_s, self.programs.faults.exists()
            )
            status = self._disturbed(layout, disturbance)
            if status != 0 and self.dice.random() < 0.4:
                self._damage()
        if status != 0:
            self._resumed(any_layout(self.dice, self.most_ranks), None, (0,))
        self._compare(twin)

    def _disturbed(self, layout: Layout, disturbance: Disturbance) -> int:
        kind = disturbance.kind
        expected = {SIGNAL: (REQUEUE, 0), DISK: (1, 0)}.get(kind)
        status = self._resumed(layout, disturbance, expected)
        if kind in KILLS and status != 0:
            self.tally.kills[kind] += 1
        self.tally.stops += status == REQUEUE
        self.tally.disk_errors += kind == DISK and status == 1
        return status

    def _resumed(
        self, layout: Layout, disturbance: Disturbance | None, expected: tuple[int, ...] | None
    ) -> int:
        """Starts the run where it was; its status, one of the expected ones (None: any)."""
        best = max(self._good(), default=None)
        status, errors = self._start(layout, disturbance, self.run.output)
        self.tally.layouts.add(layout)
        self.tally.restarts += best is not None
        # A signal that comes before the program catches it kills, as SIGKILL does.
        caught = disturbance is None or disturbance.kind != SIGNAL or "first step after" in errors
        if expected is not None and caught and status not in expected:
            raise SoakError(f"{layout}, {disturbance}: status {status}\n{errors}")
        if "first step after" in errors:
            found = re.findall(r"^resumed from (\S+) at step", errors, flags=re.MULTILINE)
            if found != ([] if best is None else [str(best)]):
                raise SoakError(f"{layout}: resumed from {found}, not from {best}\n{errors}")
            self.tally.passed_over += errors.count("passed over")
        return status

    def _start(
        self, layout: Layout, disturbance: Disturbance | None, output: Path
    ) -> tuple[int, str]:
        """Runs the program to its end, whatever it is; status and standard error."""
        command = layout.command(
            self.programs.hearth,
            "train",
            str(self.run.deck),
            f"--run.output={output}",
            f"--model.compute_type={self.compute_type}",
            *OPTIONS,
        )
        environment = layout.environment()
        if disturbance is not None:
            environment |= disturbance.environment(self.programs.faults, output)
        with tempfile.TemporaryFile("w+") as errors:
            with started(command, environment, stdout=subprocess.DEVNULL, stderr=errors) as mpirun:
                if disturbance is not None:
                    disturbance.happen(mpirun)
                self.tally.stuck += wait_for_end(mpirun, output, PATIENCE_S)
                status = mpirun.wait()
            self.tally.left_behind += wait_until_gone(output, PATIENCE_S)
            errors.seek(0)
            return status, errors.read()

    def _checkpoints(self) -> list[Path]:
        return sorted((self.run.output / "checkpoints").glob("step_*.h5"))

    def _good(self) -> list[Path]:
        return [
            file for file in self._checkpoints() if (file, file.stat().st_ino) not in self.damaged
        ]

    def _damage(self) -> None:
        """Spoils the newest checkpoint unless it is the only good one; leaves temporary files."""
        good = self._good()
        if self.run.output.exists() and (self.run.output / "checkpoints").exists():
            leave_temporary_files(self.run.output, max(good, default=None), self.dice)
        if len(good) < 2:
            return
        kind = damage_checkpoint(good[-1], self.dice)
        self.damaged.add((good[-1], good[-1].stat().st_ino))
        self.tally.damage[kind] += 1

    def _compare(self, twin: Path) -> None:
        files = ("training.h5", "routing.h5", f"checkpoints/step_{STEPS:08}.h5")
        for file in files:
            self.tally.bytes_compared += sum(a.nbytes for a in contents(twin / file).values())
        different = differences(twin, self.run.output, STEPS)
        for name in different:
            file, dataset = name.split(": ", 1)
            expected = contents(twin / file)
            lost = expected.values() if dataset == MISSING else [expected.get(dataset)]
            self.tally.bytes_lost += sum(array.nbytes for array in lost if array is not None)
        if different:
            raise SoakError("differs from the undisturbed twin: " + "; ".join(different))
        self.tally.campaigns[self.compute_type] += 1


__all__ = ["Campaign", "ChildError", "Programs", "SoakError"]
