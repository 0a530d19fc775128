"""Commands that use what was trained: which file of a folder they take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("command", [*COMMANDS, ["explain", "run", "a.png"], ["export", "run", "x.npz"]])
def test_what_is_not_finite_is_never_used(stg: Stg, command: list[str]) -> None:
    """A checkpoint of another program, or of an older version, may be anything."""
    Image.new("L", (8, 8), 90).save("a.png")
    Path("run").mkdir()
    about, now = trained_on(arrays("mine.npz", pictures(40, 1), pictures(30, 2)), "run/checkpoint.npz", steps=1)
    spoilt = now.params.with_flat(np.full_like(now.params.flat, np.nan))
    checkpoint.save(Path("run/checkpoint.npz"), about, now._replace(params=spoilt))
    assert stg(*command).refused("run/checkpoint.npz holds what is not finite (params)")


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_a_model_that_overflows_gives_no_answer(stg: Stg, command: list[str]) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("a.png")
    Path("run").mkdir()
    about, now = trained_on(arrays("mine.npz", pictures(40, 1), pictures(30, 2)), "run/checkpoint.npz", steps=1)
    most = np.float32(3e38)  # and 3.4e38 is the largest number
    huge = now.params.replaced({"head.W": np.sign(now.params["head.W"]) * most, "head.b": now.params["head.b"] + most})
    checkpoint.save(Path("run/checkpoint.npz"), about, now._replace(params=huge))
    result = stg(*command)
    assert (result.code, result.out) == (1, ""), result
    assert "is not finite" in result.err
