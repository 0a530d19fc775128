"""Checkpoints: one ``.npz`` file of named arrays and a JSON header; atomic, verified, and free of pickle.

Every member of the archive carries a CRC, which catches flipped bits and truncation. A file is written beside its
final name, flushed to the disk, and only then renamed; so under the final name there is always a whole checkpoint,
the old one or the new one. Before an array is read, its name, shape and dtype are compared with what the header's
configuration calls for: a forged header of 128 bytes could otherwise ask for terabytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stg_np.backend import Array, to_host

FORMAT = "stg-np checkpoint 1"
HEADER = "header"


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the message is one sentence: what, where, how to mend it."""


def save(path: Path, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
    """Write arrays (of either library) and a JSON-serialisable header to ``path``, atomically.

    Raises:
        CheckpointError: if the disk is full or the folder cannot be written; an older file at ``path`` is untouched.
    """
    text = json.dumps({"format": FORMAT, **header})
    members = {HEADER: np.frombuffer(text.encode(), np.uint8)} | {k: to_host(v) for k, v in arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **members)
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
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; an older file there is untouched: "
            "free some space, or choose another folder with --out"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def clean_stale(path: Path) -> None:
    """Remove what an interrupted write of ``path`` left behind."""
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
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


def read_header(path: Path) -> dict[str, Any]:
    """The header of a checkpoint, without reading its arrays.

    Raises:
        CheckpointError: if ``path`` is not a readable checkpoint of this format.
    """
    with opened(path) as archive:
        shape, dtype = member_type(archive, HEADER)
        if dtype != np.uint8 or len(shape) != 1 or shape[0] > 1_000_000:
            raise CheckpointError(f"{path} is not an stg-np checkpoint: its header is not text")
        try:
            header: dict[str, Any] = json.loads(read_member(archive, HEADER).tobytes())
        except ValueError as error:
            raise CheckpointError(f"{path} is not an stg-np checkpoint: its header is not JSON") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of the format {FORMAT!r} that this version reads")
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
            differing = ", ".join(sorted(names ^ set(expected))[:5])
            raise CheckpointError(f"{path} does not fit its own configuration: {differing} missing or unknown")
        arrays = {}
        for name, (shape, dtype) in expected.items():
            found = member_type(archive, name)
            if found != (tuple(shape), np.dtype(dtype)):
                raise CheckpointError(
                    f"{path} does not fit its own configuration: {name} is {found[0]} {found[1]}, "
                    f"not {tuple(shape)} {np.dtype(dtype)}"
                )
            arrays[name] = read_member(archive, name)
        return arrays


@contextlib.contextmanager
def opened(path: Path) -> Any:
    """The zip archive at ``path``; whatever is wrong with it becomes one sentence."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no checkpoint {path}: give the path of a checkpoint.npz or best.npz"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is not an stg-np checkpoint, or it is damaged: {error}") from error


def member_type(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array, from its first bytes."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{name} is stored in an unknown version {version} of the .npy format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype


def read_member(archive: zipfile.ZipFile, name: str) -> Array:
    """One array, whole: reading to the end is what verifies its CRC."""
    shape, _ = member_type(archive, name)
    content = archive.read(f"{name}.npy")
    if archive.getinfo(f"{name}.npy").file_size < prod(shape):
        raise ValueError(f"{name} is shorter than it says")
    array: Array = np.load(io.BytesIO(content), allow_pickle=False)
    return array
