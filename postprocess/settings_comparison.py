"""What two runs were told, as their files have it: deck, version, data."""

from __future__ import annotations

import re

import h5py

# Keys of the deck that change no result.
WITHOUT_RESULT = (
    "run.output",
    "run.stop_step",
    "run.walltime_s",
    "run.walltime_margin_s",
    "run.log_every",
    "run.hang_timeout_s",
    "model.recompute",
    "capacity.padded",
    "parallel.expert_ranks",
    "parallel.placement",
    "parallel.cells",
    "checkpoint.keep",
    "checkpoint.resume",
    "checkpoint.background",
)


def text_attribute(file: h5py.File, name: str) -> str:
    """Empty where there is none."""
    value = file.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def deck(file: h5py.File) -> dict[str, list[str]]:
    return deck_values(text_attribute(file, "deck"))


def different_settings(a: h5py.File, b: h5py.File) -> list[str]:
    """Of deck, version and data, without keys of the deck that change no result."""
    found = []
    for name in ("version", "revision"):
        texts = (text_attribute(a, name), text_attribute(b, name))
        if texts[0] != texts[1]:
            found.append(f"{name}: {texts[0]} / {texts[1]}")
    decks = deck(a), deck(b)
    for key in sorted(decks[0].keys() | decks[1].keys()):
        values = [", ".join(deck_of.get(key, ["absent"])) for deck_of in decks]
        if key not in WITHOUT_RESULT and values[0] != values[1]:
            found.append(f"{key}: {values[0]} / {values[1]}")
    if text_attribute(a, "data_identity") != text_attribute(b, "data_identity"):
        found.append("the token files are others")
    return found


def deck_values(text: str) -> dict[str, list[str]]:
    """Values by section.key; a list has a line for each."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        if match := re.fullmatch(r"\[(.+)\]", line):
            section = match[1]
        elif match := re.fullmatch(r"([^#=]+?)\s*=\s*(.*)", line):
            values.setdefault(f"{section}.{match[1]}", []).append(match[2])
    return values
