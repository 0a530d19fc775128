"""What a layer of walks is, apart from its parameters: plain values, known before there is any array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, to_host
from stg_np.ops.activations import TANH, Activation

Direction: TypeAlias = Literal["right", "left"]
"""Which way a walk goes through the sequence: ``right`` from the first step on, ``left`` from the last."""


MEMORY_PRODUCTS = 3
"""Multiplications per memory cell and step: i ⊙ z, u ⊙ (v − m), o ⊙ φ(m)."""


class Pair(NamedTuple):
    """A forward and the backward that belongs to it."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


class Cell(NamedTuple):
    """A forward/backward pair that walks a sequence to the right, from a memory that is empty.

    ``forward(x, m_0, params) -> (y, m_T), cache`` and ``backward(dy, dm_T, cache, params) -> dx, dm_0, dparams``;
    x is (B, T, D), y (B, T, H), and the memory is whatever ``empty(x, H)`` makes.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    empty: Callable[..., Any]


class STMKind(NamedTuple):
    """Which STM: do the gates see the memory, are they diagonal, and what is φ_z."""

    recurrent: bool = False
    diagonal: bool = False
    phi_z: Activation = TANH


@dataclass(frozen=True)
class WalkSpec:
    """One layer: a walk for each direction, side by side.

    Attributes:
        width: channels of the output; each walk has its share of them.
        directions: of the walks, in the order of their channels.
        grid: (rows, columns) of the steps; T is their product.
        turned: whether the walks go through the grid column by column.
        adds: whether the layer reads its input normalised and adds to it, ``h + walks(norm(h))``.
        dropout: probability of a zero in what the walks give, in training.
    """

    width: int
    directions: tuple[Direction, ...]
    grid: tuple[int, int]
    turned: bool = False
    adds: bool = True
    dropout: float = 0.0

    @property
    def memory_width(self) -> int:
        """H, the channels of one walk."""
        return self.width // len(self.directions)

    def check(self, h: Array) -> None:
        """Whether h can be this layer's input, (B, T, D).

        Raises:
            ValueError: if it cannot.
        """
        T = self.grid[0] * self.grid[1]
        if h.ndim != 3 or h.shape[1] != T or (self.adds and h.shape[2] != self.width):
            D = self.width if self.adds else "D"
            raise ValueError(f"this layer walks {T} steps of shape (B, {T}, {D}), got {h.shape}")


def time_scales(b: Array) -> Array:
    """τ = 1/u = 1 + e^(−b_u), in steps, of memory cells whose gates have the biases b = [b_i | b_u | b_o | b_z]."""
    b_u = to_host(b).astype(np.float64).reshape(4, -1)[1]
    scales: Array = 1 + np.exp(-b_u)
    return scales
