"""Pictures to learn from: ``load("digits")`` and the other names in :data:`SOURCES`; ``load("FOLDER")``, your own.

Loading never touches the network (:func:`fetch` does) and never executes what a file says. A folder whose bytes
are not the publisher's is accepted and named: quote ``dataset.label`` beside every accuracy.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from stg_np.data import arrays, cifar10, digits, fashion_mnist, folder
from stg_np.data.augment import validation_split
from stg_np.data.base import DataError, Dataset, DatasetInfo, FileCheck, one_sentence
from stg_np.data.download import data_home
from stg_np.data.sequences import sequences
from stg_np.spelling import choose_from

__all__ = [
    "SOURCES",
    "DataError",
    "Dataset",
    "DatasetInfo",
    "DatasetRow",
    "FileCheck",
    "Source",
    "data_home",
    "fetch",
    "find",
    "is_own",
    "list_datasets",
    "load",
    "portable_name",
    "random_split",
    "source",
    "verify",
]


class Source(Protocol):
    """What the module of a data set offers.

    ``INFO``: what is known without its files; ``SYSTEM_FOLDERS``: where they may lie besides :func:`data_home`.
    """

    INFO: DatasetInfo
    SYSTEM_FOLDERS: tuple[Path, ...]

    def fetch(self, folder: Path) -> Path:
        """Download the official files into ``folder``, unless they are there, and return what to load."""

    def locate(self, path: Path) -> Path | None:
        """What to load, if ``path`` is or holds the files; else None."""

    def load(self, path: Path) -> Dataset:
        """Read the files; a :class:`DataError` says what is wrong with them."""


SOURCES: dict[str, Source] = {"digits": digits, "fashion-mnist": fashion_mnist, "cifar10": cifar10}
"""The data sets by name. A new one is a module like those, and a word here.

Besides, :mod:`stg_np.data.sequences` knows ``adding-600``, ``copy-100`` and their like, with any number.
"""


def source(name: str) -> Source:
    """The module of a data set.

    Raises:
        DataError: if there is none of that name.
    """
    found: Source | None = SOURCES[name] if name in SOURCES else sequences(name)
    if found is None:
        raise DataError(
            f"there is no data set {name!r}: {choose_from(name, SOURCES)}, or a folder or .npz file of your own"
        )
    return found


class OwnSource(Protocol):
    """What a module that loads data of a user's own offers."""

    def accepts(self, path: Path) -> bool:
        """Whether ``path`` is for this module to load."""

    def load(self, path: Path, size: tuple[int, ...] | None = None) -> Dataset:
        """Read it; ``size``: height, width and, if a model asks for them, channels."""


OWN_SOURCES: tuple[OwnSource, ...] = (folder, arrays)
"""Whoever accepts a path first loads it. A new kind of data is a module like those, and a word here."""


def is_own(name: str) -> bool:
    """Whether a name is that of a folder or file of the user's own (a data set's name comes first: write ./digits)."""
    return name not in SOURCES and any(module.accepts(Path(name).expanduser()) for module in OWN_SOURCES)


def portable_name(name: str) -> str:
    """What a run writes down: the name of a data set as it is; of data of the user's own no more than it must.

    That is the way from the working folder, ``./data/pets``, or ``./pets`` where they lie elsewhere: what the folders
    of this machine are called is nobody's business, and no help on another.
    """
    if not (is_own(name) or os.path.isabs(name)):
        return name
    path, here = Path(os.path.abspath(Path(name).expanduser())), Path.cwd()
    return f"./{path.relative_to(here).as_posix() if here in path.parents else path.name}"


class DatasetRow(NamedTuple):
    """One line of :func:`list_datasets`; ``where`` is None where the data are not on this machine."""

    name: str
    shape: tuple[int, ...]
    train_size: int
    test_size: int
    where: str | None
    how_to_get: str
    licence: str


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    split_seed: int | None = None,
    size: tuple[int, ...] | None = None,
) -> Dataset:
    """Load a data set by name, from ``data_dir`` (a folder or an archive) or from where :func:`find` finds it.

    Or data of the user's own: ``name`` is the path of a folder or a file, and ``data_dir`` where it has moved to.
    ``split_seed``: for data without an official split, see :func:`random_split`.
    ``size``: of the pictures in a folder of the user's own, (height, width) or (height, width, channels).

    Raises:
        DataError: if the name is unknown, the data are not there, or a file is not what it should be.
    """
    if is_own(name) or name.startswith("./") or os.path.isabs(name):
        return _load_own(name, data_dir, split_seed, size)
    module = source(name)
    if split_seed is not None and module.INFO.official_split:
        others = [other for other, its in SOURCES.items() if not its.INFO.official_split]
        raise DataError(f"{name} has an official split: leave the split seed out (it is for {', '.join(others)})")
    with one_sentence("read"):
        dataset = module.load(Path(data_dir).expanduser() if data_dir is not None else _find_or_say_how(name))
    return dataset if split_seed is None else random_split(dataset, split_seed)


def _load_own(
    name: str, data_dir: str | os.PathLike[str] | None, split_seed: int | None, size: tuple[int, ...] | None
) -> Dataset:
    path = Path(os.path.abspath(Path(name if data_dir is None else data_dir).expanduser()))
    module = next((module for module in OWN_SOURCES if module.accepts(path)), None)
    if module is None:
        raise DataError(
            f"{path} is neither a folder of pictures nor an .npz file: check the path, or say with --data where your "
            "pictures are"
        )
    with one_sentence("read"):
        dataset = module.load(path, size)
    dataset = replace(dataset, name=portable_name(name))
    if split_seed is None:
        return dataset
    if not dataset.split:
        raise DataError(f"{name} says itself which pictures are for the test: leave the split seed out")
    return random_split(dataset, split_seed)


def random_split(dataset: Dataset, seed: int) -> Dataset:
    """The same pictures, of which as many are for the test as before, drawn at random from each class in proportion."""
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    train, test = validation_split(labels, len(dataset.test_labels) / len(labels), seed)
    return replace(
        dataset,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        note="",
        split=f"random split, seed {seed}",
    )


def find(name: str) -> Path | None:
    """Where a data set lies without being told: in :func:`data_home`, or where a package puts it."""
    module = source(name)
    places = (data_home() / name, data_home(), *module.SYSTEM_FOLDERS)
    return next((found for place in places if (found := module.locate(place))), None)


def fetch(name: str) -> Dataset:
    """Make sure that the official files lie in :func:`data_home`, downloading what is missing or wrong; load them.

    Raises:
        DataError: if the name is unknown, no server gives the right bytes, or the folder cannot be written to.
    """
    module = source(name)
    with one_sentence("write"):
        location = module.fetch(data_home() / name)
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
    rows = []
    for name, module in SOURCES.items():
        with one_sentence("read"):
            found = find(name)
        rows.append(_row(module.INFO, None if found is None else str(found)))
    return rows


def _row(info: DatasetInfo, where: str | None) -> DatasetRow:
    command = f"stg-np data fetch {info.name} ({info.download_mb} MB)" if info.download_mb else "comes with stg-np"
    return DatasetRow(info.name, info.shape, info.train_size, info.test_size, where, command, info.licence)


def _find_or_say_how(name: str) -> Path:
    found = find(name)
    if found is None:
        info = source(name).INFO
        raise DataError(
            f"{info.title} is not in {data_home()}: download it with `stg-np data fetch {name}` "
            f"({info.download_mb} MB), or say where it lies with --data-dir"
        )
    return found
