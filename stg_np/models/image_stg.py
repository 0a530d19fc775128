"""The image STG: ``input -> stem -> stm1 -> … -> stmN -> output``, for pictures that stay pictures.

Every layer is an image STM (:mod:`stg_np.sweep`): a window, gates, a memory that sweeps the map. There is no other
nonlinearity than gates and the choice of the largest pixel. What stands around the layers is
:mod:`stg_np.models.map_stack`; the shape, and much of the recipe, is that of Keller Jordan's CIFAR-10 network
(arXiv:2404.00498), with its activations replaced by the three gates and the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from stg_np.backend import Array
from stg_np.inputs import check_fields, check_sizes
from stg_np.layers.maps import MapSpec
from stg_np.layers.spec import MEMORY_PRODUCTS, time_scales
from stg_np.models.map_stack import MapStack
from stg_np.params import Entry
from stg_np.stm import STMParams, draw_update_biases
from stg_np.sweep import ALL_WAYS, STILL, SweepKind, image_stm_entries, quarters, summed

JOINS = {"quarters": quarters, "sum": summed}


@dataclass(frozen=True)
class ImageSTG(MapStack):
    """The short-term memory network on maps, for pictures (B, height, width, c).

    Attributes:
        sweeping: numbers of the layers, from 1, whose memory sweeps; in the others it lasts for one step.
        directions: how many of right, left, down, up. join: ``quarters`` or ``sum``.
        louder: whether what comes into a slow memory is scaled up. diagonal: diagonal or full gates.
        slope: w_i at the start; with 1.7, i ⊙ z is nearly the GELU of z.
        input_bias, update_bias, output_bias: b_i, b_u and b_o at the start. A gate that starts at 40 is 1 and stays so
            in float32, where σ(40) = 1 and its slope is 0.
        length: where not 0, the time scales of the memories at the start are log-uniform from 2 to it instead.
        The others are those of every :class:`~stg_np.models.map_stack.MapStack`.

    Raises:
        ValueError: if the fields do not fit together; the message says which.
    """

    sweeping: tuple[int, ...] = (2, 4, 6)
    directions: int = 4
    join: str = "quarters"
    louder: bool = False
    diagonal: bool = True
    slope: float = 1.7
    input_bias: float = 0.0
    update_bias: float = 2.0
    output_bias: float = 2.0
    length: float = 0.0

    layer_kind: ClassVar[str] = "stm"
    layer_params: ClassVar[type[STMParams]] = STMParams

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("sweeping", self.sweeping)
        signed = ("slope", "input_bias", "update_bias", "output_bias")
        check_fields(self, ImageSTG, choices={"join": JOINS}, from_zero=("stem",), signed=signed)
        if any(not 1 <= layer <= len(self.wide) for layer in self.sweeping):
            raise ValueError(f"sweeping names layers from 1 to {len(self.wide)}, got {self.sweeping}")
        if self.directions > len(ALL_WAYS):
            raise ValueError(f"there are 1 to {len(ALL_WAYS)} directions, got {self.directions}")
        if self.join == "quarters" and any(width % self.directions for width in self.widths):
            raise ValueError(f"widths {self.widths} cannot be shared out among {self.directions} directions")

    def spec(self, name: str) -> MapSpec:
        """What a layer is."""
        if name == "stem":
            return MapSpec(SweepKind(STILL), normalises=False, frozen=True)
        sweeps = int(name.removeprefix(self.layer_kind)) in self.sweeping
        sweep = JOINS[self.join](ALL_WAYS[: self.directions]) if sweeps else STILL
        return MapSpec(SweepKind(sweep, louder=self.louder and sweeps), pools=self.pools(name))

    def is_diagonal(self, name: str) -> bool:
        """Whether a layer's gates are diagonal; the stem's always are, for its window is not learned."""
        return self.diagonal or name == "stem"

    def entries(self, name: str, D: int, H: int, window: int) -> tuple[Entry, ...]:
        """The parameters of a layer."""
        return image_stm_entries(name, D, H, window=window, diagonal=self.is_diagonal(name))

    def draw(self, rng: np.random.Generator, name: str, W: Array, H: int) -> STMParams:
        """The parameters of a layer (float64) whose window is W."""
        b = np.repeat([self.input_bias, self.update_bias, self.output_bias, 0.0], H)
        if self.length and self.spec(name).kind.sweep is not STILL:
            b[H : 2 * H] = draw_update_biases(rng, H, self.length)
        w = np.repeat([self.slope, 0.0, 0.0], H) if self.is_diagonal(name) else None
        return STMParams(W, b, None, w)

    def products(self, own: STMParams) -> int:
        """Multiplications per pixel of a layer with these parameters, besides those of its window."""
        return MEMORY_PRODUCTS * (len(own.b) // 4) + (0 if own.w is None else prod(own.w.shape))

    def note(self, name: str, own: STMParams) -> str:
        """The time scales of a layer's memories, where they sweep."""
        if self.spec(name).kind.sweep is STILL:
            return ""
        scales = time_scales(own.b)
        return f"{scales.min():.1f} … {np.median(scales):.1f} … {scales.max():.1f}"

    def __str__(self) -> str:
        gates = "diagonal" if self.diagonal else "full"
        sweeps = f"memory sweeps in layers {', '.join(map(str, self.sweeping))}" if self.sweeping else "no sweeps"
        return f"image STG: {len(self.wide)} STM layers in {len(self.widths)} blocks, {gates} gates, {sweeps}"
