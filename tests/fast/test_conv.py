"""The fast convolution against its oracle: both ways, every shape, the numbers and the memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array
from stg_np.checks import with_params
from stg_np.fast import conv as fast_conv
from stg_np.gradcheck import check_pair
from stg_np.ops import conv
from stg_np.ops.conv import ConvParams
from stg_np.workspace import Workspace
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, Arrays, examples

WAYS = ("winograd", "columns")
SIDES = st.integers(1, 10)
CHANNELS = st.sampled_from((1, 2, 3, 8))


def force(patch: pytest.MonkeyPatch, way: str, chunk_bytes: int = 1) -> None:
    """Take this way whatever the shape; by default with one picture per chunk."""
    patch.setattr(fast_conv, "choose", lambda x_shape, W_shape: way)
    patch.setattr(fast_conv, "CHUNK_BYTES", chunk_bytes)


def plain_passes(x: Array, dy: Array, params: ConvParams) -> list[Array]:
    y, cache = conv.conv2d_forward(x, params)
    dx, (dW, db) = conv.conv2d_backward(dy, cache, params)
    return [y, dx, dW, db]


def fast_passes(x: Array, dy: Array, params: ConvParams, work: Workspace | None = None) -> list[Array]:
    """In this workspace, or in a new one."""
    work = Workspace() if work is None else work
    y, cache = fast_conv.conv2d_forward(x, params, work=work)
    dx, (dW, db) = fast_conv.conv2d_backward(dy, cache, params, work=work)
    return [y, dx, dW, db]


def drawn(B: int, side: int, C_in: int, C_out: int, dtype: Any = np.float32) -> tuple[Array, Array, ConvParams]:
    """x, dy and the parameters, read-only."""
    draw = Arrays(0, dtype)
    x, dy = draw.normal(B, side, side, C_in), draw.normal(B, side, side, C_out)
    return x, dy, ConvParams(draw.normal(3, 3, C_in, C_out), draw.normal(C_out))


def worst_errors(x: Array, dy: Array, params: ConvParams) -> list[float]:
    """Of y, dx, dW, db: the largest difference between fast and plain, relative to the largest entry.

    Or to 1, the size of what was drawn, if that is larger: a sum may cancel.
    """
    fast, plain = fast_passes(x, dy, params), plain_passes(x, dy, params)
    for got, expected in zip(fast, plain):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    return [float(np.abs(f - p).max(initial=0) / np.abs(p).max(initial=1)) for f, p in zip(fast, plain)]


@given(
    draw=ARRAYS,
    b=st.integers(0, 5),
    height=SIDES,
    width=SIDES,
    c=CHANNELS,
    d=CHANNELS,
    k=st.sampled_from((1, 3, 5)),
    way=st.sampled_from(WAYS),
    chunk_bytes=st.sampled_from((1, 40_000, 1 << 30)),
)
def test_equals_the_plain_path(
    draw: Arrays, b: int, height: int, width: int, c: int, d: int, k: int, way: str, chunk_bytes: int
) -> None:
    k = 3 if way == "winograd" else k
    x, dy = draw.normal(b, height, width, c), draw.normal(b, height, width, d)
    params = ConvParams(draw.normal(k, k, c, d), draw.normal(d))
    with pytest.MonkeyPatch.context() as patch:
        force(patch, way, chunk_bytes)
        errors = worst_errors(x, dy, params)
    # with few numbers the largest can be small, and so the bar is not that of the sizes below
    bar = 1e-11 if draw.dtype is np.float64 else {"winograd": 1e-3, "columns": 1e-5}[way]
    assert max(errors) <= bar


@pytest.mark.parametrize("way", WAYS)
def test_a_chunk_leaves_the_results_of_those_before_alone(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, way)
    assert max(worst_errors(*drawn(5, 8, 3, 2, np.float64))) <= 1e-11


@pytest.mark.parametrize(("way", "bar"), [("winograd", 1e-4), ("columns", 1e-5)])
@pytest.mark.parametrize(("side", "channels"), [(32, 64), (16, 128), (8, 256), (7, 16)])
def test_float32_error_at_real_sizes(
    way: str, bar: float, side: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, way, fast_conv.CHUNK_BYTES)
    assert max(worst_errors(*drawn(4, side, channels, channels))) <= bar


@examples(0.2)
@given(draw=ARRAYS, b=st.integers(1, 3), height=SIDES, width=SIDES, way=st.sampled_from(WAYS))
def test_its_own_gradients_and_contract(draw: Arrays, b: int, height: int, width: int, way: str) -> None:
    pair = with_params(fast_conv.conv2d_forward, fast_conv.conv2d_backward, fast=True)
    x, params = draw.normal(b, height, width, 2), ConvParams(draw.normal(3, 3, 2, 3) / 4, draw.normal(3))
    with pytest.MonkeyPatch.context() as patch:
        force(patch, way)
        hold_to_contract(*pair, {"x": x, "params": params})
        report = check_pair(*pair, {"x": x.astype(float), "params": ConvParams(*(a.astype(float) for a in params))})
    report.assert_ok()
    assert report.error <= 1e-8


@pytest.mark.parametrize(
    ("x_shape", "W_shape", "way"),
    [
        ((64, 32, 32, 64), (3, 3, 64, 64), "winograd"),
        ((32, 8, 8, 256), (3, 3, 256, 256), "winograd"),
        ((32, 14, 14, 32), (3, 3, 32, 32), "winograd"),
        ((4, 8, 8, 8), (3, 3, 8, 8), "winograd"),  # the fewest channels and tiles, 16
        ((64, 6, 6, 64), (3, 3, 64, 64), "winograd"),  # 56 % of four tiles
        ((64, 5, 7, 64), (3, 3, 64, 64), "winograd"),  # 55 % of four tiles
        ((1, 4, 64, 8), (3, 3, 8, 8), "winograd"),  # one row of 16 tiles
        ((1, 64, 4, 8), (3, 3, 8, 8), "winograd"),  # one column
        ((4, 4, 8, 8), (3, 3, 8, 8), "columns"),  # 8 tiles, lying and standing
        ((4, 8, 4, 8), (3, 3, 8, 8), "columns"),
        ((64, 2, 4, 64), (3, 3, 64, 64), "columns"),  # half of the tile
        ((15, 4, 4, 64), (3, 3, 64, 64), "columns"),
        ((64, 32, 32, 7), (3, 3, 7, 64), "columns"),
        ((64, 32, 32, 64), (3, 3, 64, 7), "columns"),
        ((64, 32, 32, 3), (3, 3, 3, 64), "columns"),  # too few channels
        ((64, 32, 32, 64), (1, 1, 64, 64), "columns"),
        ((64, 32, 32, 64), (5, 5, 64, 64), "columns"),
        ((64, 5, 5, 64), (3, 3, 64, 64), "columns"),  # tiles of 8×8 over 5×5
        ((1, 8, 8, 256), (3, 3, 256, 256), "columns"),  # four tiles do not pay for the transform of the kernel
        ((0, 8, 8, 256), (3, 3, 256, 256), "columns"),
    ],
)
def test_the_choice(x_shape: tuple[int, ...], W_shape: tuple[int, ...], way: str) -> None:
    assert fast_conv.choose(x_shape, W_shape) == way


@pytest.mark.parametrize("way", WAYS)
def test_the_way_that_is_chosen_is_taken(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, params = np.ones((1, 4, 4, 2)), ConvParams(np.ones((3, 3, 2, 5)), np.ones(5))
    shapes = {(x.shape, params.W.shape): way}
    monkeypatch.setattr(fast_conv, "choose", lambda x_shape, W_shape: shapes[x_shape, W_shape])
    taken = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any) -> Any:
            taken.append(function.__name__)
            return function(*arguments)

        return note

    for name in (f"{way}_forward", f"{way}_backward"):
        monkeypatch.setattr(fast_conv, name, noted(getattr(fast_conv, name)))
    work = Workspace()
    y, cache = fast_conv.conv2d_forward(x, params, work=work)
    fast_conv.conv2d_backward(y, cache, params, work=work)
    assert taken == [f"{way}_forward", f"{way}_backward"]


@pytest.mark.parametrize("channels", [(2, 7), (7, 2)])
@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_cut_by_the_bytes_of_its_largest_arrays(
    way: str, channels: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns: k·k·C_in numbers per pixel, and a 1. Winograd: 36 per tile and channel; as large as U at least."""
    asked = []
    chunks = fast_conv.chunks

    def note(*arguments: int) -> list[slice]:
        asked.append(arguments)
        return chunks(*arguments)

    force(monkeypatch, way)
    monkeypatch.setattr(fast_conv, "chunks", note)
    C_in, C_out = channels
    params = ConvParams(np.ones((3, 3, C_in, C_out)), np.ones(C_out))
    x, dy = np.ones((3, 5, 9, C_in)), np.ones((3, 5, 9, C_out))
    fast_passes(x, dy, params)
    tiles = 2 * 3
    wanted = (3, 5 * 9 * (9 * C_in + 1) * 8) if way == "columns" else (3, 36 * tiles * 7 * 8, 36 * C_in * C_out * 8)
    assert asked == [wanted, wanted]


