# %% [markdown]
# # 7 · From loss to update
#
# A network ends in ten numbers, one for each class. What makes them *wrong*, as one number that can be made smaller?
# And once its gradient is there, what is a good step? Between the logits and the new weights lie two short pieces of
# code, and most of the folklore of the field.
#
# **You will know**
# * where the softmax and its cross-entropy come from, and why their gradient is so simple;
# * why a loss of 0.5 can be perfect;
# * what momentum, Adam and Muon each repair, and why the learning rate first rises and then falls.

# %%
import math
from collections.abc import Callable
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from stg_np import data
from stg_np.backend import Array
from stg_np.gradcheck import check_pair
from stg_np.ops.losses import cross_entropy_backward, cross_entropy_forward, log_softmax
from stg_np.optim import SCHEDULES, SGD, AdamW, ByRole, Muon, Optimizer, orthogonalised
from stg_np.params import Entry, Layout, Params

plt.style.use("stg_np.tutorial")
rng = np.random.default_rng(0)

# %% [markdown]
# ## How do ten numbers become probabilities?
# The last layer gives one number $\ell_k$ per class, the **logit**: any number at all, large for "I think it is this
# one". Probabilities must be positive and sum to 1. The exponential makes every number positive; dividing by the sum
# does the rest. This is the **softmax**:
#
# $$ p_k = \frac{e^{\ell_k}}{\sum_j e^{\ell_j}} . $$
#
# Adding the same constant to all logits multiplies numerator and denominator alike: nothing changes. So one may
# subtract the largest logit first, and then nothing overflows ($e^{1000}$ is too large for a computer, $e^0$ is not).

# %%
logits = np.array([2.0, 1.0, -1.0])
p = np.exp(logits) / np.exp(logits).sum()
print("logits", logits, "→ probabilities", p.round(3))

assert np.isclose(p.sum(), 1)
assert np.allclose(np.exp(log_softmax(logits + 1000)), p)  # the package subtracts the largest first

# %% [markdown]
# ## What makes an answer wrong?
# Let $q_k$ be the target: 1 for the right class, 0 for the others. A good answer gives the right class a high
# probability. The loss is the negative logarithm of it, or, written so that it also holds for targets that are not 0 or
# 1,
#
# $$ \text{loss} = -\sum_k q_k \log p_k , $$
#
# the **cross-entropy** of $p$ and $q$. Why the logarithm? Because the probability of getting *all* of many
# examples right is the product of their probabilities, and the logarithm makes a sum of it, one term for each example.
# A network that knows nothing gives each of $C$ classes $p = 1/C$, and so begins at $\log C$: 2.303 for ten.

# %%
nothing = np.zeros((1, 10))
ignorant = cross_entropy_forward(nothing, np.array([3]))[0]
print(f"knowing nothing: {ignorant[0]:.3f} = log 10")
assert np.isclose(ignorant[0], math.log(10))

# %% [markdown]
# ## What is its gradient?
# Three lines. Put the softmax into the logarithm,
#
# $$ \log p_k = \ell_k - \log \sum_j e^{\ell_j} ; $$
#
# put that into the loss, and remember that the targets sum to 1,
#
# $$ \text{loss} = -\sum_k q_k \ell_k + \log \sum_j e^{\ell_j} ; $$
#
# differentiate. The first part gives $-q_k$; the second gives $e^{\ell_k} / \sum_j e^{\ell_j}$, which is $p_k$:
#
# $$ d\ell_k = p_k - q_k . $$
#
# What the network said, minus what it should have said. That is all. Here are the package's lines; with many examples
# each row has its own loss, and `dlosses` says what each of them counts (1/B for the mean over a batch of B).
#
# ```python
# # stg_np/ops/losses.py
# def cross_entropy_backward(dlosses: Array, cache: CrossEntropyCache) -> Array:
#     return (cache.probabilities - cache.targets) * dlosses[:, None]
# ```

