"""Whether some vectors *can* be the gradients of one scalar: second derivatives are symmetric."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from stg_np.backend import Array, to_host
from stg_np.gradcheck.check import require_options
from stg_np.gradcheck.compare import relative_error, smaller_and_smaller
from stg_np.gradcheck.point import Backward, Forward, Point, left_out
from stg_np.gradcheck.report import GradientError, Report, Status
from stg_np.gradcheck.returned import gradients_by_name, require_call
from stg_np.gradcheck.tree import Tree, floating, leaves


def hessian_symmetry(
    gradient: Callable[..., Tree],
    inputs: Mapping[str, Tree],
    *,
    name: str = "",
    seed: int = 0,
    directions: int = 3,
    eps: float = 1e-3,
    tolerance: float = 1e-8,
    constant: Collection[str] = (),
) -> Report:
    """Check that ``gradients = gradient(**inputs)`` *can* be the gradients of one scalar: wᵀHv = vᵀHw.

    H is the matrix of second derivatives, Hv the five-point difference of the gradient along v: no value of the loss
    is needed. A constant factor on all gradients stays unseen; :func:`check_pair` sees it. The error is
    |wᵀHv − vᵀHw| · √n / ‖Hv‖. Options as there.

    >>> import numpy as np
    >>> right = lambda x, y: (y * x, x**2 / 2)     # the gradients of x² y / 2
    >>> wrong = lambda x, y: (y * x, 1.001 * x**2 / 2)
    >>> point = {"x": np.array([1.0, 2.0]), "y": np.array([3.0, -1.0])}
    >>> hessian_symmetry(right, point).ok, hessian_symmetry(wrong, point).ok
    (True, False)
    """
    require_options(inputs, directions, eps, tolerance)
    name = name or getattr(gradient, "__name__", "gradient")
    rng, errors = np.random.default_rng(seed), list[float]()
    try:
        require_call("gradient", gradient, **inputs)
        point = Point(*gradient_pair(gradient, inputs, constant), inputs, constant=constant)
        names, size = list(point.places), point.theta.size
        for _ in range(directions):
            v, w = point.direction(rng, names), point.direction(rng, names)
            errors.append(asymmetry(point, v, w, eps, tolerance))
    except GradientError as broken:
        return Report(name, broken.status, float("nan"), tolerance, eps, failures=(str(broken),))
    error = float(np.max(errors))  # NaN stays
    status: Status = "ok" if error <= tolerance else "undecided" if np.isnan(error) else "wrong"
    text = {
        "ok": (),
        "wrong": (f"wᵀHv and vᵀHw differ (error {error:.1e}): these are not the gradients of one scalar",),
        "undecided": (f"the gradients are nan or infinite within {eps / 1000:.0e} of the inputs: pass a smaller eps",),
    }
    return Report(name, status, error, tolerance, eps, {}, size, skipped=point.skipped, failures=text[status])


def gradient_pair(
    gradient: Callable[..., Tree], inputs: Mapping[str, Tree], constant: Collection[str]
) -> tuple[Forward, Backward]:
    """The gradient as a forward, of which no backward is asked."""
    arrays = {key: to_host(array) for key, array in leaves(inputs).items()}
    skipped = left_out(inputs, arrays, constant)
    shapes = {key: array.shape for key, array in floating(arrays).items() if key not in skipped}

    def forward(**arguments: Tree) -> tuple[Tree, None]:
        return gradients_by_name(arguments, shapes, skipped, gradient(**arguments)), None

    return forward, lambda doutputs, cache: None  # which nobody calls


def asymmetry(point: Point, v: Array, w: Array, eps: float, tolerance: float) -> float:
    """The error of wᵀHv = vᵀHw, at the best of the steps that stay in the domain; NaN if none does."""
    errors, allowed = [], 0.0
    for step in smaller_and_smaller(eps):
        hv, hw = point.push(v, step), point.push(w, step)
        noise = float(np.linalg.norm(np.maximum(hv.noise, hw.noise) * w)) * step / eps
        allowed = allowed or noise  # a smaller step must not loosen the bar
        norm = max(float(np.linalg.norm(hv.central)), float(np.linalg.norm(hw.central)))
        difference = abs(float(w @ hv.central - v @ hw.central))
        errors.append(float(relative_error(np.array(difference), norm, w.size, allowed, tolerance)))
    finite = [error for error in errors if not np.isnan(error)]
    return min(finite, default=float("nan"))
