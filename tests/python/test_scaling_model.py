"""bench/: the model of scaling is arithmetic, held against numbers made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_runs import RANK, synthetic_run

import rates
import scaling_model as scaling
from deck_model import Model, read_deck
from network import Network, fitted, levels, ring
from scaling_model import Layout

ROOT = Path(__file__).resolve().parents[2]
NET = Network.plain(2e-6, 25e9)


def deck(name: str, **overrides: int | str) -> Model:
    return replace(read_deck(ROOT / "inputs" / f"{name}.deck"), **overrides)


# docs/equations.md, "Counting": true parameters in total, and FLOPs of the run of 2**21 tokens a
# step.
@pytest.mark.parametrize(
    ("name", "elements", "flops", "steps"),
    [
        ("flame-38m", 100.7e6, 7.95e17, 2121),
        ("flame-290m", 1.300e9, 1.82e19, 5473),
        ("flame-1.7b", 10.28e9, 2.40e20, 11029),
        ("dense-411m", 411.3e6, 2.99e19, 5796),
    ],
)
def test_sizes_are_those_of_the_documentation(
    name: str, elements: float, flops: float, steps: int
) -> None:
    model = deck(name)
    assert model.elements == pytest.approx(elements, rel=1e-3)
    assert model.flops_per_token * steps * 2**21 == pytest.approx(flops, rel=4e-3)
    work = scaling.work_of(model)
    products = [piece for piece in work if piece not in ("dispatch, combine", "rest")]
    assert sum(work[piece].per_token for piece in products) == model.flops_per_token


def test_overrides_are_named_as_on_the_command_line() -> None:
    model = read_deck(ROOT / "inputs/flame-38m.deck", {"moe.experts": 8, "model.layers": 3})
    assert (model.experts, model.moe_layers, model.hidden) == (8, 2, 256)


def test_one_rank_says_nothing() -> None:
    model = deck("flame-38m")
    layout = scaling.layout_for(model, 1, 1)
    time = scaling.step_time(model, layout, RANK, NET, 1)
    assert layout == Layout(1, 1, 1024, 32) and layout.rounds == 32
    for term in ("imbalance", "exchange", "latency", "gradients", "weights", "sums"):
        assert time.terms[term] == 0
    assert time.optimizer == pytest.approx(6e-9 * model.elements)
    tokens_s = 1024 * 2048 * sum(scaling.token_seconds(model, RANK).values())
    assert time.compute == pytest.approx(tokens_s)
    embedding = model.everyone_elements - model.head_elements - model.norm_elements
    assert time.accumulate == pytest.approx(32e-9 * (embedding + model.expert_elements))
    assert time.total_s == pytest.approx(tokens_s + time.accumulate + time.optimizer)


def test_bytes_of_an_exchange() -> None:
    model = deck("flame-1.7b", compute_type="bf16")
    rows = 6 * 8192 + 64 * 15.5
    assert scaling.exchanged_rows(model, 8192) == rows
    # Seven of eight rows leave the rank; a row has 2048 elements of 2 bytes.
    assert scaling.exchange_bytes(model, 8192, 8) == rows * 4096 * 7 / 8
    assert scaling.exchange_bytes(model, 8192, 1) == 0


def test_bytes_of_gradients_weights_and_state() -> None:
    model = Model(layers=2, hidden=4, heads=2, dense_ffn=8, vocabulary=10, experts=4, top_k=2)
    model = replace(model, expert_ffn=3, shared_ffn=0, compute_type="bf16")
    everyone = 2 * 10 * 4 + 2 * 4 * 4 * 4 + 3 * 4 * 8 + 4 * 4 + 5 * 4
    experts = 4 * 3 * 4 * 3
    assert (model.everyone_elements, model.expert_elements) == (everyone, experts)
    layout = Layout(4, 2, 8, 1)
    assert scaling.gradient_bytes(model, layout) == (8 * everyone, 8 * experts / 2)
    assert scaling.weight_bytes(model, layout) == (2 * everyone, 2 * experts / 2)
    # docs/architecture.md: 10 bytes for each element held in bf16 and 12 for each of the shard.
    held, shard = everyone + experts / 2, (everyone + experts) / 4
    assert scaling.state_bytes(model, layout) == 10 * held + 12 * shard
    single = replace(model, compute_type="fp32")
    assert scaling.state_bytes(single, layout) == 12 * held + 8 * shard


def test_terms_of_sixteen_ranks_by_hand() -> None:
    model = deck("flame-290m", compute_type="bf16")
    layout = scaling.layout_for(model, 16, 8)
    assert (layout.cells, layout.rounds, layout.data_ranks) == (128, 8, 2)
    time = scaling.step_time(model, layout, RANK, Network.plain(2e-6, 25e9, 1e-9), 1.1)
    sent = (6 * 8 * 2048 + 64 * 15.5) * 1024 * 2 * 7 / 8
    assert time.exchange == pytest.approx(8 * 8 * 4 * 1.1 * sent / 25e9)
    assert time.latency == pytest.approx(8 * 8 * 5 * 7 * 2e-6)
    passed = model.everyone_elements * 15 / 16 + model.expert_elements / 8 / 2
    assert time.gradients == pytest.approx(passed * (8 / 25e9 + 1e-9) + 16 * 2e-6)
    assert time.weights == pytest.approx(passed * 2 / 25e9 + 16 * 2e-6)
    assert time.sums == pytest.approx(6 * 2 * 4 * 2e-6)
    expert_s = 1e-11 * 6 * model.active_expert_elements * 8 * 2048
    assert time.imbalance == pytest.approx(0.1 * 8 * expert_s)


def test_exchange_beside_the_shared_expert() -> None:
    model = deck("flame-290m", compute_type="bf16")
    layout = scaling.layout_for(model, 16, 8)
    tokens = 8 * 8 * 2048  # of eight cells
    shared_s = 1e-11 * 6 * model.shared_elements * tokens + 8e-9 * model.shared_elements
    for bytes_per_s in (1e9, 1e12):
        none, half, full = (
            scaling.step_time(
                model, layout, RANK, Network.plain(2e-6, bytes_per_s, overlap=overlap), 1
            )
            for overlap in (0, 0.5, 1)
        )
        assert half.exchange == pytest.approx(max(0, none.exchange - shared_s / 2))
        assert full.exchange == pytest.approx(max(0, none.exchange - shared_s))
        assert full.total_s - none.total_s == pytest.approx(full.exchange - none.exchange)
    assert full.exchange == 0
    without = replace(model, shared_ffn=0)
    slow = Network.plain(2e-6, 1e9, overlap=1)
    assert (
        scaling.step_time(without, layout, RANK, slow, 1).exchange
        == scaling.step_time(without, layout, RANK, replace(slow, overlap=0), 1).exchange
    )


def test_the_slowest_rank_counts() -> None:
    model = deck("flame-38m", global_batch=10, cell_sequences=1)
    assert [Layout(ranks, 1, 10, 1).rounds for ranks in (1, 3, 4, 5, 10, 16)] == [10, 4, 3, 2, 1, 1]
    three, four = (
        scaling.step_time(model, Layout(ranks, 1, 10, 1), RANK, NET, 1) for ranks in (3, 4)
    )
    assert three.compute == pytest.approx(four.compute * 4 / 3)
    assert three.accumulate == pytest.approx(four.accumulate * 4 / 3)


def test_cells_shrink_to_a_sequence_and_then_the_batch_grows() -> None:
    model = deck("flame-38m")
    found = [scaling.layout_for(model, ranks, 1) for ranks in (32, 64, 1024, 4096)]
    assert [(x.sequences, x.cell_sequences, x.rounds) for x in found] == [
        (1024, 32, 1),
        (1024, 16, 1),
        (1024, 1, 1),
        (4096, 1, 1),
    ]


def test_expert_ranks_divide_the_ranks() -> None:
    with pytest.raises(ValueError, match="divides"):
        Layout(6, 4, 8, 1)


def test_what_must_not_shrink() -> None:
    model = deck("flame-1.7b", compute_type="bf16")
    powers = [2**n for n in range(13)]
    times = [
        scaling.step_time(model, scaling.layout_for(model, n, 1), RANK, NET, 1) for n in powers
    ]
    for before, after in zip(times, times[1:], strict=False):
        assert after.gradients >= before.gradients and after.sums >= before.sums
        assert after.compute <= before.compute and after.optimizer < before.optimizer
    wide = [scaling.step_time(model, scaling.layout_for(model, 64, n), RANK, NET, 1)
            for n in (1, 2, 8, 64)]  # fmt: skip
    for before, after in zip(wide, wide[1:], strict=False):
        assert after.exchange > before.exchange and after.latency > before.latency
        assert after.gradients < before.gradients  # of fewer experts on a rank
    slower = replace(NET, exchange_bytes_per_s=1e9, latency_s=1e-4)
    layout = scaling.layout_for(model, 64, 8)
    assert (
        scaling.step_time(model, layout, RANK, slower, 1).total_s
        > scaling.step_time(model, layout, RANK, NET, 1).total_s
    )


def test_efficiency_is_one_where_nothing_is_lost() -> None:
    alone, many = Layout(1, 1, 8, 1), Layout(4, 1, 8, 1)
    assert scaling.efficiency(many, 2.0, alone, 8.0) == 1
    assert scaling.efficiency(Layout(4, 1, 16, 1), 4.0, alone, 8.0) == 1
    assert scaling.efficiency(many, 4.0, alone, 8.0) == 0.5


def test_imbalance_of_shares() -> None:
    assert scaling.imbalance_of_shares([], 2) == 1
    shares = [[0.4, 0.2, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25]]
    assert scaling.imbalance_of_shares(shares, 1) == pytest.approx(1)
    assert scaling.imbalance_of_shares(shares, 2) == pytest.approx((1.2 + 1) / 2)
    assert scaling.imbalance_of_shares(shares, 4) == pytest.approx((1.6 + 1) / 2)
    # The first of three ranks has two of the four experts, of eight ranks four have none.
    assert scaling.imbalance_of_shares(shares, 3) == pytest.approx((1.8 + 1.5) / 2)
    assert scaling.imbalance_of_shares(shares, 8) == pytest.approx((3.2 + 2) / 2)


def test_imbalance_of_the_busiest_expert() -> None:
    values = [scaling.imbalance_of_busiest(64, 1.12, n) for n in (1, 2, 8, 64)]
    assert values[0] == 1 and values == sorted(values)
    assert values[-1] == 1.12
    assert scaling.imbalance_of_busiest(64, 1.12, 128) == pytest.approx(2.24)
    assert scaling.imbalance_of_busiest(64, 1, 8) == 1
    assert scaling.imbalance_of_busiest(64, 1, 3) == pytest.approx(22 * 3 / 64)
    assert scaling.imbalance_of_busiest(0, 1.5, 8) == 1


def test_trees_and_rings() -> None:
    assert [levels(n) for n in (1, 2, 3, 4, 5, 4096)] == [0, 1, 2, 2, 3, 12]
    assert ring(1) == (0, 0)
    assert ring(8) == (7, 7 / 8)


def test_adding_slows_sums_alone() -> None:
    net = Network.plain(0, 4e9, adding_s=6e-9)
    assert net.reduce_scatter_s(8e9, 2) == pytest.approx(4.0)
    assert net.all_gather_s(8e9, 2) == net.exchange_s(4e9) == pytest.approx(1.0)
    assert net.adding_s == pytest.approx(6e-9)


def test_a_network_is_found_again_in_its_times() -> None:
    net = Network(3e-6, 2e9, 1e9, 4e9)
    points = []
    for ranks in (1, 2, 4):
        for size in (2**n for n in range(10, 25, 2)):
            sent = size * (ranks - 1) / ranks
            times = {
                "all_to_all": (ranks - 1) * 3e-6 + net.exchange_s(sent),
                "reduce_scatter": net.reduce_scatter_s(size, ranks),
                "all_gather": net.all_gather_s(size, ranks),
            }
            points += [
                {"name": name, "ranks": ranks, "bytes": size, "median_s": seconds or 1e-7}
                for name, seconds in times.items()
            ]
    found = fitted(points)
    for name in ("latency_s", "exchange_bytes_per_s", "reduce_bytes_per_s", "gather_bytes_per_s"):
        assert getattr(found, name) == pytest.approx(getattr(net, name), rel=1e-6)


def test_rates_are_found_again_in_runs_of_one_rank() -> None:
    model = deck("flame-38m")
    settings = [
        {"model.sequence_length": length, "batch.global_batch": n, "batch.cell_sequences": cell}
        for length, n, cell in ((256, 1, 1), (512, 2, 1), (256, 4, 4), (1024, 1, 1))
    ]
    runs = [synthetic_run(model, setting) for setting in settings]
    wrong = replace(synthetic_run(model, settings[0], ranks=2), phase_s={})
    found = rates.from_runs([*runs, wrong], model)
    for name, value in found.per_work.items():
        assert value == pytest.approx(RANK.per_work[name], rel=1e-6), name
    for name, value in found.per_element.items():
        assert value == pytest.approx(RANK.per_element[name], rel=1e-6), name
    assert (found.update_s, found.step_s) == pytest.approx((5e-9, 1e-9))
    half = found.faster(2)
    assert half.update_s == found.update_s / 2
    assert half.per_work["head"] == found.per_work["head"] / 2


def test_rates_from_kernels() -> None:
    """Lines as hearth-bench prints them, made from one rate for products and one for passes."""
    model = deck("flame-38m", cell_sequences=1)
    tokens, product_s, pass_s = 2048, 2e-11, 1e-3

    def line(name: str, flops: float = 0) -> str:
        seconds = flops * product_s or pass_s
        rate = 1e-9 * flops / seconds
        return json.dumps({"name": name, "median_s": seconds, "gflop_per_s": rate})

    scores = 2 * 0.5 * tokens * 2048 * 256
    experts = 2 * 6 * 2048 * 256 * 176
    block = 2 * 512 * 2048 * 256
    lines = [line("attention", 2 * scores), line("attention backward", 5 * scores)]
    lines += [line(f"experts: one {name}", experts) for name in
              ("product", "input gradient", "weight gradient")]  # fmt: skip
    lines += [line(f"head: {name} of a block", block) for name in
              ("logits", "input gradient", "weight gradient")]  # fmt: skip
    passes = "cross-entropy of a block|gradient sum of one stack|router: softmax and top-k|"
    passes += "router: counts and sums|router backward|dispatch|combine|combine backward|"
    passes += "dispatch backward|norm|norm backward|squared norm of one embedding|"
    passes += "Adam of one embedding"
    found = rates.from_kernels([*lines, *map(line, passes.split("|"))], model)
    assert found.per_work["attention"] == pytest.approx(product_s)
    # Seven products forward and backward, where six are counted.
    assert found.per_work["attention scores"] == pytest.approx(product_s * 7 / 6)
    assert found.per_work["experts"] == pytest.approx(product_s)
    loss_s = pass_s / (6 * 512 * 2048 * 256)
    assert found.per_work["head"] == pytest.approx(product_s + loss_s)
    assert found.per_element["experts"] == pytest.approx(pass_s / (64 * 256 * 176))
    assert found.update_s == pytest.approx(2 * pass_s / model.head_elements)
    layout = scaling.layout_for(model, 1, 1)
    assert scaling.step_time(model, layout, found, NET, 1).compute > 0
