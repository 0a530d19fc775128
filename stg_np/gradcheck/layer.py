"""A layer that is an object, with a cache and gradients of its own, as a pair for :func:`check_pair`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

from stg_np.backend import Array, get_xp
from stg_np.gradcheck.check import check_pair
from stg_np.gradcheck.report import GradientError, NotComparedError, Report
from stg_np.gradcheck.returned import arguments_of
from stg_np.gradcheck.tree import Tree, leaves


def check_layer(
    layer: Any,
    inputs: Mapping[str, Tree],
    params: Mapping[str, str] | None = None,
    *,
    constant: Collection[str] = (),
    **options: Any,
) -> Report:
    """Check an object with ``y = layer.forward(x)`` and ``dx = layer.backward(dy)``, which keeps its cache in itself.

    Every pass works on a copy of the layer: what it keeps is its copy's, and the layer stays as it is.

    Args:
        layer: the object; its class is the name in the report.
        inputs: the arguments of its forward by name, as in :func:`check_pair`; ``backward`` returns their gradients.
        params: the attributes that are parameters, each with the attribute in which ``backward`` leaves its gradient:
            ``{"W": "dW", "b": "db"}``.
        constant: inputs, and attributes, that have no gradient.
        options: keyword arguments of :func:`check_pair`.

    Raises:
        ValueError: if the layer lacks a method or an attribute that is named, or an input has a parameter's name.

    >>> import numpy as np
    >>> class Scale:
    ...     def __init__(self, w):
    ...         self.w = w
    ...     def forward(self, x):
    ...         self.x = x
    ...         return self.w * x
    ...     def backward(self, dy):
    ...         self.dw = (dy * self.x).sum(0)
    ...         return dy * self.w
    >>> check_layer(Scale(np.ones(3)), {"x": np.ones((2, 3))}, {"w": "dw"}).ok
    True
    """
    params = dict(params or {})
    require_attributes(layer, inputs, params)
    attributes = {name for name in constant_names(constant) if name not in inputs and hasattr(layer, name)}

    def forward(**arguments: Tree) -> tuple[Tree, Any]:
        copy = deepcopy(layer)
        for name in params:
            setattr(copy, name, arguments.pop(name))
        return copy.forward(**arguments), copy

    def backward(doutputs: Tree, kept: Any) -> dict[str, Tree]:
        copy = deepcopy(kept)  # where gradients are added up, they begin as the forward left them
        returned = copy.backward(doutputs)
        refuse_forgotten(layer, copy, {*params, *params.values(), *attributes})
        return by_name(returned, inputs) | {name: gradient_of(copy, params[name]) for name in params}

    given = {**inputs, **{name: getattr(layer, name) for name in params}}
    options.setdefault("name", type(layer).__name__)
    rest = [name for name in constant_names(constant) if name not in attributes or name in params]
    return check_pair(forward, backward, given, constant=rest, **options)


def constant_names(constant: Collection[str]) -> Collection[str]:
    """One name alone is a name."""
    return (constant,) if isinstance(constant, str) else constant


def require_attributes(layer: Any, inputs: Mapping[str, Tree], params: Mapping[str, str]) -> None:
    """Raise ValueError for what the layer does not have."""
    for name in ("forward", "backward", *params):
        if not hasattr(layer, name):
            raise ValueError(f"{type(layer).__name__} has no attribute {name}")
    if both := sorted(params.keys() & inputs.keys()):
        raise ValueError(f"{both[0]} is an input and a parameter: name the input as the forward does")


def by_name(returned: Tree, inputs: Mapping[str, Tree]) -> dict[str, Tree]:
    """The gradients of the inputs that a backward returned; that of a single input comes as it is, never in a tuple."""
    if len(inputs) == 1 and not (returned is None or isinstance(returned, Mapping)):
        return dict(zip(inputs, [returned]))
    return dict(arguments_of(inputs, returned))


def gradient_of(layer: Any, name: str) -> Tree:
    """The gradient that a backward left in an attribute."""
    if not hasattr(layer, name):
        raise GradientError(f"backward left no gradient in {type(layer).__name__}.{name}")
    return getattr(layer, name)


def refuse_forgotten(layer: Any, after: Any, known: Collection[str]) -> None:
    """Arrays that both passes leave as they were are parameters: their gradients must be compared.

    Raises:
        NotComparedError: if there is one that nobody named.
    """
    for name, value in getattr(layer, "__dict__", {}).items():
        if name not in known and any(is_floating(leaf) for leaf in leaves(value).values()):
            then = getattr(after, name, None)
            if all(unchanged(one, other) for one, other in zip(leaves(value).values(), leaves(then).values())):
                raise NotComparedError(
                    f"{name} was not compared: name it with the attribute of its gradient, "
                    f"params={{{name!r}: 'd{name}'}}, or say that it has none, constant=({name!r},)"
                )


def is_floating(value: Any) -> bool:
    """Whether it is an array of floating-point numbers."""
    try:
        get_xp(value)
    except TypeError:
        return False
    return bool(value.dtype.kind == "f" and value.size)


def unchanged(one: Array, other: Array) -> bool:
    """Whether nothing was written to an array, nor another put in its place."""
    return is_floating(other) and one.shape == other.shape and bool((one == other).all())
