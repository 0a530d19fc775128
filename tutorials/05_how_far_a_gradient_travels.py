# %% [markdown]
# # 5 · How far a gradient travels
#
# A network reads a hundred steps and answers once, at the end. If the answer was wrong because of the first step, the
# gradient must walk back a hundred steps to say so. What arrives? Usually nothing, sometimes far too much; and the
# whole family of gated networks was invented because of that.
#
# **You will know**
# * why a plain recurrent network's gradient dies out or blows up on its way back, and at which rate;
# * what a gate changes about it, and what it does *not* change;
# * how one cuts down a gradient that is too long.

# %%
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import matplotlib.pyplot as plt
import numpy as np

from stg_np.backend import Array
from stg_np.data.sequences import adding_problem
from stg_np.fast.choose import stm_cell
from stg_np.gradcheck import check_pair
from stg_np.layers.spec import STMKind
from stg_np.optim import AdamW, clip_by_norm
from stg_np.params import Entry, Layout, Params
from stg_np.stm import STMParams, init_stm, stm_backward, stm_forward
from stg_np.workspace import Workspace

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## What happens to a number that is multiplied a hundred times?
# By the chain rule, going back one step multiplies the gradient by something. Let that something be one number r.
# After k steps the gradient is r^k times what it was:

# %%
for r in (0.5, 0.9, 0.99, 1.0, 1.01, 1.1, 2.0):
    print(f"r = {r:4.2f}   after 10 steps {r**10:9.2e}   after 100 steps {r**100:9.2e}")

assert 0.9**100 < 1e-4
assert 1.1**100 > 1e4

# %% [markdown]
# There are three fates and no fourth. Below 1 it **vanishes**, above 1 it **explodes**, and only *exactly* 1 lasts.
# Ten per cent off is enough to change it ten-thousandfold in a hundred steps. Nothing in this is special to neural
# networks; compound interest does the same.

# %% [markdown]
# ## What is that number in a plain recurrent network?
# The oldest recurrent network has no gates. Its memory is a new mixture at every step:
#
# $$ a_t = x_t W + m_{t-1} R + b, \qquad m_t = \tanh(a_t) . $$
#
# Now back. By the rules of chapter 4 the gradient goes through tanh, whose derivative is $1 - m_t^2$, and then through
# the product with $R$:
#
# $$ da_t = dm_t \odot (1 - m_t^2), \qquad dm_{t-1} = da_t R^\top . $$
#
# So one step back multiplies the gradient by the slopes of tanh, which are at most 1, *and by a matrix*. The same
# matrix every time. Here are both directions in full.


# %%
class RNNCache(NamedTuple):
    x: Array  # (B, T, D)
    memories: Array  # (B, T + 1, H), m_0 first
    W: Array
    R: Array


def rnn_forward(x: Array, m_0: Array, W: Array, R: Array, b: Array) -> tuple[Array, RNNCache]:
    """x (B, T, D) and m_0 (B, H) -> the last memory m_T (B, H)."""
    memories = [m_0]
    for t in range(x.shape[1]):
        memories.append(np.tanh(x[:, t] @ W + memories[-1] @ R + b))
    return memories[-1], RNNCache(x, np.stack(memories, 1), W, R)


def rnn_backward(dm_T: Array, cache: RNNCache) -> tuple[dict[str, Array], list[Array]]:
    """The gradient of every argument by name; and dm_T, dm_{T−1}, …, dm_0, to look at them."""
    x, memories, W, R = cache
    dx, dW, dR, db = np.zeros_like(x), np.zeros_like(W), np.zeros_like(R), np.zeros_like(R[0])
    dms = [dm_T]
    for t in reversed(range(x.shape[1])):
        da = dms[-1] * (1 - memories[:, t + 1] ** 2)  # through tanh
        dx[:, t] = da @ W.T
        dW += x[:, t].T @ da
        dR += memories[:, t].T @ da
        db += da.sum(0)
        dms.append(da @ R.T)  # through m_{t−1} R
    return {"x": dx, "m_0": dms[-1], "W": dW, "R": dR, "b": db}, dms


# %% [markdown]
# We wrote a backward by hand, so we check it before we believe anything it says. (How that check works is chapter 6.)

