"""Optimizers and schedules as pure functions: ``moments = init(params)``, ``params, moments = update(…)``.

An optimizer is a frozen dataclass of hyper-parameters. Elementwise rules act on the whole flat vector at once;
:class:`Muon` also reads the layout, because it treats a matrix as a matrix. Weight decay is decoupled (Loshchilov &
Hutter, arXiv:1711.05101) and acts on matrices only; ``frozen`` entries never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import cos, pi, sqrt
from typing import Any, Protocol, TypeAlias, runtime_checkable

from stg_np.backend import Array, get_xp
from stg_np.params import Params

Moments: TypeAlias = dict[str, Array]
"""What an optimizer remembers, by name: vectors like the flat parameters, and 0-d counters."""


Each: TypeAlias = Callable[[Callable[[Any], Array], Iterable[Any]], Iterable[Array]]
"""``map``, or what calls a function for each of several items on threads."""


@runtime_checkable
class Optimizer(Protocol):
    """Two pure functions."""

    def init(self, params: Params) -> Moments:
        """The moments before the first step."""

    def update(
        self, grads: Params, moments: Moments, params: Params, learning_rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """New parameters and new moments; the arguments are left as they are. ``each``: for work that has parts."""


def decayed(params: Params, amount: float) -> Array:
    """``amount · θ`` for matrices, 0 for everything else; (size,)."""
    return params.layout.mask("matrix", "head", like=params.flat) * (params.flat * amount)


def learnable(params: Params) -> Array:
    """1 where a parameter may change, 0 where it is frozen; (size,)."""
    return params.layout.mask("matrix", "vector", "head", like=params.flat)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with (Nesterov) momentum, in the form of Sutskever et al. 2013 that PyTorch uses.

    ``μ ← momentum · μ + g``; the step is ``g + momentum · μ`` with Nesterov, else ``μ``.
    """

    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0

    def init(self, params: Params) -> Moments:
        """One velocity per parameter."""
        return {"velocity": get_xp(params.flat).zeros_like(params.flat)}

    def update(
        self, grads: Params, moments: Moments, params: Params, learning_rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """One step."""
        velocity = self.momentum * moments["velocity"] + grads.flat
        step = grads.flat + self.momentum * velocity if self.nesterov else velocity
        step = step + decayed(params, self.weight_decay)
        return params.with_flat(params.flat - learning_rate * step * learnable(params)), {"velocity": velocity}


@dataclass(frozen=True)
class AdamW:
    """Adam (Kingma & Ba, arXiv:1412.6980) with decoupled weight decay."""

    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def init(self, params: Params) -> Moments:
        """Two moments per parameter, and the number of steps (0-d)."""
        xp = get_xp(params.flat)
        zeros = xp.zeros_like(params.flat)
        return {"mean": zeros, "square": zeros, "steps": xp.zeros((), dtype=params.flat.dtype)}

    def update(
        self, grads: Params, moments: Moments, params: Params, learning_rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """One step: ``m̂ / (√v̂ + ε)`` with both moments corrected for their start at zero."""
        xp = get_xp(params.flat)
        steps = moments["steps"] + 1
        mean = self.beta1 * moments["mean"] + (1 - self.beta1) * grads.flat
        square = self.beta2 * moments["square"] + (1 - self.beta2) * grads.flat**2
        unbiased_mean = mean / (1 - self.beta1**steps)
        unbiased_square = square / (1 - self.beta2**steps)
        step = unbiased_mean / (xp.sqrt(unbiased_square) + self.epsilon) + decayed(params, self.weight_decay)
        new = params.with_flat(params.flat - learning_rate * step * learnable(params))
        return new, {"mean": mean, "square": square, "steps": steps}


@dataclass(frozen=True)
class Muon:
    """Muon (Jordan et al. 2024): momentum whose matrix updates are made orthogonal; AdamW for all the rest.

    A gradient matrix is dominated by few directions; replacing ``U S Vᵀ`` by ``U Vᵀ`` gives every direction the same
    step. The scale ``0.2 √max(rows, columns)`` (Liu et al., arXiv:2502.16982) gives it the size of an AdamW step, so
    that one learning rate serves both.
    """

    momentum: float = 0.95
    weight_decay: float = 0.0
    iterations: int = 5
    others: AdamW = field(default_factory=AdamW)

    def init(self, params: Params) -> Moments:
        """AdamW's moments, and a velocity."""
        return self.others.init(params) | {"velocity": get_xp(params.flat).zeros_like(params.flat)}

    def update(
        self, grads: Params, moments: Moments, params: Params, learning_rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """One step of AdamW, in which the matrices are then replaced by their orthogonal step, each a part of work."""
        new, new_moments = self.others.update(grads, moments, params, learning_rate)
        velocity = self.momentum * moments["velocity"] + grads.flat
        nesterov = grads.with_flat(grads.flat + self.momentum * velocity)
        flat = new.flat.copy()
        names = [entry.name for entry in params.layout.entries if entry.role == "matrix"]
        for name, step in zip(names, each(lambda name: orthogonalised(nesterov[name], self.iterations), names)):
            old, scale = params[name], 0.2 * sqrt(max(step.shape))
            updated = old - learning_rate * (scale * step + self.weight_decay * old)
            flat[params.layout.slices[name]] = updated.reshape(-1)
        return params.with_flat(flat), new_moments | {"velocity": velocity}


def orthogonalised(matrix: Array, iterations: int = 5) -> Array:
    """Approximately ``U Vᵀ`` of ``matrix = U S Vᵀ`` (n, m), by the quintic Newton–Schulz iteration of Jordan et al.

    Each round maps every singular value s, scaled into [0, 1], to ``a s + b s³ + c s⁵``; after five rounds all that
    were above 0.2 % of the matrix's norm lie between about 0.7 and 1.2, which is all that an update needs. Only
    matrix products: quick on every device.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    transposed = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if transposed else matrix  # the small side first: the products are then smallest
    x = x / (get_xp(x).sqrt((x * x).sum()) + 1e-12)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Array = x.T if transposed else x
    return result


def clip_by_norm(grads: Params, max_norm: float) -> tuple[Params, Array]:
    """Scale the gradient down to ``max_norm`` where it is longer (Pascanu et al., arXiv:1211.5063).

    Returns the gradient and its norm before, a 0-d array on the device.
    """
    xp = get_xp(grads.flat)
    norm = xp.sqrt((grads.flat * grads.flat).sum())
    return grads.with_flat(grads.flat * (max_norm / xp.maximum(norm, max_norm))), norm


Schedule: TypeAlias = Callable[[float], float]
"""From the fraction of training done (0 … 1) to a factor of the learning rate."""


def warmup_cosine(progress: float, warmup: float = 0.1) -> float:
    """Linear from 0 to 1 during the first ``warmup`` (below 1) of training, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + cos(pi * (progress - warmup) / (1 - warmup)))


def warmup_linear(progress: float, warmup: float = 0.1) -> float:
    """Linear from 0 to 1 during the first ``warmup`` (below 1) of training, then linear down to 0."""
    if progress < warmup:
        return progress / warmup
    return (1 - progress) / (1 - warmup)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "adamw": AdamW, "muon": Muon}
SCHEDULES: dict[str, Callable[[float, float], float]] = {"cosine": warmup_cosine, "linear": warmup_linear}
