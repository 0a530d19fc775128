"""What the tests of runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs.used import Stg, runner


@pytest.fixture
def stg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stg:
    """The program, inside the process of the test, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return runner(capsys)
