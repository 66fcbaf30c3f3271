"""FLAME-MoE in PyTorch as fast as its CPU operators allow: the yardstick of bench/."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from experts import Experts, Plan, products
from functions import AttentionTypes, CausalAttention, HeadCrossEntropy, RmsNorm, SwiGlu
from pointwise import Pointwise
from torch import Tensor, nn
from torch.nn.functional import embedding, linear


@dataclass(frozen=True)
class Sizes:
    """Model sizes, named as in a deck; those of FLAME-38M when not given."""

    layers: int = 9
    hidden: int = 256
    heads: int = 16
    dense_ffn: int = 1368
    vocabulary: int = 50304
    experts: int = 64
    top_k: int = 6
    expert_ffn: int = 176
    shared_ffn: int = 352
    dense_layers: int = 1
    balance_loss: float = 0.01
    z_loss: float = 0.001
    rotary_base: float = 10000.0
    norm_epsilon: float = 1e-6

    @staticmethod
    def from_deck(path: Path) -> Sizes:
        """The sizes that a deck of Hearth states; other keys are of no concern here."""
        parser = configparser.ConfigParser()
        if not parser.read(path):
            raise FileNotFoundError(f"{path}: no such deck")
        stated = {**parser["model"], **parser["moe"]}
        kinds = {name: type(value) for name, value in vars(Sizes()).items()}
        return Sizes(**{key: kinds[key](stated[key]) for key in kinds if key in stated})


@dataclass(frozen=True)
class Numerics:
    """How the model computes: its types and which operators."""

    parameters: torch.dtype = torch.float32
    compute: torch.dtype = torch.float32  # of products and what they read
    attention: AttentionTypes = AttentionTypes(torch.float32, torch.float32)
    experts: str = "bmm"  # a name of experts.products()
    pointwise: Pointwise = Pointwise()
    head_chunk: int = 512  # rows of logits that exist at once


class Losses(NamedTuple):
    """Terms of the loss, coefficients included."""

    cross_entropy: Tensor
    balance: Tensor
    z: Tensor


class FeedForward(nn.Module):
    """A dense SwiGLU network."""

    def __init__(self, hidden: int, ffn: int, numerics: Numerics) -> None:
        super().__init__()
        self.numerics = numerics
        self.gate_up = nn.Parameter(torch.empty(2 * ffn, hidden, dtype=numerics.parameters))
        self.down = nn.Parameter(torch.empty(hidden, ffn, dtype=numerics.parameters))

    def forward(self, x: Tensor) -> Tensor:
        compute = self.numerics.compute
        a = SwiGlu.apply(linear(x, self.gate_up.to(compute)), self.numerics.pointwise)
        return linear(a, self.down.to(compute))


class Mixture(nn.Module):
    """Routed experts, p not renormalised, and a shared one."""

    def __init__(self, sizes: Sizes, numerics: Numerics) -> None:
        super().__init__()
        self.sizes, self.numerics = sizes, numerics
        self.product = products()[numerics.experts]
        self.imbalance = 0.0  # the largest expert's rows over the mean, of the latest pass
        s, dtype = sizes, numerics.parameters
        self.router = nn.Parameter(torch.empty(s.experts, s.hidden, dtype=dtype))
        self.gate_up = nn.Parameter(torch.empty(s.experts, 2 * s.expert_ffn, s.hidden, dtype=dtype))
        self.down = nn.Parameter(torch.empty(s.experts, s.hidden, s.expert_ffn, dtype=dtype))
        self.shared = FeedForward(s.hidden, s.shared_ffn, numerics) if s.shared_ffn else None

    def forward(self, x: Tensor, forced: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """y (token, hidden) of x (token, hidden), balance loss and z loss.

        forced (token, top_k), where given, takes the place of the router's choice.
        """
        s, n = self.sizes, self.numerics
        wide = torch.promote_types(n.compute, torch.float32)
        logits = linear(x.to(wide), self.router.to(wide))
        probability = logits.softmax(-1)
        if forced is None:
            # Nobody reads the order among a token's experts.
            chosen = probability.detach().topk(s.top_k, sorted=False).indices
        else:
            chosen = forced
        plan = Plan.make(chosen, s.experts, self.product.padded)
        self.imbalance = plan.width * s.experts / chosen.numel()
        share = plan.ends.diff(prepend=plan.ends.new_zeros(1)).to(wide) / chosen.numel()
        balance, z = n.pointwise.router_losses(logits, probability, share)
        y = Experts.apply(x, probability.gather(1, chosen), self.gate_up.to(n.compute),
                          self.down.to(n.compute), plan, self.product, n.pointwise)  # fmt: skip
        if self.shared is not None:
            y = y + self.shared(x)
        return y, balance, z


class Block(nn.Module):
    """One layer: attention, then experts or a dense network, each with norm and residual."""

    def __init__(self, sizes: Sizes, numerics: Numerics, layer: int) -> None:
        super().__init__()
        self.sizes, self.numerics = sizes, numerics
        h, dtype = sizes.hidden, numerics.parameters
        self.attention_norm = nn.Parameter(torch.ones(h, dtype=dtype))
        self.qkv = nn.Parameter(torch.empty(3 * h, h, dtype=dtype))
        self.output = nn.Parameter(torch.empty(h, h, dtype=dtype))
        self.feed_forward_norm = nn.Parameter(torch.ones(h, dtype=dtype))
        has_experts = sizes.experts > 0 and layer >= sizes.dense_layers
        self.feed_forward = (
            Mixture(sizes, numerics) if has_experts else FeedForward(h, sizes.dense_ffn, numerics)
        )

    def forward(self, x: Tensor, length: int, cos: Tensor, sin: Tensor) -> tuple:
        """x (token, hidden) after the layer, balance loss and z loss (0 without experts)."""
        s, n = self.sizes, self.numerics
        norm = (s.norm_epsilon, n.compute, n.pointwise)
        rows = RmsNorm.apply(x, self.attention_norm, *norm)
        qkv = linear(rows, self.qkv.to(n.compute))
        qkv = qkv.view(-1, length, 3, s.heads, s.hidden // s.heads)
        rows = CausalAttention.apply(qkv, cos, sin, n.attention, n.pointwise).flatten(0, 1)
        x = x + linear(rows, self.output.to(n.compute))
        rows = RmsNorm.apply(x, self.feed_forward_norm, *norm)
        if isinstance(self.feed_forward, Mixture):
            y, balance, z = self.feed_forward(rows)
            return x + y, balance, z
        return x + self.feed_forward(rows), 0.0, 0.0


class Model(nn.Module):
    """FLAME-MoE with the losses of one batch as its output."""

    def __init__(self, sizes: Sizes, numerics: Numerics, seed: int = 1) -> None:
        super().__init__()
        self.sizes, self.numerics = sizes, numerics
        shape, dtype = (sizes.vocabulary, sizes.hidden), numerics.parameters
        self.embedding = nn.Parameter(torch.empty(shape, dtype=dtype))
        self.blocks = nn.ModuleList(Block(sizes, numerics, i) for i in range(sizes.layers))
        self.final_norm = nn.Parameter(torch.ones(sizes.hidden, dtype=dtype))
        self.head = nn.Parameter(torch.empty(shape, dtype=dtype))
        self._initialize(seed)

    def forward(self, tokens: Tensor) -> Losses:
        """Losses over one cell of tokens (sequence, position + 1)."""
        s, n = self.sizes, self.numerics
        length = tokens.shape[1] - 1
        cos, sin = rotary_table(length, s.hidden // s.heads, s.rotary_base)
        wide = torch.promote_types(n.compute, torch.float32)
        cos, sin = cos.to(wide), sin.to(wide)
        x = embedding(tokens[:, :-1].flatten(), self.embedding)
        balance = z = torch.zeros(())
        for block in self.blocks:
            x, layer_balance, layer_z = block(x, length, cos, sin)
            balance, z = balance + layer_balance, z + layer_z
        x = RmsNorm.apply(x, self.final_norm, s.norm_epsilon, n.compute, n.pointwise)
        target = tokens[:, 1:].flatten()
        head = self.head.to(n.compute)
        entropy = HeadCrossEntropy.apply(x, head, target, n.head_chunk, n.pointwise)
        return Losses(entropy, s.balance_loss * balance, s.z_loss * z)

    @torch.no_grad()
    def _initialize(self, seed: int) -> None:
        """N(0, 0.02), divided by √(2 · layers) in projections back to the residual stream."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:
                back = name.endswith(("output", "down"))
                deviation = 0.02 / (2 * self.sizes.layers) ** 0.5 if back else 0.02
                weight.copy_(torch.empty(weight.shape).normal_(0, deviation, generator=generator))


def rotary_table(length: int, dim: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin (position, 1, 1, dim/2) of the angles position · base^(-2i/dim), in fp64."""
    frequency = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    return angle.cos()[:, None, None], angle.sin()[:, None, None]
