"""THE place where a path is chosen: which forward/backward pair computes a thing, on these arrays.

One rule: without a workspace (``work=None``) the plain pair, the one to read; with one, the quickest that covers the
case. What a fast pair does not cover it refuses, so nothing slow or other is taken in silence behind this file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from stg_np import stm, stm_recurrent
from stg_np.backend import Array, get_xp
from stg_np.fast import activated, cells, cuda, cuda_sweep, layer, walks
from stg_np.fast import conv as fast_conv
from stg_np.fast import maps as fast_maps
from stg_np.layers import maps, walk
from stg_np.layers.maps import MapParams, MapSpec
from stg_np.layers.spec import Cell, Pair, STMKind, WalkSpec
from stg_np.ops import conv
from stg_np.ops.activations import Activation
from stg_np.sweep import SweepKind
from stg_np.workspace import Workspace


def layer_pair(x: Array, spec: WalkSpec, kind: STMKind | Cell, work: Workspace | None) -> Pair:
    """``forward(h, params, spec, rng=…)`` and ``backward(dh, cache, params, spec)`` of a layer, on arrays like x."""
    if work is not None and get_xp(x) is np and (fast := fast_walks(kind, x.dtype)):
        return Pair(
            partial(layer.layer_forward, walks=fast, work=work), partial(layer.layer_backward, walks=fast, work=work)
        )
    cell = kind if isinstance(kind, Cell) else stm_cell(x, kind, work)
    return Pair(partial(walk.layer_forward, cell=cell), partial(walk.layer_backward, cell=cell))


def fast_walks(kind: STMKind | Cell, dtype: Any) -> Pair | None:
    """The walks of a whole layer side by side, if there is a quick way for them."""
    if isinstance(kind, Cell):
        return cells.fast_walks(kind) if cells.covers(kind, dtype) else None
    return layer.stm_walks(kind.phi_z) if walks.covers(kind, dtype) else None


def stm_cell(x: Array, kind: STMKind, work: Workspace | None) -> Cell:
    """A single walk of an STM on arrays like x, from any first memory."""
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    if kind.recurrent:
        forward, backward = stm_recurrent.stm_recurrent_forward, stm_recurrent.stm_recurrent_backward
    elif work is not None and get_xp(x) is np and walks.covers(kind, x.dtype):
        forward, backward = partial(walks.stm_forward, work=work), partial(walks.stm_backward, work=work)
    elif work is not None and cuda.available(get_xp(x)) and cuda.covers(kind, x.dtype):
        forward, backward = cuda.stm_forward, cuda.stm_backward
    else:
        forward, backward = stm.stm_forward, stm.stm_backward
    return Cell(partial(forward, phi_z=kind.phi_z), backward, walk.empty_memory)


def map_layer_pair(x: Array, spec: MapSpec, params: MapParams, work: Workspace | None) -> Pair:
    """``forward(h, params, spec, statistics)`` and ``backward(dy, cache, params, spec)`` of a layer of maps."""
    if work is not None and get_xp(x) is np and fast_maps.covers(spec.kind, params):
        return Pair(partial(fast_maps.map_layer_forward, work=work), partial(fast_maps.map_layer_backward, work=work))
    if work is not None and get_xp(x) is np and activated.covers(spec.kind, params):
        return Pair(partial(activated.map_layer_forward, work=work), partial(activated.map_layer_backward, work=work))
    window, gated = conv_pair(x, work and work.within("window")), sweep_pair(x, spec.kind, work)
    forward = partial(maps.map_layer_forward, window=window, gated=gated)
    return Pair(forward, partial(maps.map_layer_backward, window=window, gated=gated))


def sweep_pair(x: Array, kind: SweepKind | Activation, work: Workspace | None) -> Pair:
    """``forward(p, params, kind)`` and ``backward(dy, cache, params, kind)`` of what follows a window."""
    if isinstance(kind, Activation):
        return maps.PLAIN_ACTIVATION
    if work is not None and cuda.available(get_xp(x)) and cuda_sweep.covers(kind, x.dtype):
        return Pair(cuda_sweep.gated_sweep_forward, cuda_sweep.gated_sweep_backward)
    return maps.PLAIN_SWEEP


def conv_pair(x: Array, work: Workspace | None) -> Pair:
    """``forward(x, params)`` and ``backward(dy, cache, params)`` of the convolution on arrays like x."""
    if work is not None and get_xp(x) is np:
        return Pair(partial(fast_conv.conv2d_forward, work=work), partial(fast_conv.conv2d_backward, work=work))
    return Pair(conv.conv2d_forward, conv.conv2d_backward)
