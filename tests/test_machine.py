"""The description of the machine that stands at the head of every result file."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from stg_np import machine


def test_a_machine_is_described_by_what_makes_it_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(machine, "told_by_linux", {2: 512 << 10, 3: 32 << 20}.get)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    facts = machine.describe()
    assert facts["caches"] == "L2 512 KiB, L3 32 MiB"
    assert facts["NumPy's float32 kernels"].startswith("tanh ")
    assert facts["BLAS of NumPy"].endswith("(OPENBLAS_CORETYPE=Haswell)")
    assert platform.node() not in str(facts)
    assert str(Path.home()) not in str(facts)


def test_what_the_system_does_not_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "told_by_linux", lambda level: None)
    monkeypatch.setattr(machine, "told_by_macos", lambda: None)
    assert machine.describe()["caches"] == "unknown"
