"""Memory that is used again, so that a training step in steady state asks the system for almost none.

New memory is not free: the system hands it out page by page, each filled with zeros, at the first touch, and threads
wait for each other meanwhile. A step of a small network can spend a third of its time there. A :class:`Workspace` keeps
the arrays of one step for the next one.

``work=`` on a model, a layer or a loss: None means the plain path, in fresh arrays; a workspace means the fast path,
in this memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from stg_np.backend import Array


class Workspace:
    """Arrays by name, for one thread: whoever asks twice for a name gets the same memory.

    So an array is good until its name is asked for again; for the cache of a layer that is the next forward pass with
    the same workspace. :meth:`within` separates those who would use the same names.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}
        self._rooms: dict[str, Workspace] = {}

    def empty(self, name: str, shape: Sequence[int], dtype: Any) -> Array:
        """An array of any content; new memory only where there is none of this name, or too little."""
        size = prod(shape) * np.dtype(dtype).itemsize
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.uint8)
        array: Array = memory[:size].view(dtype).reshape(shape)
        return array

    def within(self, name: str) -> Workspace:
        """A workspace of its own for one part of a model, the same one for the same name."""
        return self._rooms.setdefault(name, Workspace())

    @property
    def nbytes(self) -> int:
        """Bytes held, those of the parts included."""
        return sum(memory.nbytes for memory in self._memory.values()) + sum(r.nbytes for r in self._rooms.values())
