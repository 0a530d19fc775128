# %% [markdown]
# # 12 · 越过 90 %
#
# 一层再好，也成不了网络；网络也不会自己训练自己。在 CIFAR-10 上，从 78 % 到 90 % 之间，隔着一个窗口和十来个小决定，多数只有一行。本章逐个讲：每个是什么，为什么有用，怎样用一秒钟看到它起作用。然后再问，结果说明什么。
#
# **你将学到**
# * 一套快速训练的方案里，每一味配料做什么，解决的是哪个问题；
# * 我们网络的每个部件，实测值多少；
# * 为什么“每类 98 %”与“答对 90 %”说的可能是同一个网络。

# %%
import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import stg_np
from stg_np import data
from stg_np.backend import Array
from stg_np.data.augment import alternate_flip, moved, normalise, random_flip, random_shift
from stg_np.evaluate import accuracy, confusion_matrix, one_vs_rest_accuracy, recall_per_class
from stg_np.models.whitening import EPSILON, whitening_kernel
from stg_np.ops.batch_norm import batch_norm_forward
from stg_np.ops.conv import ConvParams, conv2d_forward
from stg_np.ops.losses import cross_entropy_backward, cross_entropy_forward
from stg_np.ops.pool2d import max_pool2d_forward
from stg_np.optim import SCHEDULES, orthogonalised
from stg_np.optim.muon import as_matrix, with_unit_columns
from stg_np.presets import PRESETS, at_fixed_norm
from stg_np.runs.weights import load
from stg_np.sweep import dirac

plt.style.use("stg_np.tutorial")
rng = np.random.default_rng(0)

recipe = PRESETS["cifar10-fast"].config
digits = data.load("digits")
pictures = digits.train_images[:400] / 16.0  # (400, 8, 8, 1)
print(
    f"{recipe.epochs} epochs, batches of {recipe.batch_size} in groups of {recipe.group_size}, flips in turn, ", end=""
)
print(f"shifts by up to {recipe.shift}, label smoothing {recipe.label_smoothing}, a {recipe.schedule} schedule")

assert (recipe.epochs, recipe.batch_size, recipe.group_size) == (8, 1000, 125)

# %% [markdown]
# 网络就是第 11 章的那个，三个模块共六层；训练方案除了门以外，取自 Jordan（2024, arXiv:2404.00498）为卷积网络设计的方案。我们跟着一张图片，从输入走到答案。
#
# ## 第一层为什么是算出来的，而不是学出来的？
# 相邻的像素非常相似。所以随机的窗口除了亮度几乎什么也看不到，所有输出说的都一样。对策：找出训练图片的窗口在哪些方向上有差别，再让这些方向同样响亮。这就是**白化**（whitening）。设 $\lambda$ 和 $v$ 是窗口二阶矩的特征值和特征向量，卷积核就是 $v / \sqrt{\lambda + \varepsilon}$。（还有它的相反数，因为门对两种符号的处理不同。）它只算一次，然后冻结。

# %%
directions = 6
kernel = whitening_kernel(pictures, 3, directions)  # (3, 3, 1, 12)
windows = sliding_window_view(pictures[..., 0], (3, 3), axis=(1, 2)).reshape(-1, 9)
outputs = windows @ kernel.reshape(9, -1)

before = windows.T @ windows / len(windows)
after = outputs[:, :directions].T @ outputs[:, :directions] / len(outputs)
largest = np.linalg.eigvalsh(before)[::-1][:directions]
print("loudness of the directions before:", (largest / largest[0]).round(3))
print("after:                            ", np.diag(after).round(3))

assert np.allclose(after, np.diag(largest / (largest + EPSILON)), rtol=0, atol=1e-9)
assert np.allclose(outputs[:, :directions], -outputs[:, directions:])

figure, panels = plt.subplots(1, 1 + directions, figsize=(9, 1.9), layout="constrained")
panels[0].imshow(pictures[3, :, :, 0])
panels[0].set_title("a picture")
for k, panel in enumerate(panels[1:]):
    largest_weight = np.abs(kernel[:, :, 0, k]).max()
    panel.imshow(kernel[:, :, 0, k], cmap="RdBu_r", vmin=-largest_weight, vmax=largest_weight)
    panel.set_title(f"{largest[k] / largest[0]:.3f}")
