"""Check a hand-written backward against finite differences of its forward.

A *pair* is ``outputs, cache = forward(**inputs)`` and ``gradients = backward(doutputs, cache)``. Write
J for the matrix of all derivatives ∂outputs/∂inputs: the backward claims to return Jᵀu for ``doutputs = u``.
:func:`check_pair` measures Jv with the forward alone and asks whether ⟨Jv, u⟩ = ⟨v, Jᵀu⟩ (the adjoint identity)
for random u and random unit directions v: over all inputs, over each argument, and for small shapes over every
entry (in large shapes: the entries of ∂loss with loss = ⟨outputs, u⟩, to locate an error). A wrong gradient gives a
report that names the place:

>>> import numpy as np
>>> def square_forward(x):
...     return x * x, x
>>> def square_backward(dy, x):
...     return 2.001 * x * dy
>>> print(check_pair(square_forward, square_backward, {"x": np.array([1.0, -2.0, 3.0])}))
square: WRONG, worst error 1.2e-03 (tolerance 1.0e-08)
  ∂output[2]/∂x[2]: numeric 6, analytic 6.003 (error 1.2e-03, step 1.0e-03, tolerance 1.0e-08); 3 of 3 entries \
of x are wrong; analytic = 1.0005 × numeric

The numbers: five-point stencil, ``f' ≈ (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h``, in float64; with h = 1e-3
and inputs of order 1 its truncation (h⁴) and its rounding (ε/h) are both near 1e-12. The error of a
direction is |numeric - analytic| · √n / ‖g‖, n entries, g the gradient: for random directions an estimate of the
relative error of g. Right code gives below 1e-10, a wrong term 1e-3 or more; the bar is 1e-8. A gradient so small
that rounding hides it (zero, for one) is measured against the least ‖g‖ that the stencil can resolve to the bar.

The pair sees NumPy or CuPy arrays, whatever the inputs are; the rest happens in one vector on the host.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, get_xp, to_host
from stg_np.params import Params

Tree: TypeAlias = Any
"""An array, None, :class:`Params`, or a (named) tuple, list or mapping of trees."""
Forward: TypeAlias = Callable[..., tuple[Tree, Any]]
Backward: TypeAlias = Callable[[Tree, Any], Tree]
Status: TypeAlias = Literal["ok", "wrong", "kink", "not analytic"]

JACOBIAN_LIMIT = 200  # inputs and outputs, each: up to here every entry is checked unless the caller says otherwise
LOCATE_LIMIT = 500  # entries of a wrong argument that are tried one by one to name the worst
KINK = 1e-4  # one-sided slopes that differ by more than this fraction are a kink: smooth code gives about h³
ROUNDING = 10 * float(np.finfo(np.float64).eps)  # of one forward, relative to its largest output
SAME = 1e-10  # what is computed twice from equal numbers agrees to this (a GPU may add in another order)
FLOAT32_TOLERANCE = 1e-4
COMPLEX_STEP = 1e-30


class GradientError(AssertionError):
    """A backward that does not belong to its forward; the message is the report."""


@dataclass(frozen=True)
class Report:
    """What a check found; ``print`` it, or :meth:`assert_ok` it in a test.

    ``kink`` means that the function has no derivative where it was asked (a ReLU at 0) and the analytic value lies
    between the one-sided slopes: nothing is proved; choose other inputs. ``not analytic`` concerns the complex step.
    """

    name: str
    status: Status
    error: float
    """The worst error of all that was compared; NaN if the pair broke the contract before numbers were compared."""
    tolerance: float
    step: float
    errors: dict[str, float] = field(default_factory=dict)
    """The worst error per argument; ``(all)`` for directions over all of them, ``(float32)``, ``(complex step)``."""
    entries: int = 0
    """How many entries the differentiated inputs have."""
    jacobian_entries: int = 0
    """How many derivatives were compared one by one."""
    skipped: tuple[str, ...] = ()
    """Floating-point inputs that were *not* checked: None as gradient, or the role ``frozen``."""
    failures: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every comparison passed."""
        return self.status == "ok"

    def __str__(self) -> str:
        unchecked = f", not checked: {', '.join(self.skipped)}" if self.skipped else ""
        status = self.status if self.ok else self.status.upper()
        head = f"{self.name}: {status}, worst error {self.error:.1e} (tolerance {self.tolerance:.1e}){unchecked}"
        return "\n  ".join((head, *self.failures))

    def assert_ok(self) -> None:
        """Do nothing if all is well.

        Raises:
            GradientError: with the report as its message.
        """
        if not self.ok:
            raise GradientError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; a number that is not finite becomes None."""
        plain = asdict(self) | {"ok": self.ok, "error": _finite(self.error)}
        return plain | {"errors": {name: _finite(error) for name, error in self.errors.items()}}


def format_table(reports: Iterable[Report]) -> str:
    """A table of many reports, one line each, and below it the text of those that failed."""
    reports = list(reports)
    rows = [("pair", "status", "worst error", "at", "entries", "jacobian")]
    for report in reports:
        errors = {key: error for key, error in report.errors.items() if not key.startswith("(")} or {"-": 0.0}
        worst = list(errors)[int(np.argmax(list(errors.values())))]  # NaN is the worst
        counts = (str(report.entries), str(report.jacobian_entries))
        rows.append((report.name, report.status, f"{report.error:.1e}", worst, *counts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    failed = [report for report in reports if not report.ok]
    summary = f"{len(reports)} pairs, {len(failed)} failed" if failed else f"{len(reports)} pairs, all right"
    return "\n".join([*lines, summary, *map(str, failed)])


def check_pair(
    forward: Forward,
    backward: Backward,
    inputs: Mapping[str, Tree],
    *,
    name: str = "",
    seed: int = 0,
    directions: int = 3,
    eps: float = 1e-3,
    tolerance: float = 1e-8,
    jacobian: bool | None = None,
    complex_step: bool = False,
    float32: bool = True,
    reusable_cache: bool = True,
) -> Report:
    """Check ``backward`` against finite differences of ``forward`` at ``inputs``; see the module for the numbers.

    Args:
        forward: called as ``forward(**inputs)``, returns ``(outputs, cache)``; outputs is a tree of arrays.
            Options go in through :func:`functools.partial`; random numbers must be the same in every call.
        backward: called as ``backward(doutputs, cache)``, doutputs shaped like outputs; returns the gradients of
            the inputs in their order (a tuple) or by name (a mapping); for one input also its gradient alone.
            None for a whole argument declares it constant; integer arrays need no gradient.
        inputs: arguments by name: arrays, named tuples of arrays, :class:`Params`, or None. Leaves are named by
            dots, ``params.W``. Floating-point arrays are taken to float64, with their memory order kept.
        name: of the pair in the report; by default the forward's.
        seed: of the directions and of ``doutputs``.
        directions: how many, over all inputs and over each argument.
        eps: the step h. Where the check fails, a tenth and a hundredth of it are tried too: that walks away from a
            kink nearby, and cannot make a wrong gradient right.
        tolerance: the bar for the error.
        jacobian: compare every derivative one by one (None: if the shapes are small).
        complex_step: also compare with Im f(x + ih)/h, exact where the forward is analytic; says where it is not.
        float32: also compare with the gradient computed in float32 (at 1e-4), which must stay float32.
        reusable_cache: False for a forward that writes its cache into a workspace which its next call overwrites.

    Raises:
        TypeError: if an input is not an array, or the inputs mix array libraries.
    """
    if directions < 1:
        raise ValueError(f"directions must be at least 1, got {directions}")
    name = name or getattr(forward, "__name__", "pair").removesuffix("_forward")
    check = _Check(np.random.default_rng(seed), directions, eps, tolerance)
    try:
        point = _Point(forward, backward, inputs)
        check.contract(point, jacobian)
        check.every_direction(point)
        if complex_step and not check.failures:
            check.against_complex_step(point)
        if float32 and not check.failures:
            check.against_float32(point, _Point(forward, backward, inputs, np.float32))
        if reusable_cache:
            check.cache_is_untouched(point, "after other forward passes: it keeps values outside its cache")
    except GradientError as broken:
        check.failures.append(("wrong", str(broken)))
    return check.report(name)


def check_gradient(
    value_and_gradients: Callable[..., tuple[Any, Tree]], inputs: Mapping[str, Tree], **options: Any
) -> Report:
    """Check a function that returns a scalar *and* its gradients, ``loss, gradients = f(**inputs)``.

    Args:
        value_and_gradients: the gradients are given as :func:`check_pair` says of a backward.
        inputs: as in :func:`check_pair`.
        options: keyword arguments of :func:`check_pair`.

    >>> import numpy as np
    >>> check_gradient(lambda x: ((x**3).sum(), 3 * x**2), {"x": np.ones((2, 2))}).ok
    True
    """

    def forward(**arguments: Tree) -> tuple[Array, Tree]:
        value, gradients = value_and_gradients(**arguments)
        array = next(array for array in _leaves(arguments).values() if array.dtype.kind in "fc")
        return get_xp(array).asarray(value, dtype=array.dtype), gradients

    def backward(dvalue: Array, gradients: Tree) -> Tree:
        return _rebuild(gradients, lambda _, gradient: float(dvalue) * gradient)

    options.setdefault("name", getattr(value_and_gradients, "__name__", "gradient"))
    return check_pair(forward, backward, inputs, **options)


def hessian_symmetry(
    gradient: Callable[..., Tree],
    inputs: Mapping[str, Tree],
    *,
    name: str = "",
    seed: int = 0,
    directions: int = 3,
    eps: float = 1e-3,
    tolerance: float = 1e-8,
) -> Report:
    """Check that ``gradients = gradient(**inputs)`` *can* be the gradients of one scalar: wᵀHv = vᵀHw.

    H is the matrix of second derivatives, Hv the five-point difference of the gradient along v: no value of the loss
    is needed. A constant factor on all gradients stays unseen; :func:`check_pair` sees it. The error is
    |wᵀHv - vᵀHw| · √n / ‖Hv‖.

    >>> import numpy as np
    >>> right = lambda x, y: (y * x, x**2 / 2)     # the gradients of x² y / 2
    >>> wrong = lambda x, y: (y * x, 1.001 * x**2 / 2)
    >>> point = {"x": np.array([1.0, 2.0]), "y": np.array([3.0, -1.0])}
    >>> hessian_symmetry(right, point).ok, hessian_symmetry(wrong, point).ok
    (True, False)
    """
    name = name or getattr(gradient, "__name__", "gradient")
    rng, error = np.random.default_rng(seed), 0.0

    def forward(**arguments: Tree) -> tuple[Tree, None]:
        return _match(arguments, gradient(**arguments)), None

    try:
        point = _Point(forward, lambda doutputs, cache: None, inputs)
        active = list(point.outputs)
        rows = np.flatnonzero(point.direction(rng, active))
        for _ in range(directions if rows.size else 0):
            v, w = point.direction(rng, active), point.direction(rng, active)
            error = float(np.maximum(error, _asymmetry(point, v, w, rows, eps, tolerance)))  # NaN stays
    except GradientError as broken:
        return Report(name, "wrong", float("nan"), tolerance, eps, failures=(str(broken),))
    text = f"wᵀHv and vᵀHw differ (error {error:.1e}): these are not the gradients of one scalar"
    skipped = tuple(key for key in point.slices if key not in active)
    status: Status = "ok" if error <= tolerance else "wrong"
    failures = () if status == "ok" else (text,)
    return Report(name, status, error, tolerance, eps, {}, rows.size, skipped=skipped, failures=failures)


def _asymmetry(point: _Point, v: Array, w: Array, rows: Array, eps: float, tolerance: float) -> float:
    """The error of wᵀHv = vᵀHw, at the best of the steps."""
    errors, noise = [], 0.0
    for step in _steps(eps):
        hv, hw = point.push(v, step), point.push(w, step)
        noise = noise or ROUNDING / eps * float(np.linalg.norm(np.maximum(hv.scale, hw.scale) * w[rows]))
        norm = max(float(np.linalg.norm(hv.central)), float(np.linalg.norm(hw.central)))
        difference = abs(float(w[rows] @ hv.central - v[rows] @ hw.central))
        errors.append(float(_error(np.array(difference), norm, rows.size, noise, tolerance)))
    return float(np.min(errors))  # NaN stays


# --- the pair as a function of one vector ---------------------------------------------------------------


class _Slope(NamedTuple):
    """Derivatives of all outputs along one direction, (m,) each."""

    central: Array
    left: Array
    right: Array
    scale: Array  # the largest value of the same output array: rounding is relative to it


class _Point:
    """A pair at one point, its inputs seen as one host vector θ (n,) and its outputs as another (m,).

    The forward has run once; :meth:`pull` sends doutputs through the backward, u -> Jᵀu, and :meth:`push`
    measures v -> Jv by differences of further forwards. Broken contracts raise :class:`GradientError`.
    """

    def __init__(
        self, forward: Forward, backward: Backward, inputs: Mapping[str, Tree], dtype: Any = np.float64
    ) -> None:
        self.forward, self.backward, self.inputs, self.dtype = forward, backward, dict(inputs), np.dtype(dtype)
        self.xp = _library(self.inputs)
        self.originals = {name: to_host(array).copy() for name, array in _leaves(self.inputs).items()}
        arrays = {name: self.originals[name] for name in _differentiable(self.inputs)}
        self.shapes, self.slices = {name: array.shape for name, array in arrays.items()}, _slices(arrays)
        self.theta = np.concatenate([np.empty(0), *(array.ravel() for array in arrays.values())])
        self.skipped: tuple[str, ...] = ()
        self.arguments = self._arguments(None)
        self.outputs, self.cache = _call("forward", forward, **self.arguments)
        self._require_arrays("", _leaves(self.outputs, "output"))
        self._require_unchanged("forward", _leaves(self.arguments), self.originals)
        outputs = _differentiable(self.outputs, "output")
        self.output_shapes, self.output_slices = {name: a.shape for name, a in outputs.items()}, _slices(outputs)
        self.values = self._flatten(self.outputs)

    def pull(self, u: Array) -> Array:
        """Jᵀu by the backward, (n,); zero where the pair declares an input constant."""
        hosts = {key: u[where].reshape(self.output_shapes[key]) for key, where in self.output_slices.items()}
        hosts = {key: host.astype(self.dtype) for key, host in hosts.items()}
        doutputs = _rebuild(
            self.outputs, lambda key, _: _read_only(self.xp.asarray(hosts[key])) if key in hosts else None, "output"
        )
        gradients = _match(self.arguments, _call("backward", self.backward, doutputs, self.cache))
        self._require_arrays("the gradient of ", gradients)
        self._require_unchanged("backward", _leaves(doutputs, "output"), hosts)
        self._require_unchanged("backward", _leaves(self.arguments), self.originals)
        floating = (key for key, original in self.originals.items() if original.dtype.kind == "f")
        self.skipped = tuple(key for key in floating if key not in gradients)
        vector = np.zeros(self.theta.size)
        for key, gradient in gradients.items():
            vector[self.slices[key]] = to_host(gradient).ravel()
        return vector

    def push(self, v: Array, step: float) -> _Slope:
        """Jv by differences of the forward: the five-point stencil, and from each side."""
        f0 = self.values
        b2, b1, f1, f2 = (self.evaluate(self.theta + k * step * v) for k in (-2, -1, 1, 2))
        scale = np.zeros(f0.size)
        for where in self.output_slices.values():
            scale[where] = np.abs(np.stack([b2, f0, f2])[:, where]).max(initial=0.0)
        return _Slope(
            central=(b2 - 8 * b1 + 8 * f1 - f2) / (12 * step),
            left=(3 * f0 - 4 * b1 + b2) / (2 * step),
            right=(-3 * f0 + 4 * f1 - f2) / (2 * step),
            scale=scale,
        )

    def evaluate(self, theta: Array) -> Array:
        """The outputs (m,) at another θ, real or complex."""
        return self._flatten(_call("forward", self.forward, **self._arguments(theta))[0])

    def checked(self) -> list[str]:
        """The inputs that have a gradient (known after the first :meth:`pull`)."""
        return [key for key in self.slices if key not in self.skipped]

    def direction(self, rng: np.random.Generator, names: Iterable[str]) -> Array:
        """A random direction of unit norm over the named inputs, (n,)."""
        v = np.zeros(self.theta.size)
        for key in names:
            v[self.slices[key]] = rng.standard_normal(v[self.slices[key]].size)
        return v / max(float(np.linalg.norm(v)), np.finfo(np.float64).tiny)

    def _arguments(self, theta: Array | None) -> dict[str, Tree]:
        """The inputs at θ (None: as they were given, with their memory order), in one floating dtype."""

        def leaf(key: str, array: Array) -> Array:
            if array.dtype.kind != "f":
                return _read_only(array)
            if theta is None:
                return _read_only(array.astype(self.dtype, copy=False))
            if key not in self.slices:  # frozen: it shares the vector of Params, and so the dtype, with the others
                return _read_only(array.astype(theta.dtype, copy=False))
            return _read_only(self.xp.asarray(theta[self.slices[key]].reshape(self.shapes[key])))

        arguments: dict[str, Tree] = _rebuild(self.inputs, leaf)
        return arguments

    def _flatten(self, outputs: Tree) -> Array:
        arrays = [array for array in _leaves(outputs, "output").values() if array.dtype.kind in "fc"]
        return np.concatenate([np.empty(0), *(to_host(array).ravel() for array in arrays)])

    def _require_arrays(self, what: str, arrays: Mapping[str, Any]) -> None:
        """Outputs and gradients are finite arrays of the inputs' library and dtype."""
        for key, array in arrays.items():
            try:
                if get_xp(array) is not self.xp:
                    raise GradientError(f"{what}{key} belongs to another array library than the inputs")
            except TypeError:
                raise GradientError(f"{what}{key} is not an array but {type(array).__name__}") from None
            if array.dtype.kind == "f" and array.dtype != self.dtype:
                raise GradientError(f"{what}{key} has dtype {array.dtype} where the inputs have {self.dtype}")
            bad = ~np.isfinite(to_host(array))
            if bad.any():
                at = _entry(key, array.shape, int(np.flatnonzero(bad)[0]))
                raise GradientError(f"{what}{key} is not finite: {at}, {bad.sum()} of {bad.size} entries")

    @staticmethod
    def _require_unchanged(who: str, arrays: Mapping[str, Array], originals: Mapping[str, Array]) -> None:
        """On a device nothing is read-only, so compare (NumPy arrays raise at the line, see :func:`_call`)."""
        for key, array in arrays.items():
            host = to_host(array)
            if not np.array_equal(host, originals[key].astype(host.dtype)):
                raise GradientError(f"{who} changed {key}: never write into an argument")


