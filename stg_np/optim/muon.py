"""Muon: momentum whose steps are made orthogonal, for matrices and convolution kernels."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_fields
from stg_np.optim.rule import Each, Moments, moved
from stg_np.params import Params


@dataclass(frozen=True)
class Muon:
    """Muon (Jordan et al. 2024), for entries of two or more axes.

    A gradient matrix is dominated by few directions; replacing ``U S Vᵀ`` by ``U Vᵀ`` gives every direction the same
    step. The scale ``0.2 √max(rows, columns)`` (Liu et al., arXiv:2502.16982) gives it the size of an AdamW step, so
    that one learning rate serves both.

    With ``fixed_norm``, before each step every entry of d columns is scaled to the norm √d, and the scale of the step
    is 1, as in Jordan's networks for CIFAR-10: where a normalisation follows, only the direction of the weights counts,
    and the learning rate is then the part of it that a step replaces. Set ``weight_decay`` to 0 with it.
    """

    learning_rate: float = 0.005
    weight_decay: float = 0.05
    momentum: float = 0.95
    iterations: int = 5
    fixed_norm: bool = False

    def __post_init__(self) -> None:
        check_fields(self, Muon, positive=("learning_rate",), fractions=("momentum",))

    def init(self, params: Params) -> Moments:
        """One velocity per parameter.

        Raises:
            ValueError: if there is an entry that is no matrix or kernel.
        """
        for name, shape, role in params.layout.entries:
            if len(shape) < 2 and role != "frozen":
                raise ValueError(f"Muon is for matrices and kernels, and {name} has shape {shape}: use ByRole")
        return {"velocity": get_xp(params.flat).zeros_like(params.flat)}

    def update(
        self, grads: Params, moments: Moments, params: Params, rate: float, *, each: Each = map
    ) -> tuple[Params, Moments]:
        """One step; each matrix is a part of the work."""
        velocity = self.momentum * moments["velocity"] + grads.flat
        nesterov = grads.with_flat(grads.flat + self.momentum * velocity)

        def direction(name: str) -> Array:
            matrix = as_matrix(nesterov[name])
            scale = 1 if self.fixed_norm else 0.2 * sqrt(max(matrix.shape))
            scaled: Array = scale * orthogonalised(matrix, self.iterations)
            return scaled

        names = [entry.name for entry in params.layout.entries if entry.role != "frozen"]
        directions = nesterov.replaced(dict(zip(names, each(direction, names))))
        if self.fixed_norm:
            params = params.replaced({name: with_unit_columns(params[name]) for name in names})
        step = directions.flat + self.weight_decay * params.flat
        return moved(params, self.learning_rate * rate * step), {"velocity": velocity}


def as_matrix(weights: Array) -> Array:
    """A kernel (k, k, c, d) as the matrix (k·k·c, d); a matrix is itself.

    A convolution is the product of that matrix with the windows, each laid out as one row of k·k·c numbers: this is
    the linear map whose directions should all get the same step.
    """
    return weights.reshape(-1, weights.shape[-1])


def with_unit_columns(weights: Array) -> Array:
    """Weights (..., d) scaled to the norm √d, as a matrix of d columns of length 1 has; zeros stay zeros."""
    norm = get_xp(weights).sqrt((weights * weights).sum()) + 1e-12
    scaled: Array = weights * (sqrt(weights.shape[-1]) / norm)
    return scaled


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
