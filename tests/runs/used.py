"""A checkpoint and pictures for it, for the tests of commands that use what was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from stg_np.cli import main
from stg_np.data import Dataset, load
from stg_np.runs import checkpoint
from stg_np.runs.checkpoint import Stored
from stg_np.train import Examples
from tests.runs.described import ABOUT, FACTS, trained_state

NAMES = FACTS.classes


@dataclass
class Result:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def refused(self, *parts: str) -> bool:
        """Whether it ended with 2 and one sentence on stderr that says what the parts say."""
        one = self.err.startswith("stg-np: ") and self.err.count("\n") == 1
        return self.code == 2 and one and all(part in self.err for part in parts)


Stg = Callable[..., Result]


def runner(capsys: pytest.CaptureFixture[str]) -> Stg:
    """The program, inside the process of the test."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # argparse
            code = int(leaving.code or 0)
        return Result(code, *capsys.readouterr())

    return run


def arrays(path: str, train: Examples, test: Examples, classes: tuple[str, ...] = NAMES) -> Dataset:
    """Write an archive of pictures, and load it."""
    made = Dataset.from_arrays(*train, *test, classes=classes, value_range=255)
    made.save(path)
    return load(path)


def trained_on(dataset: Dataset, path: str | Path, steps: int = 4) -> Stored:
    """A checkpoint of a tiny model of four classes, as if it had been trained on a data set, after a few steps."""
    facts = replace(
        FACTS, name=dataset.name, label=dataset.label, fingerprint=dataset.fingerprint, flip=False,
        classes=dataset.classes, value_range=dataset.value_range, split_seed=None,
    )  # fmt: skip
    stored = Stored(replace(ABOUT, data=facts), trained_state(steps))
    checkpoint.save(Path(path), *stored)
    return stored
