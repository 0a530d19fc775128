"""Two synthetic tasks that only a memory can solve; sequences ``(B, T, D)``, drawn afresh for each batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stg_np.backend import Array

COPY_SYMBOLS = 10
"""The copying task's alphabet: 0 is the blank, 1 … 8 are to be remembered, 9 means "now recall"."""

COPY_LENGTH = 10
"""How many symbols the copying task asks to remember."""


def adding_problem(
    rng: np.random.Generator, batch: int, steps: int, dtype: DTypeLike = np.float32
) -> tuple[Array, Array]:
    """Add the two marked numbers of a long sequence: ``x (B, T, 2)`` and ``target (B,)``.

    ``x[..., 0]`` is uniform on [0, 1]; ``x[..., 1]`` is one at two different steps, drawn uniformly, and zero
    elsewhere; the target is the sum of the two marked numbers. Always answering 1 has a mean squared error of
    1/6 ≈ 0.167: a network below that remembers. Hochreiter & Schmidhuber 1997, experiment 4, in the form of
    Bai, Kolter & Koltun 2018 (arXiv:1803.01271).

    Raises:
        ValueError: if there are fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"the adding problem marks two steps, so it needs at least 2, not {steps}")
    values = rng.random((batch, steps))
    first = rng.integers(0, steps, batch)
    second = (first + rng.integers(1, steps, batch)) % steps  # any step but the first one
    marks = np.zeros_like(values)
    row = np.arange(batch)
    marks[row, first] = marks[row, second] = 1
    x = np.stack([values, marks], axis=-1).astype(dtype)
    target: Array = x[row, first, 0] + x[row, second, 0]
    return x, target


def copy_memory(
    rng: np.random.Generator, batch: int, delay: int, dtype: DTypeLike = np.float32
) -> tuple[Array, NDArray[np.int64]]:
    """Repeat ten symbols after a delay: ``x (B, delay + 20, 10)`` one-hot, and ``target (B, delay + 20)``.

    The input is ten symbols of 1 … 8, then ``delay − 1`` blanks (0), then eleven times the signal 9; the target is
    blank throughout, and the ten symbols at the last ten steps. ``x.argmax(-1)`` gives the symbols back. Without
    memory, the best cross-entropy per step is ``10 log 8 / (delay + 20)``. Hochreiter & Schmidhuber 1997;
    Arjovsky et al. 2016; the layout is that of Bai, Kolter & Koltun 2018 (arXiv:1803.01271).

    Raises:
        ValueError: if ``delay`` is less than 1.
    """
    if delay < 1:
        raise ValueError(f"the delay must be at least 1 step, not {delay}")
    steps = delay + 2 * COPY_LENGTH
    remembered = rng.integers(1, COPY_SYMBOLS - 1, (batch, COPY_LENGTH))
    symbols = np.zeros((batch, steps), np.int64)
    symbols[:, :COPY_LENGTH] = remembered
    symbols[:, -COPY_LENGTH - 1 :] = COPY_SYMBOLS - 1
    target = np.zeros((batch, steps), np.int64)
    target[:, -COPY_LENGTH:] = remembered
    return np.eye(COPY_SYMBOLS, dtype=dtype)[symbols], target
