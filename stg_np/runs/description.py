"""What a run is: :class:`About`, the header of every checkpoint and the content of ``config.toml``.

A description that comes from outside is text that somebody sent: every value is checked before it is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

from stg_np.backend import DEVICES
from stg_np.data.augment import Scaling
from stg_np.foreign import check_leaves, refuse_unshowable, showable
from stg_np.models import MODELS
from stg_np.models.base import Model
from stg_np.optim import OPTIMIZERS, Optimizer
from stg_np.train import TrainConfig

REGISTRIES: dict[Any, Mapping[str, Any]] = {Model: MODELS, Optimizer: OPTIMIZERS}
"""Fields of these types hold one of several dataclasses; their tables say which one, by name, as ``kind``."""

DEEPEST = 10
"""Tables inside tables."""

TableT = TypeVar("TableT")


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
            raise ValueError("mean, std and value_range are not a scaling of pixels")

    @property
    def scaling(self) -> Scaling:
        """How the pixels were, and must be, scaled."""
        return Scaling(np.array(self.mean), np.array(self.std), self.value_range)


@dataclass(frozen=True)
class About:
    """What a run trains: the preset it began from, its data, its model and its hyper-parameters.

    ``final``: on all training pictures, with none held out. ``version``: of the package that began the run.
    ``init_from``: the fingerprint of the parameters that it began with; None: they were drawn.
    """

    version: str
    preset: str
    final: bool
    device: str
    data: DataFacts
    model: Model
    training: TrainConfig
    init_from: str | None = None

    def __post_init__(self) -> None:
        if len(self.data.classes) != self.model.classes or len(self.data.mean) != self.model.input_shape[-1]:
            raise ValueError("data.classes and data.mean do not fit the model")
        if math.prod(self.model.input_shape) > 10**8:
            raise ValueError("model.input_shape is larger than any example")
        if self.device not in DEVICES:
            raise ValueError(f"device is one of {', '.join(DEVICES)}, not {self.device!r:.60}")

    def as_table(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON; the reverse of :func:`about_from`."""
        table: dict[str, Any] = plain(self)
        return table


def plain(value: Any) -> Any:
    """A dataclass as a table, with its ``kind`` if a registry names it; a tuple as a list; the rest as it is.

    Raises:
        TypeError: if a model or an optimizer is in no registry: what is written down could never be read again.
    """
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if not is_dataclass(value):
        return value
    kinds = {kind: name for registry in REGISTRIES.values() for name, kind in registry.items()}
    if type(value) not in kinds and isinstance(value, tuple(REGISTRIES)):
        raise TypeError(f"{type(value).__name__} is in no registry (MODELS, OPTIMIZERS): give it a name there")
    kind = {"kind": kinds[type(value)]} if type(value) in kinds else {}
    return kind | {field.name: plain(getattr(value, field.name)) for field in fields(value)}


def about_from(values: Mapping[str, Any]) -> About:
    """The reverse of :meth:`About.as_table`, for values that came from outside.

    Raises:
        ValueError: naming the first entry that is missing, unknown, or of the wrong type.
    """
    return from_table(About, values)


def from_table(kind: type[TableT], values: Any) -> TableT:
    """A dataclass from a table of plain values, each of exactly the type of its field (a whole number is a float, too).

    What is understood must be what was said: an entry that no field takes is refused as well.

    Raises:
        ValueError: naming the entry.
    """
    import msgspec

    check_leaves(values)
    try:
        made = msgspec.convert(values, kind, dec_hook=of_a_kind)
    except msgspec.ValidationError as error:
        raise ValueError(reworded(str(error))) from None
    understood = dict(flattened(plain(made)))
    for name, value in flattened(values):
        if name not in understood:
            raise ValueError(f"{showable(name, 60)} is unknown")
        if understood[name] != value or not finite(value):
            raise ValueError(f"{name} cannot be {value!r:.60}")
        for text in texts(value):
            refuse_unshowable(text)
    return made


def of_a_kind(field: Any, table: Any) -> Any:
    """What msgspec asks for a type it does not know: the dataclass that the table's ``kind`` names."""
    registry = REGISTRIES[field]
    name = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"kind is one of {', '.join(registry)}, not {name!r:.60}")
    import msgspec

    try:
        return msgspec.convert({k: v for k, v in table.items() if k != "kind"}, registry[name], dec_hook=of_a_kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None  # msgspec adds where this table stands


def reworded(message: str) -> str:
    """``Expected `int`, got `str` - at `$.width` - at `$.model``` as ``model.width: expected int, got str``."""
    places = re.findall(r" - at `\$([^`]*)`", message)
    what = re.sub(r" - at `\$[^`]*`", "", message).replace("`", "")
    where = showable("".join(reversed(places)).lstrip("."))
    return f"{where}: {showable(what[:1].lower() + what[1:], 300)}" if where else showable(what, 300)


def finite(value: Any) -> bool:
    """Whether a leaf of a table holds no NaN and no infinity."""
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def texts(value: Any) -> list[str]:
    """The texts in a leaf of a table."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]


def flattened(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The leaves of nested tables under dotted names.

    Raises:
        ValueError: if they are nested more deeply than any description.
    """
    if depth > DEEPEST:
        raise ValueError(f"{showable(prefix, 60)} holds too many tables inside tables")
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", value


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is None is left out, at every level."""
    return {
        name: without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
