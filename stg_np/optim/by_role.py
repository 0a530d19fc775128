"""A rule for each role, and one learning rate for them all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from stg_np.backend import Array
from stg_np.inputs import check_kind
from stg_np.optim.adamw import AdamW
from stg_np.optim.muon import Muon
from stg_np.optim.rule import Each, Moments, Optimizer
from stg_np.params import Layout, Params, Role

RuleT = TypeVar("RuleT", bound=Optimizer)


@dataclass(frozen=True)
class ByRole:
    """Each rule gets the entries of one role and nothing else; what is frozen, none of them.

    Unless told otherwise: Muon for matrices and kernels, with weight decay; AdamW for vectors (biases and scales) and
    for the head, without. Muon's authors leave the head to AdamW: each of its columns belongs to one class.
    """

    matrix: Optimizer = field(default_factory=Muon)
    kernel: Optimizer = field(default_factory=Muon)
    vector: Optimizer = field(default_factory=AdamW)
    head: Optimizer = field(default_factory=AdamW)

    def __post_init__(self) -> None:
        for role, rule in vars(self).items():
            check_kind(role, rule, Optimizer)

    @property
    def learning_rate(self) -> float:
        """That of the matrices."""
        return self.matrix.learning_rate

    def init(self, params: Params) -> Moments:
        """The moments of each rule, named ``role.name``."""
        return prefixed({role: rule.init(params.select(role)) for role, rule in self.rules(params.layout)})

    def update(
        self, grads: Params, moments: Moments, params: Params, rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """One step of each rule."""
        new: dict[str, Array] = {}
        new_moments: dict[str, Moments] = {}
        for role, rule in self.rules(params.layout):
            part, new_moments[role] = rule.update(
                grads.select(role), under(role, moments), params.select(role), rate, each=each
            )
            new |= part.arrays()
        return params.replaced(new), prefixed(new_moments)

    def rules(self, layout: Layout) -> Iterator[tuple[Role, Optimizer]]:
        """The roles that the layout has, and their rules."""
        rules: dict[Role, Optimizer] = {
            "matrix": self.matrix, "kernel": self.kernel, "vector": self.vector, "head": self.head,
        }  # fmt: skip
        return ((role, rule) for role, rule in rules.items() if layout.select(role).entries)


def prefixed(moments: dict[Any, Moments]) -> Moments:
    """``{"role.name": array}`` from the moments of each role."""
    return {f"{role}.{name}": array for role, own in moments.items() for name, array in own.items()}


def under(role: str, moments: Moments) -> Moments:
    """The reverse of :func:`prefixed`, for one role."""
    start = f"{role}."
    return {name.removeprefix(start): array for name, array in moments.items() if name.startswith(start)}


def with_learning_rate(rule: RuleT, learning_rate: float) -> RuleT:
    """The rule with another learning rate; of :class:`ByRole` that of the matrices, the others in proportion."""
    if not isinstance(rule, ByRole):
        return replace(rule, learning_rate=learning_rate)  # type: ignore[type-var]
    parts: dict[str, Any] = {
        name: with_learning_rate(part, learning_rate * (part.learning_rate / rule.learning_rate))
        for name, part in vars(rule).items()
    }
    return replace(rule, **parts)
