"""Whole training steps, their memory and phases, and the launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from measure import tokens, trial
from measure.hearth import Training
from measure.plan import Steps, label
from measure.progress import say
from measure.results import HEARTH, PYTORCH, Entry
from measure.setting import Setting


def measure(setting: Setting) -> None:
    variants = setting.options.variants
    for steps in setting.plan.steps:
        variants = _case(setting, steps, variants)
    _launch(setting, setting.plan.steps[0].deck)


def name_of(setting: Setting, steps: Steps) -> str:
    return f"{label(steps.deck)}, {steps.sequences} x {setting.plan.length}"


def data_set(setting: Setting, steps: Steps) -> Path:
    """Tokens for all steps of a turn."""
    prefix = setting.folder / f"{steps.deck.stem}-{steps.sequences}"
    # One sample more than is needed.
    samples = (steps.warmup + steps.steps) * steps.sequences + 1
    vocabulary = int(setting.hearth.check(steps.deck)["model.vocabulary"])
    tokens.write_zipf(prefix, vocabulary, samples * setting.plan.length + 1)
    return prefix


def overrides(setting: Setting, steps: Steps, kind: str, prefix: Path, cell: int) -> list[str]:
    """The deck's own schedule on random tokens, with so many sequences in a cell."""
    return [
        f"--model.compute_type={kind}",
        f"--model.sequence_length={setting.plan.length}",
        f"--batch.global_batch={steps.sequences}",
        f"--batch.cell_sequences={cell}",
        f"--data.sources=zipf:{prefix}",
        "--data.split=1",
        "--data.order=sequential",
        "--statistics.probe_tokens=0",
    ]


def train(
    setting: Setting, steps: Steps, entry: Entry, given: list[str], ranks: int = 1,
    threads: int | None = None,
) -> None:  # fmt: skip
    """A turn of Hearth; its times, memory and phases go to the entry."""
    folder = setting.folder / "run"
    try:
        done = setting.hearth.train(
            steps.deck, folder, steps.warmup + steps.steps, *given, ranks=ranks, threads=threads
        )
    finally:
        _clear(folder)
    times = done.step_s[steps.warmup :]
    say(f"  {entry.name}: " + ", ".join(f"{seconds:.3f}" for seconds in times) + " s")
    entry.times_s += times
    entry.peak_bytes = max(entry.peak_bytes, done.peak_bytes)
    entry.details["imbalance"] = done.imbalance
    _add_phases(entry, done)


def _add_phases(entry: Entry, done: Training) -> None:
    """Phases count the whole run, first steps included: so does what they are divided by."""
    phases = entry.details.setdefault("phase_s", {})
    for name, seconds in done.phase_s.items():
        phases[name] = phases.get(name, 0.0) + seconds
    entry.details["all_steps_s"] = entry.details.get("all_steps_s", 0.0) + sum(done.step_s)


def variant_of(kind: str, way: str) -> str:
    """Of a compute type, trained in a way that has a name; "" for none."""
    return f"{kind} {way}".rstrip()


def in_turns(
    setting: Setting, section: str, steps: Steps, ways: Mapping[str, Sequence[str]]
) -> None:
    """Hearth alone, trained in every way: options of the command line, by the way's name."""
    name = name_of(setting, steps)
    prefix = None
    with setting.turn(f"{section}: {name}: data"):
        prefix = data_set(setting, steps)
        flops = setting.hearth.flops_per_token(steps.deck, setting.plan.length)
    if prefix is None:
        return
    tokens = steps.sequences * setting.plan.length
    found = setting.results.case(
        section, name, setting.options.threads, tokens=tokens, flops=tokens * flops
    )
    for turn in setting.rounds(steps.rounds):
        for kind in setting.options.types:
            given = overrides(setting, steps, kind, prefix, steps.sequences)
            for way, switches in ways.items():
                entry = found.entry(HEARTH, variant_of(kind, way))
                with setting.turn(f"{section}: {name}: round {turn + 1}: {entry.name}", entry):
                    train(setting, steps, entry, [*given, *switches])


def _case(setting: Setting, steps: Steps, variants: list[str]) -> list[str]:
    """Measures one case; PyTorch's variants are tried first if none is named.

    Returns the variants for the next case.
    """
    name, threads = name_of(setting, steps), setting.options.threads
    case = setting.results.case(
        "steps", name, threads, tokens=steps.sequences * setting.plan.length
    )
    prefix = None
    with setting.turn(f"steps: {name}: data"):
        case.flops = case.tokens * setting.hearth.flops_per_token(steps.deck, setting.plan.length)
        prefix = data_set(setting, steps)
    if prefix is None:
        return variants
    arguments = _pytorch_arguments(setting, steps, prefix)
    later = variants
    if not variants:
        few = ("--warmup", "1", "--steps", "1")
        found = trial.ranking(setting, "train_step.py", "all", *arguments, *few)
        variants, later = found[:1], trial.finalists(found)
    for turn in setting.rounds(steps.rounds):
        what = f"steps: {name}: round {turn + 1}"
        for kind in setting.options.types:
            given = overrides(setting, steps, kind, prefix, steps.sequences)
            entry = case.entry(HEARTH, kind)
            with setting.turn(f"{what}: {entry.name}", entry):
                train(setting, steps, entry, given)
        for variant in variants if setting.pytorch else ():
            entry = case.entry(PYTORCH, variant)
            with setting.turn(f"{what}: {entry.name}", entry):
                _pytorch_turn(setting, steps, entry, arguments)
    return later


def _pytorch_arguments(setting: Setting, steps: Steps, prefix: Path) -> list[str]:
    arguments = ["--deck", str(steps.deck), "--tokens", f"{prefix}.bin"]
    arguments += ["--sequences", str(steps.sequences)]
    return [*arguments, "--sequence-length", str(setting.plan.length)]


def _pytorch_turn(setting: Setting, steps: Steps, entry: Entry, arguments: list[str]) -> None:
    counts = ["--warmup", str(steps.warmup), "--steps", str(steps.steps)]
    row = setting.pytorch.train_step(entry.variant, *arguments, *counts)
    times = row["step_s"][row["warmup"] :]
    say(f"  {entry.name}: " + ", ".join(f"{seconds:.3f}" for seconds in times) + " s")
    entry.times_s += times
    entry.peak_bytes = max(entry.peak_bytes, row["peak_bytes"])
    entry.details |= {"imbalance": row["imbalance"], "attention": row["attention"]}


def _launch(setting: Setting, deck: Path) -> None:
    """The deck as it stands, on a data set of the size that its schedule wants."""
    case = setting.results.case(
        "launch", f"{label(deck)}, launch to first step", setting.options.threads
    )
    entry = case.entry(HEARTH, setting.options.types[0])
    with setting.turn(f"steps: {case.name}", entry):
        prefix = setting.folder / "empty"
        count = int(setting.hearth.check(deck)["tokens of the run"])
        tokens.write_empty(prefix, count * 100 // 90 + 1)
        for _ in range(setting.plan.launches):
            folder = setting.folder / "launch"
            try:
                seconds = setting.hearth.launch(
                    deck, folder, f"--data.sources=empty:{prefix}", "--data.split=90,5,5",
                    f"--model.compute_type={entry.variant}",
                )  # fmt: skip
            finally:
                _clear(folder)
            entry.times_s.append(seconds)


def _clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
