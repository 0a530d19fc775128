"""The cells that feed their output back: their formulas once more, one gate and one example at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given

from stg_np.backend import Array, to_device, to_host
from stg_np.checks import cell_pair
from stg_np.gradcheck import check_pair
from stg_np.layers.gru import GRU_CELL, GRUParams, gru_entries, init_gru
from stg_np.layers.lstm import LSTM_CELL, LSTMMemory, LSTMParams, init_lstm, lstm_entries
from stg_np.layers.rnn import RNN_CELL, RNNParams, init_rnn, rnn_entries
from stg_np.layers.spec import Cell
from stg_np.params import Entry
from tests.contract import hold_to_contract, leaves
from tests.strategies import ARRAYS, FULL_STM_SIZES, SEEDS, STM_SIZES, Arrays, STMSizes, examples


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def lstm_by_hand(x: Array, start: Any, params: LSTMParams) -> tuple[Array, Any]:
    (m, y), outputs = start, []
    W, b, R = (np.split(array, 4, -1) for array in params)
    for x_t in x.swapaxes(0, 1):
        a_i, a_f, a_o, a_z = (x_t @ W[k] + b[k] + y @ R[k] for k in range(4))
        m = sigmoid(a_f) * m + sigmoid(a_i) * np.tanh(a_z)
        y = sigmoid(a_o) * np.tanh(m)
        outputs.append(y)
    return np.stack(outputs, 1), (m, y)


def gru_by_hand(x: Array, m: Array, params: GRUParams) -> tuple[Array, Any]:
    outputs = []
    W, b, R = (np.split(array, 3, -1) for array in params[:3])
    for x_t in x.swapaxes(0, 1):
        r, u = (sigmoid(x_t @ W[k] + b[k] + m @ R[k]) for k in range(2))
        z = np.tanh(x_t @ W[2] + b[2] + r * (m @ R[2] + params.c))
        m = (1 - u) * m + u * z
        outputs.append(m)
    return np.stack(outputs, 1), m


def rnn_by_hand(x: Array, m: Array, params: RNNParams) -> tuple[Array, Any]:
    outputs = []
    for x_t in x.swapaxes(0, 1):
        m = np.tanh(x_t @ params.W + params.b + m @ params.R)
        outputs.append(m)
    return np.stack(outputs, 1), m


class Case(NamedTuple):
    """A cell, and what is known of it."""

    cell: Cell
    params: type[Any]
    entries: Callable[..., tuple[Entry, ...]]
    init: Callable[..., Any]
    by_hand: Callable[..., Any]
    blocks: int


CASES = {
    "lstm": Case(LSTM_CELL, LSTMParams, lstm_entries, init_lstm, lstm_by_hand, 4),
    "gru": Case(GRU_CELL, GRUParams, gru_entries, init_gru, gru_by_hand, 3),
    "rnn": Case(RNN_CELL, RNNParams, rnn_entries, init_rnn, rnn_by_hand, 1),
}
every_cell = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def drawn(case: Case, draw: Arrays, sizes: STMSizes) -> tuple[Array, Any, Any]:
    """An input, a first memory and parameters; of order 1, but R tame."""
    B, T, D, H = sizes
    params = [draw.normal(*entry.shape) / (H**0.5 if entry.name == ".R" else 1) for entry in case.entries("", D, H)]
    start: Any = draw.normal(B, H)
    if case.cell is LSTM_CELL:
        start = LSTMMemory(start, draw.normal(B, H))
    return draw.normal(B, T, D), start, case.params(*params)


def on_host(tree: Any) -> Any:
    """The same numbers in NumPy's arrays."""
    parts = [on_host(part) for part in tree] if isinstance(tree, tuple) else []
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts) or to_host(tree)


def close(one: Any, other: Any) -> None:
    for mine, theirs in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(to_host(mine), to_host(theirs), rtol=1e-10, atol=1e-12)


@every_cell
@examples(0.4)
@given(seed=SEEDS, sizes=STM_SIZES)
def test_it_is_its_formula(device: str, case: Case, seed: int, sizes: STMSizes) -> None:
    x, start, params = drawn(case, Arrays(seed, device=device), sizes)
    outputs, _ = case.cell.forward(x, start, params)
    close(outputs, case.by_hand(*map(on_host, (x, start, params))))


