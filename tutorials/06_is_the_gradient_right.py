# %% [markdown]
# # 6 · Is the gradient right?
#
# A wrong forward crashes, or gives nonsense that one sees. A wrong *backward* does neither: shapes fit, the loss falls,
# and the network is a little worse than it could be, for ever. So whoever writes gradients by hand needs a judge that
# knows nothing of the derivation. There is one, it is simple, and in this chapter it finds six bugs that real people
# make.
#
# **You will know**
# * how to measure a derivative, with which formula and which step, and how exact that is;
# * how to check a million derivatives at once;
# * what six common bugs look like in a report, and what no check can find.

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
# ## Which backward is on trial?
# A small one, with a place in it for every bug: a layer of leaky memories whose gate $u$ is a constant for each cell,
#
# $$ a = xW + b, \qquad v = \tanh(a), \qquad m_t = (1 - u) \odot m_{t-1} + u \odot v_t , $$
#
# and a loss that asks the memories to follow a target, $\text{loss} = \frac{1}{2B} \sum (m - \text{target})^2$. The
# code stands in a string, because we are going to change single lines of it. Read it once; you derived all of it in
# chapter 4.

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
    """The four functions, with pieces of the code replaced: (right, wrong)."""
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
# ## How does one measure a derivative?
# By its definition: go a small step $h$, see how far the function has gone, divide. Three ways are in use.
#
# $$ \text{forward: } \frac{f(x+h) - f(x)}{h} \qquad \text{central: } \frac{f(x+h) - f(x-h)}{2h} $$
#
# Which is better, and why? Write $f(x \pm h)$ as Taylor series,
#
# $$ f(x \pm h) = f \pm h f' + \tfrac{h^2}{2} f'' \pm \tfrac{h^3}{6} f''' + \tfrac{h^4}{24} f'''' \pm \dots $$
#
# and put them in. The forward difference leaves $f' + \frac h2 f'' + \dots$: an error of order $h$. In the central one
# all even terms cancel: $f' + \frac{h^2}{6} f''' + \dots$, an error of order $h^2$, for the price of one more call.
# Now play the same trick again. Call the central difference $D(h)$. The error of $D(2h)$ is four times that of $D(h)$,
# so in $\frac{4 D(h) - D(2h)}{3}$ it cancels as well. Written out, this is the **five-point stencil**, with an error
# of order $h^4$:
#
# $$ f'(x) \approx \frac{f(x-2h) - 8 f(x-h) + 8 f(x+h) - f(x+2h)}{12\,h} . $$
#
# (Five points, of which the middle one has the weight 0.)


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
# ## How small should the step be?
# "As small as possible" is wrong. A computer keeps 16 digits. Where $f(x+h)$ and $f(x-h)$ agree in the first ten of
# them, the subtraction leaves six, and dividing by a small $h$ makes that **rounding error** large: it is about
# $\varepsilon |f| / h$, with $\varepsilon = 2 \cdot 10^{-16}$. The **truncation error** (what the Taylor series leaves)
# falls with $h$, the rounding error rises. Let us see: the loss above, along the weight $W_{00}$, whose derivative we
# know from the backward.


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
# Three valleys. On the right of each the slope is the order of the formula: a step ten times smaller makes the error
# 10, 100, 10,000 times smaller. On the left all three climb together. The five-point stencil may use a large step,
# $10^{-3}$, where rounding is still quiet: that is why the package takes it.

# %%
at = {exponent: int(np.abs(np.log10(steps) - exponent).argmin()) for exponent in (-13, -3, -2, -1)}
for name, order, (far, near) in (("forward", 1, (-2, -3)), ("central", 2, (-2, -3)), ("five points", 4, (-1, -2))):
    gain = np.log10(error[name][at[far]] / error[name][at[near]])
    print(f"{name:12s} ten times smaller a step, {gain:.1f} digits more")
    assert abs(gain - order) < 0.3
assert error["five points"][at[-3]] < 1e-10 < error["central"][at[-3]]
assert min(curve[at[-13]] for curve in error.values()) > 1e-6  # the smallest step is among the worst

# %% [markdown]
# ## Must I do this for every weight?
# A network with a million parameters would need four million calls. But a derivative may be measured along any
# *direction*. Let θ be all inputs and parameters as one vector, $g$ the gradient that the backward claims, and $v$ any
# direction. By the chain rule
#
# $$ \frac{d}{dh} f(\theta + h v) \Big|_{h=0} = \sum_k g_k v_k = \langle g, v \rangle . $$
#
# One random direction tests *all entries at once*: four calls, whatever the size. Could a wrong $g$ slip through? Only
# if its error is exactly orthogonal to $v$, which for a random $v$ has the probability 0.

