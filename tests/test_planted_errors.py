"""Plant an error in every backward of the package, and see the checker catch it.

Each error is one edit of the syntax tree of one ``*_backward``: the operators of ``benchmarks/mutate.py`` (a term
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

from benchmarks.mutate import mutants
from stg_np import fast, fast_conv, gradcheck
from stg_np.checks import Pair, package_pairs
from stg_np.gradcheck import check_pair
from tests.test_checks import backward_functions, code_run_by

GATES = ("i", "u", "o", "z")

MODELS = ("sequence", "patches, input-only, full", "dropout")
"""The pairs that reach every line of the model; what a small pair reaches is checked without a model."""

READ_BY_NOBODY = "σ', tanh' and identity' need their outputs only (tests/test_stm.py tries one that reads its input)"
EQUIVALENT = {
    r"stm.gates_backward: H = ": READ_BY_NOBODY,
    r"stm.gates_backward: a.shape\[-1\] // 4 -> ": READ_BY_NOBODY,
    r"stm.gates_backward: parts = .*, gates\[g\]\) for g in range\(3\)\]$": READ_BY_NOBODY,
    r"stm.gates_backward: parts.append\(.*, gates.z\)\)$": READ_BY_NOBODY,
    r"stm.gates_backward: g \+ 1 -> ": READ_BY_NOBODY,
    r"fast.stm_backward: if params.w is not None and .* -> if params.w is not None or ": "both are None, or neither",
    r"fast.stm_backward: dgates = .* -> .*zeros\(\(3, ": "one row too many, which nobody reads",
    r"fast.chunk_backward: .*order='C'\) -> ": "the order in memory only",
    r"fast.chunk_backward: .*, out=dms\) -> ": "another array for the same numbers",
    r"fast_conv.conv2d_backward: backward = ": "both ways compute the same gradient",
    r"fast_conv.columns_backward: (for part in chunks|height \* width|k \* k ->)": "how the batch is cut",
    r"fast_conv.columns_backward: dpadded = ": "a wider border, which nobody reads",
    r"fast_conv.columns_backward: dx.*k // 3": "windows of 3 have the same margin; ops.conv is checked with 5",
    r"fast_conv.winograd_backward: .*, out=dU\) -> ": "another array for the same numbers",
    r"fast_conv.winograd_backward: dW = .*, -1\) -> .*, -2\)": "any negative length is inferred",
    r"fast_conv.(input|output)_backward: add_scaled\(.*, 4, ": "a product has no order",
    r"models.stg.STG.layer_backward: dm_T = .*dtype": "the dtype of dm_0, which nobody reads",
    r"models.stg.STG.layer_backward: dy = dropout_backward": "a product has no order",
    r"ops.activations.relu_backward: .* -> return dy \* \(x >= 0\)": "at 0 there is no derivative",
    r"ops.pool2d.max_pool2d_backward: share = ": "differs at ties only, where there is no derivative",
    r"ops.views.patches_backward: .* -> .*(\(height // patch_height, -1,|, c, patch_width\))": "they stay neighbours",
    r"ops.views.patches_backward: .*reshape\(-1, .* -> .*reshape\(-2, ": "any negative length is inferred",
}
"""Edits that change no gradient, as patterns, and why."""


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


def is_caught(pairs: list[Pair]) -> bool:
    """Whether the checker fails for one of the pairs; an error that cannot even run is caught as well."""
    for pair in pairs:
        try:
            report = check_pair(pair.forward, pair.backward, pair.inputs, directions=2, jacobian=False)
        except Exception:
            return True
        if not report.ok:
            return True
    return False


@pytest.mark.parametrize("name", backward_functions())
def test_every_planted_error_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "CHUNK_BYTES", 256)  # several chunks in a short sequence, and in a small batch
    monkeypatch.setattr(fast_conv, "CHUNK_BYTES", 256)
    monkeypatch.setattr(gradcheck, "LOCATE_LIMIT", 1)  # whether, not where: naming the worst entry takes long
    function = backward_functions()[name]
    code = function.__code__
    pairs = [pair for pair, ran in pairs_and_their_code() if code in ran]
    small = [pair for pair in pairs if "STG" not in pair.name]
    pairs = small[:12] or [pair for pair in pairs if any(part in pair.name for part in MODELS)]
    assert pairs, "stg_np/checks.py does not check it"
    assert not is_caught(pairs), "the original must pass"
    survivors, explained = [], set()
    for error in planted(name, function):
        monkeypatch.setattr(function, "__code__", error.code.replace(co_name=code.co_name))
        with np.errstate(all="ignore"):
            caught = is_caught(pairs)
        reasons = [pattern for pattern in EQUIVALENT if re.match(pattern, error.edit)]
        if not caught and not reasons:
            survivors.append(error.edit)
        elif not caught:
            explained.update(reasons)
    monkeypatch.setattr(function, "__code__", code)
    assert not survivors, "\n".join(["the checker saw no error in:", *dict.fromkeys(survivors)])
    claimed = {pattern for pattern in EQUIVALENT if re.match(pattern.split(":")[0], name.removeprefix("stg_np."))}
    assert explained == claimed, "these are called equivalent, but none of them survived"
