"""Times one MoE layer of FLAME-MoE alone, forward and backward, in PyTorch on the CPU.

Routing is that of a random router on random input, or forced to be even: token t goes to the
experts (t · top_k + i) mod experts. Prints one JSON object per variant, one a line; of several
variants each in a process of its own, and last the fastest under the key "best".
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

import deck
import process
import torch
import trial
import variants
from model import Mixture, Sizes
from timing import timed


def parse(text: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    deck.add_options(parser)
    parser.add_argument("--rows", type=int, default=2048, help="tokens of a pass")
    parser.add_argument("--routing", choices=("natural", "balanced"), default="natural")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes")
    parser.add_argument("--warmup", type=int, default=2, help="passes before, not timed")
    parser.add_argument("--threads", type=int, help="default: all that PyTorch finds")
    parser.add_argument("--variant", default="all", help=variants.HELP)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preload", default=process.preload_default())
    return parser.parse_args(text)


def model_flops(sizes: Sizes, rows: int) -> float:
    """Products of one forward and backward pass: 6 for each weight that a token meets."""
    ffn = sizes.top_k * sizes.expert_ffn + sizes.shared_ffn
    return 6.0 * rows * sizes.hidden * (3 * ffn + sizes.experts)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    a = arguments
    sizes = deck.sizes(a)
    numerics = variants.numerics(a.variant, sizes, 1, "fp32,fp32", 1)
    torch.manual_seed(a.seed)
    layer = Mixture(sizes, numerics)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0, 0.02)
    x = torch.randn(a.rows, sizes.hidden).to(numerics.compute).requires_grad_()
    dy = torch.randn(a.rows, sizes.hidden).to(numerics.compute)
    forced = None
    if a.routing == "balanced":
        forced = torch.arange(a.rows * sizes.top_k).view(a.rows, -1) % sizes.experts

    def step() -> None:
        y, balance, z = layer(x, forced)
        loss = sizes.balance_loss * balance + sizes.z_loss * z
        torch.autograd.backward([y, loss], [dy, None])
        x.grad = None
        for weight in layer.parameters():
            weight.grad = None

    time = timed(step, a.repeats, a.warmup)
    return {
        "variant": a.variant,
        "routing": a.routing,
        "tokens_per_second": a.rows / time["median_s"],
        "model_flops_per_second": model_flops(sizes, a.rows) / time["median_s"],
        **time,
        "imbalance": layer.imbalance,
        "peak_bytes": process.peak_bytes(),
        "rows": a.rows,
        "sizes": asdict(sizes),
        **process.describe(),
    }


def main() -> None:
    text = sys.argv[1:]
    trial.command(__file__, text, parse(text), measure)


if __name__ == "__main__":
    main()
