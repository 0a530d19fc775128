"""What a model that reads step by step takes for a step, and in which orders its layers walk the steps.

A picture becomes a sequence by :mod:`stg_np.ops.views`; every layer walks it in one direction or in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from stg_np.backend import Array
from stg_np.inputs import check_fields, check_sizes
from stg_np.layers.spec import Direction, WalkSpec
from stg_np.models.base import Part
from stg_np.ops.views import patches_forward, shuffled, with_noise

VIEWS = ("rows", "patches", "pixels", "permuted")


@dataclass(frozen=True)
class InSteps:
    """Steps and walks of a model, for pictures (B, height, width, c) or sequences (B, T, D).

    Attributes:
        input_shape: (height, width, c) of a picture, or (T, D) of a sequence.
        classes: C, the number of logits.
        view: how a picture becomes a sequence: ``rows`` (T = height), ``patches`` or ``pixels``; ``permuted``: the
            pixels in an order that was drawn at random, the same for all.
        patch: (height, width) of a patch, for the view ``patches``.
        noise: steps of noise that follow after the last one of a picture.
        width: channels between the layers; a bidirectional layer gives half of them to each direction.
        layers: L, the number of recurrent layers.
        bidirectional: whether every layer also walks the sequence from its end.
        alternate: whether every second layer walks the grid of steps column by column.
        dropout: probability of a zero in a layer's output, in training.
        cell_name: what walks; in small letters and with a number, the name of a layer.

    Raises:
        ValueError, TypeError: if a field is not what it must be, or the fields do not fit together.
    """

    input_shape: tuple[int, ...]
    classes: int
    view: str = "rows"
    patch: tuple[int, int] = (4, 4)
    noise: int = 0
    width: int = 128
    layers: int = 2
    bidirectional: bool = True
    alternate: bool = False
    dropout: float = 0.0

    cell_name: ClassVar[str]

    def __post_init__(self) -> None:
        check_sizes("input_shape, (height, width, c) or (T, D),", self.input_shape, lengths=(2, 3))
        check_sizes("patch", self.patch, lengths=(2,))
        check_fields(self, InSteps, choices={"view": VIEWS}, from_zero=("noise",), fractions=("dropout",))
        if self.width % len(self.directions):
            raise ValueError(f"width {self.width} cannot be halved between two directions")
        if self.is_picture and any(side % step for side, step in zip(self.input_shape, self.patch_size)):
            raise ValueError(f"patches of {self.patch_size} do not divide a picture of {self.input_shape[:2]}")

    @property
    def is_picture(self) -> bool:
        """Whether the input is (B, height, width, c) rather than (B, T, D)."""
        return len(self.input_shape) == 3

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of what one step sees of the picture."""
        sizes = {"rows": (1, self.input_shape[1]), "patches": self.patch, "pixels": (1, 1), "permuted": (1, 1)}
        return sizes[self.view]

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of steps; T is their product. A sequence is one row; a picture with noise, too."""
        if not self.is_picture:
            return 1, self.input_shape[0]
        rows, columns = (side // step for side, step in zip(self.input_shape, self.patch_size))
        return (1, rows * columns + self.noise) if self.noise else (rows, columns)

    @property
    def features(self) -> int:
        """D, how many numbers one step of the input holds."""
        if not self.is_picture:
            return self.input_shape[1]
        return self.patch_size[0] * self.patch_size[1] * self.input_shape[2]

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The walks of one layer, as they are named in the parameters."""
        return ("right", "left") if self.bidirectional else ("right",)

    @property
    def memory_width(self) -> int:
        """H, the memory cells of one walk."""
        return self.width // len(self.directions)

    def spec(self, layer: int) -> WalkSpec:
        """The layer number ``layer``, from 0, apart from its parameters."""
        turned = self.alternate and layer % 2 == 1
        return WalkSpec(self.width, self.directions, self.grid, turned, adds=layer > 0, dropout=self.dropout)

    def layer_name(self, layer: int) -> str:
        """What a layer is called: ``stm1``, ``stm2``, …"""
        return f"{self.cell_name.lower()}{layer + 1}"

    def walks(self, layer: int) -> list[str]:
        """What the walks of a layer are called, ``stm1.right`` and ``stm1.left``: the prefixes of their parameters."""
        return [f"{self.layer_name(layer)}.{direction}" for direction in self.directions]

    def reads(self) -> dict[str, int]:
        """D, the numbers that each step of a walk reads, by the walk's name."""
        widths = [self.features, *[self.width] * (self.layers - 1)]
        return {walk: D for layer, D in enumerate(widths) for walk in self.walks(layer)}

    @property
    def form(self) -> str:
        """Of which form the cell is, as a part of a sentence."""
        return ""

    def note(self, groups: list[Any]) -> str:
        """What a summary says of a layer with these parameters."""
        return ""

    def in_steps(self, x: Array) -> Array:
        """A batch as sequences (B, T, D)."""
        if not self.is_picture:
            return x
        h = patches_forward(x, *self.patch_size)
        h = shuffled(h) if self.view == "permuted" else h
        return with_noise(h, self.noise) if self.noise else h

    def input_parts(self) -> list[Part]:
        """The input, and its steps."""
        noise = f", {self.noise:,} of noise" if self.noise else ""
        steps = f"as {self.view}{noise}" if self.is_picture else "steps"
        return [Part("input", self.input_shape), Part(steps, (prod(self.grid), self.features))]
