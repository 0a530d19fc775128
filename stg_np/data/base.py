"""What every data set is once it is loaded, and the one kind of error that loading can end in."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stg_np.data.task import Task
from stg_np.foreign import open_regular, refuse_unshowable

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

GZIP_MAGIC = b"\x1f\x8b"

LARGEST_FILE = 1 << 28
"""Bytes of one file of a data set, decompressed: five times the largest official one."""


class DataError(Exception):
    """A data set cannot be had; the message is one sentence: what is wrong, where, and how to mend it."""


class FileCheck(NamedTuple):
    """One part of a data set as it was read: its SHA-256 and whether that is the publisher's."""

    name: str
    sha256: str
    official: bool


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before any file is read.

    ``flip``, ``value_range``: see :class:`Dataset`; ``download_mb``: 0 where it comes with the package;
    ``official_split``: whether the publisher says which pictures are for the test; ``ink``: whether the pictures are
    light ink on dark (or a piece of clothing) that fills the frame: pictures of a user's own are then framed like that.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    train_size: int
    test_size: int
    flip: bool
    licence: str
    download_mb: int = 0
    value_range: int = 255
    official_split: bool = True
    ink: bool = False


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures ``(N, height, width, channels)`` uint8 and labels ``(N,)`` int64, for training and for the test.

    Attributes:
        fingerprint: eight hexadecimal digits that change with any byte of the data (:func:`fingerprint`).
        official: whether every byte is the publisher's.
        flip: whether a mirrored picture still shows its class (a car, yes; a digit, no).
        value_range: the largest pixel value: ``pixels / value_range`` lies in [0, 1].
        note: what a reader of an accuracy on these data should know, or the empty string.
        split: the name of the split where it is not the default one, or the empty string.
        source: where the data were read from.
        files: one :class:`FileCheck` for each part.
        own: whether these are data of the user's own, of which nobody publishes official files.
        damaged: a sentence about each picture that could not be read, and was left out.
        task: what is learned where the examples are no pictures of classes: sequences (N, T, D), and their targets.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    fingerprint: str
    official: bool
    flip: bool
    value_range: int = 255
    note: str = ""
    split: str = ""
    source: str = ""
    files: tuple[FileCheck, ...] = ()
    own: bool = False
    damaged: tuple[str, ...] = ()
    task: Task | None = None

    @classmethod
    def from_arrays(
        cls,
        x_train: ArrayLike,
        y_train: ArrayLike,
        x_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        *,
        classes: Sequence[str] | None = None,
        value_range: int | None = None,
        name: str = "arrays",
        flip: bool = False,
    ) -> Dataset:
        """A data set of arrays of your own.

        Args:
            x_train: pictures (N, height, width) or (N, height, width, 1 or 3): whole numbers from 0 to 255, or numbers
                from 0 to 1. x_test: the same for the test; None: a fifth is drawn at random.
            y_train: one label for each: whole numbers from 0, or names. y_test: the same for the test.
            classes: the names of the classes. value_range: the largest pixel value; None: 1, 16 or 255.
            name: how accuracies are quoted. flip: as in :class:`Dataset`.

        Raises:
            DataError: if the arrays are not pictures and labels that belong together.
        """
        from stg_np.data import arrays

        return arrays.from_arrays(
            x_train, y_train, x_test, y_test, classes=classes, value_range=value_range, name=name, flip=flip
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write a NumPy archive (``.npz``), for ``--data`` and :meth:`load`.

        Raises:
            DataError: if it cannot be written.
        """
        from stg_np.data import arrays

        arrays.save(self, Path(path))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Dataset:
        """Read an archive that :meth:`save` wrote, or one with arrays of the usual names.

        Raises:
            DataError: if it is none, or is damaged.
        """
        from stg_np.data import arrays

        return arrays.load(Path(path))

    def __post_init__(self) -> None:
        for text in (self.name, self.split, *self.classes):  # they are printed, and a checkpoint keeps them
            try:
                refuse_unshowable(text)
            except ValueError as error:
                raise DataError(f"{error}: give that class or data set another name") from None

    @property
    def label(self) -> str:
        """The name as every accuracy must quote it, with the split and the provenance where they matter."""
        provenance = "" if self.official else f"fingerprint {self.fingerprint}"
        if provenance and not self.own:
            provenance = f"not the official files, {provenance}"
        remarks = ", ".join(remark for remark in (self.split, provenance) if remark)
        name = Path(self.name).name if self.own else self.name
        return f"{name} ({remarks})" if remarks else name

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of one picture; steps and features of one sequence."""
        return self.train_images.shape[1:]


def check_file(name: str, content: NDArray[np.uint8], official_sha256: str) -> FileCheck:
    """Hash the bytes of ``content`` (any shape, contiguous) and compare with the publisher's SHA-256."""
    digest = hashlib.sha256(content.reshape(-1).data).hexdigest()
    return FileCheck(name, digest, digest == official_sha256)


def fingerprint(files: Sequence[FileCheck]) -> str:
    """The first 8 hexadecimal digits of the SHA-256 over the parts' SHA-256 sums, written in order.

    In a shell: ``sha256sum PARTS | cut -c-64 | tr -d '\\n' | sha256sum | cut -c-8``.
    """
    return hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()[:8]


def check_labels(labels: NDArray[np.uint8], classes: int, where: str) -> Labels:
    """Return the labels as int64.

    Raises:
        DataError: if a label is not in ``0 … classes − 1``; it names the first one.
    """
    wrong = np.flatnonzero(labels >= classes)
    if wrong.size:
        raise DataError(
            f"{where}: picture {wrong[0]} has label {labels[wrong[0]]}, but the labels go from 0 to {classes - 1}: "
            "the file is damaged or belongs to another data set, so get it again"
        )
    return labels.astype(np.int64)


class Bounded:
    """A stream that may give ``largest`` bytes, however little of it there was before it unfolded."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, path: Path, largest: int) -> None:
        self.stream, self.path, self.largest, self.left = stream, path, largest, largest

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, or all that remain.

        Raises:
            DataError: if the stream gives more than it may.
        """
        content = self.stream.read(self.left + 1 if size < 0 else min(size, self.left + 1))
        self.left -= len(content)
        if self.left < 0:
            raise DataError(
                f"{self.path} unfolds to more than {self.largest:,} bytes, which no official file does: get it again"
            )
        return content


@contextmanager
def open_plain_or_gzip(path: Path, largest: int = LARGEST_FILE) -> Iterator[Bounded]:
    """Open a file for reading, decompressing it if it is gzip (its first bytes say so, not its name).

    Raises:
        DataError: if the stream turns out, while it is read, to be cut off or damaged, or to have more than
            ``largest`` bytes.
        OSError: if it is no regular file, or cannot be read.
    """
    with open_regular(path) as raw:
        compressed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            yield Bounded(stream, path, largest)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is cut off or damaged ({error}): download or copy it again") from error


@contextmanager
def one_sentence(action: str) -> Iterator[None]:
    """Turn what the operating system refuses into a :class:`DataError`; ``action`` is "read" or "write"."""
    try:
        yield
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise DataError(
            f"cannot {action}{where}: {error.strerror or error}: "
            f"check that you may {action} there, or name another place (--data-dir, or STG_NP_DATA)"
        ) from error
