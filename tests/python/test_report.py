"""postprocess/report.py: a page that stands alone, whose sentences follow the data."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from plain_loops import best, chosen, copies, seen, taken
from report_page import Page, outside_references, picture, read_page
from synthetic_routing import NONE, label, write_routing, write_run

import report
from report_sections import wording
from report_sections.losses import mean_loss
from report_sections.page import Table
from report_sections.run import open_run

# Matplotlib warns of a layout that does not fit, NumPy of a mean of nothing.
pytestmark = pytest.mark.filterwarnings("error")

ANCHORS = [
    "run",
    "loss",
    "load",
    "copies",
    "router",
    "saturation",
    "drift",
    "coactivation",
    "domains",
    "vocabulary",
]


UNFINISHED = re.compile(r"\bnan\b|\binf\b|None|\{|\}")


def call(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, output, errors."""
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
    try:
        status = report.main()
    except SystemExit as leave:  # argparse
        status = leave.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def page_of(monkeypatch, capsys):
    """Makes the report of a folder and checks what every page must be."""

    def make(folder: Path, *options) -> Page:
        status, lines, errors = call(monkeypatch, capsys, folder, "--min-count", 8, *options)
        assert status == 0, errors
        assert lines == f"{folder / 'report.html'}\n" and not errors
        page = read_page(folder / "report.html")
        assert outside_references(page) == []
        for image in page.images:
            assert picture(image).iter("{http://www.w3.org/2000/svg}path")
            assert len(image["alt"]) > 40
        assert len(page.captions) == len(page.images)
        assert all(len(caption) > 40 for caption in page.captions)
        assert page.links == [f"#{anchor}" for anchor in page.anchors]
        assert not UNFINISHED.search(page.text)
        return page

    return make


def text_of(folder: Path) -> str:
    """What the report says, without making its images."""
    with open_run(folder, None, 8, str) as run:
        sections = report.sections(run)
    words = []
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Table):
                words += [block.caption, *(cell for row in block.rows for cell in row)]
            else:
                words.append(block if isinstance(block, str) else block.caption)
    text = "\n".join(words)
    assert not UNFINISHED.search(text)
    return text


@pytest.fixture
def refuse(monkeypatch, capsys):
    """A call that must fail with one line; returns the line."""

    def make(status: int, *arguments) -> str:
        found, lines, errors = call(monkeypatch, capsys, *arguments)
        assert (found, lines) == (status, "")
        assert re.fullmatch(r"report\.py: [^\n]+\n", errors)
        return errors

    return make


# The page


def test_the_whole_story(page_of, tmp_path):
    write_run(tmp_path, halves=True, extras=True, ranked=True)
    page = page_of(tmp_path)
    assert page.anchors == ANCHORS
    assert len(page.images) == 11
    assert page.source.startswith("<!DOCTYPE html>")
    assert 'name="viewport"' in page.source and "prefers-color-scheme: dark" in page.source
    for baseline in (
        "Random choice gives mean |A| / E = 3/6 = 50.0%",
        "random choice gives 40.0%",
        "Random choice gives k/E = 50.0%",
    ):
        assert baseline in page.text


def test_the_same_run_makes_the_same_page(page_of, tmp_path):
    write_run(tmp_path)
    first = page_of(tmp_path).source
    assert page_of(tmp_path).source == first


def test_output_goes_where_it_is_asked_for(monkeypatch, capsys, tmp_path):
    write_run(tmp_path / "run")
    wanted = tmp_path / "a" / "b.html"
    status, lines, _ = call(monkeypatch, capsys, tmp_path / "run", "--output", wanted)
    assert (status, lines) == (0, f"{wanted}\n")
    assert [path.name for path in wanted.parent.iterdir()] == ["b.html"]
    assert not (tmp_path / "run" / "report.html").exists()


def test_names_are_text_not_markup(page_of, tmp_path):
    write_run(tmp_path, sources=("<b>&bold", '"quoted"'))
    page = page_of(tmp_path)
    assert "b" not in page.tags
    assert "<b>&bold" in page.text and '"quoted"' in page.text


