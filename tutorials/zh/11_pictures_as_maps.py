# %% [markdown]
# # 11 · 把图片当作特征图
#
# 像读书那样逐行读一张图片，会把本来在一起的东西拆开：正上方的像素竟在整整一行那么多步之前。本章让图片仍是图片。用一个窗口看每个像素的邻域，记忆则沿四个方向扫过。程序包里最好的网络就是由这种层构成的。
#
# **你将学到**
# * 卷积算的是什么，它的视野增长得多慢；
# * 一维的记忆怎样看到二维；
# * 在一个经过测量的网络里，扫描的记忆值多少，什么又更值。

# %%
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from stg_np import data
from stg_np.backend import Array
from stg_np.fast.choose import conv_pair
from stg_np.gradcheck import check_pair
from stg_np.ops.conv import ConvParams, conv2d_forward
from stg_np.stm import STMParams, scan_forward
from stg_np.sweep import (
    ALL_WAYS,
    STILL,
    Sweep,
    SweepKind,
    image_stm_backward,
    image_stm_forward,
    line_forward,
    quarters,
    to_map,
    to_steps,
)
from stg_np.workspace import Workspace

plt.style.use("stg_np.tutorial")
rng = np.random.default_rng(0)

# %% [markdown]
# ## 卷积算的是什么？
# **特征图**（map）的形状是（高，宽，通道）：每个像素处一个向量，照片的话就是红、绿、蓝。**卷积**通过一个小窗口（$k \times k$，$k$ 为奇数）去看每个像素，把窗口中的 $k^2$ 个向量各乘以自己的矩阵：
#
# $$ y[r, c] = \sum_{i=0}^{k-1} \sum_{j=0}^{k-1} x[r + i - \tfrac{k-1}{2},\; c + j - \tfrac{k-1}{2}] \; W[i, j] + b . $$
#
# 窗口伸出边界之外的地方，$x$ 取 0。每个像素用的都是同一个 $W$：所以参数很少，所以一样东西不论在哪里都认得出来。用最朴素的循环写出来：


# %%
def convolution_by_hand(x: Array, W: Array, b: Array) -> Array:
    """x (height, width, c), W (k, k, c, d), b (d,) -> (height, width, d)."""
    height, width, _ = x.shape
    k = len(W)
    y = np.zeros((height, width, W.shape[-1])) + b
    for r, c, i, j in product(range(height), range(width), range(k), range(k)):
        row, column = r + i - k // 2, c + j - k // 2
        if 0 <= row < height and 0 <= column < width:
            y[r, c] += x[row, column] @ W[i, j]
    return y


x, W, b = rng.standard_normal((2, 6, 5, 3)), rng.standard_normal((3, 3, 3, 4)), rng.standard_normal(4)
y, cache = conv2d_forward(x, ConvParams(W, b))
assert np.allclose(y[0], convolution_by_hand(x[0], W, b), rtol=0, atol=1e-12)

# %% [markdown]
# 程序包把循环翻了个面。对窗口中固定的位置 $(i, j)$，所有像素要乘的是同一个矩阵：那就是整张图平移之后的*一次*乘法。所以 3×3 卷积就是九次矩阵乘法相加：
#
# ```python
# # stg_np/ops/conv.py
#     y = params.b
#     for i, j, rows, columns in offsets(height, width, params):
#         y = y + matmul(padded[:, rows, columns], params.W[i, j])  # (B, height, width, C_in) (C_in, C_out)
# ```
#
# （另有一条更快的路径，用更少的乘法算出同样的结果。）

# %%
fast_conv = conv_pair(x, Workspace())
assert np.allclose(fast_conv.forward(x, ConvParams(W, b))[0], y, rtol=0, atol=1e-10)

centred = np.zeros((1, 9, 9, 3))
centred[:, 3:6, 3:6] = rng.standard_normal((1, 3, 3, 3))
moved = np.roll(centred, (1, 2), (1, 2))
y_centred, y_moved = (conv2d_forward(maps, ConvParams(W, b))[0] for maps in (centred, moved))
assert np.allclose(np.roll(y_centred, (1, 2), (1, 2))[:, 2:-2, 3:-2], y_moved[:, 2:-2, 3:-2])  # 它随图片平移

