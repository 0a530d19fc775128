from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import to_host
from stg_np.checks import with_params
from stg_np.gradcheck import check_pair
from stg_np.ops.linear import LinearParams, flat_rows, linear_backward, linear_forward, matmul, outer_sum
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, FLOAT64_ARRAYS, SEEDS, Arrays, C, D, examples

FULL = st.sampled_from(((), (1,), (3,), (2, 3), (1, 1), (2, 1, 3)))
"""The axes before the last: none, the batch, batch and steps, …"""
LEADING = FULL | st.just((0,))
"""The batch may be empty."""
PAIR = with_params(linear_forward, linear_backward)


@pytest.mark.numbers
@examples(0.3)
@given(draw=FLOAT64_ARRAYS, leading=FULL, d=D, c=C, seed=SEEDS)
def test_gradient(device: str, draw: Arrays, leading: tuple[int, ...], d: int, c: int, seed: int) -> None:
    draw.on(device)
    params = LinearParams(draw.normal(d, c), draw.normal(c))
    check_pair(*PAIR, {"x": draw.normal(*leading, d), "params": params}, seed=seed).assert_ok()


@examples(0.5)
@given(draw=ARRAYS, leading=LEADING, d=D, c=C)
def test_contract_and_extremes(device: str, draw: Arrays, leading: tuple[int, ...], d: int, c: int) -> None:
    draw.on(device)
    for make in (draw.normal, draw.extreme):
        x, params = make(*leading, d), LinearParams(make(d, c), make(c))
        y, (dx, _) = hold_to_contract(*PAIR, {"x": x, "params": params})
        assert y.shape == (*leading, c)
        assert dx.shape == x.shape


@examples(0.5)
@given(draw=FLOAT64_ARRAYS, leading=LEADING, d=D, c=C)
def test_products_are_numpys(device: str, draw: Arrays, leading: tuple[int, ...], d: int, c: int) -> None:
    draw.on(device)
    x, W, dy = draw.normal(*leading, d), draw.normal(d, c), draw.normal(*leading, c)
    host_x, host_dy = to_host(x).reshape(-1, d), to_host(dy).reshape(-1, c)
    np.testing.assert_allclose(to_host(matmul(x, W)), to_host(x) @ to_host(W), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        to_host(outer_sum(x, dy)), np.einsum("nd,nc->dc", host_x, host_dy), rtol=1e-12, atol=1e-12
    )
    assert flat_rows(x).shape == host_x.shape


def test_refuses_another_width(device: str) -> None:
    draw = Arrays(0, device=device)
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., D\)"):
        linear_forward(draw.normal(2, 3), LinearParams(draw.normal(4, 5), draw.normal(5)))
