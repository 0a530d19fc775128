"""A layer of maps: a window, pooling, batch normalisation, then gates and sweeps, or an activation.

y = gated_sweep(norm(pool(window(x) W)))                the image STM
y = φ(norm(pool(window(x) W)) + b)                      what a CNN has in its place
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from stg_np.backend import Array
from stg_np.layers.spec import Pair
from stg_np.ops.activations import Activation
from stg_np.ops.batch_norm import (
    BatchNormCache,
    Statistics,
    batch_norm_backward,
    batch_norm_forward,
    fixed_norm_backward,
    fixed_norm_forward,
)
from stg_np.ops.conv import ConvParams, conv2d_backward, conv2d_forward
from stg_np.ops.linear import flat_rows
from stg_np.ops.pool2d import MaxPoolCache, max_pool2d_backward, max_pool2d_forward
from stg_np.stm import STMParams
from stg_np.sweep import gated_sweep_backward, gated_sweep_forward, window_params

PLAIN_WINDOW = Pair(conv2d_forward, conv2d_backward)
"""The window by the plain convolution, for which its fast form may stand in."""

PLAIN_SWEEP = Pair(gated_sweep_forward, gated_sweep_backward)
"""Gates and sweeps by the plain functions, for which a device's kernels may stand in."""

MapParams: TypeAlias = "STMParams | ConvParams"
"""Of a layer that ends in gates, or in an activation."""


def activated_forward(p: Array, params: ConvParams, phi: Activation) -> tuple[Array, tuple[Array, Array]]:
    """``y = φ(p + b)``: p (B, height, width, H) -> y, and what φ's backward asks for."""
    a = p + params.b
    y = phi.forward(a)
    return y, (a, y)


def activated_backward(
    dy: Array, cache: tuple[Array, Array], params: ConvParams, phi: Activation
) -> tuple[Array, Array, None]:
    """Return dp, db (H,), and None where gates have one more gradient."""
    da = phi.backward(dy, *cache)  # from φ(a)
    return da, flat_rows(da).sum(0), None  # from p + b


PLAIN_ACTIVATION = Pair(activated_forward, activated_backward)


@dataclass(frozen=True)
class MapSpec:
    """One layer of maps.

    Attributes:
        kind: which image STM, a :class:`~stg_np.sweep.SweepKind`, or which activation.
        pools: whether each 2 × 2 pixels become one after the window, the largest.
        normalises: whether batch normalisation stands before the gates or the activation.
        frozen: whether the window is not learned and nothing before it is: then its gradients are zeros and None.
    """

    kind: Any
    pools: bool = False
    normalises: bool = True
    frozen: bool = False


class MapCache(NamedTuple):
    """The cache of each part; None where there is none. ``norm`` is the scale alone where statistics were given."""

    window: Any
    pool: MaxPoolCache | None
    norm: BatchNormCache | Array | None
    gated: Any


def map_layer_forward(
    h: Array,
    params: MapParams,
    spec: MapSpec,
    statistics: Statistics | None,
    *,
    window: Pair = PLAIN_WINDOW,
    gated: Pair = PLAIN_SWEEP,
) -> tuple[tuple[Array, Statistics | None], MapCache]:
    """h (B, height, width, D) -> y (B, height, width, H), or half as high and wide where the layer pools.

    Args:
        h: a map. params: ``W`` a kernel. spec: which layer.
        statistics: to normalise by; None: those of this batch.
        window: the convolution's pair. gated: the pair of gates and sweeps, or of the activation.

    Returns:
        ``(y, statistics of this batch)``, None if there were none to compute; and the cache.

    Raises:
        ValueError, TypeError: see :func:`stg_np.ops.conv.conv2d_forward` and :mod:`stg_np.ops.pool2d`.
    """
    p, window_cache = window.forward(h, window_params(params))  # (B, height, width, H)
    pool: MaxPoolCache | None = None
    norm: BatchNormCache | Array | None = None
    measured: Statistics | None = None
    if spec.pools:
        p, pool = max_pool2d_forward(p)  # (B, height / 2, width / 2, H)
    if spec.normalises:
        if statistics is None:
            (p, measured), norm = batch_norm_forward(p)
        else:
            p, norm = fixed_norm_forward(p, statistics)
    y, gated_cache = gated.forward(p, params, spec.kind)
    return (y, measured), MapCache(window_cache, pool, norm, gated_cache)


def map_layer_backward(
    dy: Array,
    cache: MapCache,
    params: MapParams,
    spec: MapSpec,
    *,
    window: Pair = PLAIN_WINDOW,
    gated: Pair = PLAIN_SWEEP,
) -> tuple[Array | None, MapParams]:
    """Reverse :func:`map_layer_forward`: dy -> dh (B, height, width, D), dparams."""
    dp, db, dw = gated.backward(dy, cache.gated, params, spec.kind)
    if isinstance(cache.norm, BatchNormCache):
        dp = batch_norm_backward(dp, cache.norm)
    elif cache.norm is not None:
        dp = fixed_norm_backward(dp, cache.norm)
    if cache.pool is not None:
        dp = max_pool2d_backward(dp, cache.pool)
    others = {"b": db} if dw is None else {"b": db, "w": dw}
    if spec.frozen:
        return None, params._replace(W=0 * params.W, **others)
    dh, dwindow = window.backward(dp, cache.window, window_params(params))
    return dh, params._replace(W=dwindow.W, **others)
