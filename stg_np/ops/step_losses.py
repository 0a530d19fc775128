"""The loss of a network that answers at every step: cross-entropy averaged over the steps of each sequence."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_floating, check_shape
from stg_np.ops.losses import CrossEntropyCache, Loss, cross_entropy_backward, cross_entropy_forward


class StepCrossEntropyCache(NamedTuple):
    """That of the cross-entropy of all steps, and (B, T, C)."""

    steps: CrossEntropyCache
    shape: tuple[int, int, int]


def step_cross_entropy_forward(logits: Array, labels: Array) -> tuple[Array, StepCrossEntropyCache]:
    """The mean over the steps of each step's cross-entropy (nats): logits (B, T, C), labels (B, T) -> losses (B,).

    Raises:
        ValueError, TypeError: see :func:`check_steps`, and :func:`~stg_np.inputs.check_classified`.
    """
    check_steps(logits, labels)
    B, T, C = logits.shape
    losses, cache = cross_entropy_forward(logits.reshape(B * T, C), labels.reshape(B * T))  # of every step
    return losses.reshape(B, T).mean(1), StepCrossEntropyCache(cache, (B, T, C))


def step_cross_entropy_backward(dlosses: Array, cache: StepCrossEntropyCache) -> Array:
    """dlosses (B,) -> dlogits (B, T, C)."""
    B, T, _ = cache.shape
    dsteps = get_xp(dlosses).broadcast_to(dlosses[:, None] / T, (B, T)).reshape(B * T)  # from the mean over the steps
    dlogits: Array = cross_entropy_backward(dsteps, cache.steps).reshape(cache.shape)
    return dlogits


def count_symbols(logits: Array, labels: Array, *, blank: int) -> Array:
    """The share of right answers in each sequence, added up over the sequences; steps labelled ``blank`` do not count.

    Logits (B, T, C), labels (B, T); a sequence of blanks alone has the share 0.
    """
    check_steps(logits, labels)
    counts = labels != blank  # (B, T)
    hits = ((logits.argmax(-1) == labels) & counts).sum(1)
    share: Array = (hits / get_xp(logits).maximum(counts.sum(1), 1)).sum()
    return share


def check_steps(logits: Array, labels: Array) -> None:
    """Refuse what is not logits (B, T, C), with T ≥ 1, and labels (B, T).

    Raises:
        ValueError: for other shapes. TypeError: if the logits are not of a floating dtype.
    """
    get_xp(logits, labels)
    check_floating("logits", logits, "B", "T", "C")
    check_shape("labels", labels, *logits.shape[:2])
    if logits.shape[1] < 1:
        raise ValueError(f"there is no step in {logits.shape}")


def step_cross_entropy(blank: int) -> Loss:
    """The loss of a classifier of steps: logits (B, T, C), labels (B, T); :func:`count_symbols` says what is right."""
    return Loss(step_cross_entropy_forward, step_cross_entropy_backward, partial(count_symbols, blank=blank))
