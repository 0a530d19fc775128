# %% [markdown]
# # 6 · 梯度对吗？
#
# 前向写错了，程序会崩溃，或者给出一眼可见的胡话。*反向*写错了，两者都不会：形状都合，损失在降，网络只是永远比它本来能做到的差一点。所以手写梯度的人，需要一位对推导一无所知的裁判。这样的裁判是有的，而且很简单；本章里，它会找出六个真有人犯过的错误。
#
# **你将学到**
# * 怎样测量一个导数，用什么公式、多大的步长，能精确到什么程度；
# * 怎样一次检查一百万个导数；
# * 六种常见错误在报告里是什么样子，又有什么是任何检查都发现不了的。

# %%
import codecs
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np

from stg_np.backend import Array
from stg_np.gradcheck import check_pair
from stg_np.stm import scan_backward, scan_forward

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## 受审的是哪个反向？
# 一个小的，但每种错误都有地方可放：一层泄漏的记忆，每个单元的门 $u$ 是常数，
#
# $$ a = xW + b, \qquad v = \tanh(a), \qquad m_t = (1 - u) \odot m_{t-1} + u \odot v_t , $$
#
# 损失则要求记忆跟随目标（target）：$\text{loss} = \frac{1}{2B} \sum (m - \text{target})^2$。代码放在一个字符串里，因为我们要改动其中的个别行。请通读一遍；这些都是你在第 4 章推导过的。

# %%
CODE = """
def layer_forward(x, W, b, u):
    a = x @ W + b  # (B, T, D) -> (B, T, H)
    v = np.tanh(a)
    inflow = u * v
    m, memories = np.zeros_like(v[:, 0]), []
    for t in range(x.shape[1]):
        m = (1 - u) * m + inflow[:, t]
        memories.append(m)
    memories = np.stack(memories, 1)  # (B, T, H)
    return memories, (x, W, u, v, memories)

def layer_backward(dmemories, cache):
    x, W, u, v, memories = cache
    dv, du, dm = np.zeros_like(v), np.zeros_like(u), np.zeros_like(v[:, 0])
    for t in reversed(range(x.shape[1])):
        dm = dm + dmemories[:, t]
        before = memories[:, t - 1] if t > 0 else np.zeros_like(dm)
        dv[:, t] = u * dm
        du += (dm * (v[:, t] - before)).sum(0)
        dm = (1 - u) * dm
    da = dv * (1 - v**2)
    dx = da @ W.T
    dW = np.einsum("btd,bth->dh", x, da)
    db = da.sum((0, 1))
    return dx, dW, db, du

def loss_forward(x, W, b, u, target):
    memories, cache = layer_forward(x, W, b, u)
    errors = memories - target
    loss = 0.5 * (errors**2).sum() / len(errors)
    return loss, (errors, cache)

def loss_backward(dloss, cache):
    errors, own = cache
    derrors = dloss * errors / len(errors)
    return *layer_backward(derrors, own), -derrors
"""

Functions: TypeAlias = dict[str, Callable[..., Any]]
Change: TypeAlias = tuple[str, str]


def functions(*changes: Change) -> Functions:
    """四个函数，其中若干段代码已按 (正确, 错误) 替换。"""
    code = CODE
    for right, wrong in changes:
        assert code.count(right) == 1, right
        code = code.replace(right, wrong)
    made: dict[str, Any] = {"np": np}
    exec(code, made)
    return made


def some_inputs(B: int, T: int, D: int, H: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((B, T, D)),
        "W": rng.standard_normal((D, H)),
        "b": rng.standard_normal(H),
        "u": rng.uniform(0.2, 0.8, H),
        "target": rng.standard_normal((B, T, H)),
    }


right = functions()
inputs = some_inputs(B=3, T=4, D=3, H=3)
loss, cache = right["loss_forward"](**inputs)
gradients = dict(zip(inputs, right["loss_backward"](1.0, cache)))
print(f"loss {loss:.4f}; gradients of", {name: gradient.shape for name, gradient in gradients.items()})

