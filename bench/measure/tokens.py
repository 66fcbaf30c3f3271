"""Data sets to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from indexed_dataset import CODE_OF_TYPE, HEADER, MAGIC, VERSION, Writer, bin_path, idx_path


def write_zipf(prefix: Path, vocabulary: int, count: int) -> None:
    """Random tokens about as uneven as text: Zipf's law with Mandelbrot's shift."""
    weight = 1 / (np.arange(vocabulary) + 2.7)
    tokens = np.random.default_rng(1).choice(vocabulary, count, p=weight / weight.sum())
    with Writer(prefix, vocabulary) as writer:
        writer.extend(tokens, [count])


def write_empty(prefix: Path, count: int, document: int = 1000) -> None:
    """As many tokens as a real data set has, all 0, in documents: a file without contents."""
    dtype = np.dtype("<u2")
    documents = -(-count // document)
    with bin_path(prefix).open("wb") as file:
        file.truncate(documents * document * dtype.itemsize)
    with idx_path(prefix).open("wb") as file:
        header = (MAGIC, VERSION, CODE_OF_TYPE[dtype], documents, documents + 1)
        file.write(HEADER.pack(*header))
        file.write(np.full(documents, document, "<i4").tobytes())
        file.write((np.arange(documents, dtype="<i8") * document * dtype.itemsize).tobytes())
        file.write(np.arange(documents + 1, dtype="<i8").tobytes())
