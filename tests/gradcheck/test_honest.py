"""``ok`` is said only where everything was compared, and nothing small was hidden by something large."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

from stg_np.backend import Array
from stg_np.gradcheck import Report, check_gradient, check_layer, check_pair, hessian_symmetry

X = np.random.default_rng(0).standard_normal((2, 3))
MASK = np.array([[True, True, False], [True, False, False]])
SCALES = np.array([1e9, 1.0, 1.0])


def square_forward(x: Array) -> tuple[Array, Array]:
    return x * x, x


def square_backward(dy: Array, x: Array, factor: Any = 2.0) -> Array:
    dx: Array = np.asarray(factor, x.dtype) * x * dy
    return dx


def times_forward(a: Array, b: Array) -> tuple[Array, Any]:
    return a * b, (a, b)


def is_like(report: Report, status: str, *texts: str) -> None:
    assert report.status == status, str(report)
    assert bool(report) is (status == "ok")
    for text in texts:
        assert text in str(report)


# --- what was not compared ------------------------------------------------------------------------------------

Call = Callable[[], Report]
WITHOUT: dict[str, tuple[Call, str]] = {
    "integers": (lambda: check_pair(square_forward, square_backward, {"x": np.arange(3)}), "(x int64)"),
    "booleans": (lambda: check_pair(square_forward, square_backward, {"x": MASK}), "x.astype(float)"),
    "complex numbers": (lambda: check_pair(square_forward, square_backward, {"x": X + 1j}), "imaginary part"),
    "an empty batch": (lambda: check_pair(square_forward, square_backward, {"x": X[:0]}), "no entries (shape (0, 3))"),
    "an empty argument": (
        lambda: check_pair(times_forward, lambda dy, c: (dy * c[1], dy[0]), {"a": X[:1, :0], "b": X[:, :1]}),
        "a has no entries",
    ),
    "empty outputs": (lambda: check_pair(lambda x: (x[:0], x), lambda dy, x: 0 * x, {"x": X}), "the outputs hold no"),
    "outputs of integers": (lambda: check_pair(lambda x: (x.argmax(), x), lambda dy, x: 0 * x, {"x": X}), "outputs"),
    "no inputs": (lambda: check_pair(lambda: (X, None), lambda dy, _: (), {}), "(none)"),
    "all constant": (lambda: check_pair(square_forward, square_backward, {"x": X}, constant="x"), "nothing"),
    "no return": (lambda: check_pair(square_forward, lambda dy, x: None, {"x": X}), "lack its return?"),
    "None for one": (
        lambda: check_pair(times_forward, lambda dy, c: (dy * c[1], None), {"a": X, "b": X}),
        "None for b, so it was not compared: return its gradient, or say that it has none, constant=('b',)",
    ),
    "a gradient of integers": (
        lambda: check_pair(times_forward, lambda dy, c: (dy * c[1], dy * c[0]), {"a": X, "b": np.arange(3)}),
        "b has dtype int64, so its gradient was not compared",
    ),
    "a loss of integers": (
        lambda: check_gradient(lambda x: ((x**3).sum(), 77 * x**2), {"x": np.arange(3)}),
        "nothing was compared",
    ),
    "second derivatives of integers": (lambda: hessian_symmetry(lambda x: 2 * x, {"x": np.arange(3)}), "nothing"),
}


@pytest.mark.parametrize(("call", "text"), WITHOUT.values(), ids=WITHOUT)
def test_a_check_that_compared_nothing_is_not_ok(call: Call, text: str) -> None:
    is_like(call(), "not compared", text)


def test_labels_need_no_gradient() -> None:
    pick = lambda x, label: (x[label], (x.shape, label))  # noqa: E731

    def backward(dy: Array, cache: Any, last: Any = ()) -> Any:
        shape, label = cache
        dx = np.zeros(shape, dy.dtype)
        dx[label] = dy
        return (dx, *last)

    for last in ((), (None,), (np.zeros(()),), (np.zeros((), int),)):
        is_like(check_pair(pick, partial(backward, last=last), {"x": X, "label": np.array(1)}), "ok")


def test_a_failed_check_is_false() -> None:
    assert check_pair(square_forward, square_backward, {"x": X})
    assert not check_pair(square_forward, partial(square_backward, factor=2.001), {"x": X})


def returning(what: Any) -> Callable[..., Any]:
    return lambda x: what


class Square:
    """Keeps its cache in itself."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * x

    def backward(self, dy: Array) -> Array:
        return 2 * self.x * dy


