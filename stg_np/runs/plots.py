"""Pictures of a run, as PNG bytes: learning curves and the confusion matrix.

Figures are objects here; nothing touches matplotlib's global state (pyplot) or needs a screen.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stg_np.backend import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120

MOST_NAMED = 60
"""Classes whose names and counts are written: with a thousand, the picture of them would need gigabytes."""

AS_IT_IS: dict[str, Any] = {"parse_math": False}
"""Names of others may hold dollar signs, between which matplotlib would look for formulas."""


def curves_png(metrics: Sequence[Mapping[str, Any]], title: str, label_smoothing: float = 0.0) -> bytes:
    """Loss (nats) and accuracy over the epochs; ``metrics`` are the lines of ``metrics.jsonl``.

    ``label_smoothing``: of the loss in training; that on the held-out pictures is without. A legend says so, for the
    two curves are not of one measure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [line for line in metrics if line["kind"] == "epoch"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, **AS_IT_IS)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        smoothed = name == "loss" and label_smoothing > 0
        training = f"training (augmented{f', label smoothing {label_smoothing:g}' if smoothed else ''})"
        validation = f"validation{' (no label smoothing)' if smoothed else ''}"
        for key, label, marker in ((name, training, "s"), (f"validation_{name}", validation, "o")):
            points = [(line["epoch"], line[key]) for line in epochs if line[key] is not None]
            if points:  # with markers: a single epoch has no line
                axes.plot(*zip(*points), marker=marker, label=label, markersize=6 if len(points) == 1 else 3)
        axes.set(xlabel="epoch", ylabel="loss (nats)" if name == "loss" else name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if epochs:
            axes.set_xlim(0.5, epochs[-1]["epoch"] + 0.5)
            axes.legend(loc="upper right" if name == "loss" else "lower right")  # to look for the best place takes time
    return png(figure)


def confusion_png(confusion: Array, classes: Sequence[str], title: str) -> bytes:
    """The confusion matrix (C, C): counts in the cells, coloured by the share of the row's (true) class.

    Of more than :data:`MOST_NAMED` classes there are colours alone, in a picture that grows no more.
    """
    from matplotlib.figure import Figure

    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    readable = len(classes) <= MOST_NAMED
    side = 2.5 + 0.5 * min(len(classes), MOST_NAMED)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    for (row, column), count in np.ndenumerate(confusion) if readable else ():
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    if readable:
        axes.set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0, **AS_IT_IS)
        axes.set_yticks(range(len(classes)), classes, **AS_IT_IS)
    axes.set(xlabel="class that the model says", ylabel="true class")
    axes.set_title(title, **AS_IT_IS)
    return png(figure)


def png(figure: Figure, maker: str | None = None) -> bytes:
    """The figure as the bytes of a PNG file; ``maker``: what is written into it as the program that drew it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    metadata = {} if maker is None else {"Software": maker}
    FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=DPI, metadata=metadata)
    return buffer.getvalue()
