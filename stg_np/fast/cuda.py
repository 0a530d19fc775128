"""The CUDA fast path of the STM layer: everything between the matrix products is one kernel, each way.

Same signatures as :func:`stg_np.stm.stm_forward` and :func:`stg_np.stm.stm_backward`, which are its oracle. CuPy's
matrix product makes ``p = x W`` before the forward kernel, and ``dx``, ``dW`` after the backward one. In between:

* one thread per line and channel walks the steps with its memory m (backwards: dm) in a register; the lines of a
  sequence are the samples of its batch. No thread waits for another and there are no atomics, so two runs give the
  same bits;
* neighbouring threads are neighbouring channels, and channels are the last axis of every array: each read and each
  write of a warp is one run of memory, in the layout (B, T, ·) that the matrix products use anyway;
* a scan is bound by memory, not by arithmetic, so the gates are not stored: the backward computes them again from p.
  db (and dw) are summed over the steps in registers; what is left is a sum over the lines.

The kernels know maps (B, height, width, ·) and four directions, see :mod:`stg_np.fast.cuda_sweep`; to them a sequence
is a map of height 1 that is swept to the right, from a memory that is given.

Memory traffic in numbers per (b, t, h), P = 4 with full gates and 1 with diagonal ones, each 4 or 8 bytes:

=========  ===============  ==============  ===============================
kernel     reads            writes          float32: full gates, diagonal
=========  ===============  ==============  ===============================
forward    p: P             m, y: 2         24 bytes, 12 bytes
backward   p: P, m, dy: 2   dp: P           40 bytes, 16 bytes
=========  ===============  ==============  ===============================

:func:`traffic_bytes` has the sum with the small terms: what a measured time is to be held against.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.inputs import check_sequence
from stg_np.layers.spec import STMKind
from stg_np.ops.activations import IDENTITY, TANH, Activation
from stg_np.ops.linear import matmul, outer_sum
from stg_np.stm import LayerGradients, STMParams

SOURCE = r"""
// Compiled with REAL (float or double), and DIAGONAL, TANH, GIVEN and STILL (0 or 1) defined, see Variant.
// Thread (b side + k) H + h walks channel h of line k of picture b; at each step, a row of the arrays
// (B height width, ...), it owns P numbers of p, H apart: [p_i|p_u|p_o|p_z] or [p_z].
typedef long long Index;
constexpr Index P = DIAGONAL ? 1 : 4;
constexpr Index SUMS = DIAGONAL ? 7 : 4;

struct Line { Index first, step, steps; };  // the rows first, first + step, ...
struct Coefficients { REAL b[4], w[3]; };   // of one channel
struct Gates { REAL i, u, o, z, a_z; };     // of one channel at one step

// A way is 0 right, 1 left, 2 down, 3 up; ways has two bits for each share of the channels, the first share's lowest.
inline __device__ Line line_of(
    Index cell, Index height, Index width, Index H, Index side, Index share, Index ways
) {
    const Index h = cell % H, k = cell / H % side, picture = cell / H / side * height * width;
    const int way = int(ways >> 2 * (h / share)) & 3;
    const bool vertical = way & 2, backwards = way & 1;
    const Index lines = vertical ? width : height, steps = vertical ? height : width;
    const Index step = vertical ? width : 1, start = picture + k * (vertical ? 1 : width);
    if (k >= lines) return {0, 0, 0};              // the other directions have more lines
    return backwards ? Line{start + (steps - 1) * step, -step, steps} : Line{start, step, steps};
}

inline __device__ Coefficients coefficients(const REAL* b, const REAL* w, Index h, Index H) {
    Coefficients c = {};
    for (int g = 0; g < 4; ++g) c.b[g] = b[g * H + h];
    if (DIAGONAL) for (int g = 0; g < 3; ++g) c.w[g] = w[g * H + h];
    return c;
}