@pytest.mark.parametrize(
    ("pictures", "picture_bytes", "least_bytes", "borders"),
    [
        (5, 4, 0, [0, 2, 4, 5]),
        (5, 3, 0, [0, 3, 5]),
        (7, 4, 12, [0, 3, 5, 7]),
        (5, 1, 0, [0, 5]),
        (3, 100, 0, [0, 1, 2, 3]),
        (0, 4, 0, [0, 0]),
    ],
)
def test_chunks_are_equal_runs_that_fit(
    pictures: int, picture_bytes: int, least_bytes: int, borders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_conv, "CHUNK_BYTES", 9)
    assert fast_conv.chunks(pictures, picture_bytes, least_bytes) == [slice(*pair) for pair in pairwise(borders)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [7, 8])
def test_arrays_of_any_layout(side: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, way, 1 << 30)
    x, dy, (W, b) = drawn(3, side, 4, 5)
    expected = fast_passes(x, dy, ConvParams(W, b))
    every_second = np.repeat(x, 2, 3)[..., ::2], np.repeat(dy, 2, 0)[::2], ConvParams(np.repeat(W, 2, 1)[:, ::2], b)
    in_fortran_order = np.asfortranarray(x), np.asfortranarray(dy), ConvParams(np.asfortranarray(W), b)
    for others in (every_second, in_fortran_order):
        for got, wanted in zip(fast_passes(*others), expected):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_pictures_of_whole_tiles_are_not_copied() -> None:
    picture, work = np.zeros((2, 8, 12, 3)), Workspace()
    assert fast_conv.padded_to_tiles(picture, work) is picture
    assert fast_conv.with_whole_tiles(picture, work) is picture
    assert work.nbytes == 0


