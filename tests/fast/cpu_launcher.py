"""The CUDA kernels on the CPU.

A kernel is a C++ function of three integers (block, thread, threads per block) and its arguments. With a few lines of
preamble a C++ compiler takes the very same source, and a loop over all threads does what a GPU would do: so indices,
signs and sums are tested on every machine. Not tested without a GPU: the launch itself, and speed.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stg_np.backend import Array
from stg_np.fast import cuda as kernels

COMPILER = shutil.which("g++") or shutil.which("clang++")
NO_COMPILER = "there is no C++ compiler (g++ or clang++) to run the kernels on the CPU with"
PREAMBLE = """
extern "C" double tanh(double);
extern "C" float tanhf(float);
static inline float tanh(float a) { return tanhf(a); }
#define __global__
#define __device__
struct Index3 { unsigned x; };
static Index3 blockIdx, threadIdx, blockDim;
extern "C" void place(unsigned block, unsigned thread, unsigned threads) {
    blockIdx.x = block, threadIdx.x = thread, blockDim.x = threads;
}
"""
FENCE, UNTOUCHED = 512, -777.0


class CPULauncher:
    """Takes the place of ``kernels.launch``: the same source, on the CPU, its threads one by one in random order."""

    def __init__(self, folder: Path, source: str = kernels.SOURCE) -> None:
        self.folder, self.source, self.rng = folder, source, np.random.default_rng(0)
        self.libraries: dict[kernels.Variant, ctypes.CDLL] = {}
        self.bytes_moved: dict[str, int] = {}

    @classmethod
    def mistaken(cls, right: str, wrong: str, folder: Path) -> CPULauncher:
        """One whose source has a planted mistake."""
        assert kernels.SOURCE.count(right) >= 1
        return cls(folder, kernels.SOURCE.replace(right, wrong))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(kernels, "available", lambda xp: True)
        patch.setattr(kernels, "launch", self)

    def __call__(
        self,
        name: str,
        variant: kernels.Variant,
        inputs: tuple[Any, ...],
        outputs: tuple[Any, ...],
        walk: kernels.Walk,
    ) -> None:
        hosts = [getattr(array, "_host", array) for array in (*inputs, *outputs)]  # what a stand-in holds
        assert all(array.flags.c_contiguous for array in hosts)
        assert {array.dtype for array in hosts} == {np.dtype({"float": "f4", "double": "f8"}[variant.real])}
        self.bytes_moved[name] = sum(array.nbytes for array in {id(array): array for array in hosts}.values())
        read, written = hosts[: len(inputs)], hosts[len(inputs) :]
        # beyond an input there is NaN, which spoils whatever it is read into; beyond an output nothing may change
        fenced = [self.fence(array, np.nan) for array in read] + [
            self.fence(np.full_like(array, np.nan), UNTOUCHED) for array in written
        ]
        before = [array.copy() for array in fenced[: len(inputs)]]
        self.run(getattr(self.library(variant), name), fenced, walk)
        for array, same in zip(fenced, before):
            np.testing.assert_array_equal(array, same)
        for array, result in zip(written, fenced[len(inputs) :]):
            beyond = np.concatenate([result[:FENCE], result[FENCE + array.size :]])
            assert (beyond == UNTOUCHED).all()
            array[...] = result[FENCE : FENCE + array.size].reshape(array.shape)

    @staticmethod
    def fence(array: Array, value: float) -> Array:
        beyond = np.full(FENCE, value, array.dtype)
        return np.concatenate([beyond, array.reshape(-1), beyond])

    def run(self, kernel: Any, arrays: list[Array], walk: kernels.Walk) -> None:
        place = kernel.library.place
        pointers = [ctypes.c_void_p(array[FENCE:].ctypes.data) for array in arrays]
        arguments = (*pointers, *map(ctypes.c_longlong, walk))
        for place_in_grid in self.rng.permutation(-(-walk.cells // kernels.THREADS) * kernels.THREADS):
            place(*divmod(int(place_in_grid), kernels.THREADS), kernels.THREADS)
            kernel(*arguments)

    def library(self, variant: kernels.Variant) -> Any:
        if variant not in self.libraries:
            assert COMPILER is not None
            stem = self.folder / "-".join(map(str, variant))
            stem.with_suffix(".cpp").write_text(PREAMBLE + self.source, encoding="utf-8")
            warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-parameter")
            options = (*variant.options, *warnings, "-O0", "-fPIC", "-shared", "-o", f"{stem}.so")
            subprocess.run([COMPILER, *options, f"{stem}.cpp"], check=True)
            library = ctypes.CDLL(f"{stem}.so")
            for name in ("stm_forward", "stm_backward"):
                getattr(library, name).library = library
            self.libraries[variant] = library
        return self.libraries[variant]
