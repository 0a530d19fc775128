"""Mutation testing: change one thing in the source, and see whether anything notices.

    python -m tools.mutate --out benchmarks/results/mutation.md
    python -m tools.mutate --module stg_np/stm.py --functions scan

Every mutant is one edit of the syntax tree: an operator swapped, a term dropped, a constant or an index changed, a
comparison flipped, ``.T`` removed, two arguments swapped, another axis, a statement deleted, a branch never taken.
Everything is imported once; then each mutant has a process of its own, forked from this one, which puts the edited
code into the very function object, so that whoever holds the function runs it. There it meets first the gradient
checker, on the small pairs of ``stg_np.checks`` that call the function, and then those tests of its module
(``stg_np/ops/conv.py`` is tested by ``tests/ops/test_conv.py``) that call it, the quickest first, until one fails.
Hypothesis draws the same examples
every time and shrinks nothing. What survives must be explained in ``tools/equivalent_mutants.py``; the exit
status is 1 if something is not. POSIX only.

Why not mutmut: it knows nothing of ``.T``, axes and dropped terms, which are the errors of a hand-written backward;
and a pytest process for each of 2,500 mutants takes hours.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import re
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import pytest

from tools.equivalent_mutants import EQUIVALENT

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("stg_np/ops/*.py", "stg_np/stm*.py", "stg_np/layers/*.py", "stg_np/fast/*.py", "stg_np/models/*.py")
"""The modules with backward code."""
PYTEST = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:xdist")
MEMORY = 4 << 30
"""Bytes a mutant may allocate."""
BY_CHECKER, BY_TESTS, STOPPED, EXPLAINED, SURVIVED = OUTCOMES = (
    "killed by the checker",
    "killed by the tests",
    "crashed or hung",
    "equivalent",
    "survived",
)
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In},
}
FLIPPED: dict[type[ast.AST], type[ast.AST]] = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
COMMUTATIVE = {
    "maximum",
    "minimum",
    "add",
    "multiply",
    "max",
    "min",
    "get_xp",
    "isinstance",
    "array_equal",
}  # or meaningless to swap


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


# --- one mutant in a process of its own ----------------------------------------------------------------------


class Subject(NamedTuple):
    """A module, its source, and which of its tests run which code, the quickest first."""

    path: Path
    module: ModuleType
    source: str
    tests: list[tuple[str, set[CodeType]]]

    @property
    def name(self) -> str:
        """As the table of equivalents has it."""
        return self.module.__name__.removeprefix("stg_np.")


def function_of(namespace: dict[str, Any], dotted: str) -> FunctionType:
    """The function (or the getter of the property) with this dotted name."""
    owner, *names = dotted.split(".")
    value = namespace[owner]
    for name in names:
        value = vars(value)[name]
    function: FunctionType = getattr(value, "fget", value)
    return function


def plant(mutant: Mutant, module: ModuleType) -> None:
    """Give the living function the code and the defaults of the mutant."""
    namespace: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(mutant.source, str(module.__file__), "exec", dont_inherit=True), namespace)
    old, new = (function_of(names, mutant.function) for names in (vars(module), namespace))
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def in_a_fork(work: Callable[[], int], timeout: float) -> int:
    """Start ``work`` in a silent child, which exits with its result; returns the child's id."""
    if child := os.fork():
        return child
    status = 255
    try:
        import resource  # POSIX only

        signal.alarm(round(timeout))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        status = work()
    finally:
        os._exit(status)


def outcome_of(mutant: Mutant, subject: Subject, pairs: list[Any], tests: list[str]) -> int:
    """The place in :data:`OUTCOMES`; run in a child."""
    from tests.test_planted_errors import is_caught

    try:
        plant(mutant, subject.module)
    except Exception:
        return OUTCOMES.index(BY_TESTS)  # nobody could import it
    if is_caught(pairs):
        return OUTCOMES.index(BY_CHECKER)
    return OUTCOMES.index(BY_TESTS if tests and pytest.main([*PYTEST, *tests]) else SURVIVED)


def outcomes(found: list[Mutant], subject: Subject, jobs: int, timeout: float) -> Iterator[tuple[int, str]]:
    """The number of each mutant and what became of it, in the order in which they end."""
    from tests.test_planted_errors import is_caught, pairs_for

    meets: dict[str, tuple[list[Any], list[str]]] = {}
    for name in {mutant.function for mutant in found}:
        function = function_of(vars(subject.module), name)
        meets[name] = pairs_for(function), [test for test, ran in subject.tests if function.__code__ in ran]
        if is_caught(meets[name][0]):
            raise SystemExit(f"the checker complains of {name} without any mutant")
    waiting, running = list(enumerate(found))[::-1], dict[int, int]()
    while waiting or running:
        while waiting and len(running) < jobs:
            number, mutant = waiting.pop()
            work = partial(outcome_of, mutant, subject, *meets[mutant.function])
            running[in_a_fork(work, timeout)] = number
        child, status = os.wait()
        if child in running:
            code = os.waitstatus_to_exitcode(status)
            yield running.pop(child), OUTCOMES[code] if code in range(len(OUTCOMES)) else STOPPED


