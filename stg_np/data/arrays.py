"""Arrays of a user's own, in memory or in a NumPy archive (``.npz``).

The archive holds ``x_train``, ``y_train``, ``x_test``, ``y_test`` (or ``train_images``, ``train_labels``,
``test_images``, ``test_labels``); or ``x`` and ``y`` (``images``, ``labels``), of which a fifth, drawn at random, is
for the test. ``classes`` (their names), ``value_range`` (the largest pixel value) and ``flip`` (whether a mirrored
picture still shows its class) may stand beside them. Pixels are whole numbers from 0 to 255, or numbers from 0 to 1;
pictures are (N, height, width) or (N, height, width, 1 or 3).
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stg_np.data.augment import validation_split
from stg_np.data.base import DataError, Dataset, FileCheck, Images, Labels, check_file, fingerprint
from stg_np.foreign import open_zip, showable
from stg_np.inputs import check_whole

NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x", "y"),
    ("images", "labels"),
)
"""Under which names pictures and labels are looked for, in this order."""

TEST_SHARE, SPLIT_SEED = 0.2, 0
"""How much is for the test, and the seed that draws it, where the data do not say."""

LARGEST = 8 << 30
"""Bytes of all arrays of a file together, unpacked."""

FREE, LARGEST_RATIO = 256 << 20, 100
"""Bytes to which any file may unfold; a larger one, to so many times its own size. Pictures rarely reach ten."""


def accepts(path: Path) -> bool:
    """Whether a path is for this module to load."""
    return path.suffix.lower() == ".npz"


def load(path: Path, size: tuple[int, ...] | None = None) -> Dataset:
    """Read an archive; ``size`` cannot be another one than that of its pictures.

    Raises:
        DataError: if it is none, is damaged, or its arrays are not pictures and labels.
    """
    stored = read_arrays(path)
    names = next((names for names in NAMES if all(name in stored for name in names)), None)
    if names is None:
        held = ", ".join(map(repr, stored)) or "nothing"
        raise DataError(f"{path} holds {held:.200}: name the arrays {', '.join(NAMES[0])}, or {' and '.join(NAMES[2])}")
    dataset = from_arrays(
        *(stored[name] for name in names),
        classes=stored.get("classes"),
        value_range=single(stored, "value_range", "iu", f"{path}: give a whole number from 1 to 255"),
        name=str(path),
        flip=bool(single(stored, "flip", "b", f"{path}: give True or False")),
    )
    if size is not None and dataset.shape[: len(size)] != size:
        raise DataError(f"{path} has pictures of {'×'.join(map(str, dataset.shape))}: they are not resized (no --size)")
    return dataset


def single(stored: Mapping[str, NDArray[Any]], name: str, kinds: str, advice: str) -> Any:
    """The one value of an array: True or False (``b``), or from 1 to 255 (``iu``); None if there is none of that name.

    Raises:
        DataError: if it is something else.
    """
    array = stored.get(name)
    if array is None:
        return None
    if array.size != 1 or array.dtype.kind not in kinds or (kinds != "b" and not 1 <= array.item() <= 255):
        raise DataError(f"{name} is {showable(array, 60)} in {advice}")
    return array.item()


def save(dataset: Dataset, path: Path) -> None:
    """Write an archive that :func:`load` reads.

    Raises:
        DataError: if it cannot be written.
    """
    if not accepts(path):
        raise DataError(f"{path} would be a NumPy archive: give it a name that ends in .npz")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("xb") as file:
            np.savez_compressed(
                file,
                x_train=dataset.train_images,
                y_train=dataset.train_labels,
                x_test=dataset.test_images,
                y_test=dataset.test_labels,
                classes=np.array(dataset.classes),
                value_range=np.array(dataset.value_range),
                flip=np.array(dataset.flip),
            )
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error.strerror or error}: name another place") from error


def from_arrays(
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    *,
    classes: Any = None,
    value_range: int | None = None,
    name: str = "arrays",
    flip: bool = False,
) -> Dataset:
    """A data set of arrays; see :meth:`stg_np.data.Dataset.from_arrays`."""
    if (x_test is None) != (y_test is None):
        raise DataError(f"{name} has pictures for the test without labels, or labels without pictures: give both")
    if value_range is not None:
        check_whole("value_range", value_range, least=1)
    numeric = [as_pictures(x, f"{name}: its pictures") for x in (x_train, x_test) if x is not None]
    everything = as_bytes(numeric, name)
    if value_range == 1 and all(x.dtype.kind == "f" for x in numeric):
        value_range = None  # that of the pixels that were given; as bytes they may go up to 255
    labels = [np.asarray(y) for y in (y_train, y_test) if y is not None]
    names, numbers = as_labels(labels, classes, name)
    for pictures, its in zip(everything, numbers):
        if len(pictures) != len(its) or not len(its):
            raise DataError(f"{name} has {len(pictures):,} pictures and {len(its):,} labels: there is one for each")
    if len({pictures.shape[1:] for pictures in everything}) > 1:
        raise DataError(f"{name} has pictures of other sizes for the test than for the training: make them alike")
    most = max(int(pictures.max()) for pictures in everything)
    value_range = usual_range(most) if value_range is None else value_range
    if most <= 1 < value_range and all(x.dtype.kind == "f" for x in numeric):
        raise DataError(f"{name} has pixels up to {most} only, for a value range of {value_range}: name one of 1")
    if not max(most, 1) <= value_range <= 255:
        raise DataError(f"{name} has pixels up to {most}, which is not within a value range of {value_range}")
    digests = [check_file(part, data, "") for part, data in zip(("train", "test"), everything)]
    digests += [check_file("labels", np.frombuffer(its.tobytes(), np.uint8), "") for its in numbers]
    return assembled(name, names, everything, numbers, digests, value_range=value_range, flip=flip)


def assembled(
    name: str,
    classes: tuple[str, ...],
    pictures: list[Images],
    labels: list[Labels],
    digests: list[FileCheck],
    *,
    value_range: int = 255,
    flip: bool = False,
    damaged: tuple[str, ...] = (),
) -> Dataset:
    """The data set of pictures for training and for the test, or of pictures that are split first.

    Raises:
        DataError: if there are too few.
    """
    split = ""
    if len(pictures) == 1:
        try:
            train, test = validation_split(labels[0], TEST_SHARE, SPLIT_SEED)
        except ValueError as error:
            raise DataError(f"{name} has too few pictures: {error}") from error
        pictures = [pictures[0][train], pictures[0][test]]
        labels = [labels[0][train], labels[0][test]]
        split = f"random split, seed {SPLIT_SEED}"
    for text in (name, *classes):
        if not text.isprintable() or not 0 < len(text) < 1000:
            raise DataError(f"the name {text!a:.60} cannot be printed: rename it")
    missing = [classes[k] for k in np.flatnonzero(np.bincount(labels[0], minlength=len(classes)) == 0)]
    if missing:
        raise DataError(f"{name} has no picture to learn from of {', '.join(missing):.200}: add some to the training")
    return Dataset(
        name=name,
        classes=classes,
        train_images=pictures[0],
        train_labels=labels[0],
        test_images=pictures[1],
        test_labels=labels[1],
        fingerprint=fingerprint(digests),
        official=False,
        flip=flip,
        value_range=value_range,
        split=split,
        source=name,
        files=tuple(digests),
        own=True,
        damaged=damaged,
    )


def as_pictures(values: ArrayLike, where: str) -> NDArray[Any]:
    """Pictures (N, height, width, c) of numbers from 0 to 255.

    Raises:
        DataError: if the values have another shape or range.
    """
    array = np.asarray(values)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape:
        shape = "×".join(map(str, array.shape))
        first = array.ndim == 4 and array.shape[1] in (1, 3)
        hint = "; the channels come first here (NCHW), x.transpose(0, 2, 3, 1)" if first else ""
        raise DataError(f"{where} have the shape {shape}: give (N, height, width) or (N, height, width, 1 or 3){hint}")
    if array.dtype.kind not in "buif":
        raise DataError(f"{where} are of the type {array.dtype}: give numbers from 0 to 255")
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        k = np.argwhere(~finite)[0, 0]
        raise DataError(f"{where} hold NaN or infinite pixels, the first in picture {k}: leave it out, or mend it")
    least, most = array.min(), array.max()
    if not (least >= 0 and most <= 255):
        raise DataError(f"{where} have pixels from {least:g} to {most:g}: give numbers from 0 to 255, or from 0 to 1")
    return array


def as_bytes(parts: list[NDArray[Any]], where: str) -> list[Images]:
    """The same in uint8: whole numbers as they are; where there are fractions, all parts from 0 … 1 to 0 … 255.

    Raises:
        DataError: if there are fractions, and numbers above 1.
    """
    fractions = any(part.dtype.kind == "f" and (part != np.rint(part)).any() for part in parts)
    most = max(part.max() for part in parts)
    if fractions and most > 1:
        raise DataError(f"{where} has fractional pixels up to {most:g}: give whole numbers to 255, or numbers to 1")
    whole = [np.rint(part * 255) for part in parts] if fractions else parts
    return [np.ascontiguousarray(part.astype(np.uint8)) for part in whole]


def as_labels(given: list[NDArray[Any]], classes: Any, where: str) -> tuple[tuple[str, ...], list[Labels]]:
    """The names of the classes, and the labels as their numbers. Labels are numbers from 0, or names.

    Raises:
        DataError: if they are something else, or without a name.
    """
    flat = [labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels for labels in given]
    if any(labels.ndim != 1 for labels in flat):
        raise DataError(f"{where} has labels of the shape {given[0].shape}: give one number for each picture")
    every = np.concatenate(flat)
    given_names = None if classes is None else texts(np.asarray(classes), f"{where} has classes")
    if every.dtype.kind in "US":
        said = set(texts(every, f"{where} has labels"))
        names = sorted(said) if given_names is None else given_names
        if unknown := said - set(names):
            raise DataError(f"{where} has the label {min(unknown)!r:.60}, which is none of its classes: add it to them")
        numbers = {name: number for number, name in enumerate(names)}
        flat = [np.array([numbers[label] for label in texts(labels, where)], np.int64) for labels in flat]
    elif every.dtype.kind not in "ui" or not every.size or every.min() < 0 or every.max() >= 100_000:
        raise DataError(f"{where} has labels that are neither whole numbers from 0 nor names: give one of both")
    else:
        names = [str(k) for k in range(int(every.max()) + 1)] if given_names is None else given_names
        if every.max() >= len(names):
            raise DataError(f"{where} has the label {every.max()}, but {len(names)} classes: labels count from 0")
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError(f"{where} needs two classes or more, each with a name of its own")
    return tuple(names), [labels.astype(np.int64) for labels in flat]


def texts(names: NDArray[Any], where: str) -> list[str]:
    """Names (N,), or whole numbers, as texts; bytes are UTF-8.

    Raises:
        DataError: if they are something else.
    """
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise DataError(f"{where} of the shape {names.shape} and the type {names.dtype}: give a list of names")
    try:
        plain: list[Any] = (np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names).tolist()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} that are bytes, but no UTF-8: give texts") from error
    return list(map(str, plain))


def usual_range(most: int) -> int:
    """The largest pixel value that is meant, where the largest that occurs is ``most``: 1, 16 (as digits) or 255."""
    return 1 if most <= 1 else 16 if most <= 16 else 255


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive under the names that are used here. Their sizes are known before memory is asked for.

    Raises:
        DataError: if it is no archive, is damaged, or is larger than any.
    """
    wanted = {name for names in NAMES for name in names} | {"classes", "value_range", "flip"}
    arrays: dict[str, NDArray[Any]] = {}
    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path, or say with --data where it is")
    room = most = min(LARGEST, max(FREE, LARGEST_RATIO * path.stat().st_size))
    try:
        with open_zip(path, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name not in wanted or name in arrays:
                    continue
                with archive.open(member) as file:
                    room -= _announced(file, member.file_size)
                if room < 0:
                    what = "an archive of pictures" if most == LARGEST else "so small a file"
                    raise DataError(
                        f"{path} unpacks to more than {most:,} bytes, which is too much for {what}: take fewer or "
                        "smaller pictures, or np.savez, which does not compress"
                    )
                with archive.open(member) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises one of many kinds
        raise DataError(
            f"{path} is no NumPy archive (.npz), or is damaged ({showable(error, 100)}): write it again"
        ) from error
    return arrays


def _announced(file: Any, size: int) -> int:
    """The bytes of memory that a stored array needs, by its header, which must agree with the size of its member."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    needed = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or needed != size - file.tell():
        raise ValueError("an array is not as long as it says, or holds objects")
    return needed
