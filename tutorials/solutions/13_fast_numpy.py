# Solutions of chapter 13, "Fast NumPy".

import numpy as np

from stg_np.backend import Array
from stg_np.fast import conv as fast_conv

rng = np.random.default_rng(0)

# --- 1. Find the copy ---------------------------------------------------------------------------------------
# Line 3. After the swap, example n and step t lie n·H + t·B·H numbers from the first: one step from row to row would
# have to be B·H within an example and something negative at its end. No view can do that, so reshape copies, silently.
T, B, H = 5, 3, 4
gates = rng.standard_normal((4, T, B, H))
i = gates[0]
by_example = i.swapaxes(0, 1)
rows = by_example.reshape(-1, H)
backwards = rows[::-1]
for name, array, before in (
    ("line 1", i, gates),
    ("line 2", by_example, i),
    ("line 3", rows, by_example),
    ("line 4", backwards, rows),
):
    print(f"{name}: {'a view' if np.shares_memory(array, before) else 'A COPY'}")
    assert np.shares_memory(array, before) is (name != "line 3")

# A sum does not ask for the order of its rows: take them as they lie.
as_they_lie = i.reshape(-1, H)
assert np.shares_memory(as_they_lie, gates)
assert np.allclose(as_they_lie.sum(0), rows.sum(0))
# (`assert np.shares_memory(…)` is a good line to leave in. Setting `array.shape = …` in place of reshape raises where a
# copy would be needed.)

# --- 2. On which side of the ridge? -------------------------------------------------------------------------
# For a large N: 2·D·4H / (4 (D + 4H)) = D·2H / (D + 4H). The ridge stands at 60 / 10 = 6 operations per byte.
# D·2H = 6 (D + 4H), so D = 24 H / (2H − 6): 12.3 with H = 128.
H, ridge = 128, 60e9 / 10e9


def intensity(D: float) -> float:
    return D * 2 * H / (D + 4 * H)


for D in (3, 12, 13, 128):
    limit = "memory" if intensity(D) < ridge else "peak"
    print(f"D = {D:3d}: {intensity(D):5.2f} operations per byte, limited by {limit}")
assert intensity(3) < 2 < ridge < 50 < intensity(128)
assert intensity(12) < ridge < intensity(13)

# --- 3. Winograd for any tile -------------------------------------------------------------------------------


def winograd(points: list[float]) -> tuple[Array, Array, Array]:
    """A^T (m, n), G (n, 3), B^T (n, n) of F(m, 3), from n − 1 points; the last one is infinity."""
    n = len(points) + 1
    V = np.vander([*points, 0], n, increasing=True)
    V[-1] = np.eye(n)[-1]  # of a value at infinity, the last coefficient is all that is seen
    V_m, V_3 = V[:, : n - 2].copy(), V[:, :3].copy()
    V_m[-1], V_3[-1] = np.eye(n - 2)[-1], np.eye(3)[-1]
    return V_m.T, V_3, np.linalg.inv(V).T


errors = {}
for m, points in ((2, [0, 1, -1]), (4, [0, 1, -1, 2, -2]), (6, [0, 1, -1, 2, -2, 0.5, -0.5])):
    A_T, G, B_T = winograd([float(p) for p in points])
    d, w = rng.standard_normal((1000, m + 2)), rng.standard_normal((1000, 3))
    exact = np.stack([(d[:, k : k + 3] * w).sum(1) for k in range(m)], 1)
    assert np.allclose((d @ B_T.T * (w @ G.T)) @ A_T.T, exact, rtol=0, atol=1e-10)
    small_d, small_w, small_A_T, small_G, small_B_T = (array.astype(np.float32) for array in (d, w, A_T, G, B_T))
    result = (small_d @ small_B_T.T * (small_w @ small_G.T)) @ small_A_T.T
    errors[m] = float(np.sqrt(np.mean((result - exact) ** 2)))
    print(f"F({m}×{m}, 3×3): {(m + 2) ** 2 / m**2:.2f} multiplications per output, error of F({m}, 3) {errors[m]:.0e}")
assert errors[2] < errors[4] < errors[6]

# The package's F(4, 3) has the same points; it only shares the factors out otherwise, so that B^T holds whole numbers.
A_T, _, _ = winograd([0.0, 1.0, -1.0, 2.0, -2.0])
assert np.array_equal(A_T, fast_conv.A_T)
