"""The CPU fast path of STM walks: the mathematics of :mod:`stg_np.stm`, arranged for the cache.

:func:`walks_forward` and :func:`walks_backward` take several walks side by side: both directions of a layer (see
:mod:`stg_np.fast.layer`). :func:`stm_forward` and :func:`stm_backward` are one walk with the signature of the plain
pair, which is the oracle of all of this. What makes it fast:

* **Layout.** Time-major, so that one step is one run of memory; and gate-major, (4, T, B, H), so that a pass over
  one gate is a run of memory too: 2–3 times quicker than over a quarter of each row of (T, B, 4H). The products that
  fill it and empty it are stacks of four, which BLAS does as quickly as one.
* **Few calls.** A call costs as much as two thousand numbers and, with threads, the interpreter lock. So a step of the
  scan is two calls, forwards and backwards, and walks side by side are one array, (T, B, walks · H), and share them.
* **Chunks.** Steps are taken so many at a time that their gates stay in the cache of a core between the passes, and the
  calls and products are long.
* **The bias is one more input** that is always 1: it costs no pass, and its gradient is a row of dW.
* **One tanh, or one exp** (:mod:`stg_np.fast.squash`), for gates and candidate together; of the update gate,
  ``keep = 1 − u`` comes out, all that is needed of u.
* **Derivatives from outputs**: with y = o ⊙ m, ``o (1 − o) m dy = o dy ⊙ (m − y)``; the memory's own step is
  ``m_t − m_{t−1} = u (v − m_{t−1})``; and ``keep ⊙ dm``, which the scan passes on, is also a factor of da_u.
* **Workspaces** (:mod:`stg_np.workspace`): a pass asks the system for no memory but that of the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, check_dtypes
from stg_np.fast import squash
from stg_np.fast.cache import l2_bytes
from stg_np.inputs import check_sequence
from stg_np.layers.spec import STMKind
from stg_np.ops.activations import IDENTITY, TANH, Activation
from stg_np.ops.linear import flat_rows
from stg_np.stm import LayerGradients, STMParams
from stg_np.workspace import Workspace

CHUNK_BYTES = max(1 << 21, 2 * l2_bytes())
"""Bytes of gates (4, S, B, walks · H) per chunk: 2 MiB with 512 KiB of L2 and with 1 MiB, as measured. Fewer make the
calls so short that threads wait for each other (more than the second-level cache loses), more do not stay near."""


class WalkCache(NamedTuple):
    """Of walks side by side, in the order of their own steps; H is the memory width of one."""

    inputs: list[Array]  # of each walk, (T, B, D + 1), the last column 1
    gates: Array  # (4, T, B, walks · H): i, 1 − u, o, z
    v: Array  # (T, B, walks · H), as y
    memories: Array  # (T + 1, B, walks · H): m_0 … m_T
    y: Array
    tanh_candidate: bool

    @property
    def outputs(self) -> list[Array]:
        """y of each walk, (T, B, H), a view."""
        return np.split(self.y, len(self.inputs), -1)


def covers(kind: STMKind, dtype: Any) -> bool:
    """Whether this module computes such walks; the rest is the plain path's.

    Diagonal gates with a tanh candidate are left out: their backward needs a_z, and the cache holds tanh(a_z).
    """
    known = kind.phi_z is IDENTITY or (kind.phi_z is TANH and not kind.diagonal)
    return known and not kind.recurrent and dtype in (np.float32, np.float64)


def stm_forward(
    x: Array, m_0: Array, params: STMParams, *, phi_z: Activation = TANH, work: Workspace
) -> tuple[tuple[Array, Array], WalkCache]:
    """As :func:`stg_np.stm.stm_forward`, φ the identity; the cache is good until the next forward in ``work``.

    Raises:
        ValueError: for what :func:`covers` excludes. ValueError, TypeError: see :func:`stg_np.inputs.check_sequence`.
    """
    check_sequence(x, m_0, params)
    B, T, D = x.shape
    with_ones = work.empty("x", (T, B, D + 1), x.dtype)
    with_ones[..., :D] = x.transpose(1, 0, 2)
    with_ones[..., D] = 1
    cache = walks_forward([with_ones], m_0, [params], phi_z, work)
    y, m_T = cache.y.transpose(1, 0, 2).copy(), cache.memories[T].copy()  # the caller's own: the cache keeps its own
    return (y, m_T), cache


def stm_backward(dy: Array, dm_T: Array, cache: WalkCache, params: STMParams, *, work: Workspace) -> LayerGradients:
    """As :func:`stg_np.stm.stm_backward`, with the cache of this module's forward; dx lies in ``work``."""
    (dx,), dm_0, (dparams,) = walks_backward(dy.transpose(1, 0, 2), dm_T, cache, [params], work)
    return dx.transpose(1, 0, 2), dm_0, dparams


