"""The CPU fast path of the convolution: the signatures of :mod:`stg_np.ops.conv`, which is its oracle.

Two ways, chosen per shape by :func:`choose`. Both walk the batch in chunks of a few pictures, whose intermediate arrays
stay in the cache:

* **columns** (im2col): every window of the picture becomes a row, and the convolution is one matrix product;
* **Winograd F(4×4, 3×3)** (Lavin & Gray 2015, arXiv:1509.09308): a tile d of 6×6 pixels gives 4×4 outputs

      Y = Aᵀ M A,    M = V ⊙ U,    V = Bᵀ d B,    U = G W Gᵀ      (⊙: for each of 36 entries, a product over channels)

  with 36 multiplications where the definition has 144. The price is the transforms Bᵀ·B and Aᵀ·A, and rounding: the
  numbers in between are larger than the result, and of float32's seven digits about five remain. (F(2×2, 3×3), with 64
  multiplications, rounds like the definition, but was slower than F(4×4, 3×3) at every size that was tried.)

Winograd's backward reverses those four lines: dM = A dY Aᵀ, then dU = Vᵀ dM and dV = dM Uᵀ, then dd = B dV Bᵀ and
dW = Gᵀ dU G. One dM serves both gradients; the textbook way, dx as a convolution of dy with the flipped kernel, would
transform dy once more.

What makes it fast:

* **Transforms are matrix products too.** Most entries of A and B are 0 or ±1, and yet a stack of products with them
  takes less time than the additions: each number is read once and not once per addition, and it is one call.
* **No gathering.** A product may read windows that overlap, and write rows that lie apart: one factor along the rows
  and one along the columns lead from the picture to its tiles and back.
* **Layout.** Each of the 36 entries is one matrix over all tiles of a chunk, so that ⊙ is a stack of 36 products. With
  P pictures of R × S tiles, V and M are (6, 6, P, R, S, C), and seen from a picture (P, R, 6, S, 6, C).
* **The bias costs no pass.** It is added to one entry of M, or as one more input that is always 1.
* **Workspaces** (:mod:`stg_np.workspace`): with one, a pass asks the system for no memory but that of the gradients.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.ops.conv import ConvParams, kernel_margin, offsets
from stg_np.ops.linear import flat_rows
from stg_np.workspace import Workspace

CHUNK_BYTES = 5 << 18
"""Bytes of the largest array of a chunk: measured best between 2²⁰ and 2²¹ on cores with 1 MiB of L2."""

TILE, WINDOW = 4, 6
"""Pixels along a side of an output tile, and of the input that it depends on."""
# Of float64: cast to the dtype of the numbers where they are used. The points of interpolation are 0, ±1, ±2 and ∞.
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
A_T = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1.0]])
B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1.0],
    ]
)
ONES = 1, 1
"""The entry of M that adds the same to all of Y: Aᵀ's column of ones, in both directions."""


class FastConvCache(NamedTuple):
    """``x``: the input, (B, height, width, C_in)."""

    x: Array


def choose(x_shape: tuple[int, ...], W_shape: tuple[int, ...]) -> str:
    """The way that is faster for these shapes, as measured: ``"winograd"`` or ``"columns"``.

    Winograd needs enough channels to pay for its transforms, enough tiles to pay for the transform of the kernel, and
    tiles that do not mostly stick out of the picture.
    """
    (B, height, width, C_in), (k, _, _, C_out) = x_shape, W_shape
    R, S = tile_grid(height, width)
    filled = height * width / (TILE**2 * R * S)
    return "winograd" if k == 3 and min(C_in, C_out) >= 8 and B * R * S >= 16 and filled > 0.5 else "columns"


def conv2d_forward(x: Array, params: ConvParams, *, work: Workspace | None = None) -> tuple[Array, FastConvCache]:
    """As :func:`stg_np.ops.conv.conv2d_forward`; with ``work``, y is good until its next forward pass."""
    kernel_margin(x, params)  # raises if they do not fit
    forward = winograd_forward if choose(x.shape, params.W.shape) == "winograd" else columns_forward
    return forward(x, params, Workspace() if work is None else work), FastConvCache(x)


def conv2d_backward(
    dy: Array, cache: FastConvCache, params: ConvParams, *, work: Workspace | None = None
) -> tuple[Array, ConvParams]:
    """As :func:`stg_np.ops.conv.conv2d_backward`, with this module's cache; with ``work``, dx lies in it."""
    backward = winograd_backward if choose(cache.x.shape, params.W.shape) == "winograd" else columns_backward
    return backward(dy, cache.x, params, Workspace() if work is None else work)


