"""Parameters as ONE flat vector with named views, and gradients of the same type.

An optimizer wants a vector; a layer wants its own ``W`` and ``b``. Both are views of the same memory: the
vector is ``params.flat``, and ``params["stm1.W"]`` is a reshaped window on it. A :class:`Layout` says where
each name lies, what shape it has and what *role* it plays: an optimizer treats a matrix otherwise than a bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from stg_np.backend import Array, get_xp

Role: TypeAlias = Literal["matrix", "kernel", "vector", "head", "frozen"]
"""``matrix``: a weight matrix; ``kernel``: a convolution, (k, k, c, d); ``vector``: a bias or a scale;
``head``: the classifier's matrix; ``frozen``: kept with the parameters but never updated."""

State: TypeAlias = dict[str, Array]
"""What a model keeps but does not learn by gradient, by name (running statistics, for example)."""

GroupT = TypeVar("GroupT", bound=tuple[Any, ...])


class Entry(NamedTuple):
    """One named array of a :class:`Layout`."""

    name: str
    shape: tuple[int, ...]
    role: Role


@dataclass(frozen=True)
class Layout:
    """The static description of a flat parameter vector: names, shapes and roles, in order."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) != len(names):
            raise ValueError("two parameters have the same name")

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each name lies in the flat vector."""
        slices, start = {}, 0
        for entry in self.entries:
            slices[entry.name] = slice(start, start + prod(entry.shape))
            start += prod(entry.shape)
        return slices

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each name."""
        return {entry.name: entry.shape for entry in self.entries}

    @cached_property
    def size(self) -> int:
        """The length of the flat vector."""
        return sum(prod(entry.shape) for entry in self.entries)

    def select(self, *roles: Role) -> Layout:
        """The entries of these roles as a layout of their own; the same object each time."""
        if roles not in self._selections:
            self._selections[roles] = Layout(tuple(entry for entry in self.entries if entry.role in roles))
        return self._selections[roles]

    @cached_property
    def _selections(self) -> dict[tuple[Role, ...], Layout]:
        return {}


class Params:
    """A flat vector of parameters (or of their gradients) and the named views that layers use."""

    def __init__(self, layout: Layout, flat: Array) -> None:
        if flat.shape != (layout.size,):
            raise ValueError(f"the layout needs a vector of {layout.size} numbers, got shape {flat.shape}")
        self.layout = layout
        self.flat = flat

    @classmethod
    def pack(cls, layout: Layout, arrays: Mapping[str, Array]) -> Params:
        """Copy named arrays into one new vector laid out by ``layout``.

        Raises:
            ValueError: if a name is missing or unknown, a shape is not the layout's, or the dtypes differ.
        """
        if arrays.keys() != layout.shapes.keys():
            differing = sorted(arrays.keys() ^ layout.shapes.keys())
            raise ValueError(f"parameter names do not match the layout: {', '.join(differing)}")
        for name, shape in layout.shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} has shape {arrays[name].shape}, the layout says {shape}")
        dtypes = {str(array.dtype) for array in arrays.values()}
        if len(dtypes) > 1:
            raise ValueError(f"one vector has one dtype, but these parameters have {', '.join(sorted(dtypes))}")
        xp = get_xp(*arrays.values())
        return cls(layout, xp.concatenate([arrays[name].reshape(-1) for name in layout.shapes]))

    def __getitem__(self, name: str) -> Array:
        view: Array = self.flat[self.layout.slices[name]].reshape(self.layout.shapes[name])
        return view

    def __contains__(self, name: str) -> bool:
        return name in self.layout.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.shapes)

    def group(self, prefix: str, kind: type[GroupT]) -> GroupT:
        """The views ``prefix.field`` as the named tuple ``kind``; a field with no entry is ``None``.

        Raises:
            KeyError: if there is no parameter with that prefix at all.
        """
        fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
        names = [f"{prefix}.{field}" for field in fields]
        if not any(name in self for name in names):
            raise KeyError(f"there are no parameters {prefix}.…: the layout has {', '.join(self)}")
        return kind._make(self[name] if name in self else None for name in names)  # type: ignore[attr-defined,no-any-return]  # noqa: SIM401

    def with_flat(self, flat: Array) -> Params:
        """The same layout over another vector."""
        return Params(self.layout, flat)

    def arrays(self) -> dict[str, Array]:
        """Every entry by its name."""
        return {name: self[name] for name in self}

    def select(self, *roles: Role) -> Params:
        """A copy of the entries of these roles, under a layout of their own (:meth:`Layout.select`)."""
        layout, xp = self.layout.select(*roles), get_xp(self.flat)
        pieces = [self.flat[self.layout.slices[name]] for name in layout.shapes]
        return Params(layout, xp.concatenate(pieces) if pieces else self.flat[:0].copy())

    def replaced(self, arrays: Mapping[str, Array]) -> Params:
        """A copy in which the arrays given stand in place of those of the same names; their shapes may differ."""
        pieces = [arrays.get(name, self[name]).reshape(-1) for name in self]
        return self.with_flat(get_xp(self.flat).concatenate(pieces))


def named(prefix: str, group: tuple[Any, ...]) -> dict[str, Array]:
    """The reverse of :meth:`Params.group`: ``{"prefix.field": array}`` for the fields that are not None."""
    fields: tuple[str, ...] = group._fields  # type: ignore[attr-defined]
    return {f"{prefix}.{field}": value for field, value in zip(fields, group) if value is not None}
