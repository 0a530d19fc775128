# %% [markdown]
# # 9 · Digits in a minute
#
# From pictures to a tested network: look at the data, turn a picture into a sequence, read the training loop, train,
# and say honestly how good the result is. It is what `stg-np train` does, in the open, smaller and with fewer epochs.

# %%
from dataclasses import replace
from functools import partial
from inspect import getsource

import matplotlib.pyplot as plt
import numpy as np

from stg_np import data
from stg_np.backend import Array
from stg_np.data import Dataset
from stg_np.data.augment import Scaling, channel_statistics, validation_split
from stg_np.engine import Threads
from stg_np.evaluate import accuracy, confusion_matrix, predict_logits, recall_per_class
from stg_np.models.stg import STG
from stg_np.ops.losses import log_softmax
from stg_np.ops.views import patches_forward
from stg_np.presets import PRESETS, at
from stg_np.train import Examples, Record, Run, TrainState, fit, initial_state, prepare, train_step

# %% [markdown]
# ## What are the data?
# 1,797 handwritten digits, 8×8 pixels with values 0 … 16, bundled with the package. There is no official test set.
# The default one is hard on purpose: the last 360 pictures of the file, most of them by other writers than the rest.

# %%
digits = data.load("digits")
print(f"{digits.label}: training {digits.train_images.shape}, test {digits.test_images.shape}; {digits.note}")
assert digits.train_images.shape == (1437, 8, 8, 1)
assert len(digits.test_labels) == 360


