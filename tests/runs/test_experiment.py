"""What a notebook does in three lines: make a run, train it, test it; and go on with it."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stg_np.data import DataError, load
from stg_np.divergence import TrainingError
from stg_np.engine import Threads
from stg_np.presets import PRESETS, Preset
from stg_np.runs import checkpoint
from stg_np.runs.archive import CheckpointError
from stg_np.runs.chosen import RunError
from stg_np.runs.experiment import Experiment, make_run, resume_run
from stg_np.train import TrainConfig, fit
from tests.training import bits

SMALL = {"view": "rows", "width": 8, "layers": 1}


@pytest.fixture(autouse=True)
def small_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``small``: two epochs of three steps. Every test works in an empty folder and finds no data on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STG_NP_DATA", str(tmp_path / "data"))
    config = TrainConfig(epochs=2, batch_size=400, group_size=200, flip=True)
    monkeypatch.setitem(PRESETS, "small", Preset("digits", "for tests", SMALL, config))
    for name in ("curves_png", "confusion_png"):  # drawing takes most of a tiny run, and has tests of its own
        monkeypatch.setattr(f"stg_np.runs.plots.{name}", lambda *_: b"a picture")


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
    assert scores.confusion is not None
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
    with pytest.raises(RunError, match="at least 1"):
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


def folder_contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def finish(experiment: Experiment) -> None:
    with experiment, Threads(1) as engine:
        list(experiment.train(engine))
        assert experiment.write_results(experiment.chosen(), experiment.test(engine)) == []


def test_an_older_run_goes_when_the_new_one_has_ended() -> None:
    finish(make_run("small"))
    with make_run("small", overwrite=True, seed=1) as experiment, Threads(1) as engine:
        list(islice(experiment.train(engine), 2))
    assert Path("runs/small/.replaced/best.npz").exists()
    finish(resume_run("runs/small"))
    assert not Path("runs/small/.replaced").exists()
    assert checkpoint.load(Path("runs/small/best.npz")).about.training.seed == 1


def test_an_older_run_comes_back_when_the_new_one_fails_before_it_has_saved_anything() -> None:
    finish(make_run("small"))
    before = folder_contents("runs/small")
    with (
        pytest.raises(TrainingError),
        make_run("small", overwrite=True, learning_rate=1e38) as experiment,
        Threads(1) as engine,
    ):
        list(experiment.train(engine))
    assert folder_contents("runs/small") == before


@pytest.mark.parametrize(("final", "rate"), [(False, 1e38), (True, 1e39)])
def test_what_diverges_in_its_last_step_is_not_saved(final: bool, rate: float) -> None:
    run = make_run("small", epochs=1, batch_size=1293, learning_rate=rate, final=final)
    with run as experiment, Threads(1) as engine:
        with pytest.raises(TrainingError, match="finite"):
            list(experiment.train(engine))
        assert experiment.chosen().now.step == 0
    assert not Path("runs/small/best.npz").exists()
    make_run("small")  # nothing is lost


def test_what_gives_no_finite_loss_is_no_success() -> None:
    with (
        make_run("small", epochs=1, batch_size=1437, learning_rate=1e38, final=True) as experiment,
        Threads(1) as engine,
    ):
        list(experiment.train(engine))
        with pytest.raises(TrainingError, match="diverged"):
            experiment.test(engine)


@pytest.mark.parametrize("other", [{"seed": 1}, {"final": False, "epochs": 3}, {"batch_size": 300}])
def test_the_best_of_another_run_is_not_tested_as_this_ones(other: dict[str, Any]) -> None:
    finish(make_run("small"))
    finish(make_run("small", out="other", **other))
    shutil.copy("other/best.npz", "runs/small/best.npz")
    before = folder_contents("runs/small")
    with resume_run("runs/small") as experiment, Threads(1) as engine:
        with pytest.raises(RunError, match="not of the run"):
            list(experiment.train(engine))
        with pytest.raises(RunError, match="not of the run"):
            experiment.test(engine)
    with pytest.raises(RunError, match="not of the run"):
        make_run("small", init_from="runs/small", out="third")
    assert folder_contents("runs/small") == before


def test_the_best_of_an_earlier_epoch_is_not_the_best() -> None:
    finish(make_run("small"))
    about, now = checkpoint.load(Path("runs/small/best.npz"))
    checkpoint.save(Path("runs/small/best.npz"), about, now._replace(step=0, best_accuracy=0.0, improved_at=0))
    with pytest.raises(RunError, match="not of the run"), resume_run("runs/small") as experiment:
        experiment.chosen()


def test_the_best_may_be_ahead_where_the_power_failed_between_the_two_files() -> None:
    finish(make_run("small", out="whole"))
    with make_run("small") as experiment, Threads(1) as engine:
        for record in experiment.train(engine):
            if record.kind == "epoch":
                break
        (*_, second) = fit(experiment.run, engine, start=record.now)
        checkpoint.save(experiment.folder.best, experiment.about, second.now)
    finish(resume_run("runs/small"))
    assert bits(checkpoint.load(Path("runs/small/best.npz")).now) == bits(checkpoint.load(Path("whole/best.npz")).now)


def test_without_the_best_the_last_is_tested_with_its_own_validation_accuracy() -> None:
    with make_run("small", epochs=3) as experiment, Threads(1) as engine:
        records = [record for record in experiment.train(engine) if record.kind == "epoch"]
        assert experiment.validation_accuracy(experiment.chosen().now) == max(
            r.validation_accuracy or 0 for r in records
        )
        Path("runs/small/best.npz").unlink()
        assert experiment.validation_accuracy(experiment.chosen().now) == records[-1].validation_accuracy
        Path("runs/small/metrics.jsonl").unlink()
        assert experiment.validation_accuracy(experiment.chosen().now) is None


def test_a_run_that_went_on_meanwhile_is_not_gone_on_with_from_before() -> None:
    with make_run("small") as experiment, Threads(1) as engine:
        list(islice(experiment.train(engine), 2))
    early = resume_run("runs/small")
    finish(resume_run("runs/small"))
    with pytest.raises(RunError, match="meanwhile"), early:
        pass


def test_what_cannot_be_drawn_is_named_and_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise SystemExit("no\nLaTeX")

    monkeypatch.setattr("stg_np.runs.plots.curves_png", broken)
    with make_run("small") as experiment, Threads(1) as engine:
        list(experiment.train(engine))
        failed = experiment.write_results(experiment.chosen(), experiment.test(engine))
    assert failed == ["curves.png could not be drawn: SystemExit: no LaTeX"]
    assert Path("runs/small/confusion.png").exists()
