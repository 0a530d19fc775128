# %% [markdown]
# # 13 · 快速的 NumPy
#
# 前面读到的代码，是用来讲解的代码。用于训练的代码算出同样的数，却快好几倍，而且仍是 NumPy。本章从前者一级一级爬到后者。每一级给出的数必须与前一级相同；否则它不是更快，只是错得更早。
#
# **你将学到**
# * 一次 NumPy 调用花费多少，走一遍内存花费多少，一次乘法花费多少；
# * 卷积怎样变成矩阵乘法，其中四次乘法怎样省掉三次；
# * Python 有锁，线程为什么仍有帮助；怎样看出还有没有可挖的。

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
    """几次调用中最快一次的秒数：干扰只会使调用变慢，不会变快。"""
    seconds = []
    for _ in range(times):
        start = time.thread_time()
        function()
        seconds.append(time.thread_time() - start)
    return min(seconds)


def busiest(two: Threads, function: Callable[[int], Any], times: int = 3) -> float:
    """对 ``two.map(function, (0, 1))`` 同样计时：取工作较久的线程的秒数。"""
    both_are_there = threading.Barrier(2)

    def timed(item: int) -> float:
        both_are_there.wait()
        return best(lambda: function(item), 1)

    return min(max(two.map(timed, (0, 1))) for _ in range(times))


alone = Threads(1)
alone.__enter__()  # 从这里起，做矩阵乘法的 BLAS 只用一个线程：一个核心对一个核心

# %% [markdown]
# 本页的所有时间都是制作时测得的，那台机器同时还忙着别的事；你的会不一样。它们是线程的*处理器时间*，比时钟时间受干扰少，但缓存是共用的：请当作量级看，不要当作测量结果。断言的只是数值相同，从不对时间作断言。
#
# ## 第 0 级：用纯 Python，公式要花多少？
# 第 3 章的 STM，不用 NumPy 的写法：四重循环，对样本、步、单元和输入。


# %%
def by_loops(x: Array, params: STMParams) -> Array:
    """由 x (B, T, D) 求 STM 的输出 (B, T, H)，一次一个数，从空记忆开始。"""
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
few = x[:1, :8]  # 一个样本，八步：循环要有耐心才等得到

stm_ladder = {"loops": best(lambda: by_loops(few, params), 1) / (8 * H)}  # 每个单元每一步的秒数

# %% [markdown]
# ## 第 1 级：一次 NumPy 调用花费多少？
# 两样。一份固定的价钱，约一微秒，用来弄清要做什么。还有每个数的价钱，零点几纳秒，用来做事。Python 自己的价钱是*每个数*五十纳秒以上。所以第一条规律是：**调用要少，每次处理许多数。** 把一步的所有样本和所有单元合在一起：


# %%
def sigmoid(a: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-a))
    return result


def step_by_step(x: Array, params: STMParams) -> Array:
    """每一步一次乘法和十来次调用。"""
    y = np.empty((*x.shape[:2], H), x.dtype)
    m = np.zeros((len(x), H), x.dtype)
    for t in range(x.shape[1]):
        a_i, a_u, a_o, a_z = np.split(x[:, t] @ params.W + params.b, 4, axis=1)
        m = m + sigmoid(a_u) * (sigmoid(a_i) * np.tanh(a_z) - m)
        y[:, t] = sigmoid(a_o) * m
    return y


def is_same(one: Array, other: Array) -> bool:
    """在 float32 的精度之内。"""
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-5)


assert is_same(step_by_step(few, params), by_loops(few, params))
stm_ladder["a call for\neach step"] = best(lambda: step_by_step(x, params)) / (B * T * H)

# %% [markdown]
# ## 第 2 级：什么不必等待记忆？
# 只看输入的形式，门不看记忆。所以*所有*步的门就是一次乘法和几次调用，留在循环里的只有扫描本身，两行。这就是 `stm_forward`，第 3 章的代码。


# %%
def at_once(x: Array, params: STMParams) -> Array:
    return stm_forward(x, np.zeros((len(x), H), x.dtype), params)[0][0]


assert is_same(at_once(x, params), step_by_step(x, params))
stm_ladder["all steps\nat once"] = best(lambda: at_once(x, params)) / (B * T * H)

