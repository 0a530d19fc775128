"""Checkpoints: what is written is read back the same, and what was forged is refused in one sentence."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stg_np.backend import Array, to_host
from stg_np.models import MODELS
from stg_np.models.base import Part
from stg_np.params import Entry, Layout, Params, State
from stg_np.runs import archive
from stg_np.runs.checkpoint import arrays_of, load, save
from stg_np.runs.folder import RunFolder
from stg_np.summary import summary_text
from stg_np.train import initial_state
from tests.runs.described import ABOUT, refusal, trained_state
from tests.training import MODEL, SCALING, make_run


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save(tmp_path / "checkpoint.npz", ABOUT, trained_state())
    return tmp_path / "checkpoint.npz"


def forge(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Replace the header of a checkpoint; the arrays stay."""
    header = archive.read_header(path)
    change(header)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "header"}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def test_a_checkpoint_holds_everything(stored: Path) -> None:
    now = trained_state()
    about, found = load(stored)
    assert about == ABOUT
    assert (found.step, found.best_accuracy, found.improved_at) == (now.step, now.best_accuracy, now.improved_at)
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
        ("training", "optimizer", {"kind": "sgd"}),  # its moments are not those in the file
        ("training", "shift_padding", "wrap"),
        ("training", "warmup", float("nan")),
        ("training", "clip_norm", 10**400),
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
    "name",
    ["step", "best_accuracy", "improved_at", "version", "preset", "final", "device", "data", "model", "training"],
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


@pytest.mark.parametrize(("name", "value"), [("width", 10**9), ("layers", 10**9), ("classes", 10**9)])
def test_a_model_larger_than_its_file_costs_no_memory(stored: Path, name: str, value: int) -> None:
    def change(header: dict[str, Any]) -> None:
        header["model"][name] = value
        if name == "classes":
            header["data"]["classes"] = ["x"] * 4

    forge(stored, change)
    tracemalloc.start()
    try:
        refusal(lambda: load(stored))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    endless = {"version": "x" * (1 << 20)}
    with pytest.raises(ValueError, match="could not be read again"):
        archive.save(tmp_path / "a.npz", {}, endless)
    text = np.frombuffer(json.dumps({"format": archive.FORMAT} | endless).encode(), np.uint8)
    np.savez(tmp_path / "a.npz", header=text)
    assert "header of more than" in refusal(lambda: load(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    "change",
    [
        {"input_shape": [10_000, 10_000, 1], "view": "pixels"},
        {"input_shape": [4096, 4096, 1], "view": "pixels", "width": 8},
        {"layers": 9_000},
        {"kind": "mlp", "widths": [1] * 9_000},
        {"kind": "image-stg", "widths": [1], "window": 1, "stem": 0, "directions": 1, "sweeping": [], "depth": 9_000},
    ],
)
def test_a_small_file_cannot_ask_for_much_memory(stored: Path, change: dict[str, Any]) -> None:
    def ask(header: dict[str, Any]) -> None:
        plain = {name: header["model"][name] for name in ("input_shape", "classes")}
        header["model"] = (plain if "kind" in change else header["model"]) | change

    forge(stored, ask)
    tracemalloc.start()
    try:
        refusal(lambda: load(stored))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_what_could_not_be_read_again_is_not_begun(tmp_path: Path) -> None:
    vast = replace(ABOUT, model=replace(MODEL, input_shape=(4096, 4096, 1), view="pixels"))
    message = refusal(lambda: RunFolder(tmp_path).begin(vast, initial_state(make_run())))
    assert "numbers for one example" in message
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Blur:
    """A second kind of model, as small as can be: it knows the class by the mean of the pixels, and counts batches."""

    input_shape: tuple[int, ...]
    classes: int

    def layout(self) -> Layout:
        return Layout((Entry("head.W", (1, self.classes), "head"),))

    def state_layout(self) -> Layout:
        return Layout((Entry("batches", (1,), "frozen"),))

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        params = Params.pack(self.layout(), {"head.W": rng.standard_normal((1, self.classes)).astype(dtype)})
        return params, {"batches": np.zeros(1, dtype)}

    def forward(self, x: Array, params: Params, state: State, **options: Any) -> tuple[Array, Any, State]:
        mean = x.reshape(len(x), -1).mean(1, keepdims=True)
        return mean @ params["head.W"], mean, {"batches": state["batches"] + 1}

    def backward(self, dlogits: Array, cache: Any, params: Params, **options: Any) -> Params:
        return Params.pack(params.layout, {"head.W": cache.T @ dlogits})

    def parts(self, params: Params) -> list[Part]:
        return [Part("mean of the pixels", (1,)), Part("head", (self.classes,), self.classes)]


def test_a_second_kind_of_model_is_stored_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Blur((8, 8, 1), 4)
    path = tmp_path / "blur.npz"
    now = trained_state(model=model)
    with pytest.raises(TypeError, match="Blur"):
        save(path, replace(ABOUT, model=model), now)  # nobody could load it
    monkeypatch.setitem(MODELS, "blur", Blur)
    save(path, replace(ABOUT, model=model), now)
    about, found = load(path)
    assert about.model == model
    np.testing.assert_array_equal(found.params["head.W"], now.params["head.W"])
    assert now.state["batches"] > 0
    np.testing.assert_array_equal(found.state["batches"], now.state["batches"])


def test_a_second_kind_of_model_is_summed_up() -> None:
    model = Blur((8, 8, 1), 4)
    _, head, total, *_ = summary_text(model, model.init(np.random.default_rng(0))[0]).splitlines()[2:]
    assert head.split() == ["head", "4", "4", "4"]
    assert total.split() == ["total", "4", "4"]
