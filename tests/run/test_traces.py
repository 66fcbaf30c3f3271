"""traces.h5: where training sent single tokens, held against the statistics and against itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, Launch, TinyRun, train
from counted_traces import count_checkpoint, count_interval, read_traces, shape_of
from layout_matrix import routers
from tiny_run import same

from compare import report
from run_comparison import TRACES, compare_runs

VOCABULARY, SEQUENCES, LENGTH, CELL, STEPS = 64, 9, 16, 2, 6  # of the tiny run
TOKENS = SEQUENCES * LENGTH
# Two layers with experts, and more of them in one.
LAYERS = ("--model.layers=3", "--moe.experts=5,7")
EVERY_TOKEN = ("--statistics.trace_every=1", "--statistics.trace_tokens=0")

CASES = {router: (f"--moe.router={router}",) for router in routers()} | {
    "drops by position": (
        "--moe.router=capacity",
        "--capacity.factor=0.6",
        "--capacity.drop=position",
    ),
    "sigmoids": ("--top_k.score=sigmoid", "--top_k.renormalise=true", "--top_k.scale=2.5"),
    "light experts": (
        "--moe.copy_experts=1",
        "--moe.constant_experts=1",
        "--moe.zero_experts=1",
        "--moe.null_experts=2",
    ),
    "bf16": ("--model.compute_type=bf16",),
    "fp64": ("--model.compute_type=fp64", "--moe.router=top_p"),
}


def assert_same_traces(one: Path, other: Path) -> None:
    comparison = compare_runs(one, other)
    assert comparison.same, "\n".join(report(comparison))
    assert not comparison.statistics[TRACES].notes
    assert comparison.statistics[TRACES].common["trace"].size > 0


@pytest.mark.parametrize("case", CASES)
def test_counts_of_traces_are_the_statistics(launch: Launch, tiny: TinyRun, case: str) -> None:
    options = (*LAYERS, *EVERY_TOKEN, *CASES[case])
    train(launch, tiny, "one", (1, 1, 2), *options)
    train(launch, tiny, "three", (3, 3, 1), *options)
    assert_same_traces(tiny.folder / "one", tiny.folder / "three")

    traces = read_traces(tiny.folder / "one" / TRACES)
    assert traces.trace.tolist() == list(range(1, STEPS + 1))
    place = traces.sequence * LENGTH + traces.position
    assert (place == np.arange(TOKENS)).all()

    # Experts best first; behind them nothing.
    none = traces.choice < 0
    assert (traces.choice[none] == -1).all() and (np.isnan(traces.gate) == none).all()
    assert (none[..., :-1] <= none[..., 1:]).all()
    first, second = traces.gate[..., :-1], traces.gate[..., 1:]
    later = traces.choice[..., :-1] < traces.choice[..., 1:]
    assert ((first > second) | ((first == second) & later) | none[..., 1:]).all()

    shape = shape_of(traces, VOCABULARY)
    with h5py.File(tiny.folder / "one" / "routing.h5") as file:
        before = 0
        for row, last in enumerate(file["interval"][:]):
            expected = count_interval(traces, shape, before, last)
            mass = expected.pop("gate_mass")
            for name, count in expected.items():
                np.testing.assert_array_equal(file[name][row], count, err_msg=name)
            # The program rounds each cell's sum to its unit; the gates of fp64 were rounded before.
            cells = (last - before) * -(-SEQUENCES // CELL)
            rounded = mass * 2**-24 if case == "fp64" else 0
            assert (abs(file["gate_mass"][row] - mass) <= cells * 2**-30 + rounded).all()
            if case in ("top_k", "capacity", "drops by position"):
                copies = expected["expert_count"].sum(axis=1)
                assert (file["dropped"][row] == 3 * expected["tokens"] - copies).all()
            before = last
        before = 0
        for row, last in enumerate(file["checkpoint"][:]):
            for name, count in count_checkpoint(traces, shape, before, last).items():
                counted = file[name][row]
                # Counts may be kept for parts of the tokens, beside the axes that this test knows.
                axes = [axis.label for axis in file[name].dims][1:]
                if "half" in axes:
                    counted = counted.sum(axis=axes.index("half"))
                np.testing.assert_array_equal(counted, count, err_msg=name)
            before = last
        assert before == STEPS
        if case == "drops by position":
            assert file["dropped"][:].sum() > 0


def test_a_sample_is_rows_of_the_whole(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "whole", (1, 1, 1), *LAYERS, *EVERY_TOKEN, "--moe.router=top_p")
    some = ("--statistics.trace_every=2", "--statistics.trace_tokens=20",
            "--statistics.trace_layers=2")  # fmt: skip
    for layout in [(1, 1, 1), (4, 2, 1)]:
        train(launch, tiny, str(layout[0]), layout, *LAYERS, *some, "--moe.router=top_p")
    assert_same_traces(tiny.folder / "1", tiny.folder / "4")
    whole, sample = (read_traces(tiny.folder / name / TRACES) for name in ("whole", "4"))
    assert sample.trace.tolist() == [2, 4, 6]
    assert sample.token.shape == (3, 20) and sample.choice.shape == (3, 1, 20, 7)
    with h5py.File(tiny.folder / "4" / TRACES) as file:
        assert file["layer"][:].tolist() == [2] and file["experts"][:].tolist() == [7]
    for row, step in enumerate(sample.trace):
        places = sample.sequence[row] * LENGTH + sample.position[row]
        assert places.tolist() == sampled(1234, step, TOKENS, 20)
        assert (sample.token[row] == whole.token[step - 1, places]).all()
        assert (sample.token_source[row] == whole.token_source[step - 1, places]).all()
        assert same(sample.choice[row, 0], whole.choice[step - 1, 1, places])
        assert same(sample.gate[row, 0], whole.gate[step - 1, 1, places])


def mix(x: int) -> int:
    """The finaliser of SplitMix64."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def sampled(seed: int, step: int, tokens: int, size: int) -> list[int]:
    """Places of the sample, as docs/file_formats.md defines it."""
    name = 0xCBF29CE484222325
    for byte in b"trace":
        name = ((name ^ byte) * 0x100000001B3) % 2**64
    stream = mix((mix(seed ^ name) + int(step)) % 2**64)
    return sorted(sorted(range(tokens), key=lambda place: mix((stream + place) % 2**64))[:size])


