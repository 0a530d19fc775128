"""The STM layer: its equations, its gradients, and what must be equal to what."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import stm, stm_recurrent
from stg_np.backend import Array, get_xp, to_device, to_host
from stg_np.checks import with_params
from stg_np.gradcheck import check_pair
from stg_np.ops.activations import IDENTITY, SIGMOID, TANH, Activation
from stg_np.params import named
from stg_np.stm import STMParams, init_stm, stm_entries
from tests.contract import hold_to_contract, leaves
from tests.strategies import (
    ARRAYS,
    FLOAT64_ARRAYS,
    FULL_STM_SIZES,
    SEEDS,
    STM_SIZES,
    Arrays,
    B,
    D,
    H,
    STMSizes,
    T,
    examples,
)


class Form(NamedTuple):
    """One variant of the layer: which gates, which activations, which pair of functions."""

    recurrent: bool
    diagonal: bool
    phi_z: Activation = TANH
    phi: Activation = IDENTITY

    def forward(self, x: Array, m_0: Array, params: STMParams) -> Any:
        forward = stm_recurrent.stm_recurrent_forward if self.recurrent else stm.stm_forward
        return forward(x, m_0, params, phi_z=self.phi_z, phi=self.phi)

    def backward(self, dy: Array, dm_T: Array, cache: Any, params: STMParams) -> tuple[Array, Array, STMParams]:
        backward: Any = stm_recurrent.stm_recurrent_backward if self.recurrent else stm.stm_backward
        dx, dm_0, dparams = backward(dy, dm_T, cache, params)
        return dx, dm_0, dparams

    def draw(self, draw: Arrays, sizes: STMSizes) -> tuple[Array, Array, STMParams]:
        """x, m_0 and params."""
        params = draw.stm(sizes.D, sizes.H, recurrent=self.recurrent, diagonal=self.diagonal)
        return draw.normal(sizes.B, sizes.T, sizes.D), draw.normal(sizes.B, sizes.H), params

    def run(self, x: Array, m_0: Array, params: STMParams, dy: Array, dm_T: Array) -> tuple[Any, Any]:
        """Outputs (y, m_T) and gradients (dx, dm_0, dparams), on the host."""
        outputs, cache = self.forward(x, m_0, params)
        return host(outputs), host(self.backward(dy, dm_T, cache, params))


SQUARE = Activation(lambda x: x * x, lambda dy, x, y: 2 * x * dy)
"""Unlike those of the package it needs its input in the backward."""
ACTIVATIONS = st.sampled_from((TANH, IDENTITY))
FORMS = st.builds(Form, st.booleans(), st.booleans(), ACTIVATIONS, ACTIVATIONS)
INPUT_ONLY, RECURRENT = Form(recurrent=False, diagonal=False), Form(recurrent=True, diagonal=False)
every_form = pytest.mark.parametrize("recurrent", [False, True], ids=["input_only", "recurrent"])
every_gate = pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])


def host(tree: Any) -> Any:
    """The same tuples with host arrays."""
    if isinstance(tree, tuple):
        parts = [host(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return None if tree is None else to_host(tree)


def assert_close(one: Any, other: Any, tolerance: float = 1e-11) -> None:
    """Two trees of arrays have the same numbers."""
    one, other = list(leaves(one)), list(leaves(other))
    assert len(one) == len(other)
    for a, b in zip(one, other):
        np.testing.assert_allclose(to_host(a), to_host(b), rtol=tolerance, atol=tolerance)


# --- the equations, by hand ---------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_articles_formula(device: str) -> None:
    """``output = update gate · input · control gate``: one step, an empty memory, the input gate open.

    "Control gate" is read as the output gate; the input is the candidate, here x · 0.5.
    """
    b = np.array([40.0, -0.3, 0.8, 0.0])  # σ(40) is 1 to the last bit: the input gate is open
    W = np.array([[0.0, 0.7, -1.1, 0.5]])
    for x in (-2.0, -0.1, 0.0, 1.0, 3.5):
        params = STMParams(to_device(W, device), to_device(b, device))
        x_1, m_0 = to_device(np.array([[[x]]]), device), to_device(np.zeros((1, 1)), device)
        (y, _), _ = stm.stm_forward(x_1, m_0, params, phi_z=IDENTITY)
        update_gate, control_gate = sigmoid(0.7 * x - 0.3), sigmoid(-1.1 * x + 0.8)
        assert float(y[0, 0, 0]) == pytest.approx(update_gate * (0.5 * x) * control_gate, rel=1e-14, abs=0)


def by_the_equations(x: Array, m_0: Array, params: STMParams, form: Form) -> tuple[Array, Array]:
    """One number at a time, with Python's floats: the equations of the module, nothing packed and no arrays."""
    W, b, R, w = params
    size = m_0.shape[1]
    phi_z, phi = (math.tanh if f is TANH else float for f in (form.phi_z, form.phi))
    y, m = np.zeros((*x.shape[:2], size)), m_0.copy()

    def preactivation(example: int, t: int, memory: Array, column: int) -> float:
        total = sum(x[example, t, d] * W[d, column] for d in range(x.shape[2]))
        if form.recurrent:
            assert R is not None
            total += sum(memory[example, k] * R[k, column] for k in range(size))
        return float(total)

    for example, t in product(range(x.shape[0]), range(x.shape[1])):
        before = m.copy()
        for h in range(size):
            if form.diagonal:
                assert w is not None
                a_z = preactivation(example, t, before, h) + b[3 * size + h]
                a_i, a_u, a_o = (w[g * size + h] * a_z + b[g * size + h] for g in range(3))
            else:
                a_i, a_u, a_o, a_z = (
                    preactivation(example, t, before, g * size + h) + b[g * size + h] for g in range(4)
                )
            i, u, o, z = sigmoid(a_i), sigmoid(a_u), sigmoid(a_o), phi_z(a_z)
            m[example, h] = (1 - u) * before[example, h] + u * (i * z)
            y[example, t, h] = o * phi(m[example, h])
    return y, m


