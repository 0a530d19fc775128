"""The CPU fast path of a whole layer of walks: norm, both directions and the path around them as one pair.

What :mod:`stg_np.layers.walk` computes, which is its oracle. Besides what :mod:`stg_np.fast.walks` and
:mod:`stg_np.fast.cells` do for the walks themselves:

* both directions are walked by the same calls: the one to the left gets its input in reverse, once, and from there on
  the two are neighbours in one array;
* turning the grid, reversing, normalising and appending the ones of the bias are one copy;
* nothing of the size of a map is allocated.

Arrays are time-major, (T, B, ·), and maps between layers are views (B, T, ·) of such.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.fast.walks import WalkCache, walks_backward, walks_forward
from stg_np.layers.spec import Pair, WalkSpec
from stg_np.ops.activations import Activation
from stg_np.ops.dropout import dropout_forward
from stg_np.ops.norm import EPSILON
from stg_np.stm import STMParams
from stg_np.workspace import Workspace

ONE_WAY, BOTH_WAYS = ("right",), ("right", "left")


class FastLayerCache(NamedTuple):
    """The walks; 1 / rms of the input (T, B, 1), None where the layer does not add; the dropout mask."""

    walks: Any
    scale: Array | None
    mask: Array | None


def stm_walks(phi_z: Activation) -> Pair:
    """The walks of an STM, from empty memories, the last of which nobody reads."""

    def forward(inputs: list[Array], params: Sequence[STMParams], work: Workspace) -> WalkCache:
        width = sum(len(own.b) for own in params) // 4
        empty = np.zeros((inputs[0].shape[1], width), inputs[0].dtype)
        return walks_forward(inputs, empty, params, phi_z, work)

    def backward(
        dy: Array, cache: WalkCache, params: Sequence[STMParams], work: Workspace
    ) -> tuple[list[Array], list[STMParams]]:
        dxs, _, dparams = walks_backward(dy, np.zeros(dy.shape[1:], dy.dtype), cache, params, work)
        return dxs, dparams

    return Pair(forward, backward)


def layer_forward(
    h: Array,
    params: Sequence[Any],
    spec: WalkSpec,
    *,
    walks: Pair,
    work: Workspace,
    rng: np.random.Generator | None = None,
) -> tuple[Array, FastLayerCache]:
    """As :func:`stg_np.layers.walk.layer_forward`; what is returned lies in ``work``.

    ``walks``: ``forward(inputs, params, work) -> cache`` and ``backward(dy, cache, params, work) -> dxs, dparams``, all
    walks of the layer side by side; the cache knows its ``inputs`` and its ``outputs``.

    Raises:
        ValueError: if h does not fit the spec, or for other directions than those of a sequence; and what the walks
            raise.
    """
    spec.check(h)
    if spec.directions not in (ONE_WAY, BOTH_WAYS):
        raise ValueError(f"this fast path walks to the right, or to the right and the left, not {spec.directions}")
    (B, T, D), H = h.shape, spec.memory_width
    steps = walking_order(h, spec)  # (rows, columns, B, D) or, turned, (columns, rows, B, D)
    x = work.empty("x", (T, B, D + 1), h.dtype)
    x[..., D] = 1
    if spec.adds:
        scale = (np.einsum("...d,...d->...", steps, steps) / D + EPSILON) ** -0.5
        np.multiply(steps, scale[..., None], out=x[..., :D].reshape(steps.shape))
    else:
        scale = None
        x[..., :D] = steps.reshape(T, B, D)
    inputs = [x]
    if spec.directions == BOTH_WAYS:
        inputs.append(work.empty("x to the left", x.shape, h.dtype))
        inputs[1][...] = x[::-1]
    cache = walks.forward(inputs, params, work)
    out = work.empty("h", (T, B, spec.width), h.dtype).transpose(1, 0, 2)
    target = walking_order(out, spec)  # a view
    for k, (y, order) in enumerate(zip(cache.outputs, (1, -1))):
        target[..., k * H : (k + 1) * H] = y[::order].reshape(*steps.shape[:3], H)
    mask = None
    if rng is not None and spec.dropout > 0:
        dropped, mask = dropout_forward(out, spec.dropout, rng)
        out[...] = dropped
    if spec.adds:
        out += h  # the path around
    return out, FastLayerCache(cache, None if scale is None else scale.reshape(T, B, 1), mask)


def layer_backward(
    dh: Array, cache: FastLayerCache, params: Sequence[Any], spec: WalkSpec, *, walks: Pair, work: Workspace
) -> tuple[Array, list[Any]]:
    """As :func:`stg_np.layers.walk.layer_backward`; dx lies in ``work``."""
    x, H, dtype = cache.walks.inputs[0], spec.memory_width, dh.dtype
    T, B, D = x.shape[0], x.shape[1], x.shape[2] - 1
    steps = walking_order(dh if cache.mask is None else dh * cache.mask, spec)
    dy = work.empty("dy", (T, B, spec.width), dtype)
    dy[..., :H] = steps[..., :H].reshape(T, B, H)
    dy[::-1, :, H:] = steps[..., H:].reshape(T, B, spec.width - H)
    dxs, dparams = walks.backward(dy, cache.walks, params, work)
    dx = dxs[0]
    if spec.directions == BOTH_WAYS:
        dx += dxs[1][::-1]  # from x[::-1]
    if cache.scale is not None:
        along = np.einsum("tbd,tbd->tb", dx, x[..., :D])[..., None] / D
        dx -= np.multiply(x[..., :D], along, out=work.empty("along", (T, B, D), dtype))  # from the norm
        dx *= cache.scale
    out = memory_apart_from(dh, work, (T, B, D), dtype).transpose(1, 0, 2)
    target = walking_order(out, spec)
    target[...] = dx.reshape(target.shape)
    if spec.adds:
        out += dh  # from the path around
    return out, dparams


def memory_apart_from(dh: Array, work: Workspace, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """One of two arrays of the workspace: the one in which ``dh``, made by the layer above, does not lie."""
    one, other = (work.empty(name, shape, dtype) for name in ("dh", "dh of every second layer"))
    return other if np.may_share_memory(one, dh) else one


def walking_order(h: Array, spec: WalkSpec) -> Array:
    """A map (B, T, D) as a grid of steps in the order in which it is walked, a view (rows, columns, B, D)."""
    grid = h.transpose(1, 0, 2).reshape(*spec.grid, h.shape[0], h.shape[2])
    return grid.swapaxes(0, 1) if spec.turned else grid
