"""The CPU fast path of the STM layer: the mathematics of :mod:`stg_np.stm`, arranged for the cache.

Same signatures as :func:`stg_np.stm.stm_forward` and :func:`stg_np.stm.stm_backward`, which are its oracle. What makes
it fast:

* **Layout.** Time-major, so that one step is one run of memory; and gate-major, (4, T, B, H), so that a pass over
  one gate is a run of memory too: 2–3 times quicker than over a quarter of each row of (T, B, 4H). The product that
  fills it is a stack of four, which BLAS does as quickly as one.
* **Chunks.** Steps are taken so many at a time that their gates stay in the cache of a core between the passes, and the
  products keep at least about a hundred rows, below which BLAS slows down.
* **The bias is one more input** that is always 1: it costs no pass, and its gradient is a row of dW.
* **One tanh.** σ(a) = ½ tanh(a/2) + ½: with what leads to the gates halved beforehand, gates and candidate are one
  call.
* **Derivatives from outputs**: ``1 − u`` serves the gate and the memory, ``u ⊙ dm`` three gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stg_np import stm
from stg_np.backend import Array
from stg_np.ops.activations import IDENTITY, TANH, Activation
from stg_np.ops.linear import flat_rows
from stg_np.stm import STMParams

CHUNK_BYTES = 1 << 19
"""Bytes of gates (4, S, B, H) per chunk; between 2¹⁸ and 2²⁰ it makes little difference on cores with 1 MiB of L2."""


class FastCache(NamedTuple):
    """Time-major: the input with a column of ones, the values i, u, o, z of all steps, and the memories m_0 … m_T."""

    x: Array  # (T, B, D + 1)
    gates: Array  # (4, T, B, H)
    memories: Array  # (T + 1, B, H)
    tanh_candidate: bool


def covers(params: STMParams, phi_z: Activation, phi: Activation) -> bool:
    """Whether this module computes the layer; the rest takes the plain path.

    Diagonal gates with a tanh candidate are left out: their backward needs a_z, and the cache holds tanh(a_z).
    """
    return phi is IDENTITY and (phi_z is IDENTITY or (phi_z is TANH and params.w is None))


def stm_forward(
    x: Array, m_0: Array, params: STMParams, *, phi_z: Activation = TANH, phi: Activation = IDENTITY
) -> tuple[tuple[Array, Array], Any]:
    """As :func:`stg_np.stm.stm_forward`."""
    if not covers(params, phi_z, phi):
        return stm.stm_forward(x, m_0, params, phi_z=phi_z, phi=phi)
    (B, T, D), H = x.shape, m_0.shape[1]
    with_ones = np.empty((T, B, D + 1), x.dtype)
    with_ones[..., :D] = x.transpose(1, 0, 2)
    with_ones[..., D] = 1
    gates = np.empty((4, T, B, H), x.dtype)
    memories = np.empty((T + 1, B, H), x.dtype)
    memories[0] = m_0
    y = np.empty((T, B, H), x.dtype)
    W = stacked_weights(params, H)
    for steps in chunks(T, gates[:, 0].nbytes):
        i, u, o, z = chunk = gates[:, steps]  # four times (S, B, H)
        fill_preactivations(chunk, with_ones[steps], W, params)
        squash(chunk, phi_z is TANH)
        v = np.multiply(i, z, out=y[steps])  # in the place of y, until y is known
        for v_t, u_t, before, now in zip(v, u, memories[steps], memories[steps.start + 1 :]):
            np.subtract(v_t, before, out=now)  # m + u (v − m)
            now *= u_t
            now += before
        np.multiply(o, memories[steps.start + 1 : steps.stop + 1], out=y[steps])
    return (y.transpose(1, 0, 2), memories[T].copy()), FastCache(with_ones, gates, memories, phi_z is TANH)


def stm_backward(dy: Array, dm_T: Array, cache: Any, params: STMParams) -> stm.LayerGradients:
    """As :func:`stg_np.stm.stm_backward`, with the cache of this module's forward."""
    if not isinstance(cache, FastCache):
        return stm.stm_backward(dy, dm_T, cache, params)
    (T, B, columns), H = cache.x.shape, dm_T.shape[1]
    dx = np.empty((T, B, columns - 1), cache.x.dtype)
    dW = np.zeros((columns, params.W.shape[1]), cache.x.dtype)  # with the row of the bias
    dgates = None if params.w is None else np.zeros((2, 3 * H), cache.x.dtype)  # dw and db of the diagonal gates
    W_T = np.ascontiguousarray(params.W.T)
    dm = dm_T
    for steps in reversed(chunks(T, cache.gates[:, 0].nbytes)):
        dp, dm = chunk_backward(dy[:, steps].transpose(1, 0, 2), dm, cache, steps)
        if params.w is not None and dgates is not None:
            dp = through_diagonal_gates(dp, cache.gates[3, steps], params.w, dgates)
        dW += flat_rows(cache.x[steps]).T @ dp
        np.matmul(dp, W_T, out=flat_rows(dx[steps]))
    if dgates is None:
        grads = STMParams(dW[:-1], dW[-1])
    else:
        grads = STMParams(dW[:-1], np.concatenate([dgates[1], dW[-1]]), None, dgates[0])
    return dx.transpose(1, 0, 2), dm, grads


