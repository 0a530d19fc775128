"""The command line: ``stg-np`` and ``python -m stg_np``. Parsing, help that teaches, and one sentence per error.

What the commands do is in :mod:`stg_np.commands`. Everything beyond the standard library is imported by what needs it,
so that help is quick and Ctrl-C is caught from the first moment.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import stg_np

TRAIN_EPILOG = """\
presets:
{presets}

examples:
  stg-np train                                    the bundled digits: no download, well under a minute
  stg-np train --data fashion-mnist --workers 4   (stg-np data fetch fashion-mnist downloads it first)
  stg-np train --preset cifar10-rows --data-dir ~/cifar-10-batches-bin --epochs 5 --out runs/try
  stg-np train --resume --out runs/try            go on where Ctrl-C, or the power, stopped it

A tenth of the training pictures is held out, at random by the seed, for the accuracy of each epoch and for the choice
of best.npz. The test pictures are used once, at the end. With --final nothing is held out and the last state is tested.

The folder then holds config.toml (what was trained on what), metrics.jsonl (one line a record), checkpoint.npz (the
last state), best.npz, curves.png and confusion.png. A resumed run gives the numbers of an uninterrupted one, bit for
bit on one machine. Exit codes: 0 done, 1 training failed, 2 wrong use, 130 Ctrl-C (the state is saved).
"""

EVAL_EPILOG = """\
"Accuracy per class" has two readings, and both are printed: recall (of the pictures of class k, how many are called k;
its mean is the usual accuracy) and one-vs-rest accuracy (how many pictures are rightly called "k" or "not k": with ten
classes and 90 % accuracy its mean is 98 %).

examples:
  stg-np eval runs/digits/best.npz
  stg-np eval runs/cifar10-rows/best.npz --data-dir ~/cifar-10-batches-bin --json
"""

PREDICT_EPILOG = """\
The part from the middle of a picture that has the proportions of the training pictures is cut out, resized to their
size, and made grey or coloured like them. Transparent parts become white. PNG, JPEG, GIF, BMP, TIFF, WEBP and PPM are
read. Digits and Fashion-MNIST are light on dark: for dark ink on white paper add --invert.

examples:
  stg-np predict runs/digits/best.npz seven.png --invert
  stg-np predict runs/cifar10-rows/best.npz cat.jpg dog.jpg --top 5 --json
"""

DATA_EPILOG = """\
examples:
  stg-np data list
  stg-np data fetch cifar10                  into the folder that `stg-np info` names; STG_NP_DATA names another
  stg-np data verify cifar10 --data-dir DIR  exit code 1 where a byte is not the publisher's
"""

BENCH_EPILOG = """\
What is not installed among torch and jax is left out with a note. Let nothing else run meanwhile.

examples:
  stg-np bench --quick                                  tiny sizes: a try-out in a minute, no measurement
  stg-np bench --out benchmarks/results                 everything, about ten minutes
  stg-np bench --only layer --peers torch-lstm,jax-scan
"""


class Parser(argparse.ArgumentParser):
    """Complains in one line; keeps the line breaks of examples and shows defaults."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": Formatter, "allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"stg-np: {message}: see `{self.prog} --help`\n")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the texts above."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=118)


def make_parser() -> Parser:
    """All commands and their options."""
    from stg_np.presets import PRESETS

    parser = Parser(prog="stg-np", description=(stg_np.__doc__ or "").split("\n")[0], epilog="Begin with: stg-np train")
    parser.add_argument("--version", action="version", version=f"stg-np {stg_np.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    presets = "\n".join(
        f"  {name:16} {preset.about} ({preset.config.epochs} epochs)" for name, preset in PRESETS.items()
    )
    add_train(commands, TRAIN_EPILOG.format(presets=presets), list(PRESETS))
    add_eval(commands)
    add_predict(commands)
    add_gradcheck(commands)
    add_data(commands)
    add_bench(commands)
    add_summary(commands, list(PRESETS))
    add_command(commands, "info", "inspect:info", "versions, BLAS, threads and devices of this machine")
    return parser


def add_command(commands: Any, name: str, target: str, about: str, epilog: str = "") -> Parser:
    """A sub-command; ``target`` is module:function under :mod:`stg_np.commands`."""
    parser: Parser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", epilog=epilog
    )
    parser.set_defaults(target=target)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_train(commands: Any, epilog: str, presets: list[str]) -> None:
    """``stg-np train``."""
    parser = add_command(commands, "train", "train:train", "train a network; with no option: on the digits", epilog)
    what = parser.add_argument_group("what to train on what")
    what.add_argument("--data", metavar="NAME", help="digits, fashion-mnist or cifar10 (default: the preset's)")
    add_data_dir(what)
    what.add_argument("--preset", choices=presets, metavar="NAME", help="see below (default: that of the data)")
    split = "digits only: test on the last 360 pictures (default), or on 360 at random, which is easier"
    what.add_argument("--split", choices=("default", "random"), help=split)
    what.add_argument("--final", action="store_true", help="train on all training pictures and test the last state")
    how = parser.add_argument_group("how (default: as the preset says)")
    how.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the training pictures")
    how.add_argument("--batch-size", type=whole(1), metavar="N", help="pictures a step")
    how.add_argument("--learning-rate", type=positive, metavar="X", help="the highest of the schedule")
    how.add_argument(
        "--seed", type=whole(0), metavar="N", help="of parameters, order, augmentation, split (default: 0)"
    )
    where = parser.add_argument_group("where")
    where.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/PRESET)")
    exclusive = where.add_mutually_exclusive_group()
    exclusive.add_argument("--resume", action="store_true", help="go on with the run in that folder, as it was begun")
    exclusive.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    add_device(where)
    add_workers(where)


