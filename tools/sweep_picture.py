"""Draw a memory that sweeps a picture: ``python -m tools.sweep_picture`` -> ``tutorials/images/sweep.svg``.

A digit, and what the image STM layer (:mod:`stg_np.sweep`) remembers of it, line by line: four channels that differ in
the direction of their sweep only, and their sum. The animation is CSS inside the SVG; where nothing moves, because the
viewer cannot or because the reader has asked for less motion, the picture shows the end of the sweeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from stg_np.backend import Array
from stg_np.data import load
from stg_np.stm import STMParams
from stg_np.sweep import ALL_WAYS, Direction, SweepKind, image_stm_forward, quarters, to_steps

PICTURE = Path(__file__).parent.parent / "tutorials" / "images" / "sweep.svg"

DIGIT = 1
"""Which picture of the digits' test set."""
TAU = 3
"""The time scale of the memories, in pixels: u = 1/τ."""

CELL, GAP, TOP = 14, 22, 46
SECONDS = 9
GREY, MEMORY, FRONT = "#768390", "#1f7fd4", "#cf6a1c"  # as in stg_np/tutorial.mplstyle
NAMES = {"right": "to the right →", "left": "← to the left", "down": "down ↓", "up": "up ↑"}


def main() -> None:
    """Write the picture."""
    text = svg(digit())
    PICTURE.write_text(text, "utf-8")
    print(f"{PICTURE}: {len(text.encode()):,} bytes")


def digit() -> Array:
    """The digit, (8, 8), from 0 for paper to 1 for ink."""
    data = load("digits")
    image: Array = data.test_images[DIGIT, :, :, 0] / data.value_range
    return image


def memories_of(image: Array) -> Array:
    """What the layer remembers of a picture at every pixel, (height, width, 4): a channel for each direction.

    Diagonal gates of the same values in all channels: the candidate is the pixel, the input gate is open, and the
    update gate is 1/τ everywhere.
    """
    H = len(ALL_WAYS)
    b = np.repeat([5.0, -np.log(TAU - 1), 5.0, 0.0], H)  # b_i, b_u, b_o, b_z
    params = STMParams(np.ones((1, 1, 1, H)), b, w=np.zeros(3 * H))
    _, cache = image_stm_forward(image[None, :, :, None], params, SweepKind(quarters(ALL_WAYS)))
    memories: Array = cache.gated.memories[0]
    return memories


def svg(image: Array) -> str:
    """The animated picture."""
    memories, side = memories_of(image), len(image) * CELL
    left = iter(range(1, 10**4, side + GAP))
    panels = [panel(next(left), "a picture", GREY, [still(image)], "")]
    for k, direction in enumerate(ALL_WAYS):
        lines = list(lines_of(memories[..., k] / memories.max(), direction))
        panels.append(panel(next(left), NAMES[direction], MEMORY, lines, direction))
    total = memories.sum(-1)
    summed = f'<g class="sum">\n{still(total / total.max())}</g>\n'
    panels.append(panel(next(left), "all four, added", MEMORY, [summed], ""))
    width, height = next(left) - GAP + 1, TOP + side + 1
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="DejaVu Sans, sans-serif"
 font-size="13">
<title>A memory that sweeps a picture</title>
<desc>A digit of {len(image)} × {len(image)} pixels, and the memories of four sweeps, each of which takes the picture
line by line: to the right, to the left, down and up. Each memory carries the ink on, fading by a factor 1 − 1/{TAU} a
pixel. Their sum knows of every pixel what stands in its row and in its column.</desc>
<style>
text {{ fill: {GREY}; }}
.front {{ fill: none; stroke: {FRONT}; stroke-width: 2; opacity: 0; }}
.sum, .line, .front {{ animation: {SECONDS}s infinite; }}
{keyframes(len(image))}
@media (prefers-reduced-motion: reduce) {{ .sum, .line, .front {{ animation: none; }} }}
</style>
<text x="1" y="14">m ← (1 − u) m + u v along every line, each line from an empty memory; u = 1/{TAU}</text>
{"".join(panels)}</svg>
"""


def panel(left: int, name: str, colour: str, parts: list[str], kind: str) -> str:
    """A framed square with its name above."""
    side = 8 * CELL
    middle = left + side // 2
    return f"""\
<text x="{middle}" y="{TOP - 8}" text-anchor="middle">{name}</text>
<g transform="translate({left} {TOP})" fill="{colour}" shape-rendering="crispEdges"{f' id="{kind}"' if kind else ""}>
<rect width="{side}" height="{side}" fill="none" stroke="{GREY}" stroke-opacity=".5"/>
{"".join(parts)}</g>
"""


def still(values: Array) -> str:
    """The pixels of a map from 0 to 1."""
    return "".join(pixel(x, y, values[y, x]) for y in range(values.shape[0]) for x in range(values.shape[1]))


def pixel(x: int, y: int, value: float) -> str:
    """One pixel; nothing where it is 0."""
    if f"{value:.2f}" == "0.00":
        return ""
    return f'<rect x="{x * CELL}" y="{y * CELL}" width="{CELL}" height="{CELL}" fill-opacity="{value:.2f}"/>\n'


def lines_of(values: Array, direction: Direction) -> Iterator[str]:
    """The lines of a map in the order in which a sweep fills them, each with the front of the sweep."""
    rows, columns = np.indices(values.shape)
    places = np.stack([rows, columns, values], -1)[None]
    steps = to_steps(places, direction)[0]  # (T, lines, 3)
    for number, line in enumerate(steps, 1):
        pixels = "".join(pixel(int(x), int(y), value) for y, x, value in line)
        (y, x), (height, width) = line[:, :2].min(0), np.ptp(line[:, :2], 0) + 1
        box = f'x="{x * CELL:g}" y="{y * CELL:g}" width="{width * CELL:g}" height="{height * CELL:g}"'
        yield f'<g class="line l{number}">\n{pixels}</g>\n<rect class="front f{number}" {box}/>\n'


def keyframes(lines: int) -> str:
    """When each line is filled, when the front stands there, and when the sum appears: in percent of the time."""
    times = [3 + 55 * number / lines for number in range(lines + 1)]
    rules = [rule("sum", times[-1] + 2, times[-1] + 8, 97, 100)]
    for number, (begin, end) in enumerate(pairwise(times), 1):
        rules.append(rule(f"l{number}", begin, begin + 1, 97, 100))
        rules.append(rule(f"f{number}", begin, begin + 0.1, end, end + 0.1))
    return "\n".join(rules)


def rule(name: str, begin: float, full: float, last: float, gone: float) -> str:
    """What is seen from ``begin`` on, wholly from ``full`` to ``last``, and no more when it is ``gone``."""
    hidden, shown = "{ opacity: 0; }", "{ opacity: 1; }"
    steps = f"0%, {begin:.1f}% {hidden} {full:.1f}%, {last:.1f}% {shown} {gone:.1f}%, 100% {hidden}"
    return f"@keyframes {name} {{ {steps} }} .{name} {{ animation-name: {name}; }}"


if __name__ == "__main__":
    main()
