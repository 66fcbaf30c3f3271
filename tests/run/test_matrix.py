"""The promise: weights and statistics are bitwise the same on any layout, through restarts.

Of the matrix of layout_matrix.py the default is a selection in which every pair of values
appears; `ctest -C slow -L slow` runs all of it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Launch, TinyRun, assert_same_run, make_tiny_run, train
from layout_matrix import CELLS, COMPUTE_TYPES, Case, all_cases, covering, layouts, pairs, routers

STEPS = 4
LENGTH = (f"--run.steps={STEPS}", "--checkpoint.every_steps=2")

# The output of a model's reference, and the checksum of its weights.
Reference = Callable[[tuple[str, ...]], tuple[Path, str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A corpus for all cases."""
    return make_tiny_run(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def reference(launch: Launch, shared: TinyRun) -> Reference:
    """Trains a model on one rank and thread, once."""
    done: dict[tuple[str, ...], tuple[Path, str]] = {}

    def of(model: tuple[str, ...]) -> tuple[Path, str]:
        if model not in done:
            name = f"reference-{len(done)}"
            checksum = train(launch, shared, name, (1, 1, 1), *model, *LENGTH)
            done[model] = shared.folder / name, checksum
        return done[model]

    return of


Check = Callable[[Case], None]


@pytest.fixture
def check(launch: Launch, shared: TinyRun, reference: Reference, tmp_path: Path) -> Check:
    """Holds a case's run against the reference of its model."""

    def run(case: Case) -> None:
        expected, checksum = reference(case.model())
        options = (*case.model(), *LENGTH)
        assert train(launch, shared, str(tmp_path / "run"), case.layout, *options) == checksum
        assert_same_run(expected, tmp_path / "run", STEPS)

    return run


@pytest.mark.parametrize("case", covering(all_cases()), ids=str)
def test_layout(check: Check, case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_every_layout(check: Check, case: Case) -> None:
    check(case)


VARIANTS = {
    "light experts": (
        "--moe.copy_experts=1",
        "--moe.constant_experts=2",
        "--moe.zero_experts=1",
        "--moe.null_experts=1",
        "--top_k.renormalise=true",
    ),
    "numbers by layer": ("--moe.dense_layers=0", "--moe.experts=7,4", "--moe.top_k=3,2"),
    "balance by sequence": ("--moe.balance_scope=sequence",),
    "balance by the step before": ("--moe.balance_scope=global",),
    "halves and drift": (
        "--statistics.token_halves=true",
        "--statistics.drift=true",
        "--moe.dense_layers=0",
        "--moe.experts=7,4",
    ),
    "padded capacity": ("--moe.router=capacity", "--capacity.padded=true"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(
    launch: Launch, shared: TinyRun, reference: Reference, tmp_path: Path, name: str
) -> None:
    model = VARIANTS[name]
    expected, checksum = reference(model)
    for number, layout in enumerate([(3, 3, 1), (4, 2, 2)]):
        output = tmp_path / str(number)
        # In two pieces, the second on one rank.
        if number == 0:
            train(launch, shared, str(output), layout, *model, *LENGTH, "--run.stop_step=1")
            layout = (1, 1, 1)
        assert train(launch, shared, str(output), layout, *model, *LENGTH) == checksum
        assert_same_run(expected, output, STEPS)


def test_padding_changes_no_bit(reference: Reference) -> None:
    padded = VARIANTS["padded capacity"]
    assert reference(padded)[1] == reference(padded[:1])[1]


def test_the_selection_has_every_pair() -> None:
    cases = all_cases()
    assert len(set(cases)) == len(cases) == 2 * (18 * 3 - 1) * 2 * len(routers())
    selection = covering(cases)
    assert set().union(*map(pairs, selection)) == set().union(*map(pairs, cases))
    # With one less there is a pair too few.
    assert set().union(*map(pairs, selection[:-1])) != set().union(*map(pairs, cases))


@pytest.fixture
def restart(
    launch: Launch, shared: TinyRun, reference: Reference, tmp_path: Path
) -> Callable[[int], None]:
    """Stops a run at random steps, and takes it up on random layouts."""

    def run(seed: int) -> None:
        dice = random.Random(seed)
        case = dice.choice([case for case in all_cases() if case.ranks > 1])
        stops = sorted(dice.sample(range(1, STEPS), dice.choice((1, 2))))
        where = [dice.choice(list(layouts())) for _ in range(len(stops) + 1)]
        print(f"HEARTH_TEST_SEED={seed}: {case}, stops at {stops}, layouts {where}")
        expected, checksum = reference(case.model())
        place, options = str(tmp_path / "run"), (*case.model(), *LENGTH)
        for stop, layout in zip(stops, where, strict=False):
            train(launch, shared, place, layout, *options, f"--run.stop_step={stop}")
        assert train(launch, shared, place, where[-1], *options) == checksum
        assert_same_run(expected, tmp_path / "run", STEPS)

    return run


def seeds(count: int) -> list[int]:
    """Others each time; HEARTH_TEST_SEED, which a failure shows, repeats one."""
    given = os.environ.get("HEARTH_TEST_SEED")
    return [int(given)] if given else [random.SystemRandom().randrange(10**9) for _ in range(count)]


@pytest.mark.parametrize("seed", seeds(3))
def test_restart_anywhere(restart: Callable[[int], None], seed: int) -> None:
    restart(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(40))
def test_many_restarts(restart: Callable[[int], None], seed: int) -> None:
    restart(seed)


@pytest.mark.parametrize("cells", CELLS)
def test_the_types_are_different(reference: Reference, cells: str) -> None:
    """Else the matrix would not see bf16."""
    models = [Case(2, 1, 1, cells, kind, routers()[0]).model() for kind in COMPUTE_TYPES]
    checksums = {reference(model)[1] for model in models}
    assert len(checksums) == len(COMPUTE_TYPES)
