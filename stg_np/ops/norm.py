"""Root-mean-square normalisation over the last axis (Zhang & Sennrich, arXiv:1910.07467), without a gain.

The layer that follows multiplies by a weight matrix, and a gain per feature is only another scale of that
matrix's rows; so there is nothing to learn here.
"""

from __future__ import annotations

from typing import NamedTuple

from stg_np.backend import Array, check_dtypes
from stg_np.inputs import check_number

EPSILON = 1e-5
"""ε, small beside the mean square of what is normalised."""


class RMSNormCache(NamedTuple):
    """``x``: the input, (..., D); ``scale``: 1 / rms, (..., 1)."""

    x: Array
    scale: Array


def rms_norm_forward(x: Array, *, epsilon: float = EPSILON) -> tuple[Array, RMSNormCache]:
    """``y = x / rms(x)`` with ``rms(x) = √(mean(x²) + ε)`` over the last axis; x and y are (..., D).

    Raises:
        ValueError: if x has no axis, or one of no numbers, or ε is below 0. TypeError: if x is not of a floating dtype.
    """
    check_number("epsilon", epsilon, least=0)
    check_dtypes(x)
    if not x.shape or x.shape[-1] == 0:
        raise ValueError(f"x must be (..., D) with D ≥ 1, got {x.shape}")
    mean_square = (x * x).mean(-1, keepdims=True)  # (..., 1)
    scale = (mean_square + epsilon) ** -0.5
    y: Array = x * scale
    return y, RMSNormCache(x, scale)


def rms_norm_backward(dy: Array, cache: RMSNormCache) -> Array:
    """``dx = (dy − y · mean(dy ⊙ y)) / rms``: what dy changes along y itself is normalised away.

    From ``y = x s``, ``s = (mean(x²) + ε)^−½``: ``ds/dx = −s³ x / D``, and ``x s = y``.
    """
    y = cache.x * cache.scale  # again, because the forward's y is its caller's
    along = (dy * y).mean(-1, keepdims=True)  # (..., 1)
    dx: Array = (dy - y * along) * cache.scale
    return dx
