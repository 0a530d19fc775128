"""Pooling over the steps of a sequence: (B, T, D) -> (B, D), as forward/backward pairs."""

from __future__ import annotations

from typing import NamedTuple

from stg_np.backend import Array, get_xp


def mean_pool_forward(x: Array) -> tuple[Array, int]:
    """The mean over the steps: x (B, T, D) -> y (B, D). The cache is T."""
    y: Array = x.mean(1)
    return y, x.shape[1]


def mean_pool_backward(dy: Array, steps: int) -> Array:
    """Every step receives dy / T: dy (B, D) -> dx (B, T, D)."""
    B, D = dy.shape
    dx: Array = get_xp(dy).broadcast_to(dy[:, None] / steps, (B, steps, D))
    return dx


class LastPoolCache(NamedTuple):
    """T, and how many channels walk to the right."""

    steps: int
    right_width: int


def last_pool_forward(x: Array, right_width: int) -> tuple[Array, LastPoolCache]:
    """Where each direction ends: x (B, T, D) -> y (B, D).

    The first ``right_width`` channels walk to the right and end at step T, the others to the left and end at step 1.
    """
    y: Array = get_xp(x).concatenate([x[:, -1, :right_width], x[:, 0, right_width:]], -1)
    return y, LastPoolCache(x.shape[1], right_width)


def last_pool_backward(dy: Array, cache: LastPoolCache) -> Array:
    """Only the steps that were read receive a gradient: dy (B, D) -> dx (B, T, D)."""
    B, D = dy.shape
    dx: Array = get_xp(dy).zeros((B, cache.steps, D), dtype=dy.dtype)
    dx[:, -1, : cache.right_width] = dy[:, : cache.right_width]
    dx[:, 0, cache.right_width :] = dy[:, cache.right_width :]
    return dx
