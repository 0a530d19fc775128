"""The gradient checker under test: right pairs pass, every planted error is caught and named."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stg_np.gradcheck
from stg_np.backend import Array, get_xp, to_device
from stg_np.gradcheck import (
    GradientError,
    Report,
    check_gradient,
    check_pair,
    format_table,
    hessian_symmetry,
)
from stg_np.gradcheck import check as check_module
from stg_np.gradcheck import hessian as hessian_module
from stg_np.params import Entry, Layout, Params

# --- pairs with a place for every error ---------------------------------------------------------------------


class Linear(NamedTuple):
    W: Array
    b: Array | None


def linear_forward(x: Array, params: Linear) -> tuple[Array, Any]:
    y = x @ params.W
    return y if params.b is None else y + params.b, (x, params)


def linear_backward(dy: Array, cache: Any, plant: str = "") -> tuple[Array, Linear]:
    x, params = cache
    dW = x.T @ dy
    if plant == "transposed weight gradient":
        dW = dW.T
    db = None if params.b is None else dy.mean(0) if plant == "mean for sum" else dy.sum(0)
    return dy @ params.W.T, Linear(dW, db)


class Cell(NamedTuple):
    W: Array  # (D, 3H)
    R: Array  # (H, 3H)
    b: Array  # (3H,)


class Outputs(NamedTuple):
    y: Array  # (B, T, H)
    m: Array  # (B, H)


def sigmoid(x: Array) -> Array:
    return 0.5 * np.tanh(0.5 * x) + 0.5


def cell_forward(x: Array, m_0: Array, params: Cell) -> tuple[Outputs, Any]:
    """m_t = m_{t-1} + u_t (z_t - m_{t-1}), y_t = o_t m_t: all gates see the memory."""
    m, steps = m_0, []
    for t in range(x.shape[1]):
        u, o, z = np.split(x[:, t] @ params.W + m @ params.R + params.b, 3, 1)
        u, o, z, before = sigmoid(u), sigmoid(o), np.tanh(z), m
        m = m + u * (z - m)
        steps.append((u, o, z, before, m))
    return Outputs(np.stack([o * m for _, o, _, _, m in steps], 1), m), (x, params, steps)


def cell_backward(doutputs: Outputs, cache: Any, plant: str = "") -> tuple[Array, Array, Cell]:
    """Backpropagation through time, with a planted error."""
    x, params, steps = cache
    dm, dx = doutputs.m, np.zeros_like(x)
    dW, dR, db = (np.zeros_like(array) for array in params)
    for t in reversed(range(len(steps))):
        u, o, z, before, m = steps[t]
        dy = doutputs.y[:, t]
        dm = dm + dy * o
        du, do, dz = dm * (z - before) * u * (1 - u), dy * m * o * (1 - o), dm * u * (1 - z * z)
        if plant == "gradient of the wrong gate":
            du, do = do, du
        if plant == "sign":
            du = -du
        if plant == "factor 1.001":
            dz = dz * 1.001
        if plant == "stale value":  # the memory after the step where the one before it belongs
            before = m
        da = np.concatenate([du, do, dz], 1)
        dm = dm * (1 - u) + (0 if plant == "dropped term" else da @ params.R.T)
        dx[:, t] = da @ params.W.T
        if (plant == "missing first step" and t == 0) or (plant == "missing last step" and t == len(steps) - 1):
            continue
        dW, dR, db = dW + x[:, t].T @ da, dR + before.T @ da, db + da.sum(0)
    return dx, dm, Cell(dW, dR, db)


def cell_inputs(seed: int, B: int, T: int, D: int, H: int) -> dict[str, Any]:
    """Between -1 and 1: a gate that is saturated hides whatever is planted in it."""
    rng = np.random.default_rng(seed)
    params = Cell(*(rng.uniform(-1, 1, shape) for shape in ((D, 3 * H), (H, 3 * H), (3 * H,))))
    return {"x": rng.uniform(-1, 1, (B, T, D)), "m_0": rng.uniform(-1, 1, (B, H)), "params": params}


def linear_inputs(seed: int, B: int, D: int, H: int, bias: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    params = Linear(rng.standard_normal((D, H)), rng.standard_normal(H) if bias else None)
    return {"x": rng.standard_normal((B, D)), "params": params}


def square_forward(x: Array) -> tuple[Array, Array]:
    return x * x, x


def square_backward(dy: Array, x: Array, factor: float = 2.0) -> Array:
    return factor * x * dy


def times_forward(a: Array, b: Array) -> tuple[Array, Any]:
    return a * b, (a, b)


def times_backward(dy: Array, cache: Any) -> tuple[Array, Array]:
    a, b = cache
    return dy * b, dy * a


def relu_forward(x: Array) -> tuple[Array, Array]:
    return np.maximum(x, 0), x


def relu_backward(dy: Array, x: Array) -> Array:
    return dy * (x > 0)


sizes = st.integers(1, 4)
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=15, deadline=None)


def wrong(report: Report, *texts: str) -> None:
    assert report.status == "wrong", str(report)
    for text in texts:
        assert text in str(report)
    with pytest.raises(GradientError):
        report.assert_ok()


# --- right pairs pass ---------------------------------------------------------------------------------------


@quick
@given(seeds, sizes, sizes, sizes, st.booleans(), st.booleans())
def test_linear_passes(seed: int, B: int, D: int, H: int, bias: bool, jacobian: bool) -> None:
    inputs = linear_inputs(seed, B, D, H, bias)
    report = check_pair(linear_forward, linear_backward, inputs, jacobian=jacobian, complex_step=True)
    report.assert_ok()
    assert report.entries == B * D + D * H + H * bias
    assert report.jacobian_entries == report.entries * B * H * jacobian
    assert report.skipped == ()


@quick
@given(seeds, sizes, st.integers(1, 5), sizes, sizes)
def test_recurrent_cell_passes(seed: int, B: int, T: int, D: int, H: int) -> None:
    report = check_pair(cell_forward, cell_backward, cell_inputs(seed, B, T, D, H), jacobian=False)
    report.assert_ok()
    assert set(report.errors) == {"(all)", "x", "m_0", "params.W", "params.R", "params.b", "(float32)"}


def test_right_code_is_far_below_the_bar() -> None:
    """Where no gradient is small by chance: such a one is measured against the rounding of the stencil."""
    linear = check_pair(linear_forward, linear_backward, linear_inputs(0, 3, 4, 2))
    cell = check_pair(cell_forward, cell_backward, cell_inputs(0, 3, 5, 4, 3), jacobian=False)
    assert max(linear.error, cell.error) < 1e-10


@pytest.mark.parametrize("jacobian", [True, False])
def test_where_the_forward_bends_sharply_the_step_shrinks(jacobian: bool) -> None:
    """The error that is reported is the gradient's, not that of a stencil whose fifth derivative is large."""

    def forward(x: Array) -> tuple[Array, Array]:
        return np.sin(14 * x), x

    def backward(dy: Array, x: Array, factor: float = 14.0) -> Array:
        dx: Array = dy * factor * np.cos(14 * x)
        return dx

    x = {"x": np.linspace(-1, 1, 9)}
    report = check_pair(forward, backward, x, jacobian=jacobian)  # 14⁵ h⁴ / 30 is 1.3e-9 of the slope
    report.assert_ok()
    assert report.error < 1e-10
    wrong(check_pair(forward, partial(backward, factor=14.0 * (1 + 1e-6)), x, jacobian=jacobian))


