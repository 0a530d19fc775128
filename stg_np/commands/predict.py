"""``stg-np predict``: what a trained model sees in pictures of the user's own."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.commands import OK, WRONG_USE, checked_device
from stg_np.commands.options import (
    add_checkpoint,
    add_device,
    add_framing,
    add_json,
    framing,
    has_ink,
    network_and_pictures,
    refuse_other_input,
    refuse_sheet,
    whole,
)
from stg_np.data import DataError
from stg_np.data.pictures import Seen, open_picture, pictures_in, read_stream, see
from stg_np.engine import Threads
from stg_np.foreign import showable
from stg_np.runs.archive import write_atomically
from stg_np.runs.checkpoint import Stored
from stg_np.runs.chosen import chosen_state
from stg_np.runs.scores import probabilities
from stg_np.runs.sheet import sheet_png
from stg_np.streams import complain
from stg_np.strict_json import to_json

if TYPE_CHECKING:
    from PIL.Image import Image

ABOUT = "say what pictures of your own show"
EPILOG = """\
CHECKPOINT is a run of your own or the name of a network that comes with stg-np; where it is left out, a picture file
comes first.

IMAGE is a picture file (PNG, JPEG, GIF, BMP, TIFF, WEBP or PPM), a folder, of which all pictures are taken, or - for a
picture from standard input. A picture that cannot be read costs one line on stderr; the others are answered, and the
exit code is 2 at the end.

Pictures are framed as the training pictures are. Digits and Fashion-MNIST fill their frame, light on dark: what is
drawn is cut out (--crop ink), and for dark ink on white paper add --invert. Of other pictures, the part from the middle
that has the right proportions is taken (--crop middle). A picture of exactly the right size is taken as it is.
Transparent parts become white. See with --show what the network gets.

examples:
  stg-np predict digits seven.png --invert
  stg-np predict runs/digits seven.png --invert --show seen.png
  stg-np predict runs/cifar10-rows/best.npz cat.jpg holidays/ --top 5 --json
  scanimage --format png | stg-np predict runs/digits - --invert
"""

GROUP = 256
"""Pictures that are read, and then answered, together."""

SHOWN = 200
"""Pictures on one sheet at most."""


class Answer(NamedTuple):
    """What the model says of a picture: its most probable classes, the most probable first."""

    name: str
    seen: Seen
    best: list[tuple[str, float]]


def add_options(parser: Any) -> None:
    """The checkpoint, the pictures, and what to print."""
    add_checkpoint(parser, optional=True)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files, folders, or - for standard input")
    parser.add_argument("--top", type=whole(1), default=5, metavar="K", help="classes to name (default: %(default)s)")
    add_framing(parser)
    parser.add_argument("--show", type=Path, metavar="FILE.png", help="a picture of what the network saw")
    output = parser.add_mutually_exclusive_group()
    add_json(output)
    output.add_argument("--csv", action="store_true", help="print a table: one line a picture, comma-separated")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Print the most probable classes of each picture."""
    device = args.device or "cpu"
    checked_device(device, None)
    network, args.images = network_and_pictures(args.checkpoint, args.images)
    path, stored = chosen_state(network, device)
    refuse_other_input(path, stored)
    if args.show is not None:
        refuse_sheet(args.show, "--show")
    answers: list[Answer] = []
    failures: list[DataError] = []

    def failed(error: DataError) -> None:
        failures.append(error)
        complain(str(error))

    write = write_json if args.json else write_csv if args.csv else write_text
    write(remembered(answered(stored, args, failed), answers))
    for sentence in remarks(answers, has_ink(stored), args.invert):
        complain(sentence)
    if args.show is not None and answers:
        show(args.show, answers, stored.about.data.value_range)
    return WRONG_USE if failures else OK


