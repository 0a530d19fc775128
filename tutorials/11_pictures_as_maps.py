# %% [markdown]
# # 11 · Pictures as maps
#
# A picture read line by line, as one reads a page, tears apart what belongs together: the pixel above is a whole line
# of steps away. This chapter leaves the picture a picture. A window looks at each pixel's neighbourhood, and the memory
# sweeps across in four directions. It is the layer that the package's best network is made of.
#
# **You will know**
# * what a convolution computes, and how slowly its view grows;
# * how a one-dimensional memory sees in two dimensions;
# * what the sweeping memory is worth in a measured network, and what does more.

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
# ## What does a convolution compute?
# A **map** has the shape (height, width, channels): at each pixel a vector, for a photograph red, green and blue. A
# **convolution** looks at each pixel through a small window, $k \times k$ with $k$ odd, and multiplies each of the
# $k^2$ vectors in it by a matrix of its own:
#
# $$ y[r, c] = \sum_{i=0}^{k-1} \sum_{j=0}^{k-1} x[r + i - \tfrac{k-1}{2},\; c + j - \tfrac{k-1}{2}] \; W[i, j] + b . $$
#
# Where the window sticks out over the border, $x$ is taken to be 0. The same $W$ at every pixel: that is why there are
# few parameters, and why a thing is recognised wherever it stands. In plain loops:


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
# The package turns the loops inside out. For a fixed place $(i, j)$ in the window, all pixels need the same matrix:
# that is *one* product, of the whole map, shifted. So a 3×3 convolution is nine matrix products, added:
#
# ```python
# # stg_np/ops/conv.py
#     y = params.b
#     for i, j, rows, columns in offsets(height, width, params):
#         y = y + matmul(padded[:, rows, columns], params.W[i, j])  # (B, height, width, C_in) (C_in, C_out)
# ```
#
# (A faster path computes the same with fewer multiplications.)

# %%
fast_conv = conv_pair(x, Workspace())
assert np.allclose(fast_conv.forward(x, ConvParams(W, b))[0], y, rtol=0, atol=1e-10)

centred = np.zeros((1, 9, 9, 3))
centred[:, 3:6, 3:6] = rng.standard_normal((1, 3, 3, 3))
moved = np.roll(centred, (1, 2), (1, 2))
y_centred, y_moved = (conv2d_forward(maps, ConvParams(W, b))[0] for maps in (centred, moved))
assert np.allclose(
    np.roll(y_centred, (1, 2), (1, 2))[:, 2:-2, 3:-2], y_moved[:, 2:-2, 3:-2]
)  # it moves with the picture

# %% [markdown]
# ## How far does it see?
# One pixel in each direction. A second layer looks at pixels that have looked at *their* neighbours: two in each
# direction. After $L$ layers the **receptive field** is a square with the side $2L + 1$. To let one corner of a 32×32
# picture know of the opposite one takes 31 layers. Networks help themselves by making the map smaller (**pooling**). Is
# there another way?

# %% [markdown]
# ## How does a memory sweep a picture?
# The **image STM** keeps the equations of chapter 3 and changes two things. The pre-activations come from a window, so
# gates and candidate see a neighbourhood; and the memory walks along *lines* of the map, all lines at once:
#
# $$ a = \text{window}(x)\, W + b, \qquad m_s = (1 - u_s) \odot m_{s-1} + u_s \odot v_s , \qquad y = o \odot m , $$
#
# where $s$ counts the pixels of one line. To the right, the lines are the rows and $s$ is the column. To the left the
# same, from the last column on. Down and up, the lines are the columns. The scan itself is the one we know; only the
# *order* of the axes is another:
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
assert np.allclose(swept["right"][0, 2, :, 0], by_hand)  # row 2, from left to right
assert np.allclose(swept["left"], line_forward(u, three[:, :, ::-1], "right")[:, :, ::-1])
assert np.allclose(swept["down"], line_forward(u, three.swapaxes(1, 2), "right").swapaxes(1, 2))
for direction in ALL_WAYS:
    assert np.array_equal(to_map(to_steps(three, direction), direction), three)  # an order, not an operation

# %% [markdown]
# Each sweep smears the ink one way, like a hand over wet paint. Where no ink comes, the memory fades. Here it is on its
# way, the picture dim where it has not yet been:
#
# ![A memory on its way over a three, in four directions](../images/11_memory.gif)

# %%
frames = []
for step in range(1, 9):
    tiles = []
    for direction in ALL_WAYS:
        seen = to_map((np.arange(8) < step)[None, :, None, None] & np.ones((1, 8, 8, 1), bool), direction)
        maps = np.where(seen, swept[direction] / swept[direction].max(), 0.25 * three)[0, :, :, 0]
        tile = plt.get_cmap("viridis")(np.kron(maps, np.ones((12, 12))))[..., :3]
        tiles.append(np.pad(tile, ((6, 6), (6, 6), (0, 0)), constant_values=0.5))  # a grey frame
    frames.append(Image.fromarray((255 * np.concatenate(tiles, 1)).astype(np.uint8)))
frames[0].save("11_memory.gif", save_all=True, append_images=[*frames[1:], *[frames[-1]] * 3], duration=400, loop=0)

# %% [markdown]
# How are the four joined? Either each direction has **a quarter of the channels**, or all four sweep all channels and
# are **summed**. Quarters cost a quarter. Since the next layer's window mixes all channels, nothing is lost but
# sharpness.

