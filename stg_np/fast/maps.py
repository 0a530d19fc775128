"""The CPU fast path of a layer of maps: the mathematics of :mod:`stg_np.layers.maps`, arranged for the cache.

The window is the fast convolution (:mod:`stg_np.fast.conv`). What follows it is elementwise, many passes over few
numbers, so it is done for a few pictures at a time, which stay in the cache of a core between the passes:

* **Batch normalisation costs two passes**: with its scale and b_z it is one affine map, ``z = p · scale + shift``; and
  in the backward, as x̂ = z − b_z, another one of dz and z. Vectors are repeated along a row of the map, so that a pass
  runs long.
* **Gates**: one exp or one tanh for all three (:mod:`stg_np.fast.squash`); 1 − u instead of u; derivatives from
  outputs, as in :mod:`stg_np.fast.walks`.
* **Sums over pixels are products with ones**: BLAS reads each number once.
* **Sweeps** are two calls a step, in place of what comes in. The lines of each direction are gathered first, step by
  step, so that a step is one run of memory.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.fast import conv, squash
from stg_np.fast.cache import l2_bytes
from stg_np.layers.maps import MapSpec
from stg_np.ops.activations import IDENTITY
from stg_np.ops.batch_norm import EPSILON, Statistics
from stg_np.ops.conv import ConvParams
from stg_np.ops.linear import flat_rows
from stg_np.ops.pool2d import window_pixels
from stg_np.stm import STMParams
from stg_np.sweep import STILL, SweepKind, quarters_forward, shares, to_steps, window_params
from stg_np.workspace import Workspace

CHUNK_BYTES = 4 * l2_bytes()
"""Bytes of the gates (4, P, height, width, H) of a chunk of P pictures."""


class Front(NamedTuple):
    """What stands before gates, or before an activation: window, pooling, and the norm's statistics."""

    window: Any
    before_pool: Array | None  # what was pooled, and the largest pixels
    pooled: Array  # (B, height, width, H)
    scale: Array | None  # (H,), 1 / deviation; None where nothing was normalised
    by_batch: bool  # whether the statistics were this batch's own


class FastMapCache(NamedTuple):
    """Of a whole batch; all (B, height, width, H), and in the workspace."""

    front: Front
    gates: Array  # (4, …): i, 1 − u, o, z
    memories: Array


def covers(kind: Any, params: Any) -> bool:
    """Whether this module computes such a layer; the rest is the plain path's, with the fast convolution."""
    if not isinstance(kind, SweepKind):
        return False
    joined = kind.sweep is STILL or kind.sweep.forward is quarters_forward
    simple = kind.phi_z is IDENTITY and kind.phi is IDENTITY and not kind.louder
    return joined and simple and params.w is not None and params.W.dtype in (np.float32, np.float64)


def map_layer_forward(
    h: Array, params: STMParams, spec: MapSpec, statistics: Statistics | None, *, work: Workspace
) -> tuple[tuple[Array, Statistics | None], FastMapCache]:
    """As :func:`stg_np.layers.maps.map_layer_forward`; y and the cache are good until the next forward in ``work``.

    Raises:
        ValueError: for what :func:`covers` excludes; and as the plain layer.
    """
    if not covers(spec.kind, params):
        raise ValueError("this fast path does not know such a layer: ask stg_np.fast.choose for a pair that does")
    H = params.b.shape[0] // 4
    front, shift, measured = front_forward(h, params, params.b[3 * H :], spec, statistics, work)
    p, scale = front.pooled, front.scale
    gates = work.empty("gates", (4, *p.shape), p.dtype)
    memories, y = work.empty("memories", p.shape, p.dtype), work.empty("y", p.shape, p.dtype)
    scales, to_gates = squash.way(p.dtype)
    width = p.shape[2]
    w, b = params.w.reshape(3, H), params.b.reshape(4, H)  # type: ignore[union-attr]
    vectors = [(along(factor * w_g, width), along(factor * b_g, width)) for factor, w_g, b_g in zip(scales, w, b)]
    scale_row, shift_row = None if scale is None else along(scale, width), along(shift, width)
    for part in picture_chunks(p):
        chunk, m = gates[:, part], memories[part]
        i, keep, o, z = chunk
        affine(by_rows(p[part]), scale_row, shift_row, by_rows(z))
        for gate, (w_g, b_g) in zip(chunk, vectors):
            a_g, a_z = by_rows(gate), by_rows(z)
            np.multiply(a_z, w_g, out=a_g)
            a_g += b_g
        to_gates(chunk, False)
        v = np.multiply(i, z, out=y[part])  # in the place of y, until y is known
        np.multiply(keep, v, out=m)
        np.subtract(v, m, out=m)  # u ⊙ v
        if spec.kind.sweep is not STILL:
            sweep_forward(keep, m, spec.kind, work)
        np.multiply(o, m, out=y[part])
    return (y, measured), FastMapCache(front, gates, memories)


