"""A picture of what the gates and the memory of an STG did with a photograph, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.explain import GATES, MEMORY, Explanation, LayerSeen, Track, longest
from stg_np.foreign import showable
from stg_np.runs.plots import png
from stg_np.runs.sheet import MAKER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEST = 5
"""Classes that are named."""

INK, FAINT, ANSWER = "#222222", "#767676", "#333333"
COLOURS = {GATES[0]: "#1f77b4", GATES[1]: "#e08214", GATES[2]: "#2a9d5c", MEMORY: "#8e44ad"}
"""One for each gate and one for the memory, in every part of the picture."""
SIGNS = dict(zip((*GATES, MEMORY), ("i ≡ 1", "u ≡ 1", "o ≡ 1", "m = u ⊙ v")))
"""What it means, in the formulas, that one of them is taken away."""

PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
"""Behind a number that stands on a line."""

FEW = 2_000
"""Steps of a memory that are drawn as bars, each by itself."""

LEAST_RANGE = 0.1
"""A map whose values differ by less is not stretched to all colours, or noise would look like a finding."""

WIDTH, MARGIN = 14.0, 0.45
"""Inches, as all lengths here."""
MAP, ROW, TRACK = 1.08, 1.5, 1.72
"""The side of a gate's map, the height of a layer's row of them, and of its row of memories."""
TOP = 4.35
"""The height of the answers."""


class Shown(NamedTuple):
    """The photograph: what is drawn, uint8 (height, width, 1 or 3), in a range to 255; what the network got; its name.

    ``about``: the model and its data in one line.
    """

    photograph: Array
    seen: Array
    name: str
    about: str


class Page(NamedTuple):
    """A figure with places given in inches from its upper left corner."""

    figure: Figure
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place."""
        place = left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height
        axes: Axes = self.figure.add_axes(place)
        axes.tick_params(labelsize=8, colors=FAINT, length=2)
        for side in axes.spines.values():
            side.set(color="#bbbbbb", linewidth=0.6)
        return axes

    def text(self, left: float, top: float, text: str, size: float = 9, **style: Any) -> None:
        """Text whose upper left corner is at a place."""
        usual: dict[str, Any] = {"color": INK, "parse_math": False, "ha": "left", "va": "top", "linespacing": 1.35}
        self.figure.text(left / WIDTH, 1 - top / self.height, text, fontsize=size, **usual | style)

    def heading(self, top: float, title: str, explanation: str) -> None:
        """A section begins."""
        self.text(MARGIN, top, title, 13, weight="bold")
        self.text(MARGIN, top + 0.3, explanation, 9, color=FAINT)


def explanation_png(explained: Explanation, shown: Shown, classes: Sequence[str]) -> bytes:
    """The picture, as the bytes of a PNG file; ``classes`` are the names of the C classes."""
    from matplotlib.figure import Figure

    layers, sweeping = explained.layers, [layer for layer in explained.layers if layer.ways]
    gates_at = TOP
    memories_at = gates_at + 1.25 + len(layers) * ROW + 0.15
    height = memories_at + (0.85 + len(sweeping) * TRACK if sweeping else 0) + 0.25
    page = Page(Figure(figsize=(WIDTH, height), facecolor="white"), height)
    names = [showable(name, 24) for name in classes]
    draw_answer(page, explained, shown, names)
    draw_gates(page, gates_at, explained, shown)
    if sweeping:
        draw_memories(page, memories_at, sweeping, shown)
    return png(page.figure, MAKER)


# --- the answer -----------------------------------------------------------------------------------------------


