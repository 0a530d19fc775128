"""The image STM layer: against the sequence layer, by hand on one line, and in what its sweeps may see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import stm, sweep
from stg_np.backend import to_host
from stg_np.ops.activations import TANH
from stg_np.ops.conv import conv2d_forward
from stg_np.stm import STMParams
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, FLOAT64_ARRAYS, Arrays, examples

JOINS: dict[str, Any] = {"quarters": sweep.quarters(), "sum": sweep.summed(), "no sweep": sweep.STILL}
DIRECTIONS = st.sampled_from(sweep.ALL_WAYS)


def image_params(draw: Arrays, D: int, H: int, window: int, *, diagonal: bool) -> STMParams:
    own = draw.stm(D, H, recurrent=False, diagonal=diagonal)
    return own._replace(W=draw.normal(window, window, D, own.W.shape[1]))


@examples(0.5)
@given(draw=FLOAT64_ARRAYS, diagonal=st.booleans(), T=st.integers(1, 6))
def test_with_a_window_of_one_pixel_a_row_is_a_sequence(device: str, draw: Arrays, diagonal: bool, T: int) -> None:
    draw.on(device)
    params, x = draw.stm(3, 4, recurrent=False, diagonal=diagonal), draw.normal(2, T, 3)
    (wanted, _), _ = stm.stm_forward(x, 0 * draw.normal(2, 4), params, phi_z=TANH)
    kind = sweep.SweepKind(sweep.quarters(("right",)), phi_z=TANH)
    found, _ = sweep.image_stm_forward(x[:, None], params._replace(W=params.W[None, None]), kind)
    np.testing.assert_allclose(to_host(found)[:, 0], to_host(wanted), rtol=1e-12, atol=1e-14)


@examples(0.5)
@given(draw=FLOAT64_ARRAYS, direction=DIRECTIONS, height=st.integers(1, 4), width=st.integers(1, 4))
def test_a_sweep_by_loops_over_scalars(
    device: str, draw: Arrays, direction: sweep.Direction, height: int, width: int
) -> None:
    draw.on(device)
    u, v = draw.uniform(0, 1, 2, height, width, 3), draw.normal(2, height, width, 3)
    found = to_host(sweep.line_forward(u, v, direction))
    gate, inflow = to_host(u), to_host(v)
    back = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}[direction]
    for b, row, column, c in np.ndindex(found.shape):
        r, k = row - back[0], column - back[1]
        before = found[b, r, k, c] if 0 <= r < height and 0 <= k < width else 0.0
        here = gate[b, row, column, c]
        wanted = (1 - here) * before + here * inflow[b, row, column, c]
        np.testing.assert_allclose(found[b, row, column, c], wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", JOINS)
@pytest.mark.parametrize("louder", [False, True])
@examples(0.2)
@given(draw=ARRAYS, diagonal=st.booleans(), window=st.sampled_from((1, 3)), b=st.sampled_from((0, 1, 3)))
def test_contract_and_extremes(
    device: str, name: str, louder: bool, draw: Arrays, diagonal: bool, window: int, b: int
) -> None:
    draw.on(device)
    kind = sweep.SweepKind(JOINS[name], louder=louder)
    params = image_params(draw, 2, 4, window, diagonal=diagonal)

    def forward(x: Any, params: STMParams) -> Any:
        y, cache = sweep.image_stm_forward(x, params, kind)
        return y, (cache, params)

    def backward(dy: Any, kept: Any) -> Any:
        cache, params = kept
        return sweep.image_stm_backward(dy, cache, params, kind)

    for x in (draw.normal(b, 3, 2, 2), draw.extreme(b, 3, 2, 2)):
        y, (dx, dparams) = hold_to_contract(forward, backward, {"x": x, "params": params})
        assert y.shape == (b, 3, 2, 4)
        assert dx.shape == x.shape
        assert [part is None or part.shape for part in dparams] == [p is None or p.shape for p in params]


@pytest.mark.parametrize("u", [0.5, 0.1, 0.01])
def test_a_slow_memory_of_white_input_is_as_loud_as_a_quick_one(u: float) -> None:
    """std √(u/(2−u)) without, 1 with it."""
    v = np.random.default_rng(0).standard_normal((1, 1, 1_500, 400))
    gate = np.full_like(v, u)
    plain = sweep.line_forward(gate, v, "right")
    louder = sweep.line_forward(gate, sweep.louder_forward(gate, v), "right")
    np.testing.assert_allclose(plain[..., 700:, :].std(), np.sqrt(u / (2 - u)), rtol=0.05)
    np.testing.assert_allclose(louder[..., 700:, :].std(), 1, rtol=0.05)


def test_channels_that_cannot_be_shared_out_are_refused() -> None:
    u = np.full((1, 2, 2, 6), 0.5)
    with pytest.raises(ValueError, match="6 channels cannot be shared out among 4 directions"):
        sweep.quarters_forward(u, u, sweep.ALL_WAYS)


def test_what_was_given_back_may_be_changed() -> None:
    """The backward does not read the output that the caller owns."""
    draw = Arrays(0)
    params, x = image_params(draw, 2, 4, 3, diagonal=True), draw.normal(2, 3, 4, 2)
    for join in JOINS.values():
        kind = sweep.SweepKind(join)
        y, cache = sweep.image_stm_forward(x, params, kind)
        dy = draw.normal(*y.shape)
        wanted, _ = sweep.image_stm_backward(dy, cache, params, kind)
        y[...] = np.nan
        found, _ = sweep.image_stm_backward(dy, cache, params, kind)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("c", "d"), [(2, 5), (5, 2), (4, 4)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_dirac_kernel_passes_its_input_on(k: int, c: int, d: int) -> None:
    """As many channels as both sides have; the others are left as they were drawn."""
    draw = Arrays(0)
    kernel, x, same = draw.normal(k, k, c, d).copy(), draw.normal(1, 4, 3, c), min(c, d)
    drawn = kernel.copy()
    sweep.dirac(kernel)
    p, _ = conv2d_forward(x, sweep.window_params(STMParams(kernel, np.zeros(4 * d))))
    np.testing.assert_array_equal(p[..., :same], x[..., :same])
    np.testing.assert_array_equal(kernel[..., same:], drawn[..., same:])


@pytest.mark.parametrize("diagonal", [False, True])
def test_every_parameter_has_its_name_its_shape_and_its_role(diagonal: bool) -> None:
    found = {entry.name: entry[1:] for entry in sweep.image_stm_entries("stm2", 3, 7, window=5, diagonal=diagonal)}
    full = {"stm2.W": ((5, 5, 3, 28), "kernel"), "stm2.b": ((28,), "vector")}
    sparing = full | {"stm2.W": ((5, 5, 3, 7), "kernel"), "stm2.w": ((21,), "vector")}
    assert found == (sparing if diagonal else full)
    assert diagonal or found != {entry.name: entry[1:] for entry in sweep.image_stm_entries("stm2", 3, 7, window=5)}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_joins_by_single_sweeps(count: int, dtype: Any) -> None:
    """Quarters: each direction its own channels. A sum: all of them, over the root of the mean square."""
    draw, ways = Arrays(1), sweep.ALL_WAYS[:count]
    u, v = (array.astype(dtype) for array in (draw.uniform(0, 1, 2, 3, 2, 12), draw.normal(2, 3, 2, 12)))
    alone = [sweep.line_forward(u, v, direction) for direction in ways]
    assert {array.dtype for array in alone} == {np.dtype(dtype)}
    memories, _ = sweep.quarters_forward(u, v, ways)
    for k, own in enumerate(alone):
        part = slice(k * 12 // count, (k + 1) * 12 // count)
        np.testing.assert_array_equal(memories[..., part], own[..., part])
    total, _ = sweep.sum_forward(u, v, ways)
    together = np.sum(alone, 0)
    wanted = together / np.sqrt((together**2).mean(-1, keepdims=True))
    np.testing.assert_allclose(total, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", JOINS)
def test_the_backward_of_a_join_leaves_what_it_is_given(name: str) -> None:
    draw, join = Arrays(2), JOINS[name]
    u, v, dm = draw.uniform(0, 1, 2, 3, 2, 4), draw.normal(2, 3, 2, 4), draw.normal(2, 3, 2, 4)
    _, cache = join.forward(u, v, join.directions)
    before = [array.copy() for array in (dm, u, v)]
    join.backward(dm, u, v, cache, join.directions)
    for array, same in zip((dm, u, v), before):
        np.testing.assert_array_equal(array, same)


def test_below_the_smallest_update_the_scale_is_constant() -> None:
    u, v = np.array([1e-9, 1e-6, 2e-6, 0.5]), np.ones(4)
    louder = sweep.louder_forward(u, v)
    assert louder[0] == louder[1] == pytest.approx(np.sqrt(2e6 - 1))
    du, dv = sweep.louder_backward(np.ones(4), u, v)
    np.testing.assert_array_equal(dv, louder)
    assert (du[:2] == 0).all()
    assert (du[2:] < 0).all()