def test_every_derivative_of_a_small_cell() -> None:
    report = check_pair(cell_forward, cell_backward, cell_inputs(0, 2, 3, 2, 2))
    report.assert_ok()
    assert report.jacobian_entries == report.entries * (2 * 3 * 2 + 2 * 2)


@pytest.mark.parametrize("layout", ["fortran", "strided", "read-only", "float32"])
def test_inputs_keep_their_memory_order(layout: str) -> None:
    seen = []

    def forward(x: Array) -> tuple[Array, Array]:
        seen.append(x)
        return np.tanh(x), np.tanh(x)

    x = np.random.default_rng(0).standard_normal((4, 6))
    x = {"fortran": np.asfortranarray(x), "strided": x[::2, ::-2], "float32": x.astype("f4")}.get(layout, x)
    if layout == "read-only":
        x.flags.writeable = False
    check_pair(forward, lambda dy, y: dy * (1 - y * y), {"x": x}).assert_ok()
    assert seen[0].dtype == np.float64
    assert layout == "float32" or seen[0].strides == x.strides
    assert not seen[0].flags.writeable


def test_params_by_name_frozen_entries_and_integers() -> None:
    rng = np.random.default_rng(0)
    layout = Layout((Entry("W", (3, 2), "matrix"), Entry("scale", (2,), "frozen"), Entry("b", (2,), "vector")))
    params = Params(layout, rng.standard_normal(layout.size))

    def forward(x: Array, index: Array, params: Params) -> tuple[Array, Any]:
        return (x[index] @ params["W"] + params["b"]) * params["scale"], (x, index, params)

    def backward(dy: Array, cache: Any, plant: float = 1.0) -> dict[str, Any]:
        x, index, params = cache
        dz = dy * params["scale"]
        dx = np.zeros_like(x)
        np.add.at(dx, index, dz @ params["W"].T)
        gradients = {"W": x[index].T @ dz, "b": plant * dz.sum(0), "scale": np.zeros(2, dy.dtype)}
        return {"x": dx, "params": Params.pack(params.layout, gradients)}

    inputs = {"x": rng.standard_normal((4, 3)), "index": np.array([0, 0, 3]), "params": params}
    report = check_pair(forward, backward, inputs, complex_step=True)
    report.assert_ok()
    assert report.skipped == ("params.scale",)
    assert "not checked: params.scale" in str(report)
    wrong(check_pair(forward, partial(backward, plant=-1.0), inputs), "params.b", "analytic = -1 × numeric")


