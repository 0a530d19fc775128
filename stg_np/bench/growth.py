"""How the cost of a training step grows with T, B, H and L: times, memory, and exponents fitted on log-log axes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from stg_np.bench.timing import times_of
from stg_np.engine import Threads
from stg_np.models.base import loss_and_grad
from stg_np.models.stg import STG
from stg_np.ops.losses import cross_entropy
from stg_np.workspace import Workspace


class Point(NamedTuple):
    """B sequences of T steps of D numbers, through L layers of width H (one direction)."""

    T: int = 64
    B: int = 32
    H: int = 64
    L: int = 2
    D: int = 16


AXES = {
    "T": (16, 32, 64, 128, 256, 512, 1024, 2048),
    "B": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "H": (8, 16, 32, 64, 128, 256, 512, 1024),
    "L": (1, 2, 4, 8, 16, 32),
}
QUICK_AXES = {"T": (4, 8, 16), "B": (1, 2, 4), "H": (4, 8, 16), "L": (1, 2, 4)}
FITTED = 4


def cost(point: Point, seconds: float) -> dict[str, float]:
    """Median seconds of forward, loss and backward on one worker, and the largest memory held meanwhile, in bytes.

    The memory includes the workspace, which the steps that are timed find ready.
    The time is taken without the watch on the memory, which slows allocation down.
    """
    model = STG((point.T, point.D), 10, width=point.H, layers=point.L, bidirectional=False)
    rng = np.random.default_rng(0)
    params, state = model.init(rng)
    x, labels = rng.standard_normal((point.B, point.T, point.D), np.float32), rng.integers(0, 10, point.B)

    def step(work: Workspace) -> None:
        loss_and_grad(model, params, state, x, labels, loss=cross_entropy(0.0), weight=1 / point.B, work=work)

    with Threads(1):
        step(Workspace())  # what is imported once is not part of the memory
        tracemalloc.start()
        work = Workspace()
        step(work)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        times = times_of(lambda: step(work), seconds, least=3)
    return {"seconds": median(times), "bytes": float(memory)}


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log value at the last :data:`FITTED` points: below, constant costs bend the line."""
    n = FITTED
    return float(np.polyfit(np.log(values[-n:]), np.log(costs[-n:]), 1)[0])
