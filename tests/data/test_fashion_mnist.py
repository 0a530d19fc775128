"""Fashion-MNIST from IDX files, and the ways in which they can be wrong."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stg_np import data
from stg_np.data import fashion_mnist
from stg_np.data.fashion_mnist import FILES, read_idx
from tests.data.builders import fashion_files, gzipped, idx, write_files
from tests.data.conftest import one_sentence

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


@given(arrays(np.uint8, st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 5))))
def test_idx_is_read_back_as_it_was_written(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    np.testing.assert_array_equal(read_idx(idx(array), 3, "a file"), array)


def test_a_file_that_unfolds_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "LARGEST_FILE", 1_000_000)
    files = gzipped(fashion_files())
    files[f"{TRAIN_IMAGES}.gz"] = gzip.compress(bytes(1_000_001))
    write_files(tmp_path, files)
    assert "unfolds to more than 1,000,000 bytes" in one_sentence(lambda: data.load("fashion-mnist", tmp_path))


@pytest.mark.parametrize("compress", [False, True])
def test_plain_and_gzipped_files_are_the_same_data(tmp_path: Path, compress: bool) -> None:
    files = fashion_files(train=5, test=2)
    write_files(tmp_path, gzipped(files) if compress else files)
    fashion = data.load("fashion-mnist", tmp_path)
    assert fashion.train_images.shape == (5, 28, 28, 1)
    assert fashion.test_images.shape == (2, 28, 28, 1)
    assert fashion.train_images.tobytes() == files[TRAIN_IMAGES][16:]
    assert fashion.test_labels.tolist() == list(files[TEST_LABELS][8:])
    assert fashion.train_labels.dtype == np.int64
    assert not fashion.official
    assert fashion.label == f"fashion-mnist (not the official files, fingerprint {fashion.fingerprint})"


def test_the_decompressed_bytes_decide_what_is_official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fashion_files()
    for name, content in files.items():
        monkeypatch.setitem(FILES, name, hashlib.sha256(content).hexdigest())
    for level in (1, 9):  # two distributors who compress differently
        packed = {f"{name}.gz": gzip.compress(content, level) for name, content in files.items()}
        fashion = data.verify("fashion-mnist", write_files(tmp_path / str(level), packed))
        assert fashion.official
        assert fashion.label == "fashion-mnist"
        assert [check.official for check in fashion.files] == [True] * 4


def test_one_changed_byte_changes_the_fingerprint_and_is_located(tmp_path: Path) -> None:
    files = fashion_files()
    before = data.load("fashion-mnist", write_files(tmp_path, files))
    files[TEST_IMAGES] = files[TEST_IMAGES][:-1] + bytes([files[TEST_IMAGES][-1] ^ 1])
    after = data.load("fashion-mnist", write_files(tmp_path, files))
    assert before.fingerprint != after.fingerprint
    changed = [old.name for old, new in zip(before.files, after.files) if old.sha256 != new.sha256]
    assert changed == [TEST_IMAGES]


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_debians_files_are_official() -> None:
    fashion = data.load("fashion-mnist", DEBIAN)
    assert fashion.official
    assert fashion.train_images.shape == (60_000, 28, 28, 1)
    assert np.bincount(fashion.test_labels).tolist() == [1000] * 10


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(b"x")
    assert "is a file: give the folder" in one_sentence(lambda: data.load("fashion-mnist", path))


def test_missing_files_are_named(tmp_path: Path) -> None:
    files = fashion_files()
    del files[TEST_LABELS]
    assert TEST_LABELS in one_sentence(lambda: data.load("fashion-mnist", write_files(tmp_path, files)))


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "cut off": (TRAIN_IMAGES, lambda content: content[:-1], "cut off or damaged"),
    "too long": (TRAIN_LABELS, lambda content: content + b"\0", "cut off or damaged"),
    "header only in part": (TRAIN_IMAGES, lambda content: content[:9], "cut off or damaged"),
    "empty": (TRAIN_IMAGES, lambda content: b"", "begins with 0x,"),
    "another kind of file": (TRAIN_IMAGES, lambda content: b"<html>" + content, "another kind of file"),
    "labels for pictures": (TRAIN_IMAGES, lambda content: idx(np.zeros(9, np.uint8)), "0x00000801"),
    "eight tebibytes announced": (TRAIN_IMAGES, lambda content: content[:4] + b"\xff" * 12, "cut off or damaged"),
    "label out of range": (TRAIN_LABELS, lambda content: content[:-1] + b"\x0b", "label 11"),
    "fewer labels": (TEST_LABELS, lambda content: idx(np.zeros(1, np.uint8)), "do not belong together"),
    "no pictures": (TEST_IMAGES, lambda content: idx(np.zeros((0, 28, 28), np.uint8)), "do not belong together"),
    "another size": (TEST_IMAGES, lambda content: idx(np.zeros((2, 8, 8), np.uint8)), "do not belong together"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("compress", [False, True])
def test_a_wrong_file_is_one_sentence(tmp_path: Path, damage: str, compress: bool) -> None:
    name, change, expected = DAMAGE[damage]
    files = fashion_files()
    files[name] = change(files[name])
    write_files(tmp_path, gzipped(files) if compress else files)
    message = one_sentence(lambda: data.load("fashion-mnist", tmp_path))
    assert expected in message
    assert str(tmp_path) in message


@pytest.mark.parametrize("position", [0.3, 0.99])
def test_a_truncated_gzip_is_one_sentence(tmp_path: Path, position: float) -> None:
    files = gzipped(fashion_files())
    content = files[f"{TRAIN_IMAGES}.gz"]
    files[f"{TRAIN_IMAGES}.gz"] = content[: int(len(content) * position)]
    message = one_sentence(lambda: data.load("fashion-mnist", write_files(tmp_path, files)))
    assert f"{TRAIN_IMAGES}.gz is cut off or damaged" in message


def test_a_flipped_bit_in_a_gzip_is_noticed(tmp_path: Path) -> None:
    files = gzipped(fashion_files())
    content = bytearray(files[f"{TRAIN_IMAGES}.gz"])
    content[len(content) // 2] ^= 4
    files[f"{TRAIN_IMAGES}.gz"] = bytes(content)
    assert "damaged" in one_sentence(lambda: data.load("fashion-mnist", write_files(tmp_path, files)))
