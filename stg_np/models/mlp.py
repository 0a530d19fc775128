"""A multilayer perceptron: ``input -> dense1 -> … -> denseN -> output``, each dense layer followed by a ReLU.

It sees a picture as one long vector and has no gate and no memory: the baseline of everything here. With the widths 128
and 64 it is what the code printed in the article computes, whose text describes an STG.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.inputs import check_sizes, check_whole
from stg_np.models.base import Part, check_input
from stg_np.ops.activations import RELU
from stg_np.ops.linear import LinearCache, LinearParams, linear_backward, linear_forward
from stg_np.params import Entry, Layout, Params, State, named
from stg_np.workspace import Workspace


class DenseCache(NamedTuple):
    """Of one dense layer: the linear map's cache, its result a, and y = relu(a)."""

    linear: LinearCache
    a: Array
    y: Array


class MLPCache(NamedTuple):
    """What :meth:`MLP.backward` needs: the cache of each dense layer and of the head."""

    layers: list[DenseCache]
    head: LinearCache


@dataclass(frozen=True)
class MLP:
    """The multilayer perceptron, for examples of any shape.

    Attributes:
        input_shape: shape of one example. classes: C, the number of logits.
        widths: numbers that each dense layer gives.

    Raises:
        ValueError: if a size is below 1. TypeError: if one is no whole number.
    """

    input_shape: tuple[int, ...]
    classes: int
    widths: tuple[int, ...] = (128, 64)

    def __post_init__(self) -> None:
        check_sizes("input_shape", self.input_shape, fewest=1)
        check_whole("classes", self.classes, least=1)
        check_sizes("widths", self.widths)

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear map, by name: ``dense1`` … ``denseN``, ``head``."""
        sizes = [prod(self.input_shape), *self.widths, self.classes]
        names = [*(f"dense{layer + 1}" for layer in range(len(self.widths))), "head"]
        return dict(zip(names, pairwise(sizes)))

    def layout(self) -> Layout:
        """``dense1.W`` … ``head.b``."""
        entries = []
        for name, (inputs, outputs) in self.maps.items():
            entries.append(Entry(f"{name}.W", (inputs, outputs), "head" if name == "head" else "matrix"))
            entries.append(Entry(f"{name}.b", (outputs,), "vector"))
        return Layout(tuple(entries))

    def state_layout(self) -> Layout:
        """Empty: nothing is kept but the parameters."""
        return Layout(())

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        """Draw the weights, of the variance 2 / inputs before a ReLU (He et al., arXiv:1502.01852), else 1 / inputs."""
        arrays: dict[str, Array] = {}
        for name, (inputs, outputs) in self.maps.items():
            gain = 1 if name == "head" else 2
            W = rng.standard_normal((inputs, outputs)) * np.sqrt(gain / inputs)
            arrays |= named(name, LinearParams(W.astype(dtype), np.zeros(outputs, dtype)))
        return Params.pack(self.layout(), arrays), {}

    def forward(
        self,
        x: Array,
        params: Params,
        state: State,
        *,
        train: bool = False,
        rng: np.random.Generator | None = None,
        work: Workspace | None = None,
    ) -> tuple[Array, MLPCache, State]:
        """Logits (B, C) of x (B, …), the cache, and the state (unchanged); there is one path, with ``work`` or without.

        Raises:
            ValueError, TypeError: see :func:`~stg_np.models.base.check_input`.
        """
        check_input(self, x, params)
        h = x.reshape(x.shape[0], prod(self.input_shape))  # (B, …) -> (B, D)
        caches = []
        *dense, head = self.maps
        for name in dense:
            a, cache = linear_forward(h, params.group(name, LinearParams))
            h = RELU.forward(a)
            caches.append(DenseCache(cache, a, h))
        logits, head_cache = linear_forward(h, params.group(head, LinearParams))  # (B, C)
        return logits, MLPCache(caches, head_cache), state

    def backward(self, dlogits: Array, cache: MLPCache, params: Params, *, work: Workspace | None = None) -> Params:
        """The gradient of every parameter from dlogits (B, C): the lines of :meth:`forward`, last to first."""
        *dense, head = self.maps
        dh, dparams = linear_backward(dlogits, cache.head, params.group(head, LinearParams))
        grads = named(head, dparams)
        for name, layer in zip(reversed(dense), reversed(cache.layers)):
            da = RELU.backward(dh, layer.a, layer.y)
            dh, dparams = linear_backward(da, layer.linear, params.group(name, LinearParams))
            grads |= named(name, dparams)
        return Params.pack(params.layout, grads)

    def __str__(self) -> str:
        return f"MLP: {len(self.widths)} dense layers with ReLU"

    def parts(self, params: Params) -> list[Part]:
        """Input, dense layers and head."""
        maps = [Part(name, (outputs,), inputs * outputs) for name, (inputs, outputs) in self.maps.items()]
        return [Part("input", self.input_shape), *maps]
