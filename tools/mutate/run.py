"""The program: learn what every test runs, then let every mutant meet the checker and its tests."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import re
import shlex
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tools import mutate
from tools.equivalent_mutants import EQUIVALENT
from tools.mutate.lines import Lines, lines_run
from tools.mutate.mutants import Mutant, mutants
from tools.mutate.planting import plant
from tools.mutate.processes import each_in_a_fork, set_timeout
from tools.mutate.report import BY_CHECKER, BY_TESTS, EXPLAINED, STOPPED, SURVIVED, Verdict, report

if TYPE_CHECKING:
    from stg_np.checks import Pair
    from tools.mutate.checker import Known

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "stg_np"
MODULES = (
    "ops/*.py",
    "stm*.py",
    "sweep.py",
    "layers/*.py",
    "fast/*.py",
    "models/*.py",
    "optim/*.py",
    "workspace.py",
    "params.py",
    "engine.py",
    "evaluate.py",
    "train.py",
    "data/augment.py",
)
"""What is mutated: everything on whose numbers a training depends."""
LEFT_OUT = {
    "__init__.py": "a registry",
    "cuda.py": "its kernels run on a GPU only",
    "cuda_sweep.py": "the same kernels",
    "cache.py": "asks the system for a size that changes no number",
}
TESTS = (
    "ops",
    "layers",
    "fast",
    "models",
    "optim",
    "data/test_augment.py",
    "test_stm*.py",
    "test_sweep.py",
    "test_workspace.py",
    "test_params.py",
    "test_inputs.py",
    "test_engine.py",
    "test_evaluate.py",
    "test_train.py",
)
"""What a mutant meets after the checker, each where its line is run."""
PYTEST = (
    "-o",
    "addopts=",
    "-s",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:faulthandler",
    "-p",
    "no:xdist",
    "-p",
    "no:terminal",
)
PATIENCE = 6.0
"""Seconds that the checker, or one test, may take for a mutant, besides ten times what it takes without."""
ENOUGH = 10.0
"""Seconds of tests after which a mutant is taken to live; of those called equivalent, a tenth."""
CODES = (BY_CHECKER, BY_TESTS, SURVIVED)


class Subject(NamedTuple):
    """A module under test."""

    path: Path  # below the root
    module: ModuleType

    @property
    def name(self) -> str:
        """As the table of equivalents has it."""
        return self.module.__name__.removeprefix("stg_np.")

    @property
    def own_tests(self) -> Path:
        """Where its own tests are, below the root."""
        return Path("tests", *self.path.parts[1:-1], f"test_{self.path.name}")

    def mutants(self, functions: str) -> list[Mutant]:
        """All of them."""
        return list(mutants(self.path.read_text(), functions, vars(self.module)))


class Seen(NamedTuple):
    """A test, the lines that it runs, and the seconds that it takes."""

    item: pytest.Item
    lines: Lines
    seconds: float


def subject_of(path: Path) -> Subject:
    """Import the module in a file."""
    path = path.resolve().relative_to(ROOT)
    return Subject(path, importlib.import_module(".".join(path.with_suffix("").parts)))


def subjects(chosen: list[Path] | None) -> list[Subject]:
    """The chosen modules, or all."""
    paths = chosen or [path for pattern in MODULES for path in sorted(PACKAGE.glob(pattern))]
    return [subject_of(path) for path in paths if chosen or path.name not in LEFT_OUT]


class Session:
    """A plugin of pytest, in which the mutants meet the tests that pytest has collected."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.verdicts: list[Verdict] = []
        self.broken: list[str] = []  # tests that fail without any mutant
        self.failed = False  # whether the test that runs now has

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        from tools.mutate.checker import known_pairs

        started = time.monotonic()
        tests = [seen for item in session.items if (seen := self.see(item))]
        pairs = known_pairs(PACKAGE)
        say(f"{len(tests)} tests and {len(pairs)} pairs, {time.monotonic() - started:.0f} s")
        gc.collect()
        gc.freeze()  # what is older than a fork is not touched there, and so not copied
        for subject in subjects(self.options.module):
            own = self.judge(subject, tests, pairs)
            self.verdicts += own
            counts = Counter(verdict.outcome for verdict in own)
            say(f"{subject.path}: {dict(counts)}, {time.monotonic() - started:.0f} s")
        return True

    def passes(self, item: pytest.Item) -> bool:
        """Run one test."""
        self.failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self.failed

    def see(self, item: pytest.Item) -> Seen | None:
        """Run a test and learn what it runs; one that fails is of no use."""
        started = time.process_time()
        with lines_run(PACKAGE) as lines:
            passed = self.passes(item)
        if not passed:
            self.broken.append(item.nodeid)
            say(f"fails without any mutant: {item.nodeid}")
        return Seen(item, lines, time.process_time() - started) if passed else None

    def judge(self, subject: Subject, tests: list[Seen], pairs: list[Known]) -> list[Verdict]:
        """What becomes of each mutant of a module."""
        from tools.mutate.checker import is_caught, pairs_for

        every_one = subject.mutants(self.options.functions)
        found = [mutant for mutant in every_one if re.search(self.options.kinds, mutant.kind)][:: self.options.every]
        path, own = str(ROOT / subject.path), str(subject.own_tests)
        tests = sorted(tests, key=lambda seen: (not seen.item.nodeid.startswith(own), seen.seconds))
        patterns = [pattern_for(mutant, subject) for mutant in found]
        works = []
        for mutant, pattern in zip(found, patterns):
            lines = {(path, line) for line in mutant.lines}
            its_pairs = pairs_for(pairs, lines)
            its_tests = affordable([seen for seen in tests if seen.lines & lines], ENOUGH / 10 if pattern else ENOUGH)
            works.append(partial(self.outcome, mutant, subject, its_pairs, its_tests))
        verdicts: dict[int, Verdict] = {}
        met = {pair.name: pair for work in works for pair in work.args[2]}
        if met and is_caught(met.values()):
            raise SystemExit(f"the checker complains of {subject.path} without any mutant")
        for number, code in each_in_a_fork(works, self.options.jobs, PATIENCE):
            outcome, pattern = CODES[code] if code in range(len(CODES)) else STOPPED, patterns[number]
            if outcome == SURVIVED and pattern:
                outcome = EXPLAINED
            verdicts[number] = Verdict(subject.path, found[number], outcome, pattern)
            if outcome == SURVIVED:
                say(f"survived: {verdicts[number]}")
        return [verdicts[number] for number in sorted(verdicts)]

    def outcome(self, mutant: Mutant, subject: Subject, pairs: list[Pair], tests: list[Seen]) -> int:
        """The place in :data:`CODES`; run in a child."""
        from tools.mutate.checker import is_caught

        try:
            plant(mutant, subject.module)
        except Exception:
            return CODES.index(BY_TESTS)  # nobody could import it
        if is_caught(pairs):
            return CODES.index(BY_CHECKER)
        for seen in tests:
            set_timeout(PATIENCE + 10 * seen.seconds)
            if not self.passes(seen.item):
                return CODES.index(BY_TESTS)
        return CODES.index(SURVIVED)


