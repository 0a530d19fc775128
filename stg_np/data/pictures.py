"""Pictures of the user's own, from files: decoded, framed as the training pictures are, and resized."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, NoReturn, get_args

import numpy as np

from stg_np.backend import Array
from stg_np.data.base import DataError
from stg_np.foreign import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What is opened. Not everything that Pillow knows: for some formats it would start another program."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
"""How the names of such files end: what is taken from a folder."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of pictures with so many channels."""

LARGEST_FILE = 1 << 30
"""Bytes of a file that are read at most."""

MOST_PIXELS = 1 << 28
"""In a picture; those of telephones have 200 million. Pillow by itself accepts 179 million."""

ENOUGH = 4096
"""Pixels on the longer side: a larger picture is made smaller at once, before anything else is done with it."""

GLANCE = 256
"""Pixels on the longer side of the small copy in which the ink is looked for; in it, specks and noise are averaged."""

INK = 0.3
"""Ink differs from the paper by at least this share of the greatest difference."""

BLANK = 10
"""A picture whose lightest and darkest pixels differ by less, of 255, shows nothing."""

Crop = Literal["ink", "middle"]
"""How a picture is framed: see :func:`see`."""

CROPS: tuple[Crop, ...] = get_args(Crop)


class Seen(NamedTuple):
    """What a network gets of a picture: uint8 (height, width, c), values 0 … value_range; and what is odd about it.

    ``blank``: all its pixels are alike; ``dark_on_light``: it shows something dark on light paper.
    """

    pixels: Array
    blank: bool
    dark_on_light: bool


class Ink(NamedTuple):
    """Where the ink of a picture is (left, top, right, bottom), and the grey levels of its paper and of its ink."""

    box: tuple[int, int, int, int]
    paper: int
    level: int


def read_picture(path: Path, shape: tuple[int, ...], value_range: int, invert: bool = False) -> Array:
    """The middle of a picture file as the model's data have it: :func:`open_picture` and :func:`see`."""
    return see(open_picture(path), shape, value_range, invert=invert).pixels


def see(
    picture: Image, shape: tuple[int, ...], value_range: int, *, invert: bool = False, crop: Crop = "middle"
) -> Seen:
    """A picture as the model's data have it.

    Args:
        picture: from :func:`open_picture`.
        shape: (height, width, c) of the model's pictures. value_range: their largest pixel value.
        invert: make light dark and dark light first.
        crop: ``middle``: the largest part from the middle that has the model's proportions; ``ink``: what differs from
            the paper, so that it fills the frame, in the middle; dark paper becomes black, and light ink on it white.
            A picture that has exactly the model's size is framed already, and only looked at.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling

    height, width, channels = shape
    picture = picture.convert(MODES[channels])
    if invert:
        picture = ImageOps.invert(picture)
    ink = find_ink(picture)
    cut_out = ink if crop == "ink" and picture.size != (width, height) else None
    framed = middle(picture, width / height) if cut_out is None else around(picture, cut_out, width / height)
    pixels = np.asarray(framed.resize((width, height), Resampling.BICUBIC)).reshape(height, width, channels)
    if cut_out is not None and cut_out.level > cut_out.paper:
        pixels = stretched(pixels, cut_out.paper)
    scaled: Array = np.rint(pixels * (value_range / 255)).astype(np.uint8)
    return Seen(scaled, int(np.ptp(pixels)) < BLANK, ink is not None and ink.level < ink.paper)


def middle(picture: Image, proportion: float) -> Image:
    """The largest part from the middle whose width is ``proportion`` times its height, to a pixel."""
    width = max(1, min(picture.width, round(picture.height * proportion)))
    height = max(1, min(picture.height, round(picture.width / proportion)))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def find_ink(picture: Image) -> Ink | None:
    """What differs from the paper; None where nothing does."""
    grey = picture.convert("L")
    factor = math.ceil(max(grey.size) / GLANCE)
    values = np.asarray(grey.reduce(factor) if factor > 1 else grey).astype(int)
    paper = grey_of_paper(values)
    darkest, lightest = int(values.min()), int(values.max())
    level = lightest if lightest - paper >= paper - darkest else darkest
    if abs(level - paper) < BLANK:
        return None
    covered = (values - paper) / (level - paper) >= INK
    across, down = np.flatnonzero(covered.any(0)), np.flatnonzero(covered.any(1))
    left, top, right, bottom = (int(edge) * factor for edge in (across[0], down[0], across[-1] + 1, down[-1] + 1))
    return Ink((left, top, min(right, grey.width), min(bottom, grey.height)), paper, level)


def grey_of_paper(values: Array) -> int:
    """The grey of the corners, or where they do not agree (a 7 cut close) of the whole edge."""
    rows, columns = (max(1, side // 16) for side in values.shape)
    corners = [values[y, x] for y in (slice(rows), slice(-rows, None)) for x in (slice(columns), slice(-columns, None))]
    _, one, other, _ = sorted(np.median(corner) for corner in corners)
    if other - one < BLANK:
        return int((one + other) / 2)
    return int(np.median(np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])))


def around(picture: Image, ink: Ink, proportion: float) -> Image:
    """The ink in the middle of a frame of the given proportion, which it fills in height or in width.

    Beyond the edges of the picture there is more paper.
    """
    from PIL import Image

    left, top, right, bottom = ink.box
    width = max(right - left, round((bottom - top) * proportion))
    height = max(bottom - top, round((right - left) / proportion))
    frame = Image.new(picture.mode, (width, height), (ink.paper,) * len(picture.getbands()))
    frame.paste(picture, ((width - left - right) // 2, (height - top - bottom) // 2))
    return frame


def stretched(pixels: Array, paper: int) -> Array:
    """Paper becomes black, and the lightest pixel, however thin or pale the ink is, white."""
    lightest = max(int(pixels.max()), paper + 1)
    result: Array = ((pixels.astype(float) - paper) * (255 / (lightest - paper))).clip(0, 255)
    return result


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder and in its folders, in the order of their names; hidden ones are left out.

    Raises:
        DataError: if there are none, or a folder cannot be read.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}: check that you may") from error

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = (name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not found:
        raise DataError(f"no picture is in the folder {folder}: the names of pictures end in {', '.join(SUFFIXES)}")
    return sorted(found)


def open_picture(path: Path) -> Image:
    """The picture of a file: see :func:`decode`.

    Raises:
        DataError: if the file is not there or no regular file, or is not a picture in one of :data:`FORMATS`.
    """
    try:
        with open_regular(path) as file:
            return decode(file, str(path))
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}: check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null in it
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {reason}: check the path, and that you may") from error


def read_stream(stream: IO[bytes], name: str) -> Image:
    """The picture that comes out of a pipe: see :func:`decode`.

    Raises:
        DataError: if it is none.
    """
    try:
        content = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}: pipe a picture in") from error
    return decode(io.BytesIO(content), name)


def decode(file: IO[bytes], name: str) -> Image:
    """The picture in a file that is open: upright, opaque, with 8 bits a channel, and not larger than is useful.

    Raises:
        DataError: if it is not a picture in one of :data:`FORMATS`, or larger than any.
    """
    from PIL import Image, UnidentifiedImageError

    if file.seek(0, os.SEEK_END) > LARGEST_FILE:
        raise DataError(f"{name} is larger than {LARGEST_FILE >> 30} GiB: make it smaller first")
    file.seek(0)
    try:
        with warnings.catch_warnings(), pillow_accepts(MOST_PIXELS):
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as opened:
                opened.draft(None, (ENOUGH // 2, ENOUGH // 2))  # a JPEG can be decoded at half its size, a quarter, …
                opened.load()
                return upright(opened, opaque(smaller(plain_colours(eight_bits(opened)))))
    except Image.DecompressionBombError as error:
        most = MOST_PIXELS // 10**6
        raise DataError(f"{name} has more than {most} million pixels: make it smaller first") from error
    except MemoryError as error:
        raise DataError(f"{name} does not fit into memory: make it smaller first") from error
    except PixelsError as error:
        raise DataError(f"{name} has {error}: save it as a grey or coloured PNG first") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} cannot be read as a picture (it is none, or of a rare kind): give one of {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # damaged files raise nearly everything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged or cut off"
        raise DataError(f"{name} cannot be read as a picture ({reason}): get it again, or convert it to PNG") from error


@contextmanager
def pillow_accepts(pixels: int) -> Iterator[None]:
    """Let Pillow open pictures of so many pixels: it knows one limit for a whole process, and raises at its double."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


