"""jobscripts/ under Slurm: training over two nodes, a chain, an array, made-up GPUs."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from cluster import Cluster
from conftest import Launch, TinyRun, assert_same_run

DONE = ("COMPLETED", 0)


@pytest.mark.parametrize("launcher", ["srun", "mpirun -q"])
def test_training_over_two_nodes(
    cluster: Cluster, tiny: TinyRun, launch: Launch, launcher: str
) -> None:
    types = cluster.call("bash", "-c", "srun --mpi=list 2>&1")
    if launcher == "srun" and "pmix" not in types:
        pytest.skip(f"this Slurm has no PMIx: {types}")
    job = cluster.submit("jobscripts/cpu/train.sh", tiny.deck, HEARTH_LAUNCHER=launcher)
    assert cluster.end(job) == DONE, cluster.log(job)
    assert cluster.ranks(job) == [("0", node) for node in ("node1", "node1", "node2", "node2")]
    whole = tiny.folder / "whole"
    assert (
        launch(1, "train", str(tiny.deck), f"--run.output={whole}", OMP_NUM_THREADS="1").returncode
        == 0
    )
    assert_same_run(whole, tiny.output)


def test_bad_input_is_not_requeued(cluster: Cluster, tiny: TinyRun) -> None:
    tiny.deck.write_text("[run]\nstep = 6\n")
    job = cluster.submit("jobscripts/cpu/train.sh", tiny.deck)
    assert cluster.end(job) == ("FAILED", 2)
    assert cluster.restarts(job) == 0
    assert "run.step" in cluster.log(job)


def test_chain(cluster: Cluster, tiny: TinyRun) -> None:
    # Training stops twice on the way: the others wait until it is done.
    stop = ("--run.steps=3", "--checkpoint.every_steps=1", "--run.walltime_s=0.001")
    # Many tokens a step: figures leave out the rare ones.
    large = ("--batch.global_batch=600", "--batch.cell_sequences=100")
    answer = cluster.call("jobscripts/submit_chain.sh", "cpu", tiny.deck, *stop, *large)
    jobs = {name: int(number) for name, number in (word.split() for word in answer.split(", "))}
    assert list(jobs) == ["train", "evaluate", "plot"]
    for name, job in jobs.items():
        assert cluster.end(job) == DONE, (name, cluster.log(job))
    assert cluster.restarts(jobs["train"]) == 2
    assert "validation loss" in (tiny.output / "evaluation.txt").read_text()
    plots = {file.name for file in (tiny.output / "plots").iterdir()}
    assert {"loss.png", "expert_load.png"} <= plots
    assert (tiny.output / "report.html").is_file()


def test_chain_ends_where_training_fails(cluster: Cluster, tiny: TinyRun) -> None:
    tiny.deck.write_text("[run]\nstep = 6\n")
    answer = cluster.call("jobscripts/submit_chain.sh", "cpu", tiny.deck)
    jobs = [int(word.split()[1]) for word in answer.split(", ")]
    assert [cluster.end(job)[0] for job in jobs] == ["FAILED", "CANCELLED", "CANCELLED"]


def test_scaling_grid(cluster: Cluster, tiny: TinyRun) -> None:
    wide = tiny.folder / "wide.deck"
    wide.write_text(tiny.deck.read_text().replace("expert_ffn = 20", "expert_ffn = 40"))
    grid = tiny.folder / "grid.txt"
    grid.write_text(f"# two by two\n{tiny.deck} 2e7 3e7\n{wide} 2e7 3e7\n")
    script = ("jobscripts/cpu/scaling_grid.sh", grid)
    # Every step is a start of its own: a task requeues itself, and no other.
    array = cluster.submit("--array=1-4", *script, "--run.walltime_s=0.001")
    jobs = cluster.tasks(array, 4)
    for job, (deck, budget) in zip(jobs, product((tiny.deck, wide), ("2e7", "3e7")), strict=True):
        assert cluster.end(job) == DONE, cluster.log(job)
        steps = int(float(budget) / (6 * active_parameters(cluster, deck) * 9 * 16))
        run = cluster.site / "runs" / "scaling" / f"{deck.stem}-{budget}"
        assert newest_checkpoint(run) == f"step_{steps:08}.h5"
        assert cluster.restarts(job) == steps - 1


def test_study(cluster: Cluster, tiny: TinyRun) -> None:
    dense = tiny.folder / "dense.deck"
    dense.write_text(tiny.deck.read_text().replace("experts = 7", "experts = 0"))
    held_out = tiny.folder / "held_out.txt"
    held_out.write_text(f"strange:{tiny.folder / 'odd'}\n")
    study = tiny.folder / "study"
    # The first run stops on the way and requeues itself; the third task has none.
    array = cluster.submit(
        "--array=1-3",
        "jobscripts/cpu/study.sh",
        *("--decks", f"{dense} {tiny.deck}", "--seeds", "1", "--held-out", held_out),
        *("--output", study, "--run.walltime_s=0.001", "--run.steps=2"),
    )
    jobs = cluster.tasks(array, 3)
    assert [cluster.end(job) for job in jobs] == [DONE] * 3, [cluster.log(job) for job in jobs]
    assert [cluster.restarts(job) for job in jobs] == [1, 1, 0]
    for deck in (dense, tiny.deck):
        for losses in ("evaluation.txt", "held_out.txt"):
            assert "validation loss" in (study / deck.stem / "seed_1" / losses).read_text()


def active_parameters(cluster: Cluster, deck: Path) -> int:
    lines = cluster.call(cluster.environment["HEARTH"], "check", deck).splitlines()
    found = [line for line in lines if line.startswith("active parameters, as the paper counts")]
    return int(found[0].split()[-1])


def newest_checkpoint(run: Path) -> str:
    return max(file.name for file in (run / "checkpoints").iterdir())


def test_gpu_script_shows_every_rank_the_gpus_of_its_node(cluster: Cluster, tiny: TinyRun) -> None:
    # Made-up GPUs and the CPU's program: what is asked of Slurm, not what NCCL does.
    job = cluster.submit("jobscripts/gpu/train.sh", tiny.deck)
    assert cluster.end(job) == DONE, cluster.log(job)
    assert cluster.ranks(job) == [("0", n, "0,1,2,3") for n in ("node1", "node2") for _ in range(4)]
