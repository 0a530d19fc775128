"""The sequence tasks, held against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.data.sequences import adding_problem, copy_memory

seeds = st.integers(0, 2**32)


@given(st.integers(0, 20), st.integers(2, 40), seeds, st.sampled_from([np.float32, np.float64]))
def test_the_target_of_the_adding_problem_is_the_sum_of_the_two_marked(
    batch: int, steps: int, seed: int, dtype: type[np.float64]
) -> None:
    x, target = adding_problem(np.random.default_rng(seed), batch, steps, dtype)
    assert x.shape == (batch, steps, 2)
    assert x.dtype == target.dtype == dtype
    assert ((x[..., 0] >= 0) & (x[..., 0] <= 1)).all()
    assert np.isin(x[..., 1], (0, 1)).all()
    np.testing.assert_array_equal(x[..., 1].sum(axis=1), 2)
    np.testing.assert_allclose(target, (x[..., 0] * x[..., 1]).sum(axis=1), rtol=1e-6)


def test_always_answering_one_leaves_a_sixth() -> None:
    _, target = adding_problem(np.random.default_rng(0), 20_000, 10)
    assert abs(((target - 1) ** 2).mean() - 1 / 6) < 0.005


def test_every_step_is_marked_equally_often() -> None:
    x, _ = adding_problem(np.random.default_rng(0), 20_000, 5)
    np.testing.assert_allclose(x[..., 1].mean(axis=0), 2 / 5, atol=0.02)


@given(st.integers(0, 10), st.integers(1, 50), seeds, st.sampled_from([np.float32, np.float64]))
def test_the_copying_task_is_laid_out_as_published(batch: int, delay: int, seed: int, dtype: type[np.float64]) -> None:
    x, target = copy_memory(np.random.default_rng(seed), batch, delay, dtype)
    assert x.shape == (batch, delay + 20, 10)
    assert x.dtype == dtype
    assert target.shape == (batch, delay + 20)
    np.testing.assert_array_equal(x.sum(axis=-1), 1)
    symbols = x.argmax(axis=-1)
    assert np.isin(symbols[:, :10], range(1, 9)).all()
    assert (symbols[:, 10 : 10 + delay - 1] == 0).all()
    assert (symbols[:, 10 + delay - 1 :] == 9).all()
    assert symbols[:, 10 + delay - 1 :].shape[1] == 11
    assert (target[:, :-10] == 0).all()
    np.testing.assert_array_equal(target[:, -10:], symbols[:, :10])


def test_equal_generators_give_equal_tasks() -> None:
    for task in (adding_problem, copy_memory):
        first, second = (task(np.random.default_rng(7), 3, 5) for _ in range(2))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


def test_sequences_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        adding_problem(np.random.default_rng(0), 1, 1)
    with pytest.raises(ValueError, match="at least 1 step"):
        copy_memory(np.random.default_rng(0), 1, 0)
