"""The strict CuPy stand-in: each refusal, what it accepts, what it counts, and that it is true to the real CuPy."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import operator
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from stg_np.backend import array_module, get_xp, synchronize, to_device, to_host
from tests import strict_cupy

REFUSAL = (TypeError, ValueError, AttributeError, IndexError, NotImplementedError)
Action = Callable[[Any, Any, Any], Any]

HOST = np.arange(6.0).reshape(2, 3)


def in_place(name: str, target: Any, other: Any) -> Any:
    return getattr(operator, name)(target, other)


# What real CuPy refuses: (xp, a (2, 3) device array, the same on the host) -> an exception.
REFUSED: dict[str, Action] = {
    # host arrays and lists
    "conversion by np.asarray": lambda xp, x, host: np.asarray(x),
    "conversion by np.array": lambda xp, x, host: np.array(x),
    "device + host": lambda xp, x, host: x + host,
    "host + device": lambda xp, x, host: host + x,
    "device *= host": lambda xp, x, host: in_place("imul", x, host),
    "host *= device": lambda xp, x, host: in_place("imul", host, x),
    "device < host": lambda xp, x, host: x < host,
    "device @ host": lambda xp, x, host: x @ host.T,
    "device * list": lambda xp, x, host: x * [1.0, 2.0, 3.0],
    "ufunc of a list": lambda xp, x, host: xp.exp([1.0, 2.0]),
    "ufunc of a host array": lambda xp, x, host: xp.exp(host),
    "host array as out": lambda xp, x, host: xp.add(x, x, out=host),
    "where with a host array": lambda xp, x, host: xp.where(x > 1.0, x, host),
    "where with a Python bool": lambda xp, x, host: xp.where(True, x, x),
    "stack of host arrays": lambda xp, x, host: xp.stack([host, host]),
    "array of device and host arrays": lambda xp, x, host: xp.array([x, host]),
    "stack with a number": lambda xp, x, host: xp.stack([x[0, 0], 1.0]),
    "stack with a list": lambda xp, x, host: xp.stack([x[0], [1.0, 2.0, 3.0]]),
    "concatenate with a list": lambda xp, x, host: xp.concatenate([x[0], [1.0]]),
    "column_stack with a number": lambda xp, x, host: xp.column_stack([x, 1.0]),
    "array of a 0-d array and a number": lambda xp, x, host: xp.array([x[0, 0], 1.0]),
    "asarray of a nested 0-d array and a number": lambda xp, x, host: xp.asarray([[1.0], [x[0, 0]]]),
    "array of an array and a list": lambda xp, x, host: xp.array([x[0], [1.0, 2.0, 3.0]]),
    "dot with a number": lambda xp, x, host: xp.dot(x, 2.0),
    "repeat by a host array": lambda xp, x, host: xp.repeat(x, np.array([1, 2]), axis=0),
    "fill with several": lambda xp, x, host: x.fill(x[0]),
    "broadcast_to of a host array": lambda xp, x, host: xp.broadcast_to(host, (4, 2, 3)),
    "broadcast_to of a number": lambda xp, x, host: xp.broadcast_to(1.0, (2, 3)),
    "sum of a list": lambda xp, x, host: xp.sum([1.0, 2.0]),
    "sum of a number": lambda xp, x, host: xp.sum(1.0),
    "matmul with a list": lambda xp, x, host: xp.matmul(x, [[1.0], [2.0], [3.0]]),
    "reshape of a list": lambda xp, x, host: xp.reshape([1.0], (1, 1)),
    "slice set to a host array": lambda xp, x, host: operator.setitem(x, slice(0, 1), host[:1]),
    "slice set to a list": lambda xp, x, host: operator.setitem(x, 0, [1.0, 2.0, 3.0]),
    "copyto from the host": lambda xp, x, host: xp.copyto(x, host),
    "where= of a ufunc": lambda xp, x, host: xp.add(x, x, where=x > 1.0),
    "concatenate with a host array": lambda xp, x, host: xp.concatenate([x, host]),
    # a device array where Python wants a number
    "__index__": lambda xp, x, host: operator.index(xp.asarray(1)),
    "range": lambda xp, x, host: range(xp.asarray(3)),
    "shape": lambda xp, x, host: xp.zeros(xp.asarray(3)),
    "shape in a tuple": lambda xp, x, host: x.reshape((xp.asarray(6),)),
    "axis": lambda xp, x, host: x.sum(xp.asarray(1)),
    "float of several": lambda xp, x, host: float(x),
    "truth of several": lambda xp, x, host: bool(x),
    "hash": lambda xp, x, host: hash(x),
    # keywords and methods
    "where= of a reduction": lambda xp, x, host: x.sum(where=x > 1.0),
    "where= of a reducing function": lambda xp, x, host: xp.sum(x, where=x > 1.0),
    "initial= of a reduction": lambda xp, x, host: xp.max(x, initial=0.0),
    "order= of a ufunc": lambda xp, x, host: xp.add(x, x, order="C"),
    "subok= of a ufunc": lambda xp, x, host: xp.exp(x, subok=True),
    "out= of einsum": lambda xp, x, host: xp.einsum("ij->i", x, out=xp.zeros(2)),
    "shape= of reshape": lambda xp, x, host: xp.reshape(x, shape=(6,)),
    "arrays= of stack": lambda xp, x, host: xp.stack(arrays=[x, x]),
    "m= of flip": lambda xp, x, host: xp.flip(m=x),
    "a_min= of the method clip": lambda xp, x, host: x.clip(a_min=0.0, a_max=1.0),
    "mode= of take": lambda xp, x, host: x.take(xp.asarray([0]), mode="clip"),
    "item with a position": lambda xp, x, host: x.item(0),
    "maximum.reduce": lambda xp, x, host: xp.maximum.reduce(x),
    "logical_or.accumulate": lambda xp, x, host: xp.logical_or.accumulate(x),
    "multiply.at": lambda xp, x, host: xp.multiply.at(x, xp.asarray([0]), 2.0),
    "maximum.reduceat": lambda xp, x, host: xp.maximum.reduceat(x, [0]),
    "subtract.at of float64": lambda xp, x, host: xp.subtract.at(x, xp.asarray([0]), 1.0),
    "add.at of int8": lambda xp, x, host: xp.add.at(xp.zeros(3, "i1"), xp.asarray([0]), 1),
    "maximum.at of float16": lambda xp, x, host: xp.maximum.at(xp.zeros(3, "f2"), xp.asarray([0]), 1),
    "scatter_add of bool": lambda xp, x, host: xp.zeros(3, bool).scatter_add(xp.asarray([0]), True),
    # names
    "errstate": lambda xp, x, host: xp.errstate(all="ignore"),
    "longdouble": lambda xp, x, host: xp.longdouble,
    "vecdot": lambda xp, x, host: xp.vecdot(x, x),
    "nditer": lambda xp, x, host: xp.nditer(x),
    "ufunc.resolve_dtypes": lambda xp, x, host: xp.add.resolve_dtypes,
    "setflags": lambda xp, x, host: x.setflags(write=False),
    "flags.writeable": lambda xp, x, host: x.flags.writeable,
    "ctypes": lambda xp, x, host: x.ctypes,
    "a new attribute": lambda xp, x, host: setattr(x, "note", "mine"),
    "normal": lambda xp, x, host: xp.random.default_rng(0).normal(),
    "permutation": lambda xp, x, host: xp.random.default_rng(0).permutation(3),
    "shuffle": lambda xp, x, host: xp.random.default_rng(0).shuffle(x),
    "choice": lambda xp, x, host: xp.random.default_rng(0).choice(3),
    "rtol= of matrix_rank": lambda xp, x, host: xp.linalg.matrix_rank(x, rtol=0.1),
    # dtypes and bounds
    "object array": lambda xp, x, host: xp.asarray(np.array([None, {}])),
    "text": lambda xp, x, host: xp.asarray(np.array(["a"])),
    "long double": lambda xp, x, host: xp.zeros(2, dtype=np.longdouble),
    "in-place cast to integer": lambda xp, x, host: in_place("iadd", xp.zeros(2, dtype=int), 0.5),
    "integer position out of range": lambda xp, x, host: x[2],
    "len of a 0-d array": lambda xp, x, host: len(x.sum()),
}

# What real CuPy lets pass although it is a mistake, or means something else than in NumPy.
STRICTER: dict[str, Action] = {
    "slice bound": lambda xp, x, host: x[: xp.asarray(1)],
    "comparison with None": lambda xp, x, host: x == None,  # noqa: E711
    "index array out of range": lambda xp, x, host: x[xp.asarray([0, 2])],
    "take out of range": lambda xp, x, host: xp.take(x, xp.asarray([3]), axis=1),
    "assignment through an index array out of range": lambda xp, x, host: operator.setitem(x, xp.asarray([2]), 0.0),
    "assignment through repeated indices": lambda xp, x, host: operator.setitem(x, xp.asarray([0, 0]), 1.0),
    "+= through repeated indices": lambda xp, x, host: operator.setitem(x, [1, 1], x[[1, 1]] + 1.0),
    "host index array": lambda xp, x, host: x[np.array([0])],
    "host mask": lambda xp, x, host: x[host > 1.0],
    "float32 array * np.float64": lambda xp, x, host: x.astype(xp.float32) * np.float64(2.0),
    "np.float64 * float32 array": lambda xp, x, host: np.float64(2.0) * x.astype(xp.float32),
    "float32 array / np.int64": lambda xp, x, host: x.astype(xp.float32) / np.int64(2),
    "NumPy's ufunc": lambda xp, x, host: np.exp(x),
    "NumPy's function": lambda xp, x, host: np.sum(x),
    "membership": lambda xp, x, host: 1.0 in x[0],
    "in-place matrix product": lambda xp, x, host: in_place("imatmul", x, xp.eye(3)),
}


@pytest.mark.parametrize("action", [*REFUSED.values(), *STRICTER.values()], ids=[*REFUSED, *STRICTER])
def test_refused(stand_in: Any, action: Action) -> None:
    x = stand_in.asarray(HOST)
    with pytest.raises(REFUSAL):
        action(stand_in, x, HOST.copy())


@pytest.mark.gpu
@pytest.mark.parametrize("action", REFUSED.values(), ids=REFUSED)
def test_real_cupy_refuses_the_same(action: Action) -> None:
    cupy = array_module("cuda")
    with pytest.raises(REFUSAL):
        action(cupy, cupy.asarray(HOST), HOST.copy())


# What both libraries accept, with NumPy's result.
ACCEPTED: dict[str, Callable[[Any, Any], Any]] = {
    "Python numbers": lambda xp, x: (2 * x + 1.5) / 3 - x**2,
    "0-d array": lambda xp, x: x - x.mean(),
    "reversed": lambda xp, x: 1.0 - (2.0 / (1.0 + x)) // 0.5,
    "integers": lambda xp, x: (x.astype(int) << 1 | 1) % 4 ^ 2 & ~x.astype(int),
    "comparisons": lambda xp, x: (x > 1) & (x <= 3) | (x == 5) & ~(x != 5) | (x < 0) ^ (x >= 5),
    "divmod": lambda xp, x: divmod(x, 2.0)[1],
    "unary": lambda xp, x: abs(-x) + (+x),
    "reductions": lambda xp, x: xp.sum(x, axis=0, keepdims=True) + x.max(1, keepdims=True),
    "scalar reduction": lambda xp, x: x.sum(),
    "matrix product": lambda xp, x: x @ x.T + xp.matmul(x, x.T),
    "einsum": lambda xp, x: xp.einsum("ij,kj->ik", x, x),
    "broadcasting": lambda xp, x: x[:, None, :] + x[None, :, :] + x[..., 0, xp.newaxis],
    "shapes": lambda xp, x: xp.reshape(x.transpose(1, 0), (3, 2)).ravel().reshape(1, -1).squeeze(0),
    "joining": lambda xp, x: xp.concatenate([x, xp.stack((x[0], x[1]))], axis=1),
    "splitting": lambda xp, x: xp.split(x, 3, axis=1)[2],
    "flip and pad": lambda xp, x: xp.pad(xp.flip(x, 1), ((1, 0), (0, 2))),
    "where and clip": lambda xp, x: xp.where(x > 2, x, 0.0) + xp.clip(x, 1.0, 4.0) + x.clip(None, 2.0),
    "own dtype's scalar": lambda xp, x: x * x.dtype.type(0.5),
    "out": lambda xp, x: xp.add(x, x, out=xp.empty_like(x)),
    "out of a reduction": lambda xp, x: xp.sum(x, axis=0, out=xp.zeros(3)),
    "index array": lambda xp, x: x[xp.asarray([1, 0]), xp.asarray([2, 0])],
    "index list": lambda xp, x: x[:, [2, 0, 1]],
    "mask": lambda xp, x: x[x > 2],
    "argmax": lambda xp, x: xp.argmax(x, axis=1),
    "astype": lambda xp, x: x.astype(xp.float32, copy=False),
    "windows": lambda xp, x: xp.lib.stride_tricks.sliding_window_view(x, (2, 2)).sum((-2, -1)),
    "strided": lambda xp, x: xp.lib.stride_tricks.as_strided(x, (2, 2), x.strides),
    "norm": lambda xp, x: xp.linalg.norm(x),
    "reduce": lambda xp, x: xp.add.reduce(x) + xp.multiply.outer(x[0], x[1])[0],
    "linspace": lambda xp, x: xp.linspace(0.0, 1.0, 4) + xp.full((4,), 2.0) + xp.eye(4)[1],
}


@pytest.mark.parametrize("compute", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_with_the_same_result(xp: Any, compute: Callable[[Any, Any], Any]) -> None:
    result = compute(xp, xp.asarray(HOST))
    expected = np.asarray(compute(np, HOST.copy()))
    assert get_xp(result) is xp
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(to_host(result), expected)


@pytest.mark.parametrize("name", strict_cupy.API["ufuncs"])
def test_every_ufunc_has_numpys_result(stand_in: Any, name: str) -> None:
    numpy_function = getattr(np, name)
    compared = 0
    for dtype in ("bool", "int64", "float64"):
        arguments = [np.array([1, 0, 1], dtype)] * getattr(numpy_function, "nin", 1)
        try:
            with np.errstate(all="ignore"):
                expected = numpy_function(*arguments)
        except TypeError:  # not for this dtype, and then not on the device either
            continue
        results = getattr(stand_in, name)(*map(stand_in.asarray, arguments))
        for one, other in zip(np.atleast_2d(expected), results if isinstance(results, tuple) else [results]):
            np.testing.assert_array_equal(one, other.get())
        compared += 1
    assert compared


# --- Its own behaviour, where it differs from NumPy's --------------------------------------------------------


def test_the_package_takes_its_real_path_to_the_device(stand_in: Any) -> None:
    assert array_module("cuda") is stand_in
    x = to_device(HOST, "cuda")
    assert get_xp(x) is stand_in
    assert to_device(x, "cuda") is x
    with pytest.raises(TypeError, match="mixed"):
        get_xp(x, HOST)


def test_device_memory_is_not_the_hosts(stand_in: Any) -> None:
    host = HOST.copy()
    x = stand_in.asarray(host)
    x += 1.0
    back = x.get()
    back += 1.0
    np.testing.assert_array_equal(host, HOST)
    np.testing.assert_array_equal(x.get(), HOST + 1.0)
    x.set(HOST)
    np.testing.assert_array_equal(stand_in.asnumpy(x), HOST)
    assert x.get(out=host) is host
    copied, deep, pickled = copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))
    x.fill(0.0)
    assert (copied.get() == HOST).all()
    assert (deep.get() == HOST).all()
    assert (pickled.get() == HOST).all()


@pytest.mark.parametrize("wrong", [HOST[0], HOST.astype(np.float32), [1.0]])
def test_set_wants_the_same_shape_and_dtype(stand_in: Any, wrong: Any) -> None:
    with pytest.raises(TypeError):
        stand_in.asarray(HOST).set(wrong)


def test_slices_and_single_elements_are_views(stand_in: Any) -> None:
    x = stand_in.zeros((2, 3))
    row, element = x[1], x[0, 2]
    row += 1.0
    element += 5.0  # in NumPy a copy; here, as in CuPy, a 0-d view
    np.testing.assert_array_equal(x.get(), [[0, 0, 5], [1, 1, 1]])


def test_answers_stay_on_the_device(stand_in: Any) -> None:
    x = stand_in.asarray(HOST)
    for answer in (stand_in.array_equal(x, x), stand_in.allclose(x, x), stand_in.count_nonzero(x), x.all(), x[0, 0]):
        assert isinstance(answer, stand_in.ndarray)
        assert answer.shape == ()


def test_in_place_operators_keep_the_array(stand_in: Any) -> None:
    x = before = stand_in.asarray(HOST)
    x -= 1.0
    x *= x
    x /= 2.0
    assert x is before


def test_repeated_indices_may_be_summed(stand_in: Any) -> None:
    x = stand_in.zeros(3)
    stand_in.add.at(x, stand_in.asarray([0, 0, 2]), 1.0)
    x.scatter_add(stand_in.asarray([0, 1]), stand_in.asarray([1.0, 4.0]))
    np.testing.assert_array_equal(x.get(), [3, 4, 1])


def test_assignment_through_indices_and_masks(stand_in: Any) -> None:
    x = stand_in.asarray(HOST)
    x[stand_in.asarray([0, 1]), stand_in.asarray([0, 2])] = stand_in.asarray([7.0, 8.0])
    x[x < 3.0] = 0.0
    np.testing.assert_array_equal(x.get(), [[7, 0, 0], [3, 4, 8]])


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int8", "bool"])
def test_unwritten_memory_shows(stand_in: Any, dtype: str) -> None:
    fresh = (stand_in.empty(3, dtype), stand_in.empty_like(stand_in.zeros(3, dtype)), stand_in.ndarray((3,), dtype))
    for array in fresh:
        values = array.get()
        assert (np.isnan(values) if values.dtype.kind in "fc" else values.astype(bool)).all()


def test_no_floating_point_warnings(stand_in: Any) -> None:
    x = stand_in.asarray([0.0, -1.0, 1e300])
    assert not bool(stand_in.isfinite(stand_in.log(x)[:2] * (x * x)[2]).any())


@given(shape=array_shapes(max_dims=3, min_side=0, max_side=4), data=st.data())
def test_any_shape_survives_the_round_trip(stand_in: Any, shape: tuple[int, ...], data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["bool", "uint8", "int64", "float16", "float32", "float64"]))
    host = np.random.default_rng(0).integers(0, 2, shape).astype(dtype, order=data.draw(st.sampled_from("CF")))
    x = stand_in.asarray(host)
    assert (x.shape, x.dtype, x.ndim, x.size, x.nbytes) == (host.shape, host.dtype, host.ndim, host.size, host.nbytes)
    assert (x.flags.c_contiguous, x.flags.f_contiguous) == (host.flags.c_contiguous, host.flags.f_contiguous)
    np.testing.assert_array_equal(x.get(), host)
    assert x.tolist() == host.tolist()


# --- Synchronisations ----------------------------------------------------------------------------------------

WAITS: dict[str, Callable[[Any, Any], Any]] = {
    "float": lambda xp, x: float(x.sum()),
    "int": lambda xp, x: int(x.sum()),
    "complex": lambda xp, x: complex(x.sum()),
    "bool": lambda xp, x: bool(x.sum() > 1.0),
    "item": lambda xp, x: x.sum().item(),
    "tolist": lambda xp, x: x.tolist(),
    "get": lambda xp, x: x.get(),
    "repr": lambda xp, x: repr(x),
    "str": lambda xp, x: f"{x}",
    "boolean mask": lambda xp, x: x[x > 1.0],
    "nonzero": lambda xp, x: x.nonzero(),
    "where": lambda xp, x: xp.where(x > 1.0),
    "unique": lambda xp, x: xp.unique(x),
    "fill": lambda xp, x: x.fill(x[0, 0]),
    "repeat": lambda xp, x: xp.repeat(x, [1, 2], axis=0),
    "pickle": lambda xp, x: pickle.dumps(x),
    "sliding_window_view": lambda xp, x: xp.lib.stride_tricks.sliding_window_view(x, (2, 2)),
    "stream.synchronize": lambda xp, x: synchronize(x),
}


@pytest.mark.parametrize(("what", "action"), WAITS.items(), ids=WAITS)
def test_each_wait_is_counted_with_its_place(
    stand_in: Any, synchronisations: Any, what: str, action: Callable[[Any, Any], Any]
) -> None:
    x = stand_in.asarray(HOST)
    with synchronisations() as waits:
        action(stand_in, x)
    assert len(waits) == 1
    assert re.fullmatch(rf"{what} at (test_strict_cupy|backend)\.py:\d+", waits[0])


def test_a_formatted_number_waits_once(stand_in: Any, synchronisations: Any) -> None:
    with synchronisations() as waits:
        assert f"{stand_in.asarray(HOST).mean():.2f}" == "2.50"
    assert len(waits) == 1


def test_computing_does_not_wait(stand_in: Any, synchronisations: Any) -> None:
    with synchronisations() as waits:
        x = stand_in.asarray(HOST)
        y = stand_in.where(x > 1.0, stand_in.tanh(x @ x.T @ x), 0.0)
        y[x > 2.0] = 0.0
        y[stand_in.asarray([0, 1]), 0] += 1.0
        y[0].fill(2.0)
        y = stand_in.stack([stand_in.repeat(copy.deepcopy(y), 2, axis=0)[0], stand_in.array([y[0, 0]] * 3)])
        assert stand_in.sqrt((y * y).sum()).shape == ()
    assert waits == []


def test_counters_nest_and_end(stand_in: Any, synchronisations: Any) -> None:
    total = stand_in.asarray(HOST).sum()
    with synchronisations() as outer:
        float(total)
        with synchronisations() as inner:
            float(total)
    float(total)
    assert (len(outer), len(inner)) == (2, 1)


# --- Installing it -------------------------------------------------------------------------------------------


def test_installed_for_a_while_only() -> None:
    before = sys.modules.get("cupy")
    with ExitStack() as stack:
        module = stack.enter_context(strict_cupy.installed())
        assert importlib.import_module("cupy") is module
        stack.enter_context(pytest.raises(KeyError))
        stack.enter_context(strict_cupy.installed())
        raise KeyError
    assert sys.modules.get("cupy") is before


GPU_TESTS = """
import os
import pytest

