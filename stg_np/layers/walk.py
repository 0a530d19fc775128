"""A layer of walks: norm, one walk of a cell per direction side by side, and the path around them.

    y = h + [walk to the right | walk to the left](norm(h))

Which cell walks is the caller's choice (:class:`~stg_np.layers.spec.Cell`): the layer knows directions and orders only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.layers.spec import Cell, Direction, WalkSpec
from stg_np.ops.dropout import dropout_backward, dropout_forward
from stg_np.ops.norm import RMSNormCache, rms_norm_backward, rms_norm_forward
from stg_np.ops.views import transpose_grid


class LayerCache(NamedTuple):
    """The norm's cache (None where the layer does not add), each walk's, and the dropout mask."""

    norm: RMSNormCache | None
    walks: list[Any]
    mask: Array | None


def layer_forward(
    h: Array, params: Sequence[Any], spec: WalkSpec, *, cell: Cell, rng: np.random.Generator | None = None
) -> tuple[Array, LayerCache]:
    """``h + walks(norm(h))``: h (B, T, D) -> (B, T, width); with ``spec.adds``, D is the width.

    Args:
        h: (B, T, D), T the product of ``spec.grid``. params: of each walk, in the order of ``spec.directions``.
        cell: what walks. rng: for dropout; None: nothing is dropped.

    Raises:
        ValueError: if h does not fit the spec.
    """
    spec.check(h)
    read, norm = rms_norm_forward(h) if spec.adds else (h, None)
    if spec.turned:
        read = transpose_grid(read, spec.grid)  # an order, not an operation
    outputs, caches = [], []
    for direction, own in zip(spec.directions, params):
        start = cell.empty(h, spec.memory_width)
        (y, _), cache = cell.forward(in_order(read, direction), start, own)
        outputs.append(in_order(y, direction))  # (B, T, H)
        caches.append(cache)
    y = get_xp(h).concatenate(outputs, -1)  # (B, T, width)
    if spec.turned:
        y = transpose_grid(y, spec.grid[::-1])
    y, mask = dropout_forward(y, spec.dropout, rng) if rng is not None and spec.dropout > 0 else (y, None)
    return h + y if spec.adds else y, LayerCache(norm, caches, mask)


def layer_backward(
    dh: Array, cache: LayerCache, params: Sequence[Any], spec: WalkSpec, *, cell: Cell
) -> tuple[Array, list[Any]]:
    """Reverse :func:`layer_forward`: dh (B, T, width) -> dx (B, T, D), and the gradients of each walk's parameters."""
    dy = dh if cache.mask is None else dropout_backward(dh, cache.mask)  # from h + y
    if spec.turned:
        dy = transpose_grid(dy, spec.grid)
    H = spec.memory_width
    parts, dparams = [], []
    for k, (direction, own) in enumerate(zip(spec.directions, params)):
        dy_walk = in_order(dy[..., k * H : (k + 1) * H], direction)  # from concatenate
        nobody_reads_the_end = cell.empty(dy, H)
        dx, _, down = cell.backward(dy_walk, nobody_reads_the_end, cache.walks[k], own)
        parts.append(in_order(dx, direction))
        dparams.append(down)
    dread = reduce(add, parts)  # it was read once per direction
    if spec.turned:
        dread = transpose_grid(dread, spec.grid[::-1])
    if cache.norm is None:
        return dread, dparams
    return dh + rms_norm_backward(dread, cache.norm), dparams  # from h + walks(norm(h))


def in_order(h: Array, direction: Direction) -> Array:
    """The steps (B, T, ·) in the order in which a walk meets them; its own inverse."""
    return h[:, ::-1] if direction == "left" else h


def empty_memory(x: Array, H: int) -> Array:
    """The memory (B, H) before the first step of x (B, T, D), of its library and dtype: zeros."""
    zeros: Array = get_xp(x).zeros((x.shape[0], H), dtype=x.dtype)
    return zeros
