"""JSON as its standard has it: NaN and the infinities, which Python would write and others cannot read, become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Plain values (numbers, text, lists, tables) as JSON that every reader takes.

    Raises:
        TypeError: if something is no plain value.
    """
    return json.dumps(without_nan(value), indent=indent, allow_nan=False)


def without_nan(value: Any) -> Any:
    """The same values, at every depth, with None for each number that is not finite."""
    if isinstance(value, Mapping):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
