"""The image model: fast and plain agree in every configuration, statistics, sizes, and what its fields may be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import to_device, to_host
from stg_np.fast import conv, maps
from stg_np.models.image_stg import ImageSTG
from stg_np.models.whitening import whitening_kernel
from stg_np.params import Params
from stg_np.workspace import Workspace
from tests.strategies import SEEDS, Arrays, examples

MODEL = ImageSTG((8, 8, 2), 3, widths=(8, 4), stem=3, sweeping=(2, 3))


@st.composite
def models(draw: st.DrawFn) -> ImageSTG:
    """Any configuration, small."""
    return ImageSTG(
        draw(st.sampled_from(((8, 8, 2), (8, 16, 1)))),
        3,
        widths=draw(st.sampled_from(((8,), (8, 4)))),
        depth=draw(st.sampled_from((1, 2))),
        window=draw(st.sampled_from((1, 3))),
        patch=draw(st.sampled_from((1, 2))),
        stem=draw(st.sampled_from((0, 4))),
        sweeping=draw(st.sampled_from(((), (1,)))),
        directions=draw(st.sampled_from((1, 2, 4))),
        join=draw(st.sampled_from(("quarters", "sum"))),
        louder=draw(st.booleans()),
        diagonal=draw(st.booleans()),
    )


def drawn(model: ImageSTG, seed: int, device: str = "cpu", dtype: Any = np.float64) -> tuple[Params, Any, Any]:
    """Parameters of order ½, a state near the one of white input, and pictures."""
    draw = Arrays(seed, dtype, device=device)
    params = Params(model.layout(), 0.5 * draw.normal(model.layout().size))
    state = {name: draw.uniform(0.5, 2, *shape) for name, shape in model.state_layout().shapes.items()}
    return params, state, draw.normal(3, *model.input_shape)


@examples(0.5)
@given(model=models(), seed=SEEDS, train=st.booleans())
def test_the_fast_path_is_the_plain_one(model: ImageSTG, seed: int, train: bool) -> None:
    params, state, x = drawn(model, seed)
    work = Workspace()
    plain, cache, kept = model.forward(x, params, state, train=train)
    fast, fast_cache, fast_kept = model.forward(x, params, state, train=train, work=work)
    np.testing.assert_allclose(fast, plain, rtol=1e-9, atol=1e-11)
    for name in kept:
        np.testing.assert_allclose(fast_kept[name], kept[name], rtol=1e-9, atol=1e-11)
    dlogits = np.random.default_rng(seed).standard_normal(plain.shape)
    grads, fast_grads = model.backward(dlogits, cache, params), model.backward(dlogits, fast_cache, params, work=work)
    scale = np.abs(grads.flat).max()
    np.testing.assert_allclose(fast_grads.flat / scale, grads.flat / scale, atol=1e-8)


def test_one_picture_at_a_time_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast path adds its sums up over chunks."""
    for module in (conv, maps):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    params, state, x = drawn(MODEL, 6)
    work = Workspace()
    plain, cache, kept = MODEL.forward(x, params, state, train=True)
    fast, fast_cache, fast_kept = MODEL.forward(x, params, state, train=True, work=work)
    np.testing.assert_allclose(fast, plain, rtol=1e-9)
    np.testing.assert_allclose(fast_kept["stm1.variance"], kept["stm1.variance"], rtol=1e-9)
    grads, fast_grads = MODEL.backward(plain, cache, params), MODEL.backward(plain, fast_cache, params, work=work)
    np.testing.assert_allclose(fast_grads.flat, grads.flat, atol=1e-9 * np.abs(grads.flat).max())


def test_both_libraries_give_the_same(device: str) -> None:
    params, state, x = drawn(MODEL, 1, device)
    on_host = drawn(MODEL, 1)
    logits, cache, _ = MODEL.forward(x, params, state, train=True)
    wanted, wanted_cache, _ = MODEL.forward(on_host[2], on_host[0], on_host[1], train=True)
    np.testing.assert_allclose(to_host(logits), wanted, rtol=1e-12)
    dlogits = np.ones(wanted.shape)
    grads = MODEL.backward(to_device(dlogits, device), cache, params)
    np.testing.assert_allclose(
        to_host(grads.flat), MODEL.backward(dlogits, wanted_cache, on_host[0]).flat, rtol=1e-9, atol=1e-12
    )


