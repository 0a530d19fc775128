"""The CNN: what it computes, fast and plain, what it begins with, and what it shares with the image STG."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import to_host
from stg_np.fast import activated, conv, maps
from stg_np.fast.choose import map_layer_pair
from stg_np.gradcheck import check_pair
from stg_np.layers import maps as plain_maps
from stg_np.layers.maps import MapSpec
from stg_np.models.base import Part
from stg_np.models.cnn import CNN
from stg_np.models.image_stg import ImageSTG
from stg_np.models.map_stack import MapStack
from stg_np.ops.activations import GELU, RELU, TANH, Activation
from stg_np.ops.batch_norm import EPSILON
from stg_np.ops.conv import ConvParams, conv2d_forward
from stg_np.params import Params
from stg_np.workspace import Workspace
from tests.fast.test_layer import poison
from tests.strategies import SEEDS, Arrays, examples

MODEL = CNN((8, 8, 2), 3, widths=(8, 4), stem=3)


@st.composite
def models(draw: st.DrawFn) -> CNN:
    """Any configuration, small."""
    return CNN(
        draw(st.sampled_from(((8, 8, 2), (8, 16, 1)))),
        3,
        widths=draw(st.sampled_from(((8,), (8, 4)))),
        depth=draw(st.sampled_from((1, 2))),
        window=draw(st.sampled_from((1, 3))),
        patch=draw(st.sampled_from((1, 2))),
        stem=draw(st.sampled_from((0, 4))),
        activation=draw(st.sampled_from(("gelu", "relu"))),
    )


def drawn(model: MapStack, seed: int, device: str = "cpu", dtype: Any = np.float64) -> tuple[Params, Any, Any]:
    """Parameters of order ½, a state near the one of white input, and pictures."""
    draw = Arrays(seed, dtype, device=device)
    params = Params(model.layout(), 0.5 * draw.normal(model.layout().size))
    state = {name: draw.uniform(0.5, 2, *shape) for name, shape in model.state_layout().shapes.items()}
    return params, state, draw.normal(3, *model.input_shape)


def by_hand(model: CNN, params: Params, state: Any, x: Any, phi: Activation, *, train: bool) -> Any:
    """Its layers as formulas, on the host."""
    h = x
    for name in model.names:
        W, b = params[f"{name}.W"], params[f"{name}.b"]
        h, _ = conv2d_forward(h, ConvParams(W, np.zeros_like(b)))
        if name in ("conv1", "conv3"):
            B, height, width, H = h.shape
            h = h.reshape(B, height // 2, 2, width // 2, 2, H).max((2, 4))
        if name != "stem":
            mean = h.mean((0, 1, 2)) if train else state[f"{name}.mean"]
            variance = h.var((0, 1, 2)) if train else state[f"{name}.variance"]
            h = (h - mean) / np.sqrt(variance + EPSILON)
        h = phi.forward(h + b)
    return h.max((1, 2)) / 9 @ params["head.W"] + params["head.b"]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("activation", "phi"), [("gelu", GELU), ("relu", RELU)])
def test_it_is_its_formula(device: str, activation: str, phi: Activation, train: bool) -> None:
    model = replace(MODEL, activation=activation)
    params, state, x = drawn(model, 0, device)
    logits, _, _ = model.forward(x, params, state, train=train)
    on_host = drawn(model, 0)
    np.testing.assert_allclose(to_host(logits), by_hand(model, *on_host, phi, train=train), rtol=1e-10)


@examples(0.5)
@given(model=models(), seed=SEEDS, train=st.booleans())
def test_the_fast_path_is_the_plain_one(model: CNN, seed: int, train: bool) -> None:
    params, state, x = drawn(model, seed)
    work = Workspace()
    plain, cache, kept = model.forward(x, params, state, train=train)
    fast, fast_cache, fast_kept = model.forward(x, params, state, train=train, work=work)
    np.testing.assert_allclose(fast, plain, rtol=1e-9, atol=1e-11)
    for name in kept:
        np.testing.assert_allclose(fast_kept[name], kept[name], rtol=1e-9, atol=1e-11)
    dlogits = np.random.default_rng(seed).standard_normal(plain.shape)
    grads, fast_grads = model.backward(dlogits, cache, params), model.backward(dlogits, fast_cache, params, work=work)
    scale = np.abs(grads.flat).max()
    np.testing.assert_allclose(fast_grads.flat / scale, grads.flat / scale, atol=1e-8)


@pytest.mark.numbers
@examples(0.2)
@given(model=models(), seed=SEEDS)
def test_gradient(device: str, model: CNN, seed: int) -> None:
    """A kink of a ReLU, or another largest pixel, may lie within the step: then the checker says so."""
    params, state, x = drawn(model, seed, device)

    def forward(params: Params) -> Any:
        logits, cache, _ = model.forward(x, params, state)
        return logits, (cache, params)

    report = check_pair(
        forward, lambda d, kept: model.backward(d, *kept), {"params": params}, seed=seed, directions=1,
        jacobian=False, float32=False,
    )  # fmt: skip
    assert report.status in ("ok", "kink"), str(report)


def test_it_starts_as_a_shallow_network_of_gelus() -> None:
    """Windows begin as the identity, biases at 0, and the stem whitens what it is adapted to."""
    model, rng = CNN((8, 8, 1), 10, widths=(32,), stem=6), np.random.default_rng(0)
    params, state = model.init(rng)
    roles = {entry.name: entry.role for entry in params.layout.entries}
    assert (roles["stem.W"], roles["conv1.W"], roles["conv1.b"], roles["head.W"]) == (
        "frozen", "kernel", "vector", "head",
    )  # fmt: skip
    assert list(state) == ["conv1.mean", "conv1.variance", "conv2.mean", "conv2.variance"]
    np.testing.assert_array_equal(params["conv2.W"][1, 1], np.eye(32))
    assert not params["conv2.W"][0].any()
    assert not params["conv1.b"].any()
    adapted = model.adapted(params, rng.standard_normal((20, 8, 8, 1)).astype(np.float32))
    assert (adapted["stem.W"] != params["stem.W"]).any()


def test_all_but_what_follows_the_windows_is_as_in_the_image_stg() -> None:
    """The same fields, layers, sizes, windows and multiply-adds of windows."""
    shared = {field.name for field in fields(CNN)} & {field.name for field in fields(ImageSTG)}
    assert shared == {field.name for field in fields(MapStack)}
    cnn, stg = CNN((32, 32, 3), 10), ImageSTG((32, 32, 3), 10)
    assert list(cnn.sizes.values()) == list(stg.sizes.values())
    ours, theirs = ([entry.shape for entry in model.layout().entries if len(entry.shape) > 1] for model in (cnn, stg))
    assert ours == theirs


def test_its_parts_and_its_sentence() -> None:
    assert str(MODEL) == "CNN: 4 convolutions in 2 blocks, gelu"
    params, _ = MODEL.init(np.random.default_rng(0))
    assert MODEL.parts(params) == [
        Part("input", (8, 8, 2)),
        Part("stem", (8, 8, 6), 64 * 9 * 2 * 6),
        Part("conv1", (4, 4, 8), 64 * 9 * 6 * 8),
        Part("conv2", (4, 4, 8), 16 * 9 * 8 * 8),
        Part("conv3", (2, 2, 4), 16 * 9 * 8 * 4),
        Part("conv4", (2, 2, 4), 4 * 9 * 4 * 4),
        Part("largest pixel", (4,)),
        Part("head", (3,), 12),
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"activation": "swish"}, "activation is one of gelu, relu"),
        ({"window": 2}, "odd side"),
        ({"norm_rate": 1.5}, "norm_rate must be at most 1"),
        ({"stem": -1}, "stem"),
    ],
)
def test_fields_that_do_not_fit_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MODEL, **wrong)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_one_picture_at_a_time_gives_the_same(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast path adds its sums up over chunks; and its memory may hold anything."""
    for module in (conv, maps):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    model = replace(MODEL, activation=activation)
    params, state, x = drawn(model, 6)
    work = Workspace()
    plain, cache, kept = model.forward(x, params, state, train=True)
    grads = model.backward(plain, cache, params)
    for _ in range(2):
        fast, fast_cache, fast_kept = model.forward(x, params, state, train=True, work=work)
        fast_grads = model.backward(plain, fast_cache, params, work=work)
        np.testing.assert_allclose(fast, plain, rtol=1e-9)
        np.testing.assert_allclose(fast_kept["conv1.variance"], kept["conv1.variance"], rtol=1e-9)
        np.testing.assert_allclose(fast_grads.flat, grads.flat, atol=1e-9 * np.abs(grads.flat).max())
        poison(work)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_which_path_is_taken(dtype: Any) -> None:
    """Without a workspace, for another dtype or another activation, the plain one."""
    own, x = ConvParams(np.zeros((3, 3, 2, 4), dtype), np.zeros(4, dtype)), np.zeros((1, 4, 4, 2), dtype)
    for phi, work, quick in ((GELU, Workspace(), True), (GELU, None, False), (TANH, Workspace(), False)):
        pair: Any = map_layer_pair(x, MapSpec(phi), own, work)
        home = activated if quick and dtype is not np.float16 else plain_maps
        assert (pair.forward.func, pair.backward.func) == (home.map_layer_forward, home.map_layer_backward)


def test_a_gelu_of_large_numbers_is_finite() -> None:
    a = np.array([-1e4, -30, 0, 30, 1e4], np.float32)
    y, kept, slope = np.empty_like(a), np.empty_like(a), np.empty_like(a)
    activated.gelu_forward(a, y, kept)
    activated.gelu_slope(a, kept, slope, np.empty_like(a))
    np.testing.assert_allclose(y, [0, 0, 0, 30, 1e4], atol=1e-12)
    np.testing.assert_allclose(slope, [0, 0, 0.5, 1, 1], atol=1e-12)