def test_traces_name_the_tokens_of_the_data(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (2, 2, 1), *EVERY_TOKEN, "--data.order=sequential")
    with h5py.File(tiny.output / TRACES) as file:
        names = list(file["source"].asstr()[:])
        token, source = file["token"][:], file["token_source"][:]
    assert names == ["even", "odd"]
    seen = set()
    for row in range(STEPS):
        for sequence in range(SEQUENCES):
            of = slice(sequence * LENGTH, (sequence + 1) * LENGTH)
            (number,) = set(source[row, of])
            data = np.fromfile(
                tiny.folder / f"{names[number]}.bin", token_type(tiny, names[number])
            )
            windows = np.lib.stride_tricks.sliding_window_view(data, LENGTH)
            assert (windows == token[row, of]).all(axis=1).any(), (row, sequence)
            seen.add(number)
    assert seen == {0, 1}


def token_type(tiny: TinyRun, source: str) -> np.dtype:
    """Of a token file, from its index: the codes of Megatron."""
    index = (tiny.folder / f"{source}.idx").read_bytes()
    return np.dtype({4: np.int32, 8: np.uint16}[index[17]])


def test_stops_and_running_blocks_again_change_no_trace(launch: Launch, tiny: TinyRun) -> None:
    some = (*LAYERS, "--statistics.trace_every=2", "--statistics.trace_tokens=50")
    train(launch, tiny, "reference", (1, 1, 1), *some)
    again = (*some, "--model.recompute=block")
    train(launch, tiny, "stopped", (2, 2, 1), *again, "--run.stop_step=2")
    train(launch, tiny, "stopped", (1, 1, 1), *again, "--run.stop_step=3")
    train(launch, tiny, "stopped", (3, 1, 1), *again, "--run.stop_step=5")
    train(launch, tiny, "stopped", (4, 2, 1), *again)
    assert_same_traces(tiny.folder / "reference", tiny.folder / "stopped")
    # The course from step 3 once more.
    (tiny.folder / "stopped/checkpoints/step_00000006.h5").unlink()
    (tiny.folder / "stopped/checkpoints/step_00000005.h5").unlink()
    train(launch, tiny, "stopped", (3, 3, 1), *some)
    assert_same_traces(tiny.folder / "reference", tiny.folder / "stopped")


