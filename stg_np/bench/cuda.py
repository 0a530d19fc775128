"""The layer on a GPU: achieved rate and bandwidth beside those of a plain product and a plain copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from stg_np.backend import array_module, synchronize, to_device
from stg_np.bench.cases import Case, LayerCase, to_json
from stg_np.bench.timing import times_of
from stg_np.fast.choose import stm_cell
from stg_np.layers.spec import STMKind
from stg_np.stm import STMParams
from stg_np.workspace import Workspace

REPEATS = 20


def cuda_section(layers: Sequence[Case]) -> dict[str, Any]:
    """Ceilings of the device, and each layer's forward and backward.

    ``bytes`` is what the scan's kernels must move (:func:`stg_np.fast.cuda.traffic_bytes`) and what the three products
    must read and write; ``gflops`` counts the products alone. Both are over the time of everything.

    Raises:
        DeviceError: if there is no usable device.
    """
    xp = array_module("cuda")
    properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.runtime.getDevice())
    return {
        "device": properties["name"].decode(),
        "cupy": xp.__version__,
        "ceilings": ceilings(xp),
        "layers": [layer_row(xp, case) for case in layers if isinstance(case, LayerCase)],
    }


def ceilings(xp: Any) -> dict[str, float]:
    """The device's rates: a float32 product of 8192 × 8192 matrices, and a copy of 1 GiB."""
    n = 8192
    a = xp.ones((n, n), dtype=np.float32)
    out = xp.empty_like(a)
    source = xp.ones(1 << 27, dtype=np.float32)
    target = xp.empty_like(source)
    rate = 2e-9 * n**3 / seconds_of(lambda: xp.matmul(a, a, out=out), a)
    bandwidth = 2e-9 * source.nbytes / seconds_of(lambda: xp.copyto(target, source), source)
    return {"gflops": rate, "gigabytes_per_second": bandwidth}


def layer_row(xp: Any, case: LayerCase) -> dict[str, Any]:
    """Median seconds of one layer, and its rates."""
    host_x, host_dy, host = case.draw()
    x, dy, W, b = (to_device(array, "cuda") for array in (host_x, host_dy, host.W, host.b))
    params, cell = STMParams(W, b), stm_cell(x, STMKind(), Workspace())
    nothing = xp.zeros((case.B, case.H), dtype=x.dtype)

    def run() -> None:
        _, cache = cell.forward(x, nothing, params)
        cell.backward(dy, nothing, cache, params)

    seconds, moved = seconds_of(run, x), needed_bytes(case)
    return {
        "case": to_json(case),
        "label": case.label,
        "seconds": seconds,
        "bytes": moved,
        "gigabytes_per_second": 1e-9 * moved / seconds,
        "gflops": 1e-9 * case.flops / seconds,
    }


def needed_bytes(case: LayerCase) -> int:
    """What kernels and products must read and write, every array once per kernel, in float32."""
    from stg_np.fast.cuda import Variant, sequence_walk, traffic_bytes

    variant = Variant("float", diagonal=False, tanh_candidate=True, memory="given")
    products = 3 * 4 * case.B * case.T * (case.D + 4 * case.H)  # x W, da Wᵀ and xᵀ da: read and written
    return sum(traffic_bytes(variant, sequence_walk(case.B, case.T, case.H))) + products


def seconds_of(run: Callable[[], Any], array: Any) -> float:
    """Median seconds of a call, the wait for the device included."""

    def run_and_wait() -> None:
        run()
        synchronize(array)

    run_and_wait()  # compiles
    return median(times_of(run_and_wait, least=REPEATS))
