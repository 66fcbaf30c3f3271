"""hearth evaluate: the loss of each source, of the training or not."""

from __future__ import annotations

import re

import pytest
from conftest import Launch, TinyRun, train


def losses(launch: Launch, tiny: TinyRun, *options: str) -> dict[str, tuple[float, int]]:
    """Loss and tokens by source, "all" among them."""
    finished = launch(2, "evaluate", str(tiny.deck), *options)
    assert finished.returncode == 0, finished.stderr
    rows = re.findall(r"^(\w+) +([\d.]+) +(\d+) tokens$", finished.stdout, re.MULTILINE)
    return {name: (float(loss), int(tokens)) for name, loss, tokens in rows}


def test_other_sources_than_those_of_the_training(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 1), f"--data.sources=even:{tiny.folder / 'even'}")
    own = losses(launch, tiny, f"--data.sources=even:{tiny.folder / 'even'}")
    both = losses(launch, tiny)  # as in the deck
    assert own.keys() == {"even", "all"} and both.keys() == {"even", "odd", "all"}
    assert both["even"] == own["even"] == own["all"]
    whole = losses(
        launch, tiny, f"--data.sources=new:{tiny.folder / 'odd'}", "--data.split=0,100,0"
    )
    assert whole["new"][1] > 4 * both["odd"][1]
    assert whole["new"][0] == pytest.approx(both["odd"][0], rel=0.1)


def test_another_model_is_refused(launch: Launch, tiny: TinyRun) -> None:
    train(launch, tiny, "output", (1, 1, 1))
    finished = launch(2, "evaluate", str(tiny.deck), "--moe.top_k=2")
    assert finished.returncode == 2
    assert "was made with moe.top_k = 3, the deck says 2" in finished.stderr
