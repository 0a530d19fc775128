"""The STG: ``input -> stm1 -> stm2 -> … -> stmN -> output``, several STM layers and one fully connected layer.

A picture becomes a sequence (:mod:`stg_np.ops.views`); every STM layer walks it in one direction or in both; the
steps are pooled; a linear head gives the logits. From the second layer on a layer *adds* to what it reads,
``h + STM(norm(h))``: a deep stack of gates trains badly without that path, along which a gradient passes unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from stg_np import stm
from stg_np.backend import Array, get_xp
from stg_np.ops.activations import IDENTITY, TANH, Activation
from stg_np.ops.dropout import dropout_backward, dropout_forward
from stg_np.ops.linear import LinearCache, LinearParams, linear_backward, linear_forward
from stg_np.ops.norm import RMSNormCache, rms_norm_backward, rms_norm_forward
from stg_np.ops.pool import last_pool_backward, last_pool_forward, mean_pool_backward, mean_pool_forward
from stg_np.ops.views import patches_forward, transpose_grid
from stg_np.params import Params, Role, State, named
from stg_np.stm import STMParams, init_stm
from stg_np.workspace import Workspace, within

VIEWS = ("rows", "patches", "pixels")
POOLS = ("mean", "last")


class LayerCache(NamedTuple):
    """Of one layer: the norm's cache (None in the first layer), each direction's, and the dropout mask."""

    norm: RMSNormCache | None
    walks: list[Any]
    mask: Array | None


class STGCache(NamedTuple):
    """What :meth:`STG.backward` needs."""

    layers: list[LayerCache]
    norm: RMSNormCache
    pool: Any
    head: LinearCache


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
        ValueError: if the fields do not fit together; the message says which.
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
        if self.view not in VIEWS or self.pool not in POOLS:
            raise ValueError(f"view is one of {', '.join(VIEWS)} and pool one of {', '.join(POOLS)}")
        if len(self.input_shape) not in (2, 3) or min(self.input_shape) < 1:
            raise ValueError(f"input_shape is (height, width, c) or (T, D), got {self.input_shape}")
        if min(self.classes, self.width, self.layers, *self.patch) < 1:
            raise ValueError("classes, width, layers and patch must be at least 1")
        if self.width % len(self.directions):
            raise ValueError(f"width {self.width} cannot be halved between two directions")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability below 1, got {self.dropout}")
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
    def directions(self) -> tuple[str, ...]:
        """The walks of one layer, as they are named in the parameters."""
        return ("forward", "backward") if self.bidirectional else ("forward",)

    @property
    def memory_width(self) -> int:
        """H, the memory cells of one direction of one layer."""
        return self.width // len(self.directions)

    @property
    def phi_z(self) -> Activation:
        """The activation of the candidate."""
        return TANH if self.tanh_candidate else IDENTITY

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        """Draw the parameters, named ``stm1.forward.W`` … ``head.b``; the STG keeps no other state."""
        length = self.length or self.grid[0] * self.grid[1]
        arrays: dict[str, tuple[Role, Array]] = {}
        for layer in range(self.layers):
            D = self.features if layer == 0 else self.width
            for direction in self.directions:
                drawn = init_stm(
                    rng, D, self.memory_width, length=length, recurrent=self.recurrent, diagonal=self.diagonal
                )
                for name, array in named(layer_name(layer, direction), drawn).items():
                    arrays[name] = ("matrix" if array.ndim == 2 else "vector", array.astype(dtype))
        head = rng.standard_normal((self.width, self.classes)) / np.sqrt(self.width)
        arrays["head.W"] = ("head", head.astype(dtype))
        arrays["head.b"] = ("vector", np.zeros(self.classes, dtype))
        return Params.create(arrays), {}

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
            x: (B, height, width, c), or (B, T, D). params, state: from :meth:`init`.
            train: whether dropout is active. rng: its source; needed only then.
            work: memory for the fast path to use again; the cache is then good until the next forward pass with it.

        Returns:
            logits (B, C), the cache, and the state (unchanged).
        """
        h = patches_forward(x, *self.patch_size) if self.is_picture else x  # (B, T, D)
        layer_forward, _ = layer_pair(get_xp(x), self)
        caches = []
        for layer in range(self.layers):
            walks, room = self.walks(params, layer), within(work, f"stm{layer + 1}")
            h, cache = layer_forward(self, h, walks, layer, rng=rng if train else None, work=room)  # (B, T, width)
            caches.append(cache)
        h, norm = rms_norm_forward(h)
        pooled, pool = mean_pool_forward(h) if self.pool == "mean" else last_pool_forward(h, self.memory_width)
        logits, head = linear_forward(pooled, params.group("head", LinearParams))  # (B, width) -> (B, C)
        return logits, STGCache(caches, norm, pool, head), state

    def backward(self, dlogits: Array, cache: STGCache, params: Params, *, work: Workspace | None = None) -> Params:
        """The gradient of every parameter from dlogits (B, C): the lines of :meth:`forward`, last to first."""
        dpooled, dhead = linear_backward(dlogits, cache.head, params.group("head", LinearParams))
        grads = named("head", dhead)
        dh = (mean_pool_backward if self.pool == "mean" else last_pool_backward)(dpooled, cache.pool)
        dh = rms_norm_backward(dh, cache.norm)  # (B, T, width)
        _, layer_backward = layer_pair(get_xp(dlogits), self)
        for layer in reversed(range(self.layers)):
            walks, room = self.walks(params, layer), within(work, "backward")
            dh, dwalks = layer_backward(self, dh, cache.layers[layer], walks, layer, work=room)
            for direction, dwalk in zip(self.directions, dwalks):
                grads |= named(layer_name(layer, direction), dwalk)
        return Params.pack(params.layout, grads)

    def walks(self, params: Params, layer: int) -> list[STMParams]:
        """The parameters of a layer's walks, a view for each direction."""
        return [params.group(layer_name(layer, direction), STMParams) for direction in self.directions]

    def turns(self, layer: int) -> bool:
        """Whether the layer walks the grid column by column."""
        return self.alternate and layer % 2 == 1


