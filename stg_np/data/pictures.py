"""Pictures of the user's own, from files: decoded, cut to the shape of the training pictures, and resized."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stg_np.backend import Array
from stg_np.data.base import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What is opened. Not everything that Pillow knows: for some formats it would start another program."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of pictures with so many channels."""


def read_picture(path: Path, shape: tuple[int, ...], value_range: int, invert: bool = False) -> Array:
    """A picture file as the model's data have it: uint8 (height, width, c), values 0 … value_range.

    The largest part from the middle that has the model's proportions is resized. Transparent parts become white;
    with ``invert``, light becomes dark afterwards.

    Raises:
        DataError: if the file is not there, or is not a picture in one of :data:`FORMATS`.
    """
    from PIL.Image import Resampling

    height, width, channels = shape
    picture = middle(open_picture(path), width / height).convert(MODES[channels])
    picture = picture.resize((width, height), Resampling.BICUBIC)
    pixels = np.asarray(picture).reshape(height, width, channels)
    if invert:
        pixels = 255 - pixels
    scaled: Array = np.rint(pixels * (value_range / 255)).astype(np.uint8)
    return scaled


def middle(picture: Image, proportion: float) -> Image:
    """The largest part from the middle whose width is ``proportion`` times its height, to a pixel."""
    width = max(1, min(picture.width, round(picture.height * proportion)))
    height = max(1, min(picture.height, round(picture.width / proportion)))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def open_picture(path: Path) -> Image:
    """The picture, decoded, upright, opaque, with 8 bits a channel."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as opened:
                picture = ImageOps.exif_transpose(opened)
                picture.load()
            return opaque(eight_bits(picture))
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}: check the path") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, MemoryError) as error:
        raise DataError(f"{path} has more pixels than a photograph could: make it smaller first") from error
    except Exception as error:  # damaged files raise nearly everything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else None
        raise DataError(
            f"{path} cannot be read as a picture ({reason or 'it is none, or it is damaged'}): "
            f"give one of {', '.join(FORMATS)}"
        ) from error


def eight_bits(picture: Image) -> Image:
    """Grey pictures of 16 bits keep their most significant 8, instead of being cut off at 255."""
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if not picture.mode.startswith("I"):
        return picture
    values = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
    return Image.fromarray((values // 257).astype(np.uint8))


def opaque(picture: Image) -> Image:
    """Transparent parts on white paper."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
