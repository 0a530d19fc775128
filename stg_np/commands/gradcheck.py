"""``stg-np gradcheck``: forward/backward pairs against finite differences, the package's or those of a file."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stg_np.commands import FAILED, OK, UsageError, checked_device
from stg_np.commands.options import add_device, add_json, whole
from stg_np.foreign import read_limited, showable
from stg_np.strict_json import to_json

if TYPE_CHECKING:
    from stg_np.gradcheck import Report

ABOUT = "hold forward/backward pairs against finite differences: the package's, or those of your own file"
EPILOG = """FILE.py is run as Python runs it, so check only what you would run. A pair in it is three names:

  import numpy as np

  def swish_forward(x):                      # outputs, cache
      s = 1 / (1 + np.exp(-x))
      return x * s, (x, s)

  def swish_backward(dy, cache):             # a gradient for each input, in order
      x, s = cache
      return dy * (s + x * s * (1 - s))

  swish_inputs = {"x": np.linspace(-2, 2, 12).reshape(3, 4)}

An object with forward(x) and backward(dy), which keeps its cache, parameters and their gradients in itself, is:

  dense_layer = Dense(3, 2)
  dense_inputs = {"x": np.linspace(-2, 2, 12).reshape(4, 3)}
  dense_options = {"params": {"W": "dW", "b": "db"}}

NAME_inputs may also be a function that returns the dictionary. NAME_options (which may be left out) are keyword
arguments of check_pair or check_layer in stg_np.gradcheck: {"float32": False}, {"eps": 1e-5}. Names that begin with _
are left alone.

exit codes: 0 all right, 1 a pair failed, 2 wrong use of the command or a file that cannot be checked

examples:
  stg-np gradcheck
  stg-np gradcheck mine.py --json"""

MODULE = "stg_np_checked_file"
LARGEST = 1 << 20  # bytes of a file of code
PARTS = ("forward", "backward", "layer", "inputs", "options")


def add_options(parser: Any) -> None:
    """The file, the seed, and how to print."""
    about = "a Python file with pairs of your own, which is run (default: every pair of the package)"
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.py", help=about)
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of the inputs (default: %(default)s)")
    add_json(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Check everything, and print a table (or JSON)."""
    from stg_np.gradcheck import format_table

    device = args.device or "cpu"
    checked_device(device, None)
    if args.file is None:
        from stg_np.checks import run_checks

        reports = run_checks(device=device, seed=args.seed)
    else:
        with contextlib.redirect_stdout(sys.stderr):  # what the file prints is not the table, nor JSON
            reports = check_file(args.file, device, args.seed)
    print(to_json([report.to_dict() for report in reports], indent=2) if args.json else format_table(reports))
    return OK if all(report.ok for report in reports) else FAILED


def check_file(path: Path, device: str, seed: int) -> list[Report]:
    """Run a file, and check every pair in it.

    Raises:
        UsageError: if it cannot be run, or has no pair, or only a part of one.
        OSError: if it cannot be read.
    """
    with imported(path) as module:
        pairs = pairs_in(path, module)
        return [report_of(path, pair, parts, device, seed) for pair, parts in pairs.items()]


@contextlib.contextmanager
def imported(path: Path) -> Iterator[ModuleType]:
    """The module that a file makes; the files beside it can be imported, as where Python runs it."""
    content = read_limited(path, LARGEST)
    try:
        code = compile(content, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"{path}, line {error.lineno}" if error.lineno else path
        raise UsageError(f"{where}: {error.msg}: it is no Python") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} cannot be read as Python: {error}") from None
    spec = importlib.util.spec_from_loader(MODULE, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[MODULE] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        guarded(path, lambda: exec(code, vars(module)))
        yield module
    finally:
        with contextlib.suppress(ValueError):  # the file may have changed it
            sys.path.remove(str(path.parent.resolve()))
        sys.modules.pop(MODULE, None)


def guarded(path: Path, function: Callable[[], Any]) -> Any:
    """What a function of the user's returns.

    Raises:
        UsageError: for whatever it raises, with the line of the file where it did.
    """
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path} cannot be checked: {told(path, error)}") from error


