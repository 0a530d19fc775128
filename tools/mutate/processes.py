"""A process of its own for each mutant: silent, limited in memory and time, and gone afterwards with all its children.

POSIX only: the child is a fork, so that it starts with everything imported.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

MEMORY = 4 << 30
"""Bytes that a mutant may allocate."""


def in_a_fork(work: Callable[[], int], timeout: float) -> int:
    """Start ``work`` in a child, which exits with its result; returns the child's id.

    The child leads a group of processes. It is killed after ``timeout`` seconds; :func:`set_timeout` begins anew.
    """
    if child := os.fork():
        return child
    status = 255
    try:
        import resource

        os.setpgid(0, 0)
        for limit in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(limit, signal.SIG_DFL)
        set_timeout(timeout)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        status = work()
    finally:
        os._exit(status)


def set_timeout(seconds: float) -> None:
    """Kill this process unless it ends, or asks again, within so many seconds of work; of sleep, ten times that."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)


def end(child: int) -> None:
    """Kill what a child has started and left behind, and the child if it still runs."""
    with suppress(ProcessLookupError, PermissionError):  # nothing is left
        os.killpg(child, signal.SIGKILL)


def each_in_a_fork(works: Iterable[Callable[[], int]], jobs: int, timeout: float) -> Iterator[tuple[int, int]]:
    """Run each in a child, ``jobs`` at a time; as they end, the number of each and its exit code (−9: by signal 9)."""
    waiting, running = enumerate(works), dict[int, int]()
    try:
        while True:
            while len(running) < jobs and (following := next(waiting, None)):
                number, work = following
                running[in_a_fork(work, timeout)] = number
            if not running:
                return
            child, status = os.wait()
            end(child)
            if child in running:
                yield running.pop(child), os.waitstatus_to_exitcode(status)
    finally:
        for child in running:
            end(child)
            os.waitpid(child, 0)