def walks_forward(
    inputs: list[Array], m_0: Array, params: Sequence[STMParams], phi_z: Activation, work: Workspace
) -> WalkCache:
    """Walks side by side: each has its own input (T, B, D + 1), with ones, and its own H columns of ``m_0`` and of y.

    The steps of all walks are taken together, the first of each first.

    Raises:
        ValueError: for what :func:`covers` excludes. TypeError: see :func:`stg_np.backend.check_dtypes`.
    """
    check_dtypes(m_0, *inputs, *(array for own in params for array in own))
    if not covers(STMKind(params[0].R is not None, params[0].w is not None, phi_z), m_0.dtype):
        raise ValueError("this fast path does not know such an STM: ask stg_np.fast.choose for a pair that does")
    (T, B, _), width, dtype = inputs[0].shape, m_0.shape[1], m_0.dtype
    gates = work.empty("gates", (4, T, B, width), dtype)
    v, y = work.empty("v", (T, B, width), dtype), work.empty("y", (T, B, width), dtype)
    memories = work.empty("memories", (T + 1, B, width), dtype)
    memories[0] = m_0
    scales, to_gates = squash.way(dtype)
    stacks = [work.empty(f"W{k}", stack_shape(own), dtype) for k, own in enumerate(params)]
    weights = [stacked_weights(own, scales, stack) for own, stack in zip(params, stacks)]
    vectors = diagonal_vectors(params, scales)
    for steps in chunks(T, gates[:, :1].nbytes):
        chunk, after = gates[:, steps], memories[steps.start + 1 : steps.stop + 1]
        fill_preactivations(chunk, [x[steps] for x in inputs], weights, vectors)
        to_gates(chunk, phi_z is TANH)
        i, keep, o, z = chunk  # four times (S, B, walks · H)
        np.multiply(i, z, out=v[steps])
        inflow = np.multiply(keep, v[steps], out=y[steps])  # in the place of y, until y is known
        np.subtract(v[steps], inflow, out=inflow)  # u ⊙ v
        for before, keep_t, inflow_t, now in zip(memories[steps], keep, inflow, after):
            np.multiply(before, keep_t, out=now)  # (1 − u) ⊙ m + u ⊙ v
            now += inflow_t
        np.multiply(o, after, out=y[steps])
    return WalkCache(inputs, gates, v, memories, y, phi_z is TANH)


