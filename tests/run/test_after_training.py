"""The commands after training: what they write evaluates and trains, the same on any layout."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Launch, TinyRun, contents, train
from test_bad_input import assert_refused, files

RENORMALISED = "--top_k.renormalise=true"


def before_and_after(output: str, row: str) -> tuple[float, float]:
    """The two figures of a row of the comparison."""
    found = re.search(rf"^{re.escape(row)} +(\S+) +(\S+)$", output, re.MULTILINE)
    assert found, output
    return float(found[1]), float(found[2])


def loss_of(launch: Launch, deck: Path) -> float:
    """Of hearth evaluate, all sources."""
    finished = launch(1, "evaluate", str(deck))
    assert finished.returncode == 0, finished.stderr
    return float(re.search(r"^all +(\S+)", finished.stdout, re.MULTILINE)[1])


def derived(folder: Path) -> dict[str, np.ndarray]:
    """Everything in the checkpoint of step 0."""
    return contents(folder / "checkpoints" / "step_00000000.h5")


def assert_same_checkpoint(one: Path, other: Path) -> None:
    a, b = derived(one), derived(other)
    assert a.keys() == b.keys()
    for name, values in a.items():
        assert values.tobytes() == b[name].tobytes(), name


@pytest.fixture
def trained(launch: Launch, tiny: TinyRun) -> TinyRun:
    """A finished tiny run."""
    train(launch, tiny, "output", (1, 1, 2))
    return tiny


@pytest.fixture
def dense(launch: Launch, tiny: TinyRun) -> TinyRun:
    """The same without experts."""
    deck = tiny.deck.read_text()
    tiny.deck.write_text(
        deck[: deck.index("[moe]")] + "[moe]\nexperts = 0\n" + deck[deck.index("[batch]") :]
    )
    train(launch, tiny, "output", (1, 1, 2))
    return tiny


def prune(
    launch: Launch, tiny: TinyRun, name: str, experts: int, ranks: int = 1, *more: str
) -> str:
    finished = launch(
        ranks,
        "prune",
        str(tiny.deck),
        f"--experts={experts}",
        f"--output={tiny.folder / name}",
        *more,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_pruned_model_evaluates_and_trains(launch: Launch, trained: TinyRun) -> None:
    said = prune(launch, trained, "pruned", 4, 1, "--batches=2")
    assert "2 global batches" in said
    found = re.search(
        r"^layer 1: without ([\d, ]+) \(the best of all 35 sets\)", said, re.MULTILINE
    )
    assert found, said
    dropped = [int(expert) for expert in found[1].split(", ")]
    assert len(dropped) == 3
    kept = [expert for expert in range(7) if expert not in dropped]

    pruned = trained.folder / "pruned"
    with (
        h5py.File(trained.output / "checkpoints/step_00000006.h5") as whole,
        h5py.File(pruned / "checkpoints/step_00000000.h5") as cut,
    ):
        for part in ("router/weight", "experts/gate", "experts/up", "experts/down"):
            name = f"model/layers/01/{part}"
            assert np.array_equal(cut[name][()], whole[name][()][kept])
        name = "model/layers/00/attention/query"
        assert np.array_equal(cut[name][()], whole[name][()])
        assert not cut["optimizer/first_moment/head/weight"][()].any()

    before, after = before_and_after(said, "validation loss, nats per token")
    assert before != after
    assert loss_of(launch, trained.deck) == pytest.approx(before, abs=1e-4)
    assert loss_of(launch, pruned / "run.deck") == pytest.approx(after, abs=1e-4)
    parameters = before_and_after(said, "parameters")
    assert parameters[0] - parameters[1] == 3 * (3 * 20 * 24 + 24)
    assert before_and_after(said, "active parameters")[1] < parameters[1]
    assert before_and_after(said, "tokens/s of validation, measured")[1] > 0

    # Fine-tuning: the same bits on another layout.
    decks = [str(pruned / "run.deck"), f"--run.output={trained.folder / 'copy'}"]
    (trained.folder / "copy").mkdir()
    (trained.folder / "copy/checkpoints").mkdir()
    checkpoint = "checkpoints/step_00000000.h5"
    (trained.folder / "copy" / checkpoint).write_bytes((pruned / checkpoint).read_bytes())
    checksums = []
    for ranks, arguments in ((1, decks[:1]), (3, decks)):
        finished = launch(ranks, "train", *arguments)
        assert finished.returncode == 0, finished.stderr
        assert "step_00000000.h5 at step 0" in finished.stderr
        assert "is not there" not in finished.stderr
        checksums.append(re.findall(r"weights checksum ([0-9a-f]{16})", finished.stderr)[-1])
    assert checksums[0] == checksums[1]


@pytest.mark.parametrize("experts", [5, 7])
def test_pruning_is_the_same_on_any_layout(launch: Launch, trained: TinyRun, experts: int) -> None:
    one = prune(launch, trained, "one", experts)
    three = prune(launch, trained, "three", experts, 3, "--parallel.expert_ranks=3")
    other = prune(launch, trained, "other", experts, 3, "--parallel.expert_ranks=1")
    assert_same_checkpoint(trained.folder / "one", trained.folder / "three")
    assert_same_checkpoint(trained.folder / "one", trained.folder / "other")
    layers = re.findall(r"^layer .*$|^weights checksum .*$|^validation loss.*$", one, re.MULTILINE)
    assert len(layers) == 3
    for said in (three, other):
        for line in layers:
            assert line in said


def test_pruning_to_all_experts_changes_nothing(launch: Launch, trained: TinyRun) -> None:
    said = prune(launch, trained, "same", 7)
    assert "layer 1: without none (the best of all 1 sets); output changes by 0 of" in said
    losses = before_and_after(said, "validation loss, nats per token")
    assert losses[0] == losses[1]
    whole = contents(trained.output / "checkpoints/step_00000006.h5")
    same = derived(trained.folder / "same")
    tensors = [name for name in whole if name.startswith("model/")]
    assert len(tensors) > 40
    for name in tensors:
        assert whole[name].tobytes() == same[name].tobytes(), name


def test_many_experts_are_dropped_greedily(launch: Launch, tiny: TinyRun) -> None:
    tiny.deck.write_text(tiny.deck.read_text().replace("experts = 7", "experts = 16"))
    train(launch, tiny, "output", (1, 1, 2))
    one = prune(launch, tiny, "one", 8)
    three = prune(launch, tiny, "three", 8, 3)
    # 16 + 15 + ... + 9
    line = re.search(r"^layer 1: .*\(greedily, one by one, of 100 sets\).*$", one, re.MULTILINE)
    assert line, one
    assert line[0] in three
    assert_same_checkpoint(tiny.folder / "one", tiny.folder / "three")


def test_pruned_in_bfloat16_and_without_validation(launch: Launch, tiny: TinyRun) -> None:
    tiny.deck.write_text(
        tiny.deck.read_text()
        .replace("[model]\n", "[model]\ncompute_type = bf16\n")
        .replace("split = 80,20,0", "split = 100,0,0")
    )
    train(launch, tiny, "output", (1, 1, 2))
    said = prune(launch, tiny, "pruned", 4, 2)
    assert "no validation split" in said
    assert launch(1, "train", str(tiny.folder / "pruned/run.deck")).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--experts=8"], ["--experts=8 is more than moe.experts = 7"]),
        (["--experts=2"], ["moe.top_k = 3 is more than moe.experts = 2"]),
        (["--experts=0"], ["--experts=0", "expected a number of experts"]),
        (["--experts=4x"], ["--experts=4x", "expected a number of experts"]),
        (["--experts=4", "--batches=0"], ["--batches=0", "expected a number of global batches"]),
        ([], ["prune needs --experts="]),
        (["--experts=4", "--moe.experts=8"], ["moe.experts"]),
        (["--experts=4", "--moe.router=capacity"], ["moe.router = capacity", "expected top_k"]),
        (["--experts=4", "--moe.zero_experts=1"], ["zero or null experts"]),
        (["--experts=4", "--run.output=nowhere"], ["nowhere", "no checkpoint to start from"]),
        (["--experts=4", "--checkpoint.resume=none"], ["a checkpoint is needed"]),
        (["--experts=4", "--output=/proc/pruned"], ["/proc/pruned: cannot be written"]),
    ],
)
def test_what_cannot_be_pruned(
    launch: Launch, trained: TinyRun, arguments: list[str], fragments: list[str]
) -> None:
    before = files(trained.folder)
    output = trained.folder / "pruned"
    finished = launch(1, "prune", str(trained.deck), f"--output={output}", *arguments)
    assert_refused(finished, *fragments)
    assert files(trained.folder) == before


def test_an_output_that_is_there(launch: Launch, trained: TinyRun) -> None:
    arguments = ["prune", str(trained.deck), "--experts=4"]
    assert_refused(launch(1, *arguments), "prune needs --output=")
    finished = launch(2, *arguments, f"--output={trained.output}")
    assert_refused(finished, trained.output, "is there already")


def test_a_dense_model_has_nothing_to_prune(launch: Launch, dense: TinyRun) -> None:
    finished = launch(1, "prune", str(dense.deck), "--experts=4", f"--output={dense.folder / 'no'}")
    assert_refused(finished, "the model is dense")


def upcycle(launch: Launch, tiny: TinyRun, name: str, ranks: int, *more: str) -> str:
    finished = launch(ranks, "upcycle", str(tiny.deck), f"--output={tiny.folder / name}", *more)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


MIXTURE = ["--moe.experts=5", "--moe.top_k=2", "--moe.dense_layers=0"]
COPIES = [*MIXTURE, "--moe.expert_ffn=40", "--moe.shared_ffn=0", RENORMALISED]


def test_upcycled_copies_keep_the_loss(launch: Launch, dense: TinyRun) -> None:
    said = upcycle(launch, dense, "one", 1, *COPIES)
    before, after = before_and_after(said, "validation loss, nats per token")
    assert after == pytest.approx(before, abs=2e-6)
    assert loss_of(launch, dense.deck) == pytest.approx(before, abs=1e-4)
    assert loss_of(launch, dense.folder / "one/run.deck") == pytest.approx(after, abs=1e-4)
    three = upcycle(launch, dense, "three", 3, *COPIES)
    assert before_and_after(three, "validation loss, nats per token") == (before, after)
    assert_same_checkpoint(dense.folder / "one", dense.folder / "three")
    with (
        h5py.File(dense.output / "checkpoints/step_00000006.h5") as old,
        h5py.File(dense.folder / "one/checkpoints/step_00000000.h5") as new,
    ):
        for part in ("gate", "up", "down"):
            copies = new[f"model/layers/01/experts/{part}"][()]
            assert copies.shape[0] == 5
            for copy in copies:
                assert np.array_equal(copy, old[f"model/layers/01/dense/{part}"][()])
        assert np.std(new["model/layers/01/router/weight"][()]) == pytest.approx(0.02, rel=0.3)
    finished = launch(2, "train", str(dense.folder / "one/run.deck"))
    assert finished.returncode == 0, finished.stderr
    assert "at step 0" in finished.stderr


def test_upcycled_slices_and_a_shared_expert(launch: Launch, dense: TinyRun) -> None:
    more = [*MIXTURE, "--moe.expert_ffn=20", "--moe.shared_ffn=24"]
    upcycle(launch, dense, "one", 1, *more)
    upcycle(launch, dense, "three", 3, *more)
    assert_same_checkpoint(dense.folder / "one", dense.folder / "three")
    with h5py.File(dense.folder / "one/checkpoints/step_00000000.h5") as new:
        shared = new["model/layers/00/shared"]
        assert not shared["down"][()].any()
        assert shared["up"][()].all()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["no layer would have experts"]),
        (["--moe.experts=4", "--moe.dense_layers=2"], ["no layer would have experts"]),
        (["--moe.experts=4", "--moe.top_k=2", "--moe.expert_ffn=30"], ["does not divide"]),
        (["--moe.experts=4", "--moe.top_k=5"], ["moe.top_k = 5 is more than moe.experts = 4"]),
        ([*COPIES, "--experts=4"], ["unknown key 'experts'"]),
    ],
)
def test_what_cannot_be_upcycled(
    launch: Launch, dense: TinyRun, arguments: list[str], fragments: list[str]
) -> None:
    before = files(dense.folder)
    finished = launch(1, "upcycle", str(dense.deck), f"--output={dense.folder / 'no'}", *arguments)
    assert_refused(finished, *fragments)
    assert files(dense.folder) == before


def test_a_mixture_is_not_upcycled(launch: Launch, trained: TinyRun) -> None:
    finished = launch(
        1, "upcycle", str(trained.deck), f"--output={trained.folder / 'no'}", "--moe.experts=9"
    )
    assert_refused(finished, "has experts already")


def run_command(
    launch: Launch, tiny: TinyRun, command: str, name: str, ranks: int, *more: str
) -> str:
    """What it prints."""
    output = f"--output={tiny.folder / name}"
    finished = launch(ranks, command, str(tiny.deck), output, *more)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_merged_experts(launch: Launch, trained: TinyRun) -> None:
    one = run_command(launch, trained, "merge", "one", 1, "--experts=4", "--batches=2")
    three = run_command(launch, trained, "merge", "three", 3, "--experts=4", "--batches=2")
    assert_same_checkpoint(trained.folder / "one", trained.folder / "three")
    line = re.search(r"^layer 1:(.*)$", one, re.MULTILINE)
    assert line, one
    assert line[0] in three
    groups = [
        {int(e): float(w or 1) for w, e in re.findall(r"(?:(\d\.\d+) of )?(\d+)(?=[ \]])", group)}
        for group in re.findall(r"\[[^]]*\]", line[1])
    ]
    assert len(groups) == 4
    assert sorted(expert for group in groups for expert in group) == list(range(7))
    with (
        h5py.File(trained.output / "checkpoints/step_00000006.h5") as whole,
        h5py.File(trained.folder / "one/checkpoints/step_00000000.h5") as merged,
    ):
        for part in ("router/weight", "experts/gate", "experts/down"):
            old, new = (file[f"model/layers/01/{part}"][()] for file in (whole, merged))
            for number, group in enumerate(groups):
                mean = sum(weight * old[expert] for expert, weight in group.items())
                assert sum(group.values()) == pytest.approx(1, abs=2e-3)
                np.testing.assert_allclose(new[number], mean, atol=2e-3 * np.abs(old).max())
    _, after = before_and_after(one, "validation loss, nats per token")
    assert loss_of(launch, trained.folder / "one/run.deck") == pytest.approx(after, abs=1e-4)
    assert launch(3, "train", str(trained.folder / "one/run.deck")).returncode == 0

    same = run_command(launch, trained, "merge", "same", 1, "--experts=7")
    losses = before_and_after(same, "validation loss, nats per token")
    assert losses[0] == losses[1]


def test_skipping(launch: Launch, trained: TinyRun) -> None:
    one = run_command(launch, trained, "calibrate-skip", "one", 1, "--batches=2")
    three = run_command(launch, trained, "calibrate-skip", "three", 3, "--batches=2")
    assert_same_checkpoint(trained.folder / "one", trained.folder / "three")
    found = re.search(r"^layer 1: a choice below (0\.\d+) of the largest", one, re.MULTILINE)
    assert found, one
    assert found[0] in three
    deck = trained.folder / "one/run.deck"
    value = re.search(r"^skip_below = (\S+)$", deck.read_text(), re.MULTILINE)
    assert float(value[1]) == pytest.approx(float(found[1]), abs=1e-6)
    # Of two lower choices about one is left.
    before, after = before_and_after(one, "experts of a token, measured")
    assert before == 3
    assert after == pytest.approx(2, abs=0.1)
    flops = before_and_after(one, "forward FLOPs per token")
    assert flops[0] - flops[1] == pytest.approx(2 * 3 * 20 * 24 * (before - after), rel=1e-2)
    _, loss = before_and_after(one, "validation loss, nats per token")
    assert loss_of(launch, deck) == pytest.approx(loss, abs=1e-4)
    # An evaluation may skip otherwise, as the deck's owner wishes.
    finished = launch(1, "evaluate", str(deck), "--top_k.skip_below=0")
    assert finished.returncode == 0, finished.stderr
    assert loss_of(launch, trained.deck) == float(
        re.search(r"^all +(\S+)", finished.stdout, re.MULTILINE)[1]
    )
    # Training goes on, the same on any layout.
    checksums = []
    for name, ranks in (("one", 1), ("three", 3)):
        finished = launch(ranks, "train", str(trained.folder / name / "run.deck"))
        assert finished.returncode == 0, finished.stderr
        checksums.append(re.findall(r"weights checksum ([0-9a-f]{16})", finished.stderr)[-1])
    assert checksums[0] == checksums[1]


@pytest.mark.parametrize(
    ("task", "arguments", "fragments"),
    [
        ("merge", ["--experts=8"], ["hearth: merge: --experts=8 is more than moe.experts = 7"]),
        ("merge", ["--experts=2"], ["moe.top_k = 3 is more than moe.experts = 2"]),
        ("merge", [], ["merge needs --experts="]),
        ("calibrate-skip", ["--experts=3"], ["unknown key 'experts'"]),
        ("calibrate-skip", ["--moe.router=top_p"], ["moe.router = top_p", "which can skip"]),
        ("calibrate-skip", ["--top_k.skip_below=0.5"], ["is set already"]),
        ("calibrate-skip", ["--run.output=nowhere"], ["no checkpoint to start from"]),
    ],
)
def test_what_cannot_be_merged_or_calibrated(
    launch: Launch, trained: TinyRun, task: str, arguments: list[str], fragments: list[str]
) -> None:
    output = trained.folder / "no"
    finished = launch(1, task, str(trained.deck), f"--output={output}", *arguments)
    assert_refused(finished, *fragments)
    assert not output.exists()
