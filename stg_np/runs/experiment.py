"""An experiment: a run with its data, its description and its folder. ``stg-np train``, from Python::

    with make_run("digits", epochs=10) as experiment, Threads() as engine:
        records = list(experiment.train(engine))
        print(experiment.test(engine).accuracy)

Where a text says ``--out`` or ``--data-dir``, here these are the arguments ``out`` and ``data_dir``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

import stg_np
from stg_np.backend import Array, array_module, to_host
from stg_np.data import Dataset, is_own, load, portable_name, random_split, source
from stg_np.data.augment import channel_statistics, validation_split
from stg_np.data.sequences import HELD_OUT
from stg_np.divergence import TrainingError, refuse_divergence, refuse_infinite_state
from stg_np.engine import Engine
from stg_np.foreign import showable
from stg_np.optim import with_learning_rate
from stg_np.presets import DEFAULT_PRESET, PRESETS
from stg_np.runs import checkpoint
from stg_np.runs.archive import CheckpointError, write_atomically
from stg_np.runs.checkpoint import Stored
from stg_np.runs.chosen import RunError, best_of
from stg_np.runs.description import About, DataFacts, flattened
from stg_np.runs.folder import RunFolder, metrics_line
from stg_np.runs.origin import begun_with, read_origin
from stg_np.runs.scores import Scores, score
from stg_np.runs.settings import (
    Choices,
    Configuration,
    Table,
    laid_over,
    model_of,
    of_preset,
    put,
    read_config,
    training_of,
)
from stg_np.spelling import choose_from
from stg_np.train import Examples, Record, Run, TrainState, fit, initial_state, prepare

VALIDATION = 0.1
"""The share of the training pictures that is held out, for the epoch metrics and for the choice of the best."""

SETTINGS = ("epochs", "seed", "batch_size", "learning_rate", "patience")
"""What may differ from the preset. The learning rate is that of the matrices; the others follow in proportion."""

Split = Literal["default", "random"]


@dataclass(frozen=True, eq=False)
class Experiment:
    """A run, what it learns from, its folder, and where it starts.

    Enter it to have the folder for yourself. A new run that may overwrite an older one sets that aside until it has
    ended, and puts it back if it fails before it has saved anything. ``notes``: what should be said about it.
    """

    run: Run
    about: About
    dataset: Dataset
    folder: RunFolder
    start: TrainState
    resumed: bool = False
    overwrite: bool = False
    notes: Sequence[str] = ()
    _held: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.folder.locked())
            if self.resumed:
                refuse_progress_since(self.folder, self.start)
            else:
                refuse_loss(self.folder, self.overwrite)
                aside = self.folder.begin(self.about, self.start)

                def put_back(kind: type[BaseException] | None, error: object, at: object) -> None:
                    self.put_back_after(kind, aside)

                stack.push(put_back)
            self._held.enter_context(stack.pop_all())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.__exit__(kind, error, at)

    def put_back_after(self, kind: type[BaseException] | None, aside: Path | None) -> None:
        """After an error before the first state was saved, there is nothing yet to replace the older run with."""
        if kind is not None and self.folder.is_unedited():
            self.folder.put_back(aside)

    def train(self, engine: Engine, *, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
        """Train, and write down every record before it is yielded; see :func:`stg_np.train.fit`.

        Of several processes the root of the engine writes; it alone has entered the experiment.

        Raises:
            RunError: if a ``best.npz`` that would be replaced is of another run.
            TrainingError: if the training diverges. CheckpointError: if something cannot be read or written.
        """
        if self.resumed and engine.is_root:
            best_of(self.folder, Stored(self.about, self.start), self.run.device)
            self.folder.write_config(self.about)
            self.folder.forget_after(self.start.step)
        for record in fit(self.run, engine, start=self.start, should_stop=should_stop):
            refuse_drift(record, engine)
            if engine.is_root:
                self.keep(record)
            yield record

    def keep(self, record: Record) -> None:
        """Write a record down; after an epoch, or when stopped, save the state.

        The order matters where the power fails in between: the newest ``checkpoint.npz`` never knows of a better
        accuracy than that of ``best.npz``, and of no epoch that ``metrics.jsonl`` lacks.

        Raises:
            TrainingError: if the state is not finite: it is not saved.
            CheckpointError: if something cannot be written.
        """
        folder = self.folder
        if record.kind != "step":
            refuse_infinite_state(checkpoint.arrays_of(record.now).values(), record.step)
        if record.kind != "stopped":
            folder.append(metrics_line(record, self.dataset.label))
        if record.is_best:
            checkpoint.save(folder.best, self.about, record.now)
        if record.kind != "step":
            checkpoint.save(folder.last, self.about, record.now)

    @property
    def chosen_file(self) -> Path:
        """The file of the state to test: of the best where there is one, of the last with ``final``."""
        return self.folder.last if self.about.final else self.folder.chosen

    def chosen(self) -> Stored:
        """The state to test: the best one, or with ``final`` the last one.

        Raises:
            CheckpointError: if it cannot be read. RunError: if ``best.npz`` is that of another run.
        """
        last = checkpoint.load(self.folder.last, self.run.device)
        return best_of(self.folder, last, self.run.device) or last

    def test(self, engine: Engine) -> Scores:
        """Test the chosen state on the test pictures; see :func:`finite_scores`."""
        return finite_scores(self.chosen(), self.dataset, engine)

    def validation_accuracy(self, now: TrainState) -> float | None:
        """The accuracy on the held-out pictures of the state that is tested; None if nobody wrote it down."""
        if self.chosen_file == self.folder.best:
            return now.best_accuracy
        epochs = [line for line in self.folder.read_metrics() if line["kind"] == "epoch" and line["step"] == now.step]
        accuracy = epochs[-1].get("validation_accuracy") if epochs else None
        return accuracy if isinstance(accuracy, float) else None

    def write_results(self, tested: Stored, scores: Scores) -> list[str]:
        """Write the record of the test and the two pictures, and remove what this run has replaced.

        What fails here must not cost the result that is in hand: return a sentence for each that could not be done.
        """
        tasks: tuple[tuple[str, Callable[[], None]], ...] = (
            ("the record of the test is not in metrics.jsonl", lambda: self.write_test(tested, scores)),
            ("curves.png could not be drawn", self.draw_curves),
            ("confusion.png could not be drawn", lambda: self.draw_confusion(scores)),
            ("the run that was replaced could not be removed", self.folder.discard_replaced),
        )
        failed = []
        for what, do in tasks:
            try:
                do()
            except (Exception, SystemExit) as error:  # a broken matplotlib raises whatever it likes
                failed.append(f"{what}: {one_line(error)}")
        return failed

    def write_test(self, tested: Stored, scores: Scores) -> None:
        """The record of the test."""
        self.folder.append({
            "kind": "test", "epoch": self.epoch_of(tested.now), "step": tested.now.step, "loss": scores.loss,
            "accuracy": scores.accuracy, "accuracy_mirror": scores.accuracy_mirror,
            "accuracy_averaged": scores.accuracy_averaged, "data": self.dataset.label,
            "fingerprint": self.dataset.fingerprint,
        })  # fmt: skip

    def draw_curves(self) -> None:
        """Loss and accuracy over the epochs."""
        from stg_np.runs import plots

        title = f"{self.dataset.label}, preset {self.about.preset}"
        smoothing = 0.0 if self.run.loss else self.run.config.label_smoothing
        write_atomically(self.folder.curves, plots.curves_png(self.folder.read_metrics(), title, smoothing))

    def draw_confusion(self, scores: Scores) -> None:
        """The confusion matrix of the test, where there are classes."""
        from stg_np.runs import plots

        if scores.confusion is None:
            return
        title = f"{self.dataset.label}, preset {self.about.preset}\ntest accuracy {scores.accuracy:.4f}"
        picture = plots.confusion_png(to_host(scores.confusion), self.dataset.classes, title)
        write_atomically(self.folder.confusion, picture)

    def epoch_of(self, now: TrainState) -> int:
        """How many epochs a state has behind it."""
        return now.step // self.run.steps_per_epoch


def make_run(
    preset: str | None = None,
    *,
    data: str | None = None,
    data_dir: str | PathLike[str] | None = None,
    split: Split | None = None,
    size: tuple[int, int] | None = None,
    final: bool = False,
    device: str | None = None,
    config: str | PathLike[str] | None = None,
    changes: Table | None = None,
    init_from: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Experiment:
    """A run from its first step.

    What is named later counts more: preset, ``config`` (or the settings of the run that it begins with), ``changes``
    and ``settings``.

    Args:
        preset: a name in :data:`~stg_np.presets.PRESETS`; None: that of the data, or ``digits``.
        data: the name of the data set, if it is not the preset's, or a folder or ``.npz`` file of your own.
        data_dir: where it lies. size: height and width of the pictures of a folder of your own.
        split: ``random`` for data without an official split.
        final: train on all training pictures, with none held out.
        device: ``cpu`` or ``cuda``; None: as ``config`` says, or the CPU.
        config: the ``config.toml`` of a run, or a file that says less.
        changes: entries of such a file as nested tables: ``{"model": {"width": 64}}``.
        init_from: a checkpoint, or the folder of a run: begin with its parameters (:mod:`stg_np.runs.origin`).
        out: the folder of the run; None: ``runs/PRESET``.
        overwrite: whether a run in that folder may be replaced, once the new one has ended.
        settings: what differs from the preset, of :data:`SETTINGS`.

    Raises:
        RunError: if the folder holds a run or files that one would replace, or if settings are wrong, contradict each
            other, or do not fit the data.
        CheckpointError: if the checkpoint cannot be read, or does not fit. DataError: if the data cannot be had.
        DeviceError: if the device cannot be used. TypeError: if something is no setting.
    """
    origin = None if init_from is None else read_origin(Path(init_from))
    with as_run_errors():
        file = Configuration(Choices(), {}, None)
        if config is not None:
            file = read_config(Path(config))
        elif origin is not None and preset is None:
            file = origin.configuration
        single = with_settings(changes or {}, settings)
        refuse_contradictions(config, file.choices, preset, init_from)
    said = file.choices
    device = device or said.device or "cpu"
    array_module(device)
    name = chosen_preset(preset or said.preset, data)
    folder = RunFolder(folder_path(out, name))
    refuse_loss(folder, overwrite)
    with as_run_errors():
        table = laid_over(laid_over(of_preset(PRESETS[name]), file.changes), single)
        training = training_of(table)
    if settings.get("learning_rate") is not None:
        training = replace(training, optimizer=with_learning_rate(training.optimizer, settings["learning_rate"]))
    final = final or said.final
    if final and training.patience:
        raise RunError("--final holds no pictures out, and --patience looks at them: leave one of both out")
    split_seed = training.seed if split == "random" else None
    if split is None and said.data is not None and data in (None, said.data.name):
        split_seed = said.data.split_seed
    data = data or (PRESETS[name].data if said.data is None else said.data.name)
    if size is not None and not is_own(data):
        raise RunError(f"--size is for pictures of your own, and {data} has its size: leave it out")
    dataset = load(data, data_dir, split_seed=split_seed, size=size or file.shape)
    dataset = replace(dataset, flip=may_be_mirrored(dataset, training.flip, file, single))
    training = replace(training, flip=training.flip and dataset.flip)
    with as_run_errors("" if single or file.changes else f"the preset {name} does not fit {dataset.label}: "):
        model = model_of(table, dataset.shape, len(dataset.classes))
    train, validation, facts = examples(dataset, training.seed, final, split_seed)
    about = About(stg_np.__version__, name, final, device, facts, model, training)
    run = Run(model, training, train, validation, facts.scaling, device, **of_task(dataset))
    start = first_state(run)
    if origin is None:
        return Experiment(run, about, dataset, folder, start, overwrite=overwrite)
    about = replace(about, init_from=origin.fingerprint)
    start, notes = begun_with(origin, run, about, start)
    return Experiment(run, about, dataset, folder, start, overwrite=overwrite, notes=notes)


def may_be_mirrored(dataset: Dataset, flip: bool, file: Configuration, single: Table) -> bool:
    """Whether a mirrored picture still shows its class: as the data set says, or as somebody who knows it says.

    That is who sets ``training.flip``, in a file that is of no other data or by itself, now or for a run on the same
    data before.
    """
    known = file.choices.data
    told = [single] if known is not None else [single, file.changes]
    if any("flip" in changes.get("training", {}) for changes in told):
        return flip or dataset.flip
    same = known is not None and known.fingerprint == dataset.fingerprint
    return known.flip if known is not None and same else dataset.flip


@contextmanager
def as_run_errors(before: str = "") -> Iterator[None]:
    """Turn a ValueError into a :class:`RunError` with the same sentence."""
    try:
        yield
    except ValueError as error:
        raise RunError(f"{before}{error}") from error


def refuse_contradictions(config: Any, said: Choices, preset: str | None, init_from: Any) -> None:
    """Raise a ValueError for what a file says and an option denies, or leaves open."""
    if config is not None and preset is not None and said.preset not in (None, preset):
        raise ValueError(f"{config} begins from the preset {said.preset}, not {preset}: leave out --preset or --config")
    if said.init_from is not None and init_from is None:
        raise ValueError(
            f"the run of {config} began with the parameters {said.init_from} of another: name that with --init-from, "
            "or remove the line init_from"
        )


LARGEST_MODEL = 1 << 28
"""Parameters. With gradient and moments, and while they are drawn, they take ten times as many bytes and more."""


def first_state(run: Run) -> TrainState:
    """The state before the first step, after trying what would fail in that.

    Raises:
        RunError: if the model is too large, or the pictures cannot be varied as asked.
    """
    with as_run_errors():
        checkpoint.refuse_endless(run.model, LARGEST_MODEL)
        if (count := run.model.layout().size) > LARGEST_MODEL:
            raise ValueError(f"the model has {count:,} parameters, and {LARGEST_MODEL:,} are the limit")
        now, epochs, parts = initial_state(run), run.config.epochs, len(run.config.sides) or 1
        for epoch in {-(-part * epochs // parts) for part in range(parts)} - {epochs}:  # the pictures' side is another
            x = prepare(run, run.train.images[:1], np.random.default_rng(0), epoch=epoch)
            run.model.forward(x, now.params, now.state)
        return now


def resume_run(
    out: str | PathLike[str],
    *,
    data_dir: str | PathLike[str] | None = None,
    device: str | None = None,
    **said: Any,
) -> Experiment:
    """A run from its last checkpoint, as it was begun.

    Args:
        out: the folder of the run. data_dir: where its data lie.
        device: None: the one that it was on.
        said: ``preset``, ``data``, ``size``, ``split``, ``final`` and :data:`SETTINGS`, as far as they are said again.

    Raises:
        CheckpointError: if there is no run, or its files are damaged or edited.
        RunError: if what is said is not how the run was begun, or if the data are not those that it was trained on.
        DataError: if the data cannot be had. DeviceError: if the device cannot be used.
        TypeError: if something else is said.
    """
    folder = RunFolder(Path(out))
    if not folder.last.exists():
        raise CheckpointError(
            f"there is no run to resume in {folder.path}: begin one without --resume, or name its --out"
        )
    about, now = checkpoint.load(folder.last, device)
    data = said.pop("data", None)
    if data is not None and not (is_own(data) and about.data.name.startswith("./")):
        said["data"] = portable_name(data)  # of a user's own it is not the name that counts, but what they are
    refuse_changes(folder, about, said)
    folder.check_config(about)
    dataset = data_of(about, data, data_dir)
    train, validation, facts = examples(dataset, about.training.seed, about.final, about.data.split_seed)
    if facts != about.data:
        raise RunError(
            f"{folder.path} was trained on {about.data.label} with the fingerprint {about.data.fingerprint}, and these "
            f"files have {dataset.fingerprint}: name the same files with --data or --data-dir"
        )
    about = replace(about, device=device or about.device)
    run = Run(about.model, about.training, train, validation, facts.scaling, about.device, **of_task(dataset))
    return Experiment(run, about, dataset, folder, now, resumed=True)


def data_of(about: About, data: str | None = None, data_dir: str | PathLike[str] | None = None) -> Dataset:
    """The data set that a run learned from, with the same split, wherever its files are now; or other data.

    ``data``: a name or a path; None: as the run has written it down. Pictures are taken at the model's size.

    Raises:
        DataError: if the data cannot be had.
    """
    dataset = load(data or about.data.name, data_dir, size=about.model.input_shape)
    if dataset.fingerprint == about.data.fingerprint:
        dataset = replace(dataset, name=about.data.name, flip=about.data.flip)
    elif data is not None:
        return dataset
    seed = about.data.split_seed
    return dataset if seed is None else random_split(dataset, seed)  # without it the test would not be the test


def chosen_preset(preset: str | None, data: str | None) -> str:
    """The preset that is named, or the one of the data that are named, or digits."""
    name = preset or ("rows" if is_own(data or "digits") else DEFAULT_PRESET.get(data or "digits"))
    if name in PRESETS:
        return name
    if preset is None and data is not None:
        source(data)  # says which data sets there are
        raise RunError(f"there is no preset for {data}: name one with --preset")
    raise RunError(f"there is no preset {name!r}: {choose_from(preset or '', PRESETS)}")


def folder_path(out: str | PathLike[str] | None, preset: str) -> Path:
    """The folder of a run where none is named, or the one that is."""
    return Path("runs") / preset if out is None else Path(out)


def with_settings(changes: Table, settings: Mapping[str, Any]) -> Table:
    """Changes, with those of :data:`SETTINGS` that are given; None is none. The learning rate is for later.

    Raises:
        TypeError: if something is none of them. ValueError: if it contradicts the changes.
    """
    if unknown := settings.keys() - set(SETTINGS):
        raise TypeError(f"{', '.join(sorted(unknown))} is none of the settings {', '.join(SETTINGS)}")
    changes = deepcopy(changes)
    for name, value in settings.items():
        if value is not None and name != "learning_rate":
            put(changes, f"training.{name}", value)
    rates = [name for name, _ in flattened(changes) if name.endswith(".learning_rate")]
    if rates and settings.get("learning_rate") is not None:
        raise ValueError(
            f"--learning-rate and {showable(rates[0], 60)} both set a learning rate: leave one of both out"
        )
    return changes


def as_begun(about: About) -> dict[str, Any]:
    """What was said when a run was begun, or could have been."""
    begun: dict[str, Any] = {name: getattr(about.training, name) for name in SETTINGS if name != "learning_rate"}
    begun["learning_rate"] = about.training.optimizer.learning_rate
    split = "default" if about.data.split_seed is None else "random"
    size = about.model.input_shape[:2]
    return begun | {"data": about.data.name, "preset": about.preset, "split": split, "size": size}


def refuse_drift(record: Record, engine: Engine) -> None:
    """After an epoch, make sure that all processes that train have come to the same parameters.

    Raises:
        TrainingError: if they have not.
    """
    if record.kind == "epoch" and not engine.is_alike(record.now.params.flat):
        raise TrainingError(
            f"the processes have come to different parameters in step {record.step} or before: run them on processors "
            "of one kind, with the same versions (stg-np info)"
        )


def finite_scores(stored: Stored, dataset: Dataset, engine: Engine) -> Scores:
    """Test a state on the test pictures.

    Raises:
        TrainingError: if its loss is not finite: numbers that overflow are right by luck.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the loss tells
        scores = score(stored, dataset, engine)
    refuse_divergence(scores.loss, "on the test pictures")
    return scores


