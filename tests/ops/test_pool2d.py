from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import to_device, to_host
from stg_np.gradcheck import check_pair
from stg_np.ops.pool2d import (
    average_pool2d_backward,
    average_pool2d_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, SEEDS, Arrays, B, examples

GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 3))
SIDES = st.integers(1, 3)
POOLS: dict[str, Any] = {
    "max": (max_pool2d_forward, max_pool2d_backward, np.max),
    "average": (average_pool2d_forward, average_pool2d_backward, np.mean),
}
NAMES = st.sampled_from(list(POOLS))


@pytest.mark.numbers
@examples(0.5)
@given(name=NAMES, b=B, grid=GRIDS, side=SIDES, c=SIDES, seed=SEEDS)
def test_gradient(device: str, name: str, b: int, grid: tuple[int, int], side: int, c: int, seed: int) -> None:
    forward, backward, _ = POOLS[name]
    shape = (b, grid[0] * side, grid[1] * side, c)
    apart = np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape) / 50  # far from the kinks
    inputs = {"x": to_device(apart, device)}
    check_pair(partial(forward, side=side), backward, inputs, seed=seed).assert_ok()


@examples(0.5)
@given(name=NAMES, draw=ARRAYS, b=EMPTY_B, grid=GRIDS, side=SIDES, c=SIDES)
def test_contract_and_values(
    device: str, name: str, draw: Arrays, b: int, grid: tuple[int, int], side: int, c: int
) -> None:
    forward, backward, reduce = POOLS[name]
    draw.on(device)
    for make in (draw.normal, draw.extreme):
        x = make(b, grid[0] * side, grid[1] * side, c)
        y, dx = hold_to_contract(partial(forward, side=side), backward, {"x": x})
        assert dx.shape == x.shape
        windows = to_host(x).reshape(b, grid[0], side, grid[1], side, c)
        np.testing.assert_allclose(to_host(y), reduce(windows, (2, 4)), rtol=1e-6, atol=1e-6)


@examples(0.5)
@given(draw=ARRAYS, grid=GRIDS, side=SIDES, c=SIDES)
def test_ties_give_a_subgradient(device: str, draw: Arrays, grid: tuple[int, int], side: int, c: int) -> None:
    """Only maxima receive, none receives more than its window gives, and all of it arrives: a convex combination."""
    x = draw.on(device).extreme(2, grid[0] * side, grid[1] * side, c)  # three values: most windows have ties
    y, cache = max_pool2d_forward(x, side=side)
    dy = draw.uniform(1, 2, *y.shape)
    dx = to_host(max_pool2d_backward(dy, cache)).reshape(2, grid[0], side, grid[1], side, c)
    received = dx / to_host(dy)[:, :, None, :, None]
    lower = to_host(x).reshape(dx.shape) < to_host(y)[:, :, None, :, None]
    assert not received[lower].any()
    assert (received >= 0).all()
    np.testing.assert_allclose(received.sum((2, 4)), np.ones(y.shape), rtol=1e-6)


def test_equal_pixels_share_equally(device: str) -> None:
    x = to_device(np.array([[3.0, 1.0, 2.0, 2.0], [3.0, 0.0, 2.0, 2.0]]).reshape(1, 2, 4, 1), device)
    y, cache = max_pool2d_forward(x)
    np.testing.assert_array_equal(to_host(y).ravel(), [3, 2])
    dx = to_host(max_pool2d_backward(y * 0 + 1, cache))
    np.testing.assert_array_equal(dx[0, ..., 0], [[1 / 2, 0, 1 / 4, 1 / 4], [1 / 2, 0, 1 / 4, 1 / 4]])


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("shape", [(1, 3, 4, 1), (1, 4, 3, 1)])
def test_refuses_a_map_that_the_windows_do_not_tile(device: str, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"a {shape[1]}×{shape[2]} map cannot be cut into windows of 2×2"):
        POOLS[name][0](to_device(np.zeros(shape), device))
