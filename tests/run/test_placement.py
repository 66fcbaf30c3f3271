"""Experts placed on ranks by a file: no bit changes, only what travels; files that do not fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, Launch, TinyRun, assert_same_run, contents, train
from test_bad_input import assert_refused

from place_experts import parser
from routing_statistics import placement

EXPERTS = 7
SOURCES = ("even", "odd")


def shuffled(seed: int, ranks: int, experts: int = EXPERTS) -> np.ndarray:
    """Some owner (experts) that is no contiguous range."""
    return np.random.default_rng(seed).permutation(placement.contiguous(experts, ranks))


def write_placement(
    path: Path,
    ranks: int,
    layers: dict[int, Sequence[int]],
    sources: dict[str, Sequence[int]] | None = None,
) -> str:
    """A file for some blocks; returns the option that names it."""
    lines = ["# For a test.", f"expert_ranks = {ranks}"]
    for kind, table in (("layer", layers), ("source", sources or {})):
        lines += [f"{kind} {name} = {' '.join(map(str, row))}" for name, row in table.items()]
    path.write_text("\n".join(lines) + "\n")
    return f"--parallel.placement={path}"


@pytest.fixture
def reference(launch: Launch, tiny: TinyRun) -> str:
    """The checksum of the run in <folder>/reference, of one rank."""
    return train(launch, tiny, "reference", (1, 1, 1))


@pytest.mark.parametrize("layout", [(2, 2, 1), (3, 3, 1), (4, 4, 1), (4, 2, 2), (8, 8, 1)])
def test_a_placement_changes_no_bit(
    launch: Launch, tiny: TinyRun, reference: str, layout: tuple[int, int, int]
) -> None:
    ranks = layout[1]
    option = write_placement(tiny.folder / "p", ranks, {1: shuffled(ranks, ranks)})
    assert train(launch, tiny, "placed", layout, option) == reference
    assert_same_run(tiny.folder / "reference", tiny.folder / "placed")


def test_restarts_on_other_placements(launch: Launch, tiny: TinyRun, reference: str) -> None:
    three = write_placement(tiny.folder / "three", 3, {1: shuffled(1, 3)})
    other = write_placement(tiny.folder / "other", 3, {1: shuffled(2, 3)})
    two = write_placement(tiny.folder / "two", 2, {1: shuffled(3, 2)})
    train(launch, tiny, "restarted", (3, 3, 1), three, "--run.stop_step=1")
    train(launch, tiny, "restarted", (3, 3, 1), other, "--run.stop_step=2")
    train(launch, tiny, "restarted", (4, 2, 1), two, "--run.stop_step=4")
    assert train(launch, tiny, "restarted", (3, 3, 1)) == reference
    assert_same_run(tiny.folder / "reference", tiny.folder / "restarted")
    with h5py.File(tiny.folder / "restarted" / "training.h5") as file:
        assert file["layout/expert_ranks"][:].tolist() == [3, 3, 2, 2, 3, 3]


def test_layers_with_numbers_of_their_own(launch: Launch, tiny: TinyRun) -> None:
    model = ("--moe.dense_layers=0", "--moe.experts=7,4", "--moe.top_k=3,2")
    option = write_placement(tiny.folder / "p", 3, {1: shuffled(1, 3, 4), 0: shuffled(2, 3, 7)})
    expected = train(launch, tiny, "one", (1, 1, 1), *model)
    assert train(launch, tiny, "placed", (3, 3, 1), *model, option) == expected
    assert_same_run(tiny.folder / "one", tiny.folder / "placed")


@pytest.mark.parametrize("layout", [(2, 2, 1), (3, 3, 1), (4, 2, 1), (6, 3, 1)])
def test_cells_by_source_change_no_bit(
    launch: Launch, tiny: TinyRun, layout: tuple[int, int, int]
) -> None:
    model = ("--batch.cell_sequences=1", "--moe.shared_ffn=0")
    ranks = layout[1]
    # The last rank is where the first source belongs.
    likes = {"odd": range(ranks, 0, -1), "even": range(1, ranks + 1)}
    option = write_placement(tiny.folder / "p", ranks, {1: shuffled(ranks, ranks)}, likes)
    expected = train(launch, tiny, "one", (1, 1, 1), *model)
    by_source = train(launch, tiny, "placed", layout, *model, option, "--parallel.cells=source")
    assert by_source == expected
    assert_same_run(tiny.folder / "one", tiny.folder / "placed")


def test_a_dense_model_has_no_use_for_a_placement(launch: Launch, tiny: TinyRun) -> None:
    option = f"--parallel.placement={tiny.folder / 'none'}"
    dense = "--moe.experts=0"
    assert train(launch, tiny, "a", (1, 1, 1), dense) == train(
        launch, tiny, "b", (2, 1, 1), dense, option
    )
    assert not any(name.startswith("layout") for name in layout_of(tiny.folder / "a"))


def layout_of(output: Path) -> dict[str, np.ndarray]:
    """What training.h5 has on the layout."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(output / "training.h5") as file:
        for name in file.get("layout", {}):
            found[name] = file["layout"][name][()]
    return found


