"""AdamW with gradient clipping, and with float32 masters of bfloat16 parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class ClippedAdamW:
    """PyTorch's fused AdamW after clipping by global norm; weight decay spares vectors.

    Parameters in bfloat16 are copies of float32 masters that the optimizer holds.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float = 3e-4) -> None:
        self.parameters = list(parameters)
        self.masters = [
            p.detach().float() if p.dtype == torch.bfloat16 else p for p in self.parameters
        ]
        groups = [
            {"params": [m for m in self.masters if m.dim() >= 2], "weight_decay": 0.01},
            {"params": [m for m in self.masters if m.dim() < 2], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(
            groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True
        )
        self.adam.found_inf = torch.zeros(())

    def set_rate(self, learning_rate: float) -> None:
        """Sets the learning rate of the updates to come."""
        for group in self.adam.param_groups:
            group["lr"] = learning_rate

    @torch.no_grad()
    def step(self, clip_norm: float = 1.0) -> float:
        """Updates the parameters, frees the gradients; returns their norm before clipping."""
        norms = [torch.linalg.vector_norm(p.grad, dtype=_wide(p)) for p in self.parameters]
        norm = float(torch.stack(norms).norm())
        # The fused kernel divides by this scale, which saves clipping's pass over memory.
        self.adam.grad_scale = torch.tensor(max(1.0, (norm + 1e-6) / clip_norm))
        for master, parameter in zip(self.masters, self.parameters):
            if master is not parameter:
                master.grad = parameter.grad.float()
                parameter.grad = None
        self.adam.step()
        for master, parameter in zip(self.masters, self.parameters):
            if master is not parameter:
                parameter.copy_(master)
            master.grad = None
        return norm


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
