"""The recurrent form of the STM layer: the gates see the memory too, through a matrix R.

    a_t = x_t W + b + m_{t−1} R

The rest is :mod:`stg_np.stm`, whose pieces are used here step by step. A pre-activation now depends on the memory
before it, so nothing but ``x W`` can be computed for all steps at once, and the gradient takes the same way back:
backpropagation through time. ``dm_t = dy_t ⊙ o_t ⊙ φ'(m_t) + (1 − u_{t+1}) ⊙ dm_{t+1} + da_{t+1} Rᵀ``.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_sequence
from stg_np.ops.activations import IDENTITY, TANH, Activation
from stg_np.ops.linear import matmul, outer_sum
from stg_np.stm import (
    Gates,
    LayerGradients,
    STMParams,
    gates_backward,
    gates_forward,
    preactivations_backward,
    preactivations_forward,
    update_backward,
    update_forward,
)

StepGradients: TypeAlias = tuple[Array, Array, Array, Array | None]  # dp, dm of the memory before, db, dw


class StepCache(NamedTuple):
    """One step: pre-activations, gates, what comes in, the memory before and after, and what was read of it."""

    a: Array  # (B, 4H)
    gates: Gates  # of (B, H), as all the others
    v: Array
    m_before: Array
    m: Array
    read: Array
    phi_z: Activation
    phi: Activation


def step_forward(
    p: Array, m_before: Array, params: STMParams, *, phi_z: Activation = TANH, phi: Activation = IDENTITY
) -> tuple[tuple[Array, Array], StepCache]:
    """One STM step from its products p (B, 4H, or H with diagonal gates) and the memory (B, H) before it.

    Returns the output y and the new memory m, each (B, H); and the cache.
    """
    a = preactivations_forward(p, params)  # (B, 4H)
    gates = gates_forward(a, phi_z)
    v = gates.i * gates.z
    m = update_forward(gates.u, v, m_before)
    read = phi.forward(m)
    y = gates.o * read
    return (y, m), StepCache(a, gates, v, m_before, m, read, phi_z, phi)


def step_backward(dy: Array, dm: Array, cache: StepCache, params: STMParams) -> StepGradients:
    """Return dp, the gradient of the memory before, db and dw; the argument ``dm`` came from the step after."""
    a, gates, v, m_before, m, read, phi_z, phi = cache
    do = dy * read  # from y = o ⊙ read
    dread = dy * gates.o  # from y = o ⊙ read
    dm = dm + phi.backward(dread, m, read)  # from read = φ(m)
    du, dv, dm_before = update_backward(dm, gates.u, v, m_before)  # from the update
    di = dv * gates.z  # from v = i ⊙ z
    dz = dv * gates.i  # from v = i ⊙ z
    da = gates_backward(Gates(di, du, do, dz), gates, a, phi_z)  # from the gates
    dp, db, dw = preactivations_backward(da, a, params)  # from the pre-activations
    return dp, dm_before, db, dw


class RecurrentCache(NamedTuple):
    """The input (B, T, D), the cache of each step, and the matrix R."""

    x: Array
    steps: list[StepCache]
    R: Array


def stm_recurrent_forward(
    x: Array, m_0: Array, params: STMParams, *, phi_z: Activation = TANH, phi: Activation = IDENTITY
) -> tuple[tuple[Array, Array], RecurrentCache]:
    """The layer whose gates also see the memory; arguments and results as in :func:`stg_np.stm.stm_forward`.

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_sequence`.
    """
    check_sequence(x, m_0, params, recurrent=True)
    R: Array = params.R  # type: ignore[assignment]  # it is there, as was checked
    p = matmul(x, params.W)  # what does not depend on the memory: one product for all steps
    m, outputs, steps = m_0, [], []
    for t in range(x.shape[1]):
        (y_t, m), step = step_forward(p[:, t] + m @ R, m, params, phi_z=phi_z, phi=phi)
        outputs.append(y_t)
        steps.append(step)
    y = get_xp(x).stack(outputs, 1)  # (B, T, H)
    m_T = m.copy()  # the caller's own: what is done with it leaves the cache alone
    return (y, m_T), RecurrentCache(x, steps, R)


def stm_recurrent_backward(dy: Array, dm_T: Array, cache: RecurrentCache, params: STMParams) -> LayerGradients:
    """Backpropagation through time: gradients of :func:`stm_recurrent_forward`, as :func:`stg_np.stm.stm_backward`."""
    xp, dm, collected = get_xp(dy), dm_T, []
    for t in reversed(range(dy.shape[1])):
        dp_t, dm, db_t, dw_t = step_backward(dy[:, t], dm, cache.steps[t], params)
        dm = dm + dp_t @ cache.R.T  # from p_t + m_{t−1} R
        collected.append((dp_t, db_t, dw_t))
    products, biases, scales = zip(*collected)
    dp = xp.stack(products[::-1], 1)  # (B, T, 4H or H), in the order of x again
    before = xp.stack([step.m_before for step in cache.steps], 1)  # (B, T, H)
    db = xp.stack(biases).sum(0)
    dw = None if params.w is None else xp.stack(scales).sum(0)
    dR = outer_sum(before, dp)  # from m_{t−1} R
    dx = matmul(dp, params.W.T)  # from p = x W
    dW = outer_sum(cache.x, dp)  # from p = x W
    return dx, dm, STMParams(dW, db, dR, dw)
