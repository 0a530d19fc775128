"""``stg-np train``: from options to a finished run in a folder, whatever happens on the way."""

from __future__ import annotations

import argparse
import shlex
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

import stg_np
from stg_np.backend import to_host
from stg_np.commands import INTERRUPTED, OK, UsageError, checked_device, complain
from stg_np.commands.eval import Scores, evaluate, per_class
from stg_np.commands.options import add_data_dir, add_device, add_workers, positive, whole
from stg_np.commands.progress import Progress
from stg_np.data import SOURCES, Dataset, load, source
from stg_np.data.augment import channel_statistics, validation_split
from stg_np.engine import Threads
from stg_np.evaluate import recall_per_class
from stg_np.presets import DEFAULT_PRESET, PRESETS, Preset
from stg_np.runs.checkpoint import CheckpointError, write_atomically
from stg_np.runs.folder import About, DataFacts, RunFolder, Stored, metrics_line, save
from stg_np.runs.folder import load as load_checkpoint
from stg_np.train import Examples, Record, Run, TrainConfig, TrainState, fit, initial_state

ABOUT = "train a network; with no option: on the digits"
LIST_OF_PRESETS = "\n".join(
    f"  {name:16} {preset.about} ({preset.config.epochs} epochs)" for name, preset in PRESETS.items()
)
EPILOG = f"""\
presets:
{LIST_OF_PRESETS}

examples:
  stg-np train                                    the bundled digits: no download, well under a minute
  stg-np train --data fashion-mnist --workers 4   (stg-np data fetch fashion-mnist downloads it first)
  stg-np train --preset cifar10-rows --data-dir ~/cifar-10-batches-bin --epochs 5 --out runs/try
  stg-np train --resume --out runs/try            go on where Ctrl-C, or the power, stopped it

A tenth of the training pictures is held out, at random by the seed, for the accuracy of each epoch and for the choice
of best.npz. The test pictures are used once, at the end. With --final nothing is held out and the last state is tested.

The folder then holds config.toml (what was trained on what), metrics.jsonl (one line a record), checkpoint.npz (the
last state), best.npz, curves.png and confusion.png. A resumed run gives the numbers of an uninterrupted one, bit for
bit on one machine. Exit codes: 0 done, 1 training failed, 2 wrong use, 130 Ctrl-C (the state is saved).
"""

VALIDATION = 0.1
"""The share of the training pictures that is held out, for the epoch metrics and for the choice of the best."""


def add_options(parser: Any) -> None:
    """What to train on what, how, and where."""
    what = parser.add_argument_group("what to train on what")
    what.add_argument("--data", metavar="NAME", help=f"{', '.join(SOURCES)} (default: the preset's)")
    add_data_dir(what)
    what.add_argument("--preset", choices=list(PRESETS), metavar="NAME", help="see below (default: that of the data)")
    unsplit = ", ".join(name for name, source in SOURCES.items() if not source.INFO.official_split)
    split = f"{unsplit} only: test on the last pictures of the file (default), or on as many at random, which is easier"
    what.add_argument("--split", choices=("default", "random"), help=split)
    what.add_argument("--final", action="store_true", help="train on all training pictures and test the last state")
    how = parser.add_argument_group("how (default: as the preset says)")
    how.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the training pictures")
    how.add_argument("--batch-size", type=whole(1), metavar="N", help="pictures a step")
    how.add_argument("--learning-rate", type=positive, metavar="X", help="the highest of the schedule")
    seed = "of parameters, order, augmentation, split (default: 0)"
    how.add_argument("--seed", type=whole(0), metavar="N", help=seed)
    where = parser.add_argument_group("where")
    where.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/PRESET)")
    exclusive = where.add_mutually_exclusive_group()
    exclusive.add_argument("--resume", action="store_true", help="go on with the run in that folder, as it was begun")
    exclusive.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    add_device(where)
    add_workers(where)


class Job(NamedTuple):
    """A run, its folder, and where it starts."""

    run: Run
    about: About
    dataset: Dataset
    folder: RunFolder
    start: TrainState


def run(args: argparse.Namespace) -> int:
    """Train, test once, and say where everything lies."""
    job = resumed_job(args) if args.resume else new_job(args)
    where = ["--out", str(job.folder.path), *(["--data-dir", str(args.data_dir)] if args.data_dir else [])]
    how_to_go_on = f"go on with `stg-np train --resume {shlex.join(where)}`"
    with StopSignals() as stop, Threads(checked_device(job.run.device, args.workers)) as workers:
        print(heading(job, workers), flush=True)
        try:
            step = train_until_stopped(job, workers, stop)
            if not stop.asked():
                tested = load_checkpoint(job.folder.chosen, job.run.device)
                scores = evaluate(tested, job.dataset, job.run.device, workers)
        except KeyboardInterrupt:
            stop.is_over = True
            complain(f"stopped at once; {job.folder.last} holds what was saved before: {how_to_go_on}")
            return INTERRUPTED
        stop.is_over = True
        if stop.received is not None:
            complain(f"stopped and saved after step {step}: {how_to_go_on}")
            return 128 + stop.received
    finish(job, tested, scores)
    return OK


