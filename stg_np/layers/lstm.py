"""The long short-term memory (Hochreiter & Schmidhuber, Neural Computation 1997; forget gate: Gers et al. 2000).

    a_t = x_t W + b + y_{t−1} R                     a = [a_i | a_f | a_o | a_z]
    i_t, f_t, o_t = σ(a_i), σ(a_f), σ(a_o)          input, forget and output gate
    z_t = tanh(a_z)                                 the candidate
    m_t = f_t ⊙ m_{t−1} + i_t ⊙ z_t                 the memory ("cell state")
    y_t = o_t ⊙ tanh(m_t)                           the output, which all gates see one step later

B batch, T steps, D input features, H memory width. The same function as ``torch.nn.LSTM``, whose gates stand in the
order i, f, candidate, o, and whose two biases are one. Beside the STM: two gates where it has one for what is kept and
what is written, and every gate sees the output before, so only ``x W`` can be computed for all steps at once.
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
from stg_np.stm import draw_update_biases


class LSTMParams(NamedTuple):
    """The parameters of one layer; the same type holds their gradients."""

    W: Array  # (D, 4H), columns [i | f | o | z]
    b: Array  # (4H,)
    R: Array  # (H, 4H)


class LSTMMemory(NamedTuple):
    """What goes from step to step, each (B, H): the memory, and the output that the gates see."""

    m: Array
    y: Array


def lstm_entries(prefix: str, D: int, H: int) -> tuple[Entry, ...]:
    """Name, shape and role of each parameter of one layer, in the order of :class:`LSTMParams`."""
    W, b, R = (D, 4 * H), (4 * H,), (H, 4 * H)
    return Entry(f"{prefix}.W", W, "matrix"), Entry(f"{prefix}.b", b, "vector"), Entry(f"{prefix}.R", R, "matrix")


def init_lstm(rng: np.random.Generator, D: int, H: int, *, length: float = 0) -> LSTMParams:
    """Draw the parameters of one layer (float64); R is orthogonal gate by gate.

    The forget gate's bias is 1, so that a memory lasts (Jozefowicz et al., ICML 2015). Where ``length`` is not 0, its
    memories last between 2 and so many steps instead, and the input gate's bias is the opposite (Tallec & Ollivier,
    arXiv:1804.11188): what the STM starts with.
    """
    b = np.zeros(4 * H)
    b[H : 2 * H] = 1.0
    if length:
        b[:H] = draw_update_biases(rng, H, length)
        b[H : 2 * H] = -b[:H]
    return LSTMParams(input_matrix(rng, D, 4 * H), b, recurrent_matrix(rng, H, 4))


def empty_lstm_memory(x: Array, H: int) -> LSTMMemory:
    """The memory before the first step of x (B, T, D), of its library and dtype: zeros."""
    return LSTMMemory(empty_memory(x, H), empty_memory(x, H))


class LSTMStepCache(NamedTuple):
    """One step, each (B, H): gates, candidate, the memory before, and tanh of the memory after."""

    i: Array
    f: Array
    o: Array
    z: Array
    m_before: Array
    read: Array


def lstm_step_forward(a: Array, m_before: Array) -> tuple[LSTMMemory, LSTMStepCache]:
    """One step from its pre-activations a (B, 4H) and the memory (B, H) before it; returns memory and output."""
    H = m_before.shape[1]
    gates = SIGMOID.forward(a[:, : 3 * H])
    i, f, o = gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H :]
    z = TANH.forward(a[:, 3 * H :])
    m = f * m_before + i * z
    read = TANH.forward(m)
    y = o * read
    return LSTMMemory(m, y), LSTMStepCache(i, f, o, z, m_before, read)


def lstm_step_backward(dy: Array, dm: Array, cache: LSTMStepCache) -> tuple[Array, Array]:
    """Return da (B, 4H) and the gradient of the memory before; ``dm`` came from the step after."""
    i, f, o, z, m_before, read = cache
    do = dy * read  # from y = o ⊙ read
    dread = dy * o  # from y = o ⊙ read
    dm = dm + TANH.backward(dread, read, read)  # from read = tanh(m), known by its output
    df, dm_before = dm * m_before, dm * f  # from f ⊙ m
    di, dz = dm * z, dm * i  # from i ⊙ z
    gates = ((di, i), (df, f), (do, o))
    parts = [SIGMOID.backward(dgate, gate, gate) for dgate, gate in gates]  # from the gates, known by their outputs
    parts.append(TANH.backward(dz, z, z))  # from the candidate
    return get_xp(dy).concatenate(parts, 1), dm_before


class LSTMCache(NamedTuple):
    """The input (B, T, D), each step, and what each step was fed, y_0 … y_{T−1} (B, T, H)."""

    x: Array
    steps: list[LSTMStepCache]
    fed: Array


LSTMGradients: TypeAlias = tuple[Array, LSTMMemory, LSTMParams]  # dx, of the first memory, dparams


def lstm_forward(x: Array, start: LSTMMemory, params: LSTMParams) -> tuple[tuple[Array, LSTMMemory], LSTMCache]:
    """Walk x (B, T, D) from the memory ``start``.

    Returns:
        ``(y, end)``, y (B, T, H) and the memory after the last step; and the cache.

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_cell`.
    """
    check_cell(x, start, params, blocks=4)
    p = matmul(x, params.W) + params.b  # what does not depend on the output before: one product for all steps
    memory, outputs, steps = start, [start.y], []
    for t in range(x.shape[1]):
        memory, step = lstm_step_forward(p[:, t] + memory.y @ params.R, memory.m)
        outputs.append(memory.y)
        steps.append(step)
    together: Array = get_xp(x).stack(outputs, 1)  # (B, T + 1, H)
    end = LSTMMemory(memory.m.copy(), memory.y.copy())  # the caller's own: what is done with it leaves the cache alone
    return (together[:, 1:].copy(), end), LSTMCache(x, steps, together[:, :-1])


def lstm_backward(dy: Array, dend: LSTMMemory, cache: LSTMCache, params: LSTMParams) -> LSTMGradients:
    """Gradients of :func:`lstm_forward`, dy (B, T, H): dx (B, T, D), of the first memory, and dparams."""
    x, steps, fed = cache
    (dm, dfed), collected = dend, []
    for t in reversed(range(dy.shape[1])):
        da, dm = lstm_step_backward(dy[:, t] + dfed, dm, steps[t])
        dfed = da @ params.R.T  # from y_{t−1} R
        collected.append(da)
    da = get_xp(dy).stack(collected[::-1], 1)  # (B, T, 4H), in the order of x again
    dR = outer_sum(fed, da)  # from y_{t−1} R
    db = flat_rows(da).sum(0)  # from + b
    dW = outer_sum(x, da)  # from x W
    dx = matmul(da, params.W.T)  # from x W
    return dx, LSTMMemory(dm, dfed), LSTMParams(dW, db, dR)


LSTM_CELL = Cell(lstm_forward, lstm_backward, empty_lstm_memory)
