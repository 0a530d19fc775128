"""The STG: ``input -> stm1 -> stm2 -> … -> stmN -> output``, several STM layers and one fully connected layer.

What stands around the STM, from the picture to the logits and back, is :mod:`stg_np.models.stack`; here is which STM it
is, and what its parameters are at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from stg_np.layers.spec import MEMORY_PRODUCTS, STMKind, time_scales
from stg_np.models.stack import Stack
from stg_np.ops.activations import IDENTITY, TANH
from stg_np.params import Entry
from stg_np.stm import STMParams, init_stm, stm_entries


@dataclass(frozen=True)
class STG(Stack):
    """The short-term memory network, for pictures (B, height, width, c) or sequences (B, T, D).

    Attributes:
        recurrent: whether the gates see the memory too (the recurrent form), or the input only.
        diagonal: whether the gates are diagonal (a vector each) or full (a matrix each).
        tanh_candidate: whether φ_z is tanh, or the identity.
        length: the longest time scale at the start, in steps; 0 means T.
        The others are those of every :class:`~stg_np.models.stack.Stack`.
    """

    recurrent: bool = False
    diagonal: bool = False
    tanh_candidate: bool = True
    length: float = 0.0

    cell_name: ClassVar[str] = "STM"
    cell_params: ClassVar[type[STMParams]] = STMParams
    memory_products: ClassVar[int] = MEMORY_PRODUCTS

    @property
    def kind(self) -> STMKind:
        """Which STM walks in every layer."""
        return STMKind(self.recurrent, self.diagonal, TANH if self.tanh_candidate else IDENTITY)

    def entries(self, prefix: str, D: int) -> tuple[Entry, ...]:
        """The parameters of one walk that reads D numbers a step."""
        return stm_entries(prefix, D, self.memory_width, recurrent=self.recurrent, diagonal=self.diagonal)

    def draw(self, rng: np.random.Generator, D: int) -> STMParams:
        """The same, drawn; memories last up to ``length`` steps."""
        length = self.length or prod(self.grid)
        form = {"recurrent": self.recurrent, "diagonal": self.diagonal}
        return init_stm(rng, D, self.memory_width, length=length, **form)

    def note(self, groups: list[STMParams]) -> str:
        """The time scales of a layer's memories."""
        scales = np.concatenate([time_scales(own.b) for own in groups])
        return f"{scales.min():.1f} … {np.median(scales):.1f} … {scales.max():.1f}"

    @property
    def form(self) -> str:
        """Of which form the STM is, as a part of a sentence."""
        gates, form = "diagonal" if self.diagonal else "full", "recurrent" if self.recurrent else "input-only"
        return f"{gates} gates, {form} form, "
