"""PyTorch's autograd as an independent oracle of the backwards: the forward alone, written once more in its terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.fast.choose import stm_cell
from stg_np.layers.gru import GRU_CELL, GRUParams
from stg_np.layers.lstm import LSTM_CELL, LSTMMemory, LSTMParams
from stg_np.layers.rnn import RNN_CELL, RNNParams
from stg_np.layers.spec import STMKind
from stg_np.models.base import loss_and_grad
from stg_np.models.cnn import CNN
from stg_np.models.stg import STG
from stg_np.ops.activations import IDENTITY, TANH
from stg_np.ops.batch_norm import EPSILON
from stg_np.ops.losses import cross_entropy, cross_entropy_backward, cross_entropy_forward
from stg_np.params import Params
from stg_np.stm import STMParams
from stg_np.workspace import Workspace
from tests.strategies import FULL_STM_SIZES, SEEDS, STM_SIZES, Arrays, B, C, STMSizes, examples

torch: Any = pytest.importorskip("torch", reason="PyTorch, the oracle of these tests, is not installed")


def leaf(array: Any) -> Any:
    """The same numbers as a float64 tensor with a gradient."""
    return None if array is None else torch.tensor(np.array(array), requires_grad=True)


def stm_by_torch(x: Any, m: Any, params: Any, tanh: bool) -> tuple[Any, Any]:
    """The equations of the layer, a step at a time, one gate at a time."""
    W, b, R, w = params
    size, outputs = m.shape[1], []
    for t in range(x.shape[1]):
        products = x[:, t] @ W if R is None else x[:, t] @ W + m @ R
        if w is None:
            a_i, a_u, a_o, a_z = (products + b).split(size, 1)
        else:
            a_z = products + b[3 * size :]
            a_i, a_u, a_o = (w_g * a_z + b_g for w_g, b_g in zip(w.split(size), b[: 3 * size].split(size)))
        z = torch.tanh(a_z) if tanh else a_z
        u = torch.sigmoid(a_u)
        m = (1 - u) * m + u * torch.sigmoid(a_i) * z
        outputs.append(torch.sigmoid(a_o) * m)
    return torch.stack(outputs, 1), m


@examples(0.5)
@given(
    seed=SEEDS, sizes=STM_SIZES, recurrent=st.booleans(), diagonal=st.booleans(), tanh=st.booleans(), fast=st.booleans()
)
def test_stm(seed: int, sizes: STMSizes, recurrent: bool, diagonal: bool, tanh: bool, fast: bool) -> None:
    b, t, d, h = sizes
    draw = Arrays(seed)
    x, m_0, params = draw.normal(b, t, d), draw.normal(b, h), draw.stm(d, h, recurrent=recurrent, diagonal=diagonal)
    dy, dm_T = draw.normal(b, t, h), draw.normal(b, h)
    cell = stm_cell(x, STMKind(recurrent, diagonal, TANH if tanh else IDENTITY), Workspace() if fast else None)
    (y, m_T), cache = cell.forward(x, m_0, params)
    dx, dm_0, dparams = cell.backward(dy, dm_T, cache, params)
    tensors: Any = leaf(x), leaf(m_0), STMParams(*map(leaf, params))
    y_torch, m_torch = stm_by_torch(tensors[0], tensors[1], tensors[2], tanh)
    ((y_torch * torch.tensor(dy)).sum() + (m_torch * torch.tensor(dm_T)).sum()).backward()
    mine = (y, m_T, dx, dm_0, *dparams)
    theirs = (y_torch.detach(), m_torch.detach(), tensors[0].grad, tensors[1].grad)
    for one, other in zip(mine, (*theirs, *(None if tensor is None else tensor.grad for tensor in tensors[2]))):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-9, atol=1e-10)


@examples(0.5)
@given(seed=SEEDS, b=B, c=C, smoothing=st.sampled_from((0.0, 0.1, 1.0)))
def test_cross_entropy(seed: int, b: int, c: int, smoothing: float) -> None:
    draw = Arrays(seed)
    logits, labels, dlosses = draw.normal(b, c), draw.labels(c, b), draw.normal(b)
    losses, cache = cross_entropy_forward(logits, labels, label_smoothing=smoothing)
    tensor = leaf(logits)
    theirs = torch.nn.functional.cross_entropy(
        tensor, torch.tensor(labels), reduction="none", label_smoothing=smoothing
    )
    theirs.backward(torch.tensor(dlosses.copy()))
    np.testing.assert_allclose(losses, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(cross_entropy_backward(dlosses, cache), tensor.grad.numpy(), rtol=1e-9, atol=1e-12)


@examples(0.2)
@given(seed=SEEDS, recurrent=st.booleans(), diagonal=st.booleans(), last=st.booleans())
def test_the_whole_model(seed: int, recurrent: bool, diagonal: bool, last: bool) -> None:
    """Both directions, three layers with their norms and sums, pooling, head, smoothed loss."""
    model = STG((4, 3), 3, width=4, layers=3, recurrent=recurrent, diagonal=diagonal, pool="last" if last else "mean")
    draw = Arrays(seed)
    layout = model.layout()
    params = Params(layout, draw.uniform(-1, 1, layout.size))
    x, labels = draw.normal(5, 4, 3), draw.labels(3, 5)
    mine = loss_and_grad(model, params, {}, x, labels, loss=cross_entropy(0.1), weight=0.2)
    flat = leaf(params.flat)
    named = {name: flat[layout.slices[name]].reshape(layout.shapes[name]) for name in layout.shapes}

    def norm(h: Any) -> Any:
        return torch.nn.functional.rms_norm(h, h.shape[-1:], eps=1e-5)

    h = torch.tensor(x.copy())
    for layer in range(3):
        read, outputs = h if layer == 0 else norm(h), []
        for direction in ("right", "left"):
            group = [named.get(f"stm{layer + 1}.{direction}.{field}") for field in STMParams._fields]
            walked = read if direction == "right" else read.flip(1)
            y, _ = stm_by_torch(walked, torch.zeros(5, 2, dtype=torch.float64), group, tanh=True)
            outputs.append(y if direction == "right" else y.flip(1))
        h = torch.cat(outputs, -1) if layer == 0 else h + torch.cat(outputs, -1)
    h = norm(h)
    pooled = torch.cat([h[:, -1, :2], h[:, 0, 2:]], -1) if last else h.mean(1)
    logits = pooled @ named["head.W"] + named["head.b"]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), label_smoothing=0.1)
    loss.backward()
    np.testing.assert_allclose(mine.loss, loss.item(), rtol=1e-10)
    np.testing.assert_allclose(mine.grads.flat, flat.grad.numpy(), rtol=1e-8, atol=1e-11)


def blocks_for_torch(matrix: Any, order: tuple[int, ...], signs: tuple[int, ...], count: int) -> Any:
    """Our columns as PyTorch's rows: its gates stand in another order, and some are the opposite of ours."""
    parts = np.split(np.array(matrix), count, -1)
    return torch.tensor(np.concatenate([sign * parts[k] for k, sign in zip(order, signs)], -1).T.copy())


