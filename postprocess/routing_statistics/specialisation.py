"""What experts specialise in: data sources (domains) or token ids (vocabulary).

Counts are token copies (kinds, experts), a kind being a data source or a token id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routing_statistics.ratio import mean_known, ratio


def occurrences(counts: np.ndarray, experts_per_token: float) -> np.ndarray:
    """Tokens of each kind (kinds) from their copies; exact where each token has so many experts."""
    return counts.sum(-1) / experts_per_token


def share_of_occurrences(counts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """S(e, x) = N(x, e) / N(x): of the tokens of kind x, the share that expert e got.

    (kinds, experts), NaN for a kind without tokens. With data sources OLMoE's domain
    specialisation, with input token ids its vocabulary specialisation and FLAME-MoE's expert
    specialisation. Random choice of k of E experts gives k/E.
    """
    return ratio(counts, np.asarray(tokens)[:, None])


def random_share(counts: np.ndarray, tokens: np.ndarray) -> float:
    """k/E, S under random choice, of the mean number k of experts of these tokens."""
    return float(ratio(counts.sum(), np.sum(tokens) * counts.shape[-1]))


def preference(counts: np.ndarray, min_count: int = 0) -> np.ndarray:
    """S(e, x) / (k/E), (kinds, experts): 1 for random choice; NaN for a kind without tokens.

    The share is counts / (sum of counts / k), so k drops out of the ratio. NaN too for a kind of
    which random choice would give an expert fewer than `min_count` copies.
    """
    sent = counts.sum(-1, keepdims=True)
    enough = sent >= min_count * counts.shape[-1]
    return ratio(counts * counts.shape[-1], np.where(enough, sent, 0))


@dataclass(frozen=True)
class BestTokens:
    """Of each expert, the kinds with the largest S, first the largest."""

    kinds: np.ndarray  # (experts, each)
    share: np.ndarray  # (experts, each), S of the data that they were chosen on
    eligible: int  # kinds that were frequent enough to be chosen


def best_tokens(
    counts: np.ndarray,
    tokens: np.ndarray,
    min_count: int,
    each: int,
    also: np.ndarray | None = None,
) -> BestTokens | None:
    """The `each` kinds of largest S of every expert, among those seen `min_count` times or more.

    `also` (kinds): tokens of other data in which they must be as frequent. Ties go to the lower
    kind. None where fewer than `each` kinds are frequent enough.
    """
    frequent = tokens >= min_count
    if also is not None:
        frequent &= also >= min_count
    eligible = np.flatnonzero(frequent)
    if len(eligible) < each:
        return None
    share = share_of_occurrences(counts[eligible], tokens[eligible])
    best = np.argsort(-share, axis=0, kind="stable")[:each]
    return BestTokens(eligible[best].T, np.take_along_axis(share, best, 0).T, len(eligible))


def traced(kinds: np.ndarray, counts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """S(e, x) of given kinds (experts, each) of each expert; NaN for a kind without tokens."""
    experts = np.arange(counts.shape[1])[:, None]
    return ratio(counts[kinds, experts], np.asarray(tokens)[kinds])


def held_out(
    choose: np.ndarray,
    choose_tokens: np.ndarray,
    score: np.ndarray,
    score_tokens: np.ndarray,
    min_count: int,
    each: int,
) -> tuple[BestTokens, np.ndarray] | None:
    """Kinds chosen on one half of the data, and their S (experts, each) on the other half.

    Whoever picks the largest of many noisy shares picks noise too, and FLAME-MoE scores them on the
    data that picked them. Here the score knows nothing of the choice: under random choice it is
    k/E on average. A kind must be seen `min_count` times in each half. None as in `best_tokens`.
    """
    best = best_tokens(choose, choose_tokens, min_count, each, score_tokens)
    if best is None:
        return None
    return best, traced(best.kinds, score, score_tokens)


def mean_share(share: np.ndarray) -> np.ndarray:
    """Mean over experts of S (experts, each): (each). NaN, a kind not seen, is left out."""
    return mean_known(share, 0)
