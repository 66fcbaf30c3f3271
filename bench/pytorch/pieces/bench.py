"""What the pieces share: sizes, and how a function is timed and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from model import Sizes
from timing import timed
from torch import Tensor

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Times pieces at these sizes."""

    sizes: Sizes
    tokens: int  # of a cell
    length: int  # of a sequence
    repeats: int
    warmup: int
    compiled: bool  # torch.compile's forms too

    def time(self, name: str, kind: str, form: str, function: Callable[..., Any],
             *arguments: Any, flops: float = 0.0) -> Row:  # fmt: skip
        """The row of function(*arguments) in one type and form; a form that fails says why."""
        row: Row = {"name": name, "type": kind, "form": form}
        try:
            row |= timed(lambda: function(*arguments), self.repeats, self.warmup)
        except (RuntimeError, NotImplementedError) as error:
            return {**row, "error": str(error).splitlines()[0]}
        return {**row, "gflop_per_s": 1e-9 * flops / row["median_s"]}

    def forms(self, function: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
        """The function as it is and, where wanted, compiled."""
        yield "eager", function
        if self.compiled:
            yield "compiled", torch.compile(function)

    def randn(self, kind: str, *shape: int) -> Tensor:
        return torch.randn(shape).to(TYPES[kind])

    def choice(self) -> Tensor:
        """Experts (token, top_k) of random logits, as hearth-bench chooses them."""
        logits = torch.randn(self.tokens, self.sizes.experts)
        return logits.topk(self.sizes.top_k, sorted=False).indices
