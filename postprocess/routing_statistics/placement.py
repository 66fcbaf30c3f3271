"""Which rank owns which expert, so that token copies travel less; docs/routing_statistics.md.

An owner (experts) is the expert rank of each expert. As in the program, every rank owns its share:
shares differ by at most one, the larger ones first. Counts are integers, so that equal input gives
equal owners; ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from routing_statistics.agreement import NONE

FINE = 1 << 40  # of a copy, for integers of shares


def share_sizes(items: int, parts: int) -> np.ndarray:
    """(parts): sizes that differ by at most one, the larger ones first."""
    return items // parts + (np.arange(parts) < items % parts)


def contiguous(items: int, parts: int) -> np.ndarray:
    """Owners of consecutive ranges: of experts by expert rank, or of cells by rank."""
    return np.repeat(np.arange(parts), share_sizes(items, parts))


# By co-activation


def pairs_together(counts: np.ndarray, owner: np.ndarray) -> int:
    """Pairs of a token's copies on one rank, summed over tokens; counts (experts, experts)."""
    same = owner[:, None] == owner[None, :]
    return int(np.triu(counts * same, 1).sum())


def by_coactivation(counts: np.ndarray, ranks: int) -> np.ndarray:
    """The owner with many pairs_together, found by exchanging two experts as long as that helps.

    From contiguous ranges, so that it is never worse, and from experts gathered greedily; the
    better end.
    """
    counts = counts - np.diag(np.diagonal(counts))
    starts = [contiguous(len(counts), ranks), _gathered(counts, ranks)]
    ends = [_exchanged(counts, owner, ranks) for owner in starts]
    return max(ends, key=lambda owner: pairs_together(counts, owner))


def _gathered(counts: np.ndarray, ranks: int) -> np.ndarray:
    """Rank by rank: the expert with the most partners left, then whoever fits those there best."""
    owner = np.full(len(counts), -1)
    for rank, size in enumerate(share_sizes(len(counts), ranks)):
        for place in range(size):
            free = np.flatnonzero(owner < 0)
            beside = free if place == 0 else np.flatnonzero(owner == rank)
            owner[free[counts[np.ix_(free, beside)].sum(1).argmax()]] = rank
    return owner


def _exchanged(counts: np.ndarray, owner: np.ndarray, ranks: int) -> np.ndarray:
    """The best exchange of two experts, until none raises pairs_together."""
    owner = owner.copy()
    experts = np.arange(len(owner))
    while len(owner) > 0:
        on = counts @ (owner[:, None] == np.arange(ranks))  # (experts, ranks): pairs with each rank
        move = on[:, owner] - on[experts, owner][:, None]  # (i, j): of i to the rank of j
        gain = move + move.T - 2 * counts
        gain[owner[:, None] == owner[None, :]] = 0
        i, j = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[i, j] <= 0:
            break
        owner[i], owner[j] = owner[j], owner[i]
    return owner


def ranks_reached(choice: np.ndarray, owner: np.ndarray) -> int:
    """Different ranks that a token's copies go to, summed over tokens.

    choice (tokens, slots): experts, −1 for none; experts without an owner stay at home.
    """
    travels = (choice != NONE) & (choice < len(owner))
    on = np.where(travels, owner[np.where(travels, choice, 0)], -1)
    return sum(int((on == rank).any(1).sum()) for rank in np.unique(owner))


# By data source


