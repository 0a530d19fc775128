# %% [markdown]
# # 1 · One gate
#
# A network that reads a sequence must decide at every step what to keep and what to overwrite. The part of it that
# decides is called a **gate**. This chapter builds one gate and one memory, a single number each, and lets the gate
# learn. All the rest of this package is the same, written for many numbers at once.
#
# **You will know**
#
# * what a gate is, and why it is soft and not a switch;
# * how long a memory lasts: its half-life and its time scale τ;
# * how a gate learns when to open, with nothing but the chain rule.
#
# What you need: Python, a little NumPy, the chain rule. Every claim below stands in an `assert`. A chapter that runs
# to its end has kept its word.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from stg_np.backend import Array
from stg_np.ops.activations import sigmoid_backward, sigmoid_forward
from stg_np.stm import draw_update_biases, update_backward, update_forward

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## What is a gate?
# A gate is a number between 0 and 1 that multiplies another number. 0 lets nothing through, 1 lets everything
# through.
#
# How could a network *learn* a gate? It changes its parameters a little, and looks whether the result got better. So
# a small change must make a difference. A hard switch, which jumps from 0 to 1, makes none: its slope is 0 on both
# sides of the jump. We therefore take a soft switch, the **logistic function**
#
# $$\sigma(a) = \frac{1}{1 + e^{-a}}$$
#
# and call $a$ the **pre-activation** of the gate. It may be any number: large means open, very negative means closed.

# %%
for a in (-6, -2, 0, 2, 6):
    gate = 1 / (1 + math.exp(-a))
    print(f"a = {a:2d}   σ(a) = {gate:.4f}   {'█' * round(20 * gate)}")
    assert 0 < gate < 1

# %% [markdown]
# ## What is the slope of σ?
# We shall need it for learning, so we derive it now. With $e^{-a}$ inside, the chain rule gives
#
# $$\sigma'(a) = \frac{e^{-a}}{(1 + e^{-a})^2} = \frac{1}{1 + e^{-a}} \cdot \frac{e^{-a}}{1 + e^{-a}}
# = \sigma(a)\,(1 - \sigma(a)).$$
#
# The last step holds because $1 - \sigma = \frac{1 + e^{-a} - 1}{1 + e^{-a}}$. So the slope needs no new exponential,
# only the value of the gate. It is ¼ at most, at a = 0, and it fades on both sides: a gate that is quite sure is slow
# to change its mind.

# %%
a_grid = np.linspace(-8, 8, 321)
soft, hard = 1 / (1 + np.exp(-a_grid)), (a_grid > 0).astype(float)
slope = soft * (1 - soft)

figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.9))
left.plot(a_grid, hard, color="C1", linestyle="--", label="hard switch")
left.plot(a_grid, soft, color="C0", label="σ(a)")
left.set(xlabel="pre-activation a", title="The gate", yticks=[0, 0.5, 1])
right.plot(a_grid, 0 * a_grid, color="C1", linestyle="--", label="hard switch: 0")
right.plot(a_grid, slope, color="C0", label="σ′ = σ (1 − σ)")
right.set(xlabel="pre-activation a", title="Its slope: what learning can use", yticks=[0, 0.25], ylim=(-0.02, 0.36))
for axes in (left, right):
    axes.legend(loc="upper left")
figure.savefig("01_gate.svg")

assert np.allclose(np.gradient(soft, a_grid)[1:-1], slope[1:-1], atol=1e-4)  # the slope by differences
assert slope.max() == 0.25

# %% [markdown]
# ## How does the package write it?
# ```python
# # stg_np/ops/activations.py
# def sigmoid_forward(x: Array) -> Array:
#     check_dtypes(x)
#     with np.errstate(over="ignore"):
#         y: Array = 1 / (1 + get_xp(x).exp(-x))
#     return y
#
#
# def sigmoid_backward(dy: Array, x: Array, y: Array) -> Array:
#     dx: Array = dy * y * (1 - y)
#     return dx
# ```
# `get_xp(x)` is NumPy, or CuPy where x lies on a GPU. `errstate` is there for one case: $e^{1000}$ is too large for a
# computer and becomes ∞, and 1/(1 + ∞) is 0, as it should be, so no warning is wanted. The second function is the
# slope; what `dy` is we shall see below.

# %%
assert np.array_equal(sigmoid_forward(a_grid), soft)
assert sigmoid_forward(np.array([-1000.0, 1000.0])).tolist() == [0, 1]
assert np.array_equal(sigmoid_backward(np.ones_like(soft), a_grid, soft), slope)