def add_eval(commands: Any) -> None:
    """``stg-np eval``."""
    parser = add_command(commands, "eval", "eval:eval_command", "test a checkpoint on the test pictures", EVAL_EPILOG)
    add_checkpoint(parser)
    parser.add_argument("--data", metavar="NAME", help="data with the same classes (default: what it was trained on)")
    add_data_dir(parser)
    add_json(parser)
    add_device(parser)
    add_workers(parser)


def add_predict(commands: Any) -> None:
    """``stg-np predict``."""
    about = "say what pictures of your own show"
    parser = add_command(commands, "predict", "predict:predict", about, PREDICT_EPILOG)
    add_checkpoint(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="picture files")
    parser.add_argument("--top", type=whole(1), default=3, metavar="K", help="classes to name (default: %(default)s)")
    parser.add_argument("--invert", action="store_true", help="make light dark and dark light first")
    add_json(parser)
    add_device(parser)


def add_gradcheck(commands: Any) -> None:
    """``stg-np gradcheck``."""
    about = "hold every forward/backward pair and the whole model against finite differences; exit 1 if one fails"
    parser = add_command(commands, "gradcheck", "inspect:gradcheck", about)
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of the inputs (default: %(default)s)")
    add_json(parser)
    add_device(parser)


def add_data(commands: Any) -> None:
    """``stg-np data list | fetch | verify``."""
    about = "where data sets lie; download and check them"
    parser = commands.add_parser("data", help=about, description=f"W{about[1:]}.", epilog=DATA_EPILOG)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add_command(actions, "list", "inspect:data_list", "where each data set lies, or how to get it")
    fetch = add_command(actions, "fetch", "inspect:data_fetch", "download the publisher's files, with checksum")
    fetch.add_argument("name", metavar="NAME", help="fashion-mnist or cifar10")
    verify = add_command(
        actions, "verify", "inspect:data_verify", "check every byte; exit 1 if one is not the publisher's"
    )
    verify.add_argument("name", metavar="NAME", help="digits, fashion-mnist or cifar10")
    add_data_dir(verify)


def add_summary(commands: Any, presets: list[str]) -> None:
    """``stg-np summary``."""
    about = "layers with shapes, parameters, multiply-adds and time scales"
    parser = add_command(commands, "summary", "inspect:summary", about)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("checkpoint", nargs="?", type=Path, metavar="CHECKPOINT", help="a trained model")
    names = f"an untrained model: {', '.join(presets)} (default: digits)"
    which.add_argument("--preset", choices=presets, metavar="NAME", help=names)


def add_bench(commands: Any) -> None:
    """``stg-np bench``."""
    about = "speed beside peers that are installed, the distance to the machine's limit, and how cost grows"
    parser = add_command(commands, "bench", "bench:bench", about, BENCH_EPILOG)
    sections = ("layer", "step", "workers", "growth")
    parser.add_argument("--only", nargs="+", choices=sections, metavar="PART", help=", ".join(sections))
    parser.add_argument("--peers", metavar="NAMES", help="with commas between, or none (default: all installed)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, and nothing that compiles for minutes")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write tables, JSON and pictures there")
    add_json(parser)
    add_device(parser)
    about = "threads on every side (default: one per core)"
    parser.add_argument("--workers", type=whole(1), metavar="N", help=about)


def add_checkpoint(parser: Any) -> None:
    """The checkpoint, by position."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a best.npz or checkpoint.npz")


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


def whole(least: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from ``least`` to 2³¹ − 1."""

    def parse(text: str) -> int:
        if not text.strip().lstrip("-").isdecimal() or not least <= int(text[:20]) < 2**31:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)

    return parse


def positive(text: str) -> float:
    """A type for argparse: finite numbers above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; SystemExit is left to argparse (help, wrong use).

    ``argv``: the arguments; None: those of this process, which then belongs to the command.
    """
    try:
        return run(sys.argv[1:] if argv is None else argv)
    finally:
        if argv is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: a late Ctrl-C has nothing to stop


def run(argv: Sequence[str]) -> int:
    """The exit code of a command, whatever happens in it."""
    try:
        args = make_parser().parse_args(argv)
        module, function = args.target.split(":")
        code: int = getattr(importlib.import_module(f"stg_np.commands.{module}"), function)(args)
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be reported
        return code
    except BrokenPipeError:  # `stg-np … | head` has seen enough
        flush_or_abandon_stdout()
        return 128 + 13
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in argv:
            raise
        flush_or_abandon_stdout()
        sentence, code = explained(error)
        print(f"stg-np: {sentence}", file=sys.stderr, flush=True)
        return code


def explained(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code of an error."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, ImportError):
        return f"a package is missing ({error}): install stg-np with its dependencies", 2
    if isinstance(error, MemoryError):
        return "there is not enough memory: try a smaller --batch-size, or fewer --workers", 2
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"the operating system refuses{where}: {error.strerror or error}", 2
    from stg_np.backend import DeviceError
    from stg_np.commands import UsageError
    from stg_np.data import DataError
    from stg_np.runs.checkpoint import CheckpointError
    from stg_np.train import TrainingError

    if isinstance(error, TrainingError):
        return str(error), 1
    if isinstance(error, (UsageError, DataError, DeviceError, CheckpointError)):
        return str(error), 2
    return f"an error inside the program ({type(error).__name__}: {error}): run it again with --debug and report it", 1


def flush_or_abandon_stdout() -> None:
    """Let what stdout does not take go nowhere: it would be tried, and fail, again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
