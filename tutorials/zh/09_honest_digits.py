# %% [markdown]
# # 9 · 如实报告的数字
#
# 网络训练完，得出一个数：97.2 %。它值多少？本章在手写数字图片上训练一个小 STG，然后对这个数花上与网络同样多的心思。哪些图片可以看，什么时候看？这个数有多准？0.972 真的比 0.956 好吗？
#
# **你将学到**
#
# * 训练图片、验证图片和测试图片各有什么用，过拟合是什么样子；
# * 由 n 张图片得来的准确率可能差多少，怎样画出来；
# * 怎样在同样的图片上比较两个分类器，并让偶然性也说句话。

# %%
import math
from dataclasses import replace
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from stg_np import data
from stg_np.backend import Array
from stg_np.data import Dataset
from stg_np.data.augment import Scaling, channel_statistics, normalise, validation_split
from stg_np.engine import Threads
from stg_np.evaluate import accuracy, confusion_matrix, predict_logits, recall_per_class
from stg_np.models.stg import STG
from stg_np.ops.views import patches_forward
from stg_np.presets import PRESETS, at
from stg_np.runs import weights
from stg_np.train import Examples, Record, Run, batch_gradient, fit, initial_state, prepare

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## 数据是什么？
# 1,797 个手写数字，8×8 像素，取值 0 … 16，随程序包附带。本章的规矩是：
#
# * **训练**图片：网络从中学习；
# * **验证**图片：从训练图片中留出；为了选择设置，想看多少次就看多少次；
# * **测试**图片：锁在抽屉里，到最后只看*一次*。
#
# 没有官方的测试集。我们取文件的最后 360 张。其中多数的书写者，在其余图片里一张也没有，所以它们比较难，也正是用户会遇到的情形。

# %%
digits = data.load("digits")
print(f"{digits.label}: training {digits.train_images.shape}, test {digits.test_images.shape}")
assert digits.train_images.shape == (1437, 8, 8, 1)
assert len(digits.test_labels) == 360

figure, row = plt.subplots(1, 10, figsize=(7.6, 1.15))
for k, axes in enumerate(row):
    axes.imshow(digits.train_images[k, :, :, 0], cmap="gray")
    axes.set_title(f"{digits.train_labels[k]}", loc="center")
    axes.axis("off")
figure.savefig("09_digits.svg")

# %% [markdown]
# ## 图片怎样变成序列？
# STM 层读的是一步一步的输入。我们把图片切成 2×2 的图块，像读书一样逐行来。一个图块就是一步，它的四个像素就是这一步的 D = 4 个特征。所以 T = 16。

# %%
preset = PRESETS["digits"]
model = STG(digits.shape, classes=10, **preset.model | {"width": 32, "layers": 2})  # 比预设的小
sequence = patches_forward(digits.train_images[:1], *model.patch_size)
print(f"a picture {digits.shape} -> patches of {model.patch_size} -> (B, T, D) = {sequence.shape}")
assert sequence.shape == (1, 16, 4)
assert (sequence[0, 0] == digits.train_images[0, :2, :2].reshape(-1)).all()  # 第一步：左上角

# %% [markdown]
# ## 什么是一次运行？
# `Run` 包含结果所依赖的一切：模型、设置（`TrainConfig`）、训练图片和验证图片，以及像素怎样缩放。缩放只由训练图片算出：测试集仍在抽屉里。


# %%
def make_run(dataset: Dataset, pictures: int | None = None, **settings: Any) -> Run:
    """十分之一的训练图片留出；其余的取前若干张来学习（None：全部）。"""
    learn, watch = validation_split(dataset.train_labels, 0.1, seed=0)
    train, validation = (
        Examples(dataset.train_images[part], dataset.train_labels[part]) for part in (learn[:pictures], watch)
    )
    scaling = Scaling(*channel_statistics(train.images, dataset.value_range), dataset.value_range)
    config = replace(preset.config, optimizer=at(0.03), group_size=32, **settings)
    return Run(model, config, train, validation, scaling)


run = make_run(digits, epochs=6, rotate=0.0)
print(f"{len(run.train.labels)} to learn from, {len(run.validation.labels) if run.validation else 0} held out")

