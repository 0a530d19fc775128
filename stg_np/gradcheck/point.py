"""A pair at one point: its forward as a function of ONE vector, its backward as a product with Jᵀ."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, get_xp, to_host
from stg_np.gradcheck.report import GradientError
from stg_np.gradcheck.tree import Tree, differentiable, entry_name, leaves, places, read_only, rebuild

Forward: TypeAlias = Callable[..., tuple[Tree, Any]]
"""``outputs, cache = forward(**inputs)``."""
Backward: TypeAlias = Callable[[Tree, Any], Tree]
"""``gradients = backward(doutputs, cache)``."""


class Slope(NamedTuple):
    """Derivatives of all outputs along one direction, (m,) each."""

    central: Array
    left: Array
    right: Array
    scale: Array  # the largest value of the same output array: rounding is relative to it


class Point:
    """A pair at one point, its inputs seen as one host vector θ (n,) and its outputs as another (m,).

    The forward has run once; :meth:`pull` sends doutputs through the backward, u -> Jᵀu, and :meth:`push`
    measures v -> Jv by differences of further forwards. Broken contracts raise :class:`GradientError`.
    """

    def __init__(
        self, forward: Forward, backward: Backward, inputs: Mapping[str, Tree], dtype: Any = np.float64
    ) -> None:
        self.forward, self.backward, self.inputs, self.dtype = forward, backward, dict(inputs), np.dtype(dtype)
        self.xp = library_of(self.inputs)
        self.originals = {name: to_host(array).copy() for name, array in leaves(self.inputs).items()}
        arrays = {name: self.originals[name] for name in differentiable(self.inputs)}
        self.shapes, self.places = {name: array.shape for name, array in arrays.items()}, places(arrays)
        self.theta = np.concatenate([np.empty(0), *(array.ravel() for array in arrays.values())])
        self.skipped: tuple[str, ...] = ()  # known after the first pull
        self.arguments = self.arguments_at(None)
        self.outputs, self.cache = call("forward", forward, **self.arguments)
        self.require_arrays("", leaves(self.outputs, "output"))
        require_unchanged("forward", leaves(self.arguments), self.originals)
        outputs = differentiable(self.outputs, "output")
        self.output_shapes, self.output_places = {name: a.shape for name, a in outputs.items()}, places(outputs)
        self.values = as_vector(self.outputs)

    def pull(self, u: Array) -> Array:
        """Jᵀu by the backward, (n,); zero where the pair declares an input constant."""
        hosts = {key: u[place].reshape(self.output_shapes[key]) for key, place in self.output_places.items()}
        hosts = {key: host.astype(self.dtype) for key, host in hosts.items()}
        doutputs = rebuild(
            self.outputs, lambda key, _: read_only(self.xp.asarray(hosts[key])) if key in hosts else None, "output"
        )
        gradients = gradients_by_name(self.arguments, call("backward", self.backward, doutputs, self.cache))
        self.require_arrays("the gradient of ", gradients)
        require_unchanged("backward", leaves(doutputs, "output"), hosts)
        require_unchanged("backward", leaves(self.arguments), self.originals)
        floating = (key for key, original in self.originals.items() if original.dtype.kind == "f")
        self.skipped = tuple(key for key in floating if key not in gradients)
        vector = np.zeros(self.theta.size)
        for key, gradient in gradients.items():
            vector[self.places[key]] = to_host(gradient).ravel()
        return vector

    def push(self, v: Array, step: float) -> Slope:
        """Jv by differences of the forward: the five-point stencil, and from each side."""
        f0 = self.values
        b2, b1, f1, f2 = (self.evaluate(self.theta + k * step * v) for k in (-2, -1, 1, 2))
        scale = np.zeros(f0.size)
        for place in self.output_places.values():
            scale[place] = np.abs(np.stack([b2, f0, f2])[:, place]).max(initial=0.0)
        return Slope(
            central=(b2 - 8 * b1 + 8 * f1 - f2) / (12 * step),
            left=(3 * f0 - 4 * b1 + b2) / (2 * step),
            right=(-3 * f0 + 4 * f1 - f2) / (2 * step),
            scale=scale,
        )

    def evaluate(self, theta: Array) -> Array:
        """The outputs (m,) at another θ, real or complex."""
        return as_vector(call("forward", self.forward, **self.arguments_at(theta))[0])

    def checked(self) -> list[str]:
        """The inputs that have a gradient (known after the first :meth:`pull`)."""
        return [key for key in self.places if key not in self.skipped]

    def direction(self, rng: np.random.Generator, names: Iterable[str]) -> Array:
        """A random direction of unit norm over the named inputs, (n,)."""
        v = np.zeros(self.theta.size)
        for key in names:
            v[self.places[key]] = rng.standard_normal(v[self.places[key]].size)
        return v / max(float(np.linalg.norm(v)), np.finfo(np.float64).tiny)

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

    def require_arrays(self, what: str, arrays: Mapping[str, Any]) -> None:
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
                at = entry_name(key, array.shape, int(np.flatnonzero(bad)[0]))
                raise GradientError(f"{what}{key} is not finite: {at}, {bad.sum()} of {bad.size} entries")


def gradients_by_name(inputs: Mapping[str, Tree], gradients: Tree) -> dict[str, Array]:
    """What a backward returned, by leaf name; an input whose whole gradient is None is left out.

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
        name: leaf for key in keys if key not in constant for name, leaf in differentiable(inputs[key], key).items()
    }
    given = leaves(gradients)
    for name, leaf in wanted.items():
        if name not in given:
            raise GradientError(f"backward returned no gradient for {name} (None for a whole argument: constant)")
        if (shape := getattr(given[name], "shape", ())) != leaf.shape:
            raise GradientError(f"the gradient of {name} has shape {shape}, {name} itself {leaf.shape}")
    return {name: given[name] for name in wanted}


def as_vector(outputs: Tree) -> Array:
    """All floating-point numbers of the outputs, (m,), on the host."""
    arrays = [array for array in leaves(outputs, "output").values() if array.dtype.kind in "fc"]
    return np.concatenate([np.empty(0), *(to_host(array).ravel() for array in arrays)])


def library_of(inputs: Mapping[str, Tree]) -> Any:
    """The array module of all inputs."""
    for name, leaf in leaves(inputs).items():
        try:
            get_xp(leaf)
        except TypeError as error:
            raise TypeError(f"input {name}: {error}; give options with functools.partial") from None
    return get_xp(*leaves(inputs).values())


def require_unchanged(who: str, arrays: Mapping[str, Array], originals: Mapping[str, Array]) -> None:
    """On a device nothing is read-only, so compare (NumPy arrays raise at the line, see :func:`call`)."""
    for key, array in arrays.items():
        host = to_host(array)
        if not np.array_equal(host, originals[key].astype(host.dtype)):
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
