"""Commands that use what was trained: which file of a folder they take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stg_np.runs import checkpoint
from tests.runs.used import Stg, arrays, trained_on
from tests.training import pictures

COMMANDS = [["eval", "run"], ["predict", "run", "a.png"], ["summary", "run"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_of_a_folder_the_best_state_is_used_if_it_is_of_that_run(stg: Stg, command: list[str]) -> None:
    Image.new("L", (8, 8), 90).save("a.png")
    Path("run").mkdir()
    data = arrays("mine.npz", pictures(40, 1), pictures(30, 2))
    last = trained_on(data, "run/checkpoint.npz", steps=6)
    of_last = stg(*command)
    assert of_last.code == 0
    best = trained_on(data, "run/best.npz", steps=3)
    checkpoint.save(Path("run/checkpoint.npz"), last.about, last.now._replace(best_accuracy=best.now.best_accuracy))
    of_best = stg(*command)
    assert of_best.out == stg(command[0], "run/best.npz", *command[2:]).out != of_last.out
    other = replace(best.about, training=replace(best.about.training, seed=9))
    checkpoint.save(Path("run/best.npz"), other, best.now)
    assert stg(*command).refused("run/best.npz is not of the run")
    Path("run/checkpoint.npz").unlink()  # somebody has kept the best one alone
    assert stg(*command).code == 0
