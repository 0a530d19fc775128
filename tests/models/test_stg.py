"""The model: its gradient in every configuration, what its fields may be, and what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import stm
from stg_np.backend import Array, get_xp, to_device, to_host
from stg_np.fast.choose import layer_pair
from stg_np.gradcheck import check_pair
from stg_np.layers.spec import MEMORY_PRODUCTS, STMKind
from stg_np.models.base import Part
from stg_np.models.steps import VIEWS
from stg_np.models.stg import STG
from stg_np.ops.activations import IDENTITY, TANH, Activation
from stg_np.ops.losses import log_softmax
from stg_np.ops.norm import rms_norm_forward
from stg_np.ops.pool import POOLS
from stg_np.params import Params
from stg_np.stm import STMParams
from stg_np.workspace import Workspace
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, SEEDS, Arrays, B, C, L, examples


@st.composite
def models(draw: st.DrawFn) -> STG:
    """Any configuration, small."""
    bidirectional = draw(st.booleans(), label="bidirectional")
    patch = draw(st.sampled_from(((1, 1), (2, 1), (1, 3), (2, 2))), label="patch")
    rows, columns = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)), label="grid")
    picture = (rows * patch[0], columns * patch[1], draw(st.sampled_from((1, 3)), label="channels"))
    sequence = (rows * columns, draw(st.integers(1, 4), label="features"))
    return STG(
        input_shape=draw(st.sampled_from((picture, sequence)), label="input_shape"),
        classes=draw(C, label="classes"),
        view=draw(st.sampled_from(VIEWS), label="view"),
        patch=patch,
        width=draw(st.sampled_from((2, 4) if bidirectional else (2, 3)), label="width"),
        layers=draw(L, label="layers"),
        bidirectional=bidirectional,
        pool=draw(st.sampled_from(POOLS), label="pool"),
        dropout=draw(st.sampled_from((0.0, 0.4)), label="dropout"),
        **{flag: draw(st.booleans(), label=flag) for flag in ("recurrent", "diagonal", "alternate", "tanh_candidate")},
    )


def draw_params(model: STG, draw: Arrays) -> Params:
    """Parameters of order ½ in every entry."""
    layout = model.layout()
    return Params(layout, draw.uniform(-1, 1, layout.size))


def pair_of(model: STG, x: Array) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Parameters to logits, in training mode with the same dropout every time."""

    def forward(params: Params) -> tuple[Array, tuple[Any, Params]]:
        x_alike = get_xp(x).asarray(x, params.flat.dtype)
        logits, cache, _ = model.forward(x_alike, params, {}, train=True, rng=np.random.default_rng(0))
        return logits, (cache, params)

    return forward, lambda dlogits, kept: (model.backward(dlogits, *kept),)


@pytest.mark.numbers
@examples(0.2)
@given(model=models(), seed=SEEDS, b=B)
def test_gradient(device: str, model: STG, seed: int, b: int) -> None:
    """In float64 alone: the norm of two channels near zero magnifies the rounding of float32 without a bound."""
    draw = Arrays(seed, device=device)
    x = draw.normal(b, *model.input_shape)
    check_pair(
        *pair_of(model, x), {"params": draw_params(model, draw)}, seed=seed, directions=1, jacobian=False, float32=False
    ).assert_ok()


@examples(0.6)
@given(model=models(), draw=ARRAYS, b=st.sampled_from((0, 1, 3)))
def test_contract_and_extremes(device: str, model: STG, draw: Arrays, b: int) -> None:
    params = draw_params(model, draw.on(device))
    for x in (draw.normal(b, *model.input_shape), draw.extreme(b, *model.input_shape)):
        logits, (grads,) = hold_to_contract(*pair_of(model, x), {"params": params})
        steps = (prod(model.grid),) if model.pool == "none" else ()
        assert logits.shape == (b, *steps, model.classes)
        assert grads.layout == params.layout


@examples(0.3)
@given(model=models(), seed=SEEDS)
def test_evaluation_does_not_depend_on_the_batch(device: str, model: STG, seed: int) -> None:
    draw = Arrays(seed, device=device)
    x, params = draw.normal(4, *model.input_shape), draw_params(model, draw)
    together = to_host(model.forward(x, params, {})[0])
    for rows in (slice(2, 3), slice(1, 4), slice(None, None, -1)):
        logits = to_host(model.forward(x[rows], params, {})[0])
        np.testing.assert_allclose(logits, together[rows], rtol=1e-10, atol=1e-12)


