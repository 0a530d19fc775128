"""Plant an error in every backward of the package, and see the checker catch it.

Each error is one edit of the syntax tree of one ``*_backward``: the operators of ``tools/mutate.py`` (a term
dropped, a sign, a transposition, swapped arguments, a mean for a sum, …) and those below (a factor of 1.001 or
-1, the first or the last step left out, another gate). The edited code is put into the very function object, so
whoever holds the function runs it; then the pairs of ``stg_np.checks`` that call it are checked until one fails.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import pytest

from stg_np.checks import Pair, package_pairs
from stg_np.fast import conv as fast_conv
from stg_np.fast import walks as fast
from stg_np.gradcheck import check_pair
from tests.test_checks import code_run_by, pair_functions
from tools.equivalent_mutants import EQUIVALENT
from tools.mutate import mutants

GATES = ("i", "u", "o", "z")

MODELS = ("sequence", "patches, input-only, full", "dropout")
"""The pairs that reach every line of the model; what a small pair reaches is checked without a model."""


class Planted(NamedTuple):
    """The code of a backward with one error in it."""

    edit: str
    code: CodeType


def planted(name: str, function: Callable[..., Any]) -> Iterator[Planted]:
    """Every error, each in a copy of its own."""
    name = name.removeprefix("stg_np.")
    source = textwrap.dedent(inspect.getsource(function))
    for mutant in mutants(source):
        yield Planted(f"{name}: {mutant.before} -> {mutant.after}", _code(ast.parse(mutant.source)))
    tree = ast.parse(source)
    for place, node in enumerate(ast.walk(tree)):
        for new in _replacements(node):
            changed = copy.deepcopy(tree)
            old = list(ast.walk(changed))[place]
            edit = f"{name}: {ast.unparse(node)} -> {ast.unparse(new)}"
            yield Planted(edit, _code(_Replace(old, new).visit(changed)))


def _replacements(node: ast.AST) -> Iterator[ast.expr]:
    """What is no swap of operators: a factor, a missing step, another gate."""
    if isinstance(node, ast.BinOp | ast.Call) and _is_number(node):
        yield ast.BinOp(ast.Constant(1.001), ast.Mult(), node)
        yield ast.UnaryOp(ast.USub(), node)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("range", "reversed", "zip"):
        steps = ast.Call(ast.Name("list", ast.Load()), [node], [])
        yield ast.Subscript(steps, ast.Slice(ast.Constant(1)), ast.Load())
        yield ast.Subscript(steps, ast.Slice(None, ast.Constant(-1)), ast.Load())
    if isinstance(node, ast.Attribute) and node.attr in GATES and ast.unparse(node.value).endswith("gates"):
        for gate in GATES:
            if gate != node.attr:
                yield ast.Attribute(node.value, gate, ast.Load())


def _is_number(node: ast.BinOp | ast.Call) -> bool:
    """Whether the value is an array of gradients rather than a size, an index, a tuple or a list."""
    text = ast.unparse(node)
    if "out=" in text:
        return False  # its value is dropped
    if isinstance(node, ast.BinOp):
        return (not isinstance(node.op, ast.BitOr | ast.FloorDiv) and "H" not in text) or "[" in text
    return text.split("(")[0].rsplit(".", 1)[-1] in ("sum", "mean", "matmul", "outer_sum", "concatenate", "stack")


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return copy.deepcopy(self.new) if node is self.old else self.generic_visit(node)


def _code(tree: ast.Module) -> CodeType:
    module = compile(ast.fix_missing_locations(tree), "<planted>", "exec", dont_inherit=True)
    return next(constant for constant in module.co_consts if isinstance(constant, CodeType))


@cache
def pairs_and_their_code() -> list[tuple[Pair, set[CodeType]]]:
    """The pairs of the package, and what the backward of each runs."""
    found = []
    for pair in package_pairs(np.random.default_rng(0)):

        def run(pair: Pair = pair) -> None:
            outputs, kept = pair.forward(**pair.inputs)
            pair.backward(outputs, kept)

        found.append((pair, code_run_by(run)))
    return found


def pairs_for(function: Callable[..., Any]) -> list[Pair]:
    """The pairs that call a function: so many small ones that every kind is among them, or else models."""
    pairs = [pair for pair, ran in pairs_and_their_code() if function.__code__ in ran]
    small = [pair for pair in pairs if "STG" not in pair.name]
    return small[:18] or [pair for pair in pairs if any(part in pair.name for part in MODELS)]


def is_caught(pairs: list[Pair]) -> bool:
    """Whether the checker fails for one of the pairs; an error that cannot even run is caught as well."""
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(fast, "CHUNK_BYTES", 256)  # several chunks in a short sequence, and in a small batch
        patch.setattr(fast_conv, "CHUNK_BYTES", 256)
        for pair in pairs:
            try:
                report = check_pair(
                    pair.forward, pair.backward, pair.inputs, directions=2, jacobian=False, locate=False
                )
            except Exception:
                return True
            if not report.ok:
                return True
    return False


@pytest.mark.parametrize("name", pair_functions())
def test_every_planted_error_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = pair_functions()[name]
    code = function.__code__
    pairs = pairs_for(function)
    assert pairs, "stg_np/checks.py does not check it"
    assert not is_caught(pairs), "the original must pass"
    survivors, explained = [], set()
    for error in planted(name, function):
        monkeypatch.setattr(function, "__code__", error.code.replace(co_name=code.co_name))
        caught = is_caught(pairs)
        reasons = [pattern for pattern in EQUIVALENT if re.match(pattern, error.edit)]
        if not caught and not reasons:
            survivors.append(error.edit)
        elif not caught:
            explained.update(reasons)
    monkeypatch.setattr(function, "__code__", code)
    assert not survivors, "\n".join(["the checker saw no error in:", *dict.fromkeys(survivors)])
    specific = [pattern for pattern in EQUIVALENT if not pattern.startswith(".*")]
    claimed = {pattern for pattern in specific if re.fullmatch(pattern.split(":")[0], name.removeprefix("stg_np."))}
    assert claimed <= explained, "these are called equivalent, but none of them survived"
