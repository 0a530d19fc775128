"""From pre-activations to gates and candidate, in place: the quickest way on the processor at hand.

σ and tanh are each other, ``σ(a) = ½ tanh(a/2) + ½`` and ``tanh(a) = 2 σ(2a) − 1``; so there are two ways, and a number
of float32 takes (in cache, one core, all passes counted; AVX2 measured as a whole on a Zen 3, AVX-512 the sum of the
calls measured on a Zen 4: tanh 0.37, exp 0.46, an addition or a product 0.13 ns)

====================  =======================  ===================
NumPy's kernels for    one tanh                one exp
====================  =======================  ===================
AVX-512                0.6 ns                  0.7 ns
AVX2                   2.8 ns                  1.7 ns
====================  =======================  ===================

A polynomial or a fraction made of NumPy's own calls is slower than either: tanh to seven digits needs at least eight
coefficients, each costs an addition and a multiplication or division, and such a pass 0.15 ns.

σ(−a) = 1 − σ(a): with the update gate's pre-activation negated, ``1 − u`` comes out, all that is needed of u.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array


class Way(NamedTuple):
    """A way to the gates: what it wants, and what it does."""

    scales: tuple[float, float, float]
    """What the pre-activations of i, u, o are multiplied with beforehand (the weights are: that costs no pass)."""
    apply: Callable[[Array, bool], None]
    """``apply(chunk, tanh_candidate)``: a_i, a_u, a_o, so multiplied, and a_z (4, …) become i, 1 − u, o, z in place;
    and fewer gates without a candidate just so."""


def through_tanh(chunk: Array, tanh_candidate: bool) -> None:
    """One tanh for all: of a/2 for the gates, and of a."""
    squashed = chunk if tanh_candidate else chunk[:3]
    np.tanh(squashed, out=squashed)
    chunk[:3] *= 0.5
    chunk[:3] += 0.5


def through_exp(chunk: Array, tanh_candidate: bool) -> None:
    """One exp for all: of −a for the gates, 1 / (1 + e⁻ᵃ); and of −2a, 2 / (1 + e⁻²ᵃ) − 1.

    Where e⁻ᵃ is too large for its dtype, the gate is 0, as it should be.
    """
    gates, z = chunk[:3], chunk[3:]
    with np.errstate(over="ignore", under="ignore"):
        if tanh_candidate:
            z *= -2
        squashed = chunk if tanh_candidate else gates
        np.exp(squashed, out=squashed)
        squashed += 1
        np.divide(1, gates, out=gates)
        if tanh_candidate:
            np.divide(2, z, out=z)
            z -= 1


TANH_WAY = Way((0.5, -0.5, 0.5), through_tanh)
EXP_WAY = Way((-1.0, 1.0, -1.0), through_exp)


@cache
def way(dtype: Any) -> Way:
    """The quicker way for numbers of this dtype, by the kernels that NumPy has chosen for the processor.

    exp with AVX2, of float32; tanh with anything else: it is much quicker with AVX-512, and as exact as the library for
    small z (the other way's error is one of 1, not of z).
    """
    quick_exp = dtype == np.float32 and is_avx2(kernel("tanh")) and is_avx2(kernel("exp"))
    return EXP_WAY if quick_exp else TANH_WAY


def kernel(function: str) -> str:
    """The instruction set of NumPy's float32 kernel of a function, in NumPy's words; empty where it does not say."""
    introspect = getattr(np.lib, "introspect", None)  # NumPy 2.0 has none
    if introspect is None:
        return ""
    found = introspect.opt_func_info(func_name=f"^{function}$").get(function, {})
    name: str = found.get("ff", {}).get("current", "")
    return name


def is_avx2(kernel: str) -> bool:
    """Whether NumPy means AVX2: older versions say "FMA3 AVX2", newer ones "X86_V3"."""
    return "AVX2" in kernel or "X86_V3" in kernel
