"""The CPU fast path of a layer of maps that ends in an activation: a CNN's, with the pieces of :mod:`stg_np.fast.maps`.

What :mod:`stg_np.layers.maps` computes, which is its oracle. After the fast convolution a few pictures at a time: norm
and bias as one affine map, the activation in place, its slope from what its forward has kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.fast.maps import Front, affine, along, by_rows, front_backward, front_forward, picture_chunks, pixel_sum
from stg_np.layers.maps import MapSpec
from stg_np.ops.activations import GELU, GELU_CUBIC, GELU_SCALE, RELU, Activation
from stg_np.ops.batch_norm import Statistics
from stg_np.ops.conv import ConvParams
from stg_np.workspace import Workspace


class ActivatedCache(NamedTuple):
    """Of a whole batch; all (B, height, width, H), and in the workspace."""

    front: Front
    a: Array
    kept: Array


def relu_forward(a: Array, y: Array, kept: Array) -> None:
    """Write max(a, 0); nothing needs to be kept."""
    np.maximum(a, 0, out=y)


def relu_slope(a: Array, kept: Array, out: Array, spare: Array) -> None:
    """Write 1 where a > 0, else 0."""
    np.greater(a, 0, out=out)


def gelu_forward(a: Array, y: Array, kept: Array) -> None:
    """Write a σ(2 s (a + c a³)), which is :func:`stg_np.ops.activations.gelu_forward`; σ is kept.

    Where e⁻ᵃ is too large for its dtype, σ is 0, as it should be.
    """
    np.multiply(a, a, out=kept)
    kept *= -2 * GELU_SCALE * GELU_CUBIC
    kept -= 2 * GELU_SCALE
    kept *= a
    with np.errstate(over="ignore", under="ignore"):
        np.exp(kept, out=kept)
    kept += 1
    np.divide(1, kept, out=kept)
    np.multiply(a, kept, out=y)


def gelu_slope(a: Array, kept: Array, out: Array, spare: Array) -> None:
    """Write σ + a σ (1 − σ) · 2 s (1 + 3 c a²)."""
    np.multiply(a, a, out=out)
    out *= 6 * GELU_SCALE * GELU_CUBIC
    out += 2 * GELU_SCALE
    out *= a
    np.multiply(kept, kept, out=spare)
    np.subtract(kept, spare, out=spare)
    out *= spare
    out += kept


FAST_ACTIVATIONS: dict[Activation, tuple[Callable[..., None], Callable[..., None]]] = {
    RELU: (relu_forward, relu_slope),
    GELU: (gelu_forward, gelu_slope),
}
"""Of an activation: ``forward(a, y, kept)`` and ``slope(a, kept, out, spare)``, which write into their arguments."""


def covers(kind: Any, params: Any) -> bool:
    """Whether this module computes such a layer."""
    return isinstance(kind, Activation) and kind in FAST_ACTIVATIONS and params.W.dtype in (np.float32, np.float64)


def map_layer_forward(
    h: Array, params: ConvParams, spec: MapSpec, statistics: Statistics | None, *, work: Workspace
) -> tuple[tuple[Array, Statistics | None], ActivatedCache]:
    """As :func:`stg_np.layers.maps.map_layer_forward`; y and the cache are good until the next forward in ``work``.

    Raises:
        ValueError, TypeError: as the plain layer.
    """
    front, shift, measured = front_forward(h, params, params.b, spec, statistics, work)
    p, scale = front.pooled, front.scale
    width, (activate, _) = p.shape[2], FAST_ACTIVATIONS[spec.kind]
    a, kept, y = (work.empty(name, p.shape, p.dtype) for name in ("a", "kept", "y"))
    scale_row, shift_row = None if scale is None else along(scale, width), along(shift, width)
    for part in picture_chunks(p):
        affine(by_rows(p[part]), scale_row, shift_row, by_rows(a[part]))
        activate(a[part], y[part], kept[part])
    return (y, measured), ActivatedCache(front, a, kept)


def map_layer_backward(
    dy: Array, cache: ActivatedCache, params: ConvParams, spec: MapSpec, *, work: Workspace
) -> tuple[Array | None, ConvParams]:
    """As :func:`stg_np.layers.maps.map_layer_backward`; dh lies in ``work``."""
    a, (_, slope) = cache.a, FAST_ACTIVATIONS[spec.kind]
    da_all, H = work.empty("da", a.shape, a.dtype), a.shape[-1]
    db, along_a = np.zeros(H, a.dtype), np.zeros(H, a.dtype)
    for part in picture_chunks(a):
        da, spare = da_all[part], work.empty("spare", a[part].shape, a.dtype)
        slope(a[part], cache.kept[part], da, spare)
        da *= dy[part]  # from y = φ(a)
        db += pixel_sum(da)  # from + b
        if cache.front.by_batch:
            along_a += pixel_sum(np.multiply(da, a[part], out=spare))
    if spec.frozen:
        return None, ConvParams(np.zeros_like(params.W), db)
    dh, dW = front_backward(da_all, a, cache.front, params, params.b, db, along_a, work)
    return dh, ConvParams(dW, db)