# %% [markdown]
# 一个值得养成的习惯：新建的网络一无所知，所以它的损失必须接近十选一瞎猜的损失，log 10 = 2.30。远高于它，说明起点不好；远低于它，说明答案泄漏到了输入里。

# %%
start = initial_state(run)
fresh_logits = model.forward(prepare(run, run.train.images), start.params, start.state)[0]
fresh_loss, fresh_accuracy = accuracy(fresh_logits, run.train.labels)
print(f"fresh: loss {fresh_loss:.1f}, accuracy {fresh_accuracy:.1f}")
assert abs(fresh_loss - math.log(10)) < 1
assert fresh_accuracy < 0.3

# %% [markdown]
# ## 训练用的是哪份代码？
# 第 3、4 章的朴素函数是供阅读的。训练时，若不另外指定，引擎采用结果相同的更快的函数。我们在一批样本的梯度上把两者核对一次：

# %%
batch = np.arange(run.config.batch_size)
with Threads(1, fast=False) as plain_engine, Threads(1) as engine:
    plain = batch_gradient(run, start, batch, plain_engine).grads.flat
    fast = batch_gradient(run, start, batch, engine).grads.flat
assert np.allclose(plain, fast, rtol=0, atol=1e-4 * abs(plain).max())

# %% [markdown]
# ## 学习是什么样子？
# `fit` 每走完一遍训练图片（一**轮**，epoch）就给出一条记录。我们画两样东西：损失；以及答对的比例，一条是用来练习的图片上的，另一条是从未学习过的图片上的。


# %%
def train(run: Run) -> list[Record]:
    with Threads(1) as engine:
        return [record for record in fit(run, engine) if record.kind == "epoch"]


def loss_floor(smoothing: float, classes: int) -> float:
    """损失的最小可能值：回答与平滑后的目标相等时的损失（第 7 章）。"""
    right, wrong = 1 - smoothing + smoothing / classes, smoothing / classes
    return sum(q * math.log(1 / q) for q in [right] + [wrong] * (classes - 1) if q > 0)


def half_width(p: float, n: int) -> float:
    """n 张图片上准确率 p 的 95 % 区间的一半宽度；推导见下文。"""
    return 1.96 * math.sqrt(p * (1 - p) / n)


def draw_curves(left: Axes, right: Axes, history: list[Record], run: Run) -> None:
    epochs = [record.epoch for record in history]
    validation = np.array([record.validation_accuracy or 0.0 for record in history])
    around = np.array([half_width(p, 144) for p in validation])
    floor = loss_floor(run.config.label_smoothing, 10)
    left.plot(epochs, [record.loss for record in history], label="practice")
    left.axhline(floor, color="0.5", linestyle=":", label=f"floor {floor:.3f}")
    left.set(xlabel="epoch", title="Loss", ylim=(0, 2.5))
    right.plot(epochs, [record.accuracy for record in history], label="practice")
    right.plot(epochs, validation, linestyle="--", label="validation")
    right.fill_between(epochs, validation - around, validation + around, color="C1", alpha=0.2, linewidth=0)
    right.set(xlabel="epoch", title="Right answers", ylim=(0, 1.02))
    left.legend(loc="upper right")
    right.legend(loc="lower right")


history = train(run)
figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.0))
draw_curves(left, right, history, run)
figure.savefig("09_learning.svg")

assert abs(loss_floor(0.1, 10) - 0.500) < 0.001
assert history[-1].loss < 0.6 * history[0].loss
assert history[-1].loss > loss_floor(0.1, 10)
assert (history[-1].validation_accuracy or 0) > 0.75

# %% [markdown]
# 损失到不了 0。目标经过**平滑**：正确的类别为 0.91，其余各为 0.01，所以连完美的答案也要付出 0.500（第 7 章有推导）。阴影带表示 144 张验证图片可信到什么程度，下面就会讲到。
#
# ## 什么是过拟合？
# 现在同一个网络只看 60 张图片，不作变化，也不作平滑，反复地看。

# %%
few = make_run(digits, 60, epochs=25, batch_size=20, rotate=0.0, shift=0, label_smoothing=0.0)
by_heart = train(few)
figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.0))
draw_curves(left, right, by_heart, few)
figure.savefig("09_overfitting.svg")

