"""The stack of recurrent layers with every cell: what is the same for all, and what each cell makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import Array, get_xp, to_host
from stg_np.gradcheck import check_pair
from stg_np.layers.walk import layer_forward
from stg_np.models import MODELS
from stg_np.models.base import Part
from stg_np.models.gru import GRU
from stg_np.models.lstm import LSTM
from stg_np.models.rnn import RNN
from stg_np.models.stack import Stack
from stg_np.models.stg import STG
from stg_np.ops.norm import rms_norm_forward
from stg_np.params import Params
from stg_np.workspace import Workspace
from tests.contract import hold_to_contract
from tests.strategies import ARRAYS, SEEDS, Arrays, examples

OTHERS: tuple[type[Stack], ...] = (LSTM, GRU, RNN)
every_other = pytest.mark.parametrize("kind", OTHERS)


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """Any configuration, small."""
    bidirectional = draw(st.booleans())
    return {
        "input_shape": draw(st.sampled_from(((4, 6, 2), (5, 3)))),
        "view": draw(st.sampled_from(("rows", "patches", "pixels"))),
        "patch": (2, 3),
        "width": draw(st.sampled_from((2, 4) if bidirectional else (2, 3))),
        "layers": draw(st.integers(1, 3)),
        "bidirectional": bidirectional,
        "alternate": draw(st.booleans()),
        "pool": draw(st.sampled_from(("mean", "last"))),
        "dropout": draw(st.sampled_from((0.0, 0.4))),
    }


def draw_params(model: Stack, draw: Arrays) -> Params:
    """Parameters of order ½ in every entry."""
    layout = model.layout()
    return Params(layout, draw.uniform(-1, 1, layout.size))


def pair_of(model: Stack, x: Array) -> tuple[Any, Any]:
    """Parameters to logits, in training mode with the same dropout every time."""

    def forward(params: Params) -> tuple[Array, tuple[Any, Params]]:
        x_alike = get_xp(x).asarray(x, params.flat.dtype)
        logits, cache, _ = model.forward(x_alike, params, {}, train=True, rng=np.random.default_rng(0))
        return logits, (cache, params)

    return forward, lambda dlogits, kept: (model.backward(dlogits, *kept),)


@pytest.mark.numbers
@every_other
@examples(0.1)
@given(fields=fields(), seed=SEEDS)
def test_gradient(device: str, kind: type[Stack], fields: dict[str, Any], seed: int) -> None:
    model, draw = kind(classes=3, **fields), Arrays(seed, device=device)
    inputs = {"params": draw_params(model, draw)}
    pair = pair_of(model, draw.normal(2, *model.input_shape))
    check_pair(*pair, inputs, seed=seed, directions=1, jacobian=False, float32=False).assert_ok()


@every_other
@examples(0.2)
@given(fields=fields(), draw=ARRAYS, b=st.sampled_from((0, 1, 3)))
def test_contract_and_extremes(device: str, kind: type[Stack], fields: dict[str, Any], draw: Arrays, b: int) -> None:
    model = kind(classes=3, **fields)
    params = draw_params(model, draw.on(device))
    for x in (draw.normal(b, *model.input_shape), draw.extreme(b, *model.input_shape)):
        logits, (grads,) = hold_to_contract(*pair_of(model, x), {"params": params})
        assert logits.shape == (b, 3)
        assert grads.layout == params.layout


@every_other
def test_only_the_cell_is_another_than_in_the_stg(device: str, kind: type[Stack]) -> None:
    """Two layers with their path, norm, pooling and head, the cell walked by the layer that a test of its own holds."""
    model = kind((5, 3), 4, width=4)
    assert (model.grid, model.directions, model.features) == (STG((5, 3), 4).grid, STG((5, 3), 4).directions, 3)
    draw = Arrays(0, device=device)
    x, params = draw.normal(2, 5, 3), draw_params(model, draw)
    h: Any = x
    for layer in range(2):
        cell: Any = model.kind
        h, _ = layer_forward(h, model.groups(params, layer), model.spec(layer), cell=cell)
    pooled = to_host(rms_norm_forward(h)[0]).mean(1)
    wanted = pooled @ to_host(params["head.W"]) + to_host(params["head.b"])
    np.testing.assert_allclose(to_host(model.forward(x, params, {})[0]), wanted, rtol=1e-12)


@every_other
def test_its_name_its_roles_and_its_sentence(kind: type[Stack]) -> None:
    name = kind.__name__
    assert MODELS[name.lower()] is kind
    model = kind((4, 3), 2, width=6, layers=3)
    params, state = model.init(np.random.default_rng(3), np.float32)
    assert params.flat.dtype == np.float32
    assert state == {}
    assert model.state_layout().entries == ()
    roles = {entry.name: entry.role for entry in params.layout.entries}
    prefix = name.lower()
    assert roles[f"{prefix}3.left.R"] == roles[f"{prefix}1.right.W"] == "matrix"
    assert roles[f"{prefix}2.left.b"] == "vector"
    assert str(model) == f"{name}: 3 {name} layers, both directions"
    assert str(replace(model, bidirectional=False, alternate=True)) == (
        f"{name}: 3 {name} layers, one direction, every second layer column by column"
    )


@pytest.mark.parametrize(("kind", "blocks", "products"), [(LSTM, 4, 3), (GRU, 3, 2), (RNN, 1, 0)])
def test_its_parts_by_hand(kind: type[Stack], blocks: int, products: int) -> None:
    model = kind((6, 4, 2), 7, view="patches", patch=(2, 4), width=10, layers=2)
    name = kind.__name__.lower()
    first, deeper = (2 * blocks * (D * 5 + 5 * 5) + products * 10 for D in (16, 10))
    assert model.parts(model.init(np.random.default_rng(0))[0]) == [
        Part("input", (6, 4, 2)),
        Part("as patches", (3, 16)),
        Part(f"{name}1", (3, 10), 3 * first),
        Part(f"{name}2", (3, 10), 3 * deeper),
        Part("mean of the steps", (10,)),
        Part("head", (7,), 70),
    ]


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_memories_of_a_given_length(kind: Any) -> None:
    """The forget gate's bias of an LSTM, the update gate's of a GRU: both are the second block."""
    model = kind((5, 3), 2, width=600, length=40.0)
    second = model.init(np.random.default_rng(0), np.float64)[0]["".join([kind.__name__.lower(), "2.left.b"])][300:600]
    longest = 1 + np.exp(np.abs(second).max())
    assert 35 < longest <= 40 + 1e-9
    plain = replace(model, length=0.0).init(np.random.default_rng(0))[0][f"{kind.__name__.lower()}2.left.b"][300:600]
    assert set(plain.tolist()) == {1.0 if kind is LSTM else 0.0}


@every_other
def test_fields_that_do_not_fit_are_refused(kind: type[Stack]) -> None:
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"width": 7}, "cannot be halved"),
        ({"pool": "max"}, "pool is one of mean, last"),
        ({"view": "columns"}, "view is one of"),
        ({"layers": 0}, "layers must be at least 1"),
        *([({"length": -1.0}, "length must be at least 0")] if kind is not RNN else []),
    ]
    for wrong, message in wrongs:
        with pytest.raises(ValueError, match=message):
            kind((4, 4, 1), 2, **wrong)


@every_other
def test_forward_and_backward_take_a_workspace_together(kind: type[Stack]) -> None:
    model = kind((4, 3), 2, width=4)
    params, x = draw_params(model, Arrays(0)), np.zeros((2, 4, 3))
    for one, other in ((None, Workspace()), (Workspace(), None)):
        logits, cache, _ = model.forward(x, params, {}, work=one)
        with pytest.raises(ValueError, match="takes a workspace if, and only if, its forward had one"):
            model.backward(logits, cache, params, work=other)
