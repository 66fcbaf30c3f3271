"""postprocess/routing_statistics against plain loops over the raw choices of every token.

The files are written from those choices by one way (tests/python/synthetic_routing.py), read and
evaluated by the programs, and compared here with what loops find in the choices themselves.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import h5py
import numpy as np
import pytest
from plain_loops import agreement, best, chosen, copies, seen, taken
from synthetic_routing import NONE, Plan, Run, write_run

import routing_statistics as statistics
from routing_tables import RoutingTables
from statistics_file import InputError, StatisticsFile

PLANS = {
    "as it is": Plan(),
    "ranked, halves": Plan(ranked=True, halves=True, extras=True),
    "other axes": Plan(
        experts=(7, 5), slots=(3, 2), kinds=True, extras=True, drift=True, shuffled_axes=True
    ),
    "variable": Plan(variable=True, extras=True, halves=True, ranked=True, shuffled_axes=True),
    "drops": Plan(drops=True, experts=(8,), slots=(4,)),
    "one expert": Plan(slots=(1, 1)),
}


@pytest.fixture(params=PLANS, ids=str)
def made(request, tmp_path):
    """The raw choices, and the tables of the file that holds their sums."""
    run = write_run(tmp_path, PLANS[request.param])
    with StatisticsFile(tmp_path / "routing.h5", "routing.h5") as file:
        yield run, RoutingTables(file)


def each_layer(run: Run):
    return enumerate(run.plan.experts)


# Drift


def test_drift(tmp_path):
    run = write_run(tmp_path, PLANS["other axes"])
    with StatisticsFile(tmp_path / "routing.h5", "routing.h5") as file:
        tables = RoutingTables(file)
        assert tables.has_drift
        for (layer, _), kind in product(each_layer(run), ("expert", "router")):
            found = tables.drift(kind, layer)
            there = np.flatnonzero(tables.with_weights(layer))
            assert 0 < len(there) < run.plan.experts[layer]
            for at in range(len(run.checkpoints)):
                now, before, start = (run.weights[i][kind][layer][there] for i in (at + 1, at, 0))
                for e in range(len(there)):
                    moved = math.dist(now[e], start[e]) / math.hypot(*start[e])
                    step = math.dist(now[e], before[e]) / math.hypot(*before[e])
                    dot = math.fsum(a * b for a, b in zip(now[e], start[e]))
                    cosine = dot / (math.hypot(*now[e]) * math.hypot(*start[e]))
                    assert statistics.since_start(found)[at, e] == pytest.approx(moved)
                    assert statistics.since_before(found)[at, e] == pytest.approx(step)
                    assert statistics.cosine_to_start(found)[at, e] == pytest.approx(cosine)


# Load


def test_load(made):
    run, tables = made
    for layer, experts in each_layer(run):
        counts = tables.counts(layer)
        assert counts.shape == (len(run.intervals), experts)
        for at, row in enumerate(run.rows(run.intervals)):
            c = copies(row, layer, experts)
            total = sum(c)
            assert counts[at].tolist() == c
            assert statistics.busiest(counts)[at] == float(Fraction(max(c) * experts, total))
            apart = sum(abs(a - b) for a in c for b in c)
            assert statistics.gini(counts)[at] == float(Fraction(apart, 2 * experts * total))
            assert statistics.dead_experts(counts)[at] == c.count(0)
            entropy = -math.fsum(x / total * math.log(x / total) for x in c if x)
            relative = statistics.relative_entropy(counts)[at]
            assert relative == pytest.approx(entropy / math.log(experts), rel=1e-14)
            shares = [float(Fraction(x, total)) for x in c]
            assert statistics.share_of_copies(counts)[at].tolist() == shares


def test_load_of_extremes():
    even, one, nobody = np.array([5, 5, 5, 5]), np.array([0, 12, 0, 0]), np.zeros(4, int)
    assert [f(even) for f in (statistics.busiest, statistics.gini)] == [1, 0]
    assert statistics.relative_entropy(even) == 1
    assert [f(one) for f in (statistics.busiest, statistics.gini)] == [4, 0.75]
    assert statistics.relative_entropy(one) == 0 and statistics.dead_experts(one) == 3
    for measure in (statistics.busiest, statistics.gini, statistics.relative_entropy):
        assert np.isnan(measure(nobody))


def test_gini_of_random_choice():
    """What sampling leaves of an even load, against drawn choices."""
    rng = np.random.default_rng(5)
    tokens, experts, k = 2000, 16, 4
    hits = (rng.random((200, tokens, experts)).argsort(-1) < k).sum(1)
    expected = statistics.gini_of_chance(tokens * k, experts, k)
    assert statistics.gini(hits).mean() == pytest.approx(float(expected), rel=0.03)


# What becomes of copies


def test_drops_and_experts_per_token(made):
    run, tables = made
    for layer, experts in each_layer(run):
        rows = run.rows(run.intervals)
        received = [sum(copies(row, layer, experts)) for row in rows]
        dropped = [sum(int(trace.dropped[layer]) for trace in row) for row in rows]
        tokens = [sum(len(trace.token) for trace in row) for row in rows]
        share = statistics.drop_share(
            tables.by_layer("dropped")[:, layer], tables.counts(layer).sum(1)
        )
        assert share.tolist() == [d / (d + r) for d, r in zip(dropped, received)]
        mean = statistics.per_token(tables.counts(layer).sum(1), tables.tokens)
        assert mean.tolist() == [r / t for r, t in zip(received, tokens)]
        histogram = tables.histogram(layer)
        if run.plan.extras:
            assert statistics.mean_of_histogram(histogram).tolist() == mean.tolist()
        else:
            assert histogram is None
        assert tables.fixed_k(layer) == (not run.plan.variable and not run.plan.drops)
        assert tables.slots(layer) == run.plan.slots[layer]


# Saturation


def test_saturation(made):
    run, tables = made
    for layer, slots in enumerate(run.plan.slots):
        choice = tables.probe_choice(layer)
        probe = [trace.choice[layer] for trace in run.probe]
        for k in range(1, slots + 1) if run.plan.ranked else [slots]:
            kept = None if k == slots else k
            final = [agreement(now[:, :k], probe[-1][:, :k]) for now in probe]
            assert statistics.saturation(choice, "final", kept).tolist() == final
            before = [agreement(now[:, :k], then[:, :k]) for now, then in zip(probe[1:], probe)]
            found = statistics.saturation(choice, "previous", kept)
            assert np.isnan(found[0]) and found[1:].tolist() == before


def test_saturation_with_empty_slots():
    a = np.array([[0, 1, NONE], [2, NONE, NONE], [NONE, NONE, NONE], [4, 5, 6]])
    b = np.array([[1, 2, 3], [2, 5, NONE], [1, NONE, NONE], [NONE, NONE, NONE]])
    assert statistics.agreement(a, b) == float((Fraction(1, 3) + Fraction(1, 2) + 0) / 3)
    assert statistics.agreement(b, a) == float((Fraction(1, 2) + 1 + 0) / 3)
    # Of the tokens with a B, A has 2, 1 and 0 experts.
    assert statistics.chance_agreement(a, b, 8) == float(Fraction(3, 3 * 8))
    nobody = np.full((2, 3), NONE)
    assert np.isnan(statistics.agreement(a[:2], nobody))
    assert np.isnan(statistics.chance_agreement(a[:2], nobody, 8))


def test_saturation_of_random_choice():
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 5, (2, 40000))
    choice = rng.random((2, 40000, 12)).argsort(-1)[..., :4]
    choice = np.where(np.arange(4) < sizes[..., None], choice, NONE)
    expected = statistics.chance_agreement(choice[0], choice[1], 12)
    assert statistics.agreement(choice[0], choice[1]) == pytest.approx(expected, abs=0.004)


def test_order_of_rank():
    assert not statistics.in_order_of_rank(np.array([[0, 3, 5], [1, NONE, NONE]]))
    assert statistics.in_order_of_rank(np.array([[0, 3, 5], [4, 1, NONE]]))
    assert not statistics.in_order_of_rank(np.array([[3], [0]]))


# Co-activation


def test_coactivation(made):
    run, tables = made
    for layer, experts in each_layer(run):
        for at, row in enumerate(run.rows(run.checkpoints)):
            n = [[0] * experts for _ in range(experts)]
            sizes = []
            for trace in row:
                for who in chosen(trace, layer):
                    sizes.append(len(who))
                    for i in who:
                        for j in who:
                            n[i][j] += 1
            counts = tables.coactivation(at, layer)
            assert counts.tolist() == n
            table = statistics.conditional(counts)
            ratio = statistics.pair_ratio(counts)
            pairs = sum(n[i][j] for i in range(experts) for j in range(experts) if i != j)
            for i in range(experts):
                for j in range(experts):
                    if i == j:
                        assert table[i, j] == 0 and np.isnan(ratio[i, j])
                        continue
                    assert table[i, j] == (n[i][j] / n[i][i] if n[i][i] else 0)
                    if pairs:
                        expected = Fraction(n[i][j] * experts * (experts - 1), pairs)
                        assert ratio[i, j] == float(expected)
            # Each token's n experts meet n − 1 others among E − 1.
            meetings = sum(size * (size - 1) for size in sizes)
            expected = Fraction(meetings, (experts - 1) * sum(sizes))
            assert statistics.chance_conditional(counts) == float(expected)
            if tables.fixed_k(layer):
                k = run.plan.slots[layer]
                assert float(expected) == (k - 1) / (experts - 1)


# Specialisation


def test_domain_specialisation(made):
    run, tables = made
    for layer, experts in each_layer(run):
        for at, row in enumerate(run.rows(run.checkpoints)):
            counts = tables.by_source(at, layer)
            n, n_e = seen(row, "source"), taken(row, layer, "source")
            tokens = np.array([n.get(source, 0) for source in range(len(run.plan.sources))])
            share = statistics.share_of_occurrences(counts, tokens)
            preference = statistics.preference(counts)
            for source in n:
                sent = sum(n_e.get((source, e), 0) for e in range(experts))
                for e in range(experts):
                    took = n_e.get((source, e), 0)
                    assert share[source, e] == took / n[source]
                    assert preference[source, e] == float(Fraction(took * experts, sent))
            if tables.fixed_k(layer):
                k = run.plan.slots[layer]
                assert statistics.occurrences(counts, k).tolist() == tokens.tolist()


def test_vocabulary_specialisation(made):
    """FLAME-MoE's: the best ids of each expert and their shares."""
    run, tables = made
    least, each = 8, 2
    for layer, experts in each_layer(run):
        for at, row in enumerate(run.rows(run.checkpoints)):
            counts = tables.by_token(at, layer)
            n, n_e = seen(row, "token"), taken(row, layer, "token")
            tokens = tables.summed_occurrences([at], layer, counts)
            assert tokens.tolist() == [n.get(t, 0) for t in range(run.plan.vocabulary)]
            found = statistics.best_tokens(counts, tokens, least, each)
            eligible = [token for token in n if n[token] >= least]
            assert found.eligible == len(eligible) >= each
            for e in range(experts):
                expected = best(n, n_e, e, eligible, each)
                assert found.kinds[e].tolist() == expected
                assert found.share[e].tolist() == [n_e.get((t, e), 0) / n[t] for t in expected]
            column = [found.share[e, 0] for e in range(experts)]
            assert statistics.mean_share(found.share)[0] == pytest.approx(
                math.fsum(column) / experts, rel=1e-14
            )


