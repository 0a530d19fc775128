"""Adam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass

from stg_np.backend import get_xp
from stg_np.inputs import check_fields
from stg_np.optim.rule import Each, Moments, moved
from stg_np.params import Params


@dataclass(frozen=True)
class AdamW:
    """Adam (Kingma & Ba, arXiv:1412.6980) with the weight decay of Loshchilov & Hutter (arXiv:1711.05101)."""

    learning_rate: float = 0.005
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_fields(self, AdamW, positive=("learning_rate", "epsilon"), fractions=("beta1", "beta2"))

    def init(self, params: Params) -> Moments:
        """Two moments per parameter, and the number of steps (0-d)."""
        xp = get_xp(params.flat)
        zeros = xp.zeros_like(params.flat)
        return {"mean": zeros, "square": zeros, "steps": xp.zeros((), dtype=params.flat.dtype)}

    def update(
        self, grads: Params, moments: Moments, params: Params, rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """One step: ``m̂ / (√v̂ + ε)`` with both moments corrected for their start at zero."""
        xp = get_xp(params.flat)
        steps = moments["steps"] + 1
        mean = self.beta1 * moments["mean"] + (1 - self.beta1) * grads.flat
        square = self.beta2 * moments["square"] + (1 - self.beta2) * grads.flat**2
        unbiased_mean = mean / (1 - self.beta1**steps)
        unbiased_square = square / (1 - self.beta2**steps)
        step = unbiased_mean / (xp.sqrt(unbiased_square) + self.epsilon) + self.weight_decay * params.flat
        new = moved(params, self.learning_rate * rate * step)
        return new, {"mean": mean, "square": square, "steps": steps}
