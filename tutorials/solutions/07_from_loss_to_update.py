# Solutions of chapter 7, "From loss to update".

import math

import numpy as np

from stg_np.backend import Array
from stg_np.ops.losses import cross_entropy_forward
from stg_np.optim import SGD, AdamW, Optimizer
from stg_np.params import Entry, Layout, Params

rng = np.random.default_rng(0)

# --- 1. Derive the floor ------------------------------------------------------------------------------------
# log r ≤ r − 1, with equality at r = 1 only. So Σ q log(p/q) ≤ Σ q (p/q − 1) = Σ p − Σ q = 0, that is
# −Σ q log p ≥ −Σ q log q, with equality where p = q (Gibbs' inequality). Now q is 1 − s + s/C once, and s/C for C − 1
# classes: floor(s) = −(1 − s + s/C) log(1 − s + s/C) − (C − 1) (s/C) log(s/C).


def floor(s: float, C: int) -> float:
    right, other = 1 - s + s / C, s / C
    return -right * math.log(right) - (C - 1) * other * math.log(other)


logits = 3 * rng.standard_normal((10_000, 10))
losses = cross_entropy_forward(logits, np.zeros(10_000, int), label_smoothing=0.1)[0]
assert losses.min() > floor(0.1, 10)  # ten thousand tries
best = np.log(np.array([[0.91, *[0.01] * 9]]))  # p = q
assert np.isclose(cross_entropy_forward(best, np.array([0]), label_smoothing=0.1)[0][0], floor(0.1, 10))

low, high = 0.01, 0.9
while high - low > 1e-6:  # the floor rises with s
    middle = (low + high) / 2
    low, high = (middle, high) if floor(middle, 10) < math.log(10) / 2 else (low, middle)
print(f"s = 0.1: {floor(0.1, 10):.4f}; half of log 10 at s = {low:.3f}")
assert round(floor(0.1, 10), 3) == 0.5

# --- 2. How much faster is momentum? ------------------------------------------------------------------------
# μ after n steps of a constant g is (1 + β + … + β^(n−1)) g = (1 − β^n) / (1 − β) g: it fills like the memory of
# chapter 1, whose m_n = 1 − (1 − u)^n with u = 1 − β. Within a tenth: β^n ≤ 0.1, n = log 0.1 / log β.
for beta in (0.9, 0.99):
    mu, n = 0.0, 0
    while mu < 0.9 / (1 - beta):
        mu, n = beta * mu + 1, n + 1
    print(f"β = {beta}: steps up to {1 / (1 - beta):.0f} times as long, within a tenth after {n}")
    assert n == math.ceil(math.log(0.1) / math.log(beta))

# --- 3. Turn the valley -------------------------------------------------------------------------------------
# In the turned valley f(θ) = ½ θᵀ Q A Qᵀ θ the gradient is Q A Qᵀ θ. SGD's whole path is turned by Q, so its heights
# stay. Adam sees two coordinates whose gradients are about alike, and divides both by about the same: what is left is
# SGD with another rate, and the narrow valley is back.

LAYOUT = Layout((Entry("theta", (2,), "vector"),))


def heights(rule: Optimizer, angle: float, steps: int = 400) -> Array:
    Q = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    A = Q @ np.diag([1.0, 1000.0]) @ Q.T
    params, found = Params(LAYOUT, Q @ np.array([-9.0, 1.5])), []
    moments = rule.init(params)
    for _ in range(steps):
        found.append(0.5 * float(params.flat @ A @ params.flat))
        params, moments = rule.update(params.with_flat(A @ params.flat), moments, params, 1.0)
    return np.array(found)


sgd, adam = SGD(0.0018, momentum=0.0), AdamW(0.2, beta1=0.8, beta2=0.95)
straight, turned = (int((heights(adam, angle) < 0.01).argmax()) for angle in (0.0, math.pi / 4))
print(f"Adam is below 0.01 after {straight} steps, in the turned valley after {turned}")
assert np.allclose(heights(sgd, 0.0), heights(sgd, math.pi / 4), rtol=1e-6)
assert turned > 3 * straight > 0
