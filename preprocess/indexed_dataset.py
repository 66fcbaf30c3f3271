"""Megatron token files: PREFIX.bin holds the tokens, PREFIX.idx where each document lies.

PREFIX.idx, little-endian and without padding (S sequences, one for each document):

    bytes 0-8    b"MMIDIDX\\0\\0"
    u64          version, 1
    u8           token type: 4 is i32, 8 is u16
    u64          S
    u64          S + 1
    i32[S]       tokens in each sequence
    i64[S]       byte offset of each sequence in PREFIX.bin
    i64[S + 1]   first sequence of each document: 0 ... S
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from failures import InputError

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

MAGIC = b"MMIDIDX\0\0"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
TYPE_OF_CODE: dict[int, np.dtype[Any]] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
CODE_OF_TYPE = {dtype: code for code, dtype in TYPE_OF_CODE.items()}


def token_type(vocabulary: int) -> np.dtype[Any]:
    """Megatron's rule for the type of a token on disk."""
    return np.dtype("<u2") if vocabulary < 65500 else np.dtype("<i4")


def bin_path(prefix: Path) -> Path:
    return Path(f"{prefix}.bin")


def idx_path(prefix: Path) -> Path:
    return Path(f"{prefix}.idx")


class Writer:
    """Streams documents to a pair of files that appear only when all of them are written.

    Use it as a context manager: leaving through an exception leaves nothing behind.
    """

    def __init__(self, prefix: Path, vocabulary: int) -> None:
        self.prefix = prefix
        self.vocabulary = vocabulary
        self.dtype = token_type(vocabulary)
        self.bin_sha256 = hashlib.sha256()
        self._lengths: list[NDArray[np.int32]] = []
        self._bin_partial = Path(f"{prefix}.bin.partial")
        self._idx_partial = Path(f"{prefix}.idx.partial")
        self._bin = self._bin_partial.open("wb")

    def extend(self, tokens: NDArray[np.integer], lengths: Sequence[int]) -> None:
        """Append documents: their tokens back to back, and the number of tokens of each."""
        if sum(lengths) != tokens.size or min(lengths, default=1) < 1:
            raise ValueError("the lengths of the documents do not fit their tokens")
        if tokens.size == 0:
            return
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocabulary:
            raise InputError(
                f"{self.prefix}: token id {high if high >= self.vocabulary else low} does not "
                f"fit the vocabulary of {self.vocabulary}; ids 0 to {self.vocabulary - 1} do"
            )
        data = tokens.astype(self.dtype, copy=False).tobytes()
        self._bin.write(data)
        self.bin_sha256.update(data)
        self._lengths.append(np.asarray(lengths, dtype="<i4"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._commit()
            elif isinstance(error, OSError) and error.filename is None:
                error.filename = str(self._bin_partial)  # a full disk: say whose
        finally:
            self._bin.close()
            self._bin_partial.unlink(missing_ok=True)
            self._idx_partial.unlink(missing_ok=True)

    def _commit(self) -> None:
        if not self._lengths:
            raise InputError(f"{self.prefix}: no documents to write")
        lengths = np.concatenate(self._lengths)
        count = lengths.size
        pointers = np.zeros(count, dtype="<i8")
        np.cumsum(lengths[:-1], dtype=np.int64, out=pointers[1:])
        pointers *= self.dtype.itemsize

        _sync(self._bin)
        with self._idx_partial.open("wb") as index:
            code = CODE_OF_TYPE[self.dtype]
            index.write(HEADER.pack(MAGIC, VERSION, code, count, count + 1))
            index.write(lengths.tobytes())
            index.write(pointers.tobytes())
            index.write(np.arange(count + 1, dtype="<i8").tobytes())
            _sync(index)

        # An index never stands beside the tokens of another run, whenever this is cut short.
        idx_path(self.prefix).unlink(missing_ok=True)
        self._bin_partial.replace(bin_path(self.prefix))
        self._idx_partial.replace(idx_path(self.prefix))


def _sync(file) -> None:
    file.flush()
    os.fsync(file.fileno())


class Reader:
    """Documents of a pair of files, as arrays that share the mapped file."""

    def __init__(self, prefix: Path) -> None:
        index_name, tokens_name = idx_path(prefix), bin_path(prefix)
        for name in (index_name, tokens_name):
            if not name.is_file():
                raise InputError(f"{name}: no such file; PREFIX.bin and PREFIX.idx are needed")
        index = index_name.read_bytes()
        if len(index) < HEADER.size or not index.startswith(MAGIC):
            raise InputError(f"{index_name}: not a Megatron index (it starts with MMIDIDX)")
        _, version, code, count, documents = HEADER.unpack_from(index)
        if version != VERSION or code not in TYPE_OF_CODE:
            raise InputError(
                f"{index_name}: version {version}, token type {code}; "
                f"version {VERSION} with type 4 (i32) or 8 (u16) can be read"
            )
        expected = HEADER.size + 12 * count + 8 * documents
        if len(index) < expected:
            raise InputError(
                f"{index_name}: {len(index)} bytes, but its {count} sequences need {expected}"
            )
        self.dtype = TYPE_OF_CODE[code]
        self.lengths = np.frombuffer(index, "<i4", count, HEADER.size)
        self.pointers = np.frombuffer(index, "<i8", count, HEADER.size + 4 * count)
        size, needed = tokens_name.stat().st_size, int(self.lengths.sum()) * self.dtype.itemsize
        if size != needed:
            raise InputError(f"{tokens_name}: {size} bytes, but its index describes {needed}")
        self.tokens: NDArray = np.memmap(tokens_name, self.dtype, "r") if size else np.empty(0)

    def __len__(self) -> int:
        return self.lengths.size

    def __getitem__(self, document: int) -> NDArray:
        first = self.pointers[document] // self.dtype.itemsize
        return self.tokens[first : first + self.lengths[document]]
