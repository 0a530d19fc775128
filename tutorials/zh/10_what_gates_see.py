# %% [markdown]
# # 10 · 门看到什么
#
# 训练好的网络有自己的主张：哪个门在哪里打开，为什么？程序包附带一个认得 CIFAR-10 十个类别的网络。我们给它看一张图片，趁它思考时观察它的门，再把门逐个拿掉。
#
# **你将学到**
# * 怎样把网络的门读成叠在图片上的图；
# * 没有某个门，答案会是什么，又是哪个门撑起了这个网络；
# * 为什么门不是注意力。

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import stg_np
from stg_np.backend import Array
from stg_np.data.augment import normalise
from stg_np.explain import explain
from stg_np.ops.activations import IDENTITY
from stg_np.params import Params
from stg_np.runs.weights import load
from stg_np.stm import STMParams, init_stm, stm_forward
from stg_np.workspace import Workspace

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## 用哪张图片？
# 照片总是有主人的，所以我们自己画一张：一艘船，32×32 像素，十二行 NumPy。（用你自己的照片：`stg-np explain cifar10 my.jpg`。）这个网络从没见过画。问问它看。


# %%
def paint_ship() -> Array:
    """一张图片 (32, 32, 3)，uint8。"""
    row, column = np.mgrid[0:32, 0:32]
    picture = np.array([150.0, 190, 235]) - row[..., None] * np.array([1.5, 0.8, 0.2])  # 天空
    sea = row >= 21
    picture[sea] = (np.array([30, 75, 120]) + 8 * np.sin(1.1 * column + 2 * row)[..., None])[sea]
    hull = (row >= 17) & (row <= 22) & (column >= row - 13) & (column <= 28 - 0.7 * (row - 17))
    picture[hull] = [60, 40, 45]
    picture[12:17, 9:20] = [235, 235, 235]  # 船舱
    picture[7:12, 12:16] = [190, 60, 40]  # 烟囱
    picture += 6 * np.random.default_rng(0).standard_normal(picture.shape)  # 颗粒
    pixels: Array = np.clip(picture, 0, 255).round().astype(np.uint8)
    return pixels


ship = paint_ship()
about, now = load(Path(stg_np.__file__).parent / "weights" / "cifar10.npz")
classes, model = about.data.classes, about.model
x = normalise(ship[None], *about.data.scaling)  # (1, 32, 32, 3)
seen = explain(model, now.params, now.state, x)
print(model)
for k in seen.probabilities.argsort()[::-1][:3]:
    print(f"{classes[k]:10s} {seen.probabilities[k]:.2f}")

assert classes[seen.probabilities.argmax()] == "ship"
assert np.isclose(seen.probabilities.sum(), 1)

# %% [markdown]
# ## 它的门是什么样子？
# 每一层的每个像素处有 $H$ 个单元，每个单元有输入门 $i$（进来什么）、更新门 $u$（更新多少）和输出门 $o$（出去什么）。下面是第二层，它的特征图为 16×16 像素。上排是 64 个单元的平均；下排是每种门里在图上变化最大的那个单元。

# %%
layers = {layer.name: layer for layer in seen.layers}
gates = layers["stm2"].gates
figure, panels = plt.subplots(2, 4, figsize=(8.8, 4.4), layout="constrained")
panels[0, 0].imshow(ship)
panels[0, 0].set(title="the picture")
panels[1, 0].axis("off")
for column, (name, gate) in enumerate((("i", gates.i), ("u", gates.u), ("o", gates.o)), 1):
    cell = int(gate.std((0, 1)).argmax())
    for row, (title, map_) in enumerate(
        ((f"{name}, mean", gate.mean(-1)), (f"{name} of cell {cell}", gate[..., cell]))
    ):
        picture = panels[row, column].imshow(map_, vmin=0, vmax=1)
        panels[row, column].set(title=title)
for panel in panels.flat:
    panel.set(xticks=[], yticks=[])
    panel.grid(visible=False)
