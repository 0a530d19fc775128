from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, to_device, to_host
from stg_np.checks import with_params
from stg_np.fast.choose import conv_pair
from stg_np.gradcheck import check_pair
from stg_np.ops.conv import ConvParams, conv2d_backward, conv2d_forward
from stg_np.workspace import Workspace
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, FLOAT64_ARRAYS, SEEDS, Arrays, B, examples

KERNELS = st.sampled_from((1, 3, 5))
SIDES = st.integers(1, 4)
"""Of pictures: smaller than the kernel, too."""
CHANNELS = st.integers(1, 3)
PAIR = with_params(conv2d_forward, conv2d_backward)


def by_definition(x: Array, W: Array, b: Array) -> Array:
    """One output pixel after the other: the window around it, cut off at the border, times the kernel."""
    B, height, width, _ = x.shape
    y = np.empty((B, height, width, len(b)))
    reach = len(W) // 2
    for row in range(height):
        for column in range(width):
            top, left = max(row - reach, 0), max(column - reach, 0)
            window = x[:, top : row + reach + 1, left : column + reach + 1]
            i, j = top - row + reach, left - column + reach
            kernel = W[i : i + window.shape[1], j : j + window.shape[2]]
            y[:, row, column] = np.einsum("nijc,ijcd->nd", window, kernel) + b
    return y


@pytest.mark.numbers
@examples(0.15)
@given(draw=FLOAT64_ARRAYS, b=B, height=SIDES, width=SIDES, k=KERNELS, c=CHANNELS, d=CHANNELS, seed=SEEDS)
def test_gradient(
    device: str, draw: Arrays, b: int, height: int, width: int, k: int, c: int, d: int, seed: int
) -> None:
    draw.on(device)
    params = ConvParams(draw.normal(k, k, c, d), draw.normal(d))
    check_pair(*PAIR, {"x": draw.normal(b, height, width, c), "params": params}, seed=seed).assert_ok()


@examples(0.5)
@given(draw=ARRAYS, b=EMPTY_B, height=SIDES, width=SIDES, k=KERNELS, c=CHANNELS, d=CHANNELS)
def test_contract_and_extremes(
    device: str, draw: Arrays, b: int, height: int, width: int, k: int, c: int, d: int
) -> None:
    draw.on(device)
    for make in (draw.normal, draw.extreme):
        inputs = {"x": make(b, height, width, c), "params": ConvParams(make(k, k, c, d), make(d))}
        y, (dx, _) = hold_to_contract(*PAIR, inputs)
        assert y.shape == (b, height, width, d)
        assert dx.shape == (b, height, width, c)


@given(draw=FLOAT64_ARRAYS, b=EMPTY_B, height=SIDES, width=SIDES, k=KERNELS, c=CHANNELS, d=CHANNELS)
def test_values_are_those_of_the_definition(
    device: str, draw: Arrays, b: int, height: int, width: int, k: int, c: int, d: int
) -> None:
    draw.on(device)
    x, params = draw.normal(b, height, width, c), ConvParams(draw.normal(k, k, c, d), draw.normal(d))
    y, _ = conv2d_forward(x, params)
    np.testing.assert_allclose(to_host(y), by_definition(*map(to_host, (x, *params))), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "W", "b", "message"),
    [
        ((1, 4, 4, 2), (2, 2, 2, 3), (3,), "odd side, got 2×2"),
        ((1, 4, 4, 2), (3, 1, 2, 3), (3,), "must be square with an odd side, got 3×1"),
        ((1, 4, 4, 2), (3, 3, 1, 3), (3,), "do not fit"),
        ((1, 4, 4, 2), (3, 3, 2, 3), (1,), "do not fit"),
        ((4, 4, 2), (3, 3, 2, 3), (3,), "do not fit"),
    ],
)
def test_refuses_what_does_not_fit(
    device: str, x: tuple[int, ...], W: tuple[int, ...], b: tuple[int, ...], message: str
) -> None:
    images, kernel, bias = (to_device(np.zeros(shape), device) for shape in (x, W, b))
    with pytest.raises(ValueError, match=message):
        conv2d_forward(images, ConvParams(kernel, bias))


@pytest.mark.parametrize("dtypes", [("f4", "f8", "f8"), ("f8", "f8", "f4"), ("u1", "f4", "f4"), ("i8", "i8", "i8")])
def test_dtypes_are_not_mixed(device: str, dtypes: tuple[str, ...]) -> None:
    """By the plain path and by the one that is chosen."""
    shapes = ((1, 4, 4, 2), (3, 3, 2, 3), (3,))
    x, W, b = (to_device(np.zeros(shape, dtype), device) for shape, dtype in zip(shapes, dtypes))
    for work in (None, Workspace()):
        with pytest.raises(TypeError, match="must be of one floating dtype"):
            conv_pair(x, work).forward(x, ConvParams(W, b))