def told(path: Path, error: BaseException) -> str:
    """An exception of the user's code: its kind, what it says, and the last line of the file that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f" (line {frames[-1].lineno}: {frames[-1].line or '…'})" if frames else ""
    said = f": {error}" if str(error) else ""
    return showable(f"{type(error).__name__}{said}{where}", 500)


def pairs_in(path: Path, module: ModuleType) -> dict[str, dict[str, Any]]:
    """The parts of every pair by its name, in the order of the file; what was imported into it needs no inputs.

    Raises:
        UsageError: if there is no pair, or a part is missing, or is of the wrong kind.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in vars(module).items():
        pair, underscore, part = name.rpartition("_")
        if underscore and pair and part in PARTS and not name.startswith("_"):
            found.setdefault(pair, {})[part] = value
    own = {pair: parts for pair, parts in found.items() if halves_of(parts) and ("inputs" in parts or is_own(parts))}
    if not own:
        raise UsageError(
            f"{path} has no pair: define NAME_forward, NAME_backward and NAME_inputs (see `stg-np gradcheck --help`)"
        )
    for pair, parts in own.items():
        require_parts(path, pair, parts)
        parts["inputs"] = mapping_of(path, f"{pair}_inputs", parts["inputs"])
        parts["options"] = mapping_of(path, f"{pair}_options", parts.get("options", {}))
    return own


def halves_of(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What has code of its own."""
    return {part: value for part, value in parts.items() if part in ("forward", "backward", "layer")}


def require_parts(path: Path, pair: str, parts: Mapping[str, Any]) -> None:
    """Raise UsageError unless a pair is whole, and its functions and its layer are that."""
    for part in ("layer", "inputs") if "layer" in parts else ("forward", "backward", "inputs"):
        if part not in parts:
            there = ", ".join(f"{pair}_{name}" for name in parts)
            raise UsageError(f"{path} lacks {pair}_{part}, which belongs to {there}")
    for part, value in halves_of(parts).items():
        if part != "layer" and not callable(value):
            raise UsageError(f"{path}: {pair}_{part} must be a function, not {type(value).__name__}")
        if part == "layer" and isinstance(value, type):
            raise UsageError(f"{path}: {pair}_layer must be an object, {value.__name__}(…), not the class")


def is_own(parts: Mapping[str, Any]) -> bool:
    """Whether a pair is defined in the file: a function or a layer is, whose code stands there."""
    return any(getattr(half, "__module__", MODULE) == MODULE for half in halves_of(parts).values())


def mapping_of(path: Path, name: str, value: Any) -> dict[str, Any]:
    """A dictionary by names, or what a function returns."""
    made = guarded(path, value) if callable(value) else value
    if not isinstance(made, Mapping) or not all(isinstance(key, str) for key in made):
        raise UsageError(f'{path}: {name} must be a dictionary by names, {{"x": …}}, or a function that returns one')
    return dict(made)


def report_of(path: Path, pair: str, parts: Mapping[str, Any], device: str, seed: int) -> Report:
    """Check one pair; an exception of its code is its failure, not that of the others.

    Raises:
        UsageError: if its inputs or options are none.
    """
    from stg_np.checks import on_device
    from stg_np.gradcheck import Report, check_layer, check_pair

    options = {"name": pair, "seed": seed, **parts["options"]}
    try:
        inputs = parts["inputs"] if device == "cpu" else on_device(parts["inputs"], device)
        if "layer" in parts:
            return check_layer(parts["layer"], inputs, **options)
        return check_pair(parts["forward"], parts["backward"], inputs, **options)
    except (Exception, SystemExit) as error:
        if isinstance(error, (TypeError, ValueError)) and is_of_the_package(error):
            raise UsageError(f"{path}: {pair} cannot be checked: {error}") from error
        nothing = float("nan")
        return Report(pair, "error", nothing, nothing, nothing, failures=(told(path, error),))


def is_of_the_package(error: BaseException) -> bool:
    """Whether an exception was raised by the checker, not by what it checks."""
    package = Path(__file__).parents[1]
    return all(package in Path(frame.filename).parents for frame in traceback.extract_tb(error.__traceback__))
