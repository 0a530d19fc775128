"""How training shows itself on stderr: a bar on a terminal, and a line an epoch; in a log file lines alone."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Self

from stg_np import streams
from stg_np.train import Record, Run

COLUMNS = 80
"""The widest bar: a narrow terminal holds it, in a wide one nothing is far away."""

QUIET = 30
"""Seconds after which a log file gets a line within an epoch."""

BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}, {rate_fmt}{postfix}"


class Progress:
    """Loss, accuracy, images/s and time left of a whole run. ``clock``: seconds from anywhere."""

    def __init__(self, run: Run, first_step: int, clock: Callable[[], float] = perf_counter) -> None:
        self.run, self.first_step, self.clock = run, first_step, clock
        self.pictures = min(run.config.batch_size, len(run.train.labels))  # of one step
        self.steps = run.config.epochs * run.steps_per_epoch
        self.digits = ".3f" if run.loss is None else ".3g"  # another loss than a classifier's may be any small number

    def __enter__(self) -> Self:
        from tqdm import tqdm

        self.began = self.said = self.clock()
        self.bar = tqdm(
            total=self.steps * self.pictures,
            initial=self.first_step * self.pictures,
            unit=" images",
            unit_scale=True,
            ncols=min(COLUMNS, shutil.get_terminal_size().columns) - 1,  # in the last one some terminals break the line
            nrows=24,  # a terminal that does not know its height has one
            bar_format=BAR,
            file=sys.stderr,
            disable=not streams.is_terminal(sys.stderr),
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.bar.close()
        except (OSError, ValueError):
            streams.abandon(sys.stderr)

    def show(self, record: Record) -> None:
        """Show a record: a line for that of an epoch, a moving bar for the others. A terminal may go without harm."""
        try:
            if self.bar.disable:
                self.log(record)
            else:
                self.draw(record)
        except (OSError, ValueError):
            self.bar.disable = True
            streams.abandon(sys.stderr)

    def draw(self, record: Record) -> None:
        """Move the bar; after an epoch leave a line above it."""
        self.bar.set_description_str(self.epoch(record), refresh=False)
        self.bar.set_postfix_str(f"loss {record.loss:{self.digits}}", refresh=False)
        self.bar.update(record.step * self.pictures - self.bar.n)
        if record.kind == "epoch":
            self.bar.write(f"{self.epoch(record)}: {figures(record, self.digits)}", file=sys.stderr)

    def log(self, record: Record) -> None:
        """A line after an epoch, and within one if nothing was said for a while."""
        now = self.clock()
        if record.kind != "epoch" and now - self.said < QUIET:
            return
        self.said = now
        left = (self.steps - record.step) * (now - self.began) / max(1, record.step - self.first_step)
        where = self.epoch(record)
        if record.kind != "epoch":
            where += f", step {record.step:,}/{self.steps:,}"
        streams.note(f"{where}: {figures(record, self.digits)}, {left:.0f} s left")

    def epoch(self, record: Record) -> str:
        """``epoch 3/40``."""
        return f"epoch {record.epoch}/{self.run.config.epochs}"


def figures(record: Record, digits: str = ".3f") -> str:
    """What a record says, but for the time; ``digits``: of the loss."""
    validation = "" if record.validation_accuracy is None else f", validation {record.validation_accuracy:.4f}"
    speed = f"{record.images_per_second:,.0f} images/s"
    return f"loss {record.loss:{digits}}, accuracy {record.accuracy:.4f}{validation}, {speed}"
