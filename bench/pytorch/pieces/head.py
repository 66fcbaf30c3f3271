"""The head and the cross-entropy of one chunk of rows and one block of the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pointwise
import torch

from pieces.bench import TYPES, Bench, Row

CHUNK, BLOCK = 512, 2048  # rows and tokens of the vocabulary, as in hearth-bench


def rows(bench: Bench) -> Iterator[Row]:
    hidden, columns = bench.sizes.hidden, min(bench.sizes.vocabulary, BLOCK)
    flops = 2.0 * CHUNK * hidden * columns
    target = torch.zeros(CHUNK, dtype=torch.int64)
    for kind in TYPES:
        x, head = bench.randn(kind, CHUNK, hidden), bench.randn(kind, columns, hidden)
        logits, dx = x.new_empty(CHUNK, columns), torch.empty_like(x)
        mm, d_head = partial(torch.mm, out=logits), torch.zeros_like(head)
        yield bench.time("head: logits of a block", kind, "mm", mm, x, head.t(), flops=flops)
        forms = [("eager", pointwise.entropy_gradient)]
        if bench.compiled:
            forms.append(("compiled", torch.compile(pointwise.entropy_gradient_fusible)))
        for form, loss in forms:
            yield bench.time("cross-entropy of a block", kind, form, loss, logits, target)
        mm = partial(torch.mm, out=dx)
        given = (logits, head)
        yield bench.time("head: input gradient of a block", kind, "mm", mm, *given, flops=flops)
        add = partial(torch.addmm, out=d_head)
        given = (d_head, logits.t(), x)
        yield bench.time(
            "head: weight gradient of a block", kind, "addmm", add, *given, flops=flops
        )