# %%
rng = np.random.default_rng(0)
B, T, D, H = 2, 5, 3, 4
arguments = {
    "x": rng.standard_normal((B, T, D)),
    "m_0": rng.standard_normal((B, H)),
    "W": rng.standard_normal((D, H)),
    "R": rng.standard_normal((H, H)),
    "b": rng.standard_normal(H),
}
report = check_pair(rnn_forward, lambda dm_T, cache: rnn_backward(dm_T, cache)[0], arguments)
print(report)
report.assert_ok()

# %% [markdown]
# Now the walk: 100 steps of small random input, 64 memory cells, and a random gradient sent in at the end. The entries
# of $R$ are random with standard deviation $g / \sqrt H$; the number $g$ says how strong the feedback is.


# %%
def rnn_lengths(g: float, steps: int = 100, H: int = 64) -> tuple[Array, float]:
    """‖dm_t‖ / ‖dm_T‖ at the distances 0 … steps, and the largest factor by which R can stretch a vector."""
    rng = np.random.default_rng(0)
    R = g * rng.standard_normal((H, H)) / np.sqrt(H)
    x, m_0 = 0.1 * rng.standard_normal((1, steps, H)), 0.1 * rng.standard_normal((1, H))
    _, cache = rnn_forward(x, m_0, np.eye(H), R, np.zeros(H))
    _, dms = rnn_backward(rng.standard_normal((1, H)), cache)
    lengths = np.linalg.norm(np.concatenate(dms), axis=1)
    return lengths / lengths[0], float(np.linalg.norm(R, 2))


strengths = (0.45, 1.0, 2.0)
walks = {g: rnn_lengths(g) for g in strengths}
for g, (lengths, stretch) in walks.items():
    print(f"g = {g:4.2f}   R stretches by at most {stretch:.2f}   left after 100 steps: {lengths[-1]:.0e}")

assert walks[0.45][0][-1] < 1e-20
assert walks[2.0][0][-1] > 1e3

# %% [markdown]
# Can we say in advance which fate it will be? In part. Multiplying by $R$ stretches a vector at most by the largest
# singular value of $R$, written $\lVert R \rVert_2$, and the slopes of tanh can only shrink it further. So after $k$
# steps
#
# $$ \lVert dm_{T-k} \rVert \le \lVert R \rVert_2^k \, \lVert dm_T \rVert . $$
#
# With $\lVert R \rVert_2 < 1$ it *must* vanish. To explode it *must* have $\lVert R \rVert_2 > 1$, but that alone is
# not enough: tanh may hold it back, as the middle line of the table shows.

# %%
for lengths, stretch in walks.values():
    assert (lengths <= stretch ** np.arange(101.0) * (1 + 1e-12)).all()
assert walks[1.0][1] > 1 > walks[1.0][0][-1]

# %% [markdown]
# ## What does a gate do instead?
# The STM's memory does not pass through a matrix, nor through a tanh:
#
# $$ m_t = (1 - u_t) \odot m_{t-1} + u_t \odot v_t . $$
#
# In the input-only form neither $u_t$ nor $v_t$ knows anything of $m_{t-1}$. So the derivative of $m_t$ with respect
# to $m_{t-1}$ is $1 - u_t$, cell by cell, and going back over all steps multiplies all of them:
#
# $$ dm_0 = \Big( \prod_{t=1}^{T} (1 - u_t) \Big) \odot dm_T . $$
#
# This is exact, not a bound. The package's own backward says the same, with gates that look at a random input:

# %%
x, m_0 = rng.standard_normal((4, 30, D)), np.zeros((4, H))
fresh = init_stm(rng, D, H, length=30)
(y, m_T), cache = stm_forward(x, m_0, fresh)
dm_T = rng.standard_normal(m_T.shape)
dm_0 = stm_backward(np.zeros_like(y), dm_T, cache, fresh)[1]

assert np.allclose(dm_0, (1 - cache.gates.u).prod(1) * dm_T, rtol=1e-12, atol=0)

# %% [markdown]
# Two things follow at once. Every factor lies between 0 and 1, so this gradient **cannot explode**, whatever the
# parameters are. And each cell has a rate of its own: no matrix mixes them. With a constant gate $u = 1/\tau$, a
# gradient at the distance $k$ is $(1 - 1/\tau)^k$, a straight line in a picture with a logarithmic axis. The time scale
# $\tau$ of chapter 1 is how far a gradient travels, as well as how long a memory lasts. They are the same number, for
# one is the derivative of the other.

