"""What a soak has gone through, and its table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from soaking.disturbance import DISK, KILLS, SIGNAL
from soaking.layout import Layout


@dataclass
class Tally:
    """Counts of all campaigns."""

    kills: Counter[str] = field(default_factory=Counter)  # by kind
    stops: int = 0  # at a signal, with status 75
    disk_errors: int = 0  # with status 1
    restarts: int = 0
    damage: Counter[str] = field(default_factory=Counter)  # of checkpoints, by kind
    passed_over: int = 0
    left_behind: int = 0  # ranks that outlived their mpirun and had to be killed
    stuck: int = 0  # mpiruns that outlived their ranks and had to be killed
    layouts: set[Layout] = field(default_factory=set)
    campaigns: Counter[str] = field(default_factory=Counter)  # by compute type
    bytes_compared: int = 0
    bytes_lost: int = 0

    def table(self, elapsed_s: float) -> str:
        rows: list[tuple[str, object]] = [("minutes", f"{elapsed_s / 60:.1f}")]
        rows.append(("kills survived", sum(self.kills.values())))
        rows += [(f"  of {kind}" if kind != KILLS[3] else f"  {kind}", self.kills[kind])
                 for kind in KILLS]  # fmt: skip
        rows += [
            (f"stops at {SIGNAL}, status 75", self.stops),
            (f"{DISK}s, status 1", self.disk_errors),
            ("restarts", self.restarts),
            ("layouts", len(self.layouts)),
            ("checkpoints damaged", sum(self.damage.values())),
            *[(f"  {kind}", count) for kind, count in sorted(self.damage.items())],
            ("damaged checkpoints passed over", self.passed_over),
            ("ranks that outlived mpirun and were killed", self.left_behind),
            ("mpiruns that outlived their ranks, and killed", self.stuck),
            ("runs finished and compared", sum(self.campaigns.values())),
            *[(f"  in {kind}", count) for kind, count in sorted(self.campaigns.items())],
            ("bytes compared", self.bytes_compared),
            ("bytes lost", self.bytes_lost),
        ]
        return "\n".join(f"{name:<46} {value:>12}" for name, value in rows)
