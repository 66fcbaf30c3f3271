"""The command line of bench/soak, and its loop."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

from soaking.campaign import Campaign, ChildError, Programs, SoakError
from soaking.tally import Tally

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """\
Starts a tiny training run on random layouts, kills ranks or mpirun at random moments, lets the disk
fail in the middle of a write, damages the newest checkpoint, leaves half-written files, restarts,
and compares the finished run bit for bit with an undisturbed twin: weights, moments, training.h5,
routing.h5. Then the next one, until the time is over. Prints a table; exit status 1 on any
difference, or when a restart does not go on from the newest good checkpoint, with the folder and
the command that repeats the same dice.
"""


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0")
    return minutes


def parse(text: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/soak",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=_minutes, default=2.0, help="(default: %(default)s)")
    parser.add_argument("--ranks-at-most", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the dice (default: by the clock)")
    parser.add_argument(
        "--campaign", type=int, default=0, help="the first campaign, to repeat one (default: 0)"
    )
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build/release", help="where hearth was built"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "runs/soak", help="folder (default: runs/soak)"
    )
    return parser.parse_args(text)


def main() -> int:
    asked = parse()
    programs = Programs(
        asked.build.resolve() / "hearth", asked.build.resolve() / "tests/libhearth_faults.so"
    )
    if not programs.hearth.exists():
        print(f"bench/soak: {programs.hearth}: not built; ./quickstart build", file=sys.stderr)
        return 2
    seed = time.time_ns() % 1_000_000 if asked.seed is None else asked.seed
    output = asked.output.resolve() / f"seed-{seed}"
    start = time.monotonic()
    until = start + 60 * asked.minutes
    tally = Tally()
    number = asked.campaign
    print(f"seed {seed}", flush=True)
    while time.monotonic() < until:
        folder = output / f"campaign-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        dice = random.Random(f"{seed} {number}")
        try:
            campaign = Campaign(programs, folder, asked.ranks_at_most, dice, tally)
            campaign.survive(dice.randint(4, 16), until)
        except (SoakError, ChildError) as error:
            print(tally.table(time.monotonic() - start))
            print(
                f"bench/soak: {folder}: {error}\nrepeat with: bench/soak --seed={seed} "
                f"--campaign={number} --ranks-at-most={asked.ranks_at_most}",
                file=sys.stderr,
            )
            return 1
        shutil.rmtree(folder)
        number += 1
    print(tally.table(time.monotonic() - start))
    return 0