def test_help(monkeypatch, capsys):
    status, lines, _ = call(monkeypatch, capsys, "--help")
    assert status == 0 and "--min-count" in lines


# Sentences follow the data


def load_of(run, layer: int) -> np.ndarray:
    """Token copies of each expert in the last interval, from the raw choices."""
    return np.array(copies(run.rows(run.intervals)[-1], layer, run.plan.experts[layer]))


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_load_sentence(tmp_path, seed):
    run = write_run(tmp_path, seed=seed)
    text = text_of(tmp_path)
    for layer in (0, 1):
        load = load_of(run, layer)
        peak = wording.times(load.max() / load.mean())
        assert re.search(rf"busiest expert of a layer got[^;]*{peak} \(layer {layer + 1}\)", text)
        assert f"expert {load.argmax()} in layer {layer + 1}" in text


def test_dead_experts_are_named(tmp_path):
    run = write_run(tmp_path, bias=4.0, experts=(12, 12), slots=(2, 3))
    idle = [np.flatnonzero(load_of(run, layer) == 0).tolist() for layer in (0, 1)]
    total = sum(map(len, idle))
    assert total > 0
    where = "; ".join(
        f"layer {layer + 1}: {wording.listed(who, 8)}" for layer, who in enumerate(idle) if who
    )
    assert f"{total} of 24 experts got no token at all ({where})." in text_of(tmp_path)


def test_nobody_is_dead_among_few(tmp_path):
    write_run(tmp_path, bias=0.1)
    assert "no expert, of 12, was without tokens." in text_of(tmp_path)


def test_drops(tmp_path):
    run = write_run(tmp_path, drops=True)
    lost = sum(int(trace.dropped.sum()) for trace in run.steps)
    copies = run.plan.steps * run.plan.tokens_of_step * sum(run.plan.slots)
    text = text_of(tmp_path)
    assert f"{wording.percent(lost / copies)} of {wording.number(copies)} token copies" in text
    assert "No token copy was dropped" not in text


def test_variable_number_of_experts(tmp_path):
    run = write_run(tmp_path, variable=True, extras=True, experts=(6, 6), slots=(2, 4))
    last = run.rows(run.intervals)[-1]
    each = [
        np.mean([sum(e != NONE for e in row) for t in last for row in t.choice[layer].tolist()])
        for layer in (0, 1)
    ]
    text = text_of(tmp_path)
    for layer, mean in enumerate(each):
        assert f"{wording.number(mean)} (layer {layer + 1})" in text
    assert "Tokens of a source are those of training.h5" in text
    assert "cannot be known" not in text
    row, layer = run.rows(run.checkpoints)[-1], 1
    sent, tokens = sum(copies(row, layer, 6)), sum(len(trace.token) for trace in row)
    level = wording.percent(sent / tokens / 6)
    assert re.search(rf"k/E = .*{level} \(layer 2\) at the last point", text)
    (tmp_path / "training.h5").unlink()
    assert "a source's tokens are estimated" in text_of(tmp_path)


@pytest.mark.parametrize("changes", [{"variable": True}, {"drops": True}], ids=str)
def test_shares_by_token_of_a_varying_number_of_experts(tmp_path, changes):
    run = write_run(tmp_path, **changes)
    row, text = run.rows(run.checkpoints)[-1], text_of(tmp_path)
    n, found = seen(row, "token"), []
    for layer, experts in enumerate(run.plan.experts):
        took = taken(row, layer, "token")
        ids = [best(n, took, e, [t for t in n if n[t] >= 8], 1)[0] for e in range(experts)]
        mean = np.mean([took.get((t, e), 0) / n[t] for e, t in enumerate(ids)])
        level = sum(copies(row, layer, experts)) / sum(n.values()) / experts
        found.append((mean, -layer, wording.percent(level)))
    share, layer, level = max(found)
    assert (
        f"In layer {1 - layer} an expert gets, in the mean, {wording.percent(share)} of the "
        f"occurrences of the token that it takes most of (random choice: {level})"
    ) in text
    write_run(tmp_path / "old", occurrences=False, **changes)
    text = text_of(tmp_path / "old")
    assert "shares by token id cannot be known from it." in text and "takes most of" not in text