# %%
assert (np.abs(dm_0) <= np.abs(dm_T)).all()

distances = np.arange(101)
taus = (4, 16, 64, 256)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for g in strengths:
    left.semilogy(distances, walks[g][0], label=f"g = {g:g}")
for tau in taus:
    right.semilogy(distances, (1 - 1 / tau) ** distances, label=f"τ = {tau}")
left.set(title="plain recurrent network", ylabel="‖gradient‖, 1 at the end", ylim=(1e-12, 1e8))
right.set(title="STM with a constant gate u = 1/τ")
left.legend(loc="center right", bbox_to_anchor=(1, 0.3))
right.legend(loc="lower left")
for axes in (left, right):
    axes.axhline(1, linewidth=0.8, linestyle=":", color="0.5")
    axes.set_xlabel("distance from the end, in steps")
figure.savefig("05_distance.svg")

# %% [markdown]
# Read the picture from left to right as a walk back in time. On the left, three matrices that differ by nothing but
# their size end up twenty powers of ten apart. On the right nothing rises, and the slope is a number that a bias sets.

# %% [markdown]
# ## Do gates abolish the vanishing gradient?
# One hears so. No: look at the right-hand picture again. All of its lines fall. A factor $1 - u$ below 1 is still a
# factor below 1, and $(1-u)^T$ still vanishes:

# %%
for tau in (16, 256):
    for k in (100, 1000, 10_000):
        print(f"τ = {tau:3d}   after {k:6,d} steps {(1 - 1 / tau) ** k:.0e}")

assert (1 - 1 / 16) ** 100 < 0.01
assert (1 - 1 / 16) ** 1000 < 1e-27
assert (1 - 1 / 256) ** 10_000 < 1e-16

# %% [markdown]
# What a gate does change is this:
#
# 1. The rate is **learnable**. It hangs on one bias, $b_u$, and not on the singular values of a matrix that has other
#    work to do at the same time.
# 2. The rate may **differ** from cell to cell, and from step to step: a gate that closes for a while ($u_t \approx 0$)
#    lets the gradient through unharmed for that while, and one that opens ends its journey, on purpose.
# 3. Along the memory it **cannot explode**.
#
# So a gated network forgets no less than another. It forgets where it has learned that forgetting does no harm.

# %% [markdown]
# ## What if it explodes?
# Through a matrix, it can: in the plain network above, and in the recurrent form of the STM, where $R$ opens a second
# way back (exercise 3). A tiny example shows what that does to learning. Let the "network" be $m_t = w \, m_{t-1}$ with
# $m_0 = 1$, so $m_T = w^T$; let $T = 40$, and let the wanted answer be ½. Loss and derivative are
#
# $$ \text{loss} = \tfrac12 (w^T - \tfrac12)^2, \qquad dw = (w^T - \tfrac12) \, T \, w^{T-1} . $$


# %%
def cliff(w: float, T: int = 40) -> tuple[float, float]:
    """The loss and its derivative."""
    error = w**T - 0.5
    return 0.5 * error**2, error * T * w ** (T - 1)


for w in (0.95, 1.0, 1.05, 1.1):
    print(f"w = {w:4.2f}   loss {cliff(w)[0]:9.4f}   dw {cliff(w)[1]:9.1f}")

rate, start = 0.002, 1.1
thrown = start - rate * cliff(start)[1]
print(f"one step from {start}: w = {thrown:.0f}")
assert thrown < -100

# %% [markdown]
# The loss has a cliff. At its foot a learning rate of 0.002 is reasonable; on its wall the derivative is tens of
# thousands, and one single step throws $w$ from 1.1 to −146, from where nobody comes back. The *direction* was right.
# Only the length was absurd. So keep the direction and limit the length, which is **gradient clipping**:
#
# $$ g \leftarrow g \cdot \min\!\Big(1, \frac{c}{\lVert g \rVert}\Big) . $$
#
# ```python
# # stg_np/optim/clip.py
# def clip_by_norm(grads: Params, max_norm: float) -> Params:
#     check_number("max_norm", max_norm, above=0)
#     xp = get_xp(grads.flat)
#     norm = xp.sqrt((grads.flat * grads.flat).sum())
#     scale = xp.where(xp.isfinite(norm), max_norm / xp.maximum(norm, max_norm), nan)
#     return grads.with_flat(grads.flat * scale)
# ```
#
# The norm is that of *all* gradients together, as one long vector. If each array were clipped by itself, the direction
# would change.

