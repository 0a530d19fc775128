"""A picture as a sequence, and orders in which to walk it: rearrangements, so each backward is the inverse."""

from __future__ import annotations

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_shape


def patches_forward(images: Array, patch_height: int, patch_width: int) -> Array:
    """Cut (B, height, width, c) into non-overlapping patches, row by row: (B, T, patch_height·patch_width·c).

    ``rows`` are patches of 1 × width, ``pixels`` patches of 1 × 1.

    Raises:
        ValueError: if the pictures cannot be divided into such patches, or are none.
    """
    check_shape("pictures", images, "B", "height", "width", "c")
    B, height, width, c = images.shape
    if height % patch_height or width % patch_width:
        raise ValueError(f"a {height}×{width} picture cannot be cut into {patch_height}×{patch_width} patches")
    rows, columns = height // patch_height, width // patch_width
    grid = images.reshape(B, rows, patch_height, columns, patch_width, c)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(B, rows * columns, patch_height * patch_width * c)


def patches_backward(dx: Array, image_shape: tuple[int, int, int], patch_height: int, patch_width: int) -> Array:
    """The inverse of :func:`patches_forward`: (B, T, D) -> (B, height, width, c)."""
    height, width, c = image_shape
    grid = dx.reshape(-1, height // patch_height, width // patch_width, patch_height, patch_width, c)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, c)


def transpose_grid(x: Array, grid: tuple[int, int]) -> Array:
    """Reorder the steps of a (rows, columns) grid from row by row to column by column: (B, T, D) -> (B, T, D).

    No step is mixed with another. The backward is ``transpose_grid(dy, (columns, rows))``.
    """
    B, T, D = x.shape
    rows, columns = grid
    return x.reshape(B, rows, columns, D).transpose(0, 2, 1, 3).reshape(B, T, D)


def shuffled(x: Array) -> Array:
    """The steps of x (B, T, D) in an order that was drawn once for all: neighbours are far apart."""
    steps: Array = x[:, get_xp(x).asarray(np.random.default_rng(0).permutation(x.shape[1]))]
    return steps


def with_noise(x: Array, steps: int) -> Array:
    """x (B, T, D), and after it so many steps of standard normal noise, the same for all: (B, T + steps, D).

    So it is in the noise-padded CIFAR-10 of Rusch & Mishra (arXiv:2103.05487).
    """
    xp, (B, _, D) = get_xp(x), x.shape
    noise = xp.asarray(np.random.default_rng(0).standard_normal((steps, D)).astype(x.dtype))
    padded: Array = xp.concatenate([x, xp.broadcast_to(noise, (B, steps, D))], 1)
    return padded
