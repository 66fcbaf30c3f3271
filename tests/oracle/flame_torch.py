"""FLAME-MoE in plain PyTorch: model, loss, optimizer and learning rate.

Written for clarity from the mathematics alone, it shares nothing with the C++ program
and serves as its oracle. Weights are a flat dictionary of tensors named as in Hearth's
tensor table; matrices are (out, in) and act as x @ W.T. All arithmetic is done in the
type of the weights.
"""

from __future__ import annotations

import configparser
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, silu

Weights = dict[str, Tensor]


def _key(section: str, default: Any) -> Any:
    return field(default=default, metadata={"section": section})


@dataclass
class Config:
    """The keys of a Hearth deck that decide the result of training."""

    steps: int = _key("run", 10)
    seed: int = _key("run", 1)
    layers: int = _key("model", 2)
    hidden: int = _key("model", 16)
    heads: int = _key("model", 2)
    kv_heads: int = _key("model", 0)
    head_dim: int = _key("model", 0)
    dense_ffn: int = _key("model", 32)
    vocabulary: int = _key("model", 64)
    sequence_length: int = _key("model", 16)
    rotary_base: float = _key("model", 10000.0)
    norm_epsilon: float = _key("model", 1e-6)
    init_std: float = _key("model", 0.02)
    tie_embeddings: bool = _key("model", False)
    qk_norm: bool = _key("model", False)
    document_mask: bool = _key("model", False)
    compute_type: str = _key("model", "fp64")
    experts: int = _key("moe", 0)
    top_k: int = _key("moe", 1)
    expert_ffn: int = _key("moe", 8)
    shared_ffn: int = _key("moe", 0)
    dense_layers: int = _key("moe", 0)
    router: str = _key("moe", "top_k")
    balance_loss: float = _key("moe", 0.01)
    z_loss: float = _key("moe", 0.001)
    global_batch: int = _key("batch", 4)
    cell_sequences: int = _key("batch", 1)
    learning_rate: float = _key("optimizer", 3e-4)
    min_learning_rate: float = _key("optimizer", 3e-5)
    warmup_fraction: float = _key("optimizer", 0.01)
    decay_fraction: float = _key("optimizer", 0.1)
    beta1: float = _key("optimizer", 0.9)
    beta2: float = _key("optimizer", 0.999)
    epsilon: float = _key("optimizer", 1e-8)
    weight_decay: float = _key("optimizer", 0.01)
    clip_norm: float = _key("optimizer", 1.0)

    def __post_init__(self) -> None:
        self.kv_heads = self.kv_heads or self.heads
        self.head_dim = self.head_dim or self.hidden // self.heads
        if self.router != "top_k":
            raise ValueError(f"router = {self.router}: only top_k is implemented")

    @property
    def dtype(self) -> torch.dtype:
        return {"fp64": torch.float64, "fp32": torch.float32}[self.compute_type]

    def has_experts(self, layer: int) -> bool:
        return self.experts > 0 and layer >= self.dense_layers

    def deck(self) -> str:
        """The deck text of this configuration."""
        lines: list[str] = []
        for entry in fields(self):
            heading = f"[{entry.metadata['section']}]"
            if heading not in lines:
                lines += ["", heading] if lines else [heading]
            value = getattr(self, entry.name)
            text = str(value).lower() if isinstance(value, bool) else str(value)
            lines.append(f"{entry.name} = {text}")
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_deck(text: str) -> Config:
        """The configuration that a deck states; an unknown key is an error."""
        parser = configparser.ConfigParser()
        parser.read_string(text)
        kinds = {entry.name: type(entry.default) for entry in fields(Config)}
        values: dict[str, Any] = {}
        for section in parser.sections():
            for key, value in parser[section].items():
                kind = kinds[key]
                values[key] = value == "true" if kind is bool else kind(value)
        return Config(**values)