KEEPER = Square()


# --- what a pair takes and returns ----------------------------------------------------------------------------

BROKEN: dict[str, tuple[Call, str]] = {
    "no cache": (lambda: check_pair(lambda x: x * x, square_backward, {"x": X}), "(y, cache), None for an empty cache"),
    "two rows and no cache": (lambda: check_pair(lambda x: x * x, square_backward, {"x": X[:2]}), "one ndarray"),
    "three things": (lambda: check_pair(returning((X, X, X)), square_backward, {"x": X}), "((y, m), cache)"),
    "a forward without return": (lambda: check_pair(returning(None), square_backward, {"x": X}), "lack its return?"),
    "a backward without cache": (
        lambda: check_pair(square_forward, lambda dy: dy, {"x": X}),  # type: ignore[arg-type,misc]
        "backward(doutputs, cache), but it takes (dy)",
    ),
    "another argument": (lambda: check_pair(lambda x, w: (x, x), square_backward, {"x": X}), "argument: 'w'"),
    "a compiled backward": (lambda: check_pair(square_forward, zip, {"x": X}), "gradient of x has shape ()"),
    "a shape that broadcasts": (
        lambda: check_pair(square_forward, lambda dy, x: square_backward(dy, x).sum(0, keepdims=True), {"x": X}),
        "has shape (1, 3), x itself (2, 3)",
    ),
    "whole numbers": (lambda: check_pair(lambda x: (0 * x, x), lambda dy, x: np.zeros((2, 3), int), {"x": X}), "int64"),
    "truth": (lambda: check_pair(lambda x: (np.maximum(x, 0), x), lambda dy, x: x > 0, {"x": X}), "dtype bool"),
    "a complex gradient": (lambda: check_pair(square_forward, lambda dy, x: 2 * x * dy + 0j, {"x": X}), "complex128"),
    "complex outputs": (lambda: check_pair(lambda x: (x + 1j, x), lambda dy, x: dy, {"x": X}), "two outputs"),
    "a name too many": (
        lambda: check_pair(lambda p: (2 * p["W"], p), lambda dy, p: {"p": {"W": 2 * dy, "c": dy}}, {"p": {"W": X}}),
        "a gradient for p.c, which is none of the inputs p.W",
    ),
    "a name too few": (
        lambda: check_pair(lambda p: (p["W"] * p["b"], p), lambda dy, p: {"p": {"W": dy}}, {"p": {"W": X, "b": X}}),
        "no gradient for p.b, only for p.W",
    ),
    "another shape beside": (
        lambda: check_pair(lambda x: (x[x > 1e-5], x), lambda dy, x: 0 * x, {"x": np.array([0.0, 1.0])}),
        "outputs of another shape",
    ),
    "float32 inside": (lambda: check_pair(lambda x: (x.astype("f4"), x), lambda dy, x: dy, {"x": X}), "it follows"),
    "float32 alone": (
        lambda: check_pair(lambda x: (x * np.float64(2), x), lambda dy, x: 2 * dy, {"x": X}),
        "float32=F",
    ),
    "float64 alone": (lambda: check_pair(for_float64_alone, lambda dy, x: dy, {"x": X}), "AssertionError: float64"),
    "a random argument": (
        lambda: check_pair(partial(noisy, rng=np.random.default_rng(0)), lambda dy, x: dy, {"x": X}),
        "fix the seed",
    ),
    "noise beside a mask": (
        lambda: check_pair(partial(noisy, rng=np.random.default_rng(0), fill=-1e30), lambda dy, x: dy, {"x": X}),
        "fix the seed",
    ),
    "a cache kept outside": (
        lambda: check_pair(lambda x: (KEEPER.forward(x), None), lambda dy, _: KEEPER.backward(dy), {"x": X}),
        "reusable_cache=False",
    ),
    "a loss that is an array": (lambda: check_gradient(lambda x: (x, x), {"x": X}), "not an array of 2 axes"),
    "a loss alone": (lambda: check_gradient(lambda x: x.sum(), {"x": X}), "(loss, gradients)"),
}


