"""Losses as forward/backward pairs: softmax cross-entropy with label smoothing, and the squared error.

The forward returns one loss *per example*. A mean over a batch is then a choice of the caller, who passes
``dloss = 1/N`` to the backward: so a batch cut into uneven shards has exactly the gradient of the whole.
A :class:`Loss` is what a training descends: such a pair, and what counts as a right answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_classified, check_number, check_targets


class CrossEntropyCache(NamedTuple):
    """``probabilities`` and ``targets``: both (B, C)."""

    probabilities: Array
    targets: Array


def log_softmax(logits: Array) -> Array:
    """``log softmax`` over the last axis, (..., C); the maximum is subtracted first, so nothing overflows."""
    xp = get_xp(logits)
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities: Array = shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))
    return log_probabilities


def cross_entropy_forward(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0
) -> tuple[Array, CrossEntropyCache]:
    """Cross-entropy between softmax(logits) and smoothed one-hot targets.

    The target of the right class is ``1 − s + s/C`` and that of each other class ``s/C`` (Szegedy et al.,
    arXiv:1512.00567, section 7); s is ``label_smoothing``.

    Args:
        logits: (B, C).
        labels: (B,) integers in 0 … C−1.
        label_smoothing: s, in [0, 1].

    Returns:
        losses (B,), one per example, in nats; and the cache.

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_classified`; ValueError for such an s.
    """
    check_classified(logits, labels)
    check_number("label_smoothing", label_smoothing, least=0, most=1)
    xp, classes = get_xp(logits), logits.shape[1]
    one_hot = (labels[:, None] == xp.arange(classes)).astype(logits.dtype)  # (B, C)
    targets = (1 - label_smoothing) * one_hot + label_smoothing / classes
    log_probabilities = log_softmax(logits)
    counted = xp.where(targets > 0, log_probabilities, 0)  # of a class ruled out (logit −∞) 0 · ∞ would be NaN
    losses: Array = -(targets * counted).sum(1)
    return losses, CrossEntropyCache(xp.exp(log_probabilities), targets)


def cross_entropy_backward(dlosses: Array, cache: CrossEntropyCache) -> Array:
    """``dlogits = (softmax(logits) − targets) · dloss``: (B,) -> (B, C), since each row of targets sums to 1."""
    return (cache.probabilities - cache.targets) * dlosses[:, None]


class SquaredErrorCache(NamedTuple):
    """``errors``: outputs − targets, (B, K)."""

    errors: Array


def squared_error_forward(outputs: Array, targets: Array) -> tuple[Array, SquaredErrorCache]:
    """``½ Σ_k (outputs − targets)²`` of each example: outputs and targets (B, K) -> losses (B,)."""
    check_targets(outputs, targets)
    errors = outputs - targets
    losses: Array = (errors * errors).sum(1) / 2
    return losses, SquaredErrorCache(errors)


def squared_error_backward(dlosses: Array, cache: SquaredErrorCache) -> Array:
    """``doutputs = (outputs − targets) · dloss``: (B,) -> (B, K)."""
    return cache.errors * dlosses[:, None]


class Loss(NamedTuple):
    """What a training descends.

    Attributes:
        forward: ``losses (B,), cache`` from outputs (B, …) and targets (B, …).
        backward: the gradient of the outputs from dlosses (B,) and the cache.
        correct: how many of the outputs are right, a 0-d array on their device.
    """

    forward: Callable[[Array, Array], tuple[Array, Any]]
    backward: Callable[[Array, Any], Array]
    correct: Callable[[Array, Array], Array]


def cross_entropy(label_smoothing: float = 0.1) -> Loss:
    """The loss of a classifier: logits (B, C), labels (B,). Right is the class with the largest logit.

    Raises:
        ValueError, TypeError: if ``label_smoothing`` is no number in [0, 1].
    """
    check_number("label_smoothing", label_smoothing, least=0, most=1)
    forward = partial(cross_entropy_forward, label_smoothing=label_smoothing)
    return Loss(forward, cross_entropy_backward, count_hits)


def count_hits(logits: Array, labels: Array) -> Array:
    """How many of the largest logits (B, C) stand at the label (B,)."""
    check_classified(logits, labels)
    hits: Array = (logits.argmax(1) == labels).sum()
    return hits


TOLERANCE = 0.04
"""The largest error of an output that counts as right: that of the adding problem (Hochreiter & Schmidhuber 1997)."""


def count_close(outputs: Array, targets: Array) -> Array:
    """How many examples have all their outputs (B, K) within :data:`TOLERANCE` of the targets (B, K)."""
    check_targets(outputs, targets)
    close: Array = (abs(outputs - targets) < TOLERANCE).all(1).sum()
    return close


SQUARED_ERROR = Loss(squared_error_forward, squared_error_backward, count_close)
"""The loss of a regression: outputs and targets (B, K)."""
