"""The image network's peers in PyTorch: the same network, and the plain CNN whose shape it has.

Both as a PyTorch programmer would write them for the CPU, with the channels last in memory. Maps of this package,
(B, height, width, c), are then PyTorch's (B, c, height, width) without a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from stg_np.backend import Array
from stg_np.bench.cases import ImageCase
from stg_np.bench.subjects import Setup, Subject
from stg_np.bench.with_torch import library
from stg_np.models.image_stg import ImageSTG
from stg_np.ops.batch_norm import EPSILON
from stg_np.sweep import shares

Weights: TypeAlias = dict[str, Any]


def step(case: ImageCase, setup: Setup) -> Subject:
    """Loss and gradients of the same image STG with the same parameters."""
    torch = library(setup)
    return subject(torch, case, lambda weights, maps: image_stg(torch, case.model(), weights, maps))


def plain_cnn(case: ImageCase, setup: Setup) -> Subject:
    """Window, pooling and batch normalisation as there, then a scale, a bias and GELU: no gate, no memory."""
    torch = library(setup)
    return subject(torch, case, lambda weights, maps: cnn(torch, case.model(), weights, maps))


def subject(torch: Any, case: ImageCase, network: Callable[[Weights, Any], Any]) -> Subject:
    """Forward, loss and backward of a network, shard after shard."""
    x, labels, params, _ = case.draw()
    frozen = {entry.name for entry in params.layout.entries if entry.role == "frozen"}
    weights = {name: to_torch(torch, params[name]).requires_grad_(name not in frozen) for name in params}
    learned = {name: weight for name, weight in weights.items() if weight.requires_grad}
    maps, targets = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def run() -> Any:
        total, sums = 0.0, None
        for rows in case.groups:
            logits, own = network(weights, maps[rows]), targets[rows]
            loss = torch.nn.functional.cross_entropy(logits, own, label_smoothing=case.label_smoothing, reduction="sum")
            loss = loss / case.size
            grads = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)  # the plain CNN has no gates
            total, sums = total + loss.detach(), grads if sums is None else added(sums, grads)
        return total, sums

    def results(returned: Any) -> dict[str, Array]:
        total, sums = returned
        return {"loss": np.asarray(total)} | {name: to_numpy(grad) for name, grad in zip(learned, sums)}

    return Subject(run, results)


def added(sums: Any, grads: Any) -> Any:
    """Gradients of another shard on top."""
    return [None if own is None else before.add_(own) for before, own in zip(sums, grads)]


def to_torch(torch: Any, array: Array) -> Any:
    """A kernel (k, k, c, d) as PyTorch's (d, c, k, k) with the channels last; other arrays as they are."""
    if array.ndim == 4:
        return torch.from_numpy(array.transpose(3, 0, 1, 2).copy()).permute(0, 3, 1, 2)
    return torch.from_numpy(array.copy())


def to_numpy(tensor: Any) -> Array:
    """The reverse of :func:`to_torch`."""
    array: Array = tensor.detach().numpy()
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def image_stg(torch: Any, model: ImageSTG, weights: Weights, h: Any) -> Any:
    """The logits (B, C) of maps (B, c, height, width): the lines of ``ImageSTG.forward``."""
    for name in model.names:
        spec = model.spec(name)
        h = normalised_window(torch, h, weights[f"{name}.W"], spec.pools, spec.normalises)
        b_i, b_u, b_o, b_z = (vector[:, None, None] for vector in weights[f"{name}.b"].chunk(4))
        w_i, w_u, w_o = (vector[:, None, None] for vector in weights[f"{name}.w"].chunk(3))
        z = h + b_z
        i, u, o = (torch.sigmoid(torch.addcmul(b, z, w)) for w, b in ((w_i, b_i), (w_u, b_u), (w_o, b_o)))
        sweep = spec.kind.sweep
        h = o * (swept(torch, u, i * z, sweep.directions) if sweep.directions else u * i * z)
    return head(h, model, weights)


def swept(torch: Any, u: Any, v: Any, directions: Any) -> Any:
    """The memories of sweeps over quarters of the channels; maps (B, c, height, width)."""
    u, v = u.permute(0, 2, 3, 1), v.permute(0, 2, 3, 1)  # (B, height, width, c), in the order of the memory
    parts = []
    for own, direction in shares(v.shape[-1], directions):
        along = 2 if direction in ("right", "left") else 1
        steps = list(zip(u[..., own].unbind(along), v[..., own].unbind(along)))
        backwards = direction in ("left", "up")
        m, memories = torch.zeros_like(steps[0][1]), []
        for u_s, v_s in reversed(steps) if backwards else steps:
            m = torch.lerp(m, v_s, u_s)  # (1 − u) m + u v
            memories.append(m)
        parts.append(torch.stack(memories[::-1] if backwards else memories, along))
    return torch.cat(parts, -1).permute(0, 3, 1, 2)


def cnn(torch: Any, model: ImageSTG, weights: Weights, h: Any) -> Any:
    """The logits of the plain CNN with the same windows."""
    for name in model.names:
        spec = model.spec(name)
        h = normalised_window(torch, h, weights[f"{name}.W"], spec.pools, spec.normalises)
        h = torch.nn.functional.gelu(h + weights[f"{name}.b"].chunk(4)[3][:, None, None])
    return head(h, model, weights)


def normalised_window(torch: Any, h: Any, kernel: Any, pools: bool, normalises: bool) -> Any:
    """Convolution, pooling and batch normalisation, each where there is one."""
    h = torch.nn.functional.conv2d(h, kernel, padding=kernel.shape[-1] // 2)
    if pools:
        h = torch.nn.functional.max_pool2d(h, 2)
    return torch.nn.functional.batch_norm(h, None, None, training=True, eps=EPSILON) if normalises else h


def head(h: Any, model: ImageSTG, weights: Weights) -> Any:
    """The linear head on the largest pixel of each channel."""
    return (h.amax((2, 3)) * model.head_scale) @ weights["head.W"] + weights["head.b"]
