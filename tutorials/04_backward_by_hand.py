# %% [markdown]
# # 4 · The backward, by hand
#
# The layer has sent its outputs y onwards, and the rest of the network answers with dy: how the loss would change
# with every number of y. How would it change with the input, with the first memory, with every parameter? Most
# libraries answer that for you. Here you do it yourself, line by line, and each line is compared with the package's.
#
# **You will know**
#
# * three rules that suffice for the backward of anything;
# * every line of the backward of an STM layer, and why it runs from the last step to the first;
# * what R adds in the recurrent form.
#
# Take pencil and paper. Before each answer there is a **blank**. Fill it in before you open the answer. The same
# blanks are in [exercises/04_the_blanks.py](../exercises/04_the_blanks.py), which tells you line by line whether you
# are right.

# %%
import matplotlib.pyplot as plt
import numpy as np

from stg_np import stm
from stg_np.backend import Array
from stg_np.gradcheck import check_pair
from stg_np.ops.activations import TANH
from stg_np.stm import STMCache, STMParams, init_stm, stm_backward, stm_forward
from stg_np.stm_recurrent import stm_recurrent_backward, stm_recurrent_forward

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## Which rules do we need?
# One number, the loss, hangs on everything. Write $dq$ for the derivative of the loss with respect to q,
# $\partial\text{loss}/\partial q$: a thing of the shape of q, with a number for each number of q. Three rules:
#
# 1. **Chain.** If $r = f(q)$, number by number, and nothing else reads q, then $dq = dr \odot f'(q)$.
# 2. **Sum.** If several read q, what each of them sends back is added.
# 3. **Order.** A line is reversed when everything that its result went into has been reversed: the last line first.
#
# ## What do we reverse?
# These five lines, with the numbers that we shall call them by:
#
# $$\begin{aligned}
# (1) \quad & a_t = x_t W + b \\
# (2) \quad & i_t = \sigma(a_i), \quad u_t = \sigma(a_u), \quad o_t = \sigma(a_o), \quad z_t = \varphi_z(a_z) \\
# (3) \quad & v_t = i_t \odot z_t \\
# (4) \quad & m_t = (1 - u_t) \odot m_{t-1} + u_t \odot v_t \\
# (5) \quad & y_t = o_t \odot \varphi(m_t)
# \end{aligned}$$
#
# As a graph: grey arrows go forward. Each of them goes back as well, and the label says what is sent along it.

# %%
NODES = {
    "$x_t$": (0, 2.2),
    "$a_t$": (1.9, 2.2),
    "$o_t$": (4.5, 5.4),
    "$u_t$": (4.5, 3.2),
    "$i_t$": (4.5, 1.2),
    "$z_t$": (4.5, -0.6),
    "$v_t$": (6.6, 0.3),
    "$m_{t-1}$": (7.0, 4.4),
    "$m_t$": (9.2, 2.2),
    r"$\varphi(m_t)$": (11.4, 2.2),
    "$y_t$": (13.4, 4.2),
    "$m_{t+1}$": (11.4, 0.2),
}
EDGES = [  # from, to, what goes back, where its label stands beside the middle
    ("$x_t$", "$a_t$", r"$da_t\,W^\top$", (0, 0.3)),
    ("$a_t$", "$o_t$", r"$do\,o(1-o)$", (-0.85, 0.25)),
    ("$a_t$", "$u_t$", r"$du\,u(1-u)$", (0.85, -0.15)),
    ("$a_t$", "$i_t$", r"$di\,i(1-i)$", (0.85, 0.15)),
    ("$a_t$", "$z_t$", r"$dz\,\varphi_z'(a_z)$", (-0.95, -0.4)),
    ("$i_t$", "$v_t$", r"$dv \odot z$", (0.25, 0.3)),
    ("$z_t$", "$v_t$", r"$dv \odot i$", (0.3, -0.3)),
    ("$u_t$", "$m_t$", r"$dm_t \odot (v_t - m_{t-1})$", (-0.6, -0.45)),
    ("$v_t$", "$m_t$", r"$dm_t \odot u_t$", (0.6, -0.25)),
    ("$m_{t-1}$", "$m_t$", r"$dm_t \odot (1 - u_t)$", (1.05, 0.3)),
    ("$m_t$", r"$\varphi(m_t)$", r"$\cdot\,\varphi'(m_t)$", (0, 0.3)),
    (r"$\varphi(m_t)$", "$y_t$", r"$dy \odot o$", (0.6, -0.25)),
    ("$o_t$", "$y_t$", r"$dy \odot \varphi(m_t)$", (0.3, 0.4)),
    ("$m_t$", "$m_{t+1}$", r"$dm_{t+1} \odot (1 - u_{t+1})$", (1.7, 0.35)),
]
figure, axes = plt.subplots(figsize=(9.8, 4.8))
for name, (x_node, y_node) in NODES.items():
    axes.text(x_node, y_node, name, ha="center", va="center", fontsize=12)
