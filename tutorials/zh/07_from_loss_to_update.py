# %% [markdown]
# # 7 · 从损失到更新
#
# 网络的末端是十个数，每个类别一个。怎样把“错”变成一个可以减小的数？有了它的梯度，又怎样才算走了一步好棋？在 logits 与新的权重之间，只有两小段代码，而这个领域的大半门道就在其中。
#
# **你将学到**
# * softmax 和它的交叉熵从何而来，梯度为什么这样简单；
# * 为什么损失为 0.5 也可能是完美的；
# * 动量、Adam 和 Muon 各弥补了什么，学习率为什么先升后降。

# %%
import math
from collections.abc import Callable
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from stg_np import data
from stg_np.backend import Array
from stg_np.gradcheck import check_pair
from stg_np.ops.losses import cross_entropy_backward, cross_entropy_forward, log_softmax
from stg_np.optim import SCHEDULES, SGD, AdamW, ByRole, Muon, Optimizer, orthogonalised
from stg_np.params import Entry, Layout, Params

plt.style.use("stg_np.tutorial")
rng = np.random.default_rng(0)

# %% [markdown]
# ## 十个数怎样变成概率？
# 最后一层给每个类别一个数 $\ell_k$，叫做 **logit**：可以是任意实数，越大越表示“我看是这一类”。概率必须为正，且和为 1。取指数，每个数就都变成正的；再除以总和就行了。这就是 **softmax**：
#
# $$ p_k = \frac{e^{\ell_k}}{\sum_j e^{\ell_j}} . $$
#
# 所有 logits 加上同一个常数，分子分母乘上同一个数，结果不变。所以可以先减去最大的 logit，这样就不会溢出（$e^{1000}$ 超出计算机的表示范围，$e^0$ 则不会）。

# %%
logits = np.array([2.0, 1.0, -1.0])
p = np.exp(logits) / np.exp(logits).sum()
print("logits", logits, "→ probabilities", p.round(3))

assert np.isclose(p.sum(), 1)
assert np.allclose(np.exp(log_softmax(logits + 1000)), p)  # 程序包先减去最大的

# %% [markdown]
# ## 怎样算答错？
# 设 $q_k$ 为目标：正确的类别为 1，其余为 0。好的回答给正确的类别很高的概率。损失就取这个概率的负对数；为了对不是 0 和 1 的目标也成立，写成
#
# $$ \text{loss} = -\sum_k q_k \log p_k , $$
#
# 即 $p$ 与 $q$ 的**交叉熵**。为什么取对数？因为把许多样本*全部*答对的概率，是各个概率的乘积；取对数，乘积就变成和，每个样本一项。一无所知的网络给 $C$ 个类别各 $p = 1/C$，所以损失从 $\log C$ 起步：十类时为 2.303。

# %%
nothing = np.zeros((1, 10))
ignorant = cross_entropy_forward(nothing, np.array([3]))[0]
print(f"knowing nothing: {ignorant[0]:.3f} = log 10")
assert np.isclose(ignorant[0], math.log(10))

# %% [markdown]
# ## 它的梯度是什么？
# 三行就够。把 softmax 代入对数，
#
# $$ \log p_k = \ell_k - \log \sum_j e^{\ell_j} ; $$
#
# 再代入损失，并注意目标之和为 1，
#
# $$ \text{loss} = -\sum_k q_k \ell_k + \log \sum_j e^{\ell_j} ; $$
#
# 然后求导。第一部分得 $-q_k$；第二部分得 $e^{\ell_k} / \sum_j e^{\ell_j}$，也就是 $p_k$：
#
# $$ d\ell_k = p_k - q_k . $$
#
# 网络所说的，减去它本该说的。仅此而已。下面是程序包里的几行；有许多样本时，每行有自己的损失，`dlosses` 说明每个损失占多少分量（对 B 个样本的一批取平均，就是 1/B）。
#
# ```python
# # stg_np/ops/losses.py
# def cross_entropy_backward(dlosses: Array, cache: CrossEntropyCache) -> Array:
#     return (cache.probabilities - cache.targets) * dlosses[:, None]
# ```

