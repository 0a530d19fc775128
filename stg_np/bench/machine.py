"""What a result was measured on: processor, caches, and the kernels that NumPy and BLAS chose for them.

Nothing here names a computer, a user or a folder, so the facts may stand in a file that is published.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

import stg_np
from stg_np.engine import available_cores

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux describes the caches of the first core."""


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
    """The sizes of L2 and L3, as Linux tells them."""
    sizes = {}
    for folder in sorted(CACHES.glob("index*")):
        try:
            level, size = ((folder / name).read_text(encoding="ascii").strip() for name in ("level", "size"))
        except OSError:
            continue
        sizes[f"L{level}"] = readable_size(size)
    return ", ".join(f"{level} {sizes[level]}" for level in ("L2", "L3") if level in sizes) or "unknown"


def readable_size(size: str) -> str:
    """``512K`` as ``512 KiB``, and ``32768K`` as ``32 MiB``."""
    kibibytes = int(size.removesuffix("K")) if size.endswith("K") else 0
    if not kibibytes:
        return size
    return f"{kibibytes // 1024} MiB" if kibibytes % 1024 == 0 else f"{kibibytes} KiB"


def numpy_kernels() -> str:
    """The instruction set for which NumPy has compiled the tanh and the exp that it uses here."""
    introspect = getattr(np.lib, "introspect", None)  # from NumPy 2.1 on
    if introspect is None:
        return "unknown to this version of NumPy"
    found = introspect.opt_func_info(func_name="^(tanh|exp)$")
    kernels = {name: found.get(name, {}).get("ff", {}).get("current", "unknown") for name in ("tanh", "exp")}
    return ", ".join(f"{name} {kernel}" for name, kernel in kernels.items())


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
    return "; ".join(found or ["unknown"]) + (f" (OPENBLAS_CORETYPE={asked})" if asked else "")
