"""What a trained model says of pictures, and how often it is right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.data import Dataset
from stg_np.data.augment import scaled
from stg_np.divergence import TrainingError
from stg_np.engine import Engine
from stg_np.evaluate import AS_STORED, SHIFTED, View, accuracy, confusion_matrix, predict_logits
from stg_np.inputs import check_pictures
from stg_np.ops.losses import log_softmax
from stg_np.runs.checkpoint import Stored
from stg_np.runs.description import About


class MisfitError(Exception):
    """A model and a data set that do not belong together; the message is one sentence."""


class Scores(NamedTuple):
    """The result of a test.

    ``accuracy_mirror``: by the mean of the logits of each picture and its mirror image, where that makes sense;
    ``accuracy_averaged``: by the mean of that and of the same moved by a pixel to and fro
    (:data:`~stg_np.evaluate.SHIFTED`). Without averaging are ``confusion`` (C, C): row, the true class; column, the
    class that the model says, None where there are no classes; and ``logits`` (N, C), those of the test pictures.
    """

    pictures: int
    loss: float
    accuracy: float
    accuracy_mirror: float | None
    accuracy_averaged: float | None
    confusion: Array | None
    logits: Array

    @property
    def averages(self) -> dict[str, float]:
        """The accuracies with test-time averaging that there are, by what was averaged over."""
        found = {"mirror": self.accuracy_mirror, "mirror and shift": self.accuracy_averaged}
        return {name: accuracy for name, accuracy in found.items() if accuracy is not None}


def logits_of(stored: Stored, pictures: Array, engine: Engine, view: View = AS_STORED) -> Array:
    """Logits (N, C), on the host, of pictures (N, height, width, c) uint8, which are scaled as in training.

    Raises:
        ValueError, TypeError: see :func:`~stg_np.inputs.check_pictures`.
    """
    about, now = stored
    check_pictures(pictures, about.model.input_shape, about.data.value_range)
    xp = get_xp(now.params.flat)

    def prepare(group: Array) -> Array:
        x: Array = xp.asarray(scaled(group, about.data.scaling))
        return x

    return predict_logits(about.model, now.params, now.state, pictures, engine, prepare, view=view)


def probabilities(stored: Stored, pictures: Array, engine: Engine) -> Array:
    """(N, C), float64: how probable the model finds each class of each picture.

    Raises:
        TrainingError: if that is no number, because the model overflows.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the result tells
        result: Array = np.exp(log_softmax(logits_of(stored, pictures, engine).astype(np.float64)))
    if not np.isfinite(result).all():
        raise TrainingError("what the model says of a picture is not finite: its training diverged, use another")
    return result


def score(stored: Stored, dataset: Dataset, engine: Engine) -> Scores:
    """Test on the test pictures of ``dataset``.

    Raises:
        MisfitError: if it has pictures of another shape, or other classes, than the model was trained on.
    """
    refuse_misfit(stored.about, dataset)
    pictures, labels = dataset.test_images, dataset.test_labels
    plain = logits_of(stored, pictures, engine)
    if dataset.task is not None:
        return Scores(len(labels), *accuracy(plain, labels, dataset.task.loss), None, None, None, plain)
    mirror = averaged = None
    if dataset.flip and min(pictures.shape[1:3]) > 1:
        both = (plain + logits_of(stored, pictures, engine, View(mirrored=True))) / 2
        shifted = sum(logits_of(stored, pictures, engine, view) for view in SHIFTED) / len(SHIFTED)
        mirror, averaged = accuracy(both, labels)[1], accuracy((both + shifted) / 2, labels)[1]
    return Scores(len(labels), *accuracy(plain, labels), mirror, averaged, confusion_matrix(plain, labels), plain)


def quoted(dataset: Dataset, scores: Scores) -> str:
    """What came out of a task, in a line: ``mean squared error 0.00042 (without a memory 0.167), 97.3 % …``."""
    task = dataset.task
    assert task is not None  # the caller has asked
    return (
        f"{task.measure} {task.scale * scores.loss:.3g} (without a memory {task.untrained:.3g}), "
        f"{100 * scores.accuracy:.1f} % {task.right}, on {dataset.label}"
    )


def refuse_misfit(about: About, dataset: Dataset) -> None:
    """Pictures of another shape, or other classes, are another task."""
    needed, found = about.model.input_shape, dataset.shape
    if needed != found:
        needs, has = ("×".join(map(str, shape)) for shape in (needed, found))
        raise MisfitError(
            f"the model takes pictures of {needs} and {dataset.name} has {has}: name other data with --data"
        )
    if about.data.value_range != dataset.value_range:
        raise MisfitError(
            f"the model has learned pixels up to {about.data.value_range} and those of {dataset.name} go up to "
            f"{dataset.value_range}: name other data with --data"
        )
    if about.data.classes != dataset.classes:
        raise MisfitError(
            f"the model knows the classes of {about.data.name} ({', '.join(about.data.classes)}), which are not those "
            f"of {dataset.name}: name other data with --data"
        )
