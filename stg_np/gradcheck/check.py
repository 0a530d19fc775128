"""The comparisons of :func:`check_pair`, in their order, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.gradcheck.compare import Claim, Finding, compare, relative_error
from stg_np.gradcheck.point import BESIDE, ROUNDING, Backward, Forward, Point
from stg_np.gradcheck.report import SEVERITY, GradientError, Report, Status
from stg_np.gradcheck.tree import Tree, entry_name, largest, leaves, rebuild

JACOBIAN_LIMIT = 200  # inputs and outputs, each: up to here every entry is checked unless the caller says otherwise
LOCATE_LIMIT = 500  # entries of a wrong argument that are tried one by one to name the worst
SAME = 1e-10  # what is computed twice from equal numbers agrees to this (a GPU may add in another order)
FLOAT32_TOLERANCE = 1e-4
COMPLEX_STEP = 1e-30
DECADES = 6  # in each group of sizes that are compared together: a thousand times the typical one, or a thousandth


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
    constant: Collection[str] = (),
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
            Every floating-point input has a gradient; integer arrays need none.
        inputs: arguments by name: arrays, named tuples of arrays, :class:`Params`, or None. Leaves are named by
            dots, ``params.W``. Floating-point arrays are taken to float64, with their memory order kept.
        name: of the pair in the report; by default the forward's.
        seed: of the directions and of ``doutputs``.
        directions: how many, over all inputs and over each argument.
        eps: the step h; of an input x beyond 100, h |x| / 100. Where the check fails, or is not far below its
            tolerance, a tenth, a hundredth and a thousandth of it are tried too: that walks away from a kink nearby,
            and cannot make a wrong gradient right.
        tolerance: the bar for the error.
        constant: names of inputs, or of leaves of them, that have no gradient; the report lists them as not checked.
        jacobian: compare every derivative one by one (None: if the shapes are small).
        complex_step: also compare with Im f(x + ih)/h, exact where the forward is analytic; says where it is not.
        float32: also compare with the gradient computed in float32 (at 1e-4), which must stay float32.
        reusable_cache: False for a forward that writes its cache into a workspace, or into its object, which its
            next call overwrites.
        locate: whether to try the entries of a wrong argument one by one, to name the worst in the report.

    Raises:
        TypeError: if an input is not an array, or the inputs mix array libraries.
        ValueError: if an option is out of range, or ``constant`` names no input.
    """
    require_options(inputs, directions, eps, tolerance)
    name = name or getattr(forward, "__name__", "pair").removesuffix("_forward")
    check = Check(np.random.default_rng(seed), directions, eps, tolerance, LOCATE_LIMIT if locate else 0)
    try:
        point = Point(forward, backward, inputs, constant=constant)
        check.contract(point, jacobian)
        check.every_direction(point)
        if complex_step and not check.failures:
            check.against_complex_step(point)
        if float32 and not check.failures:
            check.against_float32(point, lambda: Point(forward, backward, inputs, np.float32, constant))
        if reusable_cache:
            check.cache_is_untouched(
                point,
                "after other forward passes: it keeps values outside its cache, in its object or a workspace "
                "(reusable_cache=False, if it should)",
            )
    except GradientError as broken:
        check.failures.append((broken.status, str(broken)))
    return check.report(name)


def require_options(inputs: Any, directions: int, eps: float, tolerance: float) -> None:
    """Raise TypeError or ValueError for what no check can be made with."""
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise TypeError(f'inputs are a mapping of arguments by name, {{"x": x}}, not {type(inputs).__name__}')
    if directions < 1:
        raise ValueError(f"directions must be at least 1, got {directions}")
    for option, value in {"eps": eps, "tolerance": tolerance}.items():
        if not 0 < value < 1:
            raise ValueError(f"{option} must be between 0 and 1, got {value}")


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

    @wraps(value_and_gradients)
    def forward(**arguments: Tree) -> tuple[Array, Tree]:
        value, gradients = value_and_cache(value_and_gradients(**arguments))
        array = next((array for array in leaves(arguments).values() if array.dtype.kind in "fc"), np.zeros(()))
        return get_xp(array).asarray(value, dtype=array.dtype), gradients

    def backward(dvalue: Array, gradients: Tree) -> Tree:
        return rebuild(gradients, lambda _, gradient: float(dvalue) * gradient)

    options.setdefault("name", getattr(value_and_gradients, "__name__", "gradient"))
    return check_pair(forward, backward, inputs, **options)


