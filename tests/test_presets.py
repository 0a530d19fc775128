"""Presets fit their data sets, and every name in them is one that can be chosen."""

from __future__ import annotations

import numpy as np
import pytest

from stg_np import data
from stg_np.models.stg import STG
from stg_np.presets import DEFAULT_PRESET, PRESETS, Preset

INFO = {preset.data: data.source(preset.data).INFO for preset in PRESETS.values()}
every_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())


def test_every_data_set_has_a_default_preset_of_its_own() -> None:
    assert set(DEFAULT_PRESET) == set(data.SOURCES) <= set(INFO)
    for name, preset in DEFAULT_PRESET.items():
        assert PRESETS[preset].data == name


@every_preset
def test_the_model_fits_the_pictures(preset: Preset) -> None:
    info = INFO[preset.data]
    model = preset.make_model(info.shape, len(info.classes))
    params, state = model.init(np.random.default_rng(0))
    logits, _, _ = model.forward(np.zeros((2, *info.shape), np.float32), params, state)
    steps = info.shape[:1] if preset.model.get("pool") == "none" else ()
    assert logits.shape == (2, *steps, len(info.classes))
    assert np.isfinite(logits).all()


@every_preset
def test_the_hyper_parameters_fit_the_pictures(preset: Preset) -> None:
    info, config = INFO[preset.data], preset.config
    assert config.flip <= info.flip  # mirrored only where a mirrored picture still shows its class
    assert config.shift < min(info.shape[:2])
    assert config.batch_size <= 0.9 * info.train_size
    assert config.batch_size % config.group_size == 0
    assert "\n" not in preset.about


@pytest.mark.parametrize("preset", [preset for preset in PRESETS.values() if preset.kind == "stg"])
def test_the_words_about_the_steps_are_true(preset: Preset) -> None:
    """ "64 patches of 4×4", "28 rows", "200 steps": the number before the noun is T."""
    model = preset.make_model(INFO[preset.data].shape, 10)
    assert isinstance(model, STG)
    rows, columns = model.grid
    words = preset.about.replace(";", "").replace(",", "").split()
    noun = preset.model.get("view", "steps")
    assert words[words.index(noun) - 1] == str(rows * columns)
