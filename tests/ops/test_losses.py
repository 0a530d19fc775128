from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, to_device, to_host
from stg_np.gradcheck import check_pair
from stg_np.ops.losses import (
    SQUARED_ERROR,
    TOLERANCE,
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_forward,
    log_softmax,
    squared_error_backward,
    squared_error_forward,
)
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, FLOAT64_ARRAYS, SEEDS, Arrays, B, C, examples

SMOOTHING = st.sampled_from((0.0, 0.1, 0.5, 1.0))


def backward(dlosses: Array, cache: Any) -> tuple[Array, None]:
    return cross_entropy_backward(dlosses, cache), None


def by_definition(logits: Array, label: int, smoothing: float) -> float:
    """Cross-entropy of one example from its definition, with Python's floats."""
    normaliser = math.fsum(math.exp(logit) for logit in logits)
    targets = [smoothing / len(logits) + (1 - smoothing) * (k == label) for k in range(len(logits))]
    return -math.fsum(target * math.log(math.exp(logit) / normaliser) for target, logit in zip(targets, logits))


@pytest.mark.numbers
@examples(0.3)
@given(draw=FLOAT64_ARRAYS, b=B, c=C, smoothing=SMOOTHING, seed=SEEDS)
def test_gradient(device: str, draw: Arrays, b: int, c: int, smoothing: float, seed: int) -> None:
    inputs = {"logits": draw.on(device).normal(b, c), "labels": draw.labels(c, b)}
    loss = partial(cross_entropy_forward, label_smoothing=smoothing)
    check_pair(loss, backward, inputs, seed=seed).assert_ok()


@examples(0.5)
@given(draw=ARRAYS, b=EMPTY_B, c=C, smoothing=SMOOTHING)
def test_contract_and_extremes(device: str, draw: Arrays, b: int, c: int, smoothing: float) -> None:
    labels = draw.on(device).labels(c, b)
    for logits in (draw.normal(b, c), draw.extreme(b, c)):
        loss = partial(cross_entropy_forward, label_smoothing=smoothing)
        losses, (dlogits, _) = hold_to_contract(loss, backward, {"logits": logits, "labels": labels})
        assert losses.shape == (b,)
        assert dlogits.shape == (b, c)


@given(draw=FLOAT64_ARRAYS, b=B, c=C, smoothing=SMOOTHING)
def test_values_are_those_of_the_definition(device: str, draw: Arrays, b: int, c: int, smoothing: float) -> None:
    logits, labels = draw.on(device).normal(b, c), draw.labels(c, b)
    losses, _ = cross_entropy_forward(logits, labels, label_smoothing=smoothing)
    wanted = [by_definition(row, label, smoothing) for row, label in zip(to_host(logits), to_host(labels))]
    np.testing.assert_allclose(to_host(losses), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("leading", [(), (2, 3)])
def test_log_softmax_goes_along_the_last_axis(device: str, leading: tuple[int, ...]) -> None:
    x = Arrays(0, device=device).normal(*leading, 4)
    wanted = to_host(x) - np.log(np.exp(to_host(x)).sum(-1, keepdims=True))
    np.testing.assert_allclose(to_host(log_softmax(x)), wanted, rtol=1e-12)
    assert (to_host(log_softmax(x * 1000)) > -1e4).all()  # the maximum of each was subtracted, not another's


@given(draw=FLOAT64_ARRAYS, b=B, c=C, smoothing=SMOOTHING)
def test_float32_is_float64_rounded(device: str, draw: Arrays, b: int, c: int, smoothing: float) -> None:
    logits, labels = draw.on(device).normal(b, c), draw.labels(c, b)
    exact, rounded = (
        to_host(cross_entropy_forward(logits.astype(dtype), labels, label_smoothing=smoothing)[0])
        for dtype in (np.float64, np.float32)
    )
    np.testing.assert_allclose(rounded, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits(device: str, dtype: Any) -> None:
    logits = to_device(np.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]], dtype), device)
    labels = to_device(np.array([0, 2, 1]), device)
    losses, cache = cross_entropy_forward(logits, labels)
    np.testing.assert_allclose(to_host(losses), [0.0, 2e4, math.log(3)], rtol=1e-6)
    dlogits = to_host(cross_entropy_backward(losses * 0 + 1, cache))
    wanted = [[0.0, 0.0, 0.0], [1.0, 0.0, -1.0], [1 / 3, -2 / 3, 1 / 3]]
    np.testing.assert_allclose(dlogits, wanted, rtol=1e-6)