class _Finding(NamedTuple):
    """One direction compared, for several projections of the outputs (rows)."""

    status: Status
    error: float
    row: int  # the worst
    numeric: Array
    analytic: Array
    left: Array
    right: Array
    step: float

    def text(self, what: str, tolerance: float) -> str:
        """The sentence of the report."""
        numeric, analytic = self.numeric[self.row], self.analytic[self.row]
        if self.status == "kink":
            return (
                f"{what} jumps from {self.left[self.row]:.4g} to {self.right[self.row]:.4g} within {self.step:.1e} "
                f"(analytic {analytic:.4g}): a kink, no derivative here; choose other inputs"
            )
        return (
            f"{what}: numeric {numeric:.8g}, analytic {analytic:.8g} "
            f"(error {self.error:.1e}, step {self.step:.1e}, tolerance {tolerance:.1e})"
        )


def _steps(eps: float) -> tuple[float, float, float]:
    return eps, eps / 10, eps / 100


def _error(difference: Array, norm: Array | float, entries: Array | int, noise: Array | float, bar: float) -> Array:
    """|numeric - analytic| √n / ‖g‖, with ‖g‖ at least what rounding lets the stencil resolve to the bar."""
    root = np.sqrt(entries)
    scale = np.maximum(norm, root * noise / bar)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference * root / scale)


