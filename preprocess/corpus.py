"""A corpus of several domains: collect, train the tokenizer, tokenise, describe."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bpe
import domains
import encode
import indexed_dataset
import manifest
import packages
from failures import InputError

SPLIT = "95,5,0"  # training, held out, test: of the documents in the order of the files
TRAINING = 0.95
TEXT_MODULES = ("corpus.py", "domains.py", "bpe.py", "text_from_*.py")


@dataclass
class Source:
    """One domain: its texts on the way in, its part of the manifest on the way out."""

    name: str
    content: str
    licence: str | None
    packages: list[packages.Package]
    documents: list[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def training(self) -> int:
        """Documents before the held-out tail, rounded as Megatron rounds its splits."""
        return round(TRAINING * len(self.documents))


def build(
    output: Path,
    vocabulary: int,
    packages_root: Path,
    texts: dict[str, Path],
    domain_bytes: int,
) -> None:
    bpe.check_size(vocabulary)
    settings = _settings(vocabulary, texts, domain_bytes)
    present = manifest.read(output / "corpus.json")
    if present is not None and _is_complete(output, present, settings):
        print(f"{output}: complete already, with these settings")
        _print_table(present)
        return

    output.mkdir(parents=True, exist_ok=True)
    _remove_previous(output, present or {})
    sources = _collect_texts(texts) if texts else _collect_debian(packages_root, output)
    _choose(sources, domain_bytes)

    start = time.monotonic()
    training = [text for source in sources for text in source.documents[: source.training]]
    tokenizer = bpe.train(training, vocabulary, output / "tokenizer.json")
    print(
        f"tokenizer: byte-level BPE, {tokenizer.size} tokens, trained on "
        f"{_size(training) / 1e6:.1f} MB in {time.monotonic() - start:.1f} s"
    )

    counts = [_tokenise(source, tokenizer, output) for source in sources]
    total = np.sum(counts, axis=0)
    for source, count in zip(sources, counts, strict=True):
        source.facts |= {
            "unigram_nats_per_token": round(_cross_entropy(count, total), 6),
            "own_unigram_nats_per_token": round(_cross_entropy(count, count), 6),
        }
    content = _describe(sources, tokenizer, settings, total)
    manifest.write(output / "corpus.json", content)
    _print_table(content)
    print(f"wrote {output}/corpus.json; split {SPLIT} holds out the tail of each domain")


def _settings(vocabulary: int, texts: dict[str, Path], domain_bytes: int) -> dict[str, Any]:
    """Everything that decides the corpus, except which versions of packages were found."""
    recipe = hashlib.sha256()
    for pattern in TEXT_MODULES:
        for module in sorted(Path(__file__).parent.glob(pattern)):
            recipe.update(module.read_bytes())
    return {
        "vocabulary": vocabulary,
        "domain_bytes": domain_bytes,
        "texts": {name: _folder_sha256(folder) for name, folder in texts.items()},
        "recipe_sha256": recipe.hexdigest(),
        "tokenizers": version("tokenizers"),
    }


def _folder_sha256(folder: Path) -> str:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --text takes NAME=FOLDER")
    files = sorted(folder.rglob("*.txt"))
    if not files:
        raise InputError(f"{folder}: no .txt files in this folder")
    listing = "".join(f"{path.relative_to(folder)} {manifest.sha256(path)}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _is_complete(output: Path, content: dict[str, Any], settings: dict[str, Any]) -> bool:
    files = {"tokenizer.json": content.get("tokenizer", {}).get("sha256")}
    for name, facts in content.get("domains", {}).items():
        files |= {f"{name}.{kind}": facts.get(f"{kind}_sha256") for kind in ("bin", "idx")}
    return content.get("settings") == settings and all(
        (output / name).is_file() and manifest.sha256(output / name) == digest
        for name, digest in files.items()
    )


def _remove_previous(output: Path, content: dict[str, Any]) -> None:
    """Token files of other settings would not fit the new tokenizer."""
    (output / "corpus.json").unlink(missing_ok=True)
    for name in content.get("domains", {}):
        for path in (
            indexed_dataset.idx_path(output / name),
            indexed_dataset.bin_path(output / name),
        ):
            path.unlink(missing_ok=True)


def _collect_texts(texts: dict[str, Path]) -> list[Source]:
    return [
        Source(name, f"text files of {folder}", None, [], list(domains.folder(folder)))
        for name, folder in texts.items()
    ]


def _collect_debian(root: Path, output: Path) -> list[Source]:
    chosen = domains.debian(root)
    names = [name for domain in chosen for name in domain.packages]
    found = packages.fetch(names, root)
    print(f"packages: {len(found)} in {root}")
    with packages.unpacked(found, root) as places:
        licences = output / "licences"
        licences.mkdir(exist_ok=True)
        for package in found:
            text = places[package.name] / "usr/share/doc" / package.name / "copyright"
            if text.is_file():  # else it is a link to the sister package's
                shutil.copyfile(text, licences / package.name)
        return [
            Source(
                domain.name,
                domain.content,
                domain.licence,
                [package for package in found if package.name in domain.packages],
                list(domain.documents({name: places[name] for name in domain.packages})),
            )
            for domain in chosen
        ]


def _choose(sources: list[Source], domain_bytes: int) -> None:
    """Drop duplicates, shuffle, and stop at the limit: all by the digest of the text.

    The order then depends on nothing but the documents, and the tail that Megatron's split holds
    out is a fair sample of the domain.
    """
    seen: set[bytes] = set()
    for source in sources:
        by_digest = {hashlib.sha256(text.encode()).digest(): text for text in source.documents}
        source.documents = []
        room = domain_bytes
        for digest in sorted(by_digest.keys() - seen):
            room -= len(by_digest[digest].encode())
            if room < 0:
                break
            source.documents.append(by_digest[digest])
        seen |= by_digest.keys()
        if source.training in (0, len(source.documents)):
            raise InputError(
                f"{source.name}: {len(source.documents)} documents cannot be split {SPLIT}; "
                "11 or more can, so give more text"
            )


def _tokenise(source: Source, tokenizer: bpe.Vocabulary, output: Path) -> NDArray[np.int64]:
    """Write the domain's token file; returns how often each token occurs in training."""
    prefix = output / source.name
    ids = encode.encode(tokenizer, source.documents, append_eod=True)
    lengths = [document.size for document in ids]
    with indexed_dataset.Writer(prefix, tokenizer.size) as writer:
        writer.extend(np.concatenate(ids), lengths)
    training = np.concatenate(ids[: source.training])
    source.facts |= {
        "documents": len(ids),
        "training_documents": source.training,
        "tokens": sum(lengths),
        "training_tokens": training.size,
        "bytes": _size(source.documents),
        "bin_sha256": writer.bin_sha256.hexdigest(),
        "idx_sha256": manifest.sha256(indexed_dataset.idx_path(prefix)),
    }
    return np.bincount(training, minlength=tokenizer.size)


