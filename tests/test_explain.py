"""What is said of gates and memories is what the equations say, and what is taken away is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stg_np.backend import Array
from stg_np.explain import GATES, MEMORY, Explanation, can_explain, explain, longest
from stg_np.models.image_stg import ImageSTG
from stg_np.models.mlp import MLP
from stg_np.models.stg import STG
from stg_np.ops.losses import log_softmax
from stg_np.params import Params, State
from tests.strategies import Arrays

IMAGE = ImageSTG((8, 8, 2), 3, widths=(8, 4), stem=3, sweeping=(2, 3))
SEQUENCE = STG((8, 12, 2), 3, view="patches", patch=(2, 4), width=4, layers=2, alternate=True)
MODELS = [
    IMAGE,
    replace(IMAGE, join="sum", louder=True, diagonal=False, directions=3, widths=(6,), depth=1, sweeping=(1,)),
    SEQUENCE,
    replace(SEQUENCE, recurrent=True, diagonal=True, alternate=False),
    replace(SEQUENCE, view="rows", bidirectional=False),
]


def drawn(model: Any, seed: int = 0) -> tuple[Params, State, Array]:
    """Parameters, a state, and one picture."""
    draw = Arrays(seed, np.float64, device="cpu")
    params = Params(model.layout(), draw.normal(model.layout().size))
    state = {name: draw.uniform(0.5, 2, *shape) for name, shape in model.state_layout().shapes.items()}
    return params, state, draw.normal(1, *model.input_shape)


def explained(model: Any) -> Explanation:
    return explain(model, *drawn(model))


def with_open_gates(model: Any, params: Params, gate: int) -> Params:
    """Parameters with which one gate of every layer is 1 already."""
    biases = {}
    for name in params:
        if name.endswith(".b") and name != "head.b":
            biases[name] = params[name].copy()
            biases[name].reshape(4, -1)[gate] = 500
    return params.replaced(biases)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_every_memory_keeps_what_the_update_gate_leaves_along_its_way(model: Any) -> None:
    ways = [(layer, way) for layer in explained(model).layers for way in layer.ways]
    assert ways
    for layer, way in ways:
        height, width = layer.gates.u.shape[:2]
        assert sorted(way.lines.reshape(-1)) == list(range(height * width))
        kept, written, memories = (
            maps.reshape(height * width, -1)[way.lines] for maps in (way.kept, way.written, way.memories)
        )
        before = np.concatenate([np.zeros_like(memories[:, :1]), memories[:, :-1]], 1)
        np.testing.assert_allclose(memories, kept * before + written, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_the_way_of_one_memory_is_carried_plus_written(model: Any) -> None:
    layer = explained(model).layers[-1]
    for track in map(longest, layer.ways):
        of_cell = track.way.memories[..., track.cell].reshape(-1)
        np.testing.assert_allclose(track.carried + track.written, of_cell[track.pixels], rtol=1e-9, atol=1e-12)
        assert track.carried[0] == pytest.approx(0)
        assert 0 < track.kept < 1


def test_a_way_is_named_as_it_goes() -> None:
    layer = explained(IMAGE).layers[2]  # 4 × 4
    assert {way.name: way.lines[1].tolist() for way in layer.ways} == {
        "right": [4, 5, 6, 7], "left": [7, 6, 5, 4], "down": [1, 5, 9, 13], "up": [13, 9, 5, 1],
    }  # fmt: skip
    first, second = explained(SEQUENCE).layers  # 4 × 3
    assert [(way.name, way.lines[0, :4].tolist()) for way in (*first.ways, *second.ways)] == [
        ("row by row", [0, 1, 2, 3]),
        ("row by row, backwards", [11, 10, 9, 8]),
        ("column by column", [0, 3, 6, 9]),
        ("column by column, backwards", [11, 8, 5, 2]),
    ]


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("gate", range(3), ids=GATES)
def test_only_a_gate_that_does_something_is_missed(model: Any, gate: int) -> None:
    params, state, x = drawn(model)
    for own, changes in ((params, True), (with_open_gates(model, params, gate), False)):
        seen = explain(model, own, state, x)
        missed = [seen.without, *seen.without_in.values()]
        assert all(np.allclose(of[GATES[gate]], seen.probabilities, atol=1e-9) != changes for of in missed)
        assert all(of[GATES[gate]].sum() == pytest.approx(1) for of in missed)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_memories_that_keep_nothing_are_not_missed(model: Any) -> None:
    params, state, x = drawn(model)
    for own, changes in ((params, True), (with_open_gates(model, params, 1), False)):
        seen = explain(model, own, state, x)
        if getattr(model, "recurrent", False) and not changes:
            continue  # its gates see the memory of the step before, which is gone, too
        assert np.allclose(seen.without[MEMORY], seen.probabilities, atol=1e-9) != changes


def test_without_what_is_carried_the_image_network_is_the_one_that_does_not_sweep() -> None:
    params, state, x = drawn(IMAGE)
    seen = explain(IMAGE, params, state, x)
    for answer, sweeping in ((seen.without, ()), (seen.without_in["stm2"], (3,)), (seen.without_in["stm3"], (2,))):
        logits, _, _ = replace(IMAGE, sweeping=sweeping).forward(x, params, state)
        np.testing.assert_allclose(answer[MEMORY], np.exp(log_softmax(logits[0])), rtol=1e-9)
    assert MEMORY not in seen.without_in["stm1"]


def test_the_share_that_is_kept_is_the_mean_of_what_the_update_gate_leaves() -> None:
    params, state, x = drawn(SEQUENCE)
    still = params.replaced({name: np.zeros_like(params[name]) for name in params if name.startswith("stm")})
    assert [layer.kept for layer in explain(SEQUENCE, still, state, x).layers] == [0.5, 0.5]


def test_what_has_no_gates_or_is_no_single_picture_is_not_explained() -> None:
    model = MLP((8, 8, 1), 3)
    assert not can_explain(model)
    assert not can_explain(STG((5, 2), 3))
    with pytest.raises(ValueError, match="ImageSTG, STG"):
        explain(model, *drawn(model))
    params, state, x = drawn(IMAGE)
    with pytest.raises(ValueError, match="one picture"):
        explain(IMAGE, params, state, np.concatenate([x, x]))