def refuse_loss(folder: RunFolder, overwrite: bool) -> None:
    """What somebody has trained or put there is not replaced unless that is asked for."""
    lost = folder.would_be_lost()
    if not lost or overwrite:
        return
    if folder.last.name in lost:
        raise RunError(
            f"{folder.path} already holds a run ({', '.join(lost)}): go on with --resume, replace it with --overwrite, "
            "or choose another folder with --out"
        )
    raise RunError(
        f"{folder.path} already holds {', '.join(lost)}, which a new run would replace: choose another folder with "
        "--out, or allow it with --overwrite"
    )


def refuse_progress_since(folder: RunFolder, start: TrainState) -> None:
    """Another training may have been here after the state was read, and before the folder was locked."""
    if checkpoint.load(folder.last, "cpu").now.step != start.step:
        raise RunError(f"another training has gone on with {folder.path} meanwhile: resume it again")


def one_line(error: BaseException) -> str:
    """What a foreign error says, if not too much."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def refuse_changes(folder: RunFolder, about: About, said: Mapping[str, Any]) -> None:
    """What contradicts the run being resumed: the learning rate of every step follows from it."""
    refusal = f"cannot be changed on the way: the run in {folder.path} was begun"
    advice = "leave the option out, or begin another run with --out"
    begun = as_begun(about)
    if unknown := said.keys() - begun.keys() - {"final"}:
        raise TypeError(f"{', '.join(sorted(unknown))} is nothing that a run is begun with")
    if said.get("final") and not about.final:
        raise RunError(f"--final {refusal} without it; {advice}")
    for name, value in begun.items():
        given = said.get(name)
        if given is not None and given != value:
            option = "--" + name.replace("_", "-")
            given, value = ("x".join(map(str, it)) if isinstance(it, tuple) else it for it in (given, value))
            raise RunError(f"{option} {given} {refusal} with {option} {value}; {advice}")


def examples(
    dataset: Dataset, seed: int, final: bool, split_seed: int | None
) -> tuple[Examples, Examples | None, DataFacts]:
    """Training pictures, pictures held out (none with ``final``), and the facts, with the scaling of the former."""
    train, validation = Examples(dataset.train_images, dataset.train_labels), None
    if dataset.task is not None:  # it draws each batch afresh, so none of those held out is ever trained on
        held_out = Examples(dataset.train_images[-HELD_OUT:], dataset.train_labels[-HELD_OUT:])
        mean, std = np.zeros(dataset.shape[-1]), np.ones(dataset.shape[-1])
        return train, None if final else held_out, facts_of(dataset, mean, std, split_seed)
    if not final:
        kept, held = validation_split(dataset.train_labels, VALIDATION, seed)
        train, validation = (Examples(*(array[indices] for array in train)) for indices in (kept, held))
    mean, std = channel_statistics(train.images, dataset.value_range)
    return train, validation, facts_of(dataset, mean, std, split_seed)


def facts_of(dataset: Dataset, mean: Array, std: Array, split_seed: int | None) -> DataFacts:
    """What a run writes down of its data."""
    return DataFacts(
        dataset.name, dataset.label, dataset.fingerprint, dataset.official, dataset.flip, dataset.classes,
        tuple(mean.tolist()), tuple(std.tolist()), dataset.value_range, split_seed,
    )  # fmt: skip


def of_task(dataset: Dataset) -> dict[str, Any]:
    """What a :class:`~stg_np.train.Run` has of the data's own task: its loss, and examples drawn for every batch."""
    task = dataset.task
    return {} if task is None else {"loss": task.loss, "fresh": task.draw}