def _compare(
    point: _Point, v: Array, rows: Array, analytic: Array, norm: Array, entries: Array, eps: float, bar: float
) -> _Finding:
    """Hold analytic (k,) against the measured rows (k, m) @ Jv, with smaller steps while they disagree."""
    findings: list[_Finding] = []
    for step in _steps(eps):
        slope = point.push(v, step)
        numeric, left, right = rows @ slope.central, rows @ slope.left, rows @ slope.right
        noise = ROUNDING / step * np.sqrt(rows**2 @ slope.scale**2)
        # the allowance for rounding stays that of eps: a smaller step must not loosen the bar
        error = _error(np.abs(numeric - analytic), norm, entries, noise * (step / eps), bar)
        low, high = np.minimum(left, right), np.maximum(left, right)
        slack = KINK * np.maximum(np.maximum(np.abs(low), np.abs(high)), norm / np.sqrt(entries)) + noise
        kink = (high - low > slack) & (low - slack <= analytic) & (analytic <= high + slack)
        wrong = ~(error <= bar) & ~kink  # so that NaN is wrong
        status: Status = "wrong" if wrong.any() else "kink" if kink.any() else "ok"
        row = int(np.argmax(kink if status == "kink" else np.where(np.isnan(error), np.inf, error)))
        findings.append(_Finding(status, float(error.max(initial=0.0)), row, numeric, analytic, left, right, step))
        if status == "ok":
            break
    first, last = findings[0], findings[-1]
    return first if first.status == last.status == "wrong" else last