def draw_answer(page: Page, explained: Explanation, shown: Shown, names: Sequence[str]) -> None:
    """The photograph, the likeliest classes, and what they would be without each gate."""
    said = int(explained.probabilities.argmax())
    page.text(MARGIN, 0.35, f"{shown.name}: {names[said]}, {explained.probabilities[said]:.1%}", 17, weight="bold")
    page.text(MARGIN, 0.72, shown.about, 9, color=FAINT)
    photograph(page.axes(MARGIN, 1.2, 2.6, 2.6), shown.photograph)
    height, width = shown.seen.shape[:2]
    photograph(page.axes(MARGIN + 2.75, 2.5, 1.3, 1.3), shown.seen)
    page.text(MARGIN + 2.75, 2.1, f"what the network\ngets: {height}×{width} pixels", 8, color=FAINT)

    page.text(6.2, 1.05, f"the likeliest {min(BEST, len(names))} classes", 11, weight="bold")
    order = np.argsort(-explained.probabilities, kind="stable")[:BEST]
    bars(page.axes(6.2, 1.4, 2.3, 2.4), [(names[k], float(explained.probabilities[k]), ANSWER) for k in order])

    page.text(9.15, 1.05, "how probable the same answer is without …", 11, weight="bold")
    rows = [("all there", float(explained.probabilities[said]), ANSWER)]
    rows += [(f"{what}\n{SIGNS[what]}", float(of[said]), COLOURS[what]) for what, of in explained.without.items()]
    axes = page.axes(10.2, 1.4, 2.3, 2.4)
    bars(axes, rows, [says(of, said, names) for of in (explained.probabilities, *explained.without.values())])
    axes.axvline(rows[0][1], color=ANSWER, linewidth=0.8, linestyle=(0, (3, 3)))


def says(probabilities: Array, said: int, names: Sequence[str]) -> str:
    """What follows the probability of the answer: what is said instead."""
    instead = int(probabilities.argmax())
    return "" if instead == said else f", says {names[instead]} ({probabilities[instead]:.0%})"


def bars(axes: Axes, rows: Sequence[tuple[str, float, str]], notes: Sequence[str] | None = None) -> None:
    """Horizontal bars from 0 to 1: (name, value, colour) each, its value behind it, and a note."""
    for place, (_, value, colour) in enumerate(rows):
        axes.barh(place, value, height=0.62, color=colour)
        text = f"{value:.1%}{notes[place] if notes else ''}"
        axes.text(value + 0.02, place, text, va="center", fontsize=9, color=INK, bbox=PAPER, parse_math=False)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=9, color=INK, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=())
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


# --- the gates ------------------------------------------------------------------------------------------------

LABEL_AT, MAPS_AT, OPEN_AT, WITHOUT_AT = MARGIN, 2.0, 9.55, 12.0


def draw_gates(page: Page, top: float, explained: Explanation, shown: Shown) -> None:
    """A row for each layer: the three gates over the photograph, how open they are, the answer without each."""
    page.heading(
        top, "The gates, layer by layer",
        "Every pixel and memory cell has three gates between 0 (closed) and 1 (open). Yellow: the most open pixels of "
        "a map, dark blue: the most closed; the numbers below a map are its range.",
    )  # fmt: skip
    for number, gate in enumerate(GATES):
        left, style = MAPS_AT + 2.4 * number, {"color": COLOURS[gate], "weight": "bold"}
        page.text(left, top + 0.72, f"{gate} {'iuo'[number]}", 10, **style)
        page.text(left, top + 0.94, "mean of all cells", 8, color=FAINT)
        page.text(left + 1.18, top + 0.94, "the most varied cell", 8, color=FAINT)
    page.text(OPEN_AT, top + 0.72, "how open they are", 10, weight="bold")
    page.text(OPEN_AT, top + 0.94, "all pixels and cells, 0 … 1", 8, color=FAINT)
    page.text(WITHOUT_AT, top + 0.72, "the answer without", 10, weight="bold")
    page.text(WITHOUT_AT, top + 0.94, "in this layer only", 8, color=FAINT)
    grey = shown.photograph.mean(-1, keepdims=True)
    for number, layer in enumerate(explained.layers):
        draw_layer(page, top + 1.2 + number * ROW, layer, explained, grey)


