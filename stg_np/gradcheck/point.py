"""A pair at one point: its forward as a function of ONE vector, its backward as a product with Jᵀ."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, get_xp, to_host
from stg_np.gradcheck.report import GradientError, NotComparedError
from stg_np.gradcheck.returned import gradients_by_name, outputs_and_cache, require_call
from stg_np.gradcheck.tree import (
    Tree,
    entry_name,
    floating,
    frozen_leaves,
    inside,
    leaves,
    places,
    places_of,
    read_only,
    rebuild,
)

Forward: TypeAlias = Callable[..., tuple[Tree, Any]]
"""``outputs, cache = forward(**inputs)``."""
Backward: TypeAlias = Callable[[Tree, Any], Tree]
"""``gradients = backward(doutputs, cache)``."""

ROUNDING = 10 * float(np.finfo(np.float64).eps)  # of one forward, relative to the output
BESIDE = 1e3  # a small output may be what is left of sums of order 1, or as large as its neighbours, up to this
LARGE = 100.0  # from here the step grows with the input, whose own rounding would spoil it


class Slope(NamedTuple):
    """Derivatives of all outputs along one direction, (m,) each."""

    central: Array
    left: Array
    right: Array
    noise: Array  # what rounding may add to them; 0 where a large output did not move at all: it is a mask
    most: Array  # and where sums as large as the outputs beside it cancel
    unseen: Array  # the derivative that rounding may have swallowed there


class Point:
    """A pair at one point, its inputs seen as one host vector θ (n,) and its outputs as another (m,).

    The forward has run once; :meth:`pull` sends doutputs through the backward, u -> Jᵀu, and :meth:`push`
    measures v -> Jv by differences of further forwards. Broken contracts raise :class:`GradientError`.
    """

    def __init__(
        self,
        forward: Forward,
        backward: Backward,
        inputs: Mapping[str, Tree],
        dtype: Any = np.float64,
        constant: Collection[str] = (),
    ) -> None:
        self.forward, self.backward, self.inputs, self.dtype = forward, backward, dict(inputs), np.dtype(dtype)
        self.xp = library_of(self.inputs)
        require_call("forward", forward, **self.inputs)
        require_call("backward", backward, "doutputs", "cache")
        self.originals = {name: to_host(array).copy() for name, array in leaves(self.inputs).items()}
        self.skipped = left_out(self.inputs, self.originals, constant)
        arrays = {name: array for name, array in floating(self.originals).items() if name not in self.skipped}
        require_entries(self.originals, arrays, self.skipped)
        self.shapes, self.places = {name: array.shape for name, array in arrays.items()}, places(arrays)
        self.theta = np.concatenate([np.empty(0), *(array.ravel() for array in arrays.values())])
        size = np.where(np.isfinite(self.theta), np.abs(self.theta), 0.0)
        self.unit = np.maximum(1.0, size / LARGE)  # steps are measured in it
        self.arguments = self.arguments_at(None)
        self.outputs, self.cache = self.run(self.arguments)
        self.require_outputs(leaves(self.outputs, "output"))
        require_unchanged("forward", leaves(self.arguments), self.originals)
        outputs = floating(leaves(self.outputs, "output"))
        self.output_shapes, self.output_places = {name: a.shape for name, a in outputs.items()}, places(outputs)
        values = as_vector(self.outputs)
        self.masked = np.isneginf(values)  # a mask: it stays what it is, or the comparison will show it
        self.values = np.where(self.masked, 0.0, values)
        if not values[~self.masked].size:
            raise NotComparedError("nothing was compared: the outputs hold no finite floating-point number")

    def run(self, arguments: Mapping[str, Tree]) -> tuple[Tree, Any]:
        """The forward: outputs and cache."""
        return outputs_and_cache(call("forward", self.forward, **arguments))

    def renew(self) -> None:
        """Run the forward here once more, for a cache that other forwards may have overwritten."""
        self.outputs, self.cache = self.run(self.arguments)

    def pull(self, u: Array) -> Array:
        """Jᵀu by the backward, (n,)."""
        hosts = {key: u[place].reshape(self.output_shapes[key]) for key, place in self.output_places.items()}
        hosts = {key: host.astype(self.dtype) for key, host in hosts.items()}
        doutputs = rebuild(
            self.outputs, lambda key, _: read_only(self.xp.asarray(hosts[key])) if key in hosts else None, "output"
        )
        returned = call("backward", self.backward, doutputs, self.cache)
        gradients = gradients_by_name(self.arguments, self.shapes, self.skipped, returned)
        self.require_gradients(gradients)
        require_unchanged("backward", leaves(doutputs, "output"), hosts)
        require_unchanged("backward", leaves(self.arguments), self.originals)
        vector = np.zeros(self.theta.size)
        for key, gradient in gradients.items():
            vector[self.places[key]] = to_host(gradient).ravel()
        return vector

    def push(self, v: Array, step: float) -> Slope:
        """Jv by differences of the forward: the five-point stencil, and from each side."""
        f0 = self.values
        with np.errstate(all="ignore"):  # a step out of the domain is reported, not warned of
            b2, b1, f1, f2 = (self.evaluate(self.theta + k * step * v) for k in (-2, -1, 1, 2))
            rounding, most, moved = rounding_of(np.stack([b2, b1, f0, f1, f2]), self.output_places.values())
            return Slope(
                central=(8 * (f1 - b1) - (f2 - b2)) / (12 * step),  # in differences: exactly 0 where nothing moves
                left=(4 * (f0 - b1) - (f0 - b2)) / (2 * step),
                right=(4 * (f1 - f0) - (f2 - f0)) / (2 * step),
                noise=np.where(moved, rounding, 0.0) / step,
                most=np.where(moved, most, 0.0) / step,
                unseen=np.where(moved, 0.0, rounding) / step,
            )

    def evaluate(self, theta: Array) -> Array:
        """The outputs (m,) at another θ, real or complex."""
        vector = as_vector(self.run(self.arguments_at(theta))[0])
        if vector.size != self.values.size:
            counts = f"{vector.size} where it gave {self.values.size}"
            raise GradientError(f"forward gives outputs of another shape beside the inputs: {counts}")
        return np.where(self.masked & np.isneginf(vector.real), 0.0, vector)

    def direction(self, rng: np.random.Generator, names: Iterable[str]) -> Array:
        """A random direction of unit norm, measured in ``unit``, over the named inputs, (n,)."""
        v = np.zeros(self.theta.size)
        for key in names:
            v[self.places[key]] = rng.standard_normal(v[self.places[key]].size)
        return self.scaled(v)

    def scaled(self, v: Array) -> Array:
        """The same direction with unit norm, measured in ``unit``."""
        return v * self.unit / max(float(np.linalg.norm(v)), np.finfo(np.float64).tiny)

    def name_of_output(self, row: int) -> str:
        """``output.y[0, 2]`` for a position in the vector of outputs."""
        key = next(key for key, place in self.output_places.items() if place.start <= row < place.stop)
        return entry_name(key, self.output_shapes[key], row - self.output_places[key].start)

    def arguments_at(self, theta: Array | None) -> dict[str, Tree]:
        """The inputs at θ (None: as they were given, with their memory order), in one floating dtype."""

        def leaf(key: str, array: Array) -> Array:
            if array.dtype.kind != "f":
                return read_only(array)
            if theta is None:
                return read_only(array.astype(self.dtype, copy=False))
            if key not in self.places:  # frozen: it shares the vector of Params, and so the dtype, with the others
                return read_only(array.astype(theta.dtype, copy=False))
            return read_only(self.xp.asarray(theta[self.places[key]].reshape(self.shapes[key])))

        arguments: dict[str, Tree] = rebuild(self.inputs, leaf)
        return arguments

    def require_outputs(self, arrays: Mapping[str, Any]) -> None:
        """Outputs are arrays of the inputs' library and dtype (or integers), and finite, or −inf, which is a mask."""
        for key, array in arrays.items():
            self.require_library(key, array)
            if array.dtype.kind == "c":
                raise GradientError(f"{key} is complex: return its real and its imaginary part as two outputs")
            if array.dtype.kind not in "biu":
                self.require_dtype(key, array)
            host = to_host(array)
            require_finite(key, host, np.isfinite(host) | np.isneginf(host))

    def require_gradients(self, gradients: Mapping[str, Any]) -> None:
        """Gradients are finite arrays of the inputs' library and dtype."""
        for key, gradient in gradients.items():
            what = f"the gradient of {key}"
            self.require_library(what, gradient)
            self.require_dtype(what, gradient)
            require_finite(what, to_host(gradient), np.isfinite(to_host(gradient)), key)

    def require_library(self, what: str, array: Any) -> None:
        """Raise GradientError for what is no array, or not one of the inputs' library."""
        try:
            library = get_xp(array)
        except TypeError:
            raise GradientError(f"{what} is not an array but {type(array).__name__}") from None
        if library is not self.xp:
            raise GradientError(f"{what} belongs to another array library than the inputs")

    def require_dtype(self, what: str, array: Array) -> None:
        """Raise GradientError for another dtype than the inputs'."""
        if array.dtype != self.dtype:
            raise GradientError(f"{what} has dtype {array.dtype} where the inputs have {self.dtype}: it follows theirs")


