"""The mutation tester under test: it makes the errors of a hand-written backward, and nothing that cannot be parsed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.mutate import mutants

SOURCE = '''\
def f_backward(dy, cache):
    """Words are left alone."""
    x, W = cache
    dW = 0.5 * x.T @ dy + W
    for t in reversed(range(1, len(x))):
        dW += x[t]
    if t > 0:
        raise ValueError("wordings too")
    return dy @ W.T, dW.sum(axis=0)


def other(x):
    return x + 1
'''


@pytest.mark.parametrize(
    "line",
    [
        "dW = x.T @ dy + W",  # a term dropped
        "dW = 0.55 * x.T @ dy + W",  # a factor
        "dW = 0.5 * x @ dy + W",  # a transpose forgotten
        "dW = 0.5 * x.T @ dy - W",  # a sign
        "dW = 0.5 * x.T @ dy",
        "for t in range(1, len(x)):",  # the wrong order
        "for t in reversed(range(2, len(x))):",  # the first step forgotten
        "dW -= x[t]",
        "dW = x[t]",  # assigned instead of accumulated
        "pass",  # a statement deleted
        "if t >= 0:",
        "if False:",
        "return (dy @ W.T, dW.mean(axis=0))",
        "return (dy @ W.T, dW.sum(axis=1))",
    ],
)
def test_errors_of_a_backward_are_made(line: str) -> None:
    assert line in {mutant.after for mutant in mutants(SOURCE)}


def test_every_mutant_is_one_edit_that_parses() -> None:
    found = list(mutants(SOURCE))
    assert len({mutant.source for mutant in found}) == len(found)
    for mutant in found:
        ast.parse(mutant.source)
        assert mutant.source != SOURCE
        assert "Words are left alone." in mutant.source
        assert "wordings too" in mutant.source
    assert {mutant.function for mutant in mutants(SOURCE, "_backward$")} == {"f_backward"}


def test_mutants_of_a_real_module_compile() -> None:
    path = Path(__file__).parent.parent / "stg_np" / "ops" / "activations.py"
    for mutant in mutants(path.read_text()):
        compile(mutant.source, str(path), "exec")
