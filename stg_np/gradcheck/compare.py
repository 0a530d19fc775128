"""How far the analytic derivative along one direction is from the measured one, and what that means."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.gradcheck.point import Point, Slope
from stg_np.gradcheck.report import SEVERITY, Status

KINK = 1e-4  # one-sided slopes that differ by more than this fraction are a kink: smooth code gives about h³
OWN = 1e-4  # of its own size, every single derivative is right to this, however large those beside it are
PROVEN = 10.0  # a difference so many times what the stencil is unsure of is the backward's
STEADY = 1e-2  # two steps that differ by no more of what they measure agree with one another
SEEN = 1e-3  # so much of a derivative may be rounding: a factor of 1.001 must not pass
ZERO = 1e-2  # so much rounding hides a derivative that is claimed to be exactly 0


class Claim(NamedTuple):
    """What the backward says of one direction, for k projections of the outputs.

    ``norm`` and ``entries`` belong to the gradient g of which ``analytic`` is a component: ‖g‖, and how many it has;
    ``own`` to the part of g whose entries are as large as these. ``rounding``: what the backward's own may add.
    """

    projections: Array  # (k, m)
    analytic: Array  # (k,), as the others
    norm: Array
    entries: Array
    own: Array
    rounding: Array


class Measured(NamedTuple):
    """The differences of one step, for the k projections: (k,) each."""

    step: float
    numeric: Array
    left: Array
    right: Array
    error: Array
    noise: Array
    unseen: Array
    kink: Array
    agrees: Array


class Finding(NamedTuple):
    """A claim beside what was measured; of the worst projection, where nothing else is said."""

    status: Status
    error: float
    row: int  # the worst projection
    numeric: Array  # (k,), of all
    text: str  # what is wrong, without the place
    rows: list[int]  # all that have this status


def smaller_and_smaller(eps: float) -> tuple[float, ...]:
    """The steps that are tried."""
    return eps, eps / 10, eps / 100, eps / 1000


def relative_error(
    difference: Array, norm: Array | float, entries: Array | int, noise: Array | float, tolerance: float
) -> Array:
    """|numeric − analytic| √n / ‖g‖, with ‖g‖ at least what rounding lets the stencil resolve to the tolerance."""
    root = np.sqrt(entries)
    scale = np.maximum(norm, root * noise / tolerance)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference * root / scale)


def compare(point: Point, v: Array, claim: Claim, eps: float, tolerance: float, unit: float = 1.0) -> Finding:
    """Measure along v; with smaller steps as long as what differs may be the stencil's own error.

    The five-point stencil is off by f⁽⁵⁾h⁴/30: much, where the fifth derivative is large (deep recurrences, a norm
    near zero), and ten thousand times less at a tenth of the step. A wrong gradient stays wrong at every step, and
    the steps agree with one another; where they do not, nothing is decided. ``unit``: of what is told in the text.
    """
    measured = measurements(point, v, claim, eps, tolerance)
    best, statuses = verdicts(measured, claim, tolerance)
    columns = np.arange(len(best))
    numeric, errors = (np.stack([getattr(at, part) for at in measured])[best, columns] for part in ("numeric", "error"))
    for row, status in statuses.items():
        if status == "wrong" and errors[row] <= tolerance:
            errors[row] = of_its_own_size(numeric[row], claim.analytic[row])
    status = min(statuses.values(), key=SEVERITY.index, default="ok")
    rows = [row for row in columns.tolist() if statuses.get(row, "ok") == status]
    worst = rows[int(errors[rows].argmax())]  # NaN is the worst
    text = "" if status == "ok" else text_of(worst, status, measured, best[worst], claim.analytic[worst], unit)
    if status == "wrong":
        text += f" (error {errors[worst]:.1e}, step {measured[best[worst]].step:.1e}, tolerance {tolerance:.1e})"
    return Finding(status, float(errors.max(initial=0.0)), worst, numeric, text, rows)  # NaN stays


def measurements(point: Point, v: Array, claim: Claim, eps: float, tolerance: float) -> list[Measured]:
    """The differences of one step, and of smaller ones as long as these are not far below the tolerance."""
    measured: list[Measured] = []
    done = np.zeros(len(claim.analytic), bool)
    for step in smaller_and_smaller(eps):
        measured.append(at_one_step(point, v, claim, step, eps, tolerance))
        done |= measured[-1].agrees & (measured[-1].error <= tolerance / 100)
        if done.all():
            break
    return measured


def verdicts(measured: list[Measured], claim: Claim, tolerance: float) -> tuple[Array, dict[int, Status]]:
    """The step to tell of, for each projection, (k,); and what those are that are not all right."""
    agrees, errors = (np.stack([getattr(at, part) for at in measured]) for part in ("agrees", "error"))
    best = np.where(agrees, errors, np.inf).argmin(0)  # of those that agree
    statuses: dict[int, Status] = {}
    for row in np.flatnonzero(~agrees.any(0) | hidden(measured, claim, tolerance)).tolist():
        statuses[row] = "undecided"
        if not agrees[:, row].any():
            statuses[row], best[row] = judged(row, measured, claim.analytic[row])
    return best, statuses


def at_one_step(point: Point, v: Array, claim: Claim, step: float, eps: float, tolerance: float) -> Measured:
    """The claim beside the differences of one step."""
    projections, analytic, norm, entries, own, nothing = claim
    slope = point.push(v, step)
    (numeric, left, right), (noise, most, unseen) = seen_by(projections, slope)
    difference = np.abs(numeric - analytic)
    # the allowance for rounding stays that of eps: a smaller step must not loosen the bar
    error = relative_error(difference, norm, entries, most * (step / eps) + nothing, tolerance)
    low, high = np.minimum(left, right), np.maximum(left, right)
    slack = KINK * np.maximum(np.maximum(np.abs(low), np.abs(high)), norm / np.sqrt(entries)) + most
    kink = (high - low > slack) & (low - slack <= analytic) & (analytic <= high + slack)
    size = np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), own / np.sqrt(entries))
    rounding = np.where(np.abs(analytic) <= nothing, 10 * most, noise) * (step / eps)
    agrees = (error <= tolerance) & (difference <= OWN * size + rounding + nothing) & ~kink  # NaN does not
    return Measured(step, numeric, left, right, error, noise, unseen, kink, agrees)


def seen_by(projections: Array, slope: Slope) -> tuple[Array, Array]:
    """Slopes of the projections, and what rounding does to them, (3, k) each.

    A number that is not finite spoils only the projections that look at its output.
    """
    with np.errstate(over="ignore"):
        slopes, rounding = np.stack(slope[:3]), np.stack(slope[3:]) ** 2
    fine = np.isfinite(slopes).all(0) & np.isfinite(rounding).all(0)
    if fine.all():
        return slopes @ projections.T, np.sqrt(rounding @ (projections**2).T)
    slopes, rounding = seen_by(projections[:, fine], Slope(*(part[fine] for part in slope)))
    spoiled = (projections[:, ~fine] != 0).any(1)
    slopes[:, spoiled] = rounding[:, spoiled] = np.nan
    return slopes, rounding


def hidden(measured: list[Measured], claim: Claim, tolerance: float) -> Array:
    """Where even the best of the steps leaves so much rounding that agreement says nothing, (k,)."""
    noise = np.fmin.reduce([at.noise for at in measured])
    size = np.maximum(np.abs(claim.analytic), claim.own / np.sqrt(claim.entries))
    unseen: Array = (noise > np.maximum(tolerance, SEEN * size)) & ((claim.analytic != 0) | (noise > ZERO))
    return unseen


def judged(row: int, measured: list[Measured], analytic: float) -> tuple[Status, int]:
    """What a projection is of which no step agrees, and the step to tell of."""
    if measured[-1].kink[row]:
        return "kink", len(measured) - 1
    step = proof(row, measured, analytic)
    return ("undecided", 0) if step is None else ("wrong", step)


def proof(row: int, measured: list[Measured], analytic: float) -> int | None:
    """The step that proves a projection wrong: it agrees with the next, and both are far from the backward's."""
    noise = least_noise(row, measured)
    for k, (one, other) in enumerate(pairwise(at.numeric[row] for at in measured)):
        gap, size = abs(one - other), max(abs(one), abs(other))
        if gap <= STEADY * size + noise and abs(other - analytic) > PROVEN * (gap + noise):  # False with NaN
            return k if gap <= OWN * size else k + 1
    return None