inline __device__ REAL sigmoid(REAL a) { return REAL(0.5) * tanh(REAL(0.5) * a) + REAL(0.5); }

inline __device__ Gates gates(const REAL* p, const Coefficients& c, Index H) {
    REAL a[3];
    const REAL a_z = p[(P - 1) * H] + c.b[3];
    for (int g = 0; g < 3; ++g) a[g] = (DIAGONAL ? c.w[g] * a_z : p[g * H]) + c.b[g];
    return {sigmoid(a[0]), sigmoid(a[1]), sigmoid(a[2]), TANH ? tanh(a_z) : a_z, a_z};
}

extern "C" __global__ void stm_forward(
    const REAL* __restrict__ p, const REAL* __restrict__ b, const REAL* __restrict__ w, const REAL* __restrict__ m_0,
    REAL* __restrict__ y, REAL* __restrict__ memories,
    Index B, Index height, Index width, Index H, Index side, Index share, Index ways
) {
    const Index cell = Index(blockIdx.x) * blockDim.x + threadIdx.x;
    if (cell >= B * side * H) return;
    const Index h = cell % H;
    const Line line = line_of(cell, height, width, H, side, share, ways);
    const Coefficients c = coefficients(b, w, h, H);
    REAL m = 0;
    if (GIVEN) m = m_0[cell];
    Index row = line.first;
    #pragma unroll 4
    for (Index t = 0; t < line.steps; ++t, row += line.step) {
        const Gates g = gates(p + row * P * H + h, c, H);
        if (STILL) m = 0;
        m += g.u * (g.i * g.z - m);
        if (!STILL) memories[row * H + h] = m;
        y[row * H + h] = g.o * m;
    }
}

extern "C" __global__ void stm_backward(
    const REAL* __restrict__ p, const REAL* __restrict__ b, const REAL* __restrict__ w, const REAL* __restrict__ m_0,
    const REAL* __restrict__ memories, const REAL* __restrict__ dy, const REAL* __restrict__ dm_T,
    REAL* __restrict__ dp, REAL* __restrict__ dm_0, REAL* __restrict__ sums,
    Index B, Index height, Index width, Index H, Index side, Index share, Index ways
) {
    const Index cell = Index(blockIdx.x) * blockDim.x + threadIdx.x;
    if (cell >= B * side * H) return;
    const Index h = cell % H;
    const Line line = line_of(cell, height, width, H, side, share, ways);
    const Coefficients c = coefficients(b, w, h, H);
    REAL sum[SUMS] = {};                               // [db_i|db_u|db_o|db_z] and, diagonal, [dw_i|dw_u|dw_o]
    REAL carried = 0, m = 0;
    Index row = line.first + (line.steps - 1) * line.step;
    if (GIVEN) carried = dm_T[cell];
    if (!STILL && line.steps > 0) m = memories[row * H + h];
    #pragma unroll 4
    for (Index t = line.steps - 1; t >= 0; --t, row -= line.step) {
        const Gates g = gates(p + row * P * H + h, c, H);
        REAL before = 0;
        if (STILL) m = g.u * (g.i * g.z);
        else if (t > 0) before = memories[(row - line.step) * H + h];
        else if (GIVEN) before = m_0[cell];
        const REAL dy_t = dy[row * H + h];
        const REAL dm = dy_t * g.o + carried;          // from y = o m, and from the step after
        const REAL dv = dm * g.u;                      // from m = before + u (v - before)
        REAL da[4];
        da[0] = dv * g.z * g.i * (1 - g.i);            // from v = i z
        da[1] = dm * (g.i * g.z - before) * g.u * (1 - g.u);
        da[2] = dy_t * m * g.o * (1 - g.o);            // from y = o m
        da[3] = dv * g.i * (TANH ? 1 - g.z * g.z : REAL(1));
        if (DIAGONAL) for (int k = 0; k < 3; ++k) {
            da[3] += da[k] * c.w[k];                   // from a_g = w_g a_z + b_g
            sum[(4 + k) % SUMS] += da[k] * g.a_z;
        }
        for (int k = 0; k < 4; ++k) sum[k] += da[k];
        for (int k = 0; k < P; ++k) dp[(row * P + k) * H + h] = da[4 - P + k];
        if (!STILL) carried = dm * (1 - g.u);
        m = before;
    }
    if (GIVEN) dm_0[cell] = carried;
    for (int k = 0; k < SUMS; ++k) sums[(cell / H * SUMS + k) * H + h] = sum[k];
}
"""

THREADS = 64
"""Per block: few, because lines · H is often small and the blocks have to be spread over all multiprocessors."""

REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}

Memory: TypeAlias = Literal["given", "empty", "still"]
"""What a memory is before a line's first step: given, or empty; ``still``: empty before every step, m = u ⊙ v."""


