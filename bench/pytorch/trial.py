"""A trial of several variants, each in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import process
import variants

# A type is compiled too where its fastest product comes this near to the fastest of all.
# torch.compile fuses element-wise pieces, which take a smaller part of the time than that.
COMPILED_WITHIN = 1.5

Result = dict[str, Any]


def is_one(names: str) -> bool:
    """Whether --variant names a single variant, to be run in this very process."""
    return names != "all" and "," not in names


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
    """Every eager variant; then, of each type that is not far behind, the fastest compiled."""
    eager = [attempt(variant) for variant in variants.eager_variants()]
    whole = [result for result in eager if "error" not in result]
    if not whole:
        return eager
    limit = COMPILED_WITHIN * min(_seconds(result) for result in whole)
    compiled = []
    for kind in variants.TYPES:
        of_type = [result for result in whole if result["variant"].startswith(kind + "-")]
        best = min(of_type, key=_seconds, default=None)
        if best and _seconds(best) <= limit:
            compiled.append(attempt(best["variant"] + "-compile"))
    return eager + compiled


def _seconds(result: Result) -> float:
    return result["median_s"]
