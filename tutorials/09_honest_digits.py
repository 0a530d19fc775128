# %% [markdown]
# # 9 · Honest digits
#
# A network is trained, and a number comes out: 97.2 %. What is it worth? This chapter trains a small STG on pictures
# of digits, and then spends as much care on the number as on the network. Which pictures may be looked at, and when?
# How exact is the number? And is 0.972 really better than 0.956?
#
# **You will know**
#
# * what training, validation and test pictures are for, and how overfitting looks;
# * how far an accuracy from n pictures may be off, and how to draw it;
# * how to compare two classifiers on the same pictures, so that chance has a say.

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
# ## What are the data?
# 1,797 handwritten digits of 8×8 pixels with values 0 … 16, bundled with the package. Here is the rule of this
# chapter:
#
# * **training** pictures: the network learns from them;
# * **validation** pictures: held out of the training ones; we look at them as often as we like, to choose settings;
# * **test** pictures: they stay in their drawer, and are looked at *once*, at the end.
#
# There is no official test set. We take the last 360 pictures of the file. Most of them are by writers of whom no
# picture is among the rest, which makes them hard, and is what a user would meet.

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
# ## How does a picture become a sequence?
# An STM layer reads steps. We cut the picture into patches of 2×2, row by row, as one reads a page. A patch is one
# step; its four pixels are the D = 4 features of that step. So T = 16.

# %%
preset = PRESETS["digits"]
model = STG(digits.shape, classes=10, **preset.model | {"width": 32, "layers": 2})  # smaller than the preset's
sequence = patches_forward(digits.train_images[:1], *model.patch_size)
print(f"a picture {digits.shape} -> patches of {model.patch_size} -> (B, T, D) = {sequence.shape}")
assert sequence.shape == (1, 16, 4)
assert (sequence[0, 0] == digits.train_images[0, :2, :2].reshape(-1)).all()  # the first step: top left

# %% [markdown]
# ## What is a run?
# A `Run` holds all that a result depends on: the model, the settings (`TrainConfig`), the training and the validation
# pictures, and how pixels are scaled. The scaling is computed from the training pictures alone: the test set stays in
# its drawer.


# %%
def make_run(dataset: Dataset, pictures: int | None = None, **settings: Any) -> Run:
    """One training picture in ten is held out; of the others the first so many are learned from (None: all)."""
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
# A habit worth having: a fresh network knows nothing, so its loss must be near that of guessing one in ten, log 10 =
# 2.30. Far above would mean a bad start; far below, that the answers leak into the input.

# %%
start = initial_state(run)
fresh_logits = model.forward(prepare(run, run.train.images), start.params, start.state)[0]
fresh_loss, fresh_accuracy = accuracy(fresh_logits, run.train.labels)
print(f"fresh: loss {fresh_loss:.1f}, accuracy {fresh_accuracy:.1f}")
assert abs(fresh_loss - math.log(10)) < 1
assert fresh_accuracy < 0.3

# %% [markdown]
# ## Which code is it that trains?
# The plain functions of chapters 3 and 4 are the ones to read. To train, an engine takes faster ones with the same
# result, unless it is told not to. We hold the two against each other once, on the gradient of one batch:

# %%
batch = np.arange(run.config.batch_size)
with Threads(1, fast=False) as plain_engine, Threads(1) as engine:
    plain = batch_gradient(run, start, batch, plain_engine).grads.flat
    fast = batch_gradient(run, start, batch, engine).grads.flat
assert np.allclose(plain, fast, rtol=0, atol=1e-4 * abs(plain).max())

# %% [markdown]
# ## How does learning look?
# `fit` yields a record after each pass over the training pictures (an **epoch**). We draw two things: the loss, and
# the share of right answers, once on the pictures it practises on and once on those it has never learned from.


# %%
def train(run: Run) -> list[Record]:
    with Threads(1) as engine:
        return [record for record in fit(run, engine) if record.kind == "epoch"]


def loss_floor(smoothing: float, classes: int) -> float:
    """The least loss there can be: that of an answer that equals the smoothed target (chapter 7)."""
    right, wrong = 1 - smoothing + smoothing / classes, smoothing / classes
    return sum(q * math.log(1 / q) for q in [right] + [wrong] * (classes - 1) if q > 0)


