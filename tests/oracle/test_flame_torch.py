"""Checks of the oracle itself: hand-computed values, finite differences, other code."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import torch

from flame_torch import (
    Config,
    Routing,
    Weights,
    balance_loss,
    choose,
    clip_scale,
    forward,
    learning_rate,
    router_gap,
    step_losses,
    train,
    z_loss,
)
from make_golden import CASES, GOLDEN, TOLERANCE, differences, make_inputs, read_config

# Everything at once, small enough for finite differences.
TINY = replace(
    CASES["grouped"],
    layers=2,
    hidden=3,
    heads=2,
    kv_heads=1,
    head_dim=4,
    dense_ffn=2,
    vocabulary=5,
    sequence_length=4,
    experts=4,
    top_k=2,
    expert_ffn=2,
    shared_ffn=3,
    dense_layers=1,
    global_batch=3,
    cell_sequences=2,
)


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_gradients_equal_finite_differences(tie_embeddings: bool) -> None:
    config = replace(TINY, tie_embeddings=tie_embeddings)
    weights, tokens = make_inputs(config)

    def total(*values: torch.Tensor) -> torch.Tensor:
        losses, _ = step_losses(dict(zip(weights, values)), tokens[0].long(), config)
        return losses.total

    _, routings = step_losses(weights, tokens[0].long(), config)
    assert router_gap(routings, config.top_k) > 1e-3, "a choice may flip"
    assert torch.autograd.gradcheck(total, [w.requires_grad_() for w in weights.values()])


def test_learning_rate() -> None:
    config = Config(
        steps=10,
        global_batch=4,
        learning_rate=1.0,
        min_learning_rate=0.1,
        warmup_fraction=0.25,  # 2.5 steps
        decay_fraction=0.4,  # after step 6
    )
    expected = {0: 0, 1: 0.4, 2: 0.8, 3: 1, 6: 1, 10: 0.1, 11: 0.1}
    expected[8] = 0.1 + 0.9 * (math.sqrt(2) - 1)
    for step, rate in expected.items():
        assert learning_rate(step, config) == pytest.approx(rate, rel=1e-14), step
    assert learning_rate(0, replace(config, warmup_fraction=0.0)) == 1.0
    # The warm-up ends on the last step that it covers; 0.19 · 10 decay steps count as 1.
    assert learning_rate(3, replace(config, warmup_fraction=0.3)) == 1.0
    assert learning_rate(9, replace(config, decay_fraction=0.19)) == 1.0


def test_clip_scale() -> None:
    assert clip_scale(3.0, 1.5) == pytest.approx(0.5, rel=1e-6)
    assert clip_scale(1.0, 1.5) == 1.0
    assert clip_scale(3.0, 0.0) == 1.0


def test_ties_go_to_the_lowest_index() -> None:
    chosen = choose(torch.tensor([[0.1, 0.3, 0.2, 0.2, 0.2], [0.2] * 5]), 2)
    assert chosen.int().tolist() == [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0]]


def test_balance_and_z_loss() -> None:
    probability = torch.tensor([[0.75, 0.25], [0.6, 0.4]], dtype=torch.float64)
    routing = Routing(probability.log() + 3.0, probability, choose(probability, 1))
    # All copies go to expert 0, whose mean probability is 0.675.
    assert float(balance_loss(routing)) == pytest.approx(2 * 0.675)
    assert float(z_loss(routing)) == pytest.approx(9.0)


def test_cells_weigh_by_their_targets() -> None:
    weights, tokens = make_inputs(TINY)
    batch = tokens[0].long()
    losses, _ = step_losses(weights, batch, TINY)
    parts = [step_losses(weights, cell, TINY)[0] for cell in (batch[:2], batch[2:])]
    for whole, first, second in zip(losses, *parts):
        assert float(whole) == pytest.approx(float(2 * first + second) / 3)


def test_attention_is_causal() -> None:
    weights, tokens = make_inputs(TINY)
    batch = tokens[0].long()
    before, _ = forward(weights, batch, TINY)
    batch[:, -1] = (batch[:, -1] + 1) % TINY.vocabulary
    after, _ = forward(weights, batch, TINY)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_masked_documents_are_sequences_of_their_own() -> None:
    weights, tokens = make_inputs(TINY)
    batch = tokens[0, :, :-1].long()
    together, _ = forward(weights, batch, TINY, torch.tensor([[0, 1, 1, 1]] * 2 + [[0, 0, 0, 3]]))
    for rows, begin, end in ((slice(2), 0, 1), (slice(2), 1, 4), (slice(2, 3), 0, 3)):
        alone, _ = forward(weights, batch[rows, begin:end], TINY)
        torch.testing.assert_close(together[rows, begin:end], alone, rtol=1e-12, atol=1e-12)


def test_optimizer_equals_torch() -> None:
    config = replace(TINY, clip_norm=2.0, epsilon=1e-3)
    weights, tokens = make_inputs(config)
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [w for w in leaves.values() if (w.dim() >= 2) == matrix],
                "weight_decay": config.weight_decay if matrix else 0.0,
            }
            for matrix in (True, False)
        ],
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
    )
    for index, step in enumerate(train(weights, tokens, config)):
        optimizer.zero_grad()
        step_losses(leaves, tokens[index].long(), config)[0].total.backward()
        norm = torch.nn.utils.clip_grad_norm_(leaves.values(), config.clip_norm)
        assert step.gradient_norm == pytest.approx(float(norm), rel=1e-12)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(index, config)
        optimizer.step()
        for name, w in step.weights.items():
            torch.testing.assert_close(w, leaves[name], rtol=1e-12, atol=1e-12)


def test_deck_round_trip() -> None:
    for config in CASES.values():
        assert Config.from_deck(config.deck()) == config


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.h5")), ids=lambda p: p.stem)
def test_golden_files_are_current(path: Path) -> None:
    config = read_config(path)
    with h5py.File(path) as file:
        norms, gap = file["steps/gradient_norm"][()], file["minimum_router_gap"][()]
    assert min(norms) < config.clip_norm < max(norms), "clipping is not tested"
    assert gap > 1e-4
    for name, difference in differences(path):
        assert difference <= TOLERANCE[config.compute_type], name


def hugging_face_weights(weights: Weights, config: Config) -> Weights:
    """The same weights by the names of Qwen2Moe and Qwen3Moe."""
    names = {
        "attention_norm/weight": "input_layernorm.weight",
        "feed_forward_norm/weight": "post_attention_layernorm.weight",
        "attention/query_norm": "self_attn.q_norm.weight",
        "attention/key_norm": "self_attn.k_norm.weight",
        "router/weight": "mlp.gate.weight",
    }
    for ours, theirs in zip(("query", "key", "value", "output"), "qkvo"):
        names[f"attention/{ours}"] = f"self_attn.{theirs}_proj.weight"
    for part in ("gate", "up", "down"):
        names[f"dense/{part}"] = f"mlp.{part}_proj.weight"
        names[f"shared/{part}"] = f"mlp.shared_expert.{part}_proj.weight"
    result = {"model.embed_tokens.weight": weights["embedding/weight"]}
    result["model.norm.weight"] = weights["final_norm/weight"]
    head = "embedding/weight" if config.tie_embeddings else "head/weight"
    result["lm_head.weight"] = weights[head]
    for name, w in weights.items():
        if not name.startswith("layers/"):
            continue
        _, layer, rest = name.split("/", 2)
        prefix = f"model.layers.{int(layer)}"
        if rest.startswith("experts/"):
            part = f"{rest.removeprefix('experts/')}_proj.weight"
            for i, expert in enumerate(w):
                result[f"{prefix}.mlp.experts.{i}.{part}"] = expert
        else:
            # Qwen2Moe gates its shared expert by a sigmoid; a zero gate halves it.
            scale = 2.0 if rest == "shared/down" else 1.0
            result[f"{prefix}.{names[rest]}"] = scale * w
    return result


@pytest.mark.parametrize("case, family", [("flame", "Qwen2Moe"), ("grouped", "Qwen3Moe")])
def test_equals_hugging_face(case: str, family: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = CASES[case]
    # Qwen2Moe has no head_dim of its own.
    config = replace(config, hidden=config.heads * config.head_dim)
    weights, tokens = make_inputs(config)
    model = getattr(transformers, f"{family}ForCausalLM")(
        getattr(transformers, f"{family}Config")(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden,
            intermediate_size=config.dense_ffn,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            rope_theta=config.rotary_base,
            rms_norm_eps=config.norm_epsilon,
            num_experts=config.experts,
            num_experts_per_tok=config.top_k,
            moe_intermediate_size=config.expert_ffn,
            shared_expert_intermediate_size=config.shared_ffn,
            mlp_only_layers=list(range(config.dense_layers)),
            norm_topk_prob=False,
            tie_word_embeddings=config.tie_embeddings,
            attn_implementation="eager",
        )
    ).double()
    for parameter in model.parameters():
        parameter.data.zero_()  # biases and the shared expert's gate are not ours
    loaded = model.load_state_dict(hugging_face_weights(weights, config), strict=False)
    assert not loaded.unexpected_keys
    batch = tokens[0, :, :-1].long()
    expected = model(input_ids=batch).logits
    logits, _ = forward(weights, batch, config)
    # Their RMSNorm and rotary embedding compute partly in fp32.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