# %%
B, C = 5, 4
logits, labels = rng.standard_normal((B, C)), rng.integers(0, C, B)
losses, cache = cross_entropy_forward(logits, labels)
p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
q = np.eye(C)[labels]
dlogits = cross_entropy_backward(np.full(B, 1 / B), cache)
print(dlogits.round(3))

assert np.allclose(losses, -np.log(p[np.arange(B), labels]))
assert np.allclose(dlogits, (p - q) / B)
check_pair(lambda logits: cross_entropy_forward(logits, labels), cross_entropy_backward, {"logits": logits}).assert_ok()

# %% [markdown]
# Look at a row: one negative number, at the right class, and what it gains is taken from the others. **Every row sums
# to 0.** It must, for two reasons that are one: $\sum p = \sum q = 1$; and a common shift of all logits changes no
# probability, so there can be no slope along it. (A handy test of any such code.)

# %%
assert np.abs(dlogits.sum(1)).max() < 1e-15
assert ((dlogits < 0) == (q == 1)).all()

# %% [markdown]
# ## Can the loss reach 0?
# "We train until the loss is 0." Let all wrong logits be equal, and the right one larger by a gap $g$. Then the
# probability of the right class is $1 / (1 + (C-1) e^{-g})$ and the loss is $\log(1 + (C-1) e^{-g})$. It is above 0 for
# every finite $g$. To come near, the gap must grow for ever, and with it the weights: the network is pushed to be
# *certain*, of mislabelled pictures as well.
#
# **Label smoothing** takes that pressure away. A part $s$ of the target is shared out among all classes: the right one
# is asked for $1 - s + s/C$, each other one for $s/C$. Now the gradient $p - q$ vanishes at a *finite* gap, where
# $p = q$. But there the loss is not 0. It is
#
# $$ \text{floor} = -\sum_k q_k \log q_k , $$
#
# the **entropy** of the target itself. No network can do better. (Exercise 1 proves it.)


# %%
def smooth_target(s: float, C: int) -> Array:
    """Of an example of class 0."""
    q = np.full(C, s / C)
    q[0] += 1 - s
    return q


def floor(s: float, C: int) -> float:
    q = smooth_target(s, C)
    return float(-(q * np.log(q)).sum())


for s in (0.05, 0.09, 0.1, 0.2):
    print(f"s = {s:4.2f}   floor with 10 classes {floor(s, 10):.3f}, with 100 classes {floor(s, 100):.3f}")

gaps = np.linspace(0, 12, 241)
figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
for k, s in enumerate((0.0, 0.1, 0.2)):
    ten = np.zeros((len(gaps), 10))
    ten[:, 0] = gaps
    curve = cross_entropy_forward(ten, np.zeros(len(gaps), int), label_smoothing=s)[0]
    axes.plot(gaps, curve, color=f"C{k}", label=f"s = {s:g}")
    if s:
        axes.axhline(floor(s, 10), color=f"C{k}", linestyle=":", linewidth=1.2)
        axes.text(11.9, floor(s, 10) - 0.02, f"floor {floor(s, 10):.3f}", ha="right", va="top", color=f"C{k}")
        assert curve.min() >= floor(s, 10)
        assert abs(gaps[curve.argmin()] - math.log((1 - s + s / 10) / (s / 10))) < 0.05  # the gap at which p = q
    else:
        assert curve.min() > 0
axes.set(xlabel="gap between the right logit and the others", ylabel="loss", ylim=(0, 2.4), title="Ten classes")
axes.legend(loc="upper center")
figure.savefig("07_floor.svg")

assert round(floor(0.1, 10), 3) == 0.5

# %% [markdown]
# With $s = 0.1$ and ten classes the floor is **0.500**: a training loss of 0.55 is not half bad, it is nearly perfect.
# So, when you read a loss, ask first: with which smoothing? And mind the far side of the valley: with smoothing, being
# *too certain* is punished. (The package's validation loss is measured without smoothing, so it may lie below the
# training loss.)

