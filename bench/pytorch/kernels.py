"""Times single pieces of FLAME-MoE in PyTorch on the CPU, and the products' ceiling.

Prints one JSON object: a list of times under "kernels", FLOP/s under "gemm_flops_per_second".
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import process
import torch
from experts import Plan, products
from functions import HeadCrossEntropy, RmsNorm
from pointwise import Pointwise
from timing import gemm_ceiling, timed
from torch import Tensor
from torch.nn.functional import linear

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Row = dict[str, Any]


def attention(a: argparse.Namespace) -> Iterator[Row]:
    """Causal attention of one sequence; half of the full square's FLOPs count."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    for dim in (16, 64, 128):
        flops = 2.0 * a.rows * a.rows * a.heads * dim
        for name, dtype in TYPES.items():
            # (sequence, head, position, head_dim) as the model has it: heads side by side
            shape = (4, 1, a.rows, a.heads, dim)
            q, k, v, dy = torch.randn(shape).to(dtype).transpose(2, 3)
            y, log_sum = flash(q, k, v, 0.0, True)

            def forward(q=q, k=k, v=v) -> None:
                flash(q, k, v, 0.0, True)

            def backward(q=q, k=k, v=v, dy=dy, y=y, log_sum=log_sum) -> None:
                back(dy, q, k, v, y, log_sum, 0.0, True)

            label = {"type": name, "head_dim": dim}
            yield {"kernel": "attention", "pass": "forward", **label, **rate(forward, a, flops)}
            yield {
                "kernel": "attention", "pass": "backward", **label,
                **rate(backward, a, 2.5 * flops),
            }  # fmt: skip


def norm(a: argparse.Namespace) -> Iterator[Row]:
    """RMS norm by hand and torch's, forward and backward."""
    for name, dtype in TYPES.items():
        x = torch.randn(a.rows, a.hidden).to(dtype).requires_grad_()
        weight = torch.ones(a.hidden, dtype=dtype, requires_grad=True)
        dy = torch.randn(a.rows, a.hidden).to(dtype)
        for form, pointwise in forms():

            def by_hand(x=x, weight=weight, dy=dy, p=pointwise) -> None:
                y = RmsNorm.apply(x, weight, 1e-6, dy.dtype, p)
                torch.autograd.grad(y, (x, weight), dy)

            yield {"kernel": "norm", "type": name, "form": form, **rate(by_hand, a)}
        if hasattr(torch.nn.functional, "rms_norm"):

            def of_torch(x=x, weight=weight, dy=dy) -> None:
                y = torch.nn.functional.rms_norm(x, (x.shape[1],), weight, 1e-6)
                torch.autograd.grad(y, (x, weight), dy)

            yield {"kernel": "norm", "type": name, "form": "torch", **rate(of_torch, a)}


def cross_entropy(a: argparse.Namespace) -> Iterator[Row]:
    """Head and cross-entropy with both gradients, by rows of logits at once."""
    for name, dtype in TYPES.items():
        x = torch.randn(a.rows, a.hidden).to(dtype).requires_grad_()
        weight = (0.02 * torch.randn(a.vocabulary, a.hidden)).to(dtype).requires_grad_()
        target = torch.randint(a.vocabulary, (a.rows,))
        flops = 6.0 * a.rows * a.vocabulary * a.hidden
        for chunk in (128, 256, 512, 1024):
            for form, pointwise in forms():

                def run(x=x, weight=weight, target=target, chunk=chunk, p=pointwise) -> None:
                    loss = HeadCrossEntropy.apply(x, weight, target, chunk, p)
                    torch.autograd.grad(loss, (x, weight))

                label = {"type": name, "rows_at_once": chunk, "form": form}
                yield {"kernel": "cross_entropy", **label, **rate(run, a, flops)}


def router(a: argparse.Namespace) -> Iterator[Row]:
    """Scores, choice, losses and plan in fp32; backward of the scores and losses."""
    x = torch.randn(a.rows, a.hidden, requires_grad=True)
    weight = (0.02 * torch.randn(a.experts, a.hidden)).requires_grad_()
    for form, pointwise in forms():

        def run(p=pointwise) -> None:
            logits = linear(x, weight)
            probability = logits.softmax(-1)
            chosen = probability.detach().topk(a.top_k, sorted=False).indices
            share = torch.bincount(chosen.flatten(), minlength=a.experts) / chosen.numel()
            balance, z = p.router_losses(logits, probability, share)
            loss = balance + z + probability.gather(1, chosen).sum()
            torch.autograd.grad(loss, (x, weight))

        yield {"kernel": "router", "type": "fp32", "form": form, **rate(run, a)}