@examples(0.6)
@given(draw=FLOAT64_ARRAYS, sizes=STM_SIZES, form=FORMS)
def test_the_layer_is_its_equations(device: str, draw: Arrays, sizes: STMSizes, form: Form) -> None:
    x, m_0, params = form.draw(draw.on(device), sizes)
    outputs, _ = form.forward(x, m_0, params)
    assert_close(outputs, by_the_equations(host(x), host(m_0), host(params), form))


@examples(0.3)
@given(seed=SEEDS, b=B, t=T, h=H)
def test_constant_gates_are_a_linear_filter(seed: int, b: int, t: int, h: int) -> None:
    """With gates that only their biases set, m_t = (1 - u) m_{t-1} + u v_t is SciPy's first-order filter."""
    signal = pytest.importorskip("scipy.signal", reason="SciPy, the oracle of linear filters, is not installed")
    draw = Arrays(seed)
    x, m_0, bias = draw.normal(b, t, h), draw.normal(b, h), draw.normal(4 * h)
    W = np.concatenate([np.zeros((h, 3 * h)), np.eye(h)], 1)
    b_z = np.concatenate([bias[: 3 * h], np.zeros(h)])
    (y, m_T), _ = stm.stm_forward(x, m_0, STMParams(W, b_z), phi_z=IDENTITY)
    i, u, o = (np.array([sigmoid(value) for value in bias[g * h : (g + 1) * h]]) for g in range(3))
    for k in range(h):
        memories, last = signal.lfilter(
            [u[k]], [1, u[k] - 1], i[k] * x[:, :, k], axis=1, zi=(1 - u[k]) * m_0[:, k : k + 1]
        )
        np.testing.assert_allclose(y[:, :, k], o[k] * memories, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose((1 - u[k]) * m_T[:, k], last[:, 0], rtol=1e-12, atol=1e-12)


# --- gradients ----------------------------------------------------------------------------------------------


@pytest.mark.numbers
@examples(0.4)
@given(draw=FLOAT64_ARRAYS, sizes=FULL_STM_SIZES, form=FORMS, seed=SEEDS)
def test_gradient_of_the_layer(device: str, draw: Arrays, sizes: STMSizes, form: Form, seed: int) -> None:
    x, m_0, params = form.draw(draw.on(device), sizes)
    pair = with_params(form.forward, form.backward)
    check_pair(*pair, {"x": x, "m_0": m_0, "params": params}, name=str(form), seed=seed, jacobian=False).assert_ok()


@pytest.mark.numbers
@every_form
@every_gate
@pytest.mark.parametrize("phi", [TANH, SQUARE], ids=["tanh", "square"])
def test_every_entry_of_the_jacobian(device: str, recurrent: bool, diagonal: bool, phi: Activation) -> None:
    form = Form(recurrent, diagonal, phi_z=phi, phi=phi)
    x, m_0, params = form.draw(Arrays(0, device=device), STMSizes(1, 2, 2, 2))
    report = check_pair(*with_params(form.forward, form.backward), {"x": x, "m_0": m_0, "params": params})
    report.assert_ok()
    assert report.jacobian_entries == (2 * 2 + 2) * report.entries


@pytest.mark.numbers
@examples(0.2)
@given(draw=FLOAT64_ARRAYS, b=B, h=H, diagonal=st.booleans(), seed=SEEDS)
def test_gradient_of_preactivations(device: str, draw: Arrays, b: int, h: int, diagonal: bool, seed: int) -> None:
    params = draw.on(device).stm(1, h, recurrent=False, diagonal=diagonal)

    def forward(p: Array, b: Array, w: Array | None) -> tuple[Array, Any]:
        own = params._replace(b=b, w=w)
        a = stm.preactivations_forward(p, own)
        return a, (a, own)

    inputs = {"p": draw.normal(b, params.W.shape[1]), "b": params.b, "w": params.w}
    check_pair(forward, lambda da, kept: stm.preactivations_backward(da, *kept), inputs, seed=seed).assert_ok()


@pytest.mark.numbers
@examples(0.2)
@given(draw=FLOAT64_ARRAYS, b=B, h=H, phi_z=ACTIVATIONS | st.just(SQUARE), seed=SEEDS)
def test_gradient_of_gates(device: str, draw: Arrays, b: int, h: int, phi_z: Activation, seed: int) -> None:
    def forward(a: Array) -> tuple[stm.Gates, Any]:
        gates = stm.gates_forward(a, phi_z)
        return gates, (gates, a)

    def backward(dgates: stm.Gates, kept: Any) -> tuple[Array]:
        gates, a = kept
        return (stm.gates_backward(dgates, gates, a, phi_z),)

    check_pair(forward, backward, {"a": draw.on(device).normal(b, 4 * h)}, seed=seed).assert_ok()


@pytest.mark.numbers
@examples(0.2)
@given(draw=FLOAT64_ARRAYS, sizes=FULL_STM_SIZES, seed=SEEDS)
def test_gradient_of_the_scan_and_of_one_update(device: str, draw: Arrays, sizes: STMSizes, seed: int) -> None:
    b, t, _, h = sizes
    u, v, m_0 = draw.on(device).uniform(0.05, 0.95, b, t, h), draw.normal(b, t, h), draw.normal(b, h)

    def scan(u: Array, v: Array, m_0: Array) -> tuple[tuple[Array, Array], Any]:
        memories = stm.scan_forward(u, v, m_0)
        return (memories, memories[:, -1]), (u, v, memories, m_0)

    inputs = {"u": u, "v": v, "m_0": m_0}
    check_pair(scan, lambda dm, kept: stm.scan_backward(*dm, *kept), inputs, seed=seed, jacobian=False).assert_ok()
    check_pair(
        lambda u, v, m: (stm.update_forward(u, v, m), (u, v, m)),
        lambda dm, kept: stm.update_backward(dm, *kept),
        {"u": u[:, 0], "v": v[:, 0], "m": m_0},
        seed=seed,
    ).assert_ok()


@examples(0.4)
@given(draw=FLOAT64_ARRAYS, sizes=STM_SIZES, form=FORMS)
def test_gradient_of_a_sum_is_the_sum_of_gradients(device: str, draw: Arrays, sizes: STMSizes, form: Form) -> None:
    """The backward is linear in what it is given."""
    b, t, _, h = sizes
    x, m_0, params = form.draw(draw.on(device), sizes)
    _, cache = form.forward(x, m_0, params)
    one, other = ((draw.normal(b, t, h), draw.normal(b, h)) for _ in range(2))
    together = form.backward(one[0] + 2 * other[0], one[1] + 2 * other[1], cache, params)
    apart = [form.backward(*part, cache, params) for part in (one, other)]
    assert_close(together, tuple(a + 2 * b for a, b in zip(*map(leaves, apart))), 1e-10)


# --- the contract -------------------------------------------------------------------------------------------


@examples(0.6)
@given(draw=ARRAYS, sizes=STM_SIZES, form=FORMS)
def test_contract(device: str, draw: Arrays, sizes: STMSizes, form: Form) -> None:
    b, t, d, h = sizes
    x, m_0, params = form.draw(draw.on(device), sizes)
    pair = with_params(form.forward, form.backward)
    (y, m_T), (dx, dm_0, dparams) = hold_to_contract(*pair, {"x": x, "m_0": m_0, "params": params})
    assert (y.shape, m_T.shape, dx.shape, dm_0.shape) == ((b, t, h), (b, h), (b, t, d), (b, h))
    assert type(dparams) is STMParams
    assert [a if a is None else a.shape for a in dparams] == [a if a is None else a.shape for a in params]


@examples(0.6)
@given(draw=ARRAYS, sizes=STM_SIZES, recurrent=st.booleans(), diagonal=st.booleans())
def test_extremes(device: str, draw: Arrays, sizes: STMSizes, recurrent: bool, diagonal: bool) -> None:
    """±1e4 everywhere: finite, and without a warning (which is an error in these tests)."""
    b, t, d, h = sizes
    draw.on(device)
    columns = h if diagonal else 4 * h
    params = STMParams(
        draw.extreme(d, columns),
        draw.extreme(4 * h),
        draw.extreme(h, columns) if recurrent else None,
        draw.extreme(3 * h) if diagonal else None,
    )
    inputs = {"x": draw.extreme(b, t, d), "m_0": draw.uniform(-1, 1, b, h), "params": params}
    form = Form(recurrent, diagonal)
    hold_to_contract(*with_params(form.forward, form.backward), inputs)


@every_form
@every_gate
def test_float32_follows_float64(device: str, recurrent: bool, diagonal: bool) -> None:
    form, sizes = Form(recurrent, diagonal), STMSizes(3, 5, 4, 3)
    results = []
    for dtype in (np.float64, np.float32):
        draw = Arrays(0, dtype, device=device)
        results.append(form.run(*form.draw(draw, sizes), draw.normal(3, 5, 3), draw.normal(3, 3)))
    assert {array.dtype for array in leaves(results[1])} == {np.dtype(np.float32)}
    assert_close(results[0], results[1], 1e-4)


@every_gate
def test_the_recurrent_form_needs_its_matrix(device: str, diagonal: bool) -> None:
    x, m_0, params = Form(False, diagonal).draw(Arrays(0, device=device), STMSizes(1, 2, 3, 2))
    with pytest.raises(ValueError, match=r"these parameters have no R: draw them with init_stm\(…, recurrent=True\)"):
        stm_recurrent.stm_recurrent_forward(x, m_0, params)


@every_form
@every_gate
@pytest.mark.parametrize(
    ("x_shape", "m_shape"),
    [
        ((3, 4), (2, 5)),  # no steps
        ((2, 0, 4), (2, 5)),
        ((2, 3, 3), (2, 5)),  # W has 4 rows
        ((2, 3, 4), (1, 5)),
        ((2, 3, 4), (2, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    recurrent: bool, diagonal: bool, x_shape: tuple[int, ...], m_shape: tuple[int, ...]
) -> None:
    form, draw = Form(recurrent, diagonal), Arrays(0)
    params = draw.stm(4, 5, recurrent=recurrent, diagonal=diagonal)
    with pytest.raises(ValueError, match=r"x must be \(B, T, 4\) with T ≥ 1 and m_0 \(B, 5\), got "):
        form.forward(draw.normal(*x_shape), draw.normal(*m_shape), params)


@every_form
@every_gate
def test_another_dtype_is_refused_wherever_it_is(recurrent: bool, diagonal: bool) -> None:
    form = Form(recurrent, diagonal)
    x, m_0, params = form.draw(Arrays(0), STMSizes(2, 3, 4, 5))
    names = list(named("", params))
    given = {"x": x, "m_0": m_0, **named("", params)}
    for name, array in given.items():
        changed = {**given, name: array.astype(np.float32)}
        with pytest.raises(TypeError, match="not float32, float64"):
            form.forward(changed["x"], changed["m_0"], STMParams(**{field[1:]: changed[field] for field in names}))


@every_form
@every_gate
def test_the_last_memory_belongs_to_the_caller(device: str, recurrent: bool, diagonal: bool) -> None:
    """Whatever is written into it, the gradients are the same."""
    form, draw = Form(recurrent, diagonal), Arrays(0, device=device)
    x, m_0, params = form.draw(draw, STMSizes(2, 4, 3, 2))
    dy, dm_T = draw.normal(2, 4, 2), draw.normal(2, 2)
    (_, m_T), cache = form.forward(x, m_0, params)
    before = host(form.backward(dy, dm_T, cache, params))
    m_T[...] = 1e6
    assert_close(form.backward(dy, dm_T, cache, params), before, 1e-12)


# --- what must be equal to what -----------------------------------------------------------------------------


@examples(0.4)
@given(draw=FLOAT64_ARRAYS, sizes=STM_SIZES, form=FORMS)
def test_input_only_is_recurrent_with_no_recurrence(device: str, draw: Arrays, sizes: STMSizes, form: Form) -> None:
    """R = 0: the same values, and the same gradients of everything that both forms have."""
    b, t, _, h = sizes
    x, m_0, params = form._replace(recurrent=False).draw(draw.on(device), sizes)
    dy, dm_T = draw.normal(b, t, h), draw.normal(b, h)
    no_recurrence = params._replace(R=0 * draw.normal(h, params.W.shape[1]))
    one = form._replace(recurrent=False).run(x, m_0, params, dy, dm_T)
    outputs, (dx, dm_0, dparams) = form._replace(recurrent=True).run(x, m_0, no_recurrence, dy, dm_T)
    assert_close(one, (outputs, (dx, dm_0, dparams._replace(R=None))))


@examples(0.4)
@given(draw=FLOAT64_ARRAYS, sizes=STM_SIZES)
def test_packed_is_one_matrix_per_gate(device: str, draw: Arrays, sizes: STMSizes) -> None:
    """The columns of W and the entries of b belong to the gates in the order i, u, o, z."""
    draw.on(device)
    x, m_0 = draw.normal(sizes.B, sizes.T, sizes.D), draw.normal(sizes.B, sizes.H)
    xp = get_xp(x)
    W = {gate: draw.normal(sizes.D, sizes.H) for gate in "iuoz"}
    b = {gate: draw.normal(sizes.H) for gate in "iuoz"}
    packed = STMParams(xp.concatenate([W[gate] for gate in "iuoz"], 1), xp.concatenate([b[gate] for gate in "iuoz"]))
    (y, m_T), _ = stm.stm_forward(x, m_0, packed)
    m = m_0
    for t in range(sizes.T):
        i, u, o = (SIGMOID.forward(x[:, t] @ W[gate] + b[gate]) for gate in "iuo")
        m = (1 - u) * m + u * i * xp.tanh(x[:, t] @ W["z"] + b["z"])
        assert_close(y[:, t], o * m)
    assert_close(m_T, m)


@examples(0.4)
@given(draw=FLOAT64_ARRAYS, sizes=STM_SIZES, recurrent=st.booleans(), phi_z=ACTIVATIONS)
def test_diagonal_is_full_with_diagonal_matrices(
    device: str, draw: Arrays, sizes: STMSizes, recurrent: bool, phi_z: Activation
) -> None:
    """``w_g ⊙ (x W_z + b_z) + b_g`` is ``x (W_z diag(w_g)) + (w_g ⊙ b_z + b_g)``; gradients by the chain rule."""
    b, t, _, h = sizes
    form = Form(recurrent, diagonal=True, phi_z=phi_z)
    x, m_0, params = form.draw(draw.on(device), sizes)
    dy, dm_T = draw.normal(b, t, h), draw.normal(b, h)
    W, bias, R, w = host(params)
    scale = np.concatenate([w, np.ones(h)])  # the candidate itself is scaled by one

    def widened(matrix: Array) -> Array:
        wide: Array = np.tile(matrix, 4) * scale
        return wide

    full_bias = np.concatenate([bias[: 3 * h], np.zeros(h)]) + np.tile(bias[3 * h :], 4) * scale
    full = STMParams(
        to_device(widened(W), device),
        to_device(full_bias, device),
        to_device(widened(R), device) if recurrent else None,
    )
    outputs, (dx, dm_0, dparams) = form.run(x, m_0, params, dy, dm_T)
    outputs_full, (dx_full, dm_0_full, dfull) = form._replace(diagonal=False).run(x, m_0, full, dy, dm_T)
    assert_close((outputs, dx, dm_0), (outputs_full, dx_full, dm_0_full), 1e-10)

    def narrowed(gradient: Array) -> Array:
        narrow: Array = (gradient * scale).reshape(-1, 4, h).sum(1)
        return narrow

    through_W = (W[:, None] * dfull.W.reshape(-1, 4, h)).sum(0) + bias[3 * h :] * dfull.b.reshape(4, h)
    if recurrent:
        through_W = through_W + (R[:, None] * dfull.R.reshape(-1, 4, h)).sum(0)
        assert_close(dparams.R, narrowed(dfull.R), 1e-10)
    db = np.concatenate([dfull.b[: 3 * h], narrowed(dfull.b)[0]])
    assert_close((dparams.W, dparams.b, dparams.w), (narrowed(dfull.W), db, through_W[:3].reshape(-1)), 1e-10)


@examples(0.5)
@given(draw=FLOAT64_ARRAYS, sizes=STM_SIZES, form=FORMS, data=st.data())
def test_chunks_are_the_whole(device: str, draw: Arrays, sizes: STMSizes, form: Form, data: st.DataObject) -> None:
    """Cut anywhere, the memory handed on (and its gradient handed back): nothing changes."""
    b, t, _, h = sizes
    x, m_0, params = form.draw(draw.on(device), sizes)
    dy, dm_T = draw.normal(b, t, h), draw.normal(b, h)
    cuts = sorted({0, t, *data.draw(st.lists(st.integers(0, t), max_size=3), label="cuts")})
    whole = form.run(x, m_0, params, dy, dm_T)
    m, outputs, caches = m_0, [], []
    for start, stop in pairwise(cuts):
        (y, m), cache = form.forward(x[:, start:stop], m, params)
        outputs.append(to_host(y))
        caches.append(cache)
    dx: list[Array] = []
    dm, total = dm_T, None
    for start, stop, cache in reversed(list(zip(cuts, cuts[1:], caches))):
        dx_chunk, dm, dparams = form.backward(dy[:, start:stop], dm, cache, params)
        dx.insert(0, to_host(dx_chunk))
        parts = list(leaves(host(dparams)))
        total = parts if total is None else [a + b for a, b in zip(total, parts)]
    chunks = (np.concatenate(outputs, 1), m), (np.concatenate(dx, 1), dm, total)
    assert_close(whole, chunks, 1e-10)


@examples(0.4)
@given(draw=FLOAT64_ARRAYS, b=st.integers(1, 5), t=T, d=D, h=H, form=FORMS, data=st.data())
def test_shards_are_the_batch(
    device: str, draw: Arrays, b: int, t: int, d: int, h: int, form: Form, data: st.DataObject
) -> None:
    """Uneven shards, an empty one too: outputs side by side, gradients of the parameters summed."""
    x, m_0, params = form.draw(draw.on(device), STMSizes(b, t, d, h))
    dy, dm_T = draw.normal(b, t, h), draw.normal(b, h)
    (y, m_T), (dx, dm_0, dparams) = form.run(x, m_0, params, dy, dm_T)
    cut = data.draw(st.integers(0, b), label="cut")
    shards = [form.run(x[part], m_0[part], params, dy[part], dm_T[part]) for part in (slice(0, cut), slice(cut, b))]
    side_by_side = [np.concatenate(pair) for pair in zip(*(leaves((outputs, grads[:2])) for outputs, grads in shards))]
    assert_close((y, m_T, dx, dm_0), tuple(side_by_side))
    summed = [one + other for one, other in zip(*(leaves(grads[2]) for _, grads in shards))]
    assert_close(dparams, tuple(summed))


@examples(0.4)
@given(draw=FLOAT64_ARRAYS, sizes=STM_SIZES, form=FORMS, data=st.data())
def test_causality(device: str, draw: Arrays, sizes: STMSizes, form: Form, data: st.DataObject) -> None:
    """∂y_t/∂x_s is 0 for s > t: in the values, and exactly in the gradient, where it is a product with zero."""
    b, t, d, h = sizes
    now = data.draw(st.integers(0, t - 1), label="t")
    x, m_0, params = form.draw(draw.on(device), sizes)
    future = get_xp(x).concatenate([x[:, : now + 1], draw.normal(b, t - now - 1, d)], 1)
    (y, _), cache = form.forward(x, m_0, params)
    (changed, _), _ = form.forward(future, m_0, params)
    assert_close(y[:, : now + 1], changed[:, : now + 1])  # but for rounding: x and future may differ in layout
    dy = np.zeros((b, t, h))
    dy[:, now] = 1
    zeros = to_device(np.zeros((b, h)), device)
    dx, _, _ = form.backward(to_device(dy, device), zeros, cache, params)
    assert not to_host(dx)[:, now + 1 :].any()


@every_form
@every_gate
def test_examples_do_not_see_each_other(device: str, recurrent: bool, diagonal: bool) -> None:
    form = Form(recurrent, diagonal)
    x, m_0, params = form.draw(Arrays(0, device=device), STMSizes(4, 5, 3, 2))
    (y, _), cache = form.forward(x, m_0, params)
    dy = np.zeros(y.shape)
    dy[1] = 1
    dx, dm_0, _ = form.backward(to_device(dy, device), 0 * m_0, cache, params)
    for gradient in (to_host(dx), to_host(dm_0)):
        assert gradient[1].any()
        assert not gradient[[0, 2, 3]].any()


# --- the beginning of training ------------------------------------------------------------------------------


@given(
    seed=SEEDS, d=D, h=st.integers(1, 40), length=st.floats(0.5, 1e4), recurrent=st.booleans(), diagonal=st.booleans()
)
def test_time_scales(seed: int, d: int, h: int, length: float, recurrent: bool, diagonal: bool) -> None:
    """τ = 1/u between 2 and the expected length, from the bias of the update gate: b_u = -log(τ - 1)."""
    params = init_stm(np.random.default_rng(seed), d, h, length=length, recurrent=recurrent, diagonal=diagonal)
    b_i, b_u, b_o, b_z = params.b.reshape(4, h)
    tau = 1 + np.exp(-b_u)
    assert (tau >= 2 - 1e-9).all()
    assert (tau <= max(2.0, length) * (1 + 1e-9)).all()
    assert not np.concatenate([b_i, b_o, b_z]).any()
    (_, _), cache = stm.stm_forward(np.zeros((1, 1, d)), np.zeros((1, h)), params._replace(R=None))
    np.testing.assert_allclose(cache.gates.u[0, 0], 1 / tau, rtol=1e-9)


def test_time_scales_are_log_uniform_and_differ() -> None:
    b_u = init_stm(np.random.default_rng(0), 1, 20_000, length=1024).b[20_000:40_000]
    logs = np.log2(1 + np.exp(-b_u))
    counts, _ = np.histogram(logs, bins=9, range=(1, 10))
    assert counts.min() > 0.9 * counts.mean()
    assert counts.max() < 1.1 * counts.mean()


@every_form
@every_gate
def test_update_gates_start_near_their_time_scale(recurrent: bool, diagonal: bool) -> None:
    """On ordinary inputs too: the matrix of the update gate starts ten times smaller than the others."""
    rng, size = np.random.default_rng(0), 64
    params = init_stm(rng, 48, size, length=100, recurrent=recurrent, diagonal=diagonal)
    x = rng.standard_normal((20, 10, 48))
    if recurrent:
        _, recurrent_cache = stm_recurrent.stm_recurrent_forward(x, np.zeros((20, size)), params)
        a_u = np.stack([step.a[:, size : 2 * size] for step in recurrent_cache.steps])
    else:
        _, cache = stm.stm_forward(x, np.zeros((20, size)), params)
        a_u = cache.a[..., size : 2 * size]
    shift = a_u - params.b[size : 2 * size]
    assert 0.05 < shift.std() < 0.2
    if params.w is None:
        for matrix in (params.W, params.R) if params.R is not None else (params.W,):
            columns = matrix.reshape(-1, 4, size).std((0, 2)) * np.sqrt(len(matrix))
            np.testing.assert_allclose(columns, [1, 0.1, 1, 1], rtol=0.06)  # four standard deviations
    else:
        if params.R is not None:
            assert params.R.std() * np.sqrt(size) == pytest.approx(1, rel=0.06)
        np.testing.assert_array_equal(params.w.reshape(3, size), np.array([[1], [0.1], [1]]) * np.ones(size))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("diagonal", [False, True])
def test_what_is_drawn_has_the_shapes_of_the_layout(recurrent: bool, diagonal: bool) -> None:
    entries = stm_entries("stm1", 5, 3, recurrent=recurrent, diagonal=diagonal)
    drawn = init_stm(np.random.default_rng(0), 5, 3, length=8, recurrent=recurrent, diagonal=diagonal)
    arrays = named("stm1", drawn)
    assert {entry.name: entry.shape for entry in entries} == {name: array.shape for name, array in arrays.items()}
    assert [entry.name for entry in entries] == list(arrays)
    assert {entry.role for entry in entries if len(entry.shape) == 2} == {"matrix"}
    assert {entry.role for entry in entries if len(entry.shape) == 1} == {"vector"}


def test_every_part_is_drawn_from_the_given_generator() -> None:
    one, other = (init_stm(np.random.default_rng(seed), 3, 3, length=8, recurrent=True) for seed in (1, 2))
    assert (one.W != other.W).all()
    assert one.R is not None
    assert (one.R != other.R).all()
    assert (one.b[3:6] != other.b[3:6]).all()
    assert (one.R != one.W).all()


@every_form
@every_gate
def test_init_shapes(recurrent: bool, diagonal: bool) -> None:
    params = init_stm(np.random.default_rng(0), 5, 3, length=8, recurrent=recurrent, diagonal=diagonal)
    columns = 3 if diagonal else 12
    shapes = [None if array is None else array.shape for array in params]
    assert shapes == [(5, columns), (12,), (3, columns) if recurrent else None, (9,) if diagonal else None]
    again = init_stm(np.random.default_rng(0), 5, 3, length=8, recurrent=recurrent, diagonal=diagonal)
    assert_close(params, again, 0.0)


def test_init_gives_the_input_only_form_with_full_gates_unless_told() -> None:
    assert [entry.name for entry in stm_entries("stm1", 5, 3)] == ["stm1.W", "stm1.b"]
    params = init_stm(np.random.default_rng(0), 5, 3, length=8)
    assert (params.W.shape, params.R, params.w) == ((5, 12), None, None)
