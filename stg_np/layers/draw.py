"""Matrices at the start of a training, for the cells that feed their output back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stg_np.inputs import check_sizes


def input_matrix(rng: np.random.Generator, D: int, columns: int) -> NDArray[np.float64]:
    """W (D, columns) of the variance 1/D: products of numbers of order 1 are of order 1."""
    check_sizes("D and the columns", (D, columns))
    W: NDArray[np.float64] = rng.standard_normal((D, columns)) / np.sqrt(D)
    return W


def recurrent_matrix(rng: np.random.Generator, H: int, blocks: int) -> NDArray[np.float64]:
    """R (H, blocks · H), each block orthogonal: what is fed back again and again neither grows nor fades by it.

    (Saxe et al., arXiv:1312.6120; the usual start of LSTM, GRU and plain networks.) Uniform over all rotations and
    reflections, after Mezzadri (arXiv:math-ph/0609050).
    """
    drawn = []
    for _ in range(blocks):
        q, r = np.linalg.qr(rng.standard_normal((H, H)))
        drawn.append(q * np.sign(np.diag(r)))
    return np.concatenate(drawn, 1)
