"""What every model is, and the loss and gradient over it.

A model is a frozen dataclass: its fields are its configuration, its methods are pure functions.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from stg_np.backend import Array, get_xp, refuse_masks
from stg_np.inputs import layout_hint, shape_text
from stg_np.ops.losses import Loss
from stg_np.params import Layout, Params, State
from stg_np.workspace import Workspace


class Part(NamedTuple):
    """One part of a model, for a summary: its parameters are those named ``name.…``.

    ``shape`` is that of its output for one example, ``multiply_adds`` those of its forward pass on one example.
    """

    name: str
    shape: tuple[int, ...]
    multiply_adds: int = 0
    note: str = ""


@runtime_checkable
class Model(Protocol):
    """``layout`` says what there is to learn, ``init`` draws it; ``forward`` and ``backward`` are a pair."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    @property
    def classes(self) -> int:
        """C, the number of logits."""

    def layout(self) -> Layout:
        """Name, shape and role of every parameter; known before anything is drawn."""

    def state_layout(self) -> Layout:
        """The same of what the model keeps but does not learn by gradient (running statistics)."""

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        """Draw parameters laid out by :meth:`layout`, and the initial state, on the host."""

    def forward(
        self,
        x: Array,
        params: Params,
        state: State,
        *,
        train: bool = False,
        rng: np.random.Generator | None = None,
        work: Workspace | None = None,
    ) -> tuple[Array, Any, State]:
        """``logits (B, C), cache, new state`` for a batch x. The logits never lie in ``work``; the cache may."""

    def backward(self, dlogits: Array, cache: Any, params: Params, *, work: Workspace | None = None) -> Params:
        """The gradient of every parameter, laid out like ``params``; with ``work`` if the forward had one."""

    def parts(self, params: Params) -> list[Part]:
        """Its parts from the input to the logits, as a person would list them."""


@runtime_checkable
class Adapts(Protocol):
    """A model part of which is computed from the training pictures before the first step."""

    def adapted(self, params: Params, pictures: Array) -> Params:
        """The parameters for pictures like these (N, height, width, c), on the host and scaled as the input."""


def check_input(model: Model, x: Array, params: Params) -> None:
    """Whether x can be a batch for the model with these parameters: one rule for all models and paths.

    Raises:
        ValueError: if x is not (B, …) with the model's ``input_shape``.
        TypeError: if x is not of the parameters' dtype: integer pixels must be scaled first.
    """
    get_xp(x)  # None is no batch
    get_xp(x, params.flat)
    refuse_masks(x)
    wanted = tuple(model.input_shape)
    if x.ndim == 0 or x.shape[1:] != wanted:
        hint = layout_hint(x.shape, wanted)
        raise ValueError(f"the model takes batches of shape {shape_text(('B', *wanted))}, got {x.shape}{hint}")
    if x.dtype != params.flat.dtype:
        pixels = ", pixels with normalise(x, mean, std, value_range)" if x.dtype.kind in "bui" else ""
        raise TypeError(
            f"the input is {x.dtype} and the parameters are {params.flat.dtype}: convert or scale it first{pixels}, so "
            "that both have the same dtype"
        )


class LossAndGrad(NamedTuple):
    """The weighted sum of the losses, its gradient, how many examples were right, and the new state.

    ``loss`` and ``correct`` are 0-d arrays on the device of ``x``: reading them waits for the device.
    """

    loss: Array
    grads: Params
    correct: Array
    state: State


def loss_and_grad(
    model: Model,
    params: Params,
    state: State,
    x: Array,
    targets: Array,
    *,
    loss: Loss,
    weight: float,
    rng: np.random.Generator | None = None,
    work: Workspace | None = None,
) -> LossAndGrad:
    """Train-mode forward and backward of ``weight · Σ loss`` over the examples given.

    With ``weight = 1/N`` the results of shards of a batch of N add up to the mean over the whole batch.

    Args:
        model: any model. params, state: its parameters and state.
        x: (B, …), the model's input. targets: (B, …), what the loss compares its outputs with.
        loss: for example ``cross_entropy()`` of :mod:`stg_np.ops.losses`.
        weight: what each example's loss counts.
        rng: for what is random in training (dropout); drawn on the host.
        work: memory that is used again; the results never lie in it.
    """
    outputs, cache, new_state = model.forward(x, params, state, train=True, rng=rng, work=work)
    losses, loss_cache = loss.forward(outputs, targets)
    dlosses = get_xp(losses).full(losses.shape, weight, dtype=losses.dtype)  # from weight · Σ
    grads = model.backward(loss.backward(dlosses, loss_cache), cache, params, work=work)
    return LossAndGrad(losses.sum() * weight, grads, loss.correct(outputs, targets), new_state)
