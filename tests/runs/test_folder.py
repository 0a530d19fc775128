"""A run's folder: what is written is read back the same, and what was forged is refused in one sentence."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from stg_np.backend import to_host
from stg_np.engine import Threads
from stg_np.models.stg import STG
from stg_np.optim import OPTIMIZERS, SCHEDULES
from stg_np.runs import checkpoint
from stg_np.runs.checkpoint import CheckpointError
from stg_np.runs.folder import (
    About,
    DataFacts,
    RunFolder,
    about_from,
    arrays_of,
    blank_state,
    load,
    metrics_line,
    save,
    without_none,
)
from stg_np.train import TrainConfig, TrainState, fit, initial_state
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
    value_range=SCALING.value_range,
)
ABOUT = About("0.1.0", "tiny", False, "cpu", FACTS, MODEL, make_run().config)


def trained_state(steps: int = 4) -> TrainState:
    """In the middle of the second epoch, so that every array of the state holds something."""
    run = make_run()
    with Threads(1) as workers:
        return next(record.now for record in fit(run, workers, log_every=1) if record.step == steps)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save(tmp_path / "checkpoint.npz", ABOUT, trained_state())
    return tmp_path / "checkpoint.npz"


def forge(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Replace the header of a checkpoint; the arrays stay."""
    header = checkpoint.read_header(path)
    change(header)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "header"}
    checkpoint.save(path, arrays, header)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# ------------------------------------------------------------------------------------------------ checkpoints


def test_a_checkpoint_holds_everything(stored: Path) -> None:
    now = trained_state()
    about, found = load(stored)
    assert about == ABOUT
    assert (found.step, found.best_accuracy) == (now.step, now.best_accuracy)
    before, after = arrays_of(now), arrays_of(found)
    assert before.keys() == after.keys() > {"params", "loss_sum", "correct", "bad_step"}
    for name, array in before.items():
        assert after[name].dtype == array.dtype
        np.testing.assert_array_equal(after[name], array)
    assert found.params.layout == now.params.layout
    np.testing.assert_array_equal(about.data.scaling.mean, SCALING.mean)


def test_a_checkpoint_goes_to_the_device_and_back(device: str, tmp_path: Path) -> None:
    now = initial_state(make_run(device=device))
    save(tmp_path / "a.npz", replace(ABOUT, device=device), now)
    there, back = load(tmp_path / "a.npz").now, load(tmp_path / "a.npz", "cpu").now
    assert type(there.params.flat) is type(now.params.flat)
    np.testing.assert_array_equal(to_host(there.params.flat), back.params.flat)
    assert isinstance(back.params.flat, np.ndarray)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("model", "width", 10**9),
        ("model", "layers", 10**9),
        ("model", "input_shape", [8, 10**12, 1]),
        ("model", "classes", 10**9),
        ("model", "width", 16),
        ("model", "width", "8"),
        ("model", "width", True),
        ("model", "kind", "__import__"),
        ("model", "kind", ["stg"]),
        ("model", "surprise", 1),
        ("model", "patch", [4, 4, 4]),
        ("model", "patch", 4),
        ("model", "view", "sideways"),
        ("training", "epochs", 0),
        ("training", "optimizer", "magic"),
        ("training", "optimizer", "sgd"),  # its moments are not those in the file
        ("training", "shift_padding", "wrap"),
        ("training", "learning_rate", float("nan")),
        ("training", "learning_rate", 10**400),
        ("data", "std", [0.0]),
        ("data", "std", []),
        ("data", "mean", [0.5, 0.5]),
        ("data", "value_range", 0),
        ("data", "classes", ["only one"]),
        ("data", "classes", "four"),
        ("data", "split_seed", "0"),
    ],
)
def test_a_forged_entry_is_one_sentence(stored: Path, section: str, name: str, value: object) -> None:
    forge(stored, lambda header: header[section].update({name: value}))
    assert str(stored) in refusal(lambda: load(stored))


@pytest.mark.parametrize(
    "name", ["step", "best_accuracy", "version", "preset", "final", "device", "data", "model", "training"]
)
@pytest.mark.parametrize("value", [None, [], "x", -0.5, {"x": 1}])
def test_a_forged_section_is_one_sentence(stored: Path, name: str, value: object) -> None:
    if (name, value) in [("preset", "x"), ("version", "x")]:
        return  # any text will do
    forge(stored, lambda header: header.update({name: value}))
    assert str(stored) in refusal(lambda: load(stored))


def test_a_missing_entry_is_named_and_an_optional_one_is_not_missed(stored: Path) -> None:
    forge(stored, lambda header: header["data"].pop("split_seed"))
    assert load(stored).about == ABOUT
    forge(stored, lambda header: header["data"].pop("fingerprint"))
    assert "fingerprint" in refusal(lambda: load(stored))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