def for_float64_alone(x: Array) -> tuple[Array, None]:
    assert x.dtype == np.float64, "float64"
    return x, None


def noisy(x: Array, rng: np.random.Generator, fill: float = 0.0) -> tuple[Array, Array]:
    return np.where(MASK, x * (1 + 1e-6 * rng.random()), fill).astype(x.dtype), x


@pytest.mark.parametrize(("call", "text"), BROKEN.values(), ids=BROKEN)
def test_a_broken_contract_is_explained(call: Call, text: str) -> None:
    is_like(call(), "wrong", text)


def test_options_that_cannot_be() -> None:
    wrong: dict[str, Any]
    for wrong, text in (({"eps": 0.0}, "eps"), ({"tolerance": 2.0}, "tolerance"), ({"directions": 0}, "directions")):
        with pytest.raises(ValueError, match=text):
            check_pair(square_forward, square_backward, {"x": X}, **wrong)
    wrong_inputs: tuple[Any, ...] = (X, [X], {0: X})
    for inputs in wrong_inputs:
        with pytest.raises(TypeError, match="mapping of arguments by name"):
            check_pair(square_forward, square_backward, inputs)
    with pytest.raises(TypeError, match=r"np.array\(…\) of it"):
        check_pair(square_forward, square_backward, {"x": 2.0})


# --- large beside small ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [-1e12, -1e30, float(np.finfo(np.float32).min), -np.inf])
@pytest.mark.parametrize("factor", [2.002, 6.0, -2.0, 0.0])
def test_a_mask_hides_nothing(fill: float, factor: float) -> None:
    forward = lambda x: (np.where(MASK, x * x, x.dtype.type(fill)), x)  # noqa: E731
    for right in (True, False):
        backward = lambda dy, x: np.where(MASK, square_backward(dy, x, 2.0 if right else factor), 0)  # noqa: B023, E731
        for jacobian in (True, False):
            is_like(check_pair(forward, backward, {"x": X}, jacobian=jacobian), "ok" if right else "wrong")


@pytest.mark.parametrize("jacobian", [True, False])
@pytest.mark.parametrize("factor", [1.0, 1.001, 3.0, 0.0])
def test_sizes_far_apart_are_compared_apart(jacobian: bool, factor: float) -> None:
    factors = np.array([1.0, 1.0, factor])
    status = "ok" if factor == 1 else "wrong"

    def outputs(x: Array) -> tuple[Array, Array]:
        return x * x * SCALES.astype(x.dtype), x

    def of_outputs(dy: Array, x: Array) -> Array:
        return square_backward(dy, x, 2 * factors * SCALES)

    is_like(check_pair(outputs, of_outputs, {"x": X}, jacobian=jacobian), status)
    large_inputs = partial(square_backward, factor=2 * factors)
    is_like(check_pair(square_forward, large_inputs, {"x": X * SCALES}, jacobian=jacobian), status)
    two = lambda x: ((x * x, 0 * x + x.dtype.type(1e20)), x)  # noqa: E731
    is_like(check_pair(two, lambda d, x: square_backward(d[0], x, 2 * factors), {"x": X}, jacobian=jacobian), status)


@pytest.mark.parametrize("factor", [1.0, 1.01, 0.0])
def test_an_argument_beside_one_a_billion_times_as_large(factor: float) -> None:
    backward = lambda dy, c: (dy * c[1] * c[0].dtype.type(factor), dy * c[0])  # noqa: E731
    is_like(check_pair(times_forward, backward, {"a": 1e9 * X, "b": X}), "ok" if factor == 1 else "wrong")


@pytest.mark.parametrize("size", [1e9, 1e12, 1e30])
def test_what_rounding_hides_is_undecided(size: float) -> None:
    """x² − 1e12 does not tell x²: at 1e30 it does not move at all."""
    forward = lambda x: (x * x - x.dtype.type(size), x)  # noqa: E731
    for factor in (2.0, 2.002):
        report = check_pair(forward, partial(square_backward, factor=factor), {"x": X}, float32=False)
        is_like(report, "undecided", "rounding hides it", "the outputs are too large for it")


