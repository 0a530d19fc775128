"""The CPU fast path of the cells that feed their output back: LSTM, GRU and the plain network of ``layers/``.

Walks side by side, from empty memories, as :mod:`stg_np.fast.layer` takes them; the plain pairs are the oracles of all
of this. Every step waits for the one before, so what counts is how little a step does:

* **One product a step for all gates**, and none for the input: ``x W + b`` is one product for all steps, written where
  the gates will be; in the backward, the gradients of the weights and of x are products over a chunk of steps.
* **Walks side by side**: both directions of a layer are one array, and share every call.
* **Layout**: what is squashed and multiplied is gate-major, (G, W, T, B, H), so a gate is a run of memory; what goes
  into products and comes out of them is packed, (W, T, B, G · H), so that there is one for all gates.
* **One tanh or one exp for all gates of a step** (:mod:`stg_np.fast.squash`); the factors ½ or −1 are in the weights.
* **Slopes beforehand**: what a gradient is multiplied with, σ (1 − σ) and the like, does not depend on it. It is
  computed for a chunk of steps in long passes, so that a step of the backward is eight short calls.
* **Workspaces** (:mod:`stg_np.workspace`): a pass asks the system for no memory but that of the gradients.

G gates and candidate, W walks; the other letters as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, check_dtypes
from stg_np.fast import squash
from stg_np.fast.walks import chunks
from stg_np.layers.gru import GRU_CELL
from stg_np.layers.lstm import LSTM_CELL
from stg_np.layers.rnn import RNN_CELL
from stg_np.layers.spec import Cell, Pair
from stg_np.ops.linear import flat_rows
from stg_np.workspace import Workspace


class FedBackCache(NamedTuple):
    """Of walks side by side, in the order of their own steps."""

    inputs: list[Array]  # of each walk, (T, B, D + 1), the last column 1
    gates: Array  # (G, W, T, B, H)
    fed: Array  # (W, T + 1, B, H): what the steps were fed, y_0 … y_T
    more: tuple[Array, ...]  # what else the cell keeps

    @property
    def outputs(self) -> list[Array]:
        """y of each walk, (T, B, H)."""
        return [own[1:] for own in self.fed]


class FastCell(NamedTuple):
    """How a cell walks.

    Attributes:
        squashed: how many of its blocks go through σ; they stand first. blocks: these and the candidate.
        columns: blocks of its gradient d: the first ``blocks`` are that of ``x W + b``, the last ``blocks`` that of
            the product with R. (In a GRU these differ in one, and then its candidate stands first.)
        forward: ``forward(gates, fed, R, params, work) -> more``, where ``gates`` holds ``x W + b``.
        backward: ``backward(dy, after, cache, steps, R, d, work)`` of a chunk writes d (W, S, B, columns · H).
            ``after`` (2, W, B, H) holds what the step after has sent, and at the end what the step before is sent.
    """

    squashed: int
    blocks: int
    columns: int
    forward: Callable[..., tuple[Array, ...]]
    backward: Callable[..., None]


def walks_forward(inputs: list[Array], params: Sequence[Any], work: Workspace, *, cell: FastCell) -> FedBackCache:
    """Walks side by side: each has its own input (T, B, D + 1), with ones, and its own parameters.

    Raises:
        TypeError: see :func:`stg_np.backend.check_dtypes`.
    """
    check_dtypes(*inputs, *(array for own in params for array in own))
    (T, B, columns), H, dtype = inputs[0].shape, params[0].R.shape[0], inputs[0].dtype
    shape = cell.blocks, len(inputs), T, B, H
    gates, fed = work.empty("gates", shape, dtype), work.empty("fed", (len(inputs), T + 1, B, H), dtype)
    fed[:, 0] = 0
    Rs, scale = work.empty("R", (len(inputs), H, cell.blocks * H), dtype), squash.way(dtype).scales[0]
    for x, own, R, target in zip(inputs, params, Rs, gates.swapaxes(0, 1)):
        W = work.empty("W", (cell.blocks, columns, H), dtype)
        W[:, :-1] = own.W.reshape(columns - 1, cell.blocks, H).transpose(1, 0, 2)
        W[:, -1] = own.b.reshape(cell.blocks, H)
        W[: cell.squashed] *= scale
        R[...] = own.R
        R[:, : cell.squashed * H] *= scale
        np.matmul(flat_rows(x), W, out=target.reshape(cell.blocks, T * B, H))  # x W + b
    return FedBackCache(inputs, gates, fed, cell.forward(gates, fed, Rs, params, work))


def walks_backward(
    dy: Array, cache: FedBackCache, params: Sequence[Any], work: Workspace, *, cell: FastCell
) -> tuple[list[Array], list[Any]]:
    """From dy (T, B, W · H): dx (T, B, D) of each walk, in ``work``, and their dparams."""
    (T, B, columns), H, dtype, count = cache.inputs[0].shape, params[0].R.shape[0], dy.dtype, len(params)
    width, own_columns = cell.blocks * H, cell.columns * H
    turned = own_columns - width  # the candidate's columns, where they stand first
    dxs = [work.empty(f"dx{k}", (T, B, columns - 1), dtype) for k in range(count)]
    dWs, dRs = np.zeros((count, columns, width), dtype), np.zeros((count, H, width), dtype)
    dcs = np.zeros((count, turned), dtype)
    Ws, Rs = work.empty("W", (count, columns - 1, width), dtype), work.empty("R", (count, H, width), dtype)
    for own, W, R in zip(params, Ws, Rs):
        W[:, :turned], W[:, turned:] = own.W[:, width - turned :], own.W[:, : width - turned]
        R[...] = own.R
    after = np.zeros((2, count, B, H), dtype)  # nobody reads the last memory
    by_walk = dy.reshape(T, B, count, H).transpose(2, 0, 1, 3)
    for steps in reversed(chunks(T, cache.gates[:, :, :1].nbytes)):
        d = work.empty("d", (count, steps.stop - steps.start, B, own_columns), dtype)
        cell.backward(by_walk[:, steps], after, cache, steps, Rs, d, work)
        for k in range(count):
            rows, x, fed = flat_rows(d[k]), flat_rows(cache.inputs[k][steps]), flat_rows(cache.fed[k, steps])
            of_x, of_fed = rows[:, :width], rows[:, turned:]
            dWs[k] += np.matmul(x.T, of_x, out=work.empty("dW", dWs[k].shape, dtype))  # from x W, and from 1 b
            dRs[k] += np.matmul(fed.T, of_fed, out=work.empty("dR", dRs[k].shape, dtype))
            dcs[k] += rows[:, width:].sum(0)
            np.matmul(of_x, Ws[k].T, out=flat_rows(dxs[k][steps]))  # from x W
    dWs = np.roll(dWs, -turned, 2)
    vectors = [[dc] if turned else [] for dc in dcs]
    return dxs, [type(own)(dW[:-1], dW[-1], dR, *c) for own, dW, dR, c in zip(params, dWs, dRs, vectors)]


def by_gate(packed: Array, H: int) -> Array:
    """Packed columns (…, G · H) as (G, …, H), a view."""
    return np.moveaxis(packed.reshape(*packed.shape[:-1], packed.shape[-1] // H, H), -2, 0)


def sigmoid_slopes(gates: Array, out: Array) -> None:
    """Write σ' = σ (1 − σ) = σ − σ²."""
    np.multiply(gates, gates, out=out)
    np.subtract(gates, out, out=out)


