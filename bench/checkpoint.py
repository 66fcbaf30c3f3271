#!/usr/bin/env python3
"""What a checkpoint costs: writing and reading beside HDF5 alone, and what training loses."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("bench", "preprocess")]

from markdown_table import table  # noqa: E402
from measure.child import ChildError  # noqa: E402
from measure.hearth import Hearth  # noqa: E402
from measure.tokens import write_zipf  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deck", type=Path, default=ROOT / "inputs/flame-38m.deck")
    parser.add_argument("--compute-type", default="bf16", help="(default: %(default)s)")
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp"), help="on the file system to be measured"
    )
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints")
    parser.add_argument("--checkpoints", type=int, default=2, help="of a run, beside its last")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-training", action="store_true", help="files alone")
    return parser.parse_args()


def files(hearth: Hearth, asked: argparse.Namespace, scratch: Path) -> list[str]:
    """Writing and reading, in turns with HDF5 alone."""
    turns = ("--warmup=1", f"--repeat={asked.rounds}", f"--run.output={scratch}")
    rows = hearth.bench("checkpoint", asked.deck, asked.compute_type, *turns)
    return table(
        ("", "s", "MB/s", "of HDF5 alone"),
        [
            (row["name"], f"{row['median_s']:.2f}", f"{row['mb_per_s']:.0f}",
             f"{row['ratio_to_plain']:.2f}")
            for row in rows
        ],
    )  # fmt: skip


def training(hearth: Hearth, asked: argparse.Namespace, scratch: Path) -> list[str]:
    """Mean step with and without checkpoints. A step's time holds the checkpoint before it."""
    prefix = scratch / "tokens"
    write_zipf(prefix, 50000, 200_000)
    steps = asked.every * asked.checkpoints + 1
    common = (
        f"--model.compute_type={asked.compute_type}",
        "--batch.global_batch=1",
        "--batch.cell_sequences=1",
        "--statistics.token_counts=false",
        "--statistics.probe_tokens=0",
        f"--data.sources=zipf:{prefix}",
        "--data.split=1",
        "--checkpoint.keep=1",
    )
    ways = {
        "none": ("--checkpoint.every_steps=1000000",),
        "foreground": (f"--checkpoint.every_steps={asked.every}",),
        "background": (f"--checkpoint.every_steps={asked.every}", "--checkpoint.background=true"),
    }
    mean_s: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way, options in ways.items():
            run = hearth.train(asked.deck, scratch / "run", steps, *common, *options)
            shutil.rmtree(scratch / "run")
            mean_s[way].append(statistics.mean(run.step_s[1:]))  # the first one warms up
    rows = []
    without = statistics.median(mean_s["none"])
    for way, means in mean_s.items():
        step_s = statistics.median(means)
        lost_s = (step_s - without) * (steps - 1) / asked.checkpoints
        rows.append((way, f"{step_s:.3f}", "" if way == "none" else f"{lost_s:.2f}"))
    return table(("checkpoints", "s/step", "s lost by one"), rows)


def main() -> int:
    asked = parse()
    hearth = Hearth(asked.build.resolve(), asked.threads)
    if missing := hearth.missing():
        print(f"bench/checkpoint.py: {missing}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="hearth-", dir=asked.folder) as name:
        scratch = Path(name)
        try:
            print("\n".join(files(hearth, asked, scratch)), flush=True)
            if not asked.no_training:
                print("\n" + "\n".join(training(hearth, asked, scratch)))
        except ChildError as error:
            print(f"bench/checkpoint.py: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
