# %% [markdown]
# # 4 · The backward, by hand
#
# The layer has sent y onwards, and the rest of the network sends dy back: how the loss would change with every y_t. How
# would it change with x, with the first memory, with every parameter? We derive it line by line, in plain loops, and
# hold it against the package. Then we make mistakes on purpose and see whether a check finds them.

# %%
from inspect import getsource
from typing import TypeAlias
from unittest.mock import patch

import numpy as np

from stg_np import stm, stm_recurrent
from stg_np.backend import Array
from stg_np.gradcheck import check_pair
from stg_np.ops.activations import TANH
from stg_np.stm import STMParams, init_stm, stm_backward, stm_forward

# %% [markdown]
# ## What are we computing?
# One number, the loss, hangs on everything. Write dq for ∂loss/∂q, a thing of the shape of q. Three rules suffice:
#
# 1. **chain**: if r = f(q) and nothing else reads q, then dq = dr · f'(q);
# 2. **sum**: if several read q, what each of them sends is added;
# 3. **order**: a line is reversed once everything that its result went into has been: the last line first.
#
# The forward first: five lines, for a, for the gates and the candidate, for v, for m and for y. We take φ = tanh, so
# that its derivative shows, and keep what every line computed: the cache.

# %%
rng = np.random.default_rng(0)
B, T, D, H = 2, 4, 3, 2
params = init_stm(rng, D, H, length=T)
params = params._replace(b=params.b + 0.3 * rng.standard_normal(4 * H))
x, m_0 = rng.standard_normal((B, T, D)), rng.standard_normal((B, H))
(y, m_T), cache = stm_forward(x, m_0, params, phi=TANH)
i, u, o, z = cache.gates
v, memories, read = cache.v, cache.memories, cache.read  # read = φ(memories)

dy, dm_T = rng.standard_normal(y.shape), rng.standard_normal(m_T.shape)  # whatever the loss may send

# %% [markdown]
# ## Line 5: y_t = o_t ⊙ φ(m_t)
# A product sends to each factor dy times the other factor. The memory sits inside φ, and tanh' = 1 − tanh², which is
# cheap because tanh(m) is in the cache. This `dm` is what the *output* of each step says of its memory, no more.

# %%
do, dm = np.zeros_like(o), np.zeros_like(memories)
for n, t, h in np.ndindex(B, T, H):
    do[n, t, h] = dy[n, t, h] * read[n, t, h]
    dm[n, t, h] = dy[n, t, h] * o[n, t, h] * (1 - read[n, t, h] ** 2)

# %% [markdown]
# ## Line 4: m_t = (1 − u_t) ⊙ m_{t−1} + u_t ⊙ v_t
# Here is the recurrence. Two read m_t: the output y_t, and the next memory m_{t+1}, in which it stands with the
# factor (1 − u_{t+1}). By the sum rule
#
#     dm_t = (from y_t) + (1 − u_{t+1}) ⊙ dm_{t+1}
#
# and so dm_t needs dm_{t+1}: the scan runs in reverse. It begins with dm_T, what the user of the last memory says,
# and what is left over at the end belongs to m_0. For the other two derivatives, write the line with one product, m_t =
# m_{t−1} + u_t ⊙ (v_t − m_{t−1}):
#
#     du_t = dm_t ⊙ (v_t − m_{t−1})            dv_t = dm_t ⊙ u_t

# %%
du, dv, dm_0 = np.zeros_like(u), np.zeros_like(v), np.zeros_like(m_0)
for n, h in np.ndindex(B, H):
    carried = dm_T[n, h]
    for t in reversed(range(T)):
        dm_t = dm[n, t, h] + carried
        m_before = memories[n, t - 1, h] if t > 0 else m_0[n, h]
        du[n, t, h] = dm_t * (v[n, t, h] - m_before)
        dv[n, t, h] = dm_t * u[n, t, h]
        carried = (1 - u[n, t, h]) * dm_t
    dm_0[n, h] = carried

print(getsource(stm.update_backward), getsource(stm.scan_backward), sep="\n")
for ours, theirs in zip((du, dv, dm_0), stm.scan_backward(dm, dm_T, u, v, memories, m_0)):
    assert np.allclose(ours, theirs, rtol=0, atol=1e-12)

# %% [markdown]
# This line is the reason for a gated memory. Each step that a gradient goes back multiplies it by 1 − u and, in this
# form, by nothing else, no matrix, no tanh: where u is small, or the gate has closed, it arrives almost whole.

# %%
dm_0_from_end = stm_backward(0 * dy, dm_T, cache, params)[1]  # the outputs say nothing, the last memory dm_T
assert np.allclose(dm_0_from_end, (1 - u).prod(1) * dm_T, rtol=0, atol=1e-12)

# %% [markdown]
# ## Line 3, a product: v_t = i_t ⊙ z_t

# %%
di, dz = np.zeros_like(i), np.zeros_like(z)
for n, t, h in np.ndindex(B, T, H):
    di[n, t, h] = dv[n, t, h] * z[n, t, h]
    dz[n, t, h] = dv[n, t, h] * i[n, t, h]

# %% [markdown]
# ## Line 2: i, u, o = σ(a_i), σ(a_u), σ(a_o) and z = tanh(a_z)
# Each through its own derivative, σ' = σ (1 − σ) and tanh' = 1 − tanh², and into its own quarter of the packed da.

