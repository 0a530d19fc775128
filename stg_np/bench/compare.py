"""Figures from measurements: how wrong results are, how times spread, and how two subjects stand to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles

import numpy as np

from stg_np.backend import Array
from stg_np.bench.remote import BenchError

TOLERANCE = 1e-4
"""The largest error of float32 results against float64 that passes, as a part of the largest entry."""


class WrongResults(BenchError):
    """A subject does not compute what it should; the message says by how much."""


def checked_error(got: Mapping[str, Array], exact: Mapping[str, Array], tolerance: float = TOLERANCE) -> float:
    """The largest difference from the exact results, of any array, as a part of the largest entry there.

    Raises:
        WrongResults: if it is above ``tolerance`` or not a number, or the arrays differ in name or shape.
    """
    shapes = [{name: array.shape for name, array in arrays.items()} for arrays in (got, exact)]
    if shapes[0] != shapes[1]:
        raise WrongResults(f"its results have the shapes {shapes[0]} instead of {shapes[1]}")
    errors = {name: float(np.abs(got[name] - exact[name]).max() / np.abs(exact[name]).max()) for name in exact}
    for name, error in errors.items():
        if not error <= tolerance:
            raise WrongResults(f"its {name} is wrong by {error:.1e} of the largest entry")
    return max(errors.values())


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and range."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median(values), "low": low, "high": high, "min": min(values), "max": max(values)}


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times longer they take: the ratio of the medians, and the spread of the ratios of each round."""
    return spread([a / b for a, b in zip(theirs, ours)]) | {"median": median(theirs) / median(ours)}
