"""Write the tutorial's interactive page: ``python -m tools.play`` -> ``tutorials/play.html``.

The page is one file that needs no network: the template ``tools/play/page.html`` with the style, the scripts, the
network of digits that comes with the package and a few test pictures put into it.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from stg_np.data import load
from stg_np.models.stg import STG
from stg_np.runs import weights

PARTS = Path(__file__).parent / "play"
PAGE = Path(__file__).parent.parent / "tutorials" / "play.html"

NETWORK = "digits"
WEIGHTS = weights.FOLDER / f"{NETWORK}.npz"
HARD = (124, 221, 248, 349)
"""Test pictures that this network gets wrong."""


def main() -> None:
    """Write the page."""
    text = page()
    PAGE.write_text(text, "utf-8")
    print(f"{PAGE}: {len(text.encode()):,} bytes")


def page() -> str:
    """The page: in the template, ``{{NAME}}`` stands for a file beside it, or for a piece of data in JSON."""
    data = {"network.json": network(), "examples.json": examples()}

    def part(match: re.Match[str]) -> str:
        name = match[1]
        return as_json(data[name]) if name in data else (PARTS / name).read_text("utf-8").rstrip("\n")

    return re.sub(r"\{\{([\w.]+)\}\}", part, (PARTS / "page.html").read_text("utf-8"))


def as_json(value: Any) -> str:
    """JSON that can stand inside of an HTML element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def network() -> dict[str, Any]:
    """The description of the network, and its parameters in 16 bits, base64.

    Raises:
        ValueError: if it is of a form that the page's script does not compute.
    """
    about, now = weights.load(WEIGHTS, "cpu")
    model, data = about.model, about.data
    if not isinstance(model, STG):
        raise ValueError("the page computes STGs only")
    side, width, c = model.input_shape
    plain = model.pool == "mean" and model.tanh_candidate and not model.recurrent and not model.diagonal
    if not (plain and side == width and c == 1 and model.patch_size[0] == model.patch_size[1]):
        raise ValueError("the page computes square grey pictures, full input-only gates and the mean of the steps only")
    return {
        "side": side,
        "patch": model.patch_size[0],
        "grid": model.grid[0],
        "width": model.width,
        "layers": model.layers,
        "directions": model.directions,
        "alternate": model.alternate,
        "mean": data.mean[0],
        "std": data.std[0],
        "value_range": data.value_range,
        "layout": [(entry.name, entry.shape) for entry in now.params.layout.entries],
        "params": base64.b64encode(now.params.flat.astype("<f2").tobytes()).decode("ascii"),
    }


def examples() -> list[dict[str, Any]]:
    """A test picture of each class, the first, and those that are hard: pixels row by row, and what they show."""
    data = load(NETWORK)
    first = [int(np.flatnonzero(data.test_labels == k)[0]) for k in range(len(data.classes))]
    return [
        {"pixels": data.test_images[k].ravel().tolist(), "digit": int(data.test_labels[k]), "hard": k in HARD}
        for k in (*first, *HARD)
    ]


if __name__ == "__main__":
    main()