def show(picture: Array) -> None:
    """Print a picture (8, 8, 1) as characters, dark to bright."""
    for row in picture[..., 0]:
        print("   ", "".join(2 * " .:-=+*%@"[value // 2] for value in row))


for k in (0, 2, 4):
    print("label", digits.train_labels[k])
    show(digits.train_images[k])

# %% [markdown]
# ## How does a picture become a sequence?
# An STM layer reads steps. We cut the picture into small patches, row by row, as one reads a page; each patch is one
# step of the sequence, its pixels are the features of that step. The preset says how large the patches are; we make its
# network half as wide, to be quick.

# %%
preset = PRESETS["digits"]
model = STG(digits.shape, classes=10, **preset.model | {"width": 48})
height, width = model.patch_size
sequence = patches_forward(digits.train_images[:1], height, width)
print(f"a picture {digits.shape} -> patches of {height}×{width} -> (B, T, D) = {sequence.shape}")

assert sequence.shape == (1, model.grid[0] * model.grid[1], model.features)
assert (sequence[0, 0] == digits.train_images[0, :height, :width].reshape(-1)).all()  # the first step: top left

# %% [markdown]
# ## What is the network?
# Several STM layers, one after the other, and a linear head: `input -> stm1 -> … -> stmN -> output`. A model is a
# frozen dataclass; its `forward` is short enough to read here.

# %%
params, state = model.init(np.random.default_rng(0))
print(model, f"{params.layout.size:,} parameters", getsource(STG.forward), sep="\n")

# %% [markdown]
# ## What is a run?
# `Run` holds all that a result depends on: the model, the hyper-parameters (`TrainConfig`), the pictures to learn
# from, the pictures held out to watch progress (**validation**: never learned from), and how pixels are scaled. All
# of it comes from the training pictures; the test set stays in its drawer.


# %%
def make_run(dataset: Dataset) -> Run:
    """The preset with fewer epochs, at a higher rate; one training picture in ten is held out."""
    learn, watch = validation_split(dataset.train_labels, 0.1, seed=0)
    train, validation = (Examples(dataset.train_images[part], dataset.train_labels[part]) for part in (learn, watch))
    scaling = Scaling(*channel_statistics(train.images, dataset.value_range), dataset.value_range)
    config = replace(preset.config, epochs=6, optimizer=at(0.03), group_size=preset.config.batch_size)
    return Run(model, config, train, validation, scaling)


run = make_run(digits)
print(run.config)

# %% [markdown]
# A check worth the habit: a fresh network knows nothing, so its loss must be near that of guessing one in ten, log 10
# = 2.30. Far above would mean a bad start, far below a leak of the answers.

# %%
fresh_logits = model.forward(prepare(run, run.train.images), params, state)[0]
fresh_loss, fresh_accuracy = accuracy(fresh_logits, run.train.labels)
print(f"loss {fresh_loss:.2f}, accuracy {fresh_accuracy:.2f}")
assert abs(fresh_loss - np.log(10)) < 1
assert fresh_accuracy < 0.3

# %% [markdown]
# ## What is one step of training?
# Read `train_step` aloud: forward, loss and backward of a batch (`batch_gradient`, whose groups the engine shares out
# among threads); the gradient shortened if it is too long; the optimizer's update. Old state in, new state out, nothing
# changed in place. Around the update stands a guard, `when_finite`: one gradient that is not a number would spoil every
# parameter for good, so such a step changes nothing and leaves its number in `bad_step`.

# %%
print(getsource(train_step))

start = initial_state(run)
batch = np.arange(run.config.batch_size)
poison = np.where(np.arange(params.flat.size) == 0, np.nan, params.flat)  # one parameter is not a number
poisoned = start._replace(params=params.with_flat(poison))
with Threads(1) as engine:
    after = train_step(run, start, batch, engine)
    refused = train_step(run, poisoned, batch, engine)
assert after.bad_step == -1  # none
assert not np.array_equal(after.params.flat, start.params.flat)
assert refused.bad_step == 1
assert np.array_equal(refused.params.flat, poison, equal_nan=True)

# %% [markdown]
# What you have read is the *plain* path. An engine takes a faster one unless told not to; the gradient is the same.

# %%
from stg_np.train import batch_gradient

with Threads(1, fast=False) as slow, Threads(1) as engine:
    plain, quick = (batch_gradient(run, start, batch, who) for who in (slow, engine))
assert np.allclose(plain.grads.flat, quick.grads.flat, rtol=0, atol=1e-4 * np.abs(plain.grads.flat).max())

# %% [markdown]
# ## What does training say of itself?
# `fit` prints nothing: it yields records, and the reader of the records decides. Read aloud, a line says: "after so
# many passes, so many of the pictures it practised on were called right, and so many of those it has never learned
# from." Practice may be the harder of the two: with `shift` every picture is moved a little each time it comes, and
# with `label_smoothing` the loss cannot reach 0. The rate climbs first (`warmup`), then sinks to nothing.


# %%
def train(run: Run) -> list[Record]:
    with Threads() as engine:
        return [record for record in fit(run, engine) if record.kind == "epoch"]


history = train(run)
for record in history:
    print(
        f"epoch {record.epoch:2d}  step {record.step:3d}  loss {record.loss:.3f}  practice {record.accuracy:.3f}  "
        f"validation {record.validation_accuracy:.3f}  rate {record.learning_rate:.4f}"
    )
assert len(history) == run.config.epochs
assert history[-1].loss < 0.6 * history[0].loss
assert history[-1].learning_rate < history[len(history) // 2].learning_rate

# %% [markdown]
# The **learning curve**: two curves that rise together and level off are what one hopes for; a
# validation curve that turns down while practice goes on rising would mean learning by heart.

# %%
plt.style.use("stg_np.tutorial")
figure, axes = plt.subplots(figsize=(7, 3.5))
axes.plot([record.accuracy for record in history], label="practice")
axes.plot([record.validation_accuracy or 0.0 for record in history], label="validation")
axes.set(xlabel="epochs after the first", ylabel="accuracy", title="Digits")
axes.legend()
figure.savefig("09_honest_digits.svg")

# %% [markdown]
# ## How good is it?
# Now, once, the test set. Beside it the same procedure with 360 test pictures drawn *at random* from the file, and
# the simplest rival there is: the label of the nearest training picture, pixel by pixel.


# %%
def logits_on_test(dataset: Dataset, run: Run, now: TrainState) -> Array:
    with Threads() as engine:
        return predict_logits(run.model, now.params, now.state, dataset.test_images, engine, partial(prepare, run))


def compare(name: str, dataset: Dataset, logits: Array) -> tuple[float, float, float]:
    """Print and return: our accuracy, the nearest neighbour's, and the median distance to it."""
    known, asked = (images.reshape(-1, 64).astype(float) for images in (dataset.train_images, dataset.test_images))
    squares = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)
    rival = float((dataset.train_labels[squares.argmin(1)] == dataset.test_labels).mean())
    ours, distance = accuracy(logits, dataset.test_labels)[1], float(np.median(np.sqrt(squares.min(1))))
    print(f"{name}: STG {ours:.3f}, nearest neighbour {rival:.3f} at a distance of {distance:.1f} grey values")
    return ours, rival, distance


at_random = data.load("digits", split_seed=0)
other_run = make_run(at_random)
logits = logits_on_test(digits, run, history[-1].now)
other_logits = logits_on_test(at_random, other_run, train(other_run)[-1].now)
score, rival, distance = compare("last 360 in file order", digits, logits)
other_score, other_rival, other_distance = compare("360 drawn at random", at_random, other_logits)
print(f"one standard error: {np.sqrt(score * (1 - score) / 360):.3f}")

assert score > 0.82
assert other_score > 0.85
assert rival < other_rival
assert distance > other_distance

# %% [markdown]
# Be slow to be proud: pixels and a ruler are a strong rival here, and six epochs are few. And why do the lines
# differ? Drawn at random, almost every test picture has a cousin by the same hand among the training pictures. Of the
# last 360 many have none: the nearest training picture is farther away, and the rival, who knows nothing but
# distances, loses as well. The validation pictures were drawn at random too, so they flatter. For *new writers* the
# first line is the honest one; and none is sharper than 360 pictures allow, a standard error of √(p (1 − p) / 360).

# %% [markdown]
# ## Which digits does it confuse?
# A row for each true digit, a column for each answer: what is off the diagonal went wrong. The last column, the
# **recall**, is the part of the digit's pictures called right; weighted by their number, its mean is the accuracy.

# %%
confusion = confusion_matrix(logits, digits.test_labels)
recall = recall_per_class(confusion)
print("true \\ said", *(f"{digit:3d}" for digit in range(10)), "  recall")
for digit, row in enumerate(confusion):
    print(f"{digit:11d}", *(f"{count or '.':>3}" for count in row), f"  {recall[digit]:.3f}")
assert confusion.sum() == 360
assert np.isclose(np.average(recall, weights=confusion.sum(1)), score)

# %% [markdown]
# And one mistake with our own eyes, the one of which the network was most certain. Would you have known?

# %%
answers, certainty = logits.argmax(1), np.exp(log_softmax(logits)).max(1)
worst = np.argmax(np.where(answers != digits.test_labels, certainty, -1.0))
print(f"label {digits.test_labels[worst]}, the network says {answers[worst]} ({certainty[worst]:.0%} certain)")
show(digits.test_images[worst])
assert answers[worst] != digits.test_labels[worst]

# %% [markdown]
# The whole preset, with all its width and epochs, on two cores, in under a minute: `stg-np train`.
