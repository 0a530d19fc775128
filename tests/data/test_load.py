"""Choosing a data set by name, finding it, and being told how to get it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stg_np import data
from stg_np.data import base
from tests.data.builders import binary_files, cifar_records, fashion_files, write_files
from tests.data.conftest import one_sentence

NOBODY = 65534


@pytest.mark.parametrize(
    ("typed", "meant"), [("cifar-10", "cifar10"), ("CIFAR10", "cifar10"), ("fashion_mnist", "fashion-mnist")]
)
def test_a_wrong_name_is_answered_with_the_closest_and_all_names(typed: str, meant: str) -> None:
    message = one_sentence(lambda: data.load(typed))
    assert f"did you mean {meant}?" in message
    for name in data.SOURCES:
        assert name in message


def test_a_name_like_no_other_gets_no_guess() -> None:
    assert "did you mean" not in one_sentence(lambda: data.load("imagenet"))
    assert "imagenet" in one_sentence(lambda: data.fetch("imagenet"))
    assert "imagenet" in one_sentence(lambda: data.verify("imagenet"))


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_data_that_are_not_there_say_how_to_get_them(name: str, home: Path) -> None:
    message = one_sentence(lambda: data.load(name))
    assert f"stg-np data fetch {name}" in message
    assert "--data-dir" in message
    assert str(home) in message


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in one_sentence(lambda: data.load(name, tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_an_empty_folder_says_what_should_be_in_it(name: str, tmp_path: Path) -> None:
    message = one_sentence(lambda: data.load(name, str(tmp_path)))
    assert str(tmp_path) in message
    assert f"data fetch {name}" in message


def test_options_that_do_not_fit_the_data_set_are_refused(tmp_path: Path) -> None:
    assert "leave the data folder out" in one_sentence(lambda: data.load("digits", tmp_path))
    assert "official split" in one_sentence(lambda: data.load("cifar10", tmp_path, split_seed=1))


def test_what_lies_in_the_data_home_is_found(home: Path) -> None:
    write_files(home / "fashion-mnist", fashion_files())
    write_files(home / "cifar-10-batches-bin", binary_files(cifar_records()))
    assert data.load("fashion-mnist").source == str(home / "fashion-mnist")
    assert data.load("cifar10").source == str(home / "cifar-10-batches-bin")


def test_the_system_folder_is_found_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = write_files(tmp_path / "system", fashion_files())
    monkeypatch.setattr(data.fashion_mnist, "SYSTEM_FOLDERS", (system,))
    assert data.load("fashion-mnist").source == str(system)


def test_an_incomplete_home_does_not_hide_the_system_folder(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = write_files(tmp_path / "system", fashion_files())
    write_files(home / "fashion-mnist", dict(list(fashion_files().items())[:2]))
    monkeypatch.setattr(data.fashion_mnist, "SYSTEM_FOLDERS", (system,))
    assert data.load("fashion-mnist").source == str(system)


def test_the_list_says_where_each_lies_or_how_to_get_it(home: Path) -> None:
    write_files(home / "fashion-mnist", fashion_files())
    rows = {row.name: row for row in data.list_datasets()}
    assert list(rows) == list(data.SOURCES)
    assert rows["digits"].where is not None
    assert rows["fashion-mnist"].where == str(home / "fashion-mnist")
    assert rows["cifar10"].where is None
    assert rows["cifar10"].how_to_get.startswith("stg-np data fetch cifar10")
    assert rows["cifar10"][1:4] == ((32, 32, 3), 50_000, 10_000)
    assert all(row.licence for row in rows.values())


def test_without_the_variable_the_home_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STG_NP_DATA")
    assert data.data_home().name == "stg-np"
    monkeypatch.setenv("STG_NP_DATA", "~/pictures")
    assert data.data_home() == Path.home() / "pictures"


def test_the_label_names_split_and_provenance() -> None:
    nothing = np.zeros((1, 2, 3, 1), np.uint8)
    label = np.zeros(1, np.int64)

    def named(official: bool, split: str) -> str:
        pictures = ("abc", ("a",), nothing, label, nothing, label)
        dataset = data.Dataset(*pictures, fingerprint="1a2b3c4d", official=official, flip=True, split=split)
        assert dataset.shape == (2, 3, 1)
        return dataset.label

    assert named(True, "") == "abc"
    assert named(False, "") == "abc (not the official files, fingerprint 1a2b3c4d)"
    assert named(True, "random split, seed 3") == "abc (random split, seed 3)"
    assert named(False, "half") == "abc (half, not the official files, fingerprint 1a2b3c4d)"


def test_the_fingerprint_is_what_its_shell_command_prints(tmp_path: Path) -> None:
    parts = {"a": b"first", "b": b"second"}
    write_files(tmp_path, parts)
    command = "sha256sum a b | cut -c-64 | tr -d '\\n' | sha256sum | cut -c-8"
    printed = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    files = [base.check_file(name, np.frombuffer(part, np.uint8), "") for name, part in parts.items()]
    assert base.fingerprint(files) == printed.strip()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be neither read nor written, not even by root: root becomes somebody else meanwhile."""
    if not hasattr(os, "geteuid"):
        pytest.skip("file permissions are tested where there are users")
    folder = tmp_path / "locked"
    folder.mkdir(0o000)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o700)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_a_folder_that_may_not_be_read_is_one_sentence(locked: Path, name: str) -> None:
    assert str(locked) in one_sentence(lambda: data.load(name, locked / "data"))


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_a_home_that_may_not_be_written_is_one_sentence(
    locked: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("STG_NP_DATA", str(locked / "home"))
    message = one_sentence(lambda: data.fetch(name))
    assert str(locked) in message
    assert "check that you may write there" in message


def test_loading_digits_needs_nothing_but_numpy() -> None:
    program = (
        "import sys; from stg_np import data; data.load('digits'); "
        "print(sorted({'pooch', 'requests', 'tqdm', 'PIL', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize("name", ["\x1b[2J", "two\nlines", "\u202eevil", "x" * 5_000])
def test_names_that_no_terminal_should_be_sent_are_refused(name: str) -> None:
    digits = data.load("digits")
    one_sentence(lambda: replace(digits, classes=(name, *digits.classes[1:])))
    one_sentence(lambda: replace(digits, name=name))
