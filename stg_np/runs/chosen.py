"""Which state of a run is the one to use: its best, if that is its own, or else its last."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from stg_np.runs import checkpoint, weights
from stg_np.runs.checkpoint import Stored
from stg_np.runs.folder import RunFolder


class RunError(Exception):
    """A run cannot be made, resumed or used as was asked; the message is one sentence."""


def chosen_state(path: Path, device: str | None = None) -> tuple[Path, Stored]:
    """A checkpoint or a file of weights; of a folder, the state to use of the run in it. Which file, and what it holds.

    Raises:
        CheckpointError: if it cannot be read. RunError: if the ``best.npz`` of the folder is of another run.
    """
    if not path.is_dir():
        return path, weights.load(path, device)
    folder = RunFolder(path)
    if not folder.last.exists():  # somebody has kept the best one alone
        return folder.chosen, checkpoint.load(folder.chosen, device)
    last = checkpoint.load(folder.last, device)
    best = best_of(folder, last, device)
    return (folder.last, last) if best is None else (folder.best, best)


def best_of(folder: RunFolder, last: Stored, device: str | None) -> Stored | None:
    """The best state of the run whose last one is given; None if no file is there.

    Both hold the same description (of data, model and settings) and the same best accuracy. Where the power failed
    between the two files, the best one is ahead.

    Raises:
        CheckpointError: if it cannot be read. RunError: if it is of another run.
    """
    if not os.path.lexists(folder.best):
        return None
    best = checkpoint.load(folder.best, device)
    accuracies = best.now.best_accuracy, last.now.best_accuracy
    fits = accuracies[0] >= accuracies[1] if best.now.step > last.now.step else accuracies[0] == accuracies[1]
    if last.about.final or replace(best.about, device=last.about.device) != last.about or not fits:
        raise RunError(
            f"{folder.best} is not of the run in {folder.last.name} beside it: move it to another folder "
            "(without it the last state is tested)"
        )
    return best
