"""The CUDA fast path of the image STM: gates, sweeps and output of a map in one kernel, each way.

Same signatures as :func:`stg_np.sweep.gated_sweep_forward` and :func:`stg_np.sweep.gated_sweep_backward`, which are its
oracle. The kernels are those of the sequence layer (:mod:`stg_np.fast.cuda`): one thread a line and channel, its memory
in a register. For a map there is this besides:

* all directions are one launch: a thread finds the direction of its channel, and with it the first pixel of its line
  and the stride to the next one. To the right and to the left the lines are rows, down and up they are columns; where
  a map is not square, some threads have no line, and their sums are zeros;
* channels lie side by side in every pixel, so a warp reads and writes runs of memory in each direction alike: nothing
  is transposed or gathered;
* a line starts empty, so no first memory is read and none has a gradient;
* without a sweep (``STILL``) a thread walks the pixels of a row and forgets at each of them. m = u ⊙ v is not stored:
  the backward computes it again.

Memory traffic in numbers per pixel and channel, P = 4 with full gates and 1 with diagonal ones, each 4 or 8 bytes:

===================  ===============  ==============  ===============================
kernel               reads            writes          float32: full gates, diagonal
===================  ===============  ==============  ===============================
forward              p: P             m, y: 2         24 bytes, 12 bytes
backward             p: P, m, dy: 2   dp: P           40 bytes, 16 bytes
forward, no sweep    p: P             y: 1            20 bytes, 8 bytes
backward, no sweep   p: P, dy: 1      dp: P           36 bytes, 12 bytes
===================  ===============  ==============  ===============================

The backward also writes, for every line and channel, the sums of db and dw over its pixels: 4 numbers with full gates,
7 with diagonal ones. :func:`stg_np.fast.cuda.traffic_bytes` counts them too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, check_dtypes, get_xp
from stg_np.fast import cuda
from stg_np.fast.cuda import REALS, Variant, Walk, dense, vectors
from stg_np.ops.activations import IDENTITY, TANH
from stg_np.stm import STMParams
from stg_np.sweep import ALL_WAYS, STILL, Sweep, SweepKind, quarters_forward, shares


class KernelSweepCache(NamedTuple):
    """The products p, the memories (B, height, width, H), none where nothing sweeps, and how they were computed."""

    p: Array  # (B, height, width, 4H), diagonal gates (B, height, width, H)
    memories: Array
    variant: Variant
    walk: Walk


def covers(kind: SweepKind, dtype: Any) -> bool:
    """Whether the kernels compute such sweeps; the rest is the plain path's."""
    side_by_side = kind.sweep.forward is quarters_forward and len(kind.sweep.directions) <= len(ALL_WAYS)
    simple = kind.phi_z in (TANH, IDENTITY) and kind.phi is IDENTITY and not kind.louder
    return np.dtype(dtype) in REALS and simple and (side_by_side or kind.sweep is STILL)


def gated_sweep_forward(p: Array, params: STMParams, kind: SweepKind) -> tuple[Array, KernelSweepCache]:
    """As :func:`stg_np.sweep.gated_sweep_forward`.

    Raises:
        ValueError: for what :func:`covers` excludes, or where shapes do not fit each other.
        TypeError: see :func:`stg_np.backend.check_dtypes`.
    """
    xp = get_xp(p, params.b, params.w)
    check_dtypes(p, params.b, params.w)
    if not covers(kind, p.dtype):
        raise ValueError("these kernels do not know such sweeps: ask stg_np.fast.choose for a pair that does")
    H, still = params.b.shape[0] // 4, kind.sweep is STILL
    variant = Variant(REALS[p.dtype], params.w is not None, kind.phi_z is TANH, "still" if still else "empty")
    p = dense("p", p, (*p.shape[:3], H if variant.diagonal else 4 * H), p.dtype)
    walk = map_walk(p.shape[:3], H, kind.sweep)
    y = xp.empty((*p.shape[:3], H), dtype=p.dtype)
    memories = xp.empty((0,) if still else y.shape, dtype=p.dtype)
    cuda.launch("stm_forward", variant, (p, *vectors(params, H), nothing(p)), (y, memories), walk)
    return y, KernelSweepCache(p, memories, variant, walk)


def gated_sweep_backward(
    dy: Array, cache: KernelSweepCache, params: STMParams, kind: SweepKind
) -> tuple[Array, Array, Array | None]:
    """As :func:`stg_np.sweep.gated_sweep_backward`, with the cache of this module's forward.

    Raises:
        ValueError: if shape or dtype are not those of the forward's output.
    """
    p, memories, variant, walk = cache
    xp, H = get_xp(dy, p), walk.H
    dy = dense("dy", dy, (*p.shape[:3], H), p.dtype)
    dp, dm_0 = xp.empty(p.shape, dtype=p.dtype), nothing(p)
    sums = xp.empty((walk.B * walk.side, (7 if variant.diagonal else 4) * H), dtype=p.dtype)  # of each line
    inputs = (p, *vectors(params, H), nothing(p), memories, dy, nothing(p))
    cuda.launch("stm_backward", variant, inputs, (dp, dm_0, sums), walk)
    dvectors = sums.sum(0)  # [db|dw]
    return dp, dvectors[: 4 * H], dvectors[4 * H :] if variant.diagonal else None


def map_walk(pixels: tuple[int, ...], H: int, sweep: Sweep) -> Walk:
    """The walk through maps of ``pixels`` (B, height, width); without a sweep, along the rows.

    Raises:
        ValueError: if the channels cannot be shared out among the directions.
    """
    B, height, width = pixels
    directions = ("right",) if sweep is STILL else sweep.directions
    ways = [ALL_WAYS.index(direction) for _, direction in shares(H, directions)]
    side = max(height if way < 2 else width for way in ways)  # to the right and to the left the lines are rows
    return Walk(B, height, width, H, side, H // len(ways), sum(way << 2 * k for k, way in enumerate(ways)))


def nothing(array: Array) -> Array:
    """No numbers, in the place of an array that a variant of the kernels leaves alone."""
    empty: Array = get_xp(array).empty((0,), dtype=array.dtype)
    return empty
