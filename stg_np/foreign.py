"""What others made, read with care: regular files alone, limits known beforehand, text that a terminal may show.

A file that was sent by somebody may be a pipe that never ends, ten kilobytes that unfold to a terabyte, a million
tables in one another, or a class name that clears the screen. Everything here ends in :class:`OSError` or
:class:`ValueError`, which the readers of this package turn into their own one sentence.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DEEPEST = 16
"""Tables and lists inside one another: more than any description or record has."""

MOST_OBJECTS = 100_000
"""In one text; each may be one character there, and costs some hundred bytes of memory once it is parsed."""

MOST_DOTS = 100
"""In a line of TOML; the time that a dotted key takes grows with the square of its parts."""

LARGEST_NUMBER = 2**63

LARGEST_LIST = 1 << 20
"""Bytes of the list of members of a zip archive, of about a hundred each: every one becomes an object."""

LONGEST_NAME = 4_096
"""Characters of the name of a class or a data set: a path may have so many."""

UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks, what turns the direction of writing, and halves of characters."""


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading, unless it is a pipe, a device or a folder, which may never end or never begin.

    Raises:
        OSError: if it is no regular file, or cannot be opened.
    """
    refuse_others(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        refuse_others(os.fstat(descriptor), path)  # it may have been exchanged in between
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def refuse_others(status: os.stat_result, path: Path) -> None:
    """Raise OSError for what is no regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_limited(path: Path, largest: int) -> bytes:
    """The content of a regular file of at most ``largest`` bytes.

    Raises:
        OSError: if it cannot be read, is no regular file, or is larger.
    """
    with open_regular(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"it has more than {largest:,} bytes", str(path))
    return content


class Cautious(io.BufferedReader):
    """A regular file that gives no more than ``most`` bytes at a time: ``zipfile`` asks for all of its list at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_regular(path).detach())  # type: ignore[attr-defined]
        self.most: int | None = LARGEST_LIST

    def read(self, size: int | None = -1) -> bytes:
        """As the file's, within the limit."""
        if self.most is None:
            return super().read(size)
        content = super().read(self.most + 1 if size is None or not 0 <= size <= self.most else size)
        if len(content) > self.most:
            raise ValueError("its list of members is longer than that of any such archive")
        return content


@contextmanager
def open_zip(path: Path, methods: tuple[int, ...]) -> Iterator[zipfile.ZipFile]:
    """A zip archive for reading, whose list of members is no longer than :data:`LARGEST_LIST`.

    ``methods``: by which its members may be compressed: of others (bzip2, LZMA) a few kilobytes unfold to gigabytes
    at a single read.

    Raises:
        OSError: see :func:`open_regular`. ValueError, and nearly anything else: if it is no such archive.
    """
    with Cautious(path) as file, zipfile.ZipFile(file) as archive:
        file.most = None
        if any(member.compress_type not in methods for member in archive.infolist()):
            raise ValueError("its members are compressed in a way that is not expected")
        yield archive


def showable(text: object, longest: int = 200) -> str:
    """Text of others for a sentence of ours: at most ``longest`` characters, on one line, nothing that controls."""
    found = str(text)
    shown = found if len(found) <= longest else found[: longest - 1] + "…"
    return UNSHOWABLE.sub(lambda match: ascii(match[0])[1:-1], shown)


def refuse_unshowable(text: str) -> None:
    """A name that will be printed later, again and again: better refused where it comes in.

    Raises:
        ValueError: if it holds what controls a terminal, or is longer than :data:`LONGEST_NAME`.
    """
    if UNSHOWABLE.search(text):
        raise ValueError(f"'{showable(text, 60)}' holds control characters, which no terminal should be sent")
    if len(text) > LONGEST_NAME:
        raise ValueError(f"'{showable(text, 60)}' has more than {LONGEST_NAME:,} characters")


def parse_json(text: bytes | str) -> Any:
    """A JSON value of at most :data:`MOST_OBJECTS` objects, :data:`DEEPEST` levels and numbers of 64 bits.

    Raises:
        ValueError: if it is larger, or no JSON.
    """
    text = decoded(text) if isinstance(text, bytes) else text
    if sum(map(text.count, "[{,:")) > MOST_OBJECTS:
        raise ValueError(f"it holds more than {MOST_OBJECTS:,} values")
    try:
        value = json.loads(text, parse_int=whole_number)
    except RecursionError:
        raise ValueError("it holds too many tables inside tables") from None
    check_leaves(value)
    return value


def parse_toml(content: bytes) -> dict[str, Any]:
    """A TOML document with the limits of :func:`parse_json`.

    Raises:
        ValueError: if it is larger, or no TOML.
    """
    text = decoded(content).removeprefix("\ufeff")  # with which some editors begin a text
    if any(line.count(".") > MOST_DOTS for line in text.split("\n")):
        raise ValueError(f"a line holds more than {MOST_DOTS} dots")
    if sum(map(text.count, "[{,=.")) > MOST_OBJECTS:
        raise ValueError(f"it holds more than {MOST_OBJECTS:,} values")
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it holds too many tables inside tables") from None
    except ValueError as error:
        if isinstance(error, tomllib.TOMLDecodeError):
            raise
        raise ValueError("it holds a number or a date that is none") from None  # thousands of digits
    check_leaves(value)
    return value


def decoded(content: bytes) -> str:
    """Bytes as text.

    Raises:
        ValueError: if they are no UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 (byte {error.start:,}): save it as such") from None


def whole_number(digits: str) -> int:
    """An integer of JSON, before it is converted: that takes time, and so does printing it again."""
    if len(digits) > 20:
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    return int(digits)


def check_leaves(value: Any) -> None:
    """Raise ValueError if a parsed value is deeper than :data:`DEEPEST`, or holds an integer beyond 64 bits."""
    level = [value]
    for _ in range(DEEPEST + 1):
        if any(isinstance(item, int) and not -LARGEST_NUMBER <= item < LARGEST_NUMBER for item in level):
            raise ValueError("it holds a number of more than 64 bits")
        tables = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for table in tables for item in table]
        if not level:
            return
    raise ValueError("it holds too many tables inside tables")
