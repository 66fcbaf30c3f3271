"""postprocess/: each picture from a small file in the layout of training.h5 and routing.h5."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pytest
from synthetic_routing import NONE, Plan, label, write_run

import figures
import plot_coactivation
import plot_expert_load
import plot_loss
import plot_specialisation
from routing_statistics import chance_conditional, conditional, preference, saturation
from routing_tables import RoutingTables
from statistics_file import StatisticsFile

# Matplotlib warns of a layout that does not fit.
pytestmark = pytest.mark.filterwarnings("error")

SOURCES = ("bible", "python", "french")
SCRIPTS = ("loss", "expert_load", "coactivation", "saturation", "specialisation")


def training_file(path: Path, *, steps=40, sources=SOURCES, validations=4) -> Path:
    """Losses that fall from 6 nats to a level for each source; the second is absent at first."""
    rng = np.random.default_rng(1)
    step = np.arange(1, steps + 1)
    tokens = rng.multinomial(4096, np.ones(len(sources)) / len(sources), steps)
    tokens = tokens.reshape(steps, len(sources))
    if len(sources) > 1:
        tokens[: steps // 8, 1] = 0
    final = 2.5 + 0.5 * np.arange(len(sources))
    progress = np.exp(-6 * step / max(steps, 1))[:, None]
    loss = final + (6 - final) * progress + rng.normal(0, 0.08, tokens.shape)
    loss = np.where(tokens > 0, loss, np.nan)
    mean = np.nansum(loss * tokens, 1) / tokens.sum(1)
    at = np.linspace(steps / max(validations, 1), steps, validations).astype(int)
    with h5py.File(path, "w", libver="v110") as file:
        file["step"], file["tokens"] = step, tokens.sum(1)
        file["source"] = list(sources)
        file["cross_entropy"], file["balance_loss"] = mean, np.full(steps, 0.01)
        file["z_loss"] = np.full(steps, 0.001)
        file["loss"] = mean + 0.011
        file["learning_rate"] = 2e-3 * np.minimum(step / max(steps / 10, 1), 1)
        file["gradient_norm"] = np.ones(steps)
        file["source_loss"], file["source_tokens"] = loss, tokens
        file["validation_step"] = at
        file["validation_loss"] = loss[at - 1] + 0.05
        file["validation_tokens"] = np.full((validations, len(sources)), 1000)
        file["timing/step_seconds"] = np.ones(steps)
    return path


def routing_file(
    path: Path,
    *,
    layers=3,
    experts=8,
    k=3,
    sources=SOURCES,
    checkpoints=5,
    intervals=10,
    vocabulary=40,
    tokens=2000,
    probes=60,
    token_counts=True,
) -> Path:
    """Routing of random tokens, whose logits move from noise to a function of token and source."""
    rng = np.random.default_rng(2)
    counted = rng.normal(size=(layers, vocabulary, experts)) * 1.5
    by_source = rng.normal(size=(layers, len(sources), experts))
    bias = rng.normal(size=(layers, experts)) * 0.3
    start = rng.normal(size=(layers, vocabulary, experts))

    def chosen(now: float, layer: int, token, source, noise: float):
        """(tokens, experts) of 0 and 1."""
        logits = now * (counted[layer, token] + by_source[layer, source] + bias[layer])
        logits = logits + (1 - now) * start[layer, token] + noise * rng.normal(size=logits.shape)
        rank = np.argsort(np.argsort(-logits, 1), 1)
        return (rank < k).astype(np.int64)

    progress = np.linspace(0, 1, checkpoints + 1)[1:] ** 0.5
    pairs = np.zeros((checkpoints, layers, experts, experts), np.int64)
    of_source = np.zeros((checkpoints, layers, len(sources), experts), np.int64)
    of_token = np.zeros((checkpoints, layers, vocabulary, experts), np.int64)
    choice = np.zeros((checkpoints, layers, probes, k), np.int32)
    probe_token, probe_source = (
        rng.integers(vocabulary, size=probes),
        rng.integers(len(sources), size=probes),
    )
    for row, now in enumerate(progress):
        token = np.minimum(rng.geometric(6 / vocabulary, tokens) - 1, vocabulary - 1)
        source = rng.integers(len(sources), size=tokens)
        for layer in range(layers):
            hits = chosen(now, layer, token, source, 0.4)
            pairs[row, layer] = hits.T @ hits
            np.add.at(of_source[row, layer], source, hits)
            np.add.at(of_token[row, layer], token, hits)
            probe = chosen(now, layer, probe_token, probe_source, 0)
            choice[row, layer] = np.nonzero(probe)[1].reshape(probes, k)
    count = np.zeros((intervals, layers, experts), np.int64)
    for row in range(intervals):
        for layer in range(layers):
            uneven = np.exp(bias[layer] * 3 * np.exp(-5 * row / intervals))
            count[row, layer] = rng.multinomial(tokens * k, uneven / uneven.sum())
    by_checkpoint = ("checkpoint", "layer")
    with h5py.File(path, "w", libver="v110") as file:
        label(file, "interval", ("interval",), 10 * np.arange(1, intervals + 1))
        label(file, "layer", ("layer",), np.arange(1, layers + 1))
        label(file, "expert", ("expert",), np.arange(experts))
        label(file, "source", ("source",), list(sources))
        label(file, "tokens", ("interval",), np.full(intervals, tokens))
        label(file, "expert_count", ("interval", "layer", "expert"), count)
        label(file, "checkpoint", ("checkpoint",), 50 * np.arange(1, checkpoints + 1))
        label(file, "coactivation", (*by_checkpoint, "expert", "expert_with"), pairs)
        label(file, "source_expert_count", (*by_checkpoint, "source", "expert"), of_source)
        if token_counts:
            label(file, "token_expert_count", (*by_checkpoint, "token", "expert"), of_token)
        if probes:
            label(file, "probe_token", ("probe",), probe_token.astype(np.int32))
            label(file, "probe_choice", (*by_checkpoint, "probe", "k"), choice)
    return path


def run(monkeypatch, capsys, script: str, *arguments) -> tuple[int, list[str], str]:
    """Exit status, lines of output, text of errors."""
    monkeypatch.setattr(sys, "argv", [f"plot_{script}.py", *map(str, arguments)])
    try:
        status = importlib.import_module(f"plot_{script}").main()
    except SystemExit as leave:  # argparse
        status = leave.code
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


@pytest.fixture
def plot(monkeypatch, capsys, tmp_path):
    """Runs a script into a folder of its own; returns the names of the pictures."""

    def call(script: str, file: Path, *arguments) -> list[str]:
        output = tmp_path / "pictures"
        status, lines, errors = run(
            monkeypatch, capsys, script, file, "--output", output, "--formats", "svg", *arguments
        )
        assert status == 0, errors
        assert sorted(lines) == sorted(map(str, output.iterdir()))
        for line in lines:
            ElementTree.parse(line)
        return [Path(line).name for line in lines]

    return call


@pytest.fixture
def refuse(monkeypatch, capsys, tmp_path):
    """Runs a script that must fail with status 2 and one line; returns the line."""

    def call(script: str, file: Path, *arguments) -> str:
        status, lines, errors = run(
            monkeypatch, capsys, script, file, "--output", tmp_path / "pictures", *arguments
        )
        assert (status, lines) == (2, [])
        assert re.fullmatch(rf"plot_{script}\.py: [^\n]+\n", errors)
        assert not (tmp_path / "pictures").exists()
        return errors

    return call


# Every script


def test_writes_png_and_svg(monkeypatch, capsys, tmp_path):
    file = training_file(tmp_path / "training.h5")
    status, lines, _ = run(monkeypatch, capsys, "loss", file, "--output", tmp_path / "a" / "b")
    assert status == 0
    assert lines == [str(tmp_path / "a" / "b" / name) for name in ("loss.png", "loss.svg")]
    assert Path(lines[0]).read_bytes().startswith(b"\x89PNG")


def test_the_same_file_gives_the_same_pictures(plot, tmp_path):
    file = training_file(tmp_path / "training.h5")
    path = tmp_path / "pictures" / "loss.svg"
    plot("loss", file)
    first = path.read_bytes()
    plot("loss", file)
    assert path.read_bytes() == first


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(monkeypatch, capsys, script):
    status, lines, _ = run(monkeypatch, capsys, script, "--help")
    assert status == 0
    assert any("--formats" in line for line in lines)


@pytest.mark.parametrize("script", SCRIPTS)
def test_refuses_what_is_no_statistics_file(refuse, tmp_path, script):
    path = tmp_path / "file.h5"
    assert "no such file" in refuse(script, path)
    path.write_text("loss 3.4\n")
    assert "not an HDF5 file" in refuse(script, path)
    with h5py.File(path, "w") as file:
        file["other"] = [1]
    assert "no dataset" in refuse(script, path)
    training_file(path)
    path.write_bytes(path.read_bytes()[:1500])
    assert "damaged HDF5 file" in refuse(script, path)


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_says_which_file_is_needed(refuse, tmp_path, script):
    assert "expected a routing.h5" in refuse(script, training_file(tmp_path / "training.h5"))


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_dense_models_route_nothing(refuse, tmp_path, script):
    assert "no MoE layers" in refuse(script, routing_file(tmp_path / "routing.h5", layers=0))


@pytest.mark.parametrize("script", SCRIPTS[2:])
def test_no_checkpoint_yet(refuse, tmp_path, script):
    file = routing_file(tmp_path / "routing.h5", checkpoints=0)
    assert "'checkpoint' has no rows yet" in refuse(script, file)


@pytest.mark.parametrize("script", ["coactivation", "expert_load", "saturation", "specialisation"])
def test_chosen_layers(plot, refuse, tmp_path, script):
    file = routing_file(tmp_path / "routing.h5")
    assert "the layers are 1, 2, 3" in refuse(script, file, "--layers", "2,9")
    assert plot(script, file, "--layers", "2,3")


def test_first_middle_and_last_layer(tmp_path):
    for layers, chosen in ((1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (8, [0, 3, 7])):
        path = routing_file(tmp_path / "routing.h5", layers=layers)
        with StatisticsFile(path, "routing.h5") as file:
            assert file.chosen_layers(None) == chosen


def test_experts_per_token_come_from_the_counts_too(tmp_path):
    path = routing_file(tmp_path / "routing.h5", k=3, probes=0)
    with StatisticsFile(path, "routing.h5") as file:
        assert RoutingTables(file).slots(0) == 3


def test_labels_move_apart():
    assert figures.spread([1.0, 5.0], 1) == [1, 5]
    assert figures.spread([5.0, 1.0, 1.0], 1) == [5, 0.5, 1.5]
    assert np.allclose(figures.spread([0.0, 0.1, 0.8], 1), [-0.7, 0.3, 1.3])


def test_token_text_is_printable():
    assert figures.printable(" the\n$x$") == r"␣the↵\$x\$"
    assert figures.printable("\x00\ue000") == "[U+0000][U+E000]"


# Loss


def test_loss_averages_over_tokens():
    position, tokens = np.array([1.0, 2, 3, 4, 5]), np.array([1, 3, 0, 2, 4])
    loss = np.array([4.0, 8, np.nan, 6, 1])
    x, y = plot_loss.averaged(position, loss, tokens, 2)
    assert x.tolist() == [1.5, 3.5, 5] and y.tolist() == [7, 6, 1]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"steps": 1, "validations": 1},
        {"validations": 0},
        {"sources": ["only"]},
        {"steps": 700},
        {"sources": [f"source {n}" for n in range(9)]},
    ],
    ids=str,
)
def test_loss(plot, tmp_path, shape):
    file = training_file(tmp_path / "training.h5", **shape)
    assert plot("loss", file) == ["loss.svg"]
    assert plot("loss", file, "--over", "steps", "--log") == ["loss.svg"]


def test_loss_of_no_steps(refuse, tmp_path):
    file = training_file(tmp_path / "training.h5", steps=0, validations=0)
    assert "'step' has no rows yet" in refuse("loss", file)


# Expert load


@pytest.mark.parametrize("shape", [{}, {"intervals": 1}, {"layers": 1}], ids=str)
def test_expert_load(plot, tmp_path, shape):
    file = routing_file(tmp_path / "routing.h5", **shape)
    assert plot("expert_load", file) == ["expert_load.svg"]


def test_expert_load_of_no_intervals(refuse, tmp_path):
    file = routing_file(tmp_path / "routing.h5", intervals=0)
    assert "'interval' has no rows yet" in refuse("expert_load", file)


def test_interval_edges():
    assert plot_expert_load.interval_edges(np.array([30, 40, 50])).tolist() == [20, 30, 40, 50]
    assert plot_expert_load.interval_edges(np.array([10])).tolist() == [0, 10]


# Co-activation


def test_coactivation_is_conditional():
    counts = np.array([[4, 1, 3], [1, 2, 1], [3, 1, 0]])
    assert conditional(counts).tolist() == [[0, 0.25, 0.75], [0.5, 0, 0.5], [0, 0, 0]]
    assert conditional(counts, 3).tolist() == [[0, 0.25, 0.75], [0, 0, 0], [0, 0, 0]]
    assert chance_conditional(counts) == 6 / 12 and chance_conditional(counts, 3) == 4 / 8
    assert np.isnan(chance_conditional(counts, 5))


def test_coactivation_of_random_choice_is_the_baseline(tmp_path):
    rng = np.random.default_rng(3)
    hits = (rng.random((20000, 8)).argsort(1) < 3).astype(np.int64)
    table = conditional(hits.T @ hits)
    assert np.allclose(table[~np.eye(8, dtype=bool)], 2 / 7, atol=0.02)


@pytest.mark.parametrize("script", SCRIPTS[1:])
@pytest.mark.parametrize("variable", [False, True], ids=["fixed", "variable"])
def test_layers_that_differ(plot, tmp_path, script, variable):
    """Absent experts, other kinds, halves, axes in another order."""
    plan = Plan(
        experts=(9, 6),
        slots=(3, 2),
        kinds=True,
        extras=True,
        halves=True,
        shuffled_axes=True,
        variable=variable,
    )
    write_run(tmp_path / "run", plan)
    options = ["--min-count", "5"] if script in ("specialisation", "coactivation") else []
    assert plot(script, tmp_path / "run" / "routing.h5", *options)


def test_coactivation_shows_the_strongest():
    table = np.array([[0, 0.1, 0.2, 0], [0.9, 0, 0, 0], [0, 0.8, 0, 0.3], [0.1, 0, 0, 0]])
    assert plot_coactivation.strongest(table, 3) == [1, 2, 0]
    assert plot_coactivation.partners_together(table, [1, 2, 0]) == [1, 0, 2]


@pytest.mark.parametrize("shape", [{}, {"layers": 1}, {"checkpoints": 1}, {"experts": 20}], ids=str)
def test_coactivation(plot, tmp_path, shape):
    file = routing_file(tmp_path / "routing.h5", **shape)
    assert plot("coactivation", file) == ["coactivation.svg"]
    assert plot("coactivation", file, "--checkpoint", "50", "--experts", "4")


def test_coactivation_refusals(refuse, tmp_path):
    file = routing_file(tmp_path / "routing.h5", checkpoints=2)
    assert "the rows are of 50, 100" in refuse("coactivation", file, "--checkpoint", "70")
    file = routing_file(tmp_path / "routing.h5", k=1)
    assert "none are chosen together" in refuse("coactivation", file)
    file = routing_file(tmp_path / "routing.h5")
    assert "--min-count N lowers" in refuse("coactivation", file, "--min-count", "100000")
    file = routing_file(tmp_path / "routing.h5", tokens=0)
    assert "no tokens in any checkpoint's row" in refuse("coactivation", file)


def test_coactivation_pairs_levels_with_their_layers(tmp_path):
    """Of rows of few tokens there is neither share nor level."""
    tables = np.array([[[200, 100, 20], [100, 150, 50], [20, 50, 9]], np.diag([300, 200, 100])])
    path = routing_file(tmp_path / "routing.h5", layers=2, experts=3, checkpoints=1)
    with h5py.File(path, "r+") as file:
        file["coactivation"][0] = tables
    wishes = argparse.Namespace(layers=None, checkpoint=None, experts=16, min_count=100)
    with StatisticsFile(path, "routing.h5") as file:
        figure = plot_coactivation.draw(file, wishes)["coactivation"]
    titles = [axes.get_title("left") for axes in figure.axes[:2]]
    plt.close(figure)
    first = (100 + 20 + 100 + 50) / 2 / (200 + 150)
    assert titles == [
        f"Layer 1: largest {100 / 150:.2f}, random {first:.3f}",
        "Layer 2: largest 0.00, random 0.000",
    ]


# Saturation


def test_saturation_counts_shared_experts():
    choice = np.array([[[0, 1], [2, 3]], [[1, 2], [2, 3]], [[1, 4], [0, 2]]])
    assert saturation(choice).tolist() == [0.5, 0.5, 1]


@pytest.mark.parametrize("shape", [{}, {"checkpoints": 2}, {"layers": 1}, {"k": 1}], ids=str)
def test_saturation(plot, tmp_path, shape):
    assert plot("saturation", routing_file(tmp_path / "routing.h5", **shape)) == ["saturation.svg"]


def test_saturation_refusals(refuse, tmp_path):
    file = routing_file(tmp_path / "routing.h5", checkpoints=1)
    assert "only one checkpoint" in refuse("saturation", file)
    assert "no probe tokens" in refuse("saturation", routing_file(file, probes=0))


# Specialisation


def test_domain_preference_is_relative_to_random_choice():
    counts = np.array([[6, 2, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]])
    ratio = preference(counts)
    assert ratio[:2].tolist() == [[3, 1, 0, 0], [1, 1, 1, 1]]
    assert np.isnan(ratio[2]).all()
    assert np.isnan(preference(counts, 3)).all(1).tolist() == [True, True, True]
    assert np.isnan(preference(counts, 2)).all(1).tolist() == [False, False, True]
    assert plot_specialisation.by_favourite(np.array([[1, 3, 0.5], [2, 0, 4]])) == [1, 2, 0]


def test_token_specialisation(tmp_path):
    """Token 5 always goes to expert 2, token 7 half the time; token 1 is too rare to count."""
    path = routing_file(
        tmp_path / "routing.h5", layers=1, experts=4, k=2, vocabulary=9, checkpoints=3
    )
    counts = np.zeros((3, 1, 9, 4), np.int64)
    counts[:, 0, 5] = [6, 0, 6, 0]
    counts[:, 0, 7] = [6, 6, 6, 6]
    counts[:, 0, 1, 2] = counts[:, 0, 1, 3] = 1
    counts[0, 0, 5] = [0, 6, 3, 3]
    with h5py.File(path, "r+") as file:
        file["token_expert_count"][...] = counts
        # Every token has two experts.
        file["tokens"][...], file["expert_count"][...] = 10, 5
    with StatisticsFile(path, "routing.h5") as file:
        tables = RoutingTables(file)
        traces = plot_specialisation.specialised(tables, layer=0, min_count=5, points=10)
        assert traces.tokens[2].tolist() == [5, 7]
        assert traces.share[:, 2].tolist() == [[0.5, 0.5], [1, 0.5], [1, 0.5]]
        traces = plot_specialisation.specialised(tables, layer=0, min_count=5, points=2)
        assert traces.steps.tolist() == [50, 150]


def test_row_groups_end_with_a_full_one():
    assert plot_specialisation.row_groups(3, 10) == [range(0, 1), range(1, 2), range(2, 3)]
    assert plot_specialisation.row_groups(5, 3) == [range(0, 1), range(1, 3), range(3, 5)]


@pytest.mark.parametrize(
    "shape", [{}, {"checkpoints": 1}, {"layers": 1}, {"sources": ["only"]}, {"k": 1}], ids=str
)
def test_specialisation(plot, tmp_path, shape):
    file = routing_file(tmp_path / "routing.h5", **shape)
    names = ["specialisation_domain.svg", "specialisation_token.svg"]
    assert plot("specialisation", file, "--min-count", "20") == names


def test_specialisation_without_token_counts(monkeypatch, capsys, tmp_path):
    file = routing_file(tmp_path / "routing.h5", token_counts=False)
    arguments = (file, "--output", tmp_path, "--formats", "svg")
    status, lines, errors = run(monkeypatch, capsys, "specialisation", *arguments)
    assert (status, lines) == (0, [str(tmp_path / "specialisation_domain.svg")])
    assert "statistics.token_counts = false" in errors


def test_specialisation_of_a_varying_number_of_experts(monkeypatch, capsys, plot, tmp_path):
    """Shares are of the tokens of each id, beside the level of the rows in question."""
    plan = Plan(variable=True, experts=(6,), slots=(4,))
    written = write_run(tmp_path / "run", plan)
    path = tmp_path / "run" / "routing.h5"
    names = ["specialisation_domain.svg", "specialisation_token.svg"]
    assert plot("specialisation", path, "--min-count", "5") == names
    with StatisticsFile(path, "routing.h5") as file:
        traces = plot_specialisation.specialised(RoutingTables(file), 0, min_count=8, points=10)
    for at, row in enumerate(written.rows(written.checkpoints)):
        choices = [choice for trace in row for choice in trace.choice[0]]
        assert traces.level[at] == sum((c != NONE).sum() for c in choices) / len(choices) / 6
        for expert, ids in enumerate(traces.tokens):
            for rank, token in enumerate(ids):
                of = [c for t in row for i, c in zip(t.token, t.choice[0]) if i == token]
                assert traces.share[at, expert, rank] == sum(expert in c for c in of) / len(of)
    with h5py.File(path, "r+") as file:
        del file["token_count"]
    arguments = (path, "--output", tmp_path, "--formats", "svg", "--min-count", "5")
    status, lines, errors = run(monkeypatch, capsys, "specialisation", *arguments)
    assert (status, lines) == (0, [str(tmp_path / "specialisation_domain.svg")])
    assert "does not count the tokens of each id" in errors


def test_runs_whose_copies_are_all_dropped(plot, refuse, tmp_path):
    write_run(tmp_path / "all", all_dropped=True, extras=True)
    file = tmp_path / "all" / "routing.h5"
    assert "no expert received a token copy" in refuse("expert_load", file)
    assert "no tokens in any checkpoint's row" in refuse("coactivation", file)
    assert "no probe token has an expert" in refuse("saturation", file)
    assert "no tokens in any checkpoint's row" in refuse("specialisation", file)
    write_run(tmp_path / "some")
    file = tmp_path / "some" / "routing.h5"
    with h5py.File(file, "r+") as opened:
        opened["expert_count"][-1, 0] = 0
        opened["probe_choice"][-1, 0] = NONE
    assert plot("expert_load", file) == ["expert_load.svg"]


def test_specialisation_refusals(refuse, tmp_path):
    file = routing_file(tmp_path / "routing.h5")
    assert "--min-count N lowers" in refuse("specialisation", file, "--min-count", "100000")
    pytest.importorskip("tokenizers")
    missing = tmp_path / "tokenizer.json"
    assert "no such file" in refuse("specialisation", file, "--tokenizer", missing)
    missing.write_text("{}")
    assert "not a tokenizer.json" in refuse("specialisation", file, "--tokenizer", missing)


def test_tokens_have_their_text(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    vocabulary = {"Ġthe": 0, "Ã": 1, "Ċ": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(path))
    name_of = plot_specialisation.token_names(path)
    assert [name_of(token) for token in (0, 1, 2, 99)] == ["␣the", "token 1", "↵", "token 99"]
    assert plot_specialisation.token_names(None)(3) == "token 3"
