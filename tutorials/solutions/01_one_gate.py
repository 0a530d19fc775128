"""Solutions of the exercises of chapter 1."""

import math

import numpy as np

from stg_np.backend import Array
from stg_np.ops.activations import sigmoid_forward
from stg_np.stm import update_forward

# --- 1. A half-life: (1 − u)¹⁰ = ½ gives u = 1 − ½^(1/10) -----------------------------------------------------

u = 1 - 0.5 ** (1 / 10)
bias = math.log(u / (1 - u))
print(f"1. u = {u:.4f}, bias {bias:.2f}, time scale {1 / u:.1f} steps")
m = 1.0
for _ in range(10):
    m = m + u * (0 - m)
assert math.isclose(m, 0.5)
assert math.isclose(1 / (1 + math.exp(-bias)), u)
assert math.isclose(bias, -math.log(1 / u - 1))  # the same as −log(τ − 1)

# --- 2. A weighted mean: m_T = (1 − u)^T m_0 + Σ_t u (1 − u)^(T − t) v_t ----------------------------------------
# The weights sum to 1: u Σ_k (1 − u)^k over k = 0 … T − 1 is a geometric series, 1 − (1 − u)^T, and the rest is m_0's.

rng = np.random.default_rng(0)
T, u = 9, 0.3
values, m_0 = rng.standard_normal(T), 0.7
weights = u * (1 - u) ** (T - np.arange(1, T + 1))
m = m_0
for v in values:
    m = m + u * (v - m)
print(f"2. loop {m:.6f}, weighted mean {(1 - u) ** T * m_0 + weights @ values:.6f}")
assert math.isclose(m, (1 - u) ** T * m_0 + weights @ values)
assert math.isclose((1 - u) ** T + weights.sum(), 1)

# --- 3. A gate that starts shut --------------------------------------------------------------------------------

values = rng.standard_normal((200, 12))
flagged = rng.integers(0, 12, 200)
flags = (np.arange(12) == flagged[:, None]).astype(float)
target = values[np.arange(200), flagged]


def loss_and_gradient(w: float, b: float) -> tuple[float, Array]:
    """The loss, and [dw, db], as in the chapter."""
    u = sigmoid_forward(w * flags + b)
    memories = [np.zeros(200)]
    for t in range(12):
        memories.append(update_forward(u[:, t], values[:, t], memories[-1]))
    error = memories[-1] - target
    dm, gradient = error / 200, np.zeros(2)
    for t in reversed(range(12)):
        da = dm * (values[:, t] - memories[t]) * u[:, t] * (1 - u[:, t])
        gradient += [da @ flags[:, t], da.sum()]
        dm = dm * (1 - u[:, t])
    return 0.5 * float((error**2).mean()), gradient


def learn(b: float, steps: int) -> float:
    """The loss after so many steps from w = 0 and this bias."""
    parameters = np.array([0.0, b])
    for _ in range(steps):
        parameters = parameters - 2.0 * loss_and_gradient(*parameters)[1]
    return loss_and_gradient(*parameters)[0]


from_half_open, from_shut = abs(loss_and_gradient(0, 0)[1]), abs(loss_and_gradient(0, -8)[1])
print(f"3. [dw, db] at b = 0: {from_half_open.round(4)}, at b = −8: {from_shut.round(6)}")
print(f"   loss after 400 steps: from b = 0 {learn(0, 400):.3f}, from b = −8 {learn(-8, 400):.3f}")
# The factor u (1 − u) of da: ¼ at b = 0, 0.0003 at b = −8. The gate is sure of itself, and so learns next to nothing.
assert from_shut.max() < 0.01 * from_half_open.max()
assert learn(0, 400) < 0.05
assert learn(-8, 400) > 0.3