# %% [markdown]
# ## What is a memory?
# One number $m$. At each step a new value $v$ arrives, and the memory moves a part $u$ of the way towards it:
#
# $$m_t = m_{t-1} + u\,(v_t - m_{t-1}) \qquad\text{which is the same as}\qquad m_t = (1 - u)\,m_{t-1} + u\,v_t$$
#
# The factor $u$ is a gate, the **update gate**. With u = 1 the memory is overwritten; with u = 0 it is kept. In
# between it **leaks**. We feed it the value 1 for six steps and watch it fill, then the value 0 and watch it forget.
#
# How full is it after six steps? Look at what is *missing*, $1 - m$. While v = 1,
#
# $$1 - m_t = 1 - m_{t-1} - u\,(1 - m_{t-1}) = (1 - u)\,(1 - m_{t-1}).$$
#
# Each step leaves a part 1 − u of what is missing. So $1 - m_6 = (1 - u)^6$, and $m_6 = 1 - (1 - u)^6$. Later, while
# v = 0, each step leaves a part 1 − u of what is there.

# %%
u, m = 0.25, 0.0
for t in range(1, 13):
    v = 1.0 if t <= 6 else 0.0
    m = m + u * (v - m)
    print(f"t = {t:2d}   v = {v:.0f}   m = {m:.3f}   {'█' * round(40 * m)}")
    if t == 6:
        assert math.isclose(m, 1 - (1 - u) ** 6)
assert math.isclose(m, (1 - (1 - u) ** 6) * (1 - u) ** 6)

# %% [markdown]
# The package has the same line, for a batch of many memories at once. There the gate may differ from memory to memory
# and from step to step.
# ```python
# # stg_np/stm.py
# def update_forward(u: Array, v: Array, m: Array) -> Array:
#     return m + u * (v - m)  # type: ignore[no-any-return]
# ```
# Now three memories, which differ in u only, beside one another:

# %%
value = np.where((np.arange(60) >= 5) & (np.arange(60) < 20), 1.0, 0.0)
gates = np.array([1.0, 0.25, 0.05])
tracks = [np.zeros(3)]
for v_t in value:
    tracks.append(update_forward(gates, np.full(3, v_t), tracks[-1]))
track = np.array(tracks[1:])  # (60, 3)

figure, axes = plt.subplots(figsize=(7.6, 3.0))
axes.fill_between(np.arange(60), value, step="mid", color="0.5", alpha=0.25, linewidth=0, label="value v")
for gate, column, style in zip(gates, track.T, ("-", "--", "-.")):
    axes.plot(column, style, label=f"u = {gate:g}, τ = {1 / gate:g}")
axes.set(xlabel="step t", ylabel="memory m", title="Three memories of one event", yticks=[0, 0.5, 1])
axes.legend(loc="upper right")
figure.savefig("01_memories.svg")

assert np.array_equal(track[:, 0], value)  # u = 1 remembers nothing: it is the value itself
assert math.isclose(track[19, 1], 1 - 0.75**15)
assert track[19, 1] > track[19, 2]  # at the end of the event the slow one is the emptiest ...
assert track[59, 1] < track[59, 2]  # ... and forty steps later it still knows the most

# %% [markdown]
# ## How long does it remember?
# If nothing new comes in, $(1 - u)^k$ is left after k steps. When is that one half? The number of steps until then is
# the **half-life**. Take (natural) logarithms of $(1 - u)^k = \tfrac12$:
#
# $$k = \frac{\log \frac12}{\log (1 - u)} .$$
#
# A handier number is the **time scale** $\tau = 1/u$. For small $u$ we have $\log(1 - u) \approx -u$, so the
# half-life is about $\log 2 / u = 0.69\,\tau$. And after τ steps $(1 - u)^{\tau} \approx e^{-u\tau} = e^{-1}$ is
# left, 37 %.

# %%
for tau in (2, 8, 32, 128):
    u = 1 / tau
    half_life = math.log(0.5) / math.log(1 - u)
    left_over = (1 - u) ** tau
    print(f"τ = {tau:3d}   half-life {half_life:5.1f} steps, {half_life / tau:.2f} τ   after τ steps {left_over:.3f}")
    assert math.isclose((1 - u) ** half_life, 0.5)
assert abs(half_life / tau - math.log(2)) < 0.01
assert abs(left_over - math.exp(-1)) < 0.01

# %% [markdown]
# ## "With u = ½ it keeps one half for ever"
# It sounds right and is wrong. The gate acts at *every* step: one half is left after one step, a quarter after two,
# one thousandth after ten. To keep something for ever a gate has to stay closed, and σ, but for rounding, is never
# quite 0. So every gated memory forgets. The question is only how fast, and that a gate can choose within wide
# bounds:

# %%
for a in (0, -2, -5, -10):
    u = 1 / (1 + math.exp(-a))
    print(f"a = {a:3d}   u = {u:.5f}   τ = {1 / u:8,.0f} steps   left after ten steps: {(1 - u) ** 10:.3f}")
assert 0.5**10 < 0.001
assert 1 / u > 22_000
assert (1 - u) ** 10 > 0.999

# %% [markdown]
# ## Where does a layer keep its time scale?
# In a bias. A gate's pre-activation is a weighted sum of the inputs, plus a bias $b_u$. Where the inputs say nothing,
# $u = \sigma(b_u)$. We want $u = 1/\tau$:
#
# $$\frac{1}{1 + e^{-b_u}} = \frac{1}{\tau} \quad\Rightarrow\quad e^{-b_u} = \tau - 1
# \quad\Rightarrow\quad b_u = -\log(\tau - 1).$$
#
# A fresh layer gives each of its H memories a τ of its own, between 2 steps and the length of the sequence. The
# *logarithm* of τ is drawn uniformly: as many memories between 2 and 4 as between 50 and 100. So there is a memory
# for every distance before anything is learned.
# ```python
# # stg_np/stm.py
#     tau = np.exp(rng.uniform(np.log(2), np.log(max(2.0, length)), H))
#     b_u: Array = -np.log(tau - 1)
#     return b_u
# ```

# %%
taus = 1 / sigmoid_forward(draw_update_biases(np.random.default_rng(0), 2000, 100.0))  # read back from 2,000 biases
print("quartiles of τ:", np.quantile(taus, [0, 0.25, 0.5, 0.75, 1]).round(1))

assert taus.min() >= 2
assert taus.max() <= 100
assert abs(np.mean(taus < 4) - np.mean(taus > 50)) < 0.04

# %% [markdown]
# ## Can a gate learn when to open?
# A task: T = 12 random values $v_1 … v_T$ arrive, and beside each a flag $f_t$. One flag is 1, the others are 0. At
# the end the memory, $m_T$, should hold the flagged value, the *target*. Our gate may look at the flag:
# $u_t = \sigma(w\, f_t + b)$, with two parameters. It starts at w = b = 0, half open at all times, and knows nothing.
#
# For B examples the loss is the mean of the halved squares, $\frac1B \sum \frac12 (m_T - \text{target})^2$. Which way
# should w and b turn? Write $dq$ for the derivative of the loss with respect to $q$. The forward lines stand on the
# left, from the last to the first; on the right, what the chain rule makes of each:
#
# | forward | backward |
# | --- | --- |
# | $\text{loss} = \frac1B \sum \frac12 (m_T - \text{target})^2$ | $dm_T = (m_T - \text{target}) / B$ |
# | $m_t = m_{t-1} + u_t\,(v_t - m_{t-1})$ | $du_t = dm_t\,(v_t - m_{t-1})$ and $dm_{t-1} = dm_t\,(1 - u_t)$ |
# | $u_t = \sigma(a_t)$ | $da_t = du_t\; u_t\,(1 - u_t)$ |
# | $a_t = w f_t + b$ | $dw = \sum da_t f_t$ and $db = \sum da_t$ |
#
# In the first line the ½ and the 2 of the square cancel, and 1/B stays. In the second, $m_{t-1}$ occurs with the
# factor $1 - u_t$. The sums in the last line run over all steps of all examples: all of them use the same w and b,
# and each adds its wish.


# %%
def loss_and_gradient(w: float, b: float, values: Array, flags: Array, target: Array) -> tuple[float, float, float]:
    """Values and flags (B, T), target (B,) -> the loss, dw and db."""
    B, T = values.shape
    u = sigmoid_forward(w * flags + b)
    memories = [np.zeros(B)]
    for t in range(T):
        memories.append(update_forward(u[:, t], values[:, t], memories[-1]))
    error = memories[-1] - target

    dm, dw, db = error / B, 0.0, 0.0
    for t in reversed(range(T)):
        du = dm * (values[:, t] - memories[t])  # memories[t] is the memory before step t
        dm = dm * (1 - u[:, t])
        da = du * u[:, t] * (1 - u[:, t])
        dw, db = dw + float(da @ flags[:, t]), db + float(da.sum())
    return 0.5 * float((error**2).mean()), dw, db


# %% [markdown]
# Is it right? A derivative says how much the loss changes when a parameter changes a little. So change it a little,
# and look.

# %%
rng = np.random.default_rng(1)
values = rng.standard_normal((200, 12))
flagged = rng.integers(0, 12, 200)
flags = (np.arange(12) == flagged[:, None]).astype(float)
target = values[np.arange(200), flagged]


