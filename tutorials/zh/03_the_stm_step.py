# %% [markdown]
# # 3 · STM 的一步
#
# 前两章只有一个记忆，门也是直接给定的数。短期记忆层（**STM**）有 H 个记忆单元，每个单元的三个门都由输入算出。本章写出完整的一步，逐个数算一遍，在其中找到提出这个网络的那篇文章的公式，再把它和两位著名的亲戚并排比较。
#
# **你将学到**
#
# * 这一层的每一行式子，以及其中每个量的形状；
# * 让门也看到记忆（循环形式）会带来什么变化，为什么默认不让它看；
# * STM 与 GRU、LSTM 有何相同，有何不同。

# %%
import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from stg_np.backend import Array
from stg_np.ops.activations import IDENTITY
from stg_np.stm import STMParams, init_stm, stm_forward
from stg_np.stm_recurrent import stm_recurrent_forward

plt.style.use("stg_np.tutorial")
rng = np.random.default_rng(0)

# %% [markdown]
# ## 一步算的是什么？
# 设 $x_t$ 为第 t 步的输入，是 D 个数（**特征**）排成的一行；$m_{t-1}$ 为这一步之前的记忆，是 H 个数排成的一行。其余各量也都是每个记忆单元一个数（$a_t$ 是四个），⊙ 表示逐单元相乘：
#
# $$\begin{aligned}
# a_t &= x_t W + b & &\text{每个单元四个预激活值，} a = [a_i \,|\, a_u \,|\, a_o \,|\, a_z] \\
# z_t &= \varphi_z(a_z) & &\text{候选值} \\
# i_t &= \sigma(a_i), \quad v_t = i_t \odot z_t & &\text{输入门：进来什么} \\
# u_t &= \sigma(a_u), \quad m_t = (1 - u_t) \odot m_{t-1} + u_t \odot v_t & &\text{更新门：更新多少} \\
# o_t &= \sigma(a_o), \quad y_t = o_t \odot \varphi(m_t) & &\text{输出门：出去什么}
# \end{aligned}$$
#
# 有两个函数还没有交代。$\varphi_z$ 对序列取 tanh：它把候选值限制在 −1 与 1 之间，记忆因而也在其间（第 2 章说过，记忆从不超出进来的值的范围）。$\varphi$ 是读出记忆时经过的函数，若不另外指定就是**恒等函数**。公式里写上它，是因为 LSTM 在这个位置有一个 tanh；LSTM 的记忆可以无限增长，非有它不可。
#
# 下面把这一步画成一幅逐行生长的图，每个门一种颜色。（画图的代码可以跳过。）


# %%
COLOURS = {"z": "C4", "i": "C0", "u": "C1", "o": "C2", "f": "C3", "r": "C5", "": "0.5"}
GREY = plt.rcParams["text.color"]