for panel in panels:
    panel.axis("off")
figure.savefig("12_whitening.svg")

# %% [markdown]
# 每个窗口上方：这个方向原来有多响，以第一个为 1。（红色为一种符号，蓝色为另一种。）最先是亮度，然后是坡度，再后是更细的东西，原本谁也听不到。
#
# ## 深的堆叠该怎样起步？
# 像浅的那样起步。随机的窗口把一切都混在一起；六层之后，图片已所剩无几，无从学起。所以每个窗口的前若干通道从 **Dirac** 核开始：中间为 1，四周为 0。这些通道把输入原样传下去，其余通道随机起步。

# %%
W = rng.uniform(-1, 1, (3, 3, 12, 16)) / math.sqrt(9 * 12)
dirac(W)
maps = rng.standard_normal((4, 8, 8, 12))
passed_on = conv2d_forward(maps, ConvParams(W, np.zeros(16)))[0]

assert np.array_equal(passed_on[..., :12], maps)

# %% [markdown]
# ## 为什么要对一组图片作归一化？
# **批归一化**（batch normalisation）使每个通道在一组图片上均值为 0、方差为 1。不论前面各层学到了什么，后面的门都能在未饱和的区域工作。有两点值得一看。第一，$W$ 的大小没有影响：权重大十倍，输出不变。

# %%
normalised = batch_norm_forward(passed_on)[0][0]
of_larger = batch_norm_forward(10 * passed_on)[0][0]

assert np.allclose(normalised.mean((0, 1, 2)), 0, atol=1e-12)
assert np.allclose(normalised, of_larger, rtol=0, atol=1e-3)

# %% [markdown]
# 第二，一张图片给出什么，取决于同组的其他图片。一批 1000 张，这种噪声就很小。我们按 125 张一组作归一化（**幽灵批**，ghost batch：梯度是全部 1000 张的，统计量各取自 125 张）。这种噪声是受欢迎的，它是一种弱的数据增强；而且一组正好是一个线程的工作量。测试时改用训练中保存下来的平均值。

# %%
many = rng.standard_normal((1000, 1))
of_groups = [batch_norm_forward(many[first : first + 125])[0][0] for first in range(0, 1000, 125)]
shift_of_first = of_groups[0][0, 0] - batch_norm_forward(many)[0][0][0, 0]
print(f"the first of them, by its group of 125 rather than by all 1000: {shift_of_first:+.3f}")

assert all(abs(group.mean()) < 1e-12 for group in of_groups)
assert shift_of_first != 0

# %% [markdown]
# ## 为什么四个像素只留最大的一个？
# 每个模块在第一个窗口之后就作**最大池化**：每 2×2 个像素，各通道取最大值。一个特征有就是有，没有就是没有；究竟在哪里，越来越不重要。后面各层的花费降到四分之一，窗口也看得远一倍。最后取整张图上最大的像素，由线性输出层读取。

# %%
pooled = max_pool2d_forward(pictures)[0]
assert pooled.shape == (400, 4, 4, 1)
assert np.array_equal(pooled[0, 1, 2, 0], pictures[0, 2:4, 4:6, 0].max())

# %% [markdown]
# ## 为什么用 Muon，又为什么固定范数？
# 第 7 章说明了 **Muon** 的道理：它让矩阵的每个方向走同样的一步。而后面既有批归一化，$W$ 就只有*方向*算数。它的长度没有用处，反而有害：每一步都使它变长，而同样的一步对更长的 $W$ 转动得更少（习题 3）。所以每一步之前，先把 $W$ 缩放到范数 $\sqrt d$，$d$ 为列数。一步的范数也大约如此，再乘以学习率。这样学习率就有了含义：**一步换掉权重的多大一份。** 我们的从 0.24 开始。