def test_trees_of_trees() -> None:
    def forward(layers: list[Linear], scale: dict[str, Array], nothing: None) -> tuple[Any, Any]:
        first, second = layers
        return [first.W @ second.W, (None, first.W.sum() * scale["by"])], (layers, scale)

    def backward(douts: Any, cache: Any) -> tuple[Any, ...]:
        (first, second), scale = cache
        dproduct, (_, dsum) = douts
        d_first = dproduct @ second.W.T + dsum * scale["by"]
        return [Linear(d_first, None), Linear(first.W.T @ dproduct, None)], {"by": dsum * first.W.sum()}, None

    rng = np.random.default_rng(3)
    layers = [Linear(rng.standard_normal((2, 2)), None) for _ in range(2)]
    report = check_pair(forward, backward, {"layers": layers, "scale": {"by": np.array(0.7)}, "nothing": None})
    report.assert_ok()
    assert {"layers[0].W", "layers[1].W", "scale.by"} < set(report.errors)


@pytest.mark.parametrize("gradients", [lambda dy, c: (dy * c[1], None), lambda dy, c: dy * c[1]])
def test_what_is_constant_is_said_and_shown(gradients: Any) -> None:
    inputs = {"a": np.arange(3.0), "b": np.ones(3)}
    report = check_pair(times_forward, gradients, inputs, constant=("b",))
    report.assert_ok()
    assert report.skipped == ("b",)
    assert report.entries == 3
    assert not check_pair(times_forward, gradients, inputs)
    with pytest.raises(ValueError, match="constant names 'c', which is none of the inputs a, b"):
        check_pair(times_forward, gradients, inputs, constant=("c",))


def test_a_leaf_may_be_constant() -> None:
    backward = lambda dy, cache: (dy @ cache[1].W.T, Linear(cache[0].T @ dy, None))  # noqa: E731
    report = check_pair(linear_forward, backward, linear_inputs(0, 3, 2, 2), constant=["params.b"])
    report.assert_ok()
    assert report.skipped == ("params.b",)


def test_inputs_must_be_arrays() -> None:
    with pytest.raises(TypeError, match=r"input axis: .* functools.partial"):
        check_pair(square_forward, square_backward, {"x": np.ones(2), "axis": 1})
    with pytest.raises(ValueError, match="at least 1"):
        check_pair(square_forward, square_backward, {"x": np.ones(2)}, directions=0)
    with pytest.raises(ValueError, match="shape"):  # the reader's own errors stay what they are
        check_pair(lambda x: (np.reshape(x, 7), x), square_backward, {"x": np.ones(2)})


# --- planted errors are caught ------------------------------------------------------------------------------

PLANTED = (
    "sign",
    "factor 1.001",
    "dropped term",
    "missing first step",
    "missing last step",
    "gradient of the wrong gate",
    "stale value",
)


@pytest.mark.parametrize("plant", PLANTED)
@settings(max_examples=5, deadline=None)
@given(seeds, sizes, st.integers(1, 5), sizes, sizes)
def test_planted_errors_in_a_scan(plant: str, seed: int, B: int, T: int, D: int, H: int) -> None:
    backward = partial(cell_backward, plant=plant)
    wrong(check_pair(cell_forward, backward, cell_inputs(seed, B, T, D, H), jacobian=False, locate=False))


