"""Elementwise functions φ as forward/backward pairs: ``y = f_forward(x)`` and ``dx = f_backward(dy, x, y)``.

A backward may use the input ``x``, the output ``y``, or both: the derivatives of σ and tanh are shortest in
their outputs. All keep the shape and the dtype of ``x``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stg_np.backend import Array, check_dtypes, get_xp


class Activation(NamedTuple):
    """A pair of functions; what the STM layer takes as φ and φ_z."""

    forward: Callable[[Array], Array]
    backward: Callable[[Array, Array, Array], Array]


def sigmoid_forward(x: Array) -> Array:
    """The logistic function σ(x) = 1 / (1 + e^−x), exact to rounding however small it is.

    ½ tanh(x/2) + ½ is the same, but its error is one of 1: at −18 it is 0 in float32, where σ is 1.5e-8. Where e^−x is
    too large for its dtype, σ is 0, as it should be.

    Raises:
        TypeError: if x is not of a floating dtype.
    """
    check_dtypes(x)
    with np.errstate(over="ignore"):
        y: Array = 1 / (1 + get_xp(x).exp(-x))
    return y


def sigmoid_backward(dy: Array, x: Array, y: Array) -> Array:
    """σ' = σ (1 − σ)."""
    dx: Array = dy * y * (1 - y)
    return dx


def tanh_forward(x: Array) -> Array:
    """The hyperbolic tangent."""
    y: Array = get_xp(x).tanh(x)
    return y


def tanh_backward(dy: Array, x: Array, y: Array) -> Array:
    """tanh' = 1 − tanh²."""
    dx: Array = dy * (1 - y * y)
    return dx


def identity_forward(x: Array) -> Array:
    """φ(x) = x."""
    return x


def identity_backward(dy: Array, x: Array, y: Array) -> Array:
    """φ' = 1."""
    return dy


def relu_forward(x: Array) -> Array:
    """max(x, 0); not differentiable at 0, where the backward takes 0."""
    y: Array = get_xp(x).maximum(x, 0)
    return y


def relu_backward(dy: Array, x: Array, y: Array) -> Array:
    """relu' = 1 where x > 0, else 0."""
    return dy * (x > 0)


def gelu_forward(x: Array) -> Array:
    """The Gaussian error linear unit ``x Φ(x)`` with Φ by a tanh (Hendrycks & Gimpel, arXiv:1606.08415):

    ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), at most 5e-4 from the exact one.
    """
    y: Array = 0.5 * x * (1 + get_xp(x).tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x)))
    return y


def gelu_backward(dy: Array, x: Array, y: Array) -> Array:
    """½ (1 + t) + ½ x (1 − t²) times the slope of what t is the tanh of."""
    t = get_xp(x).tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x))
    dx: Array = dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x)))
    return dx


GELU_SCALE = 0.7978845608028654
"""√(2/π)."""
GELU_CUBIC = 0.044715

SIGMOID = Activation(sigmoid_forward, sigmoid_backward)
TANH = Activation(tanh_forward, tanh_backward)
IDENTITY = Activation(identity_forward, identity_backward)
RELU = Activation(relu_forward, relu_backward)
GELU = Activation(gelu_forward, gelu_backward)
