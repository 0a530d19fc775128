"""The image STM layer: a map stays a map, and the memory sweeps it in straight lines.

    a   = window(x) W + b                                     every pixel looks at its neighbourhood, k × k
    i, u, o, z, v                                             as in :mod:`stg_np.stm`, at every pixel
    m_s = (1 − u_s) ⊙ m_{s−1} + u_s ⊙ v_s                     s: the pixels of a line, in the order of the sweep
    y   = o ⊙ φ(m)

x is (B, height, width, D), y (B, height, width, H). A sweep to the right takes the columns from the first on, one to
the left from the last on, down and up the rows; each line starts with an empty memory. Two ways to join the sweeps:
*quarters*, each direction its own share of the channels; or one *sum* of all directions over all channels, which is
normalised afterwards, as in HGRN 2-D (Qin et al., arXiv:2311.04823). Without any sweep each pixel is a line of its own
and remembers nothing: m = u ⊙ v, a plain gated convolution.

The window is a convolution, and what stands between it and the gates (pooling, batch normalisation) is the model's
choice: so :func:`gated_sweep_forward` starts from the products p, and :func:`image_stm_forward` is both together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array, get_xp
from stg_np.ops.activations import IDENTITY, Activation
from stg_np.ops.conv import ConvCache, ConvParams, conv2d_backward, conv2d_forward
from stg_np.ops.norm import RMSNormCache, rms_norm_backward, rms_norm_forward
from stg_np.params import Entry
from stg_np.stm import (
    Gates,
    STMParams,
    gates_backward,
    gates_forward,
    preactivations_backward,
    preactivations_forward,
    scan_backward,
    scan_forward,
)

Direction: TypeAlias = Literal["right", "left", "down", "up"]
"""Which way a memory goes through a map."""

ALL_WAYS: tuple[Direction, ...] = ("right", "left", "down", "up")


def image_stm_entries(prefix: str, D: int, H: int, *, window: int, diagonal: bool = True) -> tuple[Entry, ...]:
    """Name, shape and role of each parameter of one layer, in the order of :class:`~stg_np.stm.STMParams`."""
    kernel = (window, window, D, H if diagonal else 4 * H)
    entries = Entry(f"{prefix}.W", kernel, "kernel"), Entry(f"{prefix}.b", (4 * H,), "vector")
    return (*entries, Entry(f"{prefix}.w", (3 * H,), "vector")) if diagonal else entries


# --- lines ----------------------------------------------------------------------------------------------------


def to_steps(maps: Array, direction: Direction) -> Array:
    """A map (B, height, width, c) as steps (B, T, lines, c) in the order in which a sweep meets them; a view."""
    steps = maps.swapaxes(1, 2) if direction in ("right", "left") else maps
    return steps[:, ::-1] if direction in ("left", "up") else steps


def to_map(steps: Array, direction: Direction) -> Array:
    """The reverse of :func:`to_steps`; a view."""
    in_order = steps[:, ::-1] if direction in ("left", "up") else steps
    return in_order.swapaxes(1, 2) if direction in ("right", "left") else in_order


def line_forward(u: Array, v: Array, direction: Direction) -> Array:
    """The memories (B, height, width, c) of one sweep over maps u and v of that shape."""
    steps = to_steps(u, direction)
    return to_map(scan_forward(steps, to_steps(v, direction), nothing(steps)), direction)


def line_backward(dm: Array, u: Array, v: Array, memories: Array, direction: Direction) -> tuple[Array, Array]:
    """Return du and dv from what every memory was sent, dm; all (B, height, width, c)."""
    dm_s, u_s, v_s, m_s = (to_steps(maps, direction) for maps in (dm, u, v, memories))
    du, dv, _ = scan_backward(dm_s, nothing(dm_s), u_s, v_s, m_s, nothing(dm_s))
    return to_map(du, direction), to_map(dv, direction)


def nothing(steps: Array) -> Array:
    """An empty memory for each line of (B, T, lines, c): zeros (B, lines, c)."""
    zeros: Array = get_xp(steps).zeros((steps.shape[0], *steps.shape[2:]), dtype=steps.dtype)
    return zeros


# --- joining the sweeps ---------------------------------------------------------------------------------------


class Sweep(NamedTuple):
    """How the memory goes through the map: a pair, and its directions.

    ``forward(u, v, directions) -> memories, cache`` and
    ``backward(dm, u, v, cache, directions) -> du, dv``; all but the cache are (B, height, width, H).
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., tuple[Array, Array]]
    directions: tuple[Direction, ...]