class Variant(NamedTuple):
    """What one compilation of :data:`SOURCE` is for."""

    real: str
    diagonal: bool
    tanh_candidate: bool
    memory: Memory

    @property
    def options(self) -> tuple[str, ...]:
        """The compiler's options."""
        flags = {
            "DIAGONAL": self.diagonal,
            "TANH": self.tanh_candidate,
            "GIVEN": self.memory == "given",
            "STILL": self.memory == "still",
        }
        return (f"-DREAL={self.real}", *(f"-D{name}={flag:d}" for name, flag in flags.items()), "-std=c++17")


VARIANTS = tuple(Variant(*choice) for choice in product(REALS.values(), (False, True), (False, True), get_args(Memory)))


class Walk(NamedTuple):
    """The way of the threads through maps (B, height, width, H): the kernels' last arguments, in their order."""

    B: int
    height: int
    width: int
    H: int
    side: int  # lines of a picture, in the direction that has most
    share: int  # channels of each direction
    ways: int  # the directions, two bits each

    @property
    def cells(self) -> int:
        """The number of threads."""
        return self.B * self.side * self.H


def sequence_walk(B: int, T: int, H: int) -> Walk:
    """The walk through sequences (B, T, H)."""
    return Walk(B, 1, T, H, side=1, share=H, ways=0)


class KernelCache(NamedTuple):
    """The input (B, T, D), the products p = x W, the memories (B, T, H), the first one, and how it was computed."""

    x: Array
    p: Array  # (B, T, 4H), diagonal gates (B, T, H)
    memories: Array
    m_0: Array
    variant: Variant


class Traffic(NamedTuple):
    """Bytes that each kernel has to move."""

    forward: int
    backward: int


def available(xp: Any) -> bool:
    """Whether the array module ``xp`` can run kernels: CuPy can, NumPy and stand-ins for CuPy cannot."""
    return hasattr(xp, "RawModule")


def covers(kind: STMKind, dtype: Any) -> bool:
    """Whether the kernels compute such a walk; the rest is the plain path's."""
    return np.dtype(dtype) in REALS and not kind.recurrent and kind.phi_z in (TANH, IDENTITY)


def stm_forward(
    x: Array, m_0: Array, params: STMParams, *, phi_z: Activation = TANH
) -> tuple[tuple[Array, Array], KernelCache]:
    """As :func:`stg_np.stm.stm_forward`, φ the identity.

    Raises:
        ValueError: for what :func:`covers` excludes, or where shapes do not fit each other.
        TypeError: see :func:`stg_np.backend.check_dtypes`.
    """
    xp = get_xp(x, m_0, *params)
    check_sequence(x, m_0, params)
    if not covers(STMKind(params.R is not None, params.w is not None, phi_z), x.dtype):
        raise ValueError("these kernels do not know such an STM: ask stg_np.fast.choose for a pair that does")
    (B, T, _), H = x.shape, params.b.shape[0] // 4
    variant = Variant(REALS[x.dtype], params.w is not None, phi_z is TANH, "given")
    x, m_0 = xp.ascontiguousarray(x), dense("m_0", m_0, (B, H), x.dtype)
    p = dense("x W", matmul(x, params.W), (B, T, H if variant.diagonal else 4 * H), x.dtype)
    y, memories = (xp.empty((B, T, H), dtype=x.dtype) for _ in range(2))
    launch("stm_forward", variant, (p, *vectors(params, H), m_0), (y, memories), sequence_walk(B, T, H))
    m_T = memories[:, -1].copy()  # the caller's own
    return (y, m_T), KernelCache(x, p, memories, m_0, variant)


