"""The pictures of a run: they are PNG files of a sensible size, drawn without a screen and without global state."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stg_np.runs.plots import confusion_png, curves_png


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    picture.load()
    return picture


@pytest.fixture(autouse=True)
def small_and_nothing_global(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A third of the size, drawn more quickly; pyplot cannot be had, and settings stay as they are."""
    import matplotlib

    monkeypatch.setattr("stg_np.runs.plots.DPI", 40)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


def epoch(number: int, validation: float | None) -> dict[str, Any]:
    return {
        "kind": "epoch",
        "epoch": number,
        "loss": 1 / number,
        "accuracy": 1 - 1 / number,
        "validation_loss": validation,
        "validation_accuracy": validation,
    }


@pytest.mark.parametrize(
    ("metrics", "validated"),
    [
        ([], False),
        ([epoch(1, 0.5)], True),
        ([{"kind": "step", "epoch": 1, "step": 10}, epoch(1, 0.5), epoch(2, 0.6), {"kind": "test", "step": 2}], True),
        ([epoch(1, None), epoch(2, None)], False),  # --final: nothing is held out
    ],
)
def test_curves(metrics: list[dict[str, Any]], validated: bool) -> None:
    picture = opened(curves_png(metrics, "digits, preset digits"))
    assert picture.width > 2 * picture.height > 200
    assert (shows(picture, 31, 119, 180), shows(picture, 255, 127, 14)) == (
        bool(metrics),
        validated,
    )  # matplotlib's own


def shows(picture: Image.Image, *colour: int) -> bool:
    """Whether there are as many pixels of a colour as a line or the marker of a single point has, beside the legend."""
    distance = np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour).max(-1)
    return int((distance < 60).sum()) >= 20


def test_curves_name_label_smoothing() -> None:
    plain, smoothed = (curves_png([epoch(1, 0.5)], "title", smoothing) for smoothing in (0.0, 0.1))
    assert curves_png([epoch(1, 0.5)], "title") == plain != smoothed


def test_names_are_no_formulas() -> None:
    names = ("$a_$", "$\\frac{", "$")
    assert opened(confusion_png(np.eye(3, dtype=int), names, "$\\frac{ of my $"))
    assert opened(curves_png([epoch(1, 0.5)], "$\\frac{ of my $"))


def test_a_thousand_classes_need_no_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stg_np.runs.plots.MOST_NAMED", 4)
    few, many = (
        opened(confusion_png(np.eye(count, dtype=int), list(map(str, range(count))), "title")) for count in (4, 1000)
    )
    assert many.size == few.size


@pytest.mark.parametrize("classes", [2, 10])
def test_confusion(classes: int) -> None:
    counts = np.diag(np.arange(classes)) * 100  # the first class has no pictures
    counts[-1, 0] = 3
    names = [f"a class with a long name, {k}" for k in range(classes)]
    picture = opened(confusion_png(counts, names, "title"))
    assert picture.width > picture.height > 70