# %% [markdown]
# ## What is a good step?
# The gradient says which way is up. The simplest rule goes a little the other way, θ ← θ − η g, with the **learning
# rate** η. With a batch drawn at random it is called **stochastic gradient descent**, SGD. To see what is wrong with
# it, take a valley with two parameters that is 20 times steeper across than along:
#
# $$ f(\theta) = \tfrac12 (\theta_1^2 + 20\,\theta_2^2), \qquad g = (\theta_1, \; 20\,\theta_2) . $$
#
# Each step multiplies $\theta_1$ by $1 - \eta$ and $\theta_2$ by $1 - 20\eta$. Chapter 5 again: it converges only if
# *both* factors are between −1 and 1, so η must stay below $2/20$. But with $\eta < 0.1$ the first parameter creeps.
# The ratio of the largest to the smallest curvature, here 20, is the **condition number**; in networks it is thousands.

# %%
STEEP = np.array([1.0, 20.0])
LAYOUT = Layout((Entry("theta", (2,), "vector"),))
START = np.array([-9.0, 1.5])


def valley(theta: Array) -> float:
    return 0.5 * float((STEEP * theta**2).sum())


def descend(rule: Optimizer, steps: int = 150) -> Array:
    """The path of a rule of the package through the valley, (steps + 1, 2)."""
    params, path = Params(LAYOUT, START), [START]
    moments = rule.init(params)
    for _ in range(steps):
        gradient = params.with_flat(STEEP * params.flat)
        params, moments = rule.update(gradient, moments, params, 1.0)
        path.append(params.flat)
    return np.stack(path)


slow, zigzag, lost = (descend(SGD(rate, momentum=0.0)) for rate in (0.01, 0.09, 0.101))
assert np.allclose(zigzag[:, 0], START[0] * (1 - 0.09) ** np.arange(151))
assert np.allclose(zigzag[:, 1], START[1] * (1 - 20 * 0.09) ** np.arange(151))  # −0.8 each time: from side to side
assert valley(lost[-1]) > valley(START)  # 1 − 20 · 0.101 is below −1

# %% [markdown]
# ## What does momentum repair?
# Across the valley the gradient changes its sign every step; along it, it always says the same. So add them up: what
# changes sign cancels, what agrees grows.
#
# $$ \mu \leftarrow \beta \mu + g, \qquad \theta \leftarrow \theta - \eta \mu . $$
#
# With β = 0.9 a gradient that stays the same is added up to $1 + 0.9 + 0.81 + \dots = 10$ times itself. (Yes: μ is a
# leaky memory of gradients, with the time scale 10. We have been studying optimizers since chapter 1.)


# %%
def momentum_by_hand(rate: float, beta: float, steps: int = 150) -> Array:
    theta, mu, path = START, np.zeros(2), [START]
    for _ in range(steps):
        mu = beta * mu + STEEP * theta
        theta = theta - rate * mu
        path.append(theta)
    return np.stack(path)


heavy = descend(SGD(0.03, momentum=0.8, nesterov=False))
assert np.allclose(heavy, momentum_by_hand(0.03, 0.8), rtol=0, atol=1e-12)

# %% [markdown]
# ## What does Adam repair?
# One rate must serve parameters whose gradients differ a thousandfold. **Adam** measures, for each parameter, how large
# its gradients usually are, and divides by that. It keeps two leaky memories, of $g$ and of $g^2$:
#
# $$ \mu \leftarrow \beta_1 \mu + (1 - \beta_1)\, g, \qquad \nu \leftarrow \beta_2 \nu + (1 - \beta_2)\, g^2 . $$
#
# Both start at 0, so at first they are too small: after $n$ steps of a constant $g$ there is only $(1 - \beta^n)$ of it
# in them. Dividing by that puts it right. Then
#
# $$ \theta \leftarrow \theta - \eta \, \frac{\hat \mu}{\sqrt{\hat \nu} + \epsilon}, \qquad
#    \hat \mu = \frac{\mu}{1 - \beta_1^n}, \quad \hat \nu = \frac{\nu}{1 - \beta_2^n} $$
#
# with a tiny $\epsilon = 10^{-8}$, so that nothing is divided by 0.
# The fraction has no unit: double all gradients, and nothing changes. In the first step it is $\pm 1$ for every
# parameter.


