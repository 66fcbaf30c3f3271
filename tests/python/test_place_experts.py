"""Placements against brute force, and place_experts.py on a run that never was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic_routing import NONE, Plan, label, write_run

import place_experts
from routing_statistics import placement

SEEDS = range(12)


def all_owners(experts: int, ranks: int) -> Iterator[np.ndarray]:
    yield from map(np.array, sorted(set(permutations(placement.contiguous(experts, ranks)))))


def symmetric(rng: np.random.Generator, experts: int) -> np.ndarray:
    table = rng.integers(0, 100, (experts, experts))
    return table + table.T


def test_shares():
    assert placement.share_sizes(7, 3).tolist() == [3, 2, 2]
    assert placement.share_sizes(2, 3).tolist() == [1, 1, 0]
    assert placement.contiguous(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("experts", "ranks"), [(6, 2), (7, 3), (6, 3)])
def test_coactivation_is_as_good_as_exhaustive_search(seed, experts, ranks):
    counts = symmetric(np.random.default_rng(seed), experts)
    found = placement.by_coactivation(counts, ranks)
    assert np.bincount(found).tolist() == placement.share_sizes(experts, ranks).tolist()
    each = [placement.pairs_together(counts, owner) for owner in all_owners(experts, ranks)]
    best, at_first = (
        max(each),
        placement.pairs_together(counts, placement.contiguous(experts, ranks)),
    )
    kept = placement.pairs_together(counts, found)
    assert kept >= at_first
    # Exchanges of two may end beside the best, but among the best few.
    assert sum(other > kept for other in each) <= len(each) // 20
    assert kept >= 0.95 * best


def test_pairs_together():
    counts = np.array([[9, 1, 2], [1, 9, 4], [2, 4, 9]])
    assert placement.pairs_together(counts, np.array([0, 0, 1])) == 1
    assert placement.pairs_together(counts, np.array([0, 1, 1])) == 4
    assert placement.pairs_together(counts, np.array([0, 0, 0])) == 7


def test_experts_chosen_together_get_one_rank():
    hidden = np.random.default_rng(3).permutation(np.repeat(np.arange(4), 4))
    counts = 5 + 50 * (hidden[:, None] == hidden[None, :])
    owner = placement.by_coactivation(counts, 4)
    assert len({(a, b) for a, b in zip(hidden.tolist(), owner.tolist())}) == 4


@pytest.mark.parametrize("variable", [False, True])
def test_ranks_reached(variable):
    rng = np.random.default_rng(5)
    choice = np.sort(np.array([rng.permutation(9)[:3] for _ in range(50)]))
    if variable:
        choice[rng.random(50) < 0.5, 2] = NONE
    owner = np.array([0, 1, 1, 2, 0, 2, 1])  # experts 7 and 8 have no matrices
    slow = 0
    for row in choice.tolist():
        slow += len({int(owner[e]) for e in row if e != NONE and e < 7})
    assert placement.ranks_reached(choice, owner) == slow


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("rows", "parts"), [(6, 2), (7, 3), (4, 6)])
def test_the_best_assignment_is_the_best(seed, rows, parts):
    gain = np.random.default_rng(seed).integers(-50, 50, (rows, parts))
    found = placement.best_assignment(gain, placement.share_sizes(rows, parts))
    assert np.bincount(found, minlength=parts).tolist() == (
        placement.share_sizes(rows, parts).tolist()
    )
    each = [gain[np.arange(rows), owner].sum() for owner in all_owners(rows, parts)]
    assert gain[np.arange(rows), found].sum() == max(each)


def kept_of_pure_cells(counts: list[np.ndarray], owners: list[np.ndarray], ranks: int) -> float:
    """Copies that stay where each of as many sources as ranks has its best rank."""
    to_rank = sum(
        np.stack([c[:, owner == rank].sum(1) for rank in range(ranks)], 1)
        for c, owner in zip(counts, owners)
    )
    rows = np.arange(ranks)
    return max(to_rank[rows, list(order)].sum() for order in permutations(range(ranks)))


@pytest.mark.parametrize("seed", SEEDS)
def test_sources_are_placed_nearly_as_well_as_by_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 100, (2, 6))
    counts[:, 0] += 600 - counts.sum(1)  # as many copies of each source
    found = placement.by_source([counts], 2)
    kept = [kept_of_pure_cells([counts], [owner], 2) for owner in all_owners(6, 2)]
    assert kept_of_pure_cells([counts], found.owners, 2) == max(kept)
    slow = [[counts[s, found.owners[0] == r].sum() / 600 for r in range(2)] for s in range(2)]
    assert np.allclose(found.to_rank, slow)


def test_experts_of_a_source_get_one_rank():
    ranks, layers = 4, 3
    rng = np.random.default_rng(8)
    likes = [rng.permutation(np.repeat(np.arange(ranks), 4)) for _ in range(layers)]
    counts = [1 + 30 * (np.arange(ranks)[:, None] == like) for like in likes]
    found = placement.by_source(counts, ranks)
    # One rank for a source in all layers, or its cells could not follow it.
    place = found.to_rank.argmax(1)
    assert sorted(place.tolist()) == list(range(ranks))
    for like, owner in zip(likes, found.owners):
        assert owner.tolist() == place[like].tolist()


def test_sources_without_copies():
    counts = [np.array([[4, 0, 2, 2], [0, 0, 0, 0]])]
    found = placement.by_source(counts, 2)
    assert found.to_rank[0].sum() == 1
    assert found.to_rank[1].tolist() == [0, 0]
    empty = placement.by_source([np.zeros((2, 4), np.int64)], 2)
    assert np.bincount(empty.owners[0]).tolist() == [2, 2]


def test_blend_keeps_shares():
    copies = np.array([5, 3, 2])
    source = placement.blend(copies, 40)
    assert np.bincount(source[:10]).tolist() == [5, 3, 2]
    assert np.bincount(source).tolist() == [20, 12, 8]
    assert placement.blend(np.array([1, 1]), 4).tolist() == [0, 1, 0, 1]


def test_cells_by_gain():
    gain = np.array([[0, 9], [9, 0], [5, 5], [1, 3]])
    assert placement.cells_by_gain(gain, 2).tolist() == [1, 0, 0, 1]
    # Nothing to gain: as they were.
    assert placement.cells_by_gain(np.ones((5, 3), np.int64), 3).tolist() == [0, 0, 1, 1, 2]
    # Four ranks, two expert ranks.
    owner = placement.cells_by_gain(np.array([[0, 9], [9, 0], [0, 9], [9, 0]]), 4)
    assert (owner % 2).tolist() == [1, 0, 1, 0]
    assert sorted(owner.tolist()) == [0, 1, 2, 3]


def test_share_kept():
    to_rank = np.array([[0.75, 0.25], [0.5, 0.5]])
    source = np.array([1, 0, 1, 0])
    # Cells of (1, 0) each: half of both sources on either rank.
    assert placement.share_kept(to_rank, source, 2, 2, False) == pytest.approx(
        (0.5 + 0.75 + 0.5 + 0.25) / 4
    )
    # One sequence a cell: the first source goes to the first rank.
    assert placement.share_kept(to_rank, source, 1, 2, True) == pytest.approx(
        (0.75 + 0.75 + 0.5 + 0.5) / 4
    )


def test_the_busiest_rank():
    owner = np.array([0, 1, 1, 0])
    assert placement.busiest_rank(np.array([1, 2, 3, 2]), owner, 2) == 5 / 4
    assert np.isnan(placement.busiest_rank(np.zeros(4), owner, 2))


# The program


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose tokens' experts depend on their source, with a group `layout`."""
    plan = Plan(experts=(7, 7), slots=(3, 2), deck={"batch.cell_sequences": 1})
    write_run(tmp_path, plan)
    write_layout(tmp_path / "training.h5", plan.steps)
    return tmp_path