class _Check:
    """The comparisons of :func:`check_pair` in their order, and what they found."""

    def __init__(self, rng: np.random.Generator, directions: int, eps: float, tolerance: float) -> None:
        self.rng, self.count, self.eps, self.tolerance = rng, directions, eps, tolerance
        self.errors: dict[str, float] = {}
        self.failures: list[tuple[Status, str]] = []
        self.entries = 0
        self.skipped: tuple[str, ...] = ()
        self.jacobian: Array | None = None

    def contract(self, point: _Point, jacobian: bool | None) -> None:
        """Every backward pass that is needed, before another forward could touch a cache in a workspace."""
        m = point.values.size
        self.projections = [self.rng.standard_normal(m) for _ in range(self.count)]
        self.gradients = [point.pull(u) for u in self.projections]
        self.skipped, self.names = point.skipped, point.checked()
        self.entries = sum(point.theta[point.slices[key]].size for key in self.names)
        self.cache_is_untouched(point, "at once: it writes into its cache")
        if jacobian is None:
            jacobian = max(m, self.entries) <= JACOBIAN_LIMIT
        if jacobian and m:
            self.jacobian = np.stack([point.pull(u) for u in np.eye(m)])
        if not np.allclose(point.evaluate(point.theta), point.values, rtol=SAME, atol=SAME * _largest(point.values)):
            raise GradientError("forward gave other outputs for the same inputs: fix the seed of what it draws")

    def cache_is_untouched(self, point: _Point, when: str) -> None:
        """The backward is a function of doutputs and cache, and changes neither."""
        again, first = point.pull(self.projections[0]), self.gradients[0]
        if not np.allclose(again, first, rtol=SAME, atol=SAME * _largest(first)):
            raise GradientError(f"backward gave another gradient when called again {when}")

    def every_direction(self, point: _Point) -> None:
        """Random directions over all inputs and over each; then entry by entry what is small or wrong."""
        groups = {"(all)": self.names} | {key: [key] for key in self.names}
        failed: dict[str, tuple[Status, str]] = {}
        for group, names in groups.items():
            for u, gradient in zip(self.projections, self.gradients):
                v = point.direction(self.rng, names)
                part = np.concatenate([np.empty(0), *(gradient[point.slices[key]] for key in names)])
                norm, entries = np.array([np.linalg.norm(part)]), np.array([max(part.size, 1)])
                found = _compare(point, v, u[None], np.array([gradient @ v]), norm, entries, self.eps, self.tolerance)
                self._record(group, found.error)
                if found.status != "ok":
                    failed[group] = (found.status, found.text(f"a direction over {group}", self.tolerance))
        for key in self.names:
            located = self._every_entry(point, key) if self.jacobian is not None or key in failed else None
            if located or key in failed:
                self.failures.append(located or failed[key])
        if "(all)" in failed and not self.failures:
            self.failures.append(failed["(all)"])

    def _every_entry(self, point: _Point, key: str) -> tuple[Status, str] | None:
        """Compare the derivatives by one input entry by entry: of each output, or of the projected outputs."""
        where = point.slices[key]
        if self.jacobian is not None:
            rows, analytic = np.eye(point.values.size), self.jacobian[:, where]
            groups = list(point.output_slices.values())
        else:
            rows, analytic, groups = self.projections[0][None], self.gradients[0][None, where], [slice(0, 1)]
        norm, entries = np.zeros(len(rows)), np.ones(len(rows))
        for group in groups:  # each output array against its own size
            norm[group], entries[group] = np.linalg.norm(analytic[group]), max(analytic[group].size, 1)
        size = analytic.shape[1]
        tried = size if self.jacobian is not None else min(size, LOCATE_LIMIT)
        columns = np.linspace(0, size - 1, tried, dtype=int)
        numeric, bad, worst = np.full(analytic.shape, np.nan), [], None
        for column in columns:
            v = np.zeros(point.theta.size)
            v[where.start + column] = 1.0
            found = _compare(point, v, rows, analytic[:, column], norm, entries, self.eps, self.tolerance)
            numeric[:, column] = found.numeric
            self._record(key, found.error)
            if found.status == "ok":
                continue
            bad.append(int(column))
            if worst is None or (found.status == "wrong", found.error) > (worst[1].status == "wrong", worst[1].error):
                worst = int(column), found
        if worst is None:
            return None
        column, found = worst
        output = "loss" if self.jacobian is None else _output_entry(point, found.row)
        text = found.text(f"∂{output}/∂{_entry(key, point.shapes[key], column)}", self.tolerance)
        if found.status == "wrong":
            weights = np.ones(1) if self.jacobian is None else self.projections[0]
            shape = point.shapes[key]
            hint = _hint((weights @ analytic).reshape(shape), (weights @ numeric).reshape(shape), bad)
            text += f"; {len(bad)} of {len(columns)} entries of {key} are wrong{hint}"
        return found.status, text

    def against_complex_step(self, point: _Point) -> None:
        """Im f(θ + ihv) / h has no subtraction, so no rounding: exact where the forward is analytic."""
        v, u, g = point.direction(self.rng, self.names), self.projections[0], self.gradients[0]
        try:
            exact = float(u @ np.imag(point.evaluate(point.theta + 1j * COMPLEX_STEP * v))) / COMPLEX_STEP
        except (TypeError, np.exceptions.ComplexWarning) as refusal:
            self.failures.append(("not analytic", f"complex step: the forward refuses complex numbers: {refusal}"))
            return
        norm = np.array([np.linalg.norm(g)])
        error = float(_error(np.array([abs(exact - g @ v)]), norm, max(self.entries, 1), 0.0, self.tolerance)[0])
        self._record("(complex step)", error)
        if not error <= self.tolerance:
            text = f"complex step gives {exact:.8g}, differences and the backward {g @ v:.8g}: the forward is not "
            self.failures.append(("not analytic", text + "analytic (abs, sign, a comparison, .real, a real cast)"))

    def against_float32(self, point: _Point, single: _Point) -> None:
        """Differences in float32 say little; its analytic gradient must be the float64 one, to its own rounding."""
        u, reference = self.projections[0], self.gradients[0]
        gradient = single.pull(u)
        least = 0.01 * float(np.linalg.norm(u * point.values))  # a gradient near zero is all rounding
        for key in self.names:
            part = reference[point.slices[key]]
            difference = float(np.linalg.norm(gradient[point.slices[key]] - part))
            scale = max(float(np.linalg.norm(part)), least)
            error = difference / scale if difference else 0.0
            self._record("(float32)", error)
            if not error <= FLOAT32_TOLERANCE:
                text = f"the float32 gradient of {key} differs from the float64 one by {error:.1e} of its norm"
                self.failures.append(("wrong", f"{text} (tolerance {FLOAT32_TOLERANCE:.1e})"))

    def _record(self, key: str, error: float) -> None:
        self.errors[key] = float(np.maximum(self.errors.get(key, 0.0), error))  # NaN stays

    def report(self, name: str) -> Report:
        """Everything found; wrong outweighs a kink."""
        order: tuple[Status, ...] = ("wrong", "kink", "not analytic")
        status: Status = next((s for s in order if s in [found for found, _ in self.failures]), "ok")
        compared = [error for key, error in self.errors.items() if key not in ("(float32)", "(complex step)")]
        error = float(np.max(compared)) if compared else float("nan")
        jacobian = 0 if self.jacobian is None else len(self.jacobian) * self.entries
        texts = tuple(text for _, text in self.failures)
        numbers = (error, self.tolerance, self.eps, self.errors, self.entries, jacobian)
        return Report(name, status, *numbers, self.skipped, texts)


