"""How training shows itself: on a terminal, and in a log file."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from stg_np.commands.progress import QUIET, Progress
from stg_np.engine import Threads
from stg_np.train import Record, fit
from tests.training import make_run

RUN = make_run(epochs=3)
"""Nine steps of 16 pictures."""


class Terminal(io.StringIO):
    is_gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(errno.ENOSPC, "gone")
        return super().write(text)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    with Threads(1) as engine:
        return list(fit(RUN, engine, log_every=1))


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_terminal_sees_a_bar_and_keeps_a_line_an_epoch(
    monkeypatch: pytest.MonkeyPatch, records: list[Record], columns: int
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    with Progress(RUN, 0) as shown:
        for record in records:
            shown.show(record)
    pieces = terminal.getvalue().replace("\n", "\r").split("\r")
    bar = next(piece for piece in reversed(pieces) if "100%" in piece)
    assert bar.startswith("epoch 3/3 100%|")
    assert all(part in bar for part in ("images/s", "loss", "<00:"))
    assert min(columns, 80) - 3 <= len(bar) < min(columns, 80)
    kept = [piece for piece in pieces if "validation" in piece]
    assert [piece.split(":")[0] for piece in kept] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("accuracy" in piece and len(piece) < 80 for piece in kept)


def test_a_log_file_gets_a_line_an_epoch_and_one_if_an_epoch_is_long(
    monkeypatch: pytest.MonkeyPatch, records: list[Record]
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    seconds = iter([0, 1, QUIET + 1, QUIET + 2, QUIET + 3, *[QUIET + 4] * 20])  # at the beginning, and at each record
    with Progress(RUN, 0, clock=lambda: next(seconds)) as shown:
        for record in records:
            shown.show(record)
    lines = log.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3, step 2/9", "epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert lines[0].endswith(f"images/s, {7 * (QUIET + 1) / 2:.0f} s left")
    assert lines[-1].endswith("images/s, 0 s left")


@pytest.mark.parametrize("shown", [0, 3, 99])
def test_a_terminal_that_goes_away_is_no_error(
    monkeypatch: pytest.MonkeyPatch, records: list[Record], shown: int
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(RUN, 0) as progress:
        for record in records[:shown]:
            progress.show(record)
        terminal.is_gone = True
        for record in records[shown:]:
            progress.show(record)