for start, end, message, (right, up) in EDGES:
    (x_0, y_0), (x_1, y_1) = NODES[start], NODES[end]
    arrow = {"arrowstyle": "-|>", "color": plt.rcParams["text.color"], "shrinkA": 17, "shrinkB": 17, "linewidth": 1.2}
    axes.annotate("", xy=(x_1, y_1), xytext=(x_0, y_0), arrowprops=arrow)
    axes.text((x_0 + x_1) / 2 + right, (y_0 + y_1) / 2 + up, message, color="C1", ha="center", va="center", fontsize=10)
axes.set(xlim=(-0.5, 13.8), ylim=(-1.1, 5.8))
axes.axis("off")
figure.savefig("04_graph.svg")

# %% [markdown]
# We take a small layer and φ = tanh, so that its derivative shows. What the rest of the network might send back, we
# draw. The package's gradients of every quantity, for comparison, are made by the very lines of `stm_backward`; look
# at them at the end, not now.

# %%
rng = np.random.default_rng(0)
B, T, D, H = 2, 4, 3, 2
params = init_stm(rng, D, H, length=T)
params = params._replace(b=params.b + 0.3 * rng.standard_normal(4 * H))
x, m_0 = rng.standard_normal((B, T, D)), rng.standard_normal((B, H))
(y, m_T), cache = stm_forward(x, m_0, params, phi=TANH)
i, u, o, z = cache.gates
v, memories, read = cache.v, cache.memories, cache.read  # read = φ(memories)

dy, dm_T = rng.standard_normal(y.shape), rng.standard_normal(m_T.shape)  # whatever the rest may send


def the_packages_gradients() -> dict[str, Array]:
    """The gradient of every quantity, by the lines of stm_backward."""
    do, dread = dy * read, dy * o
    dm = TANH.backward(dread, memories, read)
    du, dv, dm_0 = stm.scan_backward(dm, dm_T, u, v, memories, m_0)
    di, dz = dv * z, dv * i
    da = stm.gates_backward(stm.Gates(di, du, do, dz), cache.gates, cache.a, TANH)
    dx, dm_0, dparams = stm_backward(dy, dm_T, cache, params)
    found = {"do": do, "dm": dm, "du": du, "dv": dv, "dm_0": dm_0, "di": di, "dz": dz, "da": da}
    return found | {"dx": dx, "dW": dparams.W, "db": dparams.b}


theirs = the_packages_gradients()


def compare(**ours: Array) -> None:
    """Say for each gradient how far ours is from the package's; it must be nothing but rounding."""
    for name, gradient in ours.items():
        assert gradient.shape == theirs[name].shape
        difference = abs(gradient - theirs[name]).max()
        print(f"{name:5} {'right' if difference <= 1e-12 else 'WRONG'}")
        assert difference <= 1e-12