@pytest.mark.parametrize("plant", PLANTED)
def test_planted_errors_in_a_jacobian(plant: str) -> None:
    backward = partial(cell_backward, plant=plant)
    wrong(check_pair(cell_forward, backward, cell_inputs(1, 2, 2, 1, 2), jacobian=True), "∂output.")


@quick
@given(seeds, st.integers(2, 5), st.integers(2, 5), st.booleans())
def test_transposed_weight_gradient(seed: int, B: int, D: int, jacobian: bool) -> None:
    backward = partial(linear_backward, plant="transposed weight gradient")
    report = check_pair(linear_forward, backward, linear_inputs(seed, B, D, D), jacobian=jacobian)
    wrong(report, "params.W", "analytic = numeric transposed")


@quick
@given(seeds, st.integers(2, 5), sizes, st.booleans())
def test_mean_for_sum(seed: int, B: int, D: int, jacobian: bool) -> None:
    backward = partial(linear_backward, plant="mean for sum")
    report = check_pair(linear_forward, backward, linear_inputs(seed, B, D, 3), jacobian=jacobian)
    wrong(report, "params.b", f"analytic = {1 / B:.6g} × numeric")


@quick
@given(seeds, st.lists(sizes, max_size=3), st.booleans())
def test_two_point_zero_zero_one(seed: int, shape: list[int], jacobian: bool) -> None:
    x = np.random.default_rng(seed).standard_normal(shape)
    backward = partial(square_backward, factor=2.001)
    wrong(check_pair(square_forward, backward, {"x": x}, jacobian=jacobian), "analytic = 1.0005 × numeric")
    check_pair(square_forward, square_backward, {"x": x}, jacobian=jacobian).assert_ok()


def test_report_names_argument_index_values_step_and_tolerance() -> None:
    def backward(dy: Array, x: Array) -> Array:
        dx = 2 * x * dy
        dx[:, 2] *= 1.5
        return dx

    report = check_pair(square_forward, backward, {"x": np.array([[1.0, 1, 1], [1, 1, 2]])})
    wrong(report, "∂output[1, 2]/∂x[1, 2]: numeric 4, analytic 6 ", "step 1.0e-03", "tolerance 1.0e-08")
    wrong(report, "2 of 6 entries of x are wrong; all of them have index 2 on axis 1")


Backward = Callable[[Array, Any], Any]
CONTRACT: dict[str, tuple[Backward, str]] = {
    "swapped arguments": (lambda dy, c: times_backward(dy, c)[::-1], "entries of a are wrong"),
    "zero": (lambda dy, c: (dy * c[1], 0 * dy), "the analytic gradient is zero everywhere"),
    "wrong shape": (lambda dy, c: (dy * c[1], (dy * c[0]).sum(0)), "gradient of b has shape (3,), b itself (2, 3)"),
    "wrong dtype": (lambda dy, c: (dy * c[1], (dy * c[0]).astype("f4")), "gradient of b has dtype float32"),
    "float64 always": (lambda dy, c: (dy * c[1], dy * c[0].astype("f8")), "float64 where the inputs have float32"),
    "missing": (lambda dy, c: dy * c[1], "no gradient for b"),
    "too many": (lambda dy, c: (dy * c[1], dy * c[0], dy), "gradients (3) for the inputs a, b"),
    "unknown": (lambda dy, c: {"a": dy * c[1], "c": dy}, "gradients (a, c) for the inputs a, b"),
    "not an array": (lambda dy, c: (dy * c[1], [["x"] * 3] * 2), "no gradient for b"),
    "nan": (lambda dy, c: (dy * c[1], np.where(c[0] > 1, dy * c[0], np.nan)), "gradient of b is not finite: b[0, 0]"),
    "writes dy": (
        lambda dy, c: (np.multiply(dy, c[1], out=dy), dy),
        "backward writes into an argument (test_gradcheck",
    ),
}


@pytest.mark.parametrize("case", CONTRACT)
def test_broken_contracts(case: str) -> None:
    a = np.arange(6.0).reshape(2, 3)
    backward, text = CONTRACT[case]
    wrong(check_pair(times_forward, backward, {"a": a, "b": a[::-1] + 0.5}), text)


def test_a_scalar_gradient_that_is_no_array() -> None:
    wrong(check_pair(lambda x: (x * 2, None), lambda dy, _: 2.0, {"x": np.array(1.0)}), "is not an array but float")


