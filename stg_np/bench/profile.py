"""Where the time of the fast path goes: samples of the line that each worker is on, sorted into named phases.

A thread looks at the others about a thousand times a second. Nothing in the fast path is instrumented, and a line
inside NumPy counts as the line that called it. The phase of a line follows from its source: matrix products, the loop
over the steps, and the elementwise rest, each in the forward or the backward function.
"""

from __future__ import annotations

import ast
import importlib
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter, sleep
from types import FrameType
from typing import Any

PHASES = (
    "layout", "product", "gates", "scan", "backward scan", "gate gradients", "weight gradient", "input gradient",
    "outside",
)  # fmt: skip
"""``layout``: new arrays and transposed copies; ``outside``: shards, sums, waiting for the other workers."""

MODULES = ("stg_np.fast.walks", "stg_np.stm")
INTERVAL = 0.001


def sample(run: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Call ``run`` for so many seconds; the share of each phase, and the ten dearest lines with theirs.

    Shares are of the time that threads spend in the work; ``page_faults`` are per run (0 where unknown).
    """
    main, watched, done = threading.get_ident(), Counter[tuple[str, int]](), threading.Event()

    def watch() -> None:
        while not done.is_set():
            watched.update(place(frame) for frame in frames_at_work(main))
            sleep(INTERVAL)

    switching = sys.getswitchinterval()
    sys.setswitchinterval(INTERVAL / 10)  # a look must not wait until a worker lets go of the interpreter
    watcher = threading.Thread(target=watch)
    runs, faults, end = 0, page_faults(), perf_counter() + seconds
    watcher.start()
    try:
        while runs == 0 or perf_counter() < end:
            run()
            runs += 1
    finally:
        done.set()
        watcher.join()
        sys.setswitchinterval(switching)
    return summary(watched) | {"page_faults": (page_faults() - faults) / runs}


def frames_at_work(main: int) -> list[FrameType]:
    """The frames of the workers' threads; of the calling thread, where it does the work itself."""
    workers = {thread.ident for thread in threading.enumerate() if thread.name.startswith("stg-np-worker")}
    frames = sys._current_frames()
    return [frames[ident] for ident in (workers or {main}) if ident in frames]


def place(frame: FrameType | None) -> tuple[str, int]:
    """The module and line of the innermost frame in the layer's code; ``("", 0)`` outside of it."""
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name in MODULES:
            return name, frame.f_lineno
        frame = frame.f_back
    return "", 0


def summary(watched: Counter[tuple[str, int]]) -> dict[str, Any]:
    """Shares by phase and by line."""
    total = max(1, watched.total())
    phases = dict.fromkeys(PHASES, 0.0)
    for (module, line), count in watched.items():
        phases[phase(module, line)] += count / total
    lines = [
        {"share": count / total, "phase": phase(module, line), "line": f"{module}:{line}: {text(module, line)}"}
        for (module, line), count in watched.most_common(10)
    ]
    return {"samples": watched.total(), "phases": phases, "lines": lines}


def phase(module: str, line: int) -> str:
    """The phase of a line of the layer's code."""
    return phases_of(module).get(line, "outside") if module else "outside"


@cache
def source(module: str) -> str:
    """The text of a module."""
    return Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8")


def text(module: str, line: int) -> str:
    """A line without its margin and comment."""
    return source(module).splitlines()[line - 1].split("  #")[0].strip() if module else ""


@cache
def phases_of(module: str) -> dict[int, str]:
    """The phase of every line inside a function."""
    found: dict[int, str] = {}
    for function in ast.parse(source(module)).body:
        if isinstance(function, ast.FunctionDef):
            found[function.lineno] = sort_out("", "backward" in function.name, function.name)
            statements(module, function.body, "backward" in function.name, function.name, found)
    return found


def statements(module: str, body: list[Any], backward: bool, function: str, found: dict[int, str]) -> None:
    """Sort the statements of a function, one level of nesting after the other."""
    for node in body:
        loop_over_steps = isinstance(node, ast.For) and "keep_t" in ast.unparse(node.target)
        inner = [child for field in ("body", "orelse") for child in getattr(node, field, [])]
        last = inner[0].lineno - 1 if inner else node.end_lineno
        what = "for" if loop_over_steps else ast.unparse(node).split("\n")[0] if inner else ast.unparse(node)
        found |= dict.fromkeys(range(node.lineno, last + 1), sort_out(what, backward, function))
        if loop_over_steps:
            found |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), "backward scan" if backward else "scan")
        else:
            statements(module, inner, backward, function, found)


def sort_out(statement: str, backward: bool, function: str) -> str:
    """The phase of one statement."""
    if any(word in statement for word in ("= empty(", "np.zeros", "with_ones[", ".copy()", "stacked_weights")):
        return "layout"
    if "@" in statement or "matmul" in statement or "fill_preactivations" in function:
        if not backward:
            return "product"
        return "weight gradient" if "dW" in statement else "input gradient"
    return "gate gradients" if backward or "diagonal" in function else "gates"


def page_faults() -> int:
    """The pages of memory that this process has had to ask for so far."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