@given(draw=FLOAT64_ARRAYS, b=B, c=C, shift=st.floats(-100, 100))
def test_a_constant_on_all_logits_changes_nothing(device: str, draw: Arrays, b: int, c: int, shift: float) -> None:
    logits = draw.on(device).normal(b, c)
    np.testing.assert_allclose(to_host(log_softmax(logits + shift)), to_host(log_softmax(logits)), atol=1e-11)
    np.testing.assert_allclose(np.exp(to_host(log_softmax(logits))).sum(-1), np.ones(b), rtol=1e-12)


def test_smoothing_one_does_not_look_at_the_label(device: str) -> None:
    draw = Arrays(0, device=device)
    logits = draw.normal(4, 3)
    one, other = (
        cross_entropy_forward(logits, to_device(np.full(4, label), device), label_smoothing=1.0)[0] for label in (0, 2)
    )
    np.testing.assert_array_equal(to_host(one), to_host(other))


@given(draw=FLOAT64_ARRAYS, b=B, c=C, smoothing=SMOOTHING)
def test_gradient_of_each_example_sums_to_zero(device: str, draw: Arrays, b: int, c: int, smoothing: float) -> None:
    """Softmax and targets both sum to one."""
    logits, labels = draw.on(device).normal(b, c), draw.labels(c, b)
    losses, cache = cross_entropy_forward(logits, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(to_host(cross_entropy_backward(losses, cache)).sum(1), np.zeros(b), atol=1e-13)


# --- The squared error --------------------------------------------------------------------------------------------

K = st.integers(1, 4)


def errors_backward(dlosses: Array, cache: Any) -> tuple[Array, Array]:
    doutputs = squared_error_backward(dlosses, cache)
    return doutputs, -doutputs


@pytest.mark.numbers
@examples(0.3)
@given(draw=FLOAT64_ARRAYS, b=B, k=K, seed=SEEDS)
def test_gradient_of_the_squared_error(device: str, draw: Arrays, b: int, k: int, seed: int) -> None:
    inputs = {"outputs": draw.on(device).normal(b, k), "targets": draw.normal(b, k)}
    check_pair(squared_error_forward, errors_backward, inputs, seed=seed).assert_ok()


@examples(0.3)
@given(draw=ARRAYS, b=EMPTY_B, k=K)
def test_contract_of_the_squared_error(device: str, draw: Arrays, b: int, k: int) -> None:
    inputs = {"outputs": draw.on(device).normal(b, k), "targets": draw.normal(b, k)}
    losses, _ = hold_to_contract(squared_error_forward, errors_backward, inputs)
    assert losses.shape == (b,)


def test_the_squared_error_of_one_example_by_hand(device: str) -> None:
    outputs, targets = (to_device(np.array([values]), device) for values in ([1.0, 2.0, 3.0], [1.0, 4.0, 0.0]))
    losses, _ = squared_error_forward(outputs, targets)
    np.testing.assert_array_equal(to_host(losses), [(0 + 4 + 9) / 2])


# --- What a training descends ---------------------------------------------------------------------------------------


@given(draw=ARRAYS, b=EMPTY_B, c=C, smoothing=SMOOTHING)
def test_cross_entropy_carries_its_smoothing_and_counts_hits(
    device: str, draw: Arrays, b: int, c: int, smoothing: float
) -> None:
    logits, labels = draw.on(device).normal(b, c), draw.labels(c, b)
    loss = cross_entropy(smoothing)
    losses, cache = loss.forward(logits, labels)
    wanted, wanted_cache = cross_entropy_forward(logits, labels, label_smoothing=smoothing)
    np.testing.assert_array_equal(to_host(losses), to_host(wanted))
    np.testing.assert_array_equal(
        to_host(loss.backward(losses, cache)), to_host(cross_entropy_backward(wanted, wanted_cache))
    )
    hits = [int(np.argmax(row)) == label for row, label in zip(to_host(logits), to_host(labels))]
    correct = loss.correct(logits, labels)
    assert (correct.shape, int(correct)) == ((), sum(hits))


def test_labels_are_smoothed_by_a_tenth_unless_told_otherwise() -> None:
    logits, labels = np.array([[3.0, 1.0, 0.0]]), np.array([0])
    losses, _ = cross_entropy().forward(logits, labels)
    np.testing.assert_allclose(losses, [by_definition(logits[0], 0, 0.1)], rtol=1e-12)


def test_an_answer_of_a_regression_is_right_if_all_its_outputs_are_close(device: str) -> None:
    near, far = 0.9 * TOLERANCE, 1.1 * TOLERANCE
    outputs = np.array([[near, -near], [near, far], [-far, 0.0], [0.0, 0.0], [TOLERANCE, 0.0]])
    outputs.setflags(write=False)
    for targets, right in ((0 * outputs, 2), (outputs, 5)):
        correct = SQUARED_ERROR.correct(to_device(outputs, device), to_device(targets, device))
        assert (correct.shape, int(correct)) == ((), right)
