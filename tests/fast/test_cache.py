"""The size of the second-level cache, as systems tell it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stg_np.fast import cache

KIB = 1 << 10


@pytest.fixture(autouse=True)
def _ask_anew() -> Any:
    cache.l2_bytes.cache_clear()
    yield
    cache.l2_bytes.cache_clear()


def linux(folder: Path, monkeypatch: pytest.MonkeyPatch, *caches: tuple[str, str]) -> None:
    """A Linux with these (level, size), in files as the kernel writes them."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cache, "LINUX", folder)
    for number, facts in enumerate(caches):
        (folder / f"index{number}").mkdir()
        for name, fact in zip(("level", "size"), facts):
            (folder / f"index{number}" / name).write_text(fact + "\n", encoding="ascii")


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ("512K", 512 * KIB),
        ("1024K", 1024 * KIB),
        ("1M", 1024 * KIB),
        ("400000", 400_000),
        ("256K", 256 * KIB),
        ("128K", 256 * KIB),  # the least
        ("2048K", 2048 * KIB),
        ("12M", 2048 * KIB),  # the most
        ("0K", 512 * KIB),  # says nothing: the usual size
        ("", 512 * KIB),
        ("big", 512 * KIB),
        ("1MB", 512 * KIB),
    ],
)
def test_linux(size: str, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linux(tmp_path, monkeypatch, ("1", "300K"), ("1", "300K"), ("2", size), ("3", "700K"))
    assert cache.l2_bytes() == wanted


@pytest.mark.parametrize("place", [0, 1, 2])
def test_linux_lists_its_caches_in_any_order(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = [("1", "300K"), ("3", "700K")]
    caches.insert(place, ("2", "640K"))
    linux(tmp_path, monkeypatch, *caches)
    assert cache.l2_bytes() == 640 * KIB


def test_the_usual_size_where_linux_has_no_such_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linux(tmp_path / "none", monkeypatch)
    assert cache.l2_bytes() == 512 * KIB
    linux(tmp_path, monkeypatch, ("1", "300K"), ("3", "700K"))
    cache.l2_bytes.cache_clear()
    assert cache.l2_bytes() == 512 * KIB
    (tmp_path / "index2").mkdir()  # no files
    cache.l2_bytes.cache_clear()
    assert cache.l2_bytes() == 512 * KIB


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({"hw.perflevel0.l2cachesize": "1048576\n", "hw.l2cachesize": "400000\n"}, 1 << 20),
        ({"hw.l2cachesize": "400000\n"}, 400_000),  # an older machine
        ({"hw.perflevel0.l2cachesize": "\n", "hw.l2cachesize": "400000\n"}, 400_000),
        ({"hw.perflevel0.l2cachesize": "16777216\n"}, 1 << 21),
        ({}, 1 << 19),
    ],
)
def test_macos(answers: dict[str, str], wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> Any:
        assert command[:2] == ["sysctl", "-n"]
        if command[2] not in answers:
            raise subprocess.CalledProcessError(1, command)
        return subprocess.CompletedProcess(command, 0, answers[command[2]])

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert cache.l2_bytes() == wanted


def test_macos_without_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> Any:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert cache.l2_bytes() == 512 * KIB


def test_this_machine() -> None:
    assert 256 * KIB <= cache.l2_bytes() <= 2048 * KIB
