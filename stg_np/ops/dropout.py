"""Dropout (Srivastava et al. 2014), inverted: what is kept is scaled up, so evaluation needs no change."""

from __future__ import annotations

import numpy as np

from stg_np.backend import Array, check_dtypes, get_xp
from stg_np.inputs import check_number


def dropout_forward(x: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Set each entry to zero with probability ``rate`` and divide the others by ``1 − rate``.

    The mask is drawn on the host whatever the device, so that both start equal. Returns y (shape of x) and
    the cache, which is the scaled mask.

    Raises:
        ValueError: if ``rate`` is not at least 0 and below 1. TypeError: if x is not of a floating dtype.
    """
    check_number("rate", rate, least=0, below=1)
    check_dtypes(x)
    kept = rng.random(x.shape, dtype=np.float32) >= rate
    mask = get_xp(x).asarray(kept.astype(x.dtype) / (1 - rate))
    return x * mask, mask


def dropout_backward(dy: Array, mask: Array) -> Array:
    """The same entries pass, with the same scale."""
    return dy * mask
