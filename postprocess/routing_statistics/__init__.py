"""Statistics of routing as functions of NumPy arrays; docs/routing_statistics.md has the formulas.

No file is read here and nothing is drawn. The last axis of counts is the expert, unless said
otherwise, and holds the experts that a layer has: who calls leaves absent ones out.
"""

from routing_statistics.agreement import (
    agreement,
    chance_agreement,
    chosen_experts,
    first_choices,
    in_order_of_rank,
    saturation,
)
from routing_statistics.coactivation import (
    chance_conditional,
    conditional,
    pair_ratio,
    strongest_pair,
)
from routing_statistics.drift import Drift, cosine_to_start, since_before, since_start
from routing_statistics.load import (
    busiest,
    dead_experts,
    gini,
    gini_of_chance,
    relative_entropy,
    share_of_copies,
)
from routing_statistics.per_token import drop_share, mean_of_histogram, per_token
from routing_statistics.ratio import mean_known, ratio
from routing_statistics.specialisation import (
    BestTokens,
    best_tokens,
    held_out,
    mean_share,
    occurrences,
    preference,
    random_share,
    share_of_occurrences,
    traced,
)

__all__ = [
    "BestTokens",
    "Drift",
    "agreement",
    "best_tokens",
    "busiest",
    "chance_agreement",
    "chance_conditional",
    "chosen_experts",
    "conditional",
    "cosine_to_start",
    "dead_experts",
    "drop_share",
    "first_choices",
    "gini",
    "gini_of_chance",
    "held_out",
    "in_order_of_rank",
    "mean_known",
    "mean_of_histogram",
    "mean_share",
    "occurrences",
    "pair_ratio",
    "per_token",
    "preference",
    "random_share",
    "ratio",
    "relative_entropy",
    "saturation",
    "share_of_copies",
    "share_of_occurrences",
    "since_before",
    "since_start",
    "strongest_pair",
    "traced",
]
