"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass

from stg_np.backend import get_xp
from stg_np.inputs import check_fields
from stg_np.optim.rule import Each, Moments, moved
from stg_np.params import Params


@dataclass(frozen=True)
class SGD:
    """SGD with (Nesterov) momentum, in the form of Sutskever et al. 2013 that PyTorch uses.

    ``μ ← momentum · μ + g``; the step is ``g + momentum · μ`` with Nesterov, else ``μ``.
    """

    learning_rate: float = 0.05
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        check_fields(self, SGD, positive=("learning_rate",), fractions=("momentum",))

    def init(self, params: Params) -> Moments:
        """One velocity per parameter."""
        return {"velocity": get_xp(params.flat).zeros_like(params.flat)}

    def update(
        self, grads: Params, moments: Moments, params: Params, rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """One step."""
        velocity = self.momentum * moments["velocity"] + grads.flat
        step = grads.flat + self.momentum * velocity if self.nesterov else velocity
        step = step + self.weight_decay * params.flat
        return moved(params, self.learning_rate * rate * step), {"velocity": velocity}
