"""The command line: ``stg-np`` and ``python -m stg_np``: the parser, and one sentence per error.

What a command is and does stands in its own file under :mod:`stg_np.commands`. Everything beyond the standard library
is imported by what needs it, so that help is quick and Ctrl-C is caught from the first moment.
"""

from __future__ import annotations

import argparse
import importlib
import re
import signal
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn

import stg_np
from stg_np import streams
from stg_np.foreign import showable
from stg_np.spelling import choose_from, did_you_mean


class Parser(argparse.ArgumentParser):
    """Complains in one line, with a hint where a name is misspelt."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": Formatter, "allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        said = showable(message, 2000)
        self.exit(2, f"stg-np: {said}{'' if said.endswith('?') else ':'} see `{self.prog} --help`\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """What argparse asks for every value: whether it is one of those that can be chosen."""
        if action.choices is None or value in action.choices:
            return
        names = list(map(str, action.choices))
        raise argparse.ArgumentError(action, f"there is no {str(value)!r:.60}: {choose_from(str(value), names)}")


class CommandParser(Parser):
    """The options of a command; whatever follows it is for it."""

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """The same, but what is left over is an error here, where the options are known."""
        namespace, left = super().parse_known_args(*args, **options)
        if left:
            hint = did_you_mean(left[0].partition("=")[0], self._option_string_actions)
            self.error(f"{left[0]!r:.60} is not understood: {hint or 'leave it out'}".rstrip())
        return namespace, left


class Formatter(argparse.HelpFormatter):
    """As wide as the terminal. Paragraphs are filled; lines that are indented, like examples, stay lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """What argparse asks for the texts above and below the options."""
        lines: list[str] = []
        for line in text.rstrip().split("\n"):
            goes_on = lines and lines[-1] and not lines[-1].endswith(":") and not lines[-1].startswith(" ")
            if goes_on and line and not line.startswith(" "):
                lines[-1] += f" {line}"
            else:
                lines.append(line)
        return "\n".join(wrapped(line, width) for line in lines)


def wrapped(line: str, width: int) -> str:
    """A line of two columns (an example, and what it does) goes on below the second one, if there is room."""
    columns = re.match(r" +(\S+ )+ +(?=\S)", line)
    indent = 0 if not line.startswith(" ") else len(columns[0]) if columns and len(columns[0]) <= width * 2 // 3 else 6
    options: Any = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": indent * " "}
    return textwrap.fill(line, width, **options)


def make_parser() -> Parser:
    """All commands and their options."""
    from stg_np.commands import COMMANDS
    from stg_np.commands.options import add_debug

    parser = Parser(prog="stg-np", description=(stg_np.__doc__ or "").split("\n")[0], epilog="Begin with: stg-np train")
    parser.add_argument("--version", action="version", version=f"stg-np {stg_np.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=CommandParser)
    for name, module in COMMANDS.items():
        command = importlib.import_module(module)
        about: str = command.ABOUT
        of_it = commands.add_parser(
            name, help=about, description=about[0].upper() + about[1:] + ".", epilog=command.EPILOG
        )
        of_it.set_defaults(run=command.run)
        add_debug(of_it)
        command.add_options(of_it)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; SystemExit is left to argparse (help, wrong use).

    ``argv``: the arguments; None: those of this process, which then belongs to the command.
    """
    try:
        if argv is not None:
            return run(argv)
        streams.prepare()
        return run_with_others(sys.argv[1:])
    finally:
        if argv is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: a late Ctrl-C has nothing to stop


def run_with_others(argv: Sequence[str]) -> int:
    """The exit code of a command, which other processes may run together with this one."""
    if "--engine=mpi" not in argv and ("--engine", "mpi") not in pairwise(argv):
        return run(argv)
    from stg_np.mpi import on_every_rank

    return on_every_rank(partial(run, argv))


def run(argv: Sequence[str]) -> int:
    """The exit code of a command, whatever happens in it."""
    try:
        args = make_parser().parse_args(argv)
        code: int = args.run(args)
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
        streams.complain(showable(sentence, 2000))
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
    from stg_np.divergence import TrainingError
    from stg_np.engine import EngineError
    from stg_np.runs.archive import CheckpointError
    from stg_np.runs.chosen import RunError
    from stg_np.runs.scores import MisfitError

    if isinstance(error, TrainingError):
        return str(error), 1
    if isinstance(error, (UsageError, DataError, DeviceError, EngineError, CheckpointError, RunError, MisfitError)):
        return str(error), 2
    return f"an error inside the program ({type(error).__name__}: {error}): run it again with --debug and report it", 1


def flush_or_abandon_stdout() -> None:
    """Before an error is told: what stdout does not take now, it shall not refuse again at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        streams.abandon(sys.stdout)