# %%
rng = np.random.default_rng(1)
direction = {name: rng.standard_normal(array.shape) for name, array in inputs.items()}


def loss_along(step: float) -> float:
    return float(right["loss_forward"](**{name: array + step * direction[name] for name, array in inputs.items()})[0])


measured = five_points(loss_along, 1e-3)
claimed = sum(float((gradients[name] * direction[name]).sum()) for name in inputs)
print(f"measured {measured:.12f}   claimed {claimed:.12f}")
assert np.isclose(measured, claimed, rtol=1e-9)

slightly_wrong = claimed + 0.001 * float(gradients["b"][0] * direction["b"][0])  # one entry of db, a thousandth off
assert not np.isclose(measured, slightly_wrong, rtol=1e-6)

# %% [markdown]
# And where the output is not one number but many? Then choose a random weight for each of them and take the weighted
# sum: that is one number. The weights are what the backward receives as `dy`. *Random* weights: the tempting choice,
# all 1, is blind. Take away the mean, $y = x - \text{mean}(x)$. The sum of all $y$ is 0 whatever $x$ is; with `dy` = 1
# every right backward must return 0, and many wrong ones do too:

# %%
dy_ones, dy_random = np.ones(5), rng.standard_normal(5)
for dy, seen in ((dy_ones, False), (dy_random, True)):
    true_dx, wrong_dx = dy - dy.mean(), 2 * (dy - dy.mean())
    assert np.allclose(true_dx, wrong_dx) is not seen

# %% [markdown]
# ## What does the package's checker do?
# All of this: `check_pair(forward, backward, inputs)` draws random output weights and random directions over all inputs
# and over each argument, uses the five-point stencil, and, where the shapes are small, compares every single
# derivative. It says what is wrong and where. Its error is relative to the size of the gradient; right code comes out
# below $10^{-10}$, wrong code above $10^{-3}$, and the bar stands between them at $10^{-8}$. (One call
# `stg-np gradcheck` does it for every pair of the package, `stg-np gradcheck FILE.py` for yours.)

# %%
report = check_pair(right["loss_forward"], right["loss_backward"], inputs)
print(report)
report.assert_ok()

# %% [markdown]
# ## Which bugs do people make?
# Here are six, each a single line. Cover the right-hand column and ask yourself whether you would have noticed.

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
# 1. **Forgotten (1 − u)**: the gradient goes back over a step without being multiplied by what the memory kept.
# 2. **Transposed W**: `W` instead of `W.T`. Where $D = H$ the shapes fit.
# 3. **Sum for mean**: the loss is a mean over the batch, the backward forgets the $1/B$. Also known the other way
#    round.
# 4. **Changed in place**: to save memory, `inflow` is written over `v`. The forward still gives the right memories, to
#    the last bit! But the cache holds `v`, and the backward now finds something else there. (A cousin is the **stale
#    cache**: a layer keeps it in `self`, and a second forward pass overwrites it before the first backward.)
# 5. **φ′ at the wrong place**: tanh′ needs $1 - \tanh^2(a)$. The line squares $\tanh(v)$, and $v$ is the tanh already.
# 6. **db summed wrongly**: $b$ was **broadcast** over the axes batch and time, so its gradient is summed over these
#    two. Here it is summed over the wrong two. Where $B = H$ the shape fits.

# %%
ARGUMENTS = ("x", "W", "b", "u", "target")
quick_check = partial(check_pair, directions=1, jacobian=False, locate=False, float32=False)  # one direction is enough


def wrong_arguments(made: Functions, inputs: dict[str, Array]) -> tuple[str, ...]:
    """The arguments whose gradient does not pass; ("shape",) if something does not even fit together."""
    try:
        report = quick_check(made["loss_forward"], made["loss_backward"], inputs)
    except ValueError:  # the backward itself broke off
        return ("shape",)
    if not report.ok and not report.errors:  # the checker refused a shape before it compared numbers
        return ("shape",)
    return tuple(name for name in ARGUMENTS if report.errors[name] > report.tolerance)


for name, change in BUGS.items():
    made = functions(change)
    report = check_pair(made["loss_forward"], made["loss_backward"], inputs, name=name)
    print("\n".join(str(report).splitlines()[:2]))  # the whole report has a line for each wrong argument
    assert not report.ok
    assert report.error > 1e-3

assert functions(BUGS["changed in place"])["loss_forward"](**inputs)[0] == loss  # the forward is right, to the bit

