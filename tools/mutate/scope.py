"""Which names a function may use at a place, and of what type they are, as far as the source says.

A mutant that takes another argument *of the same type* is the error that no reader and no type checker sees:
``self.width`` for ``self.memory_width``, ``now.step`` for ``done``. Types are the texts of the annotations.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ForwardRef, NamedTuple

AnyFunction = ast.FunctionDef | ast.Lambda


class Type(NamedTuple):
    """The text of an annotation, and the names of the module in which it was written."""

    text: str
    names: Mapping[str, Any]

    @property
    def is_int(self) -> bool:
        """Whether it is a size, a number of a layer, an index."""
        return self.text == "int"

    @property
    def is_array(self) -> bool:
        """Whether it is one array."""
        return self.text == "Array" or self.text.startswith("NDArray")

    @property
    def fields(self) -> dict[str, Type]:
        """What an object of this type has: fields and properties, in order; nothing for arrays and numbers."""
        found = _value(self.text, self.names)
        return fields_of(found) if isinstance(found, type) else {}

    @property
    def parts(self) -> list[Type]:
        """What unpacking gives: the entries of ``tuple[…]``, or the fields of a named tuple."""
        tree = ast.parse(self.text, mode="eval").body
        if isinstance(tree, ast.Subscript) and ast.unparse(tree.value) == "tuple" and isinstance(tree.slice, ast.Tuple):
            return [Type(_short(part), self.names) for part in tree.slice.elts]
        found = _value(self.text, self.names)
        return [self.fields[name] for name in getattr(found, "_fields", ())]


INT = Type("int", {})


def _value(text: str, names: Mapping[str, Any]) -> Any:
    """What a name of a module stands for, dots included; None for everything else."""
    first, *rest = text.split(".")
    value = names.get(first)
    for name in rest:
        value = getattr(value, name, None)
    return value


def _short(annotation: ast.AST | str | type | ForwardRef) -> str:
    """The text of an annotation; ``stm.Gates`` and ``Gates`` are the same."""
    if isinstance(annotation, type):
        return annotation.__name__
    if isinstance(annotation, ForwardRef):  # what a NamedTuple makes of a text
        annotation = annotation.__forward_arg__
    text = annotation if isinstance(annotation, str) else ast.unparse(annotation)
    return text.rsplit(".", 1)[-1] if text.replace(".", "").isidentifier() else text


def fields_of(cls: type) -> dict[str, Type]:
    """The annotated fields and the properties of a class, with their types."""
    found: dict[str, Type] = {}
    for base in reversed(cls.__mro__):
        names = vars(sys.modules.get(base.__module__, ast))
        for name, annotation in vars(base).get("__annotations__", {}).items():
            found[name] = Type(_short(annotation), names)
        for name, value in vars(base).items():
            getter = getattr(value, "fget", None) or (value.func if isinstance(value, cached_property) else None)
            if getter is not None and "return" in getattr(getter, "__annotations__", {}):
                found[name] = Type(_short(getter.__annotations__["return"]), names)
    return found


class Scope:
    """The names that a function binds, with their types where they can be told, and those of what encloses it."""

    def __init__(
        self,
        function: AnyFunction,
        names: Mapping[str, Any],
        *,
        owner: str | None = None,
        outer: Scope | None = None,
    ) -> None:
        self.names = names
        self.function: AnyFunction = outer.function if outer else function
        self.types: dict[str, Type] = dict(outer.types) if outer else {}
        self.parameters: set[str] = set(outer.parameters) if outer else set()
        self.aliases: set[frozenset[str]] = set(outer.aliases) if outer else set()
        self.bound: Counter[str] = Counter(outer.bound if outer else {})
        arguments = function.args
        listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for k, argument in enumerate(listed):
            self.bound[argument.arg] += 1
            self.parameters.add(argument.arg)
            if k == 0 and owner and argument.arg in ("self", "cls"):
                self.types[argument.arg] = Type(owner, names)
            elif argument.annotation is not None:
                self.types[argument.arg] = Type(_short(argument.annotation), names)
        for node in _own_nodes(function):
            self._bind(node)

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self.bound[node.id] += 1
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            self.types[node.target.id] = Type(_short(node.annotation), self.names)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            self._assign_item(node.target, node.iter)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.aliases.add(frozenset((target.id, ast.unparse(value))))  # two names of one thing
            if target.id not in self.types and (found := self.type_of(value)):
                self.types[target.id] = found
        elif isinstance(target, ast.Tuple):
            if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
                for part, its_value in zip(target.elts, value.elts):
                    self._assign(part, its_value)
                return
            self._unpack(target, self.type_of(value), value)

    def _unpack(self, target: ast.Tuple, whole: Type | None, value: ast.expr) -> None:
        """Names that one value is unpacked into; where nothing is known, they are of one type of their own."""
        parts = whole.parts if whole else []
        for part, name in zip(target.elts, whole.fields if whole else ()):
            self.aliases.add(frozenset((ast.unparse(part), f"{ast.unparse(value)}.{name}")))
        siblings = INT if _is_shape(value) else Type(f"a part of line {target.lineno}", {})
        for k, part in enumerate(target.elts):
            if isinstance(part, ast.Name) and part.id not in self.types and part.id != "_":
                self.types[part.id] = parts[k] if len(parts) == len(target.elts) else siblings
            elif isinstance(part, ast.Tuple):
                self._unpack(part, parts[k] if len(parts) == len(target.elts) else None, part)

    def _assign_item(self, target: ast.expr, series: ast.expr) -> None:
        name = ast.unparse(series.func) if isinstance(series, ast.Call) else ""
        if isinstance(target, ast.Tuple):
            if name == "enumerate" and isinstance(target.elts[0], ast.Name):
                self.types.setdefault(target.elts[0].id, INT)
            self._unpack(target, None, series)
        elif isinstance(target, ast.Name) and ("range" in name or "range(" in ast.unparse(series)):
            self.types.setdefault(target.id, INT)

    def type_of(self, node: ast.expr) -> Type | None:
        """The type of an expression, if the source says it."""
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return INT
        if isinstance(node, ast.Subscript) and _is_shape(node.value):
            return INT
        if isinstance(node, ast.Attribute):
            owner = self.type_of(node.value)
            return owner.fields.get(node.attr) if owner else None
        if isinstance(node, ast.BinOp):
            left, right = self.type_of(node.left), self.type_of(node.right)
            both = left is not None and right is not None and left.is_int and right.is_int
            return INT if both and not isinstance(node.op, ast.Div) else None
        if isinstance(node, ast.Call):
            return self._type_of_call(node)
        return None

    def _type_of_call(self, node: ast.Call) -> Type | None:
        name = ast.unparse(node.func)
        if name == "len":
            return INT
        function = _value(name, self.names)
        if isinstance(function, type):
            return Type(function.__name__, vars(sys.modules.get(function.__module__, ast)))
        annotation = getattr(function, "__annotations__", {}).get("return")
        names = getattr(function, "__globals__", None)
        return Type(_short(annotation), names) if annotation and names is not None else None

    def others(self, node: ast.Name | ast.Attribute) -> list[ast.expr]:
        """What else of the same type can be named here: variables, and the fields of parameters."""
        own = self.type_of(node)
        if own is None or own.text in ("None", "Any", "object"):
            return []
        found: list[str] = []
        if isinstance(node, ast.Attribute):
            owner = self.type_of(node.value)
            siblings = owner.fields if owner else {}
            found += [f"{ast.unparse(node.value)}.{name}" for name, kind in siblings.items() if kind.text == own.text]
        variables = [name for name, kind in self.types.items() if kind.text == own.text]
        found += [name for name in variables if name in self.parameters]
        for parameter in sorted(self.parameters):
            fields = self.types[parameter].fields if parameter in self.types else {}
            found += [f"{parameter}.{name}" for name, kind in fields.items() if kind.text == own.text]
        found += variables
        name = ast.unparse(node)
        found = [other for other in dict.fromkeys(found) if not self._are_one(name, other)]
        return [ast.parse(text, mode="eval").body for text in _after(name, found)]

    def _are_one(self, name: str, other: str) -> bool:
        """Whether one was assigned to the other, and nothing else ever to either."""
        return frozenset((name, other)) in self.aliases and self.bound[name] < 2 and self.bound[other] < 2

    @cached_property
    def memory_names(self) -> list[str]:
        """The names under which the function asks a workspace for memory, in order."""
        calls = [node for node in ast.walk(self.function) if isinstance(node, ast.Call)]
        return list(dict.fromkeys(name for call in calls for name in memory_names(call)))


def memory_names(call: ast.Call) -> Iterator[str]:
    """The texts that a call of ``empty`` or ``within`` is given."""
    if getattr(call.func, "attr", getattr(call.func, "id", "")) in ("empty", "within"):
        for argument in call.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value


def _after(text: str, found: list[str]) -> list[str]:
    """The others, starting with the one that follows: whoever takes only some takes not the same for all."""
    place = found.index(text) if text in found else -1
    return found[place + 1 :] + found[: max(place, 0)]


def _is_shape(node: ast.expr) -> bool:
    """``x.shape``, or a part of it."""
    if isinstance(node, ast.Subscript):
        return _is_shape(node.value)
    return isinstance(node, ast.Attribute) and node.attr == "shape"


def _own_nodes(function: AnyFunction) -> Iterator[ast.AST]:
    """Everything in the body, without what lies in functions inside it."""
    pending: list[ast.AST] = list(function.body) if isinstance(function.body, list) else [function.body]
    while pending:
        node = pending.pop(0)
        yield node
        if not isinstance(node, AnyFunction):
            pending.extend(ast.iter_child_nodes(node))
