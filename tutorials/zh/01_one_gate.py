# %% [markdown]
# # 1 · 一个门
#
# 读序列的网络每走一步都要决定：哪些留下，哪些改写。做这个决定的部件叫做**门**（gate）。本章只造一个门和一个记忆，各是一个数，然后让门自己学会何时打开。整个程序包的其余部分，不过是把同样的东西一次写给许多个数。
#
# **你将学到**
#
# * 门是什么，为什么它是“软”的，而不是一个开关；
# * 记忆能保持多久：半衰期与时间尺度 τ；
# * 门怎样学会何时打开——所用的只有链式法则。
#
# 预备知识：Python、一点 NumPy、链式法则。下文每个论断都写成了 `assert`；一章若能运行到底，就是说到做到了。

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from stg_np.backend import Array
from stg_np.ops.activations import sigmoid_backward, sigmoid_forward
from stg_np.stm import draw_update_biases, update_backward, update_forward

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## 门是什么？
# 门是一个 0 到 1 之间的数，用来乘另一个数：0 表示什么也不放过，1 表示全部放过。
#
# 网络怎样*学*出一个门？它把参数稍微改一点，看结果是否变好。所以微小的改动必须带来差别。从 0 直接跳到 1 的硬开关做不到这一点：跳变点两侧的斜率都是 0。因此我们采用软开关，即 **logistic 函数**
#
# $$\sigma(a) = \frac{1}{1 + e^{-a}}$$
#
# 其中 $a$ 称为门的**预激活值**（pre-activation）。它可以是任意实数：很大表示打开，很负表示关闭。

# %%
for a in (-6, -2, 0, 2, 6):
    gate = 1 / (1 + math.exp(-a))
    print(f"a = {a:2d}   σ(a) = {gate:.4f}   {'█' * round(20 * gate)}")
    assert 0 < gate < 1

# %% [markdown]
# ## σ 的斜率是多少？
# 学习时要用到它，现在就推导。表达式里含有 $e^{-a}$，由链式法则得
#
# $$\sigma'(a) = \frac{e^{-a}}{(1 + e^{-a})^2} = \frac{1}{1 + e^{-a}} \cdot \frac{e^{-a}}{1 + e^{-a}}
# = \sigma(a)\,(1 - \sigma(a)).$$
#
# 最后一步用到 $1 - \sigma = \frac{1 + e^{-a} - 1}{1 + e^{-a}}$。可见求斜率不必再算一次指数，有门的值就够了。斜率最大为 ¼，在 a = 0 处取得，向两侧逐渐消失：一个已经很“确信”的门，改主意也慢。

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

assert np.allclose(np.gradient(soft, a_grid)[1:-1], slope[1:-1], atol=1e-4)  # 用差分求出的斜率
assert slope.max() == 0.25

# %% [markdown]
# ## 程序包里怎么写？
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
# `get_xp(x)` 返回 NumPy；若 x 在 GPU 上，则返回 CuPy。`errstate` 只为一种情形：$e^{1000}$ 超出计算机的表示范围而变成 ∞，此时 1/(1 + ∞) 恰好是应得的 0，所以不需要警告。第二个函数就是斜率；其中 `dy` 是什么，下文会讲。

# %%
assert np.array_equal(sigmoid_forward(a_grid), soft)
assert sigmoid_forward(np.array([-1000.0, 1000.0])).tolist() == [0, 1]
assert np.array_equal(sigmoid_backward(np.ones_like(soft), a_grid, soft), slope)

# %% [markdown]
# ## 记忆是什么？
# 就是一个数 $m$。每一步到来一个新值 $v$，记忆朝它移动其间距离的 $u$ 倍：
#
# $$m_t = m_{t-1} + u\,(v_t - m_{t-1}) \qquad\text{也就是}\qquad m_t = (1 - u)\,m_{t-1} + u\,v_t$$
#
# 系数 $u$ 是一个门，叫做**更新门**（update gate）。u = 1 时记忆被改写，u = 0 时记忆保持不变；介于两者之间时，记忆会**泄漏**。我们先连续六步输入 1，看它填满；再输入 0，看它遗忘。
#
# 六步之后填了多少？看*还差*多少，即 $1 - m$。当 v = 1 时，
#
# $$1 - m_t = 1 - m_{t-1} - u\,(1 - m_{t-1}) = (1 - u)\,(1 - m_{t-1}).$$
#
# 每一步，差额只剩原来的 1 − u 倍。所以 $1 - m_6 = (1 - u)^6$，即 $m_6 = 1 - (1 - u)^6$。其后 v = 0，每一步剩下的是现有值的 1 − u 倍。

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
# 程序包里有同样的一行，一次处理一批许多个记忆；那里每个记忆、每一步的门都可以不同。
# ```python
# # stg_np/stm.py
# def update_forward(u: Array, v: Array, m: Array) -> Array:
#     return m + u * (v - m)  # type: ignore[no-any-return]
# ```
# 下面把三个只有 u 不同的记忆放在一起看：

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