def walks_backward(
    dy: Array, dm_T: Array, cache: WalkCache, params: Sequence[STMParams], work: Workspace
) -> tuple[list[Array], Array, list[STMParams]]:
    """From dy (T, B, walks · H) and dm_T (B, walks · H): dx (T, B, D) of each walk, dm_0, and their dparams."""
    (T, B, columns), H, dtype = cache.inputs[0].shape, params[0].b.shape[0] // 4, dm_T.dtype
    dxs = [work.empty(f"dx{k}", (T, B, columns - 1), dtype) for k in range(len(params))]
    dWs = [work.empty(f"dW{k}", stack_shape(own), dtype) for k, own in enumerate(params)]  # with the row of the bias
    W_Ts = [work.empty(f"W_T{k}", (len(dW), H, columns - 1), dtype) for k, dW in enumerate(dWs)]
    for own, dW, W_T in zip(params, dWs, W_Ts):
        dW[...] = 0
        transpose_stack(own.W, W_T)
    dvectors = np.zeros((2, 3, dm_T.shape[1]), dtype)  # diagonal gates: dw and db of i, u, o
    w = None if params[0].w is None else side_by_side([own.w for own in params])
    dm = dm_T
    for steps in reversed(chunks(T, cache.gates[:, :1].nbytes)):
        dp, dm = chunk_backward(dy[steps], dm, cache, steps, work)
        if w is not None:
            dp = through_diagonal_gates(dp, cache.gates[3, steps], w, dvectors)
        matrices = dp.reshape(len(dp), -1, dp.shape[-1])  # (4 or 1, S·B, walks · H)
        for k, (x, dx, dW, W_T) in enumerate(zip(cache.inputs, dxs, dWs, W_Ts)):
            dp_own = matrices[..., k * H : (k + 1) * H]
            part = work.empty("dW of a chunk", dW.shape, dtype)
            dW += np.matmul(flat_rows(x[steps]).T, dp_own, out=part)  # from x W, and from 1 b
            shares = work.empty("dx of each gate", (*dp_own.shape[:2], columns - 1), dtype)
            np.sum(np.matmul(dp_own, W_T, out=shares), 0, out=flat_rows(dx[steps]))  # from x W
    return dxs, dm, [packed_gradient(dW, dvectors[..., k * H : (k + 1) * H]) for k, dW in enumerate(dWs)]