def permutation(a: argparse.Namespace) -> Iterator[Row]:
    """Plan; gather to rows by expert; sum of each token's rows."""
    chosen = even_choice(a)
    for padded in (False, True):
        time = timed(lambda padded=padded: Plan.make(chosen, a.experts, padded), a.repeats)
        yield {"kernel": "permutation", "part": "plan", "padded": padded, **time}
    plan = Plan.make(chosen, a.experts, False)
    for name, dtype in TYPES.items():
        x = torch.randn(a.rows, a.hidden).to(dtype)
        rows = x.index_select(0, plan.token)

        def gather(x=x) -> None:
            x.index_select(0, plan.token)

        def add(rows=rows) -> None:
            plan.sum(rows)

        def index_add(x=x, rows=rows) -> None:
            torch.zeros_like(x).index_add_(0, plan.token, rows)

        for part, run in (("gather", gather), ("sum", add), ("index_add", index_add)):
            yield {"kernel": "permutation", "part": part, "type": name, **rate(run, a)}


def experts(a: argparse.Namespace) -> Iterator[Row]:
    """One expert product of each kind at even load, by way of computing it."""
    plan = Plan.make(even_choice(a), a.experts, False)
    flops = 2.0 * a.rows * a.top_k * 2 * a.expert_ffn * a.hidden
    for name, dtype in TYPES.items():
        rows = torch.randn(a.rows * a.top_k, a.hidden).to(dtype)
        wide = torch.randn(a.rows * a.top_k, 2 * a.expert_ffn).to(dtype)
        weight = torch.randn(a.experts, 2 * a.expert_ffn, a.hidden).to(dtype)
        for form, product in products().items():
            calls = {
                "forward": lambda p=product, r=rows, w=weight: p.forward(r, w, plan),
                "to_rows": lambda p=product, d=wide, w=weight: p.to_rows(d, w, plan),
                "to_weight": lambda p=product, d=wide, r=rows: p.to_weight(d, r, plan),
            }
            for part, call in calls.items():
                label = {"type": name, "form": form, "part": part}
                yield {"kernel": "experts", **label, **rate(call, a, flops)}


def even_choice(a: argparse.Namespace) -> Tensor:
    """Experts (row, top_k) in shuffled order, each chosen as often as any other."""
    experts = torch.arange(a.rows * a.top_k) % a.experts
    return experts.view(a.rows, a.top_k)[torch.randperm(a.rows)]


def forms() -> list[tuple[str, Pointwise]]:
    return [("eager", Pointwise()), ("compiled", Pointwise.compiled())]


def rate(function: Any, a: argparse.Namespace, flops: float = 0.0) -> Row:
    time: Row = timed(function, a.repeats)
    return {**time, "flops_per_second": flops / time["median_s"]} if flops else time


KERNELS = {
    "attention": attention,
    "norm": norm,
    "cross_entropy": cross_entropy,
    "router": router,
    "permutation": permutation,
    "experts": experts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--expert-ffn", type=int, default=176)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=50304)
    parser.add_argument("--rows", type=int, default=2048, help="tokens; also a sequence's length")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: all that PyTorch finds")
    parser.add_argument("--only", choices=KERNELS, action="append", help="may be repeated")
    parser.add_argument("--preload", default=process.preload_default())
    a = parser.parse_args()
    process.restart_with_preload(a.preload)
    if a.rows * a.top_k % a.experts:
        sys.exit(f"--rows {a.rows}: rows · top_k must be a multiple of the {a.experts} experts")
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    found: list[Row] = []
    for name in a.only or KERNELS:
        found += KERNELS[name](a)
    sizes = {k: v for k, v in vars(a).items() if k not in ("preload", "only", "threads")}
    ceiling = gemm_ceiling(a.repeats)
    shared = {"sizes": sizes, "gemm_flops_per_second": ceiling, **process.describe()}
    print(json.dumps({"kernels": found, **shared}))


if __name__ == "__main__":
    main()
