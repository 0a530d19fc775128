"""Small pictures side by side, enlarged and with captions: what a network saw."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stg_np.backend import Array
from stg_np.foreign import open_regular, showable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

CELL, MARGIN, LINE = 128, 14, 17
"""Pixels: the side of an enlarged picture, the distance between two, the height of a line of text."""

ACROSS = 8
"""Pictures in a row."""

MAKER = "stg-np sheet of pictures"
"""Written into the file, by which a sheet that may be replaced is told from a picture of somebody's."""


def is_sheet(path: Path) -> bool:
    """Whether a file was written by :func:`sheet_png`."""
    from PIL import Image

    try:
        with open_regular(path) as file, Image.open(file, formats=("PNG",)) as picture:
            return picture.info.get("Software") == MAKER
    except Exception:  # damaged files raise nearly everything
        return False


def sheet_png(
    pictures: Sequence[Array], captions: Sequence[Sequence[str]], value_range: int, *, title: Sequence[str] = ()
) -> bytes:
    """A PNG of pictures (height, width, 1 or 3) uint8, each with its caption of a few lines below it.

    ``title``: lines that stand above all of them.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    plain, bold = font("DejaVuSans.ttf"), font("DejaVuSans-Bold.ttf")
    top = MARGIN + len(title) * LINE + (MARGIN if title else 0)
    step = CELL + MARGIN, CELL + MARGIN + max(map(len, captions)) * LINE
    across = min(ACROSS, len(pictures))
    width = max(MARGIN + across * step[0], 2 * MARGIN + math.ceil(max(map(bold.getlength, title), default=0)))
    canvas = Image.new("RGB", (width, top + math.ceil(len(pictures) / across) * step[1]), "#333")
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(title):
        draw.text((MARGIN, MARGIN + number * LINE), showable(line), "white", bold)
    for k, (picture, caption) in enumerate(zip(pictures, captions)):
        left, upper = MARGIN + k % across * step[0], top + k // across * step[1]
        canvas.paste(Image.fromarray(enlarged(picture, value_range)), (left, upper))
        for number, line in enumerate(caption):
            draw.text((left, upper + CELL + 2 + number * LINE), shortened(line, plain), "white", plain)
    maker, buffer = PngInfo(), io.BytesIO()
    maker.add_text("Software", MAKER)
    canvas.save(buffer, "PNG", pnginfo=maker)
    return buffer.getvalue()


def font(name: str) -> FreeTypeFont | ImageFont:
    """A font that comes with matplotlib and has the letters of most alphabets; Pillow's own where there is none."""
    from PIL import ImageFont

    try:
        import matplotlib

        return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), 12)
    except (ImportError, OSError):
        return ImageFont.load_default()


def enlarged(picture: Array, value_range: int) -> Array:
    """The picture in a square of :data:`CELL`, every pixel a rectangle, in grey or colour of 8 bits."""
    height, width = picture.shape[:2]
    rows, columns = (np.arange(CELL) * max(height, width) // CELL for _ in "hw")
    rows, columns = rows[rows < height], columns[columns < width]
    grey_or_colour = np.rint(picture * (255 / value_range)).astype(np.uint8)
    result: Array = np.broadcast_to(grey_or_colour, (height, width, 3))[rows][:, columns]
    return np.ascontiguousarray(result)


def shortened(line: str, of: FreeTypeFont | ImageFont) -> str:
    """As much as fits below a picture: of a long text the beginning and the end, which tell more than the middle."""
    line = showable(line)
    short, kept = line, math.ceil(len(line) * CELL / max(of.getlength(line), CELL))
    while of.getlength(short) > CELL and kept > 2:
        short = f"{line[: kept // 3]}…{line[len(line) - (kept - kept // 3) :]}"
        kept -= 1
    return short