def one_layer(model: STG, h: Any, params: Params, layer: int) -> Any:
    """A layer's output."""
    forward, _ = layer_pair(h, model.spec(layer), model.kind, None)
    return forward(h, model.groups(params, layer), model.spec(layer))[0]


@examples(0.3)
@given(seed=SEEDS, recurrent=st.booleans(), diagonal=st.booleans(), t=st.integers(1, 5))
def test_the_other_direction_is_input_and_output_reversed(
    device: str, seed: int, recurrent: bool, diagonal: bool, t: int
) -> None:
    """The walk from the end is the walk from the start of the reversed sequence, reversed."""
    model = STG((t, 3), 2, width=4, layers=1, recurrent=recurrent, diagonal=diagonal)
    draw = Arrays(seed, device=device)
    params, h = draw_params(model, draw), draw.normal(2, t, 3)
    swapped = params.with_flat(params.flat + 0)
    for name in params:
        other = {"right": "left", "left": "right"}
        if name.startswith("stm1."):
            prefix, direction, field = name.split(".")
            swapped[f"{prefix}.{other[direction]}.{field}"][...] = params[name]
    one = to_host(one_layer(model, h, params, 0))
    reversed_one = to_host(one_layer(model, h[:, ::-1], swapped, 0))[:, ::-1]
    np.testing.assert_allclose(np.concatenate([reversed_one[..., 2:], reversed_one[..., :2]], -1), one, rtol=1e-12)


@pytest.mark.parametrize(("tanh_candidate", "phi_z"), [(True, TANH), (False, IDENTITY)])
def test_one_layer_is_the_stm_then_norm_pool_and_head(device: str, tanh_candidate: bool, phi_z: Activation) -> None:
    """The whole model against the layer and four lines of NumPy."""
    model = STG((5, 3), 4, width=3, layers=1, bidirectional=False, tanh_candidate=tanh_candidate, pool="last")
    draw = Arrays(0, device=device)
    x, params = draw.normal(2, 5, 3), draw_params(model, draw)
    (y, _), _ = stm.stm_forward(x, 0 * draw.normal(2, 3), params.group("stm1.right", STMParams), phi_z=phi_z)
    last = to_host(y)[:, -1]
    wanted = last / np.sqrt((last**2).mean(1, keepdims=True) + 1e-5) @ to_host(params["head.W"])
    np.testing.assert_allclose(to_host(model.forward(x, params, {})[0]), wanted + to_host(params["head.b"]), rtol=1e-12)


def test_the_last_of_both_directions_is_where_each_walk_ends(device: str) -> None:
    """The first half of the channels after the last step, the other half after the first."""
    model = STG((5, 3), 4, width=6, layers=1, pool="last")
    draw = Arrays(0, device=device)
    x, params = draw.normal(2, 5, 3), draw_params(model, draw)
    h = to_host(rms_norm_forward(one_layer(model, x, params, 0))[0])
    wanted = np.concatenate([h[:, -1, :3], h[:, 0, 3:]], 1) @ to_host(params["head.W"]) + to_host(params["head.b"])
    np.testing.assert_allclose(to_host(model.forward(x, params, {})[0]), wanted, rtol=1e-12)


def test_deeper_layers_add_to_what_they_read(device: str) -> None:
    """With its candidate at zero a second layer gives nothing, and the model is that of one layer."""
    deep = STG((4, 3), 2, width=4, layers=2)
    draw = Arrays(0, device=device)
    params, x = draw_params(deep, draw), draw.normal(2, 4, 3)
    params = params.with_flat(params.flat + 0)
    for direction in deep.directions:
        group = params.group(f"stm2.{direction}", STMParams)
        group.W[:, 6:] = 0
        group.b[6:] = 0
    shallow = replace(deep, layers=1)
    layout = shallow.layout()
    fewer = Params.pack(layout, {name: params[name] for name in layout.shapes})
    np.testing.assert_allclose(
        to_host(deep.forward(x, params, {})[0]), to_host(shallow.forward(x, fewer, {})[0]), rtol=1e-12
    )


@pytest.mark.parametrize("layer", [1, 2])
def test_deeper_layers_read_normalised_steps(device: str, layer: int) -> None:
    model = STG((5, 3), 2, width=4, layers=3, bidirectional=False)
    draw = Arrays(0, device=device)
    params, h = draw_params(model, draw), draw.normal(2, 5, 4)
    walk, m_0 = params.group(f"stm{layer + 1}.right", STMParams), to_device(np.zeros((2, 4)), device)
    (wanted, _), _ = stm.stm_forward(rms_norm_forward(h)[0], m_0, walk)
    np.testing.assert_allclose(to_host(one_layer(model, h, params, layer)), to_host(h + wanted), rtol=1e-12)


