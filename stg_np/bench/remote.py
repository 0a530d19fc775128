"""The driver's side: processes that are asked in turns, what they answer, and statistics of it."""

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from stg_np.backend import Array
from stg_np.bench.cases import Case

TOLERANCE = 1e-5
"""Largest difference of two results, as a part of the largest entry."""


class BenchError(RuntimeError):
    """A process could not do what it was asked; the message says what it said."""


class Setup(NamedTuple):
    """Which subject, on how many threads."""

    name: str
    workers: int
    blas_threads: int = 1


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
        threads = str(self.setup.workers * self.setup.blas_threads)
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


def results_of(remote: Remote) -> dict[str, Array]:
    """What a run of the prepared case gives, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.npz")
        remote.ask("results", path=str(path))
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


def largest_difference(got: Mapping[str, Array], expected: Mapping[str, Array]) -> tuple[str, float]:
    """The array that differs most, and by what part of the largest entry expected there.

    Raises:
        BenchError: if the arrays are not of the same names and shapes.
    """
    shapes = [{name: array.shape for name, array in arrays.items()} for arrays in (got, expected)]
    if shapes[0] != shapes[1]:
        raise BenchError(f"its results have the shapes {shapes[0]}, ours {shapes[1]}")
    parts = {
        name: float(np.abs(got[name] - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-30))
        for name in expected
    }
    worst = max(parts, key=lambda name: parts[name] if parts[name] == parts[name] else np.inf)  # NaN is worst
    return worst, parts[worst]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and range."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": median(values), "low": low, "high": high, "min": min(values), "max": max(values)}


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times longer they take: the ratio of the medians, and the spread of the ratios of each round."""
    return spread([a / b for a, b in zip(theirs, ours)]) | {"median": median(theirs) / median(ours)}


def prepared(remote: Remote, case: Case, limit: float) -> float:
    """Have the case built and run once; the seconds that took."""
    return float(remote.ask("prepare", case=case._asdict(), limit=limit)["seconds"])
