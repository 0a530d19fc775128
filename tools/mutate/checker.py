"""What the gradient checker sees: the package's pairs, which lines each of them runs, and whether one is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from stg_np.checks import Pair, package_pairs
from stg_np.fast import conv as fast_conv
from stg_np.fast import walks as fast_walks
from stg_np.gradcheck import check_pair
from tools.mutate.lines import Lines, lines_run

MOST_PAIRS, FEWEST_PAIRS, ENOUGH = 18, 4, 0.01
"""How many pairs a mutant meets; fewer than the most if they take so many seconds together (a check, 20 times that)."""


class Known(NamedTuple):
    """A pair, the lines that it runs, and the seconds that it takes."""

    pair: Pair
    lines: Lines
    seconds: float


@contextmanager
def small_chunks() -> Iterator[None]:
    """Several chunks even in a short sequence and in a small batch."""
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        for module in (fast_walks, fast_conv):
            patch.setattr(module, "CHUNK_BYTES", 256)
        yield


def run(pair: Pair) -> None:
    """Forward and backward, once."""
    outputs, kept = pair.forward(**pair.inputs)
    pair.backward(outputs, kept)


def is_wrong(pair: Pair) -> bool:
    """Whether the checker complains; code that cannot even run is wrong too."""
    try:
        return not check_pair(pair.forward, pair.backward, pair.inputs, directions=2, jacobian=False, locate=False).ok
    except Exception:
        return True


def is_caught(pairs: Iterable[Pair]) -> bool:
    """Whether the checker fails for one of the pairs."""
    with small_chunks():
        return any(is_wrong(pair) for pair in pairs)


def pairs_for(known_pairs: list[Known], lines: Lines) -> list[Pair]:
    """The quickest pairs that run one of the lines."""
    found, seconds = list[Pair](), 0.0
    for known in known_pairs:
        if known.lines & lines and len(found) < MOST_PAIRS and (seconds < ENOUGH or len(found) < FEWEST_PAIRS):
            found.append(known.pair)
            seconds += known.seconds
    return found


def known_pairs(folder: Path) -> list[Known]:
    """Every pair of the package, the quickest first."""
    found = []
    with small_chunks():
        for pair in package_pairs(np.random.default_rng(0)):
            with lines_run(folder) as lines:
                run(pair)
            started = time.process_time()
            run(pair)
            found.append(Known(pair, lines, time.process_time() - started))
    return sorted(found, key=lambda known: known.seconds)
