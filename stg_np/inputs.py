"""What is asked of arguments where they enter the library: one sentence for whoever got one wrong.

Shapes and types are looked at everywhere: that costs nothing. The *values* of an array are looked at only where it is
on the host, or once, where data enter: on a device to look means to wait.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any


def check_whole(name: str, value: Any, *, least: int = 0) -> None:
    """Refuse what is no whole number from ``least`` up.

    Raises:
        TypeError: if it is no whole number (True is none). ValueError: if it is below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r:.60}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
