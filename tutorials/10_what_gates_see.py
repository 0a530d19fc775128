# %% [markdown]
# # 10 · What gates see
#
# A trained network has opinions: which gate opens where, and what for? The package comes with one that knows the ten
# classes of CIFAR-10. We show it a picture, look at its gates while it thinks, and take them away one at a time.
#
# **You will know**
# * how to read the gates of a network as maps over a picture;
# * what the answer would be without each gate, and which one carries the network;
# * why a gate is not attention.

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
# ## Which picture?
# A photograph belongs to somebody, so we paint one: a ship, 32×32 pixels, with twelve lines of NumPy. (With a
# photograph of your own: `stg-np explain cifar10 my.jpg`.) The network has never seen a painting. Let us ask.


# %%
def paint_ship() -> Array:
    """A picture (32, 32, 3), uint8."""
    row, column = np.mgrid[0:32, 0:32]
    picture = np.array([150.0, 190, 235]) - row[..., None] * np.array([1.5, 0.8, 0.2])  # the sky
    sea = row >= 21
    picture[sea] = (np.array([30, 75, 120]) + 8 * np.sin(1.1 * column + 2 * row)[..., None])[sea]
    hull = (row >= 17) & (row <= 22) & (column >= row - 13) & (column <= 28 - 0.7 * (row - 17))
    picture[hull] = [60, 40, 45]
    picture[12:17, 9:20] = [235, 235, 235]  # the cabin
    picture[7:12, 12:16] = [190, 60, 40]  # the funnel
    picture += 6 * np.random.default_rng(0).standard_normal(picture.shape)  # grain
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
# ## What do its gates look like?
# At each pixel of each layer there are $H$ cells, and each has an input gate $i$ (what comes in), an update gate $u$
# (what is updated) and an output gate $o$ (what goes out). Here is the second layer, whose map is 16×16 pixels. Above:
# the mean over its 64 cells. Below: of each kind the cell whose gate varies most over the picture.

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
# One sees the ship. The input gates draw edges and surfaces, each cell its own. The output gates close at a few places.
# The update gates hardly show anything: they were started nearly open ($b_u = 2$, and $\sigma(2) = 0.88$), for that
# trains best on pictures of 32×32, and training has left them there. So this network has a *short* memory: of what is
# in it, an eighth is kept from one pixel to the next.

# %%
for layer in seen.layers:
    print(f"{layer.name}: a memory keeps {layer.kept:.2f} from pixel to pixel, sweeps {len(layer.ways)} ways")
    assert layer.kept < 0.3
assert np.abs(gates.u - 1 / (1 + np.exp(-2))).max() < 0.1  # σ(2), all over the map

# %% [markdown]
# ## Which gate carries the answer?
# We take a gate away by holding it open, $i = 1$, $u = 1$ or $o = 1$ in all layers, without training anything again;
# and the memory, by letting it last for one pixel only. What does the network say then?

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
# Without its input gates the network is lost. That is what one should expect: the candidate of an image STM is linear,
# and $i \odot z = z\,\sigma(wz + b)$ is what bends it (the Swish activation). Held open, it leaves $z$ as it is, and
# most of what makes six layers more than one is gone; pooling and the other two gates do not replace it. The memory is
# missed a little. One picture proves nothing; the same came out of trained ablations over many
# ([ablation.md](../../benchmarks/results/ablation.md)).

# %% [markdown]
# ## What does a closed output gate do?
# $y = o \odot m$: with $o = 0$ nothing goes out, whatever the memory holds. Exactly nothing:

# %%
rng = np.random.default_rng(0)
params = init_stm(rng, D=3, H=4, length=10)
params.b[8:12] = -1e4  # b = [b_i | b_u | b_o | b_z]
(y, m_T), cache = stm_forward(rng.standard_normal((2, 10, 3)), np.zeros((2, 4)), params, phi_z=IDENTITY)
assert not y.any()
assert np.abs(m_T).min() > 0  # the memory is there; it is only not heard


# %% [markdown]
# In the network: close all output gates of the last layer, and it says the same of every picture.


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
# ## Is a gate attention?
# "The gate attends to the ship", one reads under pictures like ours. It does not, and the difference is not a matter of
# words. **Attention** (Bahdanau et al. 2014, arXiv:1409.0473; Vaswani et al. 2017, arXiv:1706.03762) compares *places*:
# its weights go through a softmax over all positions, so they sum to 1, and if one place gains, the others lose. A gate
# is decided by each pixel and each cell for itself, through a σ. All may be open, all may be closed; nobody compares.
#
# The proof: change one corner of the picture, and look at the gates of the first layer in the opposite corner. A
# softmax over places would move everywhere.

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
assert before.sum((0, 1)).min() > 2  # 1 for a softmax

# %% [markdown]
# And one warning more. That a gate is open at the hull shows *that* it is open there. It does not show that the answer
# depends on it. Knock-outs, as above, are the stronger evidence; and even they show what the network that is there
# depends on, not what it could have learned without.
#
# ## In the field's words
# * Looking at what units respond to is **feature visualisation**; taking parts away from a trained network is
#   **ablation** or **lesioning**. Maps that look convincing without depending on what was learned were found by Adebayo
#   et al. (2018, arXiv:1810.03292), "Sanity checks for saliency maps".
# * A gate multiplied onto a convolution's channels: **gated linear units** (Dauphin et al. 2016, arXiv:1612.08083);
#   $z\,\sigma(z)$ is **SiLU** or **Swish** (Ramachandran et al. 2017, arXiv:1710.05941).
#
# ## Summary
# * Gates are maps: one number per pixel, cell and kind. In this network the input gates draw, the update gates are
#   nearly open.
# * Open the input gates and the answer is lost; cut the memory and it hardly changes.
# * A closed output gate gives exactly 0. A gate decides alone; attention compares.
#
# ## Exercises
# Solutions: [10_what_gates_see.py](../solutions/10_what_gates_see.py).
#
# **1. Find a background cell.** Which cell of `stm2` has the input gate that follows the sky best?
#
# <details><summary>Hint</summary>
#
# Make a map that is 1 where there is sky and 0 elsewhere, bring it to 16×16 by the mean of 2×2 pixels, and correlate
# each cell's gate with it (`np.corrcoef`).
# </details>
#
# **2. Which layer?** `seen.without_in` holds the answers with a gate open in one layer only. In which layer is the
# input gate missed most?
#
# <details><summary>Hint</summary>
#
# `seen.without_in["stm1"]["input gate"]` is one of them.
# </details>
#
# **3. Does it know left from right?** Mirror the ship. Then put it upside down. Which of the two does the network
# forgive, and why?
#
# <details><summary>Hint</summary>
#
# In training, pictures were mirrored at random.
# </details>
