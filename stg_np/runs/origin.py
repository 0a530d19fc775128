"""What a run may begin with instead of random numbers: the parameters of another one (``--init-from``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stg_np.backend import Array, to_device
from stg_np.presets import PRESETS
from stg_np.runs.archive import CheckpointError
from stg_np.runs.checkpoint import Stored
from stg_np.runs.chosen import chosen_state
from stg_np.runs.description import About
from stg_np.runs.settings import Configuration, configuration
from stg_np.train import Run, TrainState


@dataclass(frozen=True)
class Origin:
    """A checkpoint to begin with, on the host."""

    path: Path
    stored: Stored

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with any parameter."""
        return hashlib.sha256(self.stored.now.params.flat.tobytes()).hexdigest()[:8]

    @property
    def configuration(self) -> Configuration:
        """The settings of its run, which the new one has, too, unless it is told others."""
        table = self.stored.about.as_table()
        names = ("data", "model", "training", *(["preset"] if table["preset"] in PRESETS else []))
        return configuration({name: table[name] for name in names})


def read_origin(path: Path) -> Origin:
    """A checkpoint, or the state to use of the run in a folder.

    Raises:
        CheckpointError, RunError: see :func:`~stg_np.runs.chosen.chosen_state`.
    """
    return Origin(*chosen_state(path, "cpu"))


def begun_with(origin: Origin, run: Run, about: About, drawn: TrainState) -> tuple[TrainState, list[str]]:
    """The first state of a run with the parameters of a checkpoint, and what should be said about it.

    The head stays as it was drawn where the classes are other ones. The optimizer begins anew.

    Raises:
        CheckpointError: if the architecture is another one; it names the first array that differs.
    """
    old, now = origin.stored
    groups = {entry.name.rpartition(".")[0] for entry in drawn.params.layout.entries if entry.role == "head"}
    new_head = old.data.classes != about.data.classes
    kept, wanted = (
        {
            name: array
            for name, array in state.params.arrays().items()
            if not (new_head and name.rpartition(".")[0] in groups)
        }
        for state in (now, drawn)
    )
    refuse_other_shapes(origin.path, kept | now.state, wanted | drawn.state)
    params = drawn.params.replaced({name: to_device(array, run.device) for name, array in kept.items()})
    state = {name: to_device(array, run.device) for name, array in now.state.items()}
    notes = [f"begins with the parameters of {origin.path} (trained on {old.data.label}, step {now.step:,})"]
    if new_head:
        notes.append(f"the head is drawn anew, for the classes {', '.join(about.data.classes)}"[:300])
    if has_seen_held_out(old, about):
        notes.append("among what is held out or tested here are pictures that those parameters were trained on")
    return drawn._replace(params=params, state=state), notes


def has_seen_held_out(old: About, new: About) -> bool:
    """Whether the older run learned from the same pictures, but held out others."""
    splits = [(about.final, about.training.seed, about.data.split_seed) for about in (old, new)]
    held_out = not new.final or old.data.split_seed != new.data.split_seed
    return old.data.fingerprint == new.data.fingerprint and held_out and splits[0] != splits[1]


def refuse_other_shapes(path: Path, found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Raise a CheckpointError unless arrays have the names and shapes that a model calls for."""
    for name in [*wanted, *found]:
        there, here = (
            "×".join(map(str, arrays[name].shape)) if name in arrays else "missing" for arrays in (found, wanted)
        )
        if there != here:
            raise CheckpointError(
                f"{path} does not fit: its {name} is {there}, and here it is {here}: leave out what changes the model "
                "(--preset, --config, --set model…), or give pictures of the size that it was trained on (--size)"
            )