# %% [markdown]
# ## 导数怎样测量？
# 照定义：走一小步 $h$，看函数变了多少，再相除。常用的有三种。
#
# $$ \text{前向差分：} \frac{f(x+h) - f(x)}{h} \qquad \text{中心差分：} \frac{f(x+h) - f(x-h)}{2h} $$
#
# 哪个更好，为什么？把 $f(x \pm h)$ 写成泰勒级数，
#
# $$ f(x \pm h) = f \pm h f' + \tfrac{h^2}{2} f'' \pm \tfrac{h^3}{6} f''' + \tfrac{h^4}{24} f'''' \pm \dots $$
#
# 代入。前向差分剩下 $f' + \frac h2 f'' + \dots$，误差是 $h$ 阶的。中心差分中偶次项全部相消，得 $f' + \frac{h^2}{6} f''' + \dots$，误差是 $h^2$ 阶的，代价只是多调用一次函数。同样的手法再用一次：把中心差分记作 $D(h)$。$D(2h)$ 的误差是 $D(h)$ 的四倍，所以在 $\frac{4 D(h) - D(2h)}{3}$ 中这个误差也消去了。写出来就是**五点公式**，误差为 $h^4$ 阶：
#
# $$ f'(x) \approx \frac{f(x-2h) - 8 f(x-h) + 8 f(x+h) - f(x+2h)}{12\,h} . $$
#
# （五个点，其中中间一点的权重为 0。）


# %%
def forward_difference(f: Callable[[float], float], h: float) -> float:
    return (f(h) - f(0)) / h


def central_difference(f: Callable[[float], float], h: float) -> float:
    return (f(h) - f(-h)) / (2 * h)


def five_points(f: Callable[[float], float], h: float) -> float:
    return (f(-2 * h) - 8 * f(-h) + 8 * f(h) - f(2 * h)) / (12 * h)


def richardson(h: float) -> float:
    return (4 * central_difference(np.exp, h) - central_difference(np.exp, 2 * h)) / 3


assert np.isclose(five_points(np.exp, 0.1), richardson(0.1), rtol=1e-14)

# %% [markdown]
# ## 步长该多小？
# “越小越好”是错的。计算机保留 16 位数字。如果 $f(x+h)$ 与 $f(x-h)$ 的前十位相同，相减之后只剩六位，再除以很小的 $h$，**舍入误差**就被放大：大约是 $\varepsilon |f| / h$，其中 $\varepsilon = 2 \cdot 10^{-16}$。**截断误差**（泰勒级数余下的部分）随 $h$ 变小而减小，舍入误差则增大。实际看一看：上面的损失，沿着权重 $W_{00}$ 变化，它的导数已由反向得知。


# %%
def loss_along_a_weight(step: float) -> float:
    W = inputs["W"].copy()
    W[0, 0] += step
    return float(right["loss_forward"](**(inputs | {"W": W}))[0])


steps = np.logspace(-13, 0, 79)
exact = float(gradients["W"][0, 0])
ways = {"forward": forward_difference, "central": central_difference, "five points": five_points}
error = {
    name: np.array([abs(way(loss_along_a_weight, h) - exact) / abs(exact) for h in steps]) for name, way in ways.items()
}

figure, axes = plt.subplots(figsize=(7.2, 4), layout="constrained")
for name in ways:
    axes.loglog(steps, np.maximum(error[name], 1e-17), label=name)
axes.axhline(1e-8, linestyle=":", color="0.5", linewidth=1)
axes.text(1.5e-13, 2e-8, "the bar of the package's check", fontsize=9)
axes.text(2e-13, 3e-15, "rounding: ε / h", fontsize=9)
axes.text(3e-2, 3e-13, "truncation:\nh, h², h⁴", fontsize=9)
axes.set(xlabel="step h", ylabel="relative error", title="Small, but not too small", ylim=(1e-16, 10))
axes.legend(loc="upper center")
figure.savefig("06_step.svg")

