"""``stg-np eval``: accuracy, both readings of "accuracy per class" by name, and the confusion matrix."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stg_np.backend import Array
from stg_np.commands import OK, checked_device, complain_of_damaged
from stg_np.commands.options import (
    add_checkpoint,
    add_data_dir,
    add_device,
    add_json,
    add_workers,
    refuse_other_input,
    refuse_sheet,
)
from stg_np.data import Dataset
from stg_np.engine import Threads
from stg_np.evaluate import f1_per_class, one_vs_rest_accuracy, precision_per_class, recall_per_class
from stg_np.foreign import showable
from stg_np.runs.checkpoint import Stored
from stg_np.runs.chosen import chosen_state
from stg_np.runs.description import About
from stg_np.runs.experiment import data_of, finite_scores
from stg_np.runs.scores import Scores, quoted
from stg_np.streams import complain
from stg_np.strict_json import to_json
from stg_np.summary import aligned

ABOUT = "test a checkpoint on the test pictures"
EPILOG = """\
"Accuracy per class" has two readings, and both are printed: recall (of the pictures of class k, how many are called k;
its mean is the usual accuracy) and one-vs-rest accuracy (how many pictures are rightly called "k" or "not k": with ten
classes and 90 % accuracy its mean is 98 %). Beside them stand precision (of the pictures that are called k, how many
are of class k) and F1, the harmonic mean of precision and recall. Macro means are over the classes.

--gallery shows wrong answers, at most 64, the most confident first.

examples:
  stg-np eval runs/digits/best.npz
  stg-np eval runs/digits --gallery wrong.png
  stg-np eval runs/cifar10-rows/best.npz --data-dir ~/cifar-10-batches-bin --json
"""

MEASURES = {
    "recall": recall_per_class,
    "precision": precision_per_class,
    "F1": f1_per_class,
    "one-vs-rest accuracy": one_vs_rest_accuracy,
}
"""The columns of the table of classes."""


def add_options(parser: Any) -> None:
    """The checkpoint, and on what to test it."""
    add_checkpoint(parser)
    parser.add_argument("--data", metavar="DATA", help="data with the same classes (default: what it was trained on)")
    add_data_dir(parser)
    parser.add_argument("--gallery", type=Path, metavar="FILE.png", help="a picture of the wrong answers")
    add_json(parser)
    add_device(parser)
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Print the scores of a checkpoint."""
    device = args.device or "cpu"
    count = checked_device(device, args.workers)
    if args.gallery is not None:
        refuse_sheet(args.gallery, "--gallery")
    path, stored = chosen_state(args.checkpoint, device)
    if args.gallery is not None:
        refuse_other_input(path, stored)
    about = stored.about
    dataset = data_of(about, args.data, args.data_dir)
    complain_of_damaged(dataset.damaged)
    with Threads(count) as engine:
        scores = finite_scores(stored, dataset, engine)
    drawn: list[str] = []
    failure: Exception | None = None
    try:
        if args.gallery is not None:
            drawn = [draw_gallery(args.gallery, dataset, scores)]
    except Exception as error:  # a full disk, a broken font: the scores come first
        failure = error
    if args.json:
        print(to_json(as_json(path, about, dataset, scores), indent=2))
        for sentence in drawn:
            complain(sentence)
    else:
        *lines, accuracy = text_lines(path, stored, dataset, scores)
        print("\n".join([*lines, *drawn, accuracy]))
    if failure is not None:
        raise failure
    return OK


def draw_gallery(target: Path, dataset: Dataset, scores: Scores) -> str:
    """Write the picture of the wrong answers, if there are any, and say what it shows."""
    from stg_np.runs.archive import write_atomically
    from stg_np.runs.gallery import SHOWN, gallery_png, wrong_answers

    wrong = wrong_answers(scores.logits, dataset.test_labels)
    name = showable(target)
    if not wrong:
        left = f"; {name} is an older gallery" if target.exists() else ""
        return f"no gallery: all {scores.pictures:,} answers are right{left}"
    write_atomically(target, gallery_png(dataset, scores, wrong))
    if len(wrong) > SHOWN:
        return f"{name} shows {SHOWN} of {len(wrong):,} wrong answers, the most confident first"
    return f"{name} shows the {len(wrong)} wrong answers, the most confident first"


def as_json(path: Any, about: About, dataset: Dataset, scores: Scores) -> dict[str, Any]:
    """Everything as plain values; what does not exist is null."""
    common = {
        "checkpoint": str(path),
        "data": dataset.label,
        "fingerprint": dataset.fingerprint,
        "official": dataset.official,
        "trained_on": about.data.label,
        "trained_on_fingerprint": about.data.fingerprint,
        "pictures": scores.pictures,
        "loss": scores.loss,
        "accuracy": scores.accuracy,
    }
    if scores.confusion is None:
        return common
    recall, precision, f1, one_vs_rest = (measure(scores.confusion) for measure in MEASURES.values())
    return common | {
        "accuracy_mirror": scores.accuracy_mirror,
        "accuracy_averaged": scores.accuracy_averaged,
        "classes": list(dataset.classes),
        "recall_per_class": recall.tolist(),
        "recall_macro": float(np.nanmean(recall)),
        "precision_per_class": precision.tolist(),
        "precision_macro": float(np.nanmean(precision)),
        "f1_per_class": f1.tolist(),
        "f1_macro": float(np.nanmean(f1)),
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
    if scores.confusion is None:
        return [*lines, quoted(dataset, scores)]
    lines += ["", *class_table(dataset.classes, scores.confusion)]
    lines += ["", "confusion matrix (row: the true class; column: the class that the model says)"]
    header = ("", *(name[:5] for name in dataset.classes))
    lines += aligned([header, *((name, *map(str, row)) for name, row in zip(dataset.classes, scores.confusion))])
    lines += ["", f"loss {scores.loss:.4f} nats on {label}, {scores.pictures:,} test pictures"]
    for views, accuracy in scores.averages.items():
        lines.append(f"accuracy with {views} averaging {accuracy:.4f} on {label}")
    return [*lines, f"accuracy {scores.accuracy:.4f} on {label}"]


def class_table(classes: Sequence[str], confusion: Array) -> list[str]:
    """Every measure of every class, by name, and the macro means; a dash for what there is not."""
    columns = [measure(confusion) for measure in MEASURES.values()]
    rows = [("class", *MEASURES, "pictures")]
    for k, (name, pictures) in enumerate(zip(classes, confusion.sum(1))):
        rows.append(
            (name, *("-" if np.isnan(column[k]) else f"{column[k]:.4f}" for column in columns), f"{pictures:,}")
        )
    rows.append(("macro mean", *(f"{np.nanmean(column):.4f}" for column in columns), f"{confusion.sum():,}"))
    return aligned(rows)
