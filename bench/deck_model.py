"""A deck's model in numbers: its sizes and what a step of it costs, as docs/equations.md counts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "preprocess"))
from failures import InputError  # noqa: E402

FLOPS_PER_WEIGHT = 6  # of a product, for each token: 2 forward, 4 backward
BYTES_PER_ACTIVATION = {"bf16": 2, "fp32": 4, "fp64": 8}


@dataclass(frozen=True)
class Model:
    """The keys of a deck that decide what a step costs, with the option table's defaults."""

    layers: int = 9
    hidden: int = 256
    heads: int = 16
    kv_heads: int = 0  # 0: heads
    head_dim: int = 0  # 0: hidden / heads
    dense_ffn: int = 1368
    vocabulary: int = 50304
    sequence_length: int = 2048
    tie_embeddings: bool = False
    qk_norm: bool = False
    compute_type: str = "fp32"
    experts: int = 64
    top_k: int = 6
    expert_ffn: int = 176
    shared_ffn: int = 352
    dense_layers: int = 1
    global_batch: int = 1024
    cell_sequences: int = 32

    @property
    def moe_layers(self) -> int:
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def attention_width(self) -> int:
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def attention_elements(self) -> int:
        """The projections' weights of all layers."""
        kv_width = self.attention_width * (self.kv_heads or self.heads) // self.heads
        return self.layers * 2 * self.hidden * (self.attention_width + kv_width)

    @property
    def dense_elements(self) -> int:
        return (self.layers - self.moe_layers) * 3 * self.hidden * self.dense_ffn

    @property
    def router_elements(self) -> int:
        return self.moe_layers * self.experts * self.hidden

    @property
    def shared_elements(self) -> int:
        return self.moe_layers * 3 * self.hidden * self.shared_ffn

    @property
    def expert_elements(self) -> int:
        """Weights of all experts of all layers: those that expert_ranks share out."""
        return self.moe_layers * self.experts * 3 * self.hidden * self.expert_ffn

    @property
    def head_elements(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def norm_elements(self) -> int:
        of_heads = 2 * self.attention_width // self.heads if self.qk_norm else 0
        return self.layers * (2 * self.hidden + of_heads) + self.hidden

    @property
    def everyone_elements(self) -> int:
        """Weights that every rank holds whole."""
        embeddings = self.head_elements * (1 if self.tie_embeddings else 2)
        return (
            embeddings
            + self.attention_elements
            + self.dense_elements
            + self.router_elements
            + self.shared_elements
            + self.norm_elements
        )

    @property
    def elements(self) -> int:
        return self.everyone_elements + self.expert_elements

    @property
    def activation_bytes(self) -> int:
        """Of one element of an activation, and of the weights that ranks gather."""
        return BYTES_PER_ACTIVATION[self.compute_type]

    @property
    def flops_per_token(self) -> float:
        """Of forward and backward: every active weight of a product, and causal attention."""
        active = (
            self.attention_elements
            + self.dense_elements
            + self.router_elements
            + self.shared_elements
            + self.active_expert_elements
            + self.head_elements
        )
        scores = self.layers * self.attention_width * self.sequence_length
        return FLOPS_PER_WEIGHT * (active + scores)

    @property
    def active_expert_elements(self) -> int:
        """Weights of the experts that one token meets, in all layers."""
        return self.moe_layers * self.top_k * 3 * self.hidden * self.expert_ffn


TYPES = {field.name: type(field.default) for field in fields(Model)}
SECTIONS = ("model", "moe", "batch")


def read_deck(path: Path, overrides: Mapping[str, str | int] | None = None) -> Model:
    """The model of a deck; overrides are named as on hearth's command line, model.layers."""
    values: dict[str, str] = {}
    section = ""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a deck") from None
    for line in lines:
        line = line.split("#")[0].strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line:
            key, value = line.split("=", 1)
            values[f"{section}.{key.strip()}"] = value.strip()
    values |= {key: str(value) for key, value in (overrides or {}).items()}
    found: dict[str, str | int | bool] = {}
    for key, value in values.items():
        section, name = key.split(".", 1)
        if section in SECTIONS and name in TYPES:
            found[name] = value == "true" if TYPES[name] is bool else TYPES[name](value)
    return Model(**found)  # type: ignore[arg-type]
