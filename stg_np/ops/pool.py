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
    """T, and how many channels walk forwards."""

    steps: int
    forward_width: int


def last_pool_forward(x: Array, forward_width: int) -> tuple[Array, LastPoolCache]:
    """Where each direction ends: x (B, T, D) -> y (B, D).

    The first ``forward_width`` channels walk forwards and end at step T, the others walk backwards and end at
    step 1.
    """
    y: Array = get_xp(x).concatenate([x[:, -1, :forward_width], x[:, 0, forward_width:]], -1)
    return y, LastPoolCache(x.shape[1], forward_width)


def last_pool_backward(dy: Array, cache: LastPoolCache) -> Array:
    """Only the steps that were read receive a gradient: dy (B, D) -> dx (B, T, D)."""
    B, D = dy.shape
    dx: Array = get_xp(dy).zeros((B, cache.steps, D), dtype=dy.dtype)
    dx[:, -1, : cache.forward_width] = dy[:, : cache.forward_width]
    dx[:, 0, cache.forward_width :] = dy[:, cache.forward_width :]
    return dx