# %%
pair = Layout((Entry("W", (2, 3), "matrix"), Entry("b", (3,), "vector")))
long_gradient = Params(pair, 100 * rng.standard_normal(pair.size))
short_gradient = Params(pair, 0.001 * rng.standard_normal(pair.size))
clipped = clip_by_norm(long_gradient, 5.0)

assert np.isclose(np.linalg.norm(clipped.flat), 5)  # the length is cut …
cosine = clipped.flat @ long_gradient.flat / np.linalg.norm(clipped.flat) / np.linalg.norm(long_gradient.flat)
assert np.isclose(cosine, 1)  # … the direction kept …
assert np.array_equal(clip_by_norm(short_gradient, 5.0).flat, short_gradient.flat)  # … a short one left alone

# %% [markdown]
# Down the cliff again, with the same learning rate, and no gradient longer than 5:

# %%
one = Layout((Entry("w", (1,), "vector"),))
path = [start]
while len(path) <= 40:
    gradient = clip_by_norm(Params(one, np.array([cliff(path[-1])[1]])), 5.0)
    path.append(path[-1] - rate * float(gradient.flat[0]))
print(f"after 40 steps w = {path[-1]:.4f}, loss {cliff(path[-1])[0]:.1e}; the answer is {0.5 ** (1 / 40):.4f}")
assert abs(path[-1] - 0.5 ** (1 / 40)) < 1e-4

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
grid = np.linspace(0.93, 1.105, 400)
left.semilogy(grid, [cliff(w)[0] for w in grid], color="0.5")
left.semilogy(path, [cliff(w)[0] for w in path], "o", markersize=4, label="clipped at 5")
left.set(title="the cliff", xlabel="w", ylabel="loss", ylim=(1e-6, 2e3))
left.annotate("without clipping: \nnext w = −146", (1.1, cliff(1.1)[0]), (0.94, 60), arrowprops={"arrowstyle": "<-"})
left.legend(loc="lower right")
right.plot(path, "o-", markersize=4, label="w, clipped")
right.axhline(0.5 ** (1 / 40), linestyle=":", color="0.5", label="the answer")
right.set(title="first a steady walk, then a landing", xlabel="step", ylabel="w")
right.legend()
figure.savefig("05_clipping.svg")

# %% [markdown]
# Clipping cures explosion only. A gradient that has vanished cannot be made longer: its direction is lost in what the
# near steps say, and in rounding.

# %% [markdown]
# ## Does it matter in practice?
# The **adding problem** was made to find out. A sequence of random numbers, two of them marked; the answer is the sum
# of the marked two. Whoever answers 1 each time, the mean, has a mean squared error of 1/6 ≈ 0.167. To do better one
# must carry a number from its mark to the end.

# %%
T, H, B = 16, 16, 32
x, target = adding_problem(rng, 20_000, T, np.float64)
target = target.reshape(-1)
print("values", x[0, :, 0].round(2), "marks", x[0, :, 1].astype(int), f"answer {target[0]:.2f}", sep="\n")

assert np.allclose((x[..., 0] * x[..., 1]).sum(1), target)
assert abs(np.mean((target - 1) ** 2) - 1 / 6) < 0.01

# %% [markdown]
# Both networks get the same 16 memory cells, the same linear head on the last memory, the same optimizer (AdamW:
# chapter 7), the same batches. They differ in nothing but the way from $m_{t-1}$ to $m_t$.


# %%
HEAD = (Entry("V", (H, 1), "head"), Entry("c", (1,), "vector"))
STM_LAYOUT = Layout((Entry("W", (2, 4 * H), "matrix"), Entry("b", (4 * H,), "vector"), *HEAD))
RNN_LAYOUT = Layout((Entry("W", (2, H), "matrix"), Entry("R", (H, H), "matrix"), Entry("b", (H,), "vector"), *HEAD))


def head(m_T: Array, target: Array, params: Params) -> tuple[float, Array, dict[str, Array]]:
    """The mean squared error of ``m_T V + c``, dm_T, and the gradients of V and c."""
    error = (m_T @ params["V"] + params["c"])[:, 0] - target
    doutput = 2 * error[:, None] / len(error)
    return float(np.mean(error**2)), doutput @ params["V"].T, {"V": m_T.T @ doutput, "c": doutput.sum(0)}