def map_layer_backward(
    dy: Array, cache: FastMapCache, params: STMParams, spec: MapSpec, *, work: Workspace
) -> tuple[Array | None, STMParams]:
    """As :func:`stg_np.layers.maps.map_layer_backward`; dh lies in ``work``."""
    p, H, width = cache.front.pooled, params.b.shape[0] // 4, dy.shape[2]
    w = [along(w_g, width) for w_g in params.w.reshape(3, H)]  # type: ignore[union-attr]
    dz_all = work.empty("dz", p.shape, p.dtype)
    dw, db, along_z = np.zeros((3, H), p.dtype), np.zeros((4, H), p.dtype), np.zeros(H, p.dtype)
    for part in picture_chunks(p):
        z, dz = cache.gates[3, part], dz_all[part]
        da = chunk_backward(dy[part], dz, cache, part, spec, w, work)
        db[3] += pixel_sum(dz)
        for k, da_g in enumerate(da):
            db[k] += pixel_sum(da_g)
            da_g *= z
            dw[k] += pixel_sum(da_g)  # from w_g ⊙ a_z
        if cache.front.by_batch:
            along_z += pixel_sum(np.multiply(dz, z, out=da[0]))
    if spec.frozen:
        return None, STMParams(np.zeros_like(params.W), db.reshape(-1), None, dw.reshape(-1))
    dh, dW = front_backward(dz_all, cache.gates[3], cache.front, params, params.b[3 * H :], db[3], along_z, work)
    return dh, STMParams(dW, db.reshape(-1), None, dw.reshape(-1))


def chunk_backward(
    dy: Array, dz: Array, cache: FastMapCache, part: slice, spec: MapSpec, w: list[Array], work: Workspace
) -> Array:
    """Of a few pictures: write dz (P, height, width, H), and return da of i, u, o (3, P, height, width, H)."""
    (i, keep, o, z), m = cache.gates[:, part], cache.memories[part]
    da = work.empty("da", (3, *m.shape), m.dtype)
    da_i, da_u, da_o = da
    dm = np.multiply(dy, o, out=work.empty("dm", m.shape, m.dtype))  # from y = o ⊙ m
    np.multiply(o, m, out=da_o)  # y again, because the forward's is its caller's
    np.subtract(m, da_o, out=da_o)  # (1 − o) ⊙ m
    da_o *= dm  # dy ⊙ m ⊙ o (1 − o)
    if spec.kind.sweep is STILL:
        np.multiply(keep, dm, out=dz)  # (1 − u) ⊙ dm
        np.multiply(m, dz, out=da_u)  # u (1 − u) v ⊙ dm
    else:
        before = sweep_backward(keep, dm, m, spec.kind, work)
        np.multiply(keep, dm, out=dz)
        np.subtract(m, before, out=da_u)
        da_u *= dz  # u (1 − u) (v − m before) ⊙ dm
    dv = np.subtract(dm, dz, out=dm)  # u ⊙ dm
    np.multiply(i, dv, out=dz)  # from v = i ⊙ z
    np.multiply(z, dz, out=da_i)  # i z ⊙ dv
    rest = np.subtract(1, i, out=dm)
    da_i *= rest  # z i (1 − i) ⊙ dv
    for da_g, w_g in zip(da, w):
        rows = by_rows(dz)
        rows += np.multiply(by_rows(da_g), w_g, out=by_rows(rest))  # from a_g = w_g ⊙ a_z + b_g
    return da