# %% [markdown]
# All six are caught, by orders of magnitude. Read one report slowly: the entry that is worst, both values (measured and
# claimed), how many are wrong, and where the pattern is a simple one, its name: "analytic = 3 × numeric". With a batch
# of $B = 3$, that *is* the diagnosis.

# %% [markdown]
# ## Can the report name the bug?
# Almost: *which* arguments are wrong is a fingerprint, and one may ask again with other shapes. With a single step
# ($T = 1$) nothing that concerns the way from step to step can show. With a single example ($B = 1$) sum and mean are
# the same.

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

assert len(set(fingerprints.values())) == 6  # no two look alike
assert fingerprints["forgotten (1 − u)"] == (("x", "W", "b", "u"), (), ("x", "W", "b", "u"))
assert fingerprints["transposed W"] == (("x",),) * 3
assert fingerprints["sum for mean"] == (ARGUMENTS, ARGUMENTS, ())

# %% [markdown]
# A crossed square is a wrong gradient. Read a row like a doctor: *everything* is wrong, and with one example nothing
# is: the batch. Everything but the target is wrong, and with one step nothing is: the way from step to step.
#
# The picture has a second lesson: **test with sizes that all differ.** Bugs 2 and 6 hide behind $D = H$ and $B = H$.
# With $B, T, D, H = 5, 4, 2, 3$ they cannot even run. And it has a third: **test with more than one step and more than
# one example**, or two of the six are invisible.

# %%
different = some_inputs(5, 4, 2, 3)
assert wrong_arguments(functions(BUGS["transposed W"]), different) == ("shape",)
assert wrong_arguments(functions(BUGS["db summed wrongly"]), different) == ("shape",)

# %% [markdown]
# ## Can one see where the error is?
# The matrix of *all* derivatives, ∂output/∂input, is the **Jacobian**. One row per output number, one column per input
# number; we take the layer alone, one example, six steps of three cells. The backward gives it row by row (`dmemories`
# = a one in one place), the stencil column by column. Their difference is a map of the error.


# %%
def error_map(made: Functions, T: int = 6, H: int = 3) -> tuple[Array, Array]:
    """The measured Jacobian ∂memories/∂x, (T·H, T·H), and how far the backward is from it."""
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
blocks = maps["forgotten (1 − u)"][1].reshape(6, 3, 6, 3).max((1, 3))  # worst error for each pair of steps
assert errors.max() < 1e-10
assert np.abs(np.triu(jacobian.reshape(6, 3, 6, 3).max((1, 3)), 1)).max() < 1e-10  # the future has no say
assert np.diag(blocks).max() < 1e-10 < 1e-2 < np.diag(blocks, -1).min()

# %% [markdown]
# The right backward leaves nothing but rounding. "Forgotten (1 − u)" is right on the diagonal (an output and the input
# of the same step) and wrong everywhere below it: the error is on the way between steps. The other two are wrong from
# the diagonal on: the error is inside a step. And above the diagonal there is nothing in any map, for an output
# does not depend on inputs that come later.

# %% [markdown]
# ## Does a falling loss mean a right gradient?
# This is what most people rely on. Let us train with each of the six bugs: a target with noise, 300 steps of plain
# gradient descent. ("Sum for mean" makes the gradient $B = 8$ times too long. A practitioner sees it diverge, takes a
# smaller learning rate, and is content. So do we.)


# %%
def train(made: Functions, rate: float, steps: int = 300) -> tuple[list[float], float]:
    """The losses, and the norm of the *true* gradient at the end."""
    rng = np.random.default_rng(1)
    B, T, H = 8, 20, 8
    x, noise = rng.standard_normal((B, T, H)), 0.3 * rng.standard_normal((B, T, H))
    W, b, u = rng.standard_normal((H, H)) / np.sqrt(H), 0.5 * rng.standard_normal(H), rng.uniform(0.05, 0.4, H)
    target = right["layer_forward"](x, W, b, u)[0] + noise
    own = {"W": rng.standard_normal((H, H)) / np.sqrt(H), "b": np.zeros(H), "u": np.full(H, 0.5)}
    losses: list[float] = []
    for _ in range(steps):
        loss, cache = made["loss_forward"](x, **own, target=target)
        if losses and loss > losses[0]:  # it has gone astray
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
assert runs["transposed W"][0] == runs["right"][0]  # dx is not used here, so nothing can be seen at all
assert runs["forgotten (1 − u)"][1] > 3 * runs["right"][1]

