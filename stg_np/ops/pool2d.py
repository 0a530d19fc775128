"""Pooling of maps over windows of side × side pixels that do not overlap, as forward/backward pairs.

(B, height, width, C) -> (B, height / side, width / side, C).
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import NamedTuple

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_floating, check_whole


class MaxPoolCache(NamedTuple):
    """``x``: (B, height, width, C), the maxima ``y``, and the side of the windows."""

    x: Array
    y: Array
    side: int


def max_pool2d_forward(x: Array, *, side: int = 2) -> tuple[Array, MaxPoolCache]:
    """The largest pixel of every window, channel by channel.

    Args:
        x: (B, height, width, C).
        side: of the window, in pixels.

    Returns:
        y (B, height / side, width / side, C), and the cache.

    Raises:
        ValueError, TypeError: see :func:`window_pixels`.
    """
    y: Array = reduce(get_xp(x).maximum, window_pixels(x, side))
    return y.copy(), MaxPoolCache(x, y, side)


def max_pool2d_backward(dy: Array, cache: MaxPoolCache) -> Array:
    """The largest pixel receives dy: dy (B, height / side, width / side, C) -> dx (B, height, width, C).

    Where several pixels are equally large, they share dy equally. That is a subgradient (the mean of those that each
    of them gives alone), it does not depend on any order, and a mirrored picture has the mirrored gradient.
    """
    largest = [(pixel == cache.y).astype(dy.dtype) for pixel in window_pixels(cache.x, cache.side)]
    share = dy / reduce(add, largest)
    dx: Array = get_xp(dy).empty_like(cache.x)
    for dpixel, mask in zip(window_pixels(dx, cache.side), largest):
        dpixel[...] = mask * share
    return dx


def average_pool2d_forward(x: Array, *, side: int = 2) -> tuple[Array, int]:
    """The mean of every window: x (B, height, width, C) -> y (B, height / side, width / side, C). The cache is side.

    Raises:
        ValueError, TypeError: see :func:`window_pixels`.
    """
    y: Array = reduce(add, window_pixels(x, side)) / side**2
    return y, side


def average_pool2d_backward(dy: Array, side: int) -> Array:
    """Every pixel of a window receives dy / side²: dy (B, height / side, …, C) -> dx (B, height, width, C)."""
    B, height, width, C = dy.shape
    dx: Array = get_xp(dy).empty((B, height * side, width * side, C), dtype=dy.dtype)
    for dpixel in window_pixels(dx, side):
        dpixel[...] = dy / side**2
    return dx


def window_pixels(x: Array, side: int) -> list[Array]:
    """Views of x: the first pixel of every window, the second, …, each (B, height / side, width / side, C).

    Raises:
        ValueError: if the windows do not tile the map, or x is none. TypeError: if it is not of a floating dtype.
    """
    check_floating("x", x, "B", "height", "width", "C")
    check_whole("side", side, least=1)
    _, height, width, _ = x.shape
    if height % side or width % side:
        raise ValueError(f"a {height}×{width} map cannot be cut into windows of {side}×{side}")
    return [x[:, row::side, column::side] for row in range(side) for column in range(side)]


class GlobalMaxCache(NamedTuple):
    """``x``: (B, height, width, C), and its maxima ``y`` (B, 1, 1, C)."""

    x: Array
    y: Array


def global_max_pool_forward(x: Array) -> tuple[Array, GlobalMaxCache]:
    """The largest pixel of each map, channel by channel: x (B, height, width, C) -> y (B, C).

    Raises:
        ValueError: if x is no map of one pixel or more. TypeError: if it is not of a floating dtype.
    """
    check_floating("x", x, "B", "height", "width", "C")
    if 0 in x.shape[1:3]:
        raise ValueError(f"there is no pixel in {x.shape}")
    y: Array = x.max((1, 2))
    return y.copy(), GlobalMaxCache(x, y[:, None, None])


def global_max_pool_backward(dy: Array, cache: GlobalMaxCache) -> Array:
    """The largest pixels share dy (B, C) equally, as in :func:`max_pool2d_backward`: dx (B, height, width, C)."""
    largest = (cache.x == cache.y).astype(dy.dtype)
    dx: Array = largest * (dy[:, None, None] / largest.sum((1, 2), keepdims=True))
    return dx
