"""Shards to one token file: documents in the order of the shards, whatever the workers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import bpe
import indexed_dataset
import shards
from failures import InputError
from workers import in_order


@dataclass(frozen=True)
class Task:
    """What every worker has to know."""

    tokenizer: Path
    key: str
    eod_token: str
    append_eod: bool


@dataclass(frozen=True)
class Encoded:
    """The tokens of a chunk's documents back to back."""

    tokens: NDArray[np.int32]
    lengths: list[int]
    text_bytes: int
    empty: int
    bytes_read: int


@dataclass
class Totals:
    documents: int = 0
    tokens: int = 0
    bytes: int = 0  # of UTF-8 text
    empty: int = 0  # documents left out because they hold no text
    bin_sha256: str = ""


class Encoder:
    """Turns texts into token arrays; lives once in each worker."""

    def __init__(self, task: Task) -> None:
        # Processes, because parsing JSON and building arrays hold Python's lock; the library's
        # threads would only compete with them.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self.task = task
        self.vocabulary = bpe.load(task.tokenizer, task.eod_token)

    def __call__(self, chunk: shards.Chunk) -> Encoded:
        texts = list(shards.texts(chunk, self.task.key))
        ids = encode(self.vocabulary, texts, self.task.append_eod)
        documents = [document for document in ids if document.size]
        return Encoded(
            tokens=np.concatenate(documents) if documents else np.empty(0, np.int32),
            lengths=[document.size for document in documents],
            text_bytes=sum(len(text.encode()) for text in texts),
            empty=len(ids) - len(documents),
            bytes_read=chunk.bytes_read,
        )


def encode(
    vocabulary: bpe.Vocabulary, texts: list[str], append_eod: bool
) -> list[NDArray[np.int32]]:
    """Tokens of each text, without what a tokenizer's template would put around it.

    A text without tokens stays empty: it gets no end of document.
    """
    tail = [vocabulary.end_of_document] if append_eod else []
    encodings = vocabulary.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(e.ids + tail if e.ids else [], dtype=np.int32) for e in encodings]


def encode_shards(
    inputs: list[Path], prefix: Path, task: Task, workers: int, vocabulary: int | None
) -> Totals:
    """Write PREFIX.bin and PREFIX.idx from the shards.

    `vocabulary` is the model's; without it the tokenizer's own bounds the ids.
    """
    size = bpe.load(task.tokenizer, task.eod_token).size
    if vocabulary is not None and size > vocabulary:
        raise InputError(
            f"{task.tokenizer}: token ids reach {size - 1}, but the vocabulary is {vocabulary}; "
            f"--vocabulary {size} or more would hold them"
        )
    totals = Totals()
    chunks = (chunk for shard in inputs for chunk in shards.chunks(shard))
    progress = tqdm(
        desc=prefix.name,
        total=sum(shard.stat().st_size for shard in inputs),
        unit="B",
        unit_scale=True,
        disable=None,  # only on a terminal
    )
    with progress, indexed_dataset.Writer(prefix, size) as writer:
        for done in in_order(chunks, partial(Encoder, task), workers):
            writer.extend(done.tokens, done.lengths)
            totals.documents += len(done.lengths)
            totals.tokens += done.tokens.size
            totals.bytes += done.text_bytes
            totals.empty += done.empty
            progress.set_postfix(tokens=f"{totals.tokens:.4g}", refresh=False)
            progress.update(done.bytes_read)
    totals.bin_sha256 = writer.bin_sha256.hexdigest()
    return totals
