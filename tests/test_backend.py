"""The array module: which library arrays belong to, moving them, and what a missing device is told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from stg_np import backend
from stg_np.backend import DeviceError, array_module, check_dtypes, get_xp, synchronize, to_device, to_host

ROOT = Path(__file__).parent.parent


def _python(code: str, **environment: str) -> str:
    """What a fresh Python process prints when it runs ``code`` in the checkout, with no GPU to be seen."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return run.stdout


# --- Which library ---------------------------------------------------------------------------------------------


def test_arrays_name_their_library(xp: Any) -> None:
    x = xp.ones((2, 3))
    assert get_xp(x) is xp
    assert get_xp(x, x.sum(), x[0], None) is xp
    assert get_xp(None, x) is xp


def test_numpy_scalars_and_subclasses_are_numpys() -> None:
    assert get_xp(np.float32(1.0)) is np
    assert get_xp(np.ma.masked_array([1.0])) is np


@pytest.mark.parametrize("order", [1, -1])
def test_a_mix_of_libraries_is_refused(stand_in: Any, order: int) -> None:
    arrays = [np.ones(2), None, stand_in.ones(2)][::order]
    with pytest.raises(TypeError, match=r"NumPy.*CuPy.*mixed; use to_device"):
        get_xp(*arrays)


@pytest.mark.parametrize("stranger", [1.0, [1.0], "x", (np.ones(2),), {}])
def test_what_is_no_array_is_named(stranger: Any) -> None:
    with pytest.raises(TypeError, match=f"got {type(stranger).__name__}"):
        get_xp(np.ones(2), stranger)


@pytest.mark.parametrize("nothing", [(), (None,), (None, None)])
def test_no_array_is_refused(nothing: tuple[None, ...]) -> None:
    with pytest.raises(TypeError, match="no array was given"):
        get_xp(*nothing)


# --- Moving ----------------------------------------------------------------------------------------------------


@given(shape=array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), data=st.data())
def test_there_and_back_changes_nothing(device: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["bool", "uint8", "int64", "float32", "float64"]))
    values = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 2, shape)
    host = np.asarray(values.astype(dtype, order=data.draw(st.sampled_from("CF"))))
    host.flags.writeable = False
    there = to_device(host, device)
    assert (there.shape, there.dtype) == (host.shape, host.dtype)
    back = to_host(there)
    assert type(back) is np.ndarray
    assert back.dtype == host.dtype
    np.testing.assert_array_equal(back, host)


def test_where_it_is_already_nothing_is_copied(xp: Any, device: str) -> None:
    x = xp.ones(3)
    assert to_device(x, device) is x


def test_the_device_array_comes_back_to_the_cpu(xp: Any) -> None:
    back = to_device(xp.arange(3.0), "cpu")
    np.testing.assert_array_equal(back, [0.0, 1.0, 2.0])


def test_a_scalar_becomes_a_0d_array(xp: Any) -> None:
    host = to_host(xp.ones(3).sum())
    assert type(host) is np.ndarray
    assert host.shape == ()


def test_a_list_is_no_array_to_move() -> None:
    with pytest.raises(TypeError, match="got list"):
        to_host([1.0])


def test_synchronize_waits_for_the_device_only(synchronisations: Any, xp: Any, library: str) -> None:
    x = xp.ones(3)
    with synchronisations() as waits:
        synchronize(x)
    assert len(waits) == (library == "strict_cupy")


# --- Devices that cannot be used -------------------------------------------------------------------------------


def _one_sentence(message: str) -> str:
    assert "\n" not in message
    assert len(message) < 250
    return message


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(DeviceError, match="unknown device 'tpu': use one of cpu, cuda"):
        array_module("tpu")


def test_without_cupy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # Python's own way to make an import fail
    with pytest.raises(DeviceError) as failure:
        to_device(np.ones(2), "cuda")
    assert "not installed: pip install 'stg-np[cuda13]'" in _one_sentence(str(failure.value))
    assert backend.devices() == {"cpu": "available", "cuda": str(failure.value)}
    assert get_xp(np.ones(2)) is np


def test_without_a_gpu_it_says_what_is_missing(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "is_available", lambda: False)
    with pytest.raises(DeviceError) as failure:
        array_module("cuda")
    assert "nvidia-smi" in _one_sentence(str(failure.value))


@pytest.mark.parametrize("reason", ["libcudart.so.13: cannot open shared object file", "\n===\nbroken\n==="])
def test_a_cupy_that_cannot_be_imported_is_not_called_missing(tmp_path: Path, reason: str) -> None:
    (tmp_path / "cupy.py").write_text(f"raise ImportError({reason!r})")
    code = "from stg_np.backend import devices; print(devices()['cuda'], end='')"
    message = _one_sentence(_python(code, PYTHONPATH=str(tmp_path)))
    assert "cannot be imported" in message
    assert "not installed" not in message
    assert re.search("libcudart|broken", message)


def test_with_a_gpu_both_devices_are_available(stand_in: Any) -> None:
    assert backend.devices() == {"cpu": "available", "cuda": "available"}


def test_a_machine_without_a_gpu_is_told_so_in_a_real_process() -> None:
    message = _python("from stg_np.backend import devices; print(devices()['cuda'], end='')")
    assert message.startswith("device 'cuda' needs ")
    _one_sentence(message)


# --- What an import costs --------------------------------------------------------------------------------------


def test_the_import_loads_numpy_and_nothing_else() -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import stg_np, stg_np.backend, stg_np.params\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names) - {'numpy'}))"
    )
    assert _python(code).split() == ["stg_np"]


def test_numpy_arrays_never_import_cupy() -> None:
    code = (
        "import sys, numpy as np; from stg_np.backend import *; from stg_np import backend\n"
        "x = np.ones(3); backend.to_device(x, 'cpu'); backend.to_host(x); backend.synchronize(x)\n"
        "print('cupy' in sys.modules)"
    )
    assert _python(code).split() == ["False"]


def test_the_import_takes_no_time_beyond_numpys() -> None:
    """Of this process, whatever else the machine does."""
    code = (
        "import numpy, time; start = time.process_time(); import stg_np, stg_np.backend, stg_np.params\n"
        "print(time.process_time() - start)"
    )
    assert float(_python(code)) <= 0.2  # it takes 0.01


def test_one_floating_dtype_and_nothing_else(xp: Any) -> None:
    single, double, whole = (xp.zeros(2, dtype=dtype) for dtype in ("float32", "float64", "int64"))
    check_dtypes(single, None, single)
    check_dtypes(double)
    check_dtypes(xp.zeros(2, dtype="float16"))
    check_dtypes()
    with pytest.raises(TypeError, match="one floating dtype, not float32, float64: convert with astype"):
        check_dtypes(single, double)
    with pytest.raises(TypeError, match="not int64"):
        check_dtypes(whole)
