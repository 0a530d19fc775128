"""What this machine is to a program that computes: processor, caches, and the kernels of NumPy and BLAS for them.

Nothing here names a computer, a user or a folder, so the facts may stand in a file that is published.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

import stg_np
from stg_np.engine import available_cores
from stg_np.fast.cache import told_by_linux, told_by_macos
from stg_np.fast.squash import kernel, way


def describe() -> dict[str, str]:
    """The facts by name, as they stand at the head of every result file."""
    return {
        "processor": f"{processor()}, {platform.machine()}, {available_cores()} cores",
        "caches": caches(),
        "NumPy's float32 kernels": numpy_kernels(),
        "BLAS of NumPy": blas(),
        "versions": f"stg_np {stg_np.__version__}, NumPy {np.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}",
    }


def processor() -> str:
    """The name of the processor, with its family and model where Linux says them (clouds shorten the name)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", "unknown")
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name


def caches() -> str:
    """The sizes of L2 and L3, as far as the system tells them."""
    on_macos = platform.system() == "Darwin"
    sizes = {"L2": told_by_macos() if on_macos else told_by_linux(2), "L3": None if on_macos else told_by_linux(3)}
    return ", ".join(f"{name} {readable(size)}" for name, size in sizes.items() if size is not None) or "unknown"


def readable(size: int) -> str:
    """Bytes as ``512 KiB`` or ``32 MiB``."""
    return f"{size >> 20} MiB" if size % (1 << 20) == 0 else f"{size / 1024:.0f} KiB"


def numpy_kernels() -> str:
    """The instruction set of NumPy's float32 tanh and exp here, and through which of them the gates go."""
    kernels = [f"{name} {kernel(name) or 'unknown'}" for name in ("tanh", "exp")]
    return f"{', '.join(kernels)}; gates {way(np.dtype(np.float32)).apply.__name__.replace('_', ' ')}"


def blas() -> str:
    """The BLAS that NumPy has loaded, with its kernel; and the kernel that the environment asks for."""
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))  # some load BLAS at the first product
    found = [
        f"{entry['internal_api']} {entry['version']}, kernels for {entry.get('architecture', 'an unknown processor')}"
        for entry in threadpool_info()
        if entry["user_api"] == "blas"
    ]
    asked = os.environ.get("OPENBLAS_CORETYPE")
    unknown = "unknown to threadpoolctl: its threads cannot be limited, so set its own environment variable"
    return "; ".join(found or [unknown]) + (f" (OPENBLAS_CORETYPE={asked})" if asked else "")