def rounding_of(values: Array, arrays: Iterable[slice]) -> tuple[Array, Array, Array]:
    """What rounding does to one value and at most may do, (m,), and which are no masks; from those at −2h … 2h, (5, m).

    An output is rounded to its own size, not to that of a mask of −1e12 beside it. Where more is lost inside the
    forward (a difference of sums), the fourth difference shows it; of smooth functions it holds little else.
    """
    own = np.abs(values).max(0)
    finite, beside = np.where(np.isfinite(own), own, 0.0), np.zeros_like(own)
    for place in arrays:
        beside[place] = np.clip(finite[place].max(initial=0.0), 1.0, BESIDE)
    fourth = np.abs(np.array([1.0, -4.0, 0.0, -4.0, 1.0]) @ (values - values[2]))
    most = ROUNDING * np.maximum(own, beside)
    return np.clip(fourth, ROUNDING * own, most), most, (values != values[2]).any(0) | (own <= BESIDE)


def left_out(inputs: Mapping[str, Tree], arrays: Mapping[str, Array], constant: Collection[str]) -> tuple[str, ...]:
    """The floating-point inputs that have no gradient: declared constant, or entries of Params that are frozen.

    Raises:
        ValueError: if ``constant`` names what is no input.
    """
    constant = (constant,) if isinstance(constant, str) else tuple(constant)
    for name in constant:
        if not any(inside(key, [name]) for key in places_of(inputs)):
            raise ValueError(f"constant names {name!r}, which is none of the inputs {', '.join(inputs)}")
    frozen = frozen_leaves(inputs)
    return tuple(key for key, array in arrays.items() if array.dtype.kind in "fc" and inside(key, {*constant, *frozen}))


