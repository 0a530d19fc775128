"""The rules of the house that a reader relies on. (The order of imports is held by `make lint`.)"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stg_np"

READING_PATH = ["stm.py", "ops/linear.py", "ops/losses.py", "models/stack.py", "models/stg.py", "train.py"]
MATHS = ["backend", "workspace", "params", "ops", "stm", "sweep", "models", "optim", "gradcheck", "checks"]

modules = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def every_module(rule: Callable[[str], None]) -> Callable[[], None]:
    """A test that asks a rule of every module; the first that breaks it is named."""

    def test() -> None:
        for module in modules:
            try:
                rule(module)
            except AssertionError as error:
                raise AssertionError(f"{module}: {error}") from error

    test.__doc__ = rule.__doc__
    return test


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def room(module: str) -> str:
    """The first part below the package of a file (``models/stg.py``) or of a dotted name (``stg_np.models.stg``)."""
    return module.removesuffix(".py").removeprefix("stg_np.").replace("/", ".").split(".")[0]


def type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(node: ast.AST, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Dotted names that are imported, and whether that happens inside a function; for the type checker, not at all."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, inside) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            # `from stg_np import stm` names a module, `from stg_np.backend import get_xp` something in one
            at_top = child.module == "stg_np"
            yield from (
                (f"{child.module}.{alias.name}" if at_top else str(child.module), inside) for alias in child.names
            )
        elif not type_checking(child):
            yield from imports(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


@pytest.mark.parametrize("module", READING_PATH)
def test_the_reading_path_does_not_need_the_fast_paths(module: str) -> None:
    at_the_top = {name for name, inside in imports(tree(module)) if not inside}
    assert not any(name.startswith("stg_np.fast") for name in at_the_top)


@every_module
def test_only_two_modules_import_cupy_and_only_inside_functions(module: str) -> None:
    found = [inside for name, inside in imports(tree(module)) if name.split(".")[0].startswith("cupy")]
    assert not found or (module in ("backend.py", "fast/cuda.py") and all(found))


BASES = {"sklearn.py": ("sklearn", "joblib")}
"""Modules whose classes are made of another library's, so that they need it at the top; nothing imports them."""


@every_module
def test_at_the_top_of_a_module_only_numpy_and_the_standard_library_are_imported(module: str) -> None:
    """What is heavy (matplotlib, pooch, tqdm, threadpoolctl, …) is imported by the function that needs it."""
    at_the_top = {name.split(".")[0] for name, inside in imports(tree(module)) if not inside}
    assert at_the_top <= {"numpy", "stg_np", *BASES.get(module, ())} | sys.stdlib_module_names


@every_module
def test_no_pickle_is_executed(module: str) -> None:
    """Only the reader of CIFAR-10's python batches knows of pickle, and uses no function of it that executes one.

    The one program that is executed is the file that a user names to have its pairs checked. The processes of one
    program send pickles to each other, and read none from a file.
    """
    source = (PACKAGE / module).read_text(encoding="utf-8")
    if module == "mpi.py":
        assert "pickle.load(" not in source
        return
    assert not re.search(r"allow_pickle\s*=\s*True|pickle\.loads?\b|\beval\(", source)
    assert ("exec(" in source) == (module == "commands/gradcheck.py")
    from_pickle = {
        name for name, _ in imports(tree(module)) if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill")
    }
    assert not from_pickle or module == "data/python_batch.py"


def documented(node: ast.AST, name: str) -> Iterator[tuple[str, bool]]:
    """Every public definition at any level but inside functions, and whether it has a docstring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not child.name.startswith("_"):
            overload = isinstance(child, ast.FunctionDef) and any(
                "overload" in ast.dump(d) for d in child.decorator_list
            )
            yield f"{name}.{child.name}", overload or bool(ast.get_docstring(child))
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                yield from documented(child, f"{name}.{child.name}")


@every_module
def test_everything_public_is_described(module: str) -> None:
    assert ast.get_docstring(tree(module)), f"{module} does not say what it is"
    assert [name for name, described in documented(tree(module), module) if not described] == []


def names_outside_draws(node: ast.AST) -> Iterator[str]:
    """Attributes that are used, but for those in calls of ``rng.random(…)``: all dtypes share one draw."""
    if isinstance(node, ast.Attribute):
        yield node.attr
    for child in ast.iter_child_nodes(node):
        draw = isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and child.func.attr == "random"
        yield from () if draw else names_outside_draws(child)


@every_module
def test_no_dtype_is_written_into_the_maths(module: str) -> None:
    """dtype follows the input."""
    if room(module) in ("params", "ops", "stm", "sweep", "optim"):
        assert not {"float16", "float32", "float64"} & set(names_outside_draws(tree(module)))


@every_module
def test_nothing_is_printed_below_the_command_line(module: str) -> None:
    if room(module) not in ("commands", "cli", "__main__", "streams"):
        calls = [node.func for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of its files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    roots = "|".join(["work", "root", "tmp/env", r"home/\w+", r"Users/\w+"])
    pattern = re.compile(rf"(?<![\w.~-])/(?:{roots})/[\w.]|\.\./shared".encode())
    for path in tracked_files():
        found = pattern.search(path.read_bytes()) if path != Path(__file__) else None
        assert found is None, f"{path.relative_to(ROOT)} mentions {found.group().decode()}…"


BLOCKED = """
import sys

class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {"numpy", "stg_np"} and top not in sys.stdlib_module_names:
            raise ImportError(f"{name} is blocked", name=top)

sys.meta_path.insert(0, OnlyNumPy())
"""


def run_blocked(code: str) -> str:
    """Run code in a process that can import nothing but NumPy, the standard library and this package."""
    command = [sys.executable, "-W", "error", "-c", BLOCKED + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_maths_works_with_numpy_alone() -> None:
    names = [m.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for m in modules if room(m) in MATHS]
    run_blocked(
        "".join(f"import stg_np.{name}\n" for name in names)
        + """
import numpy as np
from stg_np.models.base import loss_and_grad
from stg_np.models.stg import STG
from stg_np.ops.losses import cross_entropy
from stg_np.optim import ByRole
model = STG((8, 8, 1), 3, width=4)
params, state = model.init(np.random.default_rng(0))
x, labels = np.ones((2, 8, 8, 1), np.float32), np.array([0, 2])
result = loss_and_grad(model, params, state, x, labels, loss=cross_entropy(), weight=0.5)
optimizer = ByRole()
optimizer.update(result.grads, optimizer.init(params), params, 1.0)
"""
    )


def test_every_module_can_be_imported_and_help_be_had_with_numpy_alone() -> None:
    names = [m.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for m in modules]
    left_out = ("__init__", "__main__", *(module.removesuffix(".py") for module in BASES))
    code = "".join(f"import stg_np.{name}\n" for name in names if name not in left_out)
    run_blocked(code + "stg_np.cli.make_parser().format_help()")


def test_importing_the_package_loads_numpy_and_little_else() -> None:
    report = "import numpy\nbefore = set(sys.modules)\nimport stg_np\nprint(*set(sys.modules) - before)"
    loaded = {name.split(".")[0] for name in run_blocked(report).split()}
    assert loaded <= {"stg_np"} | sys.stdlib_module_names