@pytest.mark.parametrize("recurrent", [False, True])
def test_forward_and_backward_take_a_workspace_together(recurrent: bool) -> None:
    model = STG((4, 3), 2, width=4, recurrent=recurrent)
    params, x = draw_params(model, Arrays(0)), np.zeros((2, 4, 3))
    for one, other in ((None, Workspace()), (Workspace(), None)):
        logits, cache, _ = model.forward(x, params, {}, work=one)
        with pytest.raises(ValueError, match="takes a workspace if, and only if, its forward had one"):
            model.backward(logits, cache, params, work=other)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 3, 3)), ValueError, r"batches of shape \(B, 4, 3\), got \(2, 3, 3\)"),
        (np.zeros((4, 3)), ValueError, r"batches of shape \(B, 4, 3\), got \(4, 3\)"),
        (np.zeros((2, 0, 3)), ValueError, "batches of shape"),
        (np.zeros((2, 4, 3), np.float32), TypeError, "the input is float32 and the parameters are float64"),
        (np.zeros((2, 4, 3), np.uint8), TypeError, "the input is uint8 .* convert or scale it first"),
    ],
)
@pytest.mark.parametrize("work", [None, Workspace()], ids=["plain", "fast"])
def test_an_input_that_does_not_fit_is_refused_by_every_path(
    x: Any, error: type[Exception], message: str, work: Workspace | None
) -> None:
    model = STG((4, 3), 2, width=4)
    with pytest.raises(error, match=message):
        model.forward(x, draw_params(model, Arrays(0)), {}, work=work)


# --- views and orders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "grid", "features"), [("rows", (4, 1), 18), ("patches", (2, 2), 18), ("pixels", (4, 6), 3)]
)
def test_views(view: str, grid: tuple[int, int], features: int) -> None:
    model = STG((4, 6, 3), 10, view=view, patch=(2, 3))
    assert (model.grid, model.features) == (grid, features)
    assert model.init(np.random.default_rng(0))[0]["stm1.right.W"].shape[0] == features


def test_a_sequence_is_one_row_of_steps() -> None:
    model = STG((7, 5), 2)
    assert (model.is_picture, model.grid, model.features) == (False, (1, 7), 5)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("others", [False, True])
def test_the_kind_of_stm_follows_its_own_fields_only(diagonal: bool, others: bool) -> None:
    """From it follows which path can walk: a wrong kind shows in the time that it takes, or not at all."""
    for recurrent, tanh_candidate in ((False, True), (True, False)):
        fields: dict[str, Any] = {"recurrent": recurrent, "diagonal": diagonal, "tanh_candidate": tanh_candidate}
        kind = STG((4, 3), 2, bidirectional=others, alternate=others, **fields).kind
        assert kind == STMKind(recurrent, diagonal, TANH if tanh_candidate else IDENTITY)


def test_alternate_only_reorders_the_steps(device: str) -> None:
    """Every second layer walks the grid column by column: the same layer, on the steps in that order."""
    model = STG((2, 3, 1), 2, view="pixels", width=4, layers=4, alternate=True)
    draw = Arrays(0, device=device)
    params, h = draw_params(model, draw), draw.normal(2, 6, 4)
    order = [0, 3, 1, 4, 2, 5]  # down the columns of a 2×3 grid
    back = np.argsort(order)
    by_hand = to_device(np.ascontiguousarray(to_host(h)[:, order]), device)
    for layer in (1, 3):
        plain = one_layer(replace(model, alternate=False), by_hand, params, layer)
        turned = one_layer(model, h, params, layer)
        np.testing.assert_allclose(to_host(turned), to_host(plain)[:, back], rtol=1e-12)
    for layer, read in ((0, draw.normal(2, 6, 1)), (2, h)):
        one, other = (one_layer(m, read, params, layer) for m in (model, replace(model, alternate=False)))
        np.testing.assert_allclose(to_host(one), to_host(other), rtol=1e-12)


# --- dropout, dtype, initial values -------------------------------------------------------------------------


