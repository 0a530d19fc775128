"""What a model is made of, and what this machine offers: the texts of ``stg-np summary`` and ``stg-np info``."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

import stg_np
from stg_np.backend import Array, devices, to_host
from stg_np.data import cifar10, digits, fashion_mnist
from stg_np.models.stg import STG, layer_name
from stg_np.params import Params

DATASETS = {info.name: info for info in (digits.INFO, fashion_mnist.INFO, cifar10.INFO)}
"""What is known of each data set before any file is read."""

MEMORY_PRODUCTS = 3
"""Multiplications per memory cell and step: i ⊙ z, u ⊙ (v − m), o ⊙ φ(m)."""

PACKAGES = ("numpy", "matplotlib", "pillow", "tqdm", "threadpoolctl", "pooch", "tomli-w")


class Row(NamedTuple):
    """One layer: the shape of its output for one picture, parameters, multiply-adds, and time scales in steps."""

    layer: str
    shape: tuple[int, ...]
    parameters: int = 0
    multiply_adds: int = 0
    time_scales: str = ""


def layer_rows(model: STG, params: Params) -> list[Row]:
    """The layers of an STG, from the input to the logits; multiply-adds are per picture, in the forward pass."""
    T, D = prod(model.grid), model.features
    rows = [Row("input", model.input_shape), Row(f"as {model.view}" if model.is_picture else "steps", (T, D))]
    for layer in range(model.layers):
        names = [layer_name(layer, direction) for direction in model.directions]
        entries = [e for e in params.layout.entries if e.name.rpartition(".")[0] in names]
        products = T * sum(prod(e.shape) for e in entries if not e.name.endswith(".b"))
        memory = T * MEMORY_PRODUCTS * model.memory_width * len(names)
        scales = np.concatenate([time_scales(params[f"{name}.b"]) for name in names])
        text = f"{scales.min():.1f} … {np.median(scales):.1f} … {scales.max():.1f}"
        size = sum(prod(e.shape) for e in entries)
        rows.append(Row(f"stm{layer + 1}", (T, model.width), size, products + memory, text))
    rows.append(Row(f"{model.pool} of the steps", (model.width,)))
    head = params["head.W"].size
    rows.append(Row("head", (model.classes,), head + model.classes, head))
    return rows


def time_scales(b: Array) -> Array:
    """τ = 1/u = 1 + e^(−b_u), in steps, of memory cells whose gates have the biases b = [b_i | b_u | b_o | b_z]."""
    b_u = to_host(b).astype(np.float64).reshape(4, -1)[1]
    scales: Array = 1 + np.exp(-b_u)
    return scales


def summary_text(model: STG, params: Params) -> str:
    """A table of the layers, and what its columns count."""
    rows = layer_rows(model, params)
    cells = [("layer", "output", "parameters", "multiply-adds", "time scales")]
    cells += [
        (row.layer, "×".join(map(str, row.shape)), f"{row.parameters:,}", f"{row.multiply_adds:,}", row.time_scales)
        for row in rows
    ]
    total_size, total_work = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    cells.append(("total", "", f"{total_size:,}", f"{total_work:,}", ""))
    gates = f"{'diagonal' if model.diagonal else 'full'} gates, {'recurrent' if model.recurrent else 'input-only'} form"
    directions = "both directions" if model.bidirectional else "one direction"
    turned = ", every second layer column by column" if model.alternate else ""
    return "\n".join([
        f"STG: {model.layers} STM layers, {gates}, {directions}{turned}",
        *aligned(cells),
        "multiply-adds: of one picture, forward; a training step costs about three times as much",
        "time scales: shortest … median … longest memory of a layer, in steps, by the biases of its update gates",
    ])  # fmt: skip


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