@pytest.mark.numbers
@every_cell
@examples(0.3)
@given(seed=SEEDS, sizes=FULL_STM_SIZES)
def test_gradient(device: str, case: Case, seed: int, sizes: STMSizes) -> None:
    x, start, params = drawn(case, Arrays(seed, device=device), sizes)
    inputs = {"x": x, "start": start, "params": params}
    check_pair(*cell_pair(case.cell), inputs, seed=seed, directions=1, jacobian=False, float32=False).assert_ok()


@every_cell
@examples(0.4)
@given(draw=ARRAYS, sizes=STM_SIZES)
def test_contract_and_extremes(device: str, case: Case, draw: Arrays, sizes: STMSizes) -> None:
    x, start, params = drawn(case, draw.on(device), sizes)
    for own in (x, draw.extreme(*x.shape)):
        outputs, gradients = hold_to_contract(*cell_pair(case.cell), {"x": own, "start": start, "params": params})
        assert outputs[0].shape == (*x.shape[:2], sizes.H)
        assert [array.shape for array in leaves(gradients)] == [array.shape for array in leaves((x, start, params))]


@every_cell
@examples(0.2)
@given(seed=SEEDS, sizes=FULL_STM_SIZES)
def test_chunks_of_a_sequence_can_be_chained(device: str, case: Case, seed: int, sizes: STMSizes) -> None:
    """Forward from the memory of the chunk before, backward from what the chunk after sends."""
    sizes, draw = sizes._replace(T=5), Arrays(seed, device=device)
    x, start, params = drawn(case, draw, sizes)
    cell, dy = case.cell, draw.normal(sizes.B, 5, sizes.H)
    (y, end), cache = cell.forward(x, start, params)
    dx, dstart, dparams = cell.backward(dy, end, cache, params)
    (y_1, middle), cache_1 = cell.forward(x[:, :2], start, params)
    (y_2, end_2), cache_2 = cell.forward(x[:, 2:], middle, params)
    dx_2, dmiddle, dparams_2 = cell.backward(dy[:, 2:], end, cache_2, params)
    dx_1, dstart_1, dparams_1 = cell.backward(dy[:, :2], dmiddle, cache_1, params)
    close((y[:, :2], y[:, 2:], end), (y_1, y_2, end_2))
    close((dx[:, :2], dx[:, 2:], dstart), (dx_1, dx_2, dstart_1))
    close(dparams, tuple(one + other for one, other in zip(dparams_1, dparams_2)))


@every_cell
def test_what_is_returned_is_the_caller_s_own(case: Case) -> None:
    draw = Arrays(0)
    x, start, params = drawn(case, draw, STMSizes(2, 3, 4, 2))
    outputs, cache = case.cell.forward(x, start, params)
    before = [array.copy() for array in leaves(case.cell.backward(outputs[0].copy(), start, cache, params))]
    dy = outputs[0].copy()
    for array in leaves(outputs):
        array[...] = np.nan
    close(case.cell.backward(dy, start, cache, params), before)


@every_cell
def test_the_memory_before_the_first_step_is_empty_like_the_input(device: str, case: Case) -> None:
    memories = list(leaves(case.cell.empty(to_device(np.ones((3, 5, 2), np.float32), device), 4)))
    assert len(memories) == (2 if case.cell is LSTM_CELL else 1)
    for memory in memories:
        assert to_host(memory).tolist() == [[0.0] * 4] * 3
        assert memory.dtype == np.float32


# --- what it starts from ----------------------------------------------------------------------------------------------


@every_cell
def test_its_parameters(case: Case) -> None:
    D, H = 400, 60
    entries = case.entries("gru1.left", D, H)
    params = case.init(np.random.default_rng(0), D, H)
    assert [entry.name for entry in entries] == [f"gru1.left.{field}" for field in case.params._fields]
    assert [entry.shape for entry in entries] == [array.shape for array in params]
    assert [entry.role for entry in entries] == [{1: "vector", 2: "matrix"}[array.ndim] for array in params]
    assert params.W.var() == pytest.approx(1 / D, rel=0.03)
    for block in np.split(params.R, case.blocks, 1):
        np.testing.assert_allclose(block.T @ block, np.eye(H), atol=1e-12)
    assert len({block.tobytes() for block in np.split(params.R, case.blocks, 1)}) == case.blocks
    again, other = (case.init(np.random.default_rng(seed), D, H) for seed in (0, 1))
    close(again, params)
    assert (params.W != other.W).all()
    assert (params.R != other.R).all()