def test_dropout_is_for_training_only_and_follows_its_generator(device: str) -> None:
    model = STG((6, 5), 3, width=8, dropout=0.5)
    draw = Arrays(0, device=device)
    x, params = draw.normal(4, 6, 5), draw_params(model, draw)
    logits = partial(model.forward, x, params, {})

    def train(seed: int) -> Array:
        return to_host(logits(train=True, rng=np.random.default_rng(seed))[0])

    plain = to_host(replace(model, dropout=0.0).forward(x, params, {})[0])
    for evaluated in (logits()[0], logits(rng=np.random.default_rng(0))[0], logits(train=True)[0]):
        np.testing.assert_allclose(to_host(evaluated), plain, rtol=1e-12)
    np.testing.assert_allclose(train(1), train(1), rtol=1e-12)
    assert np.abs(train(1) - train(2)).max() > 1e-3
    assert np.abs(train(1) - plain).max() > 1e-3


@pytest.mark.parametrize("recurrent", [False, True])  # by the fast path, and by the plain one
def test_without_dropout_nothing_is_drawn(recurrent: bool) -> None:
    model, rng = STG((6, 5), 3, width=8, recurrent=recurrent), np.random.default_rng(0)
    model.forward(np.zeros((1, 6, 5)), draw_params(model, Arrays(0)), {}, train=True, rng=rng)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_init(dtype: Any) -> None:
    model = STG((4, 4, 1), 3, width=6, layers=2, recurrent=True, diagonal=True)
    params, state = model.init(np.random.default_rng(3), dtype)
    again, _ = model.init(np.random.default_rng(3), dtype)
    assert params.flat.dtype == dtype
    assert state == {}
    assert model.state_layout().entries == ()
    np.testing.assert_array_equal(params.flat, again.flat)
    roles = {entry.name: (entry.shape, entry.role) for entry in params.layout.entries}
    assert roles["stm1.right.W"] == ((4, 3), "matrix")
    assert roles["stm2.left.R"] == ((3, 3), "matrix")
    assert roles["stm2.left.w"] == ((9,), "vector")
    assert roles["stm1.left.b"] == ((12,), "vector")
    assert (roles["head.W"], roles["head.b"]) == (((6, 3), "head"), ((3,), "vector"))
    assert not params["head.b"].any()


@pytest.mark.parametrize(
    ("shape", "length", "longest"), [((50, 2), 0.0, 50.0), ((5, 10, 2), 0.0, 50.0), ((50, 2), 8.0, 8.0)]
)
def test_time_scales_reach_to_the_expected_length(shape: tuple[int, ...], length: float, longest: float) -> None:
    model = STG(shape, 2, view="pixels", width=2000, layers=1, length=length)
    b_u = model.init(np.random.default_rng(0), np.float64)[0]["stm1.right.b"][1000:2000]
    tau = 1 + np.exp(-b_u)
    assert tau.min() >= 2
    assert 0.95 * longest < tau.max() <= longest * (1 + 1e-12)


def test_every_matrix_is_drawn_anew_and_from_the_given_generator() -> None:
    model = STG((4, 3), 5, width=6, layers=3, recurrent=True)
    one, other = (model.init(np.random.default_rng(seed))[0] for seed in (0, 1))
    matrices = [name for name in one if name.endswith((".W", ".R"))]
    assert len(matrices) == 2 * 2 * 3 + 1
    assert len({one[name].ravel()[:3].tobytes() for name in matrices}) == len(matrices)
    assert all((one[name] != other[name]).all() for name in matrices)


def test_the_head_is_drawn_so_that_logits_have_the_size_of_what_it_reads() -> None:
    head = STG((4, 3), 50, width=400).init(np.random.default_rng(0))[0]["head.W"]
    assert head.std() == pytest.approx(400**-0.5, rel=0.03)


def test_a_new_model_is_undecided(device: str) -> None:
    """Its classes are about equally likely, so that training starts from a loss near log C."""
    model = STG((8, 8, 3), 10, width=32, layers=4)
    params, _ = model.init(np.random.default_rng(0))
    params = params.with_flat(to_device(params.flat, device))
    logits, _, _ = model.forward(Arrays(0, np.float32, device=device).normal(50, 8, 8, 3), params, {})
    loss = -to_host(log_softmax(logits)).mean()
    assert loss < 2 * np.log(10)
    assert to_host(params["head.W"]).std() == pytest.approx(1 / np.sqrt(32), rel=0.2)


# --- what is said about a model --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "STG: 2 STM layers, full gates, input-only form, both directions"),
        ({"diagonal": True, "layers": 3}, "STG: 3 STM layers, diagonal gates, input-only form, both directions"),
        ({"recurrent": True, "bidirectional": False}, "STG: 2 STM layers, full gates, recurrent form, one direction"),
        (
            {"alternate": True, "bidirectional": False, "tanh_candidate": False},
            "STG: 2 STM layers, full gates, input-only form, one direction, every second layer column by column",
        ),
    ],
)
@pytest.mark.parametrize("shape", [(4, 3), (4, 4, 1)])
def test_its_sentence(shape: tuple[int, ...], fields: dict[str, Any], said: str) -> None:
    assert str(STG(shape, 2, **fields)) == said


