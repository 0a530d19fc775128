from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import to_device, to_host
from stg_np.gradcheck import check_pair
from stg_np.ops.pool import last_pool_backward, last_pool_forward, mean_pool_backward, mean_pool_forward
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, FLOAT64_ARRAYS, SEEDS, Arrays, B, D, T, examples

FORWARDS = st.floats(0, 1)
"""The share of the channels that walk forwards: none, some, all."""


@pytest.mark.numbers
@examples(0.3)
@given(draw=FLOAT64_ARRAYS, b=B, t=T, d=D, share=FORWARDS, seed=SEEDS)
def test_gradients(device: str, draw: Arrays, b: int, t: int, d: int, share: float, seed: int) -> None:
    inputs = {"x": draw.on(device).normal(b, t, d)}
    check_pair(mean_pool_forward, mean_pool_backward, inputs, seed=seed).assert_ok()
    last = partial(last_pool_forward, right_width=round(share * d))
    check_pair(last, last_pool_backward, inputs, seed=seed, name="last_pool").assert_ok()


@examples(0.5)
@given(draw=ARRAYS, b=EMPTY_B, t=T, d=D, share=FORWARDS)
def test_contract_and_extremes(device: str, draw: Arrays, b: int, t: int, d: int, share: float) -> None:
    last = partial(last_pool_forward, right_width=round(share * d))
    for x in (draw.on(device).normal(b, t, d), draw.extreme(b, t, d)):
        for forward, backward in ((mean_pool_forward, mean_pool_backward), (last, last_pool_backward)):
            y, dx = hold_to_contract(forward, backward, {"x": x})
            assert y.shape == (b, d)
            assert dx.shape == x.shape


def test_values(device: str) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    on_device = to_device(x, device)
    np.testing.assert_allclose(to_host(mean_pool_forward(on_device)[0]), x.mean(1), rtol=1e-15)
    y = to_host(last_pool_forward(on_device, 1)[0])
    np.testing.assert_array_equal(y, [[8, 1, 2, 3], [20, 13, 14, 15]])  # channel 0 ends at step 3, the others at 1