# %% [markdown]
# 调用少得多，却一无所获；这里甚至更慢。为什么？
#
# ## 第 3 级：走一遍内存花费多少？
# 处理器做加法，比取来要加的数还快。在核心的**缓存**（几百 KB）里的数，立刻可用；主存里的数则要走很远的路。而每次 NumPy 调用都从头到尾读一遍参数，写一遍结果。像 `1 / (1 + np.exp(-a))` 这样的表达式要走四遍；如果 `a` 比缓存大，每一遍都要重新取一次。
#
# 对策是**分块**（chunking）：取缓存放得下的一块，对它走完*所有*各遍，再取下一块。一块该多大？试一试：四遍运算，彼此抵消，四百万个数。


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
# 左侧，块太小，调用的价钱显出来了。右侧，块大得缓存放不下。两者之间是一条宽谷，其中任何一种块都行。程序包向系统询问二级缓存有多大（`stg_np/fast/cache.py`），取它的几倍。
#
# 大的结果还有第二种花费，哪个公式也看不出来：**新内存**。系统一页一页地给，第一次触碰时还要填零。所以要用 `out=` 说明结果放在哪里，并把内存留到下次用。NumPy 会把它要了多少内存告诉 `tracemalloc`，我们可以数一数：


# %%
def bytes_asked_for(function: Callable[[], Any]) -> int:
    """在原有之外，同时占用内存的最大值。"""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def sigmoid_in_place(a: Array) -> None:
    """四遍，不用新内存。"""
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
# 现在按步分块做 STM。顺便再用上三个办法。**布局**：时间在最前，一步就是一段连续的内存；门又在时间之前，对一个门走一遍也是一段连续的内存。**偏置**变成一个恒为 1 的输入，不费一遍。所有内存都在 `Workspace` 里，它按名字保存数组。


# %%
def squash_one_by_one(gates: Array) -> None:
    """a_i, a_u, a_o, a_z (4, S, B, H) 变成 i, u, o, z，各用各的调用。"""
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
    """每次几步。``scales``：i, u, o, z 的预激活值所乘的系数。"""
    B, T, D = x.shape
    with_ones = work.empty("x", (T, B, D + 1), x.dtype)
    with_ones[..., :D], with_ones[..., D] = x.swapaxes(0, 1), 1
    W = np.vstack([params.W, params.b]).reshape(D + 1, 4, H).swapaxes(0, 1)  # 每个门一个矩阵
    W = W * np.array(scales, x.dtype)[:, None, None]
    y, m = work.empty("y", (T, B, H), x.dtype), np.zeros((B, H), x.dtype)
    for first in range(0, T, steps):
        part = slice(first, first + steps)
        gates = work.empty("gates", (4, len(y[part]), B, H), x.dtype)
        np.matmul(with_ones[part].reshape(-1, D + 1), W, out=gates.reshape(4, -1, H))
        squash(gates)
        i, u, o, z = gates
        z *= i  # v = i ⊙ z
        z *= u  # u ⊙ v，流入的部分
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
# ## 第 4 级：能不能用一个函数算出所有的门？
# 剩下的大半是 exp 和 tanh。它们的花费是加法的十倍。但 σ 和 tanh 是同一个函数，只是尺度不同：
#
# $$ \sigma(a) = \frac{1}{1 + e^{-a}}, \qquad \tanh(a) = \frac{1 - e^{-2a}}{1 + e^{-2a}} = 2\,\sigma(2a) - 1 . $$
#
# 所以把预激活值先分别乘以 −1、−1、−1 和 −2，再对全部取*一次* exp 就够了。把这些系数乘到*权重*上，只乘一次，连这也不费什么。（若 NumPy 的 tanh 更快——这取决于处理器——就反过来：$\sigma(a) = \tfrac12 \tanh(a/2) + \tfrac12$。）
#
# 再者，$1 - \sigma(a) = \sigma(-a)$。更新门的系数用 +1 代替 −1，得到的就是 $1 - u$，而关于 $u$ 需要的就只是它：$u \odot v = v - (1 - u) \odot v$。程序包就是这样做的：
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
    """−a_i, −a_u, −a_o, −2 a_z 变成 i, u, o, z。"""
    with np.errstate(over="ignore"):  # e^(−a) 可能是无穷大；那时门为 0，正该如此
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
# ## 第 5 级：Python 的锁不许用线程吗？
# 同一时刻只有一个线程可以运行 *Python*。但 NumPy 在自己的循环和矩阵乘法里会放开这把锁。所以一个线程在算 exp 时，另一个可以在做乘法。把一批切成**组**，每个线程领几组：线程之间共用的只有权重，而权重没有谁去写。
#
# 组按大小来切，不按线程数。所以一个线程和十个线程算的是同样的组，相加的次序也相同：结果没有一个比特取决于线程数。


# %%
rooms = Workspace(), Workspace()


def of_group(number: int) -> Array:
    """32 个样本的输出。"""
    return one_exp(x[32 * number : 32 * number + 32], params, rooms[number])


