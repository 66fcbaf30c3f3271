"""JSON-lines shards (.jsonl, .gz, .zst) as chunks of lines, and lines as texts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from failures import InputError

SUFFIXES = (".jsonl", ".gz", ".zst")
READ_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20  # of text: large against the cost of handing a chunk to a worker


@dataclass(frozen=True)
class Chunk:
    """Consecutive lines of a shard: what one worker takes at a time."""

    shard: Path
    first_line: int
    lines: list[bytes]
    bytes_read: int  # of the file on disk, for the progress bar


def find(inputs: Iterable[Path]) -> list[Path]:
    """The shards among files and folders, folders searched in depth, in sorted order."""
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            shards = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
            if not shards:
                raise InputError(f"{path}: no shards in this folder (.jsonl, .gz or .zst)")
            found += shards
        elif not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        elif path.suffix not in SUFFIXES:
            raise InputError(
                f"{path}: unknown suffix {path.suffix!r}; a shard ends in .jsonl, .gz or .zst"
            )
        else:
            found.append(path)
    return found


def chunks(shard: Path) -> Iterator[Chunk]:
    """The lines of a shard, in order."""
    lines: list[bytes] = []
    first, held, bytes_read, anything = 1, 0, 0, False
    for number, (line, read) in enumerate(_lines(shard), 1):
        bytes_read += read
        held += len(line)
        lines.append(line)
        anything = anything or bool(line.strip())
        if held >= CHUNK_BYTES:
            yield Chunk(shard, first, lines, bytes_read)
            lines, first, held, bytes_read = [], number + 1, 0, 0
    if not anything:
        raise InputError(f"{shard}: empty shard; expected one JSON object on each line")
    if lines:
        yield Chunk(shard, first, lines, bytes_read)


def texts(chunk: Chunk, key: str) -> Iterator[str]:
    """The document on each line of a chunk; blank lines are passed over."""
    for number, line in enumerate(chunk.lines, chunk.first_line):
        if not line.strip():
            continue
        where = f"{chunk.shard}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: not JSON ({error}); expected one object per line") from None
        if not isinstance(record, dict) or key not in record:
            found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise InputError(f"{where}: no key {key!r} (found: {found or 'nothing'})")
        text = record[key]
        if not isinstance(text, str):
            raise InputError(f"{where}: {key!r} is {json.dumps(text)[:40]}; expected a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: {key!r} has half a surrogate pair at character {error.start}; "
                "expected valid Unicode"
            ) from None
        yield text


def _lines(shard: Path) -> Iterator[tuple[bytes, int]]:
    """Lines with the bytes of the file read since the line before."""
    rest, unreported = b"", 0
    for data, read in _decompressed(shard):
        unreported += read
        *complete, rest = (rest + data).split(b"\n")
        for line in complete:
            yield line, unreported
            unreported = 0
    if rest or unreported:
        yield rest, unreported


def _decompressed(shard: Path) -> Iterator[tuple[bytes, int]]:
    with shard.open("rb") as file:
        blocks = iter(lambda: file.read(READ_BYTES), b"")
        if shard.suffix == ".jsonl":
            for block in blocks:
                yield block, len(block)
            return
        stream = None
        for block in blocks:
            read, data = len(block), []
            try:
                while block:  # a file may hold several gzip members or zstd frames
                    stream = stream or _decompressor(shard.suffix)
                    data.append(stream.decompress(block))
                    block = stream.unused_data if stream.eof else b""
                    stream = None if stream.eof else stream
            except (zlib.error, zstandard.ZstdError) as error:
                raise InputError(f"{shard}: broken {shard.suffix[1:]} data ({error})") from None
            yield b"".join(data), read
        if stream is not None:
            raise InputError(f"{shard}: {shard.suffix[1:]} data ends early: a truncated file?")


def _decompressor(suffix: str):
    if suffix == ".gz":
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # with the gzip header and checksum
    return zstandard.ZstdDecompressor().decompressobj()
