# %% [markdown]
# # 5 · 梯度能走多远
#
# 一个网络读一百步，到最后才回答一次。如果答错是因为第一步，梯度就得往回走一百步去告诉它。到达时还剩什么？通常什么也不剩，有时又大得离谱；整个门控网络家族就是为此而发明的。
#
# **你将学到**
# * 普通循环网络的梯度为什么在往回走的路上消失或爆炸，速率又是多少；
# * 门改变了其中的什么，又*没有*改变什么；
# * 梯度太长时怎样截短。

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
# ## 一个数连乘一百次会怎样？
# 由链式法则，每往回一步，梯度都要乘上某个东西。设它是一个数 r，k 步之后梯度就是原来的 r^k 倍：

# %%
for r in (0.5, 0.9, 0.99, 1.0, 1.01, 1.1, 2.0):
    print(f"r = {r:4.2f}   after 10 steps {r**10:9.2e}   after 100 steps {r**100:9.2e}")

assert 0.9**100 < 1e-4
assert 1.1**100 > 1e4

# %% [markdown]
# 结局有三种，没有第四种。小于 1 则**消失**，大于 1 则**爆炸**，只有*恰好*为 1 才能持久。只差百分之十，一百步之后就相差万倍。这并非神经网络所独有，复利也是如此。

# %% [markdown]
# ## 在普通循环网络里，这个数是什么？
# 最早的循环网络没有门，它的记忆每一步都重新混合：
#
# $$ a_t = x_t W + m_{t-1} R + b, \qquad m_t = \tanh(a_t) . $$
#
# 现在往回走。按第 4 章的规则，梯度先经过 tanh，其导数为 $1 - m_t^2$，再经过与 $R$ 的乘积：
#
# $$ da_t = dm_t \odot (1 - m_t^2), \qquad dm_{t-1} = da_t R^\top . $$
#
# 所以每往回一步，梯度要乘以 tanh 的斜率（至多为 1），*还要乘以一个矩阵*，而且每次都是同一个矩阵。下面是完整的前向与反向。


# %%
class RNNCache(NamedTuple):
    x: Array  # (B, T, D)
    memories: Array  # (B, T + 1, H)，m_0 在最前
    W: Array
    R: Array


def rnn_forward(x: Array, m_0: Array, W: Array, R: Array, b: Array) -> tuple[Array, RNNCache]:
    """x (B, T, D) 与 m_0 (B, H) -> 最后的记忆 m_T (B, H)。"""
    memories = [m_0]
    for t in range(x.shape[1]):
        memories.append(np.tanh(x[:, t] @ W + memories[-1] @ R + b))
    return memories[-1], RNNCache(x, np.stack(memories, 1), W, R)


def rnn_backward(dm_T: Array, cache: RNNCache) -> tuple[dict[str, Array], list[Array]]:
    """每个自变量的梯度（按名称）；另有 dm_T, dm_{T−1}, …, dm_0，供观察。"""
    x, memories, W, R = cache
    dx, dW, dR, db = np.zeros_like(x), np.zeros_like(W), np.zeros_like(R), np.zeros_like(R[0])
    dms = [dm_T]
    for t in reversed(range(x.shape[1])):
        da = dms[-1] * (1 - memories[:, t + 1] ** 2)  # 经过 tanh
        dx[:, t] = da @ W.T
        dW += x[:, t].T @ da
        dR += memories[:, t].T @ da
        db += da.sum(0)
        dms.append(da @ R.T)  # 经过 m_{t−1} R
    return {"x": dx, "m_0": dms[-1], "W": dW, "R": dR, "b": db}, dms


# %% [markdown]
# 反向是手写的，所以先检查，再相信它的话。（检查的原理见第 6 章。）

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
# 现在上路：输入是 100 步小的随机数，64 个记忆单元，末尾送入一个随机的梯度。$R$ 的元素是随机数，标准差为 $g / \sqrt H$；$g$ 表示反馈有多强。


# %%
def rnn_lengths(g: float, steps: int = 100, H: int = 64) -> tuple[Array, float]:
    """距离 0 … steps 处的 ‖dm_t‖ / ‖dm_T‖，以及 R 最多能把向量拉长多少倍。"""
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
# 能否预先说出是哪种结局？部分能。乘以 $R$ 至多把向量拉长到其最大奇异值（记作 $\lVert R \rVert_2$）那么多倍，tanh 的斜率只会使它更短。所以 $k$ 步之后
#
# $$ \lVert dm_{T-k} \rVert \le \lVert R \rVert_2^k \, \lVert dm_T \rVert . $$
#
# 若 $\lVert R \rVert_2 < 1$，梯度*必然*消失。要爆炸，*必须*有 $\lVert R \rVert_2 > 1$，但光有这个还不够：tanh 可能把它压住，表中间那一行就是例子。