# %% [markdown]
# ## Can scans see in two dimensions?
# "A scan is one-dimensional; it cannot understand a picture." Count. After *one* layer a pixel knows its row and its
# column: a cross. After *two*, every pixel of the picture: the first layer brings the news along the row to my column,
# the second along the column to me. We do not argue, we differentiate: send a gradient in at the middle pixel of the
# last layer and see which input pixels it reaches.


# %%
def layer(sweep: Sweep, H: int = 8) -> tuple[STMParams, SweepKind]:
    """A random layer with diagonal gates, from H to H channels; its memories last about eight steps."""
    W = rng.standard_normal((3, 3, H, H)) / np.sqrt(9 * H)
    b = np.zeros(4 * H)
    b[H : 2 * H] = -2  # b_u
    return STMParams(W, b, None, np.ones(3 * H)), SweepKind(sweep)


def receptive_field(sweeps: list[Sweep], side: int = 17, H: int = 8) -> Array:
    """‖∂(middle pixel)/∂(pixel)‖ for every input pixel, (side, side), through layers with these sweeps."""
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
assert np.count_nonzero(fields["1 layer, sweep →"]) == 3 * 10  # three rows of the window, up to the column behind it
assert np.count_nonzero(fields["1 layer, 4 sweeps"]) == 2 * 3 * 17 - 9  # a cross, three pixels wide
assert np.count_nonzero(fields["2 layers, 4 sweeps"]) == 17 * 17  # all of them

# %% [markdown]
# (The number in each title counts the pixels that are reached.) Two layers, whatever the size of the picture. Of course
# "reached" is not "understood", and the influence fades by $1 - u$ for each pixel on the way, as chapter 5 says. But
# compare it with the picture read line by line: there the pixel above is `width` steps away, here it is *one*.

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
assert two_layers.min() > 0  # one impulse has reached every pixel

# %% [markdown]
# ## And its backward?
# Nothing new, and that is the pleasure of pairs: the scan's backward is the scan's backward in whatever order the
# axes are; the window's is the convolution's (exercise 1). Is it right? Chapter 6 knows how to ask.

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
# ## What is it worth?
# That a thing can see far does not mean that it must. The package has measured it: networks of half width, trained
# shortly, three seeds each, and each part taken away in turn ([ablation.md](../../benchmarks/results/ablation.md)).
# Without the sweep they are 0.9 points worse at the same number of multiplications: a little, about two standard
# errors. Without the *window*, 20 points. With the input gate held open, 7 points. So on small pictures the window is
# what sees, the input gate is the nonlinearity, and the memory adds a little on top. In which directions it sweeps made
# no measurable difference.
#
# A control without the memory, at equal cost, belongs in every such paper. Where it was made elsewhere, the answer has
# been sobering too: MambaOut (Yu & Wang 2024, arXiv:2405.07992) removes the scan from a vision network of this family
# and does better without it.
#
# ## In the field's words
# * What is called **convolution** here and everywhere in the field is, in mathematics, a *cross-correlation*: the
#   kernel is not mirrored. **Weight sharing** makes it **translation-equivariant**: move the input, and the output
#   moves.
# * Four sweeps over a map: multi-dimensional LSTM (Graves, Fernández & Schmidhuber 2007), ReNet (Visin et al. 2015,
#   arXiv:1505.00393); today as the scans of visual state-space models. Its closest published twin is HGRN in two
#   dimensions (Qin et al. 2023, arXiv:2311.04823): one set of gates, four sweeps, summed and normalised.
# * Two layers reach everything because the way is taken axis by axis: the same thought as **axial attention** (Ho et
#   al. 2019, arXiv:1912.12180).
#
# ## Summary
# * A convolution is $k^2$ shifted matrix products; its view grows by one pixel a layer.
# * The image STM: a window for the gates, and scans along rows and columns. One layer sees a cross, two see all.
# * It is the same scan in another order of the axes, forward and backward.
# * Measured: the window is worth much, the input gate much, the sweep a little.
#
# ## Exercises
# Solutions: [11_pictures_as_maps.py](../solutions/11_pictures_as_maps.py).
#
# **1. The backward of a convolution, in one dimension.** $y_t = \sum_j x_{t+j-(k-1)/2}\, W_j + b$ for a sequence x (T,
# D). Write forward and backward in loops over $t$ and $j$, and check the pair.
#
# <details><summary>Hint</summary>
#
# Which outputs read $x_s$, and with which $W_j$? Each of them sends $dy_t W_j^\top$.
# </details>
#
# **2. How loud is the far corner?** In `two_layers` above, show that at $a$ rows and $b$ columns from the impulse (both
# above 0) there arrives exactly $2 u^2 (1-u)^{a+b}$. Why twice?
#
# <details><summary>Hint</summary>
#
# Row first, then column; or column first, then row. Each sweep that the impulse rides writes with a factor $u$.
# </details>
#
# **3. Does a sweep move with the picture?** Show that a layer of summed sweeps with $b_z = 0$ is
# translation-equivariant for a picture on an empty background, and with $b_z \ne 0$ is not. What breaks it?
#
# <details><summary>Hint</summary>
#
# Every line starts with an empty memory, at the border. What does the memory pick up on the way from the border to the
# object?
# </details>
