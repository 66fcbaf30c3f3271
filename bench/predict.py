#!/usr/bin/env python3
"""Predicts a training step's time on up to thousands of ranks: the model of docs/performance.md.

Rates of one rank come from runs of one rank in a file of scaling.py, or from kernels that
hearth-bench timed alone. Messages go through a network of one latency and one bandwidth, that of
the options or the one that scaling.py measured. Decks keep their batch while it has a sequence for
every rank; their cells shrink to that, and beyond it the batch grows.

--check compares with all step times in the file of scaling.py instead. --markdown prints what
docs/performance.md shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import network
import rates
import scaling_model as model_of_scaling
from deck_model import InputError, Model, read_deck
from hearth_runs import ROOT, Failure, Run, read_json, run_from_json
from markdown_table import percent, table
from network import Network
from scaling_model import Layout, Rates, StepTime

GIB = 2.0**30


def parse(text: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scaling", type=Path, help="a JSON file that scaling.py wrote")
    parser.add_argument(
        "decks", type=Path, nargs="*", default=[ROOT / "inputs/flame-38m.deck"], metavar="DECK"
    )
    parser.add_argument("--check", action="store_true", help="predict what the file measured")
    parser.add_argument(
        "--ranks", type=numbers, help="those predicted (all powers of two from 1 to 4096)"
    )
    parser.add_argument(
        "--expert-ranks", type=numbers, default=[1, 8, 64], help="those compared (1,8,64)"
    )
    parser.add_argument("--compute-type", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument(
        "--kernels",
        type=Path,
        help="rates from the lines of `hearth-bench kernels`, of the one deck that is predicted",
    )
    parser.add_argument(
        "--kernels-cell", type=int, default=1, help="its batch.cell_sequences (%(default)s)"
    )
    parser.add_argument(
        "--speedup", type=float, default=1, help="a rank is so many times as fast as measured"
    )
    parser.add_argument(
        "--busiest",
        type=float,
        default=1.12,
        help="token copies of the busiest expert over the mean (%(default)s, that of trained "
        "FLAME-MoE models; 1: forced balance)",
    )
    parser.add_argument("--latency-us", type=float, default=2, help="of a message (%(default)s)")
    parser.add_argument("--bandwidth-gb-s", type=float, default=25, help="of a rank (%(default)s)")
    parser.add_argument("--measured-network", action="store_true", help="that of the file instead")
    parser.add_argument(
        "--overlap",
        type=float,
        default=0,
        metavar="FRACTION",
        help="of the shared expert's time, in which an exchange goes on: 0 for MPI that makes "
        "progress only inside its calls, 1 for networks that do by themselves (%(default)s)",
    )
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument(
        "--output", type=Path, default=Path("predict.json"), help="JSON; figures beside it"
    )
    arguments = parser.parse_args(text)
    if arguments.kernels and len(arguments.decks) != 1:
        parser.error("--kernels is for one deck")
    if not 0 <= arguments.overlap <= 1:
        parser.error("--overlap is from 0 to 1")
    return arguments


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def measured_deck(scaling: Mapping[str, Any]) -> Model:
    return replace(Model(**scaling["model"]), compute_type=scaling["compute_type"])


def rates_of_file(scaling: Mapping[str, Any]) -> Rates:
    runs = [run_from_json(run) for run in scaling["runs"]]
    return rates.from_runs(runs, measured_deck(scaling))


def choose_rates(arguments: argparse.Namespace, scaling: Mapping[str, Any], model: Model) -> Rates:
    if arguments.kernels is None:
        lengths = {run["settings"]["model.sequence_length"] for run in scaling["runs"]}
        if len(lengths) == 1:
            raise InputError(f"{arguments.scaling}: has cells of one size; leave out --only ranks")
        return rates_of_file(scaling).faster(arguments.speedup)
    lines = arguments.kernels.read_text().splitlines()
    measured = replace(model, cell_sequences=arguments.kernels_cell)
    try:
        return rates.from_kernels(lines, measured).faster(arguments.speedup)
    except KeyError as missing:
        raise InputError(
            f"{arguments.kernels}: no line named {missing}; expected the output of `hearth-bench "
            "kernels` for a deck with experts"
        ) from None


def choose_network(arguments: argparse.Namespace, scaling: Mapping[str, Any]) -> Network:
    points = scaling.get("exchange")
    if arguments.measured_network or arguments.check:
        if not points:
            raise InputError(f"{arguments.scaling}: no network was measured; leave out --only work")
        return network.fitted(points, arguments.overlap)
    adding_s = network.fitted(points).adding_s if points else 0
    return Network.plain(
        1e-6 * arguments.latency_us,
        1e9 * arguments.bandwidth_gb_s,
        adding_s / arguments.speedup,
        arguments.overlap,
    )


def predict(
    model: Model, rank: Rates, net: Network, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    alone = model_of_scaling.layout_for(model, 1, 1)
    alone_s = model_of_scaling.step_time(model, alone, rank, net, 1).total_s
    rows = []
    for expert_ranks in arguments.expert_ranks:
        for ranks in arguments.ranks or [2**n for n in range(13)]:
            if ranks % expert_ranks:
                continue
            layout = model_of_scaling.layout_for(model, ranks, expert_ranks)
            imbalance = model_of_scaling.imbalance_of_busiest(
                model.experts, arguments.busiest, expert_ranks
            )
            time = model_of_scaling.step_time(model, layout, rank, net, imbalance)
            rows.append(
                {
                    **asdict(layout),
                    "step_s": time.total_s,
                    "efficiency": model_of_scaling.efficiency(layout, time.total_s, alone, alone_s),
                    "terms_s": time.terms,
                    "overhead": time.dominant_overhead,
                    "dominant": time.dominant,
                    "imbalance": imbalance,
                    "state_bytes": model_of_scaling.state_bytes(model, layout),
                }
            )
    return rows


def prediction_table(decks: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of Markdown."""
    heads = "deck expert_ranks ranks sequences s/step efficiency".split()
    heads += ["most besides compute", "state, GiB a rank"]
    cells = []
    for name, rows in decks.items():
        for row in rows:
            share = row["terms_s"][row["overhead"]] / row["step_s"]
            cells.append(
                [
                    f"`{name}`",
                    f"{row['expert_ranks']}",
                    f"{row['ranks']}",
                    f"{row['sequences']}",
                    four_digits(row["step_s"]),
                    percent(row["efficiency"]),
                    f"{row['overhead']}, {percent(share)}",
                    f"{row['state_bytes'] / GIB:.1f}",
                ]
            )
    return table(heads, cells)


