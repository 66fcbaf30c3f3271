"""What was measured: cases, who took how long, and what follows from it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

HEARTH, PYTORCH = "Hearth", "PyTorch"


@dataclass
class Entry:
    """One program in one case."""

    program: str
    variant: str  # its type, and PyTorch's way to compute
    times_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.program} {self.variant}"

    @property
    def median_s(self) -> float | None:
        return statistics.median(self.times_s) if self.times_s else None


@dataclass
class Case:
    """One piece of work that programs did in turns."""

    section: str
    name: str
    threads: int
    flops: float = 0.0  # of products and attention; 0: not of interest
    tokens: int = 0  # of a training step
    entries: list[Entry] = field(default_factory=list)

    def entry(self, program: str, variant: str) -> Entry:
        """The entry of that name, new where there is none; Hearth's stand first."""
        for entry in self.entries:
            if (entry.program, entry.variant) == (program, variant):
                return entry
        entry = Entry(program, variant)
        self.entries.append(entry)
        self.entries.sort(key=lambda e: e.program != HEARTH)
        return entry

    def of(self, program: str, variant: str | None = None) -> Entry | None:
        """The program's fastest entry, or that of a variant; None without times."""
        found = [
            entry
            for entry in self.entries
            if entry.program == program and entry.times_s and variant in (None, entry.variant)
        ]
        return min(found, key=lambda entry: entry.median_s, default=None)

    def ratio(self, entry: Entry) -> float | None:
        """How many times as fast as PyTorch's fastest the entry is."""
        yardstick = self.of(PYTORCH)
        if entry.median_s is None or yardstick is None:
            return None
        return yardstick.median_s / entry.median_s

    def rate(self, entry: Entry) -> float | None:
        """FLOP/s."""
        return self.flops / entry.median_s if self.flops and entry.median_s else None


@dataclass(frozen=True)
class Finding:
    """A number that follows from the cases, beside the project's goal for it."""

    name: str
    value: float
    unit: str  # "%", "s" or "" for a ratio
    goal: str = ""
    holds: bool | None = None

    @staticmethod
    def below(name: str, value: float, unit: str, limit: float) -> Finding:
        return Finding(name, value, unit, f"below {limit:g}{_space(unit)}", value < limit)

    @staticmethod
    def at_least(name: str, value: float, unit: str, limit: float) -> Finding:
        return Finding(name, value, unit, f"at least {limit:g}{_space(unit)}", value >= limit)

    @property
    def text(self) -> str:
        return f"{self.value:.3g}{_space(self.unit)}"


def _space(unit: str) -> str:
    return f" {unit}" if unit else ""


@dataclass
class Results:
    """Everything of one call."""

    machine: dict[str, Any]
    options: dict[str, Any]
    # FLOP/s of the fastest product of matrices: by threads, then by type.
    ceiling: dict[int, dict[str, float]] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def case(self, section: str, name: str, threads: int, **more: Any) -> Case:
        """The case of that name, new where there is none."""
        for case in self.cases:
            if (case.section, case.name, case.threads) == (section, name, threads):
                return case
        self.cases.append(Case(section, name, threads, **more))
        return self.cases[-1]

    def shares(self, case: Case, entry: Entry) -> dict[str, float]:
        """The entry's part of the ceiling of each type."""
        rate = case.rate(entry)
        if rate is None:
            return {}
        return {kind: rate / top for kind, top in self.ceiling.get(case.threads, {}).items()}

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "options": self.options,
            "ceiling_flop_per_s": {str(n): tops for n, tops in self.ceiling.items()},
            "cases": [self._case_json(case) for case in self.cases],
            "findings": [vars(finding) for finding in self.findings],
            "errors": self.errors,
            "seconds": self.seconds,
        }

    def _case_json(self, case: Case) -> dict[str, Any]:
        entries = [
            {
                **vars(entry),
                "median_s": entry.median_s,
                "flop_per_s": case.rate(entry),
                "share_of_ceiling": self.shares(case, entry),
                "ratio_to_pytorch": case.ratio(entry),
            }
            for entry in case.entries
        ]
        return {**vars(case), "entries": entries}
