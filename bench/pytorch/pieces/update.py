"""The optimizer's passes over one embedding; a cell's gradient of expert weights added to a sum."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from pieces.bench import TYPES, Bench, Row


def update(adam: torch.optim.AdamW, weight: Tensor, gradient: Tensor, rounded: Tensor) -> None:
    """An update of a float32 master and of the parameter that may be its copy in bfloat16."""
    weight.grad = gradient.float()
    adam.step()
    if rounded is not weight:
        rounded.copy_(weight)


def rows(bench: Bench) -> Iterator[Row]:
    s = bench.sizes
    elements = s.vocabulary * s.hidden
    total, gradient = bench.randn("fp32", 2, s.experts * s.expert_ffn * s.hidden)
    yield bench.time("gradient sum of one stack", "fp32", "add_", total.add_, gradient)
    for kind, dtype in TYPES.items():
        gradient = bench.randn(kind, elements)
        norm = partial(torch.linalg.vector_norm, dtype=torch.float32)
        yield bench.time("squared norm of one embedding", kind, "vector_norm", norm, gradient)
        weight = bench.randn("fp32", elements)
        rounded = weight if dtype == torch.float32 else weight.to(dtype)
        adam = torch.optim.AdamW([weight], lr=1e-3, fused=True)
        given = (adam, weight, gradient, rounded)
        yield bench.time("Adam of one embedding", kind, "fused AdamW", update, *given)