# %%
da = np.zeros((B, T, 4 * H))
for n, t, h in np.ndindex(B, T, H):
    da[n, t, 0 * H + h] = di[n, t, h] * i[n, t, h] * (1 - i[n, t, h])
    da[n, t, 1 * H + h] = du[n, t, h] * u[n, t, h] * (1 - u[n, t, h])
    da[n, t, 2 * H + h] = do[n, t, h] * o[n, t, h] * (1 - o[n, t, h])
    da[n, t, 3 * H + h] = dz[n, t, h] * (1 - z[n, t, h] ** 2)

print(getsource(stm.gates_backward))
assert np.allclose(da, stm.gates_backward(stm.Gates(di, du, do, dz), cache.gates, cache.a, TANH), rtol=0, atol=1e-12)

# %% [markdown]
# ## Line 1: a_t = x_t W + b
# Number by number, a[k] = Σ_d x[d] W[d, k] + b[k]. So W[d, k] is read with the factor x[d], x[d] with the factor W[d,
# k], b[k] with the factor 1. W and b are read by every example at every step: their gradients are sums over all. As
# matrices this is dx = da Wᵀ, dW = xᵀ da, db = Σ da.

# %%
dx, dW, db = np.zeros_like(x), np.zeros_like(params.W), np.zeros_like(params.b)
for n, t, k in np.ndindex(B, T, 4 * H):
    db[k] += da[n, t, k]
    for d in range(D):
        dW[d, k] += x[n, t, d] * da[n, t, k]
        dx[n, t, d] += da[n, t, k] * params.W[d, k]

# %% [markdown]
# ## Is that the package's backward?
# Read it from the top: it is these five cells, in this order, each line naming the forward line that it reverses.

# %%
print(getsource(stm_backward))

their_dx, their_dm_0, dparams = stm_backward(dy, dm_T, cache, params)
for ours, their in ((dx, their_dx), (dm_0, their_dm_0), (dW, dparams.W), (db, dparams.b)):
    assert np.allclose(ours, their, rtol=0, atol=1e-12)

# %% [markdown]
# In the recurrent form one thing is added: m_{t−1} is also read by the pre-activations of step t, through R. The sum
# rule gives dm_{t−1} one more part, da_t Rᵀ; look for `@ cache.R.T`.

# %%
print(getsource(stm_recurrent.stm_recurrent_backward))

# %% [markdown]
# ## But is it *right*?
# That two derivations by one person agree proves little. The forward itself is the judge: move the inputs a little
# along a random direction, and the outputs must move as the backward says. `check_pair` does so for all inputs at
# once, for each one, and, on small shapes such as these, for every single derivative. It wants `forward(**inputs) ->
# outputs, cache` and `backward(doutputs, cache) -> gradients`, so the parameters travel beside the cache.


# %%
Kept: TypeAlias = tuple[stm.STMCache, STMParams]
Gradients: TypeAlias = tuple[Array, Array, STMParams]


def forward(x: Array, m_0: Array, params: STMParams) -> tuple[tuple[Array, Array], Kept]:
    outputs, cache = stm_forward(x, m_0, params, phi=TANH)
    return outputs, (cache, params)


def backward(doutputs: tuple[Array, Array], kept: Kept) -> Gradients:
    return stm_backward(*doutputs, *kept)


inputs = {"x": x, "m_0": m_0, "params": params}
report = check_pair(forward, backward, inputs, name="stm")
print(report)
report.assert_ok()
assert report.error < 1e-8

# %% [markdown]
# ## Would it have noticed a mistake?
# A check that cannot fail is none. First a small error: one gradient too large by a thousandth, which no training
# curve would ever show. The report names the place, both values, and what is wrong with them.


# %%
def slightly_wrong(doutputs: tuple[Array, Array], kept: Kept) -> Gradients:
    dx, dm_0, dparams = backward(doutputs, kept)
    return dx, dm_0, dparams._replace(b=1.001 * dparams.b)


report = check_pair(forward, slightly_wrong, inputs, name="db × 1.001")
print(report)
assert not report.ok
assert report.errors["params.b"] > 1e-4
assert report.errors["params.W"] < 1e-8

# %% [markdown]
# Now the mistake that everybody makes once: the factor (1 − u) forgotten where the gradient goes back to the memory
# before. All shapes are right and nothing crashes. We put the wrong line in the place of the package's; everything
# else stays.


# %%
def forgetful(dm: Array, u: Array, v: Array, m: Array) -> tuple[Array, Array, Array]:
    return dm * (v - m), dm * u, dm  # should end in dm * (1 - u)


with patch("stg_np.stm.update_backward", forgetful):
    report = check_pair(forward, backward, inputs, name="(1 − u) dropped")
    one_step = check_pair(forward, backward, inputs | {"x": x[:, :1]}, name="(1 − u) dropped, T = 1")
print(report)
assert not report.ok
assert min(report.errors[name] for name in ("x", "m_0", "params.W", "params.b")) > 1e-4

# %% [markdown]
# And a lesson on testing: with a single step the same mistake is invisible in x, W and b. Only the gradient of m_0
# gives it away, which is why the layer takes a first memory, returns its gradient, and is checked with several steps.

# %%
print(one_step)
assert one_step.errors["m_0"] > 1e-4
assert max(one_step.errors[name] for name in ("x", "params.W", "params.b")) < 1e-8

# %% [markdown]
# `stg-np gradcheck` runs this check over every pair of the package. Chapter 9 trains with them.
