"""What is timed: one layer of given sizes, or a whole training step of a preset; both know their random data.

B batch, T steps, D input features, H memory width. The data follow from the seed alone, so that processes which never
exchange an array work on the same numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array
from stg_np.data import SOURCES
from stg_np.models.stg import STG
from stg_np.params import Params, State
from stg_np.presets import PRESETS
from stg_np.stm import STMParams, init_stm

SEED = 0


class LayerCase(NamedTuple):
    """Forward and backward of one input-only STM layer with full gates, float32."""

    B: int
    T: int
    D: int
    H: int

    @property
    def label(self) -> str:
        """For tables."""
        return f"({self.B}, {self.T}, {self.D}, {self.H})"

    def draw(self) -> tuple[Array, Array, STMParams]:
        """x (B, T, D), dy (B, T, H), and the parameters."""
        rng = np.random.default_rng(SEED)
        params = init_stm(rng, self.D, self.H, length=self.T)
        x = rng.standard_normal((self.B, self.T, self.D), np.float32)
        dy = rng.standard_normal((self.B, self.T, self.H), np.float32)
        return x, dy, STMParams(params.W.astype(np.float32), params.b.astype(np.float32))


class StepCase(NamedTuple):
    """Forward, loss and backward of a preset's network, float32; ``batch`` 0 is the preset's."""

    preset: str
    batch: int = 0

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.preset}, batch {self.size}"

    @property
    def size(self) -> int:
        """Pictures per step."""
        return self.batch or PRESETS[self.preset].config.batch_size

    @property
    def group_size(self) -> int:
        """Pictures per shard, which the preset fixes."""
        return PRESETS[self.preset].config.group_size

    @property
    def label_smoothing(self) -> float:
        """Of the loss."""
        return PRESETS[self.preset].config.label_smoothing

    def model(self) -> STG:
        """The preset's network; without dropout, whose draws no two libraries share."""
        data = SOURCES[PRESETS[self.preset].data].INFO
        return replace(PRESETS[self.preset].make_model(data.shape, len(data.classes)), dropout=0.0)

    def draw(self) -> tuple[Array, Array, Params, State]:
        """Pictures (B, height, width, c), labels (B,), parameters and state."""
        rng = np.random.default_rng(SEED)
        model = self.model()
        params, state = model.init(rng)
        x = rng.standard_normal((self.size, *model.input_shape), np.float32)
        return x, rng.integers(0, model.classes, self.size), params, state


Case: TypeAlias = LayerCase | StepCase


def case_from(fields: dict[str, Any]) -> Case:
    """The case with these fields, as ``case._asdict()`` gave them."""
    return StepCase(**fields) if "preset" in fields else LayerCase(**fields)


LAYERS = (
    LayerCase(64, 32, 96, 256),
    LayerCase(64, 64, 128, 128),
    LayerCase(64, 1024, 3, 128),
    LayerCase(64, 1024, 64, 64),
)
STEPS = tuple(StepCase(name) for name in PRESETS)
QUICK_LAYERS = (LayerCase(4, 8, 12, 16), LayerCase(4, 32, 3, 16))
QUICK_STEPS = (StepCase("digits", 8),)
