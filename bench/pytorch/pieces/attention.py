"""Causal attention of each sequence; half of the full square's FLOPs count."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pieces.bench import TYPES, Bench, Row

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_NO_DROPOUT, _CAUSAL = 0.0, True


def rows(bench: Bench) -> Iterator[Row]:
    s = bench.sizes
    sequences, dim = bench.tokens // bench.length, s.hidden // s.heads
    product = 1.0 * bench.tokens * (bench.length + 1) * s.hidden
    for kind in TYPES:
        # (sequence, head, position, head_dim) as the model has it: heads side by side
        parts = bench.randn(kind, 4, sequences, bench.length, s.heads, dim).transpose(2, 3)
        q, k, v, dy = parts
        given = (q, k, v, _NO_DROPOUT, _CAUSAL)
        yield bench.time("attention", kind, "flash", _flash, *given, flops=2 * product)
        y, log_sum = _flash(*given)
        given = (dy, q, k, v, y, log_sum, _NO_DROPOUT, _CAUSAL)
        yield bench.time(
            "attention backward", kind, "flash", _flash_backward, *given, flops=5 * product
        )