# %%
B, C = 5, 4
logits, labels = rng.standard_normal((B, C)), rng.integers(0, C, B)
losses, cache = cross_entropy_forward(logits, labels)
p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
q = np.eye(C)[labels]
dlogits = cross_entropy_backward(np.full(B, 1 / B), cache)
print(dlogits.round(3))

assert np.allclose(losses, -np.log(p[np.arange(B), labels]))
assert np.allclose(dlogits, (p - q) / B)
check_pair(lambda logits: cross_entropy_forward(logits, labels), cross_entropy_backward, {"logits": logits}).assert_ok()

# %% [markdown]
# 看其中一行：只有正确的类别处为负，它增加的，正是从其他类别取走的。**每一行之和都是 0。** 这是必然的，两个理由其实是一个：$\sum p = \sum q = 1$；而且所有 logits 一起平移不改变任何概率，沿这个方向也就不可能有斜率。（检查这类代码时，这是个趁手的办法。）

# %%
assert np.abs(dlogits.sum(1)).max() < 1e-15
assert ((dlogits < 0) == (q == 1)).all()

# %% [markdown]
# ## 损失能到 0 吗？
# “我们一直训练到损失为 0。”设错误类别的 logits 都相等，正确的那个比它们大 $g$（差距）。那么正确类别的概率是 $1 / (1 + (C-1) e^{-g})$，损失是 $\log(1 + (C-1) e^{-g})$。只要 $g$ 有限，损失就大于 0。要接近 0，差距就得无限增大，权重也随之增大：网络被逼着变得*确信无疑*，对标错的图片也是如此。
#
# **标签平滑**（label smoothing）消除了这种压力。目标中的 $s$ 这一份由所有类别平分：对正确的类别要求 $1 - s + s/C$，对其余每个类别要求 $s/C$。于是梯度 $p - q$ 在*有限*的差距处、即 $p = q$ 时为零。但那里的损失不是 0，而是
#
# $$ \text{下限} = -\sum_k q_k \log q_k , $$
#
# 即目标自身的**熵**。没有哪个网络能做得更好。（证明见习题 1。）


# %%
def smooth_target(s: float, C: int) -> Array:
    """类别 0 的一个样本的目标。"""
    q = np.full(C, s / C)
    q[0] += 1 - s
    return q


def floor(s: float, C: int) -> float:
    q = smooth_target(s, C)
    return float(-(q * np.log(q)).sum())


for s in (0.05, 0.09, 0.1, 0.2):
    print(f"s = {s:4.2f}   floor with 10 classes {floor(s, 10):.3f}, with 100 classes {floor(s, 100):.3f}")

gaps = np.linspace(0, 12, 241)
figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
for k, s in enumerate((0.0, 0.1, 0.2)):
    ten = np.zeros((len(gaps), 10))
    ten[:, 0] = gaps
    curve = cross_entropy_forward(ten, np.zeros(len(gaps), int), label_smoothing=s)[0]
    axes.plot(gaps, curve, color=f"C{k}", label=f"s = {s:g}")
    if s:
        axes.axhline(floor(s, 10), color=f"C{k}", linestyle=":", linewidth=1.2)
        axes.text(11.9, floor(s, 10) - 0.02, f"floor {floor(s, 10):.3f}", ha="right", va="top", color=f"C{k}")
        assert curve.min() >= floor(s, 10)
        assert abs(gaps[curve.argmin()] - math.log((1 - s + s / 10) / (s / 10))) < 0.05  # p = q 时的差距
    else:
        assert curve.min() > 0
axes.set(xlabel="gap between the right logit and the others", ylabel="loss", ylim=(0, 2.4), title="Ten classes")
axes.legend(loc="upper center")
figure.savefig("07_floor.svg")

assert round(floor(0.1, 10), 3) == 0.5

# %% [markdown]
# 取 $s = 0.1$、十个类别，下限是 **0.500**：0.55 的训练损失并不糟糕，而是近乎完美。所以读到一个损失，先问：平滑系数是多少？还要留意谷的另一侧：有了平滑，*过于确信*会受罚。（程序包的验证损失是不带平滑的，所以可能低于训练损失。）

