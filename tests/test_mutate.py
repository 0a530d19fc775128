"""The mutation tester under test: it makes the errors of a hand-written backward, and nothing that cannot be parsed."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stg_np.models import stg
from stg_np.ops import norm
from tools.mutate import in_a_fork, mutants, plant

ROOT = Path(__file__).parent.parent

# JAX, where another test of the same process has loaded it, warns of any fork.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

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
    path = ROOT / "stg_np" / "ops" / "activations.py"
    for mutant in mutants(path.read_text()):
        compile(mutant.source, str(path), "exec")


def exit_code(work: Callable[[], int], timeout: float = 60) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(in_a_fork(work, timeout), 0)[1])


def test_whoever_holds_the_function_runs_the_mutant() -> None:
    held = norm.rms_norm_forward

    def epsilon_of_a_mutant() -> int:
        for mutant in mutants(Path(str(norm.__file__)).read_text(), "rms_norm_forward"):
            if "epsilon: float=1.1" in mutant.after:
                plant(mutant, norm)
        epsilon: float = held(np.zeros(1))[1].scale.item() ** -2
        return round(epsilon * 1e6)  # of zeros the scale is 1 / √ε

    assert exit_code(epsilon_of_a_mutant) == 11
    assert held(np.zeros(1))[1].scale.item() == pytest.approx(1e-5**-0.5)  # the mutant lived in the child only


def test_a_property_can_be_mutated() -> None:
    def columns() -> int:
        for mutant in mutants(Path(str(stg.__file__)).read_text(), "is_picture"):
            if mutant.after == "return len(self.input_shape) != 3":
                plant(mutant, stg)
        return stg.STG((4, 3), 2).is_picture

    assert exit_code(columns) == 1


def test_what_hangs_or_breaks_is_stopped() -> None:
    assert exit_code(lambda: signal.sigwait([signal.SIGUSR1]), timeout=1) == -signal.SIGALRM
    assert exit_code(lambda: 1 // 0) == 255


def test_the_program(tmp_path: Path) -> None:
    """Both stages on one function: nothing survives, and the tests alone notice what no gradient shows."""
    out = tmp_path / "mutation.md"
    options = [
        "--module",
        "stg_np/ops/activations.py",
        "--functions",
        "relu_backward",
        "--jobs",
        "1",
        "--out",
        str(out),
    ]
    subprocess.run([sys.executable, "-m", "tools.mutate", *options], cwd=ROOT, check=True, capture_output=True)
    total = next(line for line in out.read_text().splitlines() if line.startswith("| all |"))
    mutants, by_checker, by_tests, crashed, equivalent, survived = map(int, total.split("|")[2:-1])
    assert mutants == by_checker + by_tests
    assert (by_tests, crashed, equivalent, survived) == (1, 0, 0, 0)
