"""Optimizers against independent scalar code, Muon's iteration against the SVD, clipping, schedules."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from math import inf, nan, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, to_device, to_host
from stg_np.optim import OPTIMIZERS, SCHEDULES, SGD, AdamW, Moments, Muon, Optimizer, clip_by_norm, orthogonalised
from stg_np.params import Entry, Layout, Params

Waits = Callable[[], AbstractContextManager[list[str]]]

LAYOUT = Layout(
    (
        Entry("wide.W", (2, 5), "matrix"),
        Entry("wide.b", (5,), "vector"),
        Entry("tall.W", (6, 3), "matrix"),
        Entry("square.W", (3, 3), "matrix"),
        Entry("column.W", (4, 1), "matrix"),
        Entry("head.W", (3, 4), "head"),
        Entry("fixed", (3,), "frozen"),
    )
)
RATES = [0.1, 0.03, 0.2, 0.01, 0.05]
DECAY = 0.3


# --- What each optimizer should do, written once more: number by number, in Python's own arithmetic ---------------


def scalar_sgd(theta: float, gradients: list[float], decay: float, *, momentum: float, nesterov: bool) -> float:
    """Sutskever et al. 2013, as PyTorch's documentation writes it down."""
    buffer = 0.0
    for rate, g in zip(RATES, gradients):
        buffer = momentum * buffer + g
        direction = g + momentum * buffer if nesterov else buffer
        theta = theta - rate * decay * theta - rate * direction
    return theta


