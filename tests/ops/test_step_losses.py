from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from stg_np.backend import Array, to_device, to_host
from stg_np.gradcheck import check_pair
from stg_np.ops.losses import cross_entropy_forward
from stg_np.ops.step_losses import step_cross_entropy, step_cross_entropy_backward, step_cross_entropy_forward
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, EMPTY_B, FLOAT64_ARRAYS, SEEDS, Arrays, B, C, T, examples


def backward(dlosses: Array, cache: Any) -> tuple[Array, None]:
    return step_cross_entropy_backward(dlosses, cache), None


def labels(draw: Arrays, c: int, b: int, t: int) -> Array:
    return draw.labels(c, b * t).reshape(b, t)


@pytest.mark.numbers
@examples(0.3)
@given(draw=FLOAT64_ARRAYS, b=B, t=T, c=C, seed=SEEDS)
def test_gradient(device: str, draw: Arrays, b: int, t: int, c: int, seed: int) -> None:
    inputs = {"logits": draw.on(device).normal(b, t, c), "labels": labels(draw, c, b, t)}
    check_pair(step_cross_entropy_forward, backward, inputs, seed=seed).assert_ok()


@examples(0.5)
@given(draw=ARRAYS, b=EMPTY_B, t=T, c=C)
def test_contract_and_extremes(device: str, draw: Arrays, b: int, t: int, c: int) -> None:
    right = labels(draw.on(device), c, b, t)
    for logits in (draw.normal(b, t, c), draw.extreme(b, t, c)):
        losses, (dlogits, _) = hold_to_contract(
            step_cross_entropy_forward, backward, {"logits": logits, "labels": right}
        )
        assert losses.shape == (b,)
        assert dlogits.shape == (b, t, c)


def test_the_loss_is_the_mean_over_the_steps(device: str) -> None:
    draw = Arrays(0, device=device)
    logits, right = draw.normal(2, 3, 4), labels(draw, 4, 2, 3)
    losses = to_host(step_cross_entropy_forward(logits, right)[0])
    for k in range(2):
        steps = to_host(cross_entropy_forward(logits[k], right[k])[0])
        np.testing.assert_allclose(losses[k], steps.mean(), rtol=1e-12)


def test_blank_steps_do_not_count_as_right(device: str) -> None:
    """Of three symbols two are said in the first sequence, none of one in the second; the third has none."""
    right = to_device(np.array([[0, 0, 1, 2, 1], [0, 0, 0, 0, 2], [0, 0, 0, 0, 0]]), device)
    said = np.array([[0, 1, 1, 2, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    count = step_cross_entropy(blank=0).correct(to_device(np.eye(3)[said], device), right)
    np.testing.assert_allclose(to_host(count), 2 / 3, rtol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    logits = np.zeros((2, 3, 4))
    for spoilt, wrong in ((logits[0], [0, 1]), (logits, np.zeros((2, 4), int)), (logits[:, :0], np.zeros((2, 0), int))):
        with pytest.raises(ValueError, match=r"logits|labels|no step"):
            step_cross_entropy_forward(spoilt, np.asarray(wrong))