gap = by_heart[-1].accuracy - (by_heart[-1].validation_accuracy or 0)
print(f"practice {by_heart[-1].accuracy:.2f}; validation is behind by more than a tenth: {gap > 0.1}")
assert by_heart[-1].accuracy > 0.98
assert gap > 0.1

# %% [markdown]
# 它把 60 张图片背得烂熟，许多新图片却不认识。这个差距就是**过拟合**：学到的东西属于这些图片，而不属于数字。有三个办法缩小它：更多的图片；把同样的图片加以变化（这里是移动一个像素）；在验证准确率最高处停下。单看训练准确率，会以为一切都好。
#
# ## 准确率有多准？
# 现在，打开测试集，只此一次。先看我们的小网络，再看程序包附带的较大的网络（训练了 40 轮）。

# %%
with Threads(1) as engine:
    last = history[-1].now
    quick = predict_logits(model, last.params, last.state, digits.test_images, engine, partial(prepare, run))
    shipped = weights.load(weights.FOLDER / "digits.npz")
    facts = shipped.about.data
    scale = partial(normalise, mean=np.array(facts.mean), std=np.array(facts.std), value_range=facts.value_range)
    network, now = shipped.about.model, shipped.now
    logits = predict_logits(network, now.params, now.state, digits.test_images, engine, scale)

quick_right, right_answers = (found.argmax(1) == digits.test_labels for found in (quick, logits))
print(f"quick network about {quick_right.mean():.1f}, shipped network {right_answers.mean():.3f}")
assert quick_right.mean() > 0.75
assert abs(right_answers.mean() - 0.972) < 0.003

# %% [markdown]
# 360 张中对了 350 张。但换一批书写者，送来的就会是另一批图片。设想每张图片以概率 p 答对，如同掷一枚这样的硬币。一张图片的结果是 1 或 0，均值为 p，方差为
#
# $$p\,(1 - p)^2 + (1 - p)\,(0 - p)^2 = p\,(1 - p).$$
#
# 准确率是 n 个结果的平均。独立结果的方差相加，除以 n 使方差除以 n²：
#
# $$\text{方差} = \frac{n\,p\,(1 - p)}{n^2} = \frac{p\,(1 - p)}{n}, \qquad
# \text{标准误 } s = \sqrt{\frac{p\,(1-p)}{n}}.$$
#
# 这样的测试做 100 次，约有 95 次真值落在 1.96 s 之内。这里就是两侧各 1.7 个百分点。试一试：设一个网络答对的概率为 p = 0.972，想象 20,000 个各有 360 张图片的测试集。

# %%
p, n = float(right_answers.mean()), 360
s = math.sqrt(p * (1 - p) / n)
imagined = np.random.default_rng(0).binomial(n, p, 20_000) / n
print(
    f"accuracy {p:.3f} ± {1.96 * s:.3f}; of the imagined ones, {np.mean(abs(imagined - p) <= 1.96 * s):.2f} lie within"
)
assert abs(imagined.std() - s) < 0.0003
assert 0.93 < np.mean(abs(imagined - p) <= 1.96 * s) < 0.97

# %% [markdown]
# ## “0.972 胜过 0.956”
# 最简单的对手：逐像素找出最相似的训练图片，用它的标签作答（**1-最近邻**，1-NN）。


# %%
def nearest(dataset: Dataset) -> tuple[Array, Array]:
    """对每张测试图片：最近的训练图片是否同标签，以及到它的距离。"""
    known, asked = (images.reshape(-1, 64).astype(float) for images in (dataset.train_images, dataset.test_images))
    squares = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)  # 展开的 |a − k|²
    return dataset.train_labels[squares.argmin(1)] == dataset.test_labels, np.sqrt(squares.min(1))


rival_right, distance = nearest(digits)
print(f"STG {right_answers.mean():.3f}, 1-NN {rival_right.mean():.3f}")
assert abs(rival_right.mean() - 0.956) < 0.003

# %% [markdown]
# 高 1.7 个百分点。是 STG 更好，还是它在这 360 张上运气好？两者答的是*同样*的图片，所以逐张比较。大多数图片上两者一致，这些什么也说明不了。算数的只有恰好一方答对的那些：

