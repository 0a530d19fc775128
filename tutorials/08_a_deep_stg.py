# %% [markdown]
# # 8 · A deep STG
#
# One STM layer is a memory. The network of this package stacks several and puts things around them: a norm, a path that
# goes past each layer, a second direction. Why each of them? We build the network one part at a time, and each part
# must first show what goes wrong without it.
#
# **You will know**
# * why the gates may stop looking at the memory, and what one gains and loses by that;
# * what a norm and a residual path do to signal and gradient in a stack of twelve layers;
# * every shape between a picture and its ten logits, and what depth is *not* good for.

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
# ## Why may a gate stop looking at the memory?
# In the **recurrent form** the gates of step $t$ see the memory $m_{t-1}$, through a matrix $R$. That is powerful, and
# it has a price: the product of step $t$ cannot begin before step $t - 1$ is done. The **input-only form** drops $R$.
# Then all pre-activations of all steps are *one* product, $a = xW + b$ with $B \cdot T$ rows, and only the cheap scan
# $m_t = m_{t-1} + u_t \odot (v_t - m_{t-1})$ walks.
#
# How much does that buy? It is easy to measure this unfairly. The two forms differ in *two* things: the recurrent one
# has a second product, so it does twice the multiplications; and it does everything in small pieces, a step at a time.
# So we time three functions. The middle one computes exactly what the input-only form does, with the same
# multiplications, but takes its product in pieces: it differs from the first in one thing only. They take turns, after
# a warm-up, and we compare medians, the first's being 1: once with 4 examples and once with 32. The figures are those
# of one machine on one day, and nothing is asserted about them.

# %%
T, D, H = 200, 64, 64
full = init_stm(rng, D, H, length=T, recurrent=True)
plain = full._replace(R=None)


def a_product_per_step(x: Array, m_0: Array, params: STMParams) -> tuple[Array, Array]:
    """The input-only form, except that ``x W`` is computed step by step."""
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
            if turn > 0:  # the first is the warm-up
                times[name].append(perf_counter() - began)
    for name in ways:
        million = B * T * (2 * D if name == "recurrent" else D) * 4 * H / 1e6
        relative = median(times[name]) / median(times["input-only, one product"])
        print(f"B = {B:2d}   {name:30s} {million:4.0f} million multiply-adds   time × {relative:.1f}")

one, in_pieces = (ways[name](x, m_0) for name in list(ways)[:2])
without_R = stm_recurrent_forward(x, m_0, full._replace(R=np.zeros((H, 4 * H))))[0]
assert np.allclose(one[0], in_pieces[0], rtol=0, atol=1e-12)  # the same mathematics
assert np.allclose(one[0], without_R[0], rtol=0, atol=1e-12)  # and R = 0 is what was dropped

# %% [markdown]
# What to look for: the first line against the second. With few examples the pieces are small, and calling NumPy 200
# times costs more than the arithmetic. With many examples each piece is large enough by itself, and cutting the product
# up costs little or nothing: "one large product is quicker" holds where the small ones are really small. The recurrent
# form pays twice: more multiplications, and the gates' exponentials in 200 pieces as well. On top of that, and this is
# not in the table, whatever does not have to wait can be shared out: among threads, or on a GPU.

# %% [markdown]
# ## What does one lose?
# A gate that sees nothing but $x_t$ cannot say "open, if a comma came before". But a *second* layer reads the outputs
# of the first, and those are full of the past. So its gates do see a memory: not their own, but that of the layer
# below. Let us change the first step of a sequence only, and look at the gates of the last.

# %%
T, H = 12, 8
x = rng.standard_normal((1, T, H))
changed = x.copy()
changed[:, 0] += 1
layer_1, layer_2 = (init_stm(rng, H, H, length=T) for _ in range(2))


def last_gates(x: Array) -> tuple[Array, Array]:
    """The update gates of the last step in the first and in the second layer."""
    (y, _), first = stm_forward(x, np.zeros((1, H)), layer_1)
    _, second = stm_forward(y, np.zeros((1, H)), layer_2)
    return first.gates.u[:, -1], second.gates.u[:, -1]


for layer, before, after in zip((1, 2), last_gates(x), last_gates(changed)):
    print(f"layer {layer}: the last gates move by {np.abs(after - before).max():.1e}")
assert np.array_equal(last_gates(x)[0], last_gates(changed)[0])
assert not np.allclose(last_gates(x)[1], last_gates(changed)[1], rtol=0, atol=1e-6)

# %% [markdown]
# *That* is what depth is for here: gates that depend on context. So let us stack.

# %% [markdown]
# ## What goes wrong in a plain stack?
# A layer's output is $y = o \odot m$: an average over time, times a gate of about ½. It is smaller than what went in.
# The next layer makes it smaller still. We stack twelve layers, send a random signal up and a random gradient down, and
# write down their sizes. A `Block` says what stands around the cell; we shall need its two switches in a moment.


