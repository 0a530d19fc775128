"""The short-term memory layer (STM): three gates, one memory, and the backward of all of it by hand.

    a_t = x_t W + b  (+ m_{t-1} R  in the recurrent form)     a = [a_i | a_u | a_o | a_z]
    i_t = σ(a_i)     the input gate:  what comes in
    u_t = σ(a_u)     the update gate: what is updated
    o_t = σ(a_o)     the output gate: what goes out
    z_t = φ_z(a_z)   the candidate
    v_t = i_t ⊙ z_t
    m_t = (1 − u_t) ⊙ m_{t−1} + u_t ⊙ v_t                     the short-term memory
    y_t = o_t ⊙ φ(m_t)                                        the output

B batch, T steps, D input features, H memory width; ``d…`` is the gradient of the loss with respect to ….
Two forms: :func:`stm_forward`, in which the gates see the input only, and :func:`stm_recurrent_forward`, in
which they also see the memory. Two kinds of gate: *full* (a matrix each) and *diagonal* (a vector each).
The memory is the gated linear recurrence of Martin & Cundy (arXiv:1709.04057) with an input and an output gate.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.ops.activations import IDENTITY, SIGMOID, TANH, Activation
from stg_np.ops.linear import flat_rows, matmul, outer_sum

Phis: TypeAlias = tuple[Activation, Activation]  # φ_z, φ
StepGradients: TypeAlias = tuple[Array, Array, Array, Array | None]  # dp, dm of the memory before, db, dw
LayerGradients: TypeAlias = "tuple[Array, Array, STMParams]"  # dx, dm_0, dparams


class STMParams(NamedTuple):
    """The parameters of one layer; the same type holds their gradients."""

    W: Array  # (D, 4H), columns [i | u | o | z]; diagonal gates: (D, H), the candidate's only
    b: Array  # (4H,), [b_i | b_u | b_o | b_z]
    R: Array | None = None  # recurrent form: (H, 4H); with diagonal gates (H, H)
    w: Array | None = None  # diagonal gates: (3H,), [w_i | w_u | w_o]


def init_stm(
    rng: np.random.Generator, D: int, H: int, *, length: float, recurrent: bool = False, diagonal: bool = False
) -> STMParams:
    """Draw the parameters of one layer (float64), with memories that last between 2 and ``length`` steps.

    A constant update gate u keeps a memory for about τ = 1/u steps, and u = σ(b_u) gives b_u = −log(τ − 1). Each cell
    has its own τ, log-uniform on [2, max(2, length)] (after Tallec & Ollivier, arXiv:1804.11188); W_u starts small.
    """
    tau = np.exp(rng.uniform(np.log(2), np.log(max(2.0, length)), H))
    b = np.zeros(4 * H)
    b[H : 2 * H] = -np.log(tau - 1)
    W = rng.standard_normal((D, H if diagonal else 4 * H)) / np.sqrt(D)
    R = rng.standard_normal((H, W.shape[1])) / np.sqrt(H) if recurrent else None
    if diagonal:
        return STMParams(W, b, R, np.concatenate([np.ones(H), np.full(H, 0.1), np.ones(H)]))
    for matrix in [W] if R is None else [W, R]:
        matrix[:, H : 2 * H] *= 0.1
    return STMParams(W, b, R)


def preactivations_forward(p: Array, params: STMParams) -> Array:
    """Pre-activations a (..., 4H) from the products ``p = x W (+ m R)``, (..., 4H) or, diagonal, (..., H)."""
    if params.w is None:
        return p + params.b  # full gates: a_g = x W_g + b_g
    H = p.shape[-1]
    a_z = p + params.b[3 * H :]  # (..., H)
    gates = get_xp(p).concatenate([a_z, a_z, a_z], -1) * params.w + params.b[: 3 * H]  # a_g = w_g ⊙ a_z + b_g
    return get_xp(p).concatenate([gates, a_z], -1)  # type: ignore[no-any-return]  # (..., 4H)


def preactivations_backward(da: Array, a: Array, params: STMParams) -> tuple[Array, Array, Array | None]:
    """Return dp (shape of p), db (4H,) and, for diagonal gates, dw (3H,); ``a`` is the forward's result."""
    if params.w is None:
        return da, flat_rows(da).sum(0), None
    xp, H = get_xp(da), da.shape[-1] // 4
    dgates, a_z = da[..., : 3 * H], a[..., 3 * H :]
    dp = da[..., 3 * H :] + (dgates * params.w).reshape(*da.shape[:-1], 3, H).sum(-2)  # a_z, and w_g ⊙ a_z thrice
    db = xp.concatenate([flat_rows(dgates).sum(0), flat_rows(dp).sum(0)])
    return dp, db, flat_rows(dgates * xp.concatenate([a_z, a_z, a_z], -1)).sum(0)


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
    parts = [SIGMOID.backward(dgates[g], a[..., g * H : (g + 1) * H], gates[g]) for g in range(3)]  # i, u, o
    parts.append(phi_z.backward(dgates.z, a[..., 3 * H :], gates.z))
    return get_xp(a).concatenate(parts, -1)  # type: ignore[no-any-return]


