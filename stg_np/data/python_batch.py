"""CIFAR-10's *python* format, a pickle of 2009, read without executing it.

A pickle is a program: whoever wrote it chooses which functions of the reader's machine it calls. The batches
call three of them, to rebuild one array. Here those three names stand for :class:`_Record`, which keeps its
arguments and does nothing, and any other name is refused before anything is called. What remains is a
dictionary of lists, numbers and bytes. (NumPy is not involved, so neither is its warning about old pickles.)
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stg_np.data.base import DataError

PIXELS = 3 * 32 * 32


class _Record:
    """Stands for whatever the pickle builds: keeps what it was given, and calls nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """An unpickler to which three names of NumPy mean :class:`_Record`, and every other name is an error."""

    NAMES = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return :class:`_Record` for the names that an array needs; refuse the rest."""
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 file does")
        return _Record


def read_python_batch(content: bytes, where: str) -> NDArray[np.uint8]:
    """Return the batch as records ``(N, 3073)`` uint8, exactly the bytes of the binary format.

    Raises:
        DataError: if the pickle asks for anything but one array of bytes, or is cut off, or is no batch.
    """
    try:
        batch = _InertUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # pickle's documentation: a damaged pickle may raise any exception
        raise DataError(
            f"{where} is refused, and nothing of it was executed: {error or type(error).__name__}: "
            "get the official file again"
        ) from error
    try:
        labels = np.frombuffer(bytes(batch[b"labels"][:]), np.uint8)
        return np.column_stack([labels, _pixels(batch[b"data"])])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"{where} is no batch of CIFAR-10 (a dictionary with labels and an N x {PIXELS} array of bytes): "
            "get the official file again"
        ) from error


def _pixels(array: _Record) -> NDArray[np.uint8]:
    """Rebuild the array ``(N, 3072)`` from its recorded state (NumPy's ``ndarray.__setstate__``)."""
    _version, shape, dtype, fortran_order, raw = array.state
    if dtype.arguments[0] not in (b"u1", "u1"):
        raise ValueError("the array does not hold bytes")
    rows, columns = shape
    if columns != PIXELS:
        raise ValueError("a row is not a picture")
    return np.frombuffer(raw, np.uint8).reshape((rows, columns), order="F" if fortran_order else "C")