# %% [markdown]
# **Five of six wrong gradients bring the loss down by two thirds**, and the sixth by a third before it goes astray. Two
# curves coincide with the right one; two others are *below* it half of the time. A wrong gradient usually still points
# downhill, more or less; that is all that a falling loss says. What it does *not* do is stop at the right place: the
# last column is the true slope where each training has arrived. At a minimum it would be 0.
#
# It has happened to better-known packages. The LSTM that thinc 9.1.1 shipped has a backward that is wrong (its generic
# path returns all zeros), for its tests compare shapes only; scikit-learn's issue 8349, open since 2017, reports
# a loss and a gradient of `MLPRegressor` that differ by a factor.

# %% [markdown]
# ## What can a check not find?
# It proves that the backward belongs to the forward. It cannot know what you *meant*. If the forward is wrong, and the
# backward is the right one of that wrong forward, all is well for the checker:

# %%
not_what_we_meant = functions(
    ("inflow = u * v", "inflow = v"), ("dv[:, t] = u * dm", "dv[:, t] = dm"), ("(v[:, t] - before)", "(-before)")
)
report = check_pair(not_what_we_meant["loss_forward"], not_what_we_meant["loss_backward"], inputs)
print(report)
assert report.ok

# %% [markdown]
# Against that helps only a second, independent forward; here, the package's scan. (And the scan's own backward is the
# same as ours.)

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
# Three more limits. The check looks at *one point*: where a branch is not taken (a ReLU that is off), its gradient is
# not tested. At a **kink**, such as ReLU at 0, there is no derivative to compare with, and the checker says so. And it
# wants float64: in float32, with 7 digits instead of 16, differences say little; there, compare the float32 gradient
# with the float64 one.
#
# ## In the field's words
# * The method is **gradient checking** by **finite differences**; the trick that removed the error of $D(h)$ is
#   **Richardson extrapolation**. $\langle g, v \rangle$ is a **directional derivative**; measuring it with random
#   weights $r$ of the outputs, one tests $\langle Jv, r \rangle = \langle v, J^\top r \rangle$, the **adjoint** or
#   **dot-product test**.
# * A forward derivative $Jv$ is a **JVP**, a backward $J^\top r$ a **VJP**: Jacobian-vector and vector-Jacobian
#   product.
# * In the **complex step** method, $f'(x) \approx \mathrm{Im}\, f(x + ih)/h$, nothing is subtracted, so nothing is
#   lost to rounding (Squire & Trapp 1998); it needs a forward that works on complex numbers. `check_pair` has it as an
#   option.
# * Changing single lines to see whether the tests notice is **mutation testing** (DeMillo, Lipton & Sayward 1978). The
#   package's tests are tested so, with all its backward functions.
#
# ## Summary
# * Measure with the five-point stencil, in float64, with $h = 10^{-3}$: about eleven right digits.
# * One random direction checks all entries; random output weights check all outputs.
# * Sizes that all differ, more than one step, more than one example.
# * Which arguments are wrong, and for which sizes, names the bug. A falling loss says nothing.
#
# ## Exercises
# Solutions: [06_is_the_gradient_right.py](../solutions/06_is_the_gradient_right.py).
#
# **1. Three anonymous bugs.** `mystery(1)` … `mystery(3)` below are the same four functions, each with one wrong line,
# and the line is not shown. Diagnose them: which arguments, for which sizes, by which factor? Name the line.
#
# <details><summary>Hint</summary>
#
# Start with `wrong_arguments` for the sizes of `small`. For the second, divide the claimed gradient of $b$ by a
# measured one, cell by cell, and print $u$ beside it. For the third, draw its `error_map` beside that of "forgotten (1
# − u)".
# </details>
#
# **2. The best step.** A formula has the truncation error $c\,h^p$ and the rounding error $\varepsilon/h$. For which
# $h$ is their sum smallest, and how small is it? Compare with the printed table for $p = 1, 2, 4$.
#
# <details><summary>Hint</summary>
#
# Differentiate the sum with respect to $h$. With $c = 1$ the best $h$ is near $\varepsilon^{1/(p+1)}$.
# </details>
#
# **3. A bug that no direction finds.** Give a forward/backward pair whose backward is wrong, but passes whenever `dy`
# is all ones, for *every* $x$. Then show that `check_pair` catches it. Why is softmax a good place to look?
#
# <details><summary>Hint</summary>
#
# The probabilities of a softmax sum to 1.
# </details>

# %%
ANONYMOUS: Sequence[Change] = (  # rot13, so that your eyes do not read it by accident
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