# %% [markdown]
# ## 什么是好的一步？
# 梯度说的是哪边向上。最简单的规则是朝相反方向走一点，θ ← θ − η g，其中 η 是**学习率**。用随机抽取的一批样本来算，就叫**随机梯度下降**（SGD）。要看它的毛病在哪里，取一个两个参数的山谷，横向比纵向陡 20 倍：
#
# $$ f(\theta) = \tfrac12 (\theta_1^2 + 20\,\theta_2^2), \qquad g = (\theta_1, \; 20\,\theta_2) . $$
#
# 每一步把 $\theta_1$ 乘以 $1 - \eta$，把 $\theta_2$ 乘以 $1 - 20\eta$。又是第 5 章的道理：只有*两个*因子都在 −1 与 1 之间才收敛，所以 η 必须小于 $2/20$。可是 $\eta < 0.1$ 时，第一个参数只能爬行。最大曲率与最小曲率之比，这里是 20，叫做**条件数**；在神经网络里，它有几千。

# %%
STEEP = np.array([1.0, 20.0])
LAYOUT = Layout((Entry("theta", (2,), "vector"),))
START = np.array([-9.0, 1.5])


def valley(theta: Array) -> float:
    return 0.5 * float((STEEP * theta**2).sum())


def descend(rule: Optimizer, steps: int = 150) -> Array:
    """程序包的一种规则在山谷中走过的路径，(steps + 1, 2)。"""
    params, path = Params(LAYOUT, START), [START]
    moments = rule.init(params)
    for _ in range(steps):
        gradient = params.with_flat(STEEP * params.flat)
        params, moments = rule.update(gradient, moments, params, 1.0)
        path.append(params.flat)
    return np.stack(path)


slow, zigzag, lost = (descend(SGD(rate, momentum=0.0)) for rate in (0.01, 0.09, 0.101))
assert np.allclose(zigzag[:, 0], START[0] * (1 - 0.09) ** np.arange(151))
assert np.allclose(zigzag[:, 1], START[1] * (1 - 20 * 0.09) ** np.arange(151))  # 每次乘以 −0.8：来回摆动
assert valley(lost[-1]) > valley(START)  # 1 − 20 · 0.101 小于 −1

# %% [markdown]
# ## 动量弥补了什么？
# 横穿山谷的方向上，梯度每步变号；沿着山谷，它说的始终一样。那就把它们累加起来：变号的抵消，一致的增长。
#
# $$ \mu \leftarrow \beta \mu + g, \qquad \theta \leftarrow \theta - \eta \mu . $$
#
# 取 β = 0.9，一个保持不变的梯度会累加成它的 $1 + 0.9 + 0.81 + \dots = 10$ 倍。（不错：μ 就是梯度的泄漏记忆，时间尺度为 10。从第 1 章起，我们一直在研究优化器。）


# %%
def momentum_by_hand(rate: float, beta: float, steps: int = 150) -> Array:
    theta, mu, path = START, np.zeros(2), [START]
    for _ in range(steps):
        mu = beta * mu + STEEP * theta
        theta = theta - rate * mu
        path.append(theta)
    return np.stack(path)


heavy = descend(SGD(0.03, momentum=0.8, nesterov=False))
assert np.allclose(heavy, momentum_by_hand(0.03, 0.8), rtol=0, atol=1e-12)

# %% [markdown]
# ## Adam 弥补了什么？
# 同一个学习率，要照顾梯度相差千倍的各个参数。**Adam** 对每个参数测量其梯度通常有多大，再除以它。它保有两个泄漏记忆，分别记 $g$ 和 $g^2$：
#
# $$ \mu \leftarrow \beta_1 \mu + (1 - \beta_1)\, g, \qquad \nu \leftarrow \beta_2 \nu + (1 - \beta_2)\, g^2 . $$
#
# 两者都从 0 开始，所以起初偏小：$g$ 恒定时，$n$ 步之后记忆里只有它的 $(1 - \beta^n)$ 倍。除以这个数就校正了。于是
#
# $$ \theta \leftarrow \theta - \eta \, \frac{\hat \mu}{\sqrt{\hat \nu} + \epsilon}, \qquad
#    \hat \mu = \frac{\mu}{1 - \beta_1^n}, \quad \hat \nu = \frac{\nu}{1 - \beta_2^n} $$
#
# 其中 $\epsilon = 10^{-8}$ 极小，免得除以 0。这个分式没有单位：所有梯度加倍，什么也不变。第一步，它对每个参数都是 $\pm 1$。


