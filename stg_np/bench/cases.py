"""What is timed: a layer, a training step of a preset, a convolution; each draws its own random data.

B batch, T steps, D input features, H memory width. The data follow from the seed alone, so processes that never
exchange an array work on the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np

from stg_np.backend import Array
from stg_np.data import SOURCES
from stg_np.models.base import Model
from stg_np.models.image_stg import ImageSTG
from stg_np.models.stg import STG
from stg_np.ops.conv import ConvParams
from stg_np.params import Params, State
from stg_np.presets import PRESETS
from stg_np.stm import STMParams, init_stm

SEED = 0


@dataclass(frozen=True)
class LayerCase:
    """Forward and backward of one STM layer in one direction, input-only form, full gates, float32."""

    kind: ClassVar[str] = "layer"
    B: int
    T: int
    D: int
    H: int

    @property
    def label(self) -> str:
        """For tables."""
        return f"({self.B}, {self.T}, {self.D}, {self.H})"

    @property
    def flops(self) -> int:
        """Of the products x W, da Wᵀ and xᵀ da; a multiplication and an addition count as two."""
        return 3 * 2 * self.B * self.T * self.D * 4 * self.H

    def draw(self) -> tuple[Array, Array, STMParams]:
        """x (B, T, D), dy (B, T, H), and the parameters."""
        rng = np.random.default_rng(SEED)
        params = init_stm(rng, self.D, self.H, length=self.T)
        x = rng.standard_normal((self.B, self.T, self.D), np.float32)
        dy = rng.standard_normal((self.B, self.T, self.H), np.float32)
        return x, dy, STMParams(params.W.astype(np.float32), params.b.astype(np.float32))


@dataclass(frozen=True)
class StepCase:
    """Forward, loss and backward of a preset's network, float32; ``batch`` 0 is the preset's."""

    kind: ClassVar[str] = "step"
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

    @property
    def groups(self) -> list[slice]:
        """The shards, in their order."""
        return [slice(start, start + self.group_size) for start in range(0, self.size, self.group_size)]

    def model(self) -> STG | ImageSTG:
        """The preset's network; without dropout, whose draws no two libraries share."""
        model = self.network()
        if not isinstance(model, STG):
            raise TypeError(f"the peers know the network of STG presets only, and {self.preset} is of another kind")
        return replace(model, dropout=0.0)

    def network(self) -> Model:
        """As the preset has it."""
        data = SOURCES[PRESETS[self.preset].data].INFO
        return PRESETS[self.preset].make_model(data.shape, len(data.classes))

    def draw(self) -> tuple[Array, Array, Params, State]:
        """Pictures (B, height, width, c), labels (B,), parameters and state."""
        rng = np.random.default_rng(SEED)
        model = self.model()
        params, state = model.init(rng)
        x = rng.standard_normal((self.size, *model.input_shape), np.float32)
        return x, rng.integers(0, model.classes, self.size), params, state


@dataclass(frozen=True)
class ImageCase(StepCase):
    """The same of an image STG, whose batch statistics are those of each shard."""

    kind: ClassVar[str] = "image"

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.preset}, {self.size} pictures in shards of {self.group_size}"

    def model(self) -> ImageSTG:
        """The preset's network."""
        model = self.network()
        if not isinstance(model, ImageSTG):
            raise TypeError(f"the network of {self.preset} is no image STG")
        return model


@dataclass(frozen=True)
class ConvCase:
    """Forward and backward of a 3×3 convolution on maps of side × side pixels, channels last, float32."""

    kind: ClassVar[str] = "conv"
    B: int
    side: int
    C_in: int
    C_out: int

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.C_in} → {self.C_out} channels, {self.side}×{self.side}, batch {self.B}"

    @property
    def flops(self) -> int:
        """Of the definition, for y, dx and dW; a multiplication and an addition count as two."""
        return 3 * 2 * 9 * self.B * self.side**2 * self.C_in * self.C_out

    def draw(self) -> tuple[Array, Array, ConvParams]:
        """x (B, side, side, C_in), dy (B, side, side, C_out), and the parameters."""
        rng = np.random.default_rng(SEED)
        x = rng.standard_normal((self.B, self.side, self.side, self.C_in), np.float32)
        dy = rng.standard_normal((self.B, self.side, self.side, self.C_out), np.float32)
        W = rng.standard_normal((3, 3, self.C_in, self.C_out), np.float32) / np.float32(3 * self.C_in**0.5)
        return x, dy, ConvParams(W, rng.standard_normal(self.C_out, np.float32))


Case: TypeAlias = LayerCase | StepCase | ConvCase
KINDS: dict[str, type[Case]] = {case.kind: case for case in (LayerCase, StepCase, ImageCase, ConvCase)}


def to_json(case: Case) -> dict[str, Any]:
    """The case as plain values, for another process or a file."""
    return {"kind": case.kind, **asdict(case)}


def from_json(fields: Mapping[str, Any]) -> Case:
    """The case that :func:`to_json` wrote."""
    values = dict(fields)
    return KINDS[values.pop("kind")](**values)


SIZES: dict[str, Sequence[Case]] = {
    "layer": (
        LayerCase(64, 32, 96, 256),
        LayerCase(64, 64, 128, 128),
        LayerCase(64, 1024, 3, 128),
        LayerCase(64, 1024, 64, 64),
    ),
    "step": tuple(StepCase(name) for name in ("digits", "fashion-rows", "cifar10-rows", "cifar10-patches")),
    "image": (ImageCase("cifar10-fast", 250),),
    "conv": (ConvCase(64, 32, 64, 64), ConvCase(64, 16, 128, 128), ConvCase(64, 8, 256, 256), ConvCase(64, 32, 3, 64)),
}
"""What is measured, by kind."""

QUICK_SIZES: dict[str, Sequence[Case]] = {
    "layer": (LayerCase(4, 8, 12, 16), LayerCase(4, 32, 3, 16)),
    "step": (StepCase("digits", 8),),
    "image": (ImageCase("digits-image", 2),),
    "conv": (ConvCase(2, 16, 16, 16), ConvCase(2, 8, 3, 16)),
}
"""Sizes that only show that everything runs."""