def test_the_same_bits_every_time() -> None:
    arguments = drawn(5, 8, 16, 16)
    for first, second in zip(fast_passes(*arguments), fast_passes(*arguments)):
        np.testing.assert_array_equal(first, second)


class Poisoned(Workspace):
    """Hands out memory full of NaN."""

    def empty(self, name: str, shape: Sequence[int], dtype: Any) -> Array:
        array = super().empty(name, shape, dtype)
        array.fill(np.nan)
        return array


@pytest.mark.parametrize("kind", [Workspace, Poisoned])
@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("way", WAYS)
def test_a_workspace_changes_no_bit(
    way: str, side: int, kind: type[Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, way, 1 << 15)  # chunks of two sizes
    arguments, work = drawn(5, side, 4, 3), kind()
    expected = fast_passes(*arguments)
    for _ in range(2):
        for fresh, kept in zip(expected, fast_passes(*arguments, work)):
            np.testing.assert_array_equal(fresh, kept)
        fast_passes(*drawn(3, 9, 2, 5), work)  # another layer leaves its numbers there


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("way", WAYS)
def test_only_the_gradients_of_the_parameters_are_new_memory(
    way: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    force(monkeypatch, way, 1 << 18)
    arguments, work = drawn(64, side, 32, 32), Workspace()
    peaks, results = [], []
    for _ in range(2):
        tracemalloc.start()
        results.append(fast_passes(*arguments, work))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    (y, dx, dW, db), again = results
    shared = [np.shares_memory(first, second) for first, second in zip((y, dx, dW, db), again)]
    assert shared == [True, True, False, False]
    assert peaks[1] - dW.nbytes - db.nbytes < 0.05 * peaks[0]


def test_the_input_gradient_leaves_the_output_alone() -> None:
    x, dy, params = drawn(8, 8, 16, 16)
    work = Workspace()
    y, cache = fast_conv.conv2d_forward(x, params, work=work)
    before = y.copy()
    fast_conv.conv2d_backward(dy, cache, params, work=work)
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("way", WAYS)
def test_intermediate_memory_does_not_grow_with_the_batch(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, way, 1 << 17)

    def overhead(B: int) -> int:
        x, dy, params = drawn(B, 8, 16, 16)
        tracemalloc.start()
        fast_passes(x, dy, params)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - x.nbytes - dy.nbytes  # what y and dx take

    assert overhead(112) < 1.2 * overhead(28)  # chunks of 14 pictures


def test_refuses_what_the_plain_path_refuses() -> None:
    x = np.zeros((1, 4, 4, 2))
    with pytest.raises(ValueError, match="odd side, got 2×2"):
        fast_conv.conv2d_forward(x, ConvParams(np.zeros((2, 2, 2, 3)), np.zeros(3)), work=Workspace())
    with pytest.raises(ValueError, match="do not fit"):
        fast_conv.conv2d_forward(x, ConvParams(np.zeros((3, 3, 1, 3)), np.zeros(3)), work=Workspace())
