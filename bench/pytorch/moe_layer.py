"""Times one MoE layer of FLAME-MoE alone, forward and backward, in PyTorch on the CPU.

The default sizes are those of FLAME-290M. Routing is that of a random router on random input, or
forced to be even: token t goes to the experts (t · top_k + i) mod experts. Prints one JSON object
per variant, one a line; with --variant all each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import process
import torch
import variants
from model import Mixture, Sizes
from timing import gemm_ceiling, timed


def parse(text: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--expert-ffn", type=int, default=704)
    parser.add_argument("--shared-ffn", type=int, default=1408)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=6)
    parser.add_argument("--rows", type=int, default=2048, help="tokens of a pass")
    parser.add_argument("--routing", choices=("natural", "balanced"), default="natural")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: all that PyTorch finds")
    parser.add_argument("--variant", default="all", help="all, or as in train_step.py")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preload", default=process.preload_default())
    return parser.parse_args(text)


def model_flops(sizes: Sizes, rows: int) -> float:
    """Products of one forward and backward pass: 6 for each weight that a token meets."""
    ffn = sizes.top_k * sizes.expert_ffn + sizes.shared_ffn
    return 6.0 * rows * sizes.hidden * (3 * ffn + sizes.experts)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    a = arguments
    sizes = Sizes(
        hidden=a.hidden, expert_ffn=a.expert_ffn, shared_ffn=a.shared_ffn,
        experts=a.experts, top_k=a.top_k,
    )  # fmt: skip
    numerics = variants.numerics(a.variant, sizes, 1, "fp32,fp32", 1)
    torch.manual_seed(a.seed)
    layer = Mixture(sizes, numerics)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0, 0.02)
    x = torch.randn(a.rows, a.hidden).to(numerics.compute).requires_grad_()
    dy = torch.randn(a.rows, a.hidden).to(numerics.compute)
    forced = None
    if a.routing == "balanced":
        forced = torch.arange(a.rows * a.top_k).view(a.rows, a.top_k) % a.experts

    def step() -> None:
        y, balance, z = layer(x, forced)
        loss = sizes.balance_loss * balance + sizes.z_loss * z
        torch.autograd.backward([y, loss], [dy, None])
        x.grad = None
        for weight in layer.parameters():
            weight.grad = None

    time = timed(step, a.repeats)
    return {
        "variant": a.variant,
        "routing": a.routing,
        "tokens_per_second": a.rows / time["median_s"],
        "model_flops_per_second": model_flops(sizes, a.rows) / time["median_s"],
        "gemm_flops_per_second": gemm_ceiling(3),
        **time,
        "imbalance": layer.imbalance,
        "peak_bytes": process.peak_bytes(),
        "sizes": {k: v for k, v in vars(a).items() if k not in ("variant", "preload")},
        **process.describe(),
    }


def main() -> None:
    arguments = parse(sys.argv[1:])
    if arguments.variant == "all":
        names = [f"{v}{c}" for v in variants.eager_variants() for c in ("", "-compile")]
        text = [*sys.argv[1:], "--preload", arguments.preload]
        for variant in names:
            call = [__file__, *text, "--variant", variant]
            result = process.run_json(call, process.with_preload(arguments.preload))
            print(json.dumps({"variant": variant, **result}), flush=True)
        return
    process.restart_with_preload(arguments.preload)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        print(json.dumps(measure(arguments)))
    except ValueError as error:
        sys.exit(f"moe_layer.py: {error}")


if __name__ == "__main__":
    main()
