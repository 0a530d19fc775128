"""The fast layer of maps: which layers it covers (that it equals the plain one: tests/models/test_image_stg.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from stg_np.backend import Array
from stg_np.fast import maps
from stg_np.layers.maps import MapSpec, map_layer_forward
from stg_np.ops.activations import TANH
from stg_np.stm import STMParams
from stg_np.sweep import STILL, SweepKind, quarters, summed
from stg_np.workspace import Workspace

RNG = np.random.default_rng(0)


def drawn(*shape: int, dtype: Any = np.float32) -> Array:
    return RNG.standard_normal(shape).astype(dtype)


def diagonal(dtype: Any = np.float32) -> STMParams:
    return STMParams(drawn(3, 3, 2, 4, dtype=dtype), drawn(16, dtype=dtype), None, drawn(12, dtype=dtype))


@pytest.mark.parametrize("sweep", [STILL, quarters(), quarters(("up",))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_it_covers(sweep: Any, dtype: Any) -> None:
    assert maps.covers(SweepKind(sweep), diagonal(dtype))


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (SweepKind(summed()), diagonal()),
        (SweepKind(phi_z=TANH), diagonal()),
        (SweepKind(phi=TANH), diagonal()),
        (SweepKind(louder=True), diagonal()),
        (SweepKind(), STMParams(drawn(3, 3, 2, 16), drawn(16))),
        (SweepKind(), diagonal(np.float16)),
    ],
    ids=["summed", "phi_z", "phi", "louder", "full gates", "float16"],
)
def test_what_it_does_not_cover_it_refuses(kind: SweepKind, params: STMParams) -> None:
    assert not maps.covers(kind, params)
    spec = replace(MapSpec(kind), normalises=False)
    with pytest.raises(ValueError, match="does not know such a layer"):
        maps.map_layer_forward(drawn(1, 4, 4, 2), params, spec, None, work=Workspace())


def test_a_map_that_the_pool_does_not_tile_is_refused_as_the_plain_layer_refuses_it() -> None:
    spec, h, params = MapSpec(SweepKind(STILL), pools=True), drawn(2, 3, 4, 2), diagonal()
    messages = []
    for layer in (map_layer_forward, partial(maps.map_layer_forward, work=Workspace())):
        with pytest.raises(ValueError, match="3×4") as raised:
            layer(h, params, spec, None)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
