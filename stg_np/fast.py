"""The CPU fast path of the STM layer: the mathematics of :mod:`stg_np.stm`, arranged for the cache.

Same signatures as :func:`stg_np.stm.stm_forward` and :func:`stg_np.stm.stm_backward`, which are its oracle. What makes
it fast:

* arrays are time-major, (T, B, ·), so one step is one run of memory;
* the steps are taken in chunks whose gates fit into the cache of one core, and everything elementwise is done in place
  on the chunk before the next matrix product pushes it out;
* σ(a) = ½ tanh(a/2) + ½: with the columns of the gates halved beforehand, gates and candidate are ONE tanh;
* the derivatives are written from outputs: ``1 − u`` serves the gate and the memory, ``u ⊙ dm`` three gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stg_np import stm
from stg_np.backend import Array
from stg_np.ops.activations import IDENTITY, TANH, Activation
from stg_np.ops.linear import flat_rows
from stg_np.stm import STMParams

CHUNK_BYTES = 1 << 18
"""Bytes of gates (S, B, 4H) per chunk: measured best between 2¹⁷ and 2¹⁹ on cores with 1 MiB of L2."""


class FastCache(NamedTuple):
    """Time-major: the input, the values [i | u | o | z] of all gates, and the memories m_0 … m_T."""

    x: Array  # (T, B, D)
    gates: Array  # (T, B, 4H)
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
    B, T, _ = x.shape
    H = m_0.shape[1]
    x = np.ascontiguousarray(x.transpose(1, 0, 2))  # (T, B, D)
    gates = np.empty((T, B, 4 * H), x.dtype)
    memories = np.empty((T + 1, B, H), x.dtype)
    memories[0] = m_0
    y = np.empty((T, B, H), x.dtype)
    halved = halve_gates(params, H)
    for steps in chunks(T, B * 4 * H * x.itemsize):
        chunk, out = gates[steps], y[steps]  # (S, B, 4H), (S, B, H)
        fill_preactivations(chunk, x[steps], halved)
        squash(chunk, H, phi_z is TANH)
        i, u, o, z = split(chunk)
        np.multiply(i, z, out=out)  # v, in the place of y
        for k, t in enumerate(range(steps.start, steps.stop)):
            now = memories[t + 1]
            np.subtract(out[k], memories[t], out=now)  # m + u (v − m)
            now *= u[k]
            now += memories[t]
        np.multiply(o, memories[steps.start + 1 : steps.stop + 1], out=out)
    return (y.transpose(1, 0, 2), memories[T].copy()), FastCache(x, gates, memories, phi_z is TANH)


def stm_backward(dy: Array, dm_T: Array, cache: Any, params: STMParams) -> stm.LayerGradients:
    """As :func:`stg_np.stm.stm_backward`, with the cache of this module's forward."""
    if not isinstance(cache, FastCache):
        return stm.stm_backward(dy, dm_T, cache, params)
    T = len(cache.x)
    dx = np.empty_like(cache.x)
    W_T = np.ascontiguousarray(params.W.T)
    grads = STMParams._make(np.zeros_like(array) if array is not None else None for array in params)
    dm = dm_T
    for steps in reversed(chunks(T, cache.gates[0].nbytes)):
        dy_chunk = np.ascontiguousarray(dy[:, steps].transpose(1, 0, 2))  # (S, B, H)
        da, dm = chunk_backward(dy_chunk, dm, cache, steps)  # (S·B, 4H)
        dp = add_preactivation_gradients(grads, da, cache.gates[steps], params)
        x_chunk = flat_rows(cache.x[steps])
        grads.W[...] += x_chunk.T @ dp
        np.matmul(dp, W_T, out=flat_rows(dx[steps]))
    return dx.transpose(1, 0, 2), dm, grads