# --- what stands before the gates, or before an activation ------------------------------------------------------


def front_forward(
    h: Array, params: STMParams | ConvParams, b: Array, spec: MapSpec, statistics: Statistics | None, work: Workspace
) -> tuple[Front, Array, Statistics | None]:
    """Window and pooling of h, and the norm and the bias b (H,) as one affine map: ``front.pooled · scale + shift``.

    Returns:
        the cache, the shift (H,), and the statistics of this batch where they were computed.
    """
    p, window = conv.conv2d_forward(h, window_params(params), work=work.within("window"))
    before_pool = None
    if spec.pools:
        before_pool, p = p, largest_of_four(p, work)
    shift, scale, measured = b, None, None
    if spec.normalises:
        if statistics is None:
            statistics = measured = measure(p, work)
        scale = (statistics.variance + EPSILON) ** -0.5
        shift = shift - statistics.mean * scale
    return Front(window, before_pool, p, scale, measured is not None), shift, measured


def front_backward(
    dz: Array,
    z: Array,
    front: Front,
    params: STMParams | ConvParams,
    b: Array,
    db: Array,
    along_z: Array,
    work: Workspace,
) -> tuple[Array, Array]:
    """Reverse :func:`front_forward`: dz (in place) -> dh and the gradient of the kernel; z is what the affine map gave.

    ``db`` (H,) is Σ dz, ``along_z`` (H,) is Σ dz ⊙ z, which is read where the statistics are this batch's.
    """
    if front.scale is not None:
        through_norm(dz, z, front.scale, b, db, along_z if front.by_batch else None, work)
    dp = dz if front.before_pool is None else unpool(dz, front.before_pool, front.pooled, work)
    dh, dwindow = conv.conv2d_backward(dp, front.window, window_params(params), work=work.within("window"))
    return dh, dwindow.W


# --- elementwise ----------------------------------------------------------------------------------------------


def picture_chunks(maps: Array) -> list[slice]:
    """Equal runs of a few pictures, whose gates take about :data:`CHUNK_BYTES`."""
    return conv.chunks(len(maps), 4 * prod(maps.shape[1:]) * maps.itemsize, CHUNK_BYTES)


def pixel_sum(maps: Array) -> Array:
    """The sum of (P, height, width, H) over all pixels, (H,), as one product."""
    rows = flat_rows(maps)
    total: Array = np.ones(len(rows), rows.dtype) @ rows
    return total


def along(vector: Array, width: int) -> Array:
    """A vector (H,) for every pixel of a row: (width · H,)."""
    repeated: Array = np.tile(vector, width)
    return repeated


def by_rows(maps: Array) -> Array:
    """Maps (P, height, width, H) as rows (P · height, width · H), a view."""
    P, height, width, H = maps.shape
    return maps.reshape(P * height, width * H)


def affine(p: Array, scale: Array | None, shift: Array, out: Array) -> None:
    """Write ``p · scale + shift``, or ``p + shift``: maps as rows, and vectors for every pixel of a row."""
    scaled = p if scale is None else np.multiply(p, scale, out=out)
    np.add(scaled, shift, out=out)


def measure(p: Array, work: Workspace) -> Statistics:
    """Mean and variance of each channel over a batch (B, height, width, H)."""
    pixels, parts, squares = p.size // p.shape[-1], picture_chunks(p), np.zeros(p.shape[-1], p.dtype)
    mean = sum((pixel_sum(p[part]) for part in parts), np.zeros_like(squares)) / pixels
    mean_row = along(mean, p.shape[2])
    for part in parts:
        centred = work.empty("centred", p[part].shape, p.dtype)
        np.subtract(by_rows(p[part]), mean_row, out=by_rows(centred))
        centred *= centred
        squares += pixel_sum(centred)
    return Statistics(mean, squares / pixels)


