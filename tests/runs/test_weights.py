"""Weights to take away: half the size, the same answers; the networks that come with the package."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stg_np.backend import Array
from stg_np.data import load
from stg_np.engine import Threads
from stg_np.runs import checkpoint, weights
from stg_np.runs.archive import CheckpointError
from stg_np.runs.checkpoint import Stored
from stg_np.runs.scores import probabilities
from tests.runs.described import ABOUT, trained_state
from tests.runs.used import Stg
from tests.training import pictures

SEVEN = weights.FOLDER.parent / "data" / "seven.png"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in which no network has been put yet."""
    place = tmp_path / "weights"
    place.mkdir()
    (place / "SHA256SUMS").touch()
    monkeypatch.setattr(weights, "FOLDER", place)
    return place


def likely(stored: Stored) -> Array:
    with Threads(1) as engine:
        return probabilities(stored, pictures(20).images, engine)


def test_exported_weights_answer_like_the_run_and_take_a_fraction_of_its_room(stg: Stg) -> None:
    whole = Stored(ABOUT, trained_state())
    checkpoint.save(Path("run.npz"), *whole)
    assert stg("export", "run.npz", "light.npz").code == 0
    light = weights.load(Path("light.npz"))
    assert light.about == whole.about
    np.testing.assert_allclose(likely(light), likely(whole), atol=2e-3)
    sizes = [Path(name).stat().st_size for name in ("light.npz", "run.npz")]
    assert sizes[0] < sizes[1] - 3 * whole.now.params.flat.size  # 2 bytes a parameter, not 4 and the optimizer's
    for command in (["predict", "light.npz", SEVEN], ["summary", "light.npz"], ["export", "light.npz", "again.npz"]):
        assert stg(*command).code == 0
    assert Path("again.npz").read_bytes() == Path("light.npz").read_bytes()


def test_weights_never_replace_a_checkpoint_and_no_training_goes_on_from_them(stg: Stg) -> None:
    checkpoint.save(Path("run.npz"), ABOUT, trained_state())
    before = Path("run.npz").read_bytes()
    assert stg("export", "run.npz", "run.npz", "--overwrite").refused("run.npz", "another name")
    assert Path("run.npz").read_bytes() == before
    for _ in range(2):
        assert stg("export", "run.npz", "light.npz", "--overwrite").code == 0
    Path("run").mkdir()
    shutil.copy("light.npz", "run/checkpoint.npz")
    assert stg("train", "--resume", "--out", "run").refused("is not a checkpoint of the format")


def test_what_16_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    now = trained_state()
    huge = now._replace(params=now.params.with_flat(now.params.flat * np.float32(1e6)))
    with pytest.raises(CheckpointError, match="65,504"):
        weights.save(tmp_path / "huge.npz", Stored(ABOUT, huge))


def test_every_bundled_network_is_whole_and_known() -> None:
    assert {path.stem for path in weights.FOLDER.glob("*.npz")} == set(weights.bundled())
    for name in weights.bundled():
        stored = weights.load(weights.FOLDER / f"{name}.npz", "cpu")
        assert np.isfinite(stored.now.params.flat).all()
        assert stored.about.data.name == name


def test_the_bundled_digits_read_digits(stg: Stg) -> None:
    assert ": 7 " in stg("predict", "digits", SEVEN, "--invert").out
    stored, data = weights.load(weights.FOLDER / "digits.npz"), load("digits")
    with Threads(1) as engine:
        said = probabilities(stored, data.test_images, engine).argmax(1)
    assert np.mean(said == data.test_labels) > 0.95


def test_without_a_checkpoint_the_bundled_network_for_photographs_answers(
    stg: Stg, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stg_np.runs.explanation.explanation_png", lambda *_: b"a picture")  # drawn for real elsewhere
    shutil.copy(SEVEN, "cat.png")
    assert stg("predict", "cat.png").refused("no network for photographs", "name a checkpoint")
    assert stg("predict", "digits", "cat.png").refused("there is no checkpoint digits")
    weights.bundle("cifar10", Stored(ABOUT, trained_state()))
    said = stg("predict", "cifar10", "cat.png").out
    assert said.startswith("cat.png: ")
    assert stg("predict", "cat.png").out == said
    assert stg("predict", "cat.png", "cat.png").out == said + said
    explained = stg("explain", "cat.png")
    assert explained.code == 0, explained.err
    assert explained.out.splitlines()[0].removeprefix("answer: ") in said


def test_a_name_is_the_bundled_network_and_a_path_what_lies_there(stg: Stg, folder: Path) -> None:
    weights.bundle("mine", Stored(ABOUT, trained_state()))
    weights.bundle("other", Stored(replace(ABOUT, preset="another"), trained_state()))
    shutil.copy(folder / "other.npz", "mine")
    named, there = stg("summary", "mine"), stg("summary", "./mine")
    assert "preset tiny" in named.out
    assert named.err == "stg-np: mine is the network that comes with stg-np: for what lies here write ./mine\n"
    assert "preset another" in there.out
    assert there.err == ""
    assert stg("predict", "mine").refused("name a picture")


def test_a_bundled_file_that_has_changed_is_refused(stg: Stg, folder: Path) -> None:
    weights.bundle("mine", Stored(ABOUT, trained_state()))
    weights.save(folder / "mine.npz", Stored(ABOUT, trained_state(2)))
    assert stg("predict", "mine", SEVEN).refused("not the file that came with stg-np", "install stg-np again")
