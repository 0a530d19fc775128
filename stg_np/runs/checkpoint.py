"""Checkpoints: the description and the state of a run in one file; enough to use its model, or to go on training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, to_device
from stg_np.foreign import showable
from stg_np.models.base import Model
from stg_np.params import Layout, Params, State
from stg_np.runs import archive
from stg_np.runs.archive import CheckpointError
from stg_np.runs.description import About, about_from, from_table
from stg_np.train import TrainState

MOST_LAYERS = 1_000
"""Each is a dozen Python objects, however little it has to learn."""

LARGEST_ACTIVATIONS = 1 << 25
"""Numbers that the parts of a model put out for one example, together: with their gates, about a gigabyte."""


class Stored(NamedTuple):
    """What a checkpoint holds: a description of the run, and its state (on the device asked for)."""

    about: About
    now: TrainState


@dataclass(frozen=True)
class Counters:
    """What a state holds besides arrays: see :class:`~stg_np.train.TrainState`."""

    step: int
    best_accuracy: float
    improved_at: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.improved_at <= self.step or not 0 <= self.best_accuracy <= 1:
            raise ValueError("step, best_accuracy or improved_at is out of range")


def save(path: Path, about: About, now: TrainState) -> None:
    """Write a checkpoint, atomically.

    Raises:
        CheckpointError: if it cannot be written; an older file there is untouched.
    """
    archive.save(path, arrays_of(now), about.as_table() | counters_of(now))


def counters_of(now: TrainState) -> dict[str, Any]:
    """What a header says of a state: its :class:`Counters`."""
    return {field.name: getattr(now, field.name) for field in fields(Counters)}


def arrays_of(now: TrainState) -> dict[str, Array]:
    """The arrays of a state under the names that a checkpoint gives them."""
    return {
        "params": now.params.flat,
        **{f"state/{name}": array for name, array in now.state.items()},
        **{f"moments/{name}": array for name, array in now.moments.items()},
        "loss_sum": now.loss_sum,
        "correct": now.correct,
        "bad_step": now.bad_step,
    }


def load(path: Path, device: str | None = None) -> Stored:
    """Read a checkpoint: check its header, derive the sizes of its arrays from that, and only then read them.

    Args:
        path: a ``checkpoint.npz`` or ``best.npz``.
        device: where the arrays should be; None: on the device that the run was on.

    Raises:
        CheckpointError: if it is not a checkpoint, is damaged, or contradicts itself.
        DeviceError: if the device cannot be used.
    """
    header = archive.read_header(path)
    header.pop("format")
    about, counters, blank = understood(path, header, path.stat().st_size)
    expected = {name: (array.shape, array.dtype) for name, array in arrays_of(blank).items()}
    device = about.device if device is None else device
    arrays = {name: to_device(array, device) for name, array in finite_arrays(path, expected).items()}
    now = blank._replace(
        **vars(counters),
        params=blank.params.with_flat(arrays["params"]),
        state={name: arrays[f"state/{name}"] for name in blank.state},
        moments={name: arrays[f"moments/{name}"] for name in blank.moments},
        loss_sum=arrays["loss_sum"],
        correct=arrays["correct"],
        bad_step=arrays["bad_step"],
    )
    return Stored(about, now)


def finite_arrays(path: Path, expected: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, Array]:
    """See :func:`stg_np.runs.archive.load`; this package saves nothing that is not finite, so who uses it is misled.

    Raises:
        CheckpointError: if a number is not finite.
    """
    arrays = archive.load(path, expected)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path} holds what is not finite ({name}): its training diverged, use another one")
    return arrays


def understood(path: Path, header: dict[str, Any], room: int) -> tuple[About, Counters, TrainState]:
    """What a header says, and a state with the shapes that it calls for; ``room``: see :func:`blank_state`.

    Raises:
        CheckpointError: if it makes no sense.
    """
    try:
        counters = from_table(Counters, {f.name: header.pop(f.name) for f in fields(Counters) if f.name in header})
        about = about_from(header)
        return about, counters, blank_state(about, room)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{path} has a header that makes no sense: {showable(error, 400)}") from error


def blank_state(about: About, room: int) -> TrainState:
    """A state with the shapes and dtypes that the description calls for; its values mean nothing.

    Raises:
        ValueError: if the parameters need more than ``room`` bytes, which is known before memory is asked for.
    """
    refuse_endless(about.model, room)
    layout, state_layout = about.model.layout(), about.model.state_layout()
    if np.dtype(np.float32).itemsize * (layout.size + state_layout.size) > room:
        raise ValueError("the model that it describes is larger than the whole file")
    params = Params(layout, np.zeros(layout.size, np.float32))
    refuse_vast(about.model, params)
    moments = about.training.optimizer.init(params)
    return TrainState(params, zeros(state_layout), moments, 0, np.zeros(()), np.zeros(()), np.full((), -1), 0.0)


def zeros(layout: Layout) -> State:
    """The arrays of a layout, each by itself."""
    return {entry.name: np.zeros(entry.shape, np.float32) for entry in layout.entries}


def refuse_endless(model: Any, room: int) -> None:
    """A layout is a list of the model's arrays, and somebody may ask for a million million layers.

    Each layer costs a few numbers in the file; so what a model counts is smaller than ``room`` by far.
    """
    for field in fields(model):
        value = getattr(model, field.name)
        if isinstance(value, tuple) and len(value) > MOST_LAYERS:
            raise ValueError(f"model.{field.name} has {len(value):,} entries: {MOST_LAYERS:,} are the limit")
        most = MOST_LAYERS if field.name in ("layers", "depth") else 10_000 + room // 64
        if isinstance(value, int) and value > most:
            raise ValueError(f"model.{field.name} = {value:.2e} does not fit into a file of {room:,} bytes")


def refuse_unreadable(about: About) -> None:
    """Before hours of training, not after them: whether a checkpoint of this model could be read again.

    Raises:
        CheckpointError: if it could not.
    """
    layout = about.model.layout()
    try:
        refuse_vast(about.model, Params(layout, np.zeros(layout.size, np.float32)))
    except ValueError as error:
        raise CheckpointError(f"no checkpoint of this run could be read again: {error}") from error


def refuse_vast(model: Model, params: Params) -> None:
    """A few parameters can ask for any amount of memory: one per pixel of a picture that nobody has.

    Raises:
        ValueError: if one example needs more than :data:`LARGEST_ACTIVATIONS`.
    """
    needed = sum(prod(part.shape) for part in model.parts(params))
    if needed > LARGEST_ACTIVATIONS:
        raise ValueError(f"the model needs {needed:,} numbers for one example: {LARGEST_ACTIVATIONS:,} are the limit")
