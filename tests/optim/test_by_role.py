"""Each rule gets its own entries and no others; one learning rate for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from stg_np.optim import SGD, AdamW, ByRole, Moments, Muon, Optimizer, when_finite, with_learning_rate
from stg_np.params import Params
from tests.optim.cases import LAYOUT, RATES, steps

NUMBERS = {role: LAYOUT.select(role).size for role in ("matrix", "kernel", "vector", "head")}


@dataclass(frozen=True)
class Noting:
    """A rule that leaves everything as it is and remembers which entries it was given."""

    learning_rate: float = 1.0
    seen: list[tuple[str, ...]] = field(default_factory=list)

    def init(self, params: Params) -> Moments:
        self.seen.append(tuple(params))
        return {"count": np.zeros(())}

    def update(
        self, grads: Params, moments: Moments, params: Params, rate: float, *, each: Any = map
    ) -> tuple[Params, Moments]:
        assert tuple(grads) == tuple(params)
        assert list(moments) == ["count"]
        assert rate == RATES[int(moments["count"])]
        self.seen.append(tuple(params))
        return params, {"count": moments["count"] + 1}


def draw(layout: Any = LAYOUT) -> tuple[Params, list[Params]]:
    rng = np.random.default_rng(0)
    first, *rest = (Params(layout, rng.standard_normal(layout.size)) for _ in range(1 + len(RATES)))
    return first, rest


def test_every_rule_sees_the_entries_of_its_role_and_nothing_is_lost() -> None:
    noting = {role: Noting() for role in NUMBERS}
    params, gradients = draw()
    after, moments = steps(ByRole(**noting), params, gradients)
    for role, rule in noting.items():
        names = tuple(entry.name for entry in LAYOUT.entries if entry.role == role)
        assert rule.seen == [names] * (1 + len(RATES))
    assert after.flat.tobytes() == params.flat.tobytes()
    assert {name: int(count) for name, count in moments.items()} == {f"{role}.count": len(RATES) for role in NUMBERS}


@pytest.mark.parametrize("guarded", [False, True])
def test_an_engine_is_handed_the_parts_of_every_rule(guarded: bool) -> None:
    params, gradients = draw()
    rule, shared = ByRole(matrix=Muon(), kernel=Muon()), list[str]()
    update: Any = when_finite(rule) if guarded else rule.update

    def each(function: Any, items: Any) -> Any:
        items = list(items)
        shared.extend(items)
        return map(function, items)

    update(gradients[0], rule.init(params), params, 1.0, each=each)
    assert set(shared) == {entry.name for entry in LAYOUT.entries if entry.role in ("matrix", "kernel")}


def test_no_moments_are_kept_for_what_another_rule_moves() -> None:
    params, _ = draw()
    moments = ByRole().init(params)
    assert {name: array.size for name, array in moments.items()} == {
        "matrix.velocity": NUMBERS["matrix"],
        "kernel.velocity": NUMBERS["kernel"],
        **{f"{role}.{name}": NUMBERS[role] for role in ("vector", "head") for name in ("mean", "square")},
        "vector.steps": 1,
        "head.steps": 1,
    }


def test_a_role_that_the_layout_lacks_has_no_moments_and_needs_no_gradient() -> None:
    layout = LAYOUT.select("matrix", "head")
    params, gradients = draw(layout)
    rule = ByRole()
    after, moments = steps(rule, params, gradients)
    assert {name.split(".")[0] for name in moments} == {"matrix", "head"}
    assert (after.flat != params.flat).all()
    assert after.layout is layout


def test_a_rule_may_be_by_role_itself() -> None:
    params, gradients = draw()
    inner = ByRole(SGD(0.1), SGD(0.2), SGD(0.3), SGD(0.4))
    nested, moments = steps(ByRole(inner, inner, inner, inner), params, gradients)
    flat, _ = steps(inner, params, gradients)
    assert nested.flat.tobytes() == flat.flat.tobytes()
    assert "matrix.matrix.velocity" in moments


def test_a_learning_rate_is_the_matrices_and_the_others_follow_in_proportion() -> None:
    rule = ByRole(Muon(0.02, 0.1), Muon(0.01), AdamW(0.003, 0.2), SGD(0.04, momentum=0.5))
    assert rule.learning_rate == 0.02
    other = with_learning_rate(rule, 0.03)
    assert other.learning_rate == 0.03
    assert other.matrix == Muon(0.03, 0.1)
    parts: list[tuple[Any, Any]] = [(other.kernel, 0.015), (other.vector, 0.0045), (other.head, 0.06)]
    for part, rate in parts:
        assert part.learning_rate == pytest.approx(rate, rel=1e-14)
    assert (other.vector.weight_decay, other.head.momentum) == (0.2, 0.5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("rule", [SGD(0.3, 0.1), AdamW(0.7), Muon(0.1), ByRole(), ByRole(matrix=SGD(0.1))])
@pytest.mark.parametrize("rate", [0.07, 1 / 3, 1e30])
def test_it_is_exactly_the_rate_that_was_asked_for(rule: Optimizer, rate: float) -> None:
    assert with_learning_rate(rule, rate).learning_rate == rate
    if rule == ByRole():  # equal ones stay equal, to the bit
        assert {part.learning_rate for part in vars(with_learning_rate(rule, rate)).values()} == {rate}