places = [(section, name) for section in ("data", "model", "training") for name in ABOUT.as_dict()[section]]


@given(place=st.sampled_from(places), value=json_values)
def test_whatever_an_entry_holds_it_is_described_or_refused(place: tuple[str, str], value: Any) -> None:
    values = json.loads(json.dumps(ABOUT.as_dict()))
    values[place[0]][place[1]] = value
    try:
        about = about_from(values)
        blank_state(about, ration=100_000)
    except (ValueError, OverflowError, MemoryError):
        return
    assert about_from(json.loads(json.dumps(about.as_dict()))) == about


configs = st.builds(
    TrainConfig,
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(1, 10**6),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    learning_rate=st.floats(0, 1e9),
    weight_decay=st.floats(0, 1, allow_subnormal=True),
    flip=st.booleans(),
    shift_padding=st.sampled_from(["reflect", "zero"]),
    seed=st.integers(0, 2**31),
)
models = st.builds(
    STG,
    input_shape=st.just((8, 8, 1)),
    classes=st.just(4),
    view=st.sampled_from(["rows", "patches", "pixels"]),
    width=st.sampled_from([2, 8]),
    recurrent=st.booleans(),
    length=st.floats(0, 1e6),
)


@given(config=configs, model=models, label=st.text(), seed=st.none() | st.integers(0, 9))
def test_a_description_survives_json_and_toml(config: TrainConfig, model: STG, label: str, seed: int | None) -> None:
    about = replace(ABOUT, training=config, model=model, data=replace(FACTS, label=label, split_seed=seed))
    assert about_from(json.loads(json.dumps(about.as_dict()))) == about
    if "\r" not in label:  # TOML normalises line ends
        assert about_from(tomllib.loads(tomli_w.dumps(without_none(about.as_dict())))) == about


# --------------------------------------------------------------------------------------------------- the folder


def test_a_new_run_removes_what_an_older_one_left(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    assert not folder.has_progress
    folder.begin(ABOUT, trained_state())
    for path in (folder.best, folder.metrics, folder.curves):
        path.write_text("old")
    (folder.path / "notes.txt").write_text("mine")
    assert folder.has_progress
    assert folder.chosen == folder.best
    folder.begin(ABOUT, initial_state(make_run()))
    assert {path.name for path in folder.path.iterdir()} == {"config.toml", "checkpoint.npz", "notes.txt"}
    assert not folder.has_progress
    assert folder.chosen == folder.last


def test_the_configuration_is_complete_and_compared(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_config(ABOUT)  # there is none to contradict
    folder.write_config(ABOUT)
    folder.check_config(ABOUT)
    assert about_from(tomllib.loads(folder.config.read_text())) == ABOUT
    other = replace(ABOUT, training=replace(ABOUT.training, seed=7))
    assert "training.seed" in refusal(lambda: folder.check_config(other))
    assert "data.split_seed" in refusal(lambda: folder.check_config(replace(ABOUT, data=replace(FACTS, split_seed=1))))
    folder.config.write_bytes(b"\xff")
    assert str(folder.config) in refusal(lambda: folder.check_config(ABOUT))


def test_metrics_know_no_more_than_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() == []
    with Threads(1) as workers:
        for record in fit(make_run(), workers, log_every=1):
            folder.append(metrics_line(record, FACTS.label))
    folder.append({"kind": "test", "step": 6, "accuracy": 1.0})
    whole = folder.read_metrics()
    assert len(whole) == 6 + 2 + 1
    assert all(line["data"] == FACTS.label for line in whole[:-1])
    with folder.metrics.open("a") as file:
        file.write('{"kind": "step", "step": 7, "lo')  # the power failed here
    assert folder.read_metrics() == whole
    folder.forget_after(6)
    assert folder.read_metrics() == whole[:-1]
    folder.forget_after(4)
    assert [(line["kind"], line["step"]) for line in folder.read_metrics()] == [
        ("step", 1), ("step", 2), ("step", 3), ("epoch", 3), ("step", 4),
    ]  # fmt: skip
    assert folder.metrics.read_text().endswith("}\n")


@pytest.mark.parametrize("line", ["[]", "3", "{}", '{"step": "7", "kind": "step"}', '{"step": 7}', "\x00"])
def test_lines_that_are_no_records_are_left_out(tmp_path: Path, line: str) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text(line + "\n")
    assert folder.read_metrics() == []


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file" / "run")
    assert "--out" in refusal(lambda: folder.begin(ABOUT, trained_state()))
    assert "metrics.jsonl" in refusal(lambda: folder.append({"kind": "step"}))
