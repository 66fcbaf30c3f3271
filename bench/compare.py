#!/usr/bin/env python3
"""Times whole training steps of Hearth and of PyTorch side by side.

Both read the same tokens and train the deck's model on the same batch and the same cores. They run
in turns, so that a noisy machine is noisy for both; what counts is the ratio of the medians. The
products' ceiling is measured in the same call.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "preprocess"))
from failures import InputError  # noqa: E402
from indexed_dataset import Writer, bin_path  # noqa: E402

GIB = 2.0**30


@dataclass
class Contestant:
    """One program and type, and what was measured of it."""

    name: str
    step_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median_s(self) -> float:
        return statistics.median(self.step_s)


def parse(text: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("deck", type=Path, help="such as inputs/flame-38m.deck")
    parser.add_argument("--sequences", type=int, default=1, help="sequences a step, in one cell")
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a turn")
    parser.add_argument("--warmup", type=int, default=2, help="steps before, not timed")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both")
    parser.add_argument("--types", default="fp32,bf16", help="Hearth's compute types")
    parser.add_argument(
        "--variant", default="all", help="PyTorch's, as train_step.py names them; all: the fastest"
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument(
        "--torch", type=Path, default=ROOT / "build/bench-venv/bin/python", help="Python with it"
    )
    parser.add_argument("--output", type=Path, help="write everything measured here, as JSON")
    return parser.parse_args(text)


def write_tokens(prefix: Path, vocabulary: int, count: int) -> None:
    """Random tokens about as uneven as text: Zipf's law with Mandelbrot's shift."""
    weight = 1 / (np.arange(vocabulary) + 2.7)
    tokens = np.random.default_rng(1).choice(vocabulary, count, p=weight / weight.sum())
    with Writer(prefix, vocabulary) as writer:
        writer.extend(tokens, [count])


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"compare.py: {' '.join(command)}\n{done.stderr.strip()}")
    return done.stdout


class Hearth:
    """Runs `hearth train` on the tokens and reads the steps' times from training.h5."""

    def __init__(self, arguments: argparse.Namespace, prefix: Path) -> None:
        self.arguments, self.prefix = arguments, prefix
        self.environment = {"OMP_NUM_THREADS": str(arguments.threads)}

    def overrides(self, compute_type: str) -> list[str]:
        a = self.arguments
        return [
            f"--model.compute_type={compute_type}",
            f"--model.sequence_length={a.sequence_length}",
            f"--batch.global_batch={a.sequences}",
            f"--batch.cell_sequences={a.sequences}",
            f"--data.sources=zipf:{self.prefix}",
            "--data.split=1",
            "--data.order=sequential",
            "--statistics.probe_tokens=0",
            f"--run.steps={a.warmup + a.steps}",
        ]

    def flops_per_token(self) -> float:
        a = self.arguments
        length = f"--model.sequence_length={a.sequence_length}"
        text = run([str(a.build / "hearth"), "check", str(a.deck), length])
        line = next(line for line in text.splitlines() if line.startswith("training FLOPs per"))
        return float(line.split()[-1])

    def ceiling(self, compute_type: str) -> float:
        """FLOP/s of the largest product of matrices."""
        program = str(self.arguments.build / "hearth-bench")
        override = f"--model.compute_type={compute_type}"
        text = run([program, "ceiling", str(self.arguments.deck), override], self.environment)
        return max(1e9 * json.loads(line)["gflop_per_s"] for line in text.splitlines())

    def turn(self, contestant: Contestant, compute_type: str, folder: Path) -> None:
        program = str(self.arguments.build / "hearth")
        output = [f"--run.output={folder}", "--checkpoint.every_steps=1000000"]
        run(
            [program, "train", str(self.arguments.deck), *self.overrides(compute_type), *output],
            self.environment,
        )
        with h5py.File(folder / "training.h5") as file:
            contestant.step_s += file["timing/step_seconds"][self.arguments.warmup :].tolist()
            peak = int(file["timing/peak_memory_bytes"][0])
        contestant.peak_bytes = max(contestant.peak_bytes, peak)