def test_tokens_of_each_id(made):
    """They are what they are whatever the router did, and shares of them are never above 1."""
    run, tables = made
    ids, rows = range(run.plan.vocabulary), run.rows(run.checkpoints)
    for at, row in enumerate(rows):
        assert tables.occurrences(at).tolist() == [seen(row, "token").get(t, 0) for t in ids]
        for half in (0, 1) if run.plan.halves else ():
            n = seen(row, "token", half)
            assert tables.occurrences(at, half).tolist() == [n.get(t, 0) for t in ids]
    for layer, experts in each_layer(run):
        every = [*range(len(rows))]
        counts = tables.summed_by_token(every, layer)
        tokens = tables.summed_occurrences(every, layer, counts)
        n = seen(run.steps, "token")
        assert tokens.tolist() == [n.get(t, 0) for t in ids]
        assert np.nanmax(statistics.share_of_occurrences(counts, tokens)) <= 1
        for at, row in enumerate(rows):
            sent = sum(copies(row, layer, experts))
            tokens = sum(len(trace.token) for trace in row)
            assert tables.tokens_of_row(at) == tokens
            assert tables.each_in_row(at, layer) == sent / tokens


@pytest.mark.parametrize("name", ["as it is", "variable", "drops"])
def test_tokens_of_each_id_in_a_file_without_them(tmp_path, name):
    """Copies ÷ k where k does not vary, and else not known; a row's tokens are its intervals'."""
    plan = replace(PLANS[name], occurrences=False, interval_steps=2)
    run = write_run(tmp_path, plan)
    with StatisticsFile(tmp_path / "routing.h5", "routing.h5") as file:
        tables = RoutingTables(file)
        for at, row in enumerate(run.rows(run.checkpoints)):
            assert tables.occurrences(at) is None
            assert tables.tokens_of_row(at) == sum(len(trace.token) for trace in row)
            counts = tables.by_token(at, 0)
            assert tables.knows_occurrences(0) == (name == "as it is")
            if name == "as it is":
                n = seen(row, "token")
                expected = [n.get(t, 0) for t in range(plan.vocabulary)]
                assert tables.summed_occurrences([at], 0, counts).tolist() == expected
    write_run(tmp_path, replace(plan, interval_steps=3))
    with StatisticsFile(tmp_path / "routing.h5", "routing.h5") as file:
        assert RoutingTables(file).tokens_of_row(1) is None


