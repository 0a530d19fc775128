"""The guard: one gradient that is not finite would spoil every parameter for good, and so would one update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from stg_np.backend import Array, get_xp
from stg_np.optim.rule import Each, Moments, Optimizer
from stg_np.params import Params


class GuardedUpdate(Protocol):
    """The ``update`` of a rule, which also says whether it was made: a 0-d array on the device."""

    def __call__(
        self,
        grads: Params,
        moments: Moments,
        params: Params,
        rate: float,
        *,
        each: Each = map,
        also: Iterable[Array] = (),
    ) -> tuple[Params, Moments, Array]:
        """New parameters, new moments, and whether they are new; ``also``: what else must be finite for that."""


def when_finite(rule: Optimizer) -> GuardedUpdate:
    """The rule's update, if all of it is finite: the gradient, the new parameters and the new moments.

    Otherwise parameters and moments are as they were: a finite gradient, too, can be more than the numbers hold.

    The choice is made on the device: the host does not wait for it.
    """

    def update(
        grads: Params,
        moments: Moments,
        params: Params,
        rate: float,
        *,
        each: Each = map,
        also: Iterable[Array] = (),
    ) -> tuple[Params, Moments, Array]:
        xp = get_xp(grads.flat)
        new, new_moments = rule.update(grads, moments, params, rate, each=each)
        is_finite = xp.isfinite(grads.flat).all()
        for array in (new.flat, *new_moments.values(), *also):
            is_finite = is_finite & xp.isfinite(array).all()
        kept = params.with_flat(xp.where(is_finite, new.flat, params.flat))
        return kept, {name: xp.where(is_finite, new_moments[name], moments[name]) for name in moments}, is_finite

    return update
