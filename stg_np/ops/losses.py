"""Softmax cross-entropy with label smoothing, as a forward/backward pair.

The forward returns one loss *per example*. A mean over a batch is then a choice of the caller, who passes
``dloss = 1/N`` to the backward: so a batch cut into uneven shards has exactly the gradient of the whole.
"""

from __future__ import annotations

from typing import NamedTuple

from stg_np.backend import Array, get_xp


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
    """
    xp = get_xp(logits, labels)
    classes = logits.shape[1]
    one_hot = (labels[:, None] == xp.arange(classes)).astype(logits.dtype)  # (B, C)
    targets = (1 - label_smoothing) * one_hot + label_smoothing / classes
    log_probabilities = log_softmax(logits)
    losses: Array = -(targets * log_probabilities).sum(1)
    return losses, CrossEntropyCache(xp.exp(log_probabilities), targets)


def cross_entropy_backward(dlosses: Array, cache: CrossEntropyCache) -> Array:
    """``dlogits = (softmax(logits) − targets) · dloss``: (B,) -> (B, C), since each row of targets sums to 1."""
    return (cache.probabilities - cache.targets) * dlosses[:, None]