def chunks(T: int, step_bytes: int) -> list[slice]:
    """Cut T steps into runs of about :data:`CHUNK_BYTES` of gates, all of nearly the same length."""
    longest = max(1, CHUNK_BYTES // max(1, step_bytes))  # an empty batch has no bytes
    count = -(-T // longest)
    return [slice(k * T // count, (k + 1) * T // count) for k in range(count)]


def side_by_side(vectors: Sequence[Any]) -> Array:
    """A vector (3H,) of each walk as (3, walks · H)."""
    joined: Array = np.concatenate([vector.reshape(3, -1) for vector in vectors], 1)
    return joined


def stack_shape(params: STMParams) -> tuple[int, int, int]:
    """(4, D + 1, H): W and b as a matrix for each gate; with diagonal gates (1, D + 1, H), the candidate's alone."""
    D, H = params.W.shape[0], params.b.shape[0] // 4
    return params.W.shape[1] // H, D + 1, H


def stacked_weights(params: STMParams, scales: Sequence[float], stack: Array) -> Array:
    """Write W and b into a stack of :func:`stack_shape`, the gates' times their scales."""
    G, columns, H = stack.shape
    stack[:, :-1] = params.W.reshape(columns - 1, G, H).transpose(1, 0, 2)
    stack[:, -1] = params.b.reshape(4, H)[-G:]
    if params.w is None:
        for matrix, factor in zip(stack, scales):
            matrix *= factor
    return stack


def transpose_stack(W: Array, out: Array) -> None:
    """The transposed matrix of each gate: W (D, 4H) -> out (4, H, D); diagonal gates: (D, H) -> (1, H, D)."""
    line = 16  # numbers of float32 in a line of the cache; whole rows at once would evict each line before it is full
    for first in range(0, len(W), line):
        part = W[first : first + line].reshape(-1, *out.shape[:2])  # (16, 4, H)
        out[..., first : first + line] = part.transpose(1, 2, 0)


def diagonal_vectors(params: Sequence[STMParams], scales: Sequence[float]) -> list[tuple[Array, Array]]:
    """w_g and b_g of i, u, o times their scales, each (walks · H,); none with full gates."""
    if params[0].w is None:
        return []
    w = side_by_side([own.w for own in params])
    b = side_by_side([own.b[: len(own.b) // 4 * 3] for own in params])
    return [(factor * w_g, factor * b_g) for factor, w_g, b_g in zip(scales, w, b)]


def fill_preactivations(
    chunk: Array, inputs: Sequence[Array], weights: Sequence[Array], vectors: Sequence[tuple[Array, Array]]
) -> None:
    """Write the pre-activations, those of the gates times their scales, into chunk (4, S, B, walks · H)."""
    H = weights[0].shape[-1]
    matrices = chunk.reshape(4, -1, chunk.shape[-1])  # (4, S·B, walks · H)
    for k, (x, W) in enumerate(zip(inputs, weights)):
        np.matmul(flat_rows(x), W, out=matrices[-len(W) :, :, k * H : (k + 1) * H])
    for gate, (w_g, b_g) in zip(chunk, vectors):
        np.multiply(chunk[3], w_g, out=gate)  # a_g = w_g ⊙ a_z + b_g
        gate += b_g


def chunk_backward(dy: Array, dm: Array, cache: WalkCache, steps: slice, work: Workspace) -> tuple[Array, Array]:
    """The reversed scan over one chunk: dy (S, B, walks · H), dm of its last memory -> da (4, …) and dm before it.

    The four arrays of da also hold what leads to them.
    """
    i, keep, o, z = cache.gates[:, steps]
    v, y, before, after = cache.v[steps], cache.y[steps], cache.memories[steps], cache.memories[1:][steps]
    da = work.empty("da", (4, *v.shape), v.dtype)
    da_i, da_u, da_o, da_z = da
    dms = np.multiply(dy, o, out=work.empty("dm", v.shape, v.dtype))  # from y = o ⊙ m
    np.subtract(after, y, out=da_o)  # (1 − o) ⊙ m
    da_o *= dms  # dy ⊙ m ⊙ o (1 − o)
    for dm_t, keep_t, passed_on in zip(dms[::-1], keep[::-1], da_u[::-1]):
        dm_t += dm
        dm = np.multiply(dm_t, keep_t, out=passed_on)  # (1 − u) ⊙ dm, for the step before
    dm = dm.copy()
    dv = np.subtract(dms, da_u, out=dms)  # u ⊙ dm
    np.subtract(after, before, out=da_z)  # u ⊙ (v − m)
    da_u *= da_z  # dm ⊙ (v − m) ⊙ u (1 − u)
    np.multiply(v, i, out=da_i)
    np.subtract(v, da_i, out=da_i)
    da_i *= dv  # dv ⊙ z ⊙ i (1 − i)
    if cache.tanh_candidate:
        np.multiply(v, z, out=da_z)
        np.subtract(i, da_z, out=da_z)
        da_z *= dv  # dv ⊙ i ⊙ (1 − z²)
    else:
        np.multiply(dv, i, out=da_z)
    return da, dm


def through_diagonal_gates(da: Array, a_z: Array, w: Array, dvectors: Array) -> Array:
    """From da (4, S, B, walks · H) to dp (1, …), in the place of da_z; adds to dw and db of the gates, (2, 3, …).

    ``a_z`` is the candidate, which the identity has left as it was.
    """
    for k in range(3):
        dvectors[0, k] += np.einsum("nh,nh->h", flat_rows(da[k]), flat_rows(a_z))  # from w_g ⊙ a_z
        dvectors[1, k] += flat_rows(da[k]).sum(0)  # from + b_g
    for k in range(3):
        da[k] *= w[k]
        da[3] += da[k]  # from w_g ⊙ a_z, thrice
    return da[3:]


def packed_gradient(dW: Array, dvectors: Array) -> STMParams:
    """The stack of a walk's gradients (4 or 1, D + 1, H) as parameters of their own memory; ``dvectors``: (2, 3, H)."""
    packed = dW.transpose(1, 0, 2).flatten().reshape(dW.shape[1], -1)  # (D + 1, 4H or H)
    if len(dW) == 4:
        return STMParams(packed[:-1], packed[-1])
    return STMParams(packed[:-1], np.concatenate([dvectors[1].reshape(-1), packed[-1]]), None, dvectors[0].reshape(-1))