# Layout; whether cells go by source, which then has them the other way round.
MEASURED = [((2, 2, 1), False), ((4, 2, 1), False), ((2, 2, 1), True), ((4, 2, 2), True)]


@pytest.mark.parametrize(("layout", "by_source"), MEASURED)
def test_what_is_measured(
    launch: Launch, tiny: TinyRun, layout: tuple[int, int, int], by_source: bool
) -> None:
    # Slots of a step alternate between the sources, and every rank has one: so the counts by source
    # of each step tell which copies stay.
    deck = tiny.deck.read_text()
    for source in SOURCES:
        deck = deck.replace(f"/{source}\n", f"/{source}:1\n")
    tiny.deck.write_text(deck)
    owner = shuffled(5, 2)
    option = write_placement(tiny.folder / "p", 2, {1: owner}, {"even": (1, 2), "odd": (2, 1)})
    options = [option, "--moe.top_k=2", "--checkpoint.every_steps=1", "--batch.cell_sequences=1"]
    options.append(f"--batch.global_batch={layout[0]}")
    if by_source:
        options.append("--parallel.cells=source")
    train(launch, tiny, "output", layout, *options)
    counts = contents(tiny.output / "routing.h5")
    found = layout_of(tiny.output)
    assert found["layer"].tolist() == [1]
    assert found["expert_ranks"].tolist() == [2] * 6
    assert found["tokens"].tolist() == [16 * layout[0]] * 6
    for step in range(6):
        by_expert = counts["source_expert_count"][step, 0]  # (sources, experts)
        kept = other = 0
        for source in range(2):
            home = 1 - source if by_source else source
            kept += sum(int(by_expert[source, e]) for e in range(EXPERTS) if owner[e] == home)
        together = counts["coactivation"][step, 0]
        pairs = [(i, j) for i in range(EXPERTS) for j in range(i)]
        on_one = sum(int(together[i, j]) for i, j in pairs if owner[i] == owner[j])
        # Of two copies, each is on another rank or not; two on one rank are one rank.
        copies = int(by_expert.sum())
        assert copies == 2 * 16 * layout[0]
        assert found["copies"][step].tolist() == [copies]
        assert found["copies_kept"][step].tolist() == [kept]
        assert found["ranks_reached"][step].tolist() == [copies - on_one]
        # Both ranks of two, or one of them: a token that keeps a copy reaches its own.
        other = int(found["other_ranks_reached"][step, 0])
        assert copies - kept - on_one <= other <= copies - kept
    assert 0 < found["copies_kept"].sum() < found["copies"].sum()


def test_one_rank_keeps_all(launch: Launch, tiny: TinyRun, reference: str) -> None:
    found = layout_of(tiny.folder / "reference")
    assert (found["copies_kept"] == found["copies"]).all()
    assert (found["copies"][:, 0] == 3 * found["tokens"]).all()
    assert (found["ranks_reached"][:, 0] == found["tokens"]).all()
    assert (found["other_ranks_reached"] == 0).all()


@pytest.mark.parametrize("by", ["coactivation", "source"])
def test_from_the_statistics_to_a_run(
    launch: Launch, tiny: TinyRun, reference: str, by: str
) -> None:
    file = tiny.folder / "placement"
    script = ROOT / "postprocess" / "place_experts.py"
    command = [sys.executable, script, tiny.folder / "reference", f"--by={by}"]
    finished = subprocess.run(
        [*command, "--expert-ranks=3", f"--output={file}"], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert f"written: {file}" in finished.stdout
    options = (f"--parallel.placement={file}", "--parallel.cells=source")
    checked = launch(1, "check", str(tiny.deck), "--ranks=6", *options)
    assert checked.returncode == 0, checked.stderr
    line = f"6 ranks = 3 expert_ranks x 2 data_ranks, 2 to 3 experts a rank, placed by {file}"
    assert f"{line}, cells by source\n" in checked.stdout
    # expert_ranks comes from the file.
    assert train(launch, tiny, "placed", (3, 0, 1), *options) == reference
    assert_same_run(tiny.folder / "reference", tiny.folder / "placed")


def test_a_pruned_model_begins_without_the_placement(
    launch: Launch, tiny: TinyRun, reference: str
) -> None:
    option = write_placement(tiny.folder / "p", 3, {1: shuffled(1, 3)})
    decks = []
    for ranks, more in ((1, ()), (3, (option,))):
        name = f"pruned-{ranks}"
        finished = launch(
            ranks,
            "prune",
            str(tiny.deck),
            f"--run.output={tiny.folder / 'reference'}",
            "--experts=5",
            f"--output={tiny.folder / name}",
            *more,
        )
        assert finished.returncode == 0, finished.stderr
        decks.append((tiny.folder / name / "run.deck").read_text().replace(name, ""))
    assert decks[0] == decks[1]
    first = Path("checkpoints") / "step_00000000.h5"
    one, other = (contents(tiny.folder / f"pruned-{ranks}" / first) for ranks in (1, 3))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)