def test_its_parts_by_hand(device: str) -> None:
    """Two walks of 5 cells, with time scales of 2 … 6 steps to the right and 7 … 11 to the left, longer by layer."""
    model = STG((6, 4, 2), 7, view="patches", patch=(2, 4), width=10, layers=3, recurrent=True, diagonal=True)
    params = model.init(np.random.default_rng(0))[0]
    params = params.with_flat(params.flat + 0)
    for layer in range(3):
        for direction, first in (("right", 2), ("left", 7)):
            b = params[f"stm{layer + 1}.{direction}.b"]
            b[5:10] = -np.log(10 * layer + first + np.arange(5) - 1)  # τ = 1 + e^(−b_u)
    params = params.with_flat(to_device(params.flat, device))
    first, deeper = 16 * 5 + 5 * 5 + 15, 10 * 5 + 5 * 5 + 15  # W, R and w of one walk
    memory = MEMORY_PRODUCTS * 10
    assert model.parts(params) == [
        Part("input", (6, 4, 2)),
        Part("as patches", (3, 16)),
        Part("stm1", (3, 10), 3 * (2 * first + memory), "2.0 … 6.5 … 11.0"),
        Part("stm2", (3, 10), 3 * (2 * deeper + memory), "12.0 … 16.5 … 21.0"),
        Part("stm3", (3, 10), 3 * (2 * deeper + memory), "22.0 … 26.5 … 31.0"),
        Part("mean of the steps", (10,)),
        Part("head", (7,), 70),
    ]


@pytest.mark.parametrize("fields", [{}, {"recurrent": True, "diagonal": True}, {"bidirectional": False}], ids=str)
def test_a_picture_is_cut_and_a_sequence_is_not(fields: dict[str, Any]) -> None:
    for shape, name in (((6, 4), "steps"), ((6, 4, 1), "as rows")):
        model = STG(shape, 2, width=4, **fields)
        assert model.parts(model.init(np.random.default_rng(0))[0])[1].name == name


def test_the_parts_for_a_sequence() -> None:
    model = STG((6, 4), 7, width=3, layers=1, bidirectional=False, pool="last")
    steps, layer, pooled = model.parts(model.init(np.random.default_rng(0))[0])[1:4]
    assert steps == Part("steps", (6, 4))
    assert (layer.shape, layer.multiply_adds) == ((6, 3), 6 * (4 * 12 + MEMORY_PRODUCTS * 3))
    assert pooled == Part("last of the steps", (3,))


# --- fields that do not fit ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"view": "columns"}, "view is one of rows, patches, pixels, permuted, not 'columns'"),
        ({"pool": "max"}, "pool is one of mean, last, none, not 'max'"),
        ({"input_shape": (4,)}, r"input_shape, \(height, width, c\) or \(T, D\), must have 2 or 3 numbers, got \(4,\)"),
        ({"input_shape": (4, 4, 3, 1)}, "input_shape.* 2 or 3 numbers"),
        ({"input_shape": (4, 0, 3)}, "input_shape.* at least 1"),
        ({"classes": 0}, "classes must be at least 1"),
        ({"width": 0}, "must be at least 1"),
        ({"layers": 0}, "must be at least 1"),
        ({"patch": (0, 2)}, "must be at least 1"),
        ({"width": 1}, "width 1 cannot be halved between two directions"),
        ({"width": 7}, "width 7 cannot be halved between two directions"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"dropout": -0.1}, r"dropout must be at least 0 and below 1, got -0\.1"),
        ({"view": "patches", "patch": (3, 2)}, r"patches of \(3, 2\) do not divide a picture of \(4, 4\)"),
        ({"view": "patches", "patch": (2, 3)}, r"patches of \(2, 3\) do not divide a picture of \(4, 4\)"),
    ],
)
def test_fields_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(STG((4, 4, 3), 10), **fields)


def test_fields_at_their_limits() -> None:
    STG((1, 1), 1, width=1, layers=1, bidirectional=False)
    STG((3, 3, 1), 1, patch=(2, 2), view="rows")  # the patch counts for the view "patches" only
    STG((5, 3), 2, patch=(2, 2), view="patches")  # and a sequence has none
