"""From the source of a module to its mutants: one edit of one function each."""

from __future__ import annotations

import ast
import copy
import re
import textwrap
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tools.mutate.operators import Context, Edit, edits_of
from tools.mutate.scope import Scope


class Mutant(NamedTuple):
    """One edit: the kind, the function it lies in, its lines, and the new text of the function, in its class."""

    kind: str
    function: str
    lines: range  # of the innermost statement; those of the whole function for what is evaluated when it is made
    before: str
    after: str
    text: str


class Place(NamedTuple):
    """Where a node stands: ``parent.field`` or ``parent.field[number]``."""

    parent: ast.AST
    field: str
    number: int | None

    def put(self, node: Any) -> None:
        """Write a node there."""
        if self.number is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.number] = node


def mutants(source: str, functions: str = "", names: Mapping[str, Any] | None = None) -> Iterator[Mutant]:
    """Every mutant of the functions whose dotted name matches the pattern; ``names``: what the module has defined."""
    for name, function in functions_of(ast.parse(source)):
        if re.search(functions, name):
            yield from mutants_of(name, function, names or {})


def functions_of(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions of a module and the methods of its classes, by dotted name; nested functions belong to them."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef) and not any(ast.unparse(base) == "Protocol" for base in child.bases):
            yield from functions_of(child, f"{prefix}{child.name}.")


def mutants_of(name: str, function: ast.FunctionDef, names: Mapping[str, Any]) -> Iterator[Mutant]:
    """Every mutant of one function, each text once."""
    owner = name.split(".")[-2] if "." in name else None
    function = copy.deepcopy(function)
    function.decorator_list = []
    function.body = [node for node in function.body if not _is_text(node)] or [ast.Pass()]
    before = [_head(function), *map(_statement, function.body)]
    seen = {"\n".join(before)}
    for place, old, part, lines, edit in _edits(function, name, Scope(function, names, owner=owner)):
        place.put(ast.copy_location(edit.node, old))
        changed = _statement(function.body[part - 1]) if part else _head(function)  # the rest of the text stays
        place.put(old)
        after = "\n".join([*before[:part], changed, *before[part + 1 :]])
        if after not in seen:
            seen.add(after)
            yield Mutant(edit.kind, name, lines, *_first_difference(before[part], changed), in_its_class(name, after))


def _head(function: ast.FunctionDef) -> str:
    """``def …:``."""
    head = ast.FunctionDef(function.name, function.args, [ast.Pass()], [], function.returns)
    return ast.unparse(ast.copy_location(head, function)).rsplit("\n", 1)[0]


def _statement(node: ast.stmt) -> str:
    """A statement of the body of a function."""
    return textwrap.indent(ast.unparse(node), "    ")


def _first_difference(before: str, after: str) -> tuple[str, str]:
    pairs = zip(before.splitlines(), after.splitlines())
    old, new = next(((old, new) for old, new in pairs if old != new), ("", ""))
    return old.strip(), new.strip()


def in_its_class(name: str, text: str) -> str:
    """The text of a method inside ``class …:``, so that it keeps its name."""
    for owner in reversed(name.split(".")[:-1]):
        text = "\n".join([f"class {owner}:", *(f"    {line}" for line in text.splitlines())])
    return text


TYPES_AND_WORDS = ("annotation", "returns", "decorator_list", "type_comment", "type_params")


def _edits(function: ast.FunctionDef, name: str, scope: Scope) -> Iterator[tuple[Place, ast.AST, int, range, Edit]]:
    """Every place in a function, what stands there, and what may stand there instead.

    With the place come the number of the statement in the body (0: in the defaults), and the lines that run it.
    """
    whole = range(function.lineno, (function.end_lineno or function.lineno) + 1)
    pending = deque(
        (place, child, (place.number or 0) + 1 if place.field == "body" else 0, scope, whole)
        for place, child in _children(function)
    )
    while pending:
        place, node, part, scope, lines = pending.popleft()
        if isinstance(node, ast.Raise) or _is_text(node):
            continue  # wordings are not mutated; whether they are raised is, by the condition
        if isinstance(node, ast.stmt):
            lines = _header(node)
        for edit in edits_of(node, Context(place.parent, place.field, scope, name)):
            yield place, node, part, lines, edit
        if isinstance(node, ast.JoinedStr):
            continue
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            scope = Scope(node, scope.names, outer=scope)
        pending.extend((below, child, part, scope, lines) for below, child in _children(node))


def _children(node: ast.AST) -> Iterator[tuple[Place, ast.AST]]:
    for field, value in ast.iter_fields(node):
        if field in TYPES_AND_WORDS:
            continue  # types are no behaviour
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield Place(node, field, index), child


def _header(node: ast.stmt) -> range:
    """The lines of a statement, without those of the statements inside it."""
    body = getattr(node, "body", None)
    end = body[0].lineno if isinstance(body, list) and body else (node.end_lineno or node.lineno) + 1
    return range(node.lineno, max(end, node.lineno + 1))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
