"""A run's folder: ``config.toml``, ``metrics.jsonl``, ``checkpoint.npz`` (the last state) and ``best.npz``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stg_np.foreign import parse_json, parse_toml, read_limited, showable
from stg_np.runs import archive, checkpoint
from stg_np.runs.archive import CheckpointError
from stg_np.runs.description import About, flattened, without_none
from stg_np.strict_json import to_json
from stg_np.train import Record, TrainState

LARGEST_CONFIG = 1 << 18
LARGEST_METRICS = 1 << 27
"""Bytes that are read of these files."""
LOCK = ".stg-np.lock"
"""The file by which a training keeps others out: a name that nobody else's file has."""
REPLACED = ".replaced"
"""Folders of this name, in the folder of a run, keep what ``--overwrite`` replaces until the new run has ended."""


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

    def names(self) -> list[str]:
        """The files in the folder, but for hidden ones."""
        return sorted(path.name for path in self.path.iterdir() if path.is_file() and not path.name.startswith("."))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep every other training out of it.

        The operating system lets go of the lock when this process ends, in whatever way; the file
        :data:`LOCK` stays.

        Raises:
            CheckpointError: if another training is going on here, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        with one_sentence(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise CheckpointError(
                    f"another training is going on in {self.path}: wait until it ends, or choose another --out"
                ) from None
            except NotImplementedError:
                pass  # a file system without locks
        try:
            yield
        finally:
            lock.release()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a run writes."""
        return (self.config, self.metrics, self.last, self.best, self.curves, self.confusion)

    def present(self) -> list[str]:
        """The names of those files that are there, whoever wrote them."""
        return sorted(path.name for path in self.files if os.path.lexists(path))

    def would_be_lost(self) -> list[str]:
        """What a new run in this folder would destroy: all that is present, if there is more than a run's beginning."""
        return [] if self.is_a_beginning() else self.present()

    def is_a_beginning(self) -> bool:
        """Whether there is no more than what :meth:`begin` writes again: no step that was saved, nothing of others."""
        if not set(self.present()) <= {path.name for path in (self.config, self.metrics, self.last)}:
            return False
        if not self.last.exists():
            return not self.present()
        try:
            records = [parsed(line) for line in self.metrics_lines()]
        except CheckpointError:
            return False
        return self.is_unedited() and all(record is not None and record["kind"] == "step" for record in records)

    def is_unedited(self, *, begun: bool = True) -> bool:
        """Whether ``checkpoint.npz`` is one, and ``config.toml`` what was written with it.

        ``begun``: only if no step of it was saved.
        """
        try:
            stored = checkpoint.load(self.last, "cpu")
            written = read_limited(self.config, LARGEST_CONFIG) if os.path.lexists(self.config) else None
        except (CheckpointError, OSError, ValueError):
            return False  # whatever it is, it is not ours to remove
        return not (begun and stored.now.step) and written in (None, config_text(stored.about))

    def begin(self, about: About, now: TrainState) -> Path | None:
        """Save the state before the first step, in place of what is there; return where that was put, if it was a loss.

        Saving at once finds a missing permission or a full disk before hours of training do. Then everything is as
        before.
        """
        checkpoint.refuse_unreadable(about)
        aside = self.set_aside() if self.would_be_lost() else None
        try:
            with one_sentence(self.path):
                self.metrics.unlink(missing_ok=True)
            checkpoint.save(self.last, about, now)
            self.write_config(about)
        except BaseException:
            self.put_back(aside)
            raise
        return aside

    def set_aside(self) -> Path:
        """Move the files of a run into a folder of their own, which takes no room on the disk."""
        number = 1
        while os.path.lexists(aside := self.path / (REPLACED if number == 1 else f"{REPLACED}-{number}")):
            number += 1
        with one_sentence(self.path):
            aside.mkdir()
            try:
                for name in self.present():
                    os.replace(self.path / name, aside / name)
            except BaseException:
                for name in RunFolder(aside).present():
                    os.replace(aside / name, self.path / name)
                aside.rmdir()
                raise
        return aside

    def put_back(self, aside: Path | None) -> None:
        """Undo a beginning: the files of the new run go, and those that were set aside come back."""
        if aside is None:
            return
        with one_sentence(self.path):
            old = RunFolder(aside).present()
            for path in self.files:
                if path.name in old:
                    os.replace(aside / path.name, path)
                else:
                    path.unlink(missing_ok=True)
            aside.rmdir()

    def replaced(self) -> list[RunFolder]:
        """What was set aside for this run, or for one before it that did not end."""
        ours = re.compile(rf"{re.escape(REPLACED)}(-\d+)?")  # not .replaced_but_wanted, which somebody else made
        found = (path for path in self.path.glob(f"{REPLACED}*") if ours.fullmatch(path.name))
        return sorted(map(RunFolder, found), key=lambda folder: folder.path)

    def discard_replaced(self) -> None:
        """Remove the runs that were set aside, now that this one has ended. What is no whole run of ours stays."""
        with one_sentence(self.path):
            for old in self.replaced():
                if old.is_unedited(begun=False):
                    for path in old.files:
                        path.unlink(missing_ok=True)
                    old.path.rmdir()

    def write_config(self, about: About) -> None:
        """Write ``config.toml``."""
        archive.write_atomically(self.config, config_text(about))

    def check_config(self, about: About) -> None:
        """Compare ``config.toml`` with what the checkpoint says: an edit on the way would be ignored in silence.

        Raises:
            CheckpointError: naming the first entry that differs.
        """
        try:
            written = dict(flattened(parse_toml(read_limited(self.config, LARGEST_CONFIG))))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CheckpointError(f"cannot read {self.config} ({showable(reason)}): mend it, or remove it") from error
        begun = dict(flattened(without_none(about.as_table())))
        for name in sorted(written.keys() | begun.keys()):
            if written.get(name) != begun.get(name):
                raise CheckpointError(
                    f"{self.config} says {showable(name, 60)} = {written.get(name)!r:.200}, but the run was begun with "
                    f"{begun.get(name)!r:.200}: put that back, or begin another run with --out"
                )

    def append(self, values: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        with one_sentence(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(to_json(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records so far; a line that was cut off by a full disk or a power cut is left out."""
        return [record for record in map(parsed, self.metrics_lines()) if record is not None]

    def metrics_lines(self) -> list[str]:
        """The lines of ``metrics.jsonl``, whatever they are."""
        if not self.metrics.exists():
            return []
        try:
            content = read_limited(self.metrics, LARGEST_METRICS)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.metrics}: {error.strerror}: move it away") from error
        return content.decode(errors="replace").removesuffix("\n").split("\n") if content else []

    def forget_after(self, step: int) -> None:
        """Drop the records of steps that the checkpoint does not know of, and of the test."""
        kept = [line for line in self.read_metrics() if line["step"] <= step and line["kind"] != "test"]
        text = "".join(to_json(line) + "\n" for line in kept)
        archive.write_atomically(self.metrics, text.encode())


def config_text(about: About) -> bytes:
    """What ``config.toml`` holds."""
    import tomli_w

    text = f"# a run of stg-np {about.version}: what was trained on what; written by `stg-np train`\n"
    return (text + tomli_w.dumps(without_none(about.as_table()))).encode()


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
        record = parse_json(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int) and "kind" in record
    return record if whole else None