# %%
table = np.array([[np.sum(right_answers & rival_right), np.sum(right_answers & ~rival_right)],
                  [np.sum(~right_answers & rival_right), np.sum(~right_answers & ~rival_right)]])  # fmt: skip
b, c = int(table[0, 1]), int(table[1, 0])
print("              1-NN right   1-NN wrong")
for name, counts in zip(("STG right", "STG wrong"), table):
    print(f"{name:12} {counts[0]:11} {counts[1]:12}")
assert table.sum() == 360
assert math.isclose((b - c) / 360, right_answers.mean() - rival_right.mean())

# %% [markdown]
# STG 得 13 张，1-NN 得 7 张。如果两者同样好，这 20 张的每一张都如同掷一枚公平的硬币。公平的硬币掷 20 次，出现 13 比 7 或更不均匀的结果（不论偏向哪边），有多经常？数一数：$2^{20}$ 种结果中，有 $\binom{20}{k}$ 种是 k 次正面，所以
#
# $$\text{p 值} = 2 \sum_{k=0}^{7} \binom{20}{k} \Big/ 2^{20}.$$
#
# 这就是 **McNemar 检验**的精确形式。


# %%
def mcnemar(b: int, c: int) -> float:
    """b + c 枚公平硬币出现至少像 b 比 c 这样不均匀的结果的概率。"""
    n, fewer = b + c, min(b, c)
    return min(1.0, sum(math.comb(n, k) for k in range(fewer + 1)) / 2.0 ** (n - 1))


p_value = mcnemar(b, c)
print(f"p-value {p_value:.2f}")
assert math.isclose(mcnemar(1, 0), 1)  # 一枚硬币什么也说明不了
assert math.isclose(mcnemar(5, 0), 2 / 32)
assert 0.1 < p_value < 0.6

# %% [markdown]
# 单凭偶然，就有四分之一的情形会如此。所以这 360 张图片**没有**表明 STG 更好。它们也没有表明它不更好：图片太少了。用区间来说同样的事：每张图片的差为 +1（b 张）、−1（c 张）或 0。均值为 $\bar d = (b - c)/n$，方差是平方的均值减去均值的平方，即 $(b + c)/n - \bar d^2$，所以
#
# $$\text{差的标准误} = \sqrt{\frac{(b + c)/n - \bar d^2}{n}}.$$

# %%
d = (b - c) / n
s_paired = math.sqrt(((b + c) / n - d**2) / n)
s_unpaired = math.sqrt(sum(q * (1 - q) / n for q in (right_answers.mean(), rival_right.mean())))
enough = math.ceil(n * (1.96 * s_paired / d) ** 2)  # 1.96 s 不得超过 d，而 s 按 1/√n 减小
print(f"difference {d:.3f} ± {1.96 * s_paired:.3f} (unpaired it would be ± {1.96 * s_unpaired:.3f})")
print(f"pictures needed to call such a difference real: about {round(enough, -2):,}")

figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.4), width_ratios=[1.2, 1])
for place, answers in enumerate((right_answers, rival_right)):
    q = float(answers.mean())
    left.errorbar(q, place, xerr=half_width(q, n), fmt="o", capsize=4, color=f"C{place}")
    left.text(q, place + 0.18, f"{q:.3f}", ha="center")
left.set(xticks=[0.94, 0.96, 0.98], yticks=[0, 1], yticklabels=["STG", "1-NN"], ylim=(-0.5, 1.6))
left.set(title="Each alone, 95 % intervals")
right.axvline(0, color="0.5", linestyle=":")
right.errorbar(d, 0, xerr=1.96 * s_paired, fmt="o", capsize=4, color="C2")
right.text(d, 0.18, f"{d:+.3f}", ha="center")
right.set(xticks=[0, 0.02, 0.04], yticks=[], ylim=(-0.5, 0.7), title="Their difference, paired")
figure.savefig("09_paired.svg")

assert d - 1.96 * s_paired < 0 < d  # 0 在区间之内：没有显出差别
assert s_paired < s_unpaired
assert enough > 2 * n