def test_no_experts_at_all_are_not_k_of_them(tmp_path):
    write_run(tmp_path, extras=True)
    with h5py.File(tmp_path / "routing.h5", "r+") as file:
        numbers = file["experts_per_token"][()]
        file["experts_per_token"][...] = numbers[..., ::-1]
    with StatisticsFile(tmp_path / "routing.h5", "routing.h5") as file:
        assert not RoutingTables(file).fixed_k(0)


@pytest.mark.parametrize("variable", [True, False], ids=["variable", "fixed"])
@pytest.mark.parametrize("halves", [True, False], ids=["halves", "rows"])
def test_specialisation_scored_on_other_data(tmp_path, halves, variable):
    run = write_run(tmp_path, Plan(halves=halves, variable=variable, sequences=8))
    least, each = 8, 2
    with StatisticsFile(tmp_path / "routing.h5", "routing.h5") as file:
        tables = RoutingTables(file)
        assert tables.has_halves == halves
        rows = run.rows(run.checkpoints)
        for layer, experts in each_layer(run):
            if halves:
                chosen_on, scored_on = (rows[-1], 0), (rows[-1], 1)
                where = [(len(rows) - 1, half) for half in (0, 1)]
                tables_of = [tables.by_token(at, layer, half) for at, half in where]
                whole = tables.by_token(len(rows) - 1, layer)
                assert (tables_of[0] + tables_of[1]).tolist() == whole.tolist()
            else:
                chosen_on, scored_on = (rows[-2], None), (rows[-1], None)
                where = [(len(rows) + at, None) for at in (-2, -1)]
                tables_of = [tables.by_token(at, layer) for at, _ in where]
            n_a, n_b = (
                seen(chosen_on[0], "token", chosen_on[1]),
                seen(scored_on[0], "token", scored_on[1]),
            )
            e_a = taken(chosen_on[0], layer, "token", chosen_on[1])
            e_b = taken(scored_on[0], layer, "token", scored_on[1])
            eligible = [t for t in n_a if n_a[t] >= least and n_b.get(t, 0) >= least]
            tokens_of = [
                tables.summed_occurrences([at], layer, table, half)
                for (at, half), table in zip(where, tables_of)
            ]
            found, score = statistics.held_out(
                tables_of[0], tokens_of[0], tables_of[1], tokens_of[1], least, each
            )
            assert found.eligible == len(eligible)
            for e in range(experts):
                expected = best(n_a, e_a, e, eligible, each)
                assert found.kinds[e].tolist() == expected
                assert score[e].tolist() == [e_b.get((t, e), 0) / n_b[t] for t in expected]


