"""A Slurm cluster of two nodes on this machine: munged, slurmctld and two slurmd, in one folder."""

from __future__ import annotations

import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
NODES = ("node1", "node2")
# Daemons are in sbin, which is not on everybody's PATH.
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")

# No cgroups, no systemd, no accounting. The nodes claim more cores than there are, and GPUs that
# are not. Short times, so that tests need not wait: Slurm looks for time limits every 30 s itself.
CONFIGURATION = """\
ClusterName=hearth
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=1
JobRequeue=1
MaxJobCount=100
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=60
OverTimeLimit=0
InactiveLimit=0
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=64 Gres=gpu:4
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=64 Gres=gpu:4
PartitionName=batch Nodes=node[1-2] Default=YES PriorityTier=1
PartitionName=graceful Nodes=node[1-2] PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=node[1-2] PriorityTier=10 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    """What is not installed of Slurm and munge."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]


def wait_until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Waits until something is so; fails where it does not come to be."""
    limit = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < limit, f"not after {patience_s:g} s: {what}"
        time.sleep(0.1)


class Cluster:
    """Submits jobs from `site`, a folder that looks like a checkout, and tells how they fare."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.environment = environment

    def call(self, *words: str | Path, **environment: str) -> str:
        """The output of a command that is run in the site's folder."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.site,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def submit(self, *words: str | Path, **environment: str) -> int:
        """The number of a job: sbatch's options, a job script and its arguments."""
        return int(self.call("sbatch", "--parsable", *words, **environment))

    def facts(self, job: int) -> dict[str, str]:
        """What `scontrol show job` says."""
        # An array's number is that of one of its jobs too.
        records = self.call("scontrol", "--oneliner", "show", "job", str(job)).splitlines()
        own = [record for record in records if record.startswith(f"JobId={job} ")]
        return dict(word.split("=", 1) for word in own[0].split() if "=" in word)

    def state(self, job: int) -> str:
        return self.facts(job)["JobState"]

    def restarts(self, job: int) -> int:
        return int(self.facts(job)["Restarts"])

    def end(self, job: int) -> tuple[str, int]:
        """The state that a job ends in, and its exit status."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_until(lambda: self.state(job) in ends, f"the end of job {job}")
        return self.state(job), int(self.facts(job)["ExitCode"].split(":")[0])

    def tasks(self, array: int, count: int) -> list[int]:
        """The numbers of an array's jobs, in order of task; each gets one when it starts."""

        def numbers() -> list[int]:
            records = self.call("scontrol", "--oneliner", "show", "job", str(array))
            found = re.findall(r"^JobId=(\d+) .*ArrayTaskId=(\d+) ", records, re.MULTILINE)
            return [int(number) for number, task in sorted(found, key=lambda pair: int(pair[1]))]

        wait_until(lambda: len(numbers()) == count, f"{count} tasks of array {array}")
        return numbers()

    def ranks(self, job: int) -> list[tuple[str, ...]]:
        """Restart, node and visible GPUs of every rank that a job has had."""
        lines = [line.split() for line in (self.folder / "ranks").read_text().splitlines()]
        return sorted(tuple(rest) for number, *rest in lines if number == str(job))

    def log(self, job: int) -> str:
        """What a job has printed so far."""
        file = Path(self.facts(job)["StdOut"])
        return file.read_text() if file.exists() else ""


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Cluster]:
    """Starts the daemons and ends them with all that they started, whatever happens between."""
    for name in ("state", "site", *(f"tmp-{node}" for node in NODES)):
        (folder / name).mkdir()
    for name in ("inputs", "jobscripts", "postprocess"):
        (folder / "site" / name).symlink_to(ROOT / name)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder, host=socket.gethostname(), user=getpass.getuser(), ports=free_ports(3)
        )
    )
    for gpu in range(4):  # Slurm looks no closer
        (folder / f"gpu{gpu}").symlink_to("/dev/null")
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-3]\n")
    environment = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    environment |= {"SLURM_CONF": str(configuration), "PATH": SEARCH_PATH}
    cluster = Cluster(folder, environment)
    with ExitStack() as stack:
        stack.callback(end_what_is_left, str(configuration))
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        munge = [
            *("munged", "--foreground", "--force", f"--key-file={key}"),
            *(f"--{what}-file={folder}/munge.{what}" for what in ("pid", "log", "seed")),
            f"--socket={folder}/munge.socket",
        ]
        commands = [munge, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]
        for command in commands:
            stack.enter_context(daemon(command, cluster))
            if command is munge:
                wait_until((folder / "munge.socket").exists, "munge's socket")
        wait_until(lambda: idle_nodes(cluster) == len(NODES), f"idle nodes, see {folder}/*.log")
        stack.callback(cancel_all, cluster)
        yield cluster


@contextmanager
def daemon(command: list[str], cluster: Cluster) -> Iterator[None]:
    """A daemon in the foreground; it ends with this process too."""
    with (cluster.folder / "daemons.log").open("a") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env=cluster.environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def idle_nodes(cluster: Cluster) -> int:
    answer = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--partition=batch", "--format=%T"],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.split().count("idle")


def cancel_all(cluster: Cluster) -> None:
    """Ends all jobs, so that no step is left when the daemons go."""
    everything = ("scancel", "--quiet", f"--user={getpass.getuser()}")
    cluster.call(*everything, "--signal=KILL", "--full")
    cluster.call(*everything)
    wait_until(lambda: not cluster.call("squeue", "--noheader"), "an empty queue")


def end_what_is_left(configuration: str) -> None:
    """Kills every process that the cluster started: all have its SLURM_CONF."""
    mark = f"SLURM_CONF={configuration}\0".encode()
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes():
                left.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
                os.kill(int(process.name), signal.SIGKILL)
    assert not left, f"left behind, now killed: {left}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
