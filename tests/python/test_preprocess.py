"""preprocess/: token files, shards, the corpus and the cleaning of its texts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import struct
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zstandard

import bpe
import domains
import prepare
import shards
import text_from_html
import text_from_pod
import text_from_roff
from failures import Failure, InputError
from indexed_dataset import Reader, Writer
from workers import in_order

TEXTS = [
    f"Document {n}: the {colour} boat\nsails {n * n} miles, naïvely — 船.\n" * (n % 7 + 1)
    for n, colour in enumerate(["red", "green", "blue", "white"] * 20)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    bpe.train(TEXTS, 300, path)
    return path


def jsonl(texts) -> bytes:
    return b"".join(json.dumps({"id": 1, "text": text}).encode() + b"\n" for text in texts)


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments)])
    try:
        return prepare.main()
    except SystemExit as leave:  # argparse
        return leave.code


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()}


# --- token files --------------------------------------------------------------------------------


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65499, "<u2"), (65500, "<i4")])
def test_documents_come_back(tmp_path, vocabulary, dtype):
    documents = [[1, 2, 3], [vocabulary - 1], [0, 7]]
    with Writer(tmp_path / "a.b", vocabulary) as writer:
        writer.extend(np.array([1, 2, 3, vocabulary - 1]), [3, 1])
        writer.extend(np.array([], dtype=int), [])
        writer.extend(np.array([0, 7]), [2])
    reader = Reader(tmp_path / "a.b")
    assert reader.dtype == np.dtype(dtype)
    assert [reader[i].tolist() for i in range(len(reader))] == documents
    assert sorted(contents(tmp_path)) == ["a.b.bin", "a.b.idx"]
    assert (
        writer.bin_sha256.hexdigest() == hashlib.sha256(contents(tmp_path)["a.b.bin"]).hexdigest()
    )


@pytest.mark.parametrize(("vocabulary", "code", "letter"), [(1000, 8, "H"), (70000, 4, "i")])
def test_bytes_of_the_files(tmp_path, vocabulary, code, letter):
    with Writer(tmp_path / "t", vocabulary) as writer:
        writer.extend(np.array([5, 6, 7, 8, 9, 10]), [2, 3, 1])
    size = struct.calcsize(f"<{letter}")
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, 3, 4)
    assert len(index) == 34
    index += struct.pack("<3i", 2, 3, 1)
    index += struct.pack("<3q", 0, 2 * size, 5 * size)
    index += struct.pack("<4q", 0, 1, 2, 3)
    assert (tmp_path / "t.idx").read_bytes() == index
    assert (tmp_path / "t.bin").read_bytes() == struct.pack(f"<6{letter}", 5, 6, 7, 8, 9, 10)


@pytest.mark.parametrize("tokens", [[1, 10], [-1, 2]])
def test_a_failed_writer_changes_nothing(tmp_path, tokens):
    with Writer(tmp_path / "t", 10) as writer:
        writer.extend(np.array([1, 2]), [2])
    before = contents(tmp_path)
    with (
        pytest.raises(InputError, match=r"vocabulary of 10; ids 0 to 9"),
        Writer(tmp_path / "t", 10) as writer,
    ):
        writer.extend(np.array([3, 4]), [2])
        writer.extend(np.array(tokens), [2])
    assert contents(tmp_path) == before


def test_no_documents_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no documents"), Writer(tmp_path / "t", 10):
        pass
    assert contents(tmp_path) == {}


def test_reader_refuses_what_does_not_fit(tmp_path):
    with Writer(tmp_path / "t", 10) as writer:
        writer.extend(np.array([1, 2, 3]), [1, 2])
    (tmp_path / "t.bin").write_bytes(b"\0\0")
    with pytest.raises(InputError, match=r"t\.bin: 2 bytes, but its index describes 6"):
        Reader(tmp_path / "t")
    (tmp_path / "t.idx").write_bytes((tmp_path / "t.idx").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"t\.idx: .* need 82"):
        Reader(tmp_path / "t")


# --- shards -------------------------------------------------------------------------------------


def tokenize(monkeypatch, tokenizer, output, *inputs, workers=1, extra=()):
    return run(
        monkeypatch,
        *("tokenize", *inputs, "--source", "s", "--tokenizer", tokenizer, "--output", output),
        *("--workers", workers, *extra),
    )


def test_tokens_are_those_of_the_library(tmp_path, monkeypatch, tokenizer):
    (tmp_path / "a.jsonl").write_bytes(jsonl(["one boat", "", "two boats"]))
    library = bpe.load(tokenizer).tokenizer
    for extra, tail in (((), [0]), (("--no-append-eod",), [])):
        assert tokenize(monkeypatch, tokenizer, tmp_path, tmp_path / "a.jsonl", extra=extra) == 0
        reader = Reader(tmp_path / "s")
        expected = [library.encode(text).ids + tail for text in ("one boat", "two boats")]
        assert [reader[i].tolist() for i in range(len(reader))] == expected
        facts = json.loads((tmp_path / "s.manifest.json").read_text())
        assert facts["documents"] == 2
        assert facts["empty_documents"] == 1
        assert facts["tokens"] == sum(map(len, expected))
        (tmp_path / "s.idx").unlink()


def test_workers_do_not_change_the_files(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(shards, "CHUNK_BYTES", 1000)
    inputs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    inputs[0].write_bytes(jsonl(TEXTS[:50]))
    inputs[1].write_bytes(jsonl(TEXTS[50:]))
    for workers in (1, 3):
        output = tmp_path / str(workers)
        assert tokenize(monkeypatch, tokenizer, output, *inputs, workers=workers) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert len(Reader(tmp_path / "1/s")) == len(TEXTS)


def test_errors_in_workers_are_the_same_line(tmp_path, monkeypatch, tokenizer, capfd):
    monkeypatch.setattr(shards, "CHUNK_BYTES", 1000)
    shard = tmp_path / "a.jsonl"
    shard.write_bytes(jsonl(TEXTS) + b'{"id": 2}\n')
    assert tokenize(monkeypatch, tokenizer, tmp_path / "out", shard, workers=2) == 2
    error = f"prepare.py: {shard}:{len(TEXTS) + 1}: no key 'text' (found: id)\n"
    assert capfd.readouterr().err == error
    assert contents(tmp_path / "out") == {}


def test_a_killed_worker_is_an_error():
    exits = partial(partial, os._exit)  # make() gives the worker's function
    with pytest.raises(Failure, match=r"a worker ended \(exit code 3\)"):
        list(in_order([3, 3, 3], exits, 2))


def test_compression_does_not_change_the_files(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(shards, "READ_BYTES", 100)
    plain = jsonl(TEXTS)
    half = len(plain) // 2
    gz = gzip.compress(plain[:half]) + gzip.compress(plain[half:])  # two members, as pigz writes
    zstd = zstandard.ZstdCompressor()
    zst = zstd.compress(plain[:half]) + zstd.compress(plain[half:])
    for name, data in {"a.jsonl": plain, "a.jsonl.gz": gz, "a.jsonl.zst": zst}.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / name).write_bytes(data)
        # A folder stands for the shards in it.
        assert tokenize(monkeypatch, tokenizer, tmp_path / name, tmp_path / "in" / name) == 0
    files = [contents(tmp_path / name) for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst")]
    for kind in ("s.bin", "s.idx"):
        assert files[0][kind] == files[1][kind] == files[2][kind]


def streamed_zstd(data: bytes) -> bytes:
    out = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as stream:
        stream.write(data)
    return out.getvalue()


GOOD = jsonl(["a boat"])
BAD_SHARDS = {
    "key": ("a.jsonl", GOOD + b'{"txt": "x", "id": 1}\n', ":2: no key 'text' (found: txt, id)"),
    "list": ("a.jsonl", b"[1]\n", ":1: no key 'text' (found: list)"),
    "json": ("a.jsonl", GOOD + b"\n{'text': 1}\n", ":3: not JSON"),
    "utf8": ("a.jsonl", b'{"text": "\xff"}\n', ":1: not JSON"),
    "type": ("a.jsonl", b'{"text": 12}\n', ":1: 'text' is 12; expected a string"),
    "surrogate": ("a.jsonl", b'{"text": "ab\\ud800"}\n', ":1: 'text' has half a surrogate pair"),
    "empty": ("a.jsonl", b"", ": empty shard; expected one JSON object on each line"),
    "blank": ("a.jsonl", b"\n \n", ": empty shard"),
    "no text": ("a.jsonl", b'{"text": ""}\n', "no documents to write"),
    "suffix": ("a.json.bz2", GOOD, ": unknown suffix '.bz2'; a shard ends in .jsonl, .gz or .zst"),
    "gz": ("a.jsonl.gz", b"not gzip", ": broken gz data"),
    "gz checksum": ("a.gz", gzip.compress(GOOD)[:-5] + b"12345", ": broken gz data"),
    "gz end": ("a.jsonl.gz", gzip.compress(GOOD)[:-5], ": gz data ends early"),
    "zst": ("a.jsonl.zst", b"not zstd", ": broken zst data"),
    "zst end": ("a.jsonl.zst", streamed_zstd(GOOD * 1000)[:-5], ": zst data ends early"),
}


@pytest.mark.parametrize("case", BAD_SHARDS)
def test_bad_shards(tmp_path, monkeypatch, tokenizer, capsys, case):
    name, data, message = BAD_SHARDS[case]
    shard = tmp_path / name
    shard.write_bytes(data)
    assert tokenize(monkeypatch, tokenizer, tmp_path / "out", shard) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert str(shard) in error or case == "no text"
    assert contents(tmp_path / "out") == {}


def test_bad_usage(tmp_path, monkeypatch, tokenizer, capsys):
    shard, broken = tmp_path / "a.jsonl", tmp_path / "broken.json"
    shard.write_bytes(GOOD)
    broken.write_text("{}")
    out = tmp_path / "out"
    cases = [
        (tokenizer, tmp_path / "b.jsonl", (), "b.jsonl: no such file or folder"),
        (tokenizer, out, (), "out: no such file or folder"),
        (broken, shard, (), "broken.json: not a Hugging Face tokenizer.json"),
        (tmp_path / "none", shard, (), "none: no such file; expected a Hugging Face tokenizer"),
        (tokenizer, shard, ("--eod-token", "</s>"), "has no token '</s>'"),
        (
            tokenizer,
            shard,
            ("--vocabulary", "299"),
            "token ids reach 299, but the vocabulary is 299",
        ),
        (tokenizer, shard, ("--workers", "0"), "--workers 0: 1 or more are needed"),
        (tokenizer, shard, ("--source", "a:b"), "'a:b': a name has letters"),
    ]
    for chosen, inputs, extra, message in cases:
        out_of_case = tmp_path / "case"
        assert tokenize(monkeypatch, chosen, out_of_case, inputs, extra=extra) == 2, message
        assert message in capsys.readouterr().err
        assert not list(out_of_case.glob("*"))


def test_an_existing_token_file_is_kept(tmp_path, monkeypatch, tokenizer, capsys):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    arguments = (monkeypatch, tokenizer, tmp_path, tmp_path / "a.jsonl")
    assert tokenize(*arguments) == 0
    before = contents(tmp_path)
    assert tokenize(*arguments) == 2
    assert "exists; --overwrite replaces it" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert tokenize(*arguments, extra=("--overwrite",)) == 0


# --- tokenizer ----------------------------------------------------------------------------------


def test_tokenizer_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS))
    (tmp_path / "b.txt").write_text("\n".join(TEXTS))
    output = tmp_path / "tokenizer.json"
    inputs = (tmp_path / "a.jsonl", tmp_path / "b.txt")
    command = ("tokenizer", *inputs, "--output", output, "--vocabulary")
    assert run(monkeypatch, *command, 290) == 0
    trained = bpe.load(output)
    assert (trained.size, trained.end_of_document) == (290, 0)
    text = "\tdef f():\n        return 'ä\0'  # 船 "
    assert trained.tokenizer.decode(trained.tokenizer.encode(text).ids) == text
    assert run(monkeypatch, *command, 256) == 2
    assert "byte-level BPE needs 257 or more" in capsys.readouterr().err


# --- corpus -------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    made = {"boats": tmp_path / "boats", "numbers": tmp_path / "numbers"}
    for folder in made.values():
        (folder / "deep").mkdir(parents=True)
    for n, text in enumerate(TEXTS):
        (made["boats"] / f"{n}.txt").write_text(text)
        (made["numbers"] / "deep" / f"{n}.txt").write_text(" ".join(map(str, range(n, n + 50))))
    (made["numbers"] / "copy.txt").write_text(TEXTS[0])
    return made


def corpus(monkeypatch, output, folders, *extra) -> int:
    texts = [f"--text={name}={folder}" for name, folder in folders.items()]
    return run(monkeypatch, "corpus", "--output", output, "--vocabulary", "320", *texts, *extra)


def test_corpus(tmp_path, monkeypatch, folders, capsys):
    output = tmp_path / "corpus"
    assert corpus(monkeypatch, output, folders) == 0
    content = json.loads((output / "corpus.json").read_text())

    readers = {name: Reader(output / name) for name in folders}
    assert [len(reader) for reader in readers.values()] == [80, 80]  # the copy is left out
    decode = bpe.load(output / "tokenizer.json").tokenizer.decode
    texts = [decode(readers["boats"][i][:-1].tolist()) for i in range(80)]
    assert sorted(texts) == sorted(text.strip() for text in TEXTS)
    assert texts != sorted(texts)
    assert all(readers["boats"][i][-1] == 0 for i in range(80))

    training = {
        name: np.concatenate([reader[i] for i in range(76)]) for name, reader in readers.items()
    }
    counts = Counter(np.concatenate(list(training.values())).tolist())
    total = counts.total()
    loss = {token: -math.log(count / total) for token, count in counts.items()}
    entropy = sum(count / total * loss[token] for token, count in counts.items())
    assert content["unigram_nats_per_token"] == pytest.approx(entropy, abs=1e-5)
    for name, facts in content["domains"].items():
        assert facts["training_documents"] == 76
        assert facts["training_tokens"] == training[name].size
        mean = np.mean([loss[token] for token in training[name].tolist()])
        assert facts["unigram_nats_per_token"] == pytest.approx(mean, abs=1e-5)
        for kind in ("bin", "idx"):
            digest = hashlib.sha256((output / f"{name}.{kind}").read_bytes()).hexdigest()
            assert facts[f"{kind}_sha256"] == digest


def test_corpus_is_made_once(tmp_path, monkeypatch, folders, capsys):
    output = tmp_path / "corpus"
    assert corpus(monkeypatch, output, folders) == 0
    before, times = contents(output), [path.stat().st_mtime_ns for path in output.glob("*")]
    capsys.readouterr()
    assert corpus(monkeypatch, output, folders) == 0
    assert "complete already" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in output.glob("*")] == times

    (output / "boats.bin").write_bytes(b"damaged")
    assert corpus(monkeypatch, output, folders) == 0
    assert contents(output) == before

    (folders["boats"] / "more.txt").write_text("A black boat.")
    assert corpus(monkeypatch, output, folders) == 0
    assert len(Reader(output / "boats")) == 81
    assert corpus(monkeypatch, output, {"boats": folders["boats"]}) == 0
    assert not (output / "numbers.idx").exists()  # of another tokenizer


def test_corpus_limits_a_domain(tmp_path, monkeypatch, folders):
    assert corpus(monkeypatch, tmp_path / "corpus", folders, "--domain-bytes", "4000") == 0
    content = json.loads((tmp_path / "corpus/corpus.json").read_text())
    assert all(3500 < facts["bytes"] <= 4000 for facts in content["domains"].values())


def test_corpus_bad_input(tmp_path, monkeypatch, folders, capsys):
    small = tmp_path / "small"
    small.mkdir()
    output = tmp_path / "corpus"
    cases = [({"s": small}, "small: no .txt files"), ({"s": tmp_path / "no"}, "no: no such folder")]
    for texts, message in cases:
        assert corpus(monkeypatch, output, texts) == 2
        assert message in capsys.readouterr().err
    (small / "a.txt").write_text("a")
    assert corpus(monkeypatch, output, {"s": small}) == 2
    assert "s: 1 documents cannot be split 95,5,0; 11 or more" in capsys.readouterr().err
    (small / "a.txt").write_bytes(b"caf\xe9")
    assert corpus(monkeypatch, output, {"s": small}) == 2
    assert "a.txt: byte 3 is not UTF-8" in capsys.readouterr().err
    assert corpus(monkeypatch, output, folders, "--vocabulary=256") == 2
    assert "--vocabulary 256: byte-level BPE needs 257 or more" in capsys.readouterr().err
    assert contents(output) == {}


def test_show(tmp_path, monkeypatch, tokenizer, capsys):
    (tmp_path / "a.jsonl").write_bytes(jsonl(["one", "two boats", "three"]))
    tokenize(monkeypatch, tokenizer, tmp_path, tmp_path / "a.jsonl")
    capsys.readouterr()
    show = ("show", tmp_path / "s", "--tokenizer", tokenizer, "--first")
    assert run(monkeypatch, *show, 1) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["two boats<|endoftext|>"]
    assert run(monkeypatch, *show, 3) == 2
    assert "holds documents 0 to 2" in capsys.readouterr().err


# --- texts --------------------------------------------------------------------------------------


def test_pages_are_cut_where_the_text_allows(monkeypatch):
    monkeypatch.setattr(domains, "PAGE", 20)
    text = "\n\naaaa aaaa\naaaa\n\n  bb bbbb\nbbbb bbbb\ncccc" + "d" * 30 + "\n\n"
    assert list(domains.pages(text)) == [
        "aaaa aaaa\naaaa",
        "  bb bbbb\nbbbb bbbb",
        "cccc" + "d" * 16,
        "d" * 14,
    ]


def test_manual_page():
    source = r"""