def test_complex_steps_and_float32_see_it_too() -> None:
    forward = lambda x: (np.where(MASK, abs(x), x * x * 1e12).astype(x.dtype), x)  # noqa: E731
    backward = lambda dy, x: (np.where(MASK, np.sign(x), 2e12 * x) * dy).astype(x.dtype)  # noqa: E731
    assert check_pair(forward, backward, {"x": X})
    assert check_pair(
        lambda x: (np.where(MASK, np.abs(x), x * x * 1e12), x), backward, {"x": X}, complex_step=True
    ).status

    def unstable(dy: Array, x: Array) -> Array:
        lost = x + x.dtype.type(1e4) - x.dtype.type(1e4)
        return np.where(MASK, 2 * lost * dy, 0)

    report = check_pair(lambda x: (np.where(MASK, x * x, x.dtype.type(-1e30)), x), unstable, {"x": X}, tolerance=1e-4)
    is_like(report, "wrong", "the float32 gradient of x differs", "float32=False")


def test_saturation_and_masked_inputs_are_right() -> None:
    x = np.array([15.0, -9.0, 0.1, 1e4, -np.inf])
    tanh = lambda x: (np.tanh(x), np.tanh(x))  # noqa: E731
    is_like(check_pair(tanh, lambda dy, y: dy * (1 - y * y), {"x": x}), "ok")


# --- borders, bends, noise -------------------------------------------------------------------------------------

DOMAINS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "log": (np.log, lambda x: 1 / x),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "1/x": (lambda x: 1 / x, lambda x: -1 / x**2),
}


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize(("at", "eps", "status"), [(5e-4, 1e-3, "ok"), (1e-5, 1e-3, "undecided"), (1e-5, 1e-6, "ok")])
def test_the_border_of_a_domain_is_named(name: str, at: float, eps: float, status: str) -> None:
    f, slope = DOMAINS[name]
    x = {"x": np.array([at, 0.3])}
    for jacobian in (True, False):
        report = check_pair(lambda x: (f(x), x), lambda dy, x: dy * slope(x), x, eps=eps, jacobian=jacobian)
        is_like(report, status)
        if status == "undecided":
            is_like(report, status, "the border of a domain (log, √, 1/x)", "pass a smaller eps (eps=1e-06)")
        assert not check_pair(lambda x: (f(x), x), lambda dy, x: -dy * slope(x), x, eps=eps, jacobian=jacobian)


def test_a_bend_too_sharp_for_the_steps() -> None:
    def check(frequency: float, factor: float, eps: float = 1e-3) -> Report:
        backward = lambda dy, x: dy * factor * frequency * np.cos(frequency * x)  # noqa: E731
        forward = lambda x: (np.sin(frequency * x), x)  # noqa: E731
        return check_pair(forward, backward, {"x": np.array([0.3])}, eps=eps, float32=False)

    is_like(check(1e4, 1.0), "ok")
    is_like(check(1e4, 1.001), "wrong", "analytic = 1.001 × numeric")
    is_like(check(1e6, 1.0), "undecided", "do not agree with one another", "pass a smaller eps")
    is_like(check(1e6, 1.0, eps=1e-6), "ok")
    is_like(check(1e6, 1.1, eps=1e-6), "wrong")


def test_not_finite_is_told_with_its_place() -> None:
    nan = np.array([1.0, np.nan])
    is_like(check_pair(square_forward, square_backward, {"x": nan}), "wrong", "the input x is not finite: x[1]")
    infinite = lambda x: (np.where(x > 1, np.inf, x), x)  # noqa: E731
    report = check_pair(infinite, square_backward, {"x": np.array([0.0, 2.0])})
    is_like(report, "wrong", "output is not finite: output[1]", "overflow")


