"""Times single pieces of FLAME-MoE in PyTorch on the CPU.

Names and sizes are hearth-bench's; a piece can have several forms, of which the fastest counts.
Prints one JSON object for each form, one a line, and last one that describes the process.
"""

from __future__ import annotations

import argparse
import json
import sys

import deck
import process
import torch
from pieces import attention, head, permutation, pointwise_rows, products, router, square, update
from pieces.bench import Bench

PIECES = {
    "ceiling": square.rows,
    "attention": attention.rows,
    "rows": pointwise_rows.rows,
    "router": router.rows,
    "permutation": permutation.rows,
    "experts": products.rows,
    "head": head.rows,
    "update": update.rows,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    deck.add_options(parser)
    parser.add_argument("--tokens", type=int, default=2048, help="of a cell")
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7, help="timed runs")
    parser.add_argument("--warmup", type=int, default=2, help="runs before, not timed")
    parser.add_argument("--threads", type=int, help="default: all that PyTorch finds")
    parser.add_argument("--eager", action="store_true", help="leave out torch.compile's forms")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        help=f"of {', '.join(PIECES)}, separated by commas (default: all but ceiling)",
    )
    parser.add_argument("--preload", default=process.preload_default())
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    process.restart_with_preload(arguments.preload)
    wanted = arguments.only or [name for name in PIECES if name != "ceiling"]
    if unknown := set(wanted) - set(PIECES):
        sys.exit(f"kernels.py: --only {','.join(sorted(unknown))}: not of {', '.join(PIECES)}")
    if arguments.tokens % arguments.sequence_length:
        sys.exit(f"kernels.py: --tokens {arguments.tokens}: not a number of whole sequences")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    bench = Bench(
        deck.sizes(arguments),
        arguments.tokens,
        arguments.sequence_length,
        arguments.repeats,
        arguments.warmup,
        not arguments.eager,
    )
    with torch.no_grad():
        for name in wanted:
            for row in PIECES[name](bench):
                print(json.dumps(row), flush=True)
    print(json.dumps({"process": process.describe()}))


if __name__ == "__main__":
    main()
