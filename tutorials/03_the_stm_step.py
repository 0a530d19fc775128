# %% [markdown]
# # 3 · The STM step
#
# Chapter 1 had one memory and one gate at a time. A short-term memory layer (**STM**) has H memory cells with three
# gates each: what comes in, what is updated, what goes out. What exactly does it compute, where is the formula
# "output = update gate · input · control gate" in it, and what makes it quick?

# %%
import math
from inspect import getsource
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

from stg_np import stm
from stg_np.backend import Array
from stg_np.ops.activations import IDENTITY
from stg_np.stm import STMParams, init_stm, scan_forward, stm_forward
from stg_np.stm_recurrent import stm_recurrent_forward

rng = np.random.default_rng(0)

# %% [markdown]
# ## What does one step compute?
# The head of `stm.py` says it in eight lines. `x_t` is the input of step t, with D features; everything else has one
# number per memory cell; ⊙ multiplies cell by cell; φ_z is tanh and φ the identity where nothing else is said.

# %%
equations = next(part for part in str(stm.__doc__).split("\n\n") if "y_t =" in part)
print(equations)

# %% [markdown]
# ## Why is there one W for three gates and a candidate?
# Each of the four wants a weighted sum of the same x. Their four matrices lie side by side in one, W = [W_i | W_u |
# W_o | W_z], so that one product gives all four **pre-activations** a = x W + b, packed in the same order.

# %%
B, T, D, H = 2, 5, 3, 4  # batch, steps, features, memory cells
params = init_stm(rng, D, H, length=T)
params = params._replace(b=params.b + 0.1 * rng.standard_normal(4 * H))  # no zeros: a forgotten term would show
x, m_0 = rng.standard_normal((B, T, D)), rng.standard_normal((B, H))
print("W", params.W.shape, "  b", params.b.shape, "  a = x_t W + b", (x[:, 0] @ params.W + params.b).shape)

W_i, W_u, W_o, W_z = np.split(params.W, 4, axis=1)
assert np.allclose(x @ params.W, np.concatenate([x @ W_i, x @ W_u, x @ W_o, x @ W_z], -1), rtol=0, atol=1e-14)

# %% [markdown]
# ## Can we compute a step without any array arithmetic?
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
        i, u, o = sigma(a_i), sigma(a_u), sigma(a_o)
        v = i * math.tanh(a_z)
        m_t[h] = (1 - u) * m_before[h] + u * v
        y_t[h] = o * m_t[h]
    return y_t, m_t


# %% [markdown]
# The package does it for the whole batch and all steps. Beside the by-hand version it must agree to rounding.

# %%
print(getsource(stm_forward))

y, m_T = stm_forward(x, m_0, params)[0]
for n in range(B):
    m = m_0[n]
    for t in range(T):
        y_t, m = step_by_hand(x[n, t], m, params)
        assert np.allclose(y_t, y[n, t], rtol=0, atol=1e-14)
    assert np.allclose(m, m_T[n], rtol=0, atol=1e-14)

# %% [markdown]
# The last memory is returned because somebody may go on from it: a sequence cut in two, the memory handed on, gives
# what the whole gives.

# %%
y_first, m_between = stm_forward(x[:, :2], m_0, params)[0]
y_second, m_end = stm_forward(x[:, 2:], m_between, params)[0]
assert np.allclose(np.concatenate([y_first, y_second], 1), y, rtol=0, atol=1e-14)
assert np.allclose(m_end, m_T, rtol=0, atol=1e-14)

# %% [markdown]
# ## Where is "output = update gate · input · control gate"?
# So the article that names this network writes its layer. It is one step, from an empty memory, with the input gate
# wide open (a_i = 50, σ = 1), the input itself as the candidate (W_z = 1, φ_z the identity), and its control gate
# read as our output gate. Put m_0 = 0, i = 1, z = x into the equations: m_1 = u ⊙ x, so y_1 = o ⊙ u ⊙ x.

# %%
W_u, W_o = rng.standard_normal((2, H, H))
b_u, b_o = rng.standard_normal((2, H))
one_step = STMParams(
    W=np.concatenate([np.zeros((H, H)), W_u, W_o, np.eye(H)], axis=1),
    b=np.concatenate([np.full(H, 50.0), b_u, b_o, np.zeros(H)]),
)
x_1 = rng.standard_normal((B, H))
y_1, _ = stm_forward(x_1[:, None], np.zeros((B, H)), one_step, phi_z=IDENTITY)[0]

update_gate = 1 / (1 + np.exp(-(x_1 @ W_u + b_u)))  # nothing of the package from here
control_gate = 1 / (1 + np.exp(-(x_1 @ W_o + b_o)))
assert np.allclose(y_1[:, 0], update_gate * x_1 * control_gate, rtol=1e-12)

# %% [markdown]
# The formula alone has no past in it. What the memory adds is the other half of the update, (1 − u) ⊙ m_0:

# %%
y_later, _ = stm_forward(x_1[:, None], m_0, one_step, phi_z=IDENTITY)[0]
assert np.allclose(y_later - y_1, (control_gate * (1 - update_gate) * m_0)[:, None], rtol=1e-9, atol=1e-12)