def test_kinds_of_experts(tmp_path):
    write_run(tmp_path, kinds=True, experts=(7, 5), slots=(3, 2), extras=True)
    text = text_of(tmp_path)
    for kind in ("ffn", "zero", "copy", "constant", "null"):
        assert f"of kind “{kind}”" in text
    assert "absent" not in text
    assert "“ffn” (41.7% of all" in text  # 3 of 7 and 2 of 5


def test_best_choices_need_their_rank(tmp_path):
    run = write_run(tmp_path / "ranked", ranked=True)
    first, last = run.probe[0], run.probe[-1]
    same = [(first.choice[layer][:, 0] == last.choice[layer][:, 0]).mean() for layer in (0, 1)]
    text = text_of(tmp_path / "ranked")
    assert f"{wording.percent(np.mean(same))} (k = 1)" in text
    write_run(tmp_path / "numbered")
    text = text_of(tmp_path / "numbered")
    assert "not of rank" in text and "(k = 1)" not in text


@pytest.mark.parametrize("from_seed", [True, False])
def test_drift_sentence(page_of, tmp_path, from_seed):
    run = write_run(tmp_path, drift=True, from_seed=from_seed, experts=(6, 4), slots=(3, 2))
    start, *_, before, now = run.weights
    lengths = np.concatenate([np.linalg.norm(w, axis=1) for w in before["expert"]])
    moved = np.concatenate(
        [np.linalg.norm(a - b, axis=1) for a, b in zip(now["expert"], before["expert"])]
    )
    means = [
        [np.mean(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)) for a, b in pairs]
        for pairs in (zip(now["expert"], w["expert"]) for w in (before, start))
    ]
    page = page_of(tmp_path)
    text = (
        f"From step 8 to step 12 an expert's weights moved by {wording.percent(np.mean(means[0]))} "
        "of their length"
    )
    if from_seed:
        text += f", since the start by {wording.percent(np.mean(means[1]))}"
    assert f"{text} (mean over experts and layers)." in page.text
    e = int((moved / lengths).argmax())
    where = f"expert {e} in layer 1" if e < 6 else f"expert {e - 6} in layer 2"
    assert f"most for {where}, {wording.percent((moved / lengths)[e])}." in page.text
    assert ("since the start by" in page.text) == from_seed


def test_pair_sentence(tmp_path):
    run = write_run(tmp_path)
    row = run.rows(run.checkpoints)[-1]
    found = []
    for layer, experts in enumerate(run.plan.experts):
        tokens = [who for trace in row for who in chosen(trace, layer)]
        for i in range(experts):
            of_i = [who for who in tokens if i in who]
            if len(of_i) < 8:
                continue
            for j in set(range(experts)) - {i}:
                found.append((sum(j in who for who in of_i) / len(of_i), -layer, -i, -j))
    share, layer, i, j = max(found)  # of equal ones the first
    layer, i, j = -layer, -i, -j
    text = text_of(tmp_path)
    assert (
        f"The closest pair is in layer {layer + 1}: {wording.percent(share)} of the tokens of "
        f"expert {i} also chose expert {j} ({wording.times(share / 0.4)} random choice)"
    ) in text