def draw_layer(page: Page, top: float, layer: LayerSeen, explained: Explanation, grey: Array) -> None:
    """The gates of one layer."""
    height, width, H = layer.gates.i.shape
    lasts = "kept from step to step" if layer.ways else "no sweep: a memory\nlasts for one step"
    page.text(LABEL_AT, top + 0.08, layer.name, 12, weight="bold")
    page.text(LABEL_AT, top + 0.36, f"{height}×{width} pixels\n{H} cells", 8, color=FAINT)
    page.text(LABEL_AT, top + 0.7, f"mean(1 − u) = {layer.kept:.3f}\n{lasts}", 8, color=COLOURS[MEMORY])
    for number, gate in enumerate(layer.gates[:3]):
        left = MAPS_AT + 2.4 * number
        cell = int(gate.std((0, 1)).argmax())
        for place, values in ((left, gate.mean(-1)), (left + 1.18, gate[..., cell])):
            over(page.axes(place, top, MAP, MAP), grey, values)
            page.text(place + MAP / 2, top + MAP + 0.04, in_words(values), 7.5, ha="center", color=FAINT)
    histogram(page.axes(OPEN_AT, top, 2.0, MAP), layer)
    said = int(explained.probabilities.argmax())
    without(page.axes(WITHOUT_AT, top, 1.55, MAP), explained.without_in[layer.name], said, explained)


def in_words(values: Array) -> str:
    """The range of a map."""
    return f"{values.min():.2f} … {values.max():.2f}"


def histogram(axes: Axes, layer: LayerSeen) -> None:
    """How the values of the three gates are distributed; each curve is as high as the others."""
    edges = np.linspace(0, 1, 41)
    for gate, values in zip(GATES, layer.gates):
        counts = np.histogram(values, edges)[0]
        axes.stairs(counts / counts.max(), edges, color=COLOURS[gate], linewidth=1.2)
        axes.stairs(counts / counts.max(), edges, color=COLOURS[gate], alpha=0.15, fill=True)
    axes.set(xlim=(0, 1), ylim=(0, 1.08), yticks=(), xticks=(0, 0.5, 1))
    axes.spines[["top", "right", "left"]].set_visible(False)


def without(axes: Axes, answers: dict[str, Array], said: int, explained: Explanation) -> None:
    """The probability of the answer without each gate of one layer, beside what it is."""
    for place, (what, of) in enumerate(answers.items()):
        axes.barh(place, of[said], height=0.66, color=COLOURS[what])
        axes.text(float(of[said]) + 0.03, place, f"{of[said]:.0%}", va="center", fontsize=7.5, color=INK, bbox=PAPER)
    axes.axvline(float(explained.probabilities[said]), color=ANSWER, linewidth=0.8, linestyle=(0, (3, 3)))
    letters = [what[0] if what in GATES else "m" for what in answers]
    axes.set_yticks(range(len(answers)), letters, fontsize=8, color=INK)
    axes.set(xlim=(0, 1), ylim=(3.6, -0.6), xticks=())
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


# --- the memories ---------------------------------------------------------------------------------------------


def draw_memories(page: Page, top: float, layers: Sequence[LayerSeen], shown: Shown) -> None:
    """A row for each layer whose memory sweeps: for each of its ways the cell that remembers longest."""
    page.heading(
        top, "A memory's way",
        "The cell that keeps most, on the line on which it carries most (the arrow on its map). At each step: what is "
        "written, u ⊙ v, and what is carried there, (1 − u) ⊙ m; the line is the memory m, their sum.",
    )  # fmt: skip
    colour = COLOURS[MEMORY]
    page.text(WIDTH - MARGIN, top + 0.06, "▮ carried", 9, color=colour, ha="right", weight="bold")
    page.text(WIDTH - MARGIN - 0.85, top + 0.06, "▮ written", 9, color=COLOURS[GATES[1]], ha="right", weight="bold")
    grey = shown.photograph.mean(-1, keepdims=True)
    for number, layer in enumerate(layers):
        at = top + 0.8 + number * TRACK
        page.text(LABEL_AT, at + 0.3, layer.name, 12, weight="bold")
        page.text(LABEL_AT, at + 0.58, f"mean(1 − u)\n= {layer.kept:.3f}", 8, color=colour)
        room = (WIDTH - MARGIN - 1.5) / max(len(layer.ways), 2)
        for place, way in enumerate(layer.ways):
            draw_track(page, 1.5 + place * room, at, room, longest(way), grey)


