"""What a benchmark process knows of itself, and how it starts another."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

JEMALLOC = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
# Freed pages are kept: otherwise every large tensor costs page faults anew.
JEMALLOC_CONF = (
    "oversize_threshold:1,background_thread:true,metadata_thp:auto,"
    "dirty_decay_ms:-1,muzzy_decay_ms:-1"
)


def preload_default() -> str:
    return JEMALLOC if Path(JEMALLOC).exists() else ""


def with_preload(libraries: str) -> dict[str, str]:
    """The environment with these libraries (separated by colons; may be empty) preloaded."""
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    if libraries:
        environment["LD_PRELOAD"] = libraries
        environment.setdefault("MALLOC_CONF", JEMALLOC_CONF)
    return environment


def restart_with_preload(libraries: str) -> None:
    """Replaces this process by itself with the libraries preloaded, unless they are."""
    for library in filter(None, libraries.split(":")):
        if not Path(library).exists():
            sys.exit(f"--preload {library}: no such file; give one, or '' for the system's malloc")
    if os.environ.get("LD_PRELOAD", "") != libraries:
        os.execve(sys.executable, [sys.executable, *sys.argv], with_preload(libraries))


def run_json(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object that a Python program prints last; its failure is the key `error`."""
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"error": f"status {done.returncode}: {lines[-1]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def describe() -> dict[str, Any]:
    """Versions, threads, processor features and load that go with every figure."""
    return {
        "torch": torch.__version__,
        "onednn": _onednn(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "preload": os.environ.get("LD_PRELOAD", ""),
        "load": os.getloadavg()[0],
    }


def _onednn() -> str:
    found = re.search(r"(?:MKL-DNN|oneDNN) v(\S+)", torch.__config__.show())
    return found[1] if found else ""


def _processor() -> dict[str, Any]:
    fields = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line
    )
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags = fields.get("flags", "").split()
    return {
        "name": fields.get("model name", platform.machine()),
        "features": [flag for flag in wanted if flag in flags],
    }
