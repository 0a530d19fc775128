"""Two synthetic tasks that only a memory can solve; sequences ``(B, T, D)``, drawn afresh for each batch.

As data sets they are called ``adding-600`` and ``copy-1000``, by their steps or their delay: any number will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stg_np.backend import Array
from stg_np.data.base import DataError, Dataset, DatasetInfo, FileCheck, check_file, fingerprint
from stg_np.data.task import Task
from stg_np.ops.losses import SQUARED_ERROR, TOLERANCE
from stg_np.ops.step_losses import step_cross_entropy

COPY_SYMBOLS = 10
"""The copying task's alphabet: 0 is the blank, 1 … 8 are to be remembered, 9 means "now recall"."""

COPY_LENGTH = 10
"""How many symbols the copying task asks to remember."""


def adding_problem(
    rng: np.random.Generator, batch: int, steps: int, dtype: DTypeLike = np.float32
) -> tuple[Array, Array]:
    """Add the two marked numbers of a long sequence: ``x (B, T, 2)`` and ``target (B,)``.

    ``x[..., 0]`` is uniform on [0, 1]; ``x[..., 1]`` is one at two different steps, drawn uniformly, and zero
    elsewhere; the target is the sum of the two marked numbers. Always answering 1 has a mean squared error of
    1/6 ≈ 0.167: a network below that remembers. Hochreiter & Schmidhuber 1997, experiment 4, in the form of
    Bai, Kolter & Koltun 2018 (arXiv:1803.01271).

    Raises:
        ValueError: if there are fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"the adding problem marks two steps, so it needs at least 2, not {steps}")
    values = rng.random((batch, steps))
    first = rng.integers(0, steps, batch)
    second = (first + rng.integers(1, steps, batch)) % steps  # any step but the first one
    marks = np.zeros_like(values)
    row = np.arange(batch)
    marks[row, first] = marks[row, second] = 1
    x = np.stack([values, marks], axis=-1).astype(dtype)
    target: Array = x[row, first, 0] + x[row, second, 0]
    return x, target


def copy_memory(
    rng: np.random.Generator, batch: int, delay: int, dtype: DTypeLike = np.float32
) -> tuple[Array, NDArray[np.int64]]:
    """Repeat ten symbols after a delay: ``x (B, delay + 20, 10)`` one-hot, and ``target (B, delay + 20)``.

    The input is ten symbols of 1 … 8, then ``delay − 1`` blanks (0), then eleven times the signal 9; the target is
    blank throughout, and the ten symbols at the last ten steps. ``x.argmax(-1)`` gives the symbols back. Without
    memory, the best cross-entropy per step is ``10 log 8 / (delay + 20)``. Hochreiter & Schmidhuber 1997;
    Arjovsky et al. 2016; the layout is that of Bai, Kolter & Koltun 2018 (arXiv:1803.01271).

    Raises:
        ValueError: if ``delay`` is less than 1.
    """
    if delay < 1:
        raise ValueError(f"the delay must be at least 1 step, not {delay}")
    steps = delay + 2 * COPY_LENGTH
    remembered = rng.integers(1, COPY_SYMBOLS - 1, (batch, COPY_LENGTH))
    symbols = np.zeros((batch, steps), np.int64)
    symbols[:, :COPY_LENGTH] = remembered
    symbols[:, -COPY_LENGTH - 1 :] = COPY_SYMBOLS - 1
    target = np.zeros((batch, steps), np.int64)
    target[:, -COPY_LENGTH:] = remembered
    return np.eye(COPY_SYMBOLS, dtype=dtype)[symbols], target


# --- as data sets -------------------------------------------------------------------------------------------

EPOCH = 1000
"""Sequences of an "epoch", and as many for the test. Each batch is drawn afresh, so none is ever seen twice."""

HELD_OUT = 200
"""Sequences by which the best state is chosen."""

LONGEST = 100_000
"""Steps, or delay."""


def adding_task(steps: int) -> Task:
    """The adding problem: one output, the sum."""
    draw = partial(draw_sums, steps=steps)
    return Task(draw, SQUARED_ERROR, "mean squared error", f"within {TOLERANCE} of the sum", 1 / 6, scale=2)


def draw_sums(rng: np.random.Generator, count: int, steps: int) -> tuple[Array, Array]:
    """Sequences (B, steps, 2) of the adding problem, and the sums (B, 1)."""
    x, target = adding_problem(rng, count, steps)
    return x, target[:, None]


def copy_task(delay: int) -> Task:
    """The copying task: the ten symbols at the last ten steps, blanks before."""
    untrained = COPY_LENGTH * log(COPY_SYMBOLS - 2) / (delay + 2 * COPY_LENGTH)
    return Task(
        partial(copy_memory, delay=delay),
        step_cross_entropy(blank=0), "cross-entropy per step", "of the symbols right", untrained,
    )  # fmt: skip


@dataclass
class Sequences:
    """A task as a data set: see :class:`stg_np.data.Source`."""

    INFO: DatasetInfo
    task: Task
    SYSTEM_FOLDERS: tuple[Path, ...] = (Path(__file__).parent,)

    def fetch(self, folder: Path) -> Path:
        """Nothing needs to be downloaded: what draws the sequences."""
        return Path(__file__)

    def locate(self, path: Path) -> Path | None:
        """This file, where ``path`` is its folder; it is looked for nowhere else."""
        return Path(__file__) if path in self.SYSTEM_FOLDERS else None

    def load(self, path: Path) -> Dataset:
        """Draw the sequences of an epoch, of which the last are for validation, and those of the test.

        Raises:
            DataError: if ``path`` is another file.
        """
        info = self.INFO
        if path != Path(__file__):
            raise DataError(f"{info.name} is drawn by the package and read from no folder: leave the data folder out")
        (x, y), (x_test, y_test) = (self.task.draw(np.random.default_rng([8, part]), EPOCH) for part in range(2))
        content = np.concatenate([np.ascontiguousarray(array).view(np.uint8).reshape(-1) for array in (x_test, y_test)])
        digest = check_file("test", content, "").sha256
        files = (FileCheck("test", digest, official=True),)
        return Dataset(
            info.name, info.classes, x, y, x_test, y_test, fingerprint(files), True, info.flip,
            value_range=info.value_range, source=str(path), files=files, task=self.task,
        )  # fmt: skip


def sequences(name: str) -> Sequences | None:
    """The data set of a name like ``adding-600`` or ``copy-1000``; None if it is none.

    Raises:
        DataError: if the number is too small, or larger than anybody's patience.
    """
    kind, _, number = name.rpartition("-")
    if kind not in ("adding", "copy") or not number.isdecimal():
        return None
    size, least = int(number[:9]), 2 if kind == "adding" else 1
    if not least <= size <= LONGEST:
        raise DataError(f"{name}: the number must be from {least} to {LONGEST:,}")
    if kind == "adding":
        task, title, shape, classes = adding_task(size), f"Adding problem, {size:,} steps", (size, 2), ("sum",)
    else:
        task, title = copy_task(size), f"Copy memory, a delay of {size:,} steps"
        shape, classes = (size + 2 * COPY_LENGTH, COPY_SYMBOLS), ("blank", *"12345678", "recall")
    info = DatasetInfo(
        name, title, classes, shape, EPOCH, EPOCH, flip=False, licence="drawn by the package", value_range=1
    )
    return Sequences(info, task)