for name in ways:
    best = int(error[name].argmin())
    print(f"{name:12s} best error {error[name][best]:.0e} at h = {steps[best]:.0e}")

# %% [markdown]
# 三条谷。每条谷的右侧，斜率就是公式的阶：步长缩小到十分之一，误差分别缩小到 10、100、10,000 分之一。左侧三条线一起上升。五点公式可以用较大的步长 $10^{-3}$，那里舍入误差还很小，所以程序包选用它。

# %%
at = {exponent: int(np.abs(np.log10(steps) - exponent).argmin()) for exponent in (-13, -3, -2, -1)}
for name, order, (far, near) in (("forward", 1, (-2, -3)), ("central", 2, (-2, -3)), ("five points", 4, (-1, -2))):
    gain = np.log10(error[name][at[far]] / error[name][at[near]])
    print(f"{name:12s} ten times smaller a step, {gain:.1f} digits more")
    assert abs(gain - order) < 0.3
assert error["five points"][at[-3]] < 1e-10 < error["central"][at[-3]]
assert min(curve[at[-13]] for curve in error.values()) > 1e-6  # 最小的步长属于最差之列

# %% [markdown]
# ## 每个权重都要这样做吗？
# 一百万个参数的网络，就要调用四百万次。但导数可以沿任意*方向*测量。设 θ 是所有输入和参数连成的一个向量，$g$ 是反向所声称的梯度，$v$ 是任一方向。由链式法则
#
# $$ \frac{d}{dh} f(\theta + h v) \Big|_{h=0} = \sum_k g_k v_k = \langle g, v \rangle . $$
#
# 一个随机方向就*同时检验所有元素*：不论规模多大，只调用四次。错误的 $g$ 会蒙混过关吗？除非它的误差与 $v$ 恰好正交，而对随机的 $v$ 来说，这个概率是 0。

# %%
rng = np.random.default_rng(1)
direction = {name: rng.standard_normal(array.shape) for name, array in inputs.items()}


def loss_along(step: float) -> float:
    return float(right["loss_forward"](**{name: array + step * direction[name] for name, array in inputs.items()})[0])


measured = five_points(loss_along, 1e-3)
claimed = sum(float((gradients[name] * direction[name]).sum()) for name in inputs)
print(f"measured {measured:.12f}   claimed {claimed:.12f}")
assert np.isclose(measured, claimed, rtol=1e-9)

slightly_wrong = claimed + 0.001 * float(gradients["b"][0] * direction["b"][0])  # db 的一个元素，差千分之一
assert not np.isclose(measured, slightly_wrong, rtol=1e-6)

# %% [markdown]
# 如果输出不是一个数，而是许多个呢？那就给每个输出取一个随机权重，求加权和，它就是一个数了。这些权重正是反向收到的 `dy`。要用*随机*的权重：全取 1 很诱人，却是盲的。以减去平均值 $y = x - \text{mean}(x)$ 为例：不管 $x$ 是什么，所有 $y$ 之和都是 0；`dy` = 1 时，正确的反向必定返回 0，而许多错误的反向也返回 0：

# %%
dy_ones, dy_random = np.ones(5), rng.standard_normal(5)
for dy, seen in ((dy_ones, False), (dy_random, True)):
    true_dx, wrong_dx = dy - dy.mean(), 2 * (dy - dy.mean())
    assert np.allclose(true_dx, wrong_dx) is not seen

# %% [markdown]
# ## 程序包的检查器做些什么？
# 以上全部：`check_pair(forward, backward, inputs)` 给输出取随机权重，在所有输入合起来以及每个自变量单独的空间里取随机方向，用五点公式；若规模不大，还逐个比较每一个导数。它说出错的是什么、错在哪里。它的误差是相对于梯度大小而言的：正确的代码在 $10^{-10}$ 以下，错误的代码在 $10^{-3}$ 以上，判定线划在两者之间的 $10^{-8}$。（一条命令 `stg-np gradcheck` 检查程序包的所有函数对，`stg-np gradcheck FILE.py` 检查你自己的。）