# %%
def adam_by_hand(rate: float, beta1: float, beta2: float, steps: int = 150) -> Array:
    theta, mu, nu, path = START, np.zeros(2), np.zeros(2), [START]
    for n in range(1, steps + 1):
        g = STEEP * theta
        mu, nu = beta1 * mu + (1 - beta1) * g, beta2 * nu + (1 - beta2) * g**2
        theta = theta - rate * (mu / (1 - beta1**n)) / (np.sqrt(nu / (1 - beta2**n)) + 1e-8)
        path.append(theta)
    return np.stack(path)


adaptive = descend(AdamW(0.4, beta1=0.8, beta2=0.95))
assert np.allclose(adaptive[:100], adam_by_hand(0.4, 0.8, 0.95)[:100], rtol=0, atol=1e-9)
assert np.allclose(adaptive[1] - START, -0.4 * np.sign(START), rtol=1e-6)  # the first step: ± the rate, for both

# %%
paths = {"SGD, η = 0.01": slow, "SGD, η = 0.09": zigzag, "momentum": heavy, "Adam": adaptive}
first, second = np.meshgrid(np.linspace(-10, 4, 141), np.linspace(-2.2, 2.2, 111))
figure, (map_, curves) = plt.subplots(1, 2, figsize=(9.6, 3.8), width_ratios=(3, 2), layout="constrained")
map_.contour(first, second, 0.5 * (first**2 + 20 * second**2), levels=2.0 ** np.arange(-3, 7), colors="0.5", alpha=0.4)
for k, (name, path) in enumerate(paths.items()):
    map_.plot(*path[:60].T, "o-", color=f"C{k}", markersize=2.5, linewidth=1.2)
    curves.semilogy([valley(theta) for theta in path], color=f"C{k}", label=name)
    steps = next((n for n, theta in enumerate(path) if valley(theta) < 1e-3), None)
    print(f"{name:14s} below 0.001 after {steps or 'more than 150'} steps")
map_.plot(0, 0, "+", color="0.5", markersize=12)
map_.set(title="paths downhill (60 steps)", xlabel="$θ_1$", ylabel="$θ_2$")
curves.set(title="how far down", xlabel="step", ylabel="f", ylim=(1e-8, 1e2))
curves.legend(loc="lower left", fontsize=8)
figure.savefig("07_paths.svg")

assert valley(heavy[100]) < valley(zigzag[100]) < valley(slow[100])
assert valley(adaptive[100]) < valley(slow[100])

# %% [markdown]
# Do not read a ranking from a bowl with two parameters. Read what each *does*: one creeps, one rattles from wall to
# wall, one rolls and overshoots, one walks as fast along the valley as across it. (Adam rescales *coordinates*: turn
# the valley by 45° and see, exercise 3.)

# %% [markdown]
# ## What does Muon repair?
# A weight matrix is more than a list of numbers: it maps directions to directions. Its gradient has a singular value
# decomposition $G = U S V^\top$: "when the input points along a column of $V$, push the output along the column of
# $U$", with the strength on the diagonal of $S$. Typically a few strengths are huge and the rest tiny; so a step along
# $G$ teaches the few and hardly touches the rest. **Muon** keeps the directions and makes all strengths equal: it steps
# along $U V^\top$.
#
# An SVD at each step would be slow. But an odd polynomial of a matrix acts on its singular values alone. From
# $G = U S V^\top$ follows $G G^\top G = U S V^\top V S U^\top U S V^\top = U S^3 V^\top$, and so
#
# $$ a\,G + b\,G G^\top G + c\,(G G^\top)^2 G = U \, (a S + b S^3 + c S^5) \, V^\top . $$
#
# Nothing but products. Choose $a, b, c$ such that every singular value $r$ between 0 and 1 is driven towards 1, and
# repeat: the **Newton–Schulz iteration**. Muon's numbers drive small values up fast, and are content with "about 1":
#
# ```python
# # stg_np/optim/muon.py
#     a, b, c = 3.4445, -4.7750, 2.0315
# # …
#     for _ in range(iterations):
#         gram = x @ x.T
#         x = a * x + (b * gram + c * (gram @ gram)) @ x
# ```


