"""Debian packages as a source of text: downloaded and unpacked, never installed.

Installing would change the user's machine, needs root, and a container's dpkg often leaves out
/usr/share/doc and the manual pages.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from failures import Failure, InputError


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    archive: Path


def fetch(names: list[str], folder: Path) -> list[Package]:
    """The packages' .deb files; those that the folder already holds are not downloaded."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not list(folder.glob(f"{name}_*.deb"))]
    if missing:
        print(f"downloading {len(missing)} packages to {folder}: {' '.join(missing)}", flush=True)
        # apt-get writes under the final name: what was cut short must not look complete.
        with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as download:
            _run("apt-get", "download", "-qq", *missing, cwd=Path(download))
            for archive in Path(download).glob("*.deb"):
                archive.replace(folder / archive.name)
    return [_package(name, folder) for name in names]


def python_library(folder: Path) -> list[str]:
    """Names of the packages with Python's library: they carry the release's Python version."""
    present = sorted(folder.glob("libpython3.*-stdlib_*.deb"))
    if present:
        library = present[-1].name.partition("_")[0]
    else:
        answer = _run("apt-cache", "depends", "libpython3-stdlib")
        depends = [line.split()[-1] for line in answer.splitlines() if "Depends:" in line]
        if not depends:
            raise Failure("apt-cache knows no libpython3-stdlib; run apt-get update first")
        library = depends[0]
    return [library, library.replace("-stdlib", "-minimal")]


@contextmanager
def unpacked(packages: list[Package], folder: Path) -> Iterator[dict[str, Path]]:
    """The packages' files in temporary folders, by package name."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="unpacked-") as root:
        places = {package.name: Path(root) / package.name for package in packages}
        for package in packages:
            _run("dpkg-deb", "-x", str(package.archive), str(places[package.name]))
        yield places


def _package(name: str, folder: Path) -> Package:
    archives = sorted(folder.glob(f"{name}_*.deb"))
    if len(archives) != 1:
        raise InputError(
            f"{folder}: {len(archives)} archives {name}_*.deb; expected one, remove the others"
        )
    version = _run("dpkg-deb", "-f", str(archives[0]), "Version").strip()
    return Package(name, version, archives[0])


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise Failure(
            f"{command[0]} not found: this is not a Debian system; "
            "give folders of text with --text NAME=FOLDER instead"
        ) from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if not line.startswith("W:")]
        reason = lines[-1] if lines else f"exit status {error.returncode}"
        raise Failure(
            f"{' '.join(command[:2])}: {reason}; run apt-get update first, "
            "or give folders of text with --text NAME=FOLDER"
        ) from None
    return done.stdout
