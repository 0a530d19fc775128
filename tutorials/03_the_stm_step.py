# %% [markdown]
# # 3 · The STM step
#
# Chapters 1 and 2 had one memory and numbers for gates. A short-term memory layer (**STM**) has H memory cells, and
# each computes its three gates from the input. This chapter writes down the whole step, computes it number by number,
# finds the formula of the article that names this network in it, and lays it beside its two famous relatives.
#
# **You will know**
#
# * every line of the layer, and the shapes of everything in it;
# * what changes when the gates see the memory (the recurrent form), and why the default is that they do not;
# * what an STM shares with a GRU and an LSTM, and where it differs.

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
# ## What does one step compute?
# Let $x_t$ be the input of step t, a row of D numbers (its **features**), and $m_{t-1}$ the memory before it, a row
# of H numbers. All the others have one number per memory cell as well ($a_t$ has four), and ⊙ multiplies cell by
# cell:
#
# $$\begin{aligned}
# a_t &= x_t W + b & &\text{four pre-activations for each cell, } a = [a_i \,|\, a_u \,|\, a_o \,|\, a_z] \\
# z_t &= \varphi_z(a_z) & &\text{the candidate} \\
# i_t &= \sigma(a_i), \quad v_t = i_t \odot z_t & &\text{the input gate: what comes in} \\
# u_t &= \sigma(a_u), \quad m_t = (1 - u_t) \odot m_{t-1} + u_t \odot v_t & &\text{the update gate: what is updated} \\
# o_t &= \sigma(a_o), \quad y_t = o_t \odot \varphi(m_t) & &\text{the output gate: what goes out}
# \end{aligned}$$
#
# Two functions have no name yet. $\varphi_z$ is tanh for sequences: it keeps a candidate between −1 and 1, and so the
# memory too (chapter 2 showed that a memory never leaves the range of what comes in). $\varphi$, through which the
# memory is read, is the **identity** unless something else is asked for. It is in the formula because the LSTM has a
# tanh there; an LSTM's memory can grow without bound and needs one.
#
# Here is the step as a drawing that grows line by line. Each gate has a colour. (The code of the drawing may be
# skipped.)


# %%
COLOURS = {"z": "C4", "i": "C0", "u": "C1", "o": "C2", "f": "C3", "r": "C5", "": "0.5"}
GREY = plt.rcParams["text.color"]


class Drawing:
    """One cell: the memory's line on top, what comes in from below; an old part of a growing drawing is pale."""

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
        """A gate or the candidate, above the inputs that it sees."""
        place, colour = ((x - 0.71, 1.0), 1.42, 0.7), COLOURS[gate]
        self.axes.add_patch(Rectangle(*place, facecolor=colour, alpha=0.18, edgecolor="none"))
        self.axes.add_patch(Rectangle(*place, fill=False, edgecolor=colour, linewidth=1.4))
        self.text(x, 1.34, text, fontsize=8.6)
        self.line((x - 0.2, 0.2), (x - 0.2, 1.0))
        if memory:
            self.line((x + 0.2, -0.35), (x + 0.2, 1.0), dashed=True)

    def inputs(self, right: float, remembered: str = "") -> None:
        """The line of x_t below the boxes, and, dashed, that of what the gates see of the past."""
        self.line((-0.1, 0.2), (right, 0.2), arrow=False)
        self.text(-0.6, 0.2, "$x_t$")
        if remembered:
            self.line((-0.1, -0.35), (right + 0.4, -0.35), dashed=True, arrow=False)
            self.text(-0.6, -0.35, remembered)

    def memory_line(self, keep: str) -> None:
        """m_{t−1} to m_t: what is kept is multiplied at 1.6, what comes in is added at 6.6."""
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
    """The STM's first parts: 1 the candidate, 2 the input gate, 3 the update gate and the memory, 4 the output gate."""
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
# ## Why is there one W for three gates and a candidate?
# Each of the four wants a weighted sum of the same input. Their four matrices, (D, H) each, lie side by side in one:
# $W = [W_i \,|\, W_u \,|\, W_o \,|\, W_z]$, (D, 4H). So one product gives all four pre-activations, for a whole batch
# of B examples and for all T steps at once: x is (B, T, D), and a = x W + b is (B, T, 4H).

# %%
B, T, D, H = 2, 5, 3, 4  # batch, steps, features, memory cells
params = init_stm(rng, D, H, length=T)
params = params._replace(b=params.b + 0.1 * rng.standard_normal(4 * H))  # no zeros: a forgotten term would show
x, m_0 = rng.standard_normal((B, T, D)), rng.standard_normal((B, H))
print("x", x.shape, "  W", params.W.shape, "  b", params.b.shape, "  a", (x @ params.W + params.b).shape)

W_i, W_u, W_o, W_z = np.split(params.W, 4, axis=1)
assert np.allclose(x @ params.W, np.concatenate([x @ W_i, x @ W_u, x @ W_o, x @ W_z], -1), rtol=0, atol=1e-14)

# %% [markdown]
# ## Can a step be computed without any array arithmetic?
# With nothing but numbers and loops, line for line as the equations stand. It is slow, and there is nowhere for a
# mistake to hide.


