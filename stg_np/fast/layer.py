"""The CPU fast path of a whole STG layer: norm, both directions and the path around them as one pair.

The signatures of :func:`stg_np.models.stg.layer_forward` and :func:`stg_np.models.stg.layer_backward`, its oracle.
Besides what :mod:`stg_np.fast.walks` does for one walk:

* both directions are walked by the same calls: the one that starts at the end gets its input in reverse, once, and from
  there on the two are neighbours in one array;
* turning the grid, reversing, normalising and appending the ones of the bias are one copy;
* nothing of the size of a map is allocated where there is a workspace.

Arrays are time-major, (T, B, ·), and maps between layers are views (B, T, ·) of such.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from stg_np.backend import Array
from stg_np.fast.walks import WalkCache, walks_backward, walks_forward
from stg_np.ops.activations import Activation
from stg_np.ops.dropout import dropout_forward
from stg_np.stm import STMParams
from stg_np.workspace import Workspace, empty

EPSILON = 1e-5
"""Of the norm, as in :func:`stg_np.ops.norm.rms_norm_forward`."""


class LayerOfModel(Protocol):
    """What a layer has to know of its model, :class:`stg_np.models.stg.STG`."""

    @property
    def width(self) -> int:
        """Channels of all directions together."""

    @property
    def bidirectional(self) -> bool:
        """Whether there is a walk from the end too."""

    @property
    def dropout(self) -> float:
        """Probability of a zero, in training."""

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of steps."""

    @property
    def memory_width(self) -> int:
        """H of one walk."""

    @property
    def phi_z(self) -> Activation:
        """The activation of the candidate."""

    def turns(self, layer: int) -> bool:
        """Whether the layer walks the grid column by column."""


class FastLayerCache(NamedTuple):
    """The walks; 1 / rms of the input (T, B, 1), None in the first layer; the dropout mask."""

    walks: WalkCache
    scale: Array | None
    mask: Array | None


def layer_forward(
    model: LayerOfModel,
    h: Array,
    walks: list[STMParams],
    layer: int,
    *,
    rng: np.random.Generator | None = None,
    work: Workspace | None = None,
) -> tuple[Array, FastLayerCache]:
    """As :func:`stg_np.models.stg.layer_forward`; with ``work``, what is returned lies in it."""
    (B, T, D), H = h.shape, model.memory_width
    steps = walking_order(h, model, layer)  # (rows, columns, B, D) or, turned, (columns, rows, B, D)
    x = empty(work, "x", (T, B, D + 1), h.dtype)
    x[..., D] = 1
    if layer == 0:
        scale = None
        x[..., :D] = steps.reshape(T, B, D)
    else:
        scale = (np.einsum("...d,...d->...", steps, steps) / D + EPSILON) ** -0.5
        np.multiply(steps, scale[..., None], out=x[..., :D].reshape(steps.shape))
    inputs = [x]
    if model.bidirectional:
        inputs.append(empty(work, "x from the end", x.shape, h.dtype))
        inputs[1][...] = x[::-1]
    cache = walks_forward(inputs, np.zeros((B, model.width), h.dtype), walks, model.phi_z, work)
    out = empty(work, "h", (T, B, model.width), h.dtype).transpose(1, 0, 2)
    target = walking_order(out, model, layer)  # a view
    target[..., :H] = cache.y[..., :H].reshape(*steps.shape[:3], H)
    target[..., H:] = cache.y[::-1, :, H:].reshape(*steps.shape[:3], model.width - H)
    mask = None
    if rng is not None and model.dropout > 0:
        dropped, mask = dropout_forward(out, model.dropout, rng)
        out[...] = dropped
    if layer > 0:
        out += h  # the path around
    return out, FastLayerCache(cache, None if scale is None else scale.reshape(T, B, 1), mask)


def layer_backward(
    model: LayerOfModel,
    dh: Array,
    cache: FastLayerCache,
    walks: list[STMParams],
    layer: int,
    *,
    work: Workspace | None = None,
) -> tuple[Array, list[STMParams]]:
    """As :func:`stg_np.models.stg.layer_backward`; with ``work``, dx lies in it."""
    x, H, dtype = cache.walks.inputs[0], model.memory_width, dh.dtype
    T, B, D = x.shape[0], x.shape[1], x.shape[2] - 1
    steps = walking_order(dh if cache.mask is None else dh * cache.mask, model, layer)
    dy = empty(work, "dy", (T, B, model.width), dtype)
    dy[..., :H] = steps[..., :H].reshape(T, B, H)
    dy[::-1, :, H:] = steps[..., H:].reshape(T, B, model.width - H)
    dm_T = np.zeros((B, model.width), dtype)  # nobody reads the last memory
    dxs, _, dwalks = walks_backward(dy, dm_T, cache.walks, walks, work)
    dx = dxs[0]
    if model.bidirectional:
        dx += dxs[1][::-1]  # from x[::-1]
    if cache.scale is not None:
        along = np.einsum("tbd,tbd->tb", dx, x[..., :D])[..., None] / D
        dx -= np.multiply(x[..., :D], along, out=empty(work, "along", (T, B, D), dtype))  # from the norm
        dx *= cache.scale
    out = empty(work, f"dh{layer % 2}", (T, B, D), dtype).transpose(1, 0, 2)  # while the other may be the argument
    target = walking_order(out, model, layer)
    target[...] = dx.reshape(target.shape)
    if layer > 0:
        out += dh  # from the path around
    return out, dwalks


def walking_order(h: Array, model: LayerOfModel, layer: int) -> Array:
    """A map (B, T, D) as a grid of steps in the order in which the layer walks it, a view (rows, columns, B, D)."""
    grid = h.transpose(1, 0, 2).reshape(*model.grid, h.shape[0], h.shape[2])
    return grid.swapaxes(0, 1) if model.turns(layer) else grid
