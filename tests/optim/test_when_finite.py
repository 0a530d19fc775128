"""The guard: what is not finite changes nothing, on every rule and both libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stg_np.backend import get_xp, to_device, to_host
from stg_np.optim import AdamW, clip_by_norm, when_finite, with_learning_rate
from tests.optim.cases import CASES, Case, every_case

POISON = [np.nan, np.inf, -np.inf]


@every_case
@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("place", [0, -1])
def test_a_gradient_that_is_not_finite_changes_nothing(case: Case, poison: float, place: int, device: str) -> None:
    params, gradients = case.draw(0, np.float32, device)
    params, moments = case.rule.update(gradients[0], case.rule.init(params), params, 1.0)
    gradients[1].flat[place] = poison
    with np.errstate(invalid="ignore"):
        after, after_moments, is_finite = when_finite(case.rule)(gradients[1], moments, params, 1.0)
    assert is_finite.shape == ()
    assert not bool(is_finite)
    assert get_xp(is_finite) is get_xp(params.flat)
    assert to_host(after.flat).tobytes() == to_host(params.flat).tobytes()
    assert after_moments.keys() == moments.keys()
    for name, array in moments.items():
        assert to_host(after_moments[name]).tobytes() == to_host(array).tobytes()


@every_case
def test_a_finite_gradient_gives_the_rules_own_step(case: Case, device: str) -> None:
    params, gradients = case.draw(1, device=device)
    moments = case.rule.init(params)
    wanted, wanted_moments = case.rule.update(gradients[0], moments, params, 0.5)
    after, after_moments, is_finite = when_finite(case.rule)(gradients[0], moments, params, 0.5)
    assert bool(is_finite)
    np.testing.assert_allclose(to_host(after.flat), to_host(wanted.flat), rtol=1e-9)
    assert after.layout is params.layout
    for name, array in wanted_moments.items():
        np.testing.assert_allclose(to_host(after_moments[name]), to_host(array), rtol=1e-12)
        assert after_moments[name].dtype == array.dtype


@every_case
def test_an_update_that_is_more_than_the_numbers_hold_changes_nothing(case: Case, device: str) -> None:
    params, gradients = case.draw(4, np.float32, device)
    moments = case.rule.init(params)
    rule = with_learning_rate(case.rule, 1e39)
    with np.errstate(over="ignore", invalid="ignore"):
        after, after_moments, is_finite = when_finite(rule)(gradients[0], moments, params, 1.0)
    assert not bool(is_finite)
    assert to_host(after.flat).tobytes() == to_host(params.flat).tobytes()
    for name, array in moments.items():
        assert to_host(after_moments[name]).tobytes() == to_host(array).tobytes()


def test_moments_that_are_more_than_the_numbers_hold_change_nothing() -> None:
    params, gradients = CASES["adamw"].draw(4, np.float32)
    gradients[0].flat[0] = 1e25  # its square is infinite, and the step would be 0 for ever
    with np.errstate(over="ignore"):
        after, _, is_finite = when_finite(AdamW())(gradients[0], AdamW().init(params), params, 1.0)
    assert not bool(is_finite)
    np.testing.assert_array_equal(after.flat, params.flat)


@every_case
@pytest.mark.parametrize("poison", POISON)
def test_what_else_must_be_finite_is_looked_at_too(case: Case, poison: float, device: str) -> None:
    params, gradients = case.draw(5, np.float32, device)
    also = [to_device(np.array([1.0, value], np.float32), device) for value in (0.0, poison)]
    for arrays, wanted in ((also[:1], True), (also, False)):
        after, _, is_finite = when_finite(case.rule)(gradients[0], case.rule.init(params), params, 1.0, also=arrays)
        assert bool(is_finite) == wanted
        assert (to_host(after.flat).tobytes() != to_host(params.flat).tobytes()) == wanted


@every_case
def test_the_guard_stays_on_the_device(case: Case, stand_in: Any, synchronisations: Any) -> None:
    params, gradients = case.draw(2, np.float32, "cuda")
    with synchronisations() as waits:
        when_finite(case.rule)(clip_by_norm(gradients[0], 1.0), case.rule.init(params), params, 1.0)
    assert waits == []


@every_case
def test_a_length_that_is_too_large_for_the_dtype_is_not_finite_either(case: Case, device: str) -> None:
    params, gradients = case.draw(3, np.float32, device)
    gradients[0].flat[1] = 1e30
    with np.errstate(over="ignore", invalid="ignore"):
        grads = clip_by_norm(gradients[0], 1.0)
        after, _, is_finite = when_finite(case.rule)(grads, case.rule.init(params), params, 1.0)
    assert not bool(is_finite)
    assert to_host(after.flat).tobytes() == to_host(params.flat).tobytes()
