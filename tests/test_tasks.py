"""Tasks of sequences from end to end: drawn afresh, trained and resumed to the same bits, read from left to right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stg_np.backend import to_device, to_host
from stg_np.data import DataError, load
from stg_np.data.augment import Scaling
from stg_np.data.sequences import adding_task, copy_task
from stg_np.engine import Threads
from stg_np.models.gru import GRU
from stg_np.models.lstm import LSTM
from stg_np.models.rnn import RNN
from stg_np.models.stack import Stack
from stg_np.models.stg import STG
from stg_np.presets import PRESETS
from stg_np.runs.experiment import make_run, resume_run
from stg_np.train import Examples, Run, TrainConfig, TrainState, fit
from tests.runs.used import Stg, runner
from tests.training import bits

SMALL = {"model": {"width": 4, "layers": 1}, "training": {"epochs": 2, "batch_size": 250, "group_size": 125}}


@pytest.fixture
def stg(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stg:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


# --- from left to right ---------------------------------------------------------------------------------------------


ONE_WAY: dict[str, Any] = {"input_shape": (9, 3), "classes": 4, "width": 6, "layers": 3, "bidirectional": False}
MODELS = {
    "input-only STG": STG(**ONE_WAY, pool="none"),
    "recurrent STG": STG(**ONE_WAY, pool="none", recurrent=True),
    "LSTM": LSTM(**ONE_WAY, pool="none"),
    "GRU": GRU(**ONE_WAY, pool="none"),
    "RNN": RNN(**ONE_WAY, pool="none"),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_one_direction_never_looks_ahead(device: str, model: Stack) -> None:
    """No answer changes with what comes after its step: no layer, norm or pooling looks ahead."""
    rng = np.random.default_rng(0)
    params, state = model.init(rng, np.float64)
    params = params.with_flat(to_device(params.flat, device))
    x = rng.standard_normal((2, 9, 3))
    logits = to_host(model.forward(to_device(x, device), params, state)[0])
    for t in range(9):
        other = x.copy()
        other[:, t:] = rng.standard_normal((2, 9 - t, 3))
        changed = to_host(model.forward(to_device(other, device), params, state)[0])
        np.testing.assert_array_equal(changed[:, :t], logits[:, :t])
        assert (changed[:, t] != logits[:, t]).all()
    at_the_end = replace(model, pool="last")
    np.testing.assert_array_equal(to_host(at_the_end.forward(to_device(x, device), params, state)[0]), logits[:, -1])


def test_every_preset_of_a_task_reads_from_left_to_right() -> None:
    tasks = {name: preset for name, preset in PRESETS.items() if name.startswith(("adding", "copy"))}
    assert tasks
    for preset in tasks.values():
        model = preset.make_model((5, 2), 1)
        assert isinstance(model, STG)
        assert not model.bidirectional
        assert model.pool == ("none" if preset.data.startswith("copy") else "last")


# --- drawn afresh ---------------------------------------------------------------------------------------------------


def adding_run(**config: Any) -> Run:
    """Two epochs of three steps in groups of 4 and 2."""
    task = adding_task(6)
    train = Examples(*task.draw(np.random.default_rng(0), 18))
    settings = TrainConfig(**{"epochs": 2, "batch_size": 6, "group_size": 4, **config})
    model = STG((6, 2), 1, width=4, layers=1, bidirectional=False, pool="last")
    scaling = Scaling(np.zeros(2), np.ones(2), 1)
    return Run(model, settings, train, train, scaling, loss=task.loss, fresh=task.draw)


def states(run: Run, workers: int = 1, start: TrainState | None = None) -> list[TrainState]:
    with Threads(workers) as engine:
        return [record.now for record in fit(run, engine, start=start, log_every=1) if record.kind == "step"]


def test_going_on_after_any_step_gives_the_same_bits() -> None:
    whole = states(adding_run())
    assert len(whole) == 6
    for k in (0, 3):
        assert bits(states(adding_run(), start=whole[k])[-1])["params"] == bits(whole[-1])["params"]
    assert bits(states(adding_run(), workers=3)[-1]) == bits(whole[-1])
    assert bits(states(adding_run(seed=1))[-1])["params"] != bits(whole[-1])["params"]


def test_no_sequence_is_drawn_twice() -> None:
    seen: list[bytes] = []

    def remembering(rng: np.random.Generator, count: int) -> Any:
        drawn = adding_task(6).draw(rng, count)
        seen.extend(x.tobytes() for x in drawn[0])
        return drawn

    run = replace(adding_run(), fresh=remembering)
    states(run)
    assert len(seen) == 2 * 18
    assert len({*seen, *(x.tobytes() for x in run.train.images)}) == 3 * 18


# --- as data sets ---------------------------------------------------------------------------------------------------


def test_a_task_is_loaded_by_its_name() -> None:
    adding, copy = load("adding-7"), load("copy-3")
    assert (adding.shape, copy.shape) == ((7, 2), (23, 10))
    assert adding.test_labels.shape == (1000, 1)
    assert copy.test_labels.shape == (1000, 23)
    assert load("adding-7").fingerprint == adding.fingerprint != load("adding-8").fingerprint
    assert not np.array_equal(adding.train_images, adding.test_images)


@pytest.mark.parametrize("name", ["adding-1", "copy-0", "adding-999999999999"])
def test_a_number_that_makes_no_task_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="the number must be from"):
        load(name)


def test_a_task_is_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave the data folder out"):
        load("adding-7", tmp_path)


@pytest.mark.parametrize("name", ["subtracting-7", "adding-", "adding-seven"])
def test_other_names_are_none(name: str) -> None:
    with pytest.raises(DataError, match="there is no data set"):
        load(name)


def test_the_loss_without_a_memory_is_what_is_said() -> None:
    """Of the copying task: blanks where there are blanks, and then one symbol of eight at random."""
    task = copy_task(5)
    x, labels = task.draw(np.random.default_rng(0), 4)
    logits = np.where(x[..., 9:] > 0, np.log([1e-30, *[1 / 8] * 8, 1e-30]), np.log([1, *[1e-30] * 9]))
    logits[:, -11] = np.log([1, *[1e-30] * 9])  # the answer begins one step after the signal
    np.testing.assert_allclose(task.loss.forward(logits, labels)[0], task.untrained, rtol=1e-6)


# --- as runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "data"), [("adding-200", "adding-6"), ("copy-100", "copy-2")])
def test_a_run_is_stopped_resumed_and_tested(stg: Stg, preset: str, data: str) -> None:
    settings: dict[str, Any] = {"preset": preset, "data": data, "changes": SMALL}
    with make_run(out="whole", **settings) as whole, Threads(1) as engine:
        last = list(whole.train(engine))[-1]
        scores = whole.test(engine)
    asked = iter([False] * 5 + [True])
    with make_run(out="parts", **settings) as first, Threads(1) as engine:
        list(first.train(engine, should_stop=lambda: next(asked)))
    with resume_run("parts") as rest, Threads(1) as engine:
        assert bits(list(rest.train(engine))[-1].now) == bits(last.now)
    assert scores.confusion is None
    assert not whole.write_results(whole.chosen(), scores)
    assert not Path("whole/confusion.png").exists()


def test_the_commands_speak_of_the_task(stg: Stg) -> None:
    small = ["--set", "model.width=4", "model.layers=1", "--batch-size", "250", "--epochs", "1"]
    trained = stg("train", "--preset", "adding-200", "--data", "adding-6", "--set", "training.group_size=250", *small)
    assert trained.code == 0
    assert "1,000 sequences an epoch, each drawn afresh, 200 held out, 1,000 to test" in trained.out
    assert trained.out.splitlines()[-1].startswith("test mean squared error 0.")
    tested = stg("eval", "runs/adding-200")
    assert tested.out.splitlines()[-1] == trained.out.splitlines()[-1].removeprefix("test ")
    assert "without a memory 0.167" in tested.out
    figures = json.loads(stg("eval", "runs/adding-200", "--json").out)
    assert figures["loss"] > 0
    assert "confusion" not in figures
    refused = stg("eval", "runs/adding-200", "--gallery", "wrong.png")
    assert refused.code == 2
    assert "not a model of grey or coloured pictures" in refused.err


@pytest.mark.parametrize("view", ["rows", "permuted"])
def test_noise_after_a_picture_is_walked_like_its_steps(view: str) -> None:
    """The network of the padded picture is that of the picture whose sequence is written out."""
    padded = STG((4, 3, 2), 5, view=view, noise=6, width=6, bidirectional=False, pool="last")
    params, state = padded.init(np.random.default_rng(0), np.float64)
    x = np.random.default_rng(1).standard_normal((2, 4, 3, 2))
    steps = {"rows": 4, "permuted": 12}[view] + 6
    assert padded.grid == (1, steps)
    sequence = padded.in_steps(x)
    written_out = STG(sequence.shape[1:], 5, width=6, bidirectional=False, pool="last")
    np.testing.assert_array_equal(padded.forward(x, params, state)[0], written_out.forward(sequence, params, state)[0])
    assert padded.parts(params)[1].shape == (steps, sequence.shape[2])
