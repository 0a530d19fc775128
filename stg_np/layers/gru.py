"""The gated recurrent unit (Cho et al., arXiv:1406.1078), in the form of ``torch.nn.GRU``: reset after the product.

    a_t = x_t W + b                                 a = [a_r | a_u | a_z]
    q_t = m_{t−1} R                                 q = [q_r | q_u | q_z]
    r_t, u_t = σ(a_r + q_r), σ(a_u + q_u)           reset and update gate
    z_t = tanh(a_z + r_t ⊙ (q_z + c))               the candidate
    m_t = (1 − u_t) ⊙ m_{t−1} + u_t ⊙ z_t           the memory
    y_t = m_t

B batch, T steps, D input features, H memory width. The letters are those of the STM, whose update this is (so writes
Chung et al., arXiv:1412.3555, too): PyTorch's update gate is 1 − u, the same function with its weights negated. Of its
six biases the two of each gate are one here; the candidate's inner one is c. In the other form of the GRU the memory
is reset before the product, ``(r ⊙ m) R``, for which all rows wait one more time.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_cell
from stg_np.layers.draw import input_matrix, recurrent_matrix
from stg_np.layers.spec import Cell
from stg_np.layers.walk import empty_memory
from stg_np.ops.activations import SIGMOID, TANH
from stg_np.ops.linear import flat_rows, matmul, outer_sum
from stg_np.params import Entry
from stg_np.stm import draw_update_biases, update_backward, update_forward


class GRUParams(NamedTuple):
    """The parameters of one layer; the same type holds their gradients."""

    W: Array  # (D, 3H), columns [r | u | z]
    b: Array  # (3H,)
    R: Array  # (H, 3H)
    c: Array  # (H,)


def gru_entries(prefix: str, D: int, H: int) -> tuple[Entry, ...]:
    """Name, shape and role of each parameter of one layer, in the order of :class:`GRUParams`."""
    W, b, R, c = (D, 3 * H), (3 * H,), (H, 3 * H), (H,)
    matrices = Entry(f"{prefix}.W", W, "matrix"), Entry(f"{prefix}.R", R, "matrix")
    return matrices[0], Entry(f"{prefix}.b", b, "vector"), matrices[1], Entry(f"{prefix}.c", c, "vector")


def init_gru(rng: np.random.Generator, D: int, H: int, *, length: float = 0) -> GRUParams:
    """Draw the parameters of one layer (float64); R is orthogonal gate by gate.

    Biases are 0: half is kept. Where ``length`` is not 0, memories last between 2 and so many steps instead
    (:func:`~stg_np.stm.draw_update_biases`): what the STM starts with.
    """
    b = np.zeros(3 * H)
    if length:
        b[H : 2 * H] = draw_update_biases(rng, H, length)
    return GRUParams(input_matrix(rng, D, 3 * H), b, recurrent_matrix(rng, H, 3), np.zeros(H))


class GRUStepCache(NamedTuple):
    """One step, each (B, H): gates, candidate, what is reset, and the memory before."""

    r: Array
    u: Array
    z: Array
    inner: Array  # q_z + c
    m_before: Array


def gru_step_forward(a: Array, q: Array, m_before: Array, c: Array) -> tuple[Array, GRUStepCache]:
    """One step from the products a = x W + b and q = m R (B, 3H) and the memory (B, H) before it; returns m."""
    H = m_before.shape[1]
    gates = SIGMOID.forward(a[:, : 2 * H] + q[:, : 2 * H])
    r, u = gates[:, :H], gates[:, H:]
    inner = q[:, 2 * H :] + c
    z = TANH.forward(a[:, 2 * H :] + r * inner)
    return update_forward(u, z, m_before), GRUStepCache(r, u, z, inner, m_before)


def gru_step_backward(dm: Array, cache: GRUStepCache) -> tuple[Array, Array, Array]:
    """Return da and dq (B, 3H), and the gradient that reaches the memory before by the update alone."""
    r, u, z, inner, m_before = cache
    du, dz, dm_before = update_backward(dm, u, z, m_before)  # from the update
    da_z = TANH.backward(dz, z, z)  # from the candidate, known by its output
    dr, dinner = da_z * inner, da_z * r  # from r ⊙ inner
    da_r, da_u = SIGMOID.backward(dr, r, r), SIGMOID.backward(du, u, u)  # from the gates, known by their outputs
    xp = get_xp(dm)
    return xp.concatenate([da_r, da_u, da_z], 1), xp.concatenate([da_r, da_u, dinner], 1), dm_before


class GRUCache(NamedTuple):
    """The input (B, T, D), each step, and the memories m_0 … m_T (B, T + 1, H)."""

    x: Array
    steps: list[GRUStepCache]
    memories: Array


GRUGradients: TypeAlias = tuple[Array, Array, GRUParams]  # dx, dm_0, dparams


def gru_forward(x: Array, m_0: Array, params: GRUParams) -> tuple[tuple[Array, Array], GRUCache]:
    """Walk x (B, T, D) from the memory m_0 (B, H).

    Returns:
        ``(y, m_T)``, y (B, T, H) and the last memory (B, H); and the cache.

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_cell`.
    """
    check_cell(x, [m_0], params, blocks=3)
    a = matmul(x, params.W) + params.b  # what does not depend on the memory: one product for all steps
    memories, steps = [m_0], []
    for t in range(x.shape[1]):
        m, step = gru_step_forward(a[:, t], memories[-1] @ params.R, memories[-1], params.c)
        memories.append(m)
        steps.append(step)
    together: Array = get_xp(x).stack(memories, 1)  # (B, T + 1, H)
    return (together[:, 1:].copy(), together[:, -1].copy()), GRUCache(x, steps, together)


def gru_backward(dy: Array, dm_T: Array, cache: GRUCache, params: GRUParams) -> GRUGradients:
    """Gradients of :func:`gru_forward`: dy (B, T, H), dm_T (B, H) -> dx (B, T, D), dm_0 (B, H), dparams."""
    x, steps, memories = cache
    xp, dm, of_x, of_m = get_xp(dy), dm_T, [], []
    for t in reversed(range(dy.shape[1])):
        da, dq, dm = gru_step_backward(dm + dy[:, t], steps[t])  # from y = m
        dm = dm + dq @ params.R.T  # from m_{t−1} R
        of_x.append(da)
        of_m.append(dq)
    da, dq = xp.stack(of_x[::-1], 1), xp.stack(of_m[::-1], 1)  # (B, T, 3H), in the order of x again
    dR = outer_sum(memories[:, :-1], dq)  # from m_{t−1} R
    dc = flat_rows(dq)[:, -dm.shape[1] :].sum(0)  # from q_z + c
    db = flat_rows(da).sum(0)  # from + b
    dW = outer_sum(x, da)  # from x W
    dx = matmul(da, params.W.T)  # from x W
    return dx, dm, GRUParams(dW, db, dR, dc)


GRU_CELL = Cell(gru_forward, gru_backward, empty_memory)
