"""The short-term memory layer (STM): three gates, one memory, and the backward of all of it by hand.

    a_t = x_t W + b                                           a = [a_i | a_u | a_o | a_z]
    i_t = σ(a_i)     the input gate:  what comes in
    u_t = σ(a_u)     the update gate: what is updated
    o_t = σ(a_o)     the output gate: what goes out
    z_t = φ_z(a_z)   the candidate
    v_t = i_t ⊙ z_t
    m_t = (1 − u_t) ⊙ m_{t−1} + u_t ⊙ v_t                     the short-term memory
    y_t = o_t ⊙ φ(m_t)                                        the output

B batch, T steps, D input features, H memory width; ``d…`` is the gradient of the loss with respect to ….
Here the gates see the input only; in :mod:`stg_np.stm_recurrent` they see the memory too. They are *full* (a matrix
each) or *diagonal* (a vector each, on the candidate: a_g = w_g ⊙ a_z + b_g).
The memory is the gated linear recurrence of Martin & Cundy (arXiv:1709.04057) with an input and an output gate.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_number, check_sequence, check_sizes
from stg_np.ops.activations import IDENTITY, SIGMOID, TANH, Activation
from stg_np.ops.linear import flat_rows, matmul, outer_sum
from stg_np.params import Entry

LayerGradients: TypeAlias = "tuple[Array, Array, STMParams]"  # dx, dm_0, dparams


class STMParams(NamedTuple):
    """The parameters of one layer; the same type holds their gradients."""

    W: Array  # (D, 4H), columns [i | u | o | z]; diagonal gates: (D, H), the candidate's only
    b: Array  # (4H,), [b_i | b_u | b_o | b_z]
    R: Array | None = None  # recurrent form: (H, 4H); with diagonal gates (H, H)
    w: Array | None = None  # diagonal gates: (3H,), [w_i | w_u | w_o]


def stm_entries(prefix: str, D: int, H: int, *, recurrent: bool = False, diagonal: bool = False) -> tuple[Entry, ...]:
    """Name, shape and role of each parameter of one layer, in the order of :class:`STMParams`."""
    columns = H if diagonal else 4 * H
    entries = [Entry(f"{prefix}.W", (D, columns), "matrix"), Entry(f"{prefix}.b", (4 * H,), "vector")]
    if recurrent:
        entries.append(Entry(f"{prefix}.R", (H, columns), "matrix"))
    if diagonal:
        entries.append(Entry(f"{prefix}.w", (3 * H,), "vector"))
    return tuple(entries)


def init_stm(
    rng: np.random.Generator, D: int, H: int, *, length: float, recurrent: bool = False, diagonal: bool = False
) -> STMParams:
    """Draw the parameters of one layer (float64), with memories that last between 2 and ``length`` steps.

    So says b_u (:func:`draw_update_biases`), and W_u starts small.
    """
    check_sizes("D and H", (D, H))
    b = np.zeros(4 * H)
    b[H : 2 * H] = draw_update_biases(rng, H, length)
    W = rng.standard_normal((D, H if diagonal else 4 * H)) / np.sqrt(D)
    R = rng.standard_normal((H, W.shape[1])) / np.sqrt(H) if recurrent else None
    if diagonal:
        return STMParams(W, b, R, np.concatenate([np.ones(H), np.full(H, 0.1), np.ones(H)]))
    for matrix in [W] if R is None else [W, R]:
        matrix[:, H : 2 * H] *= 0.1
    return STMParams(W, b, R)


def draw_update_biases(rng: np.random.Generator, H: int, length: float) -> Array:
    """b_u (H,) of memories that last between 2 and ``length`` steps.

    A constant update gate u keeps a memory for about τ = 1/u steps, and u = σ(b_u) gives b_u = −log(τ − 1). Each cell
    has its own τ, log-uniform on [2, max(2, length)] (after Tallec & Ollivier, arXiv:1804.11188).
    """
    check_number("length", length, least=0)
    tau = np.exp(rng.uniform(np.log(2), np.log(max(2.0, length)), H))
    b_u: Array = -np.log(tau - 1)
    return b_u


# --- the gates ----------------------------------------------------------------------------------------------


def full_gates_forward(p: Array, b: Array) -> Array:
    """Pre-activations of full gates, ``a = p + b``: the products p = x W hold all four, (..., 4H)."""
    a: Array = p + b
    return a


def full_gates_backward(da: Array) -> tuple[Array, Array]:
    """Return dp (..., 4H) and db (4H,)."""
    dp = da  # from p + b
    db = flat_rows(da).sum(0)  # from p + b, where b was broadcast
    return dp, db


def diagonal_gates_forward(p: Array, b: Array, w: Array) -> Array:
    """Pre-activations of diagonal gates, ``a_z = p + b_z`` and ``a_g = w_g ⊙ a_z + b_g``: p (..., H) -> a (..., 4H)."""
    xp, H = get_xp(p), p.shape[-1]
    a_z = p + b[3 * H :]  # (..., H)
    gates = xp.concatenate([a_z, a_z, a_z], -1) * w + b[: 3 * H]  # (..., 3H)
    a: Array = xp.concatenate([gates, a_z], -1)  # (..., 4H)
    return a


def diagonal_gates_backward(da: Array, a: Array, w: Array) -> tuple[Array, Array, Array]:
    """Return dp (..., H), db (4H,) and dw (3H,); ``a`` is the forward's result."""
    xp, H = get_xp(da), da.shape[-1] // 4
    dgates = da[..., : 3 * H]
    a_z = a[..., 3 * H :]
    dw = flat_rows(dgates * xp.concatenate([a_z, a_z, a_z], -1)).sum(0)  # from w_g ⊙ a_z
    da_z = da[..., 3 * H :] + (dgates * w).reshape(*da.shape[:-1], 3, H).sum(-2)  # from a_z, and w_g ⊙ a_z thrice
    dp = da_z  # from p + b_z
    db = xp.concatenate([flat_rows(dgates).sum(0), flat_rows(da_z).sum(0)])  # from + b_g, and p + b_z
    return dp, db, dw