def _hint(analytic: Array, numeric: Array, bad: Sequence[int]) -> str:
    """What kind of error it looks like: the usual ones have a signature."""
    if not np.isfinite(numeric).all():  # only some entries were tried
        return ""
    close = 1e-6 * max(_largest(numeric), _largest(analytic))
    if not np.abs(analytic).max(initial=0.0) > close:
        return "; the analytic gradient is zero everywhere"
    factor = float(np.vdot(numeric, analytic)) / max(float(np.vdot(numeric, numeric)), np.finfo(float).tiny)
    if np.allclose(analytic, factor * numeric, rtol=0.0, atol=close):
        return f"; analytic = {factor:.6g} × numeric"
    turned = analytic.T
    if turned.ndim == 2 and turned.shape == numeric.shape and np.allclose(turned, numeric, rtol=0.0, atol=close):
        return "; analytic = numeric transposed"
    for axis, indices in enumerate(np.unravel_index(bad, analytic.shape)):
        if len(set(indices.tolist())) == 1 and analytic.shape[axis] > 1:
            return f"; all of them have index {int(indices[0])} on axis {axis}"
    return ""


# --- trees of arrays ------------------------------------------------------------------------------------


def _children(tree: Tree, name: str) -> list[tuple[str, Tree]] | None:
    """The named children of a container; None for a leaf."""
    dotted = f"{name}." if name else ""
    if isinstance(tree, Params):
        return [(f"{dotted}{key}", tree[key]) for key in tree]
    if isinstance(tree, Mapping):
        return [(f"{dotted}{key}", value) for key, value in tree.items()]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return [(f"{dotted}{key}", value) for key, value in zip(tree._fields, tree)]
    if isinstance(tree, (tuple, list)):
        return [(f"{name}[{index}]", value) for index, value in enumerate(tree)]
    return None


