"""``stg-np predict``: what a trained model sees in pictures of the user's own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from stg_np.backend import Array
from stg_np.commands import OK, UsageError, checked_device
from stg_np.commands.options import add_checkpoint, add_device, add_json, whole
from stg_np.data.pictures import MODES, read_picture
from stg_np.engine import Threads
from stg_np.runs.checkpoint import load
from stg_np.runs.scores import probabilities

ABOUT = "say what pictures of your own show"
EPILOG = """\
The part from the middle of a picture that has the proportions of the training pictures is cut out, resized to their
size, and made grey or coloured like them. Transparent parts become white. PNG, JPEG, GIF, BMP, TIFF, WEBP and PPM are
read. Digits and Fashion-MNIST are light on dark: for dark ink on white paper add --invert.

examples:
  stg-np predict runs/digits/best.npz seven.png --invert
  stg-np predict runs/cifar10-rows/best.npz cat.jpg dog.jpg --top 5 --json
"""


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
    with Threads(1) as engine:
        likely = probabilities(stored, pictures, engine)
    best = top_classes(likely, stored.about.data.classes, args.top)
    if args.json:
        print(json.dumps([{"image": str(path), "classes": found} for path, found in zip(args.images, best)], indent=2))
        return OK
    for path, found in zip(args.images, best):
        print(f"{path}: " + ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in found))
    return OK


def top_classes(probability: Array, classes: tuple[str, ...], count: int) -> list[list[dict[str, Any]]]:
    """For each picture, its ``count`` most probable classes, the most probable first."""
    order = np.argsort(-probability, axis=1, kind="stable")[:, :count]
    return [
        [{"class": classes[k], "probability": float(row[k])} for k in best] for row, best in zip(probability, order)
    ]
