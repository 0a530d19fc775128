"""The layer around a cell: with a cell that a person can compute in the head, every order and path shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, get_xp, to_device, to_host
from stg_np.checks import layer_pair
from stg_np.gradcheck import check_pair
from stg_np.layers.spec import Cell, Direction, STMKind, WalkSpec, time_scales
from stg_np.layers.walk import empty_memory, layer_backward, layer_forward
from stg_np.ops.norm import rms_norm_forward
from tests.strategies import SEEDS, Arrays, B, H, examples

BOTH: tuple[Direction, ...] = ("right", "left")


def sum_so_far(x: Array, m_0: Array, scale: float) -> tuple[tuple[Array, Array], Any]:
    """A cell with one memory that adds up all features of the steps behind it, times the walk's own ``scale``."""
    xp = get_xp(x)
    y = scale * xp.cumsum(x.sum(-1, keepdims=True), 1) + m_0[:, None]
    return (y, y[:, -1]), x.shape


def sum_so_far_backward(dy: Array, dm_T: Array, shape: tuple[int, ...], scale: float) -> tuple[Array, Array, str]:
    xp = get_xp(dy)
    ahead = xp.cumsum(dy[:, ::-1], 1)[:, ::-1]
    return xp.broadcast_to(scale * ahead, shape), dy.sum(1) + dm_T, f"gradient of {scale}"


SUM = Cell(sum_so_far, sum_so_far_backward, empty_memory)


def walked(h: list[float], spec: WalkSpec, scales: tuple[float, ...]) -> list[list[float]]:
    """The output (T, width) of one example with one feature."""
    y, _ = layer_forward(np.array(h)[None, :, None], scales, spec, cell=SUM)
    rows: list[list[float]] = y[0].tolist()
    return rows


def test_each_walk_has_its_direction_its_channels_and_its_parameters() -> None:
    spec = WalkSpec(2, BOTH, (1, 3), adds=False)
    assert walked([1, 2, 4], spec, (1.0, 10.0)) == [[1, 70], [3, 60], [7, 40]]
    assert walked([1, 2, 4], WalkSpec(1, ("left",), (1, 3), adds=False), (1.0,)) == [[7], [6], [4]]


def test_a_turned_layer_goes_down_the_columns_and_gives_the_steps_back_in_their_places() -> None:
    """The grid [[1, 2, 4], [8, 16, 32]]: down the columns the sums are 1, 9, 11, 27, 31, 63."""
    spec = WalkSpec(1, ("right",), (2, 3), turned=True, adds=False)
    assert walked([1, 2, 4, 8, 16, 32], spec, (1.0,)) == [[1], [11], [31], [9], [27], [63]]


def test_a_layer_that_adds_reads_its_input_normalised() -> None:
    h = np.array([[[3.0, -1.0], [0.5, 2.0]]])
    y, _ = layer_forward(h, (1.0, 1.0), WalkSpec(2, BOTH, (1, 2)), cell=SUM)
    read = rms_norm_forward(h)[0].sum(-1)
    expected = h + np.array([[[read[0, 0], read.sum()], [read.sum(), read[0, 1]]]])
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_the_gradients_go_to_the_walks_that_they_come_from() -> None:
    spec = WalkSpec(2, BOTH, (1, 3), adds=False)
    h = np.array([[[1.0], [2.0], [4.0]]])
    _, cache = layer_forward(h, (1.0, 10.0), spec, cell=SUM)
    dy = np.array([[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])  # the first step of either walk
    dx, dparams = layer_backward(dy, cache, (1.0, 10.0), spec, cell=SUM)
    assert dx[0, :, 0].tolist() == [1, 0, 10]  # a first step has seen itself only
    assert dparams == ["gradient of 1.0", "gradient of 10.0"]


@examples(0.3)
@given(
    seed=SEEDS, b=B, h=H, rows=st.integers(1, 3), columns=st.integers(1, 3), turned=st.booleans(), adds=st.booleans(),
    directions=st.sampled_from((("right",), ("left",), BOTH, ("left", "right"))), diagonal=st.booleans(),
)  # fmt: skip
def test_gradient_with_an_stm(
    device: str, seed: int, b: int, h: int, rows: int, columns: int, turned: bool, adds: bool,
    directions: tuple[Direction, ...], diagonal: bool,
) -> None:  # fmt: skip
    """In float64 alone: how many digits of float32 a sum loses where its terms cancel is luck."""
    spec = WalkSpec(h * len(directions), directions, (rows, columns), turned, adds, dropout=0.3)
    draw = Arrays(seed, device=device)
    x = draw.normal(b, rows * columns, spec.width)
    x = x + get_xp(x).sign(x)  # away from 0, where the norm's derivatives have no bound
    params = tuple(draw.stm(spec.width, h, recurrent=False, diagonal=diagonal) for _ in directions)
    pair = layer_pair(spec, STMKind(diagonal=diagonal), fast=False)
    report = check_pair(*pair, {"h": x, "params": params}, seed=seed, directions=1, jacobian=False, float32=False)
    report.assert_ok()


@pytest.mark.parametrize(
    ("shape", "adds", "message"),
    [
        ((2, 5, 4), True, r"walks 6 steps of shape \(B, 6, 4\), got \(2, 5, 4\)"),
        ((2, 6, 3), True, r"\(B, 6, 4\), got \(2, 6, 3\)"),
        ((2, 7, 3), False, r"\(B, 6, D\), got \(2, 7, 3\)"),
        ((6, 4), True, "got"),
        ((4, 6), False, r"\(B, 6, D\), got \(4, 6\)"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(device: str, shape: tuple[int, ...], adds: bool, message: str) -> None:
    spec = WalkSpec(4, BOTH, (2, 3), adds=adds)
    with pytest.raises(ValueError, match=message):
        layer_forward(to_device(np.zeros(shape), device), (1.0, 1.0), spec, cell=SUM)


def test_the_memory_starts_empty_like_the_input(device: str) -> None:
    memory = empty_memory(to_device(np.ones((3, 5, 2), np.float32), device), 4)
    assert to_host(memory).tolist() == [[0.0] * 4] * 3
    assert memory.dtype == np.float32


def test_a_time_scale_beyond_float32_is_a_number() -> None:
    b = np.array([0, 0, -100, -100, 0, 0, 0, 0], np.float32)
    np.testing.assert_allclose(time_scales(b), np.full(2, np.exp(100.0)), rtol=1e-6)
