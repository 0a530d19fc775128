"""What every rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from stg_np.backend import Array
from stg_np.params import Params

Moments: TypeAlias = dict[str, Array]
"""What a rule remembers, by name: vectors like the flat parameters, and 0-d counters."""

Each: TypeAlias = Callable[[Callable[[Any], Array], Iterable[Any]], Iterable[Array]]
"""``map``, or an engine's."""


@runtime_checkable
class Optimizer(Protocol):
    """A frozen dataclass with two pure functions."""

    @property
    def learning_rate(self) -> float:
        """At the peak of the schedule."""

    def init(self, params: Params) -> Moments:
        """The moments before the first step."""

    def update(
        self, grads: Params, moments: Moments, params: Params, rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """New parameters and new moments; the arguments are left as they are.

        Args:
            grads: the gradient, laid out like ``params``. moments: those of the step before.
            params: the parameters.
            rate: the schedule's factor of the learning rate, 1 at the peak.
            each: calls a function for each of several items, where the work has parts.
        """


def moved(params: Params, step: Array) -> Params:
    """``params − step``, except for frozen entries, which never change; step (size,)."""
    new = params.with_flat(params.flat - step)
    frozen = params.select("frozen")
    return new.replaced(frozen.arrays()) if frozen.layout.entries else new