assert np.array_equal(track[:, 0], value)  # u = 1 什么也不记：它就是那个值本身
assert math.isclose(track[19, 1], 1 - 0.75**15)
assert track[19, 1] > track[19, 2]  # 事件结束时，慢的最空……
assert track[59, 1] < track[59, 2]  # ……四十步之后，它记得的仍最多

# %% [markdown]
# ## 它能记多久？
# 如果不再有新东西进来，k 步之后还剩 $(1 - u)^k$。什么时候剩一半？到那时的步数叫做**半衰期**。对 $(1 - u)^k = \tfrac12$ 两边取（自然）对数：
#
# $$k = \frac{\log \frac12}{\log (1 - u)} .$$
#
# 更方便的量是**时间尺度** $\tau = 1/u$。$u$ 很小时 $\log(1 - u) \approx -u$，所以半衰期约为 $\log 2 / u = 0.69\,\tau$。而 τ 步之后剩下 $(1 - u)^{\tau} \approx e^{-u\tau} = e^{-1}$，即 37 %。

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
# ## “u = ½ 就永远保留一半”
# 听起来有理，其实不对。门在*每一步*都起作用：一步后剩一半，两步后剩四分之一，十步后只剩千分之一。要永远保留，门就得一直关着；而 σ（不计舍入）从不恰好等于 0。所以凡是带门的记忆都会遗忘，问题只在于多快——而这一点，门可以在很宽的范围内选择：

# %%
for a in (0, -2, -5, -10):
    u = 1 / (1 + math.exp(-a))
    print(f"a = {a:3d}   u = {u:.5f}   τ = {1 / u:8,.0f} steps   left after ten steps: {(1 - u) ** 10:.3f}")
assert 0.5**10 < 0.001
assert 1 / u > 22_000
assert (1 - u) ** 10 > 0.999

# %% [markdown]
# ## 一个层把时间尺度存在哪里？
# 存在偏置里。门的预激活值是输入的加权和再加偏置 $b_u$。输入不表态时，$u = \sigma(b_u)$。我们想要 $u = 1/\tau$：
#
# $$\frac{1}{1 + e^{-b_u}} = \frac{1}{\tau} \quad\Rightarrow\quad e^{-b_u} = \tau - 1
# \quad\Rightarrow\quad b_u = -\log(\tau - 1).$$
#
# 新建的层给它的 H 个记忆各分配一个 τ，取值在 2 步到序列长度之间。均匀抽取的是 τ 的*对数*：τ 落在 2 到 4 之间的记忆与落在 50 到 100 之间的一样多。这样，还没有学习，各种距离就都已有了与之相配的记忆。
# ```python
# # stg_np/stm.py
#     tau = np.exp(rng.uniform(np.log(2), np.log(max(2.0, length)), H))
#     b_u: Array = -np.log(tau - 1)
#     return b_u
# ```

# %%
taus = 1 / sigmoid_forward(draw_update_biases(np.random.default_rng(0), 2000, 100.0))  # 从 2,000 个偏置反推
print("quartiles of τ:", np.quantile(taus, [0, 0.25, 0.5, 0.75, 1]).round(1))

assert taus.min() >= 2
assert taus.max() <= 100
assert abs(np.mean(taus < 4) - np.mean(taus > 50)) < 0.04

# %% [markdown]
# ## 门能学会何时打开吗？
# 一个任务：依次到来 T = 12 个随机值 $v_1 … v_T$，每个值旁边有一个标志 $f_t$，其中一个标志为 1，其余为 0。结束时，记忆 $m_T$ 应当等于带标志的那个值，即*目标*。我们的门可以看标志：$u_t = \sigma(w\, f_t + b)$，有两个参数。开始时 w = b = 0，门始终半开，什么也不知道。
#
# 对 B 个样本，损失取平方之半的平均值 $\frac1B \sum \frac12 (m_T - \text{target})^2$（target 即目标）。w 和 b 该往哪边调？记 $dq$ 为损失对 $q$ 的导数。左边从最后一行到第一行列出前向各式，右边是链式法则由它得出的结果：
#
# | 前向 | 反向 |
# | --- | --- |
# | $\text{loss} = \frac1B \sum \frac12 (m_T - \text{target})^2$ | $dm_T = (m_T - \text{target}) / B$ |
# | $m_t = m_{t-1} + u_t\,(v_t - m_{t-1})$ | $du_t = dm_t\,(v_t - m_{t-1})$，且 $dm_{t-1} = dm_t\,(1 - u_t)$ |
# | $u_t = \sigma(a_t)$ | $da_t = du_t\; u_t\,(1 - u_t)$ |
# | $a_t = w f_t + b$ | $dw = \sum da_t f_t$，且 $db = \sum da_t$ |
#
# 第一行里，½ 与平方求导得到的 2 相消，1/B 留下。第二行里，$m_{t-1}$ 的系数是 $1 - u_t$。最后一行对所有样本的所有步求和：它们用的是同一个 w 和同一个 b，每一步都加上自己的“意见”。


