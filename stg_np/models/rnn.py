"""The network of plain recurrent layers, without a gate: the same stack as the STG but for the cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stg_np.layers.rnn import RNN_CELL, RNNParams, init_rnn, rnn_entries
from stg_np.layers.spec import Cell
from stg_np.models.stack import Stack
from stg_np.params import Entry


@dataclass(frozen=True)
class RNN(Stack):
    """Layers of tanh units and a head, for pictures (B, height, width, c) or sequences (B, T, D)."""

    cell_name: ClassVar[str] = "RNN"
    cell_params: ClassVar[type[RNNParams]] = RNNParams
    memory_products: ClassVar[int] = 0

    @property
    def kind(self) -> Cell:
        """The cell of :mod:`stg_np.layers.rnn`."""
        return RNN_CELL

    def entries(self, prefix: str, D: int) -> tuple[Entry, ...]:
        """The parameters of one walk that reads D numbers a step."""
        return rnn_entries(prefix, D, self.memory_width)

    def draw(self, rng: np.random.Generator, D: int) -> RNNParams:
        """The same, drawn."""
        return init_rnn(rng, D, self.memory_width)