class PixelsError(Exception):
    """Pixels whose meaning is not agreed upon; the message says what a file has."""


def eight_bits(picture: Image) -> Image:
    """Grey pictures of more than 8 bits keep their most significant 8.

    The files do not say how many bits are in use: 12 bits in 16 are common. So white is the smallest of the usual
    ranges that holds every pixel.

    Raises:
        PixelsError: if the pixels are negative or not finite, or floating-point numbers of no usual range.
    """
    from PIL import Image

    if picture.mode == "F":
        ranges, kind = [1, 255, 65535], "floating-point pixels"
    elif picture.mode.startswith("I"):
        ranges, kind = [2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 31)], "whole-number pixels"
    else:
        return picture
    values = np.asarray(picture)
    least, most = values.min(), values.max()
    if not (least >= 0 and most <= ranges[-1]):
        raise PixelsError(f"{kind} from {least:g} to {most:g}, of which nobody knows what is white")
    white = next(white for white in ranges if most <= white)
    if values.dtype == np.uint16:  # without a wider copy of a large picture
        return Image.fromarray((np.arange(65536) * 255 // white).clip(0, 255).astype(np.uint8)[values])
    return Image.fromarray((values * np.float32(255 / white)).clip(0, 255).astype(np.uint8))


def plain_colours(picture: Image) -> Image:
    """Grey, or red, green and blue, or one of both with transparency: what everything else can be converted to."""
    if picture.mode == "LAB":
        from PIL import ImageCms  # raises ImportError where Pillow was built without

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def smaller(picture: Image) -> Image:
    """At most :data:`ENOUGH` pixels on the longer side."""
    factor = math.ceil(max(picture.size) / ENOUGH)
    return picture.reduce(factor) if factor > 1 else picture


def opaque(picture: Image) -> Image:
    """Transparent parts on white paper."""
    from PIL import Image

    if picture.mode != "RGBA":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def upright(opened: Image, picture: Image) -> Image:
    """Turn a picture as the camera noted in the file; where the note is damaged, leave it as it is."""
    from PIL.Image import Transpose as To

    try:
        turned = opened.getexif().get(0x0112)
    except Exception:  # a damaged note raises nearly everything
        return picture
    ways = {
        2: To.FLIP_LEFT_RIGHT,
        3: To.ROTATE_180,
        4: To.FLIP_TOP_BOTTOM,
        5: To.TRANSPOSE,
        6: To.ROTATE_270,
        7: To.TRANSVERSE,
        8: To.ROTATE_90,
    }
    return picture.transpose(ways[turned]) if turned in ways else picture