def half_width(p: float, n: int) -> float:
    """Half of a 95 % interval of an accuracy p of n pictures; derived below."""
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
# The loss cannot reach 0. The targets are **smoothed**: 0.91 for the right class and 0.01 for each other, so that
# even a perfect answer costs 0.500 (chapter 7 derives it). The shaded band says how far 144 validation pictures can
# be trusted; we come to it.
#
# ## What is overfitting?
# Now the same network sees 60 pictures only, unvaried and without smoothing, and many times over.

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
# It knows its 60 pictures by heart, and many new ones not at all. That gap is **overfitting**: what was learned
# belongs to the pictures, not to the digits. Three things narrow it: more pictures, the same pictures varied (here
# moved by a pixel), and stopping at the best validation accuracy. The training accuracy alone would have told us that
# all is well.
#
# ## How exact is an accuracy?
# Now, once, the test set. Our quick network first; then the larger one that comes with the package (trained for 40
# epochs).

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
# 350 of 360. But other writers would have sent other pictures. Suppose that each picture is right with probability p,
# like a coin with that side. One picture's result is 1 or 0; its mean is p, and its variance is
#
# $$p\,(1 - p)^2 + (1 - p)\,(0 - p)^2 = p\,(1 - p).$$
#
# The accuracy is the mean of n of them. Variances of independent results add, and dividing by n divides the variance
# by n²:
#
# $$\text{variance} = \frac{n\,p\,(1 - p)}{n^2} = \frac{p\,(1 - p)}{n}, \qquad
# \text{standard error } s = \sqrt{\frac{p\,(1-p)}{n}}.$$
#
# In 95 of 100 such tests the truth lies within about 1.96 s. Here that is 1.7 points to each side. We try it out:
# 20,000 imaginary test sets of 360 pictures from a network that is right with p = 0.972.

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
# ## "0.972 beats 0.956"
# The simplest rival there is: find the most similar training picture, pixel by pixel, and answer with its label
# (**1-nearest neighbour**, 1-NN).


# %%
def nearest(dataset: Dataset) -> tuple[Array, Array]:
    """For each test picture whether its nearest training picture has its label, and the distance to it."""
    known, asked = (images.reshape(-1, 64).astype(float) for images in (dataset.train_images, dataset.test_images))
    squares = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)  # |a − k|², multiplied out
    return dataset.train_labels[squares.argmin(1)] == dataset.test_labels, np.sqrt(squares.min(1))


rival_right, distance = nearest(digits)
print(f"STG {right_answers.mean():.3f}, 1-NN {rival_right.mean():.3f}")
assert abs(rival_right.mean() - 0.956) < 0.003

# %% [markdown]
# 1.7 points better. Is the STG better, or was it lucky with these 360? Both were asked the *same* pictures, so
# compare them picture by picture. On most of them they agree, and these say nothing. Only those count on which
# exactly one is right:

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
# 13 pictures for the STG, 7 for 1-NN. If the two were equally good, each of these 20 would be a fair coin. How often
# does a fair coin, thrown 20 times, come out as unevenly as 13 to 7 or more, to either side? Count the ways:
# $\binom{20}{k}$ of $2^{20}$ have k heads, so
#
# $$\text{p-value} = 2 \sum_{k=0}^{7} \binom{20}{k} \Big/ 2^{20}.$$
#
# This is **McNemar's test**, in its exact form.


# %%
def mcnemar(b: int, c: int) -> float:
    """How often b + c fair coins fall at least as unevenly as b to c."""
    n, fewer = b + c, min(b, c)
    return min(1.0, sum(math.comb(n, k) for k in range(fewer + 1)) / 2.0 ** (n - 1))


p_value = mcnemar(b, c)
print(f"p-value {p_value:.2f}")
assert math.isclose(mcnemar(1, 0), 1)  # one coin says nothing
assert math.isclose(mcnemar(5, 0), 2 / 32)
assert 0.1 < p_value < 0.6

# %% [markdown]
# In a quarter of all cases chance alone does as much. So these 360 pictures do **not** show that the STG is better.
# They do not show that it is not, either: they are too few. The same in an interval: per picture the difference is +1
# (b pictures), −1 (c pictures) or 0. Its mean is $\bar d = (b - c)/n$, its variance is the mean of the squares minus
# the square of the mean, $(b + c)/n - \bar d^2$, and so
#
# $$\text{standard error of the difference} = \sqrt{\frac{(b + c)/n - \bar d^2}{n}}.$$

