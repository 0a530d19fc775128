"""Fashion-MNIST: 60,000 + 10,000 grey pictures of 28×28, in ten classes (Xiao, Rasul & Vollgraf 2017).

Four files in the IDX format: big-endian numbers, first ``0x000008nn`` (unsigned bytes in ``nn`` dimensions), then the
length of each dimension, then the bytes. They are read as they are or gzipped; since distributors compress
them anew, the *decompressed* bytes decide whether they are the official ones.
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stg_np.data.base import (
    LARGEST_FILE,
    DataError,
    Dataset,
    DatasetInfo,
    check_file,
    check_labels,
    fingerprint,
    open_plain_or_gzip,
)
from stg_np.data.download import Remote, download

INFO = DatasetInfo(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    shape=(28, 28, 1),
    train_size=60_000,
    test_size=10_000,
    flip=True,
    licence="MIT, Zalando SE",
    download_mb=31,
    ink=True,
)

SYSTEM_FOLDERS: tuple[Path, ...] = (
    Path("/usr/share/datasets/fashion-mnist"),
)  # Debian's package dataset-fashion-mnist

FILES = {  # SHA-256 of the decompressed bytes
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)


def fetch(folder: Path) -> Path:
    """Download the four files into ``folder``, decompressed, and return it."""
    for name, sha256 in FILES.items():
        remotes = [Remote(f"{mirror}{name}.gz", name, sha256, gunzip=True) for mirror in MIRRORS]
        download(remotes, folder, INFO.title)
    return folder


def locate(path: Path) -> Path | None:
    """``path``, if it is a folder with all four files, plain or gzipped; else None."""
    return path if not _missing(path) else None


def load(path: Path) -> Dataset:
    """Load Fashion-MNIST from the folder with its four IDX files.

    Raises:
        DataError: if a file is missing, cut off, damaged or not IDX, or pictures and labels do not agree.
    """
    if not path.exists():
        raise DataError(f"there is no folder {path}: check the path given for {INFO.title}")
    if not path.is_dir():
        raise DataError(f"{path} is a file: give the folder that holds the four files of {INFO.title}")
    missing = _missing(path)
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(missing)} (plain, or with .gz): copy the files there, "
            "or download them with `stg-np data fetch fashion-mnist`"
        )
    contents = {name: _read(path, name) for name in FILES}
    files = tuple(check_file(name, np.frombuffer(contents[name], np.uint8), sha256) for name, sha256 in FILES.items())
    train, train_labels, test, test_labels = (
        read_idx(content, dimensions=1 if "labels" in name else 3, where=f"{path / name}")
        for name, content in contents.items()
    )
    for images, labels, part in ((train, train_labels, "train"), (test, test_labels, "t10k")):
        if len(images) != len(labels) or images.shape[1:] != train.shape[1:] or not images.size:
            raise DataError(
                f"{path}: {part} has {len(images)} pictures of {images.shape[1]}x{images.shape[2]} and "
                f"{len(labels)} labels, which do not belong together: get the four files again"
            )
    return Dataset(
        name=INFO.name,
        classes=INFO.classes,
        train_images=train[..., None],
        train_labels=check_labels(train_labels, 10, f"{path / 'train-labels-idx1-ubyte'}"),
        test_images=test[..., None],
        test_labels=check_labels(test_labels, 10, f"{path / 't10k-labels-idx1-ubyte'}"),
        fingerprint=fingerprint(files),
        official=all(file.official for file in files),
        flip=INFO.flip,
        source=str(path),
        files=files,
    )


def read_idx(content: bytes, dimensions: int, where: str) -> NDArray[np.uint8]:
    """Read the bytes of an IDX file into a uint8 array with that many dimensions.

    Raises:
        DataError: if the magic number is another one, or the length is not what the header says.
    """
    header = 4 * (1 + dimensions)
    magic, expected = content[:4], bytes((0, 0, 8, dimensions))
    if magic != expected:
        raise DataError(
            f"{where} begins with 0x{magic.hex()}, not with IDX's 0x{expected.hex()}: it is another kind of file "
            "under this name, so get it again"
        )
    # a header that is itself cut off reads as a shape that cannot fit, which the next check reports
    shape = struct.unpack(f">{dimensions}I", content[4:header].ljust(4 * dimensions, b"\xff"))
    if len(content) != header + prod(shape):
        raise DataError(
            f"{where} has {len(content):,} bytes, its header asks for {header + prod(shape):,}: "
            "it is cut off or damaged, so get it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _path(folder: Path, name: str) -> Path:
    """The file, plain if it is there, else gzipped."""
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _missing(folder: Path) -> list[str]:
    return [name for name in FILES if not _path(folder, name).is_file()]


def _read(folder: Path, name: str) -> bytes:
    with open_plain_or_gzip(_path(folder, name), LARGEST_FILE) as stream:
        return stream.read()