def stm_loss(params: Params, x: Array, target: Array) -> tuple[float, Params]:
    """Loss and gradient with the STM; its outputs y are not used, only the last memory."""
    own = STMParams(params["W"], params["b"])
    (y, m_T), cache = stm_forward(x, np.zeros((len(x), H)), own)
    loss, dm_T, grads = head(m_T, target, params)
    _, _, down = stm_backward(np.zeros_like(y), dm_T, cache, own)
    return loss, Params.pack(STM_LAYOUT, grads | {"W": down.W, "b": down.b})


def rnn_loss(params: Params, x: Array, target: Array) -> tuple[float, Params]:
    """Loss and gradient with the plain recurrent network."""
    m_T, cache = rnn_forward(x, np.zeros((len(x), H)), params["W"], params["R"], params["b"])
    loss, dm_T, grads = head(m_T, target, params)
    down, _ = rnn_backward(dm_T, cache)
    return loss, Params.pack(RNN_LAYOUT, grads | {name: down[name] for name in ("W", "R", "b")})


LossOf: TypeAlias = Callable[[Params, Array, Array], tuple[float, Params]]


def train(loss_of: LossOf, params: Params, steps: int = 200) -> tuple[Params, list[float]]:
    """Clip, update, repeat; every batch is new. The trained parameters, and the loss of every step."""
    rng, rule = np.random.default_rng(5), AdamW(learning_rate=0.04)
    moments, losses = rule.init(params), []
    for step in range(steps):
        x, target = adding_problem(rng, B, T, np.float64)
        loss, gradient = loss_of(params, x, target.reshape(-1))
        params, moments = rule.update(clip_by_norm(gradient, 1.0), moments, params, 1 - step / steps)
        losses.append(loss)
    return params, losses


def head_start(rng: np.random.Generator) -> dict[str, Array]:
    return {"V": rng.standard_normal((H, 1)) / np.sqrt(H), "c": np.zeros(1)}


def stm_start(seed: int) -> Params:
    rng = np.random.default_rng(seed)
    fresh = init_stm(rng, 2, H, length=T)
    return Params.pack(STM_LAYOUT, {"W": fresh.W, "b": fresh.b} | head_start(rng))


def rnn_start(seed: int) -> Params:
    rng = np.random.default_rng(seed)
    W, R = rng.standard_normal((2, H)) / np.sqrt(2), rng.standard_normal((H, H)) / np.sqrt(H)
    return Params.pack(RNN_LAYOUT, {"W": W, "R": R, "b": np.zeros(H)} | head_start(rng))


stm_params, stm_losses = train(stm_loss, stm_start(0))
rnn_params, rnn_losses = train(rnn_loss, rnn_start(0))
x_new, target_new = x[:2000], target[:2000]
stm_error, rnn_error = stm_loss(stm_params, x_new, target_new)[0], rnn_loss(rnn_params, x_new, target_new)[0]
print(f"error on new sequences: STM {stm_error:.2f}, plain {rnn_error:.2f}, always answering 1: 0.17")

assert stm_error < 0.03
assert rnn_error > 0.1

# %% [markdown]
# What has the update gate learned? To open at a mark, and to stay almost closed elsewhere: chapter 1's little gate,
# found again by 16 cells at once. Where it is closed, the gradient passes.

# %%
u = stm_forward(x_new, np.zeros((2000, H)), STMParams(stm_params["W"], stm_params["b"]))[1].gates.u
marked = x_new[..., 1] == 1
difference = u[marked].mean(0) - u[~marked].mean(0)
best = int(difference.argmax())
print(f"update gates at a mark {u[marked].mean():.2f}, elsewhere {u[~marked].mean():.2f}")
assert u[marked].mean() > 1.5 * u[~marked].mean()
assert difference[best] > 0.1

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.semilogy(np.convolve(rnn_losses, np.ones(10) / 10, "valid"), label="plain recurrent network")
left.semilogy(np.convolve(stm_losses, np.ones(10) / 10, "valid"), label="STM")
left.axhline(1 / 6, linestyle=":", color="0.5", label="always answering 1")
left.set(title="the adding problem, T = 16", xlabel="step", ylabel="mean squared error")
left.legend()
steps = np.arange(1, T + 1)
for label, where in (("not marked", ~marked[0]), ("marked", marked[0])):
    right.bar(steps[where], u[0, where, best], label=label)
