# %% [markdown]
# # 8 · 深层 STG
#
# 一个 STM 层就是一个记忆。本程序包的网络把几层叠起来，再在周围加上一些东西：归一化、绕过每一层的通路、第二个方向。各是为了什么？我们一次加一个部件来搭这个网络，而每个部件都要先让人看到，没有它会出什么问题。
#
# **你将学到**
# * 门为什么可以不再看记忆，这样做得到什么，失去什么；
# * 在十二层的堆叠中，归一化和残差通路对信号和梯度起什么作用；
# * 从一张图片到它的十个 logits 之间的每个形状，以及深度*不能*带来什么。

# %%
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from stg_np.backend import Array
from stg_np.gradcheck import check_gradient
from stg_np.models.base import loss_and_grad
from stg_np.models.stg import STG
from stg_np.ops.activations import TANH
from stg_np.ops.losses import cross_entropy
from stg_np.ops.norm import RMSNormCache, rms_norm_backward, rms_norm_forward
from stg_np.ops.views import patches_forward
from stg_np.params import Params
from stg_np.stm import STMCache, STMParams, gates_forward, init_stm, scan_forward, stm_backward, stm_forward
from stg_np.stm_recurrent import stm_recurrent_forward
from stg_np.workspace import Workspace

plt.style.use("stg_np.tutorial")
rng = np.random.default_rng(0)

# %% [markdown]
# ## 门为什么可以不再看记忆？
# 在**循环形式**里，第 $t$ 步的门通过矩阵 $R$ 看到记忆 $m_{t-1}$。这很强，但有代价：第 $t - 1$ 步没做完，第 $t$ 步的乘法就不能开始。**只看输入的形式**去掉了 $R$，于是所有步的全部预激活值就是*一次*乘法 $a = xW + b$，共 $B \cdot T$ 行；按步走的只剩廉价的扫描 $m_t = m_{t-1} + u_t \odot (v_t - m_{t-1})$。
#
# 这能换来多少？很容易测得不公平。两种形式有*两*点不同：循环形式多一次乘法，所以乘法次数加倍；而且它把一切切成小块，一步一步地做。所以我们给三个函数计时。中间那个与只看输入的形式计算完全相同的东西，乘法次数也相同，只是把乘法切成小块来做：它与第一个只差一点。它们预热之后轮流运行，比较中位数，以第一个为 1：一次用 4 个样本，一次用 32 个。这些数字只是某台机器在某一天的结果，对它们不作任何断言。

# %%
T, D, H = 200, 64, 64
full = init_stm(rng, D, H, length=T, recurrent=True)
plain = full._replace(R=None)


def a_product_per_step(x: Array, m_0: Array, params: STMParams) -> tuple[Array, Array]:
    """只看输入的形式，但 ``x W`` 是一步一步算的。"""
    a = np.stack([x[:, t] @ params.W for t in range(x.shape[1])], 1) + params.b
    gates = gates_forward(a, TANH)
    memories = scan_forward(gates.u, gates.i * gates.z, m_0)
    return gates.o * memories, memories[:, -1]


ways: dict[str, Callable[[Array, Array], Any]] = {
    "input-only, one product": lambda x, m_0: stm_forward(x, m_0, plain)[0],
    "the same, a product per step": lambda x, m_0: a_product_per_step(x, m_0, plain),
    "recurrent": lambda x, m_0: stm_recurrent_forward(x, m_0, full)[0],
}
for B in (4, 32):
    x, m_0 = rng.standard_normal((B, T, D)), np.zeros((B, H))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(4):
        for name, way in ways.items():
            began = perf_counter()
            way(x, m_0)
            if turn > 0:  # 第一次是预热
                times[name].append(perf_counter() - began)
    for name in ways:
        million = B * T * (2 * D if name == "recurrent" else D) * 4 * H / 1e6
        relative = median(times[name]) / median(times["input-only, one product"])
        print(f"B = {B:2d}   {name:30s} {million:4.0f} million multiply-adds   time × {relative:.1f}")

