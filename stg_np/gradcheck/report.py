"""What a check found, as text, as JSON, as a line of a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

Status: TypeAlias = Literal["ok", "wrong", "error", "not compared", "undecided", "kink", "not analytic"]

SEVERITY: tuple[Status, ...] = ("wrong", "error", "not compared", "undecided", "kink", "not analytic", "ok")
"""Of several findings the first of these is the report's."""


class GradientError(AssertionError):
    """A backward that does not belong to its forward; the message is the report."""

    status: Status = "wrong"


class NotComparedError(GradientError):
    """There is an argument of which nothing could be compared."""

    status: Status = "not compared"


@dataclass(frozen=True)
class Report:
    """What a check found; ``print`` it, ``assert`` it, or :meth:`assert_ok` it in a test: it is true if all is well.

    ``ok`` means that every argument was compared, and that all of it agreed. Of the others only ``wrong`` speaks
    against the backward:

    * ``not compared``: an argument or the outputs hold nothing that has a derivative (integers, no entries).
    * ``undecided``: the differences themselves are not good enough: the step leaves the domain of the forward, or the
      forward bends too sharply for it, or rounding hides what is small. The report says what to change.
    * ``kink``: the function has no derivative where it was asked (a ReLU at 0) and the analytic value lies between
      the one-sided slopes; choose other inputs.
    * ``not analytic`` concerns the complex step.
    * ``error``: the code under test raised an exception (only ``stg-np gradcheck FILE.py`` reports that).
    """

    name: str
    status: Status
    error: float
    """The worst error of all that was compared; NaN if the pair broke the contract before numbers were compared."""
    tolerance: float
    step: float
    errors: dict[str, float] = field(default_factory=dict)
    """The worst error per argument; ``(all)`` for directions over all of them, ``(float32)``, ``(complex step)``."""
    entries: int = 0
    """How many entries the differentiated inputs have."""
    jacobian_entries: int = 0
    """How many derivatives were compared one by one."""
    skipped: tuple[str, ...] = ()
    """Floating-point inputs that were *not* checked, as their caller said: ``constant``, or the role ``frozen``."""
    failures: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every comparison passed."""
        return self.status == "ok"

    def __bool__(self) -> bool:
        """The same, so that ``assert check_pair(…)`` fails with the check."""
        return self.ok

    def __str__(self) -> str:
        unchecked = f", not checked: {', '.join(self.skipped)}" if self.skipped else ""
        status = self.status if self.ok else self.status.upper()
        head = f"{self.name}: {status}, worst error {self.error:.1e} (tolerance {self.tolerance:.1e}){unchecked}"
        return "\n  ".join((head, *self.failures))

    def assert_ok(self) -> None:
        """Do nothing if all is well.

        Raises:
            GradientError: with the report as its message.
        """
        if not self.ok:
            raise GradientError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; a number that is not finite becomes None."""
        plain = asdict(self) | {"ok": self.ok, "error": finite_or_none(self.error)}
        return plain | {"errors": {name: finite_or_none(error) for name, error in self.errors.items()}}


def finite_or_none(number: float) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return number if np.isfinite(number) else None


def format_table(reports: Iterable[Report]) -> str:
    """A table of many reports, one line each, and below it the text of those that failed."""
    reports = list(reports)
    rows = [("pair", "status", "worst error", "at", "entries", "jacobian")]
    for report in reports:
        by_argument = {key: error for key, error in report.errors.items() if not key.startswith("(")} or {"-": 0.0}
        worst = list(by_argument)[int(np.argmax(list(by_argument.values())))]  # NaN is the worst
        counts = (str(report.entries), str(report.jacobian_entries))
        rows.append((report.name, report.status, f"{report.error:.1e}", worst, *counts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    failed = [report for report in reports if not report.ok]
    summary = f"{len(reports)} pairs, {len(failed)} failed" if failed else f"{len(reports)} pairs, all right"
    return "\n".join([*lines, summary, *map(str, failed)])
