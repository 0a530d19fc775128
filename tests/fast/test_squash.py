"""The ways to gates and candidate: each equals the definition, and the processor's kernels choose one."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array
from stg_np.fast import squash
from stg_np.fast.squash import EXP_WAY, TANH_WAY, Way
from tests.strategies import ARRAYS, Arrays

WAYS = pytest.mark.parametrize("way", [TANH_WAY, EXP_WAY], ids=["tanh", "exp"])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def through(way: Way, a: Array, tanh_candidate: bool) -> Array:
    """What a way makes of pre-activations (4, …), without a warning."""
    chunk = a.copy()
    for gate, scale in zip(chunk, way.scales):
        gate *= scale
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        way.apply(chunk, tanh_candidate)
    return chunk


def defined(a: Array, tanh_candidate: bool) -> Array:
    """i, 1 − u, o, z in float64."""
    from scipy.special import expit  # here, so that only the process that runs this loads it

    a_i, a_u, a_o, a_z = a.astype(np.float64)
    return np.array([expit(a_i), expit(-a_u), expit(a_o), np.tanh(a_z) if tanh_candidate else a_z])


@WAYS
@given(draw=ARRAYS, steps=st.integers(0, 3), width=st.integers(1, 9), size=st.sampled_from((0.01, 1.0, 10.0)))
def test_equals_the_definition(way: Way, draw: Arrays, steps: int, width: int, size: float) -> None:
    a = draw.normal(4, steps, 2, width)
    a = a * a.dtype.type(size)
    for tanh_candidate in (True, False):
        got = through(way, a, tanh_candidate)
        assert got.dtype == a.dtype
        bound = 4 * np.finfo(a.dtype).eps  # of 1, the size of a gate
        np.testing.assert_allclose(got, defined(a, tanh_candidate), rtol=bound, atol=bound)


@WAYS
@DTYPES
def test_far_out_it_is_saturated_and_silent(way: Way, dtype: Any) -> None:
    far = np.array([-np.inf, -1e4, -800, -200, 200, 800, 1e4, np.inf], dtype)
    got = through(way, np.stack([far] * 4), True)
    below, above = np.zeros(4), np.ones(4)
    rising, falling = np.concatenate([below, above]), np.concatenate([above, below])
    np.testing.assert_allclose(got[:3], [rising, falling, rising], rtol=0, atol=1e-40)
    np.testing.assert_array_equal(got[3], 2 * rising - 1)


@WAYS
@DTYPES
def test_nan_stays_nan(way: Way, dtype: Any) -> None:
    assert np.isnan(through(way, np.full((4, 1, 1, 9), np.nan, dtype), True)).all()


@WAYS
def test_a_candidate_without_tanh_is_left_as_it_was(way: Way) -> None:
    a = np.linspace(-30, 30, 4 * 9, dtype=np.float32).reshape(4, 1, 1, 9)
    np.testing.assert_array_equal(through(way, a, False)[3], a[3])


@WAYS
def test_the_middle_is_exact(way: Way) -> None:
    got = through(way, np.zeros((4, 1, 1, 5), np.float32), True)
    np.testing.assert_array_equal(got, np.broadcast_to([[[[0.5]]], [[[0.5]]], [[[0.5]]], [[[0.0]]]], got.shape))


def kernels(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """A NumPy that says these float32 kernels."""

    def opt_func_info(func_name: str) -> dict[str, Any]:
        name = func_name.strip("^$")
        return {name: {"ff": {"current": found[name]}, "dd": {"current": "X86_V3"}}} if name in found else {}

    monkeypatch.setattr(np.lib, "introspect", SimpleNamespace(opt_func_info=opt_func_info), raising=False)


def chosen(dtype: Any) -> Way:
    squash.way.cache_clear()
    found = squash.way(dtype)
    squash.way.cache_clear()
    return found


@pytest.mark.parametrize(
    ("tanh", "exp", "quick"),
    [
        ("X86_V3", "X86_V3", EXP_WAY),
        ("FMA3 AVX2", "FMA3 AVX2", EXP_WAY),  # how NumPy 2.1 says it
        ("X86_V4", "X86_V4", TANH_WAY),
        ("AVX512_SKX", "AVX512F", TANH_WAY),
        ("X86_V3", "X86_V4", TANH_WAY),
        ("X86_V4", "X86_V3", TANH_WAY),
        ("baseline(X86_V2)", "baseline(X86_V2)", TANH_WAY),
        ("baseline(NEON)", "baseline(NEON)", TANH_WAY),
    ],
)
def test_the_kernels_choose_the_way(tanh: str, exp: str, quick: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels(monkeypatch, tanh=tanh, exp=exp)
    assert chosen(np.dtype(np.float32)) is quick
    assert chosen(np.float32) is quick
    assert chosen(np.dtype(np.float64)) is TANH_WAY  # as exact as the library


def test_tanh_where_numpy_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels(monkeypatch)
    assert chosen(np.float32) is TANH_WAY
    monkeypatch.delattr(np.lib, "introspect", raising=False)
    assert chosen(np.float32) is TANH_WAY


@DTYPES
def test_this_machine_has_a_way(dtype: Any) -> None:
    assert squash.way(np.dtype(dtype)) in (TANH_WAY, EXP_WAY)
