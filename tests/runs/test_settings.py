"""A user's own settings on the command line: what they change, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from stg_np.presets import DEFAULT_PRESET, PRESETS, Preset
from stg_np.runs import checkpoint
from stg_np.train import TrainConfig
from tests.runs.used import Stg, arrays
from tests.training import pictures


@pytest.fixture(autouse=True)
def tiny(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, ``four.npz``: pictures of four classes; and ``tiny``, a preset of one step an epoch."""
    arrays("four.npz", pictures(40, seed=1), pictures(12, seed=2))
    model = {"view": "rows", "width": 4, "layers": 1}
    monkeypatch.setitem(PRESETS, "tiny", Preset("digits", "for tests", model, TrainConfig(epochs=1, flip=True)))
    monkeypatch.setitem(DEFAULT_PRESET, "digits", "tiny")
    for name in ("curves_png", "confusion_png"):  # they have tests of their own
        monkeypatch.setattr(f"stg_np.runs.plots.{name}", lambda *_: b"a picture")


TINY = ("train", "--preset", "tiny", "--data", "four.npz", "--workers", 1, "--out", "run")
RUN = Path("run/checkpoint.npz")


# ---------------------------------------------------------------------------------------------------- patience


def test_patience_ends_a_training_and_says_so(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stg_np.train.accuracy", lambda *_: (1.0, 0.5))
    result = stg(*TINY, "--epochs", 9, "--patience", 2)
    assert result.code == 0, result.err
    assert "stopped after epoch 3 of 9: no better validation accuracy for 2 epochs" in result.out
    assert checkpoint.load(RUN).now.step == 3
    assert "patience = 2" in Path("run/config.toml").read_text()
    assert stg("train", "--resume", "--out", "run", "--patience", 3).refused("--patience 3", "--patience 2")
    assert "stopped after epoch 3" in stg("train", "--resume", "--out", "run").out


def test_patience_needs_pictures_that_are_held_out(stg: Stg) -> None:
    assert stg(*TINY, "--patience", 2, "--final").refused("--final", "--patience")
