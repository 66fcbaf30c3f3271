"""The one table of a run."""

from __future__ import annotations

from measure.options import TYPES
from measure.results import PYTORCH, Case, Entry, Finding, Results

HEADINGS = ("median", "tokens/s", "GFLOP/s", *(f"of {kind}" for kind in TYPES), "GiB", "ratio")
WIDTHS = (10, 9, 8, 8, 8, 7, 7)
TITLES = {
    "ceiling": "Products of square matrices, least times: the best of each type is the ceiling",
    "steps": "Whole training steps",
    "launch": "Launch",
    "cores": "Cores",
    "layers": "One MoE layer, forward and backward",
    "kernels": "Kernels",
    "promise": "Gradients summed as integers, and in floating point (plain sums)",
    "statistics": "Training steps with all routing statistics and traces, and with the least",
}
LEGEND = (
    "of fp32, of bf16: share of the fastest product of that type on as many threads.",
    f"ratio: {PYTORCH}'s time over this one; of {PYTORCH}'s forms and types the fastest is shown.",
)


def text(results: Results) -> str:
    """Cases by section, then findings. Of PyTorch's ways to compute a case, the fastest."""
    shown = [(case, entry) for case in results.cases for entry in _shown(case)]
    case_width = max((len(case.name) for case in results.cases), default=0) + 4
    name_width = max((len(entry.name) for _, entry in shown), default=0) + 1
    lines = [" " * (case_width + name_width) + _columns(HEADINGS)]
    section = before = None
    for case, entry in shown:
        if case.section != section:
            section = case.section
            lines += ["", TITLES[section]]
        name = "" if case is before else f"  {case.name}"
        before = case
        cells = _cells(case, entry, results)
        lines.append(name.ljust(case_width) + entry.name.ljust(name_width) + cells)
    if results.findings:
        lines += ["", "Findings", *_finding_lines(results.findings)]
    if results.errors:
        lines += ["", "Failed or left out", *(f"  {error}" for error in results.errors)]
    return "\n".join([*lines, "", *LEGEND])


def _shown(case: Case) -> list[Entry]:
    """Hearth's entries, and PyTorch's fastest; what failed only where nothing else is there."""
    yardstick = case.of(PYTORCH)
    return [
        entry
        for entry in case.entries
        if entry.program != PYTORCH or yardstick is None or entry is yardstick
    ]


def _cells(case: Case, entry: Entry, results: Results) -> str:
    if entry.median_s is None:
        return "   failed: " + (entry.errors[-1] if entry.errors else "no times")
    rate, ratio = case.rate(entry), case.ratio(entry)
    shares = results.shares(case, entry)
    cells = (
        duration(entry.median_s),
        f"{case.tokens / entry.median_s:.0f}" if case.tokens else "",
        f"{rate / 1e9:.0f}" if rate else "",
        *(f"{100 * shares[kind]:.0f} %" if kind in shares else "" for kind in TYPES),
        f"{entry.peak_bytes / 2**30:.2f}" if entry.peak_bytes else "",
        f"{ratio:.2f}" if ratio else "",
    )
    return _columns(cells)


def _columns(cells: tuple[str, ...]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def _finding_lines(findings: list[Finding]) -> list[str]:
    width = max(len(finding.name) for finding in findings)
    return [
        f"  {f.name.ljust(width)}  {f.text:>10}"
        + (f"   goal: {f.goal}{'' if f.holds else ' (missed)'}" if f.goal else "")
        for f in findings
    ]


def duration(seconds: float) -> str:
    """With a unit that leaves about three figures."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 0.9995:
            return f"{seconds * scale:.{3 if unit == 's' else 2}f} {unit}"
    return f"{seconds * 1e6:.0f} us"
