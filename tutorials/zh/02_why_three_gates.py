# %% [markdown]
# # 2 · 为什么要三个门
#
# 第 1 章只有一个门，即更新门 u。短期记忆层（short-term memory，**STM**）有三个。三个都必要吗？要老老实实地弄清楚，办法是拿掉一个，让其余的取到最好的值，再看有什么事从此做不成。
#
# **你将学到**
#
# * 每个门管什么：u 负责**保持**，i 让写入与消退**互不牵连**，o 负责**隐藏**；
# * 每个门各有一个任务，缺了它，另外两个门怎么取值都做不成；
# * 为什么输入门与更新门不是一回事。

# %%
from collections.abc import Callable
from itertools import product
from typing import TypeAlias

import matplotlib.pyplot as plt
import numpy as np

from stg_np.backend import Array
from stg_np.ops.activations import IDENTITY
from stg_np.stm import STMParams, stm_forward, update_forward

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## 三个门各做什么？
# 看一个记忆单元的一步。到来一个值 $z_t$，称为**候选值**（candidate；它从何而来是第 3 章的事，这里它就是输入本身）。另有三个门，取值都在 0 与 1 之间：
#
# $$v_t = i_t\, z_t \qquad m_t = m_{t-1} + u_t\,(v_t - m_{t-1}) \qquad y_t = o_t\, m_t$$
#
# * **输入门** $i_t$：候选值放进来多少；
# * **更新门** $u_t$：记忆朝进来的值移动多远；
# * **输出门** $o_t$：记忆放出去多少，成为输出 $y_t$。


# %%
def cell(z: Array, i: Array, u: Array, o: Array) -> Array:
    """由候选值和门 (T, ...) 求输出 y，形状相同；记忆从 0 开始。"""
    m = np.zeros(np.broadcast_shapes(z.shape[1:], u.shape[1:]))
    outputs = []
    for z_t, i_t, u_t, o_t in zip(z, i, u, o):
        m = update_forward(u_t, i_t * z_t, m)
        outputs.append(o_t * m)
    return np.array(outputs)


# %% [markdown]
# ## 用哪些任务？
# 输入是噪声，每步一个随机数，外加两个标志：`write` 标出约十分之一的步，`ask` 标出另外约十分之一。三个任务，每个用一句话和一行 NumPy 就能写清：
#
# * **keep**（保持）：始终显示最近一个带 `write` 标志的值；
# * **fade**（消退）：每个带标志的值留下一道痕迹，每步消退十分之一；不带标志的值不留痕迹；
# * **hide**（隐藏）：记住*所有*值的滑动平均（时间尺度为十步），但只在有 `ask` 标志处显示，其余各步输出 0。

# %%
rng = np.random.default_rng(0)
T = 300
z = rng.standard_normal(T)
event = rng.choice(3, T, p=[0.8, 0.1, 0.1])  # 0：无，1：write，2：ask
write, ask = (event == 1).astype(float), (event == 2).astype(float)


def recurrence(rule: Callable[[float, int], float]) -> Array:
    """从 0 开始的序列 r_t = rule(r_{t−1}, t)。"""
    values, r = [], 0.0
    for t in range(T):
        r = rule(r, t)
        values.append(r)
    return np.array(values)


targets = {
    "keep": recurrence(lambda r, t: z[t] if write[t] else r),
    "fade": recurrence(lambda r, t: 0.9 * r + 0.1 * write[t] * z[t]),
    "hide": ask * recurrence(lambda r, t: 0.9 * r + 0.1 * z[t]),
}
assert set(targets["keep"][20:]) <= set(z[write == 1])  # 只有带标志的值
assert not targets["hide"][ask == 0].any()

# %% [markdown]
# ## 完整的单元做得到吗？
# 能看到标志的门有三个取值，分别对应“无标志”、“write”和“ask”。下面是正确的取值；短横表示取什么都行。
#
# | 任务 | i：无、write、ask | u：无、write、ask | o：无、write、ask |
# | --- | --- | --- | --- |
# | keep | – 1 – | 0 1 0 | 1 1 1 |
# | fade | 0 1 0 | 0.1 0.1 0.1 | 1 1 1 |
# | hide | 1 1 1 | 0.1 0.1 0.1 | 0 0 1 |
#
# 竖着看各列：keep 只需要 u 变动，fade 只需要 i 变动，hide 只需要 o 变动。

