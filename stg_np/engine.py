"""Who does the work of a batch: an :class:`Engine`, and threads as its first implementation.

A batch is cut into fixed *groups*; an engine shares them out and adds the results in the order of the groups. So an
engine, and the number of its workers, changes the time and not one bit of the result.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import reduce
from operator import add
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from stg_np.backend import Array, mark_queue, wait_for_mark
from stg_np.inputs import check_whole
from stg_np.params import Params
from stg_np.workspace import Workspace

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class EngineError(Exception):
    """An engine cannot be had; the message is one sentence: what is wrong, and how to mend it."""


class Engine(Protocol):
    """A context that calls a function for each of several items, on workers of some kind.

    The workers may be spread over processes, which all go through the same calls with the same arguments.
    """

    def __init__(self, count: int | None = None, *, fast: bool = True) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    @property
    def count(self) -> int:
        """How many workers this process has; ``str`` of an engine tells of all."""

    @property
    def workspace(self) -> Workspace | None:
        """The memory of the calling worker, for a function inside :meth:`map`; None for the plain path.

        The next item reuses this memory: return copies.
        """

    @property
    def is_root(self) -> bool:
        """Whether this process writes files and messages; one process of a run does."""

    @staticmethod
    def from_root(function: Callable[[], ResultT], /) -> ResultT:
        """What the function returns, or raises, in that process; in the others it is not called.

        Its arrays may be read-only. For what is read from files, which only that process may have.
        """

    def together(self, asked: Callable[[], int], /) -> Callable[[], int]:
        """A question with one answer in all processes: the first that is not 0, as of the last map or sum."""

    def is_alike(self, array: Array, /) -> bool:
        """Whether the array is the same in all processes."""

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], /) -> list[ResultT]:
        """``[function(item) for item in items]``; an exception of any of them is raised here."""

    def sum(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], /) -> ResultT:
        """The results of :meth:`map` added up in the order of the items; see :func:`added`."""


SWITCH_INTERVAL = 1e-4
"""Seconds after which a thread that waits for the interpreter lock insists on it.

The layers make many calls of a few microseconds, each of which lets go of the lock, but for less time than the other
thread needs to wake up and take it. At Python's own 5 milliseconds it would sleep through whole layers.
"""


class Quiet:
    """BLAS on one thread and a short switch interval, in the whole process, as long as anybody is inside.

    Those inside are counted: the first one in changes the settings and the last one out restores them, in whatever
    order they leave.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._inside = 0
        self._settings: tuple[Any, float]

    def enter(self) -> None:
        """One more is inside."""
        from threadpoolctl import threadpool_limits

        with self.lock:
            if self._inside == 0:
                interval = sys.getswitchinterval()
                self._settings = threadpool_limits(1, user_api="blas"), interval
                sys.setswitchinterval(min(interval, SWITCH_INTERVAL))
            self._inside += 1

    def leave(self) -> None:
        """One less is."""
        with self.lock:
            self._inside -= 1
            if self._inside == 0:
                limits, interval = self._settings
                sys.setswitchinterval(interval)
                limits.restore_original_limits()


QUIET = Quiet()
# A lock that another thread held would stay locked in a forked process. (Windows has no fork.)
getattr(os, "register_at_fork", lambda **_: None)(after_in_child=lambda: setattr(QUIET, "lock", threading.Lock()))