# %%
def newton_schulz(r: Array) -> Array:
    return 3.4445 * r - 4.7750 * r**3 + 2.0315 * r**5


U, V = (np.linalg.qr(rng.standard_normal((size, 4)))[0] for size in (6, 4))
strengths = np.array([10.0, 2.0, 0.5, 0.1])
G = U @ np.diag(strengths) @ V.T
O = orthogonalised(G)
after = np.diag(U.T @ O @ V)
print("strengths before", strengths, "after", after.round(2))

expected = strengths / np.linalg.norm(strengths)
for _ in range(5):
    expected = newton_schulz(expected)
assert np.allclose(after, expected)  # the same polynomial, five times, on the numbers alone
assert np.allclose(U.T @ O @ V, np.diag(after), atol=1e-12)  # the directions are untouched
assert after.min() > 0.6
assert after.max() < 1.3

scale = np.linspace(0, 1, 1001)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), width_ratios=(3, 2), layout="constrained")
rounds = scale
for k in range(1, 6):
    rounds = newton_schulz(rounds)
    if k in (1, 2, 3, 5):
        left.plot(scale, rounds, label=f"{k} round{'s' * (k > 1)}")
left.axhline(1, color="0.5", linestyle=":", linewidth=1)
left.set(
    title="Newton–Schulz on one singular value", xlabel="before, for a matrix of norm 1", ylabel="after", ylim=(0, 1.35)
)
left.legend(loc="lower right")
right.bar(np.arange(4) - 0.2, strengths / np.linalg.norm(strengths), 0.4, label="gradient")
right.bar(np.arange(4) + 0.2, after, 0.4, label="Muon's step")
right.set(title="four directions of a matrix", xlabel="direction", ylabel="strength", xticks=range(4))
right.legend(loc="upper right", bbox_to_anchor=(1, 0.98))
right.set_ylim(0, 1.8)
figure.savefig("07_muon.svg")

# %% [markdown]
# Biases are vectors and have no such directions; they stay with Adam. So does the head, each of whose columns belongs
# to one class. That division is the package's default rule, `ByRole`.

# %% [markdown]
# ## What is weight decay, and what is it not?
# Large weights make brittle functions, so one lets all weights shrink a little each step,
# $\theta \leftarrow (1 - \eta\lambda)\,\theta$. With SGD the same comes from adding
# $\frac\lambda2 \lVert\theta\rVert^2$ to the loss ("L2"). With Adam it does *not*: whatever goes into the gradient is
# divided by the gradient's usual size, so weights with large gradients hardly shrink. **AdamW** keeps the decay out of
# the gradient (**decoupled**). Two weights whose gradients are pure noise, ±1 and ±100:


# %%
def shrink(decoupled: bool, steps: int = 400) -> Array:
    rule = AdamW(0.01, weight_decay=0.5 if decoupled else 0.0)
    params = Params(LAYOUT, np.ones(2))
    moments = rule.init(params)
    for n in range(steps):
        noise = (-1) ** n * np.array([1.0, 100.0])
        gradient = params.with_flat(noise if decoupled else noise + 0.5 * params.flat)
        params, moments = rule.update(gradient, moments, params, 1.0)
    return params.flat


print("decoupled", shrink(True).round(2), "  in the gradient", shrink(False).round(2), "  (0.995⁴⁰⁰ = 0.13)")
assert np.allclose(shrink(True), 0.995**400, atol=0.02)
assert shrink(False)[1] > 0.9 > 0.5 > shrink(False)[0]