def _leaves(tree: Tree, name: str = "") -> dict[str, Any]:
    """The leaves of a tree by name, None left out."""
    children = _children(tree, name)
    if children is None:
        return {} if tree is None else {name: tree}
    return {key: leaf for child, value in children for key, leaf in _leaves(value, child).items()}


def _rebuild(tree: Tree, leaf: Callable[[str, Any], Any], name: str = "") -> Tree:
    """The same tree with every leaf replaced by ``leaf(name, value)``."""
    children = _children(tree, name)
    if children is None:
        return None if tree is None else leaf(name, tree)
    values = [_rebuild(value, leaf, child) for child, value in children]
    if isinstance(tree, Params):
        packed = Params.pack(tree.layout, dict(zip(tree, values)))
        return packed.with_flat(_read_only(packed.flat))
    if isinstance(tree, Mapping):
        return dict(zip(tree, values))
    return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)


def _frozen(tree: Tree, name: str = "") -> set[str]:
    """The names of the entries of Params that are never updated: their gradient may be anything."""
    if isinstance(tree, Params):
        keys = (f"{name}.{entry.name}" for entry in tree.layout.entries if entry.role == "frozen")
        return {key.removeprefix(".") for key in keys}
    return {key for child, value in _children(tree, name) or () for key in _frozen(value, child)}


