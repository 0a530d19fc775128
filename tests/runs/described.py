"""A description for the tests of runs, and a state that holds something everywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from stg_np.engine import Threads
from stg_np.runs.archive import CheckpointError
from stg_np.runs.description import About, DataFacts
from stg_np.train import TrainState, fit
from tests.training import MODEL, SCALING, make_run

FACTS = DataFacts(
    name="quarters",
    label="quarters (not the official files, fingerprint 01234567)",
    fingerprint="01234567",
    official=False,
    flip=True,
    classes=("upper left", "upper right", "lower left", "lower right"),
    mean=tuple(SCALING.mean.tolist()),
    std=tuple(SCALING.std.tolist()),
    value_range=255,
)
ABOUT = About("0.1.0", "tiny", False, "cpu", FACTS, MODEL, make_run().config)


@cache
def trained_state(steps: int = 4, model: Any = MODEL) -> TrainState:
    """In the middle of the second epoch, so that every array of the state holds something. All tests share one."""
    with Threads(1) as engine:
        records = fit(make_run(model=model), engine, log_every=1)
        return next(record.now for record in records if record.step == steps)


def refusal(action: Callable[[], object]) -> str:
    """Run what must fail, and return its message after checking that a user can be shown it as it is."""
    with pytest.raises(CheckpointError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message
