"""Who is timed: this package, and the peers that a user would take instead."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from stg_np.backend import Array
from stg_np.bench.cases import Case

OURS = "stg_np"
"""The name of this package among the subjects."""


class Setup(NamedTuple):
    """Which subject, and on how many threads: ``workers`` Python threads with ``blas_threads`` of BLAS in each."""

    name: str
    workers: int
    blas_threads: int = 1

    @property
    def threads(self) -> int:
        """All of them; a peer gets as many threads of its own."""
        return self.workers * self.blas_threads


class Subject(NamedTuple):
    """A case, ready to be timed.

    ``run()`` does the work once and waits for it; ``results`` turns what it returned into arrays by name; ``close``
    lets go of threads; ``timed`` says which function of this package runs.
    """

    run: Callable[[], Any]
    results: Callable[[Any], dict[str, Array]]
    close: Callable[[], None] = lambda: None
    timed: str = ""


class Entry(NamedTuple):
    """How a subject is called in tables, which package it needs, and who builds it for each kind of case.

    ``builders``: module:function in :mod:`stg_np.bench`, called with the case and the :class:`Setup`.
    ``same``: it computes the same numbers as this package, which is checked before it is timed.
    ``unrolled``: it compiles one copy of the step per step, which takes minutes where there are many.
    """

    about: str
    package: str
    builders: dict[str, str]
    same: bool = True
    unrolled: bool = False


SUBJECTS = {
    OURS: Entry(
        "stg_np", "numpy", {"layer": "ours:layer", "step": "ours:step", "image": "ours:step", "conv": "ours:conv"}
    ),
    "columns": Entry("stg_np by columns (im2col)", "numpy", {"conv": "ours:conv_by_columns"}),
    "torch-lstm": Entry("torch.nn.LSTM", "torch", {"layer": "with_torch:lstm"}, same=False),
    "torch-gru": Entry("torch.nn.GRU", "torch", {"layer": "with_torch:gru"}, same=False),
    "torch-eager": Entry(
        "the same in eager PyTorch",
        "torch",
        {"layer": "with_torch:layer", "step": "with_torch:step", "image": "with_torch_maps:step"},
    ),
    "torch-cnn": Entry(
        "airbench94's plain CNN in eager PyTorch", "torch", {"image": "with_torch_maps:plain_cnn"}, same=False
    ),
    "torch-compile": Entry("the same in torch.compile", "torch", {"layer": "with_torch:compiled"}, unrolled=True),
    "torch-compile-16": Entry(
        "the same in torch.compile, 16 steps at a time", "torch", {"layer": "with_torch:compiled_chunks"}
    ),
    "torch-conv2d": Entry("torch.nn.functional.conv2d", "torch", {"conv": "with_torch:conv"}),
    "jax-scan": Entry("the same in jax.jit, lax.scan", "jax", {"layer": "with_jax:scan"}),
    "jax-associative": Entry("the same in jax.jit, lax.associative_scan", "jax", {"layer": "with_jax:associative"}),
}
PEERS = tuple(name for name in SUBJECTS if name != OURS)


def build(setup: Setup, case: Case) -> Subject:
    """The subject, ready to run the case.

    Raises:
        ImportError: if its package is not installed.
        KeyError: if there is no such subject, or it cannot be measured on such a case.
    """
    module, function = SUBJECTS[setup.name].builders[case.kind].split(":")
    subject: Subject = getattr(import_module(f"stg_np.bench.{module}"), function)(case, setup)
    return subject


def installed(name: str) -> bool:
    """Whether a subject's package can be found (it is not imported here)."""
    return importlib.util.find_spec(SUBJECTS[name].package) is not None


def facts_of(package: str) -> dict[str, str]:
    """Versions and kernels of a peer's package, which is imported for it."""
    facts: dict[str, str] = import_module(f"stg_np.bench.with_{package}").facts()
    return facts
