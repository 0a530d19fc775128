"""A hint where a name is misspelt: what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 60
"""Characters that are compared: the time that it takes grows faster than their number."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``"did you mean digits? "`` for ``digitz``, or nothing where no name is close.

    What follows the last dot of a name counts as its name, too: ``epochs`` means ``training.epochs``.
    """
    known = {each.lower(): each for each in names}
    ends = {each.rpartition(".")[2]: known[each] for each in reversed(known)}  # of several the first
    close = get_close_matches(name[:LONGEST].lower(), ends | known, n=1)
    return f"did you mean {(ends | known)[close[0]]}? " if close else ""


def choose_from(name: str, names: Iterable[str]) -> str:
    """What helps after ``there is no 'digitz': ``, such as ``did you mean digits? use one of digits, cifar10``."""
    known = list(names)
    return f"{did_you_mean(name, known)}use one of {', '.join(known)}"