def four_digits(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 1000 else f"{seconds:#.4g}"


def print_prediction(name: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{name}: what takes most of a step, what takes most besides compute, and GiB of state")
    print(
        f"expert_ranks ranks sequences cell    s/step   eff. compute  {'most':10s} "
        f"{'overhead':16s} {'GiB':>7s}"
    )
    for row in rows:
        terms = row["terms_s"]
        share = terms[row["overhead"]] / row["step_s"]
        overhead = f"{row['overhead']} {share:.0%}" if share > 0.005 else "none"
        print(
            f"{row['expert_ranks']:12d} {row['ranks']:5d} {row['sequences']:9d} "
            f"{row['cell_sequences']:4d} {row['step_s']:9.4g} {row['efficiency']:6.1%} "
            f"{terms['compute'] / row['step_s']:7.0%}  {row['dominant']:10s} {overhead:16s} "
            f"{row['state_bytes'] / GIB:7.2f}"
        )


# What keeps all ranks busy at once, so that those which share a core wait for each other.
AT_ONCE = (
    "compute",
    "accumulate",
    "imbalance",
    "exchange",
    "gradients",
    "weights",
    "optimizer",
)


def predict_run(run: Run, model: Model, rank: Rates, net: Network, ranks_a_core: float) -> StepTime:
    """Of a measured run, with the shares of its experts."""
    ranks, expert_ranks = run.layout.ranks, run.layout.expert_ranks
    layout = Layout(ranks, expert_ranks, model.global_batch, model.cell_sequences)
    imbalance = model_of_scaling.imbalance_of_shares(run.expert_share, expert_ranks)
    time = model_of_scaling.step_time(model, layout, rank, net, imbalance)
    return replace(time, **{name: ranks_a_core * time.terms[name] for name in AT_ONCE})


def check_table(scaling: Mapping[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: the runs of strong and weak scaling, and the errors of all."""
    of_ranks = [
        (run["ranks"], run["expert_ranks"], run["cells"], run["median_s"])
        for run in (*scaling["strong"], *scaling["weak"])
    ]
    heads = ["ranks", "expert_ranks", "cells", "q", "measured, s", "predicted, s", "error"]
    cells = [
        [
            f"{row['ranks']}",
            f"{row['expert_ranks']}",
            f"{row['cells']}",
            f"{row['imbalance']:.2f}",
            f"{row['measured_s']:.3f}",
            f"{row['predicted_s']:.3f}",
            percent(row["error"], "+.1f"),
        ]
        for row in rows
        if (row["ranks"], row["expert_ranks"], row["cells"], row["measured_s"]) in of_ranks
    ]
    several, alone = (errors_of(rows, several) for several in (True, False))
    return [
        *table(heads, cells),
        "",
        f"Mean error of the {several['runs']} with several ranks "
        f"{percent(several['mean'], '.1f')}, most "
        f"{percent(several['most'], '.1f')}; of the {alone['runs']} runs of one rank, to",
        f"which the rates were fitted, {percent(alone['mean'], '.1f')} and "
        f"{percent(alone['most'], '.1f')}.",
    ]


def errors_of(rows: list[dict[str, Any]], several: bool) -> dict[str, Any]:
    """Of the runs with several ranks, or with one."""
    errors = [abs(row["error"]) for row in rows if (row["ranks"] > 1) == several]
    count = len(errors)
    return {
        "runs": count,
        "mean": sum(errors) / max(1, count),
        "most": max(errors, default=0.0),
    }


def check(scaling: Mapping[str, Any], net: Network) -> list[dict[str, Any]]:
    """Every measured layout beside its prediction, from rates of one rank.

    Several ranks on one machine get in each other's way as independent runs do.
    """
    deck, alone = measured_deck(scaling), rates_of_file(scaling)
    runs = [run_from_json(run) for run in scaling["runs"]]
    together = rates.slowed(alone, rates.slowdowns(runs))
    rows = []
    for run in runs:
        if run.layout.copies > 1:
            continue
        ranks, expert_ranks = run.layout.ranks, run.layout.expert_ranks
        model = rates.model_of(run.settings, deck)
        ranks_a_core = max(1, ranks / scaling["cores"])
        rank = together if ranks > 1 else alone
        time = predict_run(run, model, rank, net, ranks_a_core)
        undisturbed = predict_run(run, model, alone, net, ranks_a_core)
        rows.append(
            {
                "settings": run.settings,
                "ranks": ranks,
                "expert_ranks": expert_ranks,
                "cells": -(-model.global_batch // model.cell_sequences),
                "imbalance": model_of_scaling.imbalance_of_shares(run.expert_share, expert_ranks),
                "measured_s": run.median_s,
                "predicted_s": time.total_s,
                "without_slowdown_s": undisturbed.total_s,
                "error": time.total_s / run.median_s - 1,
                "terms_s": time.terms,
            }
        )
    return rows


def print_check(rows: list[dict[str, Any]], net: Network, slowdown: float) -> None:
    print(
        f"network: {1e6 * net.latency_s:.3g} us a message, exchange "
        f"{1e-9 * net.exchange_bytes_per_s:.3g}, reduce {1e-9 * net.reduce_bytes_per_s:.3g}, "
        f"gather {1e-9 * net.gather_bytes_per_s:.3g} GB/s, adding {1e9 * net.adding_s:.3g} ns; "
        f"slowdown side by side {slowdown:.2f}"
    )
    print(
        f"{'ranks':>5s} {'expert_ranks':>12s} {'cells':>5s} {'imbalance':>9s} {'measured':>9s} "
        f"{'predicted':>9s} {'error':>7s} {'no slowdown':>11s}  other settings"
    )
    hidden = ("batch.global_batch",)
    for row in rows:
        words = " ".join(
            f"{key.split('.')[1]}={value}"
            for key, value in row["settings"].items()
            if key not in hidden
        )
        print(
            f"{row['ranks']:5d} {row['expert_ranks']:12d} {row['cells']:5d} "
            f"{row['imbalance']:9.2f} {row['measured_s']:9.3f} {row['predicted_s']:9.3f} "
            f"{row['error']:+7.1%} {row['without_slowdown_s']:11.3f}  {words}"
        )
    for several in (False, True):
        errors = errors_of(rows, several)
        if errors["runs"]:
            who = "several ranks, predicted" if several else "one rank, fitted"
            print(f"{who}: mean error {errors['mean']:.1%}, most {errors['most']:.1%}")


def main(text: list[str] | None = None) -> None:
    arguments = parse(text)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    scaling = read_json(arguments.scaling)
    net = choose_network(arguments, scaling)
    result: dict[str, Any] = {"network": asdict(net)}
    written: list[Path] = []
    if arguments.check:
        rows = check(scaling, net)
        if arguments.markdown:
            print(*check_table(scaling, rows), sep="\n")
        else:
            print_check(rows, net, scaling["side_by_side"]["slowdown"])
        result["check"] = rows
    else:
        import predict_figures  # here, since Matplotlib takes its time to load

        result |= {"busiest": arguments.busiest, "speedup": arguments.speedup, "decks": {}}
        for deck in arguments.decks:
            model = read_deck(deck, {"model.compute_type": arguments.compute_type})
            rank = choose_rates(arguments, scaling, model)
            rows = predict(model, rank, net, arguments)
            if not arguments.markdown:
                print_prediction(deck.stem, rows)
            result["decks"][deck.stem] = rows
        if arguments.markdown:
            print(*prediction_table(result["decks"]), sep="\n")
        for name, rows in result["decks"].items():
            written.append(predict_figures.draw(name, rows, result, arguments.output))
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    if not arguments.markdown:
        print(*written, arguments.output, sep="\n")


if __name__ == "__main__":
    try:
        main()
    except Failure as error:
        print(f"predict.py: {error}", file=sys.stderr)
        sys.exit(error.status)
