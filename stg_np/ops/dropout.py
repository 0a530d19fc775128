"""Dropout (Srivastava et al. 2014), inverted: what is kept is scaled up, so evaluation needs no change."""

from __future__ import annotations

import numpy as np

from stg_np.backend import Array, get_xp


def dropout_forward(x: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Set each entry to zero with probability ``rate`` and divide the others by ``1 − rate``.

    The mask is drawn on the host whatever the device, so that both start equal. Returns y (shape of x) and
    the cache, which is the scaled mask.
    """
    kept = rng.random(x.shape, dtype=np.float32) >= rate
    mask = get_xp(x).asarray(kept.astype(x.dtype) / (1 - rate))
    return x * mask, mask


def dropout_backward(dy: Array, mask: Array) -> Array:
    """The same entries pass, with the same scale."""
    return dy * mask
