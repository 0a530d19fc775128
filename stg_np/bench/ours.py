"""This package as a subject: what a model calls, on threads that share the batch; and the reference for all.

The reference is the plain path in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from stg_np.backend import Array
from stg_np.bench.cases import Case, ConvCase, LayerCase, StepCase
from stg_np.bench.subjects import Setup, Subject
from stg_np.engine import Threads, added
from stg_np.fast import choose
from stg_np.fast import conv as fast_conv
from stg_np.models.base import LossAndGrad, loss_and_grad
from stg_np.models.stg import STG
from stg_np.ops.conv import ConvParams, conv2d_backward, conv2d_forward
from stg_np.ops.losses import cross_entropy
from stg_np.stm import STMParams, stm_backward, stm_forward
from stg_np.workspace import Workspace


def threads_of(setup: Setup, until: ExitStack) -> Threads:
    """Threads for the batch, and as many of BLAS in each as the setup says, until ``until`` is closed."""
    from threadpoolctl import threadpool_limits

    threads = until.enter_context(Threads(setup.workers))
    until.enter_context(threadpool_limits(setup.blas_threads, user_api="blas"))
    return threads


Shard: TypeAlias = Callable[[slice, Workspace], tuple[Array, Array, Array, Array]]
"""From rows of the batch and a workspace: y, dx, dW, db."""


def layer(case: LayerCase, setup: Setup) -> Subject:
    """The first layer of an STG in one direction: no norm and no path around it, so it is the bare STM."""
    x, dy, params = case.draw()
    model = STG((case.T, case.D), 1, width=case.H, layers=1, bidirectional=False)
    spec = model.spec(0)

    def shard(rows: slice, work: Workspace) -> tuple[Array, Array, Array, Array]:
        forward, backward = choose.layer_pair(x, spec, model.kind, work)
        y, cache = forward(x[rows], [params], spec)
        dx, (grads,) = backward(dy[rows], cache, [params], spec)
        return y, dx, grads.W, grads.b

    timed: Any = choose.layer_pair(x, spec, model.kind, Workspace()).forward
    return sharded(case.B, shard, setup, timed.func.__module__)


def conv(case: ConvCase, setup: Setup) -> Subject:
    """The convolution by the way that is chosen for its shape."""
    x, dy, params = case.draw()

    def shard(rows: slice, work: Workspace) -> tuple[Array, Array, Array, Array]:
        forward, backward = choose.conv_pair(x, work)
        y, cache = forward(x[rows], params)
        dx, grads = backward(dy[rows], cache, params)
        return y, dx, grads.W, grads.b

    rows_of_first = max(1, case.B // setup.workers)
    return sharded(case.B, shard, setup, fast_conv.choose(x[:rows_of_first].shape, params.W.shape))


def conv_by_columns(case: ConvCase, setup: Setup) -> Subject:
    """The convolution as one matrix product over all windows, whatever would be chosen."""
    x, dy, params = case.draw()

    def shard(rows: slice, work: Workspace) -> tuple[Array, Array, Array, Array]:
        y = fast_conv.columns_forward(x[rows], params, work)
        dx, grads = fast_conv.columns_backward(dy[rows], x[rows], params, work)
        return y, dx, grads.W, grads.b

    return sharded(case.B, shard, setup, "columns")


def sharded(batch: int, shard: Shard, setup: Setup, timed: str) -> Subject:
    """One shard of the batch per worker: y and dx stay in the shards' own workspaces, gradients are added."""
    until = ExitStack()
    threads = threads_of(setup, until)
    bounds = [k * batch // threads.count for k in range(threads.count + 1)]
    parts = [(slice(*rows), Workspace()) for rows in pairwise(bounds) if rows[1] > rows[0]]

    def run() -> Any:
        ys, dxs, dWs, dbs = zip(*threads.map(lambda part: shard(*part), parts))
        return ys, dxs, sum(dWs[1:], start=dWs[0]), sum(dbs[1:], start=dbs[0])

    def results(returned: Any) -> dict[str, Array]:
        ys, dxs, dW, db = returned
        return {"y": np.concatenate(ys), "dx": np.concatenate(dxs), "dW": dW, "db": db}

    return Subject(run, results, until.close, timed)


def step(case: StepCase, setup: Setup) -> Subject:
    """The groups of the preset on the workers, as a training step shares them out."""
    model, (x, labels, params, state) = case.model(), case.draw()
    loss = cross_entropy(case.label_smoothing)
    until = ExitStack()
    threads = threads_of(setup, until)

    def group(rows: slice) -> LossAndGrad:
        return loss_and_grad(
            model, params, state, x[rows], labels[rows], loss=loss, weight=1 / case.size, work=threads.workspace
        )

    def run() -> LossAndGrad:
        return threads.sum(group, case.groups)

    return Subject(run, loss_and_gradients, until.close, loss_and_grad.__module__)


def exact(case: Case) -> dict[str, Array]:
    """The results of the plain path in float64, which everybody who computes the same is compared with."""
    if isinstance(case, StepCase):
        return exact_step(case)
    x, dy, params = case.draw()
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    W, b = params.W.astype(np.float64), params.b.astype(np.float64)
    grads: STMParams | ConvParams
    if isinstance(case, ConvCase):
        y, conv_cache = conv2d_forward(x, ConvParams(W, b))
        dx, grads = conv2d_backward(dy, conv_cache, ConvParams(W, b))
    else:
        nothing = np.zeros((case.B, case.H))  # the memory before, and the gradient of the last one
        (y, _), cache = stm_forward(x, nothing, STMParams(W, b))
        dx, _, grads = stm_backward(dy, nothing, cache, STMParams(W, b))
    return {"y": y, "dx": dx, "dW": grads.W, "db": grads.b}


def exact_step(case: StepCase) -> dict[str, Array]:
    """Loss and gradients of a training step in float64."""
    model, (x, labels, params, state) = case.model(), case.draw()
    params = params.with_flat(params.flat.astype(np.float64))
    state = {name: array.astype(np.float64) for name, array in state.items()}
    loss = cross_entropy(case.label_smoothing)
    return loss_and_gradients(added([
        loss_and_grad(model, params, state, x[rows].astype(np.float64), labels[rows], loss=loss, weight=1 / case.size)
        for rows in case.groups
    ]))  # fmt: skip


def loss_and_gradients(found: LossAndGrad) -> dict[str, Array]:
    """The loss, and the gradients of what is learned, by name."""
    learned = (entry.name for entry in found.grads.layout.entries if entry.role != "frozen")
    return {"loss": np.asarray(found.loss)} | {name: found.grads[name] for name in learned}