# %% [markdown]
# ## Line 5: what does an output send back?
# $y_t = o_t \odot \varphi(m_t)$. Two factors, and φ inside the second.
#
# **Blank.** $do_t = \;?$ and, as far as $y_t$ alone is concerned, $dm_t = \;?$
#
# <details><summary>Answer</summary>
#
# Seen from one factor, the other is a constant: a product sends to each factor dy times the *other* one.
#
# $$do_t = dy_t \odot \varphi(m_t), \qquad d\varphi(m_t) = dy_t \odot o_t, \qquad
# dm_t = dy_t \odot o_t \odot \varphi'(m_t)$$
#
# For φ = tanh, φ' = 1 − tanh², and tanh(m) is in the cache. For the identity, φ' = 1.
#
# </details>
#
# In the code below, and in the package, `dm` is what each *output* sends to its own memory, and no more.

# %%
do, dm = np.zeros_like(o), np.zeros_like(memories)
for n, t, h in np.ndindex(B, T, H):
    do[n, t, h] = dy[n, t, h] * read[n, t, h]
    dm[n, t, h] = dy[n, t, h] * o[n, t, h] * (1 - read[n, t, h] ** 2)
compare(do=do, dm=dm)

# %% [markdown]
# ## Line 4: how does a gradient travel through the memory?
# $m_t = (1 - u_t) \odot m_{t-1} + u_t \odot v_t$, which is also $m_{t-1} + u_t \odot (v_t - m_{t-1})$. Now the sum
# rule is needed, for *two* read $m_t$: its output $y_t$, and the next memory $m_{t+1}$, in which $m_t$ stands with
# the factor $1 - u_{t+1}$.
#
# **Blank.** $du_t = \;?$, $dv_t = \;?$, and what does step t send to $m_{t-1}$?
#
# <details><summary>Answer</summary>
#
# $$du_t = dm_t \odot (v_t - m_{t-1}), \qquad dv_t = dm_t \odot u_t, \qquad
# \text{to } m_{t-1}: \; dm_t \odot (1 - u_t)$$
#
# where $dm_t$ is the *whole* gradient of the memory $m_t$, the sum of what its two readers send:
#
# $$dm_t = \underbrace{dy_t \odot o_t \odot \varphi'(m_t)}_{\text{from } y_t}
# + \underbrace{(1 - u_{t+1}) \odot dm_{t+1}}_{\text{from } m_{t+1}}$$
#
# </details>
#
# So $dm_t$ needs $dm_{t+1}$: the loop runs from the last step to the first. Nothing comes after the last step but the
# user of $m_T$, and what is left over in front of the first step belongs to $m_0$.

# %%
du, dv, dm_0 = np.zeros_like(u), np.zeros_like(v), np.zeros_like(m_0)
whole = np.zeros_like(memories)
for n, h in np.ndindex(B, H):
    from_after = dm_T[n, h]
    for t in reversed(range(T)):
        whole[n, t, h] = dm[n, t, h] + from_after
        m_before = memories[n, t - 1, h] if t > 0 else m_0[n, h]
        du[n, t, h] = whole[n, t, h] * (v[n, t, h] - m_before)
        dv[n, t, h] = whole[n, t, h] * u[n, t, h]
        from_after = whole[n, t, h] * (1 - u[n, t, h])
    dm_0[n, h] = from_after
compare(du=du, dv=dv, dm_0=dm_0)

# %% [markdown]
# The package's loop, which calls `update_backward` of chapter 1 for all examples and cells at once:
# ```python
# # stg_np/stm.py
#     from_after = dm_T
#     for t in reversed(range(v.shape[1])):
#         before = memories[:, t - 1] if t > 0 else m_0
#         du[:, t], dv[:, t], from_after = update_backward(dm[:, t] + from_after, u[:, t], v[:, t], before)
#     return du, dv, from_after
# ```
# ## "dm_T is dm_t at t = T"
# The names invite it, and it is wrong. The *argument* `dm_T` of the backward is what the **user of the last memory**
# sends: the next chunk of the sequence, or nobody (then it is 0). The *whole* gradient of the memory $m_T$ adds what
# the output $y_T$ sends, since $y_T$ reads $m_T$ too:

