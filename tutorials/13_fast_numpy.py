# %% [markdown]
# # 13 · Fast NumPy
#
# The code that we have read so far is the code that explains. The code that trains computes the same numbers several
# times faster, and is still NumPy. This chapter climbs from one to the other, one rung at a time. Each rung must give
# the same numbers as the one before; otherwise it is not faster, only wrong sooner.
#
# **You will know**
# * what a NumPy call costs, what a pass over memory costs, and what a multiplication costs;
# * how a convolution becomes a matrix product, and how one saves three of four multiplications in it;
# * why threads help although Python has a lock, and how to see whether anything is left to gain.

# %%
import math
import re
import threading
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import stg_np
from stg_np.backend import Array
from stg_np.engine import Threads
from stg_np.fast import conv as fast_conv
from stg_np.fast import walks
from stg_np.ops.conv import ConvParams, conv2d_forward
from stg_np.stm import STMParams, init_stm, stm_forward
from stg_np.workspace import Workspace

plt.style.use("stg_np.tutorial")
rng = np.random.default_rng(0)


def best(function: Callable[[], Any], times: int = 3) -> float:
    """Seconds of the quickest of a few calls: whatever disturbs a call makes it slower, never quicker."""
    seconds = []
    for _ in range(times):
        start = time.thread_time()
        function()
        seconds.append(time.thread_time() - start)
    return min(seconds)


def busiest(two: Threads, function: Callable[[int], Any], times: int = 3) -> float:
    """The same of ``two.map(function, (0, 1))``: seconds of the thread that works longer."""
    both_are_there = threading.Barrier(2)

    def timed(item: int) -> float:
        both_are_there.wait()
        return best(lambda: function(item), 1)

    return min(max(two.map(timed, (0, 1))) for _ in range(times))


alone = Threads(1)
alone.__enter__()  # from here on BLAS, which computes matrix products, uses one thread: one core against one core

# %% [markdown]
# All times on this page were measured when it was made, on a machine that was busy with other work; yours will differ.
# They are *processor time* of a thread, which minds that less than the clock does, but caches are shared: take them as
# sizes, not as measurements. What is asserted is that the numbers are the same, never that a time is.
#
# ## Rung 0: what does the formula cost in plain Python?
# The STM of chapter 3, as one would write it without NumPy: four loops, over examples, steps, cells and inputs.


# %%
def by_loops(x: Array, params: STMParams) -> Array:
    """The STM's outputs (B, T, H) from x (B, T, D), one number at a time, from an empty memory."""
    B, T, D = x.shape
    H = len(params.b) // 4
    xs, W, b = x.tolist(), params.W.tolist(), params.b.tolist()
    y = np.zeros((B, T, H), x.dtype)
    for n in range(B):
        m = [0.0] * H
        for t in range(T):
            a = [b[j] + sum(xs[n][t][k] * W[k][j] for k in range(D)) for j in range(4 * H)]
            for h in range(H):
                i, u, o = (1 / (1 + math.exp(-a[gate * H + h])) for gate in range(3))
                m[h] += u * (i * math.tanh(a[3 * H + h]) - m[h])
                y[n, t, h] = o * m[h]
    return y


B, T, D, H = 64, 64, 64, 64
drawn = init_stm(rng, D, H, length=T)
params = STMParams(drawn.W.astype(np.float32), drawn.b.astype(np.float32))
x = rng.standard_normal((B, T, D)).astype(np.float32)
empty = np.zeros((B, H), np.float32)
few = x[:1, :8]  # one example of eight steps: the loops are for the patient

stm_ladder = {"loops": best(lambda: by_loops(few, params), 1) / (8 * H)}  # seconds per cell and step

# %% [markdown]
# ## Rung 1: what does a NumPy call cost?
# Two things. A fixed price of about a microsecond, for finding out what is to be done. And a price per number, of a
# fraction of a nanosecond, for doing it. Python's own price is *per number* fifty nanoseconds and more. So the first
# law is: **few calls, each over many numbers.** Take all examples and all cells of a step together:


# %%
def sigmoid(a: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-a))
    return result


