"""The process that is timed: one subject, asked over stdin, answering over stdout, one JSON object a line.

    python -m stg_np.bench.worker NAME WORKERS BLAS_THREADS

NAME is one of :data:`stg_np.bench.subjects.SUBJECTS`. A request is ``{"do": METHOD, …}``, with a method of
:class:`Worker` and its arguments. An answer is an object, ``{"error": …}`` if the request failed. The end of stdin
ends the process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from time import perf_counter
from typing import Any, TextIO

import numpy as np

from stg_np.backend import Array
from stg_np.bench.cases import LayerCase, from_json
from stg_np.bench.subjects import SUBJECTS, Setup, Subject, build, facts_of
from stg_np.bench.timing import times_of


class Worker:
    """One subject at a time, and the answers about it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.subject: Subject | None = None

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Build the subject and run it once: the seconds that took, compilation included, and what will be timed."""
        self.drop()
        began = perf_counter()
        self.subject = build(self.setup, from_json(case))
        self.subject.run()
        return {"seconds": perf_counter() - began, "timed": self.subject.timed}

    def drop(self) -> dict[str, Any]:
        """Let go of the subject, its threads and its memory."""
        if self.subject is not None:
            self.subject.close()
        self.subject = None
        gc.collect()
        return {}

    def results(self, path: str) -> dict[str, Any]:
        """Write the arrays of a run to ``path``."""
        subject = self.current()
        return save(path, subject.results(subject.run()))

    def exact(self, case: dict[str, Any], path: str) -> dict[str, Any]:
        """Write what the results should be to ``path``."""
        from stg_np.bench.ours import exact

        return save(path, exact(from_json(case)))

    def turn(self, seconds: float) -> dict[str, Any]:
        """The times of runs until ``seconds`` have passed."""
        return {"seconds": times_of(self.current().run, seconds)}

    def current(self) -> Subject:
        """The subject that was prepared."""
        if self.subject is None:
            raise RuntimeError("nothing has been prepared")
        return self.subject

    def facts(self) -> dict[str, str]:
        """Versions and kernels of the subject's package."""
        return facts_of(SUBJECTS[self.setup.name].package)

    def floor(self, case: dict[str, Any]) -> dict[str, Any]:
        """See :func:`stg_np.bench.floor.layer_floor`."""
        from stg_np.bench.floor import layer_floor

        layer = from_json(case)
        assert isinstance(layer, LayerCase)
        return layer_floor(layer, self.setup.workers)

    def product_rate(self) -> dict[str, float]:
        """See :func:`stg_np.bench.floor.product_rate`."""
        from stg_np.bench.floor import product_rate

        return {"gflops": product_rate(self.setup.workers)}

    def growth(self, point: dict[str, int], seconds: float) -> dict[str, float]:
        """See :func:`stg_np.bench.growth.cost`."""
        from stg_np.bench.growth import cost, point_of

        return cost(point_of(point), seconds)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request, its failure included."""
        try:
            answer: dict[str, Any] = getattr(self, request.pop("do"))(**request)
            return answer
        except Exception as error:  # whatever a peer raises is a fact about the peer
            return {"error": f"{type(error).__name__}: {error}".split("\n")[0]}


def save(path: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """Write arrays by name into an ``.npz``."""
    contents: dict[str, Any] = dict(arrays)
    np.savez(path, **contents)
    return {}


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
    setup = Setup(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    channel = private_stdout()
    pin(setup.threads)
    worker = Worker(setup)
    for line in sys.stdin:
        channel.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
