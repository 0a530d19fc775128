"""The multilayer perceptron: its gradient, and what it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, get_xp, to_host
from stg_np.gradcheck import Backward, Forward, check_pair
from stg_np.models.mlp import MLP
from stg_np.params import Params
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, SEEDS, Arrays, B, C, examples

WIDTHS = st.lists(st.integers(1, 4), max_size=3).map(tuple)
SHAPES = st.sampled_from(((3,), (2, 3), (4, 3, 2)))


def draw_params(model: MLP, draw: Arrays) -> Params:
    """Parameters of order 1 in every entry."""
    return Params(model.layout(), draw.uniform(-1, 1, model.layout().size))


def pair_of(model: MLP, x: Array) -> tuple[Forward, Backward]:
    """Parameters to logits."""

    def forward(params: Params) -> tuple[Array, Any]:
        logits, cache, _ = model.forward(get_xp(x).asarray(x, params.flat.dtype), params, {})
        return logits, (cache, params)

    return forward, lambda dlogits, kept: model.backward(dlogits, *kept)


@examples(0.4)
@given(shape=SHAPES, widths=WIDTHS, classes=C, seed=SEEDS, b=B)
def test_gradient(device: str, shape: tuple[int, ...], widths: Any, classes: int, seed: int, b: int) -> None:
    """A kink of a ReLU may lie within the step: then the checker says so, and the analytic value lies between."""
    model, draw = MLP(shape, classes, widths), Arrays(seed, device=device)
    forward, backward = pair_of(model, draw.normal(b, *shape))
    params = {"params": draw_params(model, draw)}
    report = check_pair(forward, backward, params, seed=seed, directions=1, jacobian=False, float32=False)
    assert report.status in ("ok", "kink"), str(report)


@examples(0.4)
@given(draw=ARRAYS, b=EMPTY_B, shape=SHAPES, widths=WIDTHS)
def test_contract_and_extremes(
    device: str, draw: Arrays, b: int, shape: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    model, draw = MLP(shape, 3, widths), draw.on(device)
    params = draw_params(model, draw)
    for x in (draw.normal(b, *shape), draw.extreme(b, *shape)):
        logits, grads = hold_to_contract(*pair_of(model, x), {"params": params})
        assert logits.shape == (b, 3)
        assert grads.layout == params.layout


def test_it_is_its_formula(device: str) -> None:
    """Three lines of NumPy."""
    model, draw = MLP((2, 3, 1), 4, (5, 7)), Arrays(0, device=device)
    x, params = draw.normal(6, 2, 3, 1), draw_params(model, draw)
    p = {name: to_host(params[name]) for name in params}
    h = np.maximum(to_host(x).reshape(6, 6) @ p["dense1.W"] + p["dense1.b"], 0)
    h = np.maximum(h @ p["dense2.W"] + p["dense2.b"], 0)
    expected = h @ p["head.W"] + p["head.b"]
    np.testing.assert_allclose(to_host(model.forward(x, params, {})[0]), expected, rtol=1e-12)


def test_it_starts_undecided_and_alive(device: str) -> None:
    """He's variance: numbers neither fade nor grow from layer to layer."""
    model = MLP((20, 20, 1), 10, (200, 200, 200))
    params, state = model.init(np.random.default_rng(0), np.float64)
    roles = {entry.name: entry.role for entry in params.layout.entries}
    assert (roles["dense1.W"], roles["dense3.b"], roles["head.W"], roles["head.b"]) == (
        "matrix", "vector", "head", "vector",
    )  # fmt: skip
    assert state == {}
    assert model.state_layout().entries == ()
    assert str(model) == "MLP: 3 dense layers with ReLU"
    for name, variance in {"dense1": 2 / 400, "dense2": 2 / 200, "dense3": 2 / 200, "head": 1 / 200}.items():
        assert params[f"{name}.W"].var() == pytest.approx(variance, rel=0.1)  # three standard deviations
        assert not params[f"{name}.b"].any()
    logits, cache, _ = model.forward(Arrays(0).normal(50, 20, 20, 1), params, state)
    for layer in cache.layers:
        assert 0.7 < np.sqrt((layer.y**2).mean()) < 1.4
    assert 0.5 < logits.std() < 2


def test_every_matrix_is_drawn_anew_and_from_the_given_generator() -> None:
    model = MLP((6,), 6, (6, 6))
    one, other = (model.init(np.random.default_rng(seed))[0] for seed in (0, 1))
    matrices = [name for name in one if name.endswith(".W")]
    assert len({np.sign(one[name]).tobytes() for name in matrices}) == 3
    assert all((one[name] != other[name]).all() for name in matrices)


def test_the_articles_network_on_its_pictures() -> None:
    """Dense(128), Dense(64), Dense(10) on 28×28×1: the size that anybody's framework says, and multiply-adds."""
    model = MLP((28, 28, 1), 10)
    params, _ = model.init(np.random.default_rng(0))
    assert params.flat.size == 109_386
    parts = {part.name: part for part in model.parts(params)}
    assert list(parts) == ["input", "dense1", "dense2", "head"]
    assert sum(part.multiply_adds for part in parts.values()) == 784 * 128 + 128 * 64 + 64 * 10
    assert parts["dense2"].shape == (64,)
    assert parts["input"].shape == (28, 28, 1)


@pytest.mark.parametrize(
    "fields", [{"input_shape": ()}, {"input_shape": (4, 0)}, {"classes": 0}, {"widths": (4, 0)}], ids=str
)
def test_sizes_below_one_are_refused(fields: dict[str, Any]) -> None:
    all_fields: dict[str, Any] = {"input_shape": (4,), "classes": 2} | fields
    with pytest.raises(ValueError, match="must be at least 1"):
        MLP(**all_fields)


def test_an_input_that_does_not_fit_is_refused() -> None:
    model = MLP((4, 3), 2)
    params, _ = model.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"batches of shape \(B, 4, 3\), got \(2, 12\)"):
        model.forward(np.zeros((2, 12), np.float32), params, {})