def tanh_slope(z: Array, out: Array) -> None:
    """Write tanh' = 1 − tanh²."""
    np.multiply(z, z, out=out)
    np.subtract(1, out, out=out)


# --- LSTM -----------------------------------------------------------------------------------------------------


def lstm_forward(gates: Array, fed: Array, R: Array, params: Sequence[Any], work: Workspace) -> tuple[Array, ...]:
    """The steps of :func:`stg_np.layers.lstm.lstm_forward`; returns m_0 … m_T (W, T + 1, B, H), and their tanh."""
    _, W, T, B, H = gates.shape
    memories, reads = work.empty("memories", fed.shape, fed.dtype), work.empty("read", gates.shape[1:], fed.dtype)
    q, new = work.empty("q", (W, B, 4 * H), fed.dtype), work.empty("new", (W, B, H), fed.dtype)
    memories[:, 0] = 0
    of_gates, to_gates = by_gate(q, H), squash.way(fed.dtype).apply
    for t in range(T):
        a = gates[:, :, t]  # (4, W, B, H)
        np.matmul(fed[:, t], R, out=q)
        a += of_gates
        to_gates(a, True)
        i, f, o, z = a
        m = np.multiply(f, memories[:, t], out=memories[:, t + 1])
        m += np.multiply(i, z, out=new)
        np.multiply(o, np.tanh(m, out=reads[:, t]), out=fed[:, t + 1])
    return memories, reads


def lstm_backward(
    dy: Array, after: Array, cache: FedBackCache, steps: slice, R: Array, d: Array, work: Workspace
) -> None:
    """A chunk of :func:`stg_np.layers.lstm.lstm_backward`; ``after`` is what y and m were sent."""
    gates, (memories, reads) = cache.gates[:, :, steps], cache.more
    (i, f, o, z), read = gates, reads[:, steps]
    slopes = work.empty("slopes", gates.shape, dy.dtype)
    sigmoid_slopes(gates[:3], slopes[:3])
    slopes[0] *= z  # from i ⊙ z
    slopes[1] *= memories[:, steps]  # from f ⊙ m
    slopes[2] *= read  # from y = o ⊙ read
    tanh_slope(z, slopes[3])
    slopes[3] *= i  # from i ⊙ z
    of_m = np.multiply(read, read, out=work.empty("of m", read.shape, dy.dtype))
    of_m *= o
    np.subtract(o, of_m, out=of_m)  # o ⊙ (1 − read²), from y = o ⊙ tanh(m)
    (dy_t, dm), R_T, gradients = after, R.swapaxes(1, 2), by_gate(d, dy.shape[-1])
    for t in reversed(range(dy.shape[1])):
        slope, gradient = slopes[:, :, t], gradients[:, :, t]
        dy_t += dy[:, t]
        np.multiply(slope[2], dy_t, out=gradient[2])
        of_m[:, t] *= dy_t
        dm += of_m[:, t]
        np.multiply(slope[:2], dm, out=gradient[:2])
        np.multiply(slope[3], dm, out=gradient[3])
        dm *= f[:, t]
        np.matmul(d[:, t], R_T, out=dy_t)


