"""The run that a report is about: its folder, what of it is there, and the reader's wishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from routing_tables import RoutingTables
from settings_comparison import deck_values
from statistics_file import InputError, StatisticsFile


@dataclass(frozen=True)
class Run:
    folder: Path
    training: StatisticsFile | None
    routing: RoutingTables | None
    why_no_routing: str  # a sentence where there is none
    layers: list[int]  # positions of those shown expert by expert
    min_count: int  # occurrences that a token needs for a share of its own
    name_of: Callable[[int], str]  # a token's text

    @property
    def file(self) -> StatisticsFile:
        """Either one, for what both have."""
        file = self.training or (self.routing.file if self.routing else None)
        assert file is not None
        return file

    def setting(self, key: str) -> str:
        """A key of the resolved deck; several values with commas; empty where it has none."""
        return ", ".join(deck_values(self.file.attribute("deck")).get(key, []))

    def setting_number(self, key: str) -> float | None:
        try:
            return float(self.setting(key))
        except ValueError:
            return None

    def last_step(self) -> int:
        """Of those done, 0 before the first; as far as the checkpoints say without training.h5."""
        steps = np.zeros(0)
        if self.training is not None:
            steps = self.training.array("step", ["step"])
        elif self.routing is not None:
            steps = self.routing.checkpoints
        return int(steps[-1]) if len(steps) else 0

    def no_interval(self) -> str:
        """Why there is no row of router statistics."""
        assert self.routing is not None
        if self.routing.last_interval():
            return "No step of a complete interval changed a weight, so that there are no sums."
        every, last = self.setting_number("statistics.every_steps"), self.last_step()
        if not last or not every or last >= every:
            return "No interval is complete yet: one ends every statistics.every_steps steps."
        return (
            f"No interval is complete: the first takes {every:,.0f} steps "
            f"(statistics.every_steps), and the run has done {last:,}."
        )

    def interval_end(self) -> str:
        """' up to step 4' where intervals end before the run's last step."""
        assert self.routing is not None
        end = self.routing.last_interval()
        return f" up to step {end:,}" if end < self.last_step() else ""

    def names(self, layers: list[int] | None = None) -> list[str]:
        """'layer 3', by block number."""
        assert self.routing is not None
        chosen = range(len(self.routing.layers)) if layers is None else layers
        return [f"layer {self.routing.block(layer)}" for layer in chosen]


@contextmanager
def open_run(
    folder: Path, layers: tuple[int, ...] | None, min_count: int, name_of: Callable[[int], str]
) -> Iterator[Run]:
    """Throws InputError where the folder is not a run's, or a file in it is damaged."""
    kind = "the output folder of a run, with training.h5"
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; expected {kind}")
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; expected {kind}")
    with ExitStack() as files:
        training = _file(folder / "training.h5", files)
        routing = _file(folder / "routing.h5", files)
        if training is None and routing is None:
            raise InputError(f"{folder}: neither training.h5 nor routing.h5 in it; expected {kind}")
        tables, why = None, ""
        if routing is None:
            run = Run(folder, training, None, "", [], min_count, name_of)
            why = _why_no_routing(run)
        elif routing.array("layer", ["layer"]).size == 0:
            why = "The model is dense: it has no MoE layer, so that nothing is routed."
        else:
            tables = RoutingTables(routing)
        chosen = tables.file.chosen_layers(layers) if tables else []
        yield Run(folder, training, tables, why, chosen, min_count, name_of)


def _file(path: Path, files: ExitStack) -> StatisticsFile | None:
    return files.enter_context(StatisticsFile(path, path.name)) if path.exists() else None


def _why_no_routing(run: Run) -> str:
    if run.setting_number("moe.experts") == 0:
        return "The model is dense (moe.experts = 0), so that nothing is routed."
    return "The folder has no routing.h5, so that nothing can be said of the routing."
