"""Solutions of the exercises of chapter 9."""

import math

import numpy as np

rng = np.random.default_rng(0)


def mcnemar(b: int, c: int) -> float:
    """How often b + c fair coins fall at least as unevenly as b to c."""
    n, fewer = b + c, min(b, c)
    return min(1.0, sum(math.comb(n, k) for k in range(fewer + 1)) / 2.0 ** (n - 1))


# --- 1. McNemar: b − c = 6 and b + c as given ---------------------------------------------------------------------
# The same 0.975 against 0.958 is strong evidence, weak or none, depending on what the two say picture by picture.

for differ in (6, 12, 40):
    b, c = (differ + 6) // 2, (differ - 6) // 2
    print(f"1. {differ:2} differ, {b} against {c}: p-value {mcnemar(b, c):.3f}")
assert mcnemar(6, 0) < 0.05
assert 0.05 < mcnemar(9, 3) < 0.2
assert mcnemar(23, 17) > 0.4

# --- 2. The best of fifty -----------------------------------------------------------------------------------------
# The largest of fifty draws lies more than two standard errors above the truth. Chosen on other pictures, it is fair.

on_test = rng.binomial(360, 0.95, (4000, 50)) / 360
on_validation = rng.binomial(144, 0.95, (4000, 50)) / 144
chosen = on_validation.argmax(1)
fair = on_test[np.arange(4000), chosen]
print(f"2. truth 0.950; best on the test set {on_test.max(1).mean():.3f}; chosen on validation {fair.mean():.3f}")
assert on_test.max(1).mean() > 0.95 + 2 * math.sqrt(0.95 * 0.05 / 360)
assert abs(fair.mean() - 0.95) < 0.001
assert on_validation.max(1).mean() > 0.97  # the validation figure of the chosen one is not fair

# --- 3. Bootstrap ---------------------------------------------------------------------------------------------------

differences = np.concatenate([np.ones(13), -np.ones(7), np.zeros(340)])
means = rng.choice(differences, (10_000, 360)).mean(1)
low, high = np.quantile(means, [0.025, 0.975])
d = 6 / 360
s = math.sqrt((20 / 360 - d**2) / 360)
print(f"3. bootstrap {low:.3f} … {high:.3f}, formula {d - 1.96 * s:.3f} … {d + 1.96 * s:.3f}")
assert abs(low - (d - 1.96 * s)) < 0.003
assert abs(high - (d + 1.96 * s)) < 0.003
assert low < 0 < high