def preactivations_forward(p: Array, params: STMParams) -> Array:
    """Pre-activations a (..., 4H) from the products p = x W (+ m R), with the gates that the parameters are for."""
    if params.w is None:
        return full_gates_forward(p, params.b)
    return diagonal_gates_forward(p, params.b, params.w)


def preactivations_backward(da: Array, a: Array, params: STMParams) -> tuple[Array, Array, Array | None]:
    """Return dp (shape of p), db (4H,) and, for diagonal gates, dw (3H,); ``a`` is the forward's result."""
    if params.w is None:
        return *full_gates_backward(da), None
    return diagonal_gates_backward(da, a, params.w)


class Gates(NamedTuple):
    """The values of the gates and of the candidate, each (..., H); the same type holds their gradients."""

    i: Array
    u: Array
    o: Array
    z: Array


def gates_forward(a: Array, phi_z: Activation) -> Gates:
    """``i, u, o = σ(a_i), σ(a_u), σ(a_o)`` and ``z = φ_z(a_z)``; a is (..., 4H)."""
    H = a.shape[-1] // 4
    iuo = SIGMOID.forward(a[..., : 3 * H])
    return Gates(iuo[..., :H], iuo[..., H : 2 * H], iuo[..., 2 * H :], phi_z.forward(a[..., 3 * H :]))


def gates_backward(dgates: Gates, gates: Gates, a: Array, phi_z: Activation) -> Array:
    """Return da (..., 4H): each part through its own derivative."""
    H = a.shape[-1] // 4
    da_i = SIGMOID.backward(dgates.i, a[..., :H], gates.i)  # from σ(a_i)
    da_u = SIGMOID.backward(dgates.u, a[..., H : 2 * H], gates.u)  # from σ(a_u)
    da_o = SIGMOID.backward(dgates.o, a[..., 2 * H : 3 * H], gates.o)  # from σ(a_o)
    da_z = phi_z.backward(dgates.z, a[..., 3 * H :], gates.z)  # from φ_z(a_z)
    return get_xp(a).concatenate([da_i, da_u, da_o, da_z], -1)  # type: ignore[no-any-return]


# --- the memory ---------------------------------------------------------------------------------------------


def update_forward(u: Array, v: Array, m: Array) -> Array:
    """One step of the memory: ``(1 − u) ⊙ m + u ⊙ v``, written with one product; all (B, H)."""
    return m + u * (v - m)  # type: ignore[no-any-return]


def update_backward(dm: Array, u: Array, v: Array, m: Array) -> tuple[Array, Array, Array]:
    """Return du, dv and the gradient that reaches the memory before; ``m`` is the old memory."""
    du = dm * (v - m)  # from u ⊙ (v − m)
    dv = dm * u  # from u ⊙ (v − m)
    dm_before = dm * (1 - u)  # from m + u ⊙ (v − m)
    return du, dv, dm_before


