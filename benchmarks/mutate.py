"""Mutation testing: change one thing in the source, and see whether a test notices.

    python benchmarks/mutate.py --module stg_np/stm.py --tests "tests/test_stm.py" --out benchmarks/results/mutation.md

Every mutant is one edit of the syntax tree: an operator swapped, a term dropped, a constant or an index changed, a
comparison flipped, ``.T`` removed, two arguments swapped, another axis, a statement deleted, a branch never taken.
It is written into a private copy of the package, the tests run on it until the first failure, and the table says
which mutants nobody noticed, with the line before and after. It exits with 1 if one survived.

Why not mutmut: it knows nothing of ``.T``, axes and dropped terms, which are the errors of a hand-written backward.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("stg_np", "tests", "tutorials", "benchmarks", "pyproject.toml", "README.md", "Makefile")
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In},
}
FLIPPED: dict[type[ast.AST], type[ast.AST]] = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
COMMUTATIVE = {"maximum", "minimum", "add", "multiply", "isinstance", "array_equal"}  # or meaningless to swap


class Mutant(NamedTuple):
    """One edit: the kind, the function it lies in, its line, and the whole new source."""

    kind: str
    function: str
    line: int
    before: str
    after: str
    source: str


def replacements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in the place of ``node``, with the kind of error that this is."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in SWAPPED:
            yield "operator", ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)  # type: ignore[arg-type]
        if isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
            yield "term dropped", node.left
            if not isinstance(node.op, ast.Div):
                yield "term dropped", node.right
    elif isinstance(node, ast.AugAssign) and type(node.op) in SWAPPED:
        yield "operator", ast.AugAssign(node.target, SWAPPED[type(node.op)](), node.value)  # type: ignore[arg-type]
        yield "operator", ast.Assign([node.target], node.value)
    elif isinstance(node, ast.UnaryOp):
        yield "sign or not", node.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for table in (SWAPPED, FLIPPED):
            if type(node.ops[0]) in table:
                yield "comparison", ast.Compare(node.left, [table[type(node.ops[0])]()], node.comparators)  # type: ignore[list-item]
    elif isinstance(node, ast.BoolOp):
        yield "and/or", ast.BoolOp(SWAPPED[type(node.op)](), node.values)  # type: ignore[arg-type]
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield "constant", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield "constant", ast.Constant(node.value * 1.1 or 1.0)
    elif isinstance(node, ast.Attribute) and node.attr == "T" and isinstance(node.ctx, ast.Load):
        yield ".T removed", node.value
    elif isinstance(node, ast.Call):
        yield from _call_replacements(node)
    elif isinstance(node, ast.IfExp):
        yield "branch", node.body
        yield "branch", node.orelse
    elif isinstance(node, ast.If):
        yield "branch", ast.If(ast.Constant(True), node.body, node.orelse)
        yield "branch", ast.If(ast.Constant(False), node.body, node.orelse)
    elif isinstance(node, ast.Slice):
        for part in ("lower", "upper", "step"):
            if getattr(node, part) is not None:
                yield (
                    "slice",
                    ast.Slice(*(None if name == part else getattr(node, name) for name in ("lower", "upper", "step"))),
                )


def _call_replacements(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    positional = node.args
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    for i in range(0 if name in COMMUTATIVE else len(positional) - 1):
        swapped = [*positional[:i], positional[i + 1], positional[i], *positional[i + 2 :]]
        yield "arguments swapped", ast.Call(node.func, swapped, node.keywords)
    for keyword in node.keywords:
        rest = [other for other in node.keywords if other is not keyword]
        yield "keyword dropped", ast.Call(node.func, positional, rest)
    if isinstance(node.func, ast.Attribute):
        renamed = {"sum": "mean", "mean": "sum", "maximum": "minimum", "minimum": "maximum", "zeros": "ones"}
        renamed |= {"zeros_like": "ones_like", "max": "min", "min": "max", "sqrt": "abs"}
        if node.func.attr in renamed:
            function = ast.Attribute(node.func.value, renamed[node.func.attr], ast.Load())
            yield "function", ast.Call(function, positional, node.keywords)
    if isinstance(node.func, ast.Name) and node.func.id == "reversed":
        yield "order", positional[0]


def mutants(source: str, functions: str = "") -> Iterator[Mutant]:
    """Every mutant of the functions whose dotted name matches the pattern (all of them by default)."""
    for name, function in _functions(ast.parse(source)):
        if re.search(functions, name):
            found = (_mutant(source, name, function, place, kind, new) for place, kind, new in _edits(function))
            yield from {mutant.source: mutant for mutant in found if mutant.before != mutant.after}.values()


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child  # nested functions belong to it
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


Place = tuple[ast.AST, str, int | None]


def _edits(function: ast.FunctionDef) -> Iterator[tuple[Place, str, ast.AST]]:
    """Every place in the body (and the defaults) of a function, and what may stand there instead."""
    pending: list[tuple[ast.AST, str, int | None, ast.AST]] = []

    def children(node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_comment"):
                continue  # types are no behaviour
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST):
                    pending.append((node, field, index, child))

    children(function)
    while pending:
        parent, field, index, node = pending.pop(0)
        if isinstance(node, (ast.Raise, ast.JoinedStr)) or _is_text(node):
            continue  # wordings are not mutated; whether they are raised is, by the condition
        for kind, new in replacements(node):
            yield (parent, field, index), kind, new
        if field in ("body", "orelse") and isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr)):
            yield (parent, field, index), "statement deleted", ast.Pass()
        children(node)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _mutant(source: str, name: str, function: ast.FunctionDef, place: Place, kind: str, new: ast.AST) -> Mutant:
    """Put ``new`` in its place, write the source, and put the old node back."""
    parent, field, index = place
    container = getattr(parent, field)
    old = container if index is None else container[index]
    before = ast.unparse(function).splitlines()

    def put(node: ast.AST) -> None:
        if index is None:
            setattr(parent, field, node)
        else:
            container[index] = node

    put(ast.copy_location(copy.deepcopy(new), old))
    text = ast.unparse(ast.fix_missing_locations(function))
    put(old)
    after = text.splitlines()
    start = next((i for i, (a, b) in enumerate(zip(before, after)) if a != b), 0)
    lines = source.splitlines(keepends=True)
    body = "".join(f"{' ' * function.col_offset}{line}\n" for line in after)
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)]) - 1
    mutated = "".join([*lines[:first], body, *lines[function.end_lineno :]])
    line = getattr(old, "lineno", function.lineno)
    return Mutant(kind, name, line, before[start].strip(), after[start].strip(), mutated)


def run(mutant: Mutant | None, module: Path, tests: str, copy_of_root: Path, timeout: float) -> str:
    """Run the tests in a copy of the checkout with the mutant in it: "killed", "survived" or "timed out"."""
    original = (ROOT / module).read_text()
    (copy_of_root / module).write_text(mutant.source if mutant else original)
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(copy_of_root), "CI": "1"}
    try:
        done = subprocess.run(command, cwd=copy_of_root, env=environment, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return "timed out"
    finally:
        (copy_of_root / module).write_text(original)
    if mutant is None and done.returncode != 0:
        raise SystemExit(f"the tests fail without any mutant:\n{done.stdout.decode()[-3000:]}{done.stderr.decode()}")
    return "survived" if done.returncode == 0 else "killed"


def table(module: Path, results: list[tuple[Mutant, str]], command: str) -> str:
    """The report in Markdown: counts per function, and every survivor with its line before and after."""
    counts = Counter((mutant.function, outcome) for mutant, outcome in results)
    lines = [f"## `{module.as_posix()}`", "", f"`{command}`", ""]
    lines += ["| function | mutants | killed | survived |", "| --- | --- | --- | --- |"]
    for function in dict.fromkeys(mutant.function for mutant, _ in results):
        survived = counts[function, "survived"]
        total = sum(count for (name, _), count in counts.items() if name == function)
        lines.append(f"| `{function}` | {total} | {total - survived} | {survived} |")
    survivors = [mutant for mutant, outcome in results if outcome == "survived"]
    lines += [f"| all | {len(results)} | {len(results) - len(survivors)} | {len(survivors)} |", ""]
    for mutant in survivors:
        lines += [f"* `{mutant.function}`, line {mutant.line}, {mutant.kind}:", "", "  ```diff"]
        lines += [f"  - {mutant.before}", f"  + {mutant.after}", "  ```", ""]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", type=Path, action="append", required=True, help="file to mutate; repeatable")
    parser.add_argument("--tests", required=True, help="arguments of pytest, in one string")
    parser.add_argument("--functions", default="", help="only functions whose dotted name matches this pattern")
    parser.add_argument("--out", type=Path, help="Markdown file to write (default: standard output)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds per mutant; beyond it counts as killed")
    parser.add_argument("--every", type=int, default=1, help="try only every N-th mutant")
    options = parser.parse_args()
    sections, survived = [], 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            copies.put(_copy_of_root(Path(folder) / str(number)))

        def outcome(module: Path, mutant: Mutant | None) -> str:
            place = copies.get()
            try:
                return run(mutant, module, options.tests, place, options.timeout)
            finally:
                copies.put(place)

        modules = [module.resolve().relative_to(ROOT) for module in options.module]
        outcome(modules[0], None)
        for module in modules:
            found = list(mutants((ROOT / module).read_text(), options.functions))[:: options.every]
            results = []
            for mutant, result in zip(found, pool.map(lambda mutant, module=module: outcome(module, mutant), found)):
                results.append((mutant, result))
                print(f"{len(results)}/{len(found)} {module}:{mutant.line} {mutant.kind}: {result}", file=sys.stderr)
            survived += sum(result == "survived" for _, result in results)
            sections.append(table(module, results, f"python benchmarks/mutate.py {shlex.join(sys.argv[1:])}"))
    text = "\n".join(sections)
    options.out.write_text(text) if options.out else print(text)
    return 1 if survived else 0


def _copy_of_root(folder: Path) -> Path:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        elif (ROOT / name).exists():
            folder.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