# %%
report = check_pair(right["loss_forward"], right["loss_backward"], inputs)
print(report)
report.assert_ok()

# %% [markdown]
# ## 人们会犯哪些错误？
# 下面是六个，每个只有一行。遮住右边那一列，问问自己看不看得出来。

# %%
BUGS: dict[str, Change] = {
    "forgotten (1 − u)": ("dm = (1 - u) * dm", "dm = dm"),
    "transposed W": ("da @ W.T", "da @ W"),
    "sum for mean": ("dloss * errors / len(errors)", "dloss * errors"),
    "changed in place": ("inflow = u * v", "inflow = np.multiply(u, v, out=v)"),
    "φ′ at the wrong place": ("1 - v**2", "1 - np.tanh(v) ** 2"),
    "db summed wrongly": ("da.sum((0, 1))", "da.sum((1, 2))"),
}
for name, change in BUGS.items():
    print(f"{name:22s} {change[0]:30s} →  {change[1]}")

# %% [markdown]
# 1. **忘了 (1 − u)**（forgotten (1 − u)）：梯度往回走了一步，却没有乘以记忆所保留的比例。
# 2. **W 少了转置**（transposed W）：写成了 `W` 而不是 `W.T`。$D = H$ 时形状也合。
# 3. **该平均却求和**（sum for mean）：损失是对一批取平均，反向却忘了 $1/B$。反过来的错误也很常见。
# 4. **原地改写**（changed in place）：为了省内存，把 `inflow` 写在了 `v` 上。前向给出的记忆仍然是对的，一个比特都不差！但缓存里存的是 `v`，反向到那里找到的已是别的东西。（它有个近亲叫**过期缓存**：层把缓存放在 `self` 里，第一次反向之前，第二次前向就把它覆盖了。）
# 5. **φ′ 用错了地方**（φ′ at the wrong place）：tanh′ 应是 $1 - \tanh^2(a)$。这一行却把 $\tanh(v)$ 平方，而 $v$ 本身已经是 tanh 了。
# 6. **db 求和求错了**（db summed wrongly）：$b$ 在批和时间两个轴上被**广播**，所以它的梯度要对这两个轴求和。这里对错了轴。$B = H$ 时形状也合。

# %%
ARGUMENTS = ("x", "W", "b", "u", "target")
quick_check = partial(check_pair, directions=1, jacobian=False, locate=False, float32=False)  # 一个方向就够了


def wrong_arguments(made: Functions, inputs: dict[str, Array]) -> tuple[str, ...]:
    """梯度没有通过的自变量；若连形状都不合，则为 ("shape",)。"""
    try:
        report = quick_check(made["loss_forward"], made["loss_backward"], inputs)
    except ValueError:  # 反向自己中断了
        return ("shape",)
    if not report.ok and not report.errors:  # 检查器在比较数值之前就拒绝了形状
        return ("shape",)
    return tuple(name for name in ARGUMENTS if report.errors[name] > report.tolerance)


for name, change in BUGS.items():
    made = functions(change)
    report = check_pair(made["loss_forward"], made["loss_backward"], inputs, name=name)
    print("\n".join(str(report).splitlines()[:2]))  # 完整的报告为每个出错的自变量各有一行
    assert not report.ok
    assert report.error > 1e-3

assert functions(BUGS["changed in place"])["loss_forward"](**inputs)[0] == loss  # 前向是对的，一个比特都不差

# %% [markdown]
# 六个全部查出，误差超出判定线好几个数量级。慢慢读其中一份报告：最糟的那个元素，两个值（实测的与声称的），错了多少个，以及在规律简单时给出的说法：“analytic = 3 × numeric”（解析值 = 3 × 数值）。一批 $B = 3$ 个样本，这句话*就是*诊断。

