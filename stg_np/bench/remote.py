"""The driver's side of the harness: processes that are asked in turns, all others stopped meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import numpy as np

from stg_np.backend import Array
from stg_np.bench.cases import Case, to_json
from stg_np.bench.subjects import Setup


class BenchError(RuntimeError):
    """A process could not do what it was asked; the message says what it said."""


class Remote:
    """A worker process, started when it is first asked and again after it was ended."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.process: subprocess.Popen[str] | None = None

    def ask(self, do: str, *, limit: float = 600.0, **request: Any) -> dict[str, Any]:
        """Send a request and wait at most ``limit`` seconds for the answer.

        Raises:
            BenchError: if the process answers with an error, ends, or takes longer (then it is ended).
        """
        if self.process is None:
            self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            self.end()
            raise BenchError(f"took longer than {limit:.0f} s") from None
        except OSError:
            line = None
        if line is None:
            said = self.last_words()
            self.end()
            raise BenchError(f"its process ended: {said}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(answer["error"])
        return answer

    def start(self) -> None:
        """Start the process, and a thread that collects its answers (the only way to wait with a limit anywhere)."""
        threads = str(self.setup.threads)
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stg_np.bench.worker", *map(str, self.setup)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, start_new_session=True,
            env={**os.environ, **dict.fromkeys(names, threads), "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self.collect, args=(self.process.stdout, self.lines), daemon=True).start()

    @staticmethod
    def collect(stream: Any, lines: queue.Queue[str | None]) -> None:
        """Put every answer into the queue, and None at the end."""
        for line in stream:
            lines.put(line)
        stream.close()
        lines.put(None)

    def last_words(self) -> str:
        """The last line that the process wrote to stderr."""
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        return said[-1] if said else "it said nothing"

    def send(self, name: str) -> None:
        """Send a signal to the process and to what it has started; nothing where the system has no such signal."""
        if self.process is not None and hasattr(os, "killpg") and hasattr(signal, name):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, getattr(signal, name))

    def end(self) -> None:
        """End the process and what it has started (compilers), if there is one."""
        if self.process is None:
            return
        if hasattr(os, "killpg"):
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # what it had not read yet
            self.process.stdin.close()
        self.errors.close()
        self.process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this program like Ctrl-C does: orderly, so that no process of its own is left, held for ever."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def alone(remote: Remote, everybody: Iterable[Remote]) -> Iterator[None]:
    """Hold all other processes, and what they have started, while one is timed: threads without work may still spin."""
    others = [other for other in everybody if other is not remote]
    for other in others:
        other.send("SIGSTOP")
    try:
        yield
    finally:
        for other in others:
            other.send("SIGCONT")


def timed_in_turns(
    remotes: Mapping[str, Remote], rounds: int, seconds: float, besides: Iterable[Remote] = ()
) -> dict[str, list[float]]:
    """A B C A B C …: each round gives one time per remote, the median of its turn. Every remote is prepared.

    The others, and those ``besides``, are held meanwhile.
    """
    times: dict[str, list[float]] = {name: [] for name in remotes}
    everybody = [*remotes.values(), *besides]
    for _ in range(rounds):
        for name, remote in remotes.items():
            with alone(remote, everybody):
                times[name].append(median(remote.ask("turn", seconds=seconds)["seconds"]))
    return times


def prepared(remote: Remote, case: Case, limit: float = 600.0) -> dict[str, Any]:
    """Have the case built and run once: the ``seconds`` that took, and what will be ``timed``."""
    return remote.ask("prepare", case=to_json(case), limit=limit)


def results_of(remote: Remote) -> dict[str, Array]:
    """What a run of the prepared case gives, by name."""
    return arrays_from(remote, "results")


def exact_results(remote: Remote, case: Case) -> dict[str, Array]:
    """What the case should give, by name: the plain path in float64."""
    return arrays_from(remote, "exact", case=to_json(case))


def arrays_from(remote: Remote, do: str, **request: Any) -> dict[str, Array]:
    """The answer to a request that is answered in a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "arrays.npz")
        remote.ask(do, path=str(path), **request)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
