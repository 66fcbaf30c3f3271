"""One product of each kind of all experts, by way of computing it."""

from __future__ import annotations

from collections.abc import Iterator

from experts import Plan, products

from pieces.bench import TYPES, Bench, Row


def rows(bench: Bench) -> Iterator[Row]:
    s = bench.sizes
    chosen = bench.choice()
    flops = 2.0 * bench.tokens * s.top_k * s.hidden * s.expert_ffn
    for kind in TYPES:
        weight = bench.randn(kind, s.experts, s.expert_ffn, s.hidden)
        for form, product in products().items():
            plan = Plan.make(chosen, s.experts, product.padded)
            x = bench.randn(kind, plan.token.shape[0], s.hidden)
            y = bench.randn(kind, plan.token.shape[0], s.expert_ffn)
            calls = {
                "product": (product.forward, x, weight),
                "input gradient": (product.to_rows, y, weight),
                "weight gradient": (product.to_weight, y, x),
            }
            for part, (function, *of) in calls.items():
                name = f"experts: one {part}"
                yield bench.time(name, kind, form, function, *of, plan, flops=flops)