def layer_forward(
    model: STG,
    h: Array,
    walks: list[STMParams],
    layer: int,
    *,
    rng: np.random.Generator | None = None,
    work: Workspace | None = None,
) -> tuple[Array, LayerCache]:
    """Norm, one STM walk per direction side by side, and the path around them: (B, T, D) -> (B, T, width).

    The first layer has neither norm nor path: its input is of another width. ``rng``: for dropout, in training only.
    ``work`` is for the fast path; here every array is fresh.
    """
    xp, norm, caches, outputs, mask = get_xp(h), None, [], [], None
    read = h
    if layer > 0:
        read, norm = rms_norm_forward(h)
    if model.turns(layer):
        read = transpose_grid(read, model.grid)  # an order, not an operation
    stm_forward, _ = stm_pair(xp, model.recurrent)
    m_0 = xp.zeros((h.shape[0], model.memory_width), dtype=h.dtype)
    for direction, walk in zip(model.directions, walks):
        (y, _), cache = stm_forward(reverse(read, direction), m_0, walk, phi_z=model.phi_z)
        outputs.append(reverse(y, direction))  # (B, T, H)
        caches.append(cache)
    y = xp.concatenate(outputs, -1)  # (B, T, width)
    if model.turns(layer):
        y = transpose_grid(y, model.grid[::-1])
    if rng is not None and model.dropout > 0:
        y, mask = dropout_forward(y, model.dropout, rng)
    return y if layer == 0 else h + y, LayerCache(norm, caches, mask)


def layer_backward(
    model: STG, dh: Array, cache: LayerCache, walks: list[STMParams], layer: int, *, work: Workspace | None = None
) -> tuple[Array, list[STMParams]]:
    """Reverse :func:`layer_forward`: dh (B, T, width) -> dx (B, T, D), and the gradients of its walks."""
    dy = dh  # from h + y
    if cache.mask is not None:
        dy = dropout_backward(dy, cache.mask)
    if model.turns(layer):
        dy = transpose_grid(dy, model.grid)
    xp, H = get_xp(dy), model.memory_width
    _, stm_backward = stm_pair(xp, model.recurrent)
    dm_T = xp.zeros((dy.shape[0], H), dtype=dy.dtype)  # nobody reads the last memory
    parts, dwalks = [], []
    for k, (direction, walk) in enumerate(zip(model.directions, walks)):
        dy_walk = reverse(dy[..., k * H : (k + 1) * H], direction)  # from concatenate
        dx, _, dwalk = stm_backward(dy_walk, dm_T, cache.walks[k], walk)
        parts.append(reverse(dx, direction))
        dwalks.append(dwalk)
    dread = reduce(add, parts)  # it was read once per direction
    if model.turns(layer):
        dread = transpose_grid(dread, model.grid[::-1])
    return dread if cache.norm is None else dh + rms_norm_backward(dread, cache.norm), dwalks


def layer_name(layer: int, direction: str) -> str:
    """The prefix of a walk's parameters; layers are counted from 1, as in ``stm1 -> stm2 -> …``."""
    return f"stm{layer + 1}.{direction}"


def reverse(h: Array, direction: str) -> Array:
    """The steps in the order in which ``direction`` meets them; its own inverse."""
    return h[:, ::-1] if direction == "backward" else h


def layer_pair(xp: Any, model: STG) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """THE place where the path is chosen, for a layer: which forward/backward pair computes it."""
    if xp is np:
        from stg_np.fast import layer as fast_layer
        from stg_np.fast import walks as fast

        if fast.covers_kind(model.recurrent, model.diagonal, model.phi_z, IDENTITY):
            return fast_layer.layer_forward, fast_layer.layer_backward
    return layer_forward, layer_backward


def stm_pair(xp: Any, recurrent: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """And for a single walk."""
    if recurrent:
        return stm.stm_recurrent_forward, stm.stm_recurrent_backward
    if xp is np:
        from stg_np.fast import walks as fast

        return fast.stm_forward, fast.stm_backward
    from stg_np.fast import cuda as kernels

    if kernels.available(xp):
        return kernels.stm_forward, kernels.stm_backward
    return stm.stm_forward, stm.stm_backward
