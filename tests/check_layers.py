"""A file includes only lower layers, or its own folder without a cycle (docs/architecture.md)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

LAYERS = {
    "base": 0,
    "config": 1,
    "kernels": 1,
    "parallel": 2,
    "data": 3,
    "model": 3,
    "io": 4,
    "train": 4,
    "app": 5,
}


def folder_of(path: str) -> str:
    """The layer's folder of an included or including file."""
    return path.split("/")[0]


def includes(file: Path) -> list[str]:
    """Project headers that the file includes."""
    return re.findall(r'^#include "([^"]+)"', file.read_text(), re.MULTILINE)


def find_cycle(graph: dict[str, list[str]]) -> list[str]:
    """Headers that include each other in a circle, or an empty list."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for successor in graph.get(node, []):
            if cycle := visit(successor, [*path, node]):
                return cycle
        done.add(node)
        return []

    for start in graph:
        if cycle := visit(start, []):
            return cycle
    return []


def main() -> int:
    """Print every violation; 1 if there is one."""
    failures: list[str] = []
    graph: dict[str, list[str]] = {}
    for root, prefix in ((Path("src"), ""), (Path("kernels"), "kernels/")):
        for file in sorted(root.rglob("*.[ch]pp")):
            name = prefix + file.relative_to(root).as_posix()
            own = folder_of(name)
            graph[name] = includes(file)
            for header in graph[name]:
                other = folder_of(header)
                if other not in LAYERS:
                    failures.append(f"{file}: {header} is in no layer")
                elif other != own and LAYERS[other] >= LAYERS[own]:
                    failures.append(f"{file}: layer {own} must not include {header}")
    if cycle := find_cycle(graph):
        failures.append("headers include each other: " + " -> ".join(cycle))
    print("\n".join(failures) or f"{len(graph)} files keep to their layers")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