# %%
class Block(NamedTuple):
    norm: bool = False
    residual: bool = False


BlockCache = tuple[RMSNormCache | None, STMCache]


def block_forward(h: Array, params: STMParams, block: Block) -> tuple[Array, BlockCache]:
    """One layer on h (B, T, H) -> (B, T, H)."""
    read, norm = rms_norm_forward(h) if block.norm else (h, None)
    (y, _), stm = stm_forward(read, np.zeros((len(h), h.shape[-1])), params)
    return h + y if block.residual else y, (norm, stm)


def block_backward(dh: Array, cache: BlockCache, params: STMParams, block: Block) -> Array:
    """The gradient of what the block read."""
    norm, stm = cache
    dread, _, _ = stm_backward(dh, np.zeros_like(dh[:, 0]), stm, params)
    dx = dread if norm is None else rms_norm_backward(dread, norm)
    return dh + dx if block.residual else dx


def sizes(block: Block, L: int = 12, H: int = 32, T: int = 24) -> tuple[Array, Array]:
    """Standard deviation of the signal after 0 … L layers, and of the gradient there; 1 at its start, each."""
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
# Chapter 5 again, now from layer to layer instead of from step to step: a factor below 1, twelve times. Of the signal
# a hundred-billionth is left, and of the gradient likewise. Two parts mend it.

# %% [markdown]
# ## What does the norm do?
# It brings every vector of $H$ numbers to the same size before it is read, whatever the layer below did to it. **RMS
# norm** divides by the root of the mean square:
#
# $$ y = \frac{x}{\text{rms}(x)}, \qquad \text{rms}(x) = \sqrt{\text{mean}(x^2) + \epsilon} . $$
#
# Its backward has one idea in it. Write $s = 1/\text{rms}(x) = (\text{mean}(x^2) + \epsilon)^{-1/2}$, so $y_k = x_k s$.
# Every $x_k$ acts in two ways: directly, and through $s$, with
# $\partial s / \partial x_k = -\frac12 (\dots)^{-3/2} \cdot 2 x_k / H = -s^3 x_k / H$. By the sum rule
#
# $$ dx_k = s \, dy_k - \frac{s^3 x_k}{H} \sum_j dy_j\, x_j = s \, ( dy_k - y_k \, \text{mean}(dy \odot y) ) . $$
#
# The part of $dy$ that points along $y$ itself is taken out. Of course: to make $x$ longer changes nothing.
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
assert np.allclose(rms_norm_forward(1000 * x)[0], y, atol=1e-4)  # what is large becomes ordinary
assert np.abs((dx * x).sum(-1)).max() < 1e-4  # no slope along x

# %% [markdown]
# Look at the picture: with the norm the signal falls once, to about a tenth (an output is smaller than what was read),
# and then no further. The gradient is no longer lost, but it does not hold still either: it still goes *through* every
# layer, and every norm stretches what the layer below had made small.

# %%
assert stacks["with norm"][0].min() > 0.01
assert 0.1 < stacks["with norm"][1].max() < 100

# %% [markdown]
# ## What does the residual path do?
# Let a layer *add* to what it reads, instead of replacing it:
#
# $$ h \leftarrow h + \text{STM}(\text{norm}(h)) . $$
#
# By the sum rule the gradient of $h$ is then $dh$ itself, *unchanged*, plus what comes back through the layer. However
# deep the stack, there is a path from the last layer to the first on which nothing is multiplied.
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
# And if a layer has nothing to say, its output 0 leaves everything as it was: a deep network can always be as
# good as a shallow one. Let us close all output gates, $o = \sigma(-10{,}000) = 0$:

# %%
both = Block(norm=True, residual=True)
silent = init_stm(rng, 8, 8, length=12)
silent.b[16:24] = -1e4  # b = [b_i | b_u | b_o | b_z]
h, dh = rng.standard_normal((2, 3, 12, 8))
h_after, cache = block_forward(h, silent, both)

assert np.array_equal(h_after, h)  # to the last bit
assert np.array_equal(block_backward(dh, cache, silent, both), dh)

for sizes_of in stacks["with norm and residual"]:
    assert sizes_of.min() > 0.5
    assert sizes_of.max() < 2

# %% [markdown]
# The first layer cannot add: it reads $D$ features and gives $H$ numbers. All others do. (Drop the path and train:
# exercise 1.)

# %% [markdown]
# ## Why two directions?
# A memory knows what came before. A picture is there all at once; for the patch in its middle, what lies to the
# right is as telling as what lies to the left. So a layer may have two walks: one from the first step to the last, one
# from the last to the first, each with its own parameters and half of the width. Which output sees which input? We
# send a gradient in at one step and look where it comes out.


