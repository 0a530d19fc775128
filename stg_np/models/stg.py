"""The STG: ``input -> stm1 -> stm2 -> … -> stmN -> output``, several STM layers and one fully connected layer.

A picture becomes a sequence (:mod:`stg_np.ops.views`); every STM layer walks it in one direction or in both; the
steps are pooled; a linear head gives the logits. From the second layer on a layer *adds* to what it reads,
``h + STM(norm(h))``: a deep stack of gates trains badly without that path, along which a gradient passes unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.inputs import check_fields, check_sizes
from stg_np.layers.spec import MEMORY_PRODUCTS, Direction, STMKind, WalkSpec, time_scales
from stg_np.models.base import Part, check_input
from stg_np.ops.activations import IDENTITY, TANH
from stg_np.ops.linear import LinearCache, LinearParams, linear_backward, linear_forward
from stg_np.ops.norm import RMSNormCache, rms_norm_backward, rms_norm_forward
from stg_np.ops.pool import last_pool_backward, last_pool_forward, mean_pool_backward, mean_pool_forward
from stg_np.ops.views import patches_forward
from stg_np.params import Entry, Layout, Params, State, named
from stg_np.stm import STMParams, init_stm, stm_entries
from stg_np.workspace import Workspace

VIEWS = ("rows", "patches", "pixels")
POOLS = ("mean", "last")


class STGCache(NamedTuple):
    """What :meth:`STG.backward` needs: the cache of each layer, of the norm, of the pooling and of the head."""

    layers: list[Any]
    norm: RMSNormCache
    pool: Any
    head: LinearCache
    in_workspace: bool


@dataclass(frozen=True)
class STG:
    """The short-term memory network, for pictures (B, height, width, c) or sequences (B, T, D).

    Attributes:
        input_shape: (height, width, c) of a picture, or (T, D) of a sequence.
        classes: C, the number of logits.
        view: how a picture becomes a sequence: ``rows`` (T = height), ``patches`` or ``pixels``.
        patch: (height, width) of a patch, for the view ``patches``.
        width: channels between the layers; a bidirectional layer gives half of them to each direction.
        layers: L, the number of STM layers.
        recurrent: whether the gates see the memory too (the recurrent form), or the input only.
        diagonal: whether the gates are diagonal (a vector each) or full (a matrix each).
        bidirectional: whether every layer also walks the sequence from its end.
        alternate: whether every second layer walks the grid of steps column by column.
        tanh_candidate: whether φ_z is tanh, or the identity.
        pool: ``mean`` of all steps, or the ``last`` step of each direction.
        dropout: probability of a zero in a layer's output, in training.
        length: the longest time scale at the start, in steps; 0 means T.

    Raises:
        ValueError, TypeError: if a field is not what it must be, or the fields do not fit together.
    """

    input_shape: tuple[int, ...]
    classes: int
    view: str = "rows"
    patch: tuple[int, int] = (4, 4)
    width: int = 128
    layers: int = 2
    recurrent: bool = False
    diagonal: bool = False
    bidirectional: bool = True
    alternate: bool = False
    tanh_candidate: bool = True
    pool: str = "mean"
    dropout: float = 0.0
    length: float = 0.0

    def __post_init__(self) -> None:
        check_sizes("input_shape, (height, width, c) or (T, D),", self.input_shape, lengths=(2, 3))
        check_sizes("patch", self.patch, lengths=(2,))
        check_fields(self, STG, choices={"view": VIEWS, "pool": POOLS}, fractions=("dropout",))
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
        return {"rows": (1, self.input_shape[1]), "pixels": (1, 1), "patches": self.patch}[self.view]

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of steps; T is their product. A sequence is one row."""
        if not self.is_picture:
            return 1, self.input_shape[0]
        return self.input_shape[0] // self.patch_size[0], self.input_shape[1] // self.patch_size[1]

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

    @property
    def kind(self) -> STMKind:
        """Which STM walks in every layer."""
        return STMKind(self.recurrent, self.diagonal, TANH if self.tanh_candidate else IDENTITY)

    def spec(self, layer: int) -> WalkSpec:
        """The layer number ``layer``, from 0, apart from its parameters."""
        turned = self.alternate and layer % 2 == 1
        return WalkSpec(self.width, self.directions, self.grid, turned, adds=layer > 0, dropout=self.dropout)

    def walks(self, layer: int) -> list[str]:
        """What the walks of a layer are called, ``stm1.right`` and ``stm1.left``: the prefixes of their parameters."""
        return [f"stm{layer + 1}.{direction}" for direction in self.directions]

    def read_width(self, layer: int) -> int:
        """D, the numbers that each step of a layer reads."""
        return self.features if layer == 0 else self.width

    def layout(self) -> Layout:
        """``stm1.right.W`` … ``head.b``."""
        form = {"recurrent": self.recurrent, "diagonal": self.diagonal}
        stm = [
            stm_entries(walk, self.read_width(layer), self.memory_width, **form)
            for layer in range(self.layers)
            for walk in self.walks(layer)
        ]
        head = Entry("head.W", (self.width, self.classes), "head"), Entry("head.b", (self.classes,), "vector")
        return Layout(tuple(entry for entries in (*stm, head) for entry in entries))

    def state_layout(self) -> Layout:
        """Empty: the STG keeps nothing but its parameters."""
        return Layout(())

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        """Draw the parameters; memories last up to ``length`` steps."""
        length = self.length or prod(self.grid)
        arrays: dict[str, Array] = {}
        for layer in range(self.layers):
            for walk in self.walks(layer):
                drawn = init_stm(
                    rng, self.read_width(layer), self.memory_width,
                    length=length, recurrent=self.recurrent, diagonal=self.diagonal,
                )  # fmt: skip
                arrays |= named(walk, drawn)
        arrays["head.W"] = rng.standard_normal((self.width, self.classes)) / np.sqrt(self.width)
        arrays["head.b"] = np.zeros(self.classes)
        return Params.pack(self.layout(), {name: array.astype(dtype) for name, array in arrays.items()}), {}

    def forward(
        self,
        x: Array,
        params: Params,
        state: State,
        *,
        train: bool = False,
        rng: np.random.Generator | None = None,
        work: Workspace | None = None,
    ) -> tuple[Array, STGCache, State]:
        """``input -> stm1 -> … -> stmN -> output``.

        Args:
            x: (B, height, width, c), or (B, T, D), of the parameters' dtype. params, state: from :meth:`init`.
            train: whether dropout is active. rng: its source; needed only then.
            work: None: the plain path. A workspace: the fast path, whose cache is good until the next forward in it.

        Returns:
            logits (B, C), the cache, and the state (unchanged).

        Raises:
            ValueError, TypeError: see :func:`~stg_np.models.base.check_input`.
        """
        from stg_np.fast.choose import layer_pair

        check_input(self, x, params)
        h = patches_forward(x, *self.patch_size) if self.is_picture else x  # (B, T, D)
        caches = []
        for layer in range(self.layers):
            forward, _ = layer_pair(h, self.spec(layer), self.kind, work and work.within(f"stm{layer + 1}"))
            h, cache = forward(h, self.groups(params, layer), self.spec(layer), rng=rng if train else None)
            caches.append(cache)
        h, norm = rms_norm_forward(h)  # (B, T, width)
        pooled, pool = mean_pool_forward(h) if self.pool == "mean" else last_pool_forward(h, self.memory_width)
        logits, head = linear_forward(pooled, params.group("head", LinearParams))  # (B, width) -> (B, C)
        return logits, STGCache(caches, norm, pool, head, work is not None), state

    def backward(self, dlogits: Array, cache: STGCache, params: Params, *, work: Workspace | None = None) -> Params:
        """The gradient of every parameter from dlogits (B, C): the lines of :meth:`forward`, last to first.

        Raises:
            ValueError: if forward and backward do not both have a workspace, or neither.
        """
        from stg_np.fast.choose import layer_pair

        if cache.in_workspace != (work is not None):
            raise ValueError("the backward takes a workspace if, and only if, its forward had one")
        dpooled, dhead = linear_backward(dlogits, cache.head, params.group("head", LinearParams))
        grads = named("head", dhead)
        dh = (mean_pool_backward if self.pool == "mean" else last_pool_backward)(dpooled, cache.pool)
        dh = rms_norm_backward(dh, cache.norm)  # (B, T, width)
        for layer in reversed(range(self.layers)):
            _, backward = layer_pair(dh, self.spec(layer), self.kind, work and work.within("backward"))
            dh, dgroups = backward(dh, cache.layers[layer], self.groups(params, layer), self.spec(layer))
            for walk, dgroup in zip(self.walks(layer), dgroups):
                grads |= named(walk, dgroup)
        return Params.pack(params.layout, grads)

    def groups(self, params: Params, layer: int) -> list[STMParams]:
        """The parameters of each walk of a layer."""
        return [params.group(walk, STMParams) for walk in self.walks(layer)]

    def __str__(self) -> str:
        gates, form = "diagonal" if self.diagonal else "full", "recurrent" if self.recurrent else "input-only"
        directions = "both directions" if self.bidirectional else "one direction"
        turned = ", every second layer column by column" if self.alternate else ""
        return f"STG: {self.layers} STM layers, {gates} gates, {form} form, {directions}{turned}"

    def parts(self, params: Params) -> list[Part]:
        """Input, layers with the time scales of their memories, pooling and head."""
        T = prod(self.grid)
        steps = f"as {self.view}" if self.is_picture else "steps"
        parts = [Part("input", self.input_shape), Part(steps, (T, self.features))]
        for layer in range(self.layers):
            groups = self.groups(params, layer)
            products = sum(prod(array.shape) for own in groups for array in (own.W, own.R, own.w) if array is not None)
            scales = np.concatenate([time_scales(own.b) for own in groups])
            note = f"{scales.min():.1f} … {np.median(scales):.1f} … {scales.max():.1f}"
            parts.append(Part(f"stm{layer + 1}", (T, self.width), T * (products + MEMORY_PRODUCTS * self.width), note))
        head = self.width * self.classes
        return [*parts, Part(f"{self.pool} of the steps", (self.width,)), Part("head", (self.classes,), head)]
