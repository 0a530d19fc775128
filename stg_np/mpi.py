"""Processes as workers, on one machine or many: ``mpiexec -n 4 stg-np train --engine mpi``.

Each *rank* (process) takes its part of the groups of a batch and runs threads of its own on it. All ranks go through
the same loop with the same numbers; one of them, the *root*, reads the data, writes the files and speaks.

The sums are the same bits for any number of ranks, because they are made in the order of the groups: the ranks hold
neighbouring groups, and a running total goes from each rank to the next, which adds its own groups, one by one. When it
has passed them all it goes around once more, for everybody to know. It travels in pieces, so that the ranks work at the
same time on different ones. Each rank receives and sends twice the bytes of one result, however many groups and ranks
there are: no more than the all-reduce of a library, which adds in an order of its own.

Every rank updates its own copy of the parameters, so the machines must be of one kind; training looks after each epoch
whether all copies are alike.

From Python, in a file that ``mpiexec -n 4 python -m mpi4py FILE.py`` runs (which ends all ranks where one fails)::

    with Mpi() as engine:
        for record in fit(run, engine):
            if engine.is_root: ...
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import accumulate, pairwise
from math import isqrt
from time import perf_counter, sleep
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from stg_np.backend import Array
from stg_np.engine import EngineError, Threads, available_cores
from stg_np.params import Params
from stg_np.streams import note

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

PART, TOTAL = 1, 2
"""Tags of the messages: a running total, and a whole one."""

GRACE = 3.0
"""Seconds in which the other ranks must have ended as well, where one ends with an error."""


class Mpi(Threads):
    """A context in which the ranks share out the items of ``map`` and ``sum``, each running ``count`` threads.

    All ranks must call the same methods in the same order. A map inside a map is the rank's own affair. On errors,
    see :func:`on_every_rank`.

    Args:
        count: threads of each rank; None: its share of the cores that it may use.
        fast: whether the fast path is taken; if not, the plain one.

    Raises:
        EngineError: if there is no mpi4py, or no MPI that it fits. ValueError, TypeError: as :class:`Threads`.
    """

    def __init__(self, count: int | None = None, *, fast: bool = True) -> None:
        self.world = world()
        super().__init__(self.world.cores_for_each() if count is None else count, fast=fast)
        self.is_root = self.world.rank == 0
        self._asked: Callable[[], int] = lambda: 0
        self._agreed = 0

    def __str__(self) -> str:
        return f"{self.world.size} ranks × {self.count}" if self.world.size > 1 else super().__str__()

    @staticmethod
    def from_root(function: Callable[[], ResultT], /) -> ResultT:
        """What the function returns at the root, or raises there; large arrays lie once in each machine's memory."""
        return world().from_root(function)

    def together(self, asked: Callable[[], int], /) -> Callable[[], int]:
        """``asked``, but with the answer of all ranks: the first that was not 0, as of the last ``map`` or ``sum``.

        It travels with what these exchange anyway, so all ranks hear of it at the same step.
        """
        self._asked, self._agreed = asked, 0
        return asked if self.world.size == 1 else lambda: self._agreed

    def is_alike(self, array: Array, /) -> bool:
        """Whether the array is the same, bit for bit, on all ranks (as far as a checksum tells)."""
        return len(set(self.world.gathered(crc32(array.data)))) == 1

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], /) -> list[ResultT]:
        """``[function(item) for item in items]``, shared out over the ranks; every rank gets all of it.

        Raises:
            RuntimeError: outside of the context. What the function raises on a rank is raised on all.
        """
        items = list(items)
        rank, size = self.world.rank, self.world.size
        if self._is_alone():
            return super().map(function, items)
        own = outcome(lambda: super(Mpi, self).map(function, items[rank::size]))
        results: list[Any] = [None] * len(items)
        for number, (answer, part) in enumerate(self.world.gathered((self._asked(), own))):
            self._agreed = self._agreed or answer
            results[number::size] = part.result()
        return results

    def sum(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], /) -> ResultT:
        """The results of :meth:`map`, added up in the order of the items."""
        items = list(items)
        rank, size = self.world.rank, self.world.size
        if self._is_alone() or len(items) < size:
            return super().sum(function, items)
        first, last = (len(items) * k // size for k in (rank, rank + 1))
        total = Total(super().map(function, items[first:last]))
        self._agreed = self._agreed or self.world.carry(total, self._asked())
        return total.result()  # type: ignore[no-any-return]

    def _is_alone(self) -> bool:
        """Whether no other rank takes part: there is none, or this is a map inside a map."""
        return self.world.size == 1 or self._own.depth > 0


class Outcome:
    """What a function has returned, or raised."""

    def __init__(self, value: Any, error: Exception | None) -> None:
        self.value, self.error = value, error

    def result(self) -> Any:
        """The value, if it was not an exception."""
        if self.error is not None:
            raise self.error
        return self.value

    def __reduce__(self) -> tuple[Any, ...]:
        return Outcome, (self.value, portable(self.error))


def outcome(function: Callable[[], Any]) -> Outcome:
    """Of a call."""
    try:
        return Outcome(function(), None)
    except Exception as error:
        return Outcome(None, error)


def portable(error: Exception | None) -> Exception | None:
    """The exception, or one that says the same if it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Total:
    """The sum of results that are built alike, in one buffer that can travel in pieces.

    A result is an array or a number, :class:`Params`, or a named tuple or a dictionary of such. In front of the sum
    there is room for one whole number.
    """

    UNIT = 16  # bytes of which every part and piece is a multiple, so that no number is cut

    def __init__(self, results: list[Any]) -> None:
        self.like = results[0]
        self.terms = [[np.asarray(leaf).reshape(-1) for leaf in leaves(result)] for result in results]
        sizes = (-(-term.nbytes // self.UNIT) * self.UNIT for term in self.terms[0])
        self.starts = list(accumulate(sizes, initial=self.UNIT))
        self.buffer = np.zeros(self.starts[-1], np.uint8)
        self.header = self.buffer[:8].view(np.int64)
        self.sums = [
            self.buffer[start : start + term.nbytes].view(term.dtype) for start, term in zip(self.starts, self.terms[0])
        ]

    def pieces(self, ranks: int) -> list[slice]:
        """Where to cut the buffer. Many pieces cost the latency of each; few, the time in which most ranks wait."""
        length = max(1 << 15, isqrt((len(self.buffer) << 14) // ranks)) // self.UNIT * self.UNIT
        return [slice(start, start + length) for start in range(0, len(self.buffer), length)]

    def add(self, piece: slice, *, is_first: bool) -> None:
        """Add the terms to a piece of the sum, one after the other; ``is_first``: there is nothing in it yet."""
        for number, (start, total) in enumerate(zip(self.starts, self.sums)):
            low, high = (min(max(at - start, 0), total.nbytes) // total.itemsize for at in (piece.start, piece.stop))
            if low < high:
                part = total[low:high]
                terms = [term[number][low:high] for term in self.terms]
                if is_first:
                    part[...] = terms.pop(0)
                for term in terms:
                    np.add(part, term, out=part)

    def result(self) -> Any:
        """The sum, built like the results."""
        return rebuilt(self.like, iter(self.sums))


def leaves(result: Any) -> Iterator[Any]:
    """The arrays and numbers of a result, in order."""
    if isinstance(result, Params):
        yield result.flat
    elif isinstance(result, dict):
        for value in result.values():
            yield from leaves(value)
    elif isinstance(result, tuple):
        for value in result:
            yield from leaves(value)
    else:
        yield result


def rebuilt(like: Any, flats: Iterator[Array]) -> Any:
    """A result of other numbers (one flat array for each leaf), built like another one."""
    if isinstance(like, Params):
        return like.with_flat(next(flats))
    if isinstance(like, dict):
        return {name: rebuilt(value, flats) for name, value in like.items()}
    if isinstance(like, tuple):
        return type(like)._make([rebuilt(value, flats) for value in like])  # type: ignore[attr-defined]
    array = next(flats).reshape(np.shape(like))
    return array.item() if isinstance(like, (int, float)) else array[()]


@cache
def world() -> World:
    """All ranks, of which this process is one.

    Raises:
        EngineError: if there is no mpi4py, or no MPI that it fits.
    """
    mpi = loaded()
    refuse_strangers(mpi.COMM_WORLD.size)
    return World(mpi, mpi.COMM_WORLD)


class World:
    """The ranks of a communicator, and how they talk.

    No wait is inside MPI, which would keep Ctrl-C out and a core busy. Only the main thread talks.
    """

    def __init__(self, mpi: Any, ranks: Any) -> None:
        self.mpi = mpi
        self.everyone, self.leaving = ranks.Dup(), ranks.Dup()
        self.machine = ranks.Split_type(mpi.COMM_TYPE_SHARED)
        self.leaders = ranks.Split(0 if self.machine.rank == 0 else mpi.UNDEFINED)
        self.rank, self.size = int(ranks.rank), int(ranks.size)

    def cores_for_each(self) -> int:
        """The cores that this rank may use, without the share of other ranks that may use the same."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        sharing = self.machine.allgather(cores).count(cores)
        return max(1, available_cores() // int(sharing))

    def carry(self, total: Total, answer: int) -> int:
        """Make the sum of all ranks' terms out of the total of each; return the first answer that is not 0."""
        comm, before, after = self.everyone, (self.rank - 1) % self.size, (self.rank + 1) % self.size
        last = self.size - 1
        pieces = total.pieces(self.size)
        if self.rank > 0:
            arriving = [comm.Irecv(total.buffer[piece], before, PART) for piece in pieces]
        sent = []
        for number, piece in enumerate(pieces):
            if self.rank > 0:
                wait_for(arriving[number])
            if number == 0:
                total.header[0] = total.header[0] or answer
            total.add(piece, is_first=self.rank == 0)
            sent.append(comm.Isend(total.buffer[piece], after, PART if self.rank < last else TOTAL))
        wait_for(*sent)  # what is sent must not change before it is gone
        if self.rank < last:
            arriving = [comm.Irecv(total.buffer[piece], before, TOTAL) for piece in pieces]
            sent = []
            for number, piece in enumerate(pieces):
                wait_for(arriving[number])
                if after != last:
                    sent.append(comm.Isend(total.buffer[piece], after, TOTAL))
            wait_for(*sent)
        return int(total.header[0])

    def gathered(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        own = np.frombuffer(pickle.dumps(value, protocol=5), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        wait_for(self.everyone.Iallgather(np.array([len(own)]), sizes))
        ends = list(accumulate(sizes.tolist(), initial=0))
        everything = empty_block(ends[-1])
        wait_for(self.everyone.Iallgatherv(own, [everything, sizes, ends[:-1], self.mpi.BYTE]))
        return [pickle.loads(everything[start:stop].data) for start, stop in pairwise(ends)]

    def from_root(self, function: Callable[[], ResultT]) -> ResultT:
        """What the function returns at the root, or raises there. Its arrays are read-only, in memory that is shared.

        They travel beside the rest, as one block, which one rank of each machine receives.
        """
        if self.size == 1:
            return function()
        head, buffers = b"", list[memoryview]()
        if self.rank == 0:
            out: list[pickle.PickleBuffer] = []
            own = outcome(function)
            head = pickle.dumps(own, protocol=5, buffer_callback=out.append)
            buffers = [buffer.raw() for buffer in out]
        head, sizes = pickle.loads(spread(self.everyone, pickle.dumps((head, [buffer.nbytes for buffer in buffers]))))
        starts = list(accumulate((-(-size // 64) * 64 for size in sizes), initial=0))
        memory = self.block(starts[-1], [*zip(starts, buffers)])
        parts = [memory[start : start + size] for start, size in zip(starts, sizes)]
        result: Outcome = pickle.loads(head, buffers=parts)
        if self.rank == 0 and own.error is not None:
            raise own.error
        return result.result()  # type: ignore[no-any-return]

    def block(self, size: int, contents: list[tuple[int, memoryview]]) -> Array:
        """The root's contents, each from its start on, in memory that the ranks of a machine share, if they can."""
        with ExitStack() as stack:
            path, memory = "", empty_block(size)
            if self.machine.rank == 0 and self.machine.size > 1 and size >= LEAST_SHARED:
                path, memory = stack.enter_context(shared_file(size))
            for start, content in contents:
                memory[start : start + content.nbytes] = np.frombuffer(content, np.uint8)
            if self.machine.rank == 0:
                wait_for(self.leaders.Ibcast(memory))
            path = pickle.loads(spread(self.machine, pickle.dumps(path)))
            opened: Array | None = None
            with suppress(OSError):
                opened = np.memmap(path, np.uint8, "r") if path else None
            by_all = np.zeros(1, np.int64)
            wait_for(self.machine.Iallreduce(np.array([int(opened is not None)]), by_all, self.mpi.MIN))
            if opened is not None and by_all[0]:
                memory = opened
            else:
                wait_for(self.machine.Ibcast(memory))
        memory.flags.writeable = False
        return memory

    def all_end(self, code: int) -> int | None:
        """Wait for all ranks to end; return the highest exit code. None: they do not, though this one has failed."""
        highest = np.zeros(1, np.int64)
        request = self.leaving.Iallreduce(np.array([code]), highest, self.mpi.MAX)
        return int(highest[0]) if wait_for(request, seconds=GRACE if code else None) else None

    def abort(self, code: int) -> None:
        """End all ranks at once, without a word from the library: ours has been said."""
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self.everyone.Abort(code)


def loaded() -> Any:
    """The module ``mpi4py.MPI``, with MPI running.

    Raises:
        EngineError: if that cannot be.
    """
    try:
        import mpi4py

        mpi4py.rc(thread_level="funneled")
        from mpi4py import MPI
    except ImportError:
        raise EngineError(
            "--engine mpi needs mpi4py: install the extra with `pip install 'stg-np[mpi]'`, and an MPI library, with "
            "`pip install mpich`, if the machine has none"
        ) from None
    except RuntimeError as error:  # what mpi4py says without a library
        raise EngineError(
            f"--engine mpi finds no MPI library ({str(error).splitlines()[0]}): install one, with `pip install mpich`"
        ) from None
    return MPI


def refuse_strangers(size: int) -> None:
    """Two MPIs on one machine are common, and each takes the other's ranks for programs of their own.

    Raises:
        EngineError: if the launcher has started more ranks than the library knows of.
    """
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        started = os.environ.get(name, "")
        if size == 1 and started.isdecimal() and int(started) > 1:
            raise EngineError(
                f"{started} ranks were started, and the library of mpi4py knows of one: use the mpiexec of that library"
            )


LEAST_SHARED = 1 << 20
"""Bytes from which on ranks of one machine share memory."""


def empty_block(size: int) -> Array:
    """So many bytes, whatever is in them."""
    return np.empty(size, np.uint8)


@contextmanager
def shared_file(size: int) -> Iterator[tuple[str, Array]]:
    """A file in memory, and its name as long as the context lasts; without room for one, an array without a name.

    The memory is given back by the system when the last array in it is gone, in whatever way its process ends.
    """
    path, memory = "", None
    try:
        with suppress(OSError):
            number, path = tempfile.mkstemp(prefix="stg-np-")
            with os.fdopen(number, "r+b") as file:
                getattr(os, "posix_fallocate", lambda number, _, size: os.truncate(number, size))(number, 0, size)
                memory = np.memmap(file, np.uint8, "r+", shape=size)
        yield (path, memory) if memory is not None else ("", empty_block(size))
    finally:
        if path:
            with suppress(OSError):  # Windows removes no file that is in use
                os.unlink(path)


def spread(comm: Any, content: bytes) -> bytes:
    """The content that its first rank has, on all ranks of a communicator."""
    size = np.array([len(content)])
    wait_for(comm.Ibcast(size))
    buffer = np.frombuffer(content, np.uint8).copy() if comm.rank == 0 else empty_block(int(size[0]))
    wait_for(comm.Ibcast(buffer))
    return buffer.tobytes()


def wait_for(*requests: Any, seconds: float | None = None) -> bool:
    """Wait until all is done that was requested, at most so many seconds; whether it is.

    Between looks Ctrl-C can come in. They are dense at first, and the longer it takes the longer others have the core.
    """
    began = perf_counter()
    for request in requests:
        while not request.Test():
            waited = perf_counter() - began
            if seconds is not None and waited > seconds:
                return False
            if waited > 2e-4:
                sleep(min(waited / 16, 2e-3))
    return True


class Kept(io.StringIO):
    """A stream that nobody reads, but for the last sentence, or a traceback."""

    def last(self) -> str:
        """What was said last."""
        _, head, after = self.getvalue().rpartition("Traceback (most recent call last)")
        return f"{head}{after}".rstrip() if head else after.rstrip().rpartition("\n")[2]


def on_every_rank(command: Callable[[], int]) -> int:
    """Run a command on all ranks as if it were one program; return its exit code.

    The root alone speaks. Where a rank fails and the others do not, they would wait for it for ever: then it says what
    happened, and ends all of them.
    """
    try:
        everyone = world()
    except EngineError:
        return command()  # says it
    out, err = sys.stdout, sys.stderr
    kept = Kept()
    if everyone.rank > 0:
        sys.stdout, sys.stderr = Kept(), kept
    code = exit_code_of(command)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # nothing is left to stop here, and the root may be at work still
    highest = everyone.all_end(code)
    sys.stdout, sys.stderr = out, err
    if highest is None:
        if everyone.rank > 0:
            note(kept.last())
        everyone.abort(code)
        raise AssertionError("an abort does not return")
    return highest


def exit_code_of(command: Callable[[], int]) -> int:
    """Of a command, whatever it does."""
    try:
        return command()
    except SystemExit as error:
        return int(error.code) if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # with --debug
        traceback.print_exc()
        return 1