# %%
gradient = rng.standard_normal((3, 3, 12, 16)) * np.logspace(
    0, -2, 16
)  # some channels have a hundredth of the gradient
W = with_unit_columns(W)
step = 0.24 * orthogonalised(as_matrix(gradient))
share = np.linalg.norm(step) / np.linalg.norm(W)
loudest, weakest = np.linalg.svd(step, compute_uv=False)[[0, -1]] / 0.24
print(f"a step replaces {share:.2f} of the weights; strongest direction {loudest:.2f}, weakest {weakest:.2f}")

assert np.isclose(np.linalg.norm(W), math.sqrt(16))
assert recipe.optimizer == at_fixed_norm(0.24, 4.0, 0.8)  # 卷积核、向量和输出层的学习率
assert 0.7 * 0.24 < share < 1.25 * 0.24
assert 0.5 < weakest < loudest < 1.3

# %% [markdown]
# ## 确信无疑有什么不好？
# 只要正确的 logit 还在增大，交叉熵就还在下降；它永不满足。**标签平滑**要求的是 0.82 和九个 0.02，而不是 1 和 0。于是最佳的 logit 是有限的，比其余的高 $\ln(0.82 / 0.02) \approx 3.7$；谁比这更确信，就会被拉回来。

# %%
label = np.array([0])
pulls = []
for lead in (2.0, 3.7136, 6.0):
    logits = np.array([[lead] + [0.0] * 9])
    kept = cross_entropy_forward(logits, label, label_smoothing=0.2)[1]
    pulls.append(cross_entropy_backward(np.ones(1), kept)[0, 0])
    print(f"right logit leads by {lead:.1f}: its gradient is {pulls[-1]:+.3f}")
floor = float(cross_entropy_forward(np.array([[math.log(0.82 / 0.02)] + [0.0] * 9]), label, label_smoothing=0.2)[0][0])
print(f"the loss cannot fall below {floor:.3f}")

assert pulls[0] < 0 < pulls[2]
assert abs(pulls[1]) < 1e-4
assert math.isclose(floor, -0.82 * math.log(0.82) - 9 * 0.02 * math.log(0.02))

# %% [markdown]
# ## 50,000 张图片怎样变得更多？
# 镜像的猫还是猫，左移两个像素的猫也是。**数据增强**让每张图片在每一轮里都换个样子。平移是随机抽取的：5×5 个位置，边界用镜像补齐。镜像则*可以*做得比抽取更好：掷硬币的话，有一半的时候同一张图片接连两次是同样的。**交替翻转**则在每一轮里镜像上一轮没有镜像的那些。轮数少时，这很要紧。

# %%
numbers = np.arange(400)
first, second = (alternate_flip(pictures, numbers, epoch, seed=0) for epoch in (0, 1))
lopsided = np.abs(pictures - pictures[:, :, ::-1]).max((1, 2, 3)) > 0
same_in_turn = (first[lopsided] == second[lopsided]).all((1, 2, 3)).mean()
drawn = [random_flip(pictures, rng)[lopsided] for _ in range(2)]
same_by_coin = (drawn[0] == drawn[1]).all((1, 2, 3)).mean()
print(f"seen the same way in two epochs: in turn {same_in_turn:.0%}, by a coin {same_by_coin:.0%}")

assert same_in_turn == 0
assert 0.35 < same_by_coin < 0.65

three = np.repeat(pictures[3:4], 6, 0)
shifted = random_shift(three, rng, 2)
figure, panels = plt.subplots(1, 8, figsize=(9, 1.6), layout="constrained")
named = [("stored", three[0]), ("mirrored", three[0][:, ::-1])] + [("shifted", picture) for picture in shifted]
for panel, (name, picture) in zip(panels, named):
    panel.imshow(picture[..., 0])
    panel.set_title(name)
    panel.axis("off")
figure.savefig("12_augmentation.svg")
assert shifted.shape == three.shape

# %% [markdown]
# （镜像数字只是为了看看：镜像的 3 不是 3。哪些变化不改变类别，是关于数据的知识，如此而已。）
#
# ## 学习率为什么沿直线下降？
# 学习率高，走得远但抖动；学习率低，落得稳但费时。**学习率计划**（schedule）两者兼得。处处有归一化，就不需要预热，而一条直线降到 0 与任何曲线一样好。在带噪声的山谷 $w^2 / 2$ 里从 10 出发行走，两千次：