# %%
right = {
    "keep": ((1, 1, 1), (0, 1, 0), (1, 1, 1)),
    "fade": ((0, 1, 0), (0.1, 0.1, 0.1), (1, 1, 1)),
    "hide": ((1, 1, 1), (0.1, 0.1, 0.1), (0, 0, 1)),
}
for task, settings in right.items():
    i, u, o = (np.array(values, float)[event] for values in settings)
    assert np.allclose(cell(z, i, u, o), targets[task], rtol=0, atol=1e-12)

# %% [markdown]
# ## 敲掉一个门，单元还能做什么？
# *敲掉*的意思是：这个门在所有步都取同一个数。对 i 和 o，这个数是 1；对 u，可以是任意一个数。另外两个门对“无标志”、“write”、“ask”可以各取任意值。我们把它们试个遍：0、0.03、0.1、1 的所有组合，几千个单元同时计算。我们还很大方：每个单元的输出可以再乘上一个对它最有利的系数。设 y 为输出，r 为目标，则最佳系数是 $s = \sum y r / \sum y^2$（令 $\sum (s y - r)^2$ 对 s 的导数为 0）。这时还剩 $\sum (s y - r)^2 = \sum r^2 - (\sum y r)^2 / \sum y^2$，占 $\sum r^2$ 的比例为
#
# $$\text{误差} = 1 - \frac{(\sum y r)^2}{\sum y^2 \, \sum r^2}.$$
#
# 0 为完美；1 则与输出全为零一样差。

# %%
LEVELS = (0.0, 0.03, 0.1, 1.0)
Choices: TypeAlias = list[tuple[float, ...]]
FREE: Choices = list(product(LEVELS, repeat=3))
CONSTANT: Choices = [(level, level, level) for level in LEVELS]
OPEN: Choices = [(1.0, 1.0, 1.0)]
VARIANTS: dict[str, tuple[Choices, Choices, Choices]] = {  # (i, u, o) 的取值
    "all three": (FREE, [*CONSTANT, (0.0, 1.0, 0.0)], [*OPEN, (0.0, 0.0, 1.0)]),
    "without i": (OPEN, FREE, FREE),
    "without u": (FREE, CONSTANT, FREE),
    "without o": (FREE, FREE, OPEN),
}


def least_error(task: str, choices: tuple[Choices, ...]) -> float:
    """各门取值的所有组合中最小的误差；每个组合是一个单独的单元。"""
    combinations = np.array(list(product(*choices)))  # (单元, 门, 事件)
    i, u, o = (combinations[:, gate].T[event] for gate in range(3))  # 各为 (T, 单元)
    r = targets[task]
    m = dots = squares = np.zeros(len(combinations))
    for t in range(T):  # 同 `cell`，但不留用不着的东西
        m = update_forward(u[t], i[t] * z[t], m)
        y_t = o[t] * m
        dots, squares = dots + y_t * r[t], squares + y_t * y_t
    explained = dots**2 / np.maximum(squares, 1e-12) / (r @ r)
    return abs(float(1 - explained.max()))


errors = {(task, name): least_error(task, choices) for task in targets for name, choices in VARIANTS.items()}
print("least error  ", *(f"{name:>10}" for name in VARIANTS))
for task in targets:
    print(f"{task:13}", *(f"{errors[task, name]:10.2f}" for name in VARIANTS))

needed = {"keep": "without u", "fade": "without i", "hide": "without o"}
for task, name in errors:
    if name == needed[task]:
        assert errors[task, name] > 0.15  # 目标有相当一部分够不着
    else:
        assert errors[task, name] < 1e-9  # 有另外两个门就够了

figure, axes = plt.subplots(figsize=(7.6, 3.0))
for number, name in enumerate(VARIANTS):
    heights = [errors[task, name] for task in targets]
    bars = axes.bar(
        np.arange(3) + 0.2 * number - 0.3, heights, 0.17, label=name, color=["0.5", "C0", "C1", "C2"][number]
    )
    axes.bar_label(bars, [f"{height:.2f}" for height in heights], fontsize=9, padding=2)
axes.set(xticks=range(3), xticklabels=list(targets), ylabel="least error", ylim=(0, 1), title="A gate knocked out")
axes.set_title("0: perfect · 1: no better than silence", loc="right", fontsize=9.5)
axes.grid(axis="x", visible=False)
axes.legend(loc="upper left", ncols=4)
figure.savefig("02_knocked_out.svg")

