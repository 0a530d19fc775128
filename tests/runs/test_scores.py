"""The scores of a test: each accuracy by its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stg_np.data import Dataset
from stg_np.engine import Threads
from stg_np.evaluate import SHIFTED, View, accuracy
from stg_np.runs.checkpoint import Stored
from stg_np.runs.scores import logits_of, score
from tests.runs.described import ABOUT, trained_state
from tests.training import pictures


def dataset(*, flip: bool) -> Dataset:
    train, test = pictures(20, seed=3), pictures(60, seed=4)
    made = Dataset.from_arrays(*train, *test, name="quarters", classes=ABOUT.data.classes)
    return replace(made, flip=flip)


def test_averaging_is_the_mean_over_mirror_images_and_over_those_moved_by_a_pixel() -> None:
    stored, data = Stored(ABOUT, trained_state()), dataset(flip=True)
    with Threads(1) as engine:
        found = score(stored, data, engine)
        views = {view: logits_of(stored, data.test_images, engine, view) for view in (View(), View(True), *SHIFTED)}
    mirror = (views[View()] + views[View(True)]) / 2
    shifted = np.mean([views[view] for view in SHIFTED], 0)
    expected = [accuracy(logits, data.test_labels)[1] for logits in (views[View()], mirror, (mirror + shifted) / 2)]
    assert [found.accuracy, found.accuracy_mirror, found.accuracy_averaged] == expected
    assert len(set(expected)) == 3
    assert list(found.averages.values()) == expected[1:]


def test_what_must_not_be_mirrored_is_not_averaged() -> None:
    with Threads(1) as engine:
        found = score(Stored(ABOUT, trained_state()), dataset(flip=False), engine)
    assert found.averages == {}