# %%
def sigma(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def step_by_hand(x_t: Array, m_before: Array, params: STMParams) -> tuple[Array, Array]:
    """x_t (D,) and the memory (H,) -> the output y_t (H,) and the new memory m_t (H,), for one example."""
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
# The package computes the whole batch and all steps. Read the lines beside the equations: `p` is x W, `read` is φ(m),
# and `scan_forward` is the loop over the steps around `update_forward` of chapter 1.
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
# It returns the outputs y, the last memory $m_T$, and a *cache* of what was computed on the way, which chapter 4 will
# need.

# %%
(y, m_T), cache = stm_forward(x, m_0, params)
for n in range(B):
    m = m_0[n]
    for t in range(T):
        y_t, m = step_by_hand(x[n, t], m, params)
        assert np.allclose(y_t, y[n, t], rtol=0, atol=1e-14)
    assert np.allclose(m, m_T[n], rtol=0, atol=1e-14)

# %% [markdown]
# Why return the last memory? Because somebody may go on from it. A sequence cut in two, the memory handed on, gives
# what the whole gives.

# %%
(y_first, m_between), cache = stm_forward(x[:, :2], m_0, params)
(y_second, m_end), cache = stm_forward(x[:, 2:], m_between, params)
assert np.allclose(np.concatenate([y_first, y_second], 1), y, rtol=0, atol=1e-14)
assert np.allclose(m_end, m_T, rtol=0, atol=1e-14)

# %% [markdown]
# ## Where is "output = update gate · input · control gate"?
# So the article that names this network writes its layer. It is *one* step, from an *empty* memory, with the input
# gate open, the input itself as the candidate, and its control gate read as our output gate. Put $m_0 = 0$, $i = 1$,
# $z = x$ and φ = identity into the equations:
#
# $$m_1 = (1 - u) \odot 0 + u \odot x = u \odot x \qquad\Rightarrow\qquad y_1 = o \odot u \odot x.$$

# %%
W_u, W_o = rng.standard_normal((2, H, H))
b_u, b_o = rng.standard_normal((2, H))
one_step = STMParams(
    W=np.concatenate([np.zeros((H, H)), W_u, W_o, np.eye(H)], axis=1),  # W_z = 1: the candidate is the input
    b=np.concatenate([np.full(H, 50.0), b_u, b_o, np.zeros(H)]),  # σ(50) = 1: the input gate is open
)
x_1 = rng.standard_normal((B, H))
(y_1, m_1), cache = stm_forward(x_1[:, None], np.zeros((B, H)), one_step, phi_z=IDENTITY)

update_gate = 1 / (1 + np.exp(-(x_1 @ W_u + b_u)))  # nothing of the package from here
control_gate = 1 / (1 + np.exp(-(x_1 @ W_o + b_o)))
assert np.allclose(y_1[:, 0], update_gate * x_1 * control_gate, rtol=1e-12)

# %% [markdown]
# The article's formula alone has no past in it. What makes it a memory is the other half of the update,
# $(1 - u) \odot m_0$:

# %%
(y_later, m_later), cache = stm_forward(x_1[:, None], m_0, one_step, phi_z=IDENTITY)
assert np.allclose(y_later - y_1, (control_gate * (1 - update_gate) * m_0)[:, None], rtol=1e-9, atol=1e-12)

# %% [markdown]
# ## What if the gates should see the memory too?
# In the **recurrent form** they do, through one more matrix R, (H, 4H):
#
# $$a_t = x_t W + b + m_{t-1} R.$$
#
# With it, a cell can ask what it already holds (exercise 3 of chapter 2); the dashed line in the drawing is that way.
# The price: step t has to wait for the memory of step t − 1 *before* its product. So there is a product `m @ R` at
# each step:
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
assert np.allclose(y_without, y, rtol=0, atol=1e-14)  # R = 0: the input-only form

# %% [markdown]
# ## Why is the input-only form the default?
# Because nothing in its product has to wait: all B · T inputs are the rows of *one* tall matrix. The number of
# multiplications is the same as in T small products, but W is read once, not T times, and a fixed cost is paid once.
# Only `m + u * (v - m)` walks the steps: three operations per cell, and no matrix.
#
# There is a second gain. With the gates known beforehand, the memory is a **linear** function of what comes in: twice
# the $v_t$ and twice the $m_0$ give twice the memories. The gradient, in chapter 4, is as simple.

# %%
cache_once, cache_twice = (
    stm_forward(factor * x, factor * m_0, params._replace(W=params.W / factor))[1] for factor in (1, 2)
)  # W / 2: the same gates from twice the input
assert np.allclose(cache_once.gates.u, cache_twice.gates.u)
difference = cache_twice.memories - cache_once.memories  # the same v; m_0 once more
assert np.allclose(difference, np.cumprod(1 - cache_once.gates.u, 1) * m_0[:, None], atol=1e-12)

# %% [markdown]
# ## "It is an LSTM"
# It is a relative. Here are three gated cells, drawn alike: the memory's line on top, what is kept and what is added
# in the same places, dashed what the gates see of the past (for the STM: in its recurrent form only).


# %%
def draw_gru(drawing: Drawing) -> None:
    """A reset gate r stands before the candidate; no input gate, no output gate."""
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
    """A forget gate f of its own for what is kept; the gates see the last output."""
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
# | what is kept | $1 - u$ | $1 - u$ | $f$, a gate of its own |
# | what is added | $u \odot i \odot z$ | $u \odot z$ | $i \odot z$ |
# | the memory is bounded (z by tanh) | yes | yes | no |
# | what goes out | $o \odot \varphi(m)$ | $m$ | $o \odot \tanh(c)$ |
# | the gates see | the input (recurrent form: the memory too) | the memory | the last *output* |
# | the candidate sees of the past | nothing (recurrent: the memory) | $r \odot m_{t-1}$ | the last output |
#
# So it is not an LSTM: keeping and adding are tied, as in the GRU; and the default form has no R at all, which both
# others have. What would make it a GRU? Write a GRU down, in our letters. (Cho et al. write z for its update gate,
# and let it be large where the cell *keeps*: z = 1 − u.)


# %%
def gru_by_hand(x: Array, m: Array, W: Array, R: Array, b: Array, *, reset: bool = True) -> Array:
    """All memories of a GRU; W (D, 3H), R (H, 3H) and b (3H,) hold the parts [r | u | z]."""
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
# **A recurrent STM with i = o = 1 is a GRU without its reset gate.** To open i and o for good, their columns of W and
# R are 0 and their biases 50.

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
assert abs(y_stm - gru_by_hand(x, m_0, W_gru, R_gru, b_gru)).max() > 0.01  # its reset gate does make a difference

# %% [markdown]
# ## Can a gate be had for less than a matrix?
# A full gate has D weights per cell. A **diagonal** gate looks at its own cell's candidate only,
# $a_g = w_g \odot a_z + b_g$ for g = i, u, o: one weight per cell. With $\varphi_z$ the identity, what comes in is
# then
#
# $$v = i \odot z = z\, \sigma(w z + b).$$
#
# For w = 1 and b = 0, where a new layer starts, that is the activation **Swish** of convolutional networks: the input
# gate *contains* it, and learns w and b as well. The image layer of this package has such gates (chapter 11).

# %%
diagonal = init_stm(rng, D, H, length=T, diagonal=True)
(y_diagonal, m_diagonal), cache = stm_forward(x, m_0, diagonal, phi_z=IDENTITY)
z_all = x @ diagonal.W  # (B, T, H), of all steps
assert np.allclose(cache.v, z_all / (1 + np.exp(-z_all)), rtol=0, atol=1e-14)
print(f"full: {params.W.size + params.b.size} parameters, diagonal: {sum(p.size for p in diagonal if p is not None)}")

# %% [markdown]
# ## In the field's words
# A layer with R is a **recurrent network** (RNN) in the narrow sense. Without R the memory is a *gated linear
# recurrence*, and a family has grown around it: QRNN (Bradbury et al., arXiv:1611.01576), SRU (Lei et al.,
# arXiv:1709.02755), the GILR of Martin & Cundy (arXiv:1709.04057), which is the STM's memory without its input and
# output gates, and the minGRU (Feng et al., arXiv:2410.01201). LSTM: Hochreiter & Schmidhuber (Neural Computation
# 1997). GRU: Cho et al. (arXiv:1406.1078). Swish: Ramachandran et al. (arXiv:1710.05941); as SiLU, Elfwing et al.
# (arXiv:1702.03118). The candidate is also called *cell input* or *new gate*, φ the *output activation*.
#
# ## Summary
# * One product gives all pre-activations $a = [a_i\,|\,a_u\,|\,a_o\,|\,a_z]$; then $v = i \odot z$,
#   $m_t = (1-u) \odot m_{t-1} + u \odot v$, $y = o \odot \varphi(m)$.
# * The article's formula is its first step from an empty memory with the input gate open.
# * In the recurrent form the gates see $m_{t-1}$ through R, at the price of a product per step.
# * With i = o = 1 the recurrent form is a GRU without reset. It is no LSTM: it has one gate for keeping and adding.
#
# ## Exercises
# **1. A forget gate.** Write the memory's line with $f = 1 - u$, in the LSTM's form: what is kept plus what is added.
# What is the LSTM's input gate, in our letters? Check it with the package's memories.
# <details><summary>Hint</summary>Multiply out. 1 − σ(a) = σ(−a), so f is a gate with the pre-activation −a_u.</details>
#
# **2. Count.** How many parameters have an STM (input-only, recurrent, diagonal), a GRU and an LSTM with D features
# and H cells? Compare the STM's with `init_stm`.
# <details><summary>Hint</summary>Count the matrices on the input, those on the memory, and the biases.</details>
#
# **3. A layer without a past.** Set u = 1 for all steps. What is y then? Does the order of the steps still matter?
# <details><summary>Hint</summary>Put u = 1 into the memory's line. Then permute the steps of x.</details>
#
# Solutions: [solutions/03_the_stm_step.py](../solutions/03_the_stm_step.py). Next: [the backward, by
# hand](04_backward_by_hand.ipynb)
