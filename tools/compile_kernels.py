"""Compile every CUDA kernel of the package for real architectures; no GPU is needed.

    python3 -m venv .venv-nvrtc
    .venv-nvrtc/bin/pip install 'cupy-cuda13x==14.2.*' nvidia-cuda-nvrtc nvidia-cuda-runtime
    .venv-nvrtc/bin/python -m tools.compile_kernels

Prints one line per kernel: registers and local memory of a thread. It exits with 1 if a kernel does not compile or
needs local memory (what does not fit into registers goes there, and is slow), with 2 if there is no compiler.
The class that compiles for an architecture that is not there is private to CuPy: hence the pinned version.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator

from stg_np.fast import cuda as kernels

ARCHITECTURES = ("sm_80", "sm_90")
FUNCTION = re.compile(r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame.*?Used (\d+) registers", re.DOTALL)


def compile_variant(variant: kernels.Variant, architecture: str) -> list[tuple[str, int, int]]:
    """Of each kernel its name, the bytes of local memory and the registers of a thread."""
    from cupy.cuda.compiler import _NVRTCProgram

    log = io.StringIO()
    program = _NVRTCProgram(kernels.SOURCE, "kernels.cu", (), (), method="cubin")
    options = (*variant.options, f"-arch={architecture}", "--ptxas-options=-v")
    program.compile(options, log)
    return [(name, int(local), int(used)) for name, local, used in FUNCTION.findall(log.getvalue())]


def table() -> Iterator[tuple[bool, str]]:
    """For each kernel whether it is fit for use, and a line about it."""
    for architecture in ARCHITECTURES:
        for variant in kernels.VARIANTS:
            functions = compile_variant(variant, architecture)
            assert {name for name, _, _ in functions} == {"stm_forward", "stm_backward"}, "the compiler's log changed"
            gates, phi_z = "diagonal" if variant.diagonal else "full", "tanh" if variant.tanh_candidate else "identity"
            for name, local, registers in sorted(functions, reverse=True):
                yield (
                    local == 0,
                    f"{architecture}  {name:12}  {variant.real:6}  {gates:8}  φ_z {phi_z:8}  memory {variant.memory:5}"
                    f"  {registers:3} registers  {local} bytes of local memory",
                )


def main() -> int:
    """Compile, print, and say by the exit code whether all is well."""
    start = time.perf_counter()
    try:
        fit = []
        for good, line in table():
            fit.append(good)
            print(line)
    except ImportError as error:
        print(f"no kernel was compiled: {error} (install the packages that this file names)", file=sys.stderr)
        return 2
    except Exception as error:  # the compiler's own, whose type cannot be named where CuPy is not installed
        print(f"a kernel does not compile: {error}", file=sys.stderr)
        return 1
    print(f"{len(fit)} kernels compiled in {time.perf_counter() - start:.1f} s, {fit.count(False)} with local memory")
    return 0 if all(fit) else 1


if __name__ == "__main__":
    sys.exit(main())
