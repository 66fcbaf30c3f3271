"""Differentiable pieces with gradients by hand: norm, SwiGLU, attention, cross-entropy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from pointwise import Pointwise
from torch import Tensor
from torch.autograd import Function

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class RmsNorm(Function):
    """RMS norm of x (row, hidden) with weight (hidden), returned in type `out`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, out: torch.dtype,
                pointwise: Pointwise) -> Tensor:  # fmt: skip
        y, inverse = pointwise.norm_forward(x, weight, epsilon, out)
        ctx.save_for_backward(x, weight, inverse)
        ctx.pointwise = pointwise
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        return *ctx.pointwise.norm_backward(dy, *ctx.saved_tensors), None, None, None


class SwiGlu(Function):
    """silu(gate) · up of gate_up (row, 2·ffn)."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, pointwise: Pointwise) -> Tensor:
        ctx.save_for_backward(gate_up)
        ctx.pointwise = pointwise
        return pointwise.swiglu_forward(gate_up, None)

    @staticmethod
    def backward(ctx: Any, da: Tensor) -> tuple:
        return ctx.pointwise.swiglu_backward(da, *ctx.saved_tensors, None)[0], None


@dataclass(frozen=True)
class AttentionTypes:
    """The types in which attention goes forward and backward."""

    forward: torch.dtype
    backward: torch.dtype

    @staticmethod
    def fastest(choice: list[torch.dtype], heads: int, length: int, dim: int) -> AttentionTypes:
        """The faster of the types in either direction, by a trial on one sequence."""
        if len(choice) == 1:
            return AttentionTypes(choice[0], choice[0])
        forward: dict[torch.dtype, float] = {}
        backward: dict[torch.dtype, float] = {}
        for dtype in choice:
            q, k, v, dy = torch.randn(4, 1, heads, length, dim, dtype=dtype)
            for _ in range(3):
                begin = time.perf_counter()
                y, log_sum = _flash(q, k, v, 0.0, True)
                middle = time.perf_counter()
                _flash_backward(dy, q, k, v, y, log_sum, 0.0, True)
                end = time.perf_counter()
                forward[dtype] = min(forward.get(dtype, end), middle - begin)
                backward[dtype] = min(backward.get(dtype, end), end - middle)
        return AttentionTypes(min(forward, key=forward.get), min(backward, key=backward.get))


class CausalAttention(Function):
    """Rotary embedding and causal attention of qkv (sequence, position, 3, head, head_dim).

    Returns (sequence, position, head · head_dim).
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, types: AttentionTypes,
                pointwise: Pointwise) -> Tensor:  # fmt: skip
        qk = pointwise.rotate(qkv[:, :, :2], cos, sin).to(types.forward)
        # (sequence, head, position, head_dim)
        query, key = qk[:, :, 0].transpose(1, 2), qk[:, :, 1].transpose(1, 2)
        value = qkv[:, :, 2].transpose(1, 2).to(types.forward)
        y, log_sum = _flash(query, key, value, 0.0, True)
        ctx.save_for_backward(query, key, value, y, log_sum, cos, sin)
        ctx.types, ctx.pointwise, ctx.dtype = types, pointwise, qkv.dtype
        return y.transpose(1, 2).flatten(2).to(qkv.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        *parts, log_sum, cos, sin = ctx.saved_tensors
        query, key, value, y = (t.to(ctx.types.backward) for t in parts)
        sequences, heads, length, dim = query.shape
        dy = dy.view(sequences, length, heads, dim).transpose(1, 2).to(ctx.types.backward)
        gradients = _flash_backward(dy, query, key, value, y, log_sum, 0.0, True)
        d_qkv = dy.new_empty(sequences, length, 3, heads, dim, dtype=ctx.dtype)
        for i, gradient in enumerate(gradients):
            d_qkv[:, :, i] = gradient.transpose(1, 2)
        d_qkv[:, :, :2] = ctx.pointwise.rotate(d_qkv[:, :, :2], cos, -sin)
        return d_qkv, None, None, None, None


class HeadCrossEntropy(Function):
    """Mean cross-entropy of softmax(x Wᵀ), x (row, hidden) and W (vocabulary, hidden).

    The gradients are made with the loss, a chunk of rows at a time, so that only
    (chunk, vocabulary) logits ever exist.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, target: Tensor, chunk: int,
                pointwise: Pointwise) -> Tensor:  # fmt: skip
        rows = x.shape[0]
        chunk = min(chunk, rows)
        dx, dw = torch.empty_like(x), torch.zeros_like(weight)
        buffer = x.new_empty(chunk, weight.shape[0])
        losses = []
        for begin in range(0, rows, chunk):
            part = slice(begin, min(begin + chunk, rows))
            logits = buffer[: part.stop - begin]
            torch.mm(x[part], weight.t(), out=logits)
            loss, gradient = pointwise.entropy_gradient(logits, target[part])
            losses.append(loss)
            torch.mm(gradient, weight, out=dx[part])
            torch.addmm(dw, gradient.t(), x[part], alpha=1 / rows, out=dw)
        ctx.save_for_backward(dx.div_(rows), dw)
        return torch.cat(losses).mean()

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple:
        dx, dw = ctx.saved_tensors
        if d_loss.item() != 1.0:
            dx, dw = dx * d_loss, dw * d_loss
        return dx, dw, None, None, None