def _differentiable(tree: Tree, name: str = "") -> dict[str, Array]:
    frozen = _frozen(tree, name)
    return {key: leaf for key, leaf in _leaves(tree, name).items() if leaf.dtype.kind == "f" and key not in frozen}


def _slices(arrays: Mapping[str, Array]) -> dict[str, slice]:
    ends = np.cumsum([0, *(int(np.prod(array.shape)) for array in arrays.values())]).tolist()
    return {key: slice(start, end) for key, start, end in zip(arrays, ends, ends[1:])}


def _match(inputs: Mapping[str, Tree], gradients: Tree) -> dict[str, Array]:
    """The gradients by leaf name; an input whose whole gradient is None is left out.

    Raises:
        GradientError: if there are too many or too few, a name is unknown, or a shape is not the input's.
    """
    keys = list(inputs)
    by_name = isinstance(gradients, Mapping) and gradients.keys() <= inputs.keys()
    if not by_name:
        alone = len(keys) == 1 and type(gradients) is type(inputs[keys[0]])
        if alone or not isinstance(gradients, (tuple, list, Mapping)):
            gradients = (gradients,)
        if isinstance(gradients, Mapping) or len(gradients) > len(keys):
            returned = ", ".join(gradients) if isinstance(gradients, Mapping) else str(len(gradients))
            raise GradientError(f"backward returned gradients ({returned}) for the inputs {', '.join(keys)}")
        gradients = dict(zip(keys, gradients))
    constant = {key for key, gradient in gradients.items() if gradient is None}
    wanted = {
        name: leaf for key in keys if key not in constant for name, leaf in _differentiable(inputs[key], key).items()
    }
    given = _leaves(gradients)
    for name, leaf in wanted.items():
        if name not in given:
            raise GradientError(f"backward returned no gradient for {name} (None for a whole argument: constant)")
        if (shape := getattr(given[name], "shape", ())) != leaf.shape:
            raise GradientError(f"the gradient of {name} has shape {shape}, {name} itself {leaf.shape}")
    return {name: given[name] for name in wanted}