# %% [markdown]
# ## 报告能说出是哪种错误吗？
# 差不多能：*哪些*自变量的梯度错了，就像指纹；还可以换一组形状再问。只有一步（$T = 1$）时，凡与步间路径有关的错误都显不出来。只有一个样本（$B = 1$）时，求和与平均是一回事。

# %%
small = {"B = 3, T = 4": (3, 4, 3, 3), "T = 1": (3, 1, 3, 3), "B = 1": (1, 4, 3, 3)}
fingerprints = {
    name: tuple(wrong_arguments(functions(change), some_inputs(*sizes)) for sizes in small.values())
    for name, change in BUGS.items()
}

figure, panels = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True, layout="constrained")
for panel, sizes, k in zip(panels, small, range(3)):
    for row, name in enumerate(BUGS):
        found = fingerprints[name][k]
        for column, argument in enumerate(ARGUMENTS):
            is_wrong = argument in found or found == ("shape",)
            panel.scatter(
                column, row, s=170, marker="s", color="C1" if is_wrong else "C2", alpha=1 if is_wrong else 0.3
            )
            if is_wrong:
                panel.text(column, row, "×", ha="center", va="center_baseline", color="white", fontweight="bold")
    panel.set(title=sizes, xticks=range(5), xticklabels=ARGUMENTS, xlim=(-0.6, 4.6))
    panel.grid(visible=False)
panels[0].set(yticks=range(6), yticklabels=BUGS, ylim=(5.6, -0.6))
figure.savefig("06_fingerprints.svg")

assert len(set(fingerprints.values())) == 6  # 没有两个看起来一样
assert fingerprints["forgotten (1 − u)"] == (("x", "W", "b", "u"), (), ("x", "W", "b", "u"))
assert fingerprints["transposed W"] == (("x",),) * 3
assert fingerprints["sum for mean"] == (ARGUMENTS, ARGUMENTS, ())

# %% [markdown]
# 打叉的方格表示梯度有错。请像医生那样读每一行：*全部*都错，而只有一个样本时全对——问题在批上。除了目标全错，而只有一步时全对——问题在步与步之间的路上。
#
# 这幅图还有第二个教训：**测试时各个尺寸要互不相同。** 错误 2 和 6 分别藏在 $D = H$ 和 $B = H$ 后面；取 $B, T, D, H = 5, 4, 2, 3$，它们连运行都运行不了。还有第三个：**测试要多于一步、多于一个样本**，否则六个错误中有两个看不见。

# %%
different = some_inputs(5, 4, 2, 3)
assert wrong_arguments(functions(BUGS["transposed W"]), different) == ("shape",)
assert wrong_arguments(functions(BUGS["db summed wrongly"]), different) == ("shape",)

# %% [markdown]
# ## 看得出错误在哪里吗？
# *所有*导数 ∂输出/∂输入 组成的矩阵就是**雅可比矩阵**：每个输出数一行，每个输入数一列。这里只取这一层，一个样本，六步，三个单元。反向逐行给出它（`dmemories` 只在一处为 1），五点公式逐列给出它。两者之差就是一张误差的地图。


# %%
def error_map(made: Functions, T: int = 6, H: int = 3) -> tuple[Array, Array]:
    """实测的雅可比矩阵 ∂memories/∂x，(T·H, T·H)，以及反向与它的差。"""
    own = some_inputs(1, T, H, H)
    del own["target"]
    x = own["x"]
    memories, cache = made["layer_forward"](**own)
    claimed = np.zeros((memories.size, x.size))
    for k in range(memories.size):
        claimed[k] = made["layer_backward"](np.eye(memories.size)[k].reshape(memories.shape), cache)[0].ravel()
    measured = np.zeros_like(claimed)
    for k in range(x.size):
        v = np.eye(x.size)[k].reshape(x.shape)

        def along(step: float, v: Array = v) -> Array:
            result: Array = made["layer_forward"](**(own | {"x": x + step * v}))[0].ravel()
            return result

        h = 1e-3
        measured[:, k] = (along(-2 * h) - 8 * along(-h) + 8 * along(h) - along(2 * h)) / (12 * h)
    return measured, np.abs(measured - claimed)