class PyTorch:
    """Runs train_step.py on the same tokens."""

    def __init__(self, arguments: argparse.Namespace, prefix: Path) -> None:
        a = arguments
        self.command = [str(a.torch), str(ROOT / "bench/pytorch/train_step.py")]
        self.command += ["--deck", str(a.deck), "--tokens", str(bin_path(prefix))]
        self.command += ["--sequences", str(a.sequences), "--warmup", str(a.warmup)]
        self.command += ["--sequence-length", str(a.sequence_length), "--steps", str(a.steps)]
        self.command += ["--threads", str(a.threads), "--variant"]

    def fastest(self) -> str:
        lines = run([*self.command, "all"]).splitlines()
        for line in lines[:-1]:
            result = json.loads(line)
            seconds = f"{result['median_s']:.3f} s" if "median_s" in result else result["error"]
            print(f"  PyTorch {result['variant']}: {seconds}", flush=True)
        return json.loads(lines[-1])["best"]["variant"]

    def turn(self, contestant: Contestant, variant: str) -> None:
        result: dict[str, Any] = json.loads(run([*self.command, variant]).splitlines()[-1])
        contestant.step_s += result["step_s"][result["warmup"] :]
        contestant.peak_bytes = max(contestant.peak_bytes, result["peak_bytes"])


def report(arguments: argparse.Namespace, hearth: Hearth, found: list[Contestant]) -> dict:
    tokens = arguments.sequences * arguments.sequence_length
    flops = tokens * hearth.flops_per_token()
    ceilings = {kind: hearth.ceiling(kind) for kind in ("fp32", "bf16")}
    yardstick = found[-1]
    heading = f"{'':28s} {'s/step':>8s} {'tokens/s':>9s} {'GFLOP/s':>8s}"
    print(f"{heading} {'of fp32':>8s} {'of bf16':>8s} {'GiB':>6s} {'ratio':>6s}")
    rows = []
    for c in found:
        rate = flops / c.median_s
        shares = {kind: rate / ceiling for kind, ceiling in ceilings.items()}
        ratio = yardstick.median_s / c.median_s
        print(
            f"{c.name:28s} {c.median_s:8.3f} {tokens / c.median_s:9.0f} {rate / 1e9:8.0f} "
            f"{shares['fp32']:8.0%} {shares['bf16']:8.0%} {c.peak_bytes / GIB:6.2f} {ratio:6.2f}"
        )
        rows.append(
            {
                "name": c.name,
                "step_s": c.step_s,
                "median_s": c.median_s,
                "tokens_per_s": tokens / c.median_s,
                "flop_per_s": rate,
                "share_of_ceiling": shares,
                "peak_bytes": c.peak_bytes,
                "ratio": ratio,
            }
        )
    for kind, ceiling in ceilings.items():
        print(f"ceiling of {kind} products: {ceiling / 1e9:.0f} GFLOP/s")
    return {"deck": str(arguments.deck), "tokens": tokens, "ceiling": ceilings, "rows": rows}


def main() -> None:
    arguments = parse()
    load = os.getloadavg()[0]
    print(f"{arguments.deck}: {arguments.sequences} x {arguments.sequence_length} tokens a step, ")
    print(f"{arguments.threads} threads; load before: {load:.2f}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = arguments.warmup + arguments.steps
        # One sample more than is needed, and a token id beyond no deck's vocabulary.
        count = (steps * arguments.sequences + 1) * arguments.sequence_length + 1
        write_tokens(folder / "zipf", 50000, count)
        hearth, pytorch = Hearth(arguments, folder / "zipf"), PyTorch(arguments, folder / "zipf")
        types = arguments.types.split(",")
        variant = pytorch.fastest() if arguments.variant == "all" else arguments.variant
        ours = [Contestant(f"Hearth {kind}") for kind in types]
        theirs = Contestant(f"PyTorch {variant}")
        for turn in range(arguments.rounds):
            for kind, contestant in zip(types, ours, strict=True):
                hearth.turn(contestant, kind, folder / f"{kind}-{turn}")
            pytorch.turn(theirs, variant)
        measured = report(arguments, hearth, [*ours, theirs])
    if arguments.output:
        arguments.output.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"compare.py: {error}")