def shares(H: int, directions: tuple[Direction, ...]) -> Iterator[tuple[slice, Direction]]:
    """Each direction with its channels.

    Raises:
        ValueError: if H channels cannot be shared out evenly.
    """
    if H % len(directions):
        raise ValueError(f"{H} channels cannot be shared out among {len(directions)} directions")
    share = H // len(directions)
    for k, direction in enumerate(directions):
        yield slice(k * share, (k + 1) * share), direction


def quarters_forward(u: Array, v: Array, directions: tuple[Direction, ...]) -> tuple[Array, Array]:
    """Each direction sweeps its own share of the channels: memories (B, height, width, H), which are the cache too."""
    memories = get_xp(u).empty_like(v)
    for own, direction in shares(v.shape[-1], directions):
        memories[..., own] = line_forward(u[..., own], v[..., own], direction)
    return memories, memories


def quarters_backward(
    dm: Array, u: Array, v: Array, memories: Array, directions: tuple[Direction, ...]
) -> tuple[Array, Array]:
    """Return du and dv (B, height, width, H)."""
    du, dv = get_xp(u).empty_like(u), get_xp(u).empty_like(v)
    for own, direction in shares(v.shape[-1], directions):
        du[..., own], dv[..., own] = line_backward(
            dm[..., own], u[..., own], v[..., own], memories[..., own], direction
        )
    return du, dv


class SumCache(NamedTuple):
    """The memories of each sweep, and the cache of the norm of their sum."""

    memories: list[Array]
    norm: RMSNormCache


def sum_forward(u: Array, v: Array, directions: tuple[Direction, ...]) -> tuple[Array, SumCache]:
    """Every direction sweeps all channels; the sum is normalised, so that slow cells (std √(u/(2−u))) are heard."""
    memories = [line_forward(u, v, direction) for direction in directions]
    normalised, norm = rms_norm_forward(reduce(add, memories))
    return normalised, SumCache(memories, norm)


def sum_backward(
    dm: Array, u: Array, v: Array, cache: SumCache, directions: tuple[Direction, ...]
) -> tuple[Array, Array]:
    """Return du and dv: every sweep is sent the same."""
    dtotal = rms_norm_backward(dm, cache.norm)
    du, dv = get_xp(u).zeros_like(u), get_xp(u).zeros_like(v)
    for direction, memories in zip(directions, cache.memories):
        du_line, dv_line = line_backward(dtotal, u, v, memories, direction)
        du, dv = du + du_line, dv + dv_line
    return du, dv


def still_forward(u: Array, v: Array, directions: tuple[Direction, ...]) -> tuple[Array, None]:
    """No sweep: every pixel is a line of one step, ``m = u ⊙ v``."""
    return u * v, None


def still_backward(
    dm: Array, u: Array, v: Array, cache: None, directions: tuple[Direction, ...]
) -> tuple[Array, Array]:
    """Return du and dv."""
    return dm * v, dm * u


STILL = Sweep(still_forward, still_backward, ())


def quarters(directions: tuple[Direction, ...] = ALL_WAYS) -> Sweep:
    """Sweeps side by side, each over its share of the channels."""
    return Sweep(quarters_forward, quarters_backward, directions)


def summed(directions: tuple[Direction, ...] = ALL_WAYS) -> Sweep:
    """Sweeps over all channels, added and normalised."""
    return Sweep(sum_forward, sum_backward, directions)


# --- what comes in, made louder -------------------------------------------------------------------------------


def louder_forward(u: Array, v: Array) -> Array:
    """``v ⊙ √(2/u − 1)``: then u ⊙ of it is ``√(1 − (1 − u)²) ⊙ v``, and a slow memory of white input is no quieter.

    The scale of RG-LRU (De et al., arXiv:2402.19427). At least u = 1e-6 is taken, so that the root is finite.
    """
    return v * root(u)


def louder_backward(dlouder: Array, u: Array, v: Array) -> tuple[Array, Array]:
    """Return du and dv."""
    scale = root(u)
    inside = (u > SMALLEST_UPDATE).astype(u.dtype)  # below it the root is constant
    du = dlouder * v * inside * (-1 / (get_xp(u).maximum(u, SMALLEST_UPDATE) ** 2 * scale))  # √' is 1 / (2 √)
    return du, dlouder * scale


SMALLEST_UPDATE = 1e-6
"""Memories of more than a million steps are not told apart."""


def root(u: Array) -> Array:
    """``√(2/u − 1)``, of u in (0, 1]."""
    xp = get_xp(u)
    scale: Array = xp.sqrt(2 / xp.maximum(u, SMALLEST_UPDATE) - 1)
    return scale


# --- the layer ------------------------------------------------------------------------------------------------