# --- small things ---------------------------------------------------------------------------------------


def _library(inputs: Mapping[str, Tree]) -> Any:
    """The array module of all inputs."""
    for name, leaf in _leaves(inputs).items():
        try:
            get_xp(leaf)
        except TypeError as error:
            raise TypeError(f"input {name}: {error}; give options with functools.partial") from None
    return get_xp(*_leaves(inputs).values())


def _read_only(array: Array) -> Array:
    """A view that nobody can write through (NumPy; other libraries have no such flag)."""
    if isinstance(array, (np.ndarray, np.generic)):
        array = np.asarray(array).view()
        array.flags.writeable = False
    return array


def _call(who: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the reader's function; writing into its (read-only) arguments is a finding that names the line."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        line = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(line.filename).name}, line {line.lineno}: {line.line}"
        raise GradientError(f"{who} writes into an argument ({where})") from error


def _entry(name: str, shape: tuple[int, ...], position: int) -> str:
    """``W[1, 2]`` for a position in the flattened array."""
    index = ", ".join(str(int(i)) for i in np.unravel_index(position, shape)) if shape else ""
    return f"{name}[{index}]" if index else name


def _output_entry(point: _Point, row: int) -> str:
    key = next(key for key, where in point.output_slices.items() if where.start <= row < where.stop)
    return _entry(key, point.output_shapes[key], row - point.output_slices[key].start)


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None
