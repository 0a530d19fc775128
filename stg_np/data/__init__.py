"""Pictures to learn from: ``load("digits")``, ``load("fashion-mnist")``, ``load("cifar10")``.

Loading never touches the network (:func:`fetch` does) and never executes what a file says. A folder whose bytes
are not the publisher's is accepted and named: quote ``dataset.label`` beside every accuracy.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import NamedTuple, Protocol

from stg_np.data import cifar10, digits, fashion_mnist
from stg_np.data.base import DataError, Dataset, DatasetInfo, FileCheck, one_sentence
from stg_np.data.download import data_home

__all__ = [
    "NAMES",
    "DataError",
    "Dataset",
    "DatasetRow",
    "FileCheck",
    "data_home",
    "fetch",
    "find",
    "list_datasets",
    "load",
    "verify",
]


class _Source(Protocol):
    """What the module of a data set that lies in files offers."""

    INFO: DatasetInfo
    SYSTEM_FOLDERS: tuple[Path, ...]

    def fetch(self, folder: Path) -> Path: ...
    def locate(self, path: Path) -> Path | None: ...
    def load(self, path: Path) -> Dataset: ...


_SOURCES: dict[str, _Source] = {"fashion-mnist": fashion_mnist, "cifar10": cifar10}

NAMES = ("digits", *_SOURCES)


class DatasetRow(NamedTuple):
    """One line of :func:`list_datasets`; ``where`` is None where the data are not on this machine."""

    name: str
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    where: str | None
    how_to_get: str
    licence: str


def load(name: str, data_dir: str | os.PathLike[str] | None = None, *, split_seed: int | None = None) -> Dataset:
    """Load a data set by name, from ``data_dir`` (a folder or an archive) or from where :func:`find` finds it.

    ``split_seed`` is for digits, which has no official split (see :mod:`stg_np.data.digits`).

    Raises:
        DataError: if the name is unknown, the data are not there, or a file is not what it should be.
    """
    _check_name(name)
    if name == "digits":
        if data_dir is not None:
            raise DataError("digits comes with the package and is read from no folder: leave the data folder out")
        return digits.load(split_seed)
    if split_seed is not None:
        raise DataError(f"{name} has an official split: leave the split seed out (it is for digits)")
    with one_sentence("read"):
        return _SOURCES[name].load(Path(data_dir).expanduser() if data_dir is not None else _find_or_say_how(name))


def find(name: str) -> Path | None:
    """Where a data set lies without being told: in :func:`data_home`, or where the system's package puts it."""
    source = _SOURCES[name]
    places = (data_home() / name, data_home(), *source.SYSTEM_FOLDERS)
    return next((found for place in places if (found := source.locate(place))), None)


def fetch(name: str) -> Dataset:
    """Make sure that the official files lie in :func:`data_home`, downloading what is missing or wrong; load them.

    Raises:
        DataError: if the name is unknown, no server gives the right bytes, or the folder cannot be written to.
    """
    _check_name(name)
    if name == "digits":
        return digits.load()
    with one_sentence("write"):
        location = _SOURCES[name].fetch(data_home() / name)
    return load(name, location)


def verify(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Read every byte and report: ``.official``, ``.fingerprint``, ``.source``, and ``.files`` part by part.

    Bytes that are readable but not the publisher's are no error: look at ``.official``.

    Raises:
        DataError: as :func:`load`.
    """
    return load(name, data_dir)


def list_datasets() -> list[DatasetRow]:
    """One row for each data set: name, shape, sizes, where it lies or how to get it, licence."""
    rows = [_row(digits.INFO, digits.load().source)]
    for name, source in _SOURCES.items():
        with one_sentence("read"):
            found = find(name)
        rows.append(_row(source.INFO, None if found is None else str(found)))
    return rows


def _row(info: DatasetInfo, where: str | None) -> DatasetRow:
    command = f"stg-np data fetch {info.name} ({info.download_mb} MB)" if info.download_mb else "comes with stg-np"
    return DatasetRow(info.name, info.shape, info.train_size, info.test_size, where, command, info.licence)


def _check_name(name: str) -> None:
    if name not in NAMES:
        close = difflib.get_close_matches(name.lower(), NAMES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise DataError(f"there is no data set {name!r}: {hint}use one of {', '.join(NAMES)}")


def _find_or_say_how(name: str) -> Path:
    found = find(name)
    if found is None:
        info = _SOURCES[name].INFO
        raise DataError(
            f"{info.title} is not in {data_home()}: download it with `stg-np data fetch {name}` "
            f"({info.download_mb} MB), or say where it lies with --data-dir"
        )
    return found