# %% [markdown]
# ## Why does the learning rate rise, and then fall?
# **Warm-up.** In its first steps Adam knows one or two gradients, and divides by them: every parameter moves by the
# full rate, however small or accidental its gradient was. So one begins with a small rate, and gives the two memories
# time to fill.
#
# **Decay.** A batch is a sample, so its gradient is noisy, and with a constant rate the parameters do not come to rest:
# they dance around the minimum, the wider the larger the rate. A small rate dances little but walks slowly. So walk
# first, and then come to rest. Here is the valley with noise, the same noise for all:

# %%
tiny = Params(LAYOUT, np.array([1e-6, -1e3]))
first_step = AdamW(0.01).update(tiny, AdamW(0.01).init(tiny), Params(LAYOUT, np.zeros(2)), 1.0)[0].flat
assert np.allclose(first_step, [-0.01, 0.01], rtol=0.02)  # gradients a billionfold apart, the same step


def noisy(rate_at: Callable[[float], float], steps: int = 400) -> Array:
    """f along the path, mean of 200 walks side by side."""
    rng, theta = np.random.default_rng(0), np.tile(START, (200, 1))
    heights = []
    for step in range(steps):
        gradient = STEEP * theta + 4 * rng.standard_normal(theta.shape)
        theta = theta - rate_at(step / steps) * gradient
        heights.append(0.5 * float((STEEP * theta**2).sum(1).mean()))
    return np.array(heights)


