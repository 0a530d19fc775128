"""A stack of recurrent layers: ``input -> layer1 -> … -> layerN -> output``, whatever cell walks in them.

Every layer walks the steps of the input (:mod:`stg_np.models.steps`); the steps are pooled; a linear head gives the
logits. From the second layer on a layer *adds* to what it reads, ``h + walks(norm(h))``: a deep stack of gates trains
badly without that path, along which a gradient passes unchanged. The STG is the stack of STM cells
(:mod:`stg_np.models.stg`); its baselines are the same stack of other cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.inputs import check_fields
from stg_np.layers.spec import Cell, STMKind
from stg_np.models.base import Part, check_input
from stg_np.models.steps import InSteps
from stg_np.ops.linear import LinearCache, LinearParams, linear_backward, linear_forward
from stg_np.ops.norm import RMSNormCache, rms_norm_backward, rms_norm_forward
from stg_np.ops.pool import POOLS, pool_pair
from stg_np.params import Entry, Layout, Params, State, named
from stg_np.workspace import Workspace


class StackCache(NamedTuple):
    """What :meth:`Stack.backward` needs: the cache of each layer, of the norm, of the pooling and of the head."""

    layers: list[Any]
    norm: RMSNormCache
    pool: Any
    head: LinearCache
    in_workspace: bool


@dataclass(frozen=True)
class Stack(InSteps, ABC):
    """Recurrent layers and a head; what is abstract says which cell walks.

    Attributes:
        pool: ``mean`` of all steps, the ``last`` step of each direction, or ``none``: logits (B, T, C) of every step.
        cell_params: the named tuple of one walk's parameters.
        memory_products: multiplications per memory cell and step, besides those of the matrices.

    Raises:
        ValueError, TypeError: if a field is not what it must be, or the fields do not fit together.
    """

    pool: str = "mean"

    cell_params: ClassVar[type[Any]]
    memory_products: ClassVar[int]

    @property
    @abstractmethod
    def kind(self) -> STMKind | Cell:
        """What walks in every layer."""

    @abstractmethod
    def entries(self, prefix: str, D: int) -> tuple[Entry, ...]:
        """The parameters of one walk that reads D numbers a step."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, D: int) -> Any:
        """The same, drawn (float64)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, type(self), choices={"pool": POOLS}, from_zero=("noise",))

    def layout(self) -> Layout:
        """``stm1.right.W`` … ``head.b``."""
        cells = [entry for walk, D in self.reads().items() for entry in self.entries(walk, D)]
        head = Entry("head.W", (self.width, self.classes), "head"), Entry("head.b", (self.classes,), "vector")
        return Layout((*cells, *head))

    def state_layout(self) -> Layout:
        """Empty: nothing is kept but the parameters."""
        return Layout(())

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        """Draw the parameters of every walk, and the head."""
        arrays: dict[str, Array] = {}
        for walk, D in self.reads().items():
            arrays |= named(walk, self.draw(rng, D))
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
    ) -> tuple[Array, StackCache, State]:
        """``input -> layer1 -> … -> layerN -> output``.

        Args:
            x: (B, height, width, c), or (B, T, D), of the parameters' dtype. params, state: from :meth:`init`.
            train: whether dropout is active. rng: its source; needed only then.
            work: None: the plain path. A workspace: the fast path, whose cache is good until the next forward in it.

        Returns:
            logits (B, C), or (B, T, C) without pooling; the cache; and the state (unchanged).

        Raises:
            ValueError, TypeError: see :func:`~stg_np.models.base.check_input`.
        """
        from stg_np.fast.choose import layer_pair

        check_input(self, x, params)
        h, caches = self.in_steps(x), []  # (B, T, D)
        for layer in range(self.layers):
            forward, _ = layer_pair(h, self.spec(layer), self.kind, work and work.within(self.layer_name(layer)))
            h, cache = forward(h, self.groups(params, layer), self.spec(layer), rng=rng if train else None)
            caches.append(cache)
        h, norm = rms_norm_forward(h)  # (B, T, width)
        pooled, pool = pool_pair(self.pool, self.memory_width)[0](h)
        logits, head = linear_forward(pooled, params.group("head", LinearParams))  # (B, width) -> (B, C)
        return logits, StackCache(caches, norm, pool, head, work is not None), state

    def backward(self, dlogits: Array, cache: StackCache, params: Params, *, work: Workspace | None = None) -> Params:
        """The gradient of every parameter from dlogits (B, C): the lines of :meth:`forward`, last to first.

        Raises:
            ValueError: if forward and backward do not both have a workspace, or neither.
        """
        from stg_np.fast.choose import layer_pair

        if cache.in_workspace != (work is not None):
            raise ValueError("the backward takes a workspace if, and only if, its forward had one")
        dpooled, dhead = linear_backward(dlogits, cache.head, params.group("head", LinearParams))
        grads = named("head", dhead)
        dh = pool_pair(self.pool, self.memory_width)[1](dpooled, cache.pool)
        dh = rms_norm_backward(dh, cache.norm)  # (B, T, width)
        for layer in reversed(range(self.layers)):
            _, backward = layer_pair(dh, self.spec(layer), self.kind, work and work.within("backward"))
            dh, dgroups = backward(dh, cache.layers[layer], self.groups(params, layer), self.spec(layer))
            for walk, dgroup in zip(self.walks(layer), dgroups):
                grads |= named(walk, dgroup)
        return Params.pack(params.layout, grads)

    def groups(self, params: Params, layer: int) -> list[Any]:
        """The parameters of each walk of a layer."""
        return [params.group(walk, self.cell_params) for walk in self.walks(layer)]

    def __str__(self) -> str:
        directions = "both directions" if self.bidirectional else "one direction"
        turned = ", every second layer column by column" if self.alternate else ""
        return f"{type(self).__name__}: {self.layers} {self.cell_name} layers, {self.form}{directions}{turned}"

    def parts(self, params: Params) -> list[Part]:
        """Input, layers, pooling and head."""
        parts, T, head = self.input_parts(), prod(self.grid), self.width * self.classes
        for layer in range(self.layers):
            groups = self.groups(params, layer)
            weights = [own._asdict().get(name) for own in groups for name in ("W", "R", "w")]
            products = sum(prod(array.shape) for array in weights if array is not None)
            multiply_adds = T * (products + self.memory_products * self.width)
            parts.append(Part(self.layer_name(layer), (T, self.width), multiply_adds, self.note(groups)))
        if self.pool == "none":
            return [*parts, Part("head", (T, self.classes), T * head)]
        return [*parts, Part(f"{self.pool} of the steps", (self.width,)), Part("head", (self.classes,), head)]
