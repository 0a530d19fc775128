from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, to_device, to_host
from stg_np.gradcheck import check_pair
from stg_np.ops.norm import RMSNormCache, rms_norm_backward, rms_norm_forward
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, FLOAT64_ARRAYS, SEEDS, Arrays, B, D, T, examples

EPSILON = st.sampled_from((1e-5, 0.1, 3.0))


def backward(dy: Array, cache: RMSNormCache) -> tuple[Array]:
    return (rms_norm_backward(dy, cache),)


@pytest.mark.numbers
@examples(0.3)
@given(draw=FLOAT64_ARRAYS, b=B, t=T, d=st.integers(2, 5), epsilon=EPSILON, seed=SEEDS)
def test_gradient(device: str, draw: Arrays, b: int, t: int, d: int, epsilon: float, seed: int) -> None:
    x = to_host(draw.normal(b, t, d))
    order_one = to_device(x + np.copysign(0.5, x), device)  # y = x / |x| turns sharply near zero
    check_pair(partial(rms_norm_forward, epsilon=epsilon), backward, {"x": order_one}, seed=seed).assert_ok()


@pytest.mark.numbers
@examples(0.1)
@given(draw=FLOAT64_ARRAYS, b=B, seed=SEEDS)
def test_gradient_of_a_single_feature(device: str, draw: Arrays, b: int, seed: int) -> None:
    check_pair(
        partial(rms_norm_forward, epsilon=1.0), backward, {"x": draw.on(device).normal(b, 1)}, seed=seed
    ).assert_ok()


@examples(0.5)
@given(draw=ARRAYS, b=EMPTY_B, t=T, d=D)
def test_contract_and_extremes(device: str, draw: Arrays, b: int, t: int, d: int) -> None:
    for x in (draw.on(device).normal(b, t, d), draw.extreme(b, t, d)):
        y, (dx,) = hold_to_contract(rms_norm_forward, backward, {"x": x})
        assert y.shape == dx.shape == x.shape


@given(draw=FLOAT64_ARRAYS, t=T, d=D, epsilon=EPSILON)
def test_values_are_those_of_the_definition(device: str, draw: Arrays, t: int, d: int, epsilon: float) -> None:
    x = draw.on(device).normal(2, t, d)
    wanted = to_host(x) / np.sqrt(np.mean(to_host(x) ** 2, -1, keepdims=True) + epsilon)
    np.testing.assert_allclose(to_host(rms_norm_forward(x, epsilon=epsilon)[0]), wanted, rtol=1e-12)


def test_scale_does_not_matter_and_zeros_stay_zeros(device: str) -> None:
    x = Arrays(0, device=device).normal(3, 4)
    one, thousand = (to_host(rms_norm_forward(factor * x, epsilon=0.0)[0]) for factor in (1.0, 1000.0))
    np.testing.assert_allclose(one, thousand, rtol=1e-12)
    np.testing.assert_allclose(np.mean(one**2, -1), np.ones(3), rtol=1e-12)
    zeros, cache = rms_norm_forward(0 * x)
    assert not to_host(zeros).any()
    assert np.isfinite(to_host(rms_norm_backward(x, cache))).all()


def test_epsilon_is_a_hundred_thousandth(device: str) -> None:
    _, cache = rms_norm_forward(to_device(np.zeros((2, 3)), device))
    np.testing.assert_allclose(to_host(cache.scale), np.full((2, 1), 1e-5**-0.5), rtol=1e-12)