figure.colorbar(picture, ax=panels, label="closed 0 … 1 open", shrink=0.7)
figure.savefig("10_gates.svg")

for name, gate in (("i", gates.i), ("u", gates.u), ("o", gates.o)):
    print(f"{name}: mean {gate.mean():.2f}, from {gate.min():.2f} to {gate.max():.2f}")
    assert gate.shape == (16, 16, 64)
    assert gate.min() >= 0
    assert gate.max() <= 1
assert gates.i.std() > gates.u.std()

# %% [markdown]
# 看得出船来。输入门画出边缘和表面，每个单元各有自己的一套。输出门在少数地方关闭。更新门几乎什么也看不出：它们起初就几乎全开（$b_u = 2$，而 $\sigma(2) = 0.88$），因为在 32×32 的图片上这样训练效果最好；训练之后它们仍留在那里。所以这个网络的记忆很*短*：记忆中的东西，从一个像素到下一个只保留八分之一。

# %%
for layer in seen.layers:
    print(f"{layer.name}: a memory keeps {layer.kept:.2f} from pixel to pixel, sweeps {len(layer.ways)} ways")
    assert layer.kept < 0.3
assert np.abs(gates.u - 1 / (1 + np.exp(-2))).max() < 0.1  # 整张图上都是 σ(2)

# %% [markdown]
# ## 答案靠的是哪个门？
# 拿掉一个门的办法是让它一直打开，即在所有层里令 $i = 1$、$u = 1$ 或 $o = 1$，不再重新训练；拿掉记忆的办法是让它只维持一个像素。这时网络怎么说？

# %%
answers = {"as it is": seen.probabilities} | {f"without the {what}": answer for what, answer in seen.without.items()}
figure, axes = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
for k, (name, answer) in enumerate(answers.items()):
    best = int(answer.argmax())
    print(f"{name:27s} {classes[best]:10s} {answer[best]:.2f}   ship {answer[classes.index('ship')]:.2f}")
    axes.barh(k, answer[classes.index("ship")], color="C0")
    axes.text(answer[classes.index("ship")] + 0.01, k, f"says {classes[best]}", va="center", fontsize=9)
axes.set(yticks=range(len(answers)), yticklabels=answers, xlim=(0, 1.15), xlabel="probability of ship")
axes.invert_yaxis()
axes.grid(visible=False, axis="y")
figure.savefig("10_without.svg")

assert classes[seen.without["input gate"].argmax()] != "ship"
assert classes[seen.without["carried memory"].argmax()] == "ship"

# %% [markdown]
# 没有输入门，网络就迷失了。这在意料之中：图像 STM 的候选值是线性的，使它弯曲的正是 $i \odot z = z\,\sigma(wz + b)$（即 Swish 激活函数）。输入门一直打开，$z$ 就原样通过，六层胜过一层的道理大半也就没有了；池化和另外两个门代替不了它。没有记忆，则只是稍有不足。一张图片证明不了什么；但在许多图片上经过训练的消融实验，结论也是如此（[ablation.md](../../../benchmarks/results/ablation.md)）。

# %% [markdown]
# ## 关着的输出门做什么？
# $y = o \odot m$：当 $o = 0$ 时，不管记忆里有什么，什么也不出去。一点不差，就是零：

# %%
rng = np.random.default_rng(0)
params = init_stm(rng, D=3, H=4, length=10)
params.b[8:12] = -1e4  # b = [b_i | b_u | b_o | b_z]
(y, m_T), cache = stm_forward(rng.standard_normal((2, 10, 3)), np.zeros((2, 4)), params, phi_z=IDENTITY)
assert not y.any()
assert np.abs(m_T).min() > 0  # 记忆还在，只是听不到


# %% [markdown]
# 在网络里：关上最后一层的所有输出门，它对每张图片说的话就都一样。


# %%
def with_closed_output(layer: str) -> Params:
    b = now.params.group(layer, STMParams).b.copy()
    b.reshape(4, -1)[2] = -1e4
    return now.params.replaced({f"{layer}.b": b})