def chunks(T: int, step_bytes: int) -> list[slice]:
    """Cut T steps into runs of about :data:`CHUNK_BYTES` of gates."""
    size = max(1, CHUNK_BYTES // step_bytes)
    return [slice(start, min(start + size, T)) for start in range(0, T, size)]


def split(gates: Array) -> list[Array]:
    """Views of the four parts of (..., 4H)."""
    H = gates.shape[-1] // 4
    return [gates[..., k * H : (k + 1) * H] for k in range(4)]


def halve_gates(params: STMParams, H: int) -> STMParams:
    """The parameters with what leads to a_i, a_u, a_o halved: then σ(a) = ½ tanh(·) + ½."""
    half = np.ones(4 * H, params.b.dtype)
    half[: 3 * H] = 0.5
    if params.w is None:
        return STMParams(params.W * half, params.b * half)
    return STMParams(params.W, params.b * half, None, params.w * half[: 3 * H])


def fill_preactivations(chunk: Array, x: Array, params: STMParams) -> None:
    """Write ``x W + b`` into chunk (S, B, 4H); with diagonal gates ``w ⊙ a_z + b`` beside a_z."""
    if params.w is None:
        np.matmul(flat_rows(x), params.W, out=flat_rows(chunk))
        chunk += params.b
        return
    *gates, a_z = split(chunk)
    b_i, b_u, b_o, b_z = split(params.b)
    np.add((flat_rows(x) @ params.W).reshape(a_z.shape), b_z, out=a_z)
    for gate, w, b in zip(gates, np.split(params.w, 3), (b_i, b_u, b_o)):
        np.multiply(a_z, w, out=gate)
        gate += b


def squash(chunk: Array, H: int, tanh_candidate: bool) -> None:
    """From (halved) pre-activations to the values of gates and candidate, in place."""
    iuo = chunk[..., : 3 * H]
    np.tanh(chunk if tanh_candidate else iuo, out=chunk if tanh_candidate else iuo)
    iuo *= 0.5
    iuo += 0.5


def chunk_backward(dy: Array, dm: Array, cache: FastCache, steps: slice) -> tuple[Array, Array]:
    """The reversed scan over one chunk: dy (S, B, H), dm (B, H) -> da (S·B, 4H) and dm before the chunk."""
    gates, m = cache.gates[steps], cache.memories[steps.start + 1 : steps.stop + 1]
    i, u, o, z = split(gates)
    da = np.empty_like(gates)
    da_i, da_u, da_o, da_z = split(da)
    np.subtract(1, gates[..., : 3 * i.shape[-1]], out=da[..., : 3 * i.shape[-1]])  # 1 − g, of σ' = g (1 − g)
    dms = dy * o  # from y = o ⊙ m, (S, B, H)
    da_o *= dms
    da_o *= m
    for k in reversed(range(len(dms))):
        dms[k] += dm
        dm = dms[k] * da_u[k]  # (1 − u) ⊙ dm, for the step before
    dv = np.multiply(dms, u, out=dms)
    v = i * z
    np.multiply(dv, i, out=da_z)  # dz
    if cache.tanh_candidate:
        da_z *= 1 - z * z
    da_i *= dv
    da_i *= v  # dv ⊙ z ⊙ i (1 − i)
    v -= cache.memories[steps]
    da_u *= dv
    da_u *= v  # dm ⊙ (v − m) ⊙ u (1 − u)
    return flat_rows(da), dm


def add_preactivation_gradients(grads: STMParams, da: Array, gates: Array, params: STMParams) -> Array:
    """Add the chunk's db (and dw) to ``grads``; return dp (S·B, 4H or H)."""
    if params.w is None or grads.w is None:
        grads.b[...] += da.sum(0)
        return da
    H = da.shape[1] // 4
    a_z = flat_rows(gates)[:, 3 * H :]  # with the identity as φ_z, the candidate is a_z
    dp = da[:, 3 * H :].copy()
    for k, w in enumerate(np.split(params.w, 3)):
        da_gate = da[:, k * H : (k + 1) * H]
        dp += da_gate * w
        grads.w[k * H : (k + 1) * H] += (da_gate * a_z).sum(0)
    grads.b[: 3 * H] += da[:, : 3 * H].sum(0)
    grads.b[3 * H :] += dp.sum(0)
    return dp