class Drawing:
    """一个单元：记忆的线在最上面，进来的东西从下面来。"""

    def __init__(self, axes: Axes, memory: str = "m", phi_z: str = r"$z=\varphi_z(a)$") -> None:
        self.axes, self.memory, self.phi_z = axes, memory, phi_z
        axes.set(xlim=(-0.9, 10.6), ylim=(-0.75, 5.75), aspect="equal")
        axes.axis("off")

    def line(self, *points: tuple[float, float], gate: str = "", dashed: bool = False, arrow: bool = True) -> None:
        colour, style = COLOURS[gate] if gate else GREY, (0, (4, 2.5)) if dashed else "-"
        self.axes.plot(*zip(*points), color=colour, linestyle=style, linewidth=1.4, solid_joinstyle="miter")
        if arrow:
            tip = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
            (x_0, y_0), (x_1, y_1) = points[-2:]
            length = math.hypot(x_1 - x_0, y_1 - y_0)
            start = (x_1 - (x_1 - x_0) * 0.3 / length, y_1 - (y_1 - y_0) * 0.3 / length)
            self.axes.annotate("", xy=(x_1, y_1), xytext=start, arrowprops=tip)

    def text(self, x: float, y: float, text: str, gate: str = "", **kwargs: Any) -> None:
        usual = {"ha": "center", "va": "center", "fontsize": 10, "color": COLOURS[gate] if gate else GREY}
        self.axes.text(x, y, text, **{**usual, **kwargs})

    def dot(self, x: float, y: float, sign: str) -> None:
        self.axes.add_patch(Circle((x, y), 0.27, fill=False, edgecolor=GREY, linewidth=1.4))
        self.text(x, y, sign, fontsize=11, va="center_baseline")

    def box(self, x: float, text: str, gate: str, *, memory: bool = False) -> None:
        """一个门或候选值，画在它所看到的输入上方。"""
        place, colour = ((x - 0.71, 1.0), 1.42, 0.7), COLOURS[gate]
        self.axes.add_patch(Rectangle(*place, facecolor=colour, alpha=0.18, edgecolor="none"))
        self.axes.add_patch(Rectangle(*place, fill=False, edgecolor=colour, linewidth=1.4))
        self.text(x, 1.34, text, fontsize=8.6)
        self.line((x - 0.2, 0.2), (x - 0.2, 1.0))
        if memory:
            self.line((x + 0.2, -0.35), (x + 0.2, 1.0), dashed=True)

    def inputs(self, right: float, remembered: str = "") -> None:
        """方框下面 x_t 的线；虚线是门从过去看到的东西。"""
        self.line((-0.1, 0.2), (right, 0.2), arrow=False)
        self.text(-0.6, 0.2, "$x_t$")
        if remembered:
            self.line((-0.1, -0.35), (right + 0.4, -0.35), dashed=True, arrow=False)
            self.text(-0.6, -0.35, remembered)

    def memory_line(self, keep: str) -> None:
        """从 m_{t−1} 到 m_t：在 1.6 处乘以保留的比例，在 6.6 处加上进来的值。"""
        self.text(-0.6, 5, f"${self.memory}_{{t-1}}$")
        self.line((-0.1, 5), (1.33, 5))
        self.dot(1.6, 5, "×")
        self.text(1.0, 4.2, keep, keep[-1])
        self.line((1.87, 5), (6.33, 5))
        self.dot(6.6, 5, "+")
        self.line((6.87, 5), (9.85, 5))
        self.text(10.2, 5, f"${self.memory}_t$")

    def candidate(self, *, memory: bool = False) -> None:
        self.box(3.4, self.phi_z, "z", memory=memory)

    def output(self, phi: str, *, memory: bool = False) -> None:
        self.box(8.6, r"$o=\sigma(a)$", "o", memory=memory)
        self.line((8.6, 5), (8.6, 4.45))
        self.text(8.6, 4.17, phi)
        self.line((8.6, 3.9), (8.6, 3.47))
        self.dot(8.6, 3.2, "×")
        self.line((8.6, 1.7), (8.6, 2.93), gate="o")
        self.line((8.87, 3.2), (9.85, 3.2))
        self.text(10.2, 3.2, "$y_t$")


def draw_stm(drawing: Drawing, *, parts: int = 4, memory: bool = False) -> None:
    """STM 的前几部分：1 候选值，2 输入门，3 更新门和记忆，4 输出门。"""
    drawing.inputs((3.2, 4.8, 6.4, 8.4)[parts - 1], "$m_{t-1}$" if memory else "")
    drawing.candidate(memory=memory)
    drawing.line((3.4, 1.7), (3.4, 3.2), (4.73, 3.2), gate="z")
    if parts >= 2:
        drawing.box(5.0, r"$i=\sigma(a)$", "i", memory=memory)
        drawing.line((5.0, 1.7), (5.0, 2.93), gate="i")
        drawing.dot(5.0, 3.2, "×")
        drawing.line((5.27, 3.2), (6.33, 3.2))
        drawing.text(5.8, 3.48, "$v$")
    if parts >= 3:
        drawing.box(6.6, r"$u=\sigma(a)$", "u", memory=memory)
        drawing.line((6.6, 1.7), (6.6, 2.93), gate="u")
        drawing.dot(6.6, 3.2, "×")
        drawing.line((6.6, 3.47), (6.6, 4.73))
        drawing.line((6.6, 2.2), (1.6, 2.2), (1.6, 4.73), gate="u")
        drawing.memory_line("1 − u")
    if parts >= 4:
        drawing.output(r"$\varphi(m)$", memory=memory)


