"""Comparisons: entries × seeds from a list (:mod:`~stg_np.compare.plan`), trained alike, and a report of the spread."""

from stg_np.compare.plan import Comparison, ComparisonError, Entry, bundled, read_comparison
from stg_np.compare.report import picture, report
from stg_np.compare.trainings import Result, Told, compare

__all__ = [
    "Comparison",
    "ComparisonError",
    "Entry",
    "Result",
    "Told",
    "bundled",
    "compare",
    "picture",
    "read_comparison",
    "report",
]