def step_by_step(x: Array, params: STMParams) -> Array:
    """One product and a dozen calls for each step."""
    y = np.empty((*x.shape[:2], H), x.dtype)
    m = np.zeros((len(x), H), x.dtype)
    for t in range(x.shape[1]):
        a_i, a_u, a_o, a_z = np.split(x[:, t] @ params.W + params.b, 4, axis=1)
        m = m + sigmoid(a_u) * (sigmoid(a_i) * np.tanh(a_z) - m)
        y[:, t] = sigmoid(a_o) * m
    return y


def is_same(one: Array, other: Array) -> bool:
    """To the precision of float32."""
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-5)


assert is_same(step_by_step(few, params), by_loops(few, params))
stm_ladder["a call for\neach step"] = best(lambda: step_by_step(x, params)) / (B * T * H)

# %% [markdown]
# ## Rung 2: what need not wait for the memory?
# The gates of the input-only form do not look at the memory. So the gates of *all* steps are one product and a few
# calls, and only the scan itself, two lines, remains in the loop. That is `stm_forward`, the code of chapter 3.


# %%
def at_once(x: Array, params: STMParams) -> Array:
    return stm_forward(x, np.zeros((len(x), H), x.dtype), params)[0][0]


assert is_same(at_once(x, params), step_by_step(x, params))
stm_ladder["all steps\nat once"] = best(lambda: at_once(x, params)) / (B * T * H)

# %% [markdown]
# Far fewer calls, and nothing is gained; here it even takes longer. Why?
#
# ## Rung 3: what does a pass over memory cost?
# A processor adds faster than it can fetch what it adds. Numbers in the **cache** of a core, a few hundred kilobytes,
# are there at once. Numbers in main memory have to come a long way. And each NumPy call reads its arguments and writes
# its result from one end to the other. An expression like `1 / (1 + np.exp(-a))` makes four such passes, and if `a` is
# larger than the cache, each pass fetches everything again.
#
# The cure is **chunking**: take a piece that fits into the cache, do *all* passes with it, then the next piece. How
# large should a piece be? Let us try, with four passes that undo each other and four million numbers.


# %%
def in_pieces(numbers: Array, out: Array, size: int) -> None:
    for first in range(0, len(numbers), size):
        piece = out[first : first + size]
        np.multiply(numbers[first : first + size], 2, out=piece)
        piece += 1
        piece *= 0.5
        piece -= 0.5


numbers = rng.standard_normal(1 << 22, dtype=np.float32)
out = np.empty_like(numbers)
sizes = [1 << k for k in range(8, 23, 2)]
seconds = []
for size in sizes:
    seconds.append(best(partial(in_pieces, numbers, out, size), 2))
    assert is_same(out[: 1 << 16], numbers[: 1 << 16])

figure, axes = plt.subplots(layout="constrained")
axes.loglog([4 * size for size in sizes], [1e9 * s / len(numbers) for s in seconds], "o-")
axes.set(xlabel="size of a piece", ylabel="nanoseconds per number")
axes.minorticks_off()
names = ["1 KiB", "4 KiB", "16 KiB", "64 KiB", "256 KiB", "1 MiB", "4 MiB", "16 MiB"]
axes.set_xticks([4 * size for size in sizes], names)
axes.set_title("four passes, in pieces: on the left calls cost, on the right the way to memory")
figure.savefig("13_chunks.svg")
assert min(seconds) > 0

# %% [markdown]
# On the left the pieces are so small that the price of the call counts. On the right they no longer fit into the
# cache. Between them lies a wide valley, and any piece in it will do. The package asks the system how large the
# second-level cache is (`stg_np/fast/cache.py`) and takes a few times that.
#
# There is a second cost of large results that no formula shows: **new memory**. The system hands it out page by page,
# and fills each with zeros at the first touch. So one says where the result goes, `out=`, and keeps the memory for the
# next time. NumPy tells `tracemalloc` what it asks for, and we can count:


# %%
def bytes_asked_for(function: Callable[[], Any]) -> int:
    """The most that was held at once beyond what was held before."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def sigmoid_in_place(a: Array) -> None:
    """Four passes, and no new memory."""
    np.negative(a, out=a)
    np.exp(a, out=a)
    a += 1
    np.divide(1, a, out=a)


few_numbers = numbers[: 1 << 18].copy()
print(f"1 / (1 + np.exp(-a)): {bytes_asked_for(lambda: sigmoid(few_numbers)) / few_numbers.nbytes:.1f} times the array")
print(f"in place:             {bytes_asked_for(lambda: sigmoid_in_place(few_numbers)) / few_numbers.nbytes:.1f} times")

assert bytes_asked_for(lambda: sigmoid(few_numbers)) >= few_numbers.nbytes
assert bytes_asked_for(lambda: sigmoid_in_place(few_numbers)) < 0.1 * few_numbers.nbytes

# %% [markdown]
# Now the STM in chunks of steps. Three more ideas come in by the way. The **layout**: time first, so that a step is one
# run of memory; and gate before time, so that a pass over one gate is one run, too. The **bias** becomes one more
# input that is always 1, and costs no pass. And all the memory is a `Workspace`, which keeps arrays by name.


# %%
def squash_one_by_one(gates: Array) -> None:
    """a_i, a_u, a_o, a_z (4, S, B, H) become i, u, o, z, each by calls of its own."""
    for gate in gates[:3]:
        sigmoid_in_place(gate)
    np.tanh(gates[3], out=gates[3])


def chunked(
    x: Array,
    params: STMParams,
    work: Workspace,
    scales: tuple[float, ...] = (1, 1, 1, 1),
    squash: Callable[[Array], None] = squash_one_by_one,
    steps: int = 8,
) -> Array:
    """A few steps at a time. ``scales``: what the pre-activations of i, u, o, z are multiplied with."""
    B, T, D = x.shape
    with_ones = work.empty("x", (T, B, D + 1), x.dtype)
    with_ones[..., :D], with_ones[..., D] = x.swapaxes(0, 1), 1
    W = np.vstack([params.W, params.b]).reshape(D + 1, 4, H).swapaxes(0, 1)  # a matrix for each gate
    W = W * np.array(scales, x.dtype)[:, None, None]
    y, m = work.empty("y", (T, B, H), x.dtype), np.zeros((B, H), x.dtype)
    for first in range(0, T, steps):
        part = slice(first, first + steps)
        gates = work.empty("gates", (4, len(y[part]), B, H), x.dtype)
        np.matmul(with_ones[part].reshape(-1, D + 1), W, out=gates.reshape(4, -1, H))
        squash(gates)
        i, u, o, z = gates
        z *= i  # v = i ⊙ z
        z *= u  # u ⊙ v, what flows in
        keep = np.subtract(1, u, out=u)
        for keep_t, inflow_t, y_t in zip(keep, z, y[part]):
            m *= keep_t
            m += inflow_t
            y_t[...] = m
        y[part] *= o
    return y.swapaxes(0, 1)


work = Workspace()
assert is_same(chunked(x, params, work), at_once(x, params))
stm_ladder["in chunks"] = best(lambda: chunked(x, params, work)) / (B * T * H)

# %% [markdown]
# ## Rung 4: can one function serve all gates?
# What is left is mostly exp and tanh. They cost ten times as much as an addition. But σ and tanh are the same function,
# seen at two scales:
#
# $$ \sigma(a) = \frac{1}{1 + e^{-a}}, \qquad \tanh(a) = \frac{1 - e^{-2a}}{1 + e^{-2a}} = 2\,\sigma(2a) - 1 . $$
#
# So *one* exp of everything will do, if the pre-activations are first multiplied with −1, −1, −1 and −2. Multiply the
# *weights* so, once, and even that costs nothing. (Where NumPy's tanh is the quicker one, which depends on the
# processor, one turns it round: $\sigma(a) = \tfrac12 \tanh(a/2) + \tfrac12$.)
#
# And $1 - \sigma(a) = \sigma(-a)$. With the update gate's scale +1 in place of −1 we get $1 - u$, all that is needed of
# $u$: $u \odot v = v - (1 - u) \odot v$. This is how the package does it:
#
# ```python
# # stg_np/fast/squash.py
#     gates, z = chunk[:3], chunk[3:]
#     with np.errstate(over="ignore", under="ignore"):
#         if tanh_candidate:
#             z *= -2
#         squashed = chunk if tanh_candidate else gates
#         np.exp(squashed, out=squashed)
#         squashed += 1
#         np.divide(1, gates, out=gates)
#         if tanh_candidate:
#             np.divide(2, z, out=z)
#             z -= 1
# ```


# %%
def squash_all(gates: Array) -> None:
    """−a_i, −a_u, −a_o, −2 a_z become i, u, o, z."""
    with np.errstate(over="ignore"):  # e^(−a) may be infinite; then the gate is 0, as it should be
        np.exp(gates, out=gates)
    gates += 1
    np.divide(1, gates, out=gates)
    gates[3] *= 2
    gates[3] -= 1


def one_exp(x: Array, params: STMParams, work: Workspace) -> Array:
    return chunked(x, params, work, (-1, -1, -1, -2), squash_all)


a = np.linspace(-9, 9, 200)
assert np.allclose(np.tanh(a), 2 * sigmoid(2 * a) - 1, rtol=0, atol=1e-15)
assert np.allclose(1 - sigmoid(a), sigmoid(-a), rtol=0, atol=1e-15)
assert is_same(one_exp(x, params, work), chunked(x, params, Workspace()))
stm_ladder["one exp"] = best(lambda: one_exp(x, params, work)) / (B * T * H)

# %% [markdown]
# ## Rung 5: does Python's lock forbid threads?
# Only one thread at a time may run *Python*. But NumPy lets go of that lock inside its loops and its products. So while
# one thread is inside exp, the other is inside a product. Cut the batch into **groups** and give each thread groups:
# the threads share nothing but the weights, which nobody writes.
#
# The groups are cut by their size, not by the number of threads. So the same groups are computed, and added up in the
# same order, with one thread as with ten: not one bit of the result depends on their number.


# %%
rooms = Workspace(), Workspace()


def of_group(number: int) -> Array:
    """The outputs of 32 examples."""
    return one_exp(x[32 * number : 32 * number + 32], params, rooms[number])


with Threads(2) as two:
    y = np.concatenate(two.map(of_group, (0, 1)))
    assert is_same(y, one_exp(x, params, work))
    assert np.array_equal(y, np.concatenate(alone.map(of_group, (0, 1))))  # to the last bit
    stm_ladder["two threads"] = busiest(two, of_group) / (B * T * H)


by_the_package = walks.stm_forward(x, empty, params, work=Workspace())[0][0]
assert is_same(by_the_package, y)
for (_, slower), (name, faster) in pairwise(stm_ladder.items()):
    print(f"{name:22}".replace("\n", " "), f"{1e9 * faster:9.2f} ns per cell and step, {slower / faster:7.1f} ×")
    assert faster > 0

# %% [markdown]
# (The time of two threads is that of the busier one; what they wait for each other is not in it. By the clock, with
# forward and backward, the package's two workers are 1.5 to 1.8 times as fast as one: *Workers* in
# [speed.md](../../benchmarks/results/speed.md). The package's own `walks.stm_forward`, which is the same as ours but
# keeps what the backward needs, gives the same numbers.)
#
# ## How does a convolution become a matrix product?
# The second half of the ladder belongs to the window of chapter 11. In loops over rows, columns and the window's places
# it makes one small product at a time, each with the price of a call. The plain path turns the loops inside out and
# makes nine products of whole maps. Each of the nine is added to the result: nine passes.
#
# **Columns** (im2col) makes *one* product. Write each window as a row of $9 C$ numbers. Then
#
# $$ y = \text{columns}(x)\; W, \qquad (\text{pixels},\; 9C)\,(9C,\; C_\text{out}) . $$
#
# The adding up happens inside the product, in the registers of the processor. The price: each pixel is copied nine
# times.


# %%
def conv_by_loops(x: Array, W: Array) -> Array:
    """x (B, height, width, C), W (3, 3, C, C_out), zeros around the picture."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((*x.shape[:3], W.shape[-1]), x.dtype)
    B, height, width, _ = x.shape
    for n, r, c, i, j in product(range(B), range(height), range(width), range(3), range(3)):
        y[n, r, c] += padded[n, r + i, c + j] @ W[i, j]
    return y


