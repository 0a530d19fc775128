"""Pictures of a user's own in a folder for each class: ``FOLDER/cat/1.jpg``, ``FOLDER/dog/7.png``, …

With ``FOLDER/train/cat/…`` and ``FOLDER/test/cat/…`` the split is what the folders say; otherwise a fifth of the
pictures, drawn at random from each class in proportion, is for the test.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stg_np.data.arrays import assembled
from stg_np.data.base import DataError, Dataset, FileCheck, Images, Labels
from stg_np.data.pictures import open_picture, pictures_in, see

DEFAULT_SIZE = 32
"""Height and width, where none are asked for and the pictures differ."""

LARGEST_DEFAULT = 64
"""Pictures that are all of one size, and not larger than this, keep it."""

LARGEST = 8 << 30
"""Bytes of all pictures together, at the size that the network sees."""

PARTS, PURPOSES = ("train", "test"), ("learn from", "test on")


def accepts(path: Path) -> bool:
    """Whether a path is for this module to load."""
    return path.is_dir()


def load(path: Path, size: tuple[int, ...] | None = None) -> Dataset:
    """Read every picture: the part from its middle that has the right proportions, resized.

    Args:
        path: the folder.
        size: height, width and, if a model asks for them, channels. None: the size of the pictures if all have one (up
            to 64×64), else 32×32. Channels: one if all pictures are grey, else three.

    Raises:
        DataError: if there are no classes, or one of them has no pictures. A picture that cannot be read is left out
            and named in ``damaged``.
    """
    parts = parts_of(path)
    classes = classes_of(path, parts)
    files = [[(file, k) for k, name in enumerate(classes) for file in files_of(part / name)] for part in parts]
    shape = size if size is not None else common_size([file for part in files for file, _ in part])
    shape = (*shape, 3)[:3]
    count = sum(map(len, files))
    if count * math.prod(shape) > LARGEST:
        asked = f"{count:,} pictures of {shape[0]}×{shape[1]}"
        raise DataError(f"{path}: {asked} need more than {LARGEST >> 30} GiB: choose a smaller --size")
    damaged: list[str] = []
    read = [read_part(part, shape, damaged) for part in files]
    for purpose, (some, _, _) in zip(PURPOSES, read):
        if not len(some):
            reason = f" ({damaged[0]:.300})" if damaged else ""
            raise DataError(f"{path} has no picture that can be read, to {purpose}{reason}: add some")
    pictures = [some for some, _, _ in read]
    if size is None or len(size) == 2:
        pictures = without_needless_colours(pictures)
    names = repr(classes).encode()
    digests = [
        FileCheck(name, hashlib.sha256(names + digest).hexdigest(), False) for name, (_, _, digest) in zip(PARTS, read)
    ]
    labels = [numbers for _, numbers, _ in read]
    return assembled(str(path), classes, pictures, labels, digests, damaged=tuple(damaged))


def parts_of(path: Path) -> list[Path]:
    """The folders for training and for the test, or the folder itself.

    Raises:
        DataError: if only one of them is there.
    """
    parts = [path / part for part in PARTS if (path / part).is_dir()]
    if len(parts) == 1:
        missing = next(part for part in PARTS if path / part not in parts)
        raise DataError(f"{path} holds {parts[0].name} but no {missing}: add it, or put the class folders side by side")
    return parts or [path]


def classes_of(path: Path, parts: list[Path]) -> tuple[str, ...]:
    """The names of the folders to learn from.

    Raises:
        DataError: if there are fewer than two, or others for the test.
    """
    classes = tuple(folder.name for folder in class_folders(parts[0]))
    if len(classes) < 2:
        raise DataError(f"{path} does not hold a folder for each of two classes or more: {path}/CLASS/PICTURE")
    others = {folder.name for part in parts for folder in class_folders(part)} - set(classes)
    if others:
        raise DataError(f"{path} has no pictures to learn from of {', '.join(sorted(others)):.200}: add them to train")
    return classes


def read_part(
    files: list[tuple[Path, int]], shape: tuple[int, ...], damaged: list[str]
) -> tuple[Images, Labels, bytes]:
    """Pictures, their labels, and what the fingerprint is made of; a sentence is added for each damaged picture."""
    pictures = np.empty((len(files), *shape), np.uint8)
    labels: list[int] = []
    digest = hashlib.sha256()
    for file, label in files:
        try:
            pictures[len(labels)] = see(open_picture(file), shape, 255).pixels
            digest.update(f"{label} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        except (DataError, OSError) as error:
            damaged.append(str(error))
        else:
            labels.append(label)
    return pictures[: len(labels)], np.array(labels, np.int64), digest.digest()


def class_folders(part: Path) -> list[Path]:
    """The folders in a folder, in the order of their names, but for hidden ones."""
    return sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))


def files_of(folder: Path) -> Iterator[Path]:
    """The pictures of a class; none where the folder holds none."""
    if folder.is_dir():
        try:
            yield from pictures_in(folder)
        except DataError:
            return


def common_size(files: list[Path]) -> tuple[int, int]:
    """Height and width of all pictures, if they are alike and small; else the default."""
    sizes = set()
    for file in files:
        try:
            sizes.add(open_picture(file).size)
        except DataError:
            continue
        if len(sizes) > 1 or max(max(sizes)) > LARGEST_DEFAULT:
            return DEFAULT_SIZE, DEFAULT_SIZE
    width, height = sizes.pop() if sizes else (DEFAULT_SIZE, DEFAULT_SIZE)
    return height, width


def without_needless_colours(parts: list[Images]) -> list[Images]:
    """One channel, if all pictures are grey."""
    grey = all((part == part[..., :1]).all() for part in parts)
    return [np.ascontiguousarray(part[..., :1]) for part in parts] if grey else parts
