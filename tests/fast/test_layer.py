"""The fast path of a whole layer against its oracle, with and without a workspace, and what it allocates."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.fast import choose, layer, walks
from stg_np.models.base import loss_and_grad
from stg_np.models.stack import Stack
from stg_np.models.stg import STG
from stg_np.ops.activations import IDENTITY, SIGMOID, TANH
from stg_np.ops.losses import cross_entropy
from stg_np.params import Params
from stg_np.workspace import Workspace
from tests.contract import leaves


@st.composite
def models(draw: st.DrawFn) -> STG:
    """Models whose layers the fast path covers; sides and numbers of channels include 1."""
    diagonal = draw(st.booleans())
    return STG(
        draw(st.one_of(st.tuples(*3 * [st.integers(1, 4)]), st.tuples(st.integers(1, 6), st.integers(1, 3)))),
        draw(st.integers(2, 4)),
        view=draw(st.sampled_from(["rows", "pixels"])),
        width=2 * draw(st.integers(1, 3)),
        layers=draw(st.integers(1, 3)),
        diagonal=diagonal,
        bidirectional=draw(st.booleans()),
        alternate=draw(st.booleans()),
        tanh_candidate=not diagonal and draw(st.booleans()),
        pool=draw(st.sampled_from(["mean", "last"])),
        dropout=draw(st.sampled_from([0.0, 0.4])),
    )


def drawn_params(model: Stack, rng: np.random.Generator, dtype: Any) -> Params:
    params, _ = model.init(rng, dtype)
    params = params.with_flat(rng.standard_normal(params.flat.size).astype(dtype))
    params.flat.flags.writeable = False
    return params


def poison(work: Workspace) -> None:
    """NaN into all memory that is held, so that whoever reads what he has not written is found out."""
    for memory in work._memory.values():
        memory[...] = 0xFF
    for room in work._rooms.values():
        poison(room)


@given(
    model=models(),
    seed=st.integers(0, 2**32 - 1),
    B=st.integers(0, 4),
    dtype=st.sampled_from([np.float32, np.float64]),
    chunk_bytes=st.sampled_from([1, 200, 1 << 20]),
)
def test_a_layer_equals_the_plain_one(model: STG, seed: int, B: int, dtype: Any, chunk_bytes: int) -> None:
    rng = np.random.default_rng(seed)
    params, T = drawn_params(model, rng, dtype), model.grid[0] * model.grid[1]
    for number in range(model.layers):
        h = rng.standard_normal((B, T, model.width if number else model.features)).astype(dtype)
        dh = rng.standard_normal((B, T, model.width)).astype(dtype)
        h.flags.writeable = dh.flags.writeable = False
        spec, groups, work = model.spec(number), model.groups(params, number), Workspace()

        def both(work: Workspace | None, h: Any = h, dh: Any = dh, spec: Any = spec, groups: Any = groups) -> Any:
            forward, backward = choose.layer_pair(h, spec, model.kind, work)
            y, cache = forward(h, groups, spec, rng=np.random.default_rng(1))
            assert isinstance(cache, layer.FastLayerCache) == (work is not None)
            return [array.copy() for array in leaves((y, *backward(dh, cache, groups, spec)))]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(walks, "CHUNK_BYTES", chunk_bytes)
            quick = both(work)
            poison(work)
            again = both(work)
        tolerance = 2e-4 if dtype is np.float32 else 1e-11
        for got, expected, same in zip(quick, both(None), again):
            assert got.dtype == dtype
            # 1 is the scale of what was drawn: through saturated gates comes little more than rounding
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max(initial=1))
            np.testing.assert_array_equal(same, got)  # the same computation, in memory of another content


@pytest.mark.parametrize(("dropout", "drawn"), [(0.0, False), (0.5, True)])
def test_without_dropout_nothing_is_drawn(dropout: float, drawn: bool) -> None:
    model, rng = STG((4, 3), 2, width=4, layers=1, dropout=dropout), np.random.default_rng(0)
    params = drawn_params(model, np.random.default_rng(1), np.float32)
    h, spec = np.ones((2, 4, 3), np.float32), model.spec(0)
    forward, _ = choose.layer_pair(h, spec, model.kind, Workspace())
    forward(h, model.groups(params, 0), spec, rng=rng)
    assert (rng.random() != np.random.default_rng(0).random()) == drawn


def test_what_it_does_not_cover_is_refused() -> None:
    model = STG((4, 3), 2, width=4, layers=2)
    params, h = drawn_params(model, np.random.default_rng(0), np.float32), np.ones((2, 4, 3), np.float32)
    forward = partial(layer.layer_forward, walks=layer.stm_walks(TANH), work=Workspace())
    groups = model.groups(params, 0)
    with pytest.raises(ValueError, match="walks to the right, or to the right and the left, not"):
        forward(h, groups, replace(model.spec(0), directions=("left", "right")))
    with pytest.raises(ValueError, match="does not know such an STM"):
        forward(h, groups, model.spec(0), walks=layer.stm_walks(SIGMOID))
    with pytest.raises(ValueError, match=r"this layer walks 4 steps of shape \(B, 4, D\), got \(2, 3, 3\)"):
        forward(h[:, 1:], groups, model.spec(0))
    with pytest.raises(TypeError, match="one floating dtype, not float32, float64"):
        forward(h.astype(np.float64), groups, model.spec(0))


@pytest.mark.parametrize("field", ["W", "b", "w"])
@pytest.mark.parametrize("walk", [0, 1])
def test_another_dtype_is_refused_in_each_walk(walk: int, field: str) -> None:
    model = STG((4, 3), 2, width=4, layers=1, diagonal=True, tanh_candidate=False)
    params, h = drawn_params(model, np.random.default_rng(0), np.float32), np.ones((2, 4, 3), np.float32)
    groups = model.groups(params, 0)
    groups[walk] = groups[walk]._replace(**{field: getattr(groups[walk], field).astype(np.float64)})
    with pytest.raises(TypeError, match="one floating dtype, not float32, float64"):
        layer.layer_forward(h, groups, model.spec(0), walks=layer.stm_walks(IDENTITY), work=Workspace())


@given(model=models(), seed=st.integers(0, 2**32 - 1))
def test_a_workspace_changes_no_bit_of_a_step_and_results_do_not_lie_in_it(model: STG, seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = drawn_params(model, rng, np.float32)
    x, labels = rng.standard_normal((3, *model.input_shape), np.float32), rng.integers(0, model.classes, 3)
    x.flags.writeable = False
    work = Workspace()

    def step(work: Workspace | None) -> Any:
        return loss_and_grad(
            model, params, {}, x, labels, loss=cross_entropy(0.0), weight=1 / 3, rng=np.random.default_rng(0), work=work
        )

    fresh, first = step(Workspace()), step(work)
    logits = model.forward(x, params, {}, work=work)[0]
    before = logits.copy()
    poison(work)
    np.testing.assert_array_equal(logits, before)
    for result in (first, step(work)):
        np.testing.assert_array_equal(result.grads.flat, fresh.grads.flat)
        assert (result.loss, result.correct) == (fresh.loss, fresh.correct)


@given(model=models(), seed=st.integers(0, 2**32 - 1))
def test_a_step_in_a_workspace_is_the_plain_one(model: STG, seed: int) -> None:
    """Of a whole model: the gradient of one layer must not lie where the next one writes."""
    rng = np.random.default_rng(seed)
    params = drawn_params(model, rng, np.float64)
    x, labels = rng.standard_normal((3, *model.input_shape)), rng.integers(0, model.classes, 3)
    plain, fast = (
        loss_and_grad(
            model, params, {}, x, labels, loss=cross_entropy(0.0), weight=1 / 3, rng=np.random.default_rng(0), work=work
        )
        for work in (None, Workspace())
    )
    scale = np.abs(plain.grads.flat).max()
    np.testing.assert_allclose(fast.grads.flat, plain.grads.flat, rtol=1e-9, atol=1e-9 * max(1, scale))
    np.testing.assert_allclose(fast.loss, plain.loss, rtol=1e-9)


def peak(run: Callable[[], Any]) -> int:
    """The most bytes that a call holds at once, beyond what was held before."""
    run()
    tracemalloc.start()
    run()
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used


def step_of(steps: int, work: Workspace | None) -> Callable[[], Any]:
    model = STG((steps, 48), 10, width=64, layers=4)
    rng = np.random.default_rng(0)
    params, _ = model.init(rng)
    x, labels = rng.standard_normal((16, steps, 48), np.float32), rng.integers(0, 10, 16)
    return lambda: loss_and_grad(model, params, {}, x, labels, loss=cross_entropy(0.0), weight=1 / 16, work=work)


def test_a_step_in_steady_state_allocates_almost_nothing() -> None:
    """What remains is the gradient, twice (by name and packed), and under three maps in the norm before the head."""
    step, one_map = step_of(256, None), 4 * 16 * 256 * 64
    gradient = step().grads.flat.nbytes
    assert peak(step) > 45 * one_map
    assert peak(step_of(256, Workspace())) - 2 * gradient < 3 * one_map


def test_a_workspace_grows_linearly_with_the_steps() -> None:
    def held(steps: int) -> int:
        work = Workspace()
        step_of(steps, work)()
        return work.nbytes

    one, two, four = held(256), held(512), held(1024)  # above a constant: the chunks'
    assert 1.95 < (four - two) / (two - one) < 2.05
