"""Solutions of the exercises of chapter 4."""

import runpy
from pathlib import Path

import numpy as np

from stg_np.ops.activations import TANH
from stg_np.stm import Gates, gates_backward, init_stm, scan_backward, stm_backward, stm_forward
from stg_np.stm_recurrent import step_backward, stm_recurrent_backward, stm_recurrent_forward

# --- 1. The blanks ----------------------------------------------------------------------------------------------

answers = {
    "do": lambda dy, o, read: dy * read,
    "dm_from_y": lambda dy, o, read: dy * o * (1 - read**2),
    "du": lambda dm, u, v, before: dm * (v - before),
    "dv": lambda dm, u, v, before: dm * u,
    "dbefore": lambda dm, u, v, before: dm * (1 - u),
    "di": lambda dv, i, z: dv * z,
    "dz": lambda dv, i, z: dv * i,
    "da_i": lambda di, i: di * i * (1 - i),
    "da_z": lambda dz, z: dz * (1 - z**2),
    "dx": lambda da, W: da @ W.T,
    "dW": lambda da, x: x.T @ da,
    "db": lambda da: da.sum(0),
    "dbefore_through_R": lambda da, R: da @ R.T,
    "dR": lambda da, before: before.T @ da,
}
exercise = runpy.run_path(str(Path(__file__).parent.parent / "exercises" / "04_the_blanks.py"))
verdicts = exercise["verdicts"](answers)
print("1.", verdicts)
assert set(verdicts.values()) == {"right"}
assert set(exercise["verdicts"]({name: exercise[name] for name in answers}).values()) == {"not yet"}
assert exercise["verdicts"](answers | {"du": answers["dv"]})["du"] == "wrong"

# --- 2. dR in one product -----------------------------------------------------------------------------------------
# dR = Σ_t m_{t−1}ᵀ da_t: with all examples and steps as rows, Mᵀ A, where M (B T, H) holds the memories before, and A
# (B T, 4H) holds da.

rng = np.random.default_rng(0)
B, T, D, H = 2, 4, 3, 2
x, m_0 = rng.standard_normal((B, T, D)), rng.standard_normal((B, H))
recurrent = init_stm(rng, D, H, length=T, recurrent=True)
(y, m_T), cache = stm_recurrent_forward(x, m_0, recurrent)
dy, dm_T = rng.standard_normal(y.shape), rng.standard_normal(m_T.shape)
_, _, dparams = stm_recurrent_backward(dy, dm_T, cache, recurrent)
assert recurrent.R is not None
assert dparams.R is not None

rows, after = [], dm_T
for t in reversed(range(T)):
    da_t, after, db_t, dw_t = step_backward(dy[:, t], after, cache.steps[t], recurrent)
    after = after + da_t @ recurrent.R.T
    rows.append(da_t)
da = np.stack(rows[::-1], 1)  # (B, T, 4H)
before = np.stack([step.m_before for step in cache.steps], 1)  # (B, T, H)
dR = before.reshape(-1, H).T @ da.reshape(-1, 4 * H)
print(f"2. dR differs by {abs(dR - dparams.R).max():.0e}" if abs(dR - dparams.R).max() > 1e-12 else "2. dR is right")
assert np.allclose(dR, dparams.R, rtol=0, atol=1e-12)

# --- 3. Diagonal gates --------------------------------------------------------------------------------------------
# a_g = w_g ⊙ a_z + b_g. dw_g = Σ da_g ⊙ a_z and db_g = Σ da_g; a_z is read by the candidate and by the three gates, so
# its whole gradient is da_z + Σ_g da_g ⊙ w_g. From there x, W and b_z as in line 1.

diagonal = init_stm(rng, D, H, length=T, diagonal=True)
(y, m_T), own = stm_forward(x, m_0, diagonal, phi=TANH)
their_dx, _, theirs = stm_backward(dy, dm_T, own, diagonal)
assert diagonal.w is not None
assert theirs.w is not None

do, dm = dy * own.read, dy * own.gates.o * (1 - own.read**2)
du, dv, _ = scan_backward(dm, dm_T, own.gates.u, own.v, own.memories, m_0)
da = gates_backward(Gates(dv * own.gates.z, du, do, dv * own.gates.i), own.gates, own.a, TANH)
da_i, da_u, da_o, da_z = np.split(da, 4, axis=-1)
a_z, (w_i, w_u, w_o) = own.a[..., 3 * H :], np.split(diagonal.w, 3)
whole = da_z + da_i * w_i + da_u * w_u + da_o * w_o
dw = np.concatenate([(da_g * a_z).sum((0, 1)) for da_g in (da_i, da_u, da_o)])
db = np.concatenate([part.sum((0, 1)) for part in (da_i, da_u, da_o, whole)])
assert np.allclose(dw, theirs.w, rtol=0, atol=1e-12)
assert np.allclose(db, theirs.b, rtol=0, atol=1e-12)
assert np.allclose(np.einsum("btd,bth->dh", x, whole), theirs.W, rtol=0, atol=1e-12)
assert np.allclose(whole @ diagonal.W.T, their_dx, rtol=0, atol=1e-12)
print("3. dw, db, dW and dx of diagonal gates are right")
