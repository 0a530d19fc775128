"""The image STG: ``input -> stem -> stm1 -> … -> stmN -> output``, for pictures that stay pictures.

Every layer is an image STM (:mod:`stg_np.sweep`): a window, gates, a memory that sweeps the map. The layers stand in
blocks; the first of each block halves the height and width. There is no other nonlinearity than gates and the choice
of the largest pixel. The shape, and much of the recipe, is that of Keller Jordan's CIFAR-10 network
(arXiv:2404.00498), with its activations replaced by the three gates and the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, get_xp, to_host
from stg_np.inputs import check_fields, check_sizes
from stg_np.layers.maps import MapSpec
from stg_np.layers.spec import MEMORY_PRODUCTS, time_scales
from stg_np.models.base import Part, check_input
from stg_np.models.whitening import whitening_kernel
from stg_np.ops.batch_norm import Statistics, running
from stg_np.ops.linear import LinearCache, LinearParams, linear_backward, linear_forward
from stg_np.ops.pool2d import GlobalMaxCache, global_max_pool_backward, global_max_pool_forward
from stg_np.ops.views import patches_forward
from stg_np.params import Entry, Layout, Params, State, named
from stg_np.stm import STMParams, draw_update_biases
from stg_np.sweep import ALL_WAYS, STILL, SweepKind, dirac, image_stm_entries, quarters, summed
from stg_np.workspace import Workspace

JOINS = {"quarters": quarters, "sum": summed}


class ImageSTGCache(NamedTuple):
    """What :meth:`ImageSTG.backward` needs: the cache of each layer, of the last pooling and of the head."""

    layers: list[Any]
    pool: GlobalMaxCache
    head: LinearCache
    in_workspace: bool


@dataclass(frozen=True)
class ImageSTG:
    """The short-term memory network on maps, for pictures (B, height, width, c).

    Attributes:
        input_shape: (height, width, c). Other heights and widths that the blocks can halve are accepted too.
        classes: C, the number of logits.
        widths: channels of each block. depth: STM layers in each.
        window: side of the neighbourhood that each layer sees; 1: no convolution anywhere.
        patch: side of the squares of pixels that become one pixel of more channels at the start.
        stem: directions kept by a whitening first layer (:mod:`stg_np.models.whitening`); 0: there is none.
        sweeping: numbers of the layers, from 1, whose memory sweeps; in the others it lasts for one step.
        directions: how many of right, left, down, up. join: ``quarters`` or ``sum``.
        louder: whether what comes into a slow memory is scaled up. diagonal: diagonal or full gates.
        slope: w_i at the start; with 1.7, i ⊙ z is nearly the GELU of z.
        input_bias, update_bias, output_bias: b_i, b_u and b_o at the start. A gate that starts at 40 is 1 and stays so
            in float32, where σ(40) = 1 and its slope is 0.
        length: where not 0, the time scales of the memories at the start are log-uniform from 2 to it instead.
        head_scale: factor of the pooled features. norm_rate: of the running statistics, per step.

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
    head_scale: float = 1 / 9
    norm_rate: float = 0.4

    def __post_init__(self) -> None:
        check_sizes("input_shape, (height, width, c),", self.input_shape, lengths=(3,))
        check_sizes("widths", self.widths, fewest=1)
        check_sizes("sweeping", self.sweeping)
        positive, signed = ("head_scale", "norm_rate"), ("slope", "input_bias", "update_bias", "output_bias")
        check_fields(self, ImageSTG, choices={"join": JOINS}, from_zero=("stem",), positive=positive, signed=signed)
        if self.window % 2 == 0:
            raise ValueError(f"the window needs a pixel in its middle, so an odd side, got {self.window}")
        if not 0 <= self.stem <= 9 * self.input_shape[2] * self.patch**2:
            raise ValueError(f"a stem keeps at most {9 * self.input_shape[2] * self.patch**2} directions")
        if any(not 1 <= layer <= len(self.wide) for layer in self.sweeping):
            raise ValueError(f"sweeping names layers from 1 to {len(self.wide)}, got {self.sweeping}")
        if self.directions > len(ALL_WAYS):
            raise ValueError(f"there are 1 to {len(ALL_WAYS)} directions, got {self.directions}")
        if self.join == "quarters" and any(width % self.directions for width in self.widths):
            raise ValueError(f"widths {self.widths} cannot be shared out among {self.directions} directions")
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
        """H of each STM layer."""
        return tuple(width for width in self.widths for _ in range(self.depth))

    @property
    def names(self) -> list[str]:
        """Of all layers, from the input on: ``stem``, if there is one, ``stm1``, …"""
        return [*(["stem"] if self.stem else []), *(f"stm{layer + 1}" for layer in range(len(self.wide)))]

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(D, H) of each layer by its name."""
        widths = [self.input_shape[2] * self.patch**2, *([2 * self.stem] if self.stem else []), *self.wide]
        return dict(zip(self.names, pairwise(widths)))

    def spec(self, name: str) -> MapSpec:
        """What a layer is."""
        if name == "stem":
            return MapSpec(SweepKind(STILL), normalises=False, frozen=True)
        number = int(name.removeprefix("stm"))
        sweep = JOINS[self.join](ALL_WAYS[: self.directions]) if number in self.sweeping else STILL
        louder = self.louder and number in self.sweeping
        return MapSpec(SweepKind(sweep, louder=louder), pools=(number - 1) % self.depth == 0)

    def layout(self) -> Layout:
        """``stem.W`` … ``head.b``."""
        entries: list[Entry] = []
        for name, (D, H) in self.sizes.items():
            own = image_stm_entries(
                name, D, H, window=3 if name == "stem" else self.window, diagonal=self.is_diagonal(name)
            )
            entries += [entry._replace(role="frozen") if entry.name == "stem.W" else entry for entry in own]
        head = Entry("head.W", (self.wide[-1], self.classes), "head"), Entry("head.b", (self.classes,), "vector")
        return Layout((*entries, *head))

    def is_diagonal(self, name: str) -> bool:
        """Whether a layer's gates are diagonal; the stem's always are, for its window is not learned."""
        return self.diagonal or name == "stem"

    def state_layout(self) -> Layout:
        """``stm1.mean``, ``stm1.variance``, …: the running statistics of each channel that is normalised."""
        return Layout(tuple(
            Entry(f"{name}.{field}", (H if self.is_diagonal(name) else 4 * H,), "frozen")
            for name, (_, H) in self.sizes.items() if self.spec(name).normalises
            for field in Statistics._fields
        ))  # fmt: skip

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        """Draw the parameters; the stem's window becomes a whitening one by :meth:`adapted`."""
        arrays: dict[str, Array] = {}
        layout = self.layout()
        for name, (_, H) in self.sizes.items():
            kernel = layout.shapes[f"{name}.W"]
            W = rng.uniform(-1, 1, kernel) / np.sqrt(prod(kernel[:3]))
            dirac(W[..., -H:])  # the candidate's window
            b = np.repeat([self.input_bias, self.update_bias, self.output_bias, 0.0], H)
            if self.length and self.spec(name).kind.sweep is not STILL:
                b[H : 2 * H] = draw_update_biases(rng, H, self.length)
            w = np.repeat([self.slope, 0.0, 0.0], H) if self.is_diagonal(name) else None
            arrays |= named(name, STMParams(W, b, None, w))
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
    ) -> tuple[Array, ImageSTGCache, State]:
        """``input -> stem -> stm1 -> … -> stmN -> output``.

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
            spec, own = self.spec(name), params.group(name, STMParams)
            kept = Statistics(state[f"{name}.mean"], state[f"{name}.variance"]) if spec.normalises else None
            forward, _ = map_layer_pair(h, spec, own, work and work.within(name))
            (h, measured), cache = forward(h, own, spec, None if train else kept)
            caches.append(cache)
            if kept is not None and measured is not None:
                new_state |= named(name, running(kept, measured, self.norm_rate))
        pooled, pool = global_max_pool_forward(h)  # (B, height, width, H) -> (B, H)
        logits, head = linear_forward(pooled * self.head_scale, params.group("head", LinearParams))  # (B, C)
        return logits, ImageSTGCache(caches, pool, head, work is not None), new_state

    def backward(
        self, dlogits: Array, cache: ImageSTGCache, params: Params, *, work: Workspace | None = None
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
            spec, own = self.spec(name), params.group(name, STMParams)
            _, backward = map_layer_pair(dh, spec, own, work and work.within(name))
            dh, down = backward(dh, layer, own, spec)
            grads |= named(name, down)
        return Params.pack(params.layout, grads)

    def __str__(self) -> str:
        gates = "diagonal" if self.diagonal else "full"
        sweeps = f"memory sweeps in layers {', '.join(map(str, self.sweeping))}" if self.sweeping else "no sweeps"
        return f"image STG: {len(self.wide)} STM layers in {len(self.widths)} blocks, {gates} gates, {sweeps}"

    def parts(self, params: Params) -> list[Part]:
        """Input, layers with the time scales of their memories, pooling and head."""
        height, width, c = self.input_shape
        height, width = height // self.patch, width // self.patch
        parts = [Part("input", self.input_shape)]
        if self.patch > 1:
            parts.append(Part(f"patches of {self.patch}×{self.patch}", (height, width, c * self.patch**2)))
        for name, (_, H) in self.sizes.items():
            own, spec = params.group(name, STMParams), self.spec(name)
            products = height * width * prod(own.W.shape)  # the window sees the map before it is pooled
            if spec.pools:
                height, width = height // 2, width // 2
            gates = 0 if own.w is None else prod(own.w.shape)
            scales = time_scales(own.b)
            note = (
                "" if spec.kind.sweep is STILL else f"{scales.min():.1f} … {np.median(scales):.1f} … {scales.max():.1f}"
            )
            parts.append(
                Part(name, (height, width, H), products + height * width * (gates + MEMORY_PRODUCTS * H), note)
            )
        head = self.wide[-1] * self.classes
        return [*parts, Part("largest pixel", (self.wide[-1],)), Part("head", (self.classes,), head)]