# %%
def loss_and_gradient(w: float, b: float, values: Array, flags: Array, target: Array) -> tuple[float, float, float]:
    """值与标志 (B, T)、目标 (B,) -> 损失、dw 和 db。"""
    B, T = values.shape
    u = sigmoid_forward(w * flags + b)
    memories = [np.zeros(B)]
    for t in range(T):
        memories.append(update_forward(u[:, t], values[:, t], memories[-1]))
    error = memories[-1] - target

    dm, dw, db = error / B, 0.0, 0.0
    for t in reversed(range(T)):
        du = dm * (values[:, t] - memories[t])  # memories[t] 是第 t 步之前的记忆
        dm = dm * (1 - u[:, t])
        da = du * u[:, t] * (1 - u[:, t])
        dw, db = dw + float(da @ flags[:, t]), db + float(da.sum())
    return 0.5 * float((error**2).mean()), dw, db


# %% [markdown]
# 这对吗？导数说的是：参数变一点，损失变多少。那就变一点，看一看。

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
# 程序包里更新步骤的反向，就是我们推导出的这一个，只多一个结果：$dv_t = dm_t\, u_t$，它传给新值；新值来自网络更前面的部分，那里也要学习。
# ```python
# # stg_np/stm.py
# def update_backward(dm: Array, u: Array, v: Array, m: Array) -> tuple[Array, Array, Array]:
#     du = dm * (v - m)  # from u ⊙ (v − m)
#     dv = dm * u  # from u ⊙ (v − m)
#     dm_before = dm * (1 - u)  # from m + u ⊙ (v − m)
#     return du, dv, dm_before
# ```
# （⊙ 表示逐元素相乘。）现在开始学习：一次又一次，逆着导数的方向走一小步。

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
# 没有人告诉过门标志是什么意思。它自己发现：见到标志就该打开，没有标志就该关闭。
#
# ## 用本领域的话说
# u 恒定的记忆是一个**泄漏积分器**（leaky integrator），在统计学里叫**指数移动平均**（exponential moving average）。σ 叫 **sigmoid** 函数或 logistic 函数。我们的 dq 是损失对 q 的**梯度**；从最后一行走回第一行叫**反向传播**（backpropagation），按步倒着循环叫**随时间反向传播**（BPTT）；学习的办法是**梯度下降**，**学习率**为 2。
#
# 能学会何时放进、何时放出的门，始于 **LSTM**（Hochreiter & Schmidhuber, Neural Computation 1997）；随后有了会*遗忘*的门（Gers, Schmidhuber & Cummins, Neural Computation 2000）。一个门兼管两件事——保留 1 − u、加入 u——就是 **GRU** 的**更新门**（Cho et al., arXiv:1406.1078, 2014）。这种门的偏置决定时间尺度，应按预期的距离来抽取，这一点出自 Tallec & Ollivier（arXiv:1804.11188, 2018）。
#
# ## 小结
# * 门是加权和的 σ：在 0 与 1 之间，有斜率，因而可以学习。
# * 更新门为 u 的记忆每步保留 1 − u 倍：半衰期约 0.7 τ，时间尺度 τ = 1/u。
# * 偏置 $b_u = -\log(\tau - 1)$ 设定时间尺度；输入在它的基础上开门、关门。
# * 记忆的反向每步把梯度乘以 1 − u。第 5 章会一路跟踪它。
#
# ## 习题
# **1. 半衰期。** u 取多少，半衰期恰为十步？相应的偏置是多少？
# <details><summary>提示</summary>从 (1 − u)¹⁰ = ½ 解出 u。偏置是 σ 的反函数：b = log(u / (1 − u))。</details>
#
# **2. 加权平均。** 设 u 恒定，把 $m_T$ 写成 $v_1 … v_T$ 与 $m_0$ 的加权和。证明各权重之和为 1，并与循环的结果比较。
# <details><summary>提示</summary>把 m₁ 的式子代入 m₂，再代入 m₃。k 步之前到来的值，恰好被 1 − u 乘过 k 次。</details>
#
# **3. 一开始就关着的门。** 让上面的学习从 b = −8 而不是 0 出发。与 b = 0 相比，起点处的 db 有多大？400 步后损失是多少？该怪反向中的哪个因子？
# <details><summary>提示</summary>看 da，再看斜率的那张图。</details>
#
# 解答：[solutions/01_one_gate.py](../../solutions/01_one_gate.py)。下一章：[为什么要三个门](02_why_three_gates.ipynb)
