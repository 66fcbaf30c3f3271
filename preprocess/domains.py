"""The corpus's domains: which Debian packages hold them, and how their files become documents."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import packages
import text_from_html
import text_from_pod
import text_from_roff
from failures import InputError

Places = dict[str, Path]  # unpacked packages by name
PAGE = 16_000  # characters of the longest document


@dataclass(frozen=True)
class Domain:
    name: str
    content: str
    packages: tuple[str, ...]
    licence: str  # as in the copyright files of the packages
    documents: Callable[[Places], Iterator[str]]


def debian(packages_folder: Path) -> list[Domain]:
    library = tuple(packages.python_library(packages_folder))
    return [
        Domain(
            "bible",
            "King James Bible, a document for each chapter",
            ("bible-kjv-text",),
            "public domain",
            bible,
        ),
        Domain(
            "dictionary",
            "WordNet's definitions, each once, in alphabetical pages",
            ("dict-wn",),
            "WordNet-3.0",
            dictionary,
        ),
        Domain(
            "python",
            "source code of Python's standard library",
            library,
            "PSF-2.0",
            python,
        ),
        Domain(
            "perl",
            "Perl's manual",
            ("perl-doc",),
            "GPL-1+ or Artistic",
            perl,
        ),
        Domain(
            "manual",
            "Linux manual pages: system calls, C library, files",
            ("manpages", "manpages-dev"),
            "GPL-2+, Linux-man-pages-copyleft, BSD and others, by page",
            manual,
        ),
        Domain(
            "french",
            "French translation of the manual pages of system calls and C library",
            ("manpages-fr-dev",),
            "GPL-3+",
            manual,
        ),
        Domain(
            "politics",
            "An Anarchist FAQ: essays with quotations",
            ("anarchism",),
            "GPL-2+",
            politics,
        ),
    ]


def folder(place: Path) -> Iterator[str]:
    """The .txt files of a folder and its subfolders."""
    for path in sorted(place.rglob("*.txt")):
        yield from pages(read(path))


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; expected UTF-8 text") from None


def pages(text: str, cuts: Iterable[str] = ("\n\n", "\n")) -> Iterator[str]:
    """A long text in documents of at most a page, each cut where the text best allows."""
    text = text.strip("\n")
    while len(text) > PAGE:
        found = (text.rfind(cut, PAGE // 2, PAGE) for cut in cuts)
        end = next((place for place in found if place > 0), PAGE)
        yield text[:end].rstrip()
        text = text[end:].strip("\n")  # but keep the indentation of code
    if text.strip():
        yield text.rstrip()


# fmt: off
BOOKS = (
    "Genesis", "Exodus", "Leviticus", "Numbers", "Deuteronomy", "Joshua", "Judges", "Ruth",
    "1 Samuel", "2 Samuel", "1 Kings", "2 Kings", "1 Chronicles", "2 Chronicles", "Ezra",
    "Nehemiah", "Esther", "Job", "Psalms", "Proverbs", "Ecclesiastes", "Song of Solomon", "Isaiah",
    "Jeremiah", "Lamentations", "Ezekiel", "Daniel", "Hosea", "Joel", "Amos", "Obadiah", "Jonah",
    "Micah", "Nahum", "Habakkuk", "Zephaniah", "Haggai", "Zechariah", "Malachi", "Matthew", "Mark",
    "Luke", "John", "Acts", "Romans", "1 Corinthians", "2 Corinthians", "Galatians", "Ephesians",
    "Philippians", "Colossians", "1 Thessalonians", "2 Thessalonians", "1 Timothy", "2 Timothy",
    "Titus", "Philemon", "Hebrews", "James", "1 Peter", "2 Peter", "1 John", "2 John", "3 John",
    "Jude", "Revelation",
)
# fmt: on


def bible(places: Places) -> Iterator[str]:
    """bible.data holds windows of LZW data without compress's magic number, which gzip reads.

    Big-endian u32 at byte 88: the number of windows; after it, where each begins.
    """
    data = (places["bible-kjv-text"] / "usr/lib/bible.data").read_bytes()
    count = int.from_bytes(data[88:92], "big")
    words = [int.from_bytes(data[i : i + 4], "big") for i in range(92, 92 + 4 * count, 4)]
    text = "".join(
        subprocess.run(
            ["gzip", "-dc"], input=b"\x1f\x9d\x90" + data[begin:end], stdout=-1, check=True
        ).stdout.decode("latin-1")
        for begin, end in zip(words, [*words[1:], len(data)], strict=True)
    )
    chapters: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        if verse := re.match(r"(\d?[A-Za-z]+)(\d+):(\d+) (.*)", line):
            chapters.setdefault((verse[1], verse[2]), []).append(f"{verse[3]} {verse[4].strip()}")
    abbreviations = dict.fromkeys(book for book, _ in chapters)
    name = dict(zip(abbreviations, BOOKS, strict=True))
    for (book, chapter), verses in chapters.items():
        yield f"{name[book]} {chapter}\n\n" + "\n".join(verses)


def dictionary(places: Places) -> Iterator[str]:
    """Each meaning under its first headword only, so that no synonym repeats it elsewhere."""
    text = gzip.decompress((places["dict-wn"] / "usr/share/dictd/wn.dict.dz").read_bytes())
    kinds = {"n": "noun", "v": "verb", "adj": "adjective", "adv": "adverb"}
    seen: set[str] = set()
    page: list[str] = []
    for entry in re.split(r"\n(?=\S)", text.decode("utf-8")):
        headword, _, body = entry.partition("\n")
        kind = ""
        for sense in re.split(r"\n {4}(?=\S)", "\n" + body):
            match = re.fullmatch(r"(?:(n|v|adj|adv) )?\d+: (.*)", " ".join(sense.split()))
            if match is None:  # the description of the file at its start, or nothing
                continue
            kind = kinds.get(match[1], kind)
            meaning, _, relations = match[2].partition(" [")
            if meaning in seen:
                continue
            seen.add(meaning)
            page.append(f"{headword} ({kind}): {meaning}" + _related(headword, relations))
        if sum(map(len, page)) > PAGE // 4:
            yield "\n".join(page)
            page = []
    if page:
        yield "\n".join(page)


def _related(headword: str, relations: str) -> str:
    """WordNet's `syn: {a}, {b}] [ant: {c}]` in words."""
    text = ""
    for label, title in (("syn", "Synonyms"), ("ant", "Antonyms")):
        if found := re.search(rf"{label}: ([^]]*)", relations):
            names = [name for name in re.findall(r"{([^}]*)}", found[1]) if name != headword]
            text += f". {title}: {', '.join(names)}" if names else ""
    return text


