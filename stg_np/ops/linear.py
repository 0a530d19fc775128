"""The linear map ``y = x W + b``, applied to the last axis: the simplest forward/backward pair.

It shows the convention that every layer of the package follows: two adjacent pure functions, a named cache
in between, and a backward whose every line cites the forward line that it reverses.
"""

from __future__ import annotations

from typing import NamedTuple

from stg_np.backend import Array
from stg_np.inputs import check_linear


class LinearParams(NamedTuple):
    """``W``: (D, H) weight matrix; ``b``: (H,) bias."""

    W: Array
    b: Array


class LinearCache(NamedTuple):
    """``x``: the input, (..., D)."""

    x: Array


def linear_forward(x: Array, params: LinearParams) -> tuple[Array, LinearCache]:
    """``y = x W + b``.

    Args:
        x: (..., D), any number of leading axes (batch; batch and steps; …).
        params: ``W`` (D, H) and ``b`` (H,).

    Returns:
        y (..., H), and the cache.

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_linear`.
    """
    check_linear(x, *params)
    y = matmul(x, params.W) + params.b  # (..., D) (D, H) + (H,) -> (..., H)
    return y, LinearCache(x)


def linear_backward(dy: Array, cache: LinearCache, params: LinearParams) -> tuple[Array, LinearParams]:
    """Gradients of ``y = x W + b``: ``dx = dy Wᵀ``, ``dW = Σ xᵀ dy``, ``db = Σ dy``.

    Args:
        dy: (..., H).
        cache: what the forward kept.
        params: the parameters of the forward.

    Returns:
        dx (..., D), and ``LinearParams`` of gradients.
    """
    dx = matmul(dy, params.W.T)  # from x W
    dW = outer_sum(cache.x, dy)  # from x W
    db = flat_rows(dy).sum(0)  # from + b, which was broadcast over all leading axes
    return dx, LinearParams(dW, db)


def flat_rows(x: Array) -> Array:
    """(..., D) as a matrix (N, D): all leading axes become one."""
    return x.reshape(-1, x.shape[-1])


def matmul(x: Array, W: Array) -> Array:
    """``x W`` over the last axis: (..., D) (D, H) -> (..., H), as ONE matrix product.

    NumPy's ``@`` on a stack of matrices makes one small product per batch entry, which is several times slower.
    """
    y: Array = (flat_rows(x) @ W).reshape(*x.shape[:-1], W.shape[1])
    return y


def outer_sum(x: Array, dy: Array) -> Array:
    """``Σ xᵀ dy`` over all leading axes: (..., D), (..., H) -> (D, H), as one matrix product."""
    dW: Array = flat_rows(x).T @ flat_rows(dy)
    return dW
