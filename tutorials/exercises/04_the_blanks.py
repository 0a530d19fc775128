"""Exercise 1 of chapter 4: the backward of an STM step, with blanks to fill.

Replace each ``None`` by an expression, and run this file: it says line by line what is right. What you may use are the
arguments of the function and NumPy as ``np``. (What earlier lines should have given is given, so that one mistake does
not spoil the next line.) All have the shape (B, H), or (B, 4H) for a and da, unless it is said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stg_np.backend import Array

Blank = Callable[..., Array | None]


# --- line 5: y = o ⊙ φ(m), with φ = tanh and read = φ(m) ----------------------------------------------------------


def do(dy: Array, o: Array, read: Array) -> Array | None:
    return None  # what reaches the output gate


def dm_from_y(dy: Array, o: Array, read: Array) -> Array | None:
    return None  # what reaches the memory from its output, through tanh


# --- line 4: m = (1 − u) ⊙ before + u ⊙ v; dm is the whole gradient of m ------------------------------------------


def du(dm: Array, u: Array, v: Array, before: Array) -> Array | None:
    return None


def dv(dm: Array, u: Array, v: Array, before: Array) -> Array | None:
    return None


def dbefore(dm: Array, u: Array, v: Array, before: Array) -> Array | None:
    return None


# --- line 3: v = i ⊙ z ---------------------------------------------------------------------------------------------


def di(dv: Array, i: Array, z: Array) -> Array | None:
    return None


def dz(dv: Array, i: Array, z: Array) -> Array | None:
    return None


# --- line 2: i = σ(a_i) and z = tanh(a_z); u and o go as i does -----------------------------------------------------


def da_i(di: Array, i: Array) -> Array | None:
    return None


def da_z(dz: Array, z: Array) -> Array | None:
    return None


# --- line 1: a = x W + b + before R; x is (B, D), W (D, 4H), R (H, 4H) ----------------------------------------------


def dx(da: Array, W: Array) -> Array | None:
    return None  # (B, D)


def dW(da: Array, x: Array) -> Array | None:
    return None  # (D, 4H)


def db(da: Array) -> Array | None:
    return None  # (4H,)


def dbefore_through_R(da: Array, R: Array) -> Array | None:
    return None


def dR(da: Array, before: Array) -> Array | None:
    return None  # (H, 4H)


# --- the judge ------------------------------------------------------------------------------------------------------


def verdicts(blanks: dict[str, Blank]) -> dict[str, str]:
    """For each blank "right", "wrong" or "not yet"; the judge is the package."""
    from stg_np.ops.activations import TANH
    from stg_np.stm import STMParams, gates_backward, update_backward
    from stg_np.stm_recurrent import step_backward, step_forward

    rng = np.random.default_rng(0)
    B, D, H = 3, 4, 2
    W, R, b = rng.standard_normal((D, 4 * H)), rng.standard_normal((H, 4 * H)), rng.standard_normal(4 * H)
    x, before = rng.standard_normal((B, D)), rng.standard_normal((B, H))
    params = STMParams(W, b, R)
    _, cache = step_forward(x @ W + before @ R, before, params, phi=TANH)
    (i, u, o, z), v, read = cache.gates, cache.v, cache.read
    dy, after = rng.standard_normal((2, B, H))
    dm = TANH.backward(dy * o, cache.m, read) + after
    du, dv, dbefore = update_backward(dm, u, v, before)
    da, _, db, _ = step_backward(dy, after, cache, params)
    only_i = gates_backward(cache.gates._replace(i=dv * z, u=0 * u, o=0 * o, z=0 * z), cache.gates, cache.a, TANH)

    cases: dict[str, tuple[tuple[Array, ...], Array]] = {
        "do": ((dy, o, read), dy * read),
        "dm_from_y": ((dy, o, read), dm - after),
        "du": ((dm, u, v, before), du),
        "dv": ((dm, u, v, before), dv),
        "dbefore": ((dm, u, v, before), dbefore),
        "di": ((dv, i, z), dv * z),
        "dz": ((dv, i, z), dv * i),
        "da_i": ((dv * z, i), only_i[:, :H]),
        "da_z": ((dv * i, z), da[:, 3 * H :]),
        "dx": ((da, W), da @ W.T),
        "dW": ((da, x), x.T @ da),
        "db": ((da,), db),
        "dbefore_through_R": ((da, R), da @ R.T),
        "dR": ((da, before), before.T @ da),
    }
    found = {}
    for name, (arguments, right) in cases.items():
        answer = blanks[name](*arguments)
        if answer is None:
            found[name] = "not yet"
        elif np.shape(answer) != right.shape:
            found[name] = f"wrong: its shape is {np.shape(answer)}, not {right.shape}"
        else:
            found[name] = "right" if abs(answer - right).max() <= 1e-12 else "wrong"
    return found


if __name__ == "__main__":
    for name, verdict in verdicts({name: blank for name, blank in globals().items() if callable(blank)}).items():
        print(f"{name:18} {verdict}")