def test_forward_that_writes_into_its_input() -> None:
    def forward(x: Array) -> tuple[Array, Array]:
        x -= x.max()
        return x * x, x

    x = np.ones(3)
    wrong(check_pair(forward, square_backward, {"x": x}), "forward writes into an argument", "x -= x.max()")
    assert (x == 1).all()


def test_backward_that_changes_its_cache() -> None:
    def backward(dy: Array, cache: Array) -> Array:
        cache *= 2
        return dy * cache

    wrong(check_pair(lambda x: (x * x, x.copy()), backward, {"x": np.ones(3)}), "at once: it writes into its cache")


def test_backward_that_ignores_its_cache() -> None:
    last: list[Array] = []

    def forward(x: Array) -> tuple[Array, None]:
        last[:] = [x]
        return x * x, None

    def backward(dy: Array, _: None) -> Array:
        return 2 * last[0] * dy

    x = {"x": np.ones(3)}
    wrong(check_pair(forward, backward, x, float32=False), "after other forward passes")
    check_pair(forward, backward, x, reusable_cache=False).assert_ok()  # as a workspace may be


def test_forward_that_is_random() -> None:
    rng = np.random.default_rng(0)
    forward = lambda x: (x * rng.standard_normal(3), x)  # noqa: E731
    wrong(check_pair(forward, lambda dy, x: dy, {"x": np.ones(3)}), "fix the seed")


def test_outputs_must_be_finite_arrays() -> None:
    x = {"x": np.array([1.0, np.nan])}
    wrong(check_pair(square_forward, square_backward, x), "the input x is not finite: x[1], 1 of 2 entries")
    overflow = check_pair(lambda x: (np.where(x == 1, np.inf, x), x), square_backward, {"x": np.array([2.0, 1.0])})
    wrong(overflow, "output is not finite: output[1], 1 of 2 entries", "the border of a domain")
    wrong(check_pair(lambda x: ("text", x), square_backward, {"x": np.ones(2)}), "output is not an array but str")


def test_nan_beside_the_point_fails() -> None:
    def forward(x: Array) -> tuple[Array, Array]:
        return np.where(x == 1, x, np.nan), x

    report = check_pair(forward, lambda dy, x: dy, {"x": np.ones(2)})
    assert report.status == "undecided"
    assert "the forward is not finite 1e-06 away from the inputs" in str(report)


def test_partial_derivatives_that_all_exist_are_not_yet_a_gradient() -> None:
    """Along each argument alone both functions are constant at 0; only a direction over both tells."""

    def rational(x: Array, y: Array) -> tuple[Array, Array]:
        squares = x**2 + y**2
        return x**2 * y / np.where(squares == 0, 1, squares), x

    def lesser(x: Array, y: Array) -> tuple[Array, Array]:
        return np.minimum(abs(x), abs(y)), x

    def zero(dy: Array, x: Array) -> tuple[Array, Array]:
        return 0 * x, 0 * x

    origin = {"x": np.array(0.0), "y": np.array(0.0)}
    wrong(check_pair(rational, zero, origin), "a direction over (all): numeric ")
    report = check_pair(lesser, zero, origin)
    assert report.status == "kink"
    assert "a direction over (all) jumps from " in str(report)


@pytest.mark.parametrize("jacobian", [True, False])
def test_a_small_gradient_is_not_hidden_by_a_large_one(jacobian: bool) -> None:
    def forward(big: Array, small: Array) -> tuple[Array, Any]:
        return 1e6 * big.sum() + np.tanh(small).sum(), small

    def backward(dy: Array, small: Array, factor: float = 1.0) -> tuple[Array, Array]:
        return 1e6 * dy * np.ones(5, dy.dtype), factor * dy * (1 - np.tanh(small) ** 2)

    inputs = {"big": np.zeros(5), "small": np.linspace(-1, 1, 4)}
    check_pair(forward, backward, inputs, jacobian=jacobian).assert_ok()
    report = check_pair(forward, partial(backward, factor=1.001), inputs, jacobian=jacobian)
    wrong(report, "4 of 4 entries of small are wrong")
    assert report.errors["big"] < 1e-10


