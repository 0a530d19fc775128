"""Clipping of the gradient."""

from __future__ import annotations

from math import nan

from stg_np.backend import get_xp
from stg_np.inputs import check_number
from stg_np.params import Params


def clip_by_norm(grads: Params, max_norm: float) -> Params:
    """Scale the gradient down to the length ``max_norm`` where it is longer (Pascanu et al., arXiv:1211.5063).

    Where its length is not a finite number, all of the result is NaN: there is nothing to scale by, and
    :func:`~stg_np.optim.when_finite` will see it.

    Raises:
        ValueError, TypeError: if ``max_norm`` is not a number above 0.
    """
    check_number("max_norm", max_norm, above=0)
    xp = get_xp(grads.flat)
    norm = xp.sqrt((grads.flat * grads.flat).sum())
    scale = xp.where(xp.isfinite(norm), max_norm / xp.maximum(norm, max_norm), nan)
    return grads.with_flat(grads.flat * scale)