def conv_by_shifts(x: Array, W: Array) -> Array:
    return conv2d_forward(x, ConvParams(W, np.zeros(W.shape[-1], W.dtype)))[0]


def conv_by_columns(x: Array, W: Array) -> Array:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))  # (B, height, width, C, 3, 3), a view
    columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[-1])  # the copy
    y: Array = columns @ W.reshape(-1, W.shape[-1])
    return y.reshape(*x.shape[:3], -1)


C = 64
maps = rng.standard_normal((16, 16, 16, C)).astype(np.float32)
W = (rng.standard_normal((3, 3, C, C)) / math.sqrt(9 * C)).astype(np.float32)
pixels = maps[..., 0].size
one_map = maps[:1]

assert is_same(conv_by_shifts(one_map, W), conv_by_loops(one_map, W))
assert is_same(conv_by_columns(maps, W), conv_by_shifts(maps, W))
conv_ladder = {
    "loops": best(lambda: conv_by_loops(one_map, W), 1) / 256,
    "nine shifted\nproducts": best(lambda: conv_by_shifts(maps, W)) / pixels,
    "columns": best(lambda: conv_by_columns(maps, W)) / pixels,
}

# %% [markdown]
# ## Can one do with fewer multiplications?
# It seems not: each output is a sum of nine products, and each product is needed. But neighbouring outputs are made of
# the same numbers. Take one dimension: four inputs $d_0 \dots d_3$, a kernel $w_0, w_1, w_2$, two outputs. By the
# definition, that is six multiplications:
#
# $$ y_0 = d_0 w_0 + d_1 w_1 + d_2 w_2, \qquad y_1 = d_1 w_0 + d_2 w_1 + d_3 w_2 . $$
#
# Both know $d_1$ and $d_2$. Let us make what they have in common symmetric. In $y_0$, add $d_2 w_0$ and take it away
# again; in $y_1$, do so with $d_1 w_2$. With $s = w_0 + w_2$:
#
# $$ y_0 = \underbrace{d_1 w_1 + d_2 s}_{p} + (d_0 - d_2)\, w_0, \qquad
#    y_1 = \underbrace{d_1 s + d_2 w_1}_{q} - (d_1 - d_3)\, w_2 . $$
#
# $p$ and $q$ still take four multiplications. But look at their sum and their difference:
#
# $$ p + q = (d_1 + d_2)(s + w_1), \qquad p - q = (d_2 - d_1)(s - w_1) . $$
#
# Two multiplications; and $p$ and $q$ are half the sum and half the difference of *those*. The halves go to the
# kernel's side. So, all in all, four products:
#
# $$ m_0 = (d_0 - d_2)\, w_0, \quad m_1 = (d_1 + d_2)\,\tfrac{w_0 + w_1 + w_2}{2}, \quad
#    m_2 = (d_2 - d_1)\,\tfrac{w_0 - w_1 + w_2}{2}, \quad m_3 = (d_1 - d_3)\, w_2 , $$
#
# $$ y_0 = m_0 + m_1 + m_2, \qquad y_1 = m_1 - m_2 - m_3 . $$
#
# Four in place of six. What is done to $d$, to $w$ and to $m$ is linear, so each is a matrix with hardly anything but 0
# and ±1 in it:
#
# $$ y = A^\top \big[\, (G w) \odot (B^\top d) \,\big] . $$

