"""Tiny data sets, written in the official formats byte by byte."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARTS = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")


def cifar_records(count: int = 3, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Six parts of ``count`` records: labels in 0 … 9, then 3072 bytes."""
    rng = np.random.default_rng(seed)
    return {
        part: np.column_stack([rng.integers(0, 10, count, np.uint8), rng.integers(0, 256, (count, 3072), np.uint8)])
        for part in PARTS
    }


def binary_files(records: dict[str, NDArray[np.uint8]]) -> dict[str, bytes]:
    files = {f"{part}.bin": content.tobytes() for part, content in records.items()}
    return {"batches.meta.txt": b"airplane\n", **files}


def python_files(records: dict[str, NDArray[np.uint8]]) -> dict[str, bytes]:
    files = {part: python2_pickle(content[:, 0], content[:, 1:]) for part, content in records.items()}
    return {"batches.meta": b"\x80\x02}.", **files}


def _string(text: bytes) -> bytes:
    """Python 2's ``str`` in protocol 2: SHORT_BINSTRING or BINSTRING."""
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text


def python2_pickle(
    labels: NDArray[np.uint8], pixels: NDArray[np.uint8], *, fortran: bool = False, dtype: bytes = b"u1"
) -> bytes:
    """The dictionary of one batch as Python 2's cPickle wrote it (protocol 2)."""
    rows, columns = len(pixels), len(pixels[0])
    shape = b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86"
    kind = b"cnumpy\ndtype\n" + _string(dtype) + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + _string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _string(b"b") + b"\x87R"
    raw = pixels.tobytes("F" if fortran else "C")
    array += b"(K\x01" + shape + kind + (b"\x88" if fortran else b"\x89") + _string(raw) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + _string(b"frog_s_000001.png") + b"q\x02" + b"h\x02" * (rows - 1) + b"e"  # put, then get
    items = _string(b"batch_label") + _string(b"training batch 1 of 5")
    items += _string(b"labels") + numbers + _string(b"data") + array + _string(b"filenames") + names
    return b"\x80\x02}q\x01(" + items + b"u."


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path: Path, inner_folder: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo(inner_folder)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in reversed(files.items()):  # the official python archive is out of order, too
            member = tarfile.TarInfo(f"{inner_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def fashion_files(train: int = 5, test: int = 2, seed: int = 0) -> dict[str, bytes]:
    """The four files, decompressed, with pictures of 28×28."""
    rng = np.random.default_rng(seed)
    files = {}
    for prefix, count in (("train", train), ("t10k", test)):
        files[f"{prefix}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 28, 28), np.uint8))
        files[f"{prefix}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, count, np.uint8))
    return files


def gzipped(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
