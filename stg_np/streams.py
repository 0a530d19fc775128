"""stdout and stderr as they are met: closed, full, gone, or in an encoding that lacks our letters.

What a program says about its work must not undo the work: after a training of hours, a line may be lost, but not the
result.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


class Nowhere(io.TextIOBase):
    """What stands for a stream that was closed before the program began: whatever is written has no reader."""

    encoding = "utf-8"

    def write(self, text: str, /) -> int:
        """Let it go."""
        return len(text)


def prepare() -> None:
    """Make both streams of this process such that a letter, or their absence, is no error.

    A closed stream (``>&-``, a service, ``pythonw``) goes nowhere. Its number must be taken, too: the next file that is
    opened would get it, and what a library writes to "stderr" would stand in a checkpoint.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = Nowhere()
    if sys.stderr is None:
        sys.stderr = Nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> bool:
    """Print on stdout; whether it arrived. What a full disk, a closed pipe or nobody takes costs these lines alone."""
    try:
        print(printable(text, sys.stdout), flush=True)
    except (OSError, ValueError):
        abandon(sys.stdout)
        return False
    return not isinstance(sys.stdout, Nowhere)


def complain(sentence: str) -> None:
    """One sentence on stderr, if that takes it."""
    note(f"stg-np: {sentence}")


def note(text: str) -> None:
    """A line on stderr, if that takes it."""
    if sys.stderr is None:  # print would take stdout instead
        return
    try:
        print(printable(text, sys.stderr), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        abandon(sys.stderr)


def printable(text: str, stream: TextIO) -> str:
    """The text, with escapes for letters that the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):  # it has been closed
        return False


def abandon(stream: TextIO) -> None:
    """Let what a stream did not take, and whatever follows, go nowhere: it would be tried, and fail, again at exit."""
    with contextlib.suppress(OSError, ValueError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
