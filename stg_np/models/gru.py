"""The network of GRU layers: what the STG is measured against, the same stack but for the cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stg_np.layers.gru import GRU_CELL, GRUParams, gru_entries, init_gru
from stg_np.layers.spec import Cell
from stg_np.models.stack import Stack
from stg_np.params import Entry


@dataclass(frozen=True)
class GRU(Stack):
    """Layers of gated recurrent units and a head, for pictures (B, height, width, c) or sequences (B, T, D).

    Attributes:
        length: the longest time scale at the start, in steps; 0: all biases are 0.
        The others are those of every :class:`~stg_np.models.stack.Stack`.
    """

    length: float = 0.0

    cell_name: ClassVar[str] = "GRU"
    cell_params: ClassVar[type[GRUParams]] = GRUParams
    memory_products: ClassVar[int] = 2  # r ⊙ q, u ⊙ (z − m)

    @property
    def kind(self) -> Cell:
        """The cell of :mod:`stg_np.layers.gru`."""
        return GRU_CELL

    def entries(self, prefix: str, D: int) -> tuple[Entry, ...]:
        """The parameters of one walk that reads D numbers a step."""
        return gru_entries(prefix, D, self.memory_width)

    def draw(self, rng: np.random.Generator, D: int) -> GRUParams:
        """The same, drawn."""
        return init_gru(rng, D, self.memory_width, length=self.length)
