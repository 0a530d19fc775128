"""Solutions of the exercises of chapter 2."""

import numpy as np

from stg_np.ops.activations import IDENTITY
from stg_np.stm import STMParams, update_forward
from stg_np.stm_recurrent import stm_recurrent_forward

rng = np.random.default_rng(0)

# --- 1. Erase without i ---------------------------------------------------------------------------------------
# One cell holds tanh(x + k) = 1 after an erase: the old value is gone, but a 1 stands in its place. A second cell,
# which sees the flag only, holds tanh(0 + k) = 1 as well, and tanh(0) = 0 after a write. The difference is the answer.

first = second = np.zeros(1)
k = 30.0
for value, write, erase in [(0.5, 1, 0), (-0.9, 0, 0), (0.7, 0, 1), (0.2, 0, 0), (-0.4, 1, 0)]:
    u = np.array([float(write or erase)])
    first = update_forward(u, np.tanh([value + k * erase]), first)
    second = update_forward(u, np.tanh([0.0 + k * erase]), second)
    print(f"1. write {write}, erase {erase}: {first[0]:5.2f} − {second[0]:.2f} = {first[0] - second[0]:5.2f}")
    if erase:
        assert first == 1
        assert first - second == 0
assert np.allclose(first - second, np.tanh(-0.4))

# --- 2. Count ---------------------------------------------------------------------------------------------------
# Without bound: no, as the memory never exceeds the largest candidate, 1. Up to 100, with a factor 1/u behind: with
# u = ε at a flag (else 0), m_n = 1 − (1 − ε)ⁿ ≈ ε n, so m / ε counts. The 100th flag adds (1 − ε)⁹⁹ instead of 1: for
# an error of less than one half after 100 flags, ε must be about 1e-4, for 100 ε · 100 / 2 < ½.

for epsilon in (1e-2, 1e-4):
    m = np.zeros(1)
    for _step in range(100):
        m = update_forward(np.array([epsilon]), np.ones(1), m)
    print(f"2. u = {epsilon}: counts {m[0] / epsilon:.2f} of 100 flags")
    assert m[0] < 1
    assert (round(m[0] / epsilon) == 100) == (epsilon == 1e-4)

# --- 3. The first one wins --------------------------------------------------------------------------------------
# Input-only gates: i_t and u_t are functions of x_t, so what a marked step does to the memory, m ← (1 − u) m + u v, is
# the same whether a value is in it or not. To take the first value, u is 1 there, and then the second is taken as well.
# A gate that sees the memory can tell the two: a_u = 20 f − 10 − 40 m. Empty and flagged, 10: open. Otherwise −10 or
# less: shut.

values, flags = rng.uniform(0.5, 1, 30), (rng.uniform(size=30) < 0.3).astype(float)
x = np.stack([values, flags], -1)[None]
W = np.array([[0, 0, 0, 1], [0, 20, 0, 0.0]])  # rows: value, flag; columns: i, u, o, z
b = np.array([30.0, -10, 30, 0])
R = np.array([[0, -40.0, 0, 0]])  # from the memory
y, _ = stm_recurrent_forward(x, np.zeros((1, 1)), STMParams(W, b, R), phi_z=IDENTITY)[0]
first_step = int(flags.argmax())
print(f"3. the first marked value is {values[first_step]:.3f}; at the end the memory holds {y[0, -1, 0]:.3f}")
assert flags.sum() > 3
assert np.allclose(y[0, first_step:, 0], values[first_step], atol=2e-3)
