"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_checkpoint(parser: Any) -> None:
    """The checkpoint, by position."""
    about = "a best.npz or checkpoint.npz, or the folder of a run, whose best state is used"
    parser.add_argument("checkpoint", type=checkpoint_path, metavar="CHECKPOINT", help=about)


def checkpoint_path(text: str) -> Path:
    """A type for argparse: the file itself, or the state to use of the run in a folder."""
    path = Path(text)
    if not path.is_dir():
        return path
    from stg_np.runs.folder import RunFolder

    return RunFolder(path).chosen


def add_data_dir(parser: Any) -> None:
    """``--data-dir``."""
    about = "folder or archive with the data (default: where `stg-np data list` says)"
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help=about)


def add_json(parser: Any) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_device(parser: Any) -> None:
    """``--device``: None, where it is not given, means the CPU, or that of the run being resumed."""
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda needs CuPy and an NVIDIA GPU (default: cpu)")


def add_workers(parser: Any) -> None:
    """``--workers``."""
    about = "threads; their number changes the time and not one bit of the result (default: one per core)"
    parser.add_argument("--workers", type=whole(1), metavar="N", help=about)


def add_debug(parser: Any) -> None:
    """``--debug``."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def whole(least: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from ``least`` to 2³¹ − 1."""

    def parse(text: str) -> int:
        if not text.strip().lstrip("-").isdecimal() or not least <= int(text[:20]) < 2**31:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)

    return parse


def height_and_width(text: str) -> tuple[int, int]:
    """A type for argparse: ``32`` (both) or ``24x32`` (height, then width)."""
    try:
        numbers = [whole(1)(part) for part in text.lower().replace("×", "x").split("x")]
    except argparse.ArgumentTypeError:
        numbers = []
    if len(numbers) not in (1, 2) or max(numbers) > 4096:
        raise argparse.ArgumentTypeError(
            f"must be a number of pixels like 32, or height and width like 24x32, not {text!r}"
        )
    return numbers[0], numbers[-1]


def positive(text: str) -> float:
    """A type for argparse: finite numbers above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number