def scalar_adamw(theta: float, gradients: list[float], decay: float) -> float:
    """Algorithm 2 of arXiv:1711.05101."""
    m = v = 0.0
    for t, (rate, g) in enumerate(zip(RATES, gradients), start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.99 * v + 0.01 * g * g
        adam = (m / (1 - 0.9**t)) / (sqrt(v / (1 - 0.99**t)) + 1e-8)
        theta = theta - rate * (adam + decay * theta)
    return theta


def svd_muon(theta: Array, gradients: list[Array], decay: float) -> Array:
    """Muon through the singular values themselves: its five products only act on them."""
    velocity = np.zeros_like(theta)
    for rate, g in zip(RATES, gradients):
        velocity = 0.95 * velocity + g
        left, s, right = np.linalg.svd(g + 0.95 * velocity, full_matrices=False)
        s = s / np.linalg.norm(s)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        theta = (1 - rate * decay) * theta - rate * 0.2 * sqrt(max(theta.shape)) * (left * s) @ right
    return theta


@dataclass(frozen=True)
class Case:
    """One row: the optimizer, which roles it decays, and the independent code for numbers (and for matrices)."""

    optimizer: Optimizer
    decayed: tuple[str, ...]
    scalar: Callable[[float, list[float], float], float]
    matrix: Callable[[Array, list[Array], float], Array] | None = None

    def expected(self, params: Params, gradients: list[Params]) -> Params:
        arrays = {}
        for name, shape, role in params.layout.entries:
            theta, steps = params[name], [g[name] for g in gradients]
            decay = DECAY if role in self.decayed else 0.0
            if role == "frozen":
                arrays[name] = theta
            elif role == "matrix" and self.matrix is not None:
                arrays[name] = self.matrix(theta, steps, decay)
            else:
                flat = [
                    self.scalar(theta.flat[k].item(), [g.flat[k].item() for g in steps], decay)
                    for k in range(theta.size)
                ]
                arrays[name] = np.array(flat).reshape(shape)
        return Params.pack(params.layout, arrays)


CASES = {
    "sgd": Case(SGD(weight_decay=DECAY), ("matrix", "head"), lambda *a: scalar_sgd(*a, momentum=0.9, nesterov=True)),
    "sgd, heavy ball": Case(
        SGD(momentum=0.8, nesterov=False, weight_decay=DECAY),
        ("matrix", "head"),
        lambda *a: scalar_sgd(*a, momentum=0.8, nesterov=False),
    ),
    "sgd, plain": Case(
        SGD(momentum=0.0, weight_decay=DECAY),
        ("matrix", "head"),
        lambda *a: scalar_sgd(*a, momentum=0.0, nesterov=False),
    ),
    "adamw": Case(AdamW(weight_decay=DECAY), ("matrix", "head"), scalar_adamw),
    "muon": Case(Muon(weight_decay=DECAY), ("matrix",), scalar_adamw, svd_muon),
    "muon, decaying the rest": Case(
        Muon(weight_decay=DECAY, others=AdamW(weight_decay=DECAY)), ("matrix", "head"), scalar_adamw, svd_muon
    ),
}
every_optimizer = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def draw(seed: int, dtype: Any = np.float64) -> tuple[Params, list[Params]]:
    """Parameters and a gradient for each step."""
    rng = np.random.default_rng(seed)

    def one() -> Params:
        return Params(LAYOUT, rng.standard_normal(LAYOUT.size).astype(dtype))

    return one(), [one() for _ in RATES]


def on(device: str, params: Params) -> Params:
    return params.with_flat(to_device(params.flat, device))


def steps(optimizer: Optimizer, params: Params, gradients: list[Params]) -> tuple[Params, Moments]:
    moments = optimizer.init(params)
    for rate, g in zip(RATES, gradients):
        params, moments = optimizer.update(g, moments, params, rate)
    return params, moments


def test_every_named_optimizer_is_in_the_table() -> None:
    assert {type(case.optimizer) for case in CASES.values()} == set(OPTIMIZERS.values())


@every_optimizer
def test_several_steps_are_those_of_the_scalar_code(case: Case, device: str) -> None:
    params, gradients = draw(0)
    after, _ = steps(case.optimizer, on(device, params), [on(device, g) for g in gradients])
    np.testing.assert_allclose(to_host(after.flat), case.expected(params, gradients).flat, rtol=1e-11, atol=1e-12)


@every_optimizer
def test_float32_stays_float32_and_shapes_stay(case: Case, device: str) -> None:
    params, gradients = draw(1, np.float32)
    wide = case.expected(*draw(1))
    before = case.optimizer.init(on(device, params))
    after, moments = steps(case.optimizer, on(device, params), [on(device, g) for g in gradients])
    assert after.flat.dtype == np.float32
    assert after.layout is params.layout
    assert {k: (v.shape, v.dtype) for k, v in moments.items()} == {k: (v.shape, v.dtype) for k, v in before.items()}
    assert {v.dtype for v in moments.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(to_host(after.flat), wide.flat, rtol=1e-3, atol=1e-4)


@every_optimizer
def test_arguments_are_left_as_they_are(case: Case, device: str) -> None:
    drawn, drawn_gradients = draw(2)
    params, gradients = on(device, drawn), [on(device, g) for g in drawn_gradients]
    _, moments = case.optimizer.update(gradients[0], case.optimizer.init(params), params, 0.1)
    given_arrays = [params.flat, gradients[1].flat, *moments.values()]
    before = [to_host(array).copy() for array in given_arrays]
    for array in given_arrays:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    new, new_moments = case.optimizer.update(gradients[1], moments, params, 0.1)
    for array, copy in zip(given_arrays, before):
        np.testing.assert_array_equal(to_host(array), copy)
    assert new.flat is not params.flat
    assert all(new_moments[name] is not moments[name] for name in moments)


@every_optimizer
def test_a_frozen_entry_never_changes_whatever_its_gradient(case: Case) -> None:
    params, gradients = draw(3)
    after, _ = steps(case.optimizer, params, gradients)
    np.testing.assert_array_equal(after["fixed"], params["fixed"])
    assert all((after[name] != params[name]).all() for name in params if name != "fixed")


@every_optimizer
def test_decay_alone_shrinks_the_roles_it_is_meant_for(case: Case) -> None:
    params, _ = draw(4)
    zero = params.with_flat(np.zeros(LAYOUT.size))
    after, _ = case.optimizer.update(zero, case.optimizer.init(params), params, 0.1)
    for name, _, role in LAYOUT.entries:
        factor = 1 - 0.1 * DECAY if role in case.decayed else 1.0
        np.testing.assert_allclose(after[name], factor * params[name], rtol=1e-15)


@every_optimizer
def test_the_learning_rate_scales_the_step_and_leaves_the_moments(case: Case) -> None:
    params, gradients = draw(5)
    moments = case.optimizer.init(params)
    still, at_zero = case.optimizer.update(gradients[0], moments, params, 0.0)
    one, at_one = case.optimizer.update(gradients[0], moments, params, 0.1)
    two, _ = case.optimizer.update(gradients[0], moments, params, 0.2)
    np.testing.assert_array_equal(still.flat, params.flat)
    np.testing.assert_allclose(two.flat - params.flat, 2 * (one.flat - params.flat), rtol=1e-9, atol=1e-14)
    for name in moments:
        np.testing.assert_array_equal(at_zero[name], at_one[name])


@every_optimizer
def test_no_step_waits_for_the_device(case: Case, stand_in: Any, synchronisations: Waits) -> None:
    params, gradients = draw(6, np.float32)
    params, gradients = on("cuda", params), [on("cuda", g) for g in gradients]
    with synchronisations() as waits:
        for g in gradients:
            clip_by_norm(g, 1.0)
        steps(case.optimizer, params, gradients)
    assert waits == []


# --- Muon's iteration -----------------------------------------------------------------------------------------


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
    s = np.linalg.svd(orthogonalised(matrix, 12), compute_uv=False)
    assert s.min() > 0.5
    assert s.max() < 1.5


# --- Clipping ---------------------------------------------------------------------------------------------------


def vector(values: Any, dtype: Any = np.float64) -> Params:
    flat = np.asarray(values, dtype)
    return Params(Layout((Entry("v", flat.shape, "vector"),)), flat)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_clipping_is_exact(size: int, seed: int, length: float, max_norm: float) -> None:
    flat = np.random.default_rng(seed).standard_normal(size)
    flat *= length / np.linalg.norm(flat)
    flat.flags.writeable = False
    clipped, norm = clip_by_norm(vector(flat), max_norm)
    assert norm == pytest.approx(length, rel=1e-12)
    if norm <= max_norm:
        np.testing.assert_array_equal(clipped.flat, flat)  # bit for bit
    else:
        assert np.linalg.norm(clipped.flat) == pytest.approx(max_norm, rel=1e-12)
        np.testing.assert_allclose(clipped.flat / max_norm, flat / length, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gradient_of_zero_is_fine(dtype: Any, xp: Any) -> None:
    zero = vector(np.zeros(3), dtype)
    clipped, norm = clip_by_norm(zero.with_flat(xp.asarray(zero.flat)), 1.0)
    assert clipped.flat.dtype == norm.dtype == dtype
    assert to_host(norm) == 0
    np.testing.assert_array_equal(to_host(clipped.flat), zero.flat)


@pytest.mark.parametrize("bad", [nan, inf, -inf, 1e30])  # the last one's square is too large for float32
def test_a_gradient_that_is_not_finite_shows_in_the_norm(bad: float, xp: Any) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        _, norm = clip_by_norm(vector([1.0]).with_flat(xp.asarray(np.array([bad], np.float32))), 1.0)
    assert not np.isfinite(to_host(norm))


# --- Schedules --------------------------------------------------------------------------------------------------

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


@every_schedule
@pytest.mark.parametrize("warmup", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_schedules_rise_to_one_and_fall_to_zero(schedule: Callable[[float, float], float], warmup: float) -> None:
    fine = np.linspace(0, 1, 10_001).tolist()
    values = [schedule(progress, warmup) for progress in fine]
    assert values[0] == (0 if warmup else 1)
    assert schedule(warmup, warmup) == 1
    assert values[-1] == pytest.approx(0, abs=1e-12)
    assert min(values) >= -1e-12
    assert max(values) <= 1
    rising = [b >= a for (x, a), (y, b) in pairwise(zip(fine, values)) if y <= warmup]
    falling = [b <= a for (x, a), (y, b) in pairwise(zip(fine, values)) if x >= warmup]
    assert all(rising)
    assert all(falling)
    slope = 2 / min(warmup or 1, 1 - warmup)  # of the steepest piece; a jump would show as a difference of any size
    assert max(abs(b - a) for a, b in pairwise(values)) <= slope / 10_000 + 1e-12


@every_schedule
def test_half_way_down_is_a_half(schedule: Callable[[float, float], float]) -> None:
    assert schedule(0.6, 0.2) == pytest.approx(0.5)
    assert schedule(0.1, 0.2) == pytest.approx(0.5)


def test_a_quarter_of_the_way_down_tells_them_apart() -> None:
    assert SCHEDULES["linear"](0.4, 0.2) == pytest.approx(0.75)
    assert SCHEDULES["cosine"](0.4, 0.2) == pytest.approx(0.5 + sqrt(0.5) / 2)
