"""``stg-np explain`` as a user meets it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stg_np.explain import explain
from stg_np.models.image_stg import ImageSTG
from stg_np.models.mlp import MLP
from stg_np.models.stg import STG
from stg_np.runs import checkpoint
from stg_np.runs.checkpoint import Stored
from stg_np.runs.explanation import Shown, explanation_png
from stg_np.runs.sheet import is_sheet
from tests.runs.described import ABOUT, trained_state
from tests.runs.used import Stg


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """A photograph of stripes, much larger than what the network gets."""
    rows = np.tile(np.array([30, 220], np.uint8), 100)
    Image.fromarray(np.repeat(rows, 150).reshape(200, 150)).save(tmp_path / "stripes.png")
    return tmp_path / "stripes.png"


def test_a_picture_is_explained_in_a_drawing_and_in_words(stg: Stg, stripes: Path) -> None:
    checkpoint.save(Path("run.npz"), ABOUT, trained_state())
    told = stg("explain", "run.npz", stripes)
    assert told.code == 0, told
    assert told.err == ""
    for words in ("answer: ", "without the input gate: ", "without the carried memory: ", "stm2: mean(1 - u) 0."):
        assert words in told.out
    assert told.out.splitlines()[-1] == "drawn: explain.png"
    assert is_sheet(Path("explain.png"))
    predicted = stg("predict", "run.npz", stripes, "--top", 1).out.strip().partition(": ")[2]
    assert told.out.splitlines()[0] == f"answer: {predicted}"


def test_an_image_network_is_drawn_whatever_it_sweeps() -> None:
    model = ImageSTG((8, 8, 3), 2, widths=(4, 4), depth=1, stem=2, sweeping=(2,), directions=2)
    params, state = model.init(np.random.default_rng(0))
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    seen = explain(model, params, state, (pixels / np.float32(255))[None])
    content = explanation_png(seen, Shown(pixels, pixels, "$a_$.png", str(model)), ("left $", "right_{"))
    with Image.open(io.BytesIO(content)) as drawn:
        assert drawn.width > 1000
        assert drawn.height > 800


def test_a_long_way_is_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stg_np.runs.explanation.FEW", 100)
    model = STG((24, 24, 1), 2, view="pixels", width=2, layers=1)
    params, state = model.init(np.random.default_rng(0))
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 1), dtype=np.uint8)
    seen = explain(model, params, state, (pixels / np.float32(255))[None])
    assert explanation_png(seen, Shown(pixels, pixels, "a.png", str(model)), ("a", "b")).startswith(b"\x89PNG")


@pytest.mark.parametrize("limit", ["MOST_PIXELS", "MOST_PARTS"])
def test_no_network_can_ask_for_an_endless_drawing(
    stg: Stg, stripes: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    checkpoint.save(Path("run.npz"), ABOUT, trained_state())
    monkeypatch.setattr(f"stg_np.commands.explain.{limit}", 4)
    assert stg("explain", "run.npz", stripes).refused("run.npz", "explain a smaller network")


def test_what_cannot_be_explained_is_one_sentence(stg: Stg, stripes: Path) -> None:
    checkpoint.save(Path("run.npz"), ABOUT, trained_state())
    assert stg("explain", "run.npz", "nowhere.png").refused("there is no picture nowhere.png")
    assert stg("explain", "run.npz", stripes, "--out", stripes).refused("stg-np has not drawn")
    assert stg("explain", "run.npz", stripes, "--out", "explained.jpg").refused(".png")
    dense = MLP((8, 8, 1), 4, widths=(3,))
    checkpoint.save(Path("mlp.npz"), *Stored(replace(ABOUT, model=dense), trained_state(model=dense)))
    assert stg("explain", "mlp.npz", stripes).refused("mlp.npz", "no gates to explain", "give the checkpoint of an STG")
    assert not Path("explain.png").exists()
