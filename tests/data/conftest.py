"""Every test here has a data home of its own, so nothing that lies on the machine can be found by chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stg_np.data import DataError, cifar10, fashion_mnist


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("STG_NP_DATA", str(folder))
    monkeypatch.setattr(cifar10, "SYSTEM_FOLDERS", ())
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDERS", ())
    return folder


def one_sentence(action: Callable[[], object]) -> str:
    """Run what must fail, and return its message after checking that a user can be shown it as it is."""
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert 20 < len(message) < 700
    return message