# %% [markdown]
# 每个门都有一个非它不可的任务；在这个任务上，我们试过的另外两个门的任何取值都无济于事。为什么会这样？
#
# * **没有 u**，记忆始终以同一速度泄漏。要*保持*，速度必须为 0，那就再也写不进任何东西。
# * **没有 i**，凡是在记忆里腾出地方的，同时也把它填上。要*消退*，记忆就得在不该放进来的值不断到来时向 0 移动。
# * **没有 o**，知道什么就显示什么。要*隐藏*而不遗忘，知道与显示必须是两件事。
#
# ## “输入门和更新门是一回事”
# 两者都乘在进来的值上：$u_t\, i_t\, z_t$，所以常被当成一个。但 u 还乘在旧记忆上。设记忆为 5，候选值为 3，把两个门分别打开、关闭看看：

# %%
before, candidate = 5.0, 3.0
print("         u = 0         u = 1")
for i_value in (0.0, 1.0):
    kept, changed = (before + u_value * (i_value * candidate - before) for u_value in (0.0, 1.0))
    print(f"i = {i_value:.0f}    {kept} kept      {changed} {'erased' if changed == 0 else 'overwritten'}")
    assert kept == before  # u = 0 即保持，不管 i 是多少
    assert changed == i_value * candidate  # u = 1 不保持，不管 i 是多少；i 决定换上什么

# %% [markdown]
# 更新门关着，是**保持**。更新门开着而输入门关着，是**擦除**。i 取什么值都不能保持任何东西；而当 i = 1 时，u 取什么值都不能擦除任何东西。输出门对记忆毫无影响：它处理的是一份副本。
#
# ## 为什么保留多少和加入多少都由 u 说了算？
# 也可以用两个门：f 决定保留多少，另一个决定加入多少，即 $m_t = f_t\, m_{t-1} + i_t\, z_t$，LSTM 就是这样。我们用的是 $m_t = (1 - u_t)\, m_{t-1} + u_t\, v_t$：两个系数之和为 1（**凸组合**），所以新记忆落在旧记忆与进来的值*之间*。只要候选值都不超过 1，记忆就永远不超过 1。另一种规则没有这样的界，但换来的是它能计数。

# %%
total, bounded, one = 0.0, np.zeros(1), np.ones(1)
for _step in range(100):
    total = 1.0 * total + 1.0 * 1.0  # f = 1, i = 1, z = 1
    bounded = update_forward(0.3 * one, one, bounded)
print(f"after 100 steps of z = 1: two gates {total:.0f}, one gate {bounded[0]:.0f}")
assert total == 100
assert bounded[0] <= 1

random_gates = rng.uniform(0, 1, (2, 200, 500))
m = np.zeros(500)
for u_t, v_t in zip(*random_gates):
    m = update_forward(u_t, v_t * rng.choice([-1, 1], 500), m)
    assert abs(m).max() <= 1

# %% [markdown]
# ## 程序包算的就是这个吗？
# 前面的门是直接给定的数。在层里，每个门都是输入的加权和加偏置之后的 σ。我们的输入有三个**特征**：值和两个标志。要让门见到标志就打开、否则关闭，可取权重 40、偏置 −20：σ(20) 与 σ(−20) 在八位小数内就是 1 和 0。要 u = 0.1，就取第 1 章的偏置 −log(10 − 1)。参数是一个矩阵 W 和一个向量 b；W 的每行对应一个特征，每列依次对应 i、u、o、z。

# %%
x = np.stack([z, write, ask], axis=-1)[None]  # 一个样本，T 步，三个特征
SHUT, TENTH = -20.0, -np.log(9)
layers = {  # 行：值、write、ask；列：i、u、o、z
    "keep": STMParams(np.array([[0, 0, 0, 1], [0, 40, 0, 0], [0, 0, 0, 0.0]]), np.array([-SHUT, SHUT, -SHUT, 0])),
    "fade": STMParams(np.array([[0, 0, 0, 1], [40, 0, 0, 0], [0, 0, 0, 0.0]]), np.array([SHUT, TENTH, -SHUT, 0])),
    "hide": STMParams(np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 40, 0.0]]), np.array([-SHUT, TENTH, SHUT, 0])),
}
for task, params in layers.items():
    y, _ = stm_forward(x, np.zeros((1, 1)), params, phi_z=IDENTITY)[0]  # z 就是加权和本身
    assert np.allclose(y[0, :, 0], targets[task], rtol=0, atol=1e-6)

