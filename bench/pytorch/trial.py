"""One variant measured in this process, or a trial of several, each in a process of its own."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import process
import torch
import variants

COMPILED_TYPES = 2  # so many of the fastest types are compiled too, with their fastest product

Result = dict[str, Any]


def is_one(names: str) -> bool:
    """Whether --variant names a single variant, to be run in this very process."""
    return names != "all" and "," not in names


def command(
    script: str, text: list[str], arguments: Namespace, measure: Callable[[Namespace], Result]
) -> None:
    """What a script does whose arguments name variants: measures the one here, or tries several."""
    try:
        if not is_one(arguments.variant):
            run(script, text, arguments.variant, arguments.preload)
            return
        process.restart_with_preload(arguments.preload)
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        print(json.dumps(measure(arguments)))
    except (ValueError, OSError) as error:
        sys.exit(f"{Path(script).name}: {error}")


def run(script: str, text: list[str], names: str, preload: str) -> None:
    """Prints a line of JSON for each variant of `names` and, under the key best, the fastest."""
    environment = process.with_preload(preload)

    def attempt(variant: str) -> Result:
        call = [script, *text, "--preload", preload, "--variant", variant]
        result = {**process.run_json(call, environment), "variant": variant}
        print(json.dumps(result), flush=True)
        return result

    listed = None if names == "all" else names.split(",")
    for variant in listed or ():
        variants.check(variant)
    found = [attempt(variant) for variant in listed] if listed else _all(attempt)
    whole = [result for result in found if "error" not in result]
    if not whole:
        sys.exit("no variant ran")
    best = min(whole, key=_seconds)
    keys = ("variant", "tokens_per_second", "median_s", "peak_bytes")
    print(json.dumps({"best": {key: best[key] for key in keys}}))


def _all(attempt: Callable[[str], Result]) -> list[Result]:
    """Every type with every product; then the fastest types compiled.

    autocast's products are bfloat16's, so it is tried with the fastest of those alone.
    """
    found: list[Result] = []
    best: dict[str, Result] = {}
    for kind in variants.TYPES:
        names = [name for name in variants.eager_variants() if name.startswith(kind + "-")]
        if kind == "autocast" and "bf16" in best:
            names = [best["bf16"]["variant"].replace("bf16", "autocast")]
        of_type = [attempt(name) for name in names]
        found += of_type
        whole = [result for result in of_type if "error" not in result]
        if whole:
            best[kind] = min(whole, key=_seconds)
    for result in sorted(best.values(), key=_seconds)[:COMPILED_TYPES]:
        found.append(attempt(result["variant"] + "-compile"))
    return found


def _seconds(result: Result) -> float:
    return result["median_s"]