def test_running_statistics_follow_the_batches_and_are_used_in_evaluation() -> None:
    """After many steps on one batch, training and evaluation see the same network."""
    params, state, x = drawn(MODEL, 2)
    for _ in range(60):
        trained, _, state = MODEL.forward(x, params, state, train=True)
    evaluated, _, same = MODEL.forward(x, params, state)
    np.testing.assert_allclose(evaluated, trained, rtol=1e-9)
    assert all(same[name] is state[name] for name in state)


@pytest.mark.parametrize("side", [4, 8, 12])
def test_other_sizes_that_the_blocks_can_halve_are_accepted(side: int) -> None:
    params, state, _ = drawn(MODEL, 3)
    assert MODEL.forward(np.zeros((2, side, side, 2)), params, state)[0].shape == (2, 3)


@pytest.mark.parametrize("shape", [(2, 6, 8, 2), (2, 8, 8, 3), (8, 8, 2), (2, 0, 8, 2)])
def test_other_pictures_are_refused(shape: tuple[int, ...]) -> None:
    params, state, _ = drawn(MODEL, 3)
    with pytest.raises(ValueError, match=r"multiples of 4|batches of shape|input_shape"):
        MODEL.forward(np.zeros(shape), params, state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_shape": (8, 8)}, "input_shape"),
        ({"input_shape": (8, 6, 2)}, "multiples of 4"),
        ({"widths": ()}, "at least 1"),
        ({"window": 2}, "odd side"),
        ({"stem": 19}, "at most 18 directions"),
        ({"sweeping": (5,)}, "from 1 to 4"),
        ({"join": "product"}, "join is one of"),
        ({"directions": 3}, "cannot be shared out"),
        ({"norm_rate": 0.0}, "norm_rate"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MODEL, **fields)


def test_the_stem_whitens_what_it_was_adapted_to() -> None:
    """Its answers to such pictures have no correlation, and variance 1 where there was variance."""
    rng = np.random.default_rng(0)
    pictures = np.cumsum(rng.standard_normal((40, 8, 8, 2)), 2)
    pictures -= pictures.mean()
    params, _ = MODEL.init(rng, np.float64)
    kernel = MODEL.adapted(params, pictures)["stem.W"]
    np.testing.assert_array_equal(kernel, whitening_kernel(pictures, 3, 3))
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (3, 3), axis=(1, 2))
    answers = np.einsum("nrcdij,ijdk->nrck", windows, kernel).reshape(-1, 6)
    np.testing.assert_allclose(answers[:, :3].T @ answers[:, :3] / len(answers), np.eye(3), atol=1e-3)
    np.testing.assert_array_equal(answers[:, 3:], -answers[:, :3])


def test_a_frozen_window_has_no_gradient() -> None:
    params, state, x = drawn(MODEL, 4)
    logits, cache, _ = MODEL.forward(x, params, state, train=True)
    grads = MODEL.backward(logits, cache, params)
    assert not grads["stem.W"].any()
    assert all(grads[name].any() for name in params if name != "stem.W")


def test_a_backward_takes_the_workspace_of_its_forward() -> None:
    params, state, x = drawn(MODEL, 5)
    logits, cache, _ = MODEL.forward(x, params, state)
    with pytest.raises(ValueError, match="if, and only if"):
        MODEL.backward(logits, cache, params, work=Workspace())


def test_memories_start_nearly_open_or_with_the_time_scales_asked_for() -> None:
    rng = np.random.default_rng(0)
    b = MODEL.init(rng)[0]["stm2.b"].reshape(4, -1)
    np.testing.assert_array_equal(b, np.repeat([[0.0], [2], [2], [0]], 8, 1))
    slow = replace(MODEL, length=50.0).init(rng)[0]["stm2.b"].reshape(4, -1)[1]
    scales = 1 + np.exp(-slow)
    assert (scales > 1.99).all()
    assert (scales < 50.01).all()
    assert np.ptp(scales) > 1