# ---------------------------------------------------------------------------------------------------- the job


def new_job(args: argparse.Namespace) -> Job:
    """A run from its first step: a preset, with the options that differ from it."""
    device = args.device or "cpu"
    checked_device(device, args.workers)
    name, preset = chosen_preset(args)
    folder = RunFolder(args.out or Path("runs") / name)
    if folder.has_progress and not args.overwrite:
        raise UsageError(
            f"{folder.path} already holds a run: go on with --resume, replace it with --overwrite, "
            "or choose another folder with --out"
        )
    config = overridden(preset.config, args)
    split_seed = config.seed if args.split == "random" else None
    dataset = load(args.data or preset.data, args.data_dir, split_seed=split_seed)
    config = replace(config, flip=config.flip and dataset.flip)
    try:
        model = preset.make_model(dataset.shape, len(dataset.classes))
    except ValueError as error:
        raise UsageError(f"the preset {name} does not fit {dataset.label}: {error}") from error
    train, validation, facts = examples(dataset, config.seed, args.final, split_seed)
    about = About(stg_np.__version__, name, args.final, device, facts, model, config)
    run = Run(model, config, train, validation, facts.scaling, device)
    start = initial_state(run)
    folder.begin(about, start)
    return Job(run, about, dataset, folder, start)


def resumed_job(args: argparse.Namespace) -> Job:
    """A run from its last checkpoint, as it was begun: what was said then needs no repeating and cannot change."""
    folder = RunFolder(args.out or Path("runs") / chosen_preset(args)[0])
    if not folder.last.exists():
        raise CheckpointError(
            f"there is no run to resume in {folder.path}: begin one without --resume, or name its --out"
        )
    stored = load_checkpoint(folder.last, args.device)
    about = stored.about
    refuse_changes(args, stored, folder)
    folder.check_config(about)
    dataset = load(about.data.name, args.data_dir, split_seed=about.data.split_seed)
    train, validation, facts = examples(dataset, about.training.seed, about.final, about.data.split_seed)
    if facts != about.data:
        raise UsageError(
            f"{folder.path} was trained on {about.data.label} with the fingerprint {about.data.fingerprint}, and these "
            f"files have {dataset.fingerprint}: name the folder of the same files with --data-dir"
        )
    about = replace(about, device=args.device or about.device)
    run = Run(about.model, about.training, train, validation, facts.scaling, about.device)
    folder.write_config(about)
    folder.forget_after(stored.now.step)
    return Job(run, about, dataset, folder, stored.now)


def chosen_preset(args: argparse.Namespace) -> tuple[str, Preset]:
    """The preset that is named, or the one of the data that are named, or digits."""
    name = args.preset or DEFAULT_PRESET.get(args.data or "digits")
    if name is None:
        source(args.data)  # says which data sets there are
        raise UsageError(f"there is no preset for {args.data}: name one with --preset")
    return name, PRESETS[name]


def overridden(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """The preset's hyper-parameters with those that the options name."""
    return replace(config, **{name: getattr(args, name) for name in OVERRIDES if getattr(args, name) is not None})


OVERRIDES = ("epochs", "seed", "batch_size", "learning_rate")


def refuse_changes(args: argparse.Namespace, stored: Stored, folder: RunFolder) -> None:
    """Options that contradict the run being resumed: the learning rate of every step follows from them."""
    about = stored.about
    begun: dict[str, Any] = {name: getattr(about.training, name) for name in OVERRIDES}
    split = "default" if about.data.split_seed is None else "random"
    begun |= {"data": about.data.name, "preset": about.preset, "split": split}
    refusal = f"cannot be changed on the way: the run in {folder.path} was begun"
    advice = "leave the option out, or begin another run with --out"
    if args.final and not about.final:
        raise UsageError(f"--final {refusal} without it; {advice}")
    for name, value in begun.items():
        given = getattr(args, name)
        if given is not None and given != value:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} {given} {refusal} with {option} {value}; {advice}")


def examples(
    dataset: Dataset, seed: int, final: bool, split_seed: int | None
) -> tuple[Examples, Examples | None, DataFacts]:
    """Training pictures, pictures held out (none with ``final``), and the facts, with the scaling of the former."""
    everything = Examples(dataset.train_images, dataset.train_labels)
    train, validation = everything, None
    if not final:
        kept, held_out = validation_split(dataset.train_labels, VALIDATION, seed)
        train, validation = (Examples(*(array[indices] for array in everything)) for indices in (kept, held_out))
    mean, std = channel_statistics(train.images, dataset.value_range)
    facts = DataFacts(
        dataset.name, dataset.label, dataset.fingerprint, dataset.official, dataset.flip, dataset.classes,
        tuple(mean.tolist()), tuple(std.tolist()), dataset.value_range, split_seed,
    )  # fmt: skip
    return train, validation, facts


