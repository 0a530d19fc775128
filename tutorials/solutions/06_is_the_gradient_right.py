# Solutions of chapter 6, "Is the gradient right?".

import codecs

import numpy as np

from stg_np.backend import Array
from stg_np.gradcheck import check_pair

# --- 1. Three anonymous bugs --------------------------------------------------------------------------------
# mystery(1): only u is wrong, and nothing is with T = 1. So the mistake is in the line of du, and it concerns an
#   earlier step: the memory *before* the step. The line takes memories[:, t], the one after it. With t = 0 it is right.
# mystery(2): x, W, b are wrong for every size: like "φ′ at the wrong place", inside a step. But measured db / claimed
#   db is u, cell by cell: a factor is missing, u, in the line of dv.
# mystery(3): x, W, b, u, and nothing with T = 1: like "forgotten (1 − u)". In its error map the blocks below the
#   diagonal are not too large but claimed to be exactly 0: nothing at all goes back. `dm +` is missing.
# The layer again, by its own backward, to prove these three answers:


def forward(x: Array, W: Array, b: Array, u: Array) -> tuple[Array, tuple[Array, ...]]:
    v = np.tanh(x @ W + b)
    m, memories = np.zeros_like(v[:, 0]), []
    for t in range(x.shape[1]):
        m = (1 - u) * m + u * v[:, t]
        memories.append(m)
    stacked = np.stack(memories, 1)
    return stacked, (x, W, u, v, stacked)


def backward(
    dmemories: Array, cache: tuple[Array, ...], after: bool = False, no_u: bool = False, cut: bool = False
) -> tuple[Array, ...]:
    """The right backward; with a flag set, that of a mystery."""
    x, W, u, v, memories = cache
    dv, du, dm = np.zeros_like(v), np.zeros_like(u), np.zeros_like(v[:, 0])
    for t in reversed(range(x.shape[1])):
        dm = dmemories[:, t] if cut else dm + dmemories[:, t]  # mystery(3)
        before = memories[:, t if after else t - 1] if t > 0 else np.zeros_like(dm)  # mystery(1)
        dv[:, t] = dm if no_u else u * dm  # mystery(2)
        du += (dm * (v[:, t] - before)).sum(0)
        dm = (1 - u) * dm
    da = dv * (1 - v**2)
    return da @ W.T, np.einsum("btd,bth->dh", x, da), da.sum((0, 1)), du


rng = np.random.default_rng(0)
T, H = 4, 3
inputs = {
    "x": rng.standard_normal((2, T, H)),
    "W": rng.standard_normal((H, H)),
    "b": rng.standard_normal(H),
    "u": rng.uniform(0.2, 0.8, H),
}


def wrong(**flags: bool) -> list[str]:
    """The arguments whose gradient is wrong with these flags."""
    report = check_pair(forward, lambda dy, cache: backward(dy, cache, **flags), inputs)
    return [name for name in inputs if report.errors[name] > report.tolerance]


assert wrong() == []
assert wrong(after=True) == ["u"]
assert wrong(no_u=True) == ["x", "W", "b"]
assert wrong(cut=True) == ["x", "W", "b", "u"]

memories, cache = forward(**inputs)
dmemories = rng.standard_normal(memories.shape)
ratio = backward(dmemories, cache)[2] / backward(dmemories, cache, no_u=True)[2]
assert np.allclose(ratio, inputs["u"])  # mystery(2): what is missing is u
last_only = np.zeros_like(memories)
last_only[:, -1] = 1
assert not backward(last_only, cache, cut=True)[0][:, :-1].any()  # mystery(3): nothing reaches the steps before

for text in ("orsber = zrzbevrf[:, g] vs", "qi[:, g] = qz", "qz = qzrzbevrf[:, g]"):
    print("a wrong line:", codecs.decode(text, "rot13"))

# --- 2. The best step ---------------------------------------------------------------------------------------
# d/dh (c h^p + ε/h) = c p h^(p−1) − ε/h² = 0   ⇒   h = (ε / (c p))^(1/(p+1)).
# There c h^p = ε / (p h), so the sum is (1 + 1/p) ε / h, of the order ε^(p/(p+1)): half of the digits for p = 1, two
# thirds for p = 2, four fifths for p = 4. The chapter's table: 3e-9, 2e-10, 9e-12, at 2e-7, 1e-5, 1e-3.
epsilon = 2.2e-16
for order in (1, 2, 4):
    h = (epsilon / order) ** (1 / (order + 1))
    grid = np.logspace(-10, -1, 2000)
    found = grid[np.argmin(grid**order + epsilon / grid)]
    print(f"order {order}: best h {h:.0e}, error {h**order + epsilon / h:.0e}")
    assert abs(np.log10(found / h)) < 0.01
    assert np.isclose(h**order + epsilon / h, (1 + 1 / order) * epsilon / h)

# --- 3. A bug that no direction finds -----------------------------------------------------------------------
# For p = softmax(x) the rows of p sum to 1 for every x, so with dy = 1 the right dx is exactly 0, and so is that of any
# backward of the form "p ⊙ (dy − mean of dy)": a factor, another mean, a forgotten p. Only another dy tells them apart.


def softmax_forward(x: Array) -> tuple[Array, Array]:
    powers = np.exp(x - x.max(-1, keepdims=True))
    p = powers / powers.sum(-1, keepdims=True)
    return p, p


def softmax_backward(dy: Array, p: Array) -> Array:
    dx: Array = p * (dy - (p * dy).sum(-1, keepdims=True))
    return dx


def blind_backward(dy: Array, p: Array) -> Array:
    dx: Array = p * (dy - dy.mean(-1, keepdims=True))  # the mean should be weighted by p
    return dx


x = rng.standard_normal((2, 5))
p = softmax_forward(x)[1]
ones = np.ones((2, 5))
assert np.allclose(softmax_backward(ones, p), 0, atol=1e-15)
assert np.allclose(blind_backward(ones, p), 0, atol=1e-15)
assert check_pair(softmax_forward, softmax_backward, {"x": x}).ok
report = check_pair(softmax_forward, blind_backward, {"x": x})
print(report)
assert not report.ok
