"""``stg-np explain``: a picture of what the gates and the memory of an STG did with a photograph."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stg_np.commands import OK, UsageError
from stg_np.commands.options import (
    add_checkpoint,
    add_framing,
    framing,
    network_and_pictures,
    refuse_other_input,
    refuse_sheet,
)
from stg_np.foreign import showable

if TYPE_CHECKING:
    from PIL.Image import Image

    from stg_np.backend import Array
    from stg_np.explain import Explanation
    from stg_np.models.base import Model

ABOUT = "draw what the gates and the memory did with a picture of your own"
EPILOG = """\
The PNG shows the answer; what it would be without each of the gates, and without what the memory carries; for every
layer its gates, laid over the photograph; and the way of a memory along a line. A gate is taken away by opening it
(i ≡ 1, u ≡ 1, o ≡ 1), and the network is not trained again. STGs of both kinds are explained, on sequences and on maps;
an MLP has no gates.

The picture is framed as by `stg-np predict`.

examples:
  stg-np explain runs/cifar10-fast cat.jpg
  stg-np explain digits seven.png --invert --out seven-explained.png
"""

MOST_PIXELS, MOST_PARTS = 1 << 16, 60
"""What is drawn at most: pixels of a picture, as the network gets it, and layers, each of which is a row."""

FINER = 8
"""The photograph is drawn with so many times the pixels that the network gets."""


def add_options(parser: Any) -> None:
    """The checkpoint, the picture, and the file to draw."""
    add_checkpoint(parser, optional=True)
    parser.add_argument("image", metavar="PICTURE", help="a picture file")
    parser.add_argument(
        "--out", type=Path, default=Path("explain.png"), metavar="FILE.png", help="what to draw (default: %(default)s)"
    )
    add_framing(parser)


def run(args: argparse.Namespace) -> int:
    """Draw the picture, and print its figures."""
    from stg_np.data.augment import normalise
    from stg_np.data.pictures import open_picture, see
    from stg_np.explain import can_explain, explain
    from stg_np.runs.archive import write_atomically
    from stg_np.runs.chosen import chosen_state
    from stg_np.runs.explanation import Shown, explanation_png

    refuse_sheet(args.out, "--out")
    network, (image,) = network_and_pictures(args.checkpoint, [args.image])
    path, stored = chosen_state(network, "cpu")
    refuse_other_input(path, stored)
    about, now = stored
    if not can_explain(about.model):
        raise UsageError(f"{showable(path)} has no gates to explain ({about.model}): give the checkpoint of an STG")
    refuse_vast(path, about.model, len(about.model.parts(now.params)))
    picture, frame = open_picture(Path(image)), framing(stored, args)
    seen = see(picture, about.model.input_shape, about.data.value_range, **frame).pixels
    x = normalise(seen[None], *about.data.scaling)
    explained = explain(about.model, now.params, now.state, x)
    to_bytes = 255 / about.data.value_range
    shown = Shown(
        photograph(picture, about.model.input_shape, frame, seen * to_bytes),
        np.rint(seen * to_bytes).astype(np.uint8),
        showable(Path(image).name, 60),
        f"{about.model}; trained on {showable(about.data.label, 100)}",
    )
    write_atomically(args.out, explanation_png(explained, shown, about.data.classes))
    print("\n".join([*text_lines(explained, about.data.classes), f"drawn: {showable(args.out)}"]))
    return OK


def refuse_vast(path: Path, model: Model, parts: int) -> None:
    """A drawing has its limits, whatever a network may have.

    Raises:
        UsageError: if the network sees larger pictures, or has more layers.
    """
    height, width = model.input_shape[:2]
    if height * width > MOST_PIXELS or parts > MOST_PARTS:
        raise UsageError(
            f"{showable(path)} sees {height}×{width} pixels and has {parts} parts, and what is drawn has at most "
            f"{MOST_PIXELS:,} pixels and {MOST_PARTS} rows: explain a smaller network"
        )


def photograph(picture: Image, shape: tuple[int, ...], frame: dict[str, Any], seen: Array) -> Array:
    """What the network gets, uint8, but finer; a picture of exactly its size as it is (``seen``, to 255)."""
    from stg_np.data.pictures import see

    height, width, channels = shape
    if picture.size == (width, height):
        return np.rint(seen).astype(np.uint8)
    return see(picture, (FINER * height, FINER * width, channels), 255, **frame).pixels


def text_lines(explained: Explanation, classes: tuple[str, ...]) -> list[str]:
    """The answer, the answers without, and how much each layer keeps."""
    lines = [f"answer: {best(explained.probabilities, classes)}"]
    lines += [f"without the {what}: {best(answer, classes)}" for what, answer in explained.without.items()]
    for layer in explained.layers:
        lasts = "" if layer.ways else ", but no sweep: a memory lasts for one step"
        lines.append(f"{layer.name}: mean(1 - u) {layer.kept:.3f}{lasts}")
    return lines


def best(answer: Array, classes: tuple[str, ...]) -> str:
    """The most probable class."""
    k = int(answer.argmax())
    return f"{showable(classes[k])} {answer[k]:.1%}"
