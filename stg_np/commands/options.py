"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_np.commands import UsageError, checked_device
from stg_np.engine import ENGINES, Engine, engine_class
from stg_np.foreign import showable
from stg_np.runs import weights
from stg_np.streams import complain

if TYPE_CHECKING:
    from stg_np.runs.checkpoint import Stored


def add_checkpoint(parser: Any, *, optional: bool = False) -> None:
    """The checkpoint, by position; where it is ``optional``, ask :func:`network_and_pictures` for it."""
    about = "a best.npz or checkpoint.npz, the folder of a run, whose best state is used, or a bundled network by name"
    more = f" (left out: {weights.DEFAULT}, the bundled network for photographs)" if optional else ""
    parser.add_argument(
        "checkpoint", type=network, nargs="?" if optional else None, metavar="CHECKPOINT", help=about + more
    )


def network(text: str) -> Path:
    """A type for argparse: the path of a checkpoint, or the name of a bundled network (a path of that name: ./NAME)."""
    if text not in weights.bundled():
        return Path(text)
    if os.path.lexists(text):
        complain(f"{text} is the network that comes with stg-np: for what lies here write ./{text}")
    return weights.FOLDER / f"{text}.npz"


def network_and_pictures(given: Path | None, pictures: list[str]) -> tuple[Path, list[str]]:
    """The checkpoint and the pictures of a command whose checkpoint may be left out: then a picture comes first.

    Raises:
        UsageError: if no picture is named, or there is no bundled network that could be meant.
    """
    from stg_np.data.pictures import SUFFIXES
    from stg_np.runs.folder import RunFolder

    if given is not None and given.suffix.lower() not in SUFFIXES and str(given) != "-":
        return given, pictures
    pictures = pictures if given is None else [str(given), *pictures]
    names, run = weights.bundled(), RunFolder(Path(pictures[0]))
    if pictures[0] in names or run.path.suffix.lower() == ".npz" or run.last.exists() or run.best.exists():
        raise UsageError(f"{showable(pictures[0])} is a network: name a picture for it, too")
    if weights.DEFAULT not in names:
        known = f", or {' or '.join(names)}," if names else ""
        raise UsageError(f"no network for photographs comes with stg-np: name a checkpoint{known} before the picture")
    return weights.FOLDER / f"{weights.DEFAULT}.npz", pictures


def add_framing(parser: Any) -> None:
    """``--invert`` and ``--crop``."""
    from stg_np.data.pictures import CROPS

    parser.add_argument("--invert", action="store_true", help="make light dark and dark light first")
    parser.add_argument("--crop", choices=CROPS, help="how pictures are framed (default: as the training pictures are)")


def refuse_other_input(path: Path, stored: Stored) -> None:
    """Only a model of pictures can be shown some.

    Raises:
        UsageError: if it is none.
    """
    from stg_np.data.pictures import MODES

    shape = stored.about.model.input_shape
    if len(shape) != 3 or shape[2] not in MODES:
        raise UsageError(f"{path} is not a model of grey or coloured pictures")


def framing(stored: Stored, args: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_framing` as arguments of :func:`stg_np.data.pictures.see`.

    Where no crop is named, pictures are framed as those that the model learned from.
    """
    return {"invert": args.invert, "crop": args.crop or ("ink" if has_ink(stored) else "middle")}


def has_ink(stored: Stored) -> bool:
    """Whether the pictures that the model learned from are light ink on dark."""
    from stg_np.data import SOURCES

    known = SOURCES.get(stored.about.data.name)
    return known is not None and known.INFO.ink


def refuse_sheet(target: Path, option: str) -> None:
    """Before any work: a sheet of pictures is a new file, or replaces an older sheet, but nothing of anybody's.

    Raises:
        UsageError: if the file that ``option`` names cannot be one.
    """
    from stg_np.runs.sheet import is_sheet

    said = f"{option} {showable(target)}"
    if target.suffix.lower() != ".png":
        raise UsageError(f"{said} would be a PNG: give it a name that ends in .png")
    if not target.parent.is_dir():
        raise UsageError(f"{said}: there is no folder {showable(target.parent)}: make it, or name another place")
    if target.is_symlink() or (target.exists() and not is_sheet(target)):
        raise UsageError(f"{said} would replace a file that stg-np has not drawn: give it another name")


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
    about = "threads of a process; their number changes the time and not one bit of the result (default: one per core)"
    parser.add_argument("--workers", type=whole(1), metavar="N", help=about)


def add_engine(parser: Any) -> None:
    """``--engine`` and ``--workers``."""
    about = "who does the work: threads of one process (default), or all processes that mpiexec has started (extra mpi)"
    parser.add_argument("--engine", choices=ENGINES, default="threads", help=about)
    add_workers(parser)


def engine_for(name: str, device: str | None, workers: int | None) -> Engine:
    """The engine of that name for a device, not yet entered.

    Raises:
        UsageError: if they do not fit. DeviceError, EngineError: if one of them cannot be used.
    """
    refuse_misfit(name, device)
    return engine_class(name)(checked_device(device or "cpu", workers))


def refuse_misfit(engine: str, device: str | None) -> None:
    """What the processes of MPI exchange lies in the memory of the host.

    Raises:
        UsageError: if it does not.
    """
    if engine != "threads" and device not in (None, "cpu"):
        raise UsageError(
            f"--engine {engine} is for the CPU: an exchange between GPUs (NCCL) is not written: leave --engine out"
        )


def add_debug(parser: Any) -> None:
    """``--debug``."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def some_folder(text: str) -> Path:
    """A type for argparse: a path. An empty one, of a shell variable that is not set, would be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be the path of a folder, and is empty")
    return Path(text)


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