# %%
for lengths, stretch in walks.values():
    assert (lengths <= stretch ** np.arange(101.0) * (1 + 1e-12)).all()
assert walks[1.0][1] > 1 > walks[1.0][0][-1]

# %% [markdown]
# ## 门又是怎么做的？
# STM 的记忆既不经过矩阵，也不经过 tanh：
#
# $$ m_t = (1 - u_t) \odot m_{t-1} + u_t \odot v_t . $$
#
# 在只看输入的形式里，$u_t$ 和 $v_t$ 对 $m_{t-1}$ 一无所知。所以 $m_t$ 对 $m_{t-1}$ 的导数就是 $1 - u_t$，逐单元成立；往回走过所有的步，就把它们全部相乘：
#
# $$ dm_0 = \Big( \prod_{t=1}^{T} (1 - u_t) \Big) \odot dm_T . $$
#
# 这是等式，不是上界。让门看随机的输入，程序包自己的反向也这样说：

# %%
x, m_0 = rng.standard_normal((4, 30, D)), np.zeros((4, H))
fresh = init_stm(rng, D, H, length=30)
(y, m_T), cache = stm_forward(x, m_0, fresh)
dm_T = rng.standard_normal(m_T.shape)
dm_0 = stm_backward(np.zeros_like(y), dm_T, cache, fresh)[1]

assert np.allclose(dm_0, (1 - cache.gates.u).prod(1) * dm_T, rtol=1e-12, atol=0)

# %% [markdown]
# 由此立刻得到两点。每个因子都在 0 与 1 之间，所以不论参数是什么，这个梯度**不可能爆炸**。而且每个单元有自己的速率：没有矩阵把它们混在一起。门恒为 $u = 1/\tau$ 时，距离 $k$ 处的梯度是 $(1 - 1/\tau)^k$，在对数坐标里是一条直线。第 1 章的时间尺度 $\tau$ 既说明记忆能保持多久，也说明梯度能走多远。两者是同一个数，因为一个就是另一个的导数。

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
# 请把图从左往右读，当作往回走的时间。左图中，三个矩阵只有大小不同，最后竟相差二十多个数量级。右图中没有一条线上升，而斜率是一个由偏置设定的数。

# %% [markdown]
# ## 门消除了梯度消失吗？
# 常听人这么说。不对：再看右图，所有的线都在下降。小于 1 的因子 $1 - u$ 仍是小于 1 的因子，$(1-u)^T$ 仍会消失：

# %%
for tau in (16, 256):
    for k in (100, 1000, 10_000):
        print(f"τ = {tau:3d}   after {k:6,d} steps {(1 - 1 / tau) ** k:.0e}")

assert (1 - 1 / 16) ** 100 < 0.01
assert (1 - 1 / 16) ** 1000 < 1e-27
assert (1 - 1 / 256) ** 10_000 < 1e-16

# %% [markdown]
# 门真正改变的是：
#
# 1. 速率**可以学习**。它取决于一个偏置 $b_u$，而不取决于某个矩阵的奇异值——那个矩阵同时还有别的工作要做。
# 2. 速率**可以不同**，因单元而异，也因步而异：门关上一阵（$u_t \approx 0$），梯度在这一阵就毫发无损地通过；门打开，梯度就到此为止，而这是有意的。
# 3. 沿着记忆，梯度**不可能爆炸**。
#
# 所以，门控网络遗忘得并不比别的网络少。它只是学会了在无妨遗忘的地方遗忘。

# %% [markdown]
# ## 爆炸了怎么办？
# 凡经过矩阵的都可能爆炸：上面的普通网络，还有 STM 的循环形式，那里 $R$ 开了第二条往回的路（习题 3）。一个极小的例子可以说明爆炸对学习的影响。设“网络”为 $m_t = w \, m_{t-1}$，$m_0 = 1$，于是 $m_T = w^T$；取 $T = 40$，想要的答案是 ½。损失及其导数为
#
# $$ \text{loss} = \tfrac12 (w^T - \tfrac12)^2, \qquad dw = (w^T - \tfrac12) \, T \, w^{T-1} . $$


# %%
def cliff(w: float, T: int = 40) -> tuple[float, float]:
    """损失及其导数。"""
    error = w**T - 0.5
    return 0.5 * error**2, error * T * w ** (T - 1)


