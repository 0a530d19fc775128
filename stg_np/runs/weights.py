"""Weights to take away: parameters in 16 bits and the description of the run, in a file of half the size and less.

It is an archive as a checkpoint is (:mod:`stg_np.runs.archive`), without what only a training needs. The networks that
come with the package lie in its folder ``weights``, with the SHA-256 of each in ``SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

import stg_np
from stg_np.backend import to_device, to_host
from stg_np.foreign import open_regular
from stg_np.runs import archive, checkpoint
from stg_np.runs.archive import CheckpointError
from stg_np.runs.checkpoint import Stored

FORMAT = "stg-np weights 1"
HALF = np.dtype(np.float16)

FOLDER = Path(stg_np.__file__).parent / "weights"
SUMS = "SHA256SUMS"
DEFAULT = "cifar10"
"""The bundled network for photographs, where none is named."""


def save(path: Path, stored: Stored) -> None:
    """Write the parameters, rounded to 16 bits, what the model keeps besides, and the description.

    Raises:
        CheckpointError: if a parameter does not fit into 16 bits, or the file cannot be written.
    """
    about, now = stored
    most = np.finfo(HALF).max
    with np.errstate(over="ignore"):
        half = to_host(now.params.flat).astype(HALF)
    if not np.isfinite(half).all():
        raise CheckpointError(f"{path} cannot hold a parameter of more than {most:,.0f}: no file of 16 bits can")
    arrays = {"params": half, **{f"state/{name}": array for name, array in now.state.items()}}
    archive.save(path, arrays, about.as_table() | checkpoint.counters_of(now) | {"format": FORMAT})


def load(path: Path, device: str | None = None) -> Stored:
    """The network in a file of weights, or in a checkpoint; of weights, all that only a training needs is zero.

    Raises:
        CheckpointError: if it is neither, is damaged or contradicts itself, or is not the file that was bundled.
        DeviceError: if the device cannot be used.
    """
    header = archive.read_header(path, (archive.FORMAT, FORMAT))
    if header.pop("format") == archive.FORMAT:
        return checkpoint.load(path, device)
    if path.parent == FOLDER:
        refuse_changed(path)
    bytes_of_single = np.dtype(np.float32).itemsize // HALF.itemsize * path.stat().st_size
    about, counters, blank = checkpoint.understood(path, header, bytes_of_single)
    expected = {"params": (blank.params.flat.shape, HALF)}
    expected |= {f"state/{name}": (array.shape, array.dtype) for name, array in blank.state.items()}
    device = about.device if device is None else device
    arrays = checkpoint.finite_arrays(path, expected)
    params = blank.params.with_flat(to_device(arrays["params"].astype(blank.params.flat.dtype), device))
    state = {name: to_device(arrays[f"state/{name}"], device) for name in blank.state}
    return Stored(about, blank._replace(**vars(counters), params=params, state=state))


def is_weights(path: Path) -> bool:
    """Whether a file is one of weights, and no checkpoint from which a training goes on."""
    try:
        return bool(archive.read_header(path, (FORMAT,)))
    except CheckpointError:
        return False


# --- those that come with the package -------------------------------------------------------------------------


def bundled() -> dict[str, str]:
    """The networks that come with the package, by name, with the SHA-256 of their files."""
    lines = (FOLDER / SUMS).read_text(encoding="ascii").splitlines()
    sums = (line.split() for line in lines)
    return {name.removesuffix(".npz"): digest for digest, name in sums}


def bundle(name: str, stored: Stored) -> Path:
    """Put a network into the package, under a name, and return its file.

    Raises:
        CheckpointError: see :func:`save`.
    """
    path = FOLDER / f"{name}.npz"
    save(path, stored)
    sums = bundled() | {name: sha256(path)}
    lines = (f"{digest}  {name}.npz\n" for name, digest in sorted(sums.items()))
    archive.write_atomically(FOLDER / SUMS, "".join(lines).encode("ascii"))
    return path


def refuse_changed(path: Path) -> None:
    """A bundled file is the one that was put there.

    Raises:
        CheckpointError: if not.
    """
    if sha256(path) != bundled().get(path.stem):
        raise CheckpointError(f"{path} is not the file that came with stg-np: install stg-np again")


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with open_regular(path) as file:
        return hashlib.sha256(file.read()).hexdigest()