def answered(stored: Stored, args: argparse.Namespace, failed: Callable[[DataError], None]) -> Iterator[Answer]:
    """The answer for each picture that can be read; for each of the others, ``failed`` is called."""
    about = stored.about
    frame = framing(stored, args)

    def seen() -> Iterator[tuple[str, Seen]]:
        for name in named(args.images, failed):
            try:
                picture = from_standard_input() if name == "-" else open_picture(Path(name))
            except DataError as error:
                failed(DataError(showable(error, 500)))
            else:
                shape, value_range = about.model.input_shape, about.data.value_range
                yield name, see(picture, shape, value_range, **frame)

    pictures = seen()
    with Threads(1) as engine:
        while group := list(islice(pictures, GROUP)):
            likely = probabilities(stored, np.stack([each.pixels for _, each in group]), engine)
            for (name, each), row in zip(group, likely):
                yield Answer(showable(name, 1000), each, top_classes(row, about.data.classes, args.top))


def from_standard_input() -> Image:
    """The picture that is piped in."""
    if sys.stdin is None:
        raise DataError("standard input is closed: pipe a picture in")
    return read_stream(sys.stdin.buffer, "standard input")


def named(images: Sequence[str], failed: Callable[[DataError], None]) -> Iterator[str]:
    """The pictures that are meant: a folder means those that are in it."""
    for image in images:
        if image == "-" or not Path(image).is_dir():
            yield image
            continue
        try:
            yield from map(str, pictures_in(Path(image)))
        except DataError as error:
            failed(DataError(showable(error, 500)))


def top_classes(probability: Array, classes: tuple[str, ...], count: int) -> list[tuple[str, float]]:
    """The ``count`` most probable classes of a picture, the most probable first."""
    order = np.argsort(-probability, kind="stable")[:count]
    return [(classes[k], float(probability[k])) for k in order]


def remembered(answers: Iterator[Answer], memory: list[Answer]) -> Iterator[Answer]:
    """Keep what passes by."""
    for answer in answers:
        memory.append(answer)
        yield answer


def write_text(answers: Iterator[Answer]) -> None:
    """A line a picture, for people."""
    for name, _, best in answers:
        print(f"{name}: " + ", ".join(f"{showable(kind)} {probability:.1%}" for kind, probability in best))


def write_csv(answers: Iterator[Answer]) -> None:
    """A table for spreadsheets: the picture, its class and how probable that is, the next class, and so on."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    for number, (name, _, best) in enumerate(answers):
        if number == 0:  # now it is known how many classes there are
            ranks = ["", *(f"_{k}" for k in range(2, len(best) + 1))]
            table.writerow(["image", *(column + rank for rank in ranks for column in ("class", "probability"))])
        cells = ((showable(kind), f"{probability:.6f}") for kind, probability in best)
        table.writerow([name, *(cell for pair in cells for cell in pair)])


def write_json(answers: Iterator[Answer]) -> None:
    """A list for programs."""
    rows = [
        {
            "image": name,
            "classes": [{"class": kind, "probability": probability} for kind, probability in best],
            "blank": seen.blank,
            "dark_on_light": seen.dark_on_light,
        }
        for name, seen, best in answers
    ]
    print(to_json(rows, indent=2))


def remarks(answers: Sequence[Answer], ink: bool, inverted: bool) -> Iterator[str]:
    """A sentence about the pictures whose answers cannot be trusted, for each of the reasons."""
    if blank := [answer.name for answer in answers if answer.seen.blank]:
        yield f"{listed(blank)}: blank, so that the answer means nothing (--show FILE.png shows what the network saw)"
    dark = [answer.name for answer in answers if answer.seen.dark_on_light and not answer.seen.blank]
    if ink and dark:
        advice = "leave --invert out" if inverted else "try --invert"
        yield f"{listed(dark)}: dark on light, but the network has learned light on dark: {advice}"


def listed(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def show(target: Path, answers: Sequence[Answer], value_range: int) -> None:
    """Write the sheet of what the network saw."""
    captions = [(Path(name).name, f"{best[0][0]} {best[0][1]:.1%}") for name, _, best in answers[:SHOWN]]
    write_atomically(target, sheet_png([answer.seen.pixels for answer in answers[:SHOWN]], captions, value_range))
    if len(answers) > SHOWN:
        complain(f"{showable(target)} shows the first {SHOWN} of {len(answers):,} pictures")
