"""The fast path of LSTM, GRU and the plain network against their oracles, and what it allocates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.fast import cells, choose, layer, squash, walks
from stg_np.layers import walk
from stg_np.layers.gru import GRU_CELL
from stg_np.layers.spec import Cell
from stg_np.layers.walk import empty_memory
from stg_np.models.base import loss_and_grad
from stg_np.models.gru import GRU
from stg_np.models.lstm import LSTM
from stg_np.models.rnn import RNN
from stg_np.models.stack import Stack
from stg_np.ops.losses import cross_entropy
from stg_np.workspace import Workspace
from tests.contract import leaves
from tests.fast.test_layer import drawn_params, peak, poison
from tests.strategies import examples

KINDS: tuple[type[Stack], ...] = (LSTM, GRU, RNN)
every_kind = pytest.mark.parametrize("kind", KINDS)


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """Models of all orders and pools; sides and numbers of channels include 1."""
    return {
        "input_shape": draw(
            st.one_of(st.tuples(*3 * [st.integers(1, 4)]), st.tuples(st.integers(1, 6), st.integers(1, 3)))
        ),
        "view": draw(st.sampled_from(["rows", "pixels"])),
        "width": 2 * draw(st.integers(1, 3)),
        "layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "alternate": draw(st.booleans()),
        "pool": draw(st.sampled_from(["mean", "last"])),
        "dropout": draw(st.sampled_from([0.0, 0.4])),
    }


@pytest.mark.parametrize("way", [squash.TANH_WAY, squash.EXP_WAY], ids=["tanh", "exp"])
@every_kind
@examples(0.4)
@given(
    fields=fields(),
    seed=st.integers(0, 2**32 - 1),
    B=st.integers(0, 4),
    dtype=st.sampled_from([np.float32, np.float64]),
    chunk_bytes=st.sampled_from([1, 300, 1 << 20]),
)
def test_a_layer_equals_the_plain_one(
    kind: type[Stack], way: squash.Way, fields: dict[str, Any], seed: int, B: int, dtype: Any, chunk_bytes: int
) -> None:
    model, rng = kind(classes=3, **fields), np.random.default_rng(seed)
    params, T = drawn_params(model, rng, dtype), model.grid[0] * model.grid[1]
    params.flat.flags.writeable = True
    params.flat[...] /= 2  # tame enough that no rounding is magnified from step to step
    params.flat.flags.writeable = False
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
            patch.setattr(squash, "way", lambda dtype: way)
            quick = both(work)
            poison(work)
            again = both(work)
        tolerance = 2e-4 if dtype is np.float32 else 1e-11
        for got, expected, same in zip(quick, both(None), again, strict=True):
            assert got.dtype == dtype
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max(initial=1))
            np.testing.assert_array_equal(same, got)  # the same computation, in memory of another content


@every_kind
@examples(0.3)
@given(fields=fields(), seed=st.integers(0, 2**32 - 1))
def test_a_step_in_a_workspace_is_the_plain_one(kind: type[Stack], fields: dict[str, Any], seed: int) -> None:
    """Of a whole model, twice in the same workspace: no layer writes where another one reads."""
    model, rng = kind(classes=3, **fields), np.random.default_rng(seed)
    params = drawn_params(model, rng, np.float64)
    params = params.with_flat(params.flat / 2)
    x, labels, work = rng.standard_normal((3, *model.input_shape)), rng.integers(0, 3, 3), Workspace()
    plain, first, second = (
        loss_and_grad(
            model, params, {}, x, labels, loss=cross_entropy(0.0), weight=1 / 3, rng=np.random.default_rng(0), work=own
        )
        for own in (None, work, work)
    )
    scale = max(1, np.abs(plain.grads.flat).max())
    np.testing.assert_allclose(first.grads.flat, plain.grads.flat, rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_array_equal(second.grads.flat, first.grads.flat)
    np.testing.assert_allclose(first.loss, plain.loss, rtol=1e-9)


@every_kind
def test_a_layer_in_steady_state_allocates_almost_nothing(kind: type[Stack]) -> None:
    """What remains are the gradients of the weights."""
    model, rng = kind((64, 24), 10, width=48, layers=1), np.random.default_rng(0)
    params, (h, dh) = model.init(rng)[0], (rng.standard_normal((32, 64, size), np.float32) for size in (24, 48))
    groups, spec = model.groups(params, 0), model.spec(0)

    def step(work: Workspace | None) -> None:
        forward, backward = choose.layer_pair(h, spec, model.kind, work)
        _, cache = forward(h, groups, spec)
        backward(dh, cache, groups, spec)

    work, one_map = Workspace(), dh.nbytes
    assert peak(lambda: step(None)) > 3 * one_map
    assert peak(lambda: step(work)) - 3 * params.flat.nbytes < one_map


@every_kind
@pytest.mark.parametrize(("walk_number", "field"), [(0, "W"), (1, "b"), (1, "R")])
def test_another_dtype_is_refused_in_each_walk(kind: type[Stack], walk_number: int, field: str) -> None:
    model = kind((4, 3), 2, width=4, layers=1)
    params, h = drawn_params(model, np.random.default_rng(0), np.float32), np.ones((2, 4, 3), np.float32)
    groups, spec = model.groups(params, 0), model.spec(0)
    wide = getattr(groups[walk_number], field).astype(np.float64)
    groups[walk_number] = groups[walk_number]._replace(**{field: wide})
    forward, _ = choose.layer_pair(h, spec, model.kind, Workspace())
    with pytest.raises(TypeError, match="one floating dtype, not float32, float64"):
        forward(h, groups, spec)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_which_path_is_taken(dtype: Any) -> None:
    """Without a workspace, for another dtype, or for a cell that nobody has made quick, the plain one."""
    spec, x = RNN((3, 4), 2, width=4).spec(0), np.zeros((1, 3, 4), dtype)
    unknown = Cell(GRU_CELL.forward, GRU_CELL.backward, lambda x, H: empty_memory(x, H))
    for kind, work, quick in (
        (GRU_CELL, Workspace(), dtype is not np.float16),
        (GRU_CELL, None, False),
        (unknown, Workspace(), False),
    ):
        pair: Any = choose.layer_pair(x, spec, kind, work)
        home = layer if quick else walk
        assert (pair.forward.func, pair.backward.func) == (home.layer_forward, home.layer_backward)
        assert cells.covers(kind, dtype) == (kind is GRU_CELL and dtype is not np.float16)
