"""The 2-D convolution (cross-correlation, as the field calls it) as a forward/backward pair: the plain one.

``y[n, r, c] = Σ_ij x[n, r + i − k//2, c + j − k//2] W[i, j] + b``: k × k matrix products, each of the picture shifted
by one offset of the kernel. Stride 1, and zeros around the picture, so that a map keeps its size. The CPU's fast path,
:mod:`stg_np.fast.conv`, computes the same with fewer multiplications; this file is its oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stg_np.backend import Array, check_dtypes, get_xp
from stg_np.ops.linear import flat_rows, matmul, outer_sum


class ConvParams(NamedTuple):
    """``W``: (k, k, C_in, C_out) kernel, k odd; ``b``: (C_out,) bias."""

    W: Array
    b: Array


class ConvCache(NamedTuple):
    """``padded``: the input within its frame of zeros, (B, height + k − 1, width + k − 1, C_in)."""

    padded: Array


def conv2d_forward(x: Array, params: ConvParams) -> tuple[Array, ConvCache]:
    """``y = x ⋆ W + b``, stride 1, zero padding that keeps the size.

    Args:
        x: (B, height, width, C_in).
        params: ``W`` (k, k, C_in, C_out) with k odd, and ``b`` (C_out,).

    Returns:
        y (B, height, width, C_out), and the cache.

    Raises:
        ValueError: if ``x`` and ``W`` do not fit together, or the kernel is not square or not odd.
        TypeError: see :func:`stg_np.backend.check_dtypes`.
    """
    margin = kernel_margin(x, params)
    _, height, width, _ = x.shape
    padded = get_xp(x).pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    y = params.b
    for i, j, rows, columns in offsets(height, width, params):
        y = y + matmul(padded[:, rows, columns], params.W[i, j])  # (B, height, width, C_in) (C_in, C_out)
    return y, ConvCache(padded)


def conv2d_backward(dy: Array, cache: ConvCache, params: ConvParams) -> tuple[Array, ConvParams]:
    """Gradients of the convolution: each shifted product is a linear map of its own, and their gradients add up.

    Args:
        dy: (B, height, width, C_out).
        cache: what the forward kept.
        params: the parameters of the forward.

    Returns:
        dx (B, height, width, C_in), and ``ConvParams`` of gradients.
    """
    xp = get_xp(dy)
    _, height, width, _ = dy.shape
    dpadded, dW = xp.zeros_like(cache.padded), xp.empty_like(params.W)
    for i, j, rows, columns in offsets(height, width, params):
        dpadded[:, rows, columns] += matmul(dy, params.W[i, j].T)  # from padded[…] W[i, j]
        dW[i, j] = outer_sum(cache.padded[:, rows, columns], dy)  # from padded[…] W[i, j]
    margin = len(params.W) // 2
    dx = dpadded[:, margin : margin + height, margin : margin + width]  # the frame is constant
    return dx, ConvParams(dW, flat_rows(dy).sum(0))


def offsets(height: int, width: int, params: ConvParams) -> Iterator[tuple[int, int, slice, slice]]:
    """Each entry (i, j) of the kernel, with the rows and columns of the padded picture that it is multiplied with."""
    k = len(params.W)
    for i in range(k):
        for j in range(k):
            yield i, j, slice(i, i + height), slice(j, j + width)


def kernel_margin(x: Array, params: ConvParams) -> int:
    """How far the kernel reaches beyond its centre, (k − 1) / 2; the errors of :func:`conv2d_forward`."""
    k: int = len(params.W)
    _, k_columns, C_in, C_out = params.W.shape
    if k != k_columns or k % 2 == 0:
        raise ValueError(f"the kernel must be square with an odd side, got {k}×{k_columns}")
    if x.ndim != 4 or x.shape[3] != C_in or params.b.shape != (C_out,):
        raise ValueError(
            f"x {x.shape}, W {params.W.shape} and b {params.b.shape} do not fit: "
            "they must be (B, height, width, C_in), (k, k, C_in, C_out) and (C_out,)"
        )
    check_dtypes(x, *params)
    return k // 2