LINES = (
    "1   $z = \\varphi_z(a_z)$: a candidate",
    "2   $v = i \\odot z$: what comes in of it",
    "3   $m_t = (1-u)\\odot m_{t-1} + u\\odot v$",
    "4   $y_t = o \\odot \\varphi(m_t)$: what goes out",
)
figure, grid = plt.subplots(2, 2, figsize=(9.6, 5.9))
for parts, (axes, title) in enumerate(zip(grid.flat, LINES), 1):
    draw_stm(Drawing(axes), parts=parts)
    axes.set_title(title, fontsize=11)
figure.savefig("03_line_by_line.svg")

# %% [markdown]
# ## 三个门和一个候选值，为什么只有一个 W？
# 四者要的都是同一个输入的加权和。四个 (D, H) 的矩阵并排放进一个：$W = [W_i \,|\, W_u \,|\, W_o \,|\, W_z]$，形状 (D, 4H)。这样，一次矩阵乘法就给出全部四种预激活值，而且是一整批 B 个样本、全部 T 步一次算完：x 的形状是 (B, T, D)，a = x W + b 的形状是 (B, T, 4H)。

# %%
B, T, D, H = 2, 5, 3, 4  # 批大小、步数、特征数、记忆单元数
params = init_stm(rng, D, H, length=T)
params = params._replace(b=params.b + 0.1 * rng.standard_normal(4 * H))  # 不取零：漏掉一项就会显出来
x, m_0 = rng.standard_normal((B, T, D)), rng.standard_normal((B, H))
print("x", x.shape, "  W", params.W.shape, "  b", params.b.shape, "  a", (x @ params.W + params.b).shape)

W_i, W_u, W_o, W_z = np.split(params.W, 4, axis=1)
assert np.allclose(x @ params.W, np.concatenate([x @ W_i, x @ W_u, x @ W_o, x @ W_z], -1), rtol=0, atol=1e-14)

# %% [markdown]
# ## 能不能完全不用数组运算来算一步？
# 只用数和循环，逐行照着公式写。慢是慢，但错误无处可藏。


