"""The CUDA kernels of the sequence layer against the plain path, on a GPU or, where there is none, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import stm
from stg_np.backend import to_device, to_host
from stg_np.checks import on_device, with_params
from stg_np.fast import cuda as kernels
from stg_np.gradcheck import check_pair
from stg_np.ops.activations import IDENTITY, SIGMOID, TANH, Activation
from stg_np.stm import STMParams
from tests.contract import hold_to_contract
from tests.fast.cpu_launcher import COMPILER, NO_COMPILER, CPULauncher
from tests.strategies import ARRAYS, SEEDS, STM_SIZES, Arrays, STMSizes, examples

ROOT = Path(__file__).parents[2]
WIDE = st.builds(STMSizes, st.just(3), st.just(2), st.just(2), st.sampled_from((21, 22, 43, 65)))
"""B · H just below and above one and two blocks of 64 threads."""

pairs = pytest.mark.parametrize(
    ("diagonal", "phi_z"),
    [(False, TANH), (False, IDENTITY), (True, TANH), (True, IDENTITY)],
    ids=["full-tanh", "full-identity", "diagonal-tanh", "diagonal-identity"],
)


def draw_layer(draw: Arrays, sizes: STMSizes, diagonal: bool) -> tuple[Any, ...]:
    """x, m_0, params, dy, dm_T."""
    B, T, D, H = sizes
    params = draw.stm(D, H, recurrent=False, diagonal=diagonal)
    return draw.normal(B, T, D), draw.normal(B, H), params, draw.normal(B, T, H), draw.normal(B, H)


def run(path: Any, arguments: tuple[Any, ...], phi_z: Activation) -> list[Any]:
    """Outputs and gradients of one path, on the host; None where there is no such parameter."""
    x, m_0, params, dy, dm_T = arguments
    (y, m_T), cache = path.stm_forward(x, m_0, params, phi_z=phi_z)
    dx, dm_0, dparams = path.stm_backward(dy, dm_T, cache, params)
    return [array if array is None else to_host(array) for array in (y, m_T, dx, dm_0, *dparams)]


def assert_same(got: list[Any], expected: list[Any], tolerance: float) -> None:
    for one, other in zip(got, expected, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max(initial=1))


@pytest.mark.usefixtures("launched")
@given(ARRAYS, STM_SIZES | WIDE, st.booleans(), st.sampled_from((TANH, IDENTITY)))
def test_equals_the_plain_path(device: str, draw: Arrays, sizes: STMSizes, diagonal: bool, phi_z: Activation) -> None:
    arguments = draw_layer(draw.on(device), sizes, diagonal)
    tolerance = 1e-12 if draw.dtype is np.float64 else 1e-5
    assert_same(run(kernels, arguments, phi_z), run(stm, arguments, phi_z), tolerance)


@pytest.mark.usefixtures("launched")
@given(SEEDS, st.booleans(), st.sampled_from((TANH, IDENTITY)))
@examples(0.4)
def test_saturated_gates(device: str, seed: int, diagonal: bool, phi_z: Activation) -> None:
    draw = Arrays(seed, device=device)
    arguments = draw.extreme(2, 3, 2), *draw_layer(draw, STMSizes(2, 3, 2, 2), diagonal)[1:]
    got = run(kernels, arguments, phi_z)
    assert all(np.isfinite(array).all() for array in got if array is not None)
    assert_same(got, run(stm, arguments, phi_z), 1e-8)  # the last bit of a tanh, times inputs of 1e4


@pytest.mark.numbers
@pairs
@pytest.mark.parametrize("T", [1, 6])
@pytest.mark.usefixtures("launched")
def test_gradients(device: str, diagonal: bool, phi_z: Activation, T: int) -> None:
    x, m_0, params, _, _ = draw_layer(Arrays(0, device=device), STMSizes(2, T, 3, 2), diagonal)
    forward, backward = with_params(partial(kernels.stm_forward, phi_z=phi_z), kernels.stm_backward)
    check_pair(forward, backward, {"x": x, "m_0": m_0, "params": params}).assert_ok()


@pairs
@pytest.mark.usefixtures("launched")
def test_contract(device: str, diagonal: bool, phi_z: Activation) -> None:
    """Nothing is written into, nothing widened, and the host never waits for the device."""
    x, m_0, params, _, _ = draw_layer(Arrays(0, np.float32, device=device), STMSizes(2, 4, 3, 2), diagonal)
    pair = with_params(partial(kernels.stm_forward, phi_z=phi_z), kernels.stm_backward)
    hold_to_contract(*pair, {"x": x, "m_0": m_0, "params": params})


@pairs
@pytest.mark.usefixtures("launched")
def test_two_runs_give_the_same_bits(device: str, diagonal: bool, phi_z: Activation) -> None:
    """Whatever the order of the threads, which here is drawn at random."""
    arguments = draw_layer(Arrays(0, np.float32, device=device), STMSizes(5, 9, 3, 33), diagonal)
    assert_same(run(kernels, arguments, phi_z), run(kernels, arguments, phi_z), 0)


@pytest.mark.usefixtures("launched")
def test_chunks_of_a_sequence_can_be_chained(device: str) -> None:
    x, m_0, params, dy, dm_T = draw_layer(Arrays(0, device=device), STMSizes(3, 7, 2, 4), diagonal=False)
    (first, m_3), cache = kernels.stm_forward(x[:, :3], m_0, params)
    (second, last), cache_after = kernels.stm_forward(x[:, 3:], m_3, params)
    dx_second, dm_3, d_after = kernels.stm_backward(dy[:, 3:], dm_T, cache_after, params)
    dx_first, dm_0, d_before = kernels.stm_backward(dy[:, :3], dm_3, cache, params)
    got = [np.concatenate([to_host(first), to_host(second)], 1), to_host(last)]
    got += [np.concatenate([to_host(dx_first), to_host(dx_second)], 1), to_host(dm_0), to_host(d_before.W + d_after.W)]
    assert_same(got, run(stm, (x, m_0, params, dy, dm_T), TANH)[:5], 1e-12)


@pytest.mark.parametrize(
    ("recurrent", "phi_z", "dtype"),
    [(False, SIGMOID, np.float64), (True, TANH, np.float64), (False, TANH, np.float16)],
    ids=["other φ_z", "recurrent", "half precision"],
)
def test_what_the_kernels_do_not_cover_is_refused(device: str, recurrent: bool, phi_z: Activation, dtype: Any) -> None:
    draw = Arrays(0, dtype, device=device)
    params = draw.stm(3, 2, recurrent=recurrent, diagonal=False)
    with pytest.raises(ValueError, match=r"do not know such an STM: ask|have an R"):
        kernels.stm_forward(draw.normal(2, 4, 3), draw.normal(2, 2), params, phi_z=phi_z)


@pytest.mark.usefixtures("launched")
def test_the_last_memory_belongs_to_the_caller(device: str) -> None:
    x, m_0, params, dy, dm_T = draw_layer(Arrays(0, device=device), STMSizes(2, 4, 3, 2), diagonal=False)
    (_, m_T), cache = kernels.stm_forward(x, m_0, params)
    m_T[...] = np.nan
    assert np.isfinite(to_host(kernels.stm_backward(dy, dm_T, cache, params)[0])).all()


@pytest.mark.usefixtures("launched")
def test_a_shape_that_does_not_fit_is_refused_before_a_kernel_reads_it(device: str) -> None:
    draw = Arrays(0, device=device)
    x, m_0, params, dy, dm_T = draw_layer(draw, STMSizes(2, 4, 3, 2), diagonal=True)
    _, cache = kernels.stm_forward(x, m_0, params)
    with pytest.raises(ValueError, match=r"x must be \(B, T, 3\) .* and m_0 \(B, 2\), got \(2, 4, 3\) and \(1, 2\)"):
        kernels.stm_forward(x, m_0[:1], params)
    with pytest.raises(ValueError, match=r"W must be \(3, 2\)"):
        kernels.stm_forward(x, m_0, params._replace(W=draw.normal(3, 8)))
    with pytest.raises(ValueError, match="w must be"):
        kernels.stm_forward(x, m_0, params._replace(w=draw.normal(8)))
    with pytest.raises(ValueError, match="dy must be"):
        kernels.stm_backward(dy[:, 1:], dm_T, cache, params)
    with pytest.raises(ValueError, match=r"dm_T must be float64 of shape .* got float32"):
        kernels.stm_backward(dy, dm_T.astype(np.float32), cache, params)


def test_arrays_of_two_libraries_are_refused(stand_in: Any) -> None:
    x, m_0, params, _, _ = draw_layer(Arrays(0), STMSizes(2, 4, 3, 2), diagonal=False)
    with pytest.raises(TypeError, match="mixed"):
        kernels.stm_forward(to_device(x, "cuda"), m_0, params)


@pairs
def test_traffic_is_every_array_once(cpu_launcher: CPULauncher | None, diagonal: bool, phi_z: Activation) -> None:
    if cpu_launcher is None:
        pytest.skip(NO_COMPILER)
    sizes = STMSizes(3, 4, 2, 5)
    with pytest.MonkeyPatch.context() as patch:
        cpu_launcher.install(patch)
        run(kernels, draw_layer(Arrays(0, np.float32), sizes, diagonal), phi_z)
    variant = kernels.Variant("float", diagonal, phi_z is TANH, "given")
    walk = kernels.sequence_walk(sizes.B, sizes.T, sizes.H)
    expected = kernels.traffic_bytes(variant, walk)
    assert cpu_launcher.bytes_moved == {"stm_forward": expected.forward, "stm_backward": expected.backward}
    in_float64 = kernels.traffic_bytes(variant._replace(real="double"), walk)
    assert in_float64 == (2 * expected.forward, 2 * expected.backward)


PLANTED = [
    ("c.b[g] = b[g * H + h]", "c.b[g] = b[g * H]"),
    ("c.w[g] = w[g * H + h]", "c.w[g] = w[h]"),
    ("p[(P - 1) * H] + c.b[3]", "p[(P - 1) * H]"),
    ("TANH ? tanh(a_z) : a_z", "a_z"),
    ("m += g.u *", "m -= g.u *"),
    ("memories[row * H + h] = m;", "memories[row * H + h] = g.o * m;"),
    ("if (cell >= B * side * H) return;", "if (cell > B * side * H) return;"),
    ("carried = dm_T[cell]", "carried = 0"),
    ("if (GIVEN) m = m_0[cell];", ""),
    ("before = m_0[cell]", "before = 0"),
    ("before = memories[(row - line.step) * H + h]", "before = memories[row * H + h]"),
    ("dy_t * g.o + carried", "dy_t * g.o"),
    ("(g.i * g.z - before)", "g.i * g.z"),
    ("da[2] = dy_t * m", "da[2] = dm * m"),
    ("TANH ? 1 - g.z * g.z", "TANH ? 1 - g.z"),
    ("da[3] += da[k] * c.w[k]", "da[3] -= da[k] * c.w[k]"),
    ("sum[(4 + k) % SUMS] += da[k] * g.a_z", "sum[(4 + k) % SUMS] += da[k]"),
    ("da[4 - P + k]", "da[k]"),
    ("carried = dm * (1 - g.u)", "carried = dm"),
    ("sums[(cell / H * SUMS + k) * H + h] = sum[k]", "sums[k * H + h] = sum[k]"),
]


@pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)
@pytest.mark.parametrize(("right", "wrong"), PLANTED)
def test_a_planted_mistake_is_noticed(right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CPULauncher.mistaken(right, wrong, tmp_path).install(monkeypatch)

    def compare() -> None:
        for diagonal in (False, True):
            arguments = draw_layer(Arrays(0), STMSizes(2, 3, 2, 3), diagonal)
            assert_same(run(kernels, arguments, TANH), run(stm, arguments, TANH), 1e-12)

    with pytest.raises(AssertionError):
        compare()


def test_the_launch_covers_every_cell_and_leaves_an_empty_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    module = SimpleNamespace(get_function=lambda name: lambda *arguments: calls.append((name, *arguments)))
    monkeypatch.setattr(kernels, "compiled", lambda variant: module)
    array = np.zeros(1)
    for walk in (
        kernels.sequence_walk(1, 7, 1),
        kernels.sequence_walk(1, 7, 64),
        kernels.sequence_walk(0, 7, 4),
        kernels.Walk(B=5, height=1, width=2, H=8, side=2, share=4, ways=6),
    ):
        kernels.launch("stm_forward", kernels.VARIANTS[0], (array,), (array,), walk)
    assert calls == [
        ("stm_forward", (blocks,), (64,), (array, array, *walk))
        for blocks, walk in ((1, (1, 1, 7, 1, 1, 1, 0)), (1, (1, 1, 7, 64, 1, 64, 0)), (2, (5, 1, 2, 8, 2, 4, 6)))
    ]


def test_a_variant_is_compiled_once_from_the_source_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[dict[str, Any]] = []

    def raw_module(**request: Any) -> SimpleNamespace:
        requests.append(request)
        return SimpleNamespace()

    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(RawModule=raw_module))
    kernels.compiled.cache_clear()
    try:
        full, diagonal, again = (kernels.compiled(kernels.VARIANTS[number]) for number in (0, -1, 0))
    finally:
        kernels.compiled.cache_clear()  # nobody else may be given these
    assert again is full is not diagonal
    options = [
        ("-DREAL=float", "-DDIAGONAL=0", "-DTANH=0", "-DGIVEN=1", "-DSTILL=0"),
        ("-DREAL=double", "-DDIAGONAL=1", "-DTANH=1", "-DGIVEN=0", "-DSTILL=1"),
    ]
    assert requests == [{"code": kernels.SOURCE, "options": (*defined, "-std=c++17")} for defined in options]


def test_the_compile_script_says_what_it_did_or_what_is_missing() -> None:
    """It compiles where CuPy and its compiler are installed, without a GPU; elsewhere one line and exit code 2."""
    command = [sys.executable, "-m", "tools.compile_kernels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    if done.returncode == 2:
        assert done.stderr.startswith("no kernel was compiled: ")
        assert done.stderr.count("\n") == 1
    else:
        assert done.returncode == 0, done.stderr
        assert f"{4 * len(kernels.VARIANTS)} kernels compiled in" in done.stdout


@pytest.mark.gpu
@pairs
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_layer_on_a_gpu(diagonal: bool, phi_z: Activation, dtype: Any) -> None:
    """Compared with the plain path on the host in float64, at a size that fills many blocks; and bit for bit again."""
    x, m_0, params, dy, dm_T = draw_layer(Arrays(0, dtype), STMSizes(64, 128, 32, 256), diagonal)
    params = STMParams._make(a if a is None else a * dtype(0.3) for a in params)
    arguments = x, m_0, params, dy, dm_T
    on_gpu = on_device(arguments, "cuda")
    got = run(kernels, on_gpu, phi_z)
    in_float64 = [a.astype(np.float64) for a in (x, m_0, dy, dm_T)]
    params = STMParams._make(a if a is None else a.astype(np.float64) for a in params)
    expected = run(stm, (*in_float64[:2], params, *in_float64[2:]), phi_z)
    for one, other in zip(got, expected, strict=True):
        if other is not None:
            assert np.abs(one - other).max() <= (1e-4 if dtype is np.float32 else 1e-11) * np.abs(other).max()
    assert_same(run(kernels, on_gpu, phi_z), got, 0)