def chunks(T: int, step_bytes: int) -> list[slice]:
    """Cut T steps into runs of about :data:`CHUNK_BYTES` of gates."""
    size = max(1, CHUNK_BYTES // max(1, step_bytes))  # an empty batch has no bytes
    return [slice(start, min(start + size, T)) for start in range(0, T, size)]


def stacked_weights(params: STMParams, H: int) -> Array:
    """W and b as a stack of four (D + 1, H), those of the gates halved; diagonal gates: the candidate's (D + 1, H)."""
    if params.w is not None:
        return np.concatenate([params.W, params.b[None, 3 * H :]])
    packed = np.concatenate([params.W, params.b[None]]).reshape(-1, 4, H).transpose(1, 0, 2)
    stack = np.ascontiguousarray(packed)
    stack[:3] *= 0.5
    return stack


def fill_preactivations(chunk: Array, x: Array, W: Array, params: STMParams) -> None:
    """Write the pre-activations (those of the gates halved) of x (S, B, D + 1) into chunk (4, S, B, H)."""
    H = chunk.shape[-1]
    if params.w is None:
        np.matmul(flat_rows(x), W, out=chunk.reshape(4, -1, H))
        return
    a_z = chunk[3]
    np.matmul(flat_rows(x), W, out=flat_rows(a_z))
    for k in range(3):
        part = slice(k * H, (k + 1) * H)
        np.multiply(a_z, 0.5 * params.w[part], out=chunk[k])  # a_g = w_g ⊙ a_z + b_g
        chunk[k] += 0.5 * params.b[part]


def squash(chunk: Array, tanh_candidate: bool) -> None:
    """From (halved) pre-activations to the values of gates and candidate, in place."""
    through_tanh = chunk if tanh_candidate else chunk[:3]
    np.tanh(through_tanh, out=through_tanh)
    chunk[:3] *= 0.5
    chunk[:3] += 0.5


def chunk_backward(dy: Array, dm: Array, cache: FastCache, steps: slice) -> tuple[Array, Array]:
    """The reversed scan over one chunk: dy (S, B, H), dm (B, H) -> da (S·B, 4H) and dm before the chunk."""
    i, u, o, z = cache.gates[:, steps]
    S, B, H = dy.shape
    da = np.empty((S, B, 4 * H), i.dtype)
    da_i, da_u, da_o, da_z = (da[..., k * H : (k + 1) * H] for k in range(4))
    dms = np.multiply(dy, o, order="C")  # from y = o ⊙ m
    work = 1 - o
    work *= dms
    np.multiply(work, cache.memories[steps.start + 1 : steps.stop + 1], out=da_o)  # dy ⊙ m ⊙ o (1 − o)
    keep = 1 - u
    for dm_t, keep_t in zip(dms[::-1], keep[::-1]):
        dm_t += dm
        dm = dm_t * keep_t  # (1 − u) ⊙ dm, for the step before
    dv = np.multiply(dms, u, out=dms)
    v = i * z
    np.subtract(1, i, out=work)
    work *= v
    np.multiply(work, dv, out=da_i)  # dv ⊙ z ⊙ i (1 − i)
    v -= cache.memories[steps]
    v *= keep
    np.multiply(v, dv, out=da_u)  # dm ⊙ (v − m) ⊙ u (1 − u)
    if cache.tanh_candidate:
        np.multiply(z, z, out=work)
        np.subtract(1, work, out=work)
        dv *= work
    np.multiply(dv, i, out=da_z)  # dv ⊙ i ⊙ (1 − z²)
    return flat_rows(da), dm


def through_diagonal_gates(da: Array, a_z: Array, w: Array, dgates: Array) -> Array:
    """From da (N, 4H) to dp (N, H); adds dw and db of the gates to ``dgates`` (2, 3H).

    ``a_z`` (S, B, H) is the candidate, which the identity has left as it was.
    """
    H = a_z.shape[-1]
    dp = da[:, 3 * H :].copy()
    for k in range(3):
        part = slice(k * H, (k + 1) * H)
        dp += da[:, part] * w[part]
        dgates[0, part] += np.einsum("nh,nh->h", da[:, part], flat_rows(a_z))
        dgates[1, part] += da[:, part].sum(0)
    return dp