# %%
def adam_by_hand(rate: float, beta1: float, beta2: float, steps: int = 150) -> Array:
    theta, mu, nu, path = START, np.zeros(2), np.zeros(2), [START]
    for n in range(1, steps + 1):
        g = STEEP * theta
        mu, nu = beta1 * mu + (1 - beta1) * g, beta2 * nu + (1 - beta2) * g**2
        theta = theta - rate * (mu / (1 - beta1**n)) / (np.sqrt(nu / (1 - beta2**n)) + 1e-8)
        path.append(theta)
    return np.stack(path)


adaptive = descend(AdamW(0.4, beta1=0.8, beta2=0.95))
assert np.allclose(adaptive[:100], adam_by_hand(0.4, 0.8, 0.95)[:100], rtol=0, atol=1e-9)
assert np.allclose(adaptive[1] - START, -0.4 * np.sign(START), rtol=1e-6)  # 第一步：两个参数都是 ± 学习率

# %%
paths = {"SGD, η = 0.01": slow, "SGD, η = 0.09": zigzag, "momentum": heavy, "Adam": adaptive}
first, second = np.meshgrid(np.linspace(-10, 4, 141), np.linspace(-2.2, 2.2, 111))
figure, (map_, curves) = plt.subplots(1, 2, figsize=(9.6, 3.8), width_ratios=(3, 2), layout="constrained")
map_.contour(first, second, 0.5 * (first**2 + 20 * second**2), levels=2.0 ** np.arange(-3, 7), colors="0.5", alpha=0.4)
for k, (name, path) in enumerate(paths.items()):
    map_.plot(*path[:60].T, "o-", color=f"C{k}", markersize=2.5, linewidth=1.2)
    curves.semilogy([valley(theta) for theta in path], color=f"C{k}", label=name)
    steps = next((n for n, theta in enumerate(path) if valley(theta) < 1e-3), None)
    print(f"{name:14s} below 0.001 after {steps or 'more than 150'} steps")
map_.plot(0, 0, "+", color="0.5", markersize=12)
map_.set(title="paths downhill (60 steps)", xlabel="$θ_1$", ylabel="$θ_2$")
curves.set(title="how far down", xlabel="step", ylabel="f", ylim=(1e-8, 1e2))
curves.legend(loc="lower left", fontsize=8)
figure.savefig("07_paths.svg")

assert valley(heavy[100]) < valley(zigzag[100]) < valley(slow[100])
assert valley(adaptive[100]) < valley(slow[100])

# %% [markdown]
# 不要从一个两参数的碗里读出名次来，要看各自*做了什么*：一个在爬行，一个在两壁之间来回碰撞，一个滚动着冲过了头，一个沿山谷与横穿山谷走得一样快。（Adam 缩放的是*坐标*：把山谷转 45° 看看，习题 3。）

# %% [markdown]
# ## Muon 弥补了什么？
# 权重矩阵不只是一列数：它把方向映射到方向。它的梯度有奇异值分解 $G = U S V^\top$：“当输入指向 $V$ 的某一列时，把输出推向 $U$ 的对应列”，力度写在 $S$ 的对角线上。通常少数几个力度极大，其余极小；所以沿 $G$ 走一步，学到东西的只有那几个方向，其余几乎没有动。**Muon** 保留方向，让所有力度相等：它沿 $U V^\top$ 走一步。
#
# 每步做一次 SVD 太慢。但矩阵的奇次多项式只作用在奇异值上。由 $G = U S V^\top$ 得 $G G^\top G = U S V^\top V S U^\top U S V^\top = U S^3 V^\top$，所以
#
# $$ a\,G + b\,G G^\top G + c\,(G G^\top)^2 G = U \, (a S + b S^3 + c S^5) \, V^\top . $$
#
# 只用到乘法。选取 $a, b, c$，把 0 与 1 之间的每个奇异值 $r$ 都推向 1，并反复进行：这就是 **Newton–Schulz 迭代**。Muon 的系数把小的值迅速抬高，满足于“大约为 1”：
#
# ```python
# # stg_np/optim/muon.py
#     a, b, c = 3.4445, -4.7750, 2.0315
# # …
#     for _ in range(iterations):
#         gram = x @ x.T
#         x = a * x + (b * gram + c * (gram @ gram)) @ x
# ```