def test_random_levels_are_of_the_rows_that_the_shares_are_of(tmp_path):
    """The number of experts of a token fell; of rare experts there are neither shares nor level."""
    run = write_run(tmp_path, variable=True, slots=(4, 3), bias=2.5)
    for step in run.steps[:8]:
        for choice in step.choice:
            choice[...] = np.arange(choice.shape[1])
    write_routing(tmp_path / "routing.h5", run)
    row, text = run.rows(run.checkpoints)[-1], text_of(tmp_path)
    sources, pairs = [], []
    for layer, experts in enumerate(run.plan.experts):
        tokens = [who for trace in row for who in chosen(trace, layer)]
        sources.append(sum(map(len, tokens)) / len(tokens) / experts)
        rows = [[who for who in tokens if i in who] for i in range(experts)]
        rows = [of_i for of_i in rows if len(of_i) >= 8]
        meetings = sum(len(who) - 1 for of_i in rows for who in of_i)
        pairs.append(meetings / sum(map(len, rows)) / (experts - 1))
    names = ["layer 1", "layer 2"]
    levels = wording.spread(sources, names, wording.percent)
    largest = f"one expert gets is, by layer, {largest_shares(run)}"
    assert f"{largest}; random choice gives {levels}." in text
    levels = wording.spread(pairs, names, wording.percent)
    assert f"random choice gives {levels}." in text
    assert f"for k experts of a token, here {levels}." in text


def largest_shares(run) -> str:
    """Of a source's tokens of the last row, what one expert gets."""
    row, largest = run.rows(run.checkpoints)[-1], []
    n = seen(row, "source")
    for layer, _ in enumerate(run.plan.experts):
        took = taken(row, layer, "source")
        largest.append(max(count / n[source] for (source, _), count in took.items()))
    return wording.spread(largest, ["layer 1", "layer 2"], wording.percent)


def test_preferences_of_few_copies_are_left_out(tmp_path):
    write_run(tmp_path, slots=(3, 2))
    with h5py.File(tmp_path / "routing.h5", "r+") as file:
        counts = file["source_expert_count"]
        counts[-1, 1] = 0
        counts[-1, 1, 0, 4] = 3  # of one expert alone
    text = text_of(tmp_path)
    assert "The strongest preference is in layer 1" in text
    assert "most used expert in layer 1" in text and "layer 2 (" in text


@pytest.mark.parametrize("seed", [7, 8])
def test_sentence_of_the_score_on_other_data(tmp_path, seed):
    run = write_run(tmp_path, halves=True, seed=seed)
    row, text = run.rows(run.checkpoints)[-1], text_of(tmp_path)
    for layer, experts in enumerate(run.plan.experts):
        n = [seen(row, "token", half) for half in (0, 1)]
        took = [taken(row, layer, "token", half) for half in (0, 1)]
        eligible = [t for t in n[0] if n[0][t] >= 8 and n[1].get(t, 0) >= 8]
        there, elsewhere = [], []
        for a, b in ((0, 1), (1, 0)):
            ids = [best(n[a], took[a], e, eligible, 1)[0] for e in range(experts)]
            there += [took[a].get((t, e), 0) / n[a][t] for e, t in enumerate(ids)]
            elsewhere += [took[b].get((t, e), 0) / n[b][t] for e, t in enumerate(ids)]
        there, elsewhere = wording.percent(np.mean(there)), wording.percent(np.mean(elsewhere))
        assert f"{there} there and {elsewhere} on the other in layer {layer + 1}" in text
        headline = re.search(
            r"In layer (\d).* scored on the other, of ids frequent in both, ([^%]+%)\.", text
        )
        assert headline[1] != str(layer + 1) or headline[2] == elsewhere
    assert "the even and the odd sequences of each source" in text


def test_loss_sentence(tmp_path):
    write_run(tmp_path, steps=20)
    with h5py.File(tmp_path / "training.h5") as file:
        loss, tokens = file["cross_entropy"][()], file["tokens"][()]
    change = wording.moved(loss[0], mean_loss(loss[-2:], tokens[-2:]))
    assert change.startswith("fell")
    assert (
        f"The training loss {change} nats per token (step 1 against the mean of the last 2 steps)"
        in (text_of(tmp_path))
    )


def test_a_loss_that_rises_is_said_to_rise(tmp_path):
    write_run(tmp_path)
    with h5py.File(tmp_path / "training.h5", "r+") as file:
        file["cross_entropy"][...] = np.linspace(2, 3, 12)
    assert "The training loss rose from 2.00 to 3.00" in text_of(tmp_path)


