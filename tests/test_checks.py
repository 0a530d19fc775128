"""The list of pairs is complete, and every pair on it is right."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

import stg_np
from stg_np import checks
from stg_np.backend import DeviceError, to_host
from stg_np.checks import on_device, package_pairs, run_checks
from stg_np.gradcheck import Report, check_pair, format_table
from tests.contract import hold_to_contract, leaves

NOT_LISTED = {
    "stg_np.__main__": "the program",
    "stg_np.checks": "the list itself, whose helpers only adapt",
    "stg_np.bench": "measures other libraries, which need not be installed",
    "stg_np.sklearn": "needs scikit-learn, and has no layer",
    "stg_np.fast.cuda": "needs a GPU; its own test holds it against the plain path",
    "stg_np.fast.cuda_sweep": "likewise",
}
"""Modules and packages whose backward functions the list does not have, and why."""


def pair_functions() -> dict[str, Callable[..., Any]]:
    """Every function or method of the package named ``forward``, ``backward``, ``…_forward`` or ``…_backward``."""
    found: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.walk_packages(stg_np.__path__, "stg_np."):
        if any(f"{info.name}.".startswith(f"{name}.") for name in NOT_LISTED):
            continue
        module = importlib.import_module(info.name)
        for owner in (module, *_classes(module)):
            for name, function in vars(owner).items():
                is_half = name.rpartition("_")[2] in ("forward", "backward")
                if is_half and inspect.isfunction(function) and function.__module__ == info.name:
                    found[f"{info.name}.{function.__qualname__}"] = function
    return found


def _classes(module: Any) -> Iterator[type]:
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__ and not getattr(value, "_is_protocol", False):
            yield value


def code_run_by(function: Callable[[], Any]) -> set[CodeType]:
    """The code of every Python function that runs meanwhile."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return seen


def assert_all_right(reports: list[Report]) -> None:
    frozen = {"params.stem.W"}  # nobody learns it, so its gradient is zero by decision
    right = [report.ok and report.error <= 1e-8 and set(report.skipped) <= frozen for report in reports]
    assert all(right), format_table(reports)


def test_every_pair_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(check_pair, directions=1, jacobian=False)  # no error is orthogonal to random directions
    monkeypatch.setattr(checks, "check_pair", quick)
    assert_all_right(run_checks())


@pytest.mark.gpu
def test_every_pair_is_right_on_a_gpu() -> None:
    assert_all_right(run_checks("cuda"))


def test_every_pair_of_the_package_is_on_the_list() -> None:
    def run_all() -> None:
        for pair in package_pairs(np.random.default_rng(0)):
            outputs, cache = pair.forward(**pair.inputs)
            pair.backward(outputs, cache)

    functions = pair_functions()
    assert len(functions) >= 40
    ran = code_run_by(run_all)
    missing = [name for name, function in functions.items() if function.__code__ not in ran]
    assert not missing, f"add these to stg_np/checks.py, so that their gradients are checked: {', '.join(missing)}"


def test_what_is_not_on_the_list_is_found() -> None:
    def some_backward() -> None: ...

    assert some_backward.__code__ not in code_run_by(lambda: None)
    assert some_backward.__code__ in code_run_by(some_backward)


def test_every_pair_keeps_the_contract_and_both_libraries_agree(device: str) -> None:
    """dtype, library, inputs untouched, no waiting for the device: layers, losses and whole models."""
    for pair in package_pairs(np.random.default_rng(0), device):
        found = hold_to_contract(pair.forward, pair.backward, on_device(pair.inputs, device))
        outputs, cache = pair.forward(**pair.inputs)
        for one, other in zip(leaves(found), leaves((outputs, pair.backward(outputs, cache))), strict=True):
            np.testing.assert_allclose(to_host(one), other, rtol=1e-9, atol=1e-9 * np.abs(other).max(initial=0))


def test_pairs_have_names_of_their_own() -> None:
    names = [pair.name for pair in package_pairs(np.random.default_rng(0))]
    assert len(set(names)) == len(names)


def test_an_unusable_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        run_checks("tpu")
