from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, to_device, to_host
from stg_np.gradcheck import check_pair
from stg_np.ops.dropout import dropout_backward, dropout_forward
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, FLOAT64_ARRAYS, SEEDS, Arrays, B, D, T, examples

RATES = st.sampled_from((0.0, 0.1, 0.5, 0.9))


def forward(x: Array, rate: float, seed: int) -> tuple[Array, Array]:
    return dropout_forward(x, rate, np.random.default_rng(seed))


def backward(dy: Array, mask: Array) -> tuple[Array]:
    return (dropout_backward(dy, mask),)


@pytest.mark.numbers
@examples(0.2)
@given(draw=FLOAT64_ARRAYS, b=B, t=T, d=D, rate=RATES, seed=SEEDS)
def test_gradient(device: str, draw: Arrays, b: int, t: int, d: int, rate: float, seed: int) -> None:
    x = draw.on(device).normal(b, t, d)
    check_pair(partial(forward, rate=rate, seed=seed), backward, {"x": x}, seed=seed).assert_ok()


@examples(0.5)
@given(draw=ARRAYS, b=EMPTY_B, d=D, rate=RATES, seed=SEEDS)
def test_contract_and_extremes(device: str, draw: Arrays, b: int, d: int, rate: float, seed: int) -> None:
    for x in (draw.on(device).normal(b, d), draw.extreme(b, d)):
        hold_to_contract(partial(forward, rate=rate, seed=seed), backward, {"x": x})


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeroes_at_its_rate_and_keeps_the_mean(device: str, rate: float, dtype: Any) -> None:
    count = 200_000
    y = to_host(forward(to_device(np.ones(count, dtype), device), rate, 0)[0])
    assert set(np.unique(y)) == {dtype(0), dtype(1) / dtype(1 - rate)}
    assert abs((y == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / count)  # five standard deviations
    assert abs(y.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / count)


def test_rate_zero_changes_nothing(device: str) -> None:
    x = to_device(np.arange(6.0).reshape(2, 3), device)
    np.testing.assert_array_equal(to_host(forward(x, 0.0, 0)[0]), to_host(x))


def test_rate_zero_keeps_even_a_draw_of_zero(device: str) -> None:
    class DrawsZero(np.random.Generator):
        def random(self, size: Any = None, dtype: Any = None, out: Any = None) -> Any:
            return np.zeros(size, dtype)

    y, _ = dropout_forward(to_device(np.ones(3), device), 0.0, DrawsZero(np.random.PCG64()))
    assert to_host(y).tolist() == [1.0, 1.0, 1.0]


def test_the_generator_alone_decides_the_mask(device: str) -> None:
    """Drawn on the host, so every device and every dtype sees the same mask."""
    masks = [
        to_host(forward(to_device(np.ones((8, 9), dtype), place), 0.5, seed)[1]) != 0
        for dtype, place, seed in ((np.float64, device, 7), (np.float32, device, 7), (np.float64, "cpu", 7))
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(masks[0], np.random.default_rng(7).random((8, 9), np.float32) >= 0.5)
    other = to_host(forward(to_device(np.ones((8, 9)), device), 0.5, 8)[1]) != 0
    assert (masks[0] != other).any()


def test_each_draw_of_one_generator_is_new(device: str) -> None:
    rng, x = np.random.default_rng(0), to_device(np.ones(100), device)
    first, second = (to_host(dropout_forward(x, 0.5, rng)[0]) for _ in range(2))
    assert (first != second).any()
