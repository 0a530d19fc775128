"""The CUDA kernels of the image STM against the plain path, on a GPU or, where there is none, on the CPU."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import sweep
from stg_np.backend import Array, to_device, to_host
from stg_np.checks import on_device, with_params
from stg_np.fast import cuda as kernels
from stg_np.fast import cuda_sweep
from stg_np.gradcheck import check_pair
from stg_np.models.image_stg import ImageSTG
from stg_np.ops.activations import IDENTITY, SIGMOID, TANH
from stg_np.params import Params
from stg_np.stm import STMParams
from stg_np.sweep import ALL_WAYS, STILL, Sweep, SweepKind, quarters, summed
from stg_np.workspace import Workspace
from tests.contract import hold_to_contract
from tests.fast.cpu_launcher import COMPILER, NO_COMPILER, CPULauncher
from tests.strategies import ARRAYS, EMPTY_B, Arrays


class Sizes(NamedTuple):
    """Of a map, and how many channels each direction has."""

    B: int
    height: int
    width: int
    share: int


SIDES = st.sampled_from((1, 2, 3, 5))
SIZES = st.builds(Sizes, EMPTY_B, SIDES, SIDES, st.sampled_from((1, 2, 3)))
WIDE = st.builds(Sizes, st.just(1), st.just(2), st.sampled_from((1, 2)), st.sampled_from((8, 31, 32, 33)))
"""Threads just below, at and above one block of 64, or a few of them."""
SWEEPS = st.just(STILL) | st.sampled_from((1, 2, 4)).flatmap(
    lambda count: st.permutations(ALL_WAYS).map(lambda ways: quarters(tuple(ways[:count])))
)
MIXED = quarters(("up", "right", "down", "left"))

kinds = pytest.mark.parametrize(
    ("how", "diagonal"),
    [(MIXED, True), (MIXED, False), (STILL, True), (STILL, False)],
    ids=["diagonal", "full", "diagonal, no sweep", "full, no sweep"],
)


def draw_maps(draw: Arrays, sizes: Sizes, how: Sweep, diagonal: bool) -> tuple[Array, STMParams, Array]:
    """p, params, dy."""
    B, height, width, share = sizes
    H = share * max(1, len(how.directions))
    params = draw.stm(1, H, recurrent=False, diagonal=diagonal)
    return draw.normal(B, height, width, H if diagonal else 4 * H), params, draw.normal(B, height, width, H)


def run(path: Any, arguments: tuple[Array, STMParams, Array], kind: SweepKind) -> list[Any]:
    """y, dp, db and dw of one path, on the host; None where there is no dw."""
    p, params, dy = arguments
    y, cache = path.gated_sweep_forward(p, params, kind)
    gradients = path.gated_sweep_backward(dy, cache, params, kind)
    return [array if array is None else to_host(array) for array in (y, *gradients)]


def assert_same(got: list[Any], expected: list[Any], tolerance: float) -> None:
    for one, other in zip(got, expected, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max(initial=1))


def pair_of(kind: SweepKind) -> tuple[Any, Any]:
    """The kernels' pair as the gradient checker takes it; the window's W is not used here, so its gradient is zero."""

    def backward(dy: Array, cache: Any, params: STMParams) -> tuple[Array, STMParams]:
        dp, db, dw = cuda_sweep.gated_sweep_backward(dy, cache, params, kind)
        return dp, STMParams(0 * params.W, db, None, dw)

    return with_params(partial(cuda_sweep.gated_sweep_forward, kind=kind), backward)


@pytest.mark.usefixtures("launched")
@given(ARRAYS, SIZES | WIDE, SWEEPS, st.booleans(), st.sampled_from((IDENTITY, TANH)))
def test_equals_the_plain_path(device: str, draw: Arrays, sizes: Sizes, how: Sweep, diagonal: bool, phi_z: Any) -> None:
    kind = SweepKind(how, phi_z)
    arguments = draw_maps(draw.on(device), sizes, how, diagonal)
    tolerance = 1e-12 if draw.dtype is np.float64 else 1e-5
    assert_same(run(cuda_sweep, arguments, kind), run(sweep, arguments, kind), tolerance)


@pytest.mark.numbers
@kinds
@pytest.mark.usefixtures("launched")
def test_gradients(device: str, how: Sweep, diagonal: bool) -> None:
    p, params, _ = draw_maps(Arrays(0, device=device), Sizes(2, 3, 2, 1), how, diagonal)
    check_pair(*pair_of(SweepKind(how)), {"p": p, "params": params}).assert_ok()


@kinds
@pytest.mark.usefixtures("launched")
def test_contract(device: str, how: Sweep, diagonal: bool) -> None:
    """Nothing is written into, nothing widened, and the host never waits for the device."""
    p, params, _ = draw_maps(Arrays(0, np.float32, device=device), Sizes(2, 3, 2, 1), how, diagonal)
    hold_to_contract(*pair_of(SweepKind(how)), {"p": p, "params": params})


@kinds
@pytest.mark.usefixtures("launched")
def test_two_runs_give_the_same_bits(device: str, how: Sweep, diagonal: bool) -> None:
    """Whatever the order of the threads, which here is drawn at random."""
    arguments = draw_maps(Arrays(0, np.float32, device=device), Sizes(3, 5, 4, 9), how, diagonal)
    assert_same(run(cuda_sweep, arguments, SweepKind(how)), run(cuda_sweep, arguments, SweepKind(how)), 0)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (SweepKind(summed()), np.float64),
        (SweepKind(quarters(("left",) * 5)), np.float64),
        (SweepKind(phi_z=SIGMOID), np.float64),
        (SweepKind(phi=TANH), np.float64),
        (SweepKind(louder=True), np.float64),
        (SweepKind(), np.float16),
    ],
    ids=["summed", "five directions", "other φ_z", "other φ", "louder", "half precision"],
)
def test_what_the_kernels_do_not_cover_is_refused(device: str, kind: SweepKind, dtype: Any) -> None:
    p, params, _ = draw_maps(Arrays(0, dtype, device=device), Sizes(1, 2, 2, 1), kind.sweep, diagonal=True)
    with pytest.raises(ValueError, match="do not know such sweeps: ask"):
        cuda_sweep.gated_sweep_forward(p, params, kind)


@pytest.mark.usefixtures("launched")
def test_a_shape_that_does_not_fit_is_refused_before_a_kernel_reads_it(device: str) -> None:
    draw, kind = Arrays(0, device=device), SweepKind()
    p, params, dy = draw_maps(draw, Sizes(2, 3, 2, 1), kind.sweep, diagonal=True)
    _, cache = cuda_sweep.gated_sweep_forward(p, params, kind)
    with pytest.raises(ValueError, match=r"p must be float64 of shape \(2, 3, 2, 4\)"):
        cuda_sweep.gated_sweep_forward(draw.normal(2, 3, 2, 8), params, kind)
    with pytest.raises(ValueError, match="p must be"):
        cuda_sweep.gated_sweep_forward(p[0], params, kind)
    with pytest.raises(ValueError, match="w must be"):
        cuda_sweep.gated_sweep_forward(p, params._replace(w=draw.normal(8)), kind)
    with pytest.raises(ValueError, match="4 channels cannot be shared out among 3 directions"):
        cuda_sweep.gated_sweep_forward(p, params, SweepKind(quarters(ALL_WAYS[:3])))
    with pytest.raises(TypeError, match="one floating dtype"):
        cuda_sweep.gated_sweep_forward(p.astype(np.float32), params, kind)
    with pytest.raises(ValueError, match="dy must be"):
        cuda_sweep.gated_sweep_backward(dy[:1], cache, params, kind)
    with pytest.raises(ValueError, match=r"dy must be float64 of shape .* got float32"):
        cuda_sweep.gated_sweep_backward(dy.astype(np.float32), cache, params, kind)


def test_arrays_of_two_libraries_are_refused(stand_in: Any) -> None:
    p, params, _ = draw_maps(Arrays(0), Sizes(1, 2, 2, 1), MIXED, diagonal=True)
    with pytest.raises(TypeError, match="mixed"):
        cuda_sweep.gated_sweep_forward(to_device(p, "cuda"), params, SweepKind())


@kinds
def test_traffic_is_every_array_once(cpu_launcher: CPULauncher | None, how: Sweep, diagonal: bool) -> None:
    if cpu_launcher is None:
        pytest.skip(NO_COMPILER)
    sizes = Sizes(3, 2, 5, 1)
    arguments = draw_maps(Arrays(0, np.float32), sizes, how, diagonal)
    with pytest.MonkeyPatch.context() as patch:
        cpu_launcher.install(patch)
        run(cuda_sweep, arguments, SweepKind(how))
    variant = kernels.Variant("float", diagonal, False, "still" if how is STILL else "empty")
    walk = cuda_sweep.map_walk(sizes[:3], arguments[2].shape[-1], how)
    expected = kernels.traffic_bytes(variant, walk)
    assert cpu_launcher.bytes_moved == {"stm_forward": expected.forward, "stm_backward": expected.backward}


MODEL = ImageSTG((8, 16, 2), 3, widths=(8, 4), stem=3, sweeping=(2, 3))


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        replace(MODEL, directions=2, diagonal=False),
        replace(MODEL, directions=1, sweeping=(1, 4), patch=2),
        replace(MODEL, join="sum", louder=True),
    ],
    ids=["four directions", "two directions, full gates", "one direction, patches", "not covered but for the rest"],
)
def test_the_image_stg_is_the_plain_one_on_numpy(
    model: ImageSTG, stand_in: Any, cpu_launcher: CPULauncher | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training step on a device, with its workspace, so by the kernels where they cover a layer."""
    if cpu_launcher is None:
        pytest.skip(NO_COMPILER)
    launched: list[str] = []

    def launch(name: str, variant: kernels.Variant, *rest: Any) -> None:
        launched.append(f"{name} {variant.memory}")
        cpu_launcher(name, variant, *rest)

    cpu_launcher.install(monkeypatch)
    monkeypatch.setattr(kernels, "launch", launch)
    draw = Arrays(0)
    params = Params(model.layout(), 0.5 * draw.normal(model.layout().size))
    state = {name: draw.uniform(0.5, 2, *shape) for name, shape in model.state_layout().shapes.items()}
    x, dlogits = draw.normal(3, *model.input_shape), draw.normal(3, 3)
    logits, cache, kept = model.forward(x, params, state, train=True)
    grads = model.backward(dlogits, cache, params)
    assert launched == []

    on_gpu, its_state = Params(model.layout(), to_device(params.flat, "cuda")), on_device(state, "cuda")
    its_logits, its_cache, its_kept = model.forward(
        to_device(x, "cuda"), on_gpu, its_state, train=True, work=Workspace()
    )
    its_grads = model.backward(to_device(dlogits, "cuda"), its_cache, on_gpu, work=Workspace())
    np.testing.assert_allclose(to_host(its_logits), logits, rtol=1e-10)
    for name in kept:
        np.testing.assert_allclose(to_host(its_kept[name]), kept[name], rtol=1e-10)
    np.testing.assert_allclose(to_host(its_grads.flat), grads.flat, rtol=0, atol=1e-10 * np.abs(grads.flat).max())
    ways = ["still"] + ["empty" if layer in model.sweeping else "still" for layer in (1, 2, 3, 4)]
    covered = [way for way in ways if model.join == "quarters" or way == "still"]
    assert launched == [f"stm_forward {way}" for way in covered] + [f"stm_backward {way}" for way in covered[::-1]]


