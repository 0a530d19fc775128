"""``stg-np export``: the parameters of a checkpoint as a ``.safetensors`` file, which other libraries read."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from stg_np.backend import Array, to_host
from stg_np.commands import OK, UsageError
from stg_np.commands.options import add_checkpoint
from stg_np.foreign import showable
from stg_np.runs import weights
from stg_np.runs.archive import write_atomically
from stg_np.runs.checkpoint import Stored, counters_of
from stg_np.runs.chosen import chosen_state

ABOUT = "write the parameters as a .safetensors file, or as weights of half the size"
EPILOG = """\
FILE.npz becomes a file of weights: the parameters in 16 bits and the description of the run, without the state of the
optimizer. Every command that uses a checkpoint takes it; a training cannot go on from it.

FILE.safetensors holds every parameter in float32 under the name that `stg-np summary` and the code give it
(stm1.right.W, …, head.b), without the state of the optimizer. Its metadata are JSON texts: data (classes, and the mean
and std by which pixels are scaled), model, training, preset, version, step. Reading it in Python:

  from safetensors import safe_open
  with safe_open("digits.safetensors", framework="numpy") as file:
      W, model = file.get_tensor("head.W"), json.loads(file.metadata()["model"])

It needs a package of its own: pip install 'stg-np[safetensors]'.

examples:
  stg-np export runs/digits digits.npz
  stg-np export runs/digits digits.safetensors
"""

SUFFIX, WEIGHTS = ".safetensors", ".npz"


def add_options(parser: Any) -> None:
    """The checkpoint, and the file to write."""
    add_checkpoint(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write: .safetensors or .npz")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    target: Path = args.file
    name = showable(target)
    if target.suffix.lower() not in (SUFFIX, WEIGHTS):
        raise UsageError(f"{name} says not what to write: give it a name that ends in {SUFFIX} or {WEIGHTS}")
    if os.path.lexists(target) and not args.overwrite:
        raise UsageError(f"{name} is there already: replace it with --overwrite, or give another name")
    if target.suffix.lower() == WEIGHTS and os.path.lexists(target) and not weights.is_weights(target):
        raise UsageError(f"{name} is no file of weights (a checkpoint holds more): give another name")
    path, stored = chosen_state(args.checkpoint, "cpu")
    arrays = named_arrays(stored)
    if target.suffix.lower() == WEIGHTS:
        weights.save(target, stored)
    else:
        write_atomically(target, as_safetensors(arrays, metadata(stored)))
    count = sum(array.size for array in arrays.values())
    print(f"{name}: {len(arrays)} arrays, {count:,} numbers, from {showable(path)}")
    return OK


def as_safetensors(arrays: dict[str, Array], described: dict[str, str]) -> bytes:
    """The content of a file.

    Raises:
        UsageError: if the package is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise UsageError(f"safetensors is not installed ({error}): pip install 'stg-np[safetensors]'") from error
    content: bytes = save(arrays, described)
    return content


def named_arrays(stored: Stored) -> dict[str, Array]:
    """Parameters, and what the model keeps besides (running statistics), by the names of their layouts."""
    everything = stored.now.params.arrays() | stored.now.state
    return {name: np.ascontiguousarray(to_host(array), np.float32) for name, array in everything.items()}


def metadata(stored: Stored) -> dict[str, str]:
    """The description of the run, entry by entry as JSON."""
    described = stored.about.as_table() | counters_of(stored.now)
    return {name: json.dumps(value) for name, value in described.items()}
