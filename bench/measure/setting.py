"""What every section is given: the two programs, the plan, and where results go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from measure.child import ChildError
from measure.hearth import Hearth
from measure.options import Options
from measure.plan import Plan
from measure.progress import say
from measure.pytorch import PyTorch
from measure.results import Entry, Results


@dataclass(frozen=True)
class Setting:
    """One call of bench/run."""

    options: Options
    plan: Plan
    hearth: Hearth
    pytorch: PyTorch | None
    results: Results
    folder: Path  # for data sets and runs; empty at the end

    def rounds(self, planned: int) -> range:
        return range(self.options.rounds or planned)

    @contextlib.contextmanager
    def turn(self, what: str, *entries: Entry) -> Iterator[None]:
        """Says what is being measured; a failure stays with the entries, and the rest goes on."""
        say(what)
        try:
            yield
        except (ChildError, OSError, KeyError, ValueError) as error:
            text = (
                str(error) if isinstance(error, ChildError) else f"{type(error).__name__}: {error}"
            )
            say(f"  failed: {text}")
            self.results.errors.append(f"{what}: {text}")
            for entry in entries:
                entry.errors.append(text)
