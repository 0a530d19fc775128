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
* **No gathering, no adding up.** A product may read runs that overlap, and write rows that lie apart: one factor along
  the rows and one along the columns lead from the picture to its tiles and back. The way back from windows that overlap
  is a product with runs that overlap too: the pixels of a tile come from the six entries of its own window and from one
  of each neighbour's. Beyond the border is nothing to read: tiles there have a smaller matrix, and no frame is made.
* **Layout.** With P pictures of R × S tiles, V and M are (6, P, R, S, 6, C): row of the window, tile, column of the
  window, channel. So both factors write where the next one reads, in long runs; and each of the 36 entries is still one
  matrix over all tiles, its rows 6·C apart, so that ⊙ is a stack of 36 products.
* **The kernel is transformed once** for both passes: the backward reads U as its transpose.
* **The bias costs no pass.** It is added to one entry of M, or as one more input that is always 1.
* **Workspaces** (:mod:`stg_np.workspace`): a pass asks the system for no memory but that of the gradients.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.fast.cache import l2_bytes
from stg_np.ops.conv import ConvParams, kernel_margin, offsets
from stg_np.ops.linear import flat_rows
from stg_np.workspace import Workspace

CHUNK_BYTES = max(5 << 18, l2_bytes() * 5 // 4)
"""Bytes of the largest array of a chunk: 1.25 MiB with 512 KiB of L2 and with 1 MiB, as measured. Half as many make the
products so small that calls count (more than the second-level cache loses), twice as many are no quicker."""

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


class Overlapping(NamedTuple):
    """A matrix (m, k) for every run of k − 2 numbers with a neighbour on either side; beyond the ends are zeros."""

    inner: Array  # (m, k)
    ends: Array  # (2, m, k − 1): the first run has no neighbour before it, the last none after it
    alone: Array  # (m, k − 2)


def overlapping(matrix: Array) -> Overlapping:
    """Without the columns for which there is nothing."""
    return Overlapping(matrix, np.stack([matrix[:, 1:], matrix[:, :-1]]), matrix[:, 1:-1].copy())


TO_WINDOWS = overlapping(B_T)
"""Bᵀ of a tile's four pixels with one before and one after: its window."""
FROM_WINDOWS = overlapping(np.c_[[B_T[5, 5], 0, 0, 0], B_T[:, 1:5].T, [0, 0, 0, B_T[0, 0]]])
"""B for a tile's four pixels: from the six entries of its own window, and from one of the windows before and after it,
whose last and first pixels they are. (Only one entry reaches these.)"""


class FastConvCache(NamedTuple):
    """``x``: the input, (B, height, width, C_in); ``U``: Winograd's kernel, (6, 6, C_in, C_out), None by columns."""

    x: Array
    U: Array | None


def choose(x_shape: tuple[int, ...], W_shape: tuple[int, ...]) -> str:
    """The way that is faster for these shapes, as measured: ``"winograd"`` or ``"columns"``.

    Winograd needs enough channels to pay for its transforms, enough tiles to pay for the transform of the kernel, and
    tiles that do not mostly stick out of the picture.
    """
    (B, height, width, C_in), (k, _, _, C_out) = x_shape, W_shape
    R, S = tile_grid(height, width)
    filled = height * width / (TILE**2 * R * S)
    return "winograd" if k == 3 and min(C_in, C_out) >= 8 and B * R * S >= 16 and filled > 0.5 else "columns"


def conv2d_forward(x: Array, params: ConvParams, *, work: Workspace) -> tuple[Array, FastConvCache]:
    """As :func:`stg_np.ops.conv.conv2d_forward`; y and the cache lie in ``work``, until its next forward pass."""
    kernel_margin(x, params)  # raises if they do not fit
    if choose(x.shape, params.W.shape) == "columns":
        return columns_forward(x, params, work), FastConvCache(x, None)
    U = kernel_forward(params.W, work)
    return winograd_forward(x, U, params.b, work), FastConvCache(x, U)


def conv2d_backward(
    dy: Array, cache: FastConvCache, params: ConvParams, *, work: Workspace
) -> tuple[Array, ConvParams]:
    """As :func:`stg_np.ops.conv.conv2d_backward`, with this module's cache; dx lies in ``work``."""
    if cache.U is None:
        return columns_backward(dy, cache.x, params, work)
    return winograd_backward(dy, cache.x, cache.U, work)


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


def winograd_forward(x: Array, U: Array, b: Array, work: Workspace) -> Array:
    """Y = Aᵀ M A, with M = V U, V = Bᵀ d B, U = G W Gᵀ; b is added to an entry of M."""
    y = work.empty("y", (*x.shape[:3], len(b)), x.dtype)
    for part in tile_chunks(x, U):
        V = input_forward(x[part], work)
        M = work.empty("M", (*V.shape[:5], len(b)), x.dtype)
        np.matmul(by_entry(V), U, out=by_entry(M))
        by_entry(M)[ONES] += b
        output_forward(M, y[part], work)
    return y


def winograd_backward(dy: Array, x: Array, U: Array, work: Workspace) -> tuple[Array, ConvParams]:
    """Gradients of :func:`winograd_forward`; V is computed again: kept, it would be 2¼ times as large as x."""
    dx = work.empty("dx", x.shape, x.dtype)
    db = np.zeros(U.shape[3], x.dtype)
    dU: Any = None  # the first chunk's, to which the others are added
    for part in tile_chunks(x, U):
        V, dM = input_forward(x[part], work), output_backward(dy[part], work)
        db += by_entry(dM)[ONES].sum(0)  # from M + b
        dU_part = work.empty("dU" if dU is None else "dU of a chunk", U.shape, x.dtype)
        np.matmul(by_entry(V).swapaxes(2, 3), by_entry(dM), out=dU_part)  # from M = V U
        dU = dU_part if dU is None else np.add(dU, dU_part, out=dU)
        np.matmul(by_entry(dM), U.swapaxes(2, 3), out=by_entry(V))  # from M = V U: dV, in the place of V
        input_backward(V, dx[part], work)
    return dx, ConvParams(kernel_backward(dU, work), db)


def tile_grid(height: int, width: int) -> tuple[int, int]:
    """How many rows R and columns S of tiles cover a picture."""
    return -(-height // TILE), -(-width // TILE)


def tile_chunks(x: Array, U: Array) -> list[slice]:
    """The chunks of a batch; U and dU pass through the cache once per chunk, and so V and M are no smaller."""
    R, S = tile_grid(*x.shape[1:3])
    return chunks(len(x), WINDOW**2 * R * S * max(U.shape[2:]) * x.itemsize, U.nbytes)


def by_entry(tiles: Array) -> Array:
    """(6, P, R, S, 6, C) as 6 × 6 matrices (P·R·S, C), a view."""
    rows, P, R, S, columns, C = tiles.shape
    return tiles.reshape(rows, P * R * S, columns, C).swapaxes(1, 2)


def as_tiles(picture: Array) -> Array:
    """(P, 4R, 4S, C) as (P, R, 4, S, 4, C), a view."""
    P, height, width, C = picture.shape
    return picture.reshape(P, height // TILE, TILE, width // TILE, TILE, C)


def by_picture(tiles: Array) -> Array:
    """Tiles (row, P, R, S, column, C) in the order of a picture, (P, R, row, S, column, C), a view."""
    return tiles.transpose(1, 2, 0, 3, 4, 5)


def along_rows(tiles: Array) -> Array:
    """(rows, P, R, S, columns, C) as (rows, P·R, S·columns·C), a view: long runs for a factor along axis 0."""
    rows, P, R, S, columns, C = tiles.shape
    return tiles.reshape(rows, P * R, S * columns * C)


def transform(matrix: Array, array: Array, axis: int, out: Array) -> None:
    """Write ``matrix`` times every vector along one axis, not the last, of an array: (…, k, …, n) -> (…, m, …, n)."""
    np.matmul(matrix.astype(array.dtype), array.swapaxes(axis, -2), out=out.swapaxes(axis, -2))


def transform_overlapping(matrices: Overlapping, array: Array, axis: int, out: Array) -> None:
    """The same of every run of k − 2, with a neighbour on either side: (…, (k − 2)·count, …) -> (…, count, m, …)."""
    own, count, before = matrices.alone.shape[1], out.shape[axis], (slice(None),) * axis
    if count == 1:
        transform(matrices.alone, runs(array, axis, 0, 1, own, own), axis + 1, out)
        return
    first_and_last = runs(array, axis, 0, 2, own + 1, (count - 1) * own - 1)
    transform(matrices.ends, first_and_last, axis + 1, out[(*before, slice(None, None, count - 1))])
    if count > 2:
        between = runs(array, axis, own - 1, count - 2, own + 2, own)
        transform(matrices.inner, between, axis + 1, out[(*before, slice(1, -1))])


def runs(array: Array, axis: int, first: int, count: int, length: int, step: int) -> Array:
    """Runs along an axis, which may overlap: (…, n, …) as (…, count, length, …), a view of a contiguous array.

    Made by hand, for ``as_strided`` takes as long as the transform of two thousand numbers.
    """
    shape, strides, along = array.shape, array.strides, array.strides[axis]
    return np.ndarray(
        (*shape[:axis], count, length, *shape[axis + 1 :]),
        array.dtype,
        array,
        first * along if array.size else 0,
        (*strides[:axis], step * along, along, *strides[axis + 1 :]),
    )


def kernel_forward(W: Array, work: Workspace) -> Array:
    """U = G W Gᵀ: (3, 3, C, D) -> (6, 6, C, D)."""
    _, _, C, D = W.shape
    half, U = work.empty("half", (WINDOW, 3, C, D), W.dtype), work.empty("U", (WINDOW, WINDOW, C, D), W.dtype)
    transform(G, W.reshape(3, 3, C * D), 0, half.reshape(WINDOW, 3, C * D))
    transform(G, half.reshape(WINDOW, 3, C * D), 1, U.reshape(WINDOW, WINDOW, C * D))
    return U


def kernel_backward(dU: Array, work: Workspace) -> Array:
    """dW = Gᵀ dU G: (6, 6, C, D) -> (3, 3, C, D), new memory."""
    _, _, C, D = dU.shape
    half, dW = work.empty("half", (3, WINDOW, C, D), dU.dtype), np.empty((3, 3, C, D), dU.dtype)
    transform(G.T, dU.reshape(WINDOW, WINDOW, C * D), 0, half.reshape(3, WINDOW, C * D))
    transform(G.T, half.reshape(3, WINDOW, C * D), 1, dW.reshape(3, 3, C * D))
    return dW


def input_forward(x: Array, work: Workspace) -> Array:
    """x (P, height, width, C) -> V = Bᵀ d B (6, P, R, S, 6, C)."""
    tiled = padded_to_tiles(x, work)
    P, height, _, C = tiled.shape
    R, S = tile_grid(*tiled.shape[1:3])
    half = work.empty("half", (P, height, S, WINDOW, C), x.dtype)
    transform_overlapping(TO_WINDOWS, tiled, 2, half)
    V = work.empty("V", (WINDOW, P, R, S, WINDOW, C), x.dtype)
    in_rows = V.reshape(WINDOW, P, R, S * WINDOW * C)
    transform_overlapping(TO_WINDOWS, half.reshape(P, height, S * WINDOW * C), 1, in_rows.transpose(1, 2, 0, 3))
    return V


def input_backward(dV: Array, dx: Array, work: Workspace) -> None:
    """Write dd = B dV Bᵀ, added up where windows overlap, into dx (P, …, …, C): :func:`input_forward` in reverse."""
    _, P, R, S, _, C = dV.shape
    half = work.empty("half", (P, R, WINDOW, S, TILE, C), dV.dtype)
    transform_overlapping(FROM_WINDOWS, dV.reshape(WINDOW, P, R, S * WINDOW, C), 3, half.transpose(2, 0, 1, 3, 4, 5))
    tiled = with_whole_tiles(dx, work)
    in_rows = half.reshape(P, R * WINDOW, S * TILE * C)
    transform_overlapping(FROM_WINDOWS, in_rows, 1, tiled.reshape(P, R, TILE, S * TILE * C))
    crop(tiled, dx)


def output_forward(M: Array, y: Array, work: Workspace) -> None:
    """Write Y = Aᵀ M A of (6, P, R, S, 6, C) into y (P, height, width, C)."""
    _, P, R, S, _, C = M.shape
    half = work.empty("half", (TILE, P, R, S, WINDOW, C), M.dtype)
    transform(A_T, along_rows(M), 0, along_rows(half))
    tiled = with_whole_tiles(y, work)
    transform(A_T, by_picture(half), 4, as_tiles(tiled))
    crop(tiled, y)


def output_backward(dy: Array, work: Workspace) -> Array:
    """dy (P, height, width, C) -> dM = A dY Aᵀ (6, P, R, S, 6, C): :func:`output_forward` in reverse."""
    tiles = as_tiles(padded_to_tiles(dy, work))
    P, R, _, S, _, C = tiles.shape
    half = work.empty("half", (TILE, P, R, S, WINDOW, C), dy.dtype)
    transform(A_T.T, tiles, 4, by_picture(half))
    dM = work.empty("M", (WINDOW, P, R, S, WINDOW, C), dy.dtype)
    transform(A_T.T, along_rows(half), 0, along_rows(dM))
    return dM


def padded_to_tiles(dy: Array, work: Workspace) -> Array:
    """(P, height, width, C) as contiguous (P, 4R, 4S, C), with zeros where tiles stick out of the picture."""
    _, height, width, _ = dy.shape
    R, S = tile_grid(height, width)
    whole = (height, width) == (TILE * R, TILE * S) and dy.flags.c_contiguous
    return dy if whole else frame(dy, 0, TILE * R, TILE * S, work)


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