def draw_track(page: Page, left: float, top: float, room: float, track: Track, grey: Array) -> None:
    """The map of a memory cell with the line, and how the memory grows along it."""
    side, memory = 1.0, track.carried + track.written
    values = track.way.memories[..., track.cell]
    page.text(left, top, f"{track.way.name}: cell {track.cell}, 1 − u = {track.kept:.3f}", 8)
    axes = page.axes(left, top + 0.24, side, side)
    over(axes, grey, values)
    arrow(axes, track.pixels, values.shape)
    axes = page.axes(left + side + 0.42, top + 0.24, room - side - 0.62, side)
    axes.locator_params(axis="y", nbins=3)
    steps = np.arange(1, len(memory) + 1)
    width = 0.8 if len(steps) <= 40 else 1.0
    same_sign = track.carried * track.written > 0
    below = np.where(same_sign, track.carried, 0)
    if len(steps) <= FEW:
        axes.bar(steps, track.carried, width, color=COLOURS[MEMORY])
        axes.bar(steps, track.written, width, below, color=COLOURS[GATES[1]], alpha=0.75)
    else:  # one shape instead of thousands
        area: dict[str, Any] = {"step": "mid", "linewidth": 0}
        axes.fill_between(steps, 0, track.carried, color=COLOURS[MEMORY], **area)
        axes.fill_between(steps, below, below + track.written, color=COLOURS[GATES[1]], alpha=0.75, **area)
    axes.plot(steps, memory, color=INK, linewidth=1, marker="o" if len(steps) <= 40 else "", markersize=2)
    axes.axhline(0, color=FAINT, linewidth=0.5)
    axes.set(xlim=(0.3, len(steps) + 0.7))
    axes.set_xticks(sorted({1, len(steps)}))
    axes.set_xlabel("step", fontsize=8, color=FAINT, labelpad=-7)
    axes.spines[["top", "right"]].set_visible(False)


def arrow(axes: Axes, pixels: Array, grid: tuple[int, ...]) -> None:
    """The way of a memory over its map, unless it meets too many pixels to be seen."""
    rows, columns = np.divmod(pixels, grid[1])
    if not 1 < len(pixels) <= 100:
        return
    across, down = (columns + 0.5) / grid[1], (rows + 0.5) / grid[0]
    thin = 1.6 if len(set(rows)) == 1 or len(set(columns)) == 1 else 0.8
    axes.plot(across, down, color="white", linewidth=thin)
    ends: dict[str, Any] = {"xy": (across[-1], down[-1]), "xytext": (across[-2], down[-2])}
    style = {"arrowstyle": "-|>", "color": "white", "shrinkA": 0, "shrinkB": 0, "linewidth": thin, "mutation_scale": 11}
    axes.annotate("", **ends, arrowprops=style)


# --- maps -----------------------------------------------------------------------------------------------------


def photograph(axes: Axes, pixels: Array) -> None:
    """A picture that fills its axes' width or height."""
    channels = pixels.shape[-1]
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if channels == 1 else {}
    axes.imshow(pixels if channels == 3 else pixels[..., 0], interpolation="nearest", aspect="equal", **grey)
    axes.set(xticks=(), yticks=())


def over(axes: Axes, grey: Array, values: Array) -> None:
    """A map laid over the photograph in grey."""
    middle, half = (values.max() + values.min()) / 2, max(float(np.ptp(values)), LEAST_RANGE) / 2
    everywhere: dict[str, Any] = {"extent": (0, 1, 1, 0), "aspect": grey.shape[0] / grey.shape[1]}
    axes.imshow(grey[..., 0], cmap="gray", vmin=0, vmax=255, **everywhere)
    axes.imshow(
        values, cmap="viridis", vmin=middle - half, vmax=middle + half, alpha=0.62, interpolation="nearest",
        **everywhere,
    )  # fmt: skip
    axes.set(xticks=(), yticks=())
