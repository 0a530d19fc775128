"""A user's own settings: entries of the ``config.toml`` of a run, in such a file or by name (``model.width=128``).

A preset is a table of plain values, too. Others are laid over it; the whole is read as strictly as the description of
a run (:mod:`stg_np.runs.description`), so that whatever is accepted here is what will be trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from stg_np.data.augment import LARGEST_SIDE
from stg_np.foreign import parse_toml, read_limited, showable
from stg_np.models import MODELS
from stg_np.models.base import Model
from stg_np.optim import OPTIMIZERS
from stg_np.presets import Preset
from stg_np.runs.description import DataFacts, flattened, from_table, plain
from stg_np.runs.folder import LARGEST_CONFIG
from stg_np.spelling import choose_from, did_you_mean
from stg_np.train import TrainConfig

Table = dict[str, Any]

ELSEWHERE = {
    "preset": "--preset", "final": "--final", "device": "--device", "init_from": "--init-from", "data": "--data",
    "model.input_shape": "--data and --size", "model.classes": "--data",
}  # fmt: skip
"""What stands in a configuration and is no single setting, and the option that chooses it."""


@dataclass(frozen=True)
class Network:
    """What is trained: the model, as the entry of a table."""

    model: Model


@dataclass(frozen=True)
class Training:
    """How: the hyper-parameters, as the entry of a table."""

    training: TrainConfig


@dataclass(frozen=True)
class Choices:
    """What a configuration says besides: see :class:`~stg_np.runs.description.About`. None: nothing."""

    version: str | None = None
    preset: str | None = None
    final: bool = False
    device: str | None = None
    init_from: str | None = None
    data: DataFacts | None = None


@dataclass(frozen=True)
class Configuration:
    """What a file chooses, the entries of model and training in it, and the shape of the pictures it was made for."""

    choices: Choices
    changes: Table
    shape: tuple[int, ...] | None


def read_config(path: Path) -> Configuration:
    """The ``config.toml`` of a run, or a file that says less.

    Raises:
        ValueError: if it cannot be read, or is none.
    """
    try:
        return configuration(parse_toml(read_limited(path, LARGEST_CONFIG)))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}: name the config.toml of a run") from error
    except ValueError as error:
        raise ValueError(f"{path} is no configuration of a run: {showable(error, 400)}") from error


def configuration(table: Mapping[str, Any]) -> Configuration:
    """A whole description of a run, or a part of one, as what it changes.

    Raises:
        ValueError: naming the entry that is unknown, or of the wrong type.
    """
    settings = {name: table[name] for name in ("model", "training") if name in table}
    others = {name: value for name, value in table.items() if name not in settings}
    shape = None
    if isinstance(settings.get("model"), dict):  # what follows from the data is not taken from it
        model = {name: value for name, value in settings["model"].items() if name not in ("input_shape", "classes")}
        shape = settings["model"].get("input_shape")
        settings["model"] = model
    if shape is not None:
        sides = shape if isinstance(shape, list) and len(shape) in (2, 3) else [0]
        if not all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides):
            raise ValueError(f"model.input_shape cannot be {shape!r:.60}")
        shape = tuple(shape)
    return Configuration(from_table(Choices, others), settings, shape)


def parse_settings(texts: Sequence[str]) -> Table:
    """``["model.width=128", "training.optimizer=adamw"]`` as nested tables. A value is one of TOML, or else a text.

    Raises:
        ValueError: if one is of another form, or two contradict each other.
    """
    table: Table = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not (value and all(name.split("."))):
            raise ValueError(f"a setting is NAME=VALUE, like model.width=128, not {showable(text, 60)!r}")
        for other, option in ELSEWHERE.items():
            if f"{name}.".startswith(f"{other}."):
                raise ValueError(f"{showable(name, 60)} is chosen with {option}")
        put(table, name, parsed(value))
    return table


def parsed(text: str) -> Any:
    """A value of TOML (``True`` as well), or else the text as it is."""
    try:
        table = parse_toml(f"value = {text.lower() if text in ('True', 'False') else text}".encode())
    except ValueError:
        return text
    return table["value"] if len(table) == 1 else text


def put(table: Table, name: str, value: Any) -> None:
    """Put a value at a dotted name, in tables that are made on the way.

    A rule or model may be given by its kind alone: ``training.optimizer=adamw`` is ``training.optimizer.kind=adamw``.

    Raises:
        ValueError: if another value stands there.
    """
    *tables, last = name.split(".")
    for part in tables:
        inner = table.setdefault(part, {})
        table[part] = inner if isinstance(inner, dict) else {"kind": inner}
        table = table[part]
    if isinstance(table.get(last), dict) and not isinstance(value, dict):
        table, last = table[last], "kind"
    if last in table and table[last] != value:
        raise ValueError(f"{showable(name, 60)} is set twice, to {table[last]!r:.60} and to {value!r:.60}")
    table[last] = value


def of_preset(preset: Preset) -> Table:
    """A preset as a table: every field of its model but those that follow from the data, and its training."""
    model = blank(MODELS, preset.kind) | {name: plain(value) for name, value in preset.model.items()}
    return {"model": model, "training": plain(preset.config)}


def blank(registry: Mapping[str, Any], kind: str) -> Table:
    """A kind of model or rule as a table: the fields that have a default, with that."""
    table: Table = {"kind": kind}
    for each in fields(registry[kind]):
        if each.default_factory is not MISSING:
            table[each.name] = plain(each.default_factory())
        elif each.default is not MISSING:
            table[each.name] = plain(each.default)
    return table


def laid_over(base: Table, changes: Table, place: str = "") -> Table:
    """The base with other values; another ``kind`` of model or rule brings the defaults of that.

    Raises:
        ValueError: if there is no entry of a name, or no such kind.
    """
    kind = changes.get("kind")
    if "kind" in base and kind not in (None, base["kind"]):
        registry: Mapping[str, Any] = MODELS if place == "model." else OPTIMIZERS
        if kind not in list(registry):
            hint = choose_from(str(kind), registry)
            raise ValueError(f"there is no {place}kind {showable(kind, 60)!r}: {hint}")
        base = blank(registry, kind)
    new = dict(base)
    for name, value in changes.items():
        if name not in base:
            hint = did_you_mean(f"{place}{name}", [f"{place}{each}" for each, _ in flattened(base)])
            raise ValueError(
                f"{showable(place + name, 60)} is unknown: {hint}{place[:-1] or 'it'} has {', '.join(base)}"
            )
        if isinstance(base[name], dict):
            value = laid_over(base[name], value if isinstance(value, dict) else {"kind": value}, f"{place}{name}.")
        new[name] = value
    return new


def model_of(table: Table, shape: Sequence[int], classes: int) -> Model:
    """The model that a table describes, for pictures of ``shape`` in so many classes.

    Raises:
        ValueError: naming the entry that is impossible.
    """
    of_data = {"input_shape": list(shape), "classes": classes}
    return from_table(Network, {"model": table["model"] | of_data}).model


def training_of(table: Table) -> TrainConfig:
    """The hyper-parameters that a table describes.

    Raises:
        ValueError: naming the entry that is impossible.
    """
    try:
        return from_table(Training, {"training": table["training"]}).training
    except ValueError as error:
        name = str(error).partition(":")[0].removeprefix("training.")
        words = get_args(get_type_hints(TrainConfig).get(name)) if "enum value" in str(error) else ()
        raise ValueError(f"{error}: use one of {', '.join(words)}" if words else str(error)) from None
