"""How the cost of a training step grows: times, memory, and exponents fitted on log-log axes.

Of a sequence network with T, B, H and L; of an image network with the pixels of a picture and the pictures of a batch.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from math import isqrt
from statistics import median
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from stg_np.bench.timing import times_of
from stg_np.engine import Threads
from stg_np.models.base import loss_and_grad
from stg_np.models.image_stg import ImageSTG
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

    @property
    def about(self) -> str:
        """What it is a point of."""
        return "An STG in one direction: B sequences of T steps of D numbers, through L layers of width H"

    @property
    def batch(self) -> int:
        """Examples in a step."""
        return self.B

    def model(self) -> STG:
        """The network."""
        return STG((self.T, self.D), 10, width=self.H, layers=self.L, bidirectional=False)


class ImagePoint(NamedTuple):
    """Square pictures of so many pixels, through two blocks of two image layers each; the second sweeps."""

    pixels: int = 1024
    pictures: int = 8
    width: int = 32

    @property
    def about(self) -> str:
        """What it is a point of."""
        return "An image STG of two blocks of two layers, of which the second sweeps: square pictures of so many pixels"

    @property
    def batch(self) -> int:
        """Examples in a step."""
        return self.pictures

    def model(self) -> ImageSTG:
        """The network."""
        side = isqrt(self.pixels)
        return ImageSTG((side, side, 3), 10, widths=(self.width, self.width), sweeping=(2, 4))


AnyPoint: TypeAlias = Point | ImagePoint
AXES: Mapping[AnyPoint, Mapping[str, Sequence[int]]] = {
    Point(): {
        "T": (16, 32, 64, 128, 256, 512, 1024, 2048),
        "B": (1, 2, 4, 8, 16, 32, 64, 128, 256),
        "H": (8, 16, 32, 64, 128, 256, 512, 1024),
        "L": (1, 2, 4, 8, 16, 32),
    },
    ImagePoint(): {
        "pixels": (64, 256, 1024, 4096, 16384, 65536),
        "pictures": (1, 2, 4, 8, 16, 32, 64),
    },
}
"""From which points, and along which axes."""
QUICK_AXES: Mapping[AnyPoint, Mapping[str, Sequence[int]]] = {
    Point(T=8, B=4, H=8, L=1): {"T": (4, 8, 16), "B": (1, 2, 4), "H": (4, 8, 16), "L": (1, 2, 4)},
    ImagePoint(64, 2, 8): {"pixels": (64, 144, 256), "pictures": (1, 2, 4)},
}
FITTED = 4


def point_of(fields: Mapping[str, Any]) -> AnyPoint:
    """The point with these fields, as another process sends them."""
    return ImagePoint(**fields) if "pixels" in fields else Point(**fields)


def cost(point: AnyPoint, seconds: float) -> dict[str, float]:
    """Median seconds of forward, loss and backward on one worker, and the largest memory held meanwhile, in bytes.

    The memory includes the workspace, which the steps that are timed find ready.
    The time is taken without the watch on the memory, which slows allocation down.
    """
    model, B = point.model(), point.batch
    rng = np.random.default_rng(0)
    params, state = model.init(rng)
    x, labels = rng.standard_normal((B, *model.input_shape), np.float32), rng.integers(0, 10, B)

    def step(work: Workspace) -> None:
        loss_and_grad(model, params, state, x, labels, loss=cross_entropy(0.0), weight=1 / B, work=work)

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