# %%
def landing(schedule: str, steps: int = 60) -> float:
    """结束时 w 的均方根。"""
    noise = np.random.default_rng(0)
    w = np.full(2000, 10.0)
    for step in range(steps):
        rate = 0.3 if schedule == "constant" else 0.3 * SCHEDULES[schedule](step / steps, 0.0)
        w -= rate * (w + noise.standard_normal(2000))
    return float(np.sqrt((w**2).mean()))


landed = {schedule: landing(schedule) for schedule in ("constant", "cosine", "linear")}
print("distance at the end:", {name: round(distance, 3) for name, distance in landed.items()})
assert max(landed["linear"], landed["cosine"]) < 0.7 * landed["constant"]

# %% [markdown]
# ## 测试时呢？
# 图片可以不止看一次：原样、镜像、移动一个像素，再取 logits 的平均。这叫**测试时平均**，其中有一条定理：交叉熵是 logits 的凸函数，所以平均之后的损失，至多等于各个损失的平均。用程序包自己的网络，在最后的那些数字上：

# %%
about, now = load(Path(stg_np.__file__).parent / "weights" / "digits.npz")
images, labels = digits.test_images[:120], digits.test_labels[:120]


def logits_of(images: Array) -> Array:
    return about.model.forward(normalise(images, *about.data.scaling), now.params, now.state)[0]


views = [logits_of(images)] + [logits_of(moved(images, *by)) for by in ((1, 0), (-1, 0), (0, 1), (0, -1))]
losses = [accuracy(view, labels)[0] for view in views]
loss_of_mean = accuracy(np.mean(views, 0), labels)[0]
print(f"losses of the views {np.round(losses, 3)}, their mean {np.mean(losses):.3f}; of the mean {loss_of_mean:.3f}")

assert loss_of_mean <= np.mean(losses)
assert confusion_matrix(views[0], labels).sum() == 120

# %% [markdown]
# 请看两遍。定理成立：平均之后比各个视图的*平均水平*好。但它不比第一个视图（原样的数字）好：8 个像素中移动一个，不算小，移动过的数字更难认。各个视图差不多同样好时，平均才划算，例如 32 个像素中移动一个。有多少个视图，就要多少次前向；而且这是关于测试的一种选择，所以要写在普通的数字*旁边*，决不能取而代之。
#
# ## 结果如何？
# 我们读的是已提交的结果。测试图片上的见 [cifar10-fast.md](../../../benchmarks/results/cifar10-fast.md)，旁边是读 64 个图块的序列网络；从训练集留出的图片上、逐个拿掉部件的，见 [ablation.md](../../../benchmarks/results/ablation.md)。

# %%
starts = Path(globals().get("__file__", "here")).resolve(), Path.cwd() / "here", Path(stg_np.__file__)
folders = (folder / "benchmarks" / "results" for start in starts for folder in start.parents)
results = next(folder for folder in folders if folder.is_dir())
fast, patches, ablation = (
    (results / f"{name}.md").read_text("utf-8") for name in ("cifar10-fast", "cifar10-patches", "ablation")
)


def per_cent(row: str) -> list[float]:
    """表中一行的数字：每个种子一个，以及它们的均值。"""
    found = re.search(rf"^\| {re.escape(row)} \|(.+)\|$", fast, re.MULTILINE)
    assert found, row
    return [float(figure) for figure in re.findall(r"([\d.]+) %", found[1])]


plain = per_cent("of each picture as it is")
mirrored = per_cent("mean of the logits of a picture and its mirror image")
averaged = per_cent("mean of that and of both moved by a pixel to and fro")
of_patches = float(re.findall(r"\*\*([\d.]+) %\*\* on the 10,000 test pictures", patches)[0])
convolutional = [
    float(figure)
    for figure in re.findall(r"reaches ([\d.]+) % without", fast) + re.findall(r"and ([\d.]+) %\nwith it", fast)
]
print("as it is", plain, "  mirrored", mirrored, "  and moved", averaged, "  patches", of_patches)

