"""What a notebook does in three lines: make a run, train it, test it; and go on with it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from stg_np.data import DataError, load
from stg_np.engine import Threads
from stg_np.presets import PRESETS, Preset
from stg_np.runs import checkpoint
from stg_np.runs.archive import CheckpointError
from stg_np.runs.experiment import RunError, make_run, resume_run
from stg_np.train import TrainConfig
from tests.training import bits

SMALL = {"view": "rows", "width": 8, "layers": 1}


@pytest.fixture(autouse=True)
def small_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``small``: two epochs of three steps. Every test works in an empty folder and finds no data on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STG_NP_DATA", str(tmp_path / "data"))
    config = TrainConfig(epochs=2, batch_size=400, flip=True, rotate=5.0)
    monkeypatch.setitem(PRESETS, "small", Preset("digits", "for tests", SMALL, config))


def test_a_run_is_made_trained_and_tested() -> None:
    with make_run("small") as experiment, Threads(1) as engine:
        records = list(experiment.train(engine))
        scores = experiment.test(engine)
        experiment.write_results(experiment.chosen(), scores)
    assert [record.kind for record in records] == ["step", "epoch"] * 2
    folder = Path("runs/small")
    assert {path.name for path in folder.iterdir()} >= {"config.toml", "checkpoint.npz", "best.npz", "curves.png"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "epoch", "step", "epoch", "test"]
    assert lines[-1]["accuracy"] == scores.accuracy == np.trace(scores.confusion) / scores.pictures
    assert bits(checkpoint.load(folder / "checkpoint.npz").now) == bits(records[-1].now)


def test_the_run_is_described_as_it_is() -> None:
    digits = load("digits", split_seed=3)
    experiment = make_run("small", split="random", seed=3, epochs=5, out="elsewhere")
    run, about = experiment.run, experiment.about
    assert (run.config.seed, run.config.epochs, run.config.batch_size) == (3, 5, 400)
    assert not run.config.flip  # a mirrored digit is no digit
    assert run.validation is not None
    assert len(run.train.labels) + len(run.validation.labels) == len(digits.train_labels)
    scaled = (run.train.images / 16 - run.scaling.mean) / run.scaling.std
    assert abs(scaled.mean()) < 1e-9
    assert abs(scaled.std() - 1) < 1e-9
    assert (about.model, about.training, about.preset) == (run.model, run.config, "small")
    assert (about.data.label, about.data.classes) == (digits.label, digits.classes)
    assert not Path("elsewhere").exists()  # until it is entered


def test_final_holds_nothing_out_and_tests_the_last_state() -> None:
    with make_run("small", final=True, epochs=1) as experiment, Threads(1) as engine:
        assert experiment.run.validation is None
        assert len(experiment.run.train.labels) == 1437
        *_, last = experiment.train(engine)
        assert bits(experiment.chosen().now) == bits(last.now)


def test_a_run_that_was_left_is_resumed_to_the_same_bits() -> None:
    with make_run("small", out="whole") as experiment, Threads(1) as engine:
        *_, whole = experiment.train(engine)
    with make_run("small", out="run") as experiment, Threads(1) as engine:
        list(islice(experiment.train(engine), 3))  # the second epoch has begun, and is not saved
    with resume_run("run", preset="small", epochs=2) as experiment, Threads(2) as engine:
        assert experiment.start.step == 3
        *_, last = experiment.train(engine)
    assert bits(last.now) == bits(whole.now)


def test_stopping_saves_the_state() -> None:
    with make_run("small") as experiment, Threads(1) as engine:
        (record,) = experiment.train(engine, should_stop=lambda: True)
        assert record.kind == "stopped"
        assert bits(experiment.chosen().now) == bits(record.now)


def test_the_preset_follows_the_data_and_the_data_follow_the_preset() -> None:
    assert make_run().about.preset == make_run(data="digits").about.preset == "digits"
    with pytest.raises(DataError, match="cifar10"):
        make_run("cifar10-rows")
    with pytest.raises(DataError, match="did you mean digits"):
        make_run(data="digitz")
    with pytest.raises(RunError, match="no preset 'nope'"):
        make_run("nope")


def test_what_is_no_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="dropout"):
        make_run("small", dropout=0.5)
    with pytest.raises(ValueError, match="at least 1"):
        make_run("small", epochs=0)


def test_a_run_is_not_replaced_unless_asked() -> None:
    with make_run("small") as experiment, Threads(1) as engine:
        list(islice(experiment.train(engine), 2))
    with pytest.raises(RunError, match="already holds a run"):
        make_run("small")
    late = make_run("small", out="late")
    with make_run("small", out="late") as experiment, Threads(1) as engine:
        list(islice(experiment.train(engine), 2))
    with pytest.raises(RunError, match="already holds a run"), late:
        pass  # somebody else has trained there since it was made
    with make_run("small", overwrite=True) as experiment:
        assert experiment.chosen().now.step == 0


def test_one_training_at_a_time_in_a_folder() -> None:
    with make_run("small"), pytest.raises(CheckpointError, match="another training"), make_run("small", overwrite=True):
        pass
    with make_run("small"):  # after both have left
        pass


def test_resuming_refuses_what_contradicts_the_run() -> None:
    with pytest.raises(CheckpointError, match="no run to resume"):
        resume_run("runs/small")
    with make_run("small"):
        pass
    with pytest.raises(RunError, match=r"--epochs 3 cannot be changed .* --epochs 2"):
        resume_run("runs/small", epochs=3)
    with pytest.raises(RunError, match="--final cannot be changed"):
        resume_run("runs/small", final=True)
    with pytest.raises(TypeError, match="epoch is nothing"):
        resume_run("runs/small", epoch=2)