def test_a_wrong_entry_in_a_large_argument_is_found_without_trying_all() -> None:
    x = np.random.default_rng(0).standard_normal(5000)
    wrong(check_pair(square_forward, partial(square_backward, factor=2.02), {"x": x}), "500 of 500 entries of x")
    quickly = check_pair(square_forward, partial(square_backward, factor=2.02), {"x": x}, locate=False)
    wrong(quickly, "a direction over x: numeric")

    def backward(dy: Array, x: Array) -> Array:
        dx = 2 * x * dy
        dx[7] += 1
        return dx

    wrong(check_pair(square_forward, backward, {"x": x}), "a direction over x: numeric")


# --- zero gradients, kinks, complex steps, float32 ----------------------------------------------------------


def test_zero_gradient() -> None:
    x = {"x": np.random.default_rng(0).standard_normal((3, 4))}
    softmax_sum = lambda x: ((np.exp(x) / np.exp(x).sum(1, keepdims=True)).sum(), x)  # noqa: E731
    for jacobian in (True, False):
        report = check_pair(softmax_sum, lambda dy, x: 0 * x, x, jacobian=jacobian)
        report.assert_ok()
        wrong(check_pair(softmax_sum, lambda dy, x: 0 * x + 1e-3, x, jacobian=jacobian))
        wrong(check_pair(square_forward, lambda dy, x: 0 * x, x, jacobian=jacobian), "zero everywhere")
    check_pair(lambda x: (x**3, x), lambda dy, x: 3 * x * x * dy, {"x": np.zeros(3)}).assert_ok()


@pytest.mark.parametrize("jacobian", [True, False])
def test_kinks_are_reported_as_kinks(jacobian: bool) -> None:
    x = {"x": np.array([1.0, 0.0, -1.0])}
    for forward, backward in [
        (relu_forward, relu_backward),
        (lambda x: (abs(x), x), lambda dy, x: dy * np.sign(x)),
    ]:
        report = check_pair(forward, backward, x, jacobian=jacobian)
        assert report.status == "kink"
        assert not report.ok
        assert "/∂x[1] jumps from " in str(report)
        assert "1 failed" in format_table([report])


def test_a_wrong_gradient_at_a_kink_is_wrong() -> None:
    x = {"x": np.array([1.0, 0.0, -1.0])}
    wrong(check_pair(relu_forward, lambda dy, x: dy * 1.5 * (x >= 0), x), "∂x[1]")
    wrong(check_pair(relu_forward, lambda dy, x: dy * (x > 0) * 1.001, x), "∂x[0]")


@pytest.mark.parametrize("distance", [1e-3, -1e-3, 3e-4, 5e-5, -5e-5])
def test_near_a_kink_the_step_shrinks(distance: float) -> None:
    x = {"x": np.array([1.0, distance, -1.0])}
    check_pair(relu_forward, relu_backward, x).assert_ok()
    wrong(check_pair(relu_forward, lambda dy, x: dy * (x > -1e-2), {"x": -abs(x["x"])}))


def test_complex_step() -> None:
    x = {"x": np.array([0.5, -0.3])}
    tanh = lambda x: (np.tanh(x), np.tanh(x))  # noqa: E731
    report = check_pair(tanh, lambda dy, y: dy * (1 - y * y), x, complex_step=True)
    report.assert_ok()
    assert report.errors["(complex step)"] < 1e-14
    for forward in (np.abs, lambda x: np.sqrt(x.real**2), lambda x: np.logaddexp(x, -x) * 0 + abs(x)):
        report = check_pair(lambda x: (forward(x), x), lambda dy, x: dy * np.sign(x), x, complex_step=True)  # noqa: B023
        assert report.status == "not analytic", str(report)


def test_float32_is_held_against_float64() -> None:
    x = {"x": np.random.default_rng(0).standard_normal(8)}
    unstable = lambda dy, x: (2 * x + 1e4 - np.asarray(1e4, x.dtype)) * dy  # noqa: E731
    wrong(check_pair(square_forward, unstable, x), "float32 gradient of x differs from the float64 one")
    check_pair(square_forward, unstable, x, float32=False).assert_ok()
    assert check_pair(square_forward, square_backward, x).errors["(float32)"] < 1e-6


# --- whole functions, Hessians, reports ---------------------------------------------------------------------


