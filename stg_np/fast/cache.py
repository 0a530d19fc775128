"""How much a core of this machine keeps close: the measure for the chunks of the fast path.

A chunk that fits is read again from the second-level cache; a larger one comes from far away, a smaller one makes the
calls so short that their own cost counts.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

LINUX = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux describes the caches of the first core."""

MACOS = "hw.perflevel0.l2cachesize", "hw.l2cachesize"
"""What macOS calls the size: of the quick cores, and of all cores of older machines."""

USUAL, LEAST, MOST = 1 << 19, 1 << 18, 1 << 21
"""Bytes where the system does not say; and the bounds for what it says: some count a cache of many cores."""


@cache
def l2_bytes() -> int:
    """Bytes of the second-level cache of a core, between :data:`LEAST` and :data:`MOST`.

    Asked of the system once; :data:`USUAL` where it does not say.
    """
    told = told_by_macos() if sys.platform == "darwin" else told_by_linux(level=2)
    return USUAL if told is None else min(max(told, LEAST), MOST)


def told_by_linux(level: int) -> int | None:
    """What the folder of the first core says; None where there is no such folder, or it does not say."""
    try:
        for index in sorted(LINUX.glob("index*")):
            if (index / "level").read_text(encoding="ascii").strip() == str(level):
                return parsed((index / "size").read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        pass
    return None


def told_by_macos() -> int | None:
    """What ``sysctl`` says; None where it knows neither name."""
    for name in MACOS:
        try:
            answer = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        if (size := parsed(answer.stdout)) is not None:
            return size
    return None


def parsed(size: str) -> int | None:
    """Bytes of a size as the systems write it: ``512K``, ``2M``, ``4194304``; None of anything else, and of nothing."""
    found = re.fullmatch(r"(\d+)([KM]?)", size.strip())
    if found is None or int(found[1]) == 0:
        return None
    return int(found[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[found[2]]
