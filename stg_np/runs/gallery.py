"""The wrong answers of a test, as a picture: what was there, what the model said, and how sure it was."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.data import Dataset
from stg_np.ops.losses import log_softmax
from stg_np.runs.scores import Scores
from stg_np.runs.sheet import sheet_png

SHOWN = 64
"""Pictures in a gallery at most."""


class Wrong(NamedTuple):
    """One wrong answer: the number of the test picture, from 0, its class, and the one that was said."""

    picture: int
    true: int
    said: int
    probability: float


def wrong_answers(logits: Array, labels: Array) -> list[Wrong]:
    """The wrong answers, the most confident first: logits (N, C), labels (N,)."""
    said = logits.argmax(1)
    wrong = np.flatnonzero(said != labels)
    likely = np.exp(log_softmax(logits[wrong].astype(np.float64))).max(1, initial=0)
    order = np.argsort(-likely, kind="stable")
    return [Wrong(int(wrong[k]), int(labels[wrong[k]]), int(said[wrong[k]]), float(likely[k])) for k in order]


def gallery_png(dataset: Dataset, scores: Scores, wrong: list[Wrong]) -> bytes:
    """A sheet of the first :data:`SHOWN` of the wrong answers, of which there is one at least."""
    shown, names = wrong[:SHOWN], dataset.classes
    captions = [
        (f"true {names[one.true]}", f"said {names[one.said]}", f"{one.probability:.1%}   no. {one.picture}")
        for one in shown
    ]
    title = (
        f"{len(wrong):,} of {scores.pictures:,} wrong on {dataset.label}",
        "the most confident first; no.: place among the test pictures, from 0"
        + (f"; {len(shown)} are shown" if len(shown) < len(wrong) else ""),
    )
    pictures = [dataset.test_images[one.picture] for one in shown]
    return sheet_png(pictures, captions, dataset.value_range, title=title)
