"""The file of a checkpoint: named arrays and a JSON header in one ``.npz``; atomic, verified, and free of pickle.

What the arrays and the header mean is said in :mod:`stg_np.runs.checkpoint`. Every member of the archive carries a
CRC, which catches flipped bits and truncation. A file is written beside its final name, flushed to the disk, and only
then renamed; so under the final name there is always a whole checkpoint, the old one or the new one. Before room is
made for an array, its name, shape and dtype are compared with what the header's configuration calls for, and its
length with the bytes that are there: a forged header of 128 bytes could otherwise ask for terabytes. The list of
members and the header have limits of their own, in bytes and in objects.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stg_np.backend import Array, to_host
from stg_np.foreign import open_zip, parse_json, showable

FORMAT = "stg-np checkpoint 1"
HEADER = "header"
LARGEST_HEADER = 1 << 20
"""Bytes: far more than any description of a run needs, and little to parse."""
LARGEST_NPY_HEADER = 1 << 16


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the message is one sentence: what, where, how to mend it."""


def save(path: Path, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
    """Write arrays (of either library) and a JSON-serialisable header to ``path``, atomically.

    Raises:
        CheckpointError: if the disk is full or the folder cannot be written; an older file at ``path`` is untouched.
        TypeError: if the header is not JSON.
        ValueError: if an array holds Python objects, or has the name of the header; if the header is too large.
    """
    if HEADER in arrays:
        raise ValueError(f"no array of a checkpoint can be named {HEADER!r}")
    text = json.dumps({"format": FORMAT, **header})
    if len(text) > LARGEST_HEADER:
        raise ValueError(f"a header of {len(text):,} bytes could not be read again: {LARGEST_HEADER:,} are the limit")
    parse_json(text)  # which has limits, too
    members = {HEADER: np.frombuffer(text.encode(), np.uint8)} | {k: to_host(v) for k, v in arrays.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # what np.savez does; it cannot refuse objects before NumPy 2.2
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that ``path`` holds either its old content or all of the new, whatever happens.

    Raises:
        CheckpointError: if it cannot be written.
    """
    temporary: str | None = None
    try:
        clean_stale(path)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; an older file there is untouched: "
            "free some space, or choose another place"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def umask() -> int:
    """The permissions that the user takes away from new files; to read it means to set it, for an instant."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def clean_stale(path: Path) -> None:
    """Remove what an interrupted write of ``path`` left behind."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            stale.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename durable (POSIX; where folders cannot be opened there is nothing to do)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_header(path: Path, formats: tuple[str, ...] = (FORMAT,)) -> dict[str, Any]:
    """The header of a checkpoint, without reading its arrays.

    Raises:
        CheckpointError: if ``path`` is not a readable checkpoint in one of the ``formats``.
    """
    with opened(path) as archive:
        if archive.getinfo(f"{HEADER}.npy").file_size > LARGEST_HEADER:
            raise CheckpointError(f"{path} has a header of more than {LARGEST_HEADER:,} bytes, which is no description")
        text = read_member(path, archive, HEADER, None)
        header: dict[str, Any] = parse_json(text.tobytes())
    if not isinstance(header, dict) or header.get("format") not in formats:
        wanted = " or ".join(map(repr, formats))
        raise CheckpointError(f"{path} is not a checkpoint of the format {wanted} that this is for")
    return header


def load(path: Path, expected: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, Array]:
    """The arrays of a checkpoint, on the host, after comparing them with what is expected.

    Args:
        path: a file that :func:`save` wrote.
        expected: the shape and dtype of every array, by name.

    Raises:
        CheckpointError: if a name, shape or dtype differs, or the file is damaged.
    """
    with opened(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()} - {HEADER}
        if names != set(expected):
            differing = showable(", ".join(sorted(names ^ set(expected))[:5]))
            raise CheckpointError(f"{path} does not fit its own configuration: {differing} missing or unknown")
        return {
            name: read_member(path, archive, name, (tuple(shape), np.dtype(dtype)))
            for name, (shape, dtype) in expected.items()
        }


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip archive at ``path``; whatever is wrong with it becomes one sentence."""
    try:
        with open_zip(path, (zipfile.ZIP_STORED,)) as archive:
            yield archive
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no checkpoint {path}: give the path of a checkpoint.npz or best.npz"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except CheckpointError:
        raise
    except Exception as error:  # the parsers of zip, .npy and JSON raise more than a dozen kinds on damaged bytes
        raise CheckpointError(f"{path} is not an stg-np checkpoint, or it is damaged: {showable(error)}") from error


def read_member(path: Path, archive: zipfile.ZipFile, name: str, expected: tuple[tuple[int, ...], Any] | None) -> Array:
    """One array, if it has the shape and dtype expected (None: those of text).

    The bytes are read to their end first, which is what verifies their CRC; they are no more than what is expected.
    """
    if expected is not None:
        largest = prod(expected[0]) * expected[1].itemsize + LARGEST_NPY_HEADER
        if archive.getinfo(f"{name}.npy").file_size > largest:
            raise ValueError(f"{name} is larger than what its configuration calls for")
    content = io.BytesIO(archive.read(f"{name}.npy"))
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        raise ValueError(f"{name} is stored in an unknown version {version} of the .npy format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    length = len(content.getbuffer()) - content.tell()
    wanted = expected or ((length,), np.dtype(np.uint8))
    if (shape, dtype) != wanted:
        raise CheckpointError(
            f"{path} does not fit its own configuration: {name} is {showable(shape, 60)} {showable(dtype, 60)}, "
            f"not {wanted[0]} {wanted[1]}"
        )
    if length != prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {length} bytes, which is not what its shape needs")
    content.seek(0)
    array: Array = np.load(content, allow_pickle=False)
    return array
