"""The rules, each beside independent code for one entry: number by number, or through the singular values.

A case has no value in common with the defaults, so every field must arrive where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import pytest

from stg_np.backend import Array, to_device
from stg_np.optim import SGD, AdamW, ByRole, Moments, Muon, Optimizer
from stg_np.params import Entry, Layout, Params

LAYOUT = Layout(
    (
        Entry("wide.W", (2, 5), "matrix"),
        Entry("wide.b", (5,), "vector"),
        Entry("wide.K", (3, 3, 1, 4), "kernel"),
        Entry("narrow.K", (1, 1, 2, 5), "kernel"),
        Entry("tall.W", (6, 3), "matrix"),
        Entry("square.W", (3, 3), "matrix"),
        Entry("column.W", (4, 1), "matrix"),
        Entry("scale", (), "vector"),
        Entry("head.W", (3, 4), "head"),
        Entry("fixed", (3,), "frozen"),
    )
)
RATES = [1.0, 0.3, 0.8, 0.1, 0.5]
Oracle = Callable[[Array, list[Array]], Array]


def scalar_sgd(
    theta: float, gradients: list[float], *, learning_rate: float, decay: float, momentum: float, nesterov: bool
) -> float:
    """Sutskever et al. 2013, as PyTorch's documentation writes it down."""
    buffer = 0.0
    for rate, g in zip(RATES, gradients):
        buffer = momentum * buffer + g
        direction = g + momentum * buffer if nesterov else buffer
        theta = theta - learning_rate * rate * decay * theta - learning_rate * rate * direction
    return theta


def scalar_adamw(
    theta: float, gradients: list[float], *, learning_rate: float, decay: float, beta1: float, beta2: float, eps: float
) -> float:
    """Algorithm 2 of arXiv:1711.05101."""
    m = v = 0.0
    for t, (rate, g) in enumerate(zip(RATES, gradients), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        adam = (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)
        theta = theta - learning_rate * rate * (adam + decay * theta)
    return theta


def number_by_number(scalar: Callable[..., float], **numbers: float) -> Oracle:
    def entry(theta: Array, gradients: list[Array]) -> Array:
        after = np.empty_like(theta)
        for place in np.ndindex(theta.shape):
            after[place] = scalar(theta[place].item(), [g[place].item() for g in gradients], **numbers)
        return after

    return entry


def svd_muon(
    theta: Array, gradients: list[Array], *, learning_rate: float, decay: float, momentum: float, iterations: int
) -> Array:
    """Muon through the singular values themselves: its products only act on them. A kernel row by row."""
    if theta.ndim == 4:
        rows = list(product(*map(range, theta.shape[:3])))  # a row is a place in the window and an input channel
        flat = svd_muon(
            np.stack([theta[row] for row in rows]),
            [np.stack([g[row] for row in rows]) for g in gradients],
            learning_rate=learning_rate, decay=decay, momentum=momentum, iterations=iterations,
        )  # fmt: skip
        after = np.empty_like(theta)
        for row, values in zip(rows, flat):
            after[row] = values
        return after
    velocity = np.zeros_like(theta)
    for rate, g in zip(RATES, gradients):
        velocity = momentum * velocity + g
        left, s, right = np.linalg.svd(g + momentum * velocity, full_matrices=False)
        s = s / np.linalg.norm(s)
        for _ in range(iterations):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        eta = learning_rate * rate
        theta = (1 - eta * decay) * theta - eta * 0.2 * sqrt(max(theta.shape)) * (left * s) @ right
    return theta


def sgd(learning_rate: float, decay: float, momentum: float, nesterov: bool) -> tuple[Optimizer, Oracle]:
    numbers: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov}
    rule = SGD(learning_rate=learning_rate, weight_decay=decay, **numbers)
    return rule, number_by_number(scalar_sgd, learning_rate=learning_rate, decay=decay, **numbers)


