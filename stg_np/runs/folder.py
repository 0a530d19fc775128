"""A run's folder: ``config.toml``, ``metrics.jsonl``, ``checkpoint.npz`` (the last state) and ``best.npz``.

:class:`About` says what was trained on what. It is the header of every checkpoint, so a checkpoint is enough to use
the model or to go on with its training, and it is ``config.toml``, for people. A header is text that somebody sent:
every value is checked before it is used.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from stg_np.backend import DEVICES, Array, to_device
from stg_np.models.stg import STG
from stg_np.runs import checkpoint
from stg_np.runs.checkpoint import CheckpointError
from stg_np.train import Record, Scaling, TrainConfig, TrainState

MODELS: dict[str, type[Any]] = {"stg": STG}
"""The kinds of model that a checkpoint may hold."""

KindT = TypeVar("KindT")


@dataclass(frozen=True)
class DataFacts:
    """The data set that a run learned from, and the scaling of its pixels (mean and std per channel)."""

    name: str
    label: str
    fingerprint: str
    official: bool
    flip: bool
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: int
    split_seed: int | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) or min(self.std, default=0) <= 0 or not 1 <= self.value_range <= 255:
            raise ValueError("data.mean, data.std and data.value_range are not a scaling of pixels")

    @property
    def scaling(self) -> Scaling:
        """How the pixels were, and must be, scaled."""
        return Scaling(np.array(self.mean), np.array(self.std), self.value_range)


@dataclass(frozen=True)
class About:
    """What a run trains: the preset it began from, its data, its model and its hyper-parameters.

    ``final``: on all training pictures, with none held out. ``version``: of the package that began the run.
    """

    version: str
    preset: str
    final: bool
    device: str
    data: DataFacts
    model: STG
    training: TrainConfig

    def __post_init__(self) -> None:
        if len(self.data.classes) != self.model.classes or len(self.data.mean) != self.model.input_shape[-1]:
            raise ValueError("data.classes and data.mean do not fit the model")
        if math.prod(self.model.input_shape) > 10**8:
            raise ValueError("model.input_shape is larger than any example")
        if self.device not in DEVICES:
            raise ValueError(f"device is one of {', '.join(DEVICES)}, not {self.device!r:.60}")

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        kind = next(name for name, kind in MODELS.items() if isinstance(self.model, kind))
        return asdict(self) | {"model": {"kind": kind, **asdict(self.model)}}


class Stored(NamedTuple):
    """What a checkpoint holds: a description of the run, and its state (on the device asked for)."""

    about: About
    now: TrainState


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Every writing method raises :class:`CheckpointError` in one sentence."""

    path: Path

    @property
    def config(self) -> Path:
        """What the run is, for people."""
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        """One JSON object a line, one line a record."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The newest state: what ``--resume`` goes on from."""
        return self.path / "checkpoint.npz"

    @property
    def best(self) -> Path:
        """The state with the best validation accuracy; not written with ``--final``."""
        return self.path / "best.npz"

    @property
    def curves(self) -> Path:
        """Loss and accuracy over the epochs, as a picture."""
        return self.path / "curves.png"

    @property
    def confusion(self) -> Path:
        """The confusion matrix of the test, as a picture."""
        return self.path / "confusion.png"

    @property
    def chosen(self) -> Path:
        """The state to test and to use: the best where there is one, else the last."""
        return self.best if self.best.exists() else self.last

    @property
    def has_progress(self) -> bool:
        """Whether a run in this folder has made a step that would be lost."""
        if not self.last.exists():
            return False
        try:
            return bool(checkpoint.read_header(self.last).get("step") != 0)
        except CheckpointError:
            return True  # whatever it is, it is not ours to remove

    def begin(self, about: About, now: TrainState) -> None:
        """Make the folder, remove what an older run left there, and save the state before the first step.

        Saving at once finds a missing permission or a full disk before hours of training do.
        """
        with one_sentence(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for old in (self.last, self.best, self.metrics, self.curves, self.confusion):
                old.unlink(missing_ok=True)
        self.write_config(about)
        save(self.last, about, now)

    def write_config(self, about: About) -> None:
        """Write ``config.toml``."""
        import tomli_w

        text = f"# a run of stg-np {about.version}: what was trained on what; written by `stg-np train`\n"
        checkpoint.write_atomically(self.config, (text + tomli_w.dumps(without_none(about.as_dict()))).encode())

    def check_config(self, about: About) -> None:
        """Compare ``config.toml`` with what the checkpoint says: an edit on the way would be ignored in silence.

        Raises:
            CheckpointError: naming the first entry that differs.
        """
        try:
            with self.config.open("rb") as file:
                written = dict(flattened(tomllib.load(file)))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {self.config} ({error}): mend it, or remove it") from error
        begun = dict(flattened(without_none(about.as_dict())))
        for name in sorted(written.keys() | begun.keys()):
            if written.get(name) != begun.get(name):
                raise CheckpointError(
                    f"{self.config} says {name} = {written.get(name)!r}, but the run was begun with "
                    f"{begun.get(name)!r}: put that back, or begin another run with --out"
                )

    def append(self, values: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        with one_sentence(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records so far; a line that was cut off by a full disk or a power cut is left out."""
        if not self.metrics.exists():
            return []
        with one_sentence(self.metrics):
            lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        return [record for record in map(parsed, lines) if record is not None]

    def forget_after(self, step: int) -> None:
        """Drop the records of steps that the checkpoint does not know of, and of the test."""
        kept = [line for line in self.read_metrics() if line["step"] <= step and line["kind"] != "test"]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        checkpoint.write_atomically(self.metrics, text.encode())


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses at ``path`` into a :class:`CheckpointError`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}: free some space, or choose another folder with --out"
        ) from error


def metrics_line(record: Record, label: str) -> dict[str, Any]:
    """A record of training as plain values, with the name of the data that its accuracies belong to."""
    values = record._asdict() | {"data": label}
    del values["now"]
    return values


def parsed(line: str) -> dict[str, Any] | None:
    """One line of ``metrics.jsonl``; None if it is not a whole record."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int) and "kind" in record
    return record if whole else None


# ------------------------------------------------------------------------------------------------ checkpoints


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


def save(path: Path, about: About, now: TrainState) -> None:
    """Write a checkpoint, atomically.

    Raises:
        CheckpointError: if it cannot be written; an older file there is untouched.
    """
    header = about.as_dict() | {"step": now.step, "best_accuracy": now.best_accuracy}
    checkpoint.save(path, arrays_of(now), header)


def load(path: Path, device: str | None = None) -> Stored:
    """Read a checkpoint: check its header, rebuild its model, and only then read its arrays.

    Args:
        path: a ``checkpoint.npz`` or ``best.npz``.
        device: where the arrays should be; None: on the device that the run was on.

    Raises:
        CheckpointError: if it is not a checkpoint, is damaged, or contradicts itself.
        DeviceError: if the device cannot be used.
    """
    header = checkpoint.read_header(path)
    header.pop("format")
    try:
        step = converted(header.pop("step", None), int, "step")
        best_accuracy = converted(header.pop("best_accuracy", None), float, "best_accuracy")
        if step < 0 or not 0 <= best_accuracy <= 1:
            raise ValueError("step and best_accuracy are out of range")
        about = about_from(header)
        blank = blank_state(about, path.stat().st_size // 4)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{path} has a header that makes no sense: {error}") from error
    expected = {name: (array.shape, array.dtype) for name, array in arrays_of(blank).items()}
    arrays = checkpoint.load(path, expected)
    device = about.device if device is None else device
    moved = {name: to_device(array, device) for name, array in arrays.items()}
    now = TrainState(
        params=blank.params.with_flat(moved["params"]),
        state={name: moved[f"state/{name}"] for name in blank.state},
        moments={name: moved[f"moments/{name}"] for name in blank.moments},
        step=step,
        loss_sum=moved["loss_sum"],
        correct=moved["correct"],
        bad_step=moved["bad_step"],
        best_accuracy=best_accuracy,
    )
    return Stored(about, now)


def blank_state(about: About, ration: int) -> TrainState:
    """A state with the shapes and dtypes that the description calls for; its values mean nothing.

    Raises:
        ValueError: if the model has more than ``ration`` random numbers in it.
    """
    params, state = about.model.init(RationedGenerator(ration))
    moments = about.training.make_optimizer().init(params)
    return TrainState(params, state, moments, 0, np.zeros(()), np.zeros(()), np.full((), -1), 0.0)


class RationedGenerator(np.random.Generator):
    """Gives out a limited number of numbers, so that a forged header cannot ask for terabytes of parameters."""

    def __init__(self, ration: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.left = ration

    def take(self, size: Any) -> None:
        """Count what is about to be drawn."""
        self.left -= math.prod(size) if isinstance(size, tuple) else int(size or 1)
        if self.left < 0:
            raise ValueError("the model that it describes is larger than the whole file")

    def standard_normal(self, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As NumPy's."""
        self.take(size)
        return super().standard_normal(size, *args, **kwargs)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """As NumPy's."""
        self.take(size)
        return super().uniform(low, high, size)


# -------------------------------------------------------------------------------------- from plain values and back


def about_from(values: Mapping[str, Any]) -> About:
    """The reverse of :meth:`About.as_dict`, for values that came from outside.

    Raises:
        ValueError: naming the first entry that is missing, unknown, or of the wrong type.
    """
    model = values.get("model")
    if not isinstance(model, dict) or model.get("kind") not in list(MODELS):
        raise ValueError(f"model.kind is none of {', '.join(MODELS)}")
    return build(About, {**values, "model": {name: value for name, value in model.items() if name != "kind"}}, "")


def build(kind: type[KindT], values: Any, where: str) -> KindT:
    """A dataclass from a mapping of plain values, each checked against the type of its field."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is not a table")
    hints = get_type_hints(kind)
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
    odd = sorted((values.keys() - hints.keys()) | (needed - values.keys()))
    if odd:
        raise ValueError(f"{where or 'it'} has unknown or missing entries: {', '.join(odd[:5])}")
    return kind(
        **{name: converted(value, hints[name], f"{where}.{name}".lstrip(".")) for name, value in values.items()}
    )


def converted(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type ``hint`` (lists become tuples, whole numbers floats), or a ValueError that says where."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin in (Union, UnionType):  # X | None
        return None if value is None else converted(value, arguments[0], where)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(converted(item, kind, where) for item, kind in zip(value, kinds))
    if hint is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif (origin is Literal and value in arguments) or type(value) is hint:
        return value
    raise ValueError(f"{where} cannot be {value!r:.60}")


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is None is left out, at every level, and tuples become lists."""
    return {
        name: without_none(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
