"""``stg-np predict``: what a trained model sees in pictures of the user's own."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stg_np.backend import Array, to_device
from stg_np.commands import OK, UsageError, checked_device
from stg_np.commands.options import add_checkpoint, add_device, add_json, whole
from stg_np.data.augment import normalise
from stg_np.engine import Workers
from stg_np.evaluate import predict_logits
from stg_np.ops.losses import log_softmax
from stg_np.runs.folder import Stored, load

if TYPE_CHECKING:
    from PIL.Image import Image

ABOUT = "say what pictures of your own show"
EPILOG = """\
The part from the middle of a picture that has the proportions of the training pictures is cut out, resized to their
size, and made grey or coloured like them. Transparent parts become white. PNG, JPEG, GIF, BMP, TIFF, WEBP and PPM are
read. Digits and Fashion-MNIST are light on dark: for dark ink on white paper add --invert.

examples:
  stg-np predict runs/digits/best.npz seven.png --invert
  stg-np predict runs/cifar10-rows/best.npz cat.jpg dog.jpg --top 5 --json
"""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What is opened. Not everything that Pillow knows: for some formats it would start another program."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of pictures with so many channels."""


def add_options(parser: Any) -> None:
    """The checkpoint, the pictures, and what to print."""
    add_checkpoint(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="picture files")
    parser.add_argument("--top", type=whole(1), default=3, metavar="K", help="classes to name (default: %(default)s)")
    parser.add_argument("--invert", action="store_true", help="make light dark and dark light first")
    add_json(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Print the most probable classes of each picture."""
    device = args.device or "cpu"
    checked_device(device, None)
    stored = load(args.checkpoint, device)
    shape, value_range = stored.about.model.input_shape, stored.about.data.value_range
    if len(shape) != 3 or shape[2] not in MODES:
        raise UsageError(f"{args.checkpoint} is not a model of grey or coloured pictures")
    pictures = np.stack([read_picture(path, shape, value_range, args.invert) for path in args.images])
    best = top_classes(probabilities(stored, pictures, device), stored.about.data.classes, args.top)
    if args.json:
        print(json.dumps([{"image": str(path), "classes": found} for path, found in zip(args.images, best)], indent=2))
        return OK
    for path, found in zip(args.images, best):
        print(f"{path}: " + ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in found))
    return OK


def probabilities(stored: Stored, pictures: Array, device: str) -> Array:
    """(N, C) from uint8 pictures (N, height, width, c)."""

    def prepare(group: Array) -> Array:
        return to_device(normalise(group, *stored.about.data.scaling), device)

    with Workers(1) as workers:
        now = stored.now
        logits = predict_logits(stored.about.model, now.params, now.state, pictures, workers, prepare)
    result: Array = np.exp(log_softmax(logits.astype(np.float64)))
    return result


def top_classes(probability: Array, classes: tuple[str, ...], count: int) -> list[list[dict[str, Any]]]:
    """For each picture, its ``count`` most probable classes, the most probable first."""
    order = np.argsort(-probability, axis=1, kind="stable")[:, :count]
    return [
        [{"class": classes[k], "probability": float(row[k])} for k in best] for row, best in zip(probability, order)
    ]


# --------------------------------------------------------------------------------------------------- pictures


def read_picture(path: Path, shape: tuple[int, ...], value_range: int, invert: bool = False) -> Array:
    """A picture file as the model's data have it: uint8 (height, width, c), values 0 … value_range.

    The largest part from the middle that has the model's proportions is resized. Transparent parts become white;
    with ``invert``, light becomes dark afterwards.

    Raises:
        UsageError: if the file is not there, or is not a picture in one of :data:`FORMATS`.
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
        raise UsageError(f"there is no picture {path}: check the path") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, MemoryError) as error:
        raise UsageError(f"{path} has more pixels than a photograph could: make it smaller first") from error
    except Exception as error:  # damaged files raise nearly everything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else None
        raise UsageError(
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
