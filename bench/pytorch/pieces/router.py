"""The router behind its product, in float32: choice, counts and sums, gradient of the logits.

hearth-bench also sums the entropy, which no loss needs, and puts a token's experts in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from experts import Plan
from torch import Tensor

from pieces.bench import Bench, Row


def choose(logits: Tensor, top_k: int) -> tuple[Tensor, ...]:
    """Softmax, the chosen experts with their probabilities, and the logarithm of the sum."""
    probability = logits.softmax(-1)
    gate, chosen = probability.topk(top_k, sorted=False)
    return probability, chosen, gate, logits.logsumexp(-1)


def sums(probability: Tensor, log_sum: Tensor) -> tuple[Tensor, Tensor]:
    """What the balance and z losses need."""
    return probability.sum(0), log_sum.square().sum()


def backward(d_gate: Tensor, probability: Tensor, chosen: Tensor, log_sum: Tensor,
             slope: Tensor, z_scale: float) -> Tensor:  # fmt: skip
    """d logits of the gates' gradient, the balance loss's slope (expert) and the z loss."""
    d = slope.expand_as(probability).scatter_add(1, chosen, d_gate)
    return probability * (d - (d * probability).sum(-1, True) + z_scale * log_sum[:, None])


def backward_by_softmax(d_gate: Tensor, probability: Tensor, chosen: Tensor, log_sum: Tensor,
                        slope: Tensor, z_scale: float) -> Tensor:  # fmt: skip
    """The same with PyTorch's own gradient of softmax, in fewer passes where not compiled."""
    d = slope.expand_as(probability).scatter_add(1, chosen, d_gate)
    d = torch._softmax_backward_data(d, probability, -1, probability.dtype)
    return d.addcmul_(probability, log_sum[:, None], value=z_scale)


def count_and_sum(chosen: Tensor, experts: int, sum_all: Callable[..., Any], *of: Tensor) -> None:
    """The plan of the permutation and the sums."""
    Plan.make(chosen, experts, False)
    sum_all(*of)


def rows(bench: Bench) -> Iterator[Row]:
    s, kind = bench.sizes, "fp32"
    logits = bench.randn(kind, bench.tokens, s.experts)
    probability, chosen, _, log_sum = choose(logits, s.top_k)
    for form, function in bench.forms(choose):
        yield bench.time("router: softmax and top-k", kind, form, function, logits, s.top_k)
    for form, function in bench.forms(sums):
        given = (chosen, s.experts, function, probability, log_sum)
        yield bench.time("router: counts and sums", kind, form, count_and_sum, *given)
    d_gate, slope = bench.randn(kind, bench.tokens, s.top_k), torch.zeros(s.experts)
    given = (d_gate, probability, chosen, log_sum, slope, 1e-3)
    yield bench.time("router backward", kind, "softmax", backward_by_softmax, *given)
    for form, function in bench.forms(backward):
        yield bench.time("router backward", kind, form, function, *given)
