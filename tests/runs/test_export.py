"""``stg-np export``: what other libraries read is what was trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runs.used import Stg, arrays, trained_on
from tests.training import pictures

safetensors = pytest.importorskip(
    "safetensors", reason="safetensors is not installed: pip install 'stg-np[safetensors]'"
)


def test_every_parameter_and_the_description_are_read_back(stg: Stg) -> None:
    stored = trained_on(arrays("mine.npz", pictures(40, 1), pictures(30, 2)), "model.npz")
    result = stg("export", "model.npz", "model.safetensors")
    assert result.code == 0, result.err
    assert result.out.endswith("from model.npz\n")
    with safetensors.safe_open("model.safetensors", framework="numpy") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        described = {name: json.loads(text) for name, text in file.metadata().items()}
    expected = stored.now.params.arrays()
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], array)
    about = json.loads(json.dumps(stored.about.as_table()))
    assert described == about | {name: getattr(stored.now, name) for name in ("step", "best_accuracy", "improved_at")}


def test_nothing_is_replaced_unless_asked(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on(arrays("mine.npz", pictures(40, 1), pictures(30, 2)), "model.npz")
    Path("old.safetensors").write_bytes(b"precious")
    assert stg("export", "model.npz", "old.safetensors").refused("old.safetensors", "--overwrite")
    assert stg("export", "model.npz", "model.txt").refused("ends in .safetensors or .npz")
    assert stg("export", "nothing.npz", "old.safetensors", "--overwrite").refused("nothing.npz")
    assert stg("export", "model.npz", "no/such/folder.safetensors").refused("cannot write", "another place")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors.numpy", None)  # as if it were not installed
        assert stg("export", "model.npz", "new.safetensors").refused("pip install 'stg-np[safetensors]'")
    assert Path("old.safetensors").read_bytes() == b"precious"
    assert sorted(path.suffix for path in Path().iterdir()) == [".npz", ".npz", ".safetensors"]
    assert stg("export", "model.npz", "old.safetensors", "--overwrite").code == 0
    assert len(Path("old.safetensors").read_bytes()) > 1000
