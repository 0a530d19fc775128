"""What became of the mutants, in Markdown."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tools.equivalent_mutants import EQUIVALENT
from tools.mutate.mutants import Mutant

BY_CHECKER, BY_TESTS, STOPPED, EXPLAINED, SURVIVED = OUTCOMES = (
    "killed by the checker",
    "killed by the tests",
    "crashed or hung",
    "equivalent",
    "survived",
)


class Verdict(NamedTuple):
    """A mutant, where it lies, what became of it, and which pattern says that it may live."""

    module: Path
    mutant: Mutant
    outcome: str
    pattern: str = ""

    @property
    def is_backward(self) -> bool:
        """Whether the error was planted in a backward function."""
        name = self.mutant.function.rsplit(".", 1)[-1]
        return name == "backward" or name.endswith("_backward")

    @property
    def why(self) -> str:
        """Why it lives, as the end of a sentence; nothing for what was killed."""
        return {SURVIVED: ": **SURVIVED**", EXPLAINED: f": {EQUIVALENT.get(self.pattern)}"}.get(self.outcome, "")

    def __str__(self) -> str:
        mutant = self.mutant
        place = f"{self.module}:{mutant.lines.start}"
        return f"`{place}`, {mutant.function}, {mutant.kind}: `{mutant.before}` → `{mutant.after}`"


def report(verdicts: list[Verdict], command: str, seconds: float) -> str:
    """Tables by module, by kind of error and by backward function, and a line for each mutant that lives."""
    work = sum(os.times()[:4])  # of this process and its children
    took = f"{seconds / 60:.0f} minutes, {work / 60:.0f} of processor time"
    text = ["# Mutants", "", f"`{command}` ({took}). What a mutant is, and what becomes of it:"]
    text += ["[tools/mutate](../../tools/mutate/__init__.py).", ""]
    text += [*table("module", verdicts, lambda verdict: str(verdict.module)), "", "## By kind of error", ""]
    text += [*table("kind", verdicts, lambda verdict: verdict.mutant.kind), ""]
    text += ["## What the checker alone sees of a backward", ""]
    backward = [verdict for verdict in verdicts if verdict.is_backward and verdict.outcome != EXPLAINED]
    text += [*checker_table(backward), ""]
    text += ["Seen by the tests only:", ""]
    text += lines(verdict for verdict in backward if verdict.outcome in (BY_TESTS, STOPPED))
    text += ["", "## Not killed, and why", ""]
    text += lines(verdict for verdict in verdicts if verdict.outcome in (EXPLAINED, SURVIVED))
    return "\n".join(text) + "\n"


def lines(verdicts: Iterable[Verdict]) -> list[str]:
    """One line of a list for each mutant."""
    return [f"* {verdict}{verdict.why}" for verdict in verdicts] or ["None."]


def table(heading: str, verdicts: list[Verdict], row_of: Callable[[Verdict], str]) -> list[str]:
    """How many of each outcome, row by row and in all."""
    rows: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        rows.setdefault(row_of(verdict), Counter())[verdict.outcome] += 1
    text = [f"| {heading} | mutants | {' | '.join(OUTCOMES)} |", "| --- |" + " --- |" * (len(OUTCOMES) + 1)]
    for name, counts in [*rows.items(), ("all", sum(rows.values(), Counter()))]:
        cells = [name, counts.total(), *(counts[outcome] for outcome in OUTCOMES)]
        text.append(f"| {' | '.join(map(str, cells))} |")
    return text


def checker_table(verdicts: list[Verdict]) -> list[str]:
    """For each backward function, how many of its errors the checker catches without any test."""
    rows: dict[str, Counter[bool]] = {}
    for verdict in verdicts:
        name = f"{verdict.module.with_suffix('').as_posix().replace('/', '.')}.{verdict.mutant.function}"
        rows.setdefault(name, Counter())[verdict.outcome == BY_CHECKER] += 1
    text = ["| backward | errors | caught by the checker | not |", "| --- | --- | --- | --- |"]
    return [*text, *(f"| {name} | {row.total()} | {row[True]} | {row[False]} |" for name, row in rows.items())]