shown = ("forgotten (1 − u)", "transposed W", "φ′ at the wrong place")
maps = {"right": error_map(right)} | {name: error_map(functions(BUGS[name])) for name in shown}
figure, panels = plt.subplots(1, 4, figsize=(9.6, 3), sharey=True, layout="constrained")
for panel, (name, (_, errors)) in zip(panels, maps.items()):
    picture = panel.imshow(np.log10(errors + 1e-16), vmin=-14, vmax=0)
    panel.set(title=name, xlabel="input step", xticks=range(1, 18, 3), xticklabels=range(1, 7))
    panel.grid(visible=False)
panels[0].set(ylabel="output step", yticks=range(1, 18, 3), yticklabels=range(1, 7))
figure.colorbar(picture, ax=panels, label="log₁₀ error", shrink=0.8)
figure.savefig("06_jacobian.svg")

jacobian, errors = maps["right"]
blocks = maps["forgotten (1 − u)"][1].reshape(6, 3, 6, 3).max((1, 3))  # 每一对步之间的最大误差
assert errors.max() < 1e-10
assert np.abs(np.triu(jacobian.reshape(6, 3, 6, 3).max((1, 3)), 1)).max() < 1e-10  # 未来没有发言权
assert np.diag(blocks).max() < 1e-10 < 1e-2 < np.diag(blocks, -1).min()

# %% [markdown]
# 正确的反向只留下舍入误差。“forgotten (1 − u)”在对角线上（同一步的输出与输入）是对的，在它下方处处是错的：错误出在步与步之间的路上。另外两个从对角线起就错：错误出在一步之内。而对角线上方，哪张图里都没有东西，因为输出不依赖于后来的输入。

# %% [markdown]
# ## 损失下降就说明梯度正确吗？
# 多数人凭的就是这个。我们带着六个错误分别训练：目标带噪声，最普通的梯度下降，300 步。（“sum for mean”使梯度变成 $B = 8$ 倍长。实践中的人看到发散，就调小学习率，也就满意了。我们照办。）


# %%
def train(made: Functions, rate: float, steps: int = 300) -> tuple[list[float], float]:
    """各步的损失，以及结束时*真实*梯度的范数。"""
    rng = np.random.default_rng(1)
    B, T, H = 8, 20, 8
    x, noise = rng.standard_normal((B, T, H)), 0.3 * rng.standard_normal((B, T, H))
    W, b, u = rng.standard_normal((H, H)) / np.sqrt(H), 0.5 * rng.standard_normal(H), rng.uniform(0.05, 0.4, H)
    target = right["layer_forward"](x, W, b, u)[0] + noise
    own = {"W": rng.standard_normal((H, H)) / np.sqrt(H), "b": np.zeros(H), "u": np.full(H, 0.5)}
    losses: list[float] = []
    for _ in range(steps):
        loss, cache = made["loss_forward"](x, **own, target=target)
        if losses and loss > losses[0]:  # 跑偏了
            break
        losses.append(float(loss))
        downhill = dict(zip(ARGUMENTS, made["loss_backward"](1.0, cache)))
        own = {name: value - rate * downhill[name] for name, value in own.items()}
    true = dict(zip(ARGUMENTS, right["loss_backward"](1.0, right["loss_forward"](x, **own, target=target)[1])))
    return losses, float(np.sqrt(sum((true[name] ** 2).sum() for name in own)))