def _cross_entropy(count: NDArray[np.int64], model: NDArray[np.int64]) -> float:
    """Nats per token of these tokens under the unigram frequencies of `model`."""
    used = count > 0
    log_p = np.log(model[used] / model.sum())
    return float(-(count[used] * log_p).sum() / count.sum())


def _describe(
    sources: list[Source],
    tokenizer: bpe.Vocabulary,
    settings: dict[str, Any],
    total: NDArray[np.int64],
) -> dict[str, Any]:
    def sum_of(fact: str) -> int:
        return sum(source.facts[fact] for source in sources)

    sums = ("documents", "training_documents", "tokens", "training_tokens", "bytes")
    return {
        "split": SPLIT,
        **{fact: sum_of(fact) for fact in sums},
        "bytes_per_token": round(sum_of("bytes") / sum_of("tokens"), 4),
        "unigram_nats_per_token": round(_cross_entropy(total, total), 6),
        "tokenizer": {
            "file": tokenizer.path.name,
            "sha256": manifest.sha256(tokenizer.path),
            "vocabulary": tokenizer.size,
            "end_of_document": tokenizer.end_of_document,
        },
        "domains": {
            source.name: {
                "content": source.content,
                "licence": source.licence,
                "packages": {package.name: package.version for package in source.packages},
                **source.facts,
                "bytes_per_token": round(source.facts["bytes"] / source.facts["tokens"], 4),
            }
            for source in sources
        },
        "settings": settings,
    }


def _print_table(content: dict[str, Any]) -> None:
    head = ("domain", "documents", "tokens", "held out", "bytes/token", "nats/token", "licence")
    print("{:<12}{:>10}{:>11}{:>10}{:>13}{:>12}  {}".format(*head))
    rows: Iterable[tuple[str, dict[str, Any]]] = (
        *content["domains"].items(),
        ("all", content),
    )
    for name, facts in rows:
        print(
            f"{name:<12}{facts['documents']:>10}{facts['tokens']:>11}"
            f"{facts['tokens'] - facts['training_tokens']:>10}{facts['bytes_per_token']:>13.2f}"
            f"{facts['unigram_nats_per_token']:>12.3f}  {facts.get('licence') or ''}".rstrip()
        )
    print("nats/token: the loss of a model that knows only how often the corpus has each token")


def _size(documents: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in documents)
