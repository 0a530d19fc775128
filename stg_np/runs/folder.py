"""A run's folder: ``config.toml``, ``metrics.jsonl``, ``checkpoint.npz`` (the last state) and ``best.npz``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stg_np.foreign import parse_json, parse_toml, read_limited, showable
from stg_np.runs import archive, checkpoint
from stg_np.runs.archive import CheckpointError
from stg_np.runs.description import About, flattened, without_none
from stg_np.train import Record, TrainState

LARGEST_CONFIG = 1 << 18
LARGEST_METRICS = 1 << 27
"""Bytes that are read of these files."""


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

        The operating system lets go of the lock when this process ends, in whatever way; the file ``.lock`` stays.

        Raises:
            CheckpointError: if another training is going on here, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        with one_sentence(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
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
    def has_progress(self) -> bool:
        """Whether a run in this folder has made a step that would be lost."""
        if not self.last.exists():
            return False
        try:
            return bool(archive.read_header(self.last).get("step") != 0)
        except CheckpointError:
            return True  # whatever it is, it is not ours to remove

    def begin(self, about: About, now: TrainState) -> None:
        """Remove what an older run left here, and save the state before the first step.

        Saving at once finds a missing permission or a full disk before hours of training do.
        """
        checkpoint.refuse_unreadable(about)
        with one_sentence(self.path):
            for old in (self.last, self.best, self.metrics, self.curves, self.confusion):
                old.unlink(missing_ok=True)
        self.write_config(about)
        checkpoint.save(self.last, about, now)

    def write_config(self, about: About) -> None:
        """Write ``config.toml``."""
        import tomli_w

        text = f"# a run of stg-np {about.version}: what was trained on what; written by `stg-np train`\n"
        archive.write_atomically(self.config, (text + tomli_w.dumps(without_none(about.as_table()))).encode())

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
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records so far; a line that was cut off by a full disk or a power cut is left out."""
        if not self.metrics.exists():
            return []
        try:
            lines = read_limited(self.metrics, LARGEST_METRICS).decode(errors="replace").split("\n")
        except OSError as error:
            raise CheckpointError(f"cannot read {self.metrics}: {error.strerror}: move it away") from error
        return [record for record in map(parsed, lines) if record is not None]

    def forget_after(self, step: int) -> None:
        """Drop the records of steps that the checkpoint does not know of, and of the test."""
        kept = [line for line in self.read_metrics() if line["step"] <= step and line["kind"] != "test"]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        archive.write_atomically(self.metrics, text.encode())


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
