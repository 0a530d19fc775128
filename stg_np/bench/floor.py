"""The floor: what the matrix products and the memory alone would take, at the rates that this machine reaches.

A layer's training needs three products of 4·B·T·D·H multiply-adds, x W, da Wᵀ and xᵀ da; each is timed at its shape,
whole and in blocks of rows that stay in the cache, and the quickest way counts. It must also read x twice (forward,
dW) and dy once, write y and dx once, and write and read what lies between forward and backward: four gates and
the memory of every step. That is 3·B·T·D + 12·B·T·H numbers, at the rate of a copy of as many bytes. The tanh of
4·B·T·H numbers is given beside the floor, which leaves out everything elementwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stg_np.bench.cases import LayerCase
from stg_np.bench.timing import times_of
from stg_np.engine import Threads

BLOCKS = (256, 1024, 4096)
REPEATS = 5


def layer_floor(case: LayerCase, workers: int) -> dict[str, Any]:
    """Seconds, multiply-adds, bytes and rates of the floor, on so many workers with one thread of BLAS each."""
    rows, D, H = case.B * case.T, case.D, case.H
    numbers = rows * (3 * D + 12 * H)
    with Threads(workers) as pool:
        products = {
            "x W": best(pool, rows, lambda n: product((n, D), (D, 4 * H), n)),
            "da Wᵀ": best(pool, rows, lambda n: product((n, 4 * H), (4 * H, D), n)),
            "xᵀ da": best(pool, rows, lambda n: product((D, n), (n, 4 * H), D)),
        }
        memory = memory_seconds(pool, 4 * numbers)
        tanh = tanh_seconds(pool, 4 * rows * H)
    multiply_adds = 4 * rows * D * H
    return {
        "product_seconds": products,
        "multiply_adds": 3 * multiply_adds,
        "gflops": {name: 2e-9 * multiply_adds / seconds for name, seconds in products.items()},
        "bytes": 4 * numbers,
        "memory_seconds": memory,
        "gigabytes_per_second": 4e-9 * numbers / memory,
        "tanh_seconds": tanh,
        "seconds": sum(products.values()) + memory,
    }


def product_rate(workers: int, n: int = 1024) -> float:
    """GFLOP/s of large float32 products, one on each worker: what a layer's products could reach at best."""
    with Threads(workers) as pool:
        jobs = [product((n, n), (n, n), n) for _ in range(pool.count)]
        return 2e-9 * n**3 * len(jobs) / quickest(pool, jobs, 1)


def product(left: tuple[int, int], right: tuple[int, int], out_rows: int) -> Callable[[], Any]:
    """A matrix product on arrays of its own."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(left, np.float32), rng.standard_normal(right, np.float32)
    out = np.empty((out_rows, right[1]), np.float32)
    return lambda: np.matmul(a, b, out=out)


def best(pool: Threads, rows: int, make: Callable[[int], Callable[[], Any]]) -> float:
    """The least seconds in which the workers get through ``rows`` rows, over all sizes of block."""
    share = -(-rows // pool.count)
    seconds = []
    for block in {min(block, share) for block in (*BLOCKS, share)}:
        jobs, times = [make(block) for _ in range(pool.count)], share / block
        seconds.append(quickest(pool, jobs, max(1, round(times))) * times / max(1, round(times)))
    return min(seconds)


def quickest(pool: Threads, jobs: list[Callable[[], Any]], times: int) -> float:
    """The least seconds of several tries in which every worker does its job so many times."""

    def repeat(job: Callable[[], Any]) -> None:
        for _ in range(times):
            job()

    return min(times_of(lambda: pool.map(repeat, jobs), least=REPEATS))


def memory_seconds(pool: Threads, total_bytes: int) -> float:
    """Read one half of so many bytes and write the other."""
    size = max(1, total_bytes // 8 // pool.count)

    def copy() -> Callable[[], Any]:
        source, target = np.ones(size, np.float32), np.ones(size, np.float32)
        return lambda: np.copyto(target, source)

    return quickest(pool, [copy() for _ in range(pool.count)], 1)


def tanh_seconds(pool: Threads, numbers: int) -> float:
    """The tanh of so many numbers, a cacheful at a time."""
    block = min(1 << 15, max(1, numbers // pool.count))

    def tanh() -> Callable[[], Any]:
        source = np.random.default_rng(0).standard_normal(block, np.float32)
        target = np.empty_like(source)
        return lambda: np.tanh(source, out=target)

    times = max(1, numbers // pool.count // block)
    return quickest(pool, [tanh() for _ in range(pool.count)], times)