with Threads(2) as two:
    y = np.concatenate(two.map(of_group, (0, 1)))
    assert is_same(y, one_exp(x, params, work))
    assert np.array_equal(y, np.concatenate(alone.map(of_group, (0, 1))))  # 一个比特都不差
    stm_ladder["two threads"] = busiest(two, of_group) / (B * T * H)


by_the_package = walks.stm_forward(x, empty, params, work=Workspace())[0][0]
assert is_same(by_the_package, y)
for (_, slower), (name, faster) in pairwise(stm_ladder.items()):
    print(f"{name:22}".replace("\n", " "), f"{1e9 * faster:9.2f} ns per cell and step, {slower / faster:7.1f} ×")
    assert faster > 0

# %% [markdown]
# （两个线程的时间，取较忙的那个；彼此等待的时间不在其内。按时钟计，前向加反向，程序包的两个工作线程的速度是一个的 1.5 到 1.8 倍：见 [speed.md](../../../benchmarks/results/speed.md) 的 *Workers* 一节。程序包自己的 `walks.stm_forward` 与我们的相同，只是保留了反向所需的东西，给出的数也相同。）
#
# ## 卷积怎样变成矩阵乘法？
# 梯子的后一半属于第 11 章的窗口。用对行、列和窗口位置的循环，每次只做一个小乘法，每次都付一次调用的价钱。朴素路径把循环翻了个面，做九次整张图的乘法；九次各加到结果上，就是九遍。
#
# **按列展开**（im2col）只做*一次*乘法。把每个窗口写成一行 $9 C$ 个数，于是
#
# $$ y = \text{columns}(x)\; W, \qquad (\text{pixels},\; 9C)\,(9C,\; C_\text{out}) . $$
#
# 相加在乘法之内完成，在处理器的寄存器里。代价是：每个像素复制九次。


# %%
def conv_by_loops(x: Array, W: Array) -> Array:
    """x (B, height, width, C)，W (3, 3, C, C_out)，图片四周补零。"""
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
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))  # (B, height, width, C, 3, 3)，视图
    columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[-1])  # 复制在这里
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
# ## 乘法还能更少吗？
# 看来不能：每个输出是九个乘积之和，每个乘积都需要。但相邻的输出由同样的数构成。先看一维：四个输入 $d_0 \dots d_3$，卷积核 $w_0, w_1, w_2$，两个输出。按定义要六次乘法：
#
# $$ y_0 = d_0 w_0 + d_1 w_1 + d_2 w_2, \qquad y_1 = d_1 w_0 + d_2 w_1 + d_3 w_2 . $$
#
# 两者都用到 $d_1$ 和 $d_2$。把共同的部分变得对称：在 $y_0$ 里加上 $d_2 w_0$ 再减去；在 $y_1$ 里对 $d_1 w_2$ 也这样做。记 $s = w_0 + w_2$：
#
# $$ y_0 = \underbrace{d_1 w_1 + d_2 s}_{p} + (d_0 - d_2)\, w_0, \qquad
#    y_1 = \underbrace{d_1 s + d_2 w_1}_{q} - (d_1 - d_3)\, w_2 . $$
#
# $p$ 和 $q$ 仍要四次乘法。但看它们的和与差：
#
# $$ p + q = (d_1 + d_2)(s + w_1), \qquad p - q = (d_2 - d_1)(s - w_1) . $$
#
# 两次乘法；而 $p$ 和 $q$ 就是*这两个结果*的和之半与差之半。一半可以归到卷积核那边。所以总共四个乘积：
#
# $$ m_0 = (d_0 - d_2)\, w_0, \quad m_1 = (d_1 + d_2)\,\tfrac{w_0 + w_1 + w_2}{2}, \quad
#    m_2 = (d_2 - d_1)\,\tfrac{w_0 - w_1 + w_2}{2}, \quad m_3 = (d_1 - d_3)\, w_2 , $$
#
# $$ y_0 = m_0 + m_1 + m_2, \qquad y_1 = m_1 - m_2 - m_3 . $$
#
# 四次代替六次。对 $d$、对 $w$、对 $m$ 所做的都是线性的，所以各是一个矩阵，里面几乎只有 0 和 ±1：
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
# 二维时，沿行做，*也*沿列做。4×4 像素的一块 $d$ 给出 2×2 个输出，
#
# $$ Y = A^\top \big[\, (G W G^\top) \odot (B^\top d B) \,\big] A , $$
#
# 用 4 · 4 = 16 次乘法，而按定义要 4 · 9 = 36 次。这就是 **Winograd** 的 $F(2{\times}2, 3{\times}3)$。在一块上：

