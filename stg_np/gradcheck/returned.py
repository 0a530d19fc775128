"""What the functions under test take and return: outputs with a cache, a gradient for every input."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from stg_np.backend import Array
from stg_np.gradcheck.report import GradientError, NotComparedError
from stg_np.gradcheck.tree import Tree, inside, leaves, places_of


def require_call(who: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """The function can be called in this way (its own errors are another matter).

    Raises:
        GradientError: if its parameters are others.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # compiled, and it does not say
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        shown = ", ".join([*args, *(f"{name}=…" for name in kwargs)])
        raise GradientError(f"{who} is called as {who}({shown}), but it takes {signature}: {error}") from None


def outputs_and_cache(returned: Any) -> tuple[Tree, Any]:
    """What a forward returned.

    Raises:
        GradientError: if there are not two things, of which the second is the cache.
    """
    if isinstance(returned, tuple) and len(returned) == 2:
        return returned
    what = "None: does it lack its return?" if returned is None else f"one {type(returned).__name__}"
    if isinstance(returned, tuple):
        what = f"{len(returned)} things: several outputs are one tuple, ((y, m), cache)"
    raise GradientError(f"forward returns outputs and cache, (y, cache), None for an empty cache; this returned {what}")


def gradients_by_name(
    inputs: Mapping[str, Tree], wanted: Mapping[str, tuple[int, ...]], skipped: Collection[str], returned: Tree
) -> dict[str, Array]:
    """The gradient of every leaf that is ``wanted`` (with its shape); nothing is left out in silence.

    Raises:
        GradientError: if there are too many or too few, a name is unknown, or a shape is not the input's.
    """
    by_argument = arguments_of(inputs, returned)
    given = leaves(by_argument)
    for name, shape in wanted.items():
        if name not in given:
            raise missing(name, by_argument, given)
        if (found := getattr(given[name], "shape", ())) != shape:
            raise GradientError(f"the gradient of {name} has shape {found}, {name} itself {shape}")
    known = places_of(inputs)
    for name in given.keys() - wanted.keys():
        refuse_surplus(name, given[name], known, skipped)
    return {name: given[name] for name in wanted}


def arguments_of(inputs: Mapping[str, Tree], returned: Tree) -> Mapping[str, Tree]:
    """The gradients by argument, whether they came by name, in order, or alone."""
    keys = list(inputs)
    if returned is None:
        raise NotComparedError("backward returned None: nothing was compared; does it lack its return?")
    if isinstance(returned, Mapping) and returned.keys() <= inputs.keys():
        return returned
    alone = len(keys) == 1 and type(returned) is type(inputs[keys[0]])
    if alone or not isinstance(returned, (tuple, list, Mapping)):
        returned = (returned,)
    if isinstance(returned, Mapping) or len(returned) > len(keys):
        found = ", ".join(map(str, returned)) if isinstance(returned, Mapping) else str(len(returned))
        raise GradientError(f"backward returned gradients ({found}) for the inputs {', '.join(keys)}")
    return dict(zip(keys, returned))


def missing(name: str, by_argument: Mapping[str, Tree], given: Collection[str]) -> GradientError:
    """The error for a leaf without a gradient."""
    nothing = [key for key, gradient in places_of(by_argument).items() if gradient is None and inside(name, [key])]
    if nothing:
        return NotComparedError(
            f"backward returned None for {nothing[0]}, so it was not compared: return its gradient, "
            f"or say that it has none, constant=({nothing[0]!r},)"
        )
    return GradientError(f"backward returned no gradient for {name}, only for {', '.join(given) or 'nothing'}")


def refuse_surplus(name: str, gradient: Any, known: Mapping[str, Any], skipped: Collection[str]) -> None:
    """A gradient that nobody asked for is fine where its input is constant, or None; for integers it is zero."""
    if name in skipped or inside(name, [key for key, leaf in known.items() if leaf is None]):
        return
    if name not in known:
        raise GradientError(f"backward returned a gradient for {name}, which is none of the inputs {', '.join(known)}")
    if getattr(gradient, "dtype", None) is not None and gradient.dtype.kind in "fc" and bool((gradient != 0).any()):
        raise NotComparedError(
            f"{name} has dtype {known[name].dtype}, so its gradient was not compared: give floating-point numbers"
        )
