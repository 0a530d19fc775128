"""What is to be learned where examples are not pictures of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.ops.losses import Loss


class Task(NamedTuple):
    """How its examples are drawn, and how well they are answered.

    Attributes:
        draw: ``inputs, targets = draw(rng, count)``, on the host.
        loss: what a training descends.
        measure: the name of the loss as it is quoted; ``scale``: how often it holds that loss.
        right: what is counted as right, as in "97 % RIGHT".
        untrained: the loss, as it is quoted, of the best answer without a memory.
    """

    draw: Callable[[np.random.Generator, int], tuple[Array, Array]]
    loss: Loss
    measure: str
    right: str
    untrained: float
    scale: float = 1.0