# %%
def newton_schulz(r: Array) -> Array:
    return 3.4445 * r - 4.7750 * r**3 + 2.0315 * r**5


U, V = (np.linalg.qr(rng.standard_normal((size, 4)))[0] for size in (6, 4))
strengths = np.array([10.0, 2.0, 0.5, 0.1])
G = U @ np.diag(strengths) @ V.T
O = orthogonalised(G)
after = np.diag(U.T @ O @ V)
print("strengths before", strengths, "after", after.round(2))

expected = strengths / np.linalg.norm(strengths)
for _ in range(5):
    expected = newton_schulz(expected)
assert np.allclose(after, expected)  # 同一个多项式，五次，只作用在这些数上
assert np.allclose(U.T @ O @ V, np.diag(after), atol=1e-12)  # 方向没有变
assert after.min() > 0.6
assert after.max() < 1.3

scale = np.linspace(0, 1, 1001)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), width_ratios=(3, 2), layout="constrained")
rounds = scale
for k in range(1, 6):
    rounds = newton_schulz(rounds)
    if k in (1, 2, 3, 5):
        left.plot(scale, rounds, label=f"{k} round{'s' * (k > 1)}")
left.axhline(1, color="0.5", linestyle=":", linewidth=1)
left.set(
    title="Newton–Schulz on one singular value", xlabel="before, for a matrix of norm 1", ylabel="after", ylim=(0, 1.35)
)
left.legend(loc="lower right")
right.bar(np.arange(4) - 0.2, strengths / np.linalg.norm(strengths), 0.4, label="gradient")
right.bar(np.arange(4) + 0.2, after, 0.4, label="Muon's step")
right.set(title="four directions of a matrix", xlabel="direction", ylabel="strength", xticks=range(4))
right.legend(loc="upper right", bbox_to_anchor=(1, 0.98))
right.set_ylim(0, 1.8)
figure.savefig("07_muon.svg")

# %% [markdown]
# 偏置是向量，没有这样的方向，仍由 Adam 负责。输出层也是，它的每一列属于一个类别。这种分工就是程序包的默认规则 `ByRole`。

# %% [markdown]
# ## 权重衰减是什么，又不是什么？
# 权重大的函数脆弱，所以让所有权重每步缩小一点，$\theta \leftarrow (1 - \eta\lambda)\,\theta$。对 SGD 来说，这与在损失上加 $\frac\lambda2 \lVert\theta\rVert^2$（“L2”）是一回事。对 Adam 则*不是*：凡是进入梯度的，都要除以梯度通常的大小，所以梯度大的权重几乎不缩小。**AdamW** 把衰减放在梯度之外（**解耦**）。设两个权重的梯度纯属噪声，分别为 ±1 和 ±100：


# %%
def shrink(decoupled: bool, steps: int = 400) -> Array:
    rule = AdamW(0.01, weight_decay=0.5 if decoupled else 0.0)
    params = Params(LAYOUT, np.ones(2))
    moments = rule.init(params)
    for n in range(steps):
        noise = (-1) ** n * np.array([1.0, 100.0])
        gradient = params.with_flat(noise if decoupled else noise + 0.5 * params.flat)
        params, moments = rule.update(gradient, moments, params, 1.0)
    return params.flat


print("decoupled", shrink(True).round(2), "  in the gradient", shrink(False).round(2), "  (0.995⁴⁰⁰ = 0.13)")
assert np.allclose(shrink(True), 0.995**400, atol=0.02)
assert shrink(False)[1] > 0.9 > 0.5 > shrink(False)[0]

