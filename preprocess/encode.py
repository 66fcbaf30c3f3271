"""Shards to one token file: documents in the order of the shards, whatever the workers."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import bpe
import indexed_dataset
import shards
from failures import Failure, InputError


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
    """Tokens of each text, without the template's special tokens, as Megatron's tools do.

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
        for done in _in_order(chunks, task, workers):
            writer.extend(done.tokens, done.lengths)
            totals.documents += len(done.lengths)
            totals.tokens += done.tokens.size
            totals.bytes += done.text_bytes
            totals.empty += done.empty
            progress.set_postfix(tokens=f"{totals.tokens:.4g}", refresh=False)
            progress.update(done.bytes_read)
    totals.bin_sha256 = writer.bin_sha256.hexdigest()
    return totals


def _in_order(chunks: Iterable[shards.Chunk], task: Task, workers: int) -> Iterator[Encoded]:
    # One process per worker is faster than the library's threads: parsing JSON and building
    # arrays hold Python's lock.
    if workers == 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        yield from map(Encoder(task), chunks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (task,))
    # A bounded window, because Executor.map would read all shards into memory at once.
    window: deque[Future[Encoded]] = deque()
    try:
        for chunk in chunks:
            window.append(pool.submit(_work, chunk))
            if len(window) > 3 * workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    except BrokenProcessPool:
        raise Failure(
            f"a worker was killed, perhaps out of memory; fewer than {workers} workers may do"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_encoder: Encoder


def _start_worker(task: Task) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(task)


def _work(chunk: shards.Chunk) -> Encoded:
    return _encoder(chunk)
