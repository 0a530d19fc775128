"""``stg-np summary``: the layers of a model, untrained or from a checkpoint."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from stg_np.commands import OK
from stg_np.commands.options import network
from stg_np.runs.chosen import chosen_state

ABOUT = "layers with shapes, parameters, multiply-adds and time scales"
EPILOG = ""


def add_options(parser: Any) -> None:
    """A checkpoint or a preset."""
    from stg_np.presets import PRESETS

    which = parser.add_mutually_exclusive_group()
    which.add_argument("checkpoint", nargs="?", type=network, metavar="CHECKPOINT", help="a trained model")
    names = f"an untrained model: {', '.join(PRESETS)} (default: digits)"
    which.add_argument("--preset", choices=list(PRESETS), metavar="NAME", help=names)


def run(args: argparse.Namespace) -> int:
    """The layers of a preset's model, or of a checkpoint's."""
    from stg_np.data import source
    from stg_np.presets import PRESETS
    from stg_np.summary import summary_text

    if args.checkpoint is not None:
        path, (about, now) = chosen_state(args.checkpoint, "cpu")
        print(f"{path}: preset {about.preset}, trained on {about.data.label}, state after step {now.step:,}")
        print(summary_text(about.model, now.params))
        return OK
    name = args.preset or "digits"
    info = source(PRESETS[name].data).INFO
    model = PRESETS[name].make_model(info.shape, len(info.classes))
    print(f"preset {name} on {info.name}: {PRESETS[name].about}")
    print(summary_text(model, model.init(np.random.default_rng(0))[0]))
    return OK