def stm_backward(dy: Array, dm_T: Array, cache: KernelCache, params: STMParams) -> LayerGradients:
    """As :func:`stg_np.stm.stm_backward`, with the cache of this module's forward.

    Raises:
        ValueError: if shapes or dtypes are not those of the forward's outputs.
    """
    x, p, memories, m_0, variant = cache
    xp, (B, T, H) = get_xp(dy, dm_T, x), memories.shape
    dy, dm_T = dense("dy", dy, (B, T, H), x.dtype), dense("dm_T", dm_T, (B, H), x.dtype)
    dp, dm_0 = xp.empty(p.shape, dtype=x.dtype), xp.empty((B, H), dtype=x.dtype)
    sums = xp.empty((B, (7 if variant.diagonal else 4) * H), dtype=x.dtype)  # over the steps, of each sample
    inputs = (p, *vectors(params, H), m_0, memories, dy, dm_T)
    launch("stm_backward", variant, inputs, (dp, dm_0, sums), sequence_walk(B, T, H))
    dvectors = sums.sum(0)  # [db|dw]
    dw = dvectors[4 * H :] if variant.diagonal else None
    return matmul(dp, params.W.T), dm_0, STMParams(outer_sum(x, dp), dvectors[: 4 * H], None, dw)


def dense(name: str, array: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """``array`` without gaps in memory; a kernel follows bare pointers, so shape and dtype must be as expected."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} must be {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")
    contiguous: Array = get_xp(array).ascontiguousarray(array)
    return contiguous


def vectors(params: STMParams, H: int) -> tuple[Array, Array]:
    """b and w for the kernels; full gates have no w, and their kernels never read what is given instead."""
    b = dense("b", params.b, (4 * H,), params.b.dtype)
    return b, b if params.w is None else dense("w", params.w, (3 * H,), params.b.dtype)


def launch(name: str, variant: Variant, inputs: tuple[Array, ...], outputs: tuple[Array, ...], walk: Walk) -> None:
    """Queue one kernel on the device, a thread per line and channel."""
    if walk.cells > 0:  # CUDA refuses a grid of no blocks
        grid = ((walk.cells + THREADS - 1) // THREADS,)
        compiled(variant).get_function(name)(grid, (THREADS,), (*inputs, *outputs, *walk))


@cache
def compiled(variant: Variant) -> Any:
    """The module of both kernels, compiled at their first use (CuPy keeps the result on disk)."""
    import cupy

    return cupy.RawModule(code=SOURCE, options=variant.options)


def traffic_bytes(variant: Variant, walk: Walk) -> Traffic:
    """The bytes each kernel has to read and write, every array once: ``time × bandwidth`` cannot be less."""
    P, vectors = (1, 7) if variant.diagonal else (4, 4)  # of H numbers: p at each step; b and w
    maps, ends = walk.B * walk.height * walk.width * walk.H, walk.cells if variant.memory == "given" else 0
    kept = 0 if variant.memory == "still" else maps
    forward = (P + 1) * maps + kept + ends + vectors * walk.H  # p, y; memories; m_0
    backward = (2 * P + 1) * maps + kept + 3 * ends + vectors * (walk.H + walk.cells)
    # p, dp, dy; memories; m_0, dm_T, dm_0; b and w, and their sums over each line
    itemsize = 4 if variant.real == "float" else 8
    return Traffic(forward * itemsize, backward * itemsize)