@quick
@given(seeds, sizes, sizes)
def test_check_gradient_of_a_loss(seed: int, B: int, D: int) -> None:
    def loss_and_grad(x: Array, params: Linear, factor: float = 1.0) -> tuple[float, tuple[Array, Linear]]:
        y, cache = linear_forward(x, params)
        return float((y**2).sum().real) / 2, linear_backward(factor * y, cache)

    inputs = linear_inputs(seed, B, D, 2)
    report = check_gradient(loss_and_grad, inputs, jacobian=False)
    report.assert_ok()
    assert report.name == "loss_and_grad"
    mine = partial(loss_and_grad, factor=1.001)
    wrong(check_gradient(mine, inputs, name="mine", jacobian=False, locate=False), "mine: WRONG")


def test_hessian_symmetry() -> None:
    def gradient(x: Array, params: Linear, factor: float = 1.0) -> tuple[Array, Linear]:
        y, cache = linear_forward(x, params)
        dx, dparams = linear_backward(np.tanh(y), cache)
        return dx, Linear(dparams.W * factor, dparams.b)

    inputs = linear_inputs(0, 3, 2, 2)
    report = hessian_symmetry(gradient, inputs)
    report.assert_ok()
    assert report.error < 1e-10
    wrong(hessian_symmetry(partial(gradient, factor=1.001), inputs, name="h"), "not the gradients of one scalar")
    both = {"a": np.ones(2), "b": np.ones(2)}
    assert hessian_symmetry(lambda a, b: (2 * a, None), both).status == "not compared"
    first_only = hessian_symmetry(lambda a, b: (2 * a, None), both, constant="b")
    assert first_only.ok
    assert first_only.skipped == ("b",)
    wrong(hessian_symmetry(lambda x: x[:1], {"x": np.ones(2)}), "has shape")


def test_reports_as_json_and_table() -> None:
    good = check_pair(square_forward, square_backward, {"x": np.ones(3)}, name="good")
    bad = check_pair(square_forward, lambda dy, x: dy * np.inf, {"x": np.ones(3)}, name="bad")
    plain = json.loads(json.dumps([good.to_dict(), bad.to_dict()], allow_nan=False))
    assert plain[0]["ok"] is True
    assert plain[0]["entries"] == 3
    assert plain[1]["error"] is None
    assert "not finite" in plain[1]["failures"][0]
    table = format_table(iter([good, bad])).splitlines()
    assert table[0].split()[:2] == ["pair", "status"]
    assert table[1].split()[:2] == ["good", "ok"]
    assert table[3] == "2 pairs, 1 failed"
    assert format_table([good]).endswith("1 pairs, all right")


def test_same_seed_same_report() -> None:
    inputs = cell_inputs(0, 2, 2, 2, 2)
    first, second, other = (check_pair(cell_forward, cell_backward, inputs, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first.errors != other.errors


def test_both_array_libraries(device: str) -> None:
    def on_device(tree: Any) -> Any:
        return Linear(*map(on_device, tree)) if isinstance(tree, Linear) else to_device(tree, device)

    def tanh_forward(x: Array, params: Linear) -> tuple[Array, Any]:
        z, cache = linear_forward(x, params)
        y = get_xp(z).tanh(z)
        return y, (y, cache)

    def tanh_backward(dy: Array, cache: Any, plant: str = "") -> tuple[Array, Linear]:
        y, linear = cache
        return linear_backward(dy * (1 - y * y), linear, plant)

    def writes_dy(dy: Array, cache: Any) -> tuple[Array, Linear]:
        dy *= 2
        return tanh_backward(dy, cache)

    inputs = {name: on_device(tree) for name, tree in linear_inputs(0, 3, 2, 2).items()}
    check_pair(tanh_forward, tanh_backward, inputs).assert_ok()
    wrong(check_pair(tanh_forward, partial(tanh_backward, plant="mean for sum"), inputs), "params.b")
    broken = check_pair(tanh_forward, writes_dy, inputs)
    wrong(broken, "backward writes" if device == "cpu" else "backward changed output: never write into an argument")


def test_a_gradient_on_the_other_library(stand_in: Any) -> None:
    x = stand_in.asarray(np.ones(3))
    wrong(check_pair(lambda x: (x * x, None), lambda dy, _: np.ones(3), {"x": x}), "another array library")


def test_nan_in_a_hessian_fails() -> None:
    x = {"x": np.ones(3)}
    gradient = lambda x: np.where(x == 1, x, np.nan)  # noqa: E731
    assert hessian_symmetry(gradient, x).status == "undecided"


def test_docstring_examples_run() -> None:
    results = [doctest.testmod(module) for module in (stg_np.gradcheck, check_module, hessian_module)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 8