PLANTED = [
    ("(h / share)", "(h % share)"),
    ("ways >> 2 *", "ways >> 1 *"),
    ("way & 2", "way & 1"),
    ("lines = vertical ? width : height", "lines = height"),
    ("steps = vertical ? height : width;", "steps = width;"),
    ("step = vertical ? width : 1", "step = 1"),
    ("(vertical ? 1 : width)", "width"),
    ("(vertical ? 1 : width)", "1"),
    ("cell / H / side * height * width", "cell / H / side * side * width"),
    ("if (k >= lines)", "if (k > lines)"),
    ("Line{start + (steps - 1) * step, -step, steps}", "Line{start, step, steps}"),
    ("before = memories[(row - line.step) * H + h]", "before = memories[(row - 1) * H + h]"),
    ("if (!STILL && line.steps > 0) m = memories[row * H + h];", ""),
    ("if (STILL) m = 0;", ""),
    ("if (STILL) m = g.u * (g.i * g.z);", "if (STILL) m = 0;"),
    ("if (!STILL) carried =", "carried ="),
    ("if (GIVEN) dm_0[cell] = carried;", "dm_0[cell] = carried;"),
    ("if (!STILL) memories[row * H + h] = m;", "memories[row * H + h] = m;"),
]


@pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)
@pytest.mark.parametrize(("right", "wrong"), PLANTED)
def test_a_planted_mistake_is_noticed(right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CPULauncher.mistaken(right, wrong, tmp_path).install(monkeypatch)

    def compare() -> None:
        for how, sizes in ((MIXED, Sizes(2, 2, 3, 2)), (MIXED, Sizes(2, 3, 2, 2)), (STILL, Sizes(2, 2, 3, 2))):
            arguments = draw_maps(Arrays(0), sizes, how, diagonal=True)
            assert_same(run(cuda_sweep, arguments, SweepKind(how)), run(sweep, arguments, SweepKind(how)), 1e-12)

    with pytest.raises(AssertionError):
        compare()


@pytest.mark.gpu
@kinds
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_maps_on_a_gpu(how: Sweep, diagonal: bool, dtype: Any) -> None:
    """Compared with the plain path on the host in float64, at a size that fills many blocks; and bit for bit again."""
    kind = SweepKind(how)
    p, params, dy = draw_maps(Arrays(0, dtype), Sizes(64, 24, 32, 32), how, diagonal)
    params = STMParams._make(a if a is None else a * dtype(0.3) for a in params)
    on_gpu = on_device((p, params, dy), "cuda")
    got = run(cuda_sweep, on_gpu, kind)
    exact = STMParams._make(a if a is None else a.astype(np.float64) for a in params)
    expected = run(sweep, (p.astype(np.float64), exact, dy.astype(np.float64)), kind)
    for one, other in zip(got, expected, strict=True):
        if other is not None:
            assert np.abs(one - other).max() <= (1e-4 if dtype is np.float32 else 1e-11) * np.abs(other).max()
    assert_same(run(cuda_sweep, on_gpu, kind), got, 0)