# %% [markdown]
# ## 学习率为什么先升后降？
# **预热**（warm-up）：最初几步，Adam 只见过一两个梯度，就用它们来除：每个参数都按整个学习率移动，不管它的梯度多么微小或偶然。所以开始时用小的学习率，给两个记忆填充的时间。
#
# **衰减**（decay）：一批只是一次抽样，所以它的梯度带噪声；学习率恒定时，参数不会停下，而是绕着极小点跳动，学习率越大，跳得越远。学习率小，跳得少，但走得慢。所以先走路，后停歇。下面是带噪声的山谷，各方案的噪声相同：

# %%
tiny = Params(LAYOUT, np.array([1e-6, -1e3]))
first_step = AdamW(0.01).update(tiny, AdamW(0.01).init(tiny), Params(LAYOUT, np.zeros(2)), 1.0)[0].flat
assert np.allclose(first_step, [-0.01, 0.01], rtol=0.02)  # 梯度相差十亿倍，步长相同


def noisy(rate_at: Callable[[float], float], steps: int = 400) -> Array:
    """沿路径的 f，200 次同时行走的平均。"""
    rng, theta = np.random.default_rng(0), np.tile(START, (200, 1))
    heights = []
    for step in range(steps):
        gradient = STEEP * theta + 4 * rng.standard_normal(theta.shape)
        theta = theta - rate_at(step / steps) * gradient
        heights.append(0.5 * float((STEEP * theta**2).sum(1).mean()))
    return np.array(heights)