def update_forward(u: Array, v: Array, m: Array) -> Array:
    """One step of the memory: ``(1 − u) ⊙ m + u ⊙ v``, written with one product; all (B, H)."""
    return m + u * (v - m)  # type: ignore[no-any-return]


def update_backward(dm: Array, u: Array, v: Array, m: Array) -> tuple[Array, Array, Array]:
    """Return du, dv and the gradient that reaches the memory before, ``(1 − u) ⊙ dm``; ``m`` is the old memory."""
    return dm * (v - m), dm * u, dm * (1 - u)


def scan_forward(u: Array, v: Array, m_0: Array) -> Array:
    """All memories m_1 … m_T, (B, T, H), from u and v (B, T, H) and m_0 (B, H): the only loop over the steps."""
    memories: Array = get_xp(u).empty_like(v)
    m = m_0
    for t in range(v.shape[1]):
        memories[:, t] = m = update_forward(u[:, t], v[:, t], m)
    return memories


def scan_backward(
    dm: Array, dm_T: Array, u: Array, v: Array, memories: Array, m_0: Array
) -> tuple[Array, Array, Array]:
    """The scan in reverse: dm_t collects what its own output sent and ``(1 − u_{t+1}) ⊙ dm_{t+1}``.

    ``dm`` (B, T, H) is what each y_t sent to its m_t, ``dm_T`` (B, H) what the user of the last memory sent.
    Returns du and dv (B, T, H), and dm_0 (B, H).
    """
    du, dv, carried = get_xp(u).empty_like(u), get_xp(u).empty_like(v), dm_T
    for t in reversed(range(v.shape[1])):
        before = memories[:, t - 1] if t > 0 else m_0
        du[:, t], dv[:, t], carried = update_backward(dm[:, t] + carried, u[:, t], v[:, t], before)
    return du, dv, carried


class STMCache(NamedTuple):
    """All steps: input, pre-activations, gates, what comes in, memories, and what was read of them."""

    x: Array  # (B, T, D)
    a: Array  # (B, T, 4H)
    gates: Gates  # of (B, T, H), as v
    v: Array
    m_0: Array  # (B, H)
    memories: Array  # (B, T, H), as read = φ(m)
    read: Array
    phis: Phis


def stm_forward(
    x: Array, m_0: Array, params: STMParams, *, phi_z: Activation = TANH, phi: Activation = IDENTITY
) -> tuple[tuple[Array, Array], STMCache]:
    """The layer whose gates see the input only: all gates of all steps are ONE matrix product, then the scan.

    x is (B, T, D), ``m_0`` (B, H) the memory before the first step; φ_z and φ are forward/backward pairs.
    Returns ``(y, m_T)``, y (B, T, H) and the last memory (B, H), so that chunks can be chained; and the cache.
    """
    a = preactivations_forward(matmul(x, params.W), params)  # (B, T, D) -> (B, T, 4H)
    gates = gates_forward(a, phi_z)  # four times (B, T, H)
    v = gates.i * gates.z
    memories = scan_forward(gates.u, v, m_0)
    read = phi.forward(memories)
    y = gates.o * read
    return (y, memories[:, -1]), STMCache(x, a, gates, v, m_0, memories, read, (phi_z, phi))