def test_only_a_mask_is_infinite() -> None:
    """Outputs of −∞ that become finite beside the inputs are no mask."""
    report = check_pair(
        lambda x: (np.where(x > 0, x, -np.inf), x), lambda dy, x: dy * (x > 0), {"x": np.array([1.0, 0])}
    )
    assert not report
    all_masked = check_pair(lambda x: (x - np.inf, x), lambda dy, x: 0 * x, {"x": X})
    is_like(all_masked, "not compared", "the outputs hold no finite")


# --- layers that are objects -----------------------------------------------------------------------------------


class Affine:
    """As it stands in many a course: parameters, cache and gradients are attributes."""

    def __init__(self, W: Array, b: Array, factor: float = 1.0) -> None:
        self.W, self.b, self.factor = W, b, factor
        self.dW, self.db, self.steps = np.zeros_like(W), np.zeros_like(b), [0]

    def forward(self, x: Array) -> Array:
        self.x = x
        self.steps[0] += 1
        return x @ self.W + self.b

    def backward(self, dy: Array) -> Array:
        self.dW = self.dW.astype(dy.dtype) + self.x.T @ dy  # added up, as where a layer is used twice
        self.db = self.db.astype(dy.dtype) + self.factor * dy.sum(0)
        return dy @ self.W.T


PARAMS = {"W": "dW", "b": "db"}


def affine(factor: float = 1.0) -> Affine:
    return Affine(np.linspace(-1, 1, 6).reshape(3, 2), np.array([0.5, -2.0]), factor)


def test_a_layer_with_its_parameters() -> None:
    layer = affine()
    report = check_layer(layer, {"x": X}, PARAMS)
    is_like(report, "ok", "Affine: ok")
    assert {"x", "W", "b"} < set(report.errors)
    assert layer.steps == [0]  # copies worked
    assert not hasattr(layer, "x")
    wrong = check_layer(affine(2.0), {"x": X}, PARAMS, name="mine", complex_step=False)
    is_like(wrong, "wrong", "mine: WRONG", "entries of b are wrong; analytic = 2 × numeric")


def test_a_layer_whose_parameters_are_forgotten() -> None:
    is_like(check_layer(affine(), {"x": X}), "not compared", "W was not compared", "params={'W': 'dW'}")
    is_like(check_layer(affine(), {"x": X}, {"W": "dW"}), "not compared", "b was not compared")
    is_like(check_layer(affine(), {"x": X}, {"W": "dW"}, constant=("b",), float32=False), "ok")
    is_like(check_layer(affine(), {"x": X}, PARAMS, constant="b"), "ok", "not checked: b")


class Sum:
    """Of two inputs."""

    def __init__(self, returned: Callable[[Array], Any]) -> None:
        self.returned = returned

    def forward(self, a: Array, b: Array) -> Array:
        return a + b

    def backward(self, dy: Array) -> Any:
        return self.returned(dy)


@pytest.mark.parametrize(
    ("returned", "status"),
    [
        (lambda dy: (dy, dy), "ok"),
        (lambda dy: {"b": dy, "a": dy}, "ok"),
        (lambda dy: (dy, dy, dy), "wrong"),
        (lambda dy: (dy, None), "not compared"),
        (lambda dy: dy, "wrong"),
        (lambda dy: None, "not compared"),
    ],
)
def test_a_layer_of_two_inputs(returned: Callable[[Array], Any], status: str) -> None:
    is_like(check_layer(Sum(returned), {"a": X, "b": X}), status)


def test_a_layer_that_lacks_something() -> None:
    class Forgetful(Affine):
        def backward(self, dy: Array) -> Array:
            return dy @ self.W.T

    class Empty(NamedTuple):
        x: int = 0

    is_like(check_layer(Square(), {"x": X}), "ok")
    report = check_layer(Forgetful(X.T, X[:, 0]), {"x": X}, {"W": "gradient"}, constant=("b", "dW", "db"))
    is_like(report, "wrong", "no gradient in Forgetful.gradient")
    with pytest.raises(ValueError, match="Empty has no attribute forward"):
        check_layer(Empty(), {"x": X})
    with pytest.raises(ValueError, match="Affine has no attribute V"):
        check_layer(affine(), {"x": X}, {"V": "dV"})
    with pytest.raises(ValueError, match="W is an input and a parameter"):
        check_layer(affine(), {"W": X}, PARAMS)
