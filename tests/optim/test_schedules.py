"""Schedules: from 0 to 1 and back, without a jump."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest

from stg_np.optim import SCHEDULES

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


@every_schedule
@pytest.mark.parametrize("warmup", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_schedules_rise_to_one_and_fall_to_zero(schedule: Callable[[float, float], float], warmup: float) -> None:
    fine = np.linspace(0, 1, 10_001).tolist()
    values = [schedule(progress, warmup) for progress in fine]
    assert values[0] == (0 if warmup else 1)
    assert schedule(warmup, warmup) == 1
    assert values[-1] == pytest.approx(0, abs=1e-12)
    assert min(values) >= -1e-12
    assert max(values) <= 1
    rising = [b >= a for (x, a), (y, b) in pairwise(zip(fine, values)) if y <= warmup]
    falling = [b <= a for (x, a), (y, b) in pairwise(zip(fine, values)) if x >= warmup]
    assert all(rising)
    assert all(falling)
    slope = 2 / min(warmup or 1, 1 - warmup)  # of the steepest piece; a jump would show as a difference of any size
    assert max(abs(b - a) for a, b in pairwise(values)) <= slope / 10_000 + 1e-12


@every_schedule
def test_half_way_down_is_a_half(schedule: Callable[[float, float], float]) -> None:
    assert schedule(0.6, 0.2) == pytest.approx(0.5)
    assert schedule(0.1, 0.2) == pytest.approx(0.5)


def test_a_quarter_of_the_way_down_tells_them_apart() -> None:
    assert SCHEDULES["linear"](0.4, 0.2) == pytest.approx(0.75)
    assert SCHEDULES["cosine"](0.4, 0.2) == pytest.approx(0.5 + sqrt(0.5) / 2)


@every_schedule
def test_a_tenth_is_warm_up_unless_told_otherwise(schedule: Callable[..., float]) -> None:
    assert [schedule(progress) for progress in (0.05, 0.1, 0.5)] == [schedule(p, 0.1) for p in (0.05, 0.1, 0.5)]
