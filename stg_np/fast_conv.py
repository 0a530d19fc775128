"""The CPU fast path of the convolution: the signatures of :mod:`stg_np.ops.conv`, which is its oracle.

Two ways, chosen per shape by :func:`choose`. Both walk the batch in chunks of a few pictures, whose intermediate arrays
stay in the cache:

* **columns** (im2col): every window of the picture becomes a row, and the convolution is one matrix product;
* **Winograd F(4×4, 3×3)** (Lavin & Gray 2015, arXiv:1509.09308): a tile d of 6×6 pixels gives 4×4 outputs

      Y = Aᵀ M A,    M = V ⊙ U,    V = Bᵀ d B,    U = G W Gᵀ      (⊙: for each of 36 entries, a product over channels)

  with 36 multiplications where the definition has 144. The price is additions, for Bᵀ·B and Aᵀ·A, and rounding: the
  numbers in between are larger than the result, and of float32's seven digits about five remain. (F(2×2, 3×3), with 64
  multiplications, rounds like the definition, but was slower than F(4×4, 3×3) at every size that was tried.)

Winograd's backward reverses those four lines: dM = A dY Aᵀ, then dU = Vᵀ dM and dV = dM Uᵀ, then dd = B dV Bᵀ and
dW = Gᵀ dU G. One dM serves both gradients; the textbook way, dx as a convolution of dy with the flipped kernel, would
transform dy once more.

Memory: each of the 36 entries is one array over all tiles of a chunk (structure of arrays), so that every addition is
one long run, and every ⊙ one matrix product. The arrays of a chunk, with P pictures of R × S tiles:

    d (6, 4R + 2, P, S, C)      the six columns of all tiles; rows sorted by remainder modulo 4 (Tiles.tile_rows)
    V, M (6, 6, R, P, S, C)     entry (row, column) of all tiles
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from stg_np.backend import Array
from stg_np.ops.conv import ConvParams, kernel_margin, offsets
from stg_np.ops.linear import flat_rows

CHUNK_BYTES = 5 << 18
"""Bytes of the largest array of a chunk: measured best between 2²⁰ and 2²¹ on cores with 1 MiB of L2."""

TILE, WINDOW = 4, 6
"""Pixels along a side of an output tile, and of the input that it depends on."""
# Of float64: cast to the dtype of the weights where they are used. The points of interpolation are 0, ±1, ±2 and ∞.
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
GG = np.kron(G, G)  # (36, 9): W -> G W Gᵀ, both flattened

Vector: TypeAlias = Sequence[Array] | Array
"""A vector whose every entry is an array: one number of every tile of a chunk."""


class FastConvCache(NamedTuple):
    """``x``: the input, (B, height, width, C_in)."""

    x: Array


def choose(x_shape: tuple[int, ...], W_shape: tuple[int, ...]) -> str:
    """The way that is faster for these shapes, as measured: ``"winograd"`` or ``"columns"``.

    Winograd needs enough channels to pay for its additions, enough tiles to pay for the transform of the kernel, and
    tiles that do not mostly stick out of the picture.
    """
    (B, height, width, C_in), (k, _, _, C_out) = x_shape, W_shape
    R, S = tile_grid(height, width)
    filled = height * width / (TILE**2 * R * S)
    return "winograd" if k == 3 and min(C_in, C_out) >= 8 and B * R * S >= 32 and filled > 0.6 else "columns"


def conv2d_forward(x: Array, params: ConvParams) -> tuple[Array, FastConvCache]:
    """As :func:`stg_np.ops.conv.conv2d_forward`."""
    kernel_margin(x, params)  # raises if they do not fit
    forward = winograd_forward if choose(x.shape, params.W.shape) == "winograd" else columns_forward
    return forward(x, params), FastConvCache(x)


def conv2d_backward(dy: Array, cache: FastConvCache, params: ConvParams) -> tuple[Array, ConvParams]:
    """As :func:`stg_np.ops.conv.conv2d_backward`, with the cache of this module's forward."""
    backward = winograd_backward if choose(cache.x.shape, params.W.shape) == "winograd" else columns_backward
    dx, dW = backward(dy, cache.x, params)
    return dx, ConvParams(dW, flat_rows(dy).sum(0))


