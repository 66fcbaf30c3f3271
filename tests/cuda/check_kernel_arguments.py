"""Host and device code lay out a kernel's argument alike (cmake/kokkos-4.7-cuda-13.patch).

Needs nvcc and no GPU: the sizes are read from the assembly of kernel_arguments.cpp.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "kernel_arguments.cpp"


def assembly(nvcc: str, options: list[str]) -> str:
    """PTX of the source."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "kernel_arguments.ptx"
        command = [nvcc, *options, "-x", "cu", "-ptx", str(SOURCE), "-o", str(output)]
        subprocess.run(command, check=True)
        return output.read_text()


def sizes(ptx: str) -> tuple[int, int]:
    """Bytes of the argument in device code, and the sizeof that host code has too."""
    kernel = re.search(r"\.entry \S*argument\S*\((.*?)\)\s*\{(.*?)\n\}", ptx, re.DOTALL)
    if kernel is None:
        raise ValueError("the assembly has no kernel `argument`")
    passed = re.search(r"\.param \.align \d+ \.b8 \S+_param_0\[(\d+)\]", kernel[1])
    stored = re.search(r"mov\.[bu]64\s+%rd\d+, (\d+);", kernel[2])
    if passed is None or stored is None:
        raise ValueError(f"the kernel's assembly is not as expected:\n{kernel[0]}")
    return int(passed[1]), int(stored[1])


def main() -> int:
    """Exit status 0 if both sizes are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvcc", default="nvcc", help="the compiler (nvcc)")
    parser.add_argument("options", nargs="*", help="its options, after --")
    arguments = parser.parse_args()
    device, host = sizes(assembly(arguments.nvcc, arguments.options))
    if device == host:
        return 0
    print(
        f"a functor has {device} bytes in device code and {host} in host code: kernels read their "
        "arguments from the wrong places. Build Kokkos anew with cmake/kokkos.sh cuda, which "
        "applies cmake/kokkos-4.7-cuda-13.patch",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