class GatedSweepCache(NamedTuple):
    """All pixels: pre-activations, gates, what comes in (made louder or not), the sweep's cache, what was read."""

    a: Array  # (B, height, width, 4H)
    gates: Gates  # of (B, height, width, H), as the rest
    v: Array
    inflow: Array
    sweep: Any
    memories: Array
    read: Array


class SweepKind(NamedTuple):
    """Which image STM: how its memory sweeps, φ_z and φ, and whether what comes in is made louder."""

    sweep: Sweep = quarters()
    phi_z: Activation = IDENTITY
    phi: Activation = IDENTITY
    louder: bool = False


def gated_sweep_forward(p: Array, params: STMParams, kind: SweepKind) -> tuple[Array, GatedSweepCache]:
    """From the products to the output: gates, what comes in, the sweeps, what goes out.

    Args:
        p: (B, height, width, 4H), with diagonal gates (B, height, width, H).
        params: ``b`` and ``w`` are used here. kind: which image STM.

    Returns:
        y (B, height, width, H), and the cache.
    """
    a = preactivations_forward(p, params)  # (B, height, width, 4H)
    gates = gates_forward(a, kind.phi_z)  # four times (B, height, width, H)
    v = gates.i * gates.z
    inflow = louder_forward(gates.u, v) if kind.louder else v
    memories, sweep = kind.sweep.forward(gates.u, inflow, kind.sweep.directions)
    read = kind.phi.forward(memories)
    y = gates.o * read
    return y, GatedSweepCache(a, gates, v, inflow, sweep, memories, read)


def gated_sweep_backward(
    dy: Array, cache: GatedSweepCache, params: STMParams, kind: SweepKind
) -> tuple[Array, Array, Array | None]:
    """Return dp (shape of p), db (4H,) and, for diagonal gates, dw (3H,); from dy (B, height, width, H)."""
    a, gates, v, inflow, sweep, memories, read = cache
    do = dy * read  # from y = o ⊙ read
    dread = dy * gates.o  # from y = o ⊙ read
    dm = kind.phi.backward(dread, memories, read)  # from read = φ(m)
    du, dinflow = kind.sweep.backward(dm, gates.u, inflow, sweep, kind.sweep.directions)  # from the sweeps
    dv = dinflow
    if kind.louder:
        du_more, dv = louder_backward(dinflow, gates.u, v)
        du = du + du_more
    di = dv * gates.z  # from v = i ⊙ z
    dz = dv * gates.i  # from v = i ⊙ z
    da = gates_backward(Gates(di, du, do, dz), gates, a, kind.phi_z)  # (B, height, width, 4H)
    return preactivations_backward(da, a, params)


class ImageSTMCache(NamedTuple):
    """Of the window, and of what follows it."""

    window: ConvCache
    gated: GatedSweepCache


def image_stm_forward(x: Array, params: STMParams, kind: SweepKind) -> tuple[Array, ImageSTMCache]:
    """The image STM layer: x (B, height, width, D) -> y (B, height, width, H), and the cache.

    Args:
        x: a map. params: ``W`` (k, k, D, 4H) with k odd, or (k, k, D, H) with diagonal gates; ``b`` and ``w`` as in
            the sequence layer. kind: which image STM.

    Raises:
        ValueError, TypeError: see :func:`stg_np.ops.conv.conv2d_forward`.
    """
    p, window = conv2d_forward(x, window_params(params))  # (B, height, width, 4H) or (…, H)
    y, gated = gated_sweep_forward(p, params, kind)
    return y, ImageSTMCache(window, gated)


def image_stm_backward(dy: Array, cache: ImageSTMCache, params: STMParams, kind: SweepKind) -> tuple[Array, STMParams]:
    """Gradients of :func:`image_stm_forward`: dy (B, height, width, H) -> dx (B, height, width, D), dparams."""
    dp, db, dw = gated_sweep_backward(dy, cache.gated, params, kind)
    dx, dwindow = conv2d_backward(dp, cache.window, window_params(params))  # from p = window(x) W
    return dx, STMParams(dwindow.W, db, None, dw)


def window_params(params: STMParams | ConvParams) -> ConvParams:
    """The kernel as a convolution's parameters: without a bias, which is added after pooling and norm."""
    W = params.W
    return ConvParams(W, get_xp(W).zeros(W.shape[-1:], dtype=W.dtype))


def dirac(kernel: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Make the first channels of a kernel (k, k, c, d) pass their input on unchanged, in place.

    So a deep stack starts as a shallow one, and learns sooner (Zagoruyko & Komodakis, arXiv:1706.00388).
    """
    k, _, c, d = kernel.shape
    same = min(c, d)
    kernel[..., :same] = 0
    kernel[k // 2, k // 2, range(same), range(same)] = 1
