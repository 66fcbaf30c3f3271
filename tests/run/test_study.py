"""inputs/study: decks that differ in routing alone, the runs in order, and what is made of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from conftest import Launch, TinyRun, make_tiny_run

ROOT = Path(__file__).resolve().parents[2]
DECKS = sorted((ROOT / "inputs/study").glob("*.deck"))
sys.path.insert(0, str(ROOT / "postprocess"))

import study  # noqa: E402

CHANGED = {  # by routing alone
    "dense": r"moe\..*|model\.dense_ffn",
    "capacity": r"moe\.router|capacity\..*",
    "bias": r"moe\.router|moe\.balance_loss|bias_balanced\..*",
    "top": r"moe\.router|top_p\..*",
    "relu": r"moe\.router|relu\..*",
    "hash": r"moe\.router",
}


def check(launch: Launch, deck: Path, *options: str) -> tuple[dict[str, str], float]:
    """The resolved deck, and training FLOPs per token."""
    finished = launch(1, "check", str(deck), *options)
    assert finished.returncode == 0, finished.stderr
    text, numbers = finished.stdout.split("\n# sizes\n")
    found = re.search(r"training FLOPs per token +(\S+)", numbers)
    assert found
    return study.resolved_deck(text), float(found[1])


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_decks_differ_in_routing_alone(launch: Launch, deck: Path) -> None:
    resolved, flops = check(launch, deck)
    reference, reference_flops = check(launch, ROOT / "inputs/study/top_k.deck")
    changed = {key for key in reference if resolved[key] != reference[key]} - {"run.output"}
    allowed = CHANGED[re.split(r"[_.]", deck.stem)[0]]
    assert all(re.fullmatch(allowed, key) for key in changed), changed
    assert flops == pytest.approx(reference_flops, rel=0.015)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--moe.experts=0",),
        ("--model.qk_norm=true", "--model.kv_heads=1", "--moe.shared_ffn=0"),
        ("--moe.dense_layers=0", "--moe.experts=7,9", "--moe.constant_experts=2"),
        ("--moe.router=hash",),
    ],
    ids=lambda options: options[0] if options else "as it is",
)
def test_flops_are_those_of_check(launch: Launch, tiny: TinyRun, options: tuple[str, ...]) -> None:
    deck, flops = check(launch, tiny.deck, *options)
    layers = 0 if deck["moe.experts"] == "0" else 2 - int(deck["moe.dense_layers"])
    assert study.flops_per_token(deck, [3.0] * layers) == pytest.approx(
        flops, rel=6e-4
    )  # of 4 digits


def run(tiny: TinyRun, *options: str) -> subprocess.CompletedProcess[str]:
    """inputs/study/run with three tiny decks and two seeds."""
    decks = {
        "dense": "experts = 7\n->experts = 0\n",
        "top_k": "",
        "relu": "top_k = 3\n->top_k = 3\nrouter = relu\n",
    }
    folder = tiny.folder / "decks"
    folder.mkdir(exist_ok=True)
    for name, change in decks.items():
        old, _, new = change.partition("->")
        (folder / f"{name}.deck").write_text(tiny.deck.read_text().replace(old, new, 1))
    held_out = folder / "held_out.txt"
    held_out.write_text(f"strange:{tiny.folder / 'odd'}\n")
    return subprocess.run(
        [
            ROOT / "inputs/study/run",
            "--decks",
            " ".join(str(folder / f"{name}.deck") for name in decks),
            "--seeds",
            "1 2",
            "--held-out",
            str(held_out),
            "--output",
            str(tiny.folder / "study"),
            f"--data.sources=even:{tiny.folder / 'even'}",
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def test_whole_study(tiny: TinyRun) -> None:
    listed = run(tiny, "--list")
    assert listed.returncode == 0 and len(listed.stdout.splitlines()) == 6, listed.stderr
    first = run(tiny, "--only", "2")
    assert first.returncode == 0, first.stderr
    output = tiny.folder / "study"
    assert [path.parent.name for path in output.glob("*/*/evaluation.txt")] == ["seed_2"]
    rest = run(tiny)
    assert rest.returncode == 0, rest.stderr
    assert rest.stderr.count("study: ") == 5
    assert "study: " not in run(tiny).stderr  # all is done

    # ReMoE begins with half of all experts: its FLOPs are not those of the dense model.
    again = run(tiny, "--match-flops")
    assert again.returncode == 0, again.stderr
    assert (output / "relu-flops/seed_1/held_out.txt").exists()

    report = subprocess.run(
        [sys.executable, ROOT / "postprocess/study.py", output],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=tiny.folder,  # without a corpus
    )
    assert report.returncode == 0, report.stderr
    rows = [line for line in report.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) >= 5  # the header, three decks, relu-flops
    said = r"^dense is (better|worse) than top_k on held-out domains by "
    assert re.search(said, report.stdout, re.MULTILINE)
    assert (output / "study.png").stat().st_size > 10000
    runs = {(r["variant"], r["seed"]): r for r in json.loads((output / "study.json").read_text())}
    wanted = runs["dense", 1]["flops"]
    assert runs["relu-flops", 1]["flops"] == pytest.approx(wanted, rel=0.25)  # of a few steps
    assert runs["dense", 1]["experts_per_token"] == 0
    assert runs["top_k", 1]["experts_per_token"] == 3
    assert runs["top_k", 1]["losses"].keys() == {"even"}
    assert runs["top_k", 1]["held_out"].keys() == {"strange"}


def test_bad_usage(tiny: TinyRun) -> None:
    for options in (("--seed", "1"), ("--only",)):
        finished = run(tiny, *options)
        assert finished.returncode == 2, finished.stderr
    report = subprocess.run(
        [sys.executable, ROOT / "postprocess/study.py", tiny.folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert report.returncode == 2
    assert report.stderr.count("\n") == 1 and "no finished runs" in report.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "0"), "--only: found '0', expected a number from 1"),
        (("--only", "x"), "--only: found 'x', expected a number from 1"),
        (("--only", "1p;2"), "--only: found '1p;2', expected a number from 1"),
        (("--only", ""), "--only: found '', expected a number from 1"),
        (("--only", "77"), "there is no run number 77"),
        (("--ranks", "0"), "--ranks: found '0', expected a number from 1"),
        (("--ranks", "two"), "--ranks: found 'two', expected a number from 1"),
        (("--seeds", "1 x"), "--seeds: found 'x', expected numbers from 0 to 4294967295"),
        (("--seeds", "1,2"), "--seeds: found '1,2', expected numbers from 0 to 4294967295"),
        (("--seeds", "01"), "--seeds: found '01', expected numbers from 0 to 4294967295"),
        (("--seeds", "*"), "--seeds: found '*', expected numbers from 0 to 4294967295"),
        (("--seeds", "4294967296"), "--seeds: found '4294967296', expected numbers from 0 to"),
        (("--seeds", " "), "--seeds: found ' ', expected numbers from 0 to 4294967295"),
        (("--decks", "none.deck"), "--decks: none.deck: no such file"),
        (("--decks", " "), "--decks: found ' ', expected files"),
        (("--held-out", "none.txt"), "--held-out: none.txt: no such file"),
    ],
)
def test_values_of_options_are_checked(tiny: TinyRun, options: tuple[str, str], said: str) -> None:
    for more in (("--list",), ()):
        finished = run(tiny, *options, *more)
        assert finished.returncode == 2, finished.stderr
        assert finished.stdout == ""
        assert finished.stderr.startswith(f"inputs/study/run: {said}")
        assert finished.stderr.count("\n") == 1
    assert not (tiny.folder / "study").exists()


def test_intervals() -> None:
    three = study.interval([1.0, 2.0, 3.0])
    assert three.mean == 2 and three.half_width == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert not three.excludes_zero
    assert study.interval([5.0, 5.1]).excludes_zero
    assert str(study.interval([0.5])) == "0.5000"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of dense and top_k with one seed."""
    tiny = make_tiny_run(tmp_path_factory.mktemp("finished"))
    for number in ("1", "3"):
        trained = run(tiny, "--only", number)
        assert trained.returncode == 0, trained.stderr
    return tiny.folder / "study"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished study, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "study"))