shown = np.arange(80)
outputs = {}
for task, params in layers.items():
    y, _ = stm_forward(x, np.zeros((1, 1)), params, phi_z=IDENTITY)[0]
    outputs[task] = y[0, shown, 0]
mean = recurrence(lambda r, t: 0.9 * r + 0.1 * z[t])[shown]
marked, asked = shown[write[shown] == 1], shown[ask[shown] == 1]

figure, (keep, fade, hide) = plt.subplots(3, 1, figsize=(7.6, 5.0), sharex=True)
keep.plot(shown, z[shown], ".", color="0.5", markersize=4, label="value")
keep.plot(marked, z[marked], "o", color="C1", label="value marked “write”")
fade.plot(marked, 0.1 * z[marked], "o", color="C1", label="a tenth of the marked value")
hide.plot(shown, mean, ":", color="0.5", label="running mean, in the memory")
hide.plot(asked, mean[asked], "o", color="C4", label="“ask”")
for axes, (task, y_task) in zip((keep, fade, hide), outputs.items()):
    axes.plot(shown, y_task, color="C0", label="output y")
    axes.set_ylabel(task)
    axes.margins(y=0.35)
    axes.legend(loc="upper left", ncols=3)
hide.set_xlabel("step t")
figure.savefig("02_tasks.svg")

# %% [markdown]
# ## 用本领域的话说
# 保持最近一个带标志的值，在电子学里叫**采样保持**（sample-and-hold），也接近 Bengio, Simard & Frasconi（IEEE Transactions on Neural Networks 1994）的**锁存**（latching）问题；他们说明了没有门的网络为什么学不好它。拿掉一部分看它值多少，叫**消融实验**（ablation）。LSTM 的三个门（Hochreiter & Schmidhuber 1997；Gers et al. 2000）叫输入门、**遗忘门**和输出门；它的遗忘门值大表示*保留*，我们的更新门值大表示*改变*。GRU（Cho et al., arXiv:1406.1078）与我们一样把保留和加入绑在一起，没有输入门和输出门，但有一个**重置门**（reset gate）；第 3 章把三者并排比较。LSTM 缺了哪些门也行，Greff et al. 做过实验（“LSTM: A Search Space Odyssey”, arXiv:1503.04069）：最要紧的是遗忘门和输出端的非线性。
#
# 提醒一句：一个门*可能*必要，不等于对你的数据必要。在图片上每个门究竟值多少，本程序包的[消融实验](../../../benchmarks/results/ablation.md)有实测结果。
#
# ## 小结
# * u 决定记忆移动**多远**，所以只有它能保持。
# * i 决定记忆移**向哪里**：候选值，还是 0。它让记忆在不写入时也能消退。
# * o 决定**显示什么**。记忆本身察觉不到它。
# * 1 − u 与 u 之和为 1，所以记忆总在旧值与进来的值之间。
#
# ## 习题
# **1. 不用 i 来擦除。** 让候选值也看到标志，z = tanh(x + k f)，i 恒为 1，f = 1 处 u = 1。擦除之后一个单元里存的是什么？再加一个单元，构造一个这时恰好为 0 的输出。
# <details><summary>提示</summary>很大的数的 tanh 是 1，不管 x 是多少。只看得到标志的单元会存下什么？</details>
#
# **2. 计数。** 一个 STM 单元能无界地数标志吗？如果输出可以乘一个系数，能数到 100 吗？
# <details><summary>提示</summary>记忆从不超出进来的值的范围。但可以用很小的 u，在输出后面再乘很大的系数……若要第 100 个标志仍与第一个同样算数，u 最多能取多大？</details>
#
# **3. 先到者胜。** 保持*第一个*带标志的值（在 ½ 与 1 之间），忽略其后所有的。为什么只看输入的门做不到？如果门还能看到记忆，怎样做到？
# <details><summary>提示</summary>输入相同，门就相同，不管记忆里是什么。然后试试 a_u = 20 f − 10 − 40 m。</details>
#
# 解答：[solutions/02_why_three_gates.py](../../solutions/02_why_three_gates.py)。下一章：[STM 的一步](03_the_stm_step.ipynb)
