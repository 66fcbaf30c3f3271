"""The benchmark's model against the oracle of tests/oracle: same loss, gradients and updates."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "oracle"))

from experts import products  # noqa: E402
from functions import AttentionTypes  # noqa: E402
from model import Model, Numerics, Sizes  # noqa: E402
from optimizer import ClippedAdamW  # noqa: E402
from pointwise import Pointwise  # noqa: E402

import flame_torch as oracle  # noqa: E402

CONFIG = oracle.Config(
    layers=3, hidden=32, heads=2, dense_ffn=48, vocabulary=96, sequence_length=24, experts=8,
    top_k=3, expert_ffn=16, shared_ffn=24, dense_layers=1, global_batch=4, cell_sequences=4,
    balance_loss=0.1, z_loss=0.01, warmup_fraction=0.0, decay_fraction=0.0, steps=3,
)  # fmt: skip
SIZES = Sizes(
    layers=3, hidden=32, heads=2, dense_ffn=48, vocabulary=96, experts=8, top_k=3,
    expert_ffn=16, shared_ffn=24, dense_layers=1, balance_loss=0.1, z_loss=0.01,
)  # fmt: skip


def oracle_weights(dtype: torch.dtype) -> oracle.Weights:
    generator = torch.Generator().manual_seed(5)
    return {
        name: (0.2 * torch.randn(shape, generator=generator) + (len(shape) == 1)).to(dtype)
        for name, shape in oracle.tensor_shapes(CONFIG).items()
    }


def merged(flat: oracle.Weights) -> dict[str, Tensor]:
    """The oracle's tensors, weights or gradients, under the model's names."""
    out = {
        "embedding": flat["embedding/weight"],
        "final_norm": flat["final_norm/weight"],
        "head": flat["head/weight"],
    }

    def feed_forward(here: str, there: str) -> None:
        gate_up = [flat[f"{there}/gate"], flat[f"{there}/up"]]
        out[f"{here}.gate_up"] = torch.cat(gate_up, dim=-2)
        out[f"{here}.down"] = flat[f"{there}/down"]

    for i in range(CONFIG.layers):
        here, there = f"blocks.{i}", f"layers/{i:02d}"
        out[f"{here}.attention_norm"] = flat[f"{there}/attention_norm/weight"]
        out[f"{here}.feed_forward_norm"] = flat[f"{there}/feed_forward_norm/weight"]
        qkv = [flat[f"{there}/attention/{name}"] for name in ("query", "key", "value")]
        out[f"{here}.qkv"] = torch.cat(qkv)
        out[f"{here}.output"] = flat[f"{there}/attention/output"]
        if CONFIG.has_experts(i):
            out[f"{here}.feed_forward.router"] = flat[f"{there}/router/weight"]
            feed_forward(f"{here}.feed_forward", f"{there}/experts")
            feed_forward(f"{here}.feed_forward.shared", f"{there}/shared")
        else:
            feed_forward(f"{here}.feed_forward", f"{there}/dense")
    return out


def batches(steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    # Few token ids, so that several experts get no token.
    shape = (steps, CONFIG.global_batch, CONFIG.sequence_length + 1)
    return torch.randint(0, 7, shape, generator=generator)


def built(numerics: Numerics, weights: oracle.Weights) -> Model:
    model = Model(SIZES, numerics)
    model.load_state_dict(merged(weights))
    return model


def exact(experts: str, pointwise: Pointwise = Pointwise()) -> Numerics:  # noqa: B008
    # grouped_mm has no float64.
    dtype = torch.float32 if experts == "grouped" else torch.float64
    return Numerics(dtype, dtype, AttentionTypes(dtype, dtype), experts, pointwise, 40)


def compare(numerics: Numerics, weights: oracle.Weights, tolerance: float) -> None:
    model = built(numerics, weights)
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    expected, _ = oracle.step_losses(leaves, batches(1)[0], CONFIG)
    gradients = torch.autograd.grad(expected.total, list(leaves.values()))
    losses = model(batches(1)[0])
    sum(losses).backward()
    for ours, theirs in zip(losses, expected):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=0, check_dtype=False)
    for name, theirs in merged(dict(zip(leaves, gradients))).items():
        ours = model.get_parameter(name).grad.to(theirs.dtype)
        error = (ours - theirs).norm() / theirs.norm()
        assert error < tolerance, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize("experts", list(products()))
def test_losses_and_gradients(experts: str) -> None:
    numerics = exact(experts)
    tolerance = 2e-5 if numerics.compute == torch.float32 else 1e-10
    compare(numerics, oracle_weights(numerics.compute), tolerance)


def test_compiled_losses_and_gradients() -> None:
    compare(exact("loop", Pointwise.compiled()), oracle_weights(torch.float64), 1e-10)


@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("experts", list(products()))
def test_bfloat16_is_near(parameters: torch.dtype, experts: str) -> None:
    if parameters == torch.bfloat16:
        weights = {k: w.bfloat16() for k, w in oracle_weights(torch.float32).items()}
    else:
        weights = oracle_weights(torch.float32)
    types = AttentionTypes(torch.bfloat16, torch.float32)
    numerics = Numerics(parameters, torch.bfloat16, types, experts, head_chunk=40)
    model = built(numerics, weights)
    losses = model(batches(1)[0])
    sum(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    wide = {name: w.float() for name, w in weights.items()}
    expected, _ = oracle.step_losses(wide, batches(1)[0], CONFIG)
    assert abs(losses.cross_entropy - expected.cross_entropy) < 0.02 * expected.cross_entropy


def test_updates() -> None:
    weights = oracle_weights(torch.float64)
    model = built(exact("bmm"), weights)
    optimizer = ClippedAdamW(model.parameters(), CONFIG.learning_rate)
    steps = batches(CONFIG.steps)
    # Clipping is at work, and its 1e-6 is seen.
    for tokens, expected in zip(steps, oracle.train(weights, steps, CONFIG)):
        sum(model(tokens)).backward()
        norm = optimizer.step(CONFIG.clip_norm)
        assert norm == pytest.approx(expected.gradient_norm, rel=1e-6)
        assert norm > CONFIG.clip_norm
    for name, theirs in merged(expected.weights).items():
        ours = model.get_parameter(name).detach()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)
