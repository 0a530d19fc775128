"""The sub-commands of ``stg-np``: each is a function that takes the parsed arguments and returns the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TypeAlias

from stg_np.backend import array_module

Command: TypeAlias = Callable[[argparse.Namespace], int]

OK, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; a training or a check failed; an error of the user's; Ctrl-C."""


class UsageError(Exception):
    """Something that the user can mend; the message is one sentence: what, where, how to mend it."""


def complain(sentence: str) -> None:
    """One sentence on stderr."""
    print(f"stg-np: {sentence}", file=sys.stderr, flush=True)


def checked_device(device: str, workers: int | None) -> int | None:
    """The number of workers for ``device`` (None: one per core), after making sure that the device can be used.

    Raises:
        DeviceError: if it cannot be used.
        UsageError: if more than one worker is asked for on a GPU, which is busy with one.
    """
    array_module(device)
    if device == "cpu":
        return workers
    if workers not in (None, 1):
        raise UsageError(f"--workers {workers} is for the CPU: on a GPU one worker keeps the device busy, leave it out")
    return 1
