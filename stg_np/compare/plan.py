"""Comparisons: models × seeds from a short list, trained alike, with the spread of what comes out.

A list is a TOML file (:data:`BUNDLED` holds those of the package)::

    about = "what the sweep is worth"
    preset = "cifar10-fast"
    seeds = [0, 1, 2]
    pictures = 20000                    # to train on; left out: all
    set.training.epochs = 3             # for everybody
    [[entry]]
    name = "as it is"
    [[entry]]
    name = "no sweep"
    set.model.sweeping = []

What is measured are the pictures that each seed holds out of the training pictures; with ``on = "test"`` nothing is
held out and the test pictures are measured, which is for a last look. An entry with ``of`` is not trained: it is the
trained network of another entry with something of the model changed.

So that no entry loses by a learning rate that was found for another, a list may have each entry's searched first::

    [search]
    factors = [0.25, 0.5, 1, 2, 4]      # of the preset's own rate: as many trials for everybody
    seeds = [100]                       # whose held-out pictures decide; the test pictures never do
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from stg_np.foreign import parse_toml, read_limited, showable
from stg_np.presets import PRESETS
from stg_np.runs.description import from_table
from stg_np.spelling import choose_from

BUNDLED = Path(__file__).parent / "lists"
"""The lists of the package, ``NAME.toml``."""
LARGEST_LIST = 10**6
"""Bytes of a list."""


class ComparisonError(Exception):
    """A list that cannot be understood, or results that are not its own; the message is one sentence."""


@dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Attributes:
        name: as it stands in the table.
        set: what differs from the preset, ``model`` and ``training``, by the names of a run's ``config.toml``.
        preset: another than that of the list. of: the entry whose trained networks this one tests.
    """

    name: str
    set: dict[str, Any] = field(default_factory=dict)
    preset: str = ""
    of: str = ""


@dataclass(frozen=True)
class Search:
    """The learning rates that are tried for every entry that is trained, before its seeds are.

    Attributes:
        factors: of the learning rate that the entry has by its preset and its changes.
        seeds: each factor is tried with all of them, and measured on the pictures that they hold out.
    """

    factors: tuple[float, ...]
    seeds: tuple[int, ...] = (100,)


@dataclass(frozen=True)
class Comparison:
    """A list, as it was read; see the top of this module.

    Attributes:
        about: what is compared, the title of the report. preset: of every entry that names no other.
        data: empty: that of the preset. seeds: of the draws and of the pictures held out; all for each entry.
        pictures: to train on, as many of each class; 0: all. on: what is measured. set: changes for every entry.
        search: of the learning rates; None: they are those of the presets.
    """

    about: str
    preset: str
    entries: tuple[Entry, ...] = ()
    data: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    pictures: int = 0
    on: Literal["validation", "test"] = "validation"
    set: dict[str, Any] = field(default_factory=dict)
    search: Search | None = None

    def preset_of(self, entry: Entry) -> str:
        """The name of the preset that an entry begins from."""
        return self.steps_to(entry)[0].preset or self.preset

    def changes_of(self, entry: Entry) -> list[dict[str, Any]]:
        """What differs from the preset, the later over the earlier."""
        return [self.set, *(step.set for step in self.steps_to(entry))]

    def steps_to(self, entry: Entry) -> list[Entry]:
        """The entry, and before it the one whose trained networks it tests, if there is one."""
        return [*(other for other in self.entries if other.name == entry.of), entry]


def bundled() -> list[str]:
    """The names of the lists of the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.toml"))


def read_comparison(name: str | PathLike[str]) -> Comparison:
    """A list of the package by its name, or a file.

    Raises:
        ComparisonError: if there is none, or it cannot be understood.
    """
    path = BUNDLED / f"{name}.toml" if str(name) in bundled() else Path(name)
    try:
        table = parse_toml(read_limited(path, LARGEST_LIST))
        entries = table.pop("entry", [])
        if not isinstance(entries, list):
            raise ValueError("entry: write [[entry]], with two brackets")
        made = tuple(from_table(Entry, entry) for entry in entries)
        return checked(replace(from_table(Comparison, table), entries=made))
    except FileNotFoundError:
        raise ComparisonError(
            f"there is no comparison {showable(name)}: {choose_from(str(name), bundled())}, or a .toml file of your own"
        ) from None
    except (ValueError, OSError) as error:
        raise ComparisonError(f"{showable(path)} is no list to compare by: {showable(error)}") from None


def checked(comparison: Comparison) -> Comparison:
    """The comparison, if its parts fit together.

    Raises:
        ValueError: if not; the message says what does not.
    """
    names = [entry.name for entry in comparison.entries]
    if not names or not comparison.seeds:
        raise ValueError("it needs an [[entry]] and a seed")
    if len(set(names)) < len(names) or len(set(comparison.seeds)) < len(comparison.seeds):
        raise ValueError("two entries have one name, or a seed stands there twice")
    if comparison.pictures < 0 or min(comparison.seeds) < 0:
        raise ValueError("pictures and seeds are at least 0")
    if comparison.search is not None:
        check_search(comparison.search)
    trained = [entry.name for entry in comparison.entries if not entry.of]
    for entry in comparison.entries:
        preset = comparison.preset_of(entry)
        if preset not in PRESETS:
            raise ValueError(f"there is no preset {showable(preset, 60)!r}: {choose_from(preset, PRESETS)}")
        if entry.of and entry.of not in trained:
            raise ValueError(
                f"{showable(entry.of, 60)!r} is no entry that is trained: {choose_from(entry.of, trained)}"
            )
        if unknown := {*entry.set, *comparison.set} - {"model", "training"}:
            raise ValueError(f"set.{showable(min(unknown), 60)} is neither set.model nor set.training")
        if entry.of and "training" in entry.set:
            raise ValueError(f"{showable(entry.name, 60)!r} is not trained, so set.training says nothing")
    return comparison


def check_search(search: Search) -> None:
    """Refuse a search in which nothing can be found.

    Raises:
        ValueError: as said.
    """
    if not search.factors or not search.seeds:
        raise ValueError("a search needs factors and seeds")
    if min(search.factors) <= 0 or min(search.seeds) < 0:
        raise ValueError("the factors of a search are above 0, and its seeds at least 0")
    if len(set(search.factors)) < len(search.factors) or len(set(search.seeds)) < len(search.seeds):
        raise ValueError("a factor or a seed stands twice in the search")