plans: dict[str, Callable[[float], float]] = {
    "constant 0.04": lambda progress: 0.04,
    "constant 0.004": lambda progress: 0.004,
    "warm-up, then linear": lambda progress: 0.04 * SCHEDULES["linear"](progress, 0.1),
    "warm-up, then cosine": lambda progress: 0.04 * SCHEDULES["cosine"](progress, 0.1),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
ends = {}
for name, plan in plans.items():
    heights = noisy(plan)
    ends[name] = float(heights[-10:].mean())
    left.plot([plan(step / 400) for step in range(400)], label=name)
    right.semilogy(heights)
    print(f"{name:22s} ends at {ends[name]:.3f}")
left.set(title="the plan", xlabel="step", ylabel="learning rate", ylim=(0, 0.062))
left.legend(fontsize=8.5, loc="upper right", ncols=2)
right.set(title="a noisy valley, mean of 200 walks", xlabel="step", ylabel="f")
figure.savefig("07_schedules.svg")

for schedule in ("linear", "cosine"):
    assert ends[f"warm-up, then {schedule}"] < 0.3 * min(ends["constant 0.04"], ends["constant 0.004"])
    factors = [SCHEDULES[schedule](progress, 0.1) for progress in np.linspace(0, 1, 101)]
    assert max(factors) == factors[10] == 1
    assert all(a > b for a, b in pairwise(factors[10:]))

# %% [markdown]
# ## 合在一起
# 最小的分类器：从一个数字的 64 个像素到 10 个 logits，只有一个矩阵。损失、梯度和更新共五行，用三种规则。（这个矩阵是输出层，Muon 的作者把它留给 Adam；这里只是想看看 Muon 怎样工作。）

# %%
digits = data.load("digits")
x, labels = digits.train_images.reshape(-1, 64) / 16, digits.train_labels.astype(int)
x_test, test_labels = digits.test_images.reshape(-1, 64) / 16, digits.test_labels.astype(int)
ONE_MATRIX = Layout((Entry("W", (64, 10), "matrix"), Entry("b", (10,), "vector")))


def learn(rule: Optimizer, steps: int = 120) -> tuple[Params, list[float]]:
    rng, params = np.random.default_rng(0), Params(ONE_MATRIX, np.zeros(ONE_MATRIX.size))
    moments, history = rule.init(params), []
    for step in range(steps):
        batch = rng.permutation(len(x))[:256]
        losses, cache = cross_entropy_forward(x[batch] @ params["W"] + params["b"], labels[batch], label_smoothing=0.1)
        dlogits = cross_entropy_backward(np.full(256, 1 / 256), cache)
        gradient = Params.pack(ONE_MATRIX, {"W": x[batch].T @ dlogits, "b": dlogits.sum(0)})
        params, moments = rule.update(gradient, moments, params, SCHEDULES["linear"](step / steps, 0.1))
        history.append(float(losses.mean()))
    return params, history


rules: dict[str, Optimizer] = {
    "SGD": SGD(0.2),
    "AdamW": AdamW(0.03),
    "Muon, AdamW for b": ByRole(matrix=Muon(0.1, weight_decay=0.0), vector=AdamW(0.03)),
}
figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
for name, rule in rules.items():
    params, history = learn(rule)
    hits, test_hits = (
        float(((pixels @ params["W"] + params["b"]).argmax(1) == truth).mean())
        for pixels, truth in ((x, labels), (x_test, test_labels))
    )
    print(f"{name:18s} loss {history[0]:.3f} → {history[-1]:.2f}   right: training {hits:.2f}, test {test_hits:.2f}")
    axes.plot(history, label=name)
    assert np.isclose(history[0], math.log(10))
    assert min(history) > floor(0.1, 10)
    assert hits > 0.9
axes.axhline(floor(0.1, 10), color="0.5", linestyle=":", label="the floor, 0.500")
axes.set(xlabel="step", ylabel="loss", ylim=(0, 2.4), title="64 pixels, one matrix, smoothing 0.1")
axes.legend(loc="upper right")
figure.savefig("07_digits.svg")

# %% [markdown]
# ## 用本领域的话说
# * **Softmax**：Bridle（1990），名字是他起的。对这样的目标，**交叉熵**也就是**负对数似然**；它高出下限的部分，是 $p$ 相对于 $q$ 的 **Kullback–Leibler 散度**。**标签平滑**：Szegedy et al.（2015, arXiv:1512.00567）。
# * **SGD**：Robbins & Monro（1951）。**动量**，即重球法：Polyak（1964）；向前看一步的变体：Nesterov（1983），采用 Sutskever et al.（2013）的形式。
# * **Adam**：Kingma & Ba（2014, arXiv:1412.6980）。**AdamW**，解耦的权重衰减：Loshchilov & Hutter（2017, arXiv:1711.05101）。
# * **Muon**：Jordan et al.（2024）；它的缩放：Liu et al.（2025, arXiv:2502.16982）。
# * 余弦**学习率计划**（schedule）：Loshchilov & Hutter（2016, arXiv:1608.03983）。**预热**：Goyal et al.（2017, arXiv:1706.02677）。
#
# ## 小结
# * $d\ell = p - q$，每一行之和为 0。新建的网络从 $\log C$ 起步。
# * 有了标签平滑，损失就有下限，即目标的熵：$s = 0.1$、十个类别时为 0.500。
# * 动量把一致的累加起来。Adam 给每个参数各自的单位。Muon 让矩阵的每个方向走同样的一步。权重衰减应放在梯度之外。
# * 优化器还不了解梯度时先预热；最后衰减，好停下来。
#
# ## 习题
# 解答：[07_from_loss_to_update.py](../../solutions/07_from_loss_to_update.py)。
#
# **1. 推导下限。** 证明 $-\sum q_k \log p_k$ 在 $p = q$ 时最小，并把下限写成 $s$ 和 $C$ 的公式。$s$ 取多少时，它是一无所知的网络的损失的一半（$C = 10$）？
#
# <details><summary>提示</summary>
#
# 对所有 $r > 0$ 有 $\log r \le r - 1$。取 $r = p_k / q_k$。最后一问用二分法。
# </details>
#
# **2. 动量快多少？** 证明梯度恒定时，步长增长到梯度的 $\eta / (1 - \beta)$ 倍。β = 0.9 和 0.99 时，多少步之后与它相差不到十分之一？这是第 1 章的哪个公式？
#
# <details><summary>提示</summary>
#
# $1 + \beta + \dots + \beta^{n-1} = (1 - \beta^n) / (1 - \beta)$。
# </details>
#
# **3. 转动山谷。** 让它横向比纵向陡 1000 倍，旋转 45°，并从旋转后的起点出发。SGD 的高度会变吗？Adam 的呢？为什么？
#
# <details><summary>提示</summary>
#
# SGD 的一步是向量，随山谷一起转动。Adam 逐坐标相除，而在转过的山谷里，两个坐标的梯度大小相同。
# </details>
