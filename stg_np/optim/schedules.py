"""Schedules: factors of the learning rate, from the fraction of the training that is done (0 … 1)."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi


def warmup_cosine(progress: float, warmup: float = 0.1) -> float:
    """Linear from 0 to 1 during the first ``warmup`` (below 1) of training, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + cos(pi * (progress - warmup) / (1 - warmup)))


def warmup_linear(progress: float, warmup: float = 0.1) -> float:
    """Linear from 0 to 1 during the first ``warmup`` (below 1) of training, then linear down to 0."""
    if progress < warmup:
        return progress / warmup
    return (1 - progress) / (1 - warmup)


SCHEDULES: dict[str, Callable[[float, float], float]] = {"cosine": warmup_cosine, "linear": warmup_linear}
"""The schedules by name."""
