"""Loss and gradient over a model: what ``weight`` promises, and that the device is never waited for."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import to_device, to_host
from stg_np.gradcheck import check_gradient
from stg_np.models.base import LossAndGrad, loss_and_grad
from stg_np.models.stg import STG
from stg_np.ops.losses import cross_entropy, cross_entropy_forward
from stg_np.params import Params
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, SEEDS, Arrays, examples

MODEL = STG((4, 3), 3, width=4, layers=2)


def draw_params(model: STG, draw: Arrays) -> Params:
    """Parameters of order ½ in every entry."""
    layout = model.init(np.random.default_rng(0))[0].layout
    return Params(layout, draw.uniform(-1, 1, layout.size))


@examples(0.4)
@given(seed=SEEDS, b=st.integers(1, 6), smoothing=st.sampled_from((0.0, 0.2)), data=st.data())
def test_uneven_shards_add_up_to_the_batch(
    device: str, seed: int, b: int, smoothing: float, data: st.DataObject
) -> None:
    """With weight 1/N the losses, the gradients and the hits of the shards are those of the mean over N."""
    draw = Arrays(seed, device=device)
    params, x, labels = draw_params(MODEL, draw), draw.normal(b, 4, 3), draw.labels(3, b)
    cuts = sorted({0, b, *data.draw(st.lists(st.integers(0, b), max_size=3), label="cuts")})

    def run(part: slice) -> LossAndGrad:
        return loss_and_grad(MODEL, params, {}, x[part], labels[part], loss=cross_entropy(smoothing), weight=1 / b)

    whole, shards = run(slice(None)), [run(slice(*pair)) for pair in pairwise(cuts)]
    assert math.isclose(whole.loss, math.fsum(float(shard.loss) for shard in shards), rel_tol=1e-12)
    assert int(whole.correct) == sum(int(shard.correct) for shard in shards)
    total = np.sum([to_host(shard.grads.flat) for shard in shards], 0)
    np.testing.assert_allclose(to_host(whole.grads.flat), total, rtol=1e-10, atol=1e-12)


def test_an_empty_shard_adds_nothing(device: str) -> None:
    draw = Arrays(0, device=device)
    result = loss_and_grad(
        MODEL, draw_params(MODEL, draw), {}, draw.normal(0, 4, 3), draw.labels(3, 0), loss=cross_entropy(), weight=1.0
    )
    assert (float(result.loss), int(result.correct)) == (0.0, 0)
    assert not to_host(result.grads.flat).any()


@examples(0.3)
@given(draw=ARRAYS)
def test_loss_by_its_definition(device: str, draw: Arrays) -> None:
    params, x, labels = draw_params(MODEL, draw.on(device)), draw.normal(5, 4, 3), draw.labels(3, 5)
    logits = to_host(MODEL.forward(x, params, {})[0]).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    result = loss_and_grad(MODEL, params, {}, x, labels, loss=cross_entropy(0.0), weight=0.2)
    right = probabilities[np.arange(5), to_host(labels)]
    assert math.isclose(float(result.loss), -np.log(right).mean(), rel_tol=1e-5, abs_tol=1e-6)
    assert int(result.correct) == (logits.argmax(1) == to_host(labels)).sum()


def test_it_is_the_smoothed_loss_in_training_mode(device: str) -> None:
    model, draw = STG((3, 2), 3, width=4, dropout=0.5), Arrays(0, device=device)
    params, x, labels = draw_params(model, draw), draw.normal(4, 3, 2), draw.labels(3, 4)
    rng = np.random.default_rng(1)
    result = loss_and_grad(model, params, {}, x, labels, loss=cross_entropy(0.3), weight=0.25, rng=rng)
    logits, _, _ = model.forward(x, params, {}, train=True, rng=np.random.default_rng(1))
    losses, _ = cross_entropy_forward(logits, labels, label_smoothing=0.3)
    assert math.isclose(float(result.loss), to_host(losses).mean(), rel_tol=1e-12)


@pytest.mark.numbers
@examples(0.06)
@given(seed=SEEDS, smoothing=st.sampled_from((0.0, 0.2)), dropout=st.sampled_from((0.0, 0.5)))
def test_the_gradient_is_that_of_the_loss(device: str, seed: int, smoothing: float, dropout: float) -> None:
    """Loss and gradient come from one call; they must not disagree, by a factor or otherwise."""
    model, draw = STG((3, 2), 3, width=4, dropout=dropout), Arrays(seed, device=device)
    x, labels = to_host(draw.normal(4, 3, 2)), draw.labels(3, 4)

    def value_and_gradients(params: Params) -> tuple[Any, Params]:
        inputs = to_device(x.astype(params.flat.dtype), device)
        rng = np.random.default_rng(seed)
        result = loss_and_grad(model, params, {}, inputs, labels, loss=cross_entropy(smoothing), weight=0.25, rng=rng)
        return result.loss, result.grads

    inputs = {"params": draw_params(model, draw)}
    check_gradient(value_and_gradients, inputs, seed=seed, directions=1, jacobian=False).assert_ok()


@examples(0.3)
@given(draw=ARRAYS, recurrent=st.booleans(), diagonal=st.booleans())
def test_contract_of_the_whole(device: str, draw: Arrays, recurrent: bool, diagonal: bool) -> None:
    """Forward, loss, backward: the dtype of the input, nothing written, and not one wait for the device."""
    model = STG((4, 4, 1), 3, width=4, layers=3, recurrent=recurrent, diagonal=diagonal, alternate=True, dropout=0.2)
    inputs = {"params": draw_params(model, draw.on(device)), "x": draw.normal(3, 4, 4, 1), "labels": draw.labels(3, 3)}

    def forward(params: Params, x: Any, labels: Any) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        result = loss_and_grad(model, params, {}, x, labels, loss=cross_entropy(0.1), weight=1 / 3, rng=rng)
        return result.loss, (result.grads, result.correct)

    hold_to_contract(forward, lambda dloss, kept: kept[0].flat, inputs)