def tensor_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights, in the order of the forward pass."""
    c = config
    width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    shapes: dict[str, tuple[int, ...]] = {"embedding/weight": (c.vocabulary, c.hidden)}

    def add_feed_forward(prefix: str, width: int, experts: tuple[int, ...] = ()) -> None:
        shapes[f"{prefix}/gate"] = (*experts, width, c.hidden)
        shapes[f"{prefix}/up"] = (*experts, width, c.hidden)
        shapes[f"{prefix}/down"] = (*experts, c.hidden, width)

    for layer in range(c.layers):
        prefix = f"layers/{layer:02d}"
        shapes[f"{prefix}/attention_norm/weight"] = (c.hidden,)
        shapes[f"{prefix}/attention/query"] = (width, c.hidden)
        shapes[f"{prefix}/attention/key"] = (kv_width, c.hidden)
        shapes[f"{prefix}/attention/value"] = (kv_width, c.hidden)
        shapes[f"{prefix}/attention/output"] = (c.hidden, width)
        if c.qk_norm:
            shapes[f"{prefix}/attention/query_norm"] = (c.head_dim,)
            shapes[f"{prefix}/attention/key_norm"] = (c.head_dim,)
        shapes[f"{prefix}/feed_forward_norm/weight"] = (c.hidden,)
        if c.has_experts(layer):
            shapes[f"{prefix}/router/weight"] = (c.experts, c.hidden)
            add_feed_forward(f"{prefix}/experts", c.expert_ffn, (c.experts,))
            if c.shared_ffn:
                add_feed_forward(f"{prefix}/shared", c.shared_ffn)
        else:
            add_feed_forward(f"{prefix}/dense", c.dense_ffn)
    shapes["final_norm/weight"] = (c.hidden,)
    if not c.tie_embeddings:
        shapes["head/weight"] = (c.vocabulary, c.hidden)
    return shapes


# Model ------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + epsilon) * weight


def rotate(x: Tensor, base: float) -> Tensor:
    """Rotary embedding of x (..., position, head_dim).

    Dimensions i and i + head_dim/2 form the pair that turns by position · base^(-2i/head_dim).
    """
    length, dim = x.shape[-2:]
    frequency = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def visible_keys(length: int, documents: Tensor | None) -> Tensor:
    """Whether a query sees a key, (sequence or 1, query, key): causal, and within a document.

    `documents` (sequence, position) says which document each token belongs to.
    """
    past = torch.ones(1, length, length, dtype=torch.bool).tril()
    return past if documents is None else past & (documents[:, :, None] == documents[:, None, :])


def attention(x: Tensor, weights: Weights, prefix: str, config: Config, visible: Tensor) -> Tensor:
    """Attention of x (sequence, position, hidden) to the visible keys of each sequence."""
    sequences, length, _ = x.shape

    def heads(name: str, count: int) -> Tensor:
        rows = x @ weights[f"{prefix}/{name}"].T
        return rows.view(sequences, length, count, config.head_dim).transpose(1, 2)

    query = heads("query", config.heads)
    key = heads("key", config.kv_heads)
    value = heads("value", config.kv_heads)
    if config.qk_norm:
        query = rms_norm(query, weights[f"{prefix}/query_norm"], config.norm_epsilon)
        key = rms_norm(key, weights[f"{prefix}/key_norm"], config.norm_epsilon)
    query, key = rotate(query, config.rotary_base), rotate(key, config.rotary_base)

    # Consecutive query heads share a key/value head.
    group = config.heads // config.kv_heads
    key, value = (t.repeat_interleave(group, dim=1) for t in (key, value))
    scores = query @ key.transpose(-1, -2) / math.sqrt(config.head_dim)
    probability = scores.masked_fill(~visible[:, None], -math.inf).softmax(-1)
    rows = (probability @ value).transpose(1, 2).reshape(sequences, length, -1)
    return rows @ weights[f"{prefix}/output"].T


def swiglu(x: Tensor, weights: Weights, prefix: str) -> Tensor:
    gate, up, down = (weights[f"{prefix}/{name}"] for name in ("gate", "up", "down"))
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


def choose(probability: Tensor, top_k: int) -> Tensor:
    """Mask of the top_k largest entries of each row; ties go to the lowest index."""
    order = probability.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    return torch.zeros_like(probability, dtype=torch.bool).scatter(1, order, True)


class Routing(NamedTuple):
    """What the router of one layer did with the tokens of one cell."""

    logits: Tensor  # (token, expert)
    probability: Tensor  # (token, expert)
    chosen: Tensor  # (token, expert), bool


def mixture(x: Tensor, weights: Weights, prefix: str, config: Config) -> tuple[Tensor, Routing]:
    """y = Σ over chosen experts of p_i E_i(x) + Shared(x), with p not renormalised."""
    logits = x @ weights[f"{prefix}/router/weight"].T
    probability = logits.softmax(-1)
    chosen = choose(probability, config.top_k)
    y = torch.zeros_like(x)
    for i in range(config.experts):
        expert = {
            f"expert/{name}": weights[f"{prefix}/experts/{name}"][i]
            for name in ("gate", "up", "down")
        }
        tokens = chosen[:, i].nonzero().squeeze(1)
        rows = probability[tokens, i, None] * swiglu(x[tokens], expert, "expert")
        y = y.index_add(0, tokens, rows)
    if config.shared_ffn:
        y = y + swiglu(x, weights, f"{prefix}/shared")
    return y, Routing(logits, probability, chosen)


def forward(
    weights: Weights, tokens: Tensor, config: Config, documents: Tensor | None = None
) -> tuple[Tensor, list[Routing]]:
    """Logits (sequence, position, vocabulary) and the routing of each MoE layer."""
    x = weights["embedding/weight"][tokens]
    visible = visible_keys(tokens.shape[1], documents)
    routings = []
    for layer in range(config.layers):
        prefix = f"layers/{layer:02d}"
        norm = weights[f"{prefix}/attention_norm/weight"]
        normed = rms_norm(x, norm, config.norm_epsilon)
        x = x + attention(normed, weights, f"{prefix}/attention", config, visible)
        norm = weights[f"{prefix}/feed_forward_norm/weight"]
        rows = rms_norm(x, norm, config.norm_epsilon).flatten(0, 1)
        if config.has_experts(layer):
            y, routing = mixture(rows, weights, prefix, config)
            routings.append(routing)
        else:
            y = swiglu(rows, weights, f"{prefix}/dense")
        x = x + y.view_as(x)
    x = rms_norm(x, weights["final_norm/weight"], config.norm_epsilon)
    head = weights["embedding/weight" if config.tie_embeddings else "head/weight"]
    return x @ head.T, routings


# Loss -------------------------------------------------------------------------------


def balance_loss(routing: Routing) -> Tensor:
    """E · Σ_i P̄_i f_i over the tokens of a cell; 1 when the load is even.

    f_i, the share of token copies that expert i received, is piecewise constant.
    """
    mass = routing.probability.mean(0)
    # In the model's type: a quotient of integers would be a float32.
    share = routing.chosen.sum(0).to(mass.dtype) / routing.chosen.sum()
    return mass.numel() * (mass * share).sum()


def z_loss(routing: Routing) -> Tensor:
    return routing.logits.logsumexp(-1).square().mean()


class Losses(NamedTuple):
    """Terms of the loss of one optimizer step, coefficients included."""

    cross_entropy: Tensor
    balance: Tensor
    z: Tensor

    @property
    def total(self) -> Tensor:
        return self.cross_entropy + self.balance + self.z


def step_losses(
    weights: Weights, tokens: Tensor, config: Config, documents: Tensor | None = None
) -> tuple[Losses, list[Routing]]:
    """Losses over a global batch of tokens (sequence, sequence_length + 1).

    With documents (sequence, sequence_length) attention stays within each; targets do not.
    Cross-entropy is the mean over all targets. Balance and z losses are those of each
    cell of cell_sequences consecutive sequences, weighted by its share of the targets.
    """
    zero = torch.zeros((), dtype=config.dtype)
    entropy, balance, z = zero, zero, zero
    every_routing = []
    targets = tokens[:, 1:].numel()
    for sequences in torch.arange(len(tokens)).split(config.cell_sequences):
        cell = tokens[sequences]
        within = None if documents is None else documents[sequences]
        logits, routings = forward(weights, cell[:, :-1], config, within)
        target = cell[:, 1:].flatten()
        entropy = entropy + cross_entropy(logits.flatten(0, 1), target, reduction="sum")
        for routing in routings:
            balance = balance + target.numel() / targets * balance_loss(routing)
            z = z + target.numel() / targets * z_loss(routing)
        every_routing += routings
    losses = Losses(entropy / targets, config.balance_loss * balance, config.z_loss * z)
    return losses, every_routing


def router_gap(routings: Sequence[Routing], top_k: int) -> float:
    """Smallest distance between the last chosen and the first rejected probability."""
    gap = math.inf
    for routing in routings:
        ranked = routing.probability.detach().sort(dim=-1, descending=True).values
        if ranked.shape[1] > top_k:
            gap = min(gap, float((ranked[:, top_k - 1] - ranked[:, top_k]).min()))
    return gap


# Training ---------------------------------------------------------------------------


def learning_rate(step: int, config: Config) -> float:
    """Learning rate of the update with 0-based index `step`: Megatron-LM's WSD schedule.

    It counts in samples, those consumed before the update, so the first update has n = 0
    and, after a warm-up, a rate of zero:

        n      = step · global_batch
        N      = steps · global_batch
        warm   = warmup_fraction · N                        (not rounded)
        decay  = floor(steps · decay_fraction) · global_batch

        lr(n) = max · n / warm                              if warm > 0 and n <= warm
              = min                                         else if n > N
              = max                                         else if n <= N - decay
              = min + (2 · 0.5^r - 1) · (max - min)         else, r = (n - (N - decay)) / decay
    """
    c = config
    consumed = step * c.global_batch
    total = c.steps * c.global_batch
    warmup = c.warmup_fraction * total
    decay = int(c.steps * c.decay_fraction) * c.global_batch
    if warmup > 0 and consumed <= warmup:
        return c.learning_rate * consumed / warmup
    if consumed > total:
        return c.min_learning_rate
    if consumed <= total - decay:
        return c.learning_rate
    ratio = (consumed - (total - decay)) / decay
    coefficient = 2.0 * 0.5**ratio - 1.0
    return c.min_learning_rate + coefficient * (c.learning_rate - c.min_learning_rate)


def clip_scale(norm: float, clip_norm: float) -> float:
    """Factor on all gradients given their global norm; clip_norm = 0 never clips."""
    return min(1.0, clip_norm / (norm + 1e-6)) if clip_norm > 0 else 1.0


class Step(NamedTuple):
    """One optimizer step; gradients and losses are those before its update."""

    losses: Losses
    gradients: Weights  # before clipping
    gradient_norm: float  # before clipping
    learning_rate: float
    router_gap: float
    weights: Weights  # after the update


def train(
    weights: Weights, batches: Tensor, config: Config, documents: Tensor | None = None
) -> Iterator[Step]:
    """Train on batches (step, sequence, position) with AdamW; yields every step.

    `documents` (step, sequence, position), without the last position, are needed with
    document_mask and must not be there without.
    w ← w - lr · (m̂ / (√v̂ + epsilon) + weight_decay · w), where weight decay spares
    vectors and the bias corrections of m̂ and v̂ count the updates from 1.
    """
    c = config
    weights = {name: w.detach().clone() for name, w in weights.items()}
    first = {name: torch.zeros_like(w) for name, w in weights.items()}
    second = {name: torch.zeros_like(w) for name, w in weights.items()}
    if (documents is not None) != c.document_mask:
        raise ValueError("documents do not fit document_mask")
    for index, tokens in enumerate(batches):
        leaves = {name: w.requires_grad_() for name, w in weights.items()}
        within = None if documents is None else documents[index]
        losses, routings = step_losses(leaves, tokens.long(), config, within)
        values = torch.autograd.grad(losses.total, list(leaves.values()))
        gradients = dict(zip(leaves, values))
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in values))
        rate = learning_rate(index, config)
        update = index + 1

        weights = {}
        for name, leaf in leaves.items():
            w = leaf.detach()
            g = gradients[name] * clip_scale(norm, c.clip_norm)
            first[name] = c.beta1 * first[name] + (1 - c.beta1) * g
            second[name] = c.beta2 * second[name] + (1 - c.beta2) * g * g
            m = first[name] / (1 - c.beta1**update)
            v = second[name] / (1 - c.beta2**update)
            decay = c.weight_decay if w.dim() >= 2 else 0.0
            weights[name] = w - rate * (m / (v.sqrt() + c.epsilon) + decay * w)
        yield Step(
            Losses(*(loss.detach() for loss in losses)),
            gradients,
            norm,
            rate,
            router_gap(routings, c.top_k),
            weights,
        )
