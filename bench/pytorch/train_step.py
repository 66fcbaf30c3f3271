"""Times whole training steps of FLAME-MoE in PyTorch on the CPU.

Prints one JSON object per variant, one a line; of several variants each in a process of its own,
and last the fastest under the key "best".
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import deck
import numpy as np
import process
import torch
import trial
import variants
from model import Mixture, Model
from optimizer import ClippedAdamW

# Updates over which the learning rate rises from 0, as in FLAME-38M's deck: at once at its full
# height it drives all tokens to the same experts within two updates.
LR_WARMUP = 21


class Batches:
    """Consecutive sequences of a raw token file, or random ones."""

    def __init__(self, arguments: argparse.Namespace, vocabulary: int) -> None:
        self.sequences, self.length = arguments.sequences, arguments.sequence_length
        if arguments.tokens:
            try:
                self.tokens = np.memmap(arguments.tokens, dtype=arguments.token_type, mode="r")
            except ValueError as error:
                raise ValueError(
                    f"{arguments.tokens}: not {arguments.token_type}: {error}"
                ) from None
        else:
            count = self.sequences * self.length * (arguments.steps + arguments.warmup) + 1
            # Zipf's law with Mandelbrot's shift, about as uneven as text.
            weight = 1 / (np.arange(vocabulary) + 2.7)
            generator = np.random.default_rng(arguments.seed)
            self.tokens = generator.choice(vocabulary, count, p=weight / weight.sum())
        needed = self.sequences * self.length + 1
        if len(self.tokens) < needed:
            found = len(self.tokens)
            raise ValueError(f"{arguments.tokens}: {found} tokens; a batch needs {needed}")
        self.batches = (len(self.tokens) - 1) // (self.sequences * self.length)

    def __getitem__(self, step: int) -> torch.Tensor:
        """Tokens (sequence, sequence_length + 1) of a step; the file repeats."""
        begin = step % self.batches * self.sequences * self.length
        rows = np.arange(self.sequences)[:, None] * self.length + np.arange(self.length + 1)
        return torch.from_numpy(np.asarray(self.tokens[begin + rows], dtype=np.int64))


def parse(text: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    deck.add_options(parser)
    parser.add_argument("--tokens", type=Path, help="raw token file (.bin); random without it")
    parser.add_argument("--token-type", choices=("uint16", "int32"), default="uint16")
    parser.add_argument("--sequences", type=int, default=1, help="sequences a step, one cell")
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before, not in the median")
    parser.add_argument("--threads", type=int, help="default: all that PyTorch finds")
    parser.add_argument(
        "--variant",
        default="all",
        help=variants.HELP,
    )
    parser.add_argument(
        "--attention",
        default="auto",
        help="types of attention, forward and backward, as fp32|bf16,fp32|bf16; "
        "auto: by a trial, but fp32 in fp32 variants",
    )
    parser.add_argument("--head-chunk", type=int, default=512, help="rows of logits at once")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-4, help=f"after {LR_WARMUP} updates' warm-up"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--preload",
        default=process.preload_default(),
        help="libraries to preload, separated by colons; '' for none (default: %(default)s)",
    )
    return parser.parse_args(text)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times one variant in this process."""
    sizes = deck.sizes(arguments)
    length = arguments.sequence_length
    numerics = variants.numerics(
        arguments.variant, sizes, length, arguments.attention, arguments.head_chunk
    )
    model = Model(sizes, numerics, arguments.seed)
    optimizer = ClippedAdamW(model.parameters())
    batches = Batches(arguments, sizes.vocabulary)
    wall, processor, losses = [], [], []
    for step in range(arguments.warmup + arguments.steps):
        begin, begin_processor = time.perf_counter(), time.process_time()
        terms = model(batches[step])
        sum(terms).backward()
        optimizer.set_rate(min(1.0, step / LR_WARMUP) * arguments.learning_rate)
        norm = optimizer.step()
        wall.append(time.perf_counter() - begin)
        processor.append(time.process_time() - begin_processor)
        losses.append({**{k: float(v.detach()) for k, v in terms._asdict().items()}, "norm": norm})
    median = statistics.median(wall[arguments.warmup :])
    tokens = arguments.sequences * length
    return {
        "variant": arguments.variant,
        "tokens_per_second": tokens / median,
        "median_s": median,
        "step_s": wall,
        "step_processor_s": processor,
        "warmup": arguments.warmup,
        "peak_bytes": process.peak_bytes(),
        "losses": losses,
        # Of each layer in the last step: it decides what padding costs.
        "imbalance": [m.imbalance for m in model.modules() if isinstance(m, Mixture)],
        "attention": variants.type_names(numerics.attention),
        "sequences": arguments.sequences,
        "sequence_length": length,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sizes": asdict(sizes),
        **process.describe(),
    }


def main() -> None:
    text = sys.argv[1:]
    trial.command(__file__, text, parse(text), measure)


if __name__ == "__main__":
    main()
