"""Evaluation: logits of many pictures, and what "accuracy per class" can mean, by name.

Two readings of "accuracy of class k" are in use, and they differ widely:

* **recall**: of the pictures of class k, how many are called k. Its mean over equally frequent classes is the usual
  C-way accuracy.
* **one-vs-rest accuracy**: (TP + TN) / N, how many pictures are rightly called "k" or "not k". Its mean over the
  classes is 1 − 2·error/C: with ten classes, a model that is right 90 % of the time scores 98 %.

Beside recall stand **precision** (of the pictures that are called k, how many are of class k) and **F1**, the harmonic
mean of both. A macro mean is the plain mean over the classes, however many pictures each has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, to_host
from stg_np.data.augment import moved
from stg_np.engine import Engine
from stg_np.inputs import check_classified, check_confusion
from stg_np.models.base import Model
from stg_np.ops.losses import Loss, cross_entropy
from stg_np.params import Params, State

GROUP = 50
"""Pictures per forward pass: a number that divides the usual test sets; more are no quicker, and take more memory."""


class View(NamedTuple):
    """One way of looking at pictures: mirrored or not, then moved by so many pixels; those that come in are mirrored.

    The mean of the logits of several views errs less than those of one: test-time averaging.
    """

    mirrored: bool = False
    down: int = 0
    right: int = 0


AS_STORED = View()
SHIFTED = [View(mirrored, by, by) for mirrored in (False, True) for by in (-1, 1)]
"""A pixel up and left, a pixel down and right, and the same of the mirror image."""


def predict_logits(
    model: Model,
    params: Params,
    state: State,
    images: Array,
    engine: Engine,
    prepare: Callable[[Array], Array],
    *,
    view: View = AS_STORED,
) -> Array:
    """Logits (N, C), on the host, of pictures (N, height, width, c) uint8.

    Args:
        model: with its ``params`` and ``state``.
        images: pictures as stored; ``prepare`` turns a group of them into the model's input on its device.
        engine: who does the work; each worker takes groups of :data:`GROUP` pictures.
        view: how the pictures are looked at.

    Raises:
        ValueError: if there are no pictures. ValueError, TypeError: see :func:`~stg_np.models.base.check_input`.
    """
    if not len(images):
        raise ValueError("there are no pictures")

    def logits_of(start: int) -> Array:
        group = images[start : start + GROUP]
        if view.mirrored:
            group = group[:, :, ::-1]
        if view.down or view.right:
            group = moved(group, view.down, view.right)
        logits, _, _ = model.forward(prepare(group), params, state, train=False, work=engine.workspace)
        return to_host(logits)

    return np.concatenate(engine.map(logits_of, range(0, len(images), GROUP)))


def accuracy(outputs: Array, targets: Array, loss: Loss | None = None) -> tuple[float, float]:
    """Mean loss and share of right answers (0 … 1) over N examples.

    Without a ``loss``, those of a classifier: cross-entropy (nats, no smoothing) of logits (N, C) and labels (N,).

    Raises:
        ValueError: if there are no examples. ValueError, TypeError: see the loss.
    """
    if not len(targets):
        raise ValueError("there are no examples")
    loss = loss or cross_entropy(0.0)
    losses, _ = loss.forward(outputs, targets)
    return float(losses.mean(dtype=np.float64)), float(loss.correct(outputs, targets)) / len(targets)


def confusion_matrix(logits: Array, labels: Array) -> Array:
    """(C, C) counts: row, the true class; column, the class that the model says; of logits (N, C) and labels (N,).

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_classified`.
    """
    check_classified(logits, labels)
    classes = logits.shape[1]
    counts: Array = np.bincount(labels * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)
    return counts


def recall_per_class(confusion: Array) -> Array:
    """(C,): right answers over pictures of the class; NaN for a class without pictures."""
    check_confusion(confusion)
    pictures = confusion.sum(1)
    recall: Array = np.divide(np.diag(confusion), pictures, out=np.full(len(confusion), np.nan), where=pictures > 0)
    return recall


def precision_per_class(confusion: Array) -> Array:
    """(C,): TP / (TP + FP), right answers over pictures that are called so.

    0 for a class that is never said; NaN for one that is neither said nor there, which a macro mean leaves out.
    """
    check_confusion(confusion)
    return _share_of(np.diag(confusion), confusion.sum(0), confusion.sum(1))


def f1_per_class(confusion: Array) -> Array:
    """(C,): 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall; 0 and NaN as for precision."""
    check_confusion(confusion)
    return _share_of(2 * np.diag(confusion), confusion.sum(0) + confusion.sum(1), confusion.sum(1))


def _share_of(part: Array, whole: Array, pictures: Array) -> Array:
    share: Array = np.divide(part, whole, out=np.where(pictures > 0, 0.0, np.nan), where=whole > 0)
    return share


def one_vs_rest_accuracy(confusion: Array) -> Array:
    """(C,): (TP + TN) / N for each class."""
    check_confusion(confusion)
    if not confusion.any():
        raise ValueError("there are no pictures in this confusion matrix")
    right: Any = np.diag(confusion)
    wrong = confusion.sum(0) + confusion.sum(1) - 2 * right  # called k though it is not, and the reverse
    one_vs_rest: Array = 1 - wrong / confusion.sum()
    return one_vs_rest
