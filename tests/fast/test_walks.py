"""The fast path against its oracle: the same signatures, the same numbers, for every shape and option."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import stm
from stg_np.checks import with_params
from stg_np.fast import squash, walks
from stg_np.fast.choose import stm_cell
from stg_np.gradcheck import check_pair
from stg_np.layers.spec import STMKind
from stg_np.ops.activations import IDENTITY, SIGMOID, TANH, Activation
from stg_np.stm import STMParams
from stg_np.workspace import Workspace


def draw(seed: int, B: int, T: int, D: int, H: int, diagonal: bool, dtype: Any) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    params = stm.init_stm(rng, D, H, length=T, diagonal=diagonal)
    params = STMParams._make(rng.standard_normal(a.shape).astype(dtype) if a is not None else None for a in params)
    x, m_0 = rng.standard_normal((B, T, D)).astype(dtype), rng.standard_normal((B, H)).astype(dtype)
    dy, dm_T = rng.standard_normal((B, T, H)).astype(dtype), rng.standard_normal((B, H)).astype(dtype)
    for array in (x, m_0, dy, dm_T, *(a for a in params if a is not None)):
        array.flags.writeable = False
    return x, m_0, params, dy, dm_T


def both(arguments: tuple[Any, ...], phi_z: Activation, work: Workspace | None, diagonal: bool = False) -> list[Any]:
    """Outputs and gradients, in memory of their own: by the fast path in ``work``, or by the plain one."""
    x, m_0, params, dy, dm_T = arguments
    cell = stm_cell(x, STMKind(False, diagonal, phi_z), work)
    (y, m_T), cache = cell.forward(x, m_0, params)
    assert isinstance(cache, walks.WalkCache) == (work is not None)
    dx, dm_0, dparams = cell.backward(dy, dm_T, cache, params)
    return [None if array is None else array.copy() for array in (y, m_T, dx, dm_0, *dparams)]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3, 5, 17, 33]),
    st.integers(1, 5),
    st.sampled_from([(False, TANH), (False, IDENTITY), (True, IDENTITY)]),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1, 100, 1 << 18]),
)
def test_equals_the_plain_path(
    seed: int, B: int, T: int, D: int, H: int, kind: tuple[bool, Activation], dtype: Any, chunk_bytes: int
) -> None:
    diagonal, phi_z = kind
    arguments, work = draw(seed, B, T, D, H, diagonal, dtype), Workspace()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walks, "CHUNK_BYTES", chunk_bytes)
        quick = both(arguments, phi_z, work, diagonal)
        again = both(arguments, phi_z, work, diagonal)  # in memory that is full of numbers
    plain = both(arguments, phi_z, None, diagonal)
    tolerance = 1e-4 if dtype is np.float32 else 1e-12
    for got, expected, same in zip(quick, plain, again):
        assert (got is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(same, got)  # the same computation
            assert got.dtype == dtype
            # 1 is the scale of what was drawn: through saturated gates comes little more than rounding
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max(initial=1))


@pytest.mark.parametrize("way", [squash.TANH_WAY, squash.EXP_WAY], ids=["tanh", "exp"])
@pytest.mark.parametrize(("diagonal", "phi_z"), [(False, TANH), (False, IDENTITY), (True, IDENTITY)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_plain_path_whatever_the_processor(
    dtype: Any, diagonal: bool, phi_z: Activation, way: squash.Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squash, "way", lambda dtype: way)
    arguments = draw(0, 5, 9, 7, 6, diagonal, dtype)
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    quick, plain = both(arguments, phi_z, Workspace(), diagonal), both(arguments, phi_z, None, diagonal)
    for got, expected in zip(quick, plain):
        if expected is not None:
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max(initial=1))


def test_the_last_memory_belongs_to_the_caller() -> None:
    """Writing into it changes no gradient, and the next forward in the same workspace does not change it."""
    x, m_0, params, dy, dm_T = draw(0, 2, 4, 3, 2, False, np.float64)
    work = Workspace()
    (_, m_T), cache = walks.stm_forward(x, m_0, params, work=work)
    before = m_T.copy()
    walks.stm_forward(x[::-1], m_0, params, work=work)
    np.testing.assert_array_equal(m_T, before)
    (_, m_T), cache = walks.stm_forward(x, m_0, params, work=work)
    m_T[...] = np.nan
    dx, dm_0, dparams = walks.stm_backward(dy, dm_T, cache, params, work=work)
    for array in (dx, dm_0, dparams.W, dparams.b):
        assert np.isfinite(array).all()


@pytest.mark.parametrize(
    ("x_shape", "m_shape"), [((3, 4), (2, 5)), ((2, 0, 4), (2, 5)), ((2, 3, 3), (2, 5)), ((2, 3, 4), (1, 5))]
)
def test_shapes_that_do_not_fit_are_refused_as_by_the_plain_path(
    x_shape: tuple[int, ...], m_shape: tuple[int, ...]
) -> None:
    _, _, params, _, _ = draw(0, 2, 3, 4, 5, False, np.float64)
    for forward in (stm.stm_forward, partial(walks.stm_forward, work=Workspace())):
        with pytest.raises(ValueError, match=r"x must be \(B, T, 4\) with T ≥ 1 and m_0 \(B, 5\)"):
            forward(np.zeros(x_shape), np.zeros(m_shape), params)


@pytest.mark.parametrize(
    ("recurrent", "diagonal", "phi_z", "dtype"),
    [(True, False, TANH, np.float64), (False, True, TANH, np.float64), (False, False, SIGMOID, np.float64),
     (False, False, TANH, np.float16)],
)  # fmt: skip
def test_what_it_does_not_cover_is_refused_and_the_chooser_takes_the_plain_path(
    recurrent: bool, diagonal: bool, phi_z: Activation, dtype: Any
) -> None:
    rng = np.random.default_rng(0)
    params = stm.init_stm(rng, 3, 2, length=4, recurrent=recurrent, diagonal=diagonal)
    params = STMParams._make(None if array is None else array.astype(dtype) for array in params)
    x, m_0 = rng.standard_normal((2, 4, 3)).astype(dtype), np.zeros((2, 2), dtype)
    with pytest.raises(ValueError, match=r"does not know such an STM: ask|have an R"):
        walks.stm_forward(x, m_0, params, phi_z=phi_z, work=Workspace())
    cell = stm_cell(x, STMKind(recurrent, diagonal, phi_z), Workspace())
    (y, _), cache = cell.forward(x, m_0, params)
    assert not isinstance(cache, walks.WalkCache)
    assert y.dtype == dtype


@pytest.mark.parametrize(
    ("step_bytes", "borders"),
    [(0, [0, 2, 5]), (1, [0, 2, 5]), (2, [0, 1, 3, 5]), (3, range(6)), (9, range(6))],
)
def test_chunks_have_at_most_the_bytes_they_may_and_nearly_the_same_length(
    step_bytes: int, borders: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "CHUNK_BYTES", 4)
    assert walks.chunks(5, step_bytes) == [slice(*pair) for pair in pairwise(borders)]


@pytest.mark.parametrize(("diagonal", "phi_z"), [(False, TANH), (False, IDENTITY), (True, IDENTITY)])
def test_its_own_gradients_across_chunk_borders(
    diagonal: bool, phi_z: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "CHUNK_BYTES", 2 * 3 * 4 * 2 * 8)  # two steps
    x, m_0, params, _, _ = draw(0, 3, 7, 3, 2, diagonal, np.float64)
    pair = with_params(*stm_cell(x, STMKind(False, diagonal, phi_z), Workspace())[:2])
    check_pair(*pair, {"x": x, "m_0": m_0, "params": params}, reusable_cache=False).assert_ok()


def test_memory_grows_linearly_with_the_steps() -> None:
    def held(T: int) -> int:
        work = Workspace()
        both(draw(0, 4, T, 8, 16, False, np.float32), TANH, work)
        return work.nbytes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walks, "CHUNK_BYTES", 1 << 16)
        one, two, four = held(1000), held(2000), held(4000)  # above a constant: the chunks'
    assert 1.9 < (four - two) / (two - one) < 2.1