def chunks(pictures: int, picture_bytes: int, least_bytes: int = 0) -> list[slice]:
    """Cut a batch into equal runs (the first ones may have one more) of at most ``CHUNK_BYTES`` or ``least_bytes``."""
    longest = max(1, max(CHUNK_BYTES, least_bytes) // picture_bytes)
    count = max(1, -(-pictures // longest))
    borders = [k * (pictures // count) + min(k, pictures % count) for k in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(borders)]


def frame(x: Array, margin: int, height: int, width: int, work: Workspace) -> Array:
    """x (P, …, …, C), ``margin`` pixels from the top and the left of zeros (P, height, width, C)."""
    P, own_height, own_width, C = x.shape
    framed = work.empty("framed", (P, height, width, C), x.dtype)
    for border in (slice(margin), slice(margin + own_height, None)):
        framed[:, border] = 0
    for border in (slice(margin), slice(margin + own_width, None)):
        framed[:, :, border] = 0
    framed[:, margin : margin + own_height, margin : margin + own_width] = x
    return framed


# --- columns -------------------------------------------------------------------------------------------------


def columns_forward(x: Array, params: ConvParams, work: Workspace) -> Array:
    """``y = columns(x) W + b``."""
    y = work.empty("y", (*x.shape[:3], len(params.b)), x.dtype)
    rows = params.W.reshape(-1, len(params.b))
    W = work.empty("W", (len(rows) + 1, len(params.b)), x.dtype)
    W[:-1], W[-1] = rows, params.b
    for part in columns_chunks(x, params):
        np.matmul(columns(x[part], len(params.W), work), W, out=flat_rows(y[part]))
    return y


def columns_backward(dy: Array, x: Array, params: ConvParams, work: Workspace) -> tuple[Array, ConvParams]:
    """Gradients of :func:`columns_forward`; dx from shifted products, channel by channel, so that sums run long."""
    k, _, C_in, C_out = params.W.shape
    _, height, width, _ = x.shape
    dx = work.empty("dx", x.shape, x.dtype)
    W = params.W.reshape(-1, C_out)
    dW = np.zeros((len(W) + 1, C_out), x.dtype)  # with the row of the bias
    for part in columns_chunks(x, params):
        dy_rows = flat_rows(dy[part])
        dW += np.matmul(columns(x[part], k, work).T, dy_rows, out=work.empty("dW", dW.shape, x.dtype))
        P = part.stop - part.start
        shifted = work.empty("shifted", (k, k, C_in, P, height, width), x.dtype)
        np.matmul(W, dy_rows.T, out=shifted.reshape(len(W), -1))
        dpadded = work.empty("dpadded", (C_in, P, height + k - 1, width + k - 1), x.dtype)
        dpadded[...] = 0
        for i, j, at_rows, at_columns in offsets(height, width, params):
            dpadded[:, :, at_rows, at_columns] += shifted[i, j]
        dx[part] = dpadded[:, :, k // 2 : k // 2 + height, k // 2 : k // 2 + width].transpose(1, 2, 3, 0)
    return dx, ConvParams(dW[:-1].reshape(params.W.shape), dW[-1])


def columns_chunks(x: Array, params: ConvParams) -> list[slice]:
    """The chunks of a batch."""
    _, height, width, _ = x.shape
    return chunks(len(x), height * width * (params.W[..., 0].size + 1) * x.itemsize)


def columns(x: Array, k: int, work: Workspace) -> Array:
    """Every k × k window of (P, height, width, C) as a row, and a 1: (P·height·width, k·k·C + 1)."""
    P, height, width, C = x.shape
    padded = frame(x, k // 2, height + k - 1, width + k - 1, work)
    picture, row, column, number = padded.strides
    windows = np.lib.stride_tricks.as_strided(  # k neighbours of one row are k·C consecutive numbers
        padded, (P, height, width, k, k * C), (picture, row, column, row, number), writeable=False
    )
    rows = work.empty("columns", (P * height * width, k * k * C + 1), x.dtype)
    rows[:, :-1].reshape(windows.shape)[...] = windows
    rows[:, -1] = 1
    return rows


# --- Winograd ------------------------------------------------------------------------------------------------


def winograd_forward(x: Array, params: ConvParams, work: Workspace) -> Array:
    """Y = Aᵀ M A, with M = V U, V = Bᵀ d B, U = G W Gᵀ; b is added to an entry of M."""
    y = work.empty("y", (*x.shape[:3], len(params.b)), x.dtype)
    U = kernel_forward(params.W, work)
    for part in tile_chunks(x, params):
        V = input_forward(x[part], work)
        M = work.empty("M", (*V.shape[:5], U.shape[2]), x.dtype)
        np.matmul(as_matrices(V), U, out=as_matrices(M))
        M[ONES] += params.b
        output_forward(M, y[part], work)
    return y


def winograd_backward(dy: Array, x: Array, params: ConvParams, work: Workspace) -> tuple[Array, ConvParams]:
    """Gradients of :func:`winograd_forward`; V is computed again: kept, it would be 2¼ times as large as x."""
    dx = work.empty("dx", x.shape, x.dtype)
    db = np.zeros_like(params.b)
    U_T = kernel_forward(params.W.transpose(0, 1, 3, 2), work)  # (36, C_out, C_in)
    dU: Any = None  # the first chunk's, to which the others are added
    for part in tile_chunks(x, params):
        V, dM = input_forward(x[part], work), output_backward(dy[part], work)
        db += flat_rows(dM[ONES]).sum(0)  # from M + b
        dU_part = work.empty("dU" if dU is None else "dU of a chunk", (len(U_T), *params.W.shape[2:]), x.dtype)
        np.matmul(as_matrices(V).swapaxes(1, 2), as_matrices(dM), out=dU_part)  # from M = V U
        dU = dU_part if dU is None else np.add(dU, dU_part, out=dU)
        np.matmul(as_matrices(dM), U_T, out=as_matrices(V))  # from M = V U: dV, in the place of V
        input_backward(V, dx[part], work)
    return dx, ConvParams(kernel_backward(dU, work), db)


def tile_grid(height: int, width: int) -> tuple[int, int]:
    """How many rows R and columns S of tiles cover a picture."""
    return -(-height // TILE), -(-width // TILE)


def tile_chunks(x: Array, params: ConvParams) -> list[slice]:
    """The chunks of a batch; U and dU pass through the cache once per chunk, and so V and M are no smaller."""
    R, S = tile_grid(*x.shape[1:3])
    _, _, C_in, C_out = params.W.shape
    entry_bytes = WINDOW**2 * x.itemsize
    return chunks(len(x), entry_bytes * R * S * max(C_in, C_out), entry_bytes * C_in * C_out)


def as_matrices(entries: Array) -> Array:
    """(6, 6, P, R, S, C) as 36 matrices (P·R·S, C), a view."""
    return entries.reshape(WINDOW**2, -1, entries.shape[-1])


def as_tiles(picture: Array) -> Array:
    """(P, 4R, 4S, C) as (P, R, 4, S, 4, C), a view."""
    P, height, width, C = picture.shape
    return picture.reshape(P, height // TILE, TILE, width // TILE, TILE, C)


def by_picture(entries: Array) -> Array:
    """Entries (row, column, P, R, S, C) in the order of a picture, (P, R, row, S, column, C), a view."""
    return entries.transpose(2, 3, 0, 4, 1, 5)


def along_rows(entries: Array) -> Array:
    """(rows, columns, P, R, S, C) as (rows, columns, P, R·S·C), a view: long runs for a factor along axis 0."""
    rows, columns, P, R, S, C = entries.shape
    return entries.reshape(rows, columns, P, R * S * C)


def windows(pictures: Array, axis: int) -> Array:
    """Every fourth run of six along an axis: (…, 4n + 2, …) as (…, n, 6, …), a view."""
    shape, strides = list(pictures.shape), list(pictures.strides)
    shape[axis : axis + 1] = shape[axis] // TILE, WINDOW
    strides[axis : axis + 1] = TILE * strides[axis], strides[axis]
    return np.lib.stride_tricks.as_strided(pictures, shape, strides, writeable=False)


def transform(matrix: Array, array: Array, axis: int, out: Array) -> None:
    """Write ``matrix`` times every vector along one axis, not the last, of an array: (…, k, …, n) -> (…, m, …, n)."""
    np.matmul(matrix.astype(array.dtype), array.swapaxes(axis, -2), out=out.swapaxes(axis, -2))


def kernel_forward(W: Array, work: Workspace) -> Array:
    """U = G W Gᵀ: (3, 3, C, D) -> (36, C, D)."""
    _, _, C, D = W.shape
    own, half = work.empty("W", W.shape, W.dtype), work.empty("half", (WINDOW, 3, C, D), W.dtype)
    U = work.empty("U", (WINDOW, WINDOW, C, D), W.dtype)
    own[...] = W  # W may be transposed, and is then read faster from a copy
    transform(G, own, 0, half)
    transform(G, half, 1, U)
    return U.reshape(-1, C, D)


def kernel_backward(dU: Array, work: Workspace) -> Array:
    """dW = Gᵀ dU G: (36, C, D) -> (3, 3, C, D), new memory."""
    _, C, D = dU.shape
    half, dW = work.empty("half", (3, WINDOW, C, D), dU.dtype), np.empty((3, 3, C, D), dU.dtype)
    transform(G.T, dU.reshape(WINDOW, WINDOW, C, D), 0, half)
    transform(G.T, half, 1, dW)
    return dW


def input_forward(x: Array, work: Workspace) -> Array:
    """x (P, height, width, C) -> V = Bᵀ d B (6, 6, P, R, S, C)."""
    P, height, width, C = x.shape
    R, S = tile_grid(height, width)
    framed = frame(x, 1, TILE * R + 2, TILE * S + 2, work)
    half = work.empty("half", (P, R, WINDOW, TILE * S + 2, C), x.dtype)  # rows of tiles, columns of the picture
    tall = windows(framed.reshape(P, TILE * R + 2, (TILE * S + 2) * C), 1)  # (P, R, 6, (4S + 2)·C)
    transform(B_T, tall, 2, half.reshape(tall.shape))
    V = work.empty("V", (WINDOW, WINDOW, P, R, S, C), x.dtype)
    transform(B_T, windows(half, 3), 4, by_picture(V))
    return V


def input_backward(dV: Array, dx: Array, work: Workspace) -> None:
    """Write dd = B dV Bᵀ into dx (P, height, width, C): :func:`input_forward` in reverse.

    Of the six rows of a window, the first and the last are inner ones, 4 and 1, of the windows before and after, and
    add up with them; the four between are the tile's own. So with columns.
    """
    _, _, P, R, S, C = dV.shape
    half = work.empty("half", dV.shape, dV.dtype)
    transform(B_T.T, along_rows(dV), 0, along_rows(half))
    half[4, :, :, :-1] += half[0, :, :, 1:]
    half[1, :, :, 1:] += half[5, :, :, :-1]
    wide = work.empty("framed", (P, R, TILE, S, WINDOW, C), dV.dtype)
    transform(B_T.T, by_picture(half[1:5]), 4, wide)
    wide[:, :, :, :-1, 4] += wide[:, :, :, 1:, 0]
    wide[:, :, :, 1:, 1] += wide[:, :, :, :-1, 5]
    tiled = with_whole_tiles(dx, work)
    as_tiles(tiled)[...] = wide[:, :, :, :, 1:5]
    crop(tiled, dx)


def output_forward(M: Array, y: Array, work: Workspace) -> None:
    """Write Y = Aᵀ M A of (6, 6, P, R, S, C) into y (P, height, width, C)."""
    _, _, P, R, S, C = M.shape
    half = work.empty("half", (TILE, WINDOW, P, R, S, C), M.dtype)
    transform(A_T, along_rows(M), 0, along_rows(half))
    tiled = with_whole_tiles(y, work)
    transform(A_T, by_picture(half), 4, as_tiles(tiled))
    crop(tiled, y)


def output_backward(dy: Array, work: Workspace) -> Array:
    """dy (P, height, width, C) -> dM = A dY Aᵀ (6, 6, P, R, S, C): :func:`output_forward` in reverse."""
    tiles = as_tiles(padded_to_tiles(dy, work))
    P, R, _, S, _, C = tiles.shape
    half = work.empty("half", (TILE, WINDOW, P, R, S, C), dy.dtype)
    transform(A_T.T, tiles, 4, by_picture(half))
    dM = work.empty("M", (WINDOW, WINDOW, P, R, S, C), dy.dtype)
    transform(A_T.T, along_rows(half), 0, along_rows(dM))
    return dM


def padded_to_tiles(dy: Array, work: Workspace) -> Array:
    """(P, height, width, C) as (P, 4R, 4S, C), with zeros where tiles stick out of the picture."""
    _, height, width, _ = dy.shape
    R, S = tile_grid(height, width)
    return dy if (height, width) == (TILE * R, TILE * S) else frame(dy, 0, TILE * R, TILE * S, work)


def with_whole_tiles(picture: Array, work: Workspace) -> Array:
    """Where to write (P, 4R, 4S, C) for :func:`crop`: the picture itself, unless tiles stick out of it."""
    P, height, width, C = picture.shape
    R, S = tile_grid(height, width)
    if (height, width) == (TILE * R, TILE * S):
        return picture
    return work.empty("whole tiles", (P, TILE * R, TILE * S, C), picture.dtype)


def crop(tiled: Array, picture: Array) -> None:
    """Bring what was written to :func:`with_whole_tiles` into the picture."""
    if tiled is not picture:
        picture[...] = tiled[:, : picture.shape[1], : picture.shape[2]]