# --- GRU ------------------------------------------------------------------------------------------------------


def gru_forward(gates: Array, fed: Array, R: Array, params: Sequence[Any], work: Workspace) -> tuple[Array, ...]:
    """The steps of :func:`stg_np.layers.gru.gru_forward`; returns what is reset, q_z + c, (W, T, B, H)."""
    _, W, T, B, H = gates.shape
    inner = work.empty("inner", gates.shape[1:], fed.dtype)
    q, reset = work.empty("q", (W, B, 3 * H), fed.dtype), work.empty("reset", (W, B, H), fed.dtype)
    c = np.stack([own.c for own in params])[:, None]  # (W, 1, H)
    of_gates, to_gates = by_gate(q, H), squash.way(fed.dtype).apply
    for t in range(T):
        a, before = gates[:, :, t], fed[:, t]
        np.matmul(before, R, out=q)
        ru, z = a[:2], a[2]
        ru += of_gates[:2]
        to_gates(ru, False)
        np.add(of_gates[2], c, out=inner[:, t])
        z += np.multiply(ru[0], inner[:, t], out=reset)
        np.tanh(z, out=z)
        m = np.subtract(z, before, out=fed[:, t + 1])
        m *= ru[1]
        m += before  # m + u ⊙ (z − m)
    return (inner,)


def gru_backward(
    dy: Array, after: Array, cache: FedBackCache, steps: slice, R: Array, d: Array, work: Workspace
) -> None:
    """A chunk of :func:`stg_np.layers.gru.gru_backward`; ``after[0]`` is what m was sent. d: of z, r, u and inner."""
    (r, u, z), inner, H = cache.gates[:, :, steps], cache.more[0][:, steps], dy.shape[-1]
    of_r, of_u, of_z, keep = work.empty("slopes", (4, *r.shape), dy.dtype)
    np.subtract(1, u, out=keep)
    np.subtract(z, cache.fed[:, steps], out=of_u)
    of_u *= u
    of_u *= keep  # from u ⊙ (z − m)
    tanh_slope(z, of_z)
    of_z *= u  # from u ⊙ (z − m)
    sigmoid_slopes(r, of_r)
    of_r *= inner  # from r ⊙ inner
    (dm, fed), R_T, gradients = after, R.swapaxes(1, 2), by_gate(d, H)
    for t in reversed(range(dy.shape[1])):
        da_z, da_r, da_u, dinner = gradients[:, :, t]
        dm += dy[:, t]
        np.multiply(of_z[:, t], dm, out=da_z)
        np.multiply(of_r[:, t], da_z, out=da_r)
        np.multiply(of_u[:, t], dm, out=da_u)
        np.multiply(r[:, t], da_z, out=dinner)
        dm *= keep[:, t]
        dm += np.matmul(d[:, t, :, H:], R_T, out=fed)


# --- the plain network ----------------------------------------------------------------------------------------


def rnn_forward(gates: Array, fed: Array, R: Array, params: Sequence[Any], work: Workspace) -> tuple[Array, ...]:
    """The steps of :func:`stg_np.layers.rnn.rnn_forward`."""
    (a,) = gates  # (W, T, B, H)
    for t in range(a.shape[1]):
        m = np.matmul(fed[:, t], R, out=fed[:, t + 1])
        m += a[:, t]
        np.tanh(m, out=m)
    return ()


def rnn_backward(
    dy: Array, after: Array, cache: FedBackCache, steps: slice, R: Array, d: Array, work: Workspace
) -> None:
    """A chunk of :func:`stg_np.layers.rnn.rnn_backward`; ``after[0]`` is what m was sent."""
    tanh_slope(cache.fed[:, 1:][:, steps], d)
    dm, R_T = after[0], R.swapaxes(1, 2)
    for t in reversed(range(dy.shape[1])):
        dm += dy[:, t]
        d[:, t] *= dm
        np.matmul(d[:, t], R_T, out=dm)


# --- which cells ----------------------------------------------------------------------------------------------

FAST_CELLS: dict[Cell, FastCell] = {
    LSTM_CELL: FastCell(3, 4, 4, lstm_forward, lstm_backward),
    GRU_CELL: FastCell(2, 3, 4, gru_forward, gru_backward),
    RNN_CELL: FastCell(0, 1, 1, rnn_forward, rnn_backward),
}


def fast_walks(kind: Cell) -> Pair:
    """The walks of a cell, as :mod:`stg_np.fast.layer` takes them."""
    cell = FAST_CELLS[kind]
    return Pair(partial(walks_forward, cell=cell), partial(walks_backward, cell=cell))


def covers(kind: Cell, dtype: Any) -> bool:
    """Whether this module computes such walks; the rest is the plain path's."""
    return kind in FAST_CELLS and dtype in (np.float32, np.float64)