def loss(w: float, b: float) -> float:
    return loss_and_gradient(w, b, values, flags, target)[0]


_, dw, db = loss_and_gradient(0.5, -0.5, values, flags, target)
assert math.isclose(dw, (loss(0.5 + 1e-5, -0.5) - loss(0.5 - 1e-5, -0.5)) / 2e-5, rel_tol=1e-6)
assert math.isclose(db, (loss(0.5, -0.5 + 1e-5) - loss(0.5, -0.5 - 1e-5)) / 2e-5, rel_tol=1e-6)

# %% [markdown]
# And the package's backward of the update is the one that we derived, with one result more: $dv_t = dm_t\, u_t$, for
# the value, which comes from an earlier part of the network and wants to learn too.
# ```python
# # stg_np/stm.py
# def update_backward(dm: Array, u: Array, v: Array, m: Array) -> tuple[Array, Array, Array]:
#     du = dm * (v - m)  # from u ⊙ (v − m)
#     dv = dm * u  # from u ⊙ (v − m)
#     dm_before = dm * (1 - u)  # from m + u ⊙ (v − m)
#     return du, dv, dm_before
# ```
# (⊙ is the product number by number.) Now learn: again and again a small step against the derivative.

# %%
dm, u_t, v_t, m_t = np.array([2.0]), np.array([0.25]), np.array([1.0]), np.array([0.5])
assert [float(part[0]) for part in update_backward(dm, u_t, v_t, m_t)] == [2 * 0.5, 2 * 0.25, 2 * 0.75]

w = b = 0.0
for step in range(401):
    value_now, dw, db = loss_and_gradient(w, b, values, flags, target)
    if step % 100 == 0:
        on, off = sigmoid_forward(np.array([w + b, b]))
        print(f"step {step:3d}   loss {value_now:.3f}   gate with flag {on:.2f}, without {off:.2f}")
    w, b = w - 2.0 * dw, b - 2.0 * db

assert value_now < 0.02 < 0.4 < loss(0, 0)
assert on > 0.9
assert off < 0.02

# %% [markdown]
# Nobody told the gate what the flag means. It found out that it should open with the flag and close without it.
#
# ## In the field's words
# The memory with a constant u is a **leaky integrator**; in statistics, an **exponential moving average**. σ is the
# **sigmoid** or logistic function. Our dq is the **gradient** with respect to q, the walk from the last line to the
# first is **backpropagation**, the loop over the steps in reverse **backpropagation through time**, and the learning
# **gradient descent** with a **learning rate** of 2.
#
# Gates that learn when to let something in or out came with the **LSTM** (Hochreiter & Schmidhuber, Neural
# Computation 1997); a gate that *forgets* followed (Gers, Schmidhuber & Cummins, Neural Computation 2000). One gate
# that does both, keeping 1 − u and adding u, is the **update gate** of the **GRU** (Cho et al., arXiv:1406.1078,
# 2014). That the bias of such a gate sets a time scale, and should be drawn for the distances one expects, is due to
# Tallec & Ollivier (arXiv:1804.11188, 2018).
#
# ## Summary
# * A gate is σ of a weighted sum: between 0 and 1, with a slope, so that it can be learned.
# * A memory with update gate u keeps the part 1 − u at each step: half-life about 0.7 τ, time scale τ = 1/u.
# * The bias $b_u = -\log(\tau - 1)$ sets the time scale; the inputs open and close the gate around it.
# * The backward of the memory multiplies the gradient by 1 − u at each step. Chapter 5 follows it.
#
# ## Exercises
# **1. A half-life.** Which u gives a half-life of exactly ten steps? And which bias?
# <details><summary>Hint</summary>Solve (1 − u)¹⁰ = ½ for u. The bias is σ backwards: b = log(u / (1 − u)).</details>
#
# **2. A weighted mean.** Write $m_T$ as a sum over the values $v_1 … v_T$ and $m_0$, for constant u. Show that the
# weights sum to 1, and compare with a loop.
# <details><summary>Hint</summary>Put the formula for m₁ into that for m₂, then that into m₃. A value that came k steps
# ago has been multiplied by 1 − u exactly k times.</details>
#
# **3. A gate that starts shut.** Let the learning above start at b = −8 instead of 0. How large is db at the start,
# compared with b = 0? What does the loss look like after 400 steps? Which factor of the backward is to blame?
# <details><summary>Hint</summary>Look at da, and at the picture of the slope.</details>
#
# Solutions: [solutions/01_one_gate.py](../solutions/01_one_gate.py). Next: [why three
# gates?](02_why_three_gates.ipynb)
