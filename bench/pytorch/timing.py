"""Timing of single functions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def timed(function: Callable[[], Any], repeats: int, warmup: int = 2) -> dict[str, float]:
    """Median and smallest wall time in seconds, and the smallest processor time of all threads."""
    wall, processor = [], []
    for i in range(warmup + repeats):
        begin, begin_processor = time.perf_counter(), time.process_time()
        function()
        end, end_processor = time.perf_counter(), time.process_time()
        if i >= warmup:
            wall.append(end - begin)
            processor.append(end_processor - begin_processor)
    return {
        "median_s": statistics.median(wall),
        "min_s": min(wall),
        "min_processor_s": min(processor),
    }


def gemm_ceiling(repeats: int, sizes: tuple[int, ...] = (2048, 4096)) -> dict[str, float]:
    """FLOP/s of the fastest square torch.matmul of these sizes, by type."""
    best: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for n in sizes:
            a, b = torch.randn(2, n, n).to(dtype)
            out = torch.empty(n, n, dtype=dtype)

            def product(a=a, b=b, out=out) -> None:
                torch.mm(a, b, out=out)

            rate = 2.0 * n**3 / timed(product, repeats, 1)["min_s"]
            best[name] = max(best.get(name, 0.0), rate)
    return best