# What a run may lack


LACKS = {
    "token counts": ({"token_counts": False}, "kept no counts by token"),
    "probe": ({"probes": 0}, "There is no probe set (statistics.probe_tokens = 0)"),
    "checkpoints but one": ({"checkpoint_steps": 12}, "has 1 checkpoint; comparing choices takes"),
    "sources but one": ({"sources": ("only",)}, "All tokens are of one data source (only)"),
    "intervals": (
        {"interval_steps": 20, "deck": {"statistics.every_steps": 20}},
        "No interval is complete: the first takes 20 steps (statistics.every_steps), and the run "
        "has done 12.",
    ),
    "copies": ({"all_dropped": True}, "100.0% of 4,608 token copies reached no expert"),
    "experts but one": ({"slots": (1, 1)}, "so that none are chosen together"),
    "frequent experts": (
        {"length": 1, "interval_steps": 1, "checkpoint_steps": 1},
        "No expert has 8 tokens in the last row",
    ),
    "frequent sources": (
        {"length": 1, "interval_steps": 1, "checkpoint_steps": 1},
        "Of no data source would random choice give an expert 8 token copies in the last row",
    ),
    "rare tokens": (
        {"vocabulary": 400, "steps": 4},
        "Fewer than 2 token ids occur 8 times or more",
    ),
    "drift": ({}, "did not record how far its experts' weights moved"),
    "layers but one": ({"experts": (6,), "slots": (3,)}, "1 of them with 6 routed experts"),
    "layers": ({"experts": (), "slots": ()}, "The model is dense: it has no MoE layer"),
    "steps but one": (
        {"steps": 1, "interval_steps": 1, "checkpoint_steps": 1},
        "The training loss is",
    ),
}


DRAWN = ("layers but one", "layers", "steps but one", "copies")  # the page too, which takes seconds


@pytest.mark.parametrize("missing", LACKS)
def test_run_without(page_of, tmp_path, missing):
    changes, sentence = LACKS[missing]
    write_run(tmp_path, **changes)
    assert sentence in text_of(tmp_path)
    if missing in DRAWN:
        page = page_of(tmp_path)
        assert page.anchors == (ANCHORS[:2] if missing == "layers" else ANCHORS)


def remove(file: Path, *names: str) -> None:
    with h5py.File(file, "r+") as opened:
        for name in names:
            del opened[name]


def test_run_without_validation(tmp_path):
    write_run(tmp_path)
    assert "Validation at step 12" in text_of(tmp_path)
    names = ("validation_step", "validation_loss", "validation_tokens")
    remove(tmp_path / "training.h5", *names)
    assert "There is no validation loss in the run." in text_of(tmp_path)


def test_run_without_one_file(page_of, tmp_path):
    write_run(tmp_path / "a")
    (tmp_path / "a" / "routing.h5").unlink()
    page = page_of(tmp_path / "a")
    assert "The folder has no routing.h5" in page.text and page.anchors == ["run", "loss"]
    write_run(tmp_path / "b")
    (tmp_path / "b" / "training.h5").unlink()
    page = page_of(tmp_path / "b")
    assert "training.h5 is missing" in page.text and page.anchors == ANCHORS


def test_dense_run(page_of, tmp_path):
    write_run(tmp_path, deck={"moe.experts": 0})
    (tmp_path / "routing.h5").unlink()
    page = page_of(tmp_path)
    assert "The model is dense (moe.experts = 0), so that nothing is routed." in page.text
    assert "moe.top_k" not in page.text


def test_run_that_has_just_begun(page_of, tmp_path):
    """Files without a row."""
    write_run(tmp_path)
    for name in ("training.h5", "routing.h5"):
        with h5py.File(tmp_path / name, "r+") as file:
            for key in [*file]:
                axes = [axis.label for axis in file[key].dims]
                if axes[0] in ("step", "validation_step", "interval", "checkpoint"):
                    values = file[key][:0]
                    del file[key]
                    label(file, key, tuple(axes), values)
    text = page_of(tmp_path).text
    assert "No step is done yet" in text
    assert text.count("No interval is complete yet: one ends every") == 4
    assert "The run has 0 checkpoints" in text