one, in_pieces = (ways[name](x, m_0) for name in list(ways)[:2])
without_R = stm_recurrent_forward(x, m_0, full._replace(R=np.zeros((H, 4 * H))))[0]
assert np.allclose(one[0], in_pieces[0], rtol=0, atol=1e-12)  # 数学上相同
assert np.allclose(one[0], without_R[0], rtol=0, atol=1e-12)  # 去掉的就是 R，相当于 R = 0

# %% [markdown]
# 要看的是：第一行与第二行相比。样本少时，小块很小，调用 NumPy 200 次比算术本身还费时。样本多时，每个小块本身就够大，切开几乎不费什么：“一次大乘法更快”，只在小的确实很小时才成立。循环形式付两次代价：乘法更多，而且门的指数运算也分成 200 块。此外还有表里看不到的一点：凡是不必等待的，都可以分给多个线程，或交给 GPU。

# %% [markdown]
# ## 失去了什么？
# 只看得到 $x_t$ 的门，说不出“如果前面有过逗号，就打开”。但*第二*层读的是第一层的输出，那里面满是过去。所以它的门确实看到了记忆：不是自己的，而是下面一层的。只改动序列的第一步，看看最后一步的门。

# %%
T, H = 12, 8
x = rng.standard_normal((1, T, H))
changed = x.copy()
changed[:, 0] += 1
layer_1, layer_2 = (init_stm(rng, H, H, length=T) for _ in range(2))


def last_gates(x: Array) -> tuple[Array, Array]:
    """第一层和第二层在最后一步的更新门。"""
    (y, _), first = stm_forward(x, np.zeros((1, H)), layer_1)
    _, second = stm_forward(y, np.zeros((1, H)), layer_2)
    return first.gates.u[:, -1], second.gates.u[:, -1]


for layer, before, after in zip((1, 2), last_gates(x), last_gates(changed)):
    print(f"layer {layer}: the last gates move by {np.abs(after - before).max():.1e}")
assert np.array_equal(last_gates(x)[0], last_gates(changed)[0])
assert not np.allclose(last_gates(x)[1], last_gates(changed)[1], rtol=0, atol=1e-6)

# %% [markdown]
# 深度在这里的用处*就是*这个：门能取决于上下文。那就叠起来吧。

# %% [markdown]
# ## 直接堆叠会出什么问题？
# 一层的输出是 $y = o \odot m$：对时间的平均，再乘以约为 ½ 的门。它比输入小，下一层又使它更小。叠十二层，往上送一个随机信号，往下送一个随机梯度，记下它们的大小。`Block` 说明单元周围有什么；它的两个开关马上就要用到。


# %%
class Block(NamedTuple):
    norm: bool = False
    residual: bool = False


BlockCache = tuple[RMSNormCache | None, STMCache]


def block_forward(h: Array, params: STMParams, block: Block) -> tuple[Array, BlockCache]:
    """一层作用于 h (B, T, H) -> (B, T, H)。"""
    read, norm = rms_norm_forward(h) if block.norm else (h, None)
    (y, _), stm = stm_forward(read, np.zeros((len(h), h.shape[-1])), params)
    return h + y if block.residual else y, (norm, stm)


def block_backward(dh: Array, cache: BlockCache, params: STMParams, block: Block) -> Array:
    """对这一块所读入的东西的梯度。"""
    norm, stm = cache
    dread, _, _ = stm_backward(dh, np.zeros_like(dh[:, 0]), stm, params)
    dx = dread if norm is None else rms_norm_backward(dread, norm)
    return dh + dx if block.residual else dx