# %%
assert np.allclose(whole[:, -1], dm[:, -1] + dm_T, rtol=0, atol=1e-15)
assert abs(whole[:, -1] - dm_T).max() > 0.1
print("argument dm_T       ", dm_T[0].round(3))
print("whole gradient of m_T", whole[0, -1].round(3))

# %% [markdown]
# Line 4 is also the reason for a gated memory. Each step back multiplies the gradient by 1 − u and, in this form, by
# nothing else: no matrix, no tanh. Where u is small it arrives almost whole. Let the outputs say nothing, and only
# the last memory something:

# %%
dm_0_from_the_end = stm_backward(0 * dy, dm_T, cache, params)[1]  # the second of its three results
assert np.allclose(dm_0_from_the_end, (1 - u).prod(1) * dm_T, rtol=0, atol=1e-12)

# %% [markdown]
# ## Line 3: a product again
# $v_t = i_t \odot z_t$.
#
# **Blank.** $di_t = \;?$, $dz_t = \;?$
#
# <details><summary>Answer</summary>
#
# $$di_t = dv_t \odot z_t, \qquad dz_t = dv_t \odot i_t$$
#
# </details>

# %%
di, dz = np.zeros_like(i), np.zeros_like(z)
for n, t, h in np.ndindex(B, T, H):
    di[n, t, h] = dv[n, t, h] * z[n, t, h]
    dz[n, t, h] = dv[n, t, h] * i[n, t, h]
compare(di=di, dz=dz)

# %% [markdown]
# ## Line 2: through the soft switches
# Each goes through its own derivative, and into its own quarter of the packed
# $da = [da_i \,|\, da_u \,|\, da_o \,|\, da_z]$.
#
# **Blank.** $da_i = \;?$ … $da_z = \;?$ (for $\varphi_z = \tanh$)
#
# <details><summary>Answer</summary>
#
# With σ' = σ (1 − σ) from chapter 1, and tanh' = 1 − tanh²:
#
# $$da_i = di \odot i \odot (1 - i), \quad da_u = du \odot u \odot (1 - u), \quad
# da_o = do \odot o \odot (1 - o), \quad da_z = dz \odot (1 - z^2)$$
#
# </details>

# %%
da = np.zeros((B, T, 4 * H))
for n, t, h in np.ndindex(B, T, H):
    da[n, t, 0 * H + h] = di[n, t, h] * i[n, t, h] * (1 - i[n, t, h])
    da[n, t, 1 * H + h] = du[n, t, h] * u[n, t, h] * (1 - u[n, t, h])
    da[n, t, 2 * H + h] = do[n, t, h] * o[n, t, h] * (1 - o[n, t, h])
    da[n, t, 3 * H + h] = dz[n, t, h] * (1 - z[n, t, h] ** 2)
compare(da=da)

# %% [markdown]
# ## Line 1: a weighted sum
# For one example and one step, number by number: $a_k = \sum_d x_d W_{dk} + b_k$.
#
# **Blank.** $db_k = \;?$, $dW_{dk} = \;?$, $dx_d = \;?$ Who reads what, and how often?
#
# <details><summary>Answer</summary>
#
# $W_{dk}$ is read with the factor $x_d$, $x_d$ with the factor $W_{dk}$, and $b_k$ with the factor 1. Every example
# at every step reads W and b: their gradients are sums over all of them. And $x_d$ is read by all 4H sums:
#
# $$db_k = \sum_{n,t} da_k, \qquad dW_{dk} = \sum_{n,t} x_d\, da_k, \qquad dx_d = \sum_k da_k W_{dk}$$
#
# As matrices, with the examples and steps as rows: $db = \sum da$, $dW = x^\top da$, $dx = da\, W^\top$.
#
# </details>

# %%
dx, dW, db = np.zeros_like(x), np.zeros_like(params.W), np.zeros_like(params.b)
for n, t, k in np.ndindex(B, T, 4 * H):
    db[k] += da[n, t, k]
    for d in range(D):
        dW[d, k] += x[n, t, d] * da[n, t, k]
        dx[n, t, d] += da[n, t, k] * params.W[d, k]
