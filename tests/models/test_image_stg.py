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
from stg_np.fast.choose import map_layer_pair
from stg_np.models.image_stg import ImageSTG
from stg_np.models.whitening import whitening_kernel
from stg_np.params import Params
from stg_np.stm import STMParams
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
        ({"stem": 19}, "stem must be at most 18"),
        ({"sweeping": (5,)}, "from 1 to 4"),
        ({"join": "product"}, "join is one of"),
        ({"directions": 3}, "cannot be shared out"),
        ({"directions": 5}, "there are 1 to 4 directions, got 5"),
        ({"norm_rate": 0.0}, "norm_rate"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MODEL, **fields)


def test_a_layer_s_number_is_a_whole_one() -> None:
    fields: dict[str, Any] = {"sweeping": (1.0,)}
    with pytest.raises(TypeError, match="sweeping"):
        replace(MODEL, **fields)


def test_only_quarters_need_channels_for_each_direction() -> None:
    assert replace(MODEL, join="sum", directions=3).directions == 3


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


def test_parts_count_every_product_and_name_the_time_scales() -> None:
    """Multiply-adds by hand: windows see the map before it is pooled; three diagonal gates and three of the memory."""
    model = ImageSTG((8, 4, 3), 5, widths=(8,), depth=2, patch=2, stem=2, sweeping=(2,))
    params, _ = model.init(np.random.default_rng(0))
    parts = {part.name: part for part in model.parts(params)}
    assert [part.shape for part in parts.values()] == [
        (8, 4, 3), (4, 2, 12), (4, 2, 4), (2, 1, 8), (2, 1, 8), (8,), (5,),
    ]  # fmt: skip
    assert [part.multiply_adds for part in parts.values()] == [
        0, 0, 8 * 9 * 12 * 4 + 8 * 6 * 4, 8 * 9 * 4 * 8 + 2 * 6 * 8, 2 * 9 * 8 * 8 + 2 * 6 * 8, 0, 40,
    ]  # fmt: skip
    assert (parts["stm1"].note, parts["stm2"].note) == ("", "1.1 … 1.1 … 1.1")
    assert [part.name for part in MODEL.parts(drawn(MODEL, 0)[0])][:2] == ["input", "stem"]
    assert str(model) == "image STG: 2 STM layers in 1 blocks, diagonal gates, memory sweeps in layers 2"
    assert str(replace(model, sweeping=(), diagonal=False)).endswith("full gates, no sweeps")


def test_without_a_stem_there_is_nothing_to_adapt() -> None:
    model = replace(MODEL, stem=0)
    params, _ = model.init(np.random.default_rng(0))
    assert model.adapted(params, np.zeros((2, 8, 8, 2))) is params


@pytest.mark.parametrize(("window", "directions"), [(3, 19), (9, 2)])
def test_a_whitening_that_does_not_fit_is_refused(window: int, directions: int) -> None:
    with pytest.raises(ValueError, match=f"asked for {directions}"):
        whitening_kernel(np.zeros((2, 8, 8, 2)), window, directions)


def test_the_fast_layer_refuses_what_it_does_not_know() -> None:
    spec, own = replace(MODEL, join="sum").spec("stm2"), drawn(MODEL, 0)[0].group("stm2", STMParams)
    with pytest.raises(ValueError, match="does not know such a layer"):
        maps.map_layer_forward(np.zeros((1, 4, 4, 8)), own, spec, None, work=Workspace())


def test_a_learned_layer_without_a_norm() -> None:
    draw, spec = Arrays(0), replace(MODEL.spec("stm2"), normalises=False)
    own, h, dy = drawn(MODEL, 0)[0].group("stm2", STMParams), draw.normal(2, 4, 4, 8), draw.normal(2, 4, 4, 8)
    passes = []
    for work in (None, Workspace()):
        forward, backward = map_layer_pair(h, spec, own, work)
        (y, measured), cache = forward(h, own, spec, None)
        assert measured is None
        dh, (dW, db, _, dw) = backward(dy, cache, own, spec)
        passes.append([y, dh, dW, db, dw])
    for plain, fast in zip(*passes):
        np.testing.assert_allclose(fast, plain, rtol=1e-9, atol=1e-9)


def test_a_gate_may_start_nearly_closed() -> None:
    model = ImageSTG((4, 4, 1), 2, widths=(4,), depth=1, stem=0, input_bias=-3.0, update_bias=-2.0, output_bias=-1.0,
                     sweeping=(), directions=1)  # fmt: skip
    params, _ = model.init(np.random.default_rng(0))
    assert params["stm1.b"].reshape(4, 4)[:, 0].tolist() == [-3, -2, -1, 0]
