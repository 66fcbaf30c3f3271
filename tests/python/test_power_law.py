"""bench/: fits of growth, and the phases of a step."""

from __future__ import annotations

import numpy as np
import pytest

import power_law
from hearth_runs import PHASES, phase_times


@pytest.mark.parametrize(("constant", "exponent"), [(0.0, 1.0), (2.0, 1.0), (0.5, 2.0), (1.0, 0.5)])
def test_a_law_is_found_again(constant: float, exponent: float) -> None:
    sizes = [1, 2, 4, 8, 16]
    law = power_law.fit(sizes, [constant + 0.3 * n**exponent for n in sizes])
    assert law.exponent == pytest.approx(exponent, abs=0.011)
    assert law.constant == pytest.approx(constant, abs=0.02)
    assert law.error < 1e-3
    low, high = law.exponent_range
    assert low <= law.exponent + 0.011 and high >= law.exponent - 0.011
    np.testing.assert_allclose(law(sizes), [constant + 0.3 * n**exponent for n in sizes], rtol=3e-3)


def test_the_slope_needs_no_constant() -> None:
    assert power_law.fit([1, 2, 4, 8], [3, 12, 48, 192]).slope == pytest.approx(2)


def test_times_that_do_not_grow() -> None:
    law = power_law.fit([1, 2, 4, 8], [1.0, 1.0, 1.0, 1.0])
    assert law.slope == pytest.approx(0, abs=1e-12) and law([16])[0] == pytest.approx(1, abs=0.02)


def test_too_few_points() -> None:
    with pytest.raises(ValueError, match="four"):
        power_law.fit([1, 2, 4], [1, 2, 4])


def test_no_coefficient_is_negative() -> None:
    found = power_law.least_squares([[1, 1], [1, 2], [1, 4]], [1, 3, 7])
    assert found[0] == 0 and found[1] > 0
    assert power_law.least_squares([[0.0], [0.0]], [1, 2]).tolist() == [0]


def test_phases_do_not_overlap_and_sum_to_the_step() -> None:
    totals = {
        "attention": 2.0,
        "attention backward": 4.0,
        "feed-forward": 5.5,  # around the next four
        "router": 1.0,
        "dispatch": 1.0,
        "exchange": 0.5,
        "experts": 2.0,
        "head": 2.5,
        "update": 2.0,
        "forward again": 9.0,  # counted by its inner ones
    }
    times = phase_times(totals, 20.0, 10.0)
    assert tuple(times) == PHASES
    assert sum(times.values()) == pytest.approx(10)
    assert times["attention"] == 3 and times["experts"] == 1
    assert times["feed-forward"] == 0.5
    assert (times["dispatch, combine"], times["exchange"]) == (0.5, 0.25)
    assert times["rest"] == pytest.approx(2)
