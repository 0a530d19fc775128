"""The array module: the same mathematics on NumPy (CPU) or CuPy (CUDA).

Every function of the package asks its *arrays* which library they belong to (:func:`get_xp`); nothing is
global. CuPy is imported only by :func:`array_module`, when somebody asks for the device ``"cuda"``.

The mathematics keeps to the intersection of both libraries:

* Python floats as constants, so that the dtype of the input is the dtype of the output;
* arguments by position where the two libraries name them differently;
* no ``float(array)`` or ``if array`` inside a layer: on a GPU each one waits for the device.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""An array of either library. For the type checker it is NumPy's; CuPy's has the same methods."""

DEVICES = ("cpu", "cuda")


class DeviceError(RuntimeError):
    """The requested device cannot be used; the message says what is missing."""


def get_xp(*arrays: Any) -> Any:
    """Return the module (``numpy`` or ``cupy``) that all the arrays belong to; ``None`` is skipped.

    Raises:
        TypeError: if an argument is not an array, if the arrays mix libraries, or if there are none.
    """
    cupy = sys.modules.get("cupy")
    found: ModuleType | None = None
    for array in arrays:
        if array is None:
            continue
        if isinstance(array, (np.ndarray, np.generic)):
            module: ModuleType = np
        elif cupy is not None and isinstance(array, cupy.ndarray):
            module = cupy
        else:
            raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")
        if found is not None and module is not found:
            raise TypeError("arrays on the host (NumPy) and on the device (CuPy) are mixed; use to_device")
        found = module
    if found is None:
        raise TypeError("no array was given, so there is no array module to choose")
    return found


def check_dtypes(*arrays: Array | None) -> None:
    """One floating dtype in, the same out: nothing is widened or narrowed in silence.

    Raises:
        TypeError: if the dtypes differ, or are not floating; see :func:`refuse_masks`, too.
    """
    refuse_masks(*arrays)
    dtypes = {array.dtype for array in arrays if array is not None}
    if len(dtypes) > 1 or any(dtype.kind not in "fc" for dtype in dtypes):
        found = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(f"input, memory and parameters must be of one floating dtype, not {found}: convert with astype")


def refuse_masks(*arrays: Any) -> None:
    """Raise a TypeError for an array with a mask: some operations heed it, others drop it and count what it hides."""
    if any(isinstance(array, np.ma.MaskedArray) for array in arrays):
        raise TypeError(
            "an array has a mask, which would be dropped: fill what it hides, array.filled(…), or leave it out"
        )


def array_module(device: str) -> Any:
    """Return the array module for ``device``: ``numpy`` for ``"cpu"``, ``cupy`` for ``"cuda"``.

    Raises:
        DeviceError: if the device is unknown, CuPy is not installed or broken, or CuPy finds no usable GPU.
    """
    if device == "cpu":
        return np
    if device != "cuda":
        raise DeviceError(f"unknown device {device!r}: use one of {', '.join(DEVICES)}")
    try:
        import cupy
    except ModuleNotFoundError as error:
        raise DeviceError(
            "device 'cuda' needs CuPy, which is not installed: "
            "pip install 'stg-np[cuda13]' (or 'stg-np[cuda12]' for a CUDA 12 driver)"
        ) from error
    except ImportError as error:  # installed, but one of its libraries is missing or of another version
        reason = " ".join(str(error.__cause__ or error).split())
        raise DeviceError(f"device 'cuda' needs CuPy, which cannot be imported here: {reason}") from error
    if not cupy.is_available():
        raise DeviceError(
            "device 'cuda' needs an NVIDIA GPU with a working driver, and CuPy finds none: "
            "check `nvidia-smi`, or use --device cpu"
        )
    return cupy


def to_device(array: Array, device: str) -> Array:
    """Return ``array`` on ``device`` (same shape and dtype); no copy where it is there already.

    Raises:
        DeviceError: if the device cannot be used (see :func:`array_module`).
    """
    xp = array_module(device)
    if xp is np:
        return to_host(array)
    moved: Array = xp.asarray(array)
    return moved


def to_host(array: Any) -> Array:
    """Return ``array`` as a NumPy array (same shape and dtype); copies only from a device."""
    if get_xp(array) is np:
        return np.asarray(array)
    host: Array = array.get()
    return host


def synchronize(array: Array) -> None:
    """Wait until the device has finished the work queued before now; nothing to do for NumPy."""
    xp = get_xp(array)
    if xp is not np:
        xp.cuda.get_current_stream().synchronize()


def mark_queue() -> Any:
    """A mark after all that this thread has queued on the device, for :func:`wait_for_mark`; None without a device."""
    cupy = sys.modules.get("cupy")
    if cupy is None or not cupy.is_available():
        return None
    return cupy.cuda.get_current_stream().record()


def wait_for_mark(mark: Any) -> None:
    """Let what this thread queues next on the device begin after the mark. The device waits, not the host."""
    if mark is not None:
        sys.modules["cupy"].cuda.get_current_stream().wait_event(mark)


def devices() -> dict[str, str]:
    """Say of each device whether it can be used, and if not, why (imports CuPy if it is installed)."""
    report = {}
    for device in DEVICES:
        try:
            array_module(device)
            report[device] = "available"
        except DeviceError as error:
            report[device] = str(error)
    return report