def value_and_cache(returned: Any) -> tuple[Any, Tree]:
    """What a function for :func:`check_gradient` returned.

    Raises:
        GradientError: if it is not a number and its gradients.
    """
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise GradientError(f"the function returns (loss, gradients); this returned {type(returned).__name__}")
    if size := getattr(returned[0], "ndim", 0):
        raise GradientError(f"the loss is one number, not an array of {size} axes: sum it, or take its mean")
    return returned


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
        self.names, self.skipped, self.entries = list(point.places), point.skipped, point.theta.size
        self.projections = self.rng.standard_normal((self.directions, m))
        self.gradients = np.stack([point.pull(u) for u in self.projections])
        self.cache_is_untouched(point, "at once: it writes into its cache")
        if jacobian is None:
            jacobian = max(m, self.entries) <= JACOBIAN_LIMIT
        if jacobian and m:
            self.jacobian = np.stack([point.pull(u) for u in np.eye(m)])
        if not same(point.evaluate(point.theta), point.values):
            raise GradientError(
                "forward gave other outputs for the same inputs: fix the seed of what it draws in each call"
            )
        self.by_size(point)

    def by_size(self, point: Point) -> None:
        """Part the projections by the size of the outputs, so that a large output cannot hide a small one."""
        slope = point.push(point.direction(self.rng, self.names), self.eps)
        groups = groups_of(np.abs(slope.central), slope.noise + slope.unseen)
        self.rows, self.row_gradients = self.projections, self.gradients
        if len(groups) > 1:
            point.renew()
            self.rows = np.concatenate([np.where(group, self.projections, 0.0) for group in groups])
            self.row_gradients = np.stack([point.pull(u) for u in self.rows])

    def cache_is_untouched(self, point: Point, when: str) -> None:
        """The backward is a function of doutputs and cache, and changes neither."""
        if not same(point.pull(self.projections[0]), self.gradients[0]):
            raise GradientError(f"backward gave another gradient when called again {when}")

    def every_direction(self, point: Point) -> None:
        """Random directions over all inputs and over each; then entry by entry what is small or wrong."""
        failed: dict[str, Failure] = {}
        for group, names in ({"(all)": self.names} | {key: [key] for key in self.names}).items():
            entries = np.concatenate([np.arange(point.places[key].start, point.places[key].stop) for key in names])
            parts = [entries] if group == "(all)" else self.parts_by_size(point, entries)
            for part in parts * self.directions:
                found = self.along(point, part, entries)
                self.record(group, found.error)
                if found.status != "ok":
                    text = f"a direction over {group}{found.text}"
                    failed[group] = worse(failed.get(group), Failure(found.status, text, found.rows))
        for key in self.names:
            located = None
            if self.jacobian is not None or key in failed:
                located = self.every_entry(point, key, failed[key].rows if key in failed else [0])
            if located or key in failed:
                self.failures.append((located or failed[key])[:2])
        if "(all)" in failed and not self.failures:
            self.failures.append(failed["(all)"][:2])

    def along(self, point: Point, entries: Array, whole: Array) -> Finding:
        """Compare along one random direction over some entries of θ, which are a part of those of an argument."""
        v = np.zeros(point.theta.size)
        v[entries] = self.rng.standard_normal(entries.size)
        v = point.scaled(v)
        own, norm = self.norms(point.unit, entries, whole)
        sizes = np.full(len(norm), entries.size)
        claim = Claim(self.rows, self.row_gradients @ v, norm, sizes, own, self.rounding(point, self.rows))
        return compare(point, v, claim, self.eps, self.tolerance)

    def norms(self, unit: Array, part: Array, whole: Array) -> tuple[Array, Array]:
        """‖g‖ of every row over a part of the entries, and the norm that their error is relative to.

        That is the norm over all entries and outputs, unless larger ones would hide these: then their own, or at
        least 1 an entry, the order of right inputs (what is smaller by many powers of ten may be all rounding).
        """
        own = np.linalg.norm((self.row_gradients * unit)[:, part], axis=1)
        all_of_it = np.linalg.norm((self.gradients * unit)[:, whole], axis=1)
        all_of_it = np.tile(all_of_it, len(own) // self.directions)
        return own, np.minimum(np.maximum(own, part.size**0.5), np.maximum(all_of_it, own))

    def rounding(self, point: Point, projections: Array) -> Array:
        """What rounding may add to a gradient inside the backward, where terms of the usual size cancel."""
        usual = float(np.linalg.norm(self.gradients * point.unit, axis=1).max())
        outputs = np.linalg.norm(projections * point.values, axis=1)
        rounding: Array = ROUNDING * np.minimum(BESIDE, np.maximum(usual, outputs))
        return rounding

    def parts_by_size(self, point: Point, entries: Array) -> list[Array]:
        """The entries of an argument, parted by the size of their gradients: a large one hides no small one."""
        sizes = np.abs(self.row_gradients * point.unit)[:, entries]
        largest_of_row = sizes.max(1, keepdims=True)
        shares = np.divide(sizes, largest_of_row, out=np.zeros_like(sizes), where=largest_of_row > 0)
        return [entries[group] for group in groups_of(shares.max(0))]

    def every_entry(self, point: Point, key: str, rows: list[int]) -> Failure | None:
        """Compare the derivatives by one input entry by entry: of each output, or of the projections ``rows``."""
        place = point.places[key]
        if self.jacobian is not None:
            projections, analytic = np.eye(point.values.size), self.jacobian[:, place]
            groups = list(point.output_places.values())
        else:
            rows = [row for row in rows if row % self.directions == rows[0] % self.directions]  # parts of one
            projections = self.rows[rows].sum(0, keepdims=True)
            analytic = self.row_gradients[rows].sum(0, keepdims=True)[:, place]
            groups = [slice(0, 1)]
        unit, size = point.unit[place], analytic.shape[1]
        norm, entries = np.zeros(len(projections)), np.ones(len(projections))
        for group in groups:  # each output array against its own size
            norm[group], entries[group] = np.linalg.norm(analytic[group] * unit), max(analytic[group].size, 1)
        rounding = self.rounding(point, projections)
        tried = size if self.jacobian is not None else min(size, self.locate_limit)
        columns = np.linspace(0, size - 1, tried, dtype=int).tolist()
        numeric, bad = np.full(analytic.shape, np.nan), dict[int, Finding]()
        for column in columns:
            v = np.zeros(point.theta.size)
            v[place.start + column] = unit[column]
            claim = Claim(projections, analytic[:, column] * unit[column], norm, entries, np.zeros_like(norm), rounding)
            found = compare(point, v, claim, self.eps, self.tolerance, unit[column])
            numeric[:, column] = found.numeric / unit[column]
            self.record(key, found.error)
            if found.status != "ok":
                bad[column] = found
        if not bad:
            return None
        worst = min(bad, key=lambda column: (SEVERITY.index(bad[column].status), -bad[column].error))
        found = bad[worst]
        output = "loss" if self.jacobian is None else point.name_of_output(found.row)
        text = f"∂{output}/∂{entry_name(key, point.shapes[key], worst)}{found.text}"
        if found.status == "wrong":
            weights = np.ones(1) if self.jacobian is None else self.projections[0]
            shape = point.shapes[key]
            hint = likely_error((weights @ analytic).reshape(shape), (weights @ numeric).reshape(shape), list(bad))
            text += f"; {len(bad)} of {len(columns)} entries of {key} are wrong{hint}"
        return Failure(found.status, text, found.rows)

    def against_complex_step(self, point: Point) -> None:
        """Im f(θ + ihv) / h has no subtraction, so no rounding: exact where the forward is analytic."""
        v = point.direction(self.rng, self.names)
        try:
            slope = np.imag(point.evaluate(point.theta + 1j * COMPLEX_STEP * v)) / COMPLEX_STEP
        except (TypeError, np.exceptions.ComplexWarning) as refusal:
            self.failures.append(("not analytic", f"complex step: the forward refuses complex numbers: {refusal}"))
            return
        exact, analytic = self.rows @ slope, self.row_gradients @ v
        norm = np.linalg.norm(self.row_gradients * point.unit, axis=1)
        errors = relative_error(np.abs(exact - analytic), norm, self.entries, 0.0, self.tolerance)
        self.record("(complex step)", float(errors.max()))
        if not (errors <= self.tolerance).all():
            row = int(np.argmax(errors))
            text = f"complex step gives {exact[row]:.8g}, differences and the backward {analytic[row]:.8g}: the forward"
            self.failures.append(
                ("not analytic", f"{text} is not analytic (abs, sign, a comparison, .real, a real cast)")
            )

    def against_float32(self, point: Point, make_single: Callable[[], Point]) -> None:
        """Differences in float32 say little; its analytic gradient must be the float64 one, to its own rounding."""
        advice = "float32=False leaves this comparison out"
        try:
            with np.errstate(all="ignore"):  # what overflows is not finite, and that is told
                single = make_single()
                gradients = np.stack([single.pull(u) for u in self.rows])
        except GradientError as broken:
            raise GradientError(f"in float32: {broken} ({advice})") from None
        except Exception as error:
            said = f"in float32 the code raises {type(error).__name__}: {error} (if it is for float64 only, {advice})"
            raise GradientError(said) from error
        least = 0.01 * np.linalg.norm(self.rows * point.values, axis=1)  # a gradient near zero is all rounding
        for key in self.names:
            part = np.arange(point.places[key].start, point.places[key].stop)
            _, norm = self.norms(np.ones_like(point.unit), part, part)
            differences = np.linalg.norm((gradients - self.row_gradients)[:, part], axis=1)
            for difference, scale in zip(differences, np.maximum(norm, least)):
                share = float(difference / scale) if difference else 0.0
                self.record("(float32)", share)
                if not share <= FLOAT32_TOLERANCE:
                    text = f"the float32 gradient of {key} differs from the float64 one by {share:.1e} of its norm"
                    self.failures.append(("wrong", f"{text} (tolerance {FLOAT32_TOLERANCE:.1e}; {advice})"))
                    return

    def record(self, key: str, error: float) -> None:
        """Keep the worst error of an argument."""
        self.errors[key] = float(np.maximum(self.errors.get(key, 0.0), error))  # NaN stays

    def report(self, name: str) -> Report:
        """Everything found, the gravest as its status."""
        compared = [error for key, error in self.errors.items() if key not in ("(float32)", "(complex step)")]
        return Report(
            name,
            min((status for status, _ in self.failures), key=SEVERITY.index, default="ok"),
            error=float(np.max(compared)) if compared else float("nan"),
            tolerance=self.tolerance,
            step=self.eps,
            errors=self.errors,
            entries=self.entries,
            jacobian_entries=0 if self.jacobian is None else len(self.jacobian) * self.entries,
            skipped=self.skipped,
            failures=tuple(text for _, text in self.failures),
        )


class Failure(NamedTuple):
    """What speaks against a pair, and the projections that show it."""

    status: Status
    text: str
    rows: list[int]


def worse(one: Failure | None, other: Failure) -> Failure:
    """The graver of the two, the later if they are alike."""
    return one if one is not None and SEVERITY.index(one.status) < SEVERITY.index(other.status) else other


def groups_of(*sizes: Array) -> list[Array]:
    """Masks of the entries whose sizes are alike (see DECADES); of most code all are, but for what is exactly 0."""
    bins = []
    for size in sizes:
        typical = np.median(size[size > 0]) if (size > 0).any() else 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            powers = np.round(np.log10(size / typical) / DECADES)
        bins.append(np.nan_to_num(powers, nan=99.0, posinf=99.0, neginf=-99.0))
    kinds, found = np.unique(np.stack(bins), axis=1, return_inverse=True)
    return [found.ravel() == kind for kind in range(kinds.shape[1])]


def same(one: Array, other: Array) -> bool:
    """Whether two vectors hold what was computed twice from equal numbers."""
    return bool(np.allclose(one, other, rtol=SAME, atol=SAME * min(1.0, largest(other))))


def likely_error(analytic: Array, numeric: Array, bad: Sequence[int]) -> str:
    """What kind of error it looks like: the usual ones have a signature."""
    if not np.isfinite(numeric).all():  # only some entries were tried
        return ""
    close = 1e-6 * max(largest(numeric), largest(analytic))
    if not largest(analytic) > close:
        return "; the analytic gradient is zero everywhere"
    factor = float(np.vdot(numeric, analytic)) / max(float(np.vdot(numeric, numeric)), np.finfo(float).tiny)
    if abs(factor - 1) > 1e-6 and np.allclose(analytic, factor * numeric, rtol=0.0, atol=close):
        return f"; analytic = {factor:.6g} × numeric"
    turned = analytic.T
    if turned.ndim == 2 and turned.shape == numeric.shape and np.allclose(turned, numeric, rtol=0.0, atol=close):
        return "; analytic = numeric transposed"
    for axis, indices in enumerate(np.unravel_index(bad, analytic.shape)):
        if len(set(indices.tolist())) == 1 and analytic.shape[axis] > 1:
            return f"; all of them have index {int(indices[0])} on axis {axis}"
    return ""
