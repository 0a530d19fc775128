# %% [markdown]
# # 1 · One gate
#
# What is a gate, what is a memory, and how does a gate learn when to open? Everything else in this package is these
# three answers, written for many numbers at once. The only mathematics needed is the chain rule.
#
# Every chapter works like this one: a question, the few lines that answer it, the package's own lines beside them,
# and an `assert` for every claim. A chapter that runs to its end has kept its word.

# %%
import math
from inspect import getsource

import numpy as np

from stg_np.backend import Array
from stg_np.ops.activations import sigmoid_backward, sigmoid_forward
from stg_np.stm import init_stm, update_backward, update_forward

# %% [markdown]
# ## What is a gate?
# A gate is a number between 0 and 1 that multiplies another number: 0 lets nothing through, 1 lets everything
# through. A hard switch, which jumps from 0 to 1, could not be *learned*: its slope is 0 wherever it has one, so no
# small change of a parameter would ever matter. So we take a soft switch, the logistic function σ(a) = 1 / (1 +
# e^−a), and call `a` the gate's **pre-activation**: any number at all, large for "open".

# %%
for a in (-6, -2, 0, 2, 6):
    gate = 1 / (1 + math.exp(-a))
    print(f"a = {a:2d}   σ(a) = {gate:.4f}   {'█' * round(20 * gate)}")
    assert 0 < gate < 1

# %% [markdown]
# ## How does the package write it?
# Not as it stands above: e^1000 is too large for a computer. The same function in the form of a tanh cannot overflow.

# %%
print(getsource(sigmoid_forward))

a_grid = np.linspace(-6, 6, 25)
assert np.allclose(sigmoid_forward(a_grid), 1 / (1 + np.exp(-a_grid)), rtol=1e-12)
assert sigmoid_forward(np.array([-1000.0, 1000.0])).tolist() == [0, 1]

# %% [markdown]
# ## What is a memory?
# One number m that moves a part u of the way towards each new value v:
#
#     m ← m + u (v − m)          which is the same as          m ← (1 − u) m + u v
#
# The factor u is a gate, the **update gate**. With u = 1 the memory is overwritten, with u = 0 it is kept for ever.
# In between it leaks: let us feed it the value 1 and watch it fill, then the value 0 and watch it forget.

# %%
u, m = 0.25, 0.0
for t in range(1, 13):
    v = 1.0 if t <= 6 else 0.0
    m = m + u * (v - m)
    print(f"t = {t:2d}   v = {v:.0f}   m = {m:.3f}   {'█' * round(40 * m)}")
    if t == 6:
        assert math.isclose(m, 1 - (1 - u) ** 6)  # a part 1 − u of what is missing stays missing at each step
assert math.isclose(m, (1 - (1 - u) ** 6) * (1 - u) ** 6)  # and a part 1 − u of what is there stays there

# %% [markdown]
# The package has the same line, for a batch of many memories at once. The gate u may differ from memory to memory and
# from step to step.

# %%
print(getsource(update_forward))

assert update_forward(np.array([[0.25]]), np.array([[1.0]]), np.array([[0.0]])) == 0.25

# %% [markdown]
# ## How long does it remember?
# Nothing new coming in, after k steps (1 − u)^k is left. So half is left after log ½ / log(1 − u) steps: the
# **half-life**. The handier number is the **time scale** τ = 1/u: unless it is very short, after τ steps about 1/e =
# 37 % is left, and the half-life is about 0.7 τ.

# %%
for tau in (2, 8, 32, 128):
    u = 1 / tau
    half_life = math.log(0.5) / math.log(1 - u)
    left = (1 - u) ** tau
    print(f"τ = {tau:3d}   u = {u:.4f}   half-life {half_life:5.1f} steps   left after τ steps {left:.3f}")
    assert math.isclose((1 - u) ** half_life, 0.5)
    assert tau == 2 or abs(left - math.exp(-1)) < 0.03

# %% [markdown]
# ## Where does a layer keep its time scale?
# In the bias of the update gate. With no input the gate is u = σ(b_u), and we want u = 1/τ:
#
#     1 / (1 + e^−b_u) = 1/τ        so        e^−b_u = τ − 1        so        b_u = −log(τ − 1)
#
# A new layer gives every memory cell its own τ, between 2 steps and the length of the sequence, as many between 2 and
# 4 as between 50 and 100 (**log-uniform**). Here are those of 2,000 fresh cells, read back from their biases.

# %%
H, length = 2000, 100.0
params = init_stm(np.random.default_rng(0), D=1, H=H, length=length)
taus = 1 / sigmoid_forward(params.b[H : 2 * H])  # b = [b_i | b_u | b_o | b_z]
print(getsource(init_stm))
print("quartiles of τ:", np.quantile(taus, [0, 0.25, 0.5, 0.75, 1]).round(1))

assert taus.min() >= 2
assert taus.max() <= length
assert abs(np.mean(taus < 4) - np.mean(taus > 50)) < 0.04