right.set(title=f"update gate of cell {best}, one sequence", xlabel="step t", ylabel="$u_t$", xticks=steps[::3])
right.legend()
figure.savefig("05_adding.svg")

# %% [markdown]
# All this was the plain path, the code one reads. A training by `stg-np train` takes a faster one, with the same
# result:

# %%
own = STMParams(stm_params["W"], stm_params["b"])
fast = stm_cell(x_new, STMKind(), Workspace())
(_, m_fast), kept = fast.forward(x_new[:B], np.zeros((B, H)), own)
(y, m_plain), cache = stm_forward(x_new[:B], np.zeros((B, H)), own)
dW_fast = fast.backward(np.zeros_like(y), m_plain, kept, own)[2].W
dW_plain = stm_backward(np.zeros_like(y), m_plain, cache, own)[2].W
assert np.allclose(m_fast, m_plain, rtol=0, atol=1e-12)
assert np.allclose(dW_fast, dW_plain, rtol=0, atol=1e-12)

# %% [markdown]
# ## In the field's words
# * **Vanishing gradient**: found by Hochreiter (1991, diploma thesis, in German) and by Bengio, Simard & Frasconi
#   (1994, "Learning long-term dependencies with gradient descent is difficult"). **Exploding gradient** and **gradient
#   clipping**: Pascanu, Mikolov & Bengio (2013, arXiv:1211.5063), from whom the bound and the cliff above are.
# * The product of the Jacobians $\partial m_t / \partial m_{t-1}$ over all steps decides; walking it back is
#   **backpropagation through time** (Werbos 1990).
# * LSTM (Hochreiter & Schmidhuber 1997) kept that factor at exactly 1, the **constant error carousel**: no update gate
#   took anything away. It then filled up, and a **forget gate** was added (Gers, Schmidhuber & Cummins 2000). Our
#   $1 - u_t$ is that forget gate.
# * Time scales set through the bias: **chrono initialisation** (Tallec & Ollivier 2018, arXiv:1804.11188). Gated linear
#   recurrences without a matrix in the way: Martin & Cundy (2018, arXiv:1709.04057).
# * The adding problem: Hochreiter & Schmidhuber 1997. At T = 600 even an LSTM fails at it in the comparison of Bai,
#   Kolter & Koltun (2018, arXiv:1803.01271); ours was a short one.
#
# ## Summary
# * Going back one step multiplies a gradient. Below 1 it vanishes, above 1 it explodes, both exponentially.
# * In a plain network the factor is a matrix and the slopes of tanh. In the STM it is $1 - u$, cell by cell: it cannot
#   explode, it still vanishes, and its rate $\tau = 1/u$ is learned.
# * Clipping keeps the direction of a gradient and limits its length.
#
# ## Exercises
# Solutions: [05_how_far_a_gradient_travels.py](../solutions/05_how_far_a_gradient_travels.py).
#
# **1. Kill it.** Start the STM of the adding problem with $b_u = 4$ in all cells. What is τ? What is left of a gradient
# after 8 steps? Train it, and compare. Then start with $b_u = -12$. This looks even more dead, for the gate hardly
# opens. Why does it learn?
#
# <details><summary>Hint</summary>
#
# $\tau = 1/\sigma(b_u)$. For the second part: a gradient that is small in *every* entry is not lost, only short. What
# does AdamW divide by? (Chapter 7.)
# </details>
#
# **2. How long a memory do you need?** A gradient should keep a tenth of its length over 100 steps. Which τ, and which
# $b_u$, does it need at least? Find a formula for any part and any distance, and a rule of thumb.
#
# <details><summary>Hint</summary>
#
# Solve $(1 - 1/\tau)^k = p$ for τ. For small $x$, $\log(1 - x) \approx -x$.
# </details>
#
# **3. The way through R.** In the recurrent form (`stg_np/stm_recurrent.py`) the gates see the memory through a matrix.
# Draw ‖dm_t‖ against the distance for an $R$ of small, medium and large entries. Does the STM explode now?
#
# <details><summary>Hint</summary>
#
# `stm_recurrent_backward` on the last $k$ steps only gives $dm_{T-k}$ as its `dm_0`: chunks of a sequence can be
# chained.
# </details>