@every_cell
def test_the_diagonal_of_a_matrix_that_is_fed_back_has_no_sign_of_its_own(case: Case) -> None:
    """LAPACK's own choice of signs is not uniform; 200 numbers of ±1 for H = 1."""
    signs = [case.init(np.random.default_rng(seed), 1, 1).R[0, 0] for seed in range(200)]
    assert abs(np.mean(signs)) < 0.3


def test_a_new_lstm_keeps_and_a_new_gru_is_undecided() -> None:
    rng = np.random.default_rng(0)
    assert init_lstm(rng, 3, 2).b.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    gru = init_gru(rng, 3, 2)
    assert not gru.b.any()
    assert not gru.c.any()
    assert not init_rnn(rng, 3, 2).b.any()


def test_memories_of_a_given_length() -> None:
    """1 / (1 − f) and 1 / u are time scales of 2 … 50 steps."""
    H = 500
    lstm, gru = (init(np.random.default_rng(0), 3, H, length=50) for init in (init_lstm, init_gru))
    for lost in (1 - sigmoid(lstm.b[H : 2 * H]), sigmoid(gru.b[H : 2 * H])):
        assert (1 / lost).min() >= 2 - 1e-9
        assert 48 < (1 / lost).max() <= 50 + 1e-9
    np.testing.assert_allclose(lstm.b[:H], -lstm.b[H : 2 * H])
    for init, before in ((init_lstm, lstm), (init_gru, gru)):
        other = init(np.random.default_rng(1), 3, H, length=50)
        assert (other.b[H : 2 * H] != before.b[H : 2 * H]).all()
    assert not lstm.b[2 * H :].any()
    assert not gru.b[:H].any()
    assert not gru.b[2 * H :].any()


@every_cell
@pytest.mark.parametrize(("D", "H"), [(0, 2), (3, 0)])
def test_sizes_below_one_are_refused(case: Case, D: int, H: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        case.init(np.random.default_rng(0), D, H)


# --- what does not fit ------------------------------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"x": (2, 4)}, ValueError, r"x must be \(B, T, 4\) with T ≥ 1, got \(2, 4\)"),
        ({"x": (2, 0, 4)}, ValueError, "with T ≥ 1"),
        ({"x": (2, 3, 5)}, ValueError, r"x must be \(B, T, 4\)"),
        ({"R": (3,)}, ValueError, r"R must be \(H, \d?H\), got \(3,\)"),
        ({"R": (2, 5)}, ValueError, "R must be"),
        ({"W": (4,)}, ValueError, "W must be"),
        ({"W": (4, 13)}, ValueError, "W must be"),
        ({"b": (5,)}, ValueError, "W must be .* and b"),
        ({"start": (3, 3)}, ValueError, r"memories must be \(2, 3\) and vectors \(3,\) here, got \(3, 3\)"),
        ({"start": (2, 2)}, ValueError, "memories must be"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(case: Case, wrong: Any, error: type[Exception], message: str) -> None:
    x, start, params = drawn(case, Arrays(0), STMSizes(2, 3, 4, 3))
    given_ = {"x": x, "start": start, **params._asdict()}
    given_ |= {name: np.zeros(shape) for name, shape in wrong.items()}
    if "start" in wrong and case.cell is LSTM_CELL:
        given_["start"] = LSTMMemory(start.m, given_["start"])
    params = case.params(*(given_[name] for name in case.params._fields))
    with pytest.raises(error, match=message):
        case.cell.forward(given_["x"], given_["start"], params)


def test_the_inner_bias_of_a_gru_must_fit() -> None:
    x, start, params = drawn(CASES["gru"], Arrays(0), STMSizes(2, 3, 4, 3))
    with pytest.raises(ValueError, match=r"vectors \(3,\) here, got \(2,\)"):
        GRU_CELL.forward(x, start, params._replace(c=np.zeros(2)))


@every_cell
def test_a_mix_of_dtypes_is_refused(case: Case) -> None:
    x, start, params = drawn(case, Arrays(0), STMSizes(2, 3, 4, 3))
    narrow = case.params(*(array.astype(np.float32) for array in params))
    for wrong in ((x.astype(np.float32), start, params), (x, start, narrow)):
        with pytest.raises(TypeError, match="one floating dtype, not float32, float64"):
            case.cell.forward(*wrong)
    narrow_start = LSTMMemory(start.m, start.y.astype(np.float32)) if case.cell is LSTM_CELL else start.astype("f4")
    with pytest.raises(TypeError, match="one floating dtype"):
        case.cell.forward(x, narrow_start, params)
