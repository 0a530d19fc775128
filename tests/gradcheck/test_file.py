"""``stg-np gradcheck FILE.py``: the pairs of a user's own file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stg_np.commands.gradcheck import EPILOG
from tests.runs.used import Result, Stg, runner

SQUARE = """
import numpy as np

def square_forward(x):
    return x * x, x

def square_backward(dy, x):
    return 2 * x * dy

square_inputs = {"x": np.linspace(-1, 1, 6).reshape(2, 3)}
"""

DENSE = """
class Dense:
    def __init__(self, inputs, outputs):
        self.W, self.b = np.linspace(-1, 1, inputs * outputs).reshape(inputs, outputs), np.ones(outputs)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dy):
        self.dW, self.db = self.x.T @ dy, dy.sum(0)
        return dy @ self.W.T

"""


@pytest.fixture
def stg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stg:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


def check(stg: Stg, code: str, *options: str) -> Result:
    Path("mine.py").write_text(code)
    return stg("gradcheck", "mine.py", *options)


def test_the_example_of_the_help_is_right(stg: Stg) -> None:
    lines = [line[2:] for line in EPILOG.splitlines() if line.startswith("  ") and "stg-np" not in line]
    result = check(stg, "\n".join(lines).replace("dense_layer", DENSE + "dense_layer"))
    assert (result.code, result.err) == (0, "")
    table = result.out.splitlines()
    assert [line.split()[:2] for line in table[1:3]] == [["swish", "ok"], ["dense", "ok"]]
    assert table[-1] == "2 pairs, all right"


def test_a_wrong_pair_costs_the_exit_code_and_the_others_are_checked(stg: Stg) -> None:
    late = """
def double_forward(x):
    return 2 * x, None
def double_backward(dy, _):
    return 3 * dy
double_inputs = square_inputs
def broken_forward(x):
    return x, None
def broken_backward(dy, _):
    raise ValueError("gone\\x1b[2J")
broken_inputs = square_inputs
def left_forward(x):
    raise SystemExit
left_backward = broken_backward
left_inputs = square_inputs
"""
    result = check(stg, SQUARE + late)
    assert result.code == 1
    assert "4 pairs, 3 failed" in result.out
    assert "analytic = 1.5 × numeric" in result.out
    assert "ValueError: gone\\x1b[2J (line 20: raise ValueError(" in result.out
    assert "SystemExit (line 23: raise SystemExit)" in result.out
    assert result.err == ""


def test_what_the_file_prints_is_not_the_json(stg: Stg) -> None:
    loud = SQUARE.replace("    return x * x", "    print('called')\n    return x * x") + "print('run')"
    result = check(stg, loud, "--json")
    (report,) = json.loads(result.out)
    assert (result.code, report["name"], report["status"]) == (0, "square", "ok")
    assert result.err.startswith("run\ncalled\n")


def test_inputs_by_a_function_options_and_a_module_beside_the_file(stg: Stg) -> None:
    Path("beside_mine.py").write_text(SQUARE)
    code = "from beside_mine import *\ndef square_inputs():\n    return {'x': np.ones(3)}\n"
    before, loaded = list(sys.path), set(sys.modules)
    result = check(stg, code + "square_options = {'name': 'mine', 'float32': False}\n_own_forward = 1\n")
    assert (result.code, result.out.splitlines()[1].split()[:2]) == (0, ["mine", "ok"])
    assert sys.path == before
    assert {name for name in set(sys.modules) - loaded if "mine" in name or "checked" in name} == {"beside_mine"}
    del sys.modules["beside_mine"]
    Path("beside_mine.py").write_text("import numpy as np\nimport sys\nsys.path.clear()\n" + SQUARE)
    result = check(stg, "from beside_mine import square_forward, square_backward\n")
    sys.path[:] = before
    del sys.modules["beside_mine"]
    assert result.refused("mine.py has no pair")  # what was imported is not the file's, unless it has inputs for it


def test_inputs_go_to_the_device(stg: Stg, stand_in: object) -> None:
    code = SQUARE.replace("return x * x, x", "assert not isinstance(x, np.ndarray)\n    return x * x, x")
    assert check(stg, code).code == 1
    assert check(stg, code, "--device", "cuda").code == 0


REFUSED = {
    "no Python": ("x = = 1", "line 1: invalid syntax"),
    "no text": ("x = '\0'", "it is no Python"),
    "no Python that ends": ("-" * 100_000 + "1", "cannot be read as Python"),
    "an error": ("import numpy as np\n1 / 0", "ZeroDivisionError: division by zero (line 2: 1 / 0)"),
    "an exit": ("raise SystemExit('bye')", "SystemExit: bye"),
    "a missing package": ("import no_such_package_of_mine", "No module named 'no_such_package_of_mine'"),
    "nothing": ("", "has no pair: define NAME_forward, NAME_backward and NAME_inputs"),
    "no inputs": (SQUARE.replace("square_inputs", "inputs"), "lacks square_inputs, which belongs to square_forward"),
    "no backward": (SQUARE.replace("square_backward", "backward"), "lacks square_backward"),
    "no function": (SQUARE + "square_backward = 2", "square_backward must be a function, not int"),
    "a class": (SQUARE + DENSE + "a_layer, a_inputs = Dense, {}", "a_layer must be an object, Dense(…), not the class"),
    "inputs in a row": (SQUARE + "square_inputs = [1.0]", "square_inputs must be a dictionary by names"),
    "inputs that fail": (SQUARE + "def square_inputs(): return 1 / 0", "ZeroDivisionError"),
    "inputs of text": (SQUARE + "square_inputs = {'x': 'text'}", "square cannot be checked: input x"),
    "an unknown option": (SQUARE + "square_options = {'epsilon': 1}", "unexpected keyword argument 'epsilon'"),
    "an option out of range": (SQUARE + "square_options = {'eps': -1}", "eps must be between 0 and 1"),
    "options in a row": (SQUARE + "square_options = [1]", "square_options must be a dictionary"),
    "a layer without methods": (SQUARE + "a_layer, a_inputs = object(), square_inputs", "object has no attribute"),
}


@pytest.mark.parametrize(("code", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_checked_is_refused_in_one_sentence(stg: Stg, code: str, text: str) -> None:
    result = check(stg, code)
    assert result.refused("mine.py", text), result.err
    assert result.out == ""


def test_what_is_no_file_is_refused(stg: Stg) -> None:
    assert stg("gradcheck", "none.py").refused("none.py")
    assert stg("gradcheck", ".").refused("refuses")
    assert check(stg, "#" * (1 << 20) + "\n").refused("mine.py", "more than")