compare(dx=dx, dW=dW, db=db)

# %% [markdown]
# That was all of it. The package's backward is these five lines in this order, each with the forward line that it
# reverses in its comment:
# ```python
# # stg_np/stm.py
#     do = dy * read  # from y = o ⊙ read
#     dread = dy * gates.o  # from y = o ⊙ read
#     dm = phi.backward(dread, memories, read)  # from read = φ(m)
#     du, dv, dm_0 = scan_backward(dm, dm_T, gates.u, v, memories, m_0)  # from the scan
#     di = dv * gates.z  # from v = i ⊙ z
#     dz = dv * gates.i  # from v = i ⊙ z
#     da = gates_backward(Gates(di, du, do, dz), gates, a, phi_z)  # from the gates, (B, T, 4H)
#     dp, db, dw = preactivations_backward(da, a, params)  # from the pre-activations
#     dx = matmul(dp, params.W.T)  # from p = x W
#     dW = outer_sum(x, dp)  # from p = x W
#     return dx, dm_0, STMParams(dW, db, None, dw)
# ```
# (With full gates `dp` is `da`; `dw` is for diagonal gates, exercise 3.)
#
# ## What changes when the gates see the memory?
# In the recurrent form line 1 is $a_t = x_t W + b + m_{t-1} R$. Now a *third* reader of $m_{t-1}$ has come: the
# pre-activations of step t.
#
# **Blank.** What more is sent to $m_{t-1}$? And $dR = \;?$
#
# <details><summary>Answer</summary>
#
# $m_{t-1} R$ is built as $x_t W$ is, so by the rules of line 1: $da_t R^\top$ goes to $m_{t-1}$, and
#
# $$dR = \sum_t m_{t-1}^\top\, da_t, \qquad
# dm_t = dy_t \odot o_t \odot \varphi'(m_t) + (1 - u_{t+1}) \odot dm_{t+1} + da_{t+1} R^\top.$$
#
# </details>
#
# The last term wants $da_{t+1}$ before $dm_t$ is known. So all five lines must be reversed at one step before the
# next one can begin: no products for all steps at once.

# %%
R = 0.5 * rng.standard_normal((H, 4 * H))
recurrent = params._replace(R=R)
(y_r, m_T_r), steps = stm_recurrent_forward(x, m_0, recurrent, phi=TANH)

dR, dW_r = np.zeros_like(R), np.zeros_like(params.W)
after = dm_T  # what comes from after step t
for t in reversed(range(T)):
    step = steps.steps[t]
    gates, v_t, m_before, read_t = step.gates, step.v, step.m_before, step.read
    dm_t = dy[:, t] * gates.o * (1 - read_t**2) + after  # line 5, and from after
    du_t, dv_t = dm_t * (v_t - m_before), dm_t * gates.u  # line 4
    di_t, dz_t, do_t = dv_t * gates.z, dv_t * gates.i, dy[:, t] * read_t  # lines 3 and 5
    soft = (di_t * gates.i * (1 - gates.i), du_t * gates.u * (1 - gates.u), do_t * gates.o * (1 - gates.o))  # line 2
    da_t = np.concatenate([*soft, dz_t * (1 - gates.z**2)], 1)
    dR, dW_r = dR + m_before.T @ da_t, dW_r + x[:, t].T @ da_t  # line 1
    after = dm_t * (1 - gates.u) + da_t @ R.T  # to the memory before: line 4, and now line 1

_, their_dm_0, their_params = stm_recurrent_backward(dy, dm_T, steps, recurrent)
assert their_params.R is not None
assert np.allclose(dR, their_params.R, rtol=0, atol=1e-12)
assert np.allclose(dW_r, their_params.W, rtol=0, atol=1e-12)
assert np.allclose(after, their_dm_0, rtol=0, atol=1e-12)