# %%
B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1.0]])

d, w = rng.standard_normal(4), rng.standard_normal(3)
by_definition = np.array([d[:3] @ w, d[1:] @ w])
assert np.allclose(A_T @ ((G @ w) * (B_T @ d)), by_definition, rtol=0, atol=1e-14)

# %% [markdown]
# In two dimensions, do it along the rows *and* along the columns. A tile $d$ of 4×4 pixels gives 2×2 outputs,
#
# $$ Y = A^\top \big[\, (G W G^\top) \odot (B^\top d B) \,\big] A , $$
#
# with 4 · 4 = 16 multiplications where the definition has 4 · 9 = 36. This is **Winograd's**
# $F(2{\times}2, 3{\times}3)$. On one tile:

# %%
tile, kernel = rng.standard_normal((4, 4)), rng.standard_normal((3, 3))
Y = A_T @ ((G @ kernel @ G.T) * (B_T @ tile @ B_T.T)) @ A_T.T
expected = [[(tile[r : r + 3, c : c + 3] * kernel).sum() for c in range(2)] for r in range(2)]
assert np.allclose(Y, expected, rtol=0, atol=1e-13)

# %% [markdown]
# With channels, each of the 16 entries of ⊙ becomes a product over channels, of all tiles at once: 16 matrix products
# (tiles, C) (C, C_out). The kernel is transformed once for all tiles. On maps:


