"""The comparisons of :func:`check_pair`, in their order, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.gradcheck.compare import Claim, Finding, compare, relative_error
from stg_np.gradcheck.point import Backward, Forward, Point
from stg_np.gradcheck.report import GradientError, Report, Status
from stg_np.gradcheck.tree import Tree, entry_name, largest, leaves, rebuild

JACOBIAN_LIMIT = 200  # inputs and outputs, each: up to here every entry is checked unless the caller says otherwise
LOCATE_LIMIT = 500  # entries of a wrong argument that are tried one by one to name the worst
SAME = 1e-10  # what is computed twice from equal numbers agrees to this (a GPU may add in another order)
FLOAT32_TOLERANCE = 1e-4
COMPLEX_STEP = 1e-30


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
    locate: bool = True,
) -> Report:
    """Check ``backward`` against finite differences of ``forward`` at ``inputs``; see the package for the numbers.

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
        eps: the step h. Where the check fails, or is not far below its tolerance, a tenth and a hundredth of it are
            tried too: that walks away from a kink nearby, and cannot make a wrong gradient right.
        tolerance: the bar for the error.
        jacobian: compare every derivative one by one (None: if the shapes are small).
        complex_step: also compare with Im f(x + ih)/h, exact where the forward is analytic; says where it is not.
        float32: also compare with the gradient computed in float32 (at 1e-4), which must stay float32.
        reusable_cache: False for a forward that writes its cache into a workspace which its next call overwrites.
        locate: whether to try the entries of a wrong argument one by one, to name the worst in the report.

    Raises:
        TypeError: if an input is not an array, or the inputs mix array libraries.
    """
    if directions < 1:
        raise ValueError(f"directions must be at least 1, got {directions}")
    name = name or getattr(forward, "__name__", "pair").removesuffix("_forward")
    check = Check(np.random.default_rng(seed), directions, eps, tolerance, LOCATE_LIMIT if locate else 0)
    try:
        point = Point(forward, backward, inputs)
        check.contract(point, jacobian)
        check.every_direction(point)
        if complex_step and not check.failures:
            check.against_complex_step(point)
        if float32 and not check.failures:
            check.against_float32(point, Point(forward, backward, inputs, np.float32))
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
        array = next(array for array in leaves(arguments).values() if array.dtype.kind in "fc")
        return get_xp(array).asarray(value, dtype=array.dtype), gradients

    def backward(dvalue: Array, gradients: Tree) -> Tree:
        return rebuild(gradients, lambda _, gradient: float(dvalue) * gradient)

    options.setdefault("name", getattr(value_and_gradients, "__name__", "gradient"))
    return check_pair(forward, backward, inputs, **options)


class Check:
    """One run of :func:`check_pair`: what it has drawn, and what it has found."""

    def __init__(
        self, rng: np.random.Generator, directions: int, eps: float, tolerance: float, locate_limit: int
    ) -> None:
        self.rng, self.directions, self.eps, self.tolerance = rng, directions, eps, tolerance
        self.locate_limit = locate_limit
        self.errors: dict[str, float] = {}
        self.failures: list[tuple[Status, str]] = []
        self.entries = 0
        self.skipped: tuple[str, ...] = ()
        self.jacobian: Array | None = None

    def contract(self, point: Point, jacobian: bool | None) -> None:
        """Every backward pass that is needed, before another forward could touch a cache in a workspace."""
        m = point.values.size
        self.projections = [self.rng.standard_normal(m) for _ in range(self.directions)]
        self.gradients = [point.pull(u) for u in self.projections]
        self.skipped, self.names = point.skipped, point.checked()
        self.entries = sum(point.theta[point.places[key]].size for key in self.names)
        self.cache_is_untouched(point, "at once: it writes into its cache")
        if jacobian is None:
            jacobian = max(m, self.entries) <= JACOBIAN_LIMIT
        if jacobian and m:
            self.jacobian = np.stack([point.pull(u) for u in np.eye(m)])
        if not same(point.evaluate(point.theta), point.values):
            raise GradientError("forward gave other outputs for the same inputs: fix the seed of what it draws")

    def cache_is_untouched(self, point: Point, when: str) -> None:
        """The backward is a function of doutputs and cache, and changes neither."""
        if not same(point.pull(self.projections[0]), self.gradients[0]):
            raise GradientError(f"backward gave another gradient when called again {when}")

    def every_direction(self, point: Point) -> None:
        """Random directions over all inputs and over each; then entry by entry what is small or wrong."""
        groups = {"(all)": self.names} | {key: [key] for key in self.names}
        failed: dict[str, tuple[Status, str]] = {}
        for group, names in groups.items():
            for u, gradient in zip(self.projections, self.gradients):
                v = point.direction(self.rng, names)
                part = np.concatenate([np.empty(0), *(gradient[point.places[key]] for key in names)])
                norm, entries = np.array([np.linalg.norm(part)]), np.array([max(part.size, 1)])
                claim = Claim(u[None], np.array([gradient @ v]), norm, entries)
                found = compare(point, v, claim, self.eps, self.tolerance)
                self.record(group, found.error)
                if found.status != "ok":
                    failed[group] = (found.status, found.text(f"a direction over {group}", self.tolerance))
        for key in self.names:
            located = self.every_entry(point, key) if self.jacobian is not None or key in failed else None
            if located or key in failed:
                self.failures.append(located or failed[key])
        if "(all)" in failed and not self.failures:
            self.failures.append(failed["(all)"])

    def every_entry(self, point: Point, key: str) -> tuple[Status, str] | None:
        """Compare the derivatives by one input entry by entry: of each output, or of the projected outputs."""
        place = point.places[key]
        if self.jacobian is not None:
            projections, analytic = np.eye(point.values.size), self.jacobian[:, place]
            groups = list(point.output_places.values())
        else:
            projections, analytic = self.projections[0][None], self.gradients[0][None, place]
            groups = [slice(0, 1)]
        norm, entries = np.zeros(len(projections)), np.ones(len(projections))
        for group in groups:  # each output array against its own size
            norm[group], entries[group] = np.linalg.norm(analytic[group]), max(analytic[group].size, 1)
        size = analytic.shape[1]
        tried = size if self.jacobian is not None else min(size, self.locate_limit)
        columns = np.linspace(0, size - 1, tried, dtype=int).tolist()
        numeric, bad = np.full(analytic.shape, np.nan), dict[int, Finding]()
        for column in columns:
            v = np.zeros(point.theta.size)
            v[place.start + column] = 1.0
            claim = Claim(projections, analytic[:, column], norm, entries)
            found = compare(point, v, claim, self.eps, self.tolerance)
            numeric[:, column] = found.numeric
            self.record(key, found.error)
            if found.status != "ok":
                bad[column] = found
        if not bad:
            return None
        worst = max(bad, key=lambda column: (bad[column].status == "wrong", bad[column].error))
        found = bad[worst]
        output = "loss" if self.jacobian is None else point.name_of_output(found.row)
        text = found.text(f"∂{output}/∂{entry_name(key, point.shapes[key], worst)}", self.tolerance)
        if found.status == "wrong":
            weights = np.ones(1) if self.jacobian is None else self.projections[0]
            shape = point.shapes[key]
            hint = likely_error((weights @ analytic).reshape(shape), (weights @ numeric).reshape(shape), list(bad))
            text += f"; {len(bad)} of {len(columns)} entries of {key} are wrong{hint}"
        return found.status, text

    def against_complex_step(self, point: Point) -> None:
        """Im f(θ + ihv) / h has no subtraction, so no rounding: exact where the forward is analytic."""
        v, u, g = point.direction(self.rng, self.names), self.projections[0], self.gradients[0]
        try:
            exact = float(u @ np.imag(point.evaluate(point.theta + 1j * COMPLEX_STEP * v))) / COMPLEX_STEP
        except (TypeError, np.exceptions.ComplexWarning) as refusal:
            self.failures.append(("not analytic", f"complex step: the forward refuses complex numbers: {refusal}"))
            return
        norm, difference = np.array([np.linalg.norm(g)]), np.array([abs(exact - g @ v)])
        error = float(relative_error(difference, norm, max(self.entries, 1), 0.0, self.tolerance)[0])
        self.record("(complex step)", error)
        if not error <= self.tolerance:
            text = f"complex step gives {exact:.8g}, differences and the backward {g @ v:.8g}: the forward is not "
            self.failures.append(("not analytic", text + "analytic (abs, sign, a comparison, .real, a real cast)"))

    def against_float32(self, point: Point, single: Point) -> None:
        """Differences in float32 say little; its analytic gradient must be the float64 one, to its own rounding."""
        u, reference = self.projections[0], self.gradients[0]
        gradient = single.pull(u)
        least = 0.01 * float(np.linalg.norm(u * point.values))  # a gradient near zero is all rounding
        for key in self.names:
            part = reference[point.places[key]]
            difference = float(np.linalg.norm(gradient[point.places[key]] - part))
            scale = max(float(np.linalg.norm(part)), least)
            error = difference / scale if difference else 0.0
            self.record("(float32)", error)
            if not error <= FLOAT32_TOLERANCE:
                text = f"the float32 gradient of {key} differs from the float64 one by {error:.1e} of its norm"
                self.failures.append(("wrong", f"{text} (tolerance {FLOAT32_TOLERANCE:.1e})"))

    def record(self, key: str, error: float) -> None:
        """Keep the worst error of an argument."""
        self.errors[key] = float(np.maximum(self.errors.get(key, 0.0), error))  # NaN stays

    def report(self, name: str) -> Report:
        """Everything found; wrong outweighs a kink."""
        order: tuple[Status, ...] = ("wrong", "kink", "not analytic")
        status: Status = next((s for s in order if s in [found for found, _ in self.failures]), "ok")
        compared = [error for key, error in self.errors.items() if key not in ("(float32)", "(complex step)")]
        return Report(
            name,
            status,
            error=float(np.max(compared)) if compared else float("nan"),
            tolerance=self.tolerance,
            step=self.eps,
            errors=self.errors,
            entries=self.entries,
            jacobian_entries=0 if self.jacobian is None else len(self.jacobian) * self.entries,
            skipped=self.skipped,
            failures=tuple(text for _, text in self.failures),
        )


def same(one: Array, other: Array) -> bool:
    """Whether two vectors hold what was computed twice from equal numbers."""
    return bool(np.allclose(one, other, rtol=SAME, atol=SAME * largest(other)))


def likely_error(analytic: Array, numeric: Array, bad: Sequence[int]) -> str:
    """What kind of error it looks like: the usual ones have a signature."""
    if not np.isfinite(numeric).all():  # only some entries were tried
        return ""
    close = 1e-6 * max(largest(numeric), largest(analytic))
    if not largest(analytic) > close:
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
