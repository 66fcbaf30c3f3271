"""The model's sizes on the command line: from a deck, or one by one."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

from model import Sizes


def add_options(parser: argparse.ArgumentParser) -> None:
    """--deck, and an option for every size that takes the place of the deck's."""
    parser.add_argument("--deck", type=Path, help="read the model's sizes from this deck")
    for size in fields(Sizes):
        flag = "--" + size.name.replace("_", "-")
        parser.add_argument(flag, type=type(size.default), help=f"default {size.default}")


def sizes(arguments: argparse.Namespace) -> Sizes:
    """The sizes that were asked for."""
    found = Sizes.from_deck(arguments.deck) if arguments.deck else Sizes()
    given = {field.name: getattr(arguments, field.name) for field in fields(Sizes)}
    return replace(found, **{name: value for name, value in given.items() if value is not None})