def sizes(block: Block, L: int = 12, H: int = 32, T: int = 24) -> tuple[Array, Array]:
    """0 … L 层之后信号的标准差，以及那里梯度的标准差；起点都为 1。"""
    rng = np.random.default_rng(0)
    layers = [init_stm(rng, H, H, length=T) for _ in range(L)]
    h, caches = rng.standard_normal((8, T, H)), []
    signal = [h.std()]
    for params in layers:
        h, cache = block_forward(h, params, block)
        caches.append(cache)
        signal.append(h.std())
    dh = rng.standard_normal(h.shape)
    gradient = [dh.std()]
    for params, cache in zip(reversed(layers), reversed(caches)):
        dh = block_backward(dh, cache, params, block)
        gradient.append(dh.std())
    return np.array(signal) / signal[0], np.array(gradient[::-1]) / gradient[0]


stacks = {
    "plain": sizes(Block()),
    "with norm": sizes(Block(norm=True)),
    "with norm and residual": sizes(Block(norm=True, residual=True)),
}
for name, (signal, gradient) in stacks.items():
    print(f"{name:23s} signal after 12 layers {signal[-1]:.0e}   gradient at the bottom {gradient[0]:.0e}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for name, (signal, gradient) in stacks.items():
    left.semilogy(signal, "o-", markersize=4, label=name)
    right.semilogy(gradient, "o-", markersize=4)
left.set(title="signal, on its way up", xlabel="after layer", ylabel="size, 1 at the start", ylim=(1e-12, 100))
right.set(title="gradient, on its way down", xlabel="after layer (12 is where it starts)")
left.legend(loc="lower left")
figure.savefig("08_stack.svg")

assert stacks["plain"][0][-1] < 1e-8
assert stacks["plain"][1][0] < 1e-8

# %% [markdown]
# 又是第 5 章的道理，只是现在是从层到层，而不是从步到步：一个小于 1 的因子，连乘十二次。信号只剩千亿分之一，梯度也是如此。有两个部件能补救。

# %% [markdown]
# ## 归一化做什么？
# 不管下面一层把它变成了什么样，每个 $H$ 维向量在被读取之前都变成同样的大小。**RMS 归一化**就是除以均方根：
#
# $$ y = \frac{x}{\text{rms}(x)}, \qquad \text{rms}(x) = \sqrt{\text{mean}(x^2) + \epsilon} . $$
#
# 它的反向里有一个要点。记 $s = 1/\text{rms}(x) = (\text{mean}(x^2) + \epsilon)^{-1/2}$，于是 $y_k = x_k s$。每个 $x_k$ 有两种作用：直接的，以及通过 $s$ 的，后者为 $\partial s / \partial x_k = -\frac12 (\dots)^{-3/2} \cdot 2 x_k / H = -s^3 x_k / H$。由求和规则
#
# $$ dx_k = s \, dy_k - \frac{s^3 x_k}{H} \sum_j dy_j\, x_j = s \, ( dy_k - y_k \, \text{mean}(dy \odot y) ) . $$
#
# $dy$ 中沿 $y$ 自身方向的部分被去掉了。理所当然：把 $x$ 拉长，什么也不改变。
#
# ```python
# # stg_np/ops/norm.py
#     y = cache.x * cache.scale  # again, because the forward's y is its caller's
#     along = (dy * y).mean(-1, keepdims=True)  # (..., 1)
#     dx: Array = (dy - y * along) * cache.scale
#     return dx
# ```

# %%
x = rng.standard_normal((4, 6))
y, norm_cache = rms_norm_forward(x)
dx = rms_norm_backward(rng.standard_normal((4, 6)), norm_cache)

assert np.allclose(np.sqrt((y**2).mean(-1)), 1, atol=1e-4)
assert np.allclose(rms_norm_forward(1000 * x)[0], y, atol=1e-4)  # 大的变成平常的
assert np.abs((dx * x).sum(-1)).max() < 1e-4  # 沿 x 没有斜率

# %% [markdown]
# 看图：有了归一化，信号只下降一次，到约十分之一（输出比读入的小），此后不再下降。梯度不再丢失，但也并不稳定：它仍要*穿过*每一层，而每次归一化又把下面一层缩小的东西拉大。

# %%
assert stacks["with norm"][0].min() > 0.01
assert 0.1 < stacks["with norm"][1].max() < 100

# %% [markdown]
# ## 残差通路做什么？
# 让一层在它读入的东西上*加*一些，而不是取而代之：
#
# $$ h \leftarrow h + \text{STM}(\text{norm}(h)) . $$
#
# 由求和规则，$h$ 的梯度就是 $dh$ 本身，*原封不动*，再加上穿过这一层传回的部分。不论堆叠多深，从最后一层到第一层总有一条什么也不乘的路。
#
# ```python
# # stg_np/layers/walk.py
#     read, norm = rms_norm_forward(h) if spec.adds else (h, None)
# # …
#     return h + y if spec.adds else y, LayerCache(norm, caches, mask)
# # …
#     return dh + rms_norm_backward(dread, cache.norm), dparams  # from h + walks(norm(h))
# ```
#
# 而且，一层若无话可说，输出 0 就让一切保持原样：深的网络总能做到与浅的一样好。让我们关上所有输出门，$o = \sigma(-10{,}000) = 0$：

# %%
both = Block(norm=True, residual=True)
silent = init_stm(rng, 8, 8, length=12)
silent.b[16:24] = -1e4  # b = [b_i | b_u | b_o | b_z]
h, dh = rng.standard_normal((2, 3, 12, 8))
h_after, cache = block_forward(h, silent, both)

assert np.array_equal(h_after, h)  # 一个比特都不差
assert np.array_equal(block_backward(dh, cache, silent, both), dh)

for sizes_of in stacks["with norm and residual"]:
    assert sizes_of.min() > 0.5
    assert sizes_of.max() < 2

# %% [markdown]
# 第一层不能做加法：它读入 $D$ 个特征，给出 $H$ 个数。其余各层都可以。（去掉这条通路再训练，见习题 1。）

# %% [markdown]
# ## 为什么要两个方向？
# 记忆知道的是之前到来的东西。而一张图片是同时全部在那里的；对中间的图块来说，右边的与左边的同样有意义。所以一层可以走两趟：一趟从第一步到最后一步，一趟从最后一步到第一步，各有自己的参数，各占一半宽度。哪个输出看得到哪个输入？在一步送入梯度，看它从哪里出来。


# %%
def influence(direction: str, T: int = 12, H: int = 4) -> Array:
    """每一对输出步 t（行）与输入步 s（列）的 ‖∂y_t/∂x_s‖。"""
    rng = np.random.default_rng(3)
    params = init_stm(rng, H, H, length=T)
    turn = slice(None, None, -1 if direction == "left" else 1)
    x = rng.standard_normal((1, T, H))
    (y, m_T), cache = stm_forward(x[:, turn], np.zeros((1, H)), params)
    found = np.zeros((T, T))
    for t in range(T):
        dy = np.zeros_like(y)
        dy[:, t] = 1
        dx, _, _ = stm_backward(dy[:, turn], np.zeros_like(m_T), cache, params)
        found[t] = np.linalg.norm(dx[0, turn], axis=-1)
    return found


to_the_right, to_the_left = influence("right"), influence("left")
two_ways = {"right": to_the_right, "left": to_the_left, "both": np.hypot(to_the_right, to_the_left)}
figure, panels = plt.subplots(1, 3, figsize=(8.4, 3), sharey=True, layout="constrained")
for panel, (name, seen) in zip(panels, two_ways.items()):
    with np.errstate(divide="ignore"):
        picture = panel.imshow(np.log10(seen), vmin=-3, vmax=0)
    panel.set(title=name, xlabel="input step", xticks=range(0, 12, 3), xticklabels=range(1, 13, 3))
    panel.grid(visible=False)
panels[0].set(ylabel="output step", yticks=range(0, 12, 3), yticklabels=range(1, 13, 3))
figure.colorbar(picture, ax=panels, label="log₁₀ ‖∂y/∂x‖", shrink=0.9)
figure.savefig("08_directions.svg")

assert not np.triu(to_the_right, 1).any()  # 向右的一趟从不看到未来
assert not np.tril(to_the_left, -1).any()
assert (two_ways["both"] > 0).all()

# %% [markdown]
# ## 整个网络
# 图片切成图块（即各步），各层依次走过，最后再做一次归一化，对所有步取平均（**池化**，pooling），再由线性**输出层**给出 logits。写成代码，一处不省，两个方向，三层：


# %%
def deep_stg(x: Array, params: Params, layers: int) -> Array:
    """图片 (B, 高, 宽, c) -> logits (B, C)。"""
    h = patches_forward(x, 2, 2)  # (B, T, D)
    for layer in range(layers):
        read = h if layer == 0 else rms_norm_forward(h)[0]
        walks = []
        for direction, turn in (("right", slice(None)), ("left", slice(None, None, -1))):
            own = params.group(f"stm{layer + 1}.{direction}", STMParams)
            m_0 = np.zeros((len(x), own.b.size // 4))
            (walk, _), _ = stm_forward(read[:, turn], m_0, own)
            walks.append(walk[:, turn])  # (B, T, H)
        y = np.concatenate(walks, -1)  # (B, T, width)
        h = y if layer == 0 else h + y
    pooled = rms_norm_forward(h)[0].mean(1)  # (B, width)
    logits: Array = pooled @ params["head.W"] + params["head.b"]
    return logits


model = STG((8, 8, 1), classes=10, view="patches", patch=(2, 2), width=32, layers=3)
params, state = model.init(rng, dtype=np.float64)
pictures = rng.standard_normal((5, 8, 8, 1))
logits = model.forward(pictures, params, state)[0]
quick = model.forward(pictures, params, state, work=Workspace())[0]
print(f"{model}: {params.layout.size:,} parameters")

assert logits.shape == (5, 10)
assert np.allclose(deep_stg(pictures, params, 3), logits, rtol=0, atol=1e-12)  # 程序包的模型
assert np.allclose(quick, logits, rtol=0, atol=1e-9)  # 以及它的快速路径，训练时用的就是它

# %% [markdown]
# 它的反向就是同样的各行，从最后到最前。这一点不能只凭相信：取一个小网络，把损失对每个参数的梯度与有限差分比较（第 6 章）。

# %%
small = STG((4, 4, 1), classes=3, view="patches", patch=(2, 2), width=4, layers=2)
small_params, small_state = small.init(rng, dtype=np.float64)
small_pictures, labels = rng.standard_normal((2, 4, 4, 1)), np.array([0, 2])


def mean_loss(params: Params) -> tuple[Array, Params]:
    result = loss_and_grad(small, params, small_state, small_pictures, labels, loss=cross_entropy(), weight=0.5)
    return result.loss, result.grads


report = check_gradient(mean_loss, {"params": small_params}, name="a whole STG", float32=False)
print(report)
report.assert_ok()

# %% [markdown]
# 还有途中的每个形状。图中的数字就是上面那个模型的。

# %%
parts = {part.name: part.shape for part in model.parts(params)}
assert list(parts) == ["input", "as patches", "stm1", "stm2", "stm3", "mean of the steps", "head"]


def box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 1.5, height: float = 0.7) -> None:
    corner, shape = (x - width / 2, y - height / 2), "round,pad=0.02,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, fill=False, edgecolor=colour, linewidth=1.6))
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.5", "linewidth": 1.4})
    axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.14, text, ha="center", va="bottom", fontsize=8)


figure, axes = plt.subplots(figsize=(10.2, 3.2))
axes.set(xlim=(-0.9, 15.9), ylim=(-4.0, 0.95), aspect="equal")
axes.axis("off")
chain = ["picture", "patches", "stm1", "stm2", "stm3", "norm, mean\nof the steps", "head"]
for k, name in enumerate(chain):
    box(axes, 2.3 * k, 0, name, "C0" if name.startswith("stm") else "0.5", width=1.3 if k < 5 else 1.5)
shapes = [parts[name] for name in ("input", "as patches", "stm1", "stm2", "stm3", "mean of the steps")]
for k, shape in enumerate(shapes):
    arrow(axes, (2.3 * k + (0.68 if k < 5 else 0.78), 0), (2.3 * k + (1.62 if k < 4 else 1.52), 0))
    axes.text(2.3 * k + 1.15, 0.5, "×".join(map(str, shape)), ha="center", fontsize=8.5)
arrow(axes, (14.58, 0), (15.4, 0))
axes.text(15.2, 0.5, f"{parts['head'][0]} logits", ha="center", fontsize=8.5)
axes.plot([6.3, 1.2], [-0.4, -1.3], [7.5, 13.2], [-0.4, -1.3], color="0.5", linewidth=0.8, linestyle=":")
axes.add_patch(Rectangle((1.2, -3.9), 12, 2.6, fill=False, edgecolor="0.5", linestyle=":"))
axes.text(1.4, -1.55, "stm2, from inside", fontsize=8.5, va="center")
axes.text(2.0, -2.25, "h\n16×32", ha="center", va="center", fontsize=9)
box(axes, 4.3, -2.9, "RMS norm", "C2", width=1.7)
box(axes, 7.3, -2.45, "STM →  H = 16", "C0", width=2.2)
box(axes, 7.3, -3.3, "STM ←  H = 16", "C0", width=2.2)
box(axes, 9.9, -2.9, "side by side", "0.5", width=1.7)
axes.plot(11.6, -2.25, "o", markersize=15, markerfacecolor="none", color="C1")
axes.text(11.6, -2.27, "+", ha="center", va="center", fontsize=13, color="C1")
axes.text(12.75, -2.25, "h\n16×32", ha="center", va="center", fontsize=9)
axes.plot([2.4, 4.8, 10.8, 11.38], [-2.1, -1.75, -1.75, -2.1], color="C1", linewidth=1.8)
axes.text(8.6, -1.7, "residual path: nothing is multiplied here", ha="center", va="bottom", fontsize=8.5, color="C1")
arrow(axes, (2.4, -2.4), (3.42, -2.85))
arrow(axes, (5.17, -2.85), (6.17, -2.5))
arrow(axes, (5.17, -2.95), (6.17, -3.25))
arrow(axes, (8.42, -2.5), (9.03, -2.8))
arrow(axes, (8.42, -3.25), (9.03, -3.0))
arrow(axes, (10.77, -2.8), (11.38, -2.4))
arrow(axes, (11.84, -2.25), (12.35, -2.25))
figure.savefig("08_shapes.svg")

assert parts["as patches"] == patches_forward(pictures, 2, 2).shape[1:]
assert parts["stm2"] == (16, 32) == (model.grid[0] * model.grid[1], 2 * model.memory_width)

# %% [markdown]
# ## 深度就是记忆吗？
# “叠得越深，记得越久”：许多地方都这么说，包括介绍这个网络的文章。实际看一看。一个**脉冲**，即第 0 步的单独一个 1，送入 $u = 1/\tau$ 的泄漏记忆，再依次穿过更多个。出来的是什么，什么时候出来？单独一个的响应是 $u (1-u)^t$，平均延迟为 $(1-u)/u = \tau - 1$ 步。前后相接，延迟相加：$L (\tau - 1)$。


# %%
def response(L: int, tau: float, steps: int = 400) -> Array:
    """门为 1/τ 的 L 个记忆前后相接，脉冲之后每一步出来的值。"""
    h = np.zeros((1, steps, 1))
    h[:, 0] = 1
    for _ in range(L):
        h = scan_forward(np.full_like(h, 1 / tau), h, np.zeros((1, 1)))
    return h[0, :, 0]


figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
steps = np.arange(400)
for L, tau in ((6, 2), (31, 2), (1, 32)):
    out = response(L, tau)
    delay = float((steps * out).sum() / out.sum())
    print(f"{L:2d} layers, τ = {tau:2d}: mean delay {delay:4.1f} steps; after step 50 comes {out[50:].sum():5.1%}")
    axes.plot(steps[:120], out[:120], label=f"{L} layer{'s' * (L > 1)}, τ = {tau}")
    assert abs(delay - L * (tau - 1)) < 0.01
axes.set(xlabel="steps after the impulse", ylabel="what comes out", title="Six short memories are not a long one")
axes.legend()
figure.savefig("08_depth.svg")

assert response(6, 2)[50:].sum() < 1e-6
assert response(1, 32)[50:].sum() > 0.2

# %% [markdown]
# 六层、每层的记忆只有两步，延迟六步，五十步之后已忘得一干二净。τ = 32 的*一*层做得更好，每个单元只需改偏置里的一个数；若要平均延迟与它相同，短记忆的层需要 31 层。所以深度能增加一点距离，一层一层地加，代价是每次一整层；时间尺度则不费分毫。**记忆在于 τ，深度在于上下文**：门能看到不止自己这一步，函数之上还有函数。如果任务需要更长的记忆，先看 $b_u$，再考虑加层。

# %% [markdown]
# ## 用本领域的话说
# * 绕过一层的通路叫**残差连接**或**跳跃连接**（He et al. 2015, arXiv:1512.03385；带门的叫**高速公路网络**：Srivastava et al. 2015, arXiv:1505.00387）。归一化放在支路*之内*，如这里所做，叫 **pre-norm**。
# * **RMS 归一化**：Zhang & Sennrich（2019, arXiv:1910.07467），是**层归一化**（Ba et al. 2016, arXiv:1607.06450）的简化。
# * 两个方向：**双向循环网络**（Schuster & Paliwal 1997）。
# * 门只看输入，再加扫描：准循环网络（QRNN）、SRU、minGRU（Feng et al. 2024, arXiv:2410.01201）；用并行扫描的：Martin & Cundy（2018, arXiv:1709.04057）。
# * 所有步的预激活值一次算出：**输入投影**按时间**成批**计算。
#
# ## 小结
# * 去掉 $R$，$T$ 次小乘法就变成一次大乘法；堆叠把上下文还给了门。
# * 直接堆叠时，信号和梯度逐层缩小。归一化保持信号的大小；残差通路把梯度原封不动地传下去。
# * 两个方向让每一步都看到整张图片。
# * 记忆来自时间尺度，而不来自深度。
#
# ## 习题
# 解答：[08_a_deep_stg.py](../../solutions/08_a_deep_stg.py)。
#
# **1. 去掉残差。** 在手写数字上训练六层，60 步，分别带和不带残差通路（归一化保留）。比较它们的损失，再与两层的比较。
#
# <details><summary>提示</summary>
#
# `block_forward` 和 `block_backward` 几乎就够了；反向还须返回参数的梯度。从 2×2 的图块开始，第一层不带归一化和通路。
# </details>
#
# **2. 归一化放在后面而不是前面。** 最早的残差网络在加法*之后*归一化，$h \leftarrow \text{norm}(h + y)$（**post-norm**）。设每层说的与读的一样多：$y$ 是随机的，大小与 $h$ 相同。只沿通路跟踪梯度，不计穿过各层传回的部分。十二层之后还剩多少？
#
# <details><summary>提示</summary>
#
# 通路上的每次归一化都把梯度乘以 $1/\text{rms}$。两个独立的、大小为 1 的随机向量，其和有多大？
# </details>
#
# **3. 数参数。** 对完整的门和两个方向，把 STG 的参数个数写成 $D$、宽度、$L$ 和 $C$ 的公式。与 `model.layout().size` 核对。
#
# <details><summary>提示</summary>
#
# 读入 $D$ 个数、有 $H$ 个单元的一趟，参数有 $4H(D + 1)$ 个；$H$ 是宽度的一半。
# </details>
