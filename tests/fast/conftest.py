"""Kernels run on a GPU or, where there is none, on the CPU."""

from __future__ import annotations

import pytest

from tests.fast.cpu_launcher import COMPILER, NO_COMPILER, CPULauncher


@pytest.fixture(scope="session")
def cpu_launcher(tmp_path_factory: pytest.TempPathFactory) -> CPULauncher | None:
    """What runs the kernels on the CPU; each variant is compiled once, when it is first asked for."""
    return CPULauncher(tmp_path_factory.mktemp("kernels")) if COMPILER else None


@pytest.fixture
def launched(library: str, cpu_launcher: CPULauncher | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels run: on the GPU with a real CuPy, else on the CPU."""
    if library != "cupy":
        if cpu_launcher is None:
            pytest.skip(NO_COMPILER)
        cpu_launcher.install(monkeypatch)
