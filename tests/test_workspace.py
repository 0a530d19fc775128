"""Memory that is used again: whose it is, when it is new, and what a step asks for beyond it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stg_np.workspace import Workspace

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
dtypes = st.sampled_from([np.float32, np.float64, np.int8])


@given(st.lists(st.tuples(st.sampled_from("ab"), shapes, dtypes), max_size=8))
def test_an_array_is_what_was_asked_for_and_two_names_never_share_memory(asked: list[tuple[str, Any, Any]]) -> None:
    work, last = Workspace(), {}
    for name, shape, dtype in asked:
        array = last[name] = work.empty(name, shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert len(last) < 2 or not np.shares_memory(last["a"], last["b"])


def test_a_name_keeps_its_memory_until_more_is_asked_for() -> None:
    work = Workspace()
    first = work.empty("gates", (4, 6), np.float32)
    first[...] = 7
    assert work.empty("gates", (3, 2, 4), np.float32).tobytes() == first.tobytes()
    assert np.shares_memory(work.empty("gates", (2, 3), np.float64), first)
    assert work.nbytes == first.nbytes
    assert not np.shares_memory(work.empty("gates", (25,), np.float32), first)
    assert work.nbytes == 100  # and the old memory is let go of


def test_a_part_has_names_of_its_own_and_is_found_again() -> None:
    work = Workspace()
    inner = work.within("stm1")
    assert work.within("stm1") is inner
    assert work.within("stm2") is not inner
    assert not np.shares_memory(work.empty("y", (3,), np.float64), inner.empty("y", (3,), np.float64))
    assert work.nbytes == 48


def test_the_bytes_held_are_those_of_every_name_and_of_every_part() -> None:
    work = Workspace()
    for size, name in enumerate(("a", "b", "c"), start=1):
        work.empty(name, (size,), np.int8)
        work.within(name).empty("y", (10 * size,), np.int8)
    assert work.nbytes == 1 + 2 + 3 + 10 + 20 + 30