# %%
def conv_by_winograd(x: Array, W: Array) -> Array:
    """F(2×2, 3×3), for maps of even height and width."""
    B, height, width, C = x.shape
    A, Bt, Gt = (matrix.astype(x.dtype) for matrix in (A_T, B_T, G))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    tiles = sliding_window_view(padded, (4, 4), axis=(1, 2))[:, ::2, ::2]  # (B, rows, columns, C, 4, 4), a view
    V = np.einsum("ki,lj,brscij->klbrsc", Bt, Bt, tiles, optimize=True).reshape(4, 4, -1, C)
    U = np.einsum("ki,lj,ijcd->klcd", Gt, Gt, W, optimize=True)
    M = V @ U  # sixteen products
    Y = np.einsum("pk,ql,klnd->npqd", A, A, M, optimize=True)  # (tiles, 2, 2, C_out)
    y: Array = Y.reshape(B, height // 2, width // 2, 2, 2, -1).swapaxes(2, 3)
    return y.reshape(B, height, width, -1)


assert is_same(conv_by_winograd(maps, W), conv_by_columns(maps, W))
conv_ladder["Winograd,\nas above"] = best(lambda: conv_by_winograd(maps, W)) / pixels

# %% [markdown]
# Fewer multiplications, and not faster: what was saved in the products is lost in the transforms, which are passes
# over memory. The package's form (`stg_np/fast/conv.py`) answers with everything this chapter has taught. Larger
# tiles, $F(4{\times}4, 3{\times}3)$: 36 multiplications where the definition has 144. Chunks of a few pictures.
# Transforms that are matrix products themselves, so that each number is read once. No copying: a product may read
# windows that overlap. And it is used only where it pays: for a picture of three channels the package takes columns.

# %%
six, W1 = rng.standard_normal(6), rng.standard_normal(3)
larger = fast_conv.A_T @ ((fast_conv.G @ W1) * (fast_conv.B_T @ six))
assert np.allclose(larger, [six[k : k + 3] @ W1 for k in range(4)], rtol=0, atol=1e-13)
assert fast_conv.choose(maps.shape, W.shape) == "winograd"
assert fast_conv.choose((16, 32, 32, 3), (3, 3, 3, 64)) == "columns"

zeros = np.zeros(C, np.float32)
conv_work = Workspace()


def conv_of_the_package(x: Array, work: Workspace) -> Array:
    return fast_conv.conv2d_forward(x, ConvParams(W, zeros), work=work)[0]


assert np.allclose(conv_of_the_package(maps, conv_work), conv_by_winograd(maps, W), rtol=0, atol=5e-4)
conv_ladder["Winograd,\nthe package's"] = best(lambda: conv_of_the_package(maps, conv_work)) / pixels


def of_maps(number: int) -> Array:
    """The convolution of eight maps."""
    return conv_of_the_package(maps[8 * number : 8 * number + 8], rooms[number])


with Threads(2) as two:
    threaded = np.concatenate(two.map(of_maps, (0, 1)))
    assert np.allclose(threaded, conv_of_the_package(maps, conv_work), rtol=0, atol=5e-4)
    conv_ladder["two threads"] = busiest(two, of_maps) / pixels

exact = conv_by_columns(maps.astype(np.float64), W.astype(np.float64))
for name, result in (("columns", conv_by_columns(maps, W)), ("the package's Winograd", threaded)):
    error = abs(result - exact).max() / abs(exact).max()
    print(f"largest error of {name} in float32: {error:.0e} of the largest number")
    assert error < 1e-4

# %% [markdown]
# There is a price. The numbers in between are larger than the result, and where large numbers cancel, digits are lost:
# of float32's seven, five or so remain. That is enough for training. It is a price that should be said aloud.
#
# ## How much did each rung bring?

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for panel, ladder, unit in zip(panels, (stm_ladder, conv_ladder), ("cell and step", "pixel of 64 → 64 channels")):
    nanoseconds = [1e9 * s for s in ladder.values()]
    rungs = range(len(ladder))[::-1]
    panel.barh(rungs, nanoseconds, color="C0", height=0.6)
    for rung, value in zip(rungs, nanoseconds):
        panel.text(1.15 * value, rung, f"{value:,.0f}" if value > 20 else f"{value:.1f}", va="center")
    panel.set_yticks(rungs, ladder)
    panel.set(xscale="log", xlabel=f"nanoseconds per {unit}", xlim=(min(nanoseconds) / 3, max(nanoseconds) * 12))
    panel.grid(visible=False, axis="y")
panels[0].set_title("the STM's forward")
panels[1].set_title("a 3×3 convolution")
figure.savefig("13_ladder.svg")
assert all(value > 0 for value in conv_ladder.values())

# %% [markdown]
# The scale is logarithmic. The longest step is the first: away from loops over single numbers. The later ones together
# are worth a small factor, and a training feels it: it is hours or one hour.

# %% [markdown]
# ## Is anything left to gain?
# A processor has two limits. So many operations a second, its **peak**: a large matrix product comes close to it. And
# so many bytes a second from memory, its **bandwidth**: a copy shows it. A computation that does $I$ operations for
# each byte that it must move (its **arithmetic intensity**) cannot be faster than
#
# $$ \min(\text{peak},\; I \cdot \text{bandwidth}) . $$
#
# Drawn over $I$, that is a roof: a slope, then a flat. Whoever stands near the roof is done; to get on, the *formula*
# must change, as Winograd's did. Whoever stands on the slope gains nothing by multiplying less, and everything by
# moving less.

# %%
big = rng.standard_normal((640, 640)).astype(np.float32)
long, other, target = (np.ones(1 << 23, np.float32) for _ in range(3))
peak = 2 * 640**3 / best(lambda: big @ big)
bandwidth = 8 * len(long) / best(lambda: np.copyto(target, long))  # four bytes read, four written


def product_of(rows: int, inner: int, columns: int) -> tuple[float, float]:
    """Arithmetic intensity of (rows, inner) (inner, columns) in float32, and operations a second."""
    one = rng.standard_normal((rows, inner)).astype(np.float32)
    other = rng.standard_normal((inner, columns)).astype(np.float32)
    result = np.empty((rows, columns), np.float32)
    operations = 2 * rows * inner * columns
    return operations / (one.nbytes + other.nbytes + result.nbytes), operations / best(
        lambda: np.matmul(one, other, out=result)
    )


points = {
    "a + b": (1 / 12, len(long) / best(lambda: np.add(long, other, out=target))),
    "x W, D = 3": product_of(8192, 3, 256),
    "x W, D = 16": product_of(8192, 16, 256),
    "x W, D = 128": product_of(4096, 128, 256),
    "640³": (640 / 6, peak),
}
figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
intensity = np.logspace(-1.5, 2.5, 200)
axes.loglog(intensity, np.minimum(peak, intensity * bandwidth) / 1e9, color="0.5", label="the roof")
for name, (at, rate) in points.items():
    axes.plot(at, rate / 1e9, "o", color="C1")
    axes.annotate(name, (at, rate / 1e9), (0, 8) if name == "640³" else (8, -12), textcoords="offset points")
axes.axvline(peak / bandwidth, linestyle=":", linewidth=1, color="0.5")
axes.set(xlabel="operations per byte", ylabel="10⁹ operations a second", ylim=(0.2, 3 * peak / 1e9))
axes.set_title("a roofline, one core")
axes.legend(loc="upper left")
figure.savefig("13_roofline.svg")

assert points["a + b"][0] < points["x W, D = 3"][0] < points["x W, D = 16"][0] < points["x W, D = 128"][0]
assert all(rate > 0 for _, rate in points.values())

# %% [markdown]
# An addition of large arrays stands at the far left: no processor is fast at it. A product with few inputs stands
# lower than one with many, although it is "the same operation". Chunking moves a computation to the right: the numbers
# come from memory once, and all passes count.

# %% [markdown]
# ## "NumPy is slow"
# One hears it from people who have seen rung 0 or rung 1. NumPy calls the same kind of compiled loops and the same kind
# of products as a framework does. What it lacks is a compiler that *fuses* passes; chunking replaces most of it, by
# hand. What came of it here? The package's benchmark runs the same layer, forward and backward, in frameworks, on the
# same number of threads, and takes turns ([speed.md](../../benchmarks/results/speed.md)):

# %%
starts = Path(globals().get("__file__", "here")).resolve(), Path.cwd() / "here", Path(stg_np.__file__)
folders = (folder / "benchmarks" / "results" for start in starts for folder in start.parents)
results = next(folder for folder in folders if folder.is_dir())
speed = (results / "speed.md").read_text("utf-8")
layers = speed.split("## A training step")[0]
for rival in (
    "torch.nn.LSTM",
    "the same in eager PyTorch",
    "the same in torch.compile",
    "the same in jax.jit, lax.scan",
):
    found = re.findall(rf"\| {re.escape(rival)} \| \*\*[^|]+\| \*\*([\d.]+)\*\*", layers)
    ratios = [float(ratio) for ratio in found]
    print(f"{rival:30} takes {min(ratios):.2f} to {max(ratios):.2f} times as long ({len(ratios)} shapes)")
    assert len(ratios) >= 2
    assert min(ratios) > 0.9  # the slow one it is not

above_the_floor = re.findall(r"\| \*\*([\d.]+)\*\* \| [\d.]+ \|$", speed, re.MULTILINE)
assert len(above_the_floor) == 4
print("of its own floor (products and memory alone):", " ".join(above_the_floor))

# %% [markdown]
# So on that machine NumPy was not the slow one. It is not as fast as can be, either: two to three times the floor, and
# much of the rest is exp. And it stays on the processor, however busy a GPU beside it might be. The right sentence is:
# *one number at a time* is slow, in any library.

# %%
alone.__exit__(None, None, None)

# %% [markdown]
# ## In the field's words
# * **Vectorisation** here means: one call for many numbers. In a compiler it means: one instruction for several
#   numbers (**SIMD**: AVX2, AVX-512). NumPy's loops are both.
# * Chunking is **cache blocking** or **tiling**; a compiler's **kernel fusion** has the same aim: fewer passes. The
#   fixed price of a call is **overhead**; the lock is the **GIL**; splitting a batch is **data parallelism**.
# * **im2col** (Chellapilla, Puri & Simard 2006) and Winograd's minimal filtering, brought to networks by Lavin & Gray
#   2015 (arXiv:1509.09308).
# * The **roofline** model: Williams, Waterman & Patterson, "Roofline: an insightful visual performance model for
#   multicore architectures", *Communications of the ACM* 2009.
# * BLAS, the library of the products, is itself a masterpiece of blocking: Goto & van de Geijn, "Anatomy of
#   high-performance matrix multiplication", *ACM TOMS* 2008.
#
# ## Summary
# * Few calls, each over many numbers; then few passes, each over what the cache still holds; then few operations.
# * One exp for all gates; the bias and the scales inside the product; results into memory that is already there.
# * A convolution is one product of columns. Winograd trades multiplications for additions, and rounding.
# * Threads over groups of fixed size: quicker, and the same to the last bit.
# * Measure, keep the slow one as the oracle, and look at the roof before you go on.
#
# ## Exercises
# Solutions: [13_fast_numpy.py](../solutions/13_fast_numpy.py).
#
# **1. Find the copy.** `gates` is a contiguous array (4, T, B, H). One of the four lines copies all of a gate. Which?
# How can the sum over all rows be had without it?
#
# ```python
# i = gates[0]                           # line 1
# by_example = i.swapaxes(0, 1)          # line 2: (B, T, H)
# rows = by_example.reshape(-1, H)       # line 3: (B·T, H)
# backwards = rows[::-1]                 # line 4
# ```
#
# <details><summary>Hint</summary>
#
# `np.shares_memory(one, other)`. A view is a first address, a shape and a step for each axis. Can B·T rows be walked
# with *one* step after the axes were swapped?
# </details>
#
# **2. On which side of the ridge?** A core does 60·10⁹ operations a second and moves 10·10⁹ bytes. Compute the
# intensity of the product (N, D) (D, 4H) for H = 128 and a large N, with D = 3 and with D = 128. Which of the two is
# limited by memory? From which D on does a product reach the roof's flat part?
#
# <details><summary>Hint</summary>
#
# 2·N·D·4H operations; 4 bytes each for N·D + D·4H + N·4H numbers. Let N go to infinity.
# </details>
#
# **3. Winograd for any tile.** Two polynomials with 3 and m coefficients have a product with n = m + 2. It is known
# from its values at n points. Turn that into $A^\top$, $G$ and $B^\top$ of $F(m, 3)$, and show for m = 2, 4, 6 how the
# multiplications per output fall and the error of float32 grows.
#
# <details><summary>Hint</summary>
#
# Let V (n, n) hold the powers of the points, one row a point, $V_3$ and $V_m$ its first 3 and m columns; a point at
# infinity has the row 0 … 0 1. Coefficients of the product: $V^{-1} [(V_3 w) \odot (V_m g)]$. A convolution of a tile
# is the transpose of that map, as the backward is of the forward: $V_m^\top [(V_3 w) \odot (V^{-\top} d)]$.
# </details>