# %% [markdown]
# ## What do cells with different time scales see?
# The same noisy signal, followed by three memories with u = 1/τ held constant. A short memory keeps up with every
# wiggle; a long one averages the noise away and arrives late. A layer has cells of all kinds, and the next layer may
# choose. The picture goes into `03_the_stm_step.svg`.

# %%
taus = np.array([2.0, 10.0, 50.0])
steps = 240
signal = np.where((np.arange(steps) // 60) % 2 == 1, 1.0, 0.0) + 0.2 * rng.standard_normal(steps)
v = np.broadcast_to(signal[None, :, None], (1, steps, 3))  # one example, three cells
memories = scan_forward(np.broadcast_to(1 / taus, v.shape), v, np.zeros((1, 3)))[0]  # (steps, 3)

plt.style.use("stg_np.tutorial")
figure, axes = plt.subplots(figsize=(9, 3.5))
axes.plot(signal, color="0.8", label="signal")
for tau, memory in zip(taus, memories.T):
    axes.plot(memory, label=f"τ = {tau:.0f}")
axes.set(xlabel="step t", ylabel="memory $m_t$", title="One signal, three time scales")
axes.set_ylim(-0.9, 2)
axes.legend(ncols=4, loc="upper left", fontsize="small")
figure.savefig("03_the_stm_step.svg")

wiggle = np.abs(np.diff(memories, axis=0)).mean(0)
delay = (memories[60:120] > 0.5).argmax(0)  # steps after the jump at t = 60 until the memory is half-way up
print("wiggle per step", wiggle.round(3), "  steps until half-way up", delay)
assert wiggle[0] > wiggle[1] > wiggle[2]
assert delay[0] < delay[1] < delay[2]

# %% [markdown]
# ## What if the gates should see the memory too?
# In the **recurrent form** they do: a = x_t W + b + m_{t−1} R. That is the classical gated cell. Step t now has to
# wait for the memory of step t − 1 *before* its product, so there is one product per step.

# %%
print(getsource(stm_recurrent_forward))

R = rng.standard_normal((H, 4 * H))
y_recurrent, _ = stm_recurrent_forward(x, m_0, params._replace(R=R))[0]
m = m_0
for t in range(T):
    a_i, a_u, a_o, a_z = np.split(x[:, t] @ params.W + params.b + m @ R, 4, axis=1)
    u = 1 / (1 + np.exp(-a_u))
    m = (1 - u) * m + u * np.tanh(a_z) / (1 + np.exp(-a_i))
    assert np.allclose(y_recurrent[:, t], m / (1 + np.exp(-a_o)), rtol=0, atol=1e-13)

y_without, _ = stm_recurrent_forward(x, m_0, params._replace(R=np.zeros_like(R)))[0]
assert np.allclose(y_without, y, rtol=0, atol=1e-14)  # R = 0: the input-only form

# %% [markdown]
# ## Why is the input-only form the default?
# Because nothing in its product waits. All B · T inputs are the rows of one tall matrix, and one large product keeps
# a processor far busier than T small ones. Only `m + u * (v - m)` walks the steps: three operations per cell, no
# matrix. The times depend on the machine, so nothing is asserted about them.

# %%
x_long, m_start = rng.standard_normal((32, 200, 64)), np.zeros((32, 64))
full = init_stm(rng, 64, 64, length=200, recurrent=True)
began = perf_counter()
stm_forward(x_long, m_start, full._replace(R=None))
between = perf_counter()
stm_recurrent_forward(x_long, m_start, full)
print(f"input-only {1e3 * (between - began):.1f} ms, recurrent {1e3 * (perf_counter() - between):.1f} ms")

# %% [markdown]
# ## Can a gate be had for less than a matrix?
# A **diagonal** gate looks at its own cell's candidate only: a_g = w_g ⊙ a_z + b_g, one weight per cell. With φ_z the
# identity, what comes in is then v = i ⊙ z = z σ(w z + b). For w = 1, b = 0, where a new layer starts, that is the
# **Swish** activation, z σ(z), well known from convolutional networks: the input gate *contains* it, and learns w and
# b as well.

# %%
diagonal = init_stm(rng, D, H, length=T, diagonal=True)
diagonal_cache = stm_forward(x, m_0, diagonal, phi_z=IDENTITY)[1]
z_all = x @ diagonal.W  # (B, T, H), of all steps
assert np.allclose(diagonal_cache.v, z_all / (1 + np.exp(-z_all)), rtol=0, atol=1e-14)

sizes = {"full": params, "diagonal": diagonal}
counts = {kind: sum(array.size for array in group if array is not None) for kind, group in sizes.items()}
print("parameters:", counts)
assert counts == {"full": 4 * H * (D + 1), "diagonal": D * H + 4 * H + 3 * H}

# %% [markdown]
# That is the forward, whole. Which way should W and b turn to make a loss smaller? Chapter 3 walks the same lines
# back.
