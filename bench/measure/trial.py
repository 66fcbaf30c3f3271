"""Which of PyTorch's variants are measured: those named, or the fastest of a trial."""

from __future__ import annotations

from measure.setting import Setting

FINALISTS = 2


def ranking(setting: Setting, script: str, names: str, *arguments: str) -> list[str]:
    """The variants that ran, the fastest first; none without PyTorch."""
    if setting.pytorch is None:
        return []
    with setting.turn(f"trial of PyTorch's variants: {names}"):
        return [variant for variant, _ in setting.pytorch.trial(script, names, *arguments)]
    return []


def finalists(variants: list[str]) -> list[str]:
    """Of each type the fastest, for cases without a trial of their own."""
    by_type: dict[str, str] = {}
    for variant in variants:
        by_type.setdefault(type_of(variant), variant)
    return list(by_type.values())[:FINALISTS]


def type_of(variant: str) -> str:
    return variant.split("-")[0]