# %% [markdown]
# ## 它能看多远？
# 每个方向一个像素。第二层看的像素，已经看过*自己的*邻居：每个方向两个。$L$ 层之后，**感受野**是边长 $2L + 1$ 的正方形。要让 32×32 图片的一角知道对角的事，需要 31 层。一般的网络靠缩小特征图来解决（**池化**，pooling）。还有别的办法吗？

# %% [markdown]
# ## 记忆怎样扫过图片？
# **图像 STM** 保留第 3 章的公式，只改两处。预激活值来自窗口，所以门和候选值看得到邻域；记忆则沿着图上的*线*走，所有的线同时走：
#
# $$ a = \text{window}(x)\, W + b, \qquad m_s = (1 - u_s) \odot m_{s-1} + u_s \odot v_s , \qquad y = o \odot m , $$
#
# 其中 window 即窗口，$s$ 是一条线上像素的序号。向右时，线就是行，$s$ 就是列号。向左也一样，只是从最后一列开始。向下和向上时，线就是列。扫描本身还是原来那个，变的只是轴的*次序*：
#
# ```python
# # stg_np/sweep.py
# def to_steps(maps: Array, direction: Direction) -> Array:
#     steps = maps.swapaxes(1, 2) if direction in ("right", "left") else maps
#     return steps[:, ::-1] if direction in ("left", "up") else steps
# # …
#     steps = to_steps(u, direction)
#     return to_map(scan_forward(steps, to_steps(v, direction), nothing(steps)), direction)
# ```

# %%
three = data.load("digits").train_images[3:4] / 16.0  # (1, 8, 8, 1)
u = np.full_like(three, 0.3)
swept: dict[str, Array] = {direction: line_forward(u, three, direction) for direction in ALL_WAYS}

figure, panels = plt.subplots(1, 5, figsize=(9, 2.2), layout="constrained")
for panel, (name, maps) in zip(panels, ({"the picture": three} | swept).items()):
    panel.imshow(maps[0, :, :, 0])
    panel.set(title=name)
    panel.axis("off")
figure.savefig("11_sweeps.svg")

by_hand = np.zeros(8)
m = 0.0
for column in range(8):
    m = 0.7 * m + 0.3 * three[0, 2, column, 0]
    by_hand[column] = m
assert np.allclose(swept["right"][0, 2, :, 0], by_hand)  # 第 2 行，从左到右
assert np.allclose(swept["left"], line_forward(u, three[:, :, ::-1], "right")[:, :, ::-1])
assert np.allclose(swept["down"], line_forward(u, three.swapaxes(1, 2), "right").swapaxes(1, 2))
for direction in ALL_WAYS:
    assert np.array_equal(to_map(to_steps(three, direction), direction), three)  # 是次序，不是运算

# %% [markdown]
# 每次扫描把墨迹朝一个方向抹开，像手抹过未干的颜料。没有墨迹的地方，记忆就消退。下面是它走在途中的样子，还没走到的地方图片较暗：
#
# ![记忆沿四个方向扫过数字 3 的途中](../../images/11_memory.gif)

# %%
frames = []
for step in range(1, 9):
    tiles = []
    for direction in ALL_WAYS:
        seen = to_map((np.arange(8) < step)[None, :, None, None] & np.ones((1, 8, 8, 1), bool), direction)
        maps = np.where(seen, swept[direction] / swept[direction].max(), 0.25 * three)[0, :, :, 0]
        tile = plt.get_cmap("viridis")(np.kron(maps, np.ones((12, 12))))[..., :3]
        tiles.append(np.pad(tile, ((6, 6), (6, 6), (0, 0)), constant_values=0.5))  # 灰色边框
    frames.append(Image.fromarray((255 * np.concatenate(tiles, 1)).astype(np.uint8)))
frames[0].save("11_memory.gif", save_all=True, append_images=[*frames[1:], *[frames[-1]] * 3], duration=400, loop=0)

# %% [markdown]
# 四个方向怎样合起来？要么每个方向占**四分之一的通道**，要么四个方向都扫过全部通道再**相加**。前者的花费是后者的四分之一。由于下一层的窗口会混合所有通道，除了清晰度之外并没有损失什么。

