"""Timing of single functions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def timed(function: Callable[[], Any], repeats: int, warmup: int = 2) -> dict[str, float]:
    """Median and least wall time in seconds, and the least processor time of all threads."""
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
        "least_s": min(wall),
        "least_processor_s": min(processor),
    }
