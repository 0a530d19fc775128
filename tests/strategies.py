"""Hypothesis strategies by dimension, and arrays of every memory layout.

Hypothesis draws *shapes, flags and a seed*, the arrays are filled by NumPy from the seed: so a failing example
shrinks to the smallest shape, and no time goes into drawing floats one by one. The letters are those of the
mathematics: B batch, T steps, D input features, H memory width, C classes, L layers.

Every array that :class:`Arrays` makes is read-only, so a layer that writes into an argument fails at that line.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from stg_np.backend import Array, to_device
from stg_np.stm import STMParams

B = st.sampled_from((1, 2, 3, 5))
T = st.sampled_from((1, 2, 3, 7))
D = st.sampled_from((1, 2, 3, 5))
H = st.sampled_from((1, 2, 3))
C = st.sampled_from((1, 2, 3, 7))
L = st.sampled_from((1, 2, 3))
EMPTY_B = st.sampled_from((0, 1, 3))
"""Batches that may be empty: the last shard of a small batch is."""
SEEDS = st.integers(0, 2**32 - 1)
LAYOUTS = st.sampled_from(("C", "Fortran", "every second entry", "backwards"))
DTYPES: st.SearchStrategy[Any] = st.sampled_from((np.float32, np.float64))


def examples(share: float) -> settings:
    """A share of the profile's number of examples, for tests whose examples are costly."""
    return settings(max_examples=max(1, round(settings().max_examples * share)))


class STMSizes(NamedTuple):
    """The sizes of one STM layer and its input."""

    B: int
    T: int
    D: int
    H: int


STM_SIZES = st.builds(STMSizes, EMPTY_B, T, D, H)
FULL_STM_SIZES = st.builds(STMSizes, B, T, D, H)
"""For checks of gradients, which are of something."""


class Arrays:
    """Draws read-only arrays of one dtype and memory layout, on one device, from a seed."""

    def __init__(self, seed: int, dtype: Any = np.float64, layout: str = "C", device: str = "cpu") -> None:
        self.rng, self.dtype, self.layout, self.device = np.random.default_rng(seed), dtype, layout, device

    def on(self, device: str) -> Arrays:
        """The same arrays, on a device."""
        self.device = device
        return self

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers."""
        return self._finish(self.rng.standard_normal(shape))

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Numbers between ``low`` and ``high``."""
        return self._finish(self.rng.uniform(low, high, shape))

    def extreme(self, *shape: int) -> Array:
        """Only -1e4, 0 and 1e4: every gate saturated or exactly half open."""
        return self._finish(self.rng.choice((-1e4, 0.0, 1e4), shape))

    def labels(self, classes: int, count: int) -> Array:
        """``count`` integers in 0 … classes - 1."""
        return to_device(self.rng.integers(0, classes, count), self.device)

    def stm(self, D: int, H: int, *, recurrent: bool, diagonal: bool) -> STMParams:
        """Parameters of an STM layer, of order 1 in every entry; the matrix R of order 1/√H keeps memories tame."""
        columns = H if diagonal else 4 * H
        R = self._finish(self.rng.standard_normal((H, columns)) / np.sqrt(H)) if recurrent else None
        return STMParams(self.normal(D, columns), self.normal(4 * H), R, self.normal(3 * H) if diagonal else None)

    def _finish(self, values: Array) -> Array:
        array = in_layout(values.astype(self.dtype), self.layout)
        array.flags.writeable = False
        return to_device(array, self.device)


def in_layout(values: Array, layout: str) -> Array:
    """The same numbers, otherwise laid out in memory."""
    if layout == "Fortran":
        return np.asfortranarray(values)
    if layout == "every second entry":
        memory = np.full((2 * prod(values.shape),), np.nan, values.dtype)  # what lies between must never be read
        memory[::2] = values.reshape(-1)
        strides = tuple(2 * stride for stride in np.ascontiguousarray(values).strides)
        return np.lib.stride_tricks.as_strided(memory, values.shape, strides)
    if layout == "backwards":
        whole = tuple(slice(None, None, -1) for _ in values.shape)
        return np.ascontiguousarray(values[whole])[whole]
    return np.ascontiguousarray(values)


ARRAYS = st.builds(Arrays, SEEDS, DTYPES, LAYOUTS)
"""Arrays of any dtype and layout: ``draw.on(device).normal(3, 4)``."""
FLOAT64_ARRAYS = st.builds(Arrays, SEEDS, layout=LAYOUTS)
