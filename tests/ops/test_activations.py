from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from stg_np.backend import Array, to_device, to_host
from stg_np.gradcheck import check_pair
from stg_np.ops.activations import GELU, IDENTITY, RELU, SIGMOID, TANH, Activation
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, FLOAT64_ARRAYS, SEEDS, Arrays, B, D, T, examples

ALL = {"sigmoid": SIGMOID, "tanh": TANH, "identity": IDENTITY, "relu": RELU, "gelu": GELU}
BY_DEFINITION: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "identity": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: x / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) if x > -9 else 0.0,
}
every_activation = pytest.mark.parametrize("name", ALL)


def pair(phi: Activation) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
        y = phi.forward(x)
        return y, (x, y)

    return forward, lambda dy, cache: (phi.backward(dy, *cache),)


@pytest.mark.numbers
@every_activation
@examples(0.2)
@given(draw=FLOAT64_ARRAYS, b=B, t=T, d=D, seed=SEEDS)
def test_gradient(name: str, device: str, draw: Arrays, b: int, t: int, d: int, seed: int) -> None:
    x = to_host(draw.normal(b, t, d))
    away_from_the_kink = to_device(x + np.copysign(0.1, x), device)
    check_pair(*pair(ALL[name]), {"x": away_from_the_kink}, seed=seed).assert_ok()


@every_activation
@examples(0.4)
@given(draw=ARRAYS, b=B, d=D)
def test_contract_and_extremes(name: str, device: str, draw: Arrays, b: int, d: int) -> None:
    for x in (draw.on(device).normal(b, d), draw.extreme(b, d)):
        y, (dx,) = hold_to_contract(*pair(ALL[name]), {"x": x})
        assert y.shape == dx.shape == x.shape


@every_activation
def test_values(name: str, device: str) -> None:
    x = np.linspace(-20, 20, 101)
    y = to_host(ALL[name].forward(to_device(x, device)))
    np.testing.assert_allclose(y, [BY_DEFINITION[name](value) for value in x], rtol=1e-12, atol=1e-15)


def test_sigmoid_reaches_its_limits_without_overflow(device: str) -> None:
    x = to_device(np.array([-1e4, 0.0, 1e4]), device)
    assert to_host(SIGMOID.forward(x)).tolist() == [0.0, 0.5, 1.0]


def test_relu_takes_zero_at_zero(device: str) -> None:
    x = to_device(np.zeros(3), device)
    assert to_host(RELU.backward(x + 1, x, x)).tolist() == [0.0, 0.0, 0.0]


def test_the_gelu_is_nearly_the_exact_one() -> None:
    """x Φ(x), Φ the distribution of normal numbers."""
    x = np.linspace(-6, 6, 201)
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x.tolist()]
    assert np.abs(GELU.forward(x) - exact).max() < 5e-4
