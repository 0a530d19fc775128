"""``stg-np eval``: accuracy, both readings of "accuracy per class" by name, and the confusion matrix."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, to_device
from stg_np.commands import OK, UsageError, checked_device
from stg_np.commands.options import add_checkpoint, add_data_dir, add_device, add_json, add_workers
from stg_np.data import Dataset
from stg_np.data import load as load_data
from stg_np.data.augment import normalise
from stg_np.engine import Threads
from stg_np.evaluate import accuracy, confusion_matrix, one_vs_rest_accuracy, predict_logits, recall_per_class
from stg_np.runs.folder import About, Stored, load
from stg_np.summary import aligned

ABOUT = "test a checkpoint on the test pictures"
EPILOG = """\
"Accuracy per class" has two readings, and both are printed: recall (of the pictures of class k, how many are called k;
its mean is the usual accuracy) and one-vs-rest accuracy (how many pictures are rightly called "k" or "not k": with ten
classes and 90 % accuracy its mean is 98 %).

examples:
  stg-np eval runs/digits/best.npz
  stg-np eval runs/cifar10-rows/best.npz --data-dir ~/cifar-10-batches-bin --json
"""


def add_options(parser: Any) -> None:
    """The checkpoint, and on what to test it."""
    add_checkpoint(parser)
    parser.add_argument("--data", metavar="NAME", help="data with the same classes (default: what it was trained on)")
    add_data_dir(parser)
    add_json(parser)
    add_device(parser)
    add_workers(parser)


class Scores(NamedTuple):
    """The result of a test. ``accuracy_mirror``: averaged over each picture and its mirror image, where that makes
    sense; ``confusion`` (C, C) is without it: row, the true class; column, the class that the model says.
    """

    pictures: int
    loss: float
    accuracy: float
    accuracy_mirror: float | None
    confusion: Array


def evaluate(stored: Stored, dataset: Dataset, device: str, workers: Threads) -> Scores:
    """Test on the test pictures of ``dataset``."""
    images, labels = dataset.test_images, dataset.test_labels

    def prepare(pictures: Array) -> Array:
        return to_device(normalise(pictures, *stored.about.data.scaling), device)

    def logits(mirror: bool) -> Array:
        now = stored.now
        return predict_logits(stored.about.model, now.params, now.state, images, workers, prepare, mirror=mirror)

    plain = logits(mirror=False)
    mirrored = accuracy(logits(mirror=True), labels)[1] if dataset.flip else None
    return Scores(len(labels), *accuracy(plain, labels), mirrored, confusion_matrix(plain, labels))


def run(args: argparse.Namespace) -> int:
    """Print the scores of a checkpoint."""
    device = args.device or "cpu"
    count = checked_device(device, args.workers)
    stored = load(args.checkpoint, device)
    about = stored.about
    split_seed = (
        about.data.split_seed if args.data in (None, about.data.name) else None
    )  # else the test is not the test
    dataset = load_data(args.data or about.data.name, args.data_dir, split_seed=split_seed)
    refuse_misfit(about, dataset)
    with Threads(count) as workers:
        scores = evaluate(stored, dataset, device, workers)
    if args.json:
        print(json.dumps(as_json(args.checkpoint, about, dataset, scores), indent=2))
    else:
        print("\n".join(text_lines(args.checkpoint, stored, dataset, scores)))
    return OK


def refuse_misfit(about: About, dataset: Dataset) -> None:
    """Pictures of another shape, or other classes, are another task."""
    needed, found = about.model.input_shape, dataset.shape
    if needed != found:
        needs, has = ("×".join(map(str, shape)) for shape in (needed, found))
        raise UsageError(
            f"the model takes pictures of {needs} and {dataset.name} has {has}: name other data with --data"
        )
    if about.data.classes != dataset.classes:
        raise UsageError(
            f"the model knows the classes of {about.data.name} ({', '.join(about.data.classes)}), which are not those "
            f"of {dataset.name}: name other data with --data"
        )


def as_json(path: Any, about: About, dataset: Dataset, scores: Scores) -> dict[str, Any]:
    """Everything as plain values; what does not exist is null."""
    recall, one_vs_rest = recall_per_class(scores.confusion), one_vs_rest_accuracy(scores.confusion)
    return {
        "checkpoint": str(path),
        "data": dataset.label,
        "fingerprint": dataset.fingerprint,
        "official": dataset.official,
        "trained_on": about.data.label,
        "trained_on_fingerprint": about.data.fingerprint,
        "pictures": scores.pictures,
        "loss": scores.loss,
        "accuracy": scores.accuracy,
        "accuracy_mirror": scores.accuracy_mirror,
        "classes": list(dataset.classes),
        "recall_per_class": [None if isnan(value) else value for value in recall.tolist()],
        "recall_mean": float(np.nanmean(recall)),
        "one_vs_rest_accuracy_per_class": one_vs_rest.tolist(),
        "one_vs_rest_accuracy_mean": float(one_vs_rest.mean()),
        "confusion": scores.confusion.tolist(),
    }


def text_lines(path: Any, stored: Stored, dataset: Dataset, scores: Scores) -> list[str]:
    """The same for people."""
    about, label = stored.about, dataset.label
    lines = [f"{path}: preset {about.preset}, trained on {about.data.label}, state after step {stored.now.step:,}"]
    if dataset.fingerprint != about.data.fingerprint:
        lines.append(
            f"note: these are not the bytes that it learned from (fingerprint {dataset.fingerprint} here, "
            f"{about.data.fingerprint} there)"
        )
    lines += ["", *class_table(dataset.classes, scores.confusion)]
    lines += ["", "confusion matrix (row: the true class; column: the class that the model says)"]
    header = ("", *(name[:5] for name in dataset.classes))
    lines += aligned([header, *((name, *map(str, row)) for name, row in zip(dataset.classes, scores.confusion))])
    lines += ["", f"loss {scores.loss:.4f} nats on {label}, {scores.pictures:,} test pictures"]
    if scores.accuracy_mirror is not None:
        lines.append(f"accuracy with mirror averaging {scores.accuracy_mirror:.4f} on {label}")
    return [*lines, f"accuracy {scores.accuracy:.4f} on {label}"]


def class_table(classes: Sequence[str], confusion: Array) -> list[str]:
    """Both readings of "accuracy per class", by name, and their means."""
    recall, one_vs_rest, pictures = recall_per_class(confusion), one_vs_rest_accuracy(confusion), confusion.sum(1)
    rows = [("class", "recall", "one-vs-rest accuracy", "pictures")]
    rows += [(k, f"{r:.4f}", f"{o:.4f}", f"{n:,}") for k, r, o, n in zip(classes, recall, one_vs_rest, pictures)]
    rows.append(("mean", f"{np.nanmean(recall):.4f}", f"{one_vs_rest.mean():.4f}", ""))
    return aligned(rows)


def per_class(classes: Sequence[str], values: Array) -> str:
    """``name 0.97, name 0.94, …`` in one line."""
    return ", ".join(f"{name} {value:.2f}" for name, value in zip(classes, values))
