"""Whether some vectors *can* be the gradients of one scalar: second derivatives are symmetric."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from stg_np.backend import Array
from stg_np.gradcheck.compare import ROUNDING, relative_error, smaller_and_smaller
from stg_np.gradcheck.point import Point, gradients_by_name
from stg_np.gradcheck.report import GradientError, Report, Status
from stg_np.gradcheck.tree import Tree


def hessian_symmetry(
    gradient: Callable[..., Tree],
    inputs: Mapping[str, Tree],
    *,
    name: str = "",
    seed: int = 0,
    directions: int = 3,
    eps: float = 1e-3,
    tolerance: float = 1e-8,
) -> Report:
    """Check that ``gradients = gradient(**inputs)`` *can* be the gradients of one scalar: wᵀHv = vᵀHw.

    H is the matrix of second derivatives, Hv the five-point difference of the gradient along v: no value of the loss
    is needed. A constant factor on all gradients stays unseen; :func:`check_pair` sees it. The error is
    |wᵀHv − vᵀHw| · √n / ‖Hv‖.

    >>> import numpy as np
    >>> right = lambda x, y: (y * x, x**2 / 2)     # the gradients of x² y / 2
    >>> wrong = lambda x, y: (y * x, 1.001 * x**2 / 2)
    >>> point = {"x": np.array([1.0, 2.0]), "y": np.array([3.0, -1.0])}
    >>> hessian_symmetry(right, point).ok, hessian_symmetry(wrong, point).ok
    (True, False)
    """
    name = name or getattr(gradient, "__name__", "gradient")
    rng, error = np.random.default_rng(seed), 0.0

    def forward(**arguments: Tree) -> tuple[Tree, None]:
        return gradients_by_name(arguments, gradient(**arguments)), None

    try:
        point = Point(forward, lambda doutputs, cache: None, inputs)
        active = list(point.outputs)
        rows = np.flatnonzero(point.direction(rng, active))
        for _ in range(directions if rows.size else 0):
            v, w = point.direction(rng, active), point.direction(rng, active)
            error = float(np.maximum(error, asymmetry(point, v, w, rows, eps, tolerance)))  # NaN stays
    except GradientError as broken:
        return Report(name, "wrong", float("nan"), tolerance, eps, failures=(str(broken),))
    text = f"wᵀHv and vᵀHw differ (error {error:.1e}): these are not the gradients of one scalar"
    skipped = tuple(key for key in point.places if key not in active)
    status: Status = "ok" if error <= tolerance else "wrong"
    failures = () if status == "ok" else (text,)
    return Report(name, status, error, tolerance, eps, {}, rows.size, skipped=skipped, failures=failures)


def asymmetry(point: Point, v: Array, w: Array, rows: Array, eps: float, tolerance: float) -> float:
    """The error of wᵀHv = vᵀHw, at the best of the steps."""
    errors, noise = [], 0.0
    for step in smaller_and_smaller(eps):
        hv, hw = point.push(v, step), point.push(w, step)
        noise = noise or ROUNDING / eps * float(np.linalg.norm(np.maximum(hv.scale, hw.scale) * w[rows]))
        norm = max(float(np.linalg.norm(hv.central)), float(np.linalg.norm(hw.central)))
        difference = abs(float(w[rows] @ hv.central - v[rows] @ hw.central))
        errors.append(float(relative_error(np.array(difference), norm, rows.size, noise, tolerance)))
    return float(np.min(errors))  # NaN stays