deaf, work = with_closed_output("stm6"), Workspace()
upside_down = np.ascontiguousarray(x[:, ::-1])
deaf_to_one, deaf_to_other = (model.forward(picture, deaf, now.state, work=work)[0] for picture in (x, upside_down))
of_one, of_other = (model.forward(picture, now.params, now.state, work=work)[0] for picture in (x, upside_down))
assert np.array_equal(deaf_to_one, deaf_to_other)
assert not np.allclose(of_one, of_other, rtol=0, atol=0.1)

# %% [markdown]
# ## 门是注意力吗？
# 在类似的图下面常能读到“门注意到了船”。它没有，而这不是措辞之争。**注意力**（Bahdanau et al. 2014, arXiv:1409.0473；Vaswani et al. 2017, arXiv:1706.03762）比较的是*位置*：它的权重在所有位置上经过 softmax，所以和为 1，一处得，他处失。门则由每个像素、每个单元通过 σ 各自决定。可以全开，也可以全关；没有谁在作比较。
#
# 证明：改动图片的一角，看第一层的门在对角处的变化。位置上的 softmax 会处处跟着动。

# %%
changed = x.copy()
changed[:, -4:, -4:] += 1
elsewhere = explain(model, now.params, now.state, changed)
before, after = layers["stem"].gates.i, elsewhere.layers[0].gates.i
print(f"gates of the corner: moved by {np.abs(after - before)[-4:, -4:].max():.2f}; opposite corner: by ", end="")
print(
    f"{np.abs(after - before)[:16, :16].max():.2f}; sum of one cell's gates over the places: {before[..., 0].sum():.0f}"
)

assert np.array_equal(before[:16, :16], after[:16, :16])
assert not np.allclose(before[-4:, -4:], after[-4:, -4:], atol=1e-3)
assert before.sum((0, 1)).min() > 2  # softmax 则为 1

# %% [markdown]
# 还有一点提醒。门在船身处打开，说明的是它在那里打开了，并不说明答案取决于它。像上面那样把门敲掉，是更有力的证据；但即便如此，说明的也只是现有的这个网络依赖什么，而不是没有它本来能学到什么。
#
# ## 用本领域的话说
# * 观察单元对什么有反应，叫**特征可视化**；从训练好的网络里拿掉一部分，叫**消融**（ablation）或**损毁**（lesioning）。有些图看起来令人信服，其实与学到的东西无关，这是 Adebayo et al.（2018, arXiv:1810.03292，“Sanity checks for saliency maps”）发现的。
# * 乘在卷积各通道上的门：**门控线性单元**（GLU；Dauphin et al. 2016, arXiv:1612.08083）；$z\,\sigma(z)$ 就是 **SiLU** 或 **Swish**（Ramachandran et al. 2017, arXiv:1710.05941）。
#
# ## 小结
# * 门就是图：每个像素、每个单元、每种门一个数。在这个网络里，输入门在作画，更新门几乎全开。
# * 打开输入门，答案就没了；切断记忆，答案几乎不变。
# * 关着的输出门给出恰好为 0 的输出。门独自决定；注意力则作比较。
#
# ## 习题
# 解答：[10_what_gates_see.py](../../solutions/10_what_gates_see.py)。
#
# **1. 找一个背景单元。** `stm2` 的哪个单元，其输入门与天空最吻合？
#
# <details><summary>提示</summary>
#
# 作一张图，有天空处为 1，其余为 0；对 2×2 像素取平均，缩到 16×16；再与每个单元的门求相关系数（`np.corrcoef`）。
# </details>
#
# **2. 哪一层？** `seen.without_in` 里是只在一层中打开某个门时的答案。在哪一层里，输入门最不可缺？
#
# <details><summary>提示</summary>
#
# `seen.without_in["stm1"]["input gate"]` 就是其中之一。
# </details>
#
# **3. 它分得清左右吗？** 把船左右镜像，再上下颠倒。网络能容忍哪一种，为什么？
#
# <details><summary>提示</summary>
#
# 训练时，图片随机作过镜像。
# </details>
