"""Check a hand-written backward against finite differences of its forward.

A *pair* is ``outputs, cache = forward(**inputs)`` and ``gradients = backward(doutputs, cache)``. Write
J for the matrix of all derivatives ∂outputs/∂inputs: the backward claims to return Jᵀu for ``doutputs = u``.
:func:`check_pair` measures Jv with the forward alone and asks whether ⟨Jv, u⟩ = ⟨v, Jᵀu⟩ (the adjoint identity)
for random u and random unit directions v: over all inputs, over each argument, and for small shapes over every
entry (in large shapes: the entries of ∂loss with loss = ⟨outputs, u⟩, to locate an error). A wrong gradient gives a
report that names the place:

>>> import numpy as np
>>> def square_forward(x):
...     return x * x, x
>>> def square_backward(dy, x):
...     return 2.001 * x * dy
>>> print(check_pair(square_forward, square_backward, {"x": np.array([1.0, -2.0, 3.0])}))
square: WRONG, worst error 1.2e-03 (tolerance 1.0e-08)
  ∂output[2]/∂x[2]: numeric 6, analytic 6.003 (error 1.2e-03, step 1.0e-03, tolerance 1.0e-08); 3 of 3 entries \
of x are wrong; analytic = 1.0005 × numeric

The numbers: five-point stencil, ``f' ≈ (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h``, in float64; with h = 1e-3
and inputs of order 1 its truncation (h⁴) and its rounding (ε/h) are both near 1e-12. The error of a
direction is |numeric - analytic| · √n / ‖g‖, n entries, g the gradient: for random directions an estimate of the
relative error of g. Right code gives below 1e-10, a wrong term 1e-3 or more; the bar is 1e-8. Where the forward bends
so sharply that truncation shows, smaller steps are tried and the best counts. A gradient so small
that rounding hides it (zero, for one) is measured against the least ‖g‖ that the stencil can resolve to the bar.

Nothing hides beside something large: outputs, and entries of an argument, whose sizes are powers of ten apart are
projected apart, and every derivative is also held to 1e-4 of its *own* size. What cannot be decided is not called
right: steps that disagree with one another, a step out of the forward's domain, outputs so large that rounding
swallows a derivative, an argument of which nothing was compared (:class:`Report` has a status for each).

The pair sees NumPy or CuPy arrays, whatever the inputs are; the rest happens in one vector on the host.
"""

from stg_np.gradcheck.check import check_gradient, check_pair
from stg_np.gradcheck.hessian import hessian_symmetry
from stg_np.gradcheck.layer import check_layer
from stg_np.gradcheck.point import Backward, Forward
from stg_np.gradcheck.report import GradientError, NotComparedError, Report, format_table
from stg_np.gradcheck.tree import Tree

__all__ = [
    "Backward",
    "Forward",
    "GradientError",
    "NotComparedError",
    "Report",
    "Tree",
    "check_gradient",
    "check_layer",
    "check_pair",
    "format_table",
    "hessian_symmetry",
]
