"""Element-wise pieces of the model with their derivatives, optionally fused by torch.compile.

Each is a pure function on tensors. bfloat16 operands are widened to float32 inside; wider types
are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu


def wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


def norm_forward(x: Tensor, weight: Tensor, epsilon: float, out: torch.dtype) -> tuple:
    """y = x / rms(x) · weight over the last dimension, and 1 / rms(x)."""
    x = wide(x)
    inverse = (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return (x * inverse * weight).to(out), inverse


def norm_backward(dy: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> tuple:
    """Gradients of norm_forward for x (row, hidden) and weight (hidden)."""
    dy, unit = wide(dy), wide(x) * inverse
    d_weight = (dy * unit).sum(0)
    dy = dy * weight
    dx = (dy - unit * (dy * unit).mean(-1, keepdim=True)) * inverse
    return dx.to(x.dtype), d_weight.to(weight.dtype)


def swiglu_forward(gate_up: Tensor, scale: Tensor | None) -> Tensor:
    """a = silu(gate) · up · scale of gate_up (row, 2·ffn) and scale (row)."""
    gate, up = gate_up.chunk(2, -1)
    a = silu(gate) * up
    return a if scale is None else a * scale[:, None].to(a.dtype)


def swiglu_backward(da: Tensor, gate_up: Tensor, scale: Tensor | None) -> tuple:
    """Gradients of swiglu_forward for gate_up and scale, and, with a scale, a once more."""
    gate, up = gate_up.chunk(2, -1)
    a = d_scale = None
    if scale is not None:
        a = silu(gate) * up
        d_scale = (wide(da) * wide(a)).sum(-1)
        factor = scale[:, None].to(a.dtype)
        a, da = a * factor, da * factor
    d_gate = torch.ops.aten.silu_backward(da * up, gate)
    return torch.cat((d_gate, da * silu(gate)), -1), d_scale, a


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs (i, i + head_dim/2) of x (sequence, position, ..., head, head_dim).

    cos and sin: (position, 1, 1, head_dim/2).
    """
    first, second = x.chunk(2, -1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
    return turned.to(x.dtype)


def entropy_gradient(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (row) of logits (row, vocabulary), and its gradient for them.

    May overwrite the logits with the gradient.
    """
    probability = (
        torch.softmax(logits, -1, dtype=torch.float32)
        if logits.dtype == torch.bfloat16
        else torch.softmax(logits, -1, out=logits)
    )
    at = target[:, None]
    likelihood = probability.gather(1, at)
    gradient = probability if probability is logits else logits.copy_(probability)
    gradient.scatter_(1, at, (likelihood - 1).to(gradient.dtype))
    # A likelihood that underflows would make the loss infinite.
    return -likelihood.clamp(min=1e-37).log().squeeze(1), gradient


def entropy_gradient_fusible(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """entropy_gradient in the form that the compiler can fuse."""
    x = wide(logits)
    shifted = x - x.amax(-1, keepdim=True)
    log_sum = shifted.exp().sum(-1, keepdim=True).log()
    log_likelihood = shifted - log_sum
    hit = torch.arange(x.shape[1])[None, :] == target[:, None]
    gradient = log_likelihood.exp() - hit.to(x.dtype)
    loss = (log_sum - shifted.gather(1, target[:, None])).squeeze(1)
    return loss, gradient.to(logits.dtype)


def router_losses(logits: Tensor, probability: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Balance loss E · Σ_i P̄_i f_i and z loss of one layer.

    logits, probability: (token, expert); share f: (expert), of the token copies.
    """
    balance = share.numel() * (probability.mean(0) * share).sum()
    return balance, logits.logsumexp(-1).square().mean()


@dataclass(frozen=True)
class Pointwise:
    """The functions of this module as they are, or compiled."""

    norm_forward: Callable[..., Any] = norm_forward
    norm_backward: Callable[..., Any] = norm_backward
    swiglu_forward: Callable[..., Any] = swiglu_forward
    swiglu_backward: Callable[..., Any] = swiglu_backward
    rotate: Callable[..., Any] = rotate
    entropy_gradient: Callable[..., Any] = entropy_gradient
    router_losses: Callable[..., Any] = router_losses

    @staticmethod
    def compiled() -> Pointwise:
        fused = torch.compile(entropy_gradient_fusible)

        def entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            # PyTorch's own softmax in place is ahead where no conversion is saved.
            narrow = logits.dtype == torch.bfloat16
            return (fused if narrow else entropy_gradient)(logits, target)

        # The padded rows of experts change from step to step.
        return Pointwise(
            torch.compile(norm_forward),
            torch.compile(norm_backward),
            torch.compile(swiglu_forward, dynamic=True),
            torch.compile(swiglu_backward, dynamic=True),
            torch.compile(rotate),
            entropy,
            torch.compile(router_losses),
        )