def write_layout(path: Path, steps: int) -> None:
    with h5py.File(path, "a") as file:
        ranks = np.where(np.arange(steps) < steps - 4, 2, 3)
        label(file, "layout/expert_ranks", ("step",), ranks)
        label(file, "layout/tokens", ("step",), np.full(steps, 10))
        table = np.ones((steps, 2), np.int64)
        for name, value in (
            ("copies", 30),
            ("copies_kept", 12),
            ("ranks_reached", 25),
            ("other_ranks_reached", 15),
        ):
            label(file, f"layout/{name}", ("step", "layer"), value * table)


def call(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["place_experts.py", *map(str, arguments)])
    status = place_experts.main()
    return status, *capsys.readouterr()


def test_what_a_run_measured(monkeypatch, capsys, run):
    status, out, _ = call(monkeypatch, capsys, run)
    assert status == 0
    # The last ten steps, but only those of the last number of expert ranks.
    assert out.splitlines()[0] == "measured in steps 9 to 12, 3 expert ranks"
    assert [line.split()[-1] for line in out.splitlines()[1:]] == ["40.00%", "2.500", "1.500"]
    _, out, _ = call(monkeypatch, capsys, run, "--steps=2")
    assert out.startswith("measured in steps 11 to 12,")


@pytest.mark.parametrize(("by", "ranks"), [("coactivation", 3), ("source", 2)])
def test_a_file_is_written(monkeypatch, capsys, run, by, ranks):
    file = run / "placement"
    arguments = (run, f"--by={by}", f"--expert-ranks={ranks}", f"--output={file}")
    status, out, _ = call(monkeypatch, capsys, *arguments)
    assert status == 0
    first = file.read_text()
    assert out.splitlines()[-1] == f"written: {file}"
    rows = {" ".join(line.split()[:-2]): line.split()[-2:] for line in out.splitlines()}
    before, after = (float(text) for text in rows["pairs of copies on one rank, of all"])
    if by == "coactivation":
        assert after >= before
    else:
        stay = [float(text[:-1]) for text in rows["copies that stay, cells by source"]]
        assert stay[1] >= stay[0]
    lines = [line for line in first.splitlines() if not line.startswith("#")]
    assert lines[0] == f"expert_ranks = {ranks}"
    for line, name in zip(lines[1:3], ("layer 1", "layer 2")):
        key, owner = line.split(" = ")
        assert key == name
        sizes = np.bincount([int(rank) for rank in owner.split()], minlength=ranks)
        assert sizes.tolist() == placement.share_sizes(7, ranks).tolist()
    for line, name in zip(lines[3:], ("bible", "python"), strict=True):
        key, shares = line.split(" = ")
        assert key == f"source {name}"
        assert abs(sum(map(int, shares.split())) - 1_000_000) <= 2
    call(monkeypatch, capsys, *arguments)
    assert file.read_text() == first


