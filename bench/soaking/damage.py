"""Damage to what lies on the disk between two starts."""

from __future__ import annotations

import os
import random
from pathlib import Path

import h5py


def flip_bytes_of_tensors(file: Path, dice: random.Random) -> str:
    """One to three bits of values."""
    places: list[tuple[int, int]] = []  # first byte, bytes

    def visit(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.size > 0:
            places.append((item.id.get_offset(), item.id.get_storage_size()))

    with h5py.File(file) as checkpoint:
        checkpoint.visititems(visit)
    with file.open("r+b") as stream:
        for first, size in dice.sample(places, dice.randint(1, 3)):
            at = first + dice.randrange(size)
            stream.seek(at)
            byte = stream.read(1)[0]
            stream.seek(at)
            stream.write(bytes([byte ^ (1 << dice.randrange(8))]))
    return "bits of values flipped"


def truncate(file: Path, dice: random.Random) -> str:
    os.truncate(file, dice.randrange(file.stat().st_size))
    return "truncated"


def empty(file: Path, dice: random.Random) -> str:
    os.truncate(file, 0)
    return "emptied"


def overwrite_block(file: Path, dice: random.Random) -> str:
    """4096 bytes at the begin, where every file has metadata."""
    with file.open("r+b") as stream:
        stream.write(dice.randbytes(4096))
    return "first block overwritten"


def damage_checkpoint(file: Path, dice: random.Random) -> str:
    """Makes a good checkpoint a bad one; says how."""
    ways = (flip_bytes_of_tensors, flip_bytes_of_tensors, truncate, empty, overwrite_block)
    return dice.choice(ways)(file, dice)


def leave_temporary_files(output: Path, good: Path | None, dice: random.Random) -> None:
    """Half-written files, as a run that was killed leaves them."""
    content = b"" if good is None else good.read_bytes()
    for name in ("checkpoints/step_00000007.h5.tmp", "checkpoints/step_99999999.h5.tmp",
                 "training.h5.tmp", "routing.h5.tmp"):  # fmt: skip
        (output / name).write_bytes(content[: dice.randint(0, len(content))])