def test_intervals_of_skipped_steps_are_left_out(tmp_path):
    write_run(tmp_path)
    with h5py.File(tmp_path / "routing.h5", "r+") as file:
        for name in ("tokens", "expert_count", "entropy", "probability_mass"):
            file[name][1] = 0
    assert "sums over 3 intervals, the last ending at step 12" in text_of(tmp_path)


def test_run_without_a_deck(tmp_path):
    write_run(tmp_path)
    for name in ("training.h5", "routing.h5"):
        with h5py.File(tmp_path / name, "r+") as file:
            del file.attrs["deck"], file.attrs["version"]
    assert "The files have no deck in them" in text_of(tmp_path)


def test_router_statistics_that_are_not_there(tmp_path):
    write_run(tmp_path)
    assert "gate mass (gate_mass) and norm of the router's logits" in text_of(tmp_path)
    remove(tmp_path / "routing.h5", "entropy", "z_loss")
    text = text_of(tmp_path)
    assert "entropy of the router (entropy)" in text and "z loss (z_loss)" in text
    with h5py.File(tmp_path / "routing.h5", "r+") as file:
        file["probability_mass"][...] = np.nan
    assert "mass by expert (probability_mass)" in text_of(tmp_path)
    write_run(tmp_path / "more", extras=True)
    assert "Not in this run's files" not in text_of(tmp_path / "more")