runs = {name: train(functions(change), 0.02 / (8 if name == "sum for mean" else 1)) for name, change in BUGS.items()}
runs = {"right": train(right, 0.02)} | runs
figure, axes = plt.subplots(figsize=(7.2, 4), layout="constrained")
for k, (name, (losses, slope)) in enumerate(runs.items()):
    print(f"{name:22s} loss {losses[0]:.1f} → lowest {min(losses):.2f}, last {losses[-1]:.2f}   true slope {slope:.2f}")
    look = {"color": "0.5", "linewidth": 6, "alpha": 0.5} if name == "right" else {"color": f"C{k - 1}"}
    line = {"transposed W": "-", "sum for mean": (0, (2, 4))}.get(name, "-")
    axes.semilogx(np.arange(1, len(losses) + 1), losses, label=name, linestyle=line, **look)
axes.set(ylim=(6, 24), xlabel="step", ylabel="loss", title="One of these gradients is right")
axes.legend(loc="upper right")
figure.savefig("06_falling.svg")

lowest = {name: min(losses) for name, (losses, _) in runs.items()}
assert all(lowest[name] < 0.4 * runs["right"][0][0] for name in BUGS if name != "db summed wrongly")
assert lowest["db summed wrongly"] < 0.7 * runs["right"][0][0]
assert runs["transposed W"][0] == runs["right"][0]  # 这里用不到 dx，所以什么也看不出来
assert runs["forgotten (1 − u)"][1] > 3 * runs["right"][1]

# %% [markdown]
# **六个错误梯度中，有五个把损失降低了三分之二**，第六个在跑偏之前也降低了三分之一。有两条曲线与正确的那条重合；另有两条有一半时间甚至在它*下方*。错误的梯度通常大致仍指向下坡，损失下降所说明的仅此而已。它*做不到*的，是在正确的地方停下：最后一列是每次训练到达之处的真实斜率；若是极小点，它应为 0。
#
# 更有名的程序包也出过这种事。thinc 9.1.1 发布的 LSTM，反向就是错的（其通用路径返回的全是零），因为它的测试只比较形状；scikit-learn 的 issue 8349 自 2017 年起一直未关闭，说的是 `MLPRegressor` 的损失与梯度相差一个系数。

# %% [markdown]
# ## 检查发现不了什么？
# 它证明的是反向与前向相配。它不可能知道你*想要*的是什么。如果前向错了，而反向是这个错误前向的正确反向，在检查器看来一切正常：

# %%
not_what_we_meant = functions(
    ("inflow = u * v", "inflow = v"), ("dv[:, t] = u * dm", "dv[:, t] = dm"), ("(v[:, t] - before)", "(-before)")
)
report = check_pair(not_what_we_meant["loss_forward"], not_what_we_meant["loss_backward"], inputs)
print(report)
assert report.ok

# %% [markdown]
# 要防这一点，只有另写一个独立的前向；这里就用程序包的扫描（scan）。（扫描自己的反向，与我们的也相同。）

# %%
x, W, b, u = (inputs[name] for name in ("x", "W", "b", "u"))
memories, cache = right["layer_forward"](x, W, b, u)
gates, v, m_0 = np.broadcast_to(u, memories.shape), np.tanh(x @ W + b), np.zeros((3, 3))
assert np.allclose(memories, scan_forward(gates, v, m_0), rtol=0, atol=1e-14)
assert not np.allclose(not_what_we_meant["layer_forward"](x, W, b, u)[0], memories, atol=1e-3)

dmemories = rng.standard_normal(memories.shape)
du, dv, _ = scan_backward(dmemories, np.zeros((3, 3)), gates, v, memories, m_0)
assert np.allclose(right["layer_backward"](dmemories, cache)[3], du.sum((0, 1)), rtol=0, atol=1e-12)
assert np.allclose(right["layer_backward"](dmemories, cache)[2], (dv * (1 - v**2)).sum((0, 1)), rtol=0, atol=1e-12)

