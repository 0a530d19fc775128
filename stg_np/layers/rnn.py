"""The plain recurrent network (Elman, Cognitive Science 1990): no gate, a memory that is written over at every step.

    m_t = tanh(x_t W + b + m_{t−1} R)
    y_t = m_t

B batch, T steps, D input features, H memory width. The same function as ``torch.nn.RNN``, whose two biases are one.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_cell
from stg_np.layers.draw import input_matrix, recurrent_matrix
from stg_np.layers.spec import Cell
from stg_np.layers.walk import empty_memory
from stg_np.ops.activations import TANH
from stg_np.ops.linear import flat_rows, matmul, outer_sum
from stg_np.params import Entry


class RNNParams(NamedTuple):
    """The parameters of one layer; the same type holds their gradients."""

    W: Array  # (D, H)
    b: Array  # (H,)
    R: Array  # (H, H)


def rnn_entries(prefix: str, D: int, H: int) -> tuple[Entry, ...]:
    """Name, shape and role of each parameter of one layer, in the order of :class:`RNNParams`."""
    W, b, R = (D, H), (H,), (H, H)
    return Entry(f"{prefix}.W", W, "matrix"), Entry(f"{prefix}.b", b, "vector"), Entry(f"{prefix}.R", R, "matrix")


def init_rnn(rng: np.random.Generator, D: int, H: int) -> RNNParams:
    """Draw the parameters of one layer (float64); R is orthogonal."""
    return RNNParams(input_matrix(rng, D, H), np.zeros(H), recurrent_matrix(rng, H, 1))


class RNNCache(NamedTuple):
    """The input, and all memories m_0 … m_T."""

    x: Array  # (B, T, D)
    memories: Array  # (B, T + 1, H)


RNNGradients: TypeAlias = tuple[Array, Array, RNNParams]  # dx, dm_0, dparams


def rnn_forward(x: Array, m_0: Array, params: RNNParams) -> tuple[tuple[Array, Array], RNNCache]:
    """Walk x (B, T, D) from the memory m_0 (B, H).

    Returns:
        ``(y, m_T)``, y (B, T, H) and the last memory (B, H); and the cache.

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_cell`.
    """
    check_cell(x, [m_0], params, blocks=1)
    p = matmul(x, params.W) + params.b  # what does not depend on the memory: one product for all steps
    memories = [m_0]
    for t in range(x.shape[1]):
        memories.append(TANH.forward(p[:, t] + memories[-1] @ params.R))  # (B, H)
    together: Array = get_xp(x).stack(memories, 1)  # (B, T + 1, H)
    return (together[:, 1:].copy(), together[:, -1].copy()), RNNCache(x, together)


def rnn_backward(dy: Array, dm_T: Array, cache: RNNCache, params: RNNParams) -> RNNGradients:
    """Gradients of :func:`rnn_forward`: dy (B, T, H), dm_T (B, H) -> dx (B, T, D), dm_0 (B, H), dparams."""
    x, memories = cache
    dm, collected = dm_T, []
    for t in reversed(range(dy.shape[1])):
        m = memories[:, t + 1]
        da = TANH.backward(dm + dy[:, t], m, m)  # from y = m, and from the tanh, known by its output
        dm = da @ params.R.T  # from m_{t−1} R
        collected.append(da)
    da = get_xp(dy).stack(collected[::-1], 1)  # (B, T, H), in the order of x again
    dR = outer_sum(memories[:, :-1], da)  # from m_{t−1} R
    db = flat_rows(da).sum(0)  # from + b
    dW = outer_sum(x, da)  # from x W
    dx = matmul(da, params.W.T)  # from x W
    return dx, dm, RNNParams(dW, db, dR)


RNN_CELL = Cell(rnn_forward, rnn_backward, empty_memory)