def require_entries(originals: Mapping[str, Array], moved: Mapping[str, Array], skipped: Collection[str]) -> None:
    """Every argument of real numbers has something to compare, and there is one at all.

    Raises:
        NotComparedError: if not.
    """
    for key, array in originals.items():
        if array.dtype.kind == "c" and key not in skipped:
            raise NotComparedError(f"{key} is complex: give its real and its imaginary part as two inputs")
    for key, array in moved.items():
        if not array.size:
            raise NotComparedError(f"{key} has no entries (shape {array.shape}), so nothing of it can be compared")
        require_finite(f"the input {key}", array, ~np.isnan(array), key)
    if not moved:
        kinds = ", ".join(f"{key} {array.dtype}" for key, array in originals.items()) or "none"
        raise NotComparedError(
            f"nothing was compared: no input has a derivative ({kinds}); give floating-point numbers, x.astype(float)"
        )


def require_finite(what: str, host: Array, fine: Array, key: str = "") -> None:
    """Raise GradientError with the first entry that is not."""
    if not fine.all():
        at = entry_name(key or what, host.shape, int(np.flatnonzero(~fine)[0]))
        count = f"{host.size - np.count_nonzero(fine)} of {host.size} entries"
        raise GradientError(
            f"{what} is not finite: {at}, {count} (an overflow, or the border of a domain: log, √, 1/x)"
        )


def as_vector(outputs: Tree) -> Array:
    """All floating-point numbers of the outputs, (m,), on the host."""
    arrays = [array for array in leaves(outputs, "output").values() if array.dtype.kind in "fc"]
    return np.concatenate([np.empty(0), *(to_host(array).ravel() for array in arrays)])


def library_of(inputs: Mapping[str, Tree]) -> Any:
    """The array module of all inputs; NumPy if there are none.

    Raises:
        TypeError: if one is no array, or the inputs mix libraries.
    """
    arrays = leaves(inputs)
    for name, leaf in arrays.items():
        try:
            get_xp(leaf)
        except TypeError as error:
            number = isinstance(leaf, (bool, int, float, complex))
            advice = "np.array(…) of it, or an option given" if number else "give options"
            raise TypeError(f"input {name}: {error}; {advice} with functools.partial") from None
    return get_xp(*arrays.values()) if arrays else np


def require_unchanged(who: str, arrays: Mapping[str, Array], originals: Mapping[str, Array]) -> None:
    """On a device nothing is read-only, so compare (NumPy arrays raise at the line, see :func:`call`)."""
    for key, array in arrays.items():
        host = to_host(array)
        with np.errstate(over="ignore"):
            original = originals[key].astype(host.dtype)
        if not np.array_equal(host, original, equal_nan=host.dtype.kind in "fc"):
            raise GradientError(f"{who} changed {key}: never write into an argument")


def call(who: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the reader's function; writing into its (read-only) arguments is a finding that names the line."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        line = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(line.filename).name}, line {line.lineno}: {line.line}"
        raise GradientError(f"{who} writes into an argument ({where})") from error