LAYERS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "lstm": (LSTM_CELL, (0, 1, 3, 2), (1, 1, 1, 1)),
    "gru": (GRU_CELL, (0, 1, 2), (1, -1, 1)),  # its update gate is 1 − u
    "rnn": (RNN_CELL, (0,), (1,)),
}
"""Our cell, PyTorch's order of its gates, and their signs."""


@pytest.mark.parametrize("name", LAYERS)
@examples(0.3)
@given(seed=SEEDS, sizes=FULL_STM_SIZES)
def test_its_own_layers(name: str, seed: int, sizes: STMSizes) -> None:
    """``torch.nn.LSTM``, ``GRU`` and ``RNN``: outputs, last memory, and the gradients of everything."""
    (cell, order, signs), (B, T, D, H), draw = LAYERS[name], sizes, Arrays(seed)
    x, dy, (m, y) = draw.normal(B, T, D), draw.normal(B, T, H), (draw.normal(B, H) for _ in range(2))
    shapes = {"W": (D, len(order) * H), "b": (len(order) * H,), "R": (H, len(order) * H), "c": (H,)}
    kind: Any = {"lstm": LSTMParams, "gru": GRUParams, "rnn": RNNParams}[name]
    params: Any = kind(*(draw.normal(*shapes[field]) for field in kind._fields))
    layer = getattr(torch.nn, name.upper())(D, H, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(blocks_for_torch(params.W, order, signs, len(order)))
        layer.weight_hh_l0.copy_(blocks_for_torch(params.R, order, signs, len(order)))
        layer.bias_ih_l0.copy_(blocks_for_torch(params.b, order, signs, len(order)))
        layer.bias_hh_l0.zero_()
        if name == "gru":
            layer.bias_hh_l0[2 * H :] = torch.tensor(np.array(params.c))
    start = LSTMMemory(m, y) if name == "lstm" else m
    (mine, end), cache = cell.forward(x, start, params)
    dx, dstart, dparams = cell.backward(dy, end, cache, params)
    x_torch, first = leaf(x), [leaf(array)[None] for array in ((y, m) if name == "lstm" else (m,))]
    for array in first:
        array.retain_grad()
    theirs, last = layer(x_torch, tuple(first) if name == "lstm" else first[0])
    last = last if name == "lstm" else (last,)
    ends = (end.y, end.m) if name == "lstm" else (end,)
    loss = (theirs * torch.tensor(np.array(dy))).sum()
    (loss + sum((one[0] * torch.tensor(np.array(other))).sum() for one, other in zip(last, ends))).backward()
    pairs = [(mine, theirs), (dx, x_torch.grad), *((other, one[0]) for one, other in zip(last, ends))]
    starts = (dstart.y, dstart.m) if name == "lstm" else (dstart,)
    pairs += [(other, one.grad[0]) for one, other in zip(first, starts)]
    for field, tensor in (("W", layer.weight_ih_l0), ("R", layer.weight_hh_l0), ("b", layer.bias_ih_l0)):
        pairs.append((blocks_for_torch(getattr(dparams, field), order, signs, len(order)), tensor.grad))
    if name == "gru":
        pairs.append((dparams.c, layer.bias_hh_l0.grad[2 * H :]))
    for one, other in pairs:
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-9, atol=1e-10)


