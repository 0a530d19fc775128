"""How far the analytic derivative along one direction is from the measured one, and what that means."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.gradcheck.point import Point
from stg_np.gradcheck.report import Status

KINK = 1e-4  # one-sided slopes that differ by more than this fraction are a kink: smooth code gives about h³
ROUNDING = 10 * float(np.finfo(np.float64).eps)  # of one forward, relative to its largest output


class Claim(NamedTuple):
    """What the backward says of one direction, for k projections of the outputs.

    ``norm`` and ``entries`` belong to the gradient g of which ``analytic`` is a component: ‖g‖, and how many it has.
    """

    projections: Array  # (k, m)
    analytic: Array  # (k,), as the others
    norm: Array
    entries: Array


class Finding(NamedTuple):
    """A claim beside what was measured."""

    status: Status
    error: float
    row: int  # the worst projection
    numeric: Array
    analytic: Array
    left: Array
    right: Array
    step: float

    def text(self, what: str, tolerance: float) -> str:
        """The sentence of the report."""
        numeric, analytic = self.numeric[self.row], self.analytic[self.row]
        if self.status == "kink":
            return (
                f"{what} jumps from {self.left[self.row]:.4g} to {self.right[self.row]:.4g} within {self.step:.1e} "
                f"(analytic {analytic:.4g}): a kink, no derivative here; choose other inputs"
            )
        return (
            f"{what}: numeric {numeric:.8g}, analytic {analytic:.8g} "
            f"(error {self.error:.1e}, step {self.step:.1e}, tolerance {tolerance:.1e})"
        )


def smaller_and_smaller(eps: float) -> tuple[float, float, float]:
    """The steps that are tried."""
    return eps, eps / 10, eps / 100


def relative_error(
    difference: Array, norm: Array | float, entries: Array | int, noise: Array | float, tolerance: float
) -> Array:
    """|numeric − analytic| √n / ‖g‖, with ‖g‖ at least what rounding lets the stencil resolve to the tolerance."""
    root = np.sqrt(entries)
    scale = np.maximum(norm, root * noise / tolerance)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference * root / scale)


def compare(point: Point, v: Array, claim: Claim, eps: float, tolerance: float) -> Finding:
    """Measure along v; with smaller steps as long as what differs may be the stencil's own error.

    The five-point stencil is off by f⁽⁵⁾h⁴/30: much, where the fifth derivative is large (deep recurrences, a norm
    near zero), and ten thousand times less at a tenth of the step. A wrong gradient stays wrong at every step.
    """
    findings = []
    for step in smaller_and_smaller(eps):
        findings.append(at_one_step(point, v, claim, step, eps, tolerance))
        if findings[-1].status == "ok" and findings[-1].error <= tolerance / 100:
            break
    right = [finding for finding in findings if finding.status == "ok"]
    if right:
        return min(right, key=lambda finding: finding.error)
    first, last = findings[0], findings[-1]
    return first if first.status == last.status == "wrong" else last


def at_one_step(point: Point, v: Array, claim: Claim, step: float, eps: float, tolerance: float) -> Finding:
    """The claim beside the differences of one step."""
    projections, analytic, norm, entries = claim
    slope = point.push(v, step)
    numeric, left, right = projections @ slope.central, projections @ slope.left, projections @ slope.right
    noise = ROUNDING / step * np.sqrt(projections**2 @ slope.scale**2)
    # the allowance for rounding stays that of eps: a smaller step must not loosen the bar
    error = relative_error(np.abs(numeric - analytic), norm, entries, noise * (step / eps), tolerance)
    low, high = np.minimum(left, right), np.maximum(left, right)
    slack = KINK * np.maximum(np.maximum(np.abs(low), np.abs(high)), norm / np.sqrt(entries)) + noise
    kink = (high - low > slack) & (low - slack <= analytic) & (analytic <= high + slack)
    wrong = ~(error <= tolerance) & ~kink  # so that NaN is wrong
    status: Status = "wrong" if wrong.any() else "kink" if kink.any() else "ok"
    row = int(np.argmax(kink if status == "kink" else np.where(np.isnan(error), np.inf, error)))
    return Finding(status, float(error.max(initial=0.0)), row, numeric, analytic, left, right, step)