# What is wrong with a file of 3 expert ranks; what the error says.
FILES = [
    ("", "no line 'expert_ranks = R'"),
    ("layer 1 = 0 0 0 1 1 2 2", ":1: the line 'expert_ranks = R' must come first"),
    ("expert_ranks = 0", ":1: expert_ranks; expected one number, at least 1"),
    ("expert_ranks = 3\nexpert_ranks = 3", ":2: expert_ranks is given twice"),
    ("expert_ranks = 3", "no line 'layer 1 = ...'"),
    ("expert_ranks = 3\nlayer 0 = 0 0 0 1 1 2 2", ":2: layer '0' has no experts", "blocks 1 to 1"),
    ("expert_ranks = 3\nlayer 1 = 0 0 0 1 1 2", ":2: layer 1: 6 numbers", "its 7 experts"),
    ("expert_ranks = 3\nlayer 1 = 0 0 0 1 1 2 x", ":2: layer 1: 'x' is not a whole number"),
    ("expert_ranks = 3\nlayer 1 = 0 0 0 1 1 2 3", ":2: layer 1: expert 6", "expected 0 to 2"),
    (
        "expert_ranks = 3\nlayer 1 = 0 0 1 1 1 2 2",
        ":2: layer 1: expert rank 0 owns 2 of 7 experts; expected 3",
    ),
    (
        "expert_ranks = 3\nlayer 1 = 0 0 0 1 1 2 2\nlayer 1 = 0 0 0 1 1 2 2",
        ":3: layer 1 is given twice",
    ),
    (
        "expert_ranks = 3\nexperts = 1",
        ":2: no line of a placement",
        "'layer BLOCK = RANK RANK ...'",
    ),
    ("expert_ranks = 3\n1 2 3", ":2: no line of a placement"),
    ("expert_ranks = 3\nsource even = 1 2", ":2: source even", "each of the 3 expert ranks"),
    ("expert_ranks = 3\nsource even = 1 2 -3", ":2: source even"),
]


@pytest.mark.parametrize("case", FILES, ids=lambda case: case[0])
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_file_that_is_wrong(
    launch: Launch, tiny: TinyRun, case: tuple[str, ...], ranks: int
) -> None:
    content, *fragments = case
    file = tiny.folder / "p"
    file.write_text(content)
    task = ["train", str(tiny.deck)] if ranks > 1 else ["check", str(tiny.deck), "--ranks=3"]
    finished = launch(ranks, *task, f"--parallel.placement={file}")
    assert_refused(finished, file, *fragments)
    assert not tiny.output.exists()


def test_a_file_that_is_no_text(launch: Launch, tiny: TinyRun) -> None:
    option = f"--parallel.placement={tiny.folder / 'none'}"
    finished = launch(2, "train", str(tiny.deck), option)
    assert_refused(finished, "parallel.placement", tiny.folder / "none", "cannot be read")
    option = f"--parallel.placement={tiny.folder}"
    assert_refused(launch(1, "train", str(tiny.deck), option), tiny.folder, "cannot be read")
    with h5py.File(tiny.folder / "p", "w"):
        pass
    option = f"--parallel.placement={tiny.folder / 'p'}"
    assert_refused(launch(1, "check", str(tiny.deck), option), "is not a text", "expert_ranks = R")


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_ranks_that_do_not_fit_the_file(launch: Launch, tiny: TinyRun, task: str) -> None:
    option = write_placement(tiny.folder / "p", 3, {1: shuffled(1, 3)})
    finished = launch(2, task, str(tiny.deck), option)
    assert_refused(finished, tiny.folder / "p", "expert_ranks = 3", "the 2 ranks", "a multiple")
    finished = launch(1, task, str(tiny.deck), option, "--parallel.expert_ranks=1")
    assert_refused(finished, tiny.folder / "p", "expert_ranks = 3", "parallel.expert_ranks = 1")
    assert not tiny.output.exists()


def test_cells_by_source_need_the_sources(launch: Launch, tiny: TinyRun) -> None:
    cells = "--parallel.cells=source"
    finished = launch(1, "train", str(tiny.deck), cells)
    assert_refused(finished, "parallel.cells = source", "parallel.placement is empty")
    option = write_placement(tiny.folder / "p", 2, {1: shuffled(1, 2)}, {"even": (1, 2)})
    finished = launch(2, "train", str(tiny.deck), cells, option)
    assert_refused(finished, tiny.folder / "p", "no line 'source odd = ...'", "--by source")
    assert not tiny.output.exists()


def test_the_script_says_what_it_does() -> None:
    text = parser().format_help()
    for option in ("--by", "--expert-ranks", "--ranks", "--output", "--steps"):
        assert option in text