assert plain[:2] == [90.11, 89.76]  # 种子 0，种子 1
assert averaged[:2] == [90.63, 90.64]
assert all(abs(np.mean(row[:-1]) - row[-1]) < 0.01 for row in (plain, mirrored, averaged))
assert of_patches == 77.85
assert min(averaged) > 90 > plain[-1]

parts = {
    name: (float(points.replace("−", "-")), float(error))
    for name, points, error in re.findall(
        r"^\| ([^|]+?) \| [^|]+ \| [^|]+ \| ([−+][\d.]+) ± ([\d.]+) \|", ablation, re.MULTILINE
    )
}
wanted = {
    "without the window": "window 1: no convolution but the stem's",
    "input gate open": "i = 1: the input gate open",
    "half as deep": "one layer in each block",
    "without the sweep": "no sweep: each memory lasts for one step",
    "nothing kept, u = 1": "u = 1 from the start on: nothing is ever kept",
    "output gate open": "o = 1: the output gate open",
}
assert parts[wanted["without the window"]] == (-20.26, 0.22)
assert parts[wanted["input gate open"]] == (-6.91, 0.54)
assert parts[wanted["without the sweep"]] == (-0.92, 0.45)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
ladder = {
    "64 patches,\na sequence": of_patches,
    "image STG": plain[-1],
    "and mirror\nimages": mirrored[-1],
    "and shifts": averaged[-1],
}
left.barh(range(4)[::-1], ladder.values(), height=0.6)
for rung, value in zip(range(4)[::-1], ladder.values()):
    left.text(value + 0.3, rung, f"{value:.2f}", va="center")
left.set_yticks(range(4)[::-1], ladder)
left.set(xlim=(74, 94), xlabel="per cent of 10,000 test pictures", title="accuracy (the axis begins at 74)")
left.grid(visible=False, axis="y")
rows = range(len(wanted))[::-1]
points, errors = zip(*(parts[name] for name in wanted.values()))
right.barh(rows, points, xerr=errors, height=0.6, color="C1", ecolor="0.5")
right.set_yticks(rows, wanted)
right.axvline(0, color="0.5", linewidth=1)
right.set(xlabel="points, ± standard error", title="what is lost (half width, short)")
right.grid(visible=False, axis="y")
figure.savefig("12_ladder.svg")

# %% [markdown]
# 请冷静地读。
# * 普通的数字，两个种子的均值*略低于* 90 %，其中一个种子高于它。取平均之后，两个都在 90.6 % 以上。
# * 卷积网络用同样的方案，在这些经过 JPEG 的图片上达到 89.5 % 和 90.6 %。所以门与一个激活函数做得一样好，并不更好。
# * 扫描值 0.9 ± 0.45 个百分点，窗口值二十个。各部件的数字来自宽度减半的短时训练：它们说的是早期什么有帮助。
# * 最后一轮的训练损失高于下限：还有可学的东西。

# %%
last_loss = float(re.findall(r"^epoch 8/8: loss ([\d.]+)", fast, re.MULTILINE)[0])
print(f"last training loss {last_loss}, floor {floor:.3f}; the convolutional network: {convolutional}")

assert last_loss > floor
assert convolutional == [89.5, 90.6]
assert abs(averaged[-1] - convolutional[1]) < 0.2

# %% [markdown]
# ## “每类 98 %”
# 同一个文件说：每类准确率平均 98 %。又说：答对 90 %。是不是有一个错了？都没有错。它们回答的是两个问题：
# * 猫这一类的**召回率**：1,000 只猫里，有多少被说成猫？
# * 猫的**一对其余准确率**：全部 10,000 张图片里，有多少被正确地说成“猫”或“不是猫”？其中十分之九不是猫，而像猫像到难以分辨的东西几乎没有。
#
# 设 $e$ 为答错的比例。每个错误的回答，对*两个*类别来说是错的：它本来的类别，和它被说成的类别。对其余 $C - 2$ 个类别，它算作正确。所以，不论是什么网络，
#
# $$ \text{平均一对其余准确率} = 1 - \frac{2e}{C} . $$

