"""Optimizers, one rule a file, and what belongs to them: clipping, the guard, schedules.

A rule is a frozen dataclass of hyper-parameters with two pure functions: ``moments = rule.init(params)`` and
``params, moments = rule.update(grads, moments, params, rate)``. It acts on all that it is given; :class:`ByRole` gives
each rule the entries of one role. Weight decay is decoupled everywhere (Loshchilov & Hutter, arXiv:1711.05101).
"""

from stg_np.optim.adamw import AdamW
from stg_np.optim.by_role import ByRole, with_learning_rate
from stg_np.optim.clip import clip_by_norm
from stg_np.optim.muon import Muon, orthogonalised
from stg_np.optim.rule import Each, Moments, Optimizer
from stg_np.optim.schedules import SCHEDULES
from stg_np.optim.sgd import SGD
from stg_np.optim.when_finite import when_finite

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adamw": AdamW, "muon": Muon, "by_role": ByRole}
"""The rules by name."""

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "AdamW",
    "ByRole",
    "Each",
    "Moments",
    "Muon",
    "Optimizer",
    "clip_by_norm",
    "orthogonalised",
    "when_finite",
    "with_learning_rate",
]