# %%
d = (b - c) / n
s_paired = math.sqrt(((b + c) / n - d**2) / n)
s_unpaired = math.sqrt(sum(q * (1 - q) / n for q in (right_answers.mean(), rival_right.mean())))
enough = math.ceil(n * (1.96 * s_paired / d) ** 2)  # 1.96 s must not exceed d, and s falls as 1/√n
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

assert d - 1.96 * s_paired < 0 < d  # 0 lies within: no difference shown
assert s_paired < s_unpaired
assert enough > 2 * n

# %% [markdown]
# Pairing makes the interval narrower, because what is hard for both cancels out. It is still not narrow enough.
#
# ## Why do the validation pictures flatter?
# They were drawn at random, so nearly each has a cousin by the same hand among the training pictures. The last 360 of
# the file have not. The rival, who knows nothing but distances, shows it without any training: against test pictures
# drawn at random it is better, and its nearest pictures are nearer.

# %%
at_random = data.load("digits", split_seed=0)
random_right, random_distance = nearest(at_random)
print(f"last 360: 1-NN {rival_right.mean():.3f}, median distance {np.median(distance):.1f}")
print(f"random:   1-NN {random_right.mean():.3f}, median distance {np.median(random_distance):.1f}")
assert random_right.mean() > rival_right.mean()
assert np.median(random_distance) < np.median(distance)

# %% [markdown]
# So say which split a number comes from. For new writers the first line is the honest one.
#
# ## Which digits does it confuse?
# A row for each true digit, a column for each answer. The last column is the **recall**: the share of that digit's
# pictures that were called right. With 36 pictures or so of each digit, one of them is nearly three points.

# %%
confusion = confusion_matrix(logits, digits.test_labels)
recall = recall_per_class(confusion)
print("true \\ said", *(f"{digit:3d}" for digit in range(10)), "  recall")
for digit, counts in enumerate(confusion):
    print(f"{digit:11d}", *(f"{count or '.':>3}" for count in counts), f"  {recall[digit]:.2f}")
assert confusion.sum() == 360
assert math.isclose(np.average(recall, weights=confusion.sum(1)), p)  # weighted by number, its mean is the accuracy

# %% [markdown]
# ## In the field's words
# What we call practice is the **training set**; the gap is the **generalisation gap**; holding pictures out is
# **hold-out validation**, and choosing the best epoch by them **early stopping**. Varying pictures is **data
# augmentation**. Nearest neighbours: Cover & Hart (IEEE Transactions on Information Theory 1967). McNemar's test:
# Psychometrika 1947; for classifiers, Dietterich (Neural Computation 1998). Better intervals for p near 0 or 1:
# Wilson (Journal of the American Statistical Association 1927). Label smoothing: Szegedy et al. (arXiv:1512.00567).
# What becomes of accuracies that were reported for years on one test set, Recht et al. (arXiv:1902.10811) found out
# by collecting a new one: they fell.
#
# And there is luck *before* the test: another seed gives another network. The package's own tables therefore show the
# median of several seeds ([digits](../../benchmarks/results/digits.md)).
#
# ## Summary
# * Learn from the training pictures, choose by the validation pictures, look at the test pictures once.
# * An accuracy p of n pictures has the standard error √(p (1 − p)/n): ± 1.7 points for 97 % of 360.
# * Two classifiers on the same pictures: count only where they differ. 13 against 7 is no proof.
# * Say which pictures: new writers are harder than old ones.
#
# ## Exercises
# **1. McNemar.** Network A is right on 351 of 360 pictures (0.975), B on 345 (0.958). Is A better if they differ on 6
# pictures? On 12? On 40?
# <details><summary>Hint</summary>b − c = 6 in all cases; b + c is the number on which they differ.</details>
#
# **2. The best of fifty.** Fifty settings are all equally good, right with p = 0.95. Somebody tests each on 360
# pictures and reports the best. What will they report, on average? What if they choose on 144 validation pictures,
# and then test the chosen one?
# <details><summary>Hint</summary>Simulate with rng.binomial. The largest of many draws is not a fair draw.</details>
#
# **3. Bootstrap.** Draw 360 pictures from the 360 with replacement, many times, and compute the difference STG − 1-NN
# each time. Between which values lie 95 % of them? Compare with the formula.
# <details><summary>Hint</summary>Only the counts matter: 13 times +1, 7 times −1, 340 times 0.</details>
#
# Solutions: [solutions/09_honest_digits.py](../solutions/09_honest_digits.py). The whole training, with all its width
# and epochs: `stg-np train`.
