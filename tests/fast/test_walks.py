"""The fast path against its oracle: the same signatures, the same numbers, for every shape and option."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import stm
from stg_np.fast import squash
from stg_np.fast import walks as fast
from stg_np.gradcheck import check_pair
from stg_np.ops.activations import IDENTITY, SIGMOID, TANH, Activation
from stg_np.stm import STMParams
from stg_np.workspace import Workspace

PHIS = {"tanh": TANH, "identity": IDENTITY, "sigmoid": SIGMOID}


def draw(seed: int, B: int, T: int, D: int, H: int, diagonal: bool, dtype: Any) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    params = stm.init_stm(rng, D, H, length=T, diagonal=diagonal)
    params = STMParams._make(rng.standard_normal(a.shape).astype(dtype) if a is not None else None for a in params)
    x, m_0 = rng.standard_normal((B, T, D)).astype(dtype), rng.standard_normal((B, H)).astype(dtype)
    dy, dm_T = rng.standard_normal((B, T, H)).astype(dtype), rng.standard_normal((B, H)).astype(dtype)
    for array in (x, m_0, dy, dm_T, *(a for a in params if a is not None)):
        array.flags.writeable = False
    return x, m_0, params, dy, dm_T


def both(path: Any, arguments: tuple[Any, ...], phi_z: Activation, phi: Activation, **options: Workspace) -> list[Any]:
    x, m_0, params, dy, dm_T = arguments
    (y, m_T), cache = path.stm_forward(x, m_0, params, phi_z=phi_z, phi=phi, **options)
    dx, dm_0, dparams = path.stm_backward(dy, dm_T, cache, params, **options)
    return [y, m_T, dx, dm_0, *dparams]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3, 5, 17, 33]),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(list(PHIS)),
    st.sampled_from(list(PHIS)),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1, 100, 1 << 18]),
)
def test_equals_the_plain_path(
    seed: int, B: int, T: int, D: int, H: int, diagonal: bool, phi_z: str, phi: str, dtype: Any, chunk_bytes: int
) -> None:
    arguments = draw(seed, B, T, D, H, diagonal, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "CHUNK_BYTES", chunk_bytes)
        quick = both(fast, arguments, PHIS[phi_z], PHIS[phi])
        work = Workspace()
        for _ in range(2):  # the second time in memory that is full of numbers
            in_workspace = both(fast, arguments, PHIS[phi_z], PHIS[phi], work=work)
    plain = both(stm, arguments, PHIS[phi_z], PHIS[phi])
    tolerance = 1e-4 if dtype is np.float32 else 1e-12
    for got, expected, same in zip(quick, plain, in_workspace):
        assert (got is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(same, got)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("way", [squash.TANH_WAY, squash.EXP_WAY], ids=["tanh", "exp"])
@pytest.mark.parametrize(("diagonal", "phi_z"), [(False, "tanh"), (False, "identity"), (True, "identity")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_plain_path_whatever_the_processor(
    dtype: Any, diagonal: bool, phi_z: str, way: squash.Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squash, "way", lambda dtype: way)
    arguments = draw(0, 5, 9, 7, 6, diagonal, dtype)
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    for got, expected in zip(both(fast, arguments, PHIS[phi_z], IDENTITY), both(stm, arguments, PHIS[phi_z], IDENTITY)):
        if expected is not None:
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("step_bytes", "borders"),
    [(0, [0, 2, 5]), (1, [0, 2, 5]), (2, [0, 1, 3, 5]), (3, range(6)), (9, range(6))],
)
def test_chunks_have_at_most_the_bytes_they_may_and_nearly_the_same_length(
    step_bytes: int, borders: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "CHUNK_BYTES", 4)
    assert fast.chunks(5, step_bytes) == [slice(*pair) for pair in pairwise(borders)]


@pytest.mark.parametrize(("diagonal", "phi_z"), [(False, "tanh"), (False, "identity"), (True, "identity")])
def test_its_own_gradients_across_chunk_borders(diagonal: bool, phi_z: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "CHUNK_BYTES", 2 * 3 * 4 * 2 * 8)  # two steps
    x, m_0, params, _, _ = draw(0, 3, 7, 3, 2, diagonal, np.float64)
    assert fast.covers(params, PHIS[phi_z], IDENTITY)

    def forward(x: Any, m_0: Any, params: Any) -> Any:
        outputs, cache = fast.stm_forward(x, m_0, params, phi_z=PHIS[phi_z])
        return outputs, (cache, params)

    report = check_pair(forward, lambda d, kept: fast.stm_backward(*d, *kept), {"x": x, "m_0": m_0, "params": params})
    report.assert_ok()


def test_memory_grows_linearly_with_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "CHUNK_BYTES", 1 << 16)

    def peak(T: int) -> int:
        arguments = draw(0, 4, T, 8, 16, False, np.float32)
        both(fast, arguments, TANH, IDENTITY)  # what NumPy allocates once
        tracemalloc.start()
        both(fast, arguments, TANH, IDENTITY)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    one, two, four = peak(1000), peak(2000), peak(4000)  # above a constant: the chunks'
    assert 1.9 < (four - two) / (two - one) < 2.1


def test_no_float64_is_hidden_in_float32() -> None:
    x, m_0, params, dy, dm_T = draw(0, 2, 3, 4, 5, False, np.float32)
    _, cache = fast.stm_forward(x, m_0, params)
    kept = [*cache.inputs, cache.gates, cache.v, cache.memories, cache.y]
    assert {array.dtype for array in kept} == {np.dtype(np.float32)}
    assert [array.shape for array in kept] == [(3, 2, 5), (4, 3, 2, 5), (3, 2, 5), (4, 2, 5), (3, 2, 5)]
    dx, dm_0, dparams = fast.stm_backward(dy, dm_T, cache, params)
    assert {array.dtype for array in (dx, dm_0, dparams.W, dparams.b)} == {np.dtype(np.float32)}
