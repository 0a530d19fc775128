"""Every rule against independent code, and what all of them promise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from stg_np.backend import to_host
from stg_np.engine import Threads
from stg_np.optim import OPTIMIZERS, SGD, AdamW, Muon
from tests.optim.cases import CASES, Case, every_case, steps

Waits = Callable[[], AbstractContextManager[list[str]]]


def test_every_named_rule_is_in_the_table() -> None:
    assert {type(case.rule) for case in CASES.values()} == set(OPTIMIZERS.values())


@every_case
def test_several_steps_are_those_of_the_independent_code(case: Case, device: str) -> None:
    params, gradients = case.draw(0, device=device)
    after, _ = steps(case.rule, params, gradients)
    np.testing.assert_allclose(to_host(after.flat), case.expected(*case.draw(0)).flat, rtol=1e-11, atol=1e-12)


@every_case
def test_float32_stays_float32_and_shapes_stay(case: Case, device: str) -> None:
    params, gradients = case.draw(1, np.float32, device)
    before = case.rule.init(params)
    after, moments = steps(case.rule, params, gradients)
    assert after.flat.dtype == np.float32
    assert after.layout is params.layout
    assert {k: (v.shape, v.dtype) for k, v in moments.items()} == {k: (v.shape, v.dtype) for k, v in before.items()}
    assert {v.dtype for v in moments.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(to_host(after.flat), case.expected(*case.draw(1)).flat, rtol=1e-3, atol=1e-4)


@every_case
def test_arguments_are_left_as_they_are_and_results_are_new(case: Case, device: str) -> None:
    params, gradients = case.draw(2, device=device)
    _, moments = case.rule.update(gradients[0], case.rule.init(params), params, 1.0)
    given_arrays = [params.flat, gradients[1].flat, *moments.values()]
    before = [to_host(array).copy() for array in given_arrays]
    for array in given_arrays:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    new, new_moments = case.rule.update(gradients[1], moments, params, 1.0)
    for array, copy in zip(given_arrays, before):
        np.testing.assert_array_equal(to_host(array), copy)
    if device == "cpu":
        for result in (new.flat, *new_moments.values()):
            assert not any(np.may_share_memory(result, array) for array in given_arrays)


@every_case
def test_a_frozen_entry_never_changes_whatever_its_gradient(case: Case, device: str) -> None:
    params, gradients = case.draw(3, device=device)
    frozen = [entry.name for entry in case.layout.entries if entry.role == "frozen"]
    for gradient, value in zip(gradients, (np.nan, np.inf, 1.0, -1.0, 1e300)):
        for name in frozen:
            gradient[name][...] = value
    with np.errstate(invalid="ignore", over="ignore"):
        after, _ = steps(case.rule, params, gradients)
    for name in params:
        same = to_host(after[name]) == to_host(params[name])
        assert same.all() if name in frozen else not same.any(), name


@every_case
def test_the_rate_scales_the_step_and_leaves_the_moments(case: Case) -> None:
    params, gradients = case.draw(5)
    moments = case.rule.init(params)
    still, at_zero = case.rule.update(gradients[0], moments, params, 0.0)
    one, at_one = case.rule.update(gradients[0], moments, params, 0.1)
    two, _ = case.rule.update(gradients[0], moments, params, 0.2)
    np.testing.assert_array_equal(still.flat, params.flat)
    np.testing.assert_allclose(two.flat - params.flat, 2 * (one.flat - params.flat), rtol=1e-9, atol=1e-14)
    for name in moments:
        np.testing.assert_array_equal(at_zero[name], at_one[name])


@every_case
def test_no_step_waits_for_the_device(case: Case, stand_in: Any, synchronisations: Waits) -> None:
    params, gradients = case.draw(6, np.float32, "cuda")
    with synchronisations() as waits:
        steps(case.rule, params, gradients)
    assert waits == []


@every_case
def test_an_engine_may_share_out_the_parts_and_its_size_changes_no_bit(case: Case) -> None:
    params, gradients = case.draw(7)
    moments = case.rule.init(params)
    found = []
    for count in (1, 3):
        with Threads(count) as engine:
            found.append(case.rule.update(gradients[0], moments, params, 1.0, each=engine.map)[0].flat)
    assert found[0].tobytes() == found[1].tobytes()
    np.testing.assert_allclose(found[0], case.rule.update(gradients[0], moments, params, 1.0)[0].flat, rtol=1e-9)


@pytest.mark.parametrize("kind", [SGD, AdamW, Muon])
def test_numbers_out_of_range_are_refused_by_name(kind: Any) -> None:
    rule = kind()
    wrong: dict[str, list[Any]] = {
        "learning_rate": [0.0, -1.0, np.nan], "weight_decay": [-0.1, np.nan], "momentum": [-0.1, 1.0],
        "beta1": [1.0, -0.1], "beta2": [1.0, np.nan], "epsilon": [0.0, -1.0], "iterations": [0], "nesterov": [],
        "fixed_norm": [],
    }  # fmt: skip
    for field in fields(kind):
        for value in wrong[field.name]:
            with pytest.raises(ValueError, match=f"^{field.name} must be"):
                replace(rule, **{field.name: value})
    assert replace(rule, learning_rate=2.0, weight_decay=1.5).weight_decay == 1.5  # neither is a fraction
    assert Muon(iterations=1).iterations == 1