# %% [markdown]
# ## But is it *right*?
# That two derivations agree proves little: both may have the same mistake. The forward itself is the judge. Move an
# input a little, and the outputs must move as the backward says. `check_pair` does so for every input and parameter;
# chapter 6 explains how, and makes mistakes on purpose to see whether it notices. Here it judges the loops of this
# chapter:


# %%
def backward_by_hand(doutputs: tuple[Array, Array], kept: tuple[STMCache, STMParams]) -> tuple[Array, Array, STMParams]:
    """The five lines once more, in arrays."""
    (dy, dm_T), (cache, params) = doutputs, kept
    i, u, o, z = cache.gates
    dm = dy * o * (1 - cache.read**2)
    du, dv, after = np.empty_like(u), np.empty_like(u), dm_T
    for t in reversed(range(u.shape[1])):
        before = cache.memories[:, t - 1] if t > 0 else cache.m_0
        whole = dm[:, t] + after
        du[:, t], dv[:, t], after = whole * (cache.v[:, t] - before), whole * u[:, t], whole * (1 - u[:, t])
    parts = (dv * z * i * (1 - i), du * u * (1 - u), dy * cache.read * o * (1 - o), dv * i * (1 - z**2))
    da = np.concatenate(parts, -1)
    dW = np.einsum("btd,btk->dk", cache.x, da)
    return da @ params.W.T, after, STMParams(dW, da.sum((0, 1)))


def forward(x: Array, m_0: Array, params: STMParams) -> tuple[tuple[Array, Array], tuple[STMCache, STMParams]]:
    outputs, cache = stm_forward(x, m_0, params, phi=TANH)
    return outputs, (cache, params)


report = check_pair(forward, backward_by_hand, {"x": x, "m_0": m_0, "params": params}, name="by hand")
print("by hand:", "ok" if report.ok else "WRONG")
assert report.ok
assert report.error < 1e-8

# %% [markdown]
# ## In the field's words
# dq is the **gradient**. The graph is a **computational graph**, going back through it **backpropagation** or
# **reverse-mode automatic differentiation**; a message on an edge is a **vector–Jacobian product**. The loop over the
# steps in reverse is **backpropagation through time** (Werbos, Proceedings of the IEEE 1990). Popularised for
# networks by Rumelhart, Hinton & Williams (Nature 1986); the method is older (Linnainmaa 1970). The path of the
# gradient through a gated memory, without matrices, is what the LSTM's authors called the **constant error carousel**
# (Hochreiter & Schmidhuber 1997).
#
# ## Summary
# * Chain, sum, order: nothing else was used.
# * Line 4 is the only loop: $dm_t$ is what $y_t$ sent plus $(1 - u_{t+1}) \odot dm_{t+1}$.
# * The argument `dm_T` is what the user of the last memory sends; the whole gradient of $m_T$ adds what $y_T$ sent.
# * In the recurrent form $da_{t+1} R^\top$ is added, and $dR = \sum_t m_{t-1}^\top da_t$.
# * All of it stands on one page: the [cheat sheet](../cheat_sheet.md).
#
# ## Exercises
# **1. The blanks.** Fill in [exercises/04_the_blanks.py](../exercises/04_the_blanks.py) and run it until every line
# is right.
# <details><summary>Hint</summary>A product sends to each factor what comes, times the other factor.</details>
#
# **2. dR in one product.** The loop above adds T small products. Write dR as one product of two matrices after the
# loop.
# <details><summary>Hint</summary>Keep all da_t. Examples and steps are the rows of both matrices, as for dW.</details>
#
# **3. Diagonal gates.** Now $a_g = w_g \odot a_z + b_g$ for g = i, u, o, and only $a_z = xW_z + b_z$ sees x. Find dw,
# db and the whole gradient of $a_z$, and check them with the package.
# <details><summary>Hint</summary>a_z is read four times: by the candidate and by the three gates.</details>
#
# Solutions: [solutions/04_backward_by_hand.py](../solutions/04_backward_by_hand.py). Next: [how far a gradient
# travels](05_how_far_a_gradient_travels.ipynb)
