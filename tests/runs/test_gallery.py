"""``stg-np eval --gallery``: the wrong answers as a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stg_np.data import Dataset
from stg_np.engine import Threads
from stg_np.runs.archive import CheckpointError
from stg_np.runs.gallery import SHOWN, Wrong, gallery_png, wrong_answers
from stg_np.runs.scores import Scores, logits_of
from stg_np.runs.sheet import ACROSS, CELL, MARGIN, is_sheet, sheet_png
from stg_np.train import Examples
from tests.runs.used import Stg, arrays, trained_on
from tests.training import pictures


def test_the_most_confident_wrong_answers_come_first() -> None:
    logits = np.array([[9.0, 0, 0], [0, 2, 0], [0, 0, 5], [0, 1, 0], [0, 2, 0]])
    wrong = wrong_answers(logits, np.array([0, 0, 1, 1, 2]))
    assert [(one.picture, one.true, one.said) for one in wrong] == [(2, 1, 2), (1, 0, 1), (4, 2, 1)]
    assert wrong[0].probability == pytest.approx(np.exp(5) / (np.exp(5) + 2))
    assert wrong_answers(logits, logits.argmax(1)) == []


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 12, 3), (300, 200, 3)])
def test_every_wrong_picture_is_seen_and_their_number_is_bounded(shape: tuple[int, ...]) -> None:
    N = 2 * SHOWN
    x = np.full((N, *shape), 30, np.uint8)  # darker than all that is around it
    x[0] = 10  # the least confident of all: it would be the last
    dataset = Dataset.from_arrays(
        x, np.arange(N) % 2, x, np.arange(N) % 2, value_range=255, classes=["straße", "猫" * 60]
    )
    wrong = [Wrong(N - 1 - k, 1, 0, 0.9) for k in range(N)]
    scores = Scores(N, 1.0, 0.0, None, None, np.zeros((2, 2)), np.zeros((N, 2)))
    sheet = opened(gallery_png(dataset, scores, wrong))
    assert sheet.width == MARGIN + ACROSS * (CELL + MARGIN)
    grey = np.asarray(sheet.convert("L"))
    across, down = (math.ceil(CELL * side / max(shape[:2])) for side in (shape[1], shape[0]))
    assert ((grey == 30).sum(), (grey == 10).sum()) == (SHOWN * across * down, 0)


def opened(content: bytes) -> Image.Image:
    Path("sheet.png").write_bytes(content)
    with Image.open("sheet.png") as picture:
        picture.load()
    assert is_sheet(Path("sheet.png"))
    return picture


def test_the_title_of_a_single_picture_is_not_cut_off() -> None:
    narrow = sheet_png([np.zeros((4, 4, 1), np.uint8)], [("true a",)], 255)
    wide = sheet_png([np.zeros((4, 4, 1), np.uint8)], [("true a",)], 255, title=["a long title " * 8])
    assert opened(narrow).width < 2 * CELL < opened(wide).width


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_eval_draws_the_wrong_answers_and_says_so(stg: Stg) -> None:
    dataset = arrays("mine.npz", pictures(40, 1), pictures(30, 2))
    trained_on(dataset, "model.npz", steps=1)
    result = stg("eval", "model.npz", "--json", "--gallery", "wrong.png")
    scores: dict[str, Any] = json.loads(result.out)
    wrong = scores["pictures"] - np.trace(np.array(scores["confusion"]))
    assert wrong > 0
    assert result.err == f"stg-np: wrong.png shows the {wrong} wrong answers, the most confident first\n"
    with Image.open("wrong.png") as sheet:
        assert sheet.width > CELL
    *_, drawn, last = stg("eval", "model.npz", "--gallery", "wrong.png").out.splitlines()  # its own may be replaced
    assert drawn == result.err.strip().removeprefix("stg-np: ")
    assert last.startswith("accuracy ")


def test_where_nothing_is_wrong_there_is_no_gallery(stg: Stg) -> None:
    x = pictures(40, 1)
    stored = trained_on(arrays("mine.npz", x, x), "model.npz")
    with Threads(1) as engine:
        said = logits_of(stored, x.images, engine).argmax(1)
    trained_on(arrays("mine.npz", x, Examples(x.images, said)), "model.npz")
    result = stg("eval", "model.npz", "--gallery", "wrong.png")
    assert (result.code, Path("wrong.png").exists()) == (0, False)
    assert "no gallery: all 40 answers are right" in result.out.splitlines()


def test_a_gallery_that_cannot_be_written_does_not_cost_the_scores(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on(arrays("mine.npz", pictures(40, 1), pictures(30, 2)), "model.npz", steps=1)

    def full(*_: object) -> None:
        raise CheckpointError("cannot write wrong.png: no space left on device")

    monkeypatch.setattr("stg_np.runs.archive.write_atomically", full)
    result = stg("eval", "model.npz", "--gallery", "wrong.png")
    assert (result.code, result.err) == (2, "stg-np: cannot write wrong.png: no space left on device\n")
    assert result.out.splitlines()[-1].startswith("accuracy ")


@pytest.mark.parametrize("option", [["eval", "model.npz", "--gallery"], ["predict", "model.npz", "cat.png", "--show"]])
def test_a_sheet_replaces_no_picture_of_anybodys(stg: Stg, option: list[str]) -> None:
    trained_on(arrays("mine.npz", pictures(40, 1), pictures(30, 2)), "model.npz")
    Image.new("L", (9, 9)).save("cat.png")
    before = Path("cat.png").read_bytes()
    assert stg(*option, "cat.png").refused("would replace", "another name")
    assert stg(*option, "model.npz").refused("ends in .png")
    assert stg(*option, "nowhere/wrong.png").refused("there is no folder nowhere")
    Path("link.png").symlink_to("cat.png")
    assert stg(*option, "link.png").refused("would replace")
    assert Path("cat.png").read_bytes() == before
