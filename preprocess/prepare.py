#!/usr/bin/env python3
"""Prepare training data: texts in, Megatron token files (.bin and .idx) and a tokenizer out."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import bpe
import corpus
import domains
import encode
import indexed_dataset
import manifest
import shards
from failures import Failure, InputError

DESCRIPTION = """\
Prepare training data: texts in, Megatron token files (.bin and .idx) and a tokenizer out.

  prepare.py corpus --output build/corpus/quickstart
      a small corpus of seven domains from Debian packages, with its own tokenizer

  prepare.py tokenize shards/ --source dclm --tokenizer pythia-12b/tokenizer.json --output data
      your own JSON-lines shards, with any Hugging Face tokenizer.json
"""


def main() -> int:
    arguments = parser().parse_args()
    # A batch system's SIGTERM then leaves as tidily as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except Failure as failure:
        print(f"prepare.py: {failure}", file=sys.stderr)
        return failure.status
    except BrokenPipeError:  # who reads our output, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"prepare.py: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return Failure.status
    except KeyboardInterrupt:
        print("prepare.py: interrupted; no file was left half-written", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="prepare.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    add = _command(
        commands,
        corpus_command,
        "corpus",
        "build a corpus of clearly different domains, one token file each",
        "Downloads Debian packages that hold text (without installing them), trains a byte-level "
        "BPE tokenizer, and writes DOMAIN.bin and DOMAIN.idx, tokenizer.json and the manifest "
        "corpus.json. Documents are shuffled, so a split of 95,5,0 holds out a fair sample. "
        "A second call with the same settings finds everything done.",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="where the corpus goes")
    add("--vocabulary", type=int, default=4096, metavar="N", help="tokens (default 4096)")
    add(
        "--packages-root",
        type=Path,
        metavar="DIR",
        help="keeps the .deb files; those that are there are not downloaded again "
        "(default OUTPUT/packages)",
    )
    add(
        "--text",
        type=_named_folder,
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a domain from a folder of .txt files, instead of the Debian packages; repeatable",
    )
    add(
        "--domain-bytes",
        type=int,
        default=6_000_000,
        metavar="N",
        help="text taken from one domain at most (default 6000000, about two million tokens)",
    )

    add = _command(
        commands,
        tokenizer_command,
        "tokenizer",
        "train a byte-level BPE tokenizer",
        "Trains on JSON-lines shards (.jsonl, .gz, .zst) and .txt files; <|endoftext|> is id 0.",
    )
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="shards, .txt files or folders")
    add("--output", type=Path, required=True, metavar="FILE", help="the tokenizer.json to write")
    add("--vocabulary", type=int, required=True, metavar="N", help="tokens, 257 or more")
    add("--key", default="text", help="the JSON key of a document's text (default text)")

    add = _command(
        commands,
        tokenize_command,
        "tokenize",
        "tokenise JSON-lines shards to one token file",
        "Writes DIR/NAME.bin, DIR/NAME.idx and DIR/NAME.manifest.json. The documents keep the "
        "order of the shards, so the files do not depend on the number of workers.",
    )
    add("inputs", type=Path, nargs="+", metavar="SHARD", help=".jsonl, .gz, .zst, or folders")
    add("--source", type=_name, required=True, metavar="NAME", help="name of the data source")
    add("--tokenizer", type=Path, required=True, metavar="FILE", help="any tokenizer.json")
    add("--output", type=Path, required=True, metavar="DIR", help="where the files go")
    add("--key", default="text", help="the JSON key of a document's text (default text)")
    add(
        "--append-eod",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end each document with the end-of-document token (default yes)",
    )
    add(
        "--eod-token",
        default=bpe.END_OF_DOCUMENT,
        metavar="TOKEN",
        help=f"the end-of-document token (default {bpe.END_OF_DOCUMENT})",
    )
    add(
        "--vocabulary",
        type=int,
        metavar="N",
        help="the model's vocabulary: refuse a tokenizer with larger ids",
    )
    add(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes (default all cores, here %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace an existing token file of this name")

    add = _command(
        commands,
        show_command,
        "show",
        "print documents of a token file as text",
        "Decodes documents, to see what a model will be given.",
    )
    add("prefix", type=Path, metavar="PREFIX", help="PREFIX.bin and PREFIX.idx are read")
    add("--tokenizer", type=Path, required=True, metavar="FILE", help="its tokenizer.json")
    add("--first", type=int, default=0, metavar="N", help="document to start from (default 0)")
    add("--documents", type=int, default=1, metavar="N", help="how many (default 1)")
    return top


def _command(commands, run, name: str, summary: str, description: str):
    command = commands.add_parser(name, help=summary, description=description)
    command.set_defaults(run=run)
    return command.add_argument


def corpus_command(arguments: argparse.Namespace) -> None:
    texts = dict(arguments.text)
    if len(texts) < len(arguments.text):
        raise InputError("--text: two domains have the same name; names must differ")
    corpus.build(
        output=arguments.output,
        vocabulary=arguments.vocabulary,
        packages_root=arguments.packages_root or arguments.output / "packages",
        texts=texts,
        domain_bytes=arguments.domain_bytes,
    )


def tokenizer_command(arguments: argparse.Namespace) -> None:
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    texts = _texts(arguments.inputs, arguments.key)
    trained = bpe.train(texts, arguments.vocabulary, arguments.output)
    print(f"{arguments.output}: {trained.size} tokens")


def _texts(inputs: list[Path], key: str) -> Iterator[str]:
    for path in inputs:
        if path.suffix == ".txt" and path.is_file():
            yield domains.read(path)
            continue
        for shard in shards.find([path]):
            for chunk in shards.chunks(shard):
                yield from shards.texts(chunk, key)


def tokenize_command(arguments: argparse.Namespace) -> None:
    if arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: 1 or more are needed")
    prefix = arguments.output / arguments.source
    existing = indexed_dataset.idx_path(prefix)
    if existing.exists() and not arguments.overwrite:
        raise InputError(f"{existing}: exists; --overwrite replaces it")
    arguments.output.mkdir(parents=True, exist_ok=True)
    inputs = shards.find(arguments.inputs)
    totals = encode.encode_shards(
        inputs,
        prefix,
        encode.Task(arguments.tokenizer, arguments.key, arguments.eod_token, arguments.append_eod),
        arguments.workers,
        arguments.vocabulary,
    )
    manifest.write(
        Path(f"{prefix}.manifest.json"),
        {
            "source": arguments.source,
            "documents": totals.documents,
            "empty_documents": totals.empty,
            "tokens": totals.tokens,
            "bytes": totals.bytes,
            "append_eod": arguments.append_eod,
            "tokenizer": {
                "file": str(arguments.tokenizer),
                "sha256": manifest.sha256(arguments.tokenizer),
            },
            "bin_sha256": totals.bin_sha256,
            "shards": [{"file": str(path), "bytes": path.stat().st_size} for path in inputs],
        },
    )
    left_out = f", {totals.empty} empty documents left out" if totals.empty else ""
    print(f"{prefix}: {totals.documents} documents, {totals.tokens} tokens{left_out}")


def show_command(arguments: argparse.Namespace) -> None:
    reader = indexed_dataset.Reader(arguments.prefix)
    tokenizer = bpe.load(arguments.tokenizer).tokenizer
    if not 0 <= arguments.first < len(reader):
        raise InputError(
            f"--first {arguments.first}: {arguments.prefix} holds documents 0 to {len(reader) - 1}"
        )
    for number in range(arguments.first, min(arguments.first + arguments.documents, len(reader))):
        tokens = reader[number]
        print(f"--- document {number}, {tokens.size} tokens")
        print(tokenizer.decode(tokens.tolist(), skip_special_tokens=False))


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: a name has letters, digits, '_', '.', '-'")
    return text


def _named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=FOLDER")
    return _name(name), Path(folder)


if __name__ == "__main__":
    sys.exit(main())