def compared(*arguments: str | Path, status: int, cwd: Path = ROOT) -> tuple[str, str]:
    """What the script prints and its error, which is one line where it fails."""
    done = subprocess.run(
        [sys.executable, ROOT / "postprocess/study.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=cwd,
    )
    assert done.returncode == status, done.stdout + done.stderr
    if status != 0:
        assert done.stderr.startswith("study.py: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stdout, done.stderr


def set_deck(path: Path, old: str, new: str) -> None:
    with h5py.File(path, "r+") as file:
        deck = file.attrs["deck"]
        assert old in deck
        file.attrs["deck"] = deck.replace(old, new)


def test_a_missing_routing_h5_is_no_dense_model(copy: Path) -> None:
    missing = copy / "top_k/seed_1/routing.h5"
    missing.unlink()
    for options in ((), ("--matched-steps",)):
        out, error = compared(copy, *options, status=2)
        assert out == ""
        assert f"{missing}: no such file" in error
        assert "moe.experts = 7" in error
    # Dense is what the settings call so: here by layers.
    set_deck(copy / "top_k/seed_1/training.h5", "\ndense_layers = 1\n", "\ndense_layers = 2\n")
    compared(copy, status=0)


def test_counts_that_were_not_kept_are_no_dense_model(copy: Path) -> None:
    path = copy / "top_k/seed_1/routing.h5"
    with h5py.File(path, "r+") as file:
        for name in ("interval", "tokens", "expert_count", "expert_dropped"):
            kept = file[name][:0]
            labels = [axis.label for axis in file[name].dims]
            del file[name]
            file[name] = kept
            for axis, text in zip(file[name].dims, labels, strict=True):
                axis.label = text
    _, error = compared(copy, status=2)
    assert f"{path}: 'interval' has no rows yet; one is written every statistics.every" in error
    with h5py.File(path, "r+") as file:
        del file["interval"]
    _, error = compared(copy, status=2)
    assert f"{path}: no dataset 'interval'" in error


MANIFEST = '{"domains": {"even": {"bytes_per_token": 2}, "strange": {"bytes_per_token": 3.5}}}'


def bits_per_byte(table: str, variant: str) -> list[str]:
    """Of trained and of held-out domains, as the table has it."""
    row = next(line for line in table.splitlines() if line.startswith(f"| {variant} |"))
    return row.split(" | ")[4:6]


def test_bytes_per_token_are_the_manifests(copy: Path, tmp_path: Path) -> None:
    # Not asked for: the columns are empty, and it is said why.
    out, error = compared(copy, status=0, cwd=tmp_path)
    assert bits_per_byte(out, "top_k") == ["-", "-"]
    assert "nan" not in out
    assert error.count("\n") == 1
    assert "build/corpus/quickstart/corpus.json: no such file" in error and "bits/byte" in error
    # Asked for, it must be there and be one.
    corpus = tmp_path / "corpus.json"
    _, error = compared(copy, "--corpus", corpus, status=2)
    assert f"{corpus}: no such file" in error
    for text in ("no JSON", "[]", '{"domains": {"even": {}}}', '{"domains": {"even": 3}}', "\xff"):
        corpus.write_text(text, encoding="latin-1")
        _, error = compared(copy, "--corpus", corpus, status=2)
        assert f"{corpus}: " in error
    corpus.write_text('{"domains": {"even": {"bytes_per_token": 2}}}')
    out, error = compared(copy, "--corpus", corpus, status=0)
    trained, held_out = bits_per_byte(out, "top_k")
    assert float(trained) > 0 and held_out == "-"
    assert error.count("\n") == 1 and f"{corpus}: has no bytes per token of strange" in error
    corpus.write_text(MANIFEST)
    out, error = compared(copy, "--corpus", corpus, status=0)
    assert error == "" and all(float(bits) > 0 for bits in bits_per_byte(out, "top_k"))


@pytest.mark.parametrize("name", ["training.h5", "routing.h5"])
def test_damaged_files_are_named(copy: Path, name: str) -> None:
    path = copy / "top_k/seed_1" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    _, error = compared(copy, status=2)
    assert f"{path}: damaged HDF5 file" in error
    path.write_text("no HDF5")
    _, error = compared(copy, status=2)
    assert f"{path}: not an HDF5 file" in error


def test_losses_that_cannot_be_read_are_named(copy: Path) -> None:
    path = copy / "top_k/seed_1/held_out.txt"
    path.write_bytes(b"\xff\n")
    _, error = compared(copy, status=2)
    assert f"{path}: has no losses" in error
    path.unlink()
    path.mkdir()
    _, error = compared(copy, status=2)
    assert f"{path}: " in error


def test_an_output_that_cannot_be_written_is_named(copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    corpus = tmp_path / "corpus.json"
    corpus.write_text(MANIFEST)
    arguments = (copy, "--corpus", corpus, "--output")
    for output in (file, file / "below"):
        _, error = compared(*arguments, output, status=1)
        assert f"study.py: {file}" in error and "Errno" not in error
    output = tmp_path / "output"
    (output / "study.json").mkdir(parents=True)
    _, error = compared(*arguments, output, status=1)
    assert error == f"study.py: {output / 'study.json'}: Is a directory\n"