@pytest.mark.gpu
def test_skipped(): pass

def test_from_here_on_a_gpu_is_required(): os.environ["STG_NP_REQUIRE_GPU"] = "1"

@pytest.mark.gpu
def test_required(): pass
"""


def _pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as this suite sets it up, on three tests of its own, on a machine that shows no GPU."""
    root = Path(__file__).parent.parent
    (folder / "test_gpu.py").write_text(GPU_TESTS)
    settings = ["-c", str(root / "pyproject.toml"), "--rootdir", str(folder), "-p", "tests.conftest"]
    command = [sys.executable, "-m", "pytest", *settings, "-p", "no:cacheprovider", "-rs", *options, str(folder)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTEST_ADDOPTS": "", "STG_NP_REQUIRE_GPU": "0"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)


def test_the_header_says_that_no_gpu_code_ran_and_gpu_tests_are_skipped_unless_a_gpu_is_required(
    tmp_path: Path,
) -> None:
    run = _pytest(tmp_path)
    assert run.returncode == 1
    assert "NO GPU CODE WAS RUN" in run.stdout.splitlines()[0]
    assert re.search(r"SKIPPED \[1\].*device 'cuda' needs", run.stdout)
    assert "STG_NP_REQUIRE_GPU=1, but device 'cuda' needs" in run.stdout
    assert "1 passed, 1 skipped, 1 error" in run.stdout


def test_device_cuda_without_a_gpu_is_refused_in_one_sentence(tmp_path: Path) -> None:
    run = _pytest(tmp_path, "--device", "cuda")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "device 'cuda' needs" in run.stderr
    assert "Traceback" not in run.stderr + run.stdout


# --- Streams ---------------------------------------------------------------------------------------------------


def on_a_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_what_another_thread_made_is_refused_until_it_was_waited_for(stand_in: Any) -> None:
    stream = stand_in.cuda.get_current_stream()
    x, event = on_a_thread(lambda: (stand_in.ones(3), stand_in.cuda.get_current_stream().record()))
    views = [x, x[1:], x[0], x.T]
    for touch in (lambda a: a + 1, lambda a: a.sum(), lambda a: a.get(), lambda a: a.tolist(), stand_in.exp):
        for view in views:
            with pytest.raises(RuntimeError, match="did not wait"):
                touch(view)
    stream.wait_event(event)
    assert [float((view + 1).sum()) for view in views] == [6, 4, 2, 6]


def test_a_write_is_work_too(stand_in: Any) -> None:
    x = stand_in.ones(3)
    made = stand_in.cuda.get_current_stream().record()

    def change() -> None:
        stand_in.cuda.get_current_stream().wait_event(made)
        x[0] = 2.0

    on_a_thread(change)
    with pytest.raises(RuntimeError, match="did not wait"):
        x.sum()


def test_what_the_host_has_waited_for_is_everybodys(stand_in: Any) -> None:
    def make() -> Any:
        x = stand_in.ones(3)
        synchronize(x)
        return x

    assert float(on_a_thread(make).sum()) == 3.0


# --- Held against the real module ----------------------------------------------------------------------------


@pytest.fixture
def real_cupy() -> ModuleType:
    """The real CuPy, which can be imported (not used) without a GPU."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed, so its names and signatures cannot be compared with the record")
    return importlib.import_module("cupy")


def _same_version(cupy: ModuleType) -> None:
    if cupy.__version__ != strict_cupy.API["cupy"]:
        pytest.skip(f"the record is of CuPy {strict_cupy.API['cupy']}, installed is {cupy.__version__}")


def _resolve(module: Any, dotted: str) -> Any:
    return operator.attrgetter(dotted)(module)


def test_real_cupy_has_every_name_that_the_stand_in_offers(real_cupy: ModuleType) -> None:
    api = strict_cupy.API
    names = {*api["functions"], *api["ufuncs"], *strict_cupy.CONSTANTS, *strict_cupy.LISTED}
    names |= {name for name in vars(strict_cupy.cupy) if not name.startswith("_")}
    names |= {f"linalg.{name}" for name in vars(strict_cupy.cupy.linalg)}
    names |= {f"random.Generator.{name}" for name in api["generator"]}
    names |= {f"ndarray.{name}" for name in api["ndarray"]}
    names |= {"random.default_rng", "cuda.runtime.getDeviceCount", "cuda.get_current_stream", "cuda.is_available"}
    names |= {f"cuda.Stream.{name}" for name in ("synchronize", "record", "wait_event")}
    names |= {*(f"_core.flags.Flags.{name}" for name in strict_cupy.Flags._fields)}
    for name in sorted(names):
        _resolve(real_cupy, name)


def test_real_cupy_lacks_what_the_stand_in_lacks(real_cupy: ModuleType) -> None:
    _same_version(real_cupy)
    api = strict_cupy.API
    assert [name for name in api["missing"] if hasattr(real_cupy, name)] == []
    assert [name for name in api["missing"] if hasattr(strict_cupy.cupy, name)] == []
    assert set(dir(real_cupy.ndarray)) == set(api["ndarray"])
    assert {name for name in dir(real_cupy.random.Generator) if not name.startswith("_")} == set(api["generator"])
    own = {name for name in vars(strict_cupy.ndarray) if callable(getattr(strict_cupy.ndarray, name))}
    public = {name for name in own if not re.match(r"_[^_]", name)}
    assert public - set(api["ndarray"]) == {"__getattr__", "__imatmul__"}  # the second one refuses


def test_signatures_are_those_of_real_cupy(real_cupy: ModuleType) -> None:
    _same_version(real_cupy)
    for name, text in {**strict_cupy.API["functions"], **strict_cupy.LISTED}.items():
        if text is not None:
            assert str(inspect.signature(_resolve(real_cupy, name))) == text, name
    for name in ("asarray", "array", "asnumpy", "asanyarray"):  # written out in the stand-in
        own, real = (inspect.signature(getattr(module, name)) for module in (strict_cupy.cupy, real_cupy))
        assert [(p.name, p.kind, p.default) for p in own.parameters.values()] == [
            (p.name, p.kind, p.default) for p in real.parameters.values()
        ], name


def test_method_signatures_are_those_of_real_cupy(real_cupy: ModuleType) -> None:
    _same_version(real_cupy)
    compared = 0
    for name in strict_cupy.API["ndarray"]:
        documented = (getattr(real_cupy.ndarray, name).__doc__ or "").split("\n")[0]
        stated = re.match(rf"_ndarray_base\.{name}\(self,? ?(.*?)\)( ->.*)?$", documented)
        if stated is None or not (name in strict_cupy.METHODS or name in strict_cupy.API["functions"]):
            continue
        parameters = [re.sub(r"=.*|^.* ", "", part) for part in re.split(r", ", stated[1]) if part]
        own = [
            str(p).split("=")[0] for p in strict_cupy.signature(strict_cupy.method_signature(name)).parameters.values()
        ]
        assert own == parameters, name
        compared += 1
    assert compared > 30


def test_ufunc_methods_are_those_of_real_cupy(real_cupy: ModuleType) -> None:
    _same_version(real_cupy)
    arguments = {"at": (None, None, None), "outer": (None, None), "reduceat": (None, [0])}
    for method, supported in strict_cupy.UFUNC_METHODS.items():
        for name in strict_cupy.API["ufuncs"]:
            assert isinstance(getattr(real_cupy, name), real_cupy.ufunc)
            try:
                getattr(getattr(real_cupy, name), method)(*arguments.get(method, (None,)))
            except NotImplementedError:
                assert name not in supported
            except (AttributeError, ValueError, TypeError):  # it would have worked on an array
                assert name in supported
