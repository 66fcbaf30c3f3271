"""Dispatch and combine: token copies to rows sorted by expert and back, with their gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from experts import Plan
from torch import Tensor

from pieces.bench import TYPES, Bench, Row


def combine_backward(dy: Tensor, rows: Tensor, gate_of_row: Tensor, token: Tensor,
                     slot: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The rows' gradient gate · dy, and the gates' dy · rows as (token, top_k)."""
    dy_rows = dy.index_select(0, token)
    d_gate = (dy_rows * rows).sum(-1, dtype=torch.float32)
    return dy_rows * gate_of_row[:, None], d_gate[slot]


def combine_by_bag(y: Tensor, rows: Tensor, gate: Tensor, plan: Plan) -> None:
    """y += the weighted sum of each token's rows, in one pass."""
    tokens, top_k = plan.slot.shape
    begins = torch.arange(0, tokens * top_k, top_k)
    mode_sum = (False, 0, False)
    slot = plan.slot.flatten()
    y.add_(torch.embedding_bag(rows, slot, begins, *mode_sum, gate.flatten())[0])


def combine_scaled(y: Tensor, rows: Tensor, gate: Tensor, plan: Plan) -> None:
    """The same with the rows weighted first."""
    y.add_(plan.sum(rows * plan.spread(gate)[:, None]))


def add_sum(y: Tensor, rows: Tensor, plan: Plan) -> None:
    y.add_(plan.sum(rows))


def rows(bench: Bench) -> Iterator[Row]:
    hidden = bench.sizes.hidden
    plan = Plan.make(bench.choice(), bench.sizes.experts, False)
    for kind, dtype in TYPES.items():
        x, y = bench.randn(kind, bench.tokens, hidden), bench.randn(kind, bench.tokens, hidden)
        copies = bench.randn(kind, plan.token.shape[0], hidden)
        gate = torch.rand(plan.slot.shape, dtype=dtype)
        yield bench.time("dispatch", kind, "index_select", x.index_select, 0, plan.token)
        given = (y, copies, gate, plan)
        yield bench.time("combine", kind, "weighted bag", combine_by_bag, *given)
        yield bench.time("combine", kind, "scaled rows", combine_scaled, *given)
        given = (x, copies, plan.spread(gate), plan.token, plan.slot)
        for form, function in bench.forms(combine_backward):
            yield bench.time("combine backward", kind, form, function, *given)
        yield bench.time("dispatch backward", kind, "bag", add_sum, y, copies, plan)
