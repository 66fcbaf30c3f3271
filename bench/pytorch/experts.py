"""The routed experts: token copies sorted by expert, products by expert, weighted sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pointwise import Pointwise
from torch import Tensor
from torch.autograd import Function


@dataclass(frozen=True)
class Plan:
    """Where every copy of a token goes: rows are sorted by expert."""

    slot: Tensor  # (token, top_k): the row of a copy
    token: Tensor  # (row): the token of a row; 0 in padding
    ends: Tensor  # (expert), int32: the end of an expert's rows, without padding
    bounds: list[int]  # the same, from 0
    width: int  # rows of an expert when padded

    @staticmethod
    def make(chosen: Tensor, experts: int, padded: bool) -> Plan:
        """The plan of chosen (token, top_k), padded to the largest expert's rows or not."""
        tokens, top_k = chosen.shape
        flat = chosen.flatten()
        counts = torch.bincount(flat, minlength=experts)
        ends = counts.cumsum(0)
        order = flat.argsort(stable=True)
        rows = torch.arange(flat.numel())
        width = int(counts.max())
        if padded:
            # Row i of expert e moves from begin_e + i to e · width + i.
            shift = torch.arange(experts) * width - (ends - counts)
            rows = rows + shift.repeat_interleave(counts, output_size=flat.numel())
            token = torch.zeros(experts * width, dtype=torch.int64)
            token[rows] = order // top_k
        else:
            token = order // top_k
        slot = torch.empty_like(flat)
        slot[order] = rows
        bounds = [0, *ends.tolist()]
        return Plan(slot.view(tokens, top_k), token, ends.int(), bounds, width)

    def spread(self, of_copy: Tensor) -> Tensor:
        """Values (token, top_k) of copies as values (row), 0 in padding."""
        of_row = of_copy.new_zeros(self.token.shape[0])
        of_row[self.slot.flatten()] = of_copy.flatten()
        return of_row

    def sum(self, rows: Tensor) -> Tensor:
        """The sum (token, width) over each token's rows (row, width)."""
        tokens, top_k = self.slot.shape
        # embedding_bag gathers and sums in one pass, about ten times as fast as index and sum.
        begins = torch.arange(0, tokens * top_k, top_k)
        return torch.embedding_bag(rows, self.slot.flatten(), begins, False, 0)[0]


class Product(Protocol):
    """Products of rows, sorted by expert, with weights (expert, out, in)."""

    padded: bool

    def forward(self, rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        """(row, in) to (row, out)."""

    def to_rows(self, d_rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        """(row, out) to (row, in)."""

    def to_weight(self, d_rows: Tensor, rows: Tensor, plan: Plan) -> Tensor:
        """The weight's gradient (expert, out, in)."""


class Loop:
    """One matrix product per expert, each written where its result belongs."""

    padded = False

    def forward(self, rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        return self.to_rows(rows, weight.mT, plan)

    def to_rows(self, d_rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        out = d_rows.new_empty(d_rows.shape[0], weight.shape[2])
        for matrix, begin, end in zip(weight.unbind(), plan.bounds, plan.bounds[1:]):
            torch.mm(d_rows[begin:end], matrix, out=out[begin:end])
        return out

    def to_weight(self, d_rows: Tensor, rows: Tensor, plan: Plan) -> Tensor:
        out = rows.new_empty(len(plan.bounds) - 1, d_rows.shape[1], rows.shape[1])
        for matrix, begin, end in zip(out.unbind(), plan.bounds, plan.bounds[1:]):
            torch.mm(d_rows[begin:end].t(), rows[begin:end], out=matrix)
        return out


class Bmm:
    """One batched product of rows padded to the largest expert's."""

    padded = True

    def forward(self, rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        return self.to_rows(rows, weight.mT, plan)

    def to_rows(self, d_rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        return torch.bmm(self._batch(d_rows, plan), weight).flatten(0, 1)

    def to_weight(self, d_rows: Tensor, rows: Tensor, plan: Plan) -> Tensor:
        return torch.bmm(self._batch(d_rows, plan).mT, self._batch(rows, plan))

    @staticmethod
    def _batch(rows: Tensor, plan: Plan) -> Tensor:
        return rows.view(-1, plan.width, rows.shape[1])


class Grouped:
    """torch.nn.functional.grouped_mm, which PyTorch 2.4 lacks and 2.15 has on the CPU too."""

    padded = False

    def forward(self, rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        return self.to_rows(rows, weight.mT, plan)

    def to_rows(self, d_rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        return torch.nn.functional.grouped_mm(d_rows, weight, offs=plan.ends)

    def to_weight(self, d_rows: Tensor, rows: Tensor, plan: Plan) -> Tensor:
        return torch.nn.functional.grouped_mm(d_rows.t(), rows, offs=plan.ends)


def products() -> dict[str, Product]:
    """The products that this PyTorch offers, by name."""
    found: dict[str, Product] = {"loop": Loop(), "bmm": Bmm()}
    if hasattr(torch.nn.functional, "grouped_mm"):
        found["grouped"] = Grouped()
    return found


class Experts(Function):
    """y_t = Σ over the chosen experts i of p_ti · E_i(x_t).

    x: (token, hidden); probability, of the chosen: (token, top_k);
    gate_up: (expert, 2·ffn, hidden); down: (expert, hidden, ffn).
    Padding costs products but changes nothing: its probability is 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: Tensor, gate_up: Tensor, down: Tensor,
                plan: Plan, product: Product, pointwise: Pointwise) -> Tensor:  # fmt: skip
        scale = plan.spread(probability)
        hidden = product.forward(x.index_select(0, plan.token), gate_up, plan)
        # p · (a Wᵀ) = (p · a) Wᵀ, and a row of a is narrower.
        a = pointwise.swiglu_forward(hidden, scale)
        ctx.save_for_backward(x, scale, gate_up, down, hidden)
        ctx.plan, ctx.product, ctx.pointwise = plan, product, pointwise
        return plan.sum(product.forward(a, down, plan))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        x, scale, gate_up, down, hidden = ctx.saved_tensors
        plan, product = ctx.plan, ctx.product
        dy_rows = dy.index_select(0, plan.token)
        da = product.to_rows(dy_rows, down, plan)
        d_hidden, d_scale, a = ctx.pointwise.swiglu_backward(da, hidden, scale)
        d_down = product.to_weight(dy_rows, a, plan)
        del da, dy_rows, a
        d_gate_up = product.to_weight(d_hidden, x.index_select(0, plan.token), plan)
        dx = plan.sum(product.to_rows(d_hidden, gate_up, plan))
        d_probability = d_scale.to(scale.dtype)[plan.slot]
        return dx, d_probability, d_gate_up, d_down, None, None, None