def scan_forward(u: Array, v: Array, m_0: Array) -> Array:
    """All memories m_1 … m_T, (B, T, H), from u and v (B, T, H) and m_0 (B, H): the only loop over the steps."""
    memories: Array = get_xp(u).empty_like(v)
    m = m_0
    for t in range(v.shape[1]):
        m = update_forward(u[:, t], v[:, t], m)
        memories[:, t] = m
    return memories


def scan_backward(
    dm: Array, dm_T: Array, u: Array, v: Array, memories: Array, m_0: Array
) -> tuple[Array, Array, Array]:
    """The scan in reverse: dm_t collects what its own output sent and ``(1 − u_{t+1}) ⊙ dm_{t+1}``.

    ``dm`` (B, T, H) is what each y_t sent to its m_t, ``dm_T`` (B, H) what the user of the last memory sent.
    Returns du and dv (B, T, H), and dm_0 (B, H).
    """
    du, dv = get_xp(u).empty_like(u), get_xp(v).empty_like(v)
    from_after = dm_T
    for t in reversed(range(v.shape[1])):
        before = memories[:, t - 1] if t > 0 else m_0
        du[:, t], dv[:, t], from_after = update_backward(dm[:, t] + from_after, u[:, t], v[:, t], before)
    return du, dv, from_after


# --- the layer ----------------------------------------------------------------------------------------------


class STMCache(NamedTuple):
    """All steps: input, pre-activations, gates, what comes in, memories, and what was read of them."""

    x: Array  # (B, T, D)
    a: Array  # (B, T, 4H)
    gates: Gates  # of (B, T, H), as v
    v: Array
    m_0: Array  # (B, H)
    memories: Array  # (B, T, H), as read = φ(m)
    read: Array
    phi_z: Activation
    phi: Activation


def stm_forward(
    x: Array, m_0: Array, params: STMParams, *, phi_z: Activation = TANH, phi: Activation = IDENTITY
) -> tuple[tuple[Array, Array], STMCache]:
    """The layer whose gates see the input only: all gates of all steps are ONE matrix product, then the scan.

    Args:
        x: (B, T, D). m_0: (B, H), the memory before the first step. params: full or diagonal gates.
        phi_z, phi: forward/backward pairs.

    Returns:
        ``(y, m_T)``, y (B, T, H) and the last memory (B, H), so that chunks can be chained; and the cache.

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_sequence`.
    """
    check_sequence(x, m_0, params)
    p = matmul(x, params.W)  # (B, T, D) -> (B, T, 4H), diagonal gates (B, T, H)
    a = preactivations_forward(p, params)  # (B, T, 4H)
    gates = gates_forward(a, phi_z)  # four times (B, T, H)
    v = gates.i * gates.z
    memories = scan_forward(gates.u, v, m_0)
    read = phi.forward(memories)
    y = gates.o * read
    m_T = memories[:, -1].copy()  # the caller's own: what is done with it leaves the memories alone
    return (y, m_T), STMCache(x, a, gates, v, m_0, memories, read, phi_z, phi)


def stm_backward(dy: Array, dm_T: Array, cache: STMCache, params: STMParams) -> LayerGradients:
    """Gradients of :func:`stm_forward`: dy (B, T, H), dm_T (B, H) -> dx (B, T, D), dm_0 (B, H), dparams."""
    x, a, gates, v, m_0, memories, read, phi_z, phi = cache
    do = dy * read  # from y = o ⊙ read
    dread = dy * gates.o  # from y = o ⊙ read
    dm = phi.backward(dread, memories, read)  # from read = φ(m)
    du, dv, dm_0 = scan_backward(dm, dm_T, gates.u, v, memories, m_0)  # from the scan
    di = dv * gates.z  # from v = i ⊙ z
    dz = dv * gates.i  # from v = i ⊙ z
    da = gates_backward(Gates(di, du, do, dz), gates, a, phi_z)  # from the gates, (B, T, 4H)
    dp, db, dw = preactivations_backward(da, a, params)  # from the pre-activations
    dx = matmul(dp, params.W.T)  # from p = x W
    dW = outer_sum(x, dp)  # from p = x W
    return dx, dm_0, STMParams(dW, db, None, dw)