# %%
tile, kernel = rng.standard_normal((4, 4)), rng.standard_normal((3, 3))
Y = A_T @ ((G @ kernel @ G.T) * (B_T @ tile @ B_T.T)) @ A_T.T
expected = [[(tile[r : r + 3, c : c + 3] * kernel).sum() for c in range(2)] for r in range(2)]
assert np.allclose(Y, expected, rtol=0, atol=1e-13)

# %% [markdown]
# 有了通道，⊙ 的 16 个元素各变成对通道的乘法，所有块一次完成：16 次矩阵乘法，形状为（块数 × C）乘（C × C_out）。卷积核对所有块只变换一次。在特征图上：


# %%
def conv_by_winograd(x: Array, W: Array) -> Array:
    """F(2×2, 3×3)，用于高和宽为偶数的特征图。"""
    B, height, width, C = x.shape
    A, Bt, Gt = (matrix.astype(x.dtype) for matrix in (A_T, B_T, G))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    tiles = sliding_window_view(padded, (4, 4), axis=(1, 2))[:, ::2, ::2]  # (B, 行, 列, C, 4, 4)，视图
    V = np.einsum("ki,lj,brscij->klbrsc", Bt, Bt, tiles, optimize=True).reshape(4, 4, -1, C)
    U = np.einsum("ki,lj,ijcd->klcd", Gt, Gt, W, optimize=True)
    M = V @ U  # 十六次乘法
    Y = np.einsum("pk,ql,klnd->npqd", A, A, M, optimize=True)  # (tiles, 2, 2, C_out)
    y: Array = Y.reshape(B, height // 2, width // 2, 2, 2, -1).swapaxes(2, 3)
    return y.reshape(B, height, width, -1)


assert is_same(conv_by_winograd(maps, W), conv_by_columns(maps, W))
conv_ladder["Winograd,\nas above"] = best(lambda: conv_by_winograd(maps, W)) / pixels

# %% [markdown]
# 乘法少了，却没有更快：在乘法上省下的，又丢在变换上了，变换就是一遍遍地走内存。程序包的写法（`stg_np/fast/conv.py`）用上了本章教的一切。更大的块 $F(4{\times}4, 3{\times}3)$：36 次乘法，而按定义要 144 次。每次处理几张图片。变换本身也写成矩阵乘法，每个数只读一次。不作复制：乘法可以读取相互重叠的窗口。而且只用在划算的地方：三个通道的图片，程序包用按列展开。

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
    """八张特征图的卷积。"""
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
# 这有代价。中间的数比结果大，大数相消，就要丢失位数：float32 的七位，大约剩五位。训练够用。但这个代价应当明说。
#
# ## 每一级带来多少？

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
# 坐标是对数的。最长的一步是第一步：离开对单个数的循环。后面各级合起来是一个不大的倍数，但训练时感觉得到：是几个小时，还是一个小时。

# %% [markdown]
# ## 还有可挖的吗？
# 处理器有两个极限。每秒多少次运算，即**峰值**：大的矩阵乘法能接近它。每秒从内存取多少字节，即**带宽**：复制一次就看得出来。若一个计算每搬运一个字节做 $I$ 次运算（**算术强度**），它的速度就不可能超过
#
# $$ \min(\text{峰值},\; I \cdot \text{带宽}) . $$
#
# 随 $I$ 画出来，是一个屋顶：先是斜坡，后是平顶。站在屋顶附近的，已经到头了；还要前进，就得改变*公式*，就像 Winograd 那样。站在斜坡上的，少做乘法毫无所得，少搬数据才有全部所得。

# %%
big = rng.standard_normal((640, 640)).astype(np.float32)
long, other, target = (np.ones(1 << 23, np.float32) for _ in range(3))
peak = 2 * 640**3 / best(lambda: big @ big)
bandwidth = 8 * len(long) / best(lambda: np.copyto(target, long))  # 读四个字节，写四个字节


def product_of(rows: int, inner: int, columns: int) -> tuple[float, float]:
    """float32 中 (rows, inner) (inner, columns) 的算术强度，以及每秒运算次数。"""
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
# 大数组的加法在最左端：没有哪种处理器做得快。输入少的乘法比输入多的站得低，虽然它们是“同一种运算”。分块使计算向右移动：数从内存只来一次，而各遍都算数。

# %% [markdown]
# ## “NumPy 很慢”
# 这话出自见过第 0 级或第 1 级的人。NumPy 调用的，是与深度学习框架同类的编译好的循环和矩阵乘法。它缺的是能把各遍*融合*起来的编译器；分块用手工弥补了其中的大半。在这里结果如何？程序包的基准测试在各个框架里运行同一层，前向加反向，线程数相同，轮流进行（[speed.md](../../../benchmarks/results/speed.md)）：

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
    assert min(ratios) > 0.9  # 慢的不是它

above_the_floor = re.findall(r"\| \*\*([\d.]+)\*\* \| [\d.]+ \|$", speed, re.MULTILINE)
assert len(above_the_floor) == 4
print("of its own floor (products and memory alone):", " ".join(above_the_floor))

# %% [markdown]
# 所以在那台机器上，慢的并不是 NumPy。它也没有快到极致：是下限的两到三倍，其余大半是 exp。而且它只用处理器，旁边有多强的 GPU 也用不上。正确的说法是：*一次一个数*才慢，用什么库都一样。

# %%
alone.__exit__(None, None, None)

# %% [markdown]
# ## 用本领域的话说
# * **向量化**在这里指：一次调用处理许多数。在编译器里指：一条指令处理几个数（**SIMD**：AVX2、AVX-512）。NumPy 的循环两者都是。
# * 分块又叫 **cache blocking** 或 **tiling**；编译器的**算子融合**（kernel fusion）目的相同：少走几遍。一次调用的固定价钱叫**开销**（overhead）；那把锁叫 **GIL**；把一批切开叫**数据并行**。
# * **im2col**（Chellapilla, Puri & Simard 2006），以及 Winograd 的最小滤波，由 Lavin & Gray 2015（arXiv:1509.09308）引入神经网络。
# * **屋顶线**（roofline）模型：Williams, Waterman & Patterson，“Roofline: an insightful visual performance model for multicore architectures”，*Communications of the ACM* 2009。
# * 做矩阵乘法的库 BLAS，本身就是分块的杰作：Goto & van de Geijn，“Anatomy of high-performance matrix multiplication”，*ACM TOMS* 2008。
#
# ## 小结
# * 调用要少，每次处理许多数；然后遍数要少，每遍处理还在缓存里的东西；然后运算要少。
# * 一次 exp 算出所有的门；偏置和系数放进乘法里；结果放进已有的内存里。
# * 卷积是一次按列展开的乘法。Winograd 用加法和舍入误差换取乘法。
# * 线程处理固定大小的组：更快，而且一个比特都不差。
# * 要测量，要留着慢的那个作为裁判，再往下走之前先看看屋顶。
#
# ## 习题
# 解答：[13_fast_numpy.py](../../solutions/13_fast_numpy.py)。
#
# **1. 找出复制。** `gates` 是连续的数组 (4, T, B, H)。四行中有一行复制了整个门。是哪一行？不复制，怎样求出对所有行的和？
#
# ```python
# i = gates[0]                           # line 1
# by_example = i.swapaxes(0, 1)          # line 2: (B, T, H)
# rows = by_example.reshape(-1, H)       # line 3: (B·T, H)
# backwards = rows[::-1]                 # line 4
# ```
#
# <details><summary>提示</summary>
#
# `np.shares_memory(one, other)`。视图就是一个起始地址、一个形状，以及每个轴的步长。轴交换之后，能用*一个*步长走完 B·T 行吗？
# </details>
#
# **2. 在屋脊的哪一侧？** 一个核心每秒做 60·10⁹ 次运算，搬运 10·10⁹ 字节。对 H = 128、很大的 N，分别取 D = 3 和 D = 128，计算乘法 (N, D) (D, 4H) 的强度。哪一个受内存限制？D 从多大起，乘法到达平顶？
#
# <details><summary>提示</summary>
#
# 2·N·D·4H 次运算；N·D + D·4H + N·4H 个数，每个 4 字节。令 N 趋于无穷。
# </details>
#
# **3. 任意块大小的 Winograd。** 系数分别为 3 个和 m 个的两个多项式，其乘积有 n = m + 2 个系数，由 n 个点上的值就可确定。由此求出 $F(m, 3)$ 的 $A^\top$、$G$ 和 $B^\top$，并说明 m = 2、4、6 时，每个输出的乘法怎样减少，float32 的误差怎样增大。
#
# <details><summary>提示</summary>
#
# 设 V (n, n) 存放各点的幂，每个点一行，$V_3$ 和 $V_m$ 是它的前 3 列和前 m 列；无穷远点的一行是 0 … 0 1。乘积的系数为 $V^{-1} [(V_3 w) \odot (V_m g)]$。对一块作卷积就是这个映射的转置，正如反向是前向的转置：$V_m^\top [(V_3 w) \odot (V^{-\top} d)]$。
# </details>
