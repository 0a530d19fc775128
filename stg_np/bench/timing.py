"""How a function is timed in this process: the one loop that all measurements share."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

MOST = 1000
"""Calls in one measurement, however quick they are."""


def times_of(run: Callable[[], Any], seconds: float = 0.0, least: int = 1) -> list[float]:
    """The seconds of each call: one that is not counted, which warms the caches, then calls until time is up.

    Args:
        run: does the work once, and waits for it.
        seconds: how long to go on.
        least: how many calls there are at least.
    """
    run()
    times: list[float] = []
    end = perf_counter() + seconds
    while len(times) < least or (perf_counter() < end and len(times) < MOST):
        began = perf_counter()
        run()
        times.append(perf_counter() - began)
    return times
