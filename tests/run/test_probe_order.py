"""probe_choice has a token's experts best first."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from conftest import Launch, TinyRun, assert_same_run, train

from routing_statistics import in_order_of_rank

# Weights stay as they are, and the one layer with experts has the same input whatever is chosen.
STILL = ("--optimizer.learning_rate=0", "--optimizer.min_learning_rate=0")


def probe_choice(tiny: TinyRun, name: str) -> np.ndarray:
    """(checkpoints, layers, probes, k)"""
    with h5py.File(tiny.folder / name / "routing.h5") as file:
        return file["probe_choice"][:]


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_a_router_with_fewer_experts_chooses_the_first_ones(
    launch: Launch, tiny: TinyRun, kind: str
) -> None:
    options = (*STILL, f"--model.compute_type={kind}")
    train(launch, tiny, "3", (2, 2, 1), *options)
    three = probe_choice(tiny, "3")
    assert in_order_of_rank(three[0, 0])
    for k in (1, 2):
        train(launch, tiny, str(k), (1, 1, 1), *options, f"--moe.top_k={k}")
        fewer = probe_choice(tiny, str(k))
        assert (fewer == three[..., :k]).all(), k


def test_a_lower_threshold_keeps_the_first_ones(launch: Launch, tiny: TinyRun) -> None:
    router = (*STILL, "--moe.router=top_p")
    train(launch, tiny, "many", (1, 1, 1), *router, "--top_p.threshold=0.7")
    train(launch, tiny, "few", (1, 1, 1), *router, "--top_p.threshold=0.4")
    many, few = probe_choice(tiny, "many"), probe_choice(tiny, "few")
    assert (few == np.where(few >= 0, many, -1)).all()
    assert 0 < (few >= 0).sum() < (many >= 0).sum()
    assert in_order_of_rank(many[0, 0])


@pytest.mark.parametrize("router", ["hash", "random"])
def test_experts_of_equal_rank_ascend(launch: Launch, tiny: TinyRun, router: str) -> None:
    train(launch, tiny, "output", (2, 1, 1), f"--moe.router={router}")
    assert (np.diff(probe_choice(tiny, "output"), axis=-1) > 0).all()


def test_the_order_is_the_same_on_any_layout(launch: Launch, tiny: TinyRun) -> None:
    # A probe of several cells, the last one shorter, on ranks that have none of them too.
    options = ("--statistics.probe_tokens=80", "--moe.router=relu")
    expected = train(launch, tiny, "one", (1, 1, 1), *options)
    assert train(launch, tiny, "other", (4, 2, 2), *options) == expected
    assert_same_run(tiny.folder / "one", tiny.folder / "other")
