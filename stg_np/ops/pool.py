"""Pooling over the steps of a sequence: (B, T, D) -> (B, D), as forward/backward pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_floating, check_whole


def mean_pool_forward(x: Array) -> tuple[Array, int]:
    """The mean over the steps: x (B, T, D) with T ≥ 1 -> y (B, D). The cache is T.

    Raises:
        ValueError, TypeError: see :func:`check_steps`.
    """
    check_steps(x)
    y: Array = x.mean(1)
    return y, x.shape[1]


def mean_pool_backward(dy: Array, steps: int) -> Array:
    """Every step receives dy / T: dy (B, D) -> dx (B, T, D)."""
    B, D = dy.shape
    dx: Array = get_xp(dy).broadcast_to(dy[:, None] / steps, (B, steps, D))
    return dx


def check_steps(x: Array) -> None:
    """Whether there are steps to pool, x (B, T, D) with T ≥ 1.

    Raises:
        ValueError: if not. TypeError: if x is not of a floating dtype.
    """
    check_floating("x", x, "B", "T", "D")
    if x.shape[1] < 1:
        raise ValueError(f"there is no step to pool in {x.shape}")


class LastPoolCache(NamedTuple):
    """T, and how many channels walk to the right."""

    steps: int
    right_width: int


def last_pool_forward(x: Array, right_width: int) -> tuple[Array, LastPoolCache]:
    """Where each direction ends: x (B, T, D) -> y (B, D).

    The first ``right_width`` channels walk to the right and end at step T, the others to the left and end at step 1.

    Raises:
        ValueError: if there are fewer channels. ValueError, TypeError: see :func:`check_steps`.
    """
    check_steps(x)
    check_whole("right_width", right_width)
    if right_width > x.shape[2]:
        raise ValueError(f"{right_width} channels cannot walk to the right where there are {x.shape[2]}")
    y: Array = get_xp(x).concatenate([x[:, -1, :right_width], x[:, 0, right_width:]], -1)
    return y, LastPoolCache(x.shape[1], right_width)


def last_pool_backward(dy: Array, cache: LastPoolCache) -> Array:
    """Only the steps that were read receive a gradient: dy (B, D) -> dx (B, T, D)."""
    B, D = dy.shape
    dx: Array = get_xp(dy).zeros((B, cache.steps, D), dtype=dy.dtype)
    dx[:, -1, : cache.right_width] = dy[:, : cache.right_width]
    dx[:, 0, cache.right_width :] = dy[:, cache.right_width :]
    return dx


def no_pool_forward(x: Array) -> tuple[Array, None]:
    """Every step stays: x (B, T, D) with T ≥ 1 -> y (B, T, D), the same array.

    Raises:
        ValueError, TypeError: see :func:`check_steps`.
    """
    check_steps(x)
    return x, None


def no_pool_backward(dy: Array, cache: None) -> Array:
    """Each step receives its own gradient: (B, T, D)."""
    return dy


def pool_pair(name: str, right_width: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The pair of one of :data:`POOLS`; ``right_width``: how many channels walk to the right."""
    pairs: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "mean": (mean_pool_forward, mean_pool_backward),
        "last": (partial(last_pool_forward, right_width=right_width), last_pool_backward),
        "none": (no_pool_forward, no_pool_backward),
    }
    return pairs[name]


POOLS = ("mean", "last", "none")
"""The mean of all steps; the step at which each direction ends; every step for itself."""