def stm_backward(dy: Array, dm_T: Array, cache: STMCache, params: STMParams) -> LayerGradients:
    """Gradients of :func:`stm_forward`: dy (B, T, H), dm_T (B, H) -> dx (B, T, D), dm_0 (B, H), dparams."""
    x, a, gates, v, m_0, memories, read, (phi_z, phi) = cache
    do = dy * read  # from y = o ⊙ φ(m)
    dm = phi.backward(dy * gates.o, memories, read)  # from y = o ⊙ φ(m)
    du, dv, dm_0 = scan_backward(dm, dm_T, gates.u, v, memories, m_0)  # from the scan
    di, dz = dv * gates.z, dv * gates.i  # from v = i ⊙ z
    da = gates_backward(Gates(di, du, do, dz), gates, a, phi_z)  # from the gates, (B, T, 4H)
    dp, db, dw = preactivations_backward(da, a, params)
    return matmul(dp, params.W.T), dm_0, STMParams(outer_sum(x, dp), db, None, dw)  # from p = x W


class StepCache(NamedTuple):
    """One step: pre-activations, gates, what comes in, the memory before and after, and what was read of it."""

    a: Array  # (B, 4H)
    gates: Gates  # of (B, H), as all the others
    v: Array
    m_before: Array
    m: Array
    read: Array


def step_forward(p: Array, m_before: Array, params: STMParams, phis: Phis) -> tuple[Array, StepCache]:
    """One STM step: products p (B, 4H or H) and memory (B, H) -> y (B, H); the new memory is ``cache.m``."""
    a = preactivations_forward(p, params)
    gates = gates_forward(a, phis[0])
    v = gates.i * gates.z
    m = update_forward(gates.u, v, m_before)
    read = phis[1].forward(m)
    return gates.o * read, StepCache(a, gates, v, m_before, m, read)


def step_backward(dy: Array, dm: Array, cache: StepCache, params: STMParams, phis: Phis) -> StepGradients:
    """Return dp, ``(1 − u) ⊙ dm`` for the memory before, db and dw; the argument ``dm`` came from the step after."""
    a, gates, v, m_before, m, read = cache
    dm = phis[1].backward(dy * gates.o, m, read) + dm  # from y = o ⊙ φ(m)
    du, dv, dm_before = update_backward(dm, gates.u, v, m_before)
    dgates = Gates(dv * gates.z, du, dy * read, dv * gates.i)  # from v = i ⊙ z and y = o ⊙ φ(m)
    dp, db, dw = preactivations_backward(gates_backward(dgates, gates, a, phis[0]), a, params)
    return dp, dm_before, db, dw


class RecurrentCache(NamedTuple):
    """The input (B, T, D), the cache of each step, the matrix R, and φ_z, φ."""

    x: Array
    steps: list[StepCache]
    R: Array
    phis: Phis


def stm_recurrent_forward(
    x: Array, m_0: Array, params: STMParams, *, phi_z: Activation = TANH, phi: Activation = IDENTITY
) -> tuple[tuple[Array, Array], RecurrentCache]:
    """The layer whose gates also see the memory, through ``R``; shapes as in :func:`stm_forward`."""
    if (R := params.R) is None:
        raise ValueError("these parameters have no R: draw them with init_stm(…, recurrent=True), or use stm_forward")
    p = matmul(x, params.W)  # what does not depend on the memory: one product for all steps
    m, outputs, steps = m_0, [], []
    for t in range(x.shape[1]):
        y_t, step = step_forward(p[:, t] + m @ R, m, params, (phi_z, phi))
        m = step.m
        outputs.append(y_t)
        steps.append(step)
    return (get_xp(x).stack(outputs, 1), m), RecurrentCache(x, steps, R, (phi_z, phi))


def stm_recurrent_backward(dy: Array, dm_T: Array, cache: RecurrentCache, params: STMParams) -> LayerGradients:
    """Backpropagation through time: gradients of :func:`stm_recurrent_forward`, shapes as in :func:`stm_backward`."""
    xp, dm, collected = get_xp(dy), dm_T, []
    for t in reversed(range(dy.shape[1])):
        dp_t, dm_before, db_t, dw_t = step_backward(dy[:, t], dm, cache.steps[t], params, cache.phis)
        dm = dm_before + dp_t @ cache.R.T  # from p_t + m_{t−1} R
        collected.append((dp_t, db_t, dw_t))
    products, biases, scales = zip(*collected)
    dp = xp.stack(products[::-1], 1)  # (B, T, 4H or H), in the order of x again
    before = xp.stack([step.m_before for step in cache.steps], 1)  # (B, T, H)
    db, dw = xp.stack(biases).sum(0), None if params.w is None else xp.stack(scales).sum(0)
    return matmul(dp, params.W.T), dm, STMParams(outer_sum(cache.x, dp), db, outer_sum(before, dp), dw)
