"""Small pictures side by side, enlarged and with captions: what a network saw."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from stg_np.backend import Array

CELL, MARGIN, LINE = 128, 12, 16
"""Pixels: the side of an enlarged picture, the distance between two, the height of a line of its caption."""

LETTERS = 20
"""Of a line of a caption, the rest is cut off."""

ACROSS = 8
"""Pictures in a row."""


def sheet_png(pictures: Sequence[Array], captions: Sequence[Sequence[str]], value_range: int) -> bytes:
    """A PNG of pictures (height, width, 1 or 3) uint8, each with its caption of a few lines below it."""
    from PIL import Image, ImageDraw

    lines = max(map(len, captions))
    across = min(ACROSS, len(pictures))
    step = CELL + MARGIN, CELL + MARGIN + lines * LINE
    canvas = Image.new("RGB", (MARGIN + across * step[0], MARGIN + math.ceil(len(pictures) / across) * step[1]), "#444")
    draw = ImageDraw.Draw(canvas)
    for k, (picture, caption) in enumerate(zip(pictures, captions)):
        left, top = (MARGIN + place * length for place, length in zip((k % across, k // across), step))
        canvas.paste(Image.fromarray(enlarged(picture, value_range)), (left, top))
        for number, line in enumerate(caption):
            draw.text((left, top + CELL + number * LINE), shortened(line), "white")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def enlarged(picture: Array, value_range: int) -> Array:
    """The picture in a square of :data:`CELL`, every pixel a rectangle, in grey or colour of 8 bits."""
    height, width = picture.shape[:2]
    rows, columns = (np.arange(CELL) * max(height, width) // CELL for _ in "hw")
    rows, columns = rows[rows < height], columns[columns < width]
    grey_or_colour = np.rint(picture * (255 / value_range)).astype(np.uint8)
    result: Array = np.broadcast_to(grey_or_colour, (height, width, 3))[rows][:, columns]
    return np.ascontiguousarray(result)


def shortened(line: str) -> str:
    """At most so many letters, the end of a name being worth more than its beginning; and those that a font has."""
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in line)
    return plain if len(plain) <= LETTERS else ".." + plain[2 - LETTERS :]
