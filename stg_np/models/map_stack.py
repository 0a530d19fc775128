"""A stack of layers of maps: ``input -> stem -> layer1 -> … -> layerN -> output``, for pictures that stay pictures.

Every layer looks at its map through a window (:mod:`stg_np.layers.maps`). The layers stand in blocks; the first of each
block halves the height and width. The shape is that of Keller Jordan's CIFAR-10 network (arXiv:2404.00498). The image
STG is the stack whose layers end in gates and memories (:mod:`stg_np.models.image_stg`); its baseline, the CNN, is the
same stack with an activation in their place (:mod:`stg_np.models.cnn`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from stg_np.backend import Array, get_xp, to_host
from stg_np.inputs import check_fields, check_sizes
from stg_np.layers.maps import MapSpec
from stg_np.models.base import Part, check_input
from stg_np.models.whitening import whitening_kernel
from stg_np.ops.batch_norm import Statistics, running
from stg_np.ops.linear import LinearCache, LinearParams, linear_backward, linear_forward
from stg_np.ops.pool2d import GlobalMaxCache, global_max_pool_backward, global_max_pool_forward
from stg_np.ops.views import patches_forward
from stg_np.params import Entry, Layout, Params, State, named
from stg_np.sweep import dirac
from stg_np.workspace import Workspace


class MapStackCache(NamedTuple):
    """What :meth:`MapStack.backward` needs: the cache of each layer, of the last pooling and of the head."""

    layers: list[Any]
    pool: GlobalMaxCache
    head: LinearCache
    in_workspace: bool


@dataclass(frozen=True)
class MapStack(ABC):
    """Layers of maps and a head, for pictures (B, height, width, c); what is abstract says what follows the windows.

    Attributes:
        input_shape: (height, width, c). Other heights and widths that the blocks can halve are accepted too.
        classes: C, the number of logits.
        widths: channels of each block. depth: layers in each.
        window: side of the neighbourhood that each layer sees; 1: no convolution anywhere.
        patch: side of the squares of pixels that become one pixel of more channels at the start.
        stem: directions kept by a whitening first layer (:mod:`stg_np.models.whitening`); 0: there is none.
        head_scale: factor of the pooled features. norm_rate: of the running statistics, per step.
        layer_kind: with a number, the name of a layer. layer_params: the named tuple of a layer's parameters.

    Raises:
        ValueError: if the fields do not fit together; the message says which.
    """

    input_shape: tuple[int, ...]
    classes: int
    widths: tuple[int, ...] = (64, 256, 256)
    depth: int = 2
    window: int = 3
    patch: int = 1
    stem: int = 12
    head_scale: float = 1 / 9
    norm_rate: float = 0.4

    layer_kind: ClassVar[str]
    layer_params: ClassVar[type[Any]]

    @abstractmethod
    def spec(self, name: str) -> MapSpec:
        """What a layer is."""

    @abstractmethod
    def entries(self, name: str, D: int, H: int, window: int) -> tuple[Entry, ...]:
        """The parameters of a layer."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, name: str, W: Array, H: int) -> Any:
        """The parameters of a layer (float64) whose window is W."""

    def products(self, own: Any) -> int:
        """Multiplications per pixel of a layer with these parameters, besides those of its window."""
        return 0

    def note(self, name: str, own: Any) -> str:
        """What a summary says of a layer with these parameters."""
        return ""

    def __post_init__(self) -> None:
        check_sizes("input_shape, (height, width, c),", self.input_shape, lengths=(3,))
        check_sizes("widths", self.widths, fewest=1)
        check_fields(self, MapStack, from_zero=("stem",), positive=("head_scale", "norm_rate"))
        if self.window % 2 == 0:
            raise ValueError(f"the window needs a pixel in its middle, so an odd side, got {self.window}")
        if not 0 <= self.stem <= 9 * self.input_shape[2] * self.patch**2:
            most = 9 * self.input_shape[2] * self.patch**2
            raise ValueError(f"stem must be at most {most} where a pixel has {most // 9} numbers, got {self.stem}")
        if self.norm_rate > 1:
            raise ValueError(f"norm_rate must be at most 1, got {self.norm_rate}")
        self.check_size(*self.input_shape[:2])

    @property
    def step(self) -> int:
        """What height and width must be multiples of."""
        return self.patch << len(self.widths)

    def check_size(self, height: int, width: int) -> None:
        """Whether pictures of this size can be halved by every block.

        Raises:
            ValueError: if not.
        """
        if height % self.step or width % self.step or min(height, width) < self.step:
            raise ValueError(
                f"height and width must be multiples of {self.step} ({len(self.widths)} blocks halve them"
                f"{f' after patches of {self.patch}' if self.patch > 1 else ''}), got {height}×{width}"
            )

    @property
    def wide(self) -> tuple[int, ...]:
        """H of each layer but the stem."""
        return tuple(width for width in self.widths for _ in range(self.depth))

    @property
    def names(self) -> list[str]:
        """Of all layers, from the input on: ``stem``, if there is one, ``stm1`` or ``conv1``, …"""
        return [*(["stem"] if self.stem else []), *(f"{self.layer_kind}{layer + 1}" for layer in range(len(self.wide)))]

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(D, H) of each layer by its name."""
        widths = [self.input_shape[2] * self.patch**2, *([2 * self.stem] if self.stem else []), *self.wide]
        return dict(zip(self.names, pairwise(widths)))

    def pools(self, name: str) -> bool:
        """Whether a layer is the first of its block."""
        return name != "stem" and (int(name.removeprefix(self.layer_kind)) - 1) % self.depth == 0

    def layout(self) -> Layout:
        """``stem.W`` … ``head.b``."""
        entries: list[Entry] = []
        for name, (D, H) in self.sizes.items():
            own = self.entries(name, D, H, 3 if name == "stem" else self.window)
            entries += [entry._replace(role="frozen") if entry.name == "stem.W" else entry for entry in own]
        head = Entry("head.W", (self.wide[-1], self.classes), "head"), Entry("head.b", (self.classes,), "vector")
        return Layout((*entries, *head))

    def state_layout(self) -> Layout:
        """``stm1.mean``, ``stm1.variance``, …: the running statistics of each channel that is normalised."""
        shapes = self.layout().shapes
        return Layout(tuple(
            Entry(f"{name}.{field}", shapes[f"{name}.W"][-1:], "frozen")
            for name in self.names if self.spec(name).normalises
            for field in Statistics._fields
        ))  # fmt: skip

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        """Draw the parameters; the stem's window becomes a whitening one by :meth:`adapted`."""
        arrays: dict[str, Array] = {}
        layout = self.layout()
        for name, (_, H) in self.sizes.items():
            kernel = layout.shapes[f"{name}.W"]
            W = rng.uniform(-1, 1, kernel) / np.sqrt(prod(kernel[:3]))
            dirac(W[..., -H:])  # the candidate's window, where there are gates
            arrays |= named(name, self.draw(rng, name, W, H))
        arrays["head.W"] = rng.standard_normal((self.wide[-1], self.classes)) / np.sqrt(self.wide[-1])
        arrays["head.b"] = np.zeros(self.classes)
        state = {
            name: (np.ones if name.endswith("variance") else np.zeros)(shape, dtype)
            for name, shape in self.state_layout().shapes.items()
        }
        return Params.pack(layout, {name: array.astype(dtype) for name, array in arrays.items()}), state

    def adapted(self, params: Params, pictures: Array) -> Params:
        """The parameters with a stem that whitens pictures like these (N, height, width, c), scaled as the input."""
        if not self.stem:
            return params
        kernel = whitening_kernel(to_host(self.cut(pictures)), 3, self.stem).astype(params.flat.dtype)
        return params.replaced({"stem.W": get_xp(params.flat).asarray(kernel)})

    def cut(self, x: Array) -> Array:
        """Pictures as maps whose pixels are the patches, by reshaping only."""
        B, height, width, c = x.shape
        return patches_forward(x, self.patch, self.patch).reshape(
            B, height // self.patch, width // self.patch, c * self.patch**2
        )

    def forward(
        self,
        x: Array,
        params: Params,
        state: State,
        *,
        train: bool = False,
        rng: np.random.Generator | None = None,
        work: Workspace | None = None,
    ) -> tuple[Array, MapStackCache, State]:
        """``input -> stem -> layer1 -> … -> layerN -> output``.

        Args:
            x: (B, height, width, c), of the parameters' dtype. params, state: from :meth:`init`.
            train: whether to normalise by the statistics of this batch, and let the running ones follow.
            rng: unused. work: None: the plain path. A workspace: the fast path, whose cache is good until the next
                forward in it.

        Returns:
            logits (B, C), the cache, and the state with the running statistics after this batch.

        Raises:
            ValueError: if x is no such batch. TypeError: if it has another dtype.
        """
        from stg_np.fast.choose import map_layer_pair

        get_xp(x)
        any_size = (*x.shape[1:3], *self.input_shape[2:])
        of_any_size = replace(self, input_shape=any_size) if x.shape[3:] == self.input_shape[2:] else self
        check_input(of_any_size, x, params)
        h, caches, new_state = self.cut(x), [], dict(state)
        for name in self.names:
            spec, own = self.spec(name), params.group(name, self.layer_params)
            kept = Statistics(state[f"{name}.mean"], state[f"{name}.variance"]) if spec.normalises else None
            forward, _ = map_layer_pair(h, spec, own, work and work.within(name))
            (h, measured), cache = forward(h, own, spec, None if train else kept)
            caches.append(cache)
            if kept is not None and measured is not None:
                new_state |= named(name, running(kept, measured, self.norm_rate))
        pooled, pool = global_max_pool_forward(h)  # (B, height, width, H) -> (B, H)
        logits, head = linear_forward(pooled * self.head_scale, params.group("head", LinearParams))  # (B, C)
        return logits, MapStackCache(caches, pool, head, work is not None), new_state

    def backward(
        self, dlogits: Array, cache: MapStackCache, params: Params, *, work: Workspace | None = None
    ) -> Params:
        """The gradient of every parameter from dlogits (B, C): the lines of :meth:`forward`, last to first.

        That of a frozen window is zero.

        Raises:
            ValueError: if forward and backward do not both have a workspace, or neither.
        """
        from stg_np.fast.choose import map_layer_pair

        if cache.in_workspace != (work is not None):
            raise ValueError("the backward takes a workspace if, and only if, its forward had one")
        dscaled, dhead = linear_backward(dlogits, cache.head, params.group("head", LinearParams))
        grads = named("head", dhead)
        dh = global_max_pool_backward(dscaled * self.head_scale, cache.pool)
        for name, layer in zip(reversed(self.names), reversed(cache.layers)):
            spec, own = self.spec(name), params.group(name, self.layer_params)
            _, backward = map_layer_pair(dh, spec, own, work and work.within(name))
            dh, down = backward(dh, layer, own, spec)
            grads |= named(name, down)
        return Params.pack(params.layout, grads)

    def parts(self, params: Params) -> list[Part]:
        """Input, layers, pooling and head."""
        height, width, c = self.input_shape
        height, width = height // self.patch, width // self.patch
        parts = [Part("input", self.input_shape)]
        if self.patch > 1:
            parts.append(Part(f"patches of {self.patch}×{self.patch}", (height, width, c * self.patch**2)))
        for name, (_, H) in self.sizes.items():
            own, spec = params.group(name, self.layer_params), self.spec(name)
            products = height * width * prod(own.W.shape)  # the window sees the map before it is pooled
            if spec.pools:
                height, width = height // 2, width // 2
            multiply_adds = products + height * width * self.products(own)
            parts.append(Part(name, (height, width, H), multiply_adds, self.note(name, own)))
        head = self.wide[-1] * self.classes
        return [*parts, Part("largest pixel", (self.wide[-1],)), Part("head", (self.classes,), head)]