def chunks(pictures: int, picture_bytes: int, least_bytes: int = 0) -> list[slice]:
    """Cut a batch into equal runs (the first ones may have one more) of at most ``CHUNK_BYTES`` or ``least_bytes``."""
    longest = max(1, max(CHUNK_BYTES, least_bytes) // picture_bytes)
    count = max(1, -(-pictures // longest))
    borders = [k * (pictures // count) + min(k, pictures % count) for k in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(borders)]


# --- columns -------------------------------------------------------------------------------------------------


def columns_forward(x: Array, params: ConvParams) -> Array:
    """``y = columns(x) W + b``."""
    y = np.empty((*x.shape[:3], params.W.shape[3]), x.dtype)
    W = params.W.reshape(-1, params.W.shape[3])  # (k·k·C_in, C_out)
    for part in chunks(len(x), len(W) * x.shape[1] * x.shape[2] * x.itemsize):
        np.matmul(columns(x[part], len(params.W)), W, out=flat_rows(y[part]))
    y += params.b
    return y


def columns_backward(dy: Array, x: Array, params: ConvParams) -> tuple[Array, Array]:
    """dx and dW of :func:`columns_forward`; dx from shifted products, whose sums run along whole rows."""
    dx, dW = np.empty(x.shape, x.dtype), np.zeros_like(params.W)
    k, _, C_in, C_out = params.W.shape
    _, height, width, _ = x.shape
    W_T = np.ascontiguousarray(params.W.reshape(k * k, C_in, C_out).transpose(0, 2, 1))
    for part in chunks(len(x), height * width * k * k * C_in * x.itemsize):
        dy_rows = flat_rows(np.ascontiguousarray(dy[part]))
        dW += (columns(x[part], k).T @ dy_rows).reshape(dW.shape)
        shifted = (dy_rows @ W_T).reshape(k, k, *dx[part].shape)
        dpadded = np.zeros((len(dx[part]), height + k - 1, width + k - 1, C_in), x.dtype)
        for i, j, at_rows, at_columns in offsets(height, width, params):
            dpadded[:, at_rows, at_columns] += shifted[i, j]
        dx[part] = dpadded[:, k // 2 : k // 2 + height, k // 2 : k // 2 + width]
    return dx, dW


def columns(x: Array, k: int) -> Array:
    """Every k × k window of (P, height, width, C) as a row: (P·height·width, k·k·C)."""
    P, height, width, C = x.shape
    padded = np.zeros((P, height + k - 1, width + k - 1, C), x.dtype)
    padded[:, k // 2 : k // 2 + height, k // 2 : k // 2 + width] = x
    picture, row, column, number = padded.strides
    windows = np.lib.stride_tricks.as_strided(  # k neighbours of one row are k·C consecutive numbers
        padded, (P, height, width, k, k * C), (picture, row, column, row, number), writeable=False
    )
    return windows.reshape(-1, k * k * C)


# --- Winograd ------------------------------------------------------------------------------------------------


def winograd_forward(x: Array, params: ConvParams) -> Array:
    """Y = Aᵀ M A + b, with M = V U, V = Bᵀ d B, U = G W Gᵀ."""
    B, height, width, _ = x.shape
    R, S = tile_grid(height, width)
    U = transform_kernel(params.W)
    y = np.empty((B, TILE * R, TILE * S, U.shape[2]), x.dtype)
    for part, tiles in tile_chunks(x, params):
        V = tiles.load_input(x[part])
        np.matmul(V, U, out=as_matrices(tiles.M))
        tiles.store_output(y[part], params.b)
    return np.ascontiguousarray(y[:, :height, :width])


def winograd_backward(dy: Array, x: Array, params: ConvParams) -> tuple[Array, Array]:
    """dx and dW of :func:`winograd_forward`; V is computed again: kept, it would be 2¼ times as large as x."""
    U_T = transform_kernel(params.W.transpose(0, 1, 3, 2))  # (36, C_out, C_in)
    dx = np.empty(x.shape, x.dtype)
    dU: Any = None  # the first chunk's, to which the others are added
    for part, tiles in tile_chunks(x, params):
        V = tiles.load_input(x[part])
        dM = tiles.load_output_gradient(dy[part])
        dU_part = V.transpose(0, 2, 1) @ dM  # from M = V U
        dU = dU_part if dU is None else np.add(dU, dU_part, out=dU)
        np.matmul(dM, U_T, out=V)  # from M = V U: dV, in the place of V
        tiles.store_input_gradient(dx[part])
    dW = GG.T.astype(x.dtype) @ dU.reshape(WINDOW**2, -1)  # from U = G W Gᵀ
    return dx, dW.reshape(params.W.shape)


def transform_kernel(W: Array) -> Array:
    """U = G W Gᵀ: (3, 3, C_in, C_out) -> (36, C_in, C_out)."""
    U: Array = GG.astype(W.dtype) @ W.reshape(9, -1)
    return U.reshape(-1, *W.shape[2:])


def tile_grid(height: int, width: int) -> tuple[int, int]:
    """How many rows R and columns S of tiles cover a picture."""
    return -(-height // TILE), -(-width // TILE)


def tile_chunks(x: Array, params: ConvParams) -> Iterator[tuple[slice, Tiles]]:
    """The chunks of a batch, each with arrays of its size, which the next chunk of that size uses again."""
    R, S = tile_grid(*x.shape[1:3])
    _, _, C_in, C_out = params.W.shape
    picture_bytes, U_bytes = WINDOW**2 * R * S * max(C_in, C_out) * x.itemsize, WINDOW**2 * C_in * C_out * x.itemsize
    tiles: Tiles | None = None
    for part in chunks(len(x), picture_bytes, U_bytes // 4):  # U and dU pass through the cache once per chunk
        P = part.stop - part.start
        if tiles is None or tiles.P != P:
            tiles = Tiles(P, x, params)
        yield part, tiles


def as_matrices(entries: Array) -> Array:
    """(6, 6, R, P, S, C) as 36 matrices (R·P·S, C)."""
    return entries.reshape(WINDOW**2, -1, entries.shape[-1])


class Tiles:
    """The arrays of a chunk of P pictures of R × S tiles each, and the ways between pictures and tiles."""

    def __init__(self, P: int, x: Array, params: ConvParams) -> None:
        _, self.height, self.width, C_in = x.shape
        C_out = params.W.shape[3]
        self.P = P
        self.R, self.S = R, S = tile_grid(self.height, self.width)
        self.framed = np.empty((P, TILE * R + 2, TILE * S + 2, C_in), x.dtype)
        self.d = np.empty((WINDOW, TILE * R + 2, P, S, C_in), x.dtype)
        self.d_B = np.empty_like(self.d)
        self.V = np.empty((WINDOW, WINDOW, R, P, S, C_in), x.dtype)
        self.M = np.empty((WINDOW, WINDOW, R, P, S, C_out), x.dtype)
        self.A_M = np.empty((TILE, WINDOW, R, P, S, C_out), x.dtype)
        self.Y = np.empty((TILE, TILE, R, P, S, C_out), x.dtype)  # (column, row, …)
        self.scratch = np.empty((2, max(self.d[0].size, self.V[0].size, self.M[0].size)), x.dtype)

    def load_input(self, x: Array) -> Array:
        """x (P, height, width, C_in) -> V = Bᵀ d B as matrices."""
        for border in (slice(1), slice(self.height + 1, None)):
            self.framed[:, border] = 0
        for border in (slice(1), slice(self.width + 1, None)):
            self.framed[:, :, border] = 0
        self.framed[:, 1 : self.height + 1, 1 : self.width + 1] = x
        for k in range(WINDOW):
            for remainder in range(TILE):
                self.d[k, self.sorted_rows(remainder)] = self.framed_pixels(k, remainder)
        input_forward(self.d, self.d_B, self.scratch_like(self.d[0]))
        rows = [self.d_B[:, self.tile_rows(k)] for k in range(WINDOW)]
        input_forward(rows, self.V, self.scratch_like(self.V[0]))
        return as_matrices(self.V)

    def store_input_gradient(self, dx: Array) -> None:
        """dd = B dV Bᵀ -> dx (P, height, width, C_in): :meth:`load_input` in reverse; overlapping tiles add up."""
        rows = [self.d_B[:, self.tile_rows(k)] for k in range(WINDOW)]
        overlapping = [self.d[:, : self.R], self.d[:, self.R : 2 * self.R]]
        input_backward(self.V, [*rows[:TILE], *overlapping], self.scratch_like(self.V[0]))
        for row, more in zip(rows[TILE:], overlapping):  # rows 4 and 5 of a tile are rows 0 and 1 of the next
            row[:, -1] = 0  # which the last tile has not
            row += more
        input_backward(self.d_B, self.d, self.scratch_like(self.d[0]))
        for k in range(WINDOW):
            for remainder in range(TILE):
                pixels = self.framed_pixels(k, remainder)
                if k >= TILE:
                    pixels[:, :, -1] = 0
                    pixels += self.d[k, self.sorted_rows(remainder)]
                else:
                    pixels[...] = self.d[k, self.sorted_rows(remainder)]
        dx[...] = self.framed[:, 1 : self.height + 1, 1 : self.width + 1]

    def store_output(self, y: Array, b: Array) -> None:
        """Y = Aᵀ M A, plus b -> y (P, 4R, 4S, C_out)."""
        output_forward(self.M, self.A_M, self.scratch_like(self.M[0]))
        output_forward(self.A_M.swapaxes(0, 1), self.Y, self.scratch_like(self.Y[0]))
        np.add(self.Y, b, out=self.as_tiles(y))

    def load_output_gradient(self, dy: Array) -> Array:
        """dy (P, height, width, C_out) -> dM = A dY Aᵀ as matrices: :meth:`store_output` in reverse."""
        missing = TILE * self.R - self.height, TILE * self.S - self.width
        if any(missing):
            dy = np.pad(dy, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
        self.Y[...] = self.as_tiles(dy)
        output_backward(self.Y, self.A_M.swapaxes(0, 1), self.scratch_like(self.Y[0]))
        output_backward(self.A_M, self.M, self.scratch_like(self.M[0]))
        return as_matrices(self.M)

    def as_tiles(self, y: Array) -> Array:
        """(P, 4R, 4S, C) as (column, row, R, P, S, C), in the order of Y."""
        P, _, _, C = y.shape
        return y.reshape(P, self.R, TILE, self.S, TILE, C).transpose(4, 2, 1, 0, 3, 5)

    def framed_pixels(self, k: int, remainder: int) -> Array:
        """Column k of all tiles, in the rows with a remainder modulo 4: a view (rows, P, S, C)."""
        return self.framed[:, remainder::TILE, k : k + TILE * self.S - TILE + 1 : TILE].transpose(1, 0, 2, 3)

    def sorted_rows(self, remainder: int) -> slice:
        """Where d keeps the framed rows with this remainder modulo 4: R + 1 rows for 0 and 1, else R."""
        start = remainder * self.R + min(remainder, 2)
        return slice(start, start + self.R + (remainder < 2))

    def tile_rows(self, k: int) -> slice:
        """Where d keeps row k of all tiles, which is row 4r + k of the framed picture: one run, thanks to sorting."""
        start = self.sorted_rows(k % TILE).start + k // TILE
        return slice(start, start + self.R)

    def scratch_like(self, array: Array) -> Array:
        """Two arrays of this shape."""
        return self.scratch[:, : array.size].reshape(2, *array.shape)


# --- the transforms of a vector of six or four, each entry an array, with as few additions as were found -----


def add_and_subtract(a: Array, b: Array, total: Array, difference: Array) -> None:
    """``a + b`` and ``a − b``."""
    np.add(a, b, out=total)
    np.subtract(a, b, out=difference)


def add_scaled(a: Array, factor: float, b: Array, out: Array) -> None:
    """``a + factor · b``; out may be b, but not a."""
    np.multiply(b, factor, out=out)
    np.add(a, out, out=out)


def input_forward(d: Vector, v: Vector, scratch: Vector) -> None:
    """v = Bᵀ d, Bᵀ = [4 0 −5 0 1 0 | 0 −4 −4 1 1 0 | 0 4 −4 −1 1 0 | 0 −2 −1 2 1 0 | 0 2 −1 −2 1 0 | 0 4 0 −5 0 1]."""
    even, odd = scratch
    add_scaled(d[4], -4, d[2], even)
    add_scaled(d[3], -4, d[1], odd)
    add_and_subtract(even, odd, v[1], v[2])
    np.subtract(d[4], d[2], out=even)
    np.subtract(d[3], d[1], out=odd)
    odd *= 2
    add_and_subtract(even, odd, v[3], v[4])
    np.subtract(d[0], d[2], out=v[0])
    add_scaled(even, 4, v[0], v[0])
    odd *= 2
    np.subtract(d[5], d[3], out=v[5])
    np.subtract(v[5], odd, out=v[5])


def input_backward(v: Vector, d: Vector, scratch: Vector) -> None:
    """d = B v."""
    total, difference = scratch
    add_and_subtract(v[4], v[3], d[4], d[3])
    d3 = d[3]
    d3 *= 2  # 2 v4 − 2 v3
    add_and_subtract(v[1], v[2], total, difference)
    np.subtract(v[5], difference, out=difference)
    add_scaled(d3, 4, difference, d[1])
    np.add(d3, difference, out=d3)
    add_scaled(d3, 4, v[5], difference)
    np.negative(difference, out=d3)
    np.add(v[0], total, out=total)
    np.add(v[0], d[4], out=difference)
    np.multiply(total, -4, out=d[2])
    np.subtract(d[2], difference, out=d[2])
    np.add(d[4], total, out=d[4])
    np.multiply(v[0], 4, out=d[0])
    np.copyto(d[5], v[5])


def output_forward(m: Vector, y: Vector, scratch: Vector) -> None:
    """y = Aᵀ m with Aᵀ = [1 1 1 1 1 0 | 0 1 −1 2 −2 0 | 0 1 1 4 4 0 | 0 1 −1 8 −8 1]."""
    near, far = scratch
    np.add(m[1], m[2], out=near)
    np.add(m[3], m[4], out=far)
    np.add(m[0], near, out=y[0])
    np.add(y[0], far, out=y[0])
    add_scaled(near, 4, far, y[2])
    np.subtract(m[1], m[2], out=near)
    np.subtract(m[3], m[4], out=far)
    far *= 2
    np.add(near, far, out=y[1])
    add_scaled(near, 4, far, y[3])
    np.add(y[3], m[5], out=y[3])


def output_backward(y: Vector, m: Vector, scratch: Vector) -> None:
    """m = A y."""
    even, odd = scratch
    np.add(y[0], y[2], out=even)
    np.add(y[1], y[3], out=odd)
    add_and_subtract(even, odd, m[1], m[2])
    add_scaled(y[0], 4, y[2], even)
    add_scaled(y[1], 4, y[3], odd)
    odd *= 2
    add_and_subtract(even, odd, m[3], m[4])
    np.copyto(m[0], y[0])
    np.copyto(m[5], y[3])