.\" a comment
.TH WAIT 2 2023-01-01 "Linux"
.SH NAME
wait \- wait for \fIone\fP process
.SH SYNOPSIS
.nf
.BI "pid_t wait(int *" status );
.fi
.PP
See
.BR exit (3), \" why
\[lq]caf\['e]\[rq] \(em \e0.
.TP
.B WNOHANG
return
at once
.IP \[bu] 3
item
.TS
l l.
a	T{
.BR b ()
T}
.TE
"""
    assert text_from_roff.text(source) == (
        "WAIT(2)\n\nNAME\nwait - wait for one process\n\nSYNOPSIS\npid_t wait(int *status);\n\n"
        'See exit(3), "café" — \\0.\n\nWNOHANG\n    return at once\n\n    • item\n\n    a  b()'
    )
    assert text_from_roff.text(".so man2/wait.2\n") is None


def test_pod():
    source = """=head1 C<open> E<gt> X<index>I/O

Some B<bold
text>, L<perlop/"Quotes">, L<the shell|sh(1)>, C<< $a->{b} >> and S<<-- HERE>.

  code  <kept>

=over 4

=item *

First

=item name

Second

=back

=begin html

<p>

=end html

=cut
"""
    assert text_from_pod.text(source) == (
        'open > I/O\n\nSome bold text, "Quotes" in perlop, the shell, $a->{b} and <-- HERE.\n\n'
        "  code  <kept>\n\n- First\n\nname\n\nSecond"
    )


def test_html():
    page = """<html><head><title>no</title></head><body><h1>One</h1>
<p>First &amp;
<i>last</i>.<br>Next</p><ul><li><p>item</p></li></ul><h2>Two</h2>tail"""
    assert list(text_from_html.sections(page)) == [
        "One\n\nFirst & last.\nNext\n\n- item",
        "Two\n\ntail",
    ]


def test_dictionary(tmp_path):
    entries = """00-database-info
    About this file.
boat
    n 1: a small vessel for
         travel on water [syn: {boat}, {ship}]
    v 1: ride in a boat
ship
    n 1: a small vessel for travel on water [syn: {boat}, {ship}]
    2: large [ant: {small}]
"""
    place = tmp_path / "usr/share/dictd"
    place.mkdir(parents=True)
    (place / "wn.dict.dz").write_bytes(gzip.compress(entries.encode()))
    (page,) = domains.dictionary({"dict-wn": tmp_path})
    assert page.splitlines() == [
        "boat (noun): a small vessel for travel on water. Synonyms: ship",
        "boat (verb): ride in a boat",
        "ship (noun): large. Antonyms: small",
    ]
