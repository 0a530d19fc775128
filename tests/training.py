"""What the tests of training share: a tiny data set whose classes can be told apart, and a tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np

from stg_np.backend import Array, to_host
from stg_np.data.augment import Scaling
from stg_np.models.stg import STG
from stg_np.ops.losses import Loss
from stg_np.optim import SGD, AdamW, ByRole, Optimizer, with_learning_rate
from stg_np.params import Params
from stg_np.train import Examples, Run, TrainConfig, TrainState

RULES: dict[str, Optimizer] = {
    "sgd": SGD(0.1, 0.05),
    "adamw": AdamW(0.01, 0.05),
    "by_role": with_learning_rate(ByRole(), 0.02),
}
"""Rules for a whole model, at rates at which the tiny one learns."""
SCALING = Scaling(np.array([0.5]), np.array([0.3]), 255)
MODEL = STG((8, 8, 1), 4, view="patches", patch=(4, 4), width=8, layers=2)


def pictures(count: int, seed: int = 0) -> Examples:
    """8×8 pictures of four classes, on noise: dark, horizontal stripes, vertical stripes, bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    stripes = np.zeros((8, 8), np.uint8)
    stripes[::2] = 150
    patterns = np.stack([np.zeros_like(stripes), stripes, stripes.T, np.full_like(stripes, 150)])
    images = rng.integers(0, 100, (count, 8, 8, 1), dtype=np.uint8) + patterns[labels, :, :, None]
    return Examples(images, labels)


def make_run(
    *,
    train: int = 50,
    validation: int = 20,
    model: Any = MODEL,
    device: str = "cpu",
    data: tuple[Examples, Examples | None] | None = None,
    loss: Loss | None = None,
    **config: Any,
) -> Run:
    """Two epochs of three steps, in groups of 6, 6 and 4, with random flips and shifts (unless told otherwise)."""
    settings = {"epochs": 2, "batch_size": 16, "group_size": 6, "optimizer": RULES["by_role"], "flip": True, "shift": 1}
    examples = data or (pictures(train, seed=1), pictures(validation, seed=2) if validation else None)
    return Run(model, TrainConfig(**{**settings, **config}), *examples, SCALING, device, loss)


def bits(now: TrainState) -> dict[str, bytes]:
    """Every array of a state, and its counters, as bytes: equal only if not one bit differs."""
    arrays: dict[str, Array] = {
        "params": now.params.flat,
        **{f"state {name}": array for name, array in now.state.items()},
        **{f"moment {name}": array for name, array in now.moments.items()},
        "loss_sum": now.loss_sum,
        "correct": now.correct,
        "bad_step": now.bad_step,
        "counters": np.array([now.step, now.best_accuracy, now.improved_at]),
    }
    return {name: to_host(array).tobytes() for name, array in arrays.items()}


def as_float64(params: Params) -> Params:
    """The same parameters, in double precision."""
    return params.with_flat(params.flat.astype(np.float64))
