"""Inputs, outputs and gradients as trees of arrays, whose leaves have names: ``params.W``, ``layers[0].b``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from stg_np.backend import Array
from stg_np.params import Params

Tree: TypeAlias = Any
"""An array, None, :class:`Params`, or a (named) tuple, list or mapping of trees."""


def children(tree: Tree, name: str = "") -> list[tuple[str, Tree]] | None:
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


def leaves(tree: Tree, name: str = "") -> dict[str, Any]:
    """The leaves of a tree by name, None left out."""
    return {key: leaf for key, leaf in places_of(tree, name).items() if leaf is not None}


def places_of(tree: Tree, name: str = "") -> dict[str, Any]:
    """The leaves of a tree by name, None among them."""
    named = children(tree, name)
    if named is None:
        return {name: tree}
    return {key: leaf for child, value in named for key, leaf in places_of(value, child).items()}


def rebuild(tree: Tree, leaf: Callable[[str, Any], Any], name: str = "") -> Tree:
    """The same tree with every leaf replaced by ``leaf(name, value)``."""
    named = children(tree, name)
    if named is None:
        return None if tree is None else leaf(name, tree)
    values = [rebuild(value, leaf, child) for child, value in named]
    if isinstance(tree, Params):
        packed = Params.pack(tree.layout, dict(zip(tree, values)))
        return packed.with_flat(read_only(packed.flat))
    if isinstance(tree, Mapping):
        return dict(zip(tree, values))
    return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)


def floating(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Those of real floating-point numbers."""
    return {key: array for key, array in arrays.items() if array.dtype.kind == "f"}


def frozen_leaves(tree: Tree, name: str = "") -> set[str]:
    """The names of the entries of Params that are never updated: their gradient may be anything."""
    if isinstance(tree, Params):
        keys = (f"{name}.{entry.name}" for entry in tree.layout.entries if entry.role == "frozen")
        return {key.removeprefix(".") for key in keys}
    return {key for child, value in children(tree, name) or () for key in frozen_leaves(value, child)}


def inside(key: str, names: Iterable[str]) -> bool:
    """Whether a leaf is one of the names, or lies in the container of that name."""
    return any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in names)


def places(arrays: Mapping[str, Array]) -> dict[str, slice]:
    """Where each array lies in the vector of all of them, one after the other."""
    ends = np.cumsum([0, *(int(np.prod(array.shape)) for array in arrays.values())]).tolist()
    return {key: slice(start, end) for key, start, end in zip(arrays, ends, ends[1:])}


def entry_name(name: str, shape: tuple[int, ...], position: int) -> str:
    """``W[1, 2]`` for a position in the flattened array."""
    index = ", ".join(str(int(i)) for i in np.unravel_index(position, shape)) if shape else ""
    return f"{name}[{index}]" if index else name


def read_only(array: Array) -> Array:
    """A view that nobody can write through (NumPy; other libraries have no such flag)."""
    if isinstance(array, (np.ndarray, np.generic)):
        array = np.asarray(array).view()
        array.flags.writeable = False
    return array


def largest(array: Array) -> float:
    """The largest absolute value, 0 if there is none."""
    return float(np.abs(array).max(initial=0.0))
