"""Byte-level BPE with Hugging Face tokenizers: training, loading, identity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from failures import InputError

END_OF_DOCUMENT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # every byte, and the end of a document


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with what a token file needs to know about it."""

    path: Path
    tokenizer: Tokenizer
    size: int  # largest id + 1: ids may have holes
    end_of_document: int


def train(texts: Iterable[str], vocabulary: int, path: Path) -> Vocabulary:
    """Train on the texts and write tokenizer.json; <|endoftext|> becomes id 0."""
    check_size(vocabulary)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)

    partial = Path(f"{path}.partial")
    try:
        tokenizer.save(str(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return load(path)


def check_size(vocabulary: int) -> None:
    if vocabulary < SMALLEST_VOCABULARY:
        raise InputError(
            f"--vocabulary {vocabulary}: byte-level BPE needs {SMALLEST_VOCABULARY} or more"
        )


def load(path: Path, end_of_document: str = END_OF_DOCUMENT) -> Vocabulary:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a Hugging Face tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises no narrower kind
        raise InputError(f"{path}: not a Hugging Face tokenizer.json ({error})") from None
    # A tokenizer.json may carry settings for serving that would cut or pad documents.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    token = tokenizer.token_to_id(end_of_document)
    if token is None:
        raise InputError(
            f"{path}: has no token {end_of_document!r}; name its end of document with --eod-token"
        )
    return Vocabulary(path, tokenizer, max(tokenizer.get_vocab().values()) + 1, token)
