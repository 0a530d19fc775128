"""The peers in PyTorch: its LSTM, GRU and convolution; the STM and the STG as a PyTorch programmer would write them.

Autograd does the backward, which is what the comparison is about. The loop over the steps takes ``unbind`` and
``lerp``, the quickest ways to say it: indexing would write a whole gradient of zeros per step.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from stg_np.backend import Array
from stg_np.bench.cases import ConvCase, LayerCase, StepCase
from stg_np.bench.subjects import Setup, Subject
from stg_np.models.stg import STG

COMPILED_STEPS = 16


def library(setup: Setup) -> Any:
    """PyTorch on as many threads as the setup has in all (typed as Any: it need not be installed)."""
    torch = import_module("torch")
    torch.set_num_threads(setup.threads)
    return torch


def lstm(case: LayerCase, setup: Setup) -> Subject:
    """``torch.nn.LSTM``."""
    return recurrent_layer("LSTM", case, setup)


def gru(case: LayerCase, setup: Setup) -> Subject:
    """``torch.nn.GRU``."""
    return recurrent_layer("GRU", case, setup)


def recurrent_layer(kind: str, case: LayerCase, setup: Setup) -> Subject:
    """A recurrent layer of PyTorch's own: forward, and the gradients of x and of all its parameters."""
    torch = library(setup)
    x, dy, _ = case.draw()
    module = getattr(torch.nn, kind)(case.D, case.H, batch_first=True)
    x_, dy_ = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)
    wanted = [x_, *module.parameters()]

    def run() -> Any:
        y, _ = module(x_)
        return torch.autograd.grad(y, wanted, dy_)

    return Subject(run, lambda returned: {})


def conv(case: ConvCase, setup: Setup) -> Subject:
    """``torch.nn.functional.conv2d`` in the same memory: "channels last" is how a PyTorch tensor is NHWC."""
    torch = library(setup)
    x, dy, (W, b) = case.draw()
    images = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    kernel = torch.from_numpy(W.transpose(3, 0, 1, 2).copy()).permute(0, 3, 1, 2).requires_grad_()
    bias = torch.from_numpy(b).requires_grad_()
    dy_ = torch.from_numpy(dy).permute(0, 3, 1, 2)

    def run() -> Any:
        y = torch.nn.functional.conv2d(images, kernel, bias, padding=1)
        return y, *torch.autograd.grad(y, (images, kernel, bias), dy_)

    def results(returned: Any) -> dict[str, Array]:
        y, dx, dW, db = (tensor.detach().numpy() for tensor in returned)
        return {"y": y.transpose(0, 2, 3, 1), "dx": dx.transpose(0, 2, 3, 1), "dW": dW.transpose(2, 3, 1, 0), "db": db}

    return Subject(run, results)


def layer(case: LayerCase, setup: Setup) -> Subject:
    """The STM layer, operation by operation."""
    torch = library(setup)
    return layer_subject(torch, case, lambda x, W, b: stm(torch, x, W, b))


def compiled(case: LayerCase, setup: Setup) -> Subject:
    """The STM layer through ``torch.compile``, which unrolls the loop over the steps."""
    torch = library(setup)
    function = torch.compile(lambda x, W, b: stm(torch, x, W, b), dynamic=False)
    return layer_subject(torch, case, function)