# %% [markdown]
# ## Why a second gate?
# The first step brings a value worth keeping, 1, and a flag that says so; after it come 30 steps of noise. Three
# memories with u = 0.1 where it is not said otherwise:
#
# * an open memory takes everything: at the end it holds noise;
# * an **input gate** i = σ(12 · flag − 6) multiplies what comes in, v = i · value: the noise stays out, but the
#   memory leaks, so at the end it holds nothing;
# * an **update gate** u = σ(12 · flag − 6) closes after the first step: the value is still there.
#
# What comes in, and what is updated, are two questions. (What goes *out* is a third; that gate comes in chapter 3.)

# %%
rng = np.random.default_rng(1)
values = np.concatenate([[1.0], rng.standard_normal(30)])
flags = np.concatenate([[1.0], np.zeros(30)])
gates = sigmoid_forward(12 * flags - 6)

m_open = m_input = m_update = 0.0
largest_noise = 0.0
for t, (value, gate) in enumerate(zip(values, gates)):
    m_open = m_open + 0.1 * (value - m_open)
    m_input = m_input + 0.1 * (gate * value - m_input)
    m_update = m_update + gate * (value - m_update)
    largest_noise = max(largest_noise, abs(m_input - gates[0] * 0.1 * 0.9**t))
print(f"open {m_open:.3f}   with input gate {m_input:.3f}   with update gate {m_update:.3f}")

assert largest_noise < 0.01  # at every step the input gate held off the noise …
assert abs(m_input) < 0.01  # … but 0.1 · 0.9³⁰ of the value is as good as nothing
assert abs(m_update - 1) < 0.1
assert abs(m_open - 1) > 0.5

# %% [markdown]
# ## Can a gate learn this by itself?
# We set 12 and −6 by hand. Now let u_t = σ(w · flag_t + b) start at w = b = 0, half open always, and find w and b
# from examples: sequences of 12 random values, one of them flagged, and the flagged value as the answer wanted of
# m_T. The loss is the mean of ½ (m_T − target)².
#
# Which way to turn w and b? Write dq for the derivative of the loss with respect to q, and read the step's two lines
# from the end:
#
#     forward                                  backward
#     loss = ½ (m_T − target)²                 dm_T = m_T − target
#     m_t = m_{t−1} + u_t (v_t − m_{t−1})      du_t = dm_t (v_t − m_{t−1})      dm_{t−1} = dm_t (1 − u_t)
#     u_t = σ(a_t)                             da_t = du_t u_t (1 − u_t)
#     a_t = w flag_t + b                       dw = Σ_t da_t flag_t             db = Σ_t da_t
#
# The third line uses σ' = σ (1 − σ): from σ = 1/(1 + e^−a), σ' = e^−a / (1 + e^−a)² = σ · (1 − σ). The sums are there
# because every step uses the same w and b.


# %%
def loss_and_gradient(w: float, b: float, values: Array, flags: Array, target: Array) -> tuple[float, float, float]:
    """Values and flags (B, T), target (B,) -> the loss, dw and db."""
    B, T = values.shape
    u = sigmoid_forward(w * flags + b)
    memories = [np.zeros(B)]
    for t in range(T):
        memories.append(memories[-1] + u[:, t] * (values[:, t] - memories[-1]))
    error = memories[-1] - target

    dm, dw, db = error / B, 0.0, 0.0
    for t in reversed(range(T)):
        du = dm * (values[:, t] - memories[t])  # memories[t] is the memory before step t
        dm = dm * (1 - u[:, t])
        da = du * u[:, t] * (1 - u[:, t])
        dw, db = dw + float(da @ flags[:, t]), db + float(da.sum())
    return 0.5 * float((error**2).mean()), dw, db


# %% [markdown]
# Is it right? Turn each knob a little and look at the loss: that is what a derivative says. And the package's lines
# for the same two steps back are the ones derived above.

# %%
values = rng.standard_normal((200, 12))
flagged = rng.integers(0, 12, 200)
flags = (np.arange(12) == flagged[:, None]).astype(float)
target = values[np.arange(200), flagged]


def loss(w: float, b: float) -> float:
    return loss_and_gradient(w, b, values, flags, target)[0]


_, dw, db = loss_and_gradient(0.5, -0.5, values, flags, target)
assert math.isclose(dw, (loss(0.5 + 1e-5, -0.5) - loss(0.5 - 1e-5, -0.5)) / 2e-5, rel_tol=1e-6)
assert math.isclose(db, (loss(0.5, -0.5 + 1e-5) - loss(0.5, -0.5 - 1e-5)) / 2e-5, rel_tol=1e-6)

print(getsource(update_backward))
print(getsource(sigmoid_backward))

# %% [markdown]
# Now learn: step after step against the gradient. The gate finds for itself to open on the flag (w + b large) and to
# close without it (b small).

# %%
w = b = 0.0
for step in range(401):
    value, dw, db = loss_and_gradient(w, b, values, flags, target)
    if step % 100 == 0:
        on, off = sigmoid_forward(np.array([w + b, b]))
        print(f"step {step:3d}   loss {value:.4f}   gate with flag {on:.2f}, without {off:.2f}   w {w:.2f}   b {b:.2f}")
    w, b = w - 2.0 * dw, b - 2.0 * db

assert value < 0.02 < 0.4 < loss(0, 0)
assert on > 0.9
assert off < 0.02

# %% [markdown]
# That is gradient descent through a gated memory, whole. Chapter 3 gives the memory all three gates and many cells;
# chapter 4 derives its backward in the way we just did; chapter 9 trains it on pictures.
