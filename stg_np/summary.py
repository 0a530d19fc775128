"""What a model is made of, and what this machine offers: the texts of ``stg-np summary`` and ``stg-np info``."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from math import prod

import stg_np
from stg_np.backend import devices
from stg_np.models.base import Model, Part
from stg_np.params import Params

PACKAGES = ("numpy", "matplotlib", "pillow", "tqdm", "threadpoolctl", "pooch", "tomli-w", "msgspec", "filelock")


def sizes(params: Params, parts: Sequence[Part]) -> list[int]:
    """How many parameters each part of a model has."""
    return [
        sum(prod(entry.shape) for entry in params.layout.entries if entry.name.startswith(f"{part.name}."))
        for part in parts
    ]


def summary_text(model: Model, params: Params) -> str:
    """A table of a model's parts, and what its columns count; the last column only where a part has a memory."""
    parts = model.parts(params)
    own = sizes(params, parts)
    rows = [("layer", "output", "parameters", "multiply-adds", "time scales")]
    rows += [
        (part.name, "×".join(map(str, part.shape)), f"{size:,}", f"{part.multiply_adds:,}", part.note)
        for part, size in zip(parts, own)
    ]
    rows.append(("total", "", f"{sum(own):,}", f"{sum(part.multiply_adds for part in parts):,}", ""))
    has_memory = any(part.note for part in parts)
    lines = [
        str(model),
        *aligned(rows if has_memory else [row[:-1] for row in rows]),
        "multiply-adds: of one picture, forward; a training step costs about three times as much",
    ]
    if has_memory:
        about = "shortest … median … longest memory of a layer, in steps, by the biases of its update gates"
        lines.append(f"time scales: {about}")
    return "\n".join(lines)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows of a table as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in rows
    ]


def info_text() -> str:
    """Versions, BLAS, threads and devices: what belongs into a report of a problem."""
    from stg_np.data import data_home
    from stg_np.engine import available_cores
    from stg_np.machine import describe

    lines = [
        f"stg_np {stg_np.__version__}, Python {platform.python_version()}, {platform.platform()}",
        ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        *(f"{name}: {fact}" for name, fact in describe().items() if name != "versions"),
        f"workers by default: {available_cores()}, one per core for this process; BLAS gets one thread in each",
        *(f"device {name}: {status}" for name, status in devices().items()),
        f"data: {data_home()} (STG_NP_DATA names another folder)",
    ]
    return "\n".join(lines)


def version(package: str) -> str:
    """The version of an installed distribution, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
