"""The peers in JAX: the STM layer under ``jax.jit``, its memory by a sequential or by a parallel scan.

XLA takes as many threads as the process has cores, so the number is set by pinning the process.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from stg_np.backend import Array
from stg_np.bench.cases import LayerCase
from stg_np.bench.subjects import Setup, Subject


def scan(case: LayerCase, setup: Setup) -> Subject:
    """The memory by ``lax.scan``, one step after the other."""
    jax = import_module("jax")

    def memories(u: Any, v: Any) -> Any:  # both (T, B, H)
        def step(m: Any, now: Any) -> Any:
            m = m + now[0] * (now[1] - m)
            return m, m

        return jax.lax.scan(step, u[0] * 0, (u, v))[1]

    return layer_subject(jax, case, memories)


def associative(case: LayerCase, setup: Setup) -> Subject:
    """The memory by ``lax.associative_scan``: m ↦ (1 − u) m + u v is an affine map, and affine maps compose."""
    jax = import_module("jax")

    def compose(first: Any, second: Any) -> Any:
        return first[0] * second[0], first[1] * second[0] + second[1]

    return layer_subject(jax, case, lambda u, v: jax.lax.associative_scan(compose, (1 - u, u * v))[1])


def layer_subject(jax: Any, case: LayerCase, memories: Callable[[Any, Any], Any]) -> Subject:
    """Forward and backward of the layer, compiled as one function."""
    x, dy, params = case.draw()
    H = case.H

    def layer(x: Any, W: Any, b: Any) -> Any:
        a = (x @ W + b).transpose(1, 0, 2)  # (T, B, 4H)
        i, u, o = jax.numpy.split(jax.nn.sigmoid(a[..., : 3 * H]), 3, -1)
        y = o * memories(u, i * jax.numpy.tanh(a[..., 3 * H :]))
        return y.transpose(1, 0, 2)

    def both(x: Any, W: Any, b: Any, dy: Any) -> Any:
        y, pull_back = jax.vjp(layer, x, W, b)
        return y, *pull_back(dy)

    function = jax.jit(both)
    arguments = [jax.numpy.asarray(array) for array in (x, params.W, params.b, dy)]

    def results(returned: Any) -> dict[str, Array]:
        return {name: np.asarray(array) for name, array in zip(("y", "dx", "dW", "db"), returned)}

    return Subject(lambda: jax.block_until_ready(function(*arguments)), results)


def facts() -> dict[str, str]:
    """Its versions; XLA brings its own matrix product."""
    jax = import_module("jax")
    return {"JAX": f"{jax.__version__}, jaxlib {import_module('jaxlib').__version__}"}