def compiled_chunks(case: LayerCase, setup: Setup) -> Subject:
    """A few steps through ``torch.compile``, called again and again: what compiles for any number of steps."""
    torch = library(setup)
    chunk = torch.compile(lambda x, m, W, b: stm_chunk(torch, x, m, W, b), dynamic=False)

    def all_chunks(x: Any, W: Any, b: Any) -> Any:
        m, outputs = x.new_zeros(x.shape[0], W.shape[1] // 4), []
        for part in x.split(COMPILED_STEPS, 1):
            y, m = chunk(part, m, W, b)
            outputs.append(y)
        return torch.cat(outputs, 1)

    return layer_subject(torch, case, all_chunks)


def layer_subject(torch: Any, case: LayerCase, function: Callable[[Any, Any, Any], Any]) -> Subject:
    """Forward and backward of ``function(x, W, b)``."""
    x, dy, params = case.draw()
    dy_ = torch.from_numpy(dy)
    wanted = [torch.from_numpy(array).requires_grad_() for array in (x, params.W, params.b)]

    def run() -> Any:
        y = function(*wanted)
        return y, *torch.autograd.grad(y, wanted, dy_)

    def results(returned: Any) -> dict[str, Array]:
        return {name: tensor.detach().numpy() for name, tensor in zip(("y", "dx", "dW", "db"), returned)}

    return Subject(run, results)


def stm(torch: Any, x: Any, W: Any, b: Any, w: Any = None, tanh_candidate: bool = True) -> Any:
    """The layer of :func:`stg_np.stm.stm_forward` from a memory of zeros: y (B, T, H)."""
    H = b.shape[0] // 4
    y, _ = stm_chunk(torch, x, x.new_zeros(x.shape[0], H), W, b, w, tanh_candidate)
    return y


def stm_chunk(torch: Any, x: Any, m: Any, W: Any, b: Any, w: Any = None, tanh_candidate: bool = True) -> Any:
    """The layer from a memory m (B, H): y (B, T, H), and the last memory."""
    H = b.shape[0] // 4
    linear = torch.nn.functional.linear
    if w is None:
        a_gates, a_z = linear(x, W.t(), b).split([3 * H, H], -1)
    else:
        a_z = linear(x, W.t(), b[3 * H :])
        a_gates = torch.cat([a_z, a_z, a_z], -1) * w + b[: 3 * H]
    i, u, o = torch.sigmoid(a_gates).chunk(3, -1)
    v = i * (torch.tanh(a_z) if tanh_candidate else a_z)
    memories = []
    for u_t, v_t in zip(u.unbind(1), v.unbind(1)):
        m = torch.lerp(m, v_t, u_t)  # (1 − u) m + u v
        memories.append(m)
    return o * torch.stack(memories, 1), m


def step(case: StepCase, setup: Setup) -> Subject:
    """Loss and gradients of the same STG with the same parameters.

    Raises:
        NotImplementedError: for the recurrent form, which is not written here.
    """
    torch, model, (x, labels, params, _) = library(setup), case.model(), case.draw()
    assert isinstance(model, STG)
    if model.recurrent:
        raise NotImplementedError("the recurrent form is not written in PyTorch here")
    weights = {name: torch.from_numpy(params[name].copy()).requires_grad_() for name in params}
    x_, labels_ = torch.from_numpy(x), torch.from_numpy(labels)

    def run() -> Any:
        logits = network(torch, model, weights, x_)
        loss = torch.nn.functional.cross_entropy(logits, labels_, label_smoothing=case.label_smoothing)
        return loss, *torch.autograd.grad(loss, list(weights.values()))

    def results(returned: Any) -> dict[str, Array]:
        return {name: np.asarray(tensor.detach()) for name, tensor in zip(("loss", *weights), returned)}

    return Subject(run, results)


def network(torch: Any, model: STG, weights: dict[str, Any], x: Any) -> Any:
    """The logits (B, C): the lines of ``STG.forward``."""
    h = patches(x, *model.patch_size) if model.is_picture else x
    for layer in range(model.layers):
        turn = model.alternate and layer % 2 == 1
        read = h if layer == 0 else rms_norm(h)
        read = transpose_grid(read, model.grid) if turn else read
        walks = []
        for name in model.walks(layer):
            W, b, w = (weights.get(f"{name}.{field}") for field in "Wbw")
            flip = name.endswith(".left")
            y = stm(torch, read.flip(1) if flip else read, W, b, w, model.tanh_candidate)
            walks.append(y.flip(1) if flip else y)
        y = torch.cat(walks, -1)
        y = transpose_grid(y, model.grid[::-1]) if turn else y
        h = y if layer == 0 else h + y
    h = rms_norm(h)
    H = model.memory_width
    pooled = h.mean(1) if model.pool == "mean" else torch.cat([h[:, -1, :H], h[:, 0, H:]], -1)
    return pooled @ weights["head.W"] + weights["head.b"]


def rms_norm(h: Any) -> Any:
    """As :mod:`stg_np.ops.norm`."""
    return h * (h.square().mean(-1, keepdim=True) + 1e-5).rsqrt()


def patches(x: Any, patch_height: int, patch_width: int) -> Any:
    """As :mod:`stg_np.ops.views`."""
    B, height, width, c = x.shape
    grid = x.reshape(B, height // patch_height, patch_height, width // patch_width, patch_width, c)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(B, -1, patch_height * patch_width * c)


def transpose_grid(x: Any, grid: tuple[int, int]) -> Any:
    """As :mod:`stg_np.ops.views`."""
    B, T, D = x.shape
    return x.reshape(B, *grid, D).transpose(1, 2).reshape(B, T, D)


def facts() -> dict[str, str]:
    """Its version, its libraries, and the instruction set that its own kernels use."""
    torch = import_module("torch")
    libraries = ["MKL"] if torch.backends.mkl.is_available() else []
    libraries += ["oneDNN"] if torch.backends.mkldnn.is_available() else []
    instructions = torch.backends.cpu.get_cpu_capability()
    return {"PyTorch": ", ".join([torch.__version__, *libraries, f"kernels for {instructions}"])}
