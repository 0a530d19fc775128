# Solutions of chapter 5, "How far a gradient travels".

import numpy as np

from stg_np.backend import Array
from stg_np.data.sequences import adding_problem
from stg_np.optim import AdamW, clip_by_norm
from stg_np.params import Entry, Layout, Params
from stg_np.stm import STMParams, init_stm, stm_backward, stm_forward
from stg_np.stm_recurrent import stm_recurrent_backward, stm_recurrent_forward

# --- 1. Kill it through b_u ---------------------------------------------------------------------------------
# b_u = 4: u = σ(4) = 0.982, τ = 1.02 steps, and after 8 steps 0.018⁸ = 1e-14 of a gradient is left.
# b_u = −12: u = 6e-6. Now 1 − u is as good as 1: the gradient *arrives*. What is tiny is the factor u with which it
# goes into v, and u (1 − u) with which it goes into a_u: every entry is short by about the same factor. AdamW divides
# by the size of the gradient, so it takes steps as large as ever and the gate opens. Short is not lost. With b_u = 4
# the message of the far steps is lost beside that of the near ones, and no factor for all brings it back.

T, H, B = 16, 16, 32
LAYOUT = Layout(
    (
        Entry("W", (2, 4 * H), "matrix"),
        Entry("b", (4 * H,), "vector"),
        Entry("V", (H, 1), "head"),
        Entry("c", (1,), "vector"),
    )
)


def loss_and_gradient(params: Params, x: Array, target: Array) -> tuple[float, Params]:
    """The mean squared error of ``m_T V + c``, and its gradient."""
    own = STMParams(params["W"], params["b"])
    (y, m_T), cache = stm_forward(x, np.zeros((len(x), H)), own)
    error = (m_T @ params["V"] + params["c"])[:, 0] - target
    doutput = 2 * error[:, None] / len(error)
    _, _, down = stm_backward(np.zeros_like(y), doutput @ params["V"].T, cache, own)
    grads = {"W": down.W, "b": down.b, "V": m_T.T @ doutput, "c": doutput.sum(0)}
    return float(np.mean(error**2)), Params.pack(LAYOUT, grads)


def error_after_training(b_u: float, steps: int = 200) -> float:
    """As in the chapter, but with b_u the same in all cells."""
    rng = np.random.default_rng(0)
    fresh = init_stm(rng, 2, H, length=T)
    fresh.b[H : 2 * H] = b_u
    V = rng.standard_normal((H, 1)) / np.sqrt(H)
    params = Params.pack(LAYOUT, {"W": fresh.W, "b": fresh.b, "V": V, "c": np.zeros(1)})
    rule, rng = AdamW(learning_rate=0.04), np.random.default_rng(5)
    moments = rule.init(params)
    for step in range(steps):
        x, target = adding_problem(rng, B, T, np.float64)
        _, gradient = loss_and_gradient(params, x, target.reshape(-1))
        params, moments = rule.update(clip_by_norm(gradient, 1.0), moments, params, 1 - step / steps)
    x, target = adding_problem(rng, 2000, T, np.float64)
    return loss_and_gradient(params, x, target.reshape(-1))[0]


for b_u in (4.0, -12.0):
    u = 1 / (1 + np.exp(-b_u))
    print(f"b_u = {b_u:3.0f}   τ = {1 / u:.4g}   left after 8 steps {(1 - u) ** 8:.0e}")
forgets, hardly_opens = error_after_training(4.0), error_after_training(-12.0)
print(f"error with b_u = 4: {forgets:.2f}, with b_u = −12: {hardly_opens:.2f}")
assert forgets > 0.05
assert hardly_opens < 0.03

# --- 2. How long a memory do you need? ----------------------------------------------------------------------
# (1 − 1/τ)^k = p   ⇒   1 − 1/τ = p^(1/k)   ⇒   τ = 1 / (1 − p^(1/k)), and b_u = −log(τ − 1).
# Rule of thumb: k log(1 − 1/τ) ≈ −k/τ = log p, so τ ≈ k / log(1/p). For a tenth, log 10 = 2.3: a bit less than half k.


def needed(part: float, distance: int) -> float:
    """The least τ that leaves this part of a gradient at this distance."""
    return float(1 / (1 - part ** (1 / distance)))


tau = needed(0.1, 100)
print(f"a tenth after 100 steps: τ = {tau:.1f}, b_u = {-np.log(tau - 1):.2f}; rule of thumb {100 / np.log(10):.1f}")
assert np.isclose((1 - 1 / tau) ** 100, 0.1)
assert abs(tau - 100 / np.log(10)) < 1

# --- 3. The way through R -----------------------------------------------------------------------------------
# dm_{t−1} = (1 − u_t) ⊙ dm_t + da_t Rᵀ: the second part passes through a matrix, so with a large R it explodes.


def lengths(scale: float, H: int = 32, steps: int = 60) -> list[float]:
    """‖dm_t‖ / ‖dm_T‖ at the distances 0 … steps, for an R whose entries are ``scale`` times as large as usual."""
    rng = np.random.default_rng(1)
    params = init_stm(rng, H, H, length=steps, recurrent=True)
    assert params.R is not None
    params = params._replace(R=scale * params.R)
    x, m = 0.1 * rng.standard_normal((1, steps, H)), np.zeros((1, H))
    caches = []
    for t in range(steps):  # a chunk a step: each returns the gradient of the memory before it
        (_, m), cache = stm_recurrent_forward(x[:, t : t + 1], m, params)
        caches.append(cache)
    dm = rng.standard_normal((1, H))
    found = [float(np.linalg.norm(dm))]
    for cache in reversed(caches):
        _, dm, _ = stm_recurrent_backward(np.zeros((1, 1, H)), dm, cache, params)
        found.append(float(np.linalg.norm(dm)))
    return [length / found[0] for length in found]


for scale in (0.0, 1.0, 20.0):
    print(f"R times {scale:4.1f}: left after 60 steps {lengths(scale)[-1]:.0e}")
assert max(lengths(0.0)) <= 1  # the input-only form: it cannot explode
assert lengths(1.0)[-1] < 1
assert lengths(20.0)[-1] > 10
