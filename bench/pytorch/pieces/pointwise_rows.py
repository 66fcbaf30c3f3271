"""RMS norm over the hidden width and SwiGLU over the dense network's, of a cell's tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pointwise
import torch
from torch import Tensor
from torch.nn import functional

from pieces.bench import TYPES, Bench, Row


def rows(bench: Bench) -> Iterator[Row]:
    for kind in TYPES:
        yield from _norm(bench, kind)
        yield from _swiglu(bench, kind)


def _norm(bench: Bench, kind: str) -> Iterator[Row]:
    hidden, epsilon = bench.sizes.hidden, bench.sizes.norm_epsilon
    x, dy = bench.randn(kind, bench.tokens, hidden), bench.randn(kind, bench.tokens, hidden)
    weight = torch.ones(hidden, dtype=TYPES[kind])
    _, inverse = pointwise.norm_forward(x, weight, epsilon, x.dtype)
    for form, function in bench.forms(pointwise.norm_forward):
        yield bench.time("norm", kind, form, function, x, weight, epsilon, x.dtype)
    for form, function in bench.forms(pointwise.norm_backward):
        yield bench.time("norm backward", kind, form, function, dy, x, weight, inverse)
    if not hasattr(functional, "rms_norm"):
        return

    def whole(x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, (hidden,), weight, epsilon)

    yield bench.time("norm", kind, "rms_norm", whole, x, weight)
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.enable_grad():
        y = whole(*leaves)

    def back() -> None:
        torch.autograd.grad(y, leaves, dy, retain_graph=True)

    yield bench.time("norm backward", kind, "rms_norm", back)


def _swiglu(bench: Bench, kind: str) -> Iterator[Row]:
    ffn = bench.sizes.dense_ffn
    gate_up = bench.randn(kind, bench.tokens, 2 * ffn)
    da = bench.randn(kind, bench.tokens, ffn)
    for form, function in bench.forms(pointwise.swiglu_forward):
        yield bench.time("SwiGLU", kind, form, function, gate_up, None)
    for form, function in bench.forms(pointwise.swiglu_backward):
        yield bench.time("SwiGLU backward", kind, form, function, da, gate_up, None)
