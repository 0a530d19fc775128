"""Solutions of the exercises of chapter 3."""

import numpy as np

from stg_np.stm import STMParams, init_stm, stm_forward

rng = np.random.default_rng(0)
B, T, D, H = 2, 6, 3, 4

# --- 1. A forget gate -------------------------------------------------------------------------------------------
# (1 − u) m + u i z = f m + (1 − f) i z: the LSTM's input gate is the product u ⊙ i, and f = 1 − σ(a_u) = σ(−a_u). The
# two are tied: where f is 1, nothing can be added.

params = init_stm(rng, D, H, length=T)
x, m_0 = rng.standard_normal((B, T, D)), rng.standard_normal((B, H))
(y, m_T), cache = stm_forward(x, m_0, params)
f = 1 / (1 + np.exp(cache.a[..., H : 2 * H]))  # σ(−a_u)
c = m_0
for t in range(T):
    added = (cache.gates.u * cache.gates.i)[:, t] * cache.gates.z[:, t]
    c = f[:, t] * c + added
    assert np.allclose(c, cache.memories[:, t], rtol=0, atol=1e-14)
print(f"1. forget gate {f.mean():.2f} on average, LSTM-like input gate {(cache.gates.u * cache.gates.i).mean():.2f}")

# --- 2. Count ---------------------------------------------------------------------------------------------------
# STM: three gates and a candidate, 4 matrices (D, H) and 4 biases; recurrent: 4 matrices (H, H) more; diagonal: one
# matrix, 4 biases and 3 vectors. A GRU has r, u, z: 3 of each. An LSTM has f, i, o, z: 4 of each.

D, H = 128, 256
counts = {
    "STM": 4 * D * H + 4 * H,
    "STM, recurrent": 4 * (D + H) * H + 4 * H,
    "STM, diagonal": D * H + 4 * H + 3 * H,
    "GRU": 3 * (D + H) * H + 3 * H,
    "LSTM": 4 * (D + H) * H + 4 * H,
}
for name, count in counts.items():
    print(f"2. {name:15} {count:8,}")


def size(params: STMParams) -> int:
    return sum(part.size for part in params if part is not None)


assert size(init_stm(rng, D, H, length=T)) == counts["STM"]
assert size(init_stm(rng, D, H, length=T, recurrent=True)) == counts["STM, recurrent"]
assert size(init_stm(rng, D, H, length=T, diagonal=True)) == counts["STM, diagonal"]

# --- 3. A layer without a past ----------------------------------------------------------------------------------
# m_t = v_t, so y_t = o_t ⊙ i_t ⊙ z_t: each step for itself, as in a gated linear unit
# (Dauphin et al., arXiv:1612.08083).

D, H = 3, 4
no_past = params._replace(b=np.concatenate([np.zeros(H), np.full(H, 50.0), np.zeros(2 * H)]))  # u = σ(50 + …) = 1
(y, m_T), cache = stm_forward(x, m_0, no_past)
assert np.allclose(y, cache.gates.o * cache.gates.i * cache.gates.z, rtol=0, atol=1e-14)
order = rng.permutation(T)
(y_permuted, m_last), cache = stm_forward(x[:, order], m_0, no_past)
assert np.allclose(y_permuted, y[:, order], rtol=0, atol=1e-14)
(y_with, m_T), cache = stm_forward(x, m_0, params)
(y_with_permuted, m_last), cache = stm_forward(x[:, order], m_0, params)
assert not np.allclose(y_with_permuted, y_with[:, order], atol=1e-3)
print("3. with u = 1 the steps may come in any order; with a memory they may not")
