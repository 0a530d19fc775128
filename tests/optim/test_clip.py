"""Clipping: exact, on both libraries, and not silent about what is not finite."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import to_host
from stg_np.optim import clip_by_norm
from stg_np.params import Entry, Layout, Params


def vector(values: Any, dtype: Any = np.float64) -> Params:
    flat = np.asarray(values, dtype)
    return Params(Layout((Entry("v", flat.shape, "vector"),)), flat)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_clipping_is_exact(size: int, seed: int, length: float, max_norm: float) -> None:
    flat = np.random.default_rng(seed).standard_normal(size)
    flat *= length / np.linalg.norm(flat)
    flat.flags.writeable = False
    clipped = clip_by_norm(vector(flat), max_norm).flat
    if length < 0.999 * max_norm:
        np.testing.assert_array_equal(clipped, flat)  # bit for bit
    wanted = min(length, max_norm)
    assert np.linalg.norm(clipped) == pytest.approx(wanted, rel=1e-12)
    np.testing.assert_allclose(clipped / wanted, flat / length, rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gradient_of_zero_is_fine(dtype: Any, xp: Any) -> None:
    zero = vector(np.zeros(3), dtype)
    clipped = clip_by_norm(zero.with_flat(xp.asarray(zero.flat)), 1.0)
    assert clipped.flat.dtype == dtype
    np.testing.assert_array_equal(to_host(clipped.flat), zero.flat)


@pytest.mark.parametrize("bad", [nan, inf, -inf, 1e30])  # the last one's square is too large for float32
def test_a_gradient_without_a_finite_length_becomes_nan(bad: float, xp: Any) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        clipped = clip_by_norm(vector([1.0, 2.0]).with_flat(xp.asarray(np.array([1.0, bad], np.float32))), 1.0)
    assert clipped.flat.dtype == np.float32
    assert np.isnan(to_host(clipped.flat)).all()


def test_the_host_does_not_wait(stand_in: Any, synchronisations: Any) -> None:
    with synchronisations() as waits:
        clip_by_norm(vector([1.0, 2.0]).with_flat(stand_in.ones(2)), 1.0)
    assert waits == []