def reason(mutant: Mutant, subject: Subject) -> str | None:
    """Why the mutant is equivalent, if it is."""
    edit = f"{subject.name}.{mutant.function}: {mutant.before} -> {mutant.after}"
    return next((why for pattern, why in EQUIVALENT.items() if re.match(pattern, edit)), None)


# --- all of them ---------------------------------------------------------------------------------------------


class Watch:
    """A plugin of pytest that notes which code each test runs, and how long it takes."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str, set[CodeType]]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        ran: set[CodeType] = set()
        started = time.perf_counter()
        sys.setprofile(lambda frame, event, argument: ran.add(frame.f_code))
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            self.seen.append((time.perf_counter() - started, item.nodeid, ran))


def warm(path: Path, tests: str) -> Subject:
    """Import a module and run its tests once; they must pass."""
    names = tests or str(Path("tests", *path.parts[1:-1], f"test_{path.name}"))
    watch = Watch()
    if pytest.main([*PYTEST, *shlex.split(names)], plugins=[watch]):
        raise SystemExit(f"{names}: the tests fail without any mutant")
    by_time = [(test, ran) for _, test, ran in sorted(watch.seen, key=lambda seen: seen[:2])]
    return Subject(path, importlib.import_module(".".join(path.with_suffix("").parts)), path.read_text(), by_time)


def settle() -> None:
    """One thread, since this process forks; and Hypothesis the same every time, without shrinking."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutation", max_examples=50, derandomize=True, database=None, deadline=None,
        phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    os.environ["STG_NP_PROFILE"] = "mutation"


def report(results: dict[Path, Counter[str]], lines: list[str], seconds: float) -> str:
    """The table in Markdown, and one line for each mutant that was not killed."""
    command = f"python -m tools.mutate {shlex.join(sys.argv[1:])}".strip()
    text = ["# Mutants", "", f"`{command}` ({seconds / 60:.0f} minutes). What a mutant is, and what becomes of it:"]
    text += ["[tools/mutate.py](../mutate.py).", "", f"| module | mutants | {' | '.join(OUTCOMES)} |"]
    text += ["| --- |" + " --- |" * (len(OUTCOMES) + 1)]
    for name, counts in [*results.items(), ("all", sum(results.values(), Counter()))]:
        row = [str(name), counts.total(), *(counts[outcome] for outcome in OUTCOMES)]
        text.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join([*text, "", "## Not killed, and why", "", *(lines or ["None."])]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", type=Path, action="append", help="file to mutate; repeatable (default: all)")
    parser.add_argument("--tests", default="", help="arguments of pytest instead of the tests of the module")
    parser.add_argument("--functions", default="", help="only functions whose dotted name matches this pattern")
    parser.add_argument("--out", type=Path, help="Markdown file to write (default: standard output)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds per mutant; beyond it counts as killed")
    parser.add_argument("--every", type=int, default=1, help="try only every N-th mutant")
    options = parser.parse_args()
    started = time.monotonic()
    os.chdir(ROOT)
    settle()
    every_module = [path.relative_to(ROOT) for pattern in MODULES for path in sorted(ROOT.glob(pattern))]
    results, lines = {}, []
    for path in options.module or [path for path in every_module if path.name != "__init__.py"]:
        subject = warm(path.resolve().relative_to(ROOT), options.tests)
        found = list(mutants(subject.source, options.functions))[:: options.every]
        counts = results[subject.path] = Counter[str]()
        explained = {}
        for number, outcome in outcomes(found, subject, options.jobs, options.timeout):
            mutant = found[number]
            why = reason(mutant, subject) if outcome == SURVIVED else None
            counts[EXPLAINED if why else outcome] += 1
            if outcome == SURVIVED:
                place = f"`{subject.path}:{mutant.line}`, {mutant.kind}: `{mutant.before}` → `{mutant.after}`"
                explained[number] = f"* {place}: {why or '**SURVIVED**'}"
                print(explained[number], file=sys.stderr)
        print(f"{subject.path}: {dict(counts)}, {time.monotonic() - started:.0f} s", file=sys.stderr)
        lines += [explained[number] for number in sorted(explained)]
    text = report(results, lines, time.monotonic() - started)
    options.out.write_text(text) if options.out else print(text)
    return 1 if any(counts[SURVIVED] for counts in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