SCORES = {
    "top_k": ({}, "the router's softmax p,"),
    "sigmoids": ({"top_k.score": "sigmoid"}, "of a token's sigmoids over their sum, p,"),
    "frozen": (
        {"moe.router": "frozen", "top_k.score": "sigmoid", "capacity.score": "softmax"},
        "sum over tokens of a token's sigmoids over their sum,",
    ),
    "chosen": (
        {"moe.router": "capacity", "capacity.score": "softmax_chosen", "top_k.score": "sigmoid"},
        "the router's softmax p,",
    ),
    "scaled_input": ({"moe.router": "scaled_input"}, "of a token's sigmoids over their sum, p,"),
    "relu": ({"moe.router": "relu"}, "of a token's rectified logits over their sum, p,"),
    "no deck": ({"moe.router": ""}, "normalised scores p (softmax; sigmoids or rectified logits"),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_called_what_they_are(tmp_path, name):
    deck, words = SCORES[name]
    write_run(tmp_path, deck=deck)
    text = text_of(tmp_path)
    assert words in text
    assert ("softmax" in text) == ("softmax" in words)


@pytest.mark.parametrize("router", ["hash", "random"])
def test_routers_without_a_weight(tmp_path, router):
    write_run(tmp_path, extras=True, deck={"moe.router": router})
    text = text_of(tmp_path)
    assert f"Router {router} chooses by a hash and has no weight" in text
    assert "A token's gates sum to" in text
    for word in (
        "entropy of the router",
        "Entropy of",
        "norm of the router",
        "z loss of a",
        "mass,",
    ):
        assert word not in text


def test_runs_whose_copies_are_all_dropped(tmp_path):
    write_run(tmp_path / "all", all_dropped=True, extras=True)
    text = text_of(tmp_path / "all")
    assert "n/a" not in text and "always" not in text and "the busiest is" not in text
    write_run(tmp_path / "some", extras=True)
    with h5py.File(tmp_path / "some" / "routing.h5", "r+") as file:
        file["expert_count"][-1, 0] = 0
    text = text_of(tmp_path / "some")
    assert re.search(r"In the last interval the busiest is expert \d in layer 2\.", text)


def test_steps_in_no_interval(tmp_path):
    write_run(tmp_path / "two", interval_steps=5)
    text = text_of(tmp_path / "two")
    assert "the last ending at step 10, so that steps 11 to 12 are in none;" in text
    assert "No token copy was dropped, of 3,840 up to step 10." in text
    write_run(tmp_path / "one", steps=13)
    assert "the last ending at step 12, so that step 13 is in none;" in text_of(tmp_path / "one")
    write_run(tmp_path / "none")
    text = text_of(tmp_path / "none")
    assert "in none" not in text and "up to step" not in text


def test_halves_and_rows_are_told_apart(tmp_path):
    write_run(tmp_path / "halves", halves=True)
    assert "even and the odd sequences" in text_of(tmp_path / "halves")
    write_run(tmp_path / "rows")
    assert "counts are not split in halves" in text_of(tmp_path / "rows")
    write_run(tmp_path / "one", checkpoint_steps=12)
    assert "that did not choose the tokens cannot be computed" in text_of(tmp_path / "one")


# Bad input


def test_refuses_what_is_no_run(refuse, tmp_path):
    assert "no such folder; expected the output folder" in refuse(2, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "neither training.h5 nor routing.h5" in refuse(2, tmp_path / "empty")
    (tmp_path / "file").touch()
    assert "not a folder" in refuse(2, tmp_path / "file")
    write_run(tmp_path / "run")
    assert "block 9 is no MoE layer" in refuse(2, tmp_path / "run", "--layers", 9)
    path = tmp_path / "run" / "routing.h5"
    path.write_bytes(path.read_bytes()[:2000])
    assert "damaged HDF5 file" in refuse(2, tmp_path / "run")
    path.write_text("loss 3.4\n")
    assert "not an HDF5 file" in refuse(2, tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()


def test_datasets_of_other_axes(refuse, tmp_path):
    write_run(tmp_path)
    with h5py.File(tmp_path / "routing.h5", "r+") as file:
        file["expert_count"].dims[2].label = "something"
    assert "'expert_count' has the axes (interval, layer, something)" in refuse(2, tmp_path)
    remove(tmp_path / "routing.h5", "expert_count")
    assert "no dataset 'expert_count'" in refuse(2, tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written(refuse, tmp_path):
    write_run(tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in refuse(1, tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_output_that_is_a_folder(refuse, tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "page").mkdir()
    said = refuse(1, tmp_path / "run", "--output", tmp_path / "page")
    assert said.rstrip("\n") == f"report.py: {tmp_path / 'page'}: Is a directory"
    assert f"{Path('/')}: Is a directory" in refuse(1, tmp_path / "run", "--output", "/")
    assert [*tmp_path.glob("*.tmp")] == []


# Words


def test_numbers_and_lists():
    texts = [wording.number(x) for x in (0, 3.14159, 0.000123, 1234567, 1e-9, np.nan, -0.5, 99.96)]
    assert texts == ["0", "3.14", "0.000123", "1,234,567", "1.00e−09", "n/a", "−0.500", "100"]
    assert [wording.percent(x) for x in (0, 0.5, 0.01, 0.00123)] == [
        "0.0%",
        "50.0%",
        "1.0%",
        "0.12%",
    ]
    assert wording.listed([]) == "" and wording.listed(["a"]) == "a"
    assert wording.listed("abc") == "a, b and c"
    assert wording.listed("abcde", 2) == "a, b and 3 more"
    assert wording.moved(1, 2) == "rose from 1.00 to 2.00"
    assert wording.moved(2, 1) == "fell from 2.00 to 1.00"
    assert wording.moved(np.nan, np.nan) == "is not defined"
    assert wording.moved(1.0001, 1.0002) == "stayed at 1.00"
    assert wording.spread([2, 1], ["layer 1", "layer 2"]) == "1.00 (layer 2) to 2.00 (layer 1)"
    assert wording.spread([2, 2.0001], ["layer 1", "layer 2"]) == "2.00 in every layer"
    assert wording.spread([np.nan, 1], ["layer 1", "layer 2"]) == "1.00 in layer 2"