# %% [markdown]
# ## 扫描能看到二维吗？
# “扫描是一维的，看不懂图片。”数一数。*一*层之后，一个像素知道自己所在的行和列：一个十字。*两*层之后，就是整张图片的每个像素：第一层把消息沿行带到我这一列，第二层沿列带给我。不必争论，求导就是：在最后一层的中间像素送入梯度，看它到达哪些输入像素。


# %%
def layer(sweep: Sweep, H: int = 8) -> tuple[STMParams, SweepKind]:
    """带对角门的随机层，H 通道到 H 通道；记忆约维持八步。"""
    W = rng.standard_normal((3, 3, H, H)) / np.sqrt(9 * H)
    b = np.zeros(4 * H)
    b[H : 2 * H] = -2  # b_u
    return STMParams(W, b, None, np.ones(3 * H)), SweepKind(sweep)


def receptive_field(sweeps: list[Sweep], side: int = 17, H: int = 8) -> Array:
    """对每个输入像素的 ‖∂(中间像素)/∂(像素)‖，(side, side)，穿过带这些扫描的各层。"""
    h, caches = rng.standard_normal((1, side, side, H)), []
    for params, kind in (layer(sweep) for sweep in sweeps):
        h, cache = image_stm_forward(h, params, kind)
        caches.append((cache, params, kind))
    dh = np.zeros_like(h)
    dh[0, side // 2, side // 2] = rng.standard_normal(H)
    for cache, params, kind in reversed(caches):
        dh, _ = image_stm_backward(dh, cache, params, kind)
    field: Array = np.linalg.norm(dh[0], axis=-1)
    return field


fields = {
    "1 window, no sweep": receptive_field([STILL]),
    "2 windows": receptive_field([STILL] * 2),
    "4 windows": receptive_field([STILL] * 4),
    "1 layer, sweep →": receptive_field([quarters(("right",))]),
    "1 layer, 4 sweeps": receptive_field([quarters()]),
    "2 layers, 4 sweeps": receptive_field([quarters()] * 2),
}
figure, panels = plt.subplots(2, 3, figsize=(7.6, 5.2), layout="constrained")
for panel, (name, field) in zip(panels.flat, fields.items()):
    with np.errstate(divide="ignore"):
        picture = panel.imshow(np.log10(field / field.max()), vmin=-5, vmax=0)
    panel.set(title=f"{name}: {np.count_nonzero(field)}", xticks=[], yticks=[])
    panel.grid(visible=False)
figure.colorbar(picture, ax=panels, label="log₁₀ influence", shrink=0.7)
figure.savefig("11_receptive_fields.svg")

for name, windows in (("1 window, no sweep", 1), ("2 windows", 2), ("4 windows", 4)):
    assert np.count_nonzero(fields[name]) == (2 * windows + 1) ** 2
assert np.count_nonzero(fields["1 layer, sweep →"]) == 3 * 10  # 窗口的三行，直到它后面的那一列
assert np.count_nonzero(fields["1 layer, 4 sweeps"]) == 2 * 3 * 17 - 9  # 一个十字，宽三个像素
assert np.count_nonzero(fields["2 layers, 4 sweeps"]) == 17 * 17  # 全部

# %% [markdown]
# （每个标题里的数，是到达的像素个数。）不论图片多大，两层就够。当然，“到达”不等于“看懂”，而且如第 5 章所说，影响在途中每个像素减弱为 $1 - u$ 倍。但请与逐行读图比较：那里，正上方的像素在 `width` 步之外；这里，只在*一*步之外。

# %%
width, gate = 32, 0.1
impulse = np.zeros((1, 32, width, 1))
impulse[0, 10, 16, 0] = 1
as_text = scan_forward(np.full((1, 32 * width, 1), gate), impulse.reshape(1, -1, 1), np.zeros((1, 1)))
as_text = as_text.reshape(1, 32, width, 1)
as_map = line_forward(np.full_like(impulse, gate), impulse, "down")
print(f"what the pixel below hears: line by line {as_text[0, 11, 16, 0]:.4f}, on the map {as_map[0, 11, 16, 0]:.4f}")

assert np.isclose(as_text[0, 11, 16, 0], gate * (1 - gate) ** width)
assert np.isclose(as_map[0, 11, 16, 0], gate * (1 - gate))

two_layers = impulse
for _ in range(2):
    two_layers = sum(
        (line_forward(np.full_like(impulse, gate), two_layers, direction) for direction in ALL_WAYS),
        np.zeros_like(impulse),
    )
assert two_layers.min() > 0  # 一个脉冲到达了每个像素

# %% [markdown]
# ## 它的反向呢？
# 没有新东西，这正是成对编写的好处：不论轴的次序如何，扫描的反向就是扫描的反向；窗口的反向就是卷积的反向（习题 1）。对不对？第 6 章知道怎么问。

# %%
params, kind = layer(quarters(), H=4)
small = rng.standard_normal((1, 4, 5, 4))


def forward(x: Array, params: STMParams) -> tuple[Array, object]:
    y, cache = image_stm_forward(x, params, kind)
    return y, (cache, params)


def backward(dy: Array, kept: tuple) -> tuple[Array, STMParams]:  # type: ignore[type-arg]
    cache, params = kept
    return image_stm_backward(dy, cache, params, kind)


report = check_pair(forward, backward, {"x": small, "params": params}, name="image STM", float32=False)
print(report)
report.assert_ok()

# %% [markdown]
# ## 它值多少？
# 能看得远，不等于必须看得远。程序包做过测量：宽度减半的网络，短时训练，各三个种子，每次拿掉一个部件（[ablation.md](../../../benchmarks/results/ablation.md)）。乘法次数相同而不做扫描，低 0.9 个百分点：不多，约为两个标准误。没有*窗口*，低 20 个百分点。输入门一直打开，低 7 个百分点。所以在小图片上，看东西的是窗口，提供非线性的是输入门，记忆在此之上再添一点。朝哪些方向扫描，测不出差别。
#
# 每一篇这样的论文里，都该有一个花费相同而没有记忆的对照。别处做过这种对照的，结果也很让人清醒：MambaOut（Yu & Wang 2024, arXiv:2405.07992）从这一类视觉网络里去掉扫描，效果反而更好。
#
# ## 用本领域的话说
# * 这里以及整个领域所说的**卷积**，在数学里是*互相关*：卷积核没有翻转。**权重共享**使它具有**平移等变性**：输入平移，输出也随之平移。
# * 在图上作四个方向的扫描：多维 LSTM（Graves, Fernández & Schmidhuber 2007）、ReNet（Visin et al. 2015, arXiv:1505.00393）；如今是视觉状态空间模型的扫描。已发表的工作中与它最接近的，是二维的 HGRN（Qin et al. 2023, arXiv:2311.04823）：一套门，四个方向的扫描，相加并归一化。
# * 两层就能到达各处，因为路是一个轴一个轴走的：与**轴向注意力**（axial attention；Ho et al. 2019, arXiv:1912.12180）是同样的想法。
#
# ## 小结
# * 卷积就是 $k^2$ 次平移后的矩阵乘法；视野每层增长一个像素。
# * 图像 STM：门用窗口，扫描沿行和列。一层看到十字，两层看到全部。
# * 前向和反向都是同一个扫描，只是轴的次序不同。
# * 实测：窗口很值，输入门很值，扫描值一点。
#
# ## 习题
# 解答：[11_pictures_as_maps.py](../../solutions/11_pictures_as_maps.py)。
#
# **1. 一维卷积的反向。** 对序列 x (T, D)，$y_t = \sum_j x_{t+j-(k-1)/2}\, W_j + b$。用对 $t$ 和 $j$ 的循环写出前向与反向，并检查这一对。
#
# <details><summary>提示</summary>
#
# 哪些输出用到 $x_s$，各用哪个 $W_j$？它们各传回 $dy_t W_j^\top$。
# </details>
#
# **2. 远角有多响？** 在上面的 `two_layers` 中，证明与脉冲相距 $a$ 行、$b$ 列（都大于 0）之处，到达的恰好是 $2 u^2 (1-u)^{a+b}$。为什么有个 2？
#
# <details><summary>提示</summary>
#
# 先沿行再沿列，或先沿列再沿行。脉冲每搭乘一次扫描，写入时都带一个因子 $u$。
# </details>
#
# **3. 扫描会随图片平移吗？** 证明：对空白背景上的图片，各方向相加的扫描层在 $b_z = 0$ 时具有平移等变性，在 $b_z \ne 0$ 时则没有。是什么破坏了它？
#
# <details><summary>提示</summary>
#
# 每条线都在边界处以空记忆开始。从边界到物体的途中，记忆会捡到什么？
# </details>
