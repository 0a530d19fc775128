"""What every test may use: the array library under test, the device, Hypothesis profiles, the ``gpu`` marker.

A test that takes ``xp`` or ``device`` runs once per array library: on NumPy and on the strict CuPy stand-in, or
with ``--device cuda`` on NumPy and on a real CuPy::

    def test_something(device: str) -> None:
        x = to_device(np.ones((2, 3)), device)
        assert to_host(x + x).sum() == 12

The stand-in computes with NumPy, slowly. A test of numbers alone, like a check of gradients, is marked ``numbers`` and
leaves it out; whether the code runs there is for the tests of the contract.

What is chosen on the command line and by environment:

* ``--device cuda``: a real GPU instead of the stand-in;
* ``STG_NP_REQUIRE_GPU=1``: a test marked ``gpu`` fails without a GPU, instead of being skipped;
* ``STG_NP_PROFILE=dev|ci|thorough`` (or ``--hypothesis-profile``): how many examples Hypothesis tries; ``ci``,
  which derandomises, is the default where ``CI`` is set.
"""

from __future__ import annotations

import os

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib: no test opens a window
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: tests run side by side, on matrices of a few rows

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from stg_np.backend import DeviceError, array_module
from tests import strict_cupy

# The fixtures below hold no state that one example could leave for the next, so they may be function-scoped;
# wider ones would keep the stand-in installed while tests run that did not ask for it.
_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("dev", max_examples=25, **_COMMON)
settings.register_profile("ci", max_examples=100, derandomize=True, print_blob=True, **_COMMON)
settings.register_profile("thorough", max_examples=2000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("STG_NP_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@cache
def gpu_problem() -> str | None:
    """Why no test can run on a GPU here, in one sentence; None where one can."""
    try:
        array_module("cuda")
    except DeviceError as error:
        return str(error)
    return None


def _libraries(config: pytest.Config) -> list[str]:
    return ["numpy", "cupy" if config.getoption("--device") == "cuda" else "strict_cupy"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: real CuPy instead of its strict stand-in"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cuda" and gpu_problem():
        raise pytest.UsageError(f"--device cuda: {gpu_problem()}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say which array libraries run; written directly, because pytest's own header is silent under ``-q``."""
    if session.config.getoption("--device") == "cuda":
        second = f"CuPy {array_module('cuda').__version__} on a real GPU"
    else:
        second = f"a strict stand-in for CuPy {strict_cupy.API['cupy']}: NO GPU CODE WAS RUN"
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # a worker process of a parallel run has none
        terminal.write_line(f"array libraries: NumPy {np.__version__}, and {second}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "library" in metafunc.fixturenames:
        libraries = _libraries(metafunc.config)
        if metafunc.definition.get_closest_marker("numbers"):
            libraries = [name for name in libraries if name != "strict_cupy"]
        metafunc.parametrize("library", libraries, indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and gpu_problem():
        if os.environ.get("STG_NP_REQUIRE_GPU") == "1":
            pytest.fail(f"STG_NP_REQUIRE_GPU=1, but {gpu_problem()}", pytrace=False)
        pytest.skip(str(gpu_problem()))


@pytest.fixture
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the array library under test; with "strict_cupy", ``import cupy`` gives the stand-in."""
    with ExitStack() as stack:
        if request.param == "strict_cupy":
            stack.enter_context(strict_cupy.installed())
        yield request.param


@pytest.fixture
def device(library: str) -> str:
    """The device of the array library under test, for ``to_device(array, device)``: "cpu" or "cuda"."""
    return "cpu" if library == "numpy" else "cuda"


@pytest.fixture
def xp(device: str) -> Any:
    """The module of the array library under test, found as the package finds it."""
    return array_module(device)


@pytest.fixture
def stand_in() -> Iterator[Any]:
    """The strict CuPy stand-in, installed for one test (for what has no meaning on NumPy)."""
    with strict_cupy.installed() as cupy:
        yield cupy


@pytest.fixture
def synchronisations() -> Callable[[], AbstractContextManager[list[str]]]:
    """``with synchronisations() as waits:`` collects what made the host wait for the device, and where.

    Only the stand-in can tell; on NumPy and on a real CuPy the list stays empty.
    """
    return strict_cupy.synchronisations