for w in (0.95, 1.0, 1.05, 1.1):
    print(f"w = {w:4.2f}   loss {cliff(w)[0]:9.4f}   dw {cliff(w)[1]:9.1f}")

rate, start = 0.002, 1.1
thrown = start - rate * cliff(start)[1]
print(f"one step from {start}: w = {thrown:.0f}")
assert thrown < -100

# %% [markdown]
# 损失有一道悬崖。在崖脚，0.002 的学习率很合理；在崖壁上，导数有数万之大，仅仅一步就把 $w$ 从 1.1 抛到 −146，再也回不来。*方向*是对的，荒唐的只是长度。所以保留方向，限制长度，这就是**梯度裁剪**：
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
# 这里的范数是*所有*梯度连成一个长向量的范数。如果每个数组各自裁剪，方向就变了。

# %%
pair = Layout((Entry("W", (2, 3), "matrix"), Entry("b", (3,), "vector")))
long_gradient = Params(pair, 100 * rng.standard_normal(pair.size))
short_gradient = Params(pair, 0.001 * rng.standard_normal(pair.size))
clipped = clip_by_norm(long_gradient, 5.0)

assert np.isclose(np.linalg.norm(clipped.flat), 5)  # 长度截短了……
cosine = clipped.flat @ long_gradient.flat / np.linalg.norm(clipped.flat) / np.linalg.norm(long_gradient.flat)
assert np.isclose(cosine, 1)  # ……方向保留……
assert np.array_equal(clip_by_norm(short_gradient, 5.0).flat, short_gradient.flat)  # ……短的则不动

# %% [markdown]
# 再下一次悬崖，学习率不变，但梯度的长度不许超过 5：

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
# 裁剪只能治爆炸。消失了的梯度无法再变长：它的方向已淹没在近处各步的声音里，淹没在舍入误差里。

# %% [markdown]
# ## 实践中要紧吗？
# **加法问题**就是为弄清这一点而设计的。一列随机数，其中两个带标记，答案是这两个数之和。每次都答平均值 1，均方误差是 1/6 ≈ 0.167。要做得更好，就必须把一个数从标记处一直带到末尾。

# %%
T, H, B = 16, 16, 32
x, target = adding_problem(rng, 20_000, T, np.float64)
target = target.reshape(-1)
print("values", x[0, :, 0].round(2), "marks", x[0, :, 1].astype(int), f"answer {target[0]:.2f}", sep="\n")

assert np.allclose((x[..., 0] * x[..., 1]).sum(1), target)
assert abs(np.mean((target - 1) ** 2) - 1 / 6) < 0.01

# %% [markdown]
# 两个网络用同样的 16 个记忆单元、最后记忆上同样的线性输出层、同样的优化器（AdamW，见第 7 章）和同样的批次。不同之处只有一个：从 $m_{t-1}$ 到 $m_t$ 怎么走。


# %%
HEAD = (Entry("V", (H, 1), "head"), Entry("c", (1,), "vector"))
STM_LAYOUT = Layout((Entry("W", (2, 4 * H), "matrix"), Entry("b", (4 * H,), "vector"), *HEAD))
RNN_LAYOUT = Layout((Entry("W", (2, H), "matrix"), Entry("R", (H, H), "matrix"), Entry("b", (H,), "vector"), *HEAD))


def head(m_T: Array, target: Array, params: Params) -> tuple[float, Array, dict[str, Array]]:
    """``m_T V + c`` 的均方误差、dm_T，以及 V 和 c 的梯度。"""
    error = (m_T @ params["V"] + params["c"])[:, 0] - target
    doutput = 2 * error[:, None] / len(error)
    return float(np.mean(error**2)), doutput @ params["V"].T, {"V": m_T.T @ doutput, "c": doutput.sum(0)}


def stm_loss(params: Params, x: Array, target: Array) -> tuple[float, Params]:
    """用 STM 时的损失和梯度；不用它的输出 y，只用最后的记忆。"""
    own = STMParams(params["W"], params["b"])
    (y, m_T), cache = stm_forward(x, np.zeros((len(x), H)), own)
    loss, dm_T, grads = head(m_T, target, params)
    _, _, down = stm_backward(np.zeros_like(y), dm_T, cache, own)
    return loss, Params.pack(STM_LAYOUT, grads | {"W": down.W, "b": down.b})