def test_what_cannot_be_placed(monkeypatch, capsys, run, tmp_path):
    status, _, error = call(monkeypatch, capsys, tmp_path / "none")
    assert status == 2
    assert "no such file; expected a training.h5" in error
    status, _, error = call(monkeypatch, capsys, run, "--by=source")
    assert status == 2
    assert "--by needs --expert-ranks" in error
    status, _, error = call(
        monkeypatch, capsys, run, "--by=source", "--expert-ranks=3", "--ranks=4"
    )
    assert status == 2
    assert "--ranks=4 is no multiple of --expert-ranks=3" in error
    with h5py.File(run / "training.h5", "a") as file:
        del file["layout"]
    status, _, error = call(monkeypatch, capsys, run)
    assert status == 2
    assert "no group 'layout'" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--output=placement",), "--output needs --by"),
        (("--expert-ranks=3",), "--expert-ranks needs --by"),
        (("--ranks=3",), "--ranks needs --by"),
        (("--by=source", "--expert-ranks=3", "--steps=2"), "--steps is of what a run measured"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(monkeypatch, capsys, run, options, said):
    monkeypatch.chdir(run)
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, capsys, run, *options)
    assert left.value.code == 2
    assert f"place_experts.py: error: {said}" in capsys.readouterr().err
    assert not (run / "placement").exists()


def test_an_output_that_cannot_be_written_is_named(monkeypatch, capsys, run):
    (run / "full").mkdir()
    (run / "file").write_text("")
    monkeypatch.chdir(run / "full")
    for output, why in (
        (run / "full", "Is a directory"),
        (Path("."), "Is a directory"),
        (run / "none" / "placement", "No such file or directory"),
        (run / "file" / "placement", "Not a directory"),
    ):
        arguments = (run, "--by=source", "--expert-ranks=2", f"--output={output}")
        status, _, error = call(monkeypatch, capsys, *arguments)
        assert status == 1
        assert error == f"place_experts.py: {output}: {why}\n"
    assert not list(run.rglob("*.tmp"))
