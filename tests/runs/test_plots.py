"""The pictures of a run: they are PNG files of a sensible size, drawn without a screen and without global state."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stg_np
from stg_np.runs.plots import confusion_png, curves_png


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    picture.load()
    return picture


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the size, drawn more quickly."""
    monkeypatch.setattr("stg_np.runs.plots.DPI", 40)


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
    "metrics",
    [
        [],
        [epoch(1, 0.5)],
        [{"kind": "step", "epoch": 1, "step": 10}, epoch(1, 0.5), epoch(2, 0.6), {"kind": "test", "step": 2}],
        [epoch(1, None), epoch(2, None)],  # --final: nothing is held out
    ],
)
@pytest.mark.usefixtures("small")
def test_curves(metrics: list[dict[str, Any]]) -> None:
    picture = opened(curves_png(metrics, "digits, preset digits"))
    assert picture.width > 2 * picture.height > 200


def test_curves_show_the_validation() -> None:
    without, with_it = (opened(curves_png([epoch(1, v), epoch(2, v)], "")).convert("RGB") for v in (None, 0.5))
    orange = [((np.asarray(p) == (255, 127, 14)).all(-1)).sum() for p in (without, with_it)]
    assert orange[0] == 0 < orange[1]


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.usefixtures("small")
def test_confusion(classes: int) -> None:
    counts = np.diag(np.arange(classes)) * 100  # the first class has no pictures
    counts[-1, 0] = 3
    names = [f"a class with a long name, {k}" for k in range(classes)]
    picture = opened(confusion_png(counts, names, "title"))
    assert picture.width > picture.height > 70


def test_nothing_global_is_touched() -> None:
    code = """if True:
        import sys, numpy
        from stg_np.runs.plots import confusion_png, curves_png
        assert "matplotlib" not in sys.modules
        curves_png([], ""), confusion_png(numpy.eye(2, dtype=int), ["a", "b"], "")
        assert "matplotlib.pyplot" not in sys.modules
    """
    root = Path(stg_np.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
