"""The plain CNN: ``input -> stem -> conv1 -> … -> convN -> output``, what the image STG is measured against.

Every layer is a convolution, pooling in the first of each block, batch normalisation with a bias, and an activation:
the network of Keller Jordan (arXiv:2404.00498), whose first layer whitens. The same stack as the image STG, but for
gates and memories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stg_np.backend import Array
from stg_np.inputs import check_fields
from stg_np.layers.maps import MapSpec
from stg_np.models.map_stack import MapStack
from stg_np.ops.activations import GELU, RELU
from stg_np.ops.conv import ConvParams
from stg_np.params import Entry

ACTIVATIONS = {"gelu": GELU, "relu": RELU}


@dataclass(frozen=True)
class CNN(MapStack):
    """The convolutional network, for pictures (B, height, width, c).

    Attributes:
        activation: ``gelu`` or ``relu``.
        The others are those of every :class:`~stg_np.models.map_stack.MapStack`.

    Raises:
        ValueError: if the fields do not fit together; the message says which.
    """

    activation: str = "gelu"

    layer_kind: ClassVar[str] = "conv"
    layer_params: ClassVar[type[ConvParams]] = ConvParams

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, CNN, choices={"activation": ACTIVATIONS}, from_zero=("stem",))

    def spec(self, name: str) -> MapSpec:
        """What a layer is."""
        is_stem = name == "stem"
        return MapSpec(ACTIVATIONS[self.activation], pools=self.pools(name), normalises=not is_stem, frozen=is_stem)

    def entries(self, name: str, D: int, H: int, window: int) -> tuple[Entry, ...]:
        """The parameters of a layer."""
        return Entry(f"{name}.W", (window, window, D, H), "kernel"), Entry(f"{name}.b", (H,), "vector")

    def draw(self, rng: np.random.Generator, name: str, W: Array, H: int) -> ConvParams:
        """The parameters of a layer (float64) whose window is W."""
        return ConvParams(W, np.zeros(H))

    def __str__(self) -> str:
        return f"CNN: {len(self.wide)} convolutions in {len(self.widths)} blocks, {self.activation}"