def rnn_loss(params: Params, x: Array, target: Array) -> tuple[float, Params]:
    """用普通循环网络时的损失和梯度。"""
    m_T, cache = rnn_forward(x, np.zeros((len(x), H)), params["W"], params["R"], params["b"])
    loss, dm_T, grads = head(m_T, target, params)
    down, _ = rnn_backward(dm_T, cache)
    return loss, Params.pack(RNN_LAYOUT, grads | {name: down[name] for name in ("W", "R", "b")})


LossOf: TypeAlias = Callable[[Params, Array, Array], tuple[float, Params]]


def train(loss_of: LossOf, params: Params, steps: int = 200) -> tuple[Params, list[float]]:
    """裁剪、更新、重复；每一批都是新的。返回训练好的参数和每一步的损失。"""
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
# 更新门学会了什么？在标记处打开，在别处几乎关着：这就是第 1 章那个小小的门，这次由 16 个单元同时发现。门关着的地方，梯度就能通过。

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
# 以上走的都是朴素路径，即供人阅读的代码。用 `stg-np train` 训练时走的是更快的一条，结果相同：

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
# ## 用本领域的话说
# * **梯度消失**（vanishing gradient）：由 Hochreiter（1991，德文学位论文）以及 Bengio, Simard & Frasconi（1994，“Learning long-term dependencies with gradient descent is difficult”）发现。**梯度爆炸**（exploding gradient）与**梯度裁剪**（gradient clipping）：Pascanu, Mikolov & Bengio（2013, arXiv:1211.5063），上文的上界和悬崖都出自他们。
# * 起决定作用的是雅可比矩阵 $\partial m_t / \partial m_{t-1}$ 在所有步上的乘积；沿它往回走就是**随时间反向传播**（Werbos 1990）。
# * LSTM（Hochreiter & Schmidhuber 1997）让这个因子恰好保持为 1，称为**恒定误差传送带**：没有更新门从中拿走任何东西。结果它会越积越满，于是加上了**遗忘门**（Gers, Schmidhuber & Cummins 2000）。我们的 $1 - u_t$ 就是那个遗忘门。
# * 用偏置设定时间尺度：**chrono 初始化**（Tallec & Ollivier 2018, arXiv:1804.11188）。途中没有矩阵的门控线性递推：Martin & Cundy（2018, arXiv:1709.04057）。
# * 加法问题：Hochreiter & Schmidhuber 1997。在 Bai, Kolter & Koltun（2018, arXiv:1803.01271）的比较中，T = 600 时连 LSTM 也做不成；我们这里的是短的。
#
# ## 小结
# * 每往回一步，梯度都要乘一个因子：小于 1 则消失，大于 1 则爆炸，都是指数式的。
# * 在普通网络里，这个因子是一个矩阵和 tanh 的斜率。在 STM 里是 $1 - u$，逐单元相乘：它不会爆炸，仍会消失，而速率 $\tau = 1/u$ 是学出来的。
# * 裁剪保留梯度的方向，限制它的长度。
#
# ## 习题
# 解答：[05_how_far_a_gradient_travels.py](../../solutions/05_how_far_a_gradient_travels.py)。
#
# **1. 让它学不成。** 让加法问题的 STM 从所有单元 $b_u = 4$ 开始。τ 是多少？8 步之后梯度还剩多少？训练它，作比较。然后从 $b_u = -12$ 开始：看起来更没指望，因为门几乎不开。为什么它反而学得会？
#
# <details><summary>提示</summary>
#
# $\tau = 1/\sigma(b_u)$。关于后一半：*每个*元素都小的梯度并没有丢失，只是短。AdamW 除以的是什么？（第 7 章。）
# </details>
#
# **2. 需要多长的记忆？** 希望梯度走过 100 步还保有十分之一的长度。τ 至少要多大，相应的 $b_u$ 是多少？对任意的比例和距离求出公式，再找一条经验法则。
#
# <details><summary>提示</summary>
#
# 从 $(1 - 1/\tau)^k = p$ 解出 τ。$x$ 很小时，$\log(1 - x) \approx -x$。
# </details>
#
# **3. 经过 R 的路。** 在循环形式（`stg_np/stm_recurrent.py`）里，门通过一个矩阵看到记忆。分别取元素小、中、大的 $R$，画出 ‖dm_t‖ 随距离的变化。现在 STM 会爆炸吗？
#
# <details><summary>提示</summary>
#
# 只对最后 $k$ 步调用 `stm_recurrent_backward`，它的 `dm_0` 就是 $dm_{T-k}$：序列的各段可以接起来。
# </details>
