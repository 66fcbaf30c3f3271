"""Runs of a rank whose rates are known, for tests of bench/."""

from __future__ import annotations

import rates
import scaling_model as scaling
from deck_model import Model
from hearth_runs import Layout, Run
from scaling_model import Rates

RANK = Rates(
    {name: 1e-9 for name in scaling.PIECES if name not in ("rest", "dispatch, combine")},
    {name: 1e-11 for name in scaling.PIECES},
    5e-9,
    1e-9,
)


def synthetic_run(model: Model, settings: dict[str, int], ranks: int = 1, copies: int = 1) -> Run:
    """What RANK would take for it, phase by phase."""
    sized = rates.model_of(settings, model)
    cells = sized.global_batch // sized.cell_sequences
    tokens = sized.cell_sequences * sized.sequence_length
    token_s, cell_s = (
        scaling.token_seconds(sized, RANK),
        scaling.accumulate_seconds(sized, RANK),
    )
    cell = {piece: tokens * token_s[piece] + cell_s[piece] for piece in token_s}
    phases = {
        phase: cells * sum(cell[piece] for piece in pieces)
        for phase, pieces in rates.PIECES_OF_PHASE.items()
    }
    phases |= {"wait for counts": 0, "exchange": 0}
    phases["update"] = 5e-9 * sized.elements
    phases["rest"] = cells * cell["rest"] + 1e-9 * sized.elements
    total = sum(phases.values())
    return Run(Layout(ranks, copies=copies), settings, [total], total, phases, 0)
