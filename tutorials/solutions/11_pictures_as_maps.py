# Solutions of chapter 11, "Pictures as maps".

import numpy as np

from stg_np.backend import Array
from stg_np.gradcheck import check_pair
from stg_np.ops.conv import ConvParams, conv2d_forward
from stg_np.sweep import ALL_WAYS, line_forward

rng = np.random.default_rng(0)

# --- 1. The backward of a convolution, in one dimension -----------------------------------------------------
# x_s is read by every y_t with t + j − (k−1)/2 = s, with the matrix W_j. So dx_s = Σ_j dy_t W_jᵀ with t = s − j +
# (k−1)/2: a convolution of dy with the kernel mirrored and each matrix transposed. dW_j = Σ_t x_{t+j−(k−1)/2}ᵀ dy_t.


def forward(x: Array, W: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    """x (T, D), W (k, D, H), b (H,) -> y (T, H)."""
    T, k = len(x), len(W)
    y = np.zeros((T, W.shape[-1]), x.dtype) + b
    for t in range(T):
        for j in range(k):
            if 0 <= t + j - k // 2 < T:
                y[t] += x[t + j - k // 2] @ W[j]
    return y, (x, W)


def backward(dy: Array, cache: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    x, W = cache
    T, k = len(x), len(W)
    dx, dW = np.zeros_like(x), np.zeros_like(W)
    for t in range(T):
        for j in range(k):
            if 0 <= t + j - k // 2 < T:
                dx[t + j - k // 2] += dy[t] @ W[j].T  # from x @ W[j]
                dW[j] += np.outer(x[t + j - k // 2], dy[t])  # from x @ W[j]
    return dx, dW, dy.sum(0)  # b was broadcast over t


inputs = {"x": rng.standard_normal((6, 2)), "W": rng.standard_normal((3, 2, 4)), "b": rng.standard_normal(4)}
report = check_pair(forward, backward, inputs, name="1-D convolution")
print(report)
assert report.ok
as_picture = conv2d_forward(
    inputs["x"][None, :, None], ConvParams(np.pad(inputs["W"][:, None], ((0, 0), (1, 1), (0, 0), (0, 0))), inputs["b"])
)[0]
assert np.allclose(as_picture[0, :, 0], forward(**inputs)[0])  # a column of one pixel's width

# --- 2. How loud is the far corner? -------------------------------------------------------------------------
# The first layer writes u (1−u)^b along the row (or u (1−u)^a along the column) of the impulse. From the pixel of
# that row that lies in the target's column the second layer carries it on: another u, another (1−u)^a. Or column
# first. No other way: in each layer only one direction comes nearer in the right axis. Together 2 u² (1−u)^(a+b).
u = 0.1
impulse = np.zeros((1, 20, 20, 1))
impulse[0, 8, 8, 0] = 1
heard = impulse
for _ in range(2):
    heard = np.sum([line_forward(np.full_like(heard, u), heard, direction) for direction in ALL_WAYS], axis=0)
for a, b in ((1, 1), (3, 7), (11, 11)):
    print(f"{a:2d} rows, {b:2d} columns away: {heard[0, 8 + a, 8 + b, 0]:.6f}")
    assert np.isclose(heard[0, 8 + a, 8 + b, 0], 2 * u**2 * (1 - u) ** (a + b))

# --- 3. Does a sweep move with the picture? -----------------------------------------------------------------
# With b_z = 0 an empty background gives v = 0: a memory that starts at the border arrives at the object as empty as
# it started, wherever the object stands. With b_z ≠ 0 it picks up b_z on the way, and how much depends on the length
# of that way: 1 − (1−u)^distance of it. Near the left border a memory to the right has collected less.
picture = np.zeros((1, 12, 12, 1))
picture[0, 4:7, 4:7, 0] = rng.standard_normal((3, 3))
shifted = np.roll(picture, (2, 3), (1, 2))


def summed(v: Array) -> Array:
    total: Array = np.sum([line_forward(np.full_like(v, 0.3), v, direction) for direction in ALL_WAYS], axis=0)
    return total


for b_z, moves_along in ((0.0, True), (0.5, False)):
    one, other = summed(picture + b_z), summed(shifted + b_z)
    same = np.allclose(one[:, 4:7, 4:7], other[:, 6:9, 7:10], rtol=0, atol=1e-12)
    print(f"b_z = {b_z}: the object looks the same to the memory after a move: {same}")
    assert same is moves_along