def best_assignment(gain: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The owner of each row (rows): row i on part r gains gain[i, r], part r takes sizes[r] rows.

    The largest sum, exactly: the Hungarian algorithm with potentials, sizes[r] columns for part r.
    """
    rows = len(gain)
    part = np.repeat(np.arange(len(sizes)), sizes)
    assert len(part) == rows
    cost = np.zeros((rows + 1, rows + 1), dtype=np.int64)
    cost[1:, 1:] = -gain[:, part]
    of_row, of_column = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)  # potentials
    row_at = np.zeros(rows + 1, np.int64)  # of each column, 0: none yet
    far = np.iinfo(np.int64).max
    for row in range(1, rows + 1):
        row_at[0], column = row, 0
        least, way = np.full(rows + 1, far), np.zeros(rows + 1, np.int64)
        done = np.zeros(rows + 1, bool)
        while row_at[column] != 0:
            done[column] = True
            here = row_at[column]
            reduced = cost[here] - of_row[here] - of_column
            nearer = ~done & (reduced < least)
            least[nearer], way[nearer] = reduced[nearer], column
            following = int(np.where(done, far, least).argmin())
            step = least[following]
            of_row[row_at[done]] += step
            of_column[done] -= step
            least[~done] -= step
            column = following
        while column != 0:
            row_at[column], column = row_at[way[column]], int(way[column])
    owner = np.empty(rows, dtype=np.int64)
    owner[row_at[1:] - 1] = part
    return owner


@dataclass(frozen=True)
class SourcePlacement:
    """Owners by layer, and of each source's copies the share that goes to each rank."""

    owners: list[np.ndarray]  # (layers) of (experts)
    to_rank: np.ndarray  # (sources, ranks), rows of 1, or of 0 for a source without copies


def by_source(counts: Sequence[np.ndarray], ranks: int) -> SourcePlacement:
    """Owners such that many copies of a source go to the ranks that could work on its cells.

    counts: of each layer (sources, experts). Cells are taken to be of one source each and as many
    on every rank. Two exact steps take turns until neither helps: the best owner of each layer's
    experts for where the sources are, and the best ranks of the sources for where the experts are.
    From several starts; the best end.
    """
    by_copies = sum(layer.sum(1) for layer in counts)  # (sources)
    units = _units(by_copies, ranks * max(1, 128 // ranks))  # (sources): pieces, all equally large
    # What a piece brings to each expert, in FINE parts of a copy that cannot overflow.
    fine = max(1, FINE // max(1, len(counts)))
    scale = max(1, int(by_copies.sum()))
    weights = [
        (
            layer.astype(object) * (fine * len(units)) // scale // np.maximum(units, 1)[:, None]
        ).astype(np.int64)
        for layer in counts
    ]
    source = np.repeat(np.arange(len(units)), units)  # of each piece
    sizes = share_sizes(len(source), ranks)

    def owners_for(place: np.ndarray) -> list[np.ndarray]:
        here = np.zeros((len(units), ranks), np.int64)  # pieces of each source on each rank
        np.add.at(here, (source, place), 1)
        return [
            best_assignment(weight.T @ here, share_sizes(weight.shape[1], ranks))
            for weight in weights
        ]

    def places_for(owners: list[np.ndarray]) -> tuple[np.ndarray, int]:
        gain = sum(_to_ranks(w, owner, ranks) for w, owner in zip(weights, owners, strict=True))
        place = best_assignment(gain[source], sizes)
        return place, int(gain[source, place].sum())

    def improved(owners: list[np.ndarray]) -> tuple[int, list[np.ndarray]]:
        place, kept = places_for(owners)
        while True:
            following = owners_for(place)
            place, more = places_for(following)
            if more <= kept:
                return kept, owners
            kept, owners = more, following

    starts = [
        [contiguous(layer.shape[1], ranks) for layer in counts],
        owners_for(contiguous(len(source), ranks)),
    ]
    _, owners = max((improved(start) for start in starts), key=lambda end: end[0])
    return SourcePlacement(owners, copies_to_ranks(counts, owners, ranks))


def _units(copies: np.ndarray, units: int) -> np.ndarray:
    """Pieces of each source in proportion to its copies, by largest remainders."""
    total = max(1, int(copies.sum()))
    whole, rest = copies * units // total, copies * units % total
    missing = units - int(whole.sum())
    whole[np.argsort(-rest, kind="stable")[:missing]] += 1
    return whole


def _to_ranks(counts: np.ndarray, owner: np.ndarray, ranks: int) -> np.ndarray:
    """(sources, ranks) of counts (sources, experts)."""
    return counts @ (owner[:, None] == np.arange(ranks)).astype(counts.dtype)


def copies_to_ranks(
    counts: Sequence[np.ndarray], owners: Sequence[np.ndarray], ranks: int
) -> np.ndarray:
    """Of each source's copies of all layers the share that goes to each rank, (sources, ranks)."""
    copies = sum(_to_ranks(c, owner, ranks) for c, owner in zip(counts, owners, strict=True))
    return copies / np.maximum(copies.sum(1, keepdims=True), 1)


# What stays


def blend(copies: np.ndarray, samples: int) -> np.ndarray:
    """Sources of consecutive samples (samples), as the program alternates them by their shares."""
    weights, taken = copies / copies.sum(), np.zeros(len(copies), np.int64)
    source = np.empty(samples, np.int64)
    for sample in range(samples):
        source[sample] = (weights * max(sample, 1) - taken).argmax()
        taken[source[sample]] += 1
    return source


def cells_by_gain(gain: np.ndarray, ranks: int) -> np.ndarray:
    """The rank of each cell (cells); gain (cells, expert ranks), which divide the ranks.

    The program's rule of parallel.cells = source, src/train/step_cells.cpp.
    """
    expert_ranks = gain.shape[1]
    owner = contiguous(len(gain), ranks)
    changed = True
    while changed:
        changed = False
        for a in range(len(owner)):
            for b in range(a + 1, len(owner)):
                to_a, to_b = owner[a] % expert_ranks, owner[b] % expert_ranks
                if gain[a, to_b] + gain[b, to_a] > gain[a, to_a] + gain[b, to_b]:
                    owner[a], owner[b] = owner[b], owner[a]
                    changed = True
    return owner


def share_kept(
    to_rank: np.ndarray, source: np.ndarray, cell_sequences: int, ranks: int, by_gain: bool
) -> float:
    """Of one step's copies the share that stays on its rank.

    to_rank (sources, expert ranks): shares of a source's copies; source: of the step's sequences.
    """
    begins = range(0, len(source), cell_sequences)
    stays = np.array([to_rank[source[at : at + cell_sequences]].sum(0) for at in begins])
    per_million = np.rint(stays * 1e6).astype(np.int64)
    owner = cells_by_gain(per_million, ranks) if by_gain else contiguous(len(stays), ranks)
    return float(stays[np.arange(len(stays)), owner % to_rank.shape[1]].sum() / len(source))


def busiest_rank(copies: np.ndarray, owner: np.ndarray, ranks: int) -> float:
    """Copies (experts) of the rank that has the most, over the mean rank's; NaN without any."""
    on = np.bincount(owner, weights=copies, minlength=ranks)
    return float(on.max() * ranks / on.sum()) if on.sum() else np.nan
