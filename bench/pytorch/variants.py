"""The named ways to compute: a type, an expert product, and whether pieces are compiled."""

from __future__ import annotations

import torch
from experts import products
from functions import AttentionTypes
from model import Numerics, Sizes
from pointwise import Pointwise

# Parameters' type and compute type. `autocast` is what torch.autocast does, float32 parameters
# and residual stream with products in bfloat16, with the casts placed by hand: autocast does not
# enter autograd functions.
TYPES = {
    "fp32": (torch.float32, torch.float32),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "autocast": (torch.float32, torch.bfloat16),
}

HELP = (
    "all, or names separated by commas: TYPE-PRODUCT[-compile] with TYPE "
    + "|".join(TYPES)
    + " and PRODUCT loop|bmm|grouped"
)


def eager_variants() -> list[str]:
    """Names TYPE-PRODUCT of all eager variants; `-compile` may follow."""
    return [f"{kind}-{product}" for kind in TYPES for product in products()]


def check(variant: str) -> None:
    """ValueError unless the variant is known."""
    if variant.removesuffix("-compile") not in eager_variants():
        known = ", ".join(eager_variants())
        raise ValueError(f"variant {variant}: not one of all, {known}, each also with -compile")


def numerics(variant: str, sizes: Sizes, length: int, attention: str, chunk: int) -> Numerics:
    """The numerics of a variant. attention: auto (by a trial), or FORWARD,BACKWARD types."""
    check(variant)
    kind, product = variant.removesuffix("-compile").split("-")
    parameters, compute = TYPES[kind]
    if attention == "auto":
        # fp32 stays so throughout; the others may take what is faster.
        choice = list({torch.float32: None, compute: None})
        dim = sizes.hidden // sizes.heads
        types = AttentionTypes.fastest(choice, sizes.heads, length, dim)
    else:
        names = attention.split(",")
        if len(names) != 2 or not set(names) <= {"fp32", "bf16"}:
            raise ValueError(f"--attention {attention}: not auto or two of fp32, bf16, as a,b")
        types = AttentionTypes(*(TYPES[name][1] for name in names))
    pointwise = Pointwise.compiled() if variant.endswith("-compile") else Pointwise()
    return Numerics(parameters, compute, types, product, pointwise, chunk)


def type_names(types: AttentionTypes) -> str:
    return ",".join(str(t).removeprefix("torch.") for t in (types.forward, types.backward))
