#!/usr/bin/env python3
"""Make or check golden files: what a small model must compute in ten optimizer steps.

A golden file (HDF5) holds the deck as its root attribute `deck`, the inputs /tokens and
/weights, losses and gradients of the first step, scalars of every step and the final
weights; the attribute `description` of a dataset or group says what it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch

from flame_torch import Config, Step, Weights, tensor_shapes, train

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

# A flipped expert choice breaks every tolerance, so choices must be clear by this much.
ROUTER_GAP = 1e-4
# Chance that a token begins a document.
DOCUMENT_BEGIN = 0.2
# A gradient that vanishes tests nothing.
GRADIENT = 1e-4
SEEDS_TO_TRY = 2000

# Between versions of PyTorch, as largest difference relative to a tensor's largest entry.
TOLERANCE = {"fp64": 1e-10, "fp32": 1e-4}

# Learning rates far above practice move the weights visibly in ten steps; an epsilon
# near the gradients' size shows where it enters; clip_norm cuts some steps, not all.
TRAINING = Config(
    learning_rate=1e-2,
    min_learning_rate=1e-3,
    warmup_fraction=0.25,
    decay_fraction=0.4,
    beta1=0.9,
    beta2=0.95,
    epsilon=1e-5,
    weight_decay=0.1,
)

# Sizes are odd and differ from each other, so that no two of them can be confused.
CASES = {
    "flame": replace(
        TRAINING,
        layers=3,
        hidden=14,
        heads=3,
        kv_heads=3,
        head_dim=6,
        dense_ffn=21,
        vocabulary=43,
        sequence_length=9,
        experts=11,
        top_k=3,
        expert_ffn=9,
        shared_ffn=12,
        dense_layers=1,
        global_batch=6,
        cell_sequences=2,
        clip_norm=4.2,
    ),
    "dense": replace(
        TRAINING,
        layers=2,
        hidden=20,
        heads=2,
        kv_heads=2,
        head_dim=10,
        dense_ffn=33,
        vocabulary=53,
        sequence_length=17,
        rotary_base=500.0,
        norm_epsilon=1e-3,
        global_batch=5,
        cell_sequences=1,
        clip_norm=3.6,
    ),
    "grouped": replace(
        TRAINING,
        layers=2,
        hidden=18,
        heads=4,
        kv_heads=2,
        head_dim=6,
        vocabulary=47,
        sequence_length=11,
        tie_embeddings=True,
        qk_norm=True,
        experts=7,
        top_k=2,
        expert_ffn=10,
        shared_ffn=0,
        dense_layers=0,
        balance_loss=0.05,
        z_loss=0.01,
        global_batch=6,
        cell_sequences=3,
        clip_norm=3.1,
    ),
    "masked": replace(
        TRAINING,
        layers=2,
        hidden=10,
        heads=2,
        kv_heads=1,
        head_dim=8,
        dense_ffn=13,
        vocabulary=31,
        sequence_length=15,
        document_mask=True,
        experts=5,
        top_k=2,
        expert_ffn=7,
        shared_ffn=6,
        dense_layers=1,
        global_batch=5,
        cell_sequences=2,
        clip_norm=2.4,
    ),
}


def make_inputs(config: Config) -> tuple[Weights, torch.Tensor]:
    """Random weights and tokens (step, sequence, position) for a seed."""
    generator = np.random.default_rng(config.seed)
    weights = {}
    for name, shape in tensor_shapes(config).items():
        normal = torch.from_numpy(generator.standard_normal(shape))
        if len(shape) == 1:
            w = 1.0 + 0.2 * normal
        else:
            w = 1.5 / shape[-1] ** 0.5 * normal
        # On the bf16 grid all types start from equal weights, and the file is smaller.
        weights[name] = w.to(torch.bfloat16).to(config.dtype)
    shape = (config.steps, config.global_batch, config.sequence_length + 1)
    tokens = generator.integers(config.vocabulary, size=shape, dtype=np.int32)
    return weights, torch.from_numpy(tokens)


def make_documents(config: Config) -> torch.Tensor | None:
    """With document_mask the document of each token (step, sequence, position), by a seed."""
    if not config.document_mask:
        return None
    generator = np.random.default_rng([config.seed, 1])
    shape = (config.steps, config.global_batch, config.sequence_length)
    begins = generator.random(shape) < DOCUMENT_BEGIN
    return torch.from_numpy(begins.cumsum(-1, dtype=np.int32))


def smallest_gradient(gradients: Weights) -> float:
    """Smallest, over tensors and single experts, of the largest entry."""
    return min(
        float(part.abs().max())
        for name, gradient in gradients.items()
        for part in (gradient if "/experts/" in name else [gradient])
    )


def compute(weights: Weights, steps: list[Step]) -> dict[str, np.ndarray]:
    """All datasets of a golden file but tokens and documents."""
    start, end = steps[0], steps[-1]
    result: dict[str, object] = {
        "loss/cross_entropy": start.losses.cross_entropy,
        "loss/balance": start.losses.balance,
        "loss/z": start.losses.z,
        "loss/total": start.losses.total,
        "steps/loss": [step.losses.total for step in steps],
        "steps/cross_entropy": [step.losses.cross_entropy for step in steps],
        "steps/gradient_norm": [step.gradient_norm for step in steps],
        "steps/learning_rate": [step.learning_rate for step in steps],
        "minimum_router_gap": min(step.router_gap for step in steps),
    }
    arrays = {name: np.asarray(value, np.float64) for name, value in result.items()}
    groups = {"weights": weights, "gradients": start.gradients, "final": end.weights}
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            arrays[f"{group}/{name}"] = tensor.detach().numpy()
    return arrays


DESCRIPTIONS = {
    "tokens": "token ids (step, sequence, position); targets are shifted by one",
    "documents": "document of each token but the last (step, sequence, position)",
    "weights": "initial weights",
    "gradients": "gradients of the first step's total loss, before clipping",
    "loss": "terms of the first step's loss, coefficients included",
    "steps": "one value per step, before its update; the norm is before clipping",
    "final": "weights after the last step",
    "minimum_router_gap": "smallest distance between the k-th and (k+1)-th router "
    "probability over all tokens, layers and steps",
}


def write(path: Path, config: Config, arrays: dict[str, np.ndarray]) -> None:
    # The newer formats have far smaller headers; HDF5 1.10 reads them.
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["deck"] = config.deck()
        for name, array in arrays.items():
            # Scalars cannot be compressed.
            options = {"compression": 9, "shuffle": True} if array.ndim else {}
            file.create_dataset(name, data=array, **options)
        for name, text in DESCRIPTIONS.items():
            if name in file:
                file[name].attrs["description"] = text


def make(path: Path, config: Config) -> None:
    """Write the golden file of the first seed, from config.seed on, that serves."""
    for seed in range(config.seed, config.seed + SEEDS_TO_TRY):
        config = replace(config, seed=seed)
        weights, tokens = make_inputs(config)
        documents = make_documents(config)
        steps = []
        for step in train(weights, tokens, config, documents):
            if step.router_gap < ROUTER_GAP:
                break
            steps.append(step)
        if len(steps) < config.steps:
            continue
        if smallest_gradient(steps[0].gradients) < GRADIENT:
            continue
        arrays = {"tokens": tokens.numpy(), **compute(weights, steps)}
        if documents is not None:
            arrays["documents"] = documents.numpy()
        write(path, config, arrays)
        print(
            f"{path.name}: seed {seed}, smallest router gap "
            f"{arrays['minimum_router_gap']:.2e}, smallest gradient "
            f"{smallest_gradient(steps[0].gradients):.1e}, gradient norms "
            f"{arrays['steps/gradient_norm'].min():.3f} to "
            f"{arrays['steps/gradient_norm'].max():.3f}, {path.stat().st_size} bytes"
        )
        return
    raise SystemExit(f"{path.name}: none of {SEEDS_TO_TRY} seeds serves")


def read_config(path: Path) -> Config:
    with h5py.File(path) as file:
        return Config.from_deck(file.attrs["deck"])


def differences(path: Path) -> Iterator[tuple[str, float]]:
    """Recompute a golden file; yields each dataset's largest relative difference."""
    config = read_config(path)
    with h5py.File(path) as file:
        weights = {
            name: torch.from_numpy(file[f"weights/{name}"][()]) for name in tensor_shapes(config)
        }
        tokens = torch.from_numpy(file["tokens"][()])
        documents = torch.from_numpy(file["documents"][()]) if config.document_mask else None
        steps = list(train(weights, tokens, config, documents))
        for name, array in compute(weights, steps).items():
            stored = file[name][()]
            # The gap is a difference of probabilities: its error is relative to 1.
            scale = 1.0 if name == "minimum_router_gap" else abs(stored).max()
            if np.array_equal(array, stored):  # zero, or an infinite gap
                yield name, 0.0
            else:
                yield name, float(abs(array - stored).max() / scale)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Make a golden file for the oracle tests, or check existing ones.",
        epilog="The seed is the first, counting from --seed, for which all expert choices "
        f"are clear by {ROUTER_GAP:g} in probability and no gradient vanishes.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--case", choices=CASES, help="the model to make a file for")
    what.add_argument(
        "--check",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="recompute golden files; status 1 if one differs",
    )
    parser.add_argument("--dtype", choices=("fp64", "fp32"), default="fp64")
    parser.add_argument("--seed", type=int, default=1, help="first seed (default 1)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write (default: tests/golden/CASE_DTYPE.h5)",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # the sizes are tiny

    if options.case:
        path = options.output or GOLDEN / f"{options.case}_{options.dtype}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        case = CASES[options.case]
        make(path, replace(case, seed=options.seed, compute_type=options.dtype))
    status = 0
    for path in options.check or ():
        try:
            tolerance = TOLERANCE[read_config(path).compute_type]
            name, worst = max(differences(path), key=lambda item: item[1])
        except (OSError, KeyError) as error:
            print(f"{path}: not a golden file: {error}", file=sys.stderr)
            return 2
        verdict = "agrees" if worst <= tolerance else "DIFFERS"
        print(f"{path.name} {verdict}: largest relative difference {worst:.1e} in {name}")
        status |= worst > tolerance
    return status


if __name__ == "__main__":
    sys.exit(main())