def test_traces_may_begin_and_end_with_a_restart(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 1), "--run.stop_step=2")
    assert not (tiny.output / TRACES).exists()
    begin = launch(1, "train", str(tiny.deck), "--statistics.trace_every=1", "--run.stop_step=5")
    assert begin.returncode == 75, begin.stderr
    assert f"{tiny.output / TRACES} is not there: it begins after step 2\n" in begin.stderr
    with h5py.File(tiny.output / TRACES) as file:
        assert file["trace"][:].tolist() == [3, 4, 5]
    # Rows beyond the checkpoint belong to a course that is not taken, traced or not.
    (tiny.output / "checkpoints/step_00000005.h5").unlink()
    train(launch, tiny, "output", (2, 2, 1))
    with h5py.File(tiny.output / TRACES) as file:
        assert file["trace"][:].tolist() == [3]


def test_what_is_traced_stays_in_a_run(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 1), *EVERY_TOKEN, "--run.stop_step=2")
    finished = launch(1, "train", str(tiny.deck), "--statistics.trace_tokens=7")
    assert finished.returncode == 2
    error = finished.stderr.splitlines()[-1]
    assert "was made with statistics.trace_tokens = 0, the deck says 7; keep the value" in error


@pytest.mark.parametrize("layers", ["0", "1,1", "2,1", "3", "1,", "all,1", "-1", "1 2"])
def test_layers_that_cannot_be_traced(launch: Launch, tiny: TinyRun, layers: str) -> None:
    finished = launch(1, "check", str(tiny.deck), f"--statistics.trace_layers={layers}", *LAYERS)
    assert finished.returncode == 2
    (error,) = finished.stderr.splitlines()
    assert error == (
        f"hearth: {tiny.deck}: statistics.trace_layers = {layers}; expected all, or blocks with "
        "experts, which are 1 to 2, in ascending order, as in 1,4,8"
    )


def test_a_dense_model_has_no_traces(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (2, 1, 1), "--moe.experts=0", *EVERY_TOKEN)
    assert not (tiny.output / TRACES).exists()


def test_check_counts_the_memory(launch: Launch, tiny: TinyRun) -> None:
    many = ("--batch.global_batch=4096", "--statistics.trace_every=2")
    said = [
        launch(1, "check", str(tiny.deck), *many, f"--statistics.trace_tokens={tokens}").stdout
        for tokens in (0, 4096)
    ]
    found = [re.search(r"routing traces there at the last step, GiB: ([\d.]+)\n", s) for s in said]
    # 65,536 tokens of 16 bytes and 3 choices of 8: 2.5 MiB a row; three at the end, twice, and
    # what the last is made of, three times.
    assert found[0] and float(found[0][1]) == pytest.approx(2.5 * 9 / 1024, abs=6e-4)
    assert found[1] and float(found[1][1]) == pytest.approx(2.5 * 9 / 1024 / 16, abs=6e-4)
    assert "traces" not in launch(1, "check", str(tiny.deck)).stdout.split("# sizes")[1]


def test_the_manual_reads_a_file(launch: Launch, tiny: TinyRun) -> None:
    """The lines of docs/file_formats.md that read traces.h5."""
    train(launch, tiny, "output", (1, 1, 1), *EVERY_TOKEN)
    manual = (ROOT / "docs" / "file_formats.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)
    (lines,) = [block for block in blocks if TRACES in block]
    finished = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=tiny.output,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    with h5py.File(tiny.output / "routing.h5") as file:
        counts = file["expert_count"][:].sum(axis=0)
    assert finished.stdout.strip() == str(counts)