def say(text: str) -> None:
    """What happens, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def affordable(tests: list[Seen], seconds: float) -> list[Seen]:
    """The first tests, as many as take so long together, but at least five."""
    total = 0.0
    for k, seen in enumerate(tests):
        total += seen.seconds
        if total > seconds and k >= 5:
            return tests[:k]
    return tests


def pattern_for(mutant: Mutant, subject: Subject) -> str:
    """The pattern that says why the mutant is equivalent; empty if none does."""
    edit = f"{subject.name}.{mutant.function}: {mutant.before} -> {mutant.after}"
    return next((pattern for pattern in EQUIVALENT if re.match(pattern, edit)), "")


def settle() -> None:
    """One thread, since this process forks; and Hypothesis the same every time, without shrinking."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutation", max_examples=30, derandomize=True, database=None, deadline=None,
        phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    os.environ["STG_NP_PROFILE"] = "mutation"


def test_files(options: argparse.Namespace) -> list[str]:
    """The tests that pytest collects: what is asked for, or those of the chosen modules, or all of the mathematics."""
    if options.tests:
        return shlex.split(options.tests)
    if options.module:
        return list({str(subject.own_tests) for subject in subjects(options.module) if subject.own_tests.exists()})
    return [str(path) for pattern in TESTS for path in sorted(Path("tests").glob(pattern))]


def main() -> int:
    parser = argparse.ArgumentParser(description=mutate.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", type=Path, action="append", help="file to mutate; repeatable (default: all)")
    parser.add_argument("--tests", default="", help="arguments of pytest (default: the tests of the modules)")
    parser.add_argument("--functions", default="", help="only functions whose dotted name matches this pattern")
    parser.add_argument("--kinds", default="", help="only kinds of error that match this pattern")
    parser.add_argument("--out", type=Path, help="Markdown file to write (default: standard output)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--every", type=int, default=1, help="try only every N-th mutant")
    options = parser.parse_args()
    started = time.monotonic()
    os.chdir(ROOT)
    settle()
    session = Session(options)
    with tempfile.TemporaryDirectory() as folder:
        pytest.main([*PYTEST, f"--basetemp={folder}/tests", *test_files(options)], plugins=[session])
    command = f"python -m tools.mutate {shlex.join(sys.argv[1:])}".strip()
    text = report(session.verdicts, command, time.monotonic() - started)
    options.out.write_text(text) if options.out else print(text)
    is_whole = not (options.module or options.functions or options.kinds) and options.every == 1
    unused = EQUIVALENT.keys() - {verdict.pattern for verdict in session.verdicts if verdict.outcome == EXPLAINED}
    for pattern in sorted(unused) if is_whole else []:
        say(f"explains nothing any more: {pattern}")
    survived = any(verdict.outcome == SURVIVED for verdict in session.verdicts)
    return 1 if survived or session.broken or (is_whole and unused) or not session.verdicts else 0