class Threads:
    """A context in which ``map`` runs on ``count`` threads, the calling one included, and BLAS on one thread in each.

    NumPy lets go of the interpreter lock inside matrix products and elementwise loops, so threads that each hold a
    few pictures scale over the cores, provided that BLAS does not start threads of its own on top.

    A function inside :meth:`map` may call :meth:`map` again; a process that is forked inside the context may, too.

    Args:
        count: threads; None means one per core of this process.
        fast: whether the fast path is taken, in a workspace for each thread; if not, the plain one.

    Raises:
        ValueError: if ``count`` is below 1. TypeError: if it is no whole number.
    """

    is_root: bool = True

    def __init__(self, count: int | None = None, *, fast: bool = True) -> None:
        if count is not None:
            check_whole("the number of workers", count, least=1)
        self.count = count or available_cores()
        self.fast = fast
        self._entered = 0
        self._process: int | None = None  # in which the pool has its threads
        self._own = Own()

    def __str__(self) -> str:
        return str(self.count)

    @staticmethod
    def from_root(function: Callable[[], ResultT], /) -> ResultT:
        """What the function returns: there is one process."""
        return function()

    def together(self, asked: Callable[[], int], /) -> Callable[[], int]:
        """The question itself: there is one process."""
        return asked

    def is_alike(self, array: Array, /) -> bool:
        """Yes: there is one process."""
        return True

    def __enter__(self) -> Self:
        QUIET.enter()
        with QUIET.lock:
            self._entered += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with QUIET.lock:
                self._entered -= 1
                last = self._entered == 0
            if last:
                self._let_go()
        finally:
            QUIET.leave()

    def _let_go(self) -> None:
        """End the threads, and free the memory of the one that calls."""
        if self._process == os.getpid():  # the threads of a parent process are not here
            self._pool.shutdown(cancel_futures=True)
        self._process = None
        self._own = Own()

    def _helpers(self) -> ThreadPoolExecutor:
        """The threads beside the calling one, started as they are needed; of this process, if it has been forked."""
        with QUIET.lock:
            if self._process != os.getpid():
                self._pool = ThreadPoolExecutor(self.count - 1, thread_name_prefix="stg-np-worker")
                self._process = os.getpid()
            return self._pool

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], /) -> list[ResultT]:
        """``[function(item) for item in items]``, on the threads; an exception of any of them is raised here.

        The threads inherit what the caller has set with ``np.errstate``. On a device each thread may queue its work
        on a stream of its own: there the threads' work begins after what the caller queued before, and what the
        caller queues next begins after theirs. The host itself waits for none of it.

        Raises:
            RuntimeError: outside of the context.
        """
        if self._entered < 1:
            raise RuntimeError("this engine is not open: use it inside `with Threads() as engine:`")
        waiting, results = deque(enumerate(items)), {}
        count = len(waiting)
        helpers = min(self.count, count) - 1
        before = mark_queue() if helpers > 0 else None

        def work_off() -> None:
            with self._own.room():
                while True:
                    try:
                        number, item = waiting.popleft()
                    except IndexError:  # none is left
                        return
                    try:
                        results[number] = function(item)
                    except BaseException:
                        waiting.clear()  # the others stop as well
                        raise

        def work_off_elsewhere() -> Any:
            wait_for_mark(before)
            work_off()
            return mark_queue()

        others: list[Future[Any]] = []
        try:
            for _ in range(helpers):
                others.append(self._helpers().submit(copy_context().run, work_off_elsewhere))
            work_off()
        finally:
            waiting.clear()  # Ctrl-C may have come anywhere
            # Nothing is left for those that have not begun. Their threads may be busy with the very function that
            # called this, so to wait for them could be to wait for ever.
            begun = [other for other in others if not other.cancel()]
            wait(begun)
        for other in begun:
            wait_for_mark(other.result())  # raises what was raised there
        return [results[number] for number in range(count)]

    def sum(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], /) -> ResultT:
        """The results of :meth:`map`, added up in the order of the items."""
        return added(self.map(function, items))

    @property
    def workspace(self) -> Workspace | None:
        """The workspace of the calling thread; None if the plain path was asked for.

        The next item reuses this memory: return copies. A map inside a map has other memory than the function around.
        """
        return self._own.workspace() if self.fast else None


class Own(threading.local):
    """What each thread has for itself: how many maps it works for, one within the other, and a workspace for each."""

    def __init__(self) -> None:
        self.depth = 0
        self.workspaces: list[Workspace] = []

    @contextmanager
    def room(self) -> Iterator[None]:
        """Inside, the thread works for one more map."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def workspace(self) -> Workspace:
        """That of the innermost map; outside of all, that of the first."""
        while len(self.workspaces) < max(self.depth, 1):
            self.workspaces.append(Workspace())
        return self.workspaces[max(self.depth, 1) - 1]


ENGINES = {"threads": "stg_np.engine:Threads", "mpi": "stg_np.mpi:Mpi"}
"""The engines by name: the module and the class."""


def engine_class(name: str) -> type[Engine]:
    """One of :data:`ENGINES`."""
    module, of_it = ENGINES[name].split(":")
    found: type[Engine] = getattr(importlib.import_module(module), of_it)
    return found


def available_cores() -> int:
    """The cores that this process may use (fewer than the machine has, in a container, say)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def added(results: Sequence[ResultT]) -> ResultT:
    """``((first + second) + third) + …`` of results that are built alike, array by array.

    A result is an array or a number, :class:`Params`, or a named tuple or a dictionary of such.
    """
    first: Any = results[0]
    total: Any
    if isinstance(first, Params):
        total = first.with_flat(added([result.flat for result in results]))  # type: ignore[attr-defined]
    elif isinstance(first, dict):
        total = {name: added([result[name] for result in results]) for name in first}  # type: ignore[index]
    elif isinstance(first, tuple):
        total = type(first)._make(map(added, zip(*results)))  # type: ignore[attr-defined]
    else:
        total = reduce(add, results)
    return total  # type: ignore[no-any-return]