@examples(0.3)
@given(seed=SEEDS, relu=st.booleans(), depth=st.sampled_from((1, 2)))
def test_the_cnn(seed: int, relu: bool, depth: int) -> None:
    """PyTorch's convolution, pooling, batch normalisation and activation, channels first, in training."""
    model = CNN((8, 8, 2), 3, widths=(4, 6), depth=depth, stem=3, activation="relu" if relu else "gelu")
    draw, layout = Arrays(seed), model.layout()
    params = Params(layout, draw.uniform(-1, 1, layout.size))
    _, state = model.init(np.random.default_rng(0), np.float64)
    x, labels = draw.normal(4, 8, 8, 2), draw.labels(3, 4)
    mine = loss_and_grad(model, params, state, x, labels, loss=cross_entropy(0.1), weight=0.25)
    flat, F = leaf(params.flat), torch.nn.functional
    named = {name: flat[layout.slices[name]].reshape(layout.shapes[name]) for name in layout.shapes}
    h = torch.tensor(x.copy()).permute(0, 3, 1, 2)
    for name in model.names:
        W = named[f"{name}.W"].detach() if name == "stem" else named[f"{name}.W"]
        h = F.conv2d(h, W.permute(3, 2, 0, 1), padding=1)
        h = F.max_pool2d(h, 2) if model.pools(name) else h
        h = F.batch_norm(h, None, None, training=True, eps=EPSILON) if name != "stem" else h
        h = h + named[f"{name}.b"][:, None, None]
        h = F.relu(h) if relu else F.gelu(h, approximate="tanh")
    logits = h.amax((2, 3)) / 9 @ named["head.W"] + named["head.b"]
    loss = F.cross_entropy(logits, torch.tensor(labels), label_smoothing=0.1)
    loss.backward()
    np.testing.assert_allclose(mine.loss, loss.item(), rtol=1e-10)
    np.testing.assert_allclose(mine.grads.flat, flat.grad.numpy(), rtol=1e-8, atol=1e-10)
