"""The process that is timed: one subject, asked over stdin, answering over stdout, one JSON object a line.

    python -m stg_np.bench.worker NAME WORKERS BLAS_THREADS

NAME is ``stg_np`` or one of :data:`stg_np.bench.subjects.PEERS`. Requests: ``{"do": "prepare", "case": {…}}`` builds
the case and runs it once; ``results`` writes what the run gave to an ``.npz``; ``turn`` times it; ``facts``,
``floor``, ``profile`` and ``growth`` measure what their modules say. An answer is an object, ``{"error": …}`` if the
request failed. The end of stdin ends the process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from contextlib import ExitStack
from time import perf_counter
from typing import Any, TextIO

import numpy as np

from stg_np.bench.cases import LayerCase, case_from
from stg_np.bench.subjects import OURS, PEERS, Subject, build_ours, build_peer


class Worker:
    """One subject at a time, and the answers about it."""

    def __init__(self, name: str, workers: int, blas_threads: int) -> None:
        self.name, self.workers, self.blas_threads = name, workers, blas_threads
        self.until = ExitStack()
        self.subject: Subject | None = None

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Build the subject and run it once: the seconds that took, compilation included."""
        self.drop()
        began = perf_counter()
        if self.name == OURS:
            self.subject = build_ours(case_from(case), self.workers, self.blas_threads, self.until)
        else:
            self.subject = build_peer(self.name, case_from(case), self.workers * self.blas_threads)
        self.subject.run()
        return {"seconds": perf_counter() - began}

    def drop(self) -> dict[str, Any]:
        """Let go of the subject, its threads and its memory."""
        self.subject = None
        self.until.close()
        gc.collect()
        return {}

    def results(self, path: str) -> dict[str, Any]:
        """Write the arrays of a run to ``path``."""
        subject = self.current()
        arrays: dict[str, Any] = subject.results(subject.run())
        np.savez(path, **arrays)
        return {}

    def turn(self, seconds: float) -> dict[str, Any]:
        """One run to warm the caches again, then runs until ``seconds`` have passed: the times of each."""
        run = self.current().run
        run()
        times: list[float] = []
        end = perf_counter() + seconds
        while not times or (perf_counter() < end and len(times) < 1000):
            began = perf_counter()
            run()
            times.append(perf_counter() - began)
        return {"seconds": times}

    def current(self) -> Subject:
        """The subject that was prepared."""
        if self.subject is None:
            raise RuntimeError("nothing has been prepared")
        return self.subject

    def facts(self) -> dict[str, Any]:
        """Versions and BLAS of what is timed here."""
        if self.name == OURS:
            from stg_np.summary import blas_libraries

            np.ones((2, 2)) @ np.ones((2, 2))  # so that BLAS is there to be asked
            return {"numpy": np.__version__, "BLAS of numpy": "; ".join(blas_libraries())}
        from importlib import import_module

        facts: dict[str, Any] = import_module(f"stg_np.bench.with_{PEERS[self.name].package}").facts()
        return facts

    def floor(self, case: dict[str, Any]) -> dict[str, Any]:
        """See :func:`stg_np.bench.floor.layer_floor`."""
        from stg_np.bench.floor import layer_floor

        return layer_floor(LayerCase(**case), self.workers)

    def profile(self, seconds: float) -> dict[str, Any]:
        """See :func:`stg_np.bench.profile.sample`."""
        from stg_np.bench.profile import sample

        return sample(self.current().run, seconds)

    def growth(self, point: dict[str, int], seconds: float) -> dict[str, Any]:
        """See :func:`stg_np.bench.growth.cost`."""
        from stg_np.bench.growth import Point, cost

        return cost(Point(**point), seconds)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request, its failure included."""
        try:
            answer: dict[str, Any] = getattr(self, request.pop("do"))(**request)
            return answer
        except Exception as error:  # whatever a peer raises is a fact about the peer
            return {"error": f"{type(error).__name__}: {error}".split("\n")[0]}


def pin(cores: int) -> None:
    """Keep this process, and the threads it will start, on so many cores (where the system can)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def private_stdout() -> TextIO:
    """The answers' own channel; whatever else is written to stdout from now on goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def main() -> None:
    """Answer until the requests end."""
    name, workers, blas_threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    channel = private_stdout()
    pin(workers * blas_threads)
    worker = Worker(name, workers, blas_threads)
    for line in sys.stdin:
        channel.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
