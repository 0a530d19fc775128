"""Batch normalisation (Ioffe & Szegedy, arXiv:1502.03167), as forward/backward pairs, without scale and shift.

Every channel gets mean 0 and variance 1 over a group of pictures in training, and the same affine map in evaluation, by
statistics that were kept meanwhile. What follows has a scale and a bias of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from stg_np.backend import Array, check_dtypes
from stg_np.inputs import check_shape
from stg_np.ops.linear import flat_rows

EPSILON = 1e-5
"""ε, small beside the variance of what is normalised."""


class Statistics(NamedTuple):
    """Of each channel: ``mean`` (C,) and ``variance`` (C,), that of the numbers at hand (divided by their count)."""

    mean: Array
    variance: Array


class BatchNormCache(NamedTuple):
    """``centred``: x − mean, (..., C); ``scale``: 1 / deviation, (C,)."""

    centred: Array
    scale: Array


def batch_norm_forward(x: Array) -> tuple[tuple[Array, Statistics], BatchNormCache]:
    """``y = (x − mean) / √(variance + ε)`` with the statistics of x over all axes but the last; x and y (..., C).

    Returns:
        ``(y, statistics)``, and the cache. Nothing is learned through the statistics returned; through y, all is.

    Raises:
        ValueError: if there are no numbers, or no axis. TypeError: if x is not of a floating dtype.
    """
    check_dtypes(x)
    if x.ndim < 2 or not x.size:
        raise ValueError(f"x must be (..., C) with at least one row of C ≥ 1 numbers, got {x.shape}")
    rows = flat_rows(x)  # (N, C)
    mean = rows.mean(0)
    centred = x - mean
    variance = (flat_rows(centred) ** 2).mean(0)
    scale = (variance + EPSILON) ** -0.5
    y = centred * scale
    return (y, Statistics(mean, variance)), BatchNormCache(centred, scale)


def batch_norm_backward(dy: Array, cache: BatchNormCache) -> Array:
    """``dx = (dy − mean(dy) − y mean(dy ⊙ y)) / deviation``: mean and deviation depend on every x."""
    centred, scale = cache
    y = centred * scale
    dmean = flat_rows(dy).mean(0)  # from x − mean
    along = flat_rows(dy * y).mean(0)  # from 1 / deviation
    dx: Array = (dy - dmean - y * along) * scale
    return dx


def fixed_norm_forward(x: Array, statistics: Statistics) -> tuple[Array, Array]:
    """``y = (x − mean) / √(variance + ε)`` with given statistics, x (..., C); the cache is 1 / deviation.

    Raises:
        ValueError: if the statistics are not (C,). TypeError: if there is not one floating dtype for all.
    """
    check_dtypes(x, *statistics)
    for name, values in zip(Statistics._fields, statistics):
        check_shape(name, values, x.shape[-1])
    scale = (statistics.variance + EPSILON) ** -0.5
    y: Array = (x - statistics.mean) * scale
    return y, scale


def fixed_norm_backward(dy: Array, scale: Array) -> Array:
    """Given statistics are constants: dx = dy / deviation."""
    dx: Array = dy * scale
    return dx


def running(before: Statistics, now: Statistics, rate: float) -> Statistics:
    """Statistics that follow those of the groups: ``(1 − rate) · before + rate · now``."""
    return Statistics(*((1 - rate) * old + rate * new for old, new in zip(before, now)))
