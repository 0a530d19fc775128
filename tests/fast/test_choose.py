"""Which path is taken: by workspace, library, dtype and kind of layer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stg_np import stm, stm_recurrent
from stg_np.fast import choose, conv, cuda, cuda_sweep, layer, walks
from stg_np.layers import maps, walk
from stg_np.layers.spec import STMKind, WalkSpec
from stg_np.ops import conv as plain_conv
from stg_np.ops.activations import IDENTITY, TANH
from stg_np.sweep import SweepKind, summed
from stg_np.workspace import Workspace

KINDS = {
    "full": STMKind(),
    "full, identity": STMKind(phi_z=IDENTITY),
    "diagonal, identity": STMKind(diagonal=True, phi_z=IDENTITY),
    "diagonal, tanh": STMKind(diagonal=True, phi_z=TANH),
    "recurrent": STMKind(recurrent=True),
}
QUICK_ON_THE_CPU = {"full", "full, identity", "diagonal, identity"}
QUICK_ON_A_GPU = QUICK_ON_THE_CPU | {"diagonal, tanh"}
every_kind = pytest.mark.parametrize("name", KINDS)
SPEC = WalkSpec(4, ("right", "left"), (1, 3))


def bare(function: Any) -> Any:
    """The function inside a partial one."""
    return getattr(function, "func", function)


def plain_pair(kind: STMKind) -> tuple[Any, Any]:
    if kind.recurrent:
        return stm_recurrent.stm_recurrent_forward, stm_recurrent.stm_recurrent_backward
    return stm.stm_forward, stm.stm_backward


def chosen(x: Any, kind: STMKind, work: Workspace | None) -> tuple[Any, Any]:
    cell = choose.stm_cell(x, kind, work)
    return bare(cell.forward), bare(cell.backward)


@every_kind
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_on_the_cpu(name: str, dtype: Any) -> None:
    kind, x = KINDS[name], np.zeros((1, 3, 4), dtype)
    quick = name in QUICK_ON_THE_CPU and dtype is not np.float16
    assert chosen(x, kind, None) == plain_pair(kind)
    wanted = (walks.stm_forward, walks.stm_backward) if quick else plain_pair(kind)
    assert chosen(x, kind, Workspace()) == wanted
    for work, fast in ((None, False), (Workspace(), quick)):
        pair, home = choose.layer_pair(x, SPEC, kind, work), layer if fast else walk
        assert (bare(pair.forward), bare(pair.backward)) == (home.layer_forward, home.layer_backward)


@every_kind
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_on_a_device(name: str, dtype: Any, compiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "get_xp", lambda x: SimpleNamespace(**{"RawModule": None} if compiles else {}))
    kind, x = KINDS[name], np.zeros((1, 3, 4), dtype)
    assert chosen(x, kind, None) == plain_pair(kind)
    quick = compiles and name in QUICK_ON_A_GPU and dtype is not np.float16
    assert chosen(x, kind, Workspace()) == ((cuda.stm_forward, cuda.stm_backward) if quick else plain_pair(kind))
    assert bare(choose.layer_pair(x, SPEC, kind, Workspace()).forward) == walk.layer_forward


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize(
    ("kind", "dtype", "covered"),
    [
        (SweepKind(), np.float32, True),
        (SweepKind(), np.float64, True),
        (SweepKind(), np.float16, False),
        (SweepKind(summed()), np.float32, False),
    ],
)
def test_gates_and_sweeps(
    kind: SweepKind, dtype: Any, covered: bool, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.zeros((1, 2, 2, 4), dtype)
    assert choose.sweep_pair(x, kind, Workspace()) is maps.PLAIN_SWEEP  # NumPy has no kernels
    monkeypatch.setattr(choose, "get_xp", lambda x: SimpleNamespace(**{"RawModule": None} if compiles else {}))
    assert choose.sweep_pair(x, kind, None) is maps.PLAIN_SWEEP
    kernels = (cuda_sweep.gated_sweep_forward, cuda_sweep.gated_sweep_backward)
    wanted = kernels if covered and compiles else maps.PLAIN_SWEEP
    assert choose.sweep_pair(x, kind, Workspace()) == wanted


def test_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((1, 3, 3, 4), np.float32)
    assert choose.conv_pair(x, None) == (plain_conv.conv2d_forward, plain_conv.conv2d_backward)
    pair = choose.conv_pair(x, Workspace())
    assert (bare(pair.forward), bare(pair.backward)) == (conv.conv2d_forward, conv.conv2d_backward)
    params = plain_conv.ConvParams(np.ones((3, 3, 4, 2), np.float32), np.ones(2, np.float32))
    y, cache = pair.forward(x, params)
    assert pair.backward(y, cache, params)[0].shape == x.shape  # both have the workspace
    monkeypatch.setattr(choose, "get_xp", lambda x: SimpleNamespace())
    assert choose.conv_pair(x, Workspace()) == (plain_conv.conv2d_forward, plain_conv.conv2d_backward)
