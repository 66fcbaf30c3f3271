"""The machine and the versions that go with every figure."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measure.hearth import Hearth
from measure.options import ROOT

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile")


def describe(hearth: Hearth) -> dict[str, Any]:
    processor = _cpuinfo()
    flags = processor.get("flags", "").split()
    return {
        "processor": processor.get("model name", platform.machine()),
        "features": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "revision": _revision(),
        "hearth": hearth.version(),
        "hearth_onednn": hearth.onednn(),
        "load_before": os.getloadavg()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def line(machine: dict[str, Any]) -> str:
    """The machine in a line."""
    features = ", ".join(machine["features"]) or "no AVX2"
    memory = machine["memory_bytes"] / 2**30
    return (
        f"{machine['processor']}, {machine['cores_allowed']} of {machine['cores']} cores "
        f"({features}), {memory:.0f} GiB; revision {machine['revision']}; "
        f"load before: {machine['load_before']:.2f}"
    )


def _cpuinfo() -> dict[str, str]:
    pairs = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _revision() -> str:
    done = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