def least_noise(row: int, measured: list[Measured]) -> float:
    """What rounding may do to the best of the steps; infinite if none stays in the domain."""
    noises = [max(at.noise[row], at.unseen[row]) for at in measured]
    return min((noise for noise in noises if not np.isnan(noise)), default=np.inf)


def of_its_own_size(numeric: float, analytic: float) -> float:
    """The error of what is wrong, but lost beside others."""
    return float(abs(numeric - analytic) / max(abs(numeric), abs(analytic)))


def text_of(row: int, status: Status, measured: list[Measured], step: int, analytic: float, unit: float) -> str:
    """What the report says after the place."""
    at = measured[step]
    if status == "kink":
        return (
            f" jumps from {at.left[row] / unit:.4g} to {at.right[row] / unit:.4g} within {at.step:.1e} "
            f"(analytic {analytic / unit:.4g}): a kink, no derivative here; choose other inputs"
        )
    if status == "wrong":
        return f": numeric {at.numeric[row] / unit:.8g}, analytic {analytic / unit:.8g}"
    return undecided(row, measured, analytic / unit, unit)


def undecided(row: int, measured: list[Measured], analytic: float, unit: float) -> str:
    """Why the differences decide nothing, and what helps."""
    found = [at.numeric[row] / unit for at in measured]
    rounding = least_noise(row, measured) / unit
    if np.isfinite(rounding) and abs(found[0] - analytic) <= PROVEN * rounding:
        return (
            f": rounding hides it (numeric {found[0]:.8g} ± {rounding:.1e}, analytic {analytic:.8g}): the outputs are "
            f"too large for it; use smaller ones (−1e4 masks as well as −1e12), or check them apart"
        )
    least = measured[-1].step
    smaller = f"pass a smaller eps (eps={least:.0e})"
    border = "the border of a domain (log, √, 1/x)"
    if not np.isfinite(found).any():
        return f": the forward is not finite {least:.0e} away from the inputs: {border}; move away, or {smaller}"
    steps = ", ".join(f"{at.step:.0e}" for at in measured)
    where = f": {border}, or a bend that is too sharp" if np.isfinite(found).all() else f": they cross {border}"
    numbers = ", ".join(f"{number:.8g}" for number in found)
    return f": the steps {steps} do not agree with one another ({numbers}; analytic {analytic:.8g}){where}; {smaller}"
