"""A first layer that is computed instead of learned: it whitens small windows of the training pictures.

Neighbouring pixels are much alike, so a kernel drawn at random sees little but brightness. Along the eigenvectors v of
the windows' covariance, each divided by √λ, all directions count the same (the first layer of Jordan,
arXiv:2404.00498). Of each direction the kernel holds v and −v, for what follows treats the two signs differently.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

EPSILON = 5e-4
"""Added to λ, so that what is only noise is not made loud."""


def whitening_kernel(
    pictures: NDArray[Any], window: int, directions: int, *, epsilon: float = EPSILON
) -> NDArray[np.float64]:
    """The kernel (window, window, c, 2 · directions) that whitens pictures (N, height, width, c), scaled as the input.

    The directions of the largest variance are kept: with window 3 and three channels there are 27, and in pictures
    that were JPEG files the smallest hold the noise of the colours.

    Raises:
        ValueError: if there are more directions than numbers in a window, or the window does not fit the pictures.
    """
    _, height, width, channels = pictures.shape
    numbers = window * window * channels
    if directions > numbers or window > min(height, width):
        raise ValueError(
            f"a window of {window}×{window} with {channels} channels has {numbers} directions, and must fit into "
            f"{height}×{width}; asked for {directions}"
        )
    windows = sliding_window_view(pictures, (window, window), axis=(1, 2))  # (N, …, …, c, window, window)
    rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, numbers).astype(np.float64)
    eigenvalues, eigenvectors = np.linalg.eigh(rows.T @ rows / len(rows))  # ascending
    largest = eigenvectors[:, ::-1][:, :directions] / np.sqrt(eigenvalues[::-1][:directions] + epsilon)
    return np.concatenate([largest, -largest], 1).reshape(window, window, channels, 2 * directions)
