"""Which lines of the package something runs, its threads included."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

Lines = set[tuple[str, int]]
"""Files and line numbers."""


@contextmanager
def lines_run(folder: Path) -> Iterator[Lines]:
    """Collect the lines of the files below ``folder`` that run meanwhile."""
    found: Lines = set()
    inside = f"{folder}/"

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            found.add((frame.f_code.co_filename, frame.f_lineno))
        return on_line

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return on_line if frame.f_code.co_filename.startswith(inside) else None

    before = sys.gettrace()
    threading.settrace(on_call)
    sys.settrace(on_call)
    try:
        yield found
    finally:
        sys.settrace(before)
        threading.settrace(before)
