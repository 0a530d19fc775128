"""Numbers that are no longer finite: a training ends there, and says so in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable

from stg_np.backend import Array, get_xp


class TrainingError(RuntimeError):
    """Training cannot go on; the message says since when."""


def refuse_bad_step(bad_step: float) -> None:
    """``bad_step`` is the first step that the guard of the update refused; −1: it has refused none.

    Raises:
        TrainingError: naming it.
    """
    if bad_step >= 0:
        raise TrainingError(
            f"the gradient of step {bad_step:.0f}, or what it made of the parameters, is not finite; they were left as "
            "they were before it: lower the learning rate"
        )


def refuse_divergence(loss: float, where: str) -> None:
    """Numbers can become so large that their loss is none: what is right then is luck.

    Raises:
        TrainingError: if the loss ("after step 3") is not finite.
    """
    if not math.isfinite(loss):
        raise TrainingError(f"the loss {where} is not finite: the training diverged, lower the learning rate")


def refuse_infinite_state(arrays: Iterable[Array], step: int) -> None:
    """A state that is not finite is no state to save, and nothing to go on from.

    Raises:
        TrainingError: if one of the arrays holds NaN or an infinity.
    """
    if not all(bool(get_xp(array).isfinite(array).all()) for array in arrays):
        raise TrainingError(
            f"what was learned is not finite after step {step}, and was not saved: lower the learning rate"
        )
