"""The mutation tester under test: it makes the errors that it promises, plants them, and sees what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stg_np.models import steps
from stg_np.models.stg import STG
from stg_np.ops import norm
from tools.mutate.mutants import mutants
from tools.mutate.planting import plant
from tools.mutate.processes import each_in_a_fork, in_a_fork

ROOT = Path(__file__).parent.parent

# JAX, where another test of the same process has loaded it, warns of any fork.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

SOURCE = '''\
from __future__ import annotations
from typing import NamedTuple
import numpy as np
Array = np.ndarray


class Model(NamedTuple):
    """Words are left alone."""
    width: int
    memory_width: int
    alternate: bool

    def turns(self, layer: int) -> bool:
        return self.alternate and layer % 2 == 1

    def pooled(self, h: Array, reads: bool) -> Array:
        return last_pool_forward(h, self.memory_width) if reads else h


class State(NamedTuple):
    step: int


def f_backward(dy, cache):
    """Words are left alone."""
    x, W = cache
    dW = 0.5 * x.T @ dy + W
    for t in reversed(range(1, len(x))):
        dW += x[t]
    if t > 0:
        raise ValueError("wordings too")
    return dy @ W.T, dW.sum(axis=0)


def make_record(now: State, done: int):
    seen = done * 16
    return seen / max(done, 1)


def walk(memories: Array, work):
    gates = empty(work, "gates", 4)
    v = empty(work, "v", 4)
    return memories[-1].copy()


def shard(run: Model, x: Array, seed: int, number: int):
    rng = np.random.default_rng([seed, number])
    with quiet():
        return augment(x, rng) if 0 <= number < 9 else x + x
'''


def names_of(source: str) -> dict[str, Any]:
    """What a module with this source has defined."""
    module = ModuleType("module_under_mutation")
    sys.modules[module.__name__] = module
    exec(compile(source, module.__name__, "exec"), vars(module))
    return vars(module)


EVERY_LINE = {mutant.after for mutant in mutants(SOURCE, names=names_of(SOURCE))}


@pytest.mark.parametrize(
    "line",
    [
        "dW = x.T @ dy + W",  # a term dropped
        "dW = 0.55 * x.T @ dy + W",  # a factor
        "dW = 1.001 * (0.5 * x.T @ dy) + W",  # a small one
        "dW = 0.5 * x @ dy + W",  # a transpose forgotten
        "dW = 0.5 * x.T @ dy - W",  # a sign
        "for t in range(1, len(x)):",  # the wrong order
        "for t in reversed(range(2, len(x))):",  # the first step forgotten
        "for t in [*reversed(range(1, len(x)))][:-1]:",  # the last
        "for t in [*reversed(range(1, len(x)))][:2]:",  # and everything after the second
        "dW -= x[t]",
        "dW = x[t]",  # assigned instead of accumulated
        "pass",  # a statement deleted
        "if t >= 0:",
        "if t == 1:",  # the second of a series is right, the third is not
        "if False:",
        "return (dy @ W.T, dW.mean(axis=0))",
        "return (dy @ W.T, dW.sum(axis=1))",
        "return self.alternate and layer >= 1",  # the third of a series
        "return self.alternate and layer == 1",
        "return last_pool_forward(h, self.width) if reads else h",  # another of the type: a field
        "return last_pool_forward(h, self.memory_width) if self.alternate else h",
        "seen = now.step * 16",  # and a variable
        "return seen / done",  # a bound
        "return memories[-1]",  # a copy dropped
        "return memories[0].copy()",
        "v = empty(work, 'gates', 4)",  # one memory for two arrays
        "rng = np.random.default_rng([seed])",  # the same numbers for everybody
        "rng = np.random.default_rng()",  # other numbers every time
        "return augment(x, __import__('numpy').random.default_rng(0)) if 0 <= number < 9 else x + x",
        "return augment(x, rng) if 0 <= number <= 9 else x + x",  # a link of a chain
        "return augment(x, rng) if 0 <= number < 9 else __import__('operator').iadd(x, x)",  # an argument written into
        "if True:",  # without what surrounds it
    ],
)
def test_these_errors_are_made(line: str) -> None:
    assert line in EVERY_LINE


def test_every_mutant_is_one_function_with_one_edit() -> None:
    found = list(mutants(SOURCE))
    assert len({(mutant.function, mutant.text) for mutant in found}) == len(found)
    lines = SOURCE.splitlines()
    for mutant in found:
        assert compile(mutant.text, "", "exec")
        assert mutant.before != mutant.after
        assert "Words" not in mutant.before + mutant.after
        assert "wordings" not in mutant.before + mutant.after
        assert set(mutant.lines) <= set(range(1, len(lines) + 1))
    assert {mutant.function for mutant in mutants(SOURCE, "_backward$")} == {"f_backward"}


def test_a_mutant_knows_the_lines_of_its_statement() -> None:
    place = SOURCE.splitlines().index("        dW += x[t]") + 1
    assert {mutant.lines for mutant in mutants(SOURCE) if mutant.after == "dW -= x[t]"} == {range(place, place + 1)}


def exit_code(work: Callable[[], int], timeout: float = 60) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(in_a_fork(work, timeout), 0)[1])


def test_whoever_holds_the_function_runs_the_mutant() -> None:
    held = norm.rms_norm_forward

    def scale_of_a_mutant() -> int:
        for mutant in mutants(Path(str(norm.__file__)).read_text(), "rms_norm_forward"):
            if mutant.after == "scale = (mean_square + epsilon) ** 0.5":
                plant(mutant, norm)
        scale: float = held(np.zeros(1))[1].scale.item()
        return round(1000 * scale)

    assert exit_code(scale_of_a_mutant) == 3  # of zeros √ε, where it should be 1 / √ε
    assert held(np.zeros(1))[1].scale.item() == pytest.approx(1e-5**-0.5)  # the mutant lived in the child only


def test_a_property_can_be_mutated() -> None:
    def columns() -> int:
        for mutant in mutants(Path(str(steps.__file__)).read_text(), "is_picture"):
            if mutant.after == "return len(self.input_shape) != 3":
                plant(mutant, steps)
        return STG((4, 3), 2).is_picture

    assert exit_code(columns) == 1


def test_what_hangs_breaks_or_takes_all_memory_is_stopped() -> None:
    assert exit_code(lambda: signal.sigwait([signal.SIGUSR1]), timeout=0.02) == -signal.SIGALRM
    assert exit_code(lambda: 1 // 0) == 255
    assert exit_code(lambda: len(bytearray(1 << 40))) == 255


def test_nothing_outlives_a_mutant() -> None:
    reading, writing = os.pipe()

    def leave_a_child_behind() -> int:
        subprocess.Popen(["sleep", "60"], pass_fds=[writing])  # it holds the other end of the pipe until it is gone
        return 7

    assert list(each_in_a_fork([leave_a_child_behind], jobs=2, timeout=60)) == [(0, 7)]
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_the_program(tmp_path: Path) -> None:
    """Both stages on one function: nothing survives, and the tests alone notice what no gradient shows."""
    out = tmp_path / "mutation.md"
    module = "stg_np/ops/activations.py"
    options = ["--module", module, "--functions", "relu_backward", "--jobs", "1", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "tools.mutate", *options], cwd=ROOT, check=True, capture_output=True)
    total = next(line for line in out.read_text().splitlines() if line.startswith("| all |"))
    mutants, by_checker, by_tests, crashed, equivalent, survived = map(int, total.split("|")[2:-1])
    assert mutants == by_checker + by_tests + equivalent
    assert (by_tests, crashed, equivalent, survived) == (1, 0, 1, 0)  # at 0 there is no gradient to check
