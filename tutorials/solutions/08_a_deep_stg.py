# Solutions of chapter 8, "A deep STG".

from typing import Any

import numpy as np

from stg_np import data
from stg_np.backend import Array
from stg_np.models.stg import STG
from stg_np.ops.losses import cross_entropy_backward, cross_entropy_forward
from stg_np.ops.norm import rms_norm_backward, rms_norm_forward
from stg_np.ops.views import patches_forward
from stg_np.optim import SCHEDULES, AdamW, clip_by_norm
from stg_np.params import Entry, Layout, Params, named
from stg_np.stm import STMParams, init_stm, stm_backward, stm_entries, stm_forward

# --- 1. Drop the residual -----------------------------------------------------------------------------------
# With the path, six layers learn at once; without it they lag behind two layers that have it. (Two and six layers with
# the path end alike here: for 60 steps on small digits, four more layers are no help. But they do no harm.)

digits = data.load("digits")
X, LABELS = patches_forward(digits.train_images, 2, 2) / 8 - 0.6, digits.train_labels.astype(int)
B, T, H = 64, 16, 24


def start(L: int, rng: np.random.Generator) -> Params:
    """L layers of one direction, and a head."""
    entries: list[Entry] = [Entry("V", (H, 10), "head"), Entry("c", (10,), "vector")]
    arrays = {"V": rng.standard_normal((H, 10)) / np.sqrt(H), "c": np.zeros(10)}
    for layer in range(L):
        D = 4 if layer == 0 else H
        entries += stm_entries(f"stm{layer}", D, H)
        arrays |= named(f"stm{layer}", init_stm(rng, D, H, length=T))
    return Params.pack(Layout(tuple(entries)), arrays)


def loss_and_gradient(params: Params, x: Array, labels: Array, L: int, residual: bool) -> tuple[float, Params]:
    h, caches = x, list[Any]()
    for layer in range(L):
        read, norm = rms_norm_forward(h) if layer > 0 else (h, None)
        (y, _), stm = stm_forward(read, np.zeros((B, H)), params.group(f"stm{layer}", STMParams))
        h = h + y if residual and layer > 0 else y
        caches.append((norm, stm))
    last, last_norm = rms_norm_forward(h)
    pooled = last.mean(1)
    losses, own = cross_entropy_forward(pooled @ params["V"] + params["c"], labels, label_smoothing=0.1)
    dlogits = cross_entropy_backward(np.full(B, 1 / B), own)
    grads = {"V": pooled.T @ dlogits, "c": dlogits.sum(0)}
    dh = rms_norm_backward(np.repeat((dlogits @ params["V"].T)[:, None] / T, T, 1), last_norm)
    for layer in reversed(range(L)):
        norm, stm = caches[layer]
        dread, _, down = stm_backward(dh, np.zeros((B, H)), stm, params.group(f"stm{layer}", STMParams))
        dx = dread if norm is None else rms_norm_backward(dread, norm)
        dh = dh + dx if residual and layer > 0 else dx
        grads |= named(f"stm{layer}", down)
    return float(losses.mean()), Params.pack(params.layout, grads)


def train(L: int, residual: bool, steps: int = 60) -> float:
    """The mean loss of the last ten steps."""
    rng, rule, history = np.random.default_rng(0), AdamW(0.02), []
    params = start(L, rng)
    moments = rule.init(params)
    for step in range(steps):
        batch = rng.permutation(len(X))[:B]
        loss, gradient = loss_and_gradient(params, X[batch], LABELS[batch], L, residual)
        rate = SCHEDULES["linear"](step / steps, 0.1)
        params, moments = rule.update(clip_by_norm(gradient, 1.0), moments, params, rate)
        history.append(loss)
    return float(np.mean(history[-10:]))


six, six_without, two = train(6, True), train(6, False), train(2, True)
print(f"six layers {six:.2f}, without the path {six_without:.2f}; two layers {two:.2f}")
assert six_without > six + 0.15
assert six_without > two + 0.1

# --- 2. Norm behind instead of before -----------------------------------------------------------------------
# There is no free path any more: every norm stands on it. Two independent random vectors of size 1 add up to one of
# size √2, so each norm multiplies the gradient by 1/√2, and twelve of them by 1/64: a factor below 1 per layer, again.
# (What comes back through the layers is added to that, in both kinds of network; the difference is what is certain.)


def left_on_the_path(post: bool, L: int = 12) -> float:
    """Size of a gradient after L layers, by the path alone."""
    rng = np.random.default_rng(0)
    h, norms = rms_norm_forward(rng.standard_normal((50, 256)))[0], []
    for _ in range(L):
        total = h + rng.standard_normal(h.shape)
        h, cache = rms_norm_forward(total) if post else (total, None)
        norms.append(cache)
    dh = rng.standard_normal(h.shape)
    size = dh.std()
    for cache in reversed(norms):
        dh = dh if cache is None else rms_norm_backward(dh, cache)
    return float(dh.std() / size)


pre, post = left_on_the_path(False), left_on_the_path(True)
print(f"left on the path: {pre:.0f} with pre-norm, {post:.4f} with post-norm (1/64 = {1 / 64:.4f})")
assert pre == 1
assert abs(post - 1 / 64) < 0.002

# --- 3. Count the parameters --------------------------------------------------------------------------------
# A walk of H = width/2 cells reading D numbers: W has 4HD, b has 4H. Two walks a layer; the first reads D features, the
# others the width: 2 · 4H (D + 1) + (L − 1) · 2 · 4H (width + 1), and with 2H = width
#     4 width (D + 1) + (L − 1) · 4 width (width + 1) + C (width + 1).


def count(D: int, width: int, L: int, C: int) -> int:
    return 4 * width * (D + 1) + (L - 1) * 4 * width * (width + 1) + C * (width + 1)


for L, width in ((1, 8), (3, 32), (6, 128)):
    model = STG((8, 8, 1), classes=10, view="patches", patch=(2, 2), width=width, layers=L)
    print(f"L = {L}, width {width:3d}: {count(4, width, L, 10):,} parameters")
    assert model.layout().size == count(4, width, L, 10)
