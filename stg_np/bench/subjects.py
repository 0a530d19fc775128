"""Who is timed: this package, and the peers that a user would take instead."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.bench.cases import Case, LayerCase
from stg_np.engine import Threads
from stg_np.models.base import loss_and_grad
from stg_np.models.stg import stm_pair
from stg_np.ops.losses import cross_entropy
from stg_np.workspace import Workspace

OURS = "stg_np"
"""The name of this package among the subjects."""


class Subject(NamedTuple):
    """``run()`` does the work once and waits for it; ``results`` turns what it returned into arrays by name."""

    run: Callable[[], Any]
    results: Callable[[Any], dict[str, Array]]


class Peer(NamedTuple):
    """How a peer is called, what it needs, who builds it, and what it can be measured on.

    ``same``: it computes the same numbers as this package, which is checked before it is timed. ``unrolled``: it is
    compiled with one copy of the step per step, which takes minutes, the longer the more steps.
    """

    about: str
    package: str
    build: str  # module:function under stg_np.bench, called with the case and the number of threads
    on_layer: bool = True
    on_step: bool = False
    same: bool = True
    unrolled: bool = False


PEERS = {
    "torch-lstm": Peer("torch.nn.LSTM", "torch", "with_torch:lstm", same=False),
    "torch-gru": Peer("torch.nn.GRU", "torch", "with_torch:gru", same=False),
    "torch-eager": Peer("the same in eager PyTorch", "torch", "with_torch:eager", on_step=True),
    "torch-compile": Peer("the same in torch.compile", "torch", "with_torch:compiled", unrolled=True),
    "torch-compile-16": Peer("the same in torch.compile, 16 steps at a time", "torch", "with_torch:compiled_chunks"),
    "jax-scan": Peer("the same in jax.jit, lax.scan", "jax", "with_jax:scan"),
    "jax-associative": Peer("the same in jax.jit, lax.associative_scan", "jax", "with_jax:associative"),
}


def build_peer(name: str, case: Case, threads: int) -> Subject:
    """A peer of :data:`PEERS`, ready to run on ``threads`` threads.

    Raises:
        ImportError: if its package is not installed.
    """
    module, function = PEERS[name].build.split(":")
    subject: Subject = getattr(import_module(f"stg_np.bench.{module}"), function)(case, threads)
    return subject


def build_ours(case: Case, workers: int, blas_threads: int, until: ExitStack) -> Subject:
    """This package on ``workers`` threads with ``blas_threads`` threads of BLAS in each, until ``until`` is closed."""
    from threadpoolctl import threadpool_limits

    pool = until.enter_context(Threads(workers))
    until.enter_context(threadpool_limits(blas_threads, user_api="blas"))
    return our_layer(case, pool) if isinstance(case, LayerCase) else our_step(case, pool)


def our_layer(case: LayerCase, pool: Threads) -> Subject:
    """One shard of the batch per worker. y and dx stay in their shards' workspaces; gradients are summed."""
    x, dy, params = case.draw()
    forward, backward = stm_pair(np, False)
    bounds = [k * case.B // pool.count for k in range(pool.count + 1)]
    shards = [(slice(*rows), Workspace()) for rows in pairwise(bounds) if rows[1] > rows[0]]

    def shard(part: tuple[slice, Workspace]) -> tuple[Array, Array, Array, Array]:
        rows, work = part
        nothing = np.zeros((rows.stop - rows.start, case.H), x.dtype)  # the memory before, and dm_T
        (y, _), cache = forward(x[rows], nothing, params, work=work)
        dx, _, grads = backward(dy[rows], nothing, cache, params, work=work)
        return y, dx, grads.W, grads.b

    def run() -> Any:
        ys, dxs, dWs, dbs = zip(*pool.map(shard, shards))
        return ys, dxs, sum(dWs[1:], dWs[0]), sum(dbs[1:], dbs[0])

    def results(returned: Any) -> dict[str, Array]:
        ys, dxs, dW, db = returned
        return {"y": np.concatenate(ys), "dx": np.concatenate(dxs), "dW": dW, "db": db}

    return Subject(run, results)


def our_step(case: Any, pool: Threads) -> Subject:
    """The groups of the preset on the workers, as ``stg_np.train`` does it."""
    model, (x, labels, params, state) = case.model(), case.draw()
    loss = cross_entropy(case.label_smoothing)
    groups = [slice(start, start + case.group_size) for start in range(0, case.size, case.group_size)]

    def group(rows: slice) -> Any:
        return loss_and_grad(
            model, params, state, x[rows], labels[rows],
            loss=loss, weight=1 / case.size, work=pool.workspace,
        )  # fmt: skip

    def results(returned: Any) -> dict[str, Array]:
        return {"loss": np.asarray(returned.loss)} | {name: returned.grads[name] for name in returned.grads}

    return Subject(lambda: pool.sum(group, groups), results)