# %% [markdown]
# 还有三点局限。检查只看*一个点*：没有走到的分支（比如关着的 ReLU），其梯度没有受检。在**折点**上，例如 ReLU 的 0 处，没有导数可比，检查器会说明这一点。另外它需要 float64：float32 只有 7 位而不是 16 位，差分说明不了什么；那时应把 float32 的梯度与 float64 的梯度相比。
#
# ## 用本领域的话说
# * 这个方法叫**梯度检验**（gradient checking），用的是**有限差分**；消去 $D(h)$ 误差的手法叫 **Richardson 外推**。$\langle g, v \rangle$ 是**方向导数**；给输出取随机权重 $r$ 来测量它，检验的是 $\langle Jv, r \rangle = \langle v, J^\top r \rangle$，称为**伴随检验**或**点积检验**。
# * 前向的导数 $Jv$ 叫 **JVP**，反向的 $J^\top r$ 叫 **VJP**，即雅可比–向量积与向量–雅可比积。
# * **复数步长**法 $f'(x) \approx \mathrm{Im}\, f(x + ih)/h$ 不作减法，所以不会因舍入而损失精度（Squire & Trapp 1998）；它要求前向能处理复数。`check_pair` 有这个选项。
# * 改动个别行，看测试能否发觉，叫**变异测试**（mutation testing；DeMillo, Lipton & Sayward 1978）。本程序包的测试就这样接受检验，所有反向函数都在内。
#
# ## 小结
# * 用五点公式，float64，$h = 10^{-3}$：约有十一位正确数字。
# * 一个随机方向检查所有元素；随机的输出权重检查所有输出。
# * 各个尺寸互不相同，多于一步，多于一个样本。
# * 哪些自变量错了、在哪些尺寸下错，就能指认错误。损失下降什么也说明不了。
#
# ## 习题
# 解答：[06_is_the_gradient_right.py](../../solutions/06_is_the_gradient_right.py)。
#
# **1. 三个匿名错误。** 下面的 `mystery(1)` … `mystery(3)` 是同样的四个函数，各有一行错误，但不显示是哪一行。请诊断：哪些自变量错了，在哪些尺寸下，差几倍？指出那一行。
#
# <details><summary>提示</summary>
#
# 先对 `small` 中的各组尺寸调用 `wrong_arguments`。对第二个，把声称的 $b$ 的梯度逐单元除以实测值，与 $u$ 并排打印。对第三个，把它的 `error_map` 与“forgotten (1 − u)”的并排画出。
# </details>
#
# **2. 最佳步长。** 某公式的截断误差为 $c\,h^p$，舍入误差为 $\varepsilon/h$。$h$ 取多少时两者之和最小，最小是多少？对 $p = 1, 2, 4$，与打印出的表比较。
#
# <details><summary>提示</summary>
#
# 把这个和对 $h$ 求导。取 $c = 1$，最佳的 $h$ 约为 $\varepsilon^{1/(p+1)}$。
# </details>
#
# **3. 哪个方向都发现不了的错误。** 给出一对前向与反向：反向是错的，但只要 `dy` 全为 1，对*任何* $x$ 都能通过。然后说明 `check_pair` 查得出它。为什么 softmax 是个值得一找的地方？
#
# <details><summary>提示</summary>
#
# softmax 的各个概率之和为 1。
# </details>

# %%
ANONYMOUS: Sequence[Change] = (  # rot13 编码，免得眼睛不小心读到
    ("orsber = zrzbevrf[:, g - 1] vs", "orsber = zrzbevrf[:, g] vs"),
    ("qi[:, g] = h * qz", "qi[:, g] = qz"),
    ("qz = qz + qzrzbevrf[:, g]", "qz = qzrzbevrf[:, g]"),
)


def mystery(number: int) -> Functions:
    was, is_now = (codecs.decode(text, "rot13") for text in ANONYMOUS[number - 1])
    return functions((was, is_now))


for number in (1, 2, 3):
    found = wrong_arguments(mystery(number), inputs)
    print(f"mystery({number}): wrong are the gradients of {', '.join(found)}")
    assert found
