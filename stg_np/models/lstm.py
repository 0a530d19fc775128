"""The network of LSTM layers: what the STG is measured against, the same stack but for the cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stg_np.layers.lstm import LSTM_CELL, LSTMParams, init_lstm, lstm_entries
from stg_np.layers.spec import Cell
from stg_np.models.stack import Stack
from stg_np.params import Entry


@dataclass(frozen=True)
class LSTM(Stack):
    """Layers of long short-term memory and a head, for pictures (B, height, width, c) or sequences (B, T, D).

    Attributes:
        length: the longest time scale at the start, in steps; 0: the forget gates' biases are 1.
        The others are those of every :class:`~stg_np.models.stack.Stack`.
    """

    length: float = 0.0

    cell_name: ClassVar[str] = "LSTM"
    cell_params: ClassVar[type[LSTMParams]] = LSTMParams
    memory_products: ClassVar[int] = 3  # f ⊙ m, i ⊙ z, o ⊙ tanh(m)

    @property
    def kind(self) -> Cell:
        """The cell of :mod:`stg_np.layers.lstm`."""
        return LSTM_CELL

    def entries(self, prefix: str, D: int) -> tuple[Entry, ...]:
        """The parameters of one walk that reads D numbers a step."""
        return lstm_entries(prefix, D, self.memory_width)

    def draw(self, rng: np.random.Generator, D: int) -> LSTMParams:
        """The same, drawn."""
        return init_lstm(rng, D, self.memory_width, length=self.length)