# %%
def influence(direction: str, T: int = 12, H: int = 4) -> Array:
    """‖∂y_t/∂x_s‖ for every pair of an output step t (row) and an input step s (column)."""
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

assert not np.triu(to_the_right, 1).any()  # the right walk never sees the future
assert not np.tril(to_the_left, -1).any()
assert (two_ways["both"] > 0).all()

# %% [markdown]
# ## The network, whole
# A picture is cut into patches (the steps), layers walk them, a last norm, the mean over all steps (**pooling**), and a
# linear **head** to the logits. In code, with nothing left out, two directions and three layers:


# %%
def deep_stg(x: Array, params: Params, layers: int) -> Array:
    """Pictures (B, height, width, c) -> logits (B, C)."""
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
assert np.allclose(deep_stg(pictures, params, 3), logits, rtol=0, atol=1e-12)  # the package's model
assert np.allclose(quick, logits, rtol=0, atol=1e-9)  # and its fast path, the one that trains

# %% [markdown]
# Its backward is the same lines, last to first. We do not take that on trust: the gradient of the loss with respect to
# every parameter of a small one, against finite differences (chapter 6).

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
# And every shape on the way. The numbers in the drawing are those of the model above.

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
# ## Is depth memory?
# "A deeper stack remembers longer": so it says in many places, the article of this network among them. Let us look. An
# **impulse**, a single 1 at step 0, goes into leaky memories with $u = 1/\tau$, and then through more of them. What
# comes out, and when? A single one answers $u (1-u)^t$: its mean delay is $(1-u)/u = \tau - 1$ steps. Behind one
# another the delays add up: $L (\tau - 1)$.


# %%
def response(L: int, tau: float, steps: int = 400) -> Array:
    """What comes out of L memories with the gate 1/τ, one behind the other, at each step after an impulse."""
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
# Six layers whose memories last two steps are late by six steps, and after fifty have forgotten all. *One* layer with τ
# = 32 does more, for one number in one bias per cell; to be as late on average one needs 31 short layers. So depth adds
# a little reach, layer by layer, at the price of a layer each; time scales give it for nothing. **Memory is τ. Depth is
# context**: gates that see more than their own step, functions of functions. If a task needs longer memory, look at
# $b_u$ before you add a layer.

# %% [markdown]
# ## In the field's words
# * The path past a layer is a **residual** or **skip connection** (He et al. 2015, arXiv:1512.03385; with gates on it,
#   as **highway networks**: Srivastava et al. 2015, arXiv:1505.00387). With the norm *inside* the branch, as here, it
#   is **pre-norm**.
# * **RMS norm**: Zhang & Sennrich (2019, arXiv:1910.07467), a simpler **layer norm** (Ba et al. 2016,
#   arXiv:1607.06450).
# * Two directions: **bidirectional recurrent networks** (Schuster & Paliwal 1997).
# * Gates that see the input only, and a scan: quasi-recurrent networks (QRNN), SRU, minGRU (Feng et al. 2024,
#   arXiv:2410.01201); with parallel scans, Martin & Cundy (2018, arXiv:1709.04057).
# * Pre-activations of all steps at once: the **input projection** is **batched over time**.
#
# ## Summary
# * Dropping $R$ makes one large product of $T$ small ones; stacking gives the gates their context back.
# * In a plain stack, signal and gradient shrink layer by layer. The norm keeps the signal's size; the residual path
#   hands the gradient down unchanged.
# * Two directions let every step see the whole picture.
# * Memory comes from time scales, not from depth.
#
# ## Exercises
# Solutions: [08_a_deep_stg.py](../solutions/08_a_deep_stg.py).
#
# **1. Drop the residual.** Train six layers on the digits, 60 steps, with and without the residual path (the norm
# stays). Compare the losses, and those of two layers.
#
# <details><summary>Hint</summary>
#
# `block_forward` and `block_backward` are almost all you need; the backward must also return the gradients of the
# parameters. Begin with patches of 2×2 and the first layer without norm and path.
# </details>
#
# **2. Norm behind instead of before.** The first residual networks normalised *after* the addition,
# $h \leftarrow \text{norm}(h + y)$ (**post-norm**). Let each layer say as much as it reads: $y$ is random and of the
# size of $h$. Follow the gradient along the path alone, without what comes back through the layers. What is left of it
# after twelve of them?
#
# <details><summary>Hint</summary>
#
# Every norm on the path multiplies the gradient by $1/\text{rms}$. How large is the sum of two independent random
# vectors of size 1?
# </details>
#
# **3. Count the parameters.** Write the number of parameters of an STG as a formula in $D$, width, $L$ and $C$, for
# full gates and two directions. Check it against `model.layout().size`.
#
# <details><summary>Hint</summary>
#
# A walk of $H$ cells that reads $D$ numbers has $4H(D + 1)$; $H$ is half of the width.
# </details>
