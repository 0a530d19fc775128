"""Shard a batch over threads and sum the gradients.

NumPy lets go of the interpreter lock inside matrix products and elementwise loops, so threads that each hold a few
pictures scale over the cores, provided that BLAS does not start threads of its own on top. A batch is cut into fixed
*groups*; workers take groups; results are added in the order of the groups. So the number of workers changes the
time and not one bit of the result.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import reduce
from operator import add
from types import TracebackType
from typing import Self, TypeVar

from stg_np.models.base import LossAndGrad
from stg_np.params import State
from stg_np.workspace import Workspace

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


SWITCH_INTERVAL = 1e-4
"""Seconds after which a thread that waits for the interpreter lock insists on it.

The layers make many calls of a few microseconds, each of which lets go of the lock, but for less time than the other
thread needs to wake up and take it. At Python's own 5 milliseconds it would sleep through whole layers.
"""


class Workers:
    """A context in which ``map`` runs on ``count`` threads, the calling one included, and BLAS on one thread in each.

    Args:
        count: threads; None means one per core of this process.

    Raises:
        ValueError: if ``count`` is below 1.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise ValueError(f"at least one worker is needed, got {count}")
        self.count = count or available_cores()
        self._own = threading.local()

    def __enter__(self) -> Self:
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(1, user_api="blas")
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switch_interval, SWITCH_INTERVAL))
        self._pool = ThreadPoolExecutor(max(1, self.count - 1), thread_name_prefix="stg-np-worker")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._own = threading.local()  # lets go of the memory of the thread that called
        sys.setswitchinterval(self._switch_interval)
        self._limits.restore_original_limits()

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
        """``[function(item) for item in items]``, on the workers; an exception of any of them is raised here."""
        waiting, results = deque(enumerate(items)), {}
        count = len(waiting)

        def work_off() -> None:
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

        others = [self._pool.submit(work_off) for _ in range(min(self.count, count) - 1)]
        try:
            work_off()
        finally:
            wait(others)
        for other in others:
            other.result()  # raises what was raised there
        return [results[number] for number in range(count)]

    @property
    def workspace(self) -> Workspace:
        """The workspace of the calling thread, for a function inside :meth:`map`.

        The thread's next item uses it again, so what the function returns must not lie in it.
        """
        if not hasattr(self._own, "work"):
            self._own.work = Workspace()
        work: Workspace = self._own.work
        return work


def available_cores() -> int:
    """The cores that this process may use (fewer than the machine has, in a container, say)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sum_shards(shards: list[LossAndGrad]) -> LossAndGrad:
    """Losses, gradients and counts added in order; of the states (statistics of equal groups), the mean."""
    first = shards[0]
    state: State = {name: reduce(add, (shard.state[name] for shard in shards)) / len(shards) for name in first.state}
    return LossAndGrad(
        loss=reduce(add, (shard.loss for shard in shards)),
        grads=first.grads.with_flat(reduce(add, (shard.grads.flat for shard in shards))),
        correct=reduce(add, (shard.correct for shard in shards)),
        state=state,
    )
