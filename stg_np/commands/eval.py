"""``stg-np eval``: accuracy, both readings of "accuracy per class" by name, and the confusion matrix."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np

from stg_np.backend import Array
from stg_np.commands import OK, checked_device, complain_of_damaged
from stg_np.commands.options import add_checkpoint, add_data_dir, add_device, add_json, add_workers
from stg_np.data import Dataset, full_name
from stg_np.data import load as load_data
from stg_np.engine import Threads
from stg_np.evaluate import one_vs_rest_accuracy, recall_per_class
from stg_np.runs.checkpoint import Stored, load
from stg_np.runs.description import About
from stg_np.runs.scores import Scores, score
from stg_np.strict_json import to_json
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
    parser.add_argument("--data", metavar="DATA", help="data with the same classes (default: what it was trained on)")
    add_data_dir(parser)
    add_json(parser)
    add_device(parser)
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Print the scores of a checkpoint."""
    device = args.device or "cpu"
    count = checked_device(device, args.workers)
    stored = load(args.checkpoint, device)
    about = stored.about
    same_data = args.data is None or full_name(args.data) == about.data.name
    split_seed = about.data.split_seed if same_data else None  # without it the test would not be the test
    shape = about.model.input_shape
    dataset = load_data(args.data or about.data.name, args.data_dir, split_seed=split_seed, size=shape)
    complain_of_damaged(dataset.damaged)
    with Threads(count) as engine:
        scores = score(stored, dataset, engine)
    if args.json:
        print(to_json(as_json(args.checkpoint, about, dataset, scores), indent=2))
    else:
        print("\n".join(text_lines(args.checkpoint, stored, dataset, scores)))
    return OK


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
