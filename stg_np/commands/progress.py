"""How training shows itself on stderr: a bar on a terminal, a line an epoch in a log file."""

from __future__ import annotations

import sys
from time import perf_counter
from types import TracebackType
from typing import Self

from stg_np import streams
from stg_np.train import Record, Run


class Progress:
    """Loss, accuracy, images/s and time left of a whole run."""

    def __init__(self, run: Run, first_step: int) -> None:
        self.run, self.first_step = run, first_step
        self.pictures = min(run.config.batch_size, len(run.train.labels))  # of one step
        self.steps = run.config.epochs * run.steps_per_epoch
        self.validation = ""

    def __enter__(self) -> Self:
        from tqdm import tqdm

        self.began = perf_counter()
        self.bar = tqdm(
            total=self.steps * self.pictures,
            initial=self.first_step * self.pictures,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
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
        """Show a record; where there is no terminal, only that of an epoch. A terminal that is gone is no error."""
        try:
            self.show_somehow(record)
        except (OSError, ValueError):
            self.bar.disable = True
            streams.abandon(sys.stderr)

    def show_somehow(self, record: Record) -> None:
        """The same, on a stream that takes it."""
        if record.validation_accuracy is not None:
            self.validation = f", validation {record.validation_accuracy:.4f}"
        epoch = f"epoch {record.epoch}/{self.run.config.epochs}"
        figures = f"loss {record.loss:.3f}, accuracy {record.accuracy:.4f}{self.validation}"
        if not self.bar.disable:
            self.bar.set_description_str(epoch, refresh=False)
            self.bar.set_postfix_str(figures, refresh=False)
            self.bar.update(record.step * self.pictures - self.bar.n)
        elif record.kind == "epoch":
            left = (self.steps - record.step) * (perf_counter() - self.began) / (record.step - self.first_step)
            speed = f"{record.images_per_second:,.0f} images/s, {left:.0f} s left"
            streams.note(f"{epoch}: {figures}, {speed}")
