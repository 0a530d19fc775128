"""The commands of ``stg-np``, one in a file, with its options and its function.

The module of a command has

* ``ABOUT``: a line for the list of commands; ``EPILOG``: what stands below its options in its help;
* ``add_options(parser)``: adds its options to the parser that it is given;
* ``run(args)``: does it, and returns the exit code.

A new command is one such file and one line in :data:`COMMANDS`. What only ``run`` needs and is slow to import
(matplotlib, pillow, tqdm, …) is imported inside functions, because help imports all these modules.
"""

from __future__ import annotations

from collections.abc import Sequence

from stg_np.backend import array_module
from stg_np.foreign import showable
from stg_np.streams import complain

COMMANDS = {
    "train": "stg_np.commands.train",
    "eval": "stg_np.commands.eval",
    "predict": "stg_np.commands.predict",
    "explain": "stg_np.commands.explain",
    "export": "stg_np.commands.export",
    "gradcheck": "stg_np.commands.gradcheck",
    "data": "stg_np.commands.data",
    "compare": "stg_np.commands.compare",
    "bench": "stg_np.commands.bench",
    "summary": "stg_np.commands.summary",
    "info": "stg_np.commands.info",
}
"""The module of each command, in the order in which help lists them."""

OK, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; a training or a check failed; an error of the user's; Ctrl-C."""


class UsageError(Exception):
    """Something that the user can mend; the message is one sentence: what, where, how to mend it."""


def complain_of_damaged(sentences: Sequence[str]) -> None:
    """The pictures of a data set that could not be read: the first ten, and how many more."""
    for sentence in sentences[:10]:
        complain(f"left out: {showable(sentence, 500)}")
    if len(sentences) > 10:
        complain(f"left out: {len(sentences) - 10:,} more pictures that cannot be read")


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