def through_norm(
    dz: Array, z_all: Array, scale: Array, b_z: Array, total: Array, along_z: Array | None, work: Workspace
) -> None:
    """From dz to dp in place, both (B, height, width, H): x̂ = z − b_z is what the norm gave.

    ``total`` (H,) is Σ dz, ``along_z`` (H,) is Σ dz ⊙ z; None where the statistics were given and not this batch's.
    """
    width = dz.shape[2]
    factor = along(scale, width)
    if along_z is None:
        rows = by_rows(dz)
        rows *= factor
        return
    pixels = dz.size // dz.shape[-1]
    slope = scale * (along_z - b_z * total) / pixels  # of x̂
    shift = scale * total / pixels - slope * b_z
    slope, shift = along(slope, width), along(shift, width)
    for part in picture_chunks(dz):
        rows, z = by_rows(dz[part]), by_rows(z_all[part])
        rows *= factor
        rows -= np.multiply(z, slope, out=work.empty("slope", z.shape, z.dtype))
        rows -= shift


# --- pooling --------------------------------------------------------------------------------------------------


def largest_of_four(p: Array, work: Workspace) -> Array:
    """:func:`stg_np.ops.pool2d.max_pool2d_forward`: rows first, in long runs, then columns."""
    window_pixels(p, 2)  # raises if they do not tile
    B, height, width, H = p.shape
    y = work.empty("pooled", (B, height // 2, width // 2, H), p.dtype)
    for part in picture_chunks(p):
        pairs = p[part].reshape(-1, 2, width * H)
        rows = np.maximum(pairs[:, 0], pairs[:, 1], out=work.empty("of two rows", pairs[:, 0].shape, p.dtype))
        columns = rows.reshape(*y[part].shape[:3], 2, H)
        np.maximum(columns[..., 0, :], columns[..., 1, :], out=y[part])
    return y


def unpool(dy: Array, x: Array, y: Array, work: Workspace) -> Array:
    """:func:`stg_np.ops.pool2d.max_pool2d_backward`."""
    dx = work.empty("dx of the pool", x.shape, x.dtype)
    for part in picture_chunks(x):
        largest = work.empty("largest", (4, *y[part].shape), x.dtype)
        for pixel, mask in zip(window_pixels(x[part], 2), largest):
            np.equal(pixel, y[part], out=mask)
        share = np.sum(largest, 0, out=work.empty("share", y[part].shape, x.dtype))
        np.divide(dy[part], share, out=share)
        for dpixel, mask in zip(window_pixels(dx[part], 2), largest):
            np.multiply(mask, share, out=dpixel)
    return dx


# --- sweeps ---------------------------------------------------------------------------------------------------


def gathered(maps: Array, direction: Any, name: str, work: Workspace) -> tuple[Array, Array]:
    """The lines of a sweep, step by step, as new memory (T, P, lines, c); and a view of the maps in that order."""
    view = to_steps(maps, direction).swapaxes(0, 1)
    lines = work.empty(name, view.shape, maps.dtype)
    lines[...] = view
    return lines, view


def sweep_forward(keep: Array, m: Array, kind: SweepKind, work: Workspace) -> None:
    """From u ⊙ v to the memories, in place."""
    for own, direction in shares(m.shape[-1], kind.sweep.directions):
        kept, _ = gathered(keep[..., own], direction, "keep of lines", work)
        lines, view = gathered(m[..., own], direction, "m of lines", work)
        step = work.empty("step", lines.shape[1:], m.dtype)
        for before, keep_s, now in zip(lines, kept[1:], lines[1:]):
            now += np.multiply(before, keep_s, out=step)  # (1 − u) ⊙ m + u ⊙ v
        view[...] = lines


def sweep_backward(keep: Array, dm: Array, m: Array, kind: SweepKind, work: Workspace) -> Array:
    """From what each memory was sent, dm, to its whole gradient, in place; returns the memories before each step."""
    befores = work.empty("memories before", m.shape, m.dtype)
    for own, direction in shares(m.shape[-1], kind.sweep.directions):
        kept, _ = gathered(keep[..., own], direction, "keep of lines", work)
        lines, view = gathered(dm[..., own], direction, "m of lines", work)
        step = work.empty("step", lines.shape[1:], m.dtype)
        for after, keep_s, now in zip(lines[:0:-1], kept[:0:-1], lines[-2::-1]):
            now += np.multiply(after, keep_s, out=step)
        view[...] = lines
        target, source = (to_steps(maps[..., own], direction) for maps in (befores, m))
        target[:, 0] = 0
        target[:, 1:] = source[:, :-1]
    return befores