# %% [markdown]
# 配对使区间变窄，因为对双方都难的图片抵消了。但仍不够窄。
#
# ## 验证图片为什么说好话？
# 它们是随机抽取的，所以几乎每一张在训练图片里都有出自同一人之手的“表亲”。文件的最后 360 张则没有。那个除了距离什么也不懂的对手，不用训练就能说明这一点：对随机抽取的测试图片，它答得更好，它的最近图片也更近。

# %%
at_random = data.load("digits", split_seed=0)
random_right, random_distance = nearest(at_random)
print(f"last 360: 1-NN {rival_right.mean():.3f}, median distance {np.median(distance):.1f}")
print(f"random:   1-NN {random_right.mean():.3f}, median distance {np.median(random_distance):.1f}")
assert random_right.mean() > rival_right.mean()
assert np.median(random_distance) < np.median(distance)

# %% [markdown]
# 所以，要说明一个数字出自哪种划分。对新的书写者来说，第一行才是实话。
#
# ## 它混淆哪些数字？
# 每行一个真实的数字，每列一个回答。最后一列是**召回率**：这个数字的图片中答对的比例。每个数字约有 36 张图片，一张就差不多是三个百分点。

# %%
confusion = confusion_matrix(logits, digits.test_labels)
recall = recall_per_class(confusion)
print("true \\ said", *(f"{digit:3d}" for digit in range(10)), "  recall")
for digit, counts in enumerate(confusion):
    print(f"{digit:11d}", *(f"{count or '.':>3}" for count in counts), f"  {recall[digit]:.2f}")
assert confusion.sum() == 360
assert math.isclose(np.average(recall, weights=confusion.sum(1)), p)  # 按张数加权，其平均就是准确率

# %% [markdown]
# ## 用本领域的话说
# 我们所说的练习图片就是**训练集**；那个差距叫**泛化差距**（generalisation gap）；留出图片叫**留出法验证**，用它们选出最好的一轮叫**早停**（early stopping）。让图片变化叫**数据增强**。最近邻：Cover & Hart（IEEE Transactions on Information Theory 1967）。McNemar 检验：Psychometrika 1947；用于分类器：Dietterich（Neural Computation 1998）。p 接近 0 或 1 时更好的区间：Wilson（Journal of the American Statistical Association 1927）。标签平滑：Szegedy et al.（arXiv:1512.00567）。多年来在同一个测试集上报告的准确率后来怎样了？Recht et al.（arXiv:1902.10811）收集了一个新的测试集，发现它们都下降了。
#
# 测试*之前*也有运气：换一个种子就是另一个网络。所以程序包自己的表格给出几个种子的中位数（[手写数字](../../../benchmarks/results/digits.md)）。
#
# ## 小结
# * 从训练图片学习，用验证图片选择，测试图片只看一次。
# * n 张图片上的准确率 p，标准误为 √(p (1 − p)/n)：360 张、97 % 时为 ± 1.7 个百分点。
# * 两个分类器在同样的图片上：只数它们不同的地方。13 比 7 算不上证据。
# * 说明是哪些图片：新的书写者比旧的难。
#
# ## 习题
# **1. McNemar。** 网络 A 在 360 张图片中答对 351 张（0.975），B 答对 345 张（0.958）。如果两者在 6 张上不同，A 更好吗？12 张呢？40 张呢？
# <details><summary>提示</summary>三种情形都有 b − c = 6；b + c 是两者不同的张数。</details>
#
# **2. 五十个里最好的。** 五十种设置其实同样好，答对的概率都是 p = 0.95。有人把每种都在 360 张图片上测试，报告最好的一个。平均来说，他会报告多少？如果他先用 144 张验证图片来选，再测试选中的那个呢？
# <details><summary>提示</summary>用 rng.binomial 模拟。许多次抽取中最大的，不是一次公平的抽取。</details>
#
# **3. 自助法（bootstrap）。** 从 360 张中有放回地抽 360 张，重复许多次，每次计算 STG − 1-NN 的差。其中 95 % 落在哪两个值之间？与公式比较。
# <details><summary>提示</summary>只有计数要紧：13 次 +1，7 次 −1，340 次 0。</details>
#
# 解答：[solutions/09_honest_digits.py](../../solutions/09_honest_digits.py)。完整的训练，用全部宽度和轮数：`stg-np train`。