# %%
def sigma(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def step_by_hand(x_t: Array, m_before: Array, params: STMParams) -> tuple[Array, Array]:
    """x_t (D,) 与记忆 (H,) -> 输出 y_t (H,) 与新记忆 m_t (H,)，一个样本。"""
    D, H = len(x_t), len(m_before)
    y_t, m_t = np.zeros(H), np.zeros(H)
    for h in range(H):
        a_i, a_u, a_o, a_z = (
            sum(x_t[d] * params.W[d, part * H + h] for d in range(D)) + params.b[part * H + h] for part in range(4)
        )
        z = math.tanh(a_z)
        v = sigma(a_i) * z
        u = sigma(a_u)
        m_t[h] = (1 - u) * m_before[h] + u * v
        y_t[h] = sigma(a_o) * m_t[h]
    return y_t, m_t


# %% [markdown]
# 程序包则一次算完整批样本的所有步。请对照公式读下面各行：`p` 是 x W，`read` 是 φ(m)，`scan_forward` 是围绕第 1 章的 `update_forward` 按步进行的循环。
# ```python
# # stg_np/stm.py
#     p = matmul(x, params.W)  # (B, T, D) -> (B, T, 4H), diagonal gates (B, T, H)
#     a = preactivations_forward(p, params)  # (B, T, 4H)
#     gates = gates_forward(a, phi_z)  # four times (B, T, H)
#     v = gates.i * gates.z
#     memories = scan_forward(gates.u, v, m_0)
#     read = phi.forward(memories)
#     y = gates.o * read
#     m_T = memories[:, -1].copy()  # the caller's own: what is done with it leaves the memories alone
#     return (y, m_T), STMCache(x, a, gates, v, m_0, memories, read, phi_z, phi)
# ```
# ```python
# # stg_np/stm.py
#     m = m_0
#     for t in range(v.shape[1]):
#         m = update_forward(u[:, t], v[:, t], m)
#         memories[:, t] = m
#     return memories
# ```
# 它返回输出 y、最后的记忆 $m_T$，以及一份*缓存*（cache），里面是途中算出的各量，第 4 章要用。

# %%
(y, m_T), cache = stm_forward(x, m_0, params)
for n in range(B):
    m = m_0[n]
    for t in range(T):
        y_t, m = step_by_hand(x[n, t], m, params)
        assert np.allclose(y_t, y[n, t], rtol=0, atol=1e-14)
    assert np.allclose(m, m_T[n], rtol=0, atol=1e-14)

# %% [markdown]
# 为什么要返回最后的记忆？因为可能有人要从那里接着算。把序列切成两段，中间传递记忆，所得与整段一次算完相同。

# %%
(y_first, m_between), cache = stm_forward(x[:, :2], m_0, params)
(y_second, m_end), cache = stm_forward(x[:, 2:], m_between, params)
assert np.allclose(np.concatenate([y_first, y_second], 1), y, rtol=0, atol=1e-14)
assert np.allclose(m_end, m_T, rtol=0, atol=1e-14)

# %% [markdown]
# ## “输出 = 更新门 · 输入 · 控制门”在哪里？
# 提出这个网络的文章就是这样写它的层的。这相当于从*空*记忆出发的*一*步：输入门打开，候选值就是输入本身，并把文章的控制门理解为我们的输出门。把 $m_0 = 0$、$i = 1$、$z = x$、φ 取恒等代入公式：
#
# $$m_1 = (1 - u) \odot 0 + u \odot x = u \odot x \qquad\Rightarrow\qquad y_1 = o \odot u \odot x.$$

# %%
W_u, W_o = rng.standard_normal((2, H, H))
b_u, b_o = rng.standard_normal((2, H))
one_step = STMParams(
    W=np.concatenate([np.zeros((H, H)), W_u, W_o, np.eye(H)], axis=1),  # W_z = 1：候选值就是输入
    b=np.concatenate([np.full(H, 50.0), b_u, b_o, np.zeros(H)]),  # σ(50) = 1：输入门打开
)
x_1 = rng.standard_normal((B, H))
(y_1, m_1), cache = stm_forward(x_1[:, None], np.zeros((B, H)), one_step, phi_z=IDENTITY)

update_gate = 1 / (1 + np.exp(-(x_1 @ W_u + b_u)))  # 以下不用程序包的任何东西
control_gate = 1 / (1 + np.exp(-(x_1 @ W_o + b_o)))
assert np.allclose(y_1[:, 0], update_gate * x_1 * control_gate, rtol=1e-12)

# %% [markdown]
# 单看文章的这个公式，里面没有“过去”。使它成为记忆的，是更新式的另一半 $(1 - u) \odot m_0$：

# %%
(y_later, m_later), cache = stm_forward(x_1[:, None], m_0, one_step, phi_z=IDENTITY)
assert np.allclose(y_later - y_1, (control_gate * (1 - update_gate) * m_0)[:, None], rtol=1e-9, atol=1e-12)

# %% [markdown]
# ## 如果让门也看到记忆呢？
# **循环形式**（recurrent form）就是如此，为此多用一个矩阵 R，形状 (H, 4H)：
#
# $$a_t = x_t W + b + m_{t-1} R.$$
#
# 这样，单元就能查问自己已经存了什么（第 2 章习题 3）；图中的虚线就是这条通路。代价是：第 t 步必须先等到第 t − 1 步的记忆，*然后*才能做自己的乘法，于是每一步都有一次 `m @ R`：
# ```python
# # stg_np/stm_recurrent.py
#     p = matmul(x, params.W)  # what does not depend on the memory: one product for all steps
#     m, outputs, steps = m_0, [], []
#     for t in range(x.shape[1]):
#         (y_t, m), step = step_forward(p[:, t] + m @ R, m, params, phi_z=phi_z, phi=phi)
# ```

# %%
figure, axes = plt.subplots(figsize=(7.2, 4.0))
draw_stm(Drawing(axes), memory=True)
figure.savefig("03_stm.svg")

R = rng.standard_normal((H, 4 * H))
(y_recurrent, m_recurrent), _ = stm_recurrent_forward(x, m_0, params._replace(R=R))
m = m_0
for t in range(T):
    a_i, a_u, a_o, a_z = np.split(x[:, t] @ params.W + params.b + m @ R, 4, axis=1)
    u = 1 / (1 + np.exp(-a_u))
    m = (1 - u) * m + u * np.tanh(a_z) / (1 + np.exp(-a_i))
    assert np.allclose(y_recurrent[:, t], m / (1 + np.exp(-a_o)), rtol=0, atol=1e-13)

(y_without, m_without), _ = stm_recurrent_forward(x, m_0, params._replace(R=np.zeros_like(R)))
assert np.allclose(y_without, y, rtol=0, atol=1e-14)  # R = 0：只看输入的形式

# %% [markdown]
# ## 为什么默认采用只看输入的形式？
# 因为它的矩阵乘法谁也不必等：全部 B · T 个输入就是*一个*高矩阵的各行。乘法次数与 T 次小乘法一样多，但 W 只读一遍而不是 T 遍，固定开销也只付一次。按步走的只剩 `m + u * (v - m)`：每个单元三次运算，没有矩阵。
#
# 还有第二个好处。门既已事先知道，记忆便是进来的值的**线性**函数：$v_t$ 和 $m_0$ 都加倍，记忆也加倍。到第 4 章会看到，梯度也同样简单。

# %%
cache_once, cache_twice = (
    stm_forward(factor * x, factor * m_0, params._replace(W=params.W / factor))[1] for factor in (1, 2)
)  # W / 2：输入加倍而门不变
assert np.allclose(cache_once.gates.u, cache_twice.gates.u)
difference = cache_twice.memories - cache_once.memories  # v 相同；多一份 m_0
assert np.allclose(difference, np.cumprod(1 - cache_once.gates.u, 1) * m_0[:, None], atol=1e-12)

# %% [markdown]
# ## “这就是 LSTM”
# 只能说是亲戚。下面三种门控单元用同样的画法：记忆的线在最上面，保留与加入画在同样的位置，虚线表示门从过去看到什么（对 STM，只在循环形式中才有）。


# %%
def draw_gru(drawing: Drawing) -> None:
    """候选值之前有重置门 r；没有输入门和输出门。"""
    drawing.inputs(6.4, "$m_{t-1}$")
    drawing.box(1.2, r"$r=\sigma(a)$", "r", memory=True)
    drawing.candidate()
    drawing.line((1.91, 1.34), (2.03, 1.34), gate="r", arrow=False)
    drawing.line((2.3, -0.35), (2.3, 1.07), dashed=True)
    drawing.dot(2.3, 1.34, "×")
    drawing.line((2.57, 1.34), (2.69, 1.34), arrow=False)
    drawing.line((3.4, 1.7), (3.4, 3.2), (6.33, 3.2), gate="z")
    drawing.box(6.6, r"$u=\sigma(a)$", "u", memory=True)
    drawing.line((6.6, 1.7), (6.6, 2.93), gate="u")
    drawing.dot(6.6, 3.2, "×")
    drawing.line((6.6, 3.47), (6.6, 4.73))
    drawing.line((6.6, 2.2), (1.6, 2.2), (1.6, 4.73), gate="u")
    drawing.memory_line("1 − u")
    drawing.line((8.6, 5), (8.6, 3.2), (9.85, 3.2))
    drawing.text(10.2, 3.2, "$y_t$")


def draw_lstm(drawing: Drawing) -> None:
    """保留多少由单独的遗忘门 f 决定；门看到的是上一步的输出。"""
    drawing.inputs(8.4, "$y_{t-1}$")
    drawing.box(1.6, r"$f=\sigma(a)$", "f", memory=True)
    drawing.line((1.6, 1.7), (1.6, 4.73), gate="f")
    drawing.candidate(memory=True)
    drawing.line((3.4, 1.7), (3.4, 3.2), (4.73, 3.2), gate="z")
    drawing.box(5.0, r"$i=\sigma(a)$", "i", memory=True)
    drawing.line((5.0, 1.7), (5.0, 2.93), gate="i")
    drawing.dot(5.0, 3.2, "×")
    drawing.line((5.27, 3.2), (6.6, 3.2), (6.6, 4.73))
    drawing.memory_line("f")
    drawing.output(r"$\tanh(c)$", memory=True)


EQUATIONS = {
    "STM": "$v = i \\odot z$\n$m_t = (1-u) \\odot m_{t-1} + u \\odot v$\n$y_t = o \\odot \\varphi(m_t)$",
    "GRU": "$z$ sees $r \\odot m_{t-1}$\n$m_t = (1-u) \\odot m_{t-1} + u \\odot z$\n$y_t = m_t$",
    "LSTM": "\n$c_t = f \\odot c_{t-1} + i \\odot z$\n$y_t = o \\odot \\tanh(c_t)$",
}
figure, rows = plt.subplots(3, 2, figsize=(8.6, 10.2), width_ratios=[2.4, 1])
draw_stm(Drawing(rows[0, 0]), memory=True)
draw_gru(Drawing(rows[1, 0], phi_z=r"$z=\tanh(a)$"))
draw_lstm(Drawing(rows[2, 0], memory="c", phi_z=r"$z=\tanh(a)$"))
for (left, right), (name, equations) in zip(rows, EQUATIONS.items()):
    left.set_title(name, fontsize=13)
    right.axis("off")
    right.text(0, 0.5, equations, fontsize=11, linespacing=2.2, va="center", transform=right.transAxes)
figure.savefig("03_cells.svg")

# %% [markdown]
# | | STM | GRU | LSTM |
# | --- | --- | --- | --- |
# | 保留多少 | $1 - u$ | $1 - u$ | $f$，单独的一个门 |
# | 加入什么 | $u \odot i \odot z$ | $u \odot z$ | $i \odot z$ |
# | 记忆有界（z 经 tanh） | 是 | 是 | 否 |
# | 出去什么 | $o \odot \varphi(m)$ | $m$ | $o \odot \tanh(c)$ |
# | 门看到什么 | 输入（循环形式还有记忆） | 输入和记忆 | 输入和上一步的*输出* |
# | 候选值从过去看到什么 | 什么也没有（循环形式：记忆） | $r \odot m_{t-1}$ | 上一步的输出 |
#
# 所以它不是 LSTM：保留与加入绑在一起，像 GRU；而默认形式根本没有 R，另外两者都有。那么，怎样才使它成为 GRU？用我们的字母写出一个 GRU。（Cho et al. 把更新门记作 z，并让它值大表示*保留*：z = 1 − u。）


# %%
def gru_by_hand(x: Array, m: Array, W: Array, R: Array, b: Array, *, reset: bool = True) -> Array:
    """GRU 的所有记忆；W (D, 3H)、R (H, 3H)、b (3H,) 依次存放 [r | u | z]。"""
    memories = []
    (W_r, W_u, W_z), (R_r, R_u, R_z), (b_r, b_u, b_z) = (np.split(part, 3, axis=-1) for part in (W, R, b))
    for t in range(x.shape[1]):
        r = 1 / (1 + np.exp(-(x[:, t] @ W_r + m @ R_r + b_r))) if reset else 1.0
        u = 1 / (1 + np.exp(-(x[:, t] @ W_u + m @ R_u + b_u)))
        z = np.tanh(x[:, t] @ W_z + (r * m) @ R_z + b_z)
        m = (1 - u) * m + u * z
        memories.append(m)
    return np.stack(memories, 1)


# %% [markdown]
# **i = o = 1 的循环 STM，就是没有重置门的 GRU。** 要让 i 和 o 永远打开，只需令 W 和 R 中属于它们的列为 0，偏置为 50。

# %%
W_gru, R_gru, b_gru = (rng.standard_normal(shape) for shape in ((D, 3 * H), (H, 3 * H), (3 * H,)))
none_W, none_R, wide_open = np.zeros((D, H)), np.zeros((H, H)), np.full(H, 50.0)
as_stm = STMParams(
    W=np.concatenate([none_W, W_gru[:, H : 2 * H], none_W, W_gru[:, 2 * H :]], 1),
    b=np.concatenate([wide_open, b_gru[H : 2 * H], wide_open, b_gru[2 * H :]]),
    R=np.concatenate([none_R, R_gru[:, H : 2 * H], none_R, R_gru[:, 2 * H :]], 1),
)
(y_stm, m_stm), _ = stm_recurrent_forward(x, m_0, as_stm)
assert np.allclose(y_stm, gru_by_hand(x, m_0, W_gru, R_gru, b_gru, reset=False), rtol=0, atol=1e-12)
assert abs(y_stm - gru_by_hand(x, m_0, W_gru, R_gru, b_gru)).max() > 0.01  # 它的重置门确实有影响

# %% [markdown]
# ## 不用一个矩阵，能不能也有门？
# 完整的门每个单元有 D 个权重。**对角**门只看自己这个单元的候选值：$a_g = w_g \odot a_z + b_g$，g = i, u, o，每个单元一个权重。当 $\varphi_z$ 为恒等函数时，进来的值是
#
# $$v = i \odot z = z\, \sigma(w z + b).$$
#
# 若 w = 1、b = 0（新建的层就从这里出发），这正是卷积网络中的激活函数 **Swish**：输入门*包含*了它，而且还会学习 w 和 b。本程序包的图像层用的就是这种门（第 11 章）。

# %%
diagonal = init_stm(rng, D, H, length=T, diagonal=True)
(y_diagonal, m_diagonal), cache = stm_forward(x, m_0, diagonal, phi_z=IDENTITY)
z_all = x @ diagonal.W  # (B, T, H)，所有步
assert np.allclose(cache.v, z_all / (1 + np.exp(-z_all)), rtol=0, atol=1e-14)
print(f"full: {params.W.size + params.b.size} parameters, diagonal: {sum(p.size for p in diagonal if p is not None)}")

# %% [markdown]
# ## 用本领域的话说
# 带 R 的层是狭义的**循环神经网络**（RNN）。去掉 R，记忆就是*门控线性递推*（gated linear recurrence），围绕它已经形成了一个家族：QRNN（Bradbury et al., arXiv:1611.01576）、SRU（Lei et al., arXiv:1709.02755）、Martin & Cundy 的 GILR（arXiv:1709.04057），后者就是 STM 的记忆去掉输入门和输出门；还有 minGRU（Feng et al., arXiv:2410.01201）。LSTM：Hochreiter & Schmidhuber（Neural Computation 1997）。GRU：Cho et al.（arXiv:1406.1078）。Swish：Ramachandran et al.（arXiv:1710.05941）；名为 SiLU 的同一函数：Elfwing et al.（arXiv:1702.03118）。候选值也叫 *cell input* 或 *new gate*，φ 也叫*输出激活函数*。
#
# ## 小结
# * 一次乘法给出全部预激活值 $a = [a_i\,|\,a_u\,|\,a_o\,|\,a_z]$；然后 $v = i \odot z$，$m_t = (1-u) \odot m_{t-1} + u \odot v$，$y = o \odot \varphi(m)$。
# * 文章的公式，是从空记忆出发、输入门打开时的第一步。
# * 循环形式中，门通过 R 看到 $m_{t-1}$，代价是每步一次矩阵乘法。
# * i = o = 1 时，循环形式就是没有重置门的 GRU。它不是 LSTM：保留与加入由同一个门管。
#
# ## 习题
# **1. 遗忘门。** 令 $f = 1 - u$，把记忆的那一行写成 LSTM 的样子：保留的部分加上加入的部分。用我们的字母，LSTM 的输入门是什么？用程序包算出的记忆核对。
# <details><summary>提示</summary>展开即可。1 − σ(a) = σ(−a)，所以 f 是一个预激活值为 −a_u 的门。</details>
#
# **2. 数一数。** 特征数为 D、单元数为 H 时，STM（只看输入、循环、对角）、GRU 和 LSTM 各有多少参数？STM 的结果请与 `init_stm` 比较。
# <details><summary>提示</summary>数一数作用在输入上的矩阵、作用在记忆上的矩阵，还有偏置。</details>
#
# **3. 没有过去的层。** 令所有步的 u = 1。此时 y 是什么？各步的次序还有影响吗？
# <details><summary>提示</summary>把 u = 1 代入记忆的那一行，再把 x 的各步打乱次序。</details>
#
# 解答：[solutions/03_the_stm_step.py](../../solutions/03_the_stm_step.py)。下一章：[手写反向传播](04_backward_by_hand.ipynb)
