"""Muon's iteration against the SVD."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, to_device, to_host
from stg_np.optim import Muon, orthogonalised
from stg_np.params import Entry, Layout, Params


def with_singular_values(rng: np.random.Generator, rows: int, columns: int, s: Array) -> tuple[Array, Array, Array]:
    """A matrix ``U S Vᵀ`` with orthonormal U (rows, k) and V (columns, k); and U, V."""
    u, _ = np.linalg.qr(rng.standard_normal((rows, len(s))))
    v, _ = np.linalg.qr(rng.standard_normal((columns, len(s))))
    return (u * s) @ v.T, u, v


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e6]))
def test_singular_values_come_near_one_and_the_directions_stay(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    """For every aspect ratio, and singular values that differ by a factor of up to 50."""
    rng = np.random.default_rng(seed)
    s = np.exp(rng.uniform(np.log(0.02), 0, min(rows, columns)))
    matrix, u, v = with_singular_values(rng, rows, columns, scale * s)
    result = orthogonalised(matrix)
    assert result.shape == matrix.shape
    inner = u.T @ result @ v  # diagonal exactly if the singular vectors are still U and V
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-9)
    assert np.diag(inner).min() >= 0.5
    assert np.diag(inner).max() <= 1.5
    np.testing.assert_allclose(result, u @ inner @ v.T, atol=1e-9)  # and there is nothing beside them


@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (128, 512), (512, 128), (1, 50), (50, 1), (48, 64)])
def test_gaussian_matrices_in_float32(shape: tuple[int, int], device: str) -> None:
    matrix = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    result = to_host(orthogonalised(to_device(matrix, device)))
    assert result.dtype == np.float32
    s = np.linalg.svd(result, compute_uv=False)
    assert s.min() >= 0.5
    assert s.max() <= 1.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_zero_matrix_stays_zero(dtype: Any) -> None:
    np.testing.assert_array_equal(orthogonalised(np.zeros((3, 2), dtype)), np.zeros((3, 2)))


def test_more_rounds_do_not_leave_the_band_and_no_round_only_scales() -> None:
    matrix, _, _ = with_singular_values(np.random.default_rng(8), 5, 4, np.array([1.0, 0.5, 0.2, 0.1]))
    np.testing.assert_allclose(orthogonalised(matrix, 0), matrix / np.linalg.norm(matrix), rtol=1e-11)
    np.testing.assert_array_equal(orthogonalised(matrix), orthogonalised(matrix, 5))
    s = np.linalg.svd(orthogonalised(matrix, 12), compute_uv=False)
    assert s.min() > 0.5
    assert s.max() < 1.5


# --- Kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (1, 1, 5, 3), (2, 3, 1, 40), (5, 5, 3, 2)])
def test_a_kernel_moves_as_the_matrix_of_its_convolution(shape: tuple[int, ...], device: str) -> None:
    """Windows, each laid out as a row of k·k·c numbers, times the step: all their directions weigh about the same."""
    layout = Layout((Entry("K", shape, "kernel"),))
    rng = np.random.default_rng(0)
    start, gradient = (Params(layout, to_device(rng.standard_normal(layout.size), device)) for _ in range(2))
    rule = Muon(learning_rate=1.0, weight_decay=0.0, momentum=0.0)
    after, _ = rule.update(gradient, rule.init(start), start, 1.0)
    step = to_host(start["K"] - after["K"])
    windows = rng.standard_normal((100, *shape[:3]))
    outputs = np.einsum("nijc,ijcd->nd", windows, step)
    matrix, *_ = np.linalg.lstsq(windows.reshape(100, -1), outputs, rcond=None)  # what maps one to the other
    s = np.linalg.svd(matrix, compute_uv=False) / (0.2 * np.sqrt(max(matrix.shape)))
    assert s.min() >= 0.5
    assert s.max() <= 1.5


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("shape", [(), (4,)])
def test_a_vector_is_refused_by_name(shape: tuple[int, ...], place: int) -> None:
    entries = [Entry(name, (2, 2), "matrix") for name in ("V", "W", "X")]
    layout = Layout((*entries[:place], Entry("b", shape, "vector"), *entries[place:]))
    with pytest.raises(ValueError, match=r"b has shape .*: use ByRole"):
        Muon().init(Params(layout, np.zeros(layout.size)))


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (6, 4)])
def test_with_a_fixed_norm_only_the_direction_of_the_weights_counts(device: str, shape: tuple[int, ...]) -> None:
    """The step of weights ten times as long is the same, and its length is the learning rate's."""
    rng, layout = np.random.default_rng(0), Layout((Entry("W", shape, "kernel"),))
    weights, gradient = (Params(layout, to_device(rng.standard_normal(layout.size), device)) for _ in range(2))
    rule = Muon(0.25, 0.0, 0.0, fixed_norm=True)
    one, ten = (
        to_host(rule.update(gradient, rule.init(weights), weights.with_flat(k * weights.flat), 1.0)[0].flat)
        for k in (1, 10)
    )
    np.testing.assert_allclose(ten, one, rtol=1e-9)
    start = to_host(weights.flat)
    start = start * np.sqrt(shape[-1]) / np.linalg.norm(start)
    turn = orthogonalised(to_host(gradient.flat).reshape(-1, shape[-1])).reshape(-1)
    np.testing.assert_allclose(one, start - 0.25 * turn, rtol=1e-6, atol=1e-9)
