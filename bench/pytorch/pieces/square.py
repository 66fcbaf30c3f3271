"""Products of square matrices: what all else is a fraction of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from pieces.bench import TYPES, Bench, Row


def rows(bench: Bench) -> Iterator[Row]:
    for kind in TYPES:
        for n in (1024, 2048):
            a, b = bench.randn(kind, 2, n, n)
            mm, name = partial(torch.mm, out=torch.empty_like(a)), f"product of {n} x {n}"
            yield bench.time(name, kind, "mm", mm, a, b.t(), flops=2.0 * n**3)