def adamw(learning_rate: float, decay: float, beta1: float, beta2: float, eps: float) -> tuple[Optimizer, Oracle]:
    rule = AdamW(learning_rate=learning_rate, weight_decay=decay, beta1=beta1, beta2=beta2, epsilon=eps)
    return rule, number_by_number(
        scalar_adamw, learning_rate=learning_rate, decay=decay, beta1=beta1, beta2=beta2, eps=eps
    )


def muon(learning_rate: float, decay: float, momentum: float, iterations: int) -> tuple[Optimizer, Oracle]:
    rule = Muon(learning_rate=learning_rate, weight_decay=decay, momentum=momentum, iterations=iterations)
    oracle = partial(svd_muon, learning_rate=learning_rate, decay=decay, momentum=momentum, iterations=iterations)
    return rule, oracle


@dataclass(frozen=True)
class Case:
    """One row: a rule, the layout that it is meant for, and what it does to an entry of each role."""

    rule: Optimizer
    oracles: dict[str, Oracle]
    layout: Layout = LAYOUT

    def expected(self, params: Params, gradients: list[Params]) -> Params:
        arrays = {}
        for name, _, role in self.layout.entries:
            theta, steps = params[name], [g[name] for g in gradients]
            arrays[name] = theta if role == "frozen" else self.oracles[role](theta, steps)
        return Params.pack(self.layout, arrays)

    def draw(self, seed: int, dtype: Any = np.float64, device: str = "cpu") -> tuple[Params, list[Params]]:
        """Parameters, and a gradient for each step."""
        rng = np.random.default_rng(seed)

        def one() -> Params:
            return Params(self.layout, to_device(rng.standard_normal(self.layout.size).astype(dtype), device))

        return one(), [one() for _ in RATES]


def alone(rule_and_oracle: tuple[Optimizer, Oracle], layout: Layout = LAYOUT) -> Case:
    """A rule that gets everything."""
    rule, oracle = rule_and_oracle
    return Case(rule, dict.fromkeys(("matrix", "kernel", "vector", "head"), oracle), layout)


def by_role(**parts: tuple[Optimizer, Oracle]) -> Case:
    return Case(
        ByRole(**{role: rule for role, (rule, _) in parts.items()}), {role: o for role, (_, o) in parts.items()}
    )


CASES = {
    "sgd": alone(sgd(0.1, 0.3, 0.9, True)),
    "sgd, heavy ball": alone(sgd(0.07, 0.2, 0.8, False)),
    "sgd, plain": alone(sgd(0.2, 0.0, 0.0, True)),
    "adamw": alone(adamw(0.1, 0.3, 0.9, 0.99, 1e-8)),
    "adamw, other moments": alone(adamw(0.07, 0.0, 0.8, 0.97, 1e-3)),
    "muon": alone(muon(0.1, 0.3, 0.95, 5), LAYOUT.select("matrix", "kernel", "frozen")),
    "muon, two rounds": alone(muon(0.07, 0.0, 0.8, 2), LAYOUT.select("matrix", "kernel")),
    "by_role": by_role(
        matrix=muon(0.1, 0.3, 0.95, 5),
        kernel=muon(0.07, 0.2, 0.9, 4),
        vector=adamw(0.05, 0.0, 0.9, 0.99, 1e-8),
        head=adamw(0.03, 0.1, 0.8, 0.97, 1e-6),
    ),
    "by_role, other rules": by_role(
        matrix=sgd(0.1, 0.3, 0.9, True),
        kernel=adamw(0.07, 0.2, 0.9, 0.99, 1e-8),
        vector=sgd(0.05, 0.1, 0.8, False),
        head=muon(0.03, 0.0, 0.9, 3),
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def steps(rule: Optimizer, params: Params, gradients: list[Params]) -> tuple[Params, Moments]:
    """One step for each gradient, at the rates of :data:`RATES`."""
    moments = rule.init(params)
    for rate, g in zip(RATES, gradients):
        params, moments = rule.update(g, moments, params, rate)
    return params, moments