# Tables, generated data and tests rather than programs; pydoc's topics are prose.
NOT_PROGRAMS = re.compile(r"/encodings/|/pydoc_data/|/html/entities|_sysconfigdata|/test/")
CODE_CUTS = ("\n\n\nclass ", "\n\n\ndef ", "\n\n\n", "\n\n    def ", "\n\n", "\n")


def python(places: Places) -> Iterator[str]:
    for place in places.values():
        for path in sorted(place.glob("usr/lib/python3*/**/*.py")):
            if not path.is_symlink() and not NOT_PROGRAMS.search(str(path)):
                code = read(path).replace("\f", "")
                yield from pages(code, CODE_CUTS)


# A table of contents, Unicode tables, a copy of the newest release notes, other languages.
NOT_PERL_PROSE = {
    *("perltoc", "perluniprops", "perldelta"),
    *("perlcn", "perljp", "perlko", "perltw"),
}


def perl(places: Places) -> Iterator[str]:
    for path in sorted(places["perl-doc"].glob("usr/share/perl/*/pod/*.pod")):
        if path.stem not in NOT_PERL_PROSE:
            yield from pages(text_from_pod.text(_read_any(path)))


# Notes on the project or the translators, the same on every page.
CLOSING_SECTIONS = re.compile(r"\n(?:COLOPHON|TRADUCTION)\n.*", re.DOTALL)


def manual(places: Places) -> Iterator[str]:
    for place in places.values():
        for path in sorted(place.glob("usr/share/man/**/man[0-9]/*.gz")):
            if not path.is_symlink() and (text := text_from_roff.text(_read_any(path))):
                yield from pages(CLOSING_SECTIONS.sub("", text))


# Lists of links and books, and pages about the web site.
NOT_ESSAYS = {
    *("alinks", "arlinks", "biblio", "book", "contact", "index", "links", "new", "pdf"),
    *("supplementary", "translations"),
}


def politics(places: Places) -> Iterator[str]:
    for path in sorted((places["anarchism"] / "usr/share/doc/anarchism/html").glob("*.html")):
        if path.stem not in NOT_ESSAYS:
            for section in text_from_html.sections(_read_any(path)):
                if len(section) > 200:  # a heading alone is no document
                    yield from pages(section)


def _read_any(path: Path) -> str:
    """Text of an age in which UTF-8 was not yet everywhere."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