# %%
table = fast.split("confusion matrix")[1]
confusion = np.array([row.split() for row in re.findall(r"^\w+((?: +\d+){10})$", table, re.MULTILINE)], int)
error = 1 - np.trace(confusion) / confusion.sum()
one_vs_rest = one_vs_rest_accuracy(confusion)
recall = recall_per_class(confusion)
print(f"recall: mean {recall.mean():.4f}, of cats {recall[3]:.4f}")
print(f"one-vs-rest: mean {one_vs_rest.mean():.4f}, of cats {one_vs_rest[3]:.4f}")

assert confusion.sum() == 10_000
assert np.isclose(recall.mean(), 0.9011)
assert np.isclose(one_vs_rest.mean(), 1 - 2 * error / 10)
assert round(one_vs_rest.mean(), 4) == 0.9802
assert recall[3] < 0.79 < 0.95 < one_vs_rest[3]

always_cat = np.zeros((10, 10), int)
always_cat[:, 3] = 1000
print(f"a network that always says cat: right {recall_per_class(always_cat).mean():.0%}, ", end="")
print(f"one-vs-rest {one_vs_rest_accuracy(always_cat).mean():.0%}")
assert np.isclose(one_vs_rest_accuracy(always_cat).mean(), 0.82)

# %% [markdown]
# 总是说“猫”的网络有 82 %。所以若有人报告“每一类的准确率”，要问是哪一种。
#
# ## 用本领域的话说
# * 训练方案：Keller Jordan，“94% on CIFAR-10 in 3.29 seconds on a single GPU”（2024, arXiv:2404.00498），包括白化的第一层、交替翻转和测试时平均。Muon：Jordan et al.（2024）。
# * **批归一化**：Ioffe & Szegedy 2015（arXiv:1502.03167）。在大批次的小组里作归一化：**幽灵批归一化**（ghost batch normalisation），Hoffer, Hubara & Soudry 2017（arXiv:1705.08741）。
# * **Dirac** 起步：Zagoruyko & Komodakis 2017（arXiv:1706.00388）。**标签平滑**：Szegedy et al. 2015（arXiv:1512.00567）。测试时平均也叫测试时**增强**（test-time augmentation）。
# * 拿掉一部分再测量，叫**消融实验**。一类对其余各类的召回率叫**灵敏度**；各类大小相等时，平均召回率就是通常的 **top-1 准确率**。
#
# ## 小结
# * 白化的第一层、Dirac 起步和归一化：从第一步起，每一层得到的都是用得上的输入。
# * 固定范数的 Muon：学习率就是一步所换掉的权重的份额。
# * 平滑、交替翻转、平移：同样的图片能教得更多。学习率下降才能落稳。各个视图差不多同样好时，平均有帮助。
# * 实测：撑起网络的是窗口和输入门；扫描添一点。
# * 平均一对其余准确率是 $1 - 2e/C$：十个类别时，98 % 就是 90 %。
#
# ## 习题
# 解答：[12_past_90.py](../../solutions/12_past_90.py)。
#
# **1. 冻结门。** 让一个门始终打开：$u \equiv 1$，或 $o \equiv 1$，或 $i \equiv 1$。对每一种，写出这一层的公式变成什么，并预测准确率的损失：没有、约一个百分点，还是很多。*然后*再去看 ablation.md。
#
# <details><summary>提示</summary>
#
# $z$ 就是窗口的输出（φ_z 是恒等函数）。哪个门使它变成非线性的东西？哪两个门，可由*下一*层的门代劳？
# </details>
#
# **2. 一百个类别。** 一个在 CIFAR-100 上*总是答错*的网络，平均一对其余准确率是多少？要达到 99 %，须答对多少？
#
# <details><summary>提示</summary>
#
# $1 - 2e/C$。
# </details>
#
# **3. 为什么必须固定范数？** 设 $p = xW$，后接批归一化。证明不论损失是什么，逐列都有 $\langle dW, W \rangle = 0$。那么普通梯度下降的一步对 $W$ 的范数做了什么？
#
# <details><summary>提示</summary>
#
# $W$ 的一列乘以一个数 $s$，输出不变。对 $s$ 求导，取 $s = 1$。
# </details>
