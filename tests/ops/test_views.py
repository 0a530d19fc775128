from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, to_device, to_host
from stg_np.gradcheck import check_pair
from stg_np.ops.views import patches_backward, patches_forward, shuffled, transpose_grid, with_noise
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, FLOAT64_ARRAYS, SEEDS, Arrays, B, D, examples

SIDES = st.integers(1, 3)
PATCHES = st.tuples(SIDES, SIDES)
GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 4))


def image_shape(grid: tuple[int, int], patch: tuple[int, int], channels: int) -> tuple[int, int, int]:
    return grid[0] * patch[0], grid[1] * patch[1], channels


def pair(shape: tuple[int, int, int], patch: tuple[int, int]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(images: Array) -> tuple[Array, None]:
        return patches_forward(images, *patch), None

    return forward, lambda dx, cache: (patches_backward(dx, shape, *patch),)


@pytest.mark.numbers
@examples(0.2)
@given(draw=FLOAT64_ARRAYS, b=B, grid=PATCHES, patch=PATCHES, c=SIDES, seed=SEEDS)
def test_gradient(
    device: str, draw: Arrays, b: int, grid: tuple[int, int], patch: tuple[int, int], c: int, seed: int
) -> None:
    shape = image_shape(grid, patch, c)
    images = draw.on(device).normal(b, *shape)
    check_pair(*pair(shape, patch), {"images": images}, seed=seed).assert_ok()


@examples(0.5)
@given(draw=ARRAYS, b=EMPTY_B, grid=GRIDS, patch=PATCHES, c=SIDES)
def test_backward_is_the_inverse(
    device: str, draw: Arrays, b: int, grid: tuple[int, int], patch: tuple[int, int], c: int
) -> None:
    shape = image_shape(grid, patch, c)
    images = draw.on(device).normal(b, *shape)
    x, (back,) = hold_to_contract(*pair(shape, patch), {"images": images})
    assert x.shape == (b, grid[0] * grid[1], patch[0] * patch[1] * c)
    np.testing.assert_array_equal(to_host(back), to_host(images))


@given(draw=ARRAYS, grid=GRIDS, patch=PATCHES, c=SIDES)
def test_step_by_step(device: str, draw: Arrays, grid: tuple[int, int], patch: tuple[int, int], c: int) -> None:
    """Patch after patch, row by row, cut with plain slices."""
    images = draw.on(device).normal(2, *image_shape(grid, patch, c))
    x, host = to_host(patches_forward(images, *patch)), to_host(images)
    for row in range(grid[0]):
        for column in range(grid[1]):
            top, left = row * patch[0], column * patch[1]
            cut = host[:, top : top + patch[0], left : left + patch[1]].reshape(2, -1)
            np.testing.assert_array_equal(x[:, row * grid[1] + column], cut)


def test_rows_and_pixels_keep_the_order_of_memory(device: str) -> None:
    images = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    for patch, shape in (((1, 4), (2, 3, 20)), ((1, 1), (2, 12, 5)), ((3, 4), (2, 1, 60))):
        x = to_host(patches_forward(to_device(images, device), *patch))
        np.testing.assert_array_equal(x, images.reshape(shape))


@pytest.mark.parametrize("patch", [(2, 1), (1, 2), (4, 1)])
def test_patches_that_do_not_fit(device: str, patch: tuple[int, int]) -> None:
    images = to_device(np.zeros((1, 3, 5, 1)), device)
    with pytest.raises(ValueError, match=rf"a 3×5 picture cannot be cut into {patch[0]}×{patch[1]} patches"):
        patches_forward(images, *patch)


@given(draw=ARRAYS, b=EMPTY_B, grid=GRIDS, d=D)
def test_transposed_grid(device: str, draw: Arrays, b: int, grid: tuple[int, int], d: int) -> None:
    """A reordering of the steps: from row by row to column by column, and its own inverse with the sides swapped."""
    rows, columns = grid
    x = draw.on(device).normal(b, rows * columns, d)
    turned = transpose_grid(x, grid)
    order = [row * columns + column for column in range(columns) for row in range(rows)]
    np.testing.assert_array_equal(to_host(turned), to_host(x)[:, order])
    np.testing.assert_array_equal(to_host(transpose_grid(turned, (columns, rows))), to_host(x))


@pytest.mark.numbers
@examples(0.1)
@given(draw=FLOAT64_ARRAYS, grid=GRIDS, d=D, seed=SEEDS)
def test_transposed_grid_gradient(device: str, draw: Arrays, grid: tuple[int, int], d: int, seed: int) -> None:
    x = draw.on(device).normal(2, grid[0] * grid[1], d)
    forward = partial(transpose_grid, grid=grid)
    check_pair(
        lambda x: (forward(x), None), lambda dy, cache: (transpose_grid(dy, grid[::-1]),), {"x": x}, seed=seed
    ).assert_ok()


def test_shuffled_steps_are_the_same_steps_in_one_order(device: str) -> None:
    x = np.arange(2 * 30 * 2.0).reshape(2, 30, 2)
    y = to_host(shuffled(to_device(x, device)))
    order = y[0, :, 0] / 2
    assert sorted(order) == list(range(30))
    assert (order != np.arange(30)).sum() > 20
    np.testing.assert_array_equal(y, x[:, order.astype(int)])


def test_noise_follows_the_steps_and_is_the_same_for_all(device: str) -> None:
    x = np.ones((3, 4, 5), np.float32)
    y = to_host(with_noise(to_device(x, device), 200))
    assert y.shape == (3, 204, 5)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y[:, :4], x)
    np.testing.assert_array_equal(y[0, 4:], y[2, 4:])
    assert abs(y[0, 4:].mean()) < 0.1
    assert abs(y[0, 4:].std() - 1) < 0.1