plans: dict[str, Callable[[float], float]] = {
    "constant 0.04": lambda progress: 0.04,
    "constant 0.004": lambda progress: 0.004,
    "warm-up, then linear": lambda progress: 0.04 * SCHEDULES["linear"](progress, 0.1),
    "warm-up, then cosine": lambda progress: 0.04 * SCHEDULES["cosine"](progress, 0.1),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
ends = {}
for name, plan in plans.items():
    heights = noisy(plan)
    ends[name] = float(heights[-10:].mean())
    left.plot([plan(step / 400) for step in range(400)], label=name)
    right.semilogy(heights)
    print(f"{name:22s} ends at {ends[name]:.3f}")
left.set(title="the plan", xlabel="step", ylabel="learning rate", ylim=(0, 0.062))
left.legend(fontsize=8.5, loc="upper right", ncols=2)
right.set(title="a noisy valley, mean of 200 walks", xlabel="step", ylabel="f")
figure.savefig("07_schedules.svg")

for schedule in ("linear", "cosine"):
    assert ends[f"warm-up, then {schedule}"] < 0.3 * min(ends["constant 0.04"], ends["constant 0.004"])
    factors = [SCHEDULES[schedule](progress, 0.1) for progress in np.linspace(0, 1, 101)]
    assert max(factors) == factors[10] == 1
    assert all(a > b for a, b in pairwise(factors[10:]))

# %% [markdown]
# ## All together
# The smallest classifier there is: one matrix from the 64 pixels of a digit to its 10 logits. Loss, gradient and
# update in five lines, with three rules. (The matrix is a head, which Muon's authors leave to Adam; here we want to see
# it at work.)

# %%
digits = data.load("digits")
x, labels = digits.train_images.reshape(-1, 64) / 16, digits.train_labels.astype(int)
x_test, test_labels = digits.test_images.reshape(-1, 64) / 16, digits.test_labels.astype(int)
ONE_MATRIX = Layout((Entry("W", (64, 10), "matrix"), Entry("b", (10,), "vector")))


def learn(rule: Optimizer, steps: int = 120) -> tuple[Params, list[float]]:
    rng, params = np.random.default_rng(0), Params(ONE_MATRIX, np.zeros(ONE_MATRIX.size))
    moments, history = rule.init(params), []
    for step in range(steps):
        batch = rng.permutation(len(x))[:256]
        losses, cache = cross_entropy_forward(x[batch] @ params["W"] + params["b"], labels[batch], label_smoothing=0.1)
        dlogits = cross_entropy_backward(np.full(256, 1 / 256), cache)
        gradient = Params.pack(ONE_MATRIX, {"W": x[batch].T @ dlogits, "b": dlogits.sum(0)})
        params, moments = rule.update(gradient, moments, params, SCHEDULES["linear"](step / steps, 0.1))
        history.append(float(losses.mean()))
    return params, history


rules: dict[str, Optimizer] = {
    "SGD": SGD(0.2),
    "AdamW": AdamW(0.03),
    "Muon, AdamW for b": ByRole(matrix=Muon(0.1, weight_decay=0.0), vector=AdamW(0.03)),
}
figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
for name, rule in rules.items():
    params, history = learn(rule)
    hits, test_hits = (
        float(((pixels @ params["W"] + params["b"]).argmax(1) == truth).mean())
        for pixels, truth in ((x, labels), (x_test, test_labels))
    )
    print(f"{name:18s} loss {history[0]:.3f} → {history[-1]:.2f}   right: training {hits:.2f}, test {test_hits:.2f}")
    axes.plot(history, label=name)
    assert np.isclose(history[0], math.log(10))
    assert min(history) > floor(0.1, 10)
    assert hits > 0.9
axes.axhline(floor(0.1, 10), color="0.5", linestyle=":", label="the floor, 0.500")
axes.set(xlabel="step", ylabel="loss", ylim=(0, 2.4), title="64 pixels, one matrix, smoothing 0.1")
axes.legend(loc="upper right")
figure.savefig("07_digits.svg")

# %% [markdown]
# ## In the field's words
# * **Softmax**: Bridle (1990), who named it. **Cross-entropy** with such targets is also the **negative
#   log-likelihood**; what it lies above the floor is the **Kullback–Leibler divergence** of $p$ from $q$. **Label
#   smoothing**: Szegedy et al. (2015, arXiv:1512.00567).
# * **SGD**: Robbins & Monro (1951). **Momentum**, the heavy ball: Polyak (1964); a variant that looks ahead: Nesterov
#   (1983), in the form of Sutskever et al. (2013).
# * **Adam**: Kingma & Ba (2014, arXiv:1412.6980). **AdamW**, decoupled weight decay: Loshchilov & Hutter (2017,
#   arXiv:1711.05101).
# * **Muon**: Jordan et al. (2024); its scale: Liu et al. (2025, arXiv:2502.16982).
# * Cosine **schedule**: Loshchilov & Hutter (2016, arXiv:1608.03983). **Warm-up**: Goyal et al. (2017,
#   arXiv:1706.02677).
#
# ## Summary
# * $d\ell = p - q$, and every row sums to 0. A fresh network begins at $\log C$.
# * With label smoothing the loss has a floor, the entropy of the target: 0.500 for $s = 0.1$ and ten classes.
# * Momentum adds up what agrees. Adam gives every parameter its own unit. Muon gives every direction of a matrix the
#   same step. Weight decay belongs outside of the gradient.
# * Warm up while the optimizer does not know its gradients; decay to come to rest.
#
# ## Exercises
# Solutions: [07_from_loss_to_update.py](../solutions/07_from_loss_to_update.py).
#
# **1. Derive the floor.** Show that $-\sum q_k \log p_k$ is smallest for $p = q$, and write the floor as a formula in
# $s$ and $C$. For which $s$ is it half of what a network that knows nothing has ($C = 10$)?
#
# <details><summary>Hint</summary>
#
# $\log r \le r - 1$ for all $r > 0$. Use it with $r = p_k / q_k$. For the last question, bisect.
# </details>
#
# **2. How much faster is momentum?** Show that with a constant gradient the steps grow to $\eta / (1 - \beta)$ times
# it. After how many steps are they within a tenth of that, for β = 0.9 and 0.99? Which formula of chapter 1 is this?
#
# <details><summary>Hint</summary>
#
# $1 + \beta + \dots + \beta^{n-1} = (1 - \beta^n) / (1 - \beta)$.
# </details>
#
# **3. Turn the valley.** Make it 1000 times as steep across as along, rotate it by 45°, and start at the rotated point.
# Do SGD's heights change? Adam's? Why?
#
# <details><summary>Hint</summary>
#
# SGD's step is a vector that turns with the valley. Adam divides coordinate by coordinate, and in the turned valley
# both coordinates have gradients of the same size.
# </details>