def test_other_data_takes_the_selection_bias_away():
    """Of random choice FLAME-MoE's score is far above k/E, the one on other data is k/E."""
    rng = np.random.default_rng(8)
    experts, k, ids, times = 16, 2, 300, 8
    hits = (rng.random((2, ids, times, experts)).argsort(-1) < k).sum(2)
    tokens = np.full(ids, times)
    flame = statistics.best_tokens(hits[0], tokens, times, 1)
    _, score = statistics.held_out(hits[0], tokens, hits[1], tokens, times, 1)
    assert flame.share.mean() > 4 * k / experts
    spread = math.sqrt(k / experts * (1 - k / experts) / times / experts)
    assert abs(score.mean() - k / experts) < 3 * spread


def test_too_rare_tokens():
    counts, tokens = np.array([[3, 0], [1, 2], [0, 1]]), np.array([3, 3, 1])
    assert statistics.best_tokens(counts, tokens, 4, 1) is None
    assert statistics.best_tokens(counts, tokens, 3, 2).eligible == 2
    assert statistics.best_tokens(counts, tokens, 3, 3) is None
    assert statistics.held_out(counts, tokens, counts, np.array([3, 2, 1]), 3, 2) is None


# The file


def test_router_sums_are_means_over_tokens(made):
    run, tables = made
    for layer, experts in each_layer(run):
        entropy = statistics.per_token(tables.by_layer("entropy"), tables.tokens)[:, layer]
        mass = tables.by_expert("probability_mass", layer)
        for at, row in enumerate(run.rows(run.intervals)):
            p = [token for trace in row for token in trace.softmax[layer].tolist()]
            nats = math.fsum(-x * math.log(x) for token in p for x in token) / len(p)
            assert entropy[at] == pytest.approx(nats, rel=1e-12)
            sums = [math.fsum(token[e] for token in p) for e in range(experts)]
            assert mass[at] == pytest.approx(sums, rel=1e-12)
            peak = max(sums) * experts / math.fsum(sums)
            assert statistics.busiest(mass)[at] == pytest.approx(peak, rel=1e-12)


def test_absent_experts_are_nowhere(tmp_path):
    """A layer with fewer experts than the axis: rows and columns beyond them are not read."""
    run = write_run(tmp_path, Plan(experts=(7, 4), slots=(3, 2), kinds=True))
    with StatisticsFile(tmp_path / "routing.h5", "routing.h5") as file:
        tables = RoutingTables(file)
        assert tables.experts(1).tolist() == [0, 1, 2, 3]
        assert tables.kinds(1).tolist() == ["ffn", "ffn", "zero", "copy"]
        assert tables.counts(1).shape == (len(run.intervals), 4)
        assert tables.coactivation(0, 1).shape == (4, 4)
        assert tables.by_source(0, 1).shape == (2, 4)
        assert tables.by_token(0, 1).shape == (10, 4)
        assert tables.experts(0).tolist() == [*range(7)]


def test_axes_must_be_the_expected_ones(tmp_path):
    write_run(tmp_path)
    with StatisticsFile(tmp_path / "routing.h5", "routing.h5") as file:
        with pytest.raises(InputError, match=r"'tokens' has the axes \(interval\) instead of"):
            file.array("tokens", ["layer"])
        with pytest.raises(InputError, match="no dataset 'other'"):
            file.array("other", ["layer"])
