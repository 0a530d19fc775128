"""``stg-np predict``: what a trained model sees in pictures of the user's own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from stg_np.backend import Array, to_device
from stg_np.commands import OK, UsageError, checked_device
from stg_np.commands.options import add_checkpoint, add_device, add_json, whole
from stg_np.data.augment import normalise
from stg_np.data.pictures import MODES, read_picture
from stg_np.engine import Threads
from stg_np.evaluate import predict_logits
from stg_np.ops.losses import log_softmax
from stg_np.runs.folder import Stored, load

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

    with Threads(1) as workers:
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
