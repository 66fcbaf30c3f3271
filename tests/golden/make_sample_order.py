#!/usr/bin/python3
"""Make or check the golden files of the order of training samples.

The oracle is Megatron's GPTDataset and BlendedDataset, written down again with whole-array
NumPy operations; the random numbers are numpy.random.RandomState itself. A golden file is
words between blanks: a record is a name, the number of its values and the values; a case
starts with the record `case`. Long arrays are given by their fingerprint.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parent
SPLITS = ("train", "validation", "test")
FINAL_EPOCH_THRESHOLD = 0.80
SURPLUS = 0.005

IntArray = NDArray[np.integer]


@dataclass(frozen=True)
class Order:
    """The three indices of one dataset; `start` has a row (document, offset) per sample and one."""

    begin: int
    end: int
    epochs: int
    document: IntArray
    start: IntArray
    shuffle: IntArray


def split_range(shares: str, split: str, sequences: int) -> tuple[int, int]:
    """Bounds of a split of `sequences` sequences."""
    share = np.zeros(3)
    given = [float(word) for word in shares.split(",")]
    share[: len(given)] = given
    share /= share.sum()
    bounds = [0.0]
    for part in share.tolist():
        bounds.append(bounds[-1] + part)
    at = SPLITS.index(split)
    return round(bounds[at] * sequences), round(bounds[at + 1] * sequences)


def build_order(
    lengths: IntArray, begin: int, end: int, sequence_length: int, samples: int, seed: int
) -> Order:
    """The indices for at least `samples` samples of the sequences [begin, end)."""
    documents = np.arange(begin, end, dtype=np.int32)
    epoch_tokens = int(lengths[documents].sum(dtype=np.int64))
    epochs = 1
    while epochs * epoch_tokens < samples * sequence_length + 1:
        epochs += 1
    total = (epochs * epoch_tokens - 1) // sequence_length
    # Epochs, and samples, that are shuffled together; the rest forms a second part.
    shared_epochs, shared_samples = epochs, total
    if epochs > 1:
        before_last = ((epochs - 1) * epoch_tokens - 1) // sequence_length
        per_epoch = (epoch_tokens - 1) // sequence_length
        if samples - before_last < int(FINAL_EPOCH_THRESHOLD * per_epoch):
            shared_epochs, shared_samples = epochs - 1, before_last

    random = np.random.RandomState(seed)
    parts = [np.tile(documents, shared_epochs), np.tile(documents, epochs - shared_epochs)]
    for part in parts:
        random.shuffle(part)
    document = np.concatenate(parts)

    start = np.zeros((total + 1, 2), dtype=np.int64)
    ends = np.cumsum(lengths[document], dtype=np.int64)
    tokens = np.arange(1, total + 1, dtype=np.int64) * sequence_length
    start[1:, 0] = np.searchsorted(ends, tokens, side="right")
    start[1:, 1] = tokens - (ends - lengths[document])[start[1:, 0]]

    ranges = [
        np.arange(shared_samples, dtype=np.uint32),
        np.arange(shared_samples, total, dtype=np.uint32),
    ]
    for part in ranges:
        random.shuffle(part)
    return Order(begin, end, epochs, document, start, np.concatenate(ranges))


def sample_tokens(order: Order, lengths: IntArray, sequence_length: int, i: int) -> IntArray:
    """The tokens of sample i of a file whose n-th token is n."""
    first = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    position, offset = order.start[order.shuffle[i]]
    line: list[IntArray] = []
    missing = sequence_length + 1 + int(offset)
    while missing > 0:
        sequence = order.document[position]
        line.append(np.arange(first[sequence], first[sequence + 1]))
        missing -= int(lengths[sequence])
        position += 1
    return np.concatenate(line)[offset : offset + sequence_length + 1]


def normalized(weights: Iterable[float]) -> list[float]:
    array = np.array(list(weights), dtype=np.float64)
    return (array / np.sum(array)).tolist()


def samples_to_prepare(samples: int, weight: float) -> int:
    return math.ceil(math.ceil(samples * weight) * (1 + SURPLUS))


def build_blend(weights: list[float], samples: int) -> tuple[IntArray, IntArray]:
    """Source, and sample of the source, for each sample of a blend; weights are normalised."""
    share = np.array(normalized(weights))
    taken = np.zeros(len(weights), dtype=np.int64)
    source = np.empty(samples, dtype=np.int16)
    source_sample = np.empty(samples, dtype=np.int64)
    for i in range(samples):
        source[i] = np.argmax(share * max(i, 1) - taken)  # the first of equals
        source_sample[i] = taken[source[i]]
        taken[source[i]] += 1
    return source, source_sample


def fingerprint(values: Iterable[int]) -> int:
    """FNV-1a over values instead of bytes."""
    result = 0xCBF29CE484222325
    for value in values:
        result = ((result ^ int(value)) * 0x100000001B3) % 2**64
    return result


class Writer:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def record(self, name: str, values: Iterable[object]) -> None:
        words = [str(value) for value in values]
        self._lines.append(" ".join([name, str(len(words)), *words]))

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def shuffle_cases() -> str:
    """Shuffles of 0, 1, 2, ... by one generator, one after the other."""
    out = Writer()
    for name, seed, sizes in (
        ("small", 1234, (10,)),
        ("repeated", 1234, (7, 0, 1, 2, 33, 64, 65)),
        ("seed_zero", 0, (20, 20)),
        ("largest_seed", 2**32 - 1, (20,)),
        ("large", 42, (1_000_000, 3)),
    ):
        out.record("case", [name])
        out.record("seed", [seed])
        out.record("sizes", sizes)
        random = np.random.RandomState(seed)
        for size in sizes:
            values = np.arange(size, dtype=np.uint32)
            random.shuffle(values)
            if size > 1000:
                out.record("fingerprint", [fingerprint(values.tolist())])
            else:
                out.record("values", values.tolist())
    return out.text()


def varied_lengths(count: int, seed: int, shortest: int = 1, longest: int = 40) -> IntArray:
    return np.random.RandomState(seed).randint(shortest, longest + 1, count).astype(np.int32)


def order_cases() -> str:
    """Indices of one dataset, with the tokens of every sample of a file whose n-th token is n."""
    out = Writer()
    some = varied_lengths(40, 7)
    holes = np.where(np.arange(30) % 4 == 1, 0, varied_lengths(30, 8)).astype(np.int32)
    holes[0] = holes[29] = 0
    for name, lengths, shares, split, sequence_length, samples, seed in (
        ("one_epoch", some, "90,5,5", "train", 16, 20, 1234),
        ("exactly_one_epoch", np.array([33], np.int32), "1", "train", 16, 2, 1234),
        ("one_token_short_of_an_epoch", np.array([32], np.int32), "1", "train", 16, 2, 1234),
        ("separate_final_epoch", some, "90,5,5", "train", 16, 110, 1234),
        ("final_epoch_above_threshold", some, "90,5,5", "train", 16, 134, 1234),
        ("many_epochs", some[:6], "100", "train", 16, 70, 99),
        ("validation", some, "50,30,20", "validation", 8, 30, 1234),
        ("test", some, "0.5,0.3,0.2", "test", 8, 30, 1234),
        ("halves_to_even", some[:5], "50,30,20", "validation", 4, 5, 1234),
        ("one_document", np.array([50], np.int32), "1,0,0", "train", 7, 30, 5),
        ("shorter_than_a_sample", np.array([3], np.int32), "1", "train", 10, 6, 1234),
        ("one_token", np.array([1], np.int32), "1", "train", 3, 4, 1234),
        ("empty_documents", holes, "1", "train", 16, 60, 1234),
        ("samples_of_two_tokens", some[:4], "1", "train", 1, 90, 1234),
        ("zero_samples", some[:4], "1", "train", 16, 0, 1234),
    ):
        begin, end = split_range(shares, split, len(lengths))
        order = build_order(lengths, begin, end, sequence_length, samples, seed)
        out.record("case", [name])
        out.record("lengths", lengths.tolist())
        out.record("shares", [shares])
        out.record("split", [split])
        out.record("sequence_length", [sequence_length])
        out.record("samples", [samples])
        out.record("seed", [seed])
        out.record("range", [begin, end])
        out.record("epochs", [order.epochs])
        out.record("document_index", order.document.tolist())
        out.record("start_document", order.start[:, 0].tolist())
        out.record("start_offset", order.start[:, 1].tolist())
        out.record("shuffle_index", order.shuffle.tolist())
        tokens = [
            sample_tokens(order, lengths, sequence_length, i) for i in range(len(order.shuffle))
        ]
        out.record("fingerprint", [fingerprint(np.concatenate([[0], *tokens]).tolist())])
    return out.text()


def blend_cases() -> str:
    out = Writer()
    many = np.random.RandomState(3).uniform(0.1, 10, 300).tolist()
    for name, weights, samples in (
        ("one", [1.0], 7),
        ("equal", [1.0] * 3, 30),
        ("three", [0.5, 0.3, 0.2], 200),
        ("not_normalised", [7.0, 11.0, 0.25], 200),
        ("rare", [1000.0, 1.0], 1100),
        ("eleven", [0.1 * (i + 1) for i in range(11)], 300),
        ("many", many, 20_000),
        ("many_equal", [1.0] * 278, 3000),
    ):
        shares = normalized(weights)
        source, source_sample = build_blend(shares, samples)
        out.record("case", [name])
        out.record("weights", weights)
        out.record("samples", [samples])
        out.record("prepared", [samples_to_prepare(samples, share) for share in shares])
        if samples <= 300:
            out.record("source", source.tolist())
            out.record("source_sample", source_sample.tolist())
        out.record("source_fingerprint", [fingerprint(source.tolist())])
        out.record("sample_fingerprint", [fingerprint(source_sample.tolist())])
    return out.text()


def corpus_cases() -> str:
    """Three files together; `sample` is a source and its tokens (a file's n-th token is n)."""
    out = Writer()
    files = [varied_lengths(30, 21), varied_lengths(50, 22), varied_lengths(11, 23)]
    shares, sequence_length, samples, seed = "80,15,5", 12, 60, 1234
    tokens_in_split = []
    for lengths in files:
        begin, end = split_range(shares, "train", len(lengths))
        tokens_in_split.append(float(lengths[begin:end].sum()))
    for name, chosen, weights in (
        ("weighted", files, [0.6, 0.3, 0.1]),
        ("by_tokens", files, tokens_in_split),
        ("one_weighted", files[:1], [1.0]),
        ("one", files[:1], None),
    ):
        out.record("case", [name])
        for lengths in chosen:
            out.record("lengths", lengths.tolist())
        if weights is not None and name != "by_tokens":
            out.record("weights", weights)
        out.record("shares", [shares])
        out.record("sequence_length", [sequence_length])
        out.record("samples", [samples])
        out.record("seed", [seed])
        normal = normalized(weights or [1.0])
        orders = []
        for lengths, weight in zip(chosen, normal):
            begin, end = split_range(shares, "train", len(lengths))
            size = samples if weights is None else samples_to_prepare(samples, weight)
            orders.append(build_order(lengths, begin, end, sequence_length, size, seed))
        source, source_sample = build_blend(normal, samples)
        for d, i in zip(source.tolist(), source_sample.tolist()):
            row = sample_tokens(orders[d], chosen[d], sequence_length, i)
            out.record("sample", [d, *row.tolist()])
    return out.text()


FILES = {
    "sample_order_shuffle.txt": shuffle_cases,
    "sample_order_single.txt": order_cases,
    "sample_order_blend.txt": blend_cases,
    "sample_order_corpus.txt": corpus_cases,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder (default: this one)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where a file differs"
    )
    arguments = parser.parse_args()
    differing = []
    for name, make in FILES.items():
        path = arguments.output / name
        if not arguments.check:
            path.write_text(make())
        elif not path.is_file() or path.read_text() != make():
            differing.append(str(path))
    if differing:
        print(f"differs from what this script makes: {', '.join(differing)}", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