# ------------------------------------------------------------------------------------------------ the training


def train_until_stopped(job: Job, workers: Threads, stop: StopSignals) -> int:
    """Train to the end, or to the first Ctrl-C; return the number of steps that are done and saved."""
    step = job.start.step
    with Progress(job.run, step) as progress:
        for record in fit(job.run, workers, start=job.start, should_stop=stop.asked):
            keep(job, record)
            progress.show(record)
            step = record.step
    stop.at_once = True
    return step


def keep(job: Job, record: Record) -> None:
    """Write a record down; after an epoch, or when stopped, save the state.

    The order matters where the power fails in between: the newest ``checkpoint.npz`` never knows of a better
    accuracy than that of ``best.npz``, and of no epoch that ``metrics.jsonl`` lacks.
    """
    folder = job.folder
    if record.kind != "stopped":
        folder.append(metrics_line(record, job.dataset.label))
    if record.is_best:
        save(folder.best, job.about, record.now)
    if record.kind != "step":
        save(folder.last, job.about, record.now)


class StopSignals:
    """While entered, a first Ctrl-C (or SIGTERM) only asks to stop; a second one raises KeyboardInterrupt.

    With ``at_once`` the first one raises, too. Once ``is_over`` is set there is nothing left to stop: no more of them
    does anything.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.at_once = self.is_over = False
        self.before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals."""
        if self.is_over:
            return
        if self.asked() or self.at_once:
            self.is_over = True  # a third one must not disturb what the second has set going
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            self.before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------------------------------------- the texts


def heading(job: Job, workers: Threads) -> str:
    """What is about to be trained on what."""
    run, config = job.run, job.run.config
    held_out = f"{len(run.validation.labels):,} held out" if run.validation else "none held out (--final)"
    lines = [
        f"{job.dataset.label}: {len(run.train.labels):,} pictures to train on, {held_out}, "
        f"{len(job.dataset.test_labels):,} to test",
        f"preset {job.about.preset}: {job.start.params.flat.size:,} parameters, {config.epochs} epochs of "
        f"{run.steps_per_epoch} steps, seed {config.seed}, device {run.device}, workers: {workers.count}",
    ]
    if job.dataset.note:
        lines.insert(1, f"note: {job.dataset.note}")
    if job.start.step:
        lines.append(f"resumed after step {job.start.step}")
    return "\n".join(lines)


def finish(job: Job, tested: Stored, scores: Scores) -> None:
    """Write the test record and the pictures, then print; the accuracy comes last."""
    from stg_np.runs import plots

    folder, dataset = job.folder, job.dataset
    epoch = tested.now.step // job.run.steps_per_epoch
    folder.append({
        "kind": "test", "epoch": epoch, "step": tested.now.step, "loss": scores.loss, "accuracy": scores.accuracy,
        "accuracy_mirror": scores.accuracy_mirror, "data": dataset.label, "fingerprint": dataset.fingerprint,
    })  # fmt: skip
    title = f"{dataset.label}, preset {job.about.preset}"
    write_atomically(folder.curves, plots.curves_png(folder.read_metrics(), title))
    title = f"{title}\ntest accuracy {scores.accuracy:.4f}"
    write_atomically(folder.confusion, plots.confusion_png(to_host(scores.confusion), dataset.classes, title))
    print("\n".join(closing_lines(job, tested, scores, epoch)), flush=True)


def closing_lines(job: Job, tested: Stored, scores: Scores, epoch: int) -> list[str]:
    """What the user should know at the end; the last line is the contract's."""
    folder, label = job.folder, job.dataset.label
    held_out = "" if job.about.final else f", validation accuracy {tested.now.best_accuracy:.4f}"
    lines = [
        f"files in {folder.path}: " + ", ".join(sorted(p.name for p in folder.path.iterdir() if p.is_file())),
        f"try it on a picture: stg-np predict {shlex.quote(str(folder.chosen))} PICTURE.png",
        f"tested {folder.chosen.name} (epoch {epoch}{held_out}) on {label}, {scores.pictures:,} pictures",
        "recall per class: " + per_class(job.dataset.classes, recall_per_class(scores.confusion)),
    ]
    if scores.accuracy_mirror is not None:
        lines.append(f"test accuracy with mirror averaging {scores.accuracy_mirror:.4f} on {label}")
    named = "" if label == job.dataset.name else f" on {label}"
    return [*lines, f"test accuracy {scores.accuracy:.4f}{named}"]
