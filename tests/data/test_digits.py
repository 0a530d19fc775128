"""The bundled digits."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from stg_np import data
from tests.data.conftest import one_sentence


def test_the_bundled_digits_are_the_official_ones() -> None:
    digits = data.load("digits")
    assert digits.official
    assert digits.label == "digits"
    assert digits.shape == (8, 8, 1)
    assert digits.train_images.shape == (1437, 8, 8, 1)
    assert digits.test_images.shape == (360, 8, 8, 1)
    assert digits.train_images.dtype == np.uint8
    assert digits.train_labels.dtype == np.int64
    assert digits.train_images.max() == digits.value_range == 16
    assert not digits.flip
    assert digits.classes == tuple("0123456789")
    counts = np.bincount(np.concatenate([digits.train_labels, digits.test_labels]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # scikit-learn's documentation


def test_the_default_test_set_is_the_last_360_in_file_order() -> None:
    with np.load(Path(data.load("digits").source)) as stored:
        images, labels = stored["images"], stored["labels"]
    digits = data.load("digits")
    np.testing.assert_array_equal(digits.test_images[..., 0], images[-360:])
    np.testing.assert_array_equal(digits.test_labels, labels[-360:])
    np.testing.assert_array_equal(digits.train_images[..., 0], images[:-360])
    assert "last 360" in digits.note


def test_a_random_split_is_seeded_stratified_and_named() -> None:
    first, again, other = (data.load("digits", split_seed=seed) for seed in (3, 3, 4))
    assert first.label == "digits (random split, seed 3)"
    np.testing.assert_array_equal(first.test_images, again.test_images)
    assert not np.array_equal(first.test_images, other.test_images)
    assert len(first.test_labels) == 360
    assert np.ptp(np.bincount(first.test_labels)) <= 3
    both = np.concatenate([first.train_images, first.test_images]).reshape(1797, 64)
    plain = data.load("digits")
    whole = np.concatenate([plain.train_images, plain.test_images]).reshape(1797, 64)
    np.testing.assert_array_equal(both[np.lexsort(both.T)], whole[np.lexsort(whole.T)])  # nothing lost or doubled


def test_the_licence_travels_with_the_data() -> None:
    text = (files("stg_np.data") / "digits.LICENSE.txt").read_text()
    assert "CC BY 4.0" in text
    assert "10.24432/C50P49" in text


def test_a_damaged_installation_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = Path(data.load("digits").source).read_bytes()
    (tmp_path / "digits.npz").write_bytes(content[: len(content) // 2])
    monkeypatch.setattr(data.digits, "SYSTEM_FOLDERS", (tmp_path,))
    assert "install stg-np again" in one_sentence(lambda: data.load("digits"))
