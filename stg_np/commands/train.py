"""``stg-np train``: from options to a finished run in a folder, whatever happens on the way."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from stg_np.backend import Array
from stg_np.commands import OK, UsageError, checked_device, complain_of_damaged
from stg_np.commands.options import (
    add_data_dir,
    add_device,
    add_engine,
    engine_for,
    height_and_width,
    network,
    positive,
    refuse_misfit,
    some_folder,
    whole,
)
from stg_np.commands.progress import Progress
from stg_np.data import SOURCES, is_own
from stg_np.engine import Engine, engine_class
from stg_np.evaluate import recall_per_class
from stg_np.presets import PRESETS
from stg_np.runs.checkpoint import Stored
from stg_np.runs.experiment import (
    SETTINGS,
    Experiment,
    chosen_preset,
    finite_scores,
    folder_path,
    make_run,
    resume_run,
)
from stg_np.runs.scores import Scores, quoted
from stg_np.runs.settings import parse_settings
from stg_np.streams import complain, note, say

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
  stg-np train --data pets/ --size 48             pets/cat/*.jpg, pets/dog/*.jpg (or pets/train/…, pets/test/…)
  stg-np train --data arrays.npz --out runs/mine  x_train, y_train, x_test, y_test
  stg-np train --preset cifar10-rows --data-dir ~/cifar-10-batches-bin --epochs 5 --out runs/try
  stg-np train --resume --out runs/try            go on where Ctrl-C, or the power, stopped it
  mpiexec -n 4 stg-np train --engine mpi --out runs/four    four processes, on one machine or many: the same bits
  stg-np train --set model.width=64 training.optimizer=adamw --out runs/narrow
  stg-np train --config runs/try/config.toml --seed 1 --out runs/again    the same settings once more
  stg-np train --data pets/ --init-from runs/mine --out runs/tuned        what was learned there, on other pictures

--set changes any entry of model and training in the config.toml that a run writes; --config takes such a file, or a
part of one. With --init-from the settings are those of the other run, unless --preset or --config names others; the
head is new where the classes are.

A tenth of the training pictures is held out, at random by the seed, for the accuracy of each epoch and for the choice
of best.npz. The test pictures are used once, at the end. With --final nothing is held out and the last state is tested.

The folder then holds config.toml (what was trained on what), metrics.jsonl (one line a record), checkpoint.npz (the
last state), best.npz, curves.png and confusion.png. A resumed run gives the numbers of an uninterrupted one, bit for
bit on one machine. Exit codes: 0 done, 1 training failed, 2 wrong use, 130 Ctrl-C (the state is saved; 143 SIGTERM,
129 SIGHUP). What --overwrite replaces stays in a folder .replaced until the new run has ended.
"""


def add_options(parser: Any) -> None:
    """What to train on what, how, and where."""
    what = parser.add_argument_group("what to train on what")
    own = "a folder with a folder of pictures for each class, or an .npz file of arrays"
    mirrored = "pictures of your own are mirrored only with --set training.flip=true"
    what.add_argument("--data", metavar="DATA", help=f"{', '.join(SOURCES)}; {own}; {mirrored} (default: the preset's)")
    add_data_dir(what)
    what.add_argument("--preset", choices=list(PRESETS), metavar="NAME", help="see below (default: that of the data)")
    unsplit = ", ".join(name for name, source in SOURCES.items() if not source.INFO.official_split)
    split = f"{unsplit} only: test on the last pictures of the file (default), or on as many at random, which is easier"
    what.add_argument("--split", choices=("default", "random"), help=split)
    size = "of pictures in a folder of your own, in pixels (default: their size if small and alike, else 32)"
    what.add_argument("--size", type=height_and_width, metavar="N or HxW", help=size)
    what.add_argument("--final", action="store_true", help="train on all training pictures and test the last state")
    how = parser.add_argument_group("how (default: as the preset says)")
    how.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the training pictures")
    how.add_argument("--batch-size", type=whole(1), metavar="N", help="pictures a step")
    how.add_argument("--learning-rate", type=positive, metavar="X", help="the highest of the schedule")
    seed = "of parameters, order, augmentation, split (default: 0)"
    how.add_argument("--seed", type=whole(0), metavar="N", help=seed)
    how.add_argument("--config", type=Path, metavar="FILE.toml", help="the config.toml of a run, or a part of one")
    single = "any entry of such a file: model.width=128 training.optimizer=adamw training.flip=true"
    how.add_argument("--set", nargs="+", action="extend", metavar="NAME=VALUE", help=single)
    origin = "begin with the parameters and settings of a checkpoint, the run in a folder, or a bundled network by name"
    how.add_argument("--init-from", type=network, metavar="CHECKPOINT", help=origin)
    patience = "stop when the validation accuracy has not risen for so many epochs (0: never)"
    how.add_argument("--patience", type=whole(0), metavar="N", help=patience)
    where = parser.add_argument_group("where")
    where.add_argument("--out", type=some_folder, metavar="DIR", help="folder of the run (default: runs/PRESET)")
    exclusive = where.add_mutually_exclusive_group()
    exclusive.add_argument("--resume", action="store_true", help="go on with the run in that folder, as it was begun")
    exclusive.add_argument(
        "--overwrite", action="store_true", help="replace the run in that folder, at the end of this one"
    )
    add_device(where)
    add_engine(where)


def run(args: argparse.Namespace) -> int:
    """Train, test once, and say where everything lies."""
    where = ["--data", args.data] if args.data and is_own(args.data) else []
    where += [] if args.data_dir is None else ["--data-dir", str(args.data_dir)]
    refuse_misfit(args.engine, args.device)
    begun = engine_class(args.engine).from_root(partial(experiment_of, args))
    complain_of_damaged(begun.dataset.damaged)
    engine = engine_for(args.engine, begun.run.device, args.workers)
    with StopSignals() as stop, begun if engine.is_root else contextlib.nullcontext(begun) as experiment:
        folder = experiment.folder
        how_to_go_on = f"go on with `stg-np train --resume {shlex.join(['--out', str(folder.path), *where])}`"
        with engine:
            heard = say(heading(experiment, engine))
            try:
                step = train_until_stopped(experiment, engine, stop)
                if not stop.asked():
                    tested = engine.from_root(experiment.chosen)
                    scores = finite_scores(tested, experiment.dataset, engine)
            except KeyboardInterrupt:
                stop.is_over = stop.is_told = True
                complain(f"stopped at once; {folder.last} holds what was saved before: {how_to_go_on}")
                return stop.exit_code
        stop.is_over = True
        if stop.asked():
            complain(f"stopped and saved after step {step}: {how_to_go_on}")
            return stop.exit_code
        if not engine.is_root:
            return OK
        for failed in experiment.write_results(tested, scores):
            complain(f"note: {failed}")
        lines = [*told_of_patience(experiment, step), *closing_lines(experiment, tested, scores)]
        if not (say("\n".join(lines)) and heard):
            note(lines[-1])  # the result, where the rest has no reader
    return OK


def experiment_of(args: argparse.Namespace) -> Experiment:
    """What the options ask for: a new run, or one to go on with."""
    same = {name: getattr(args, name) for name in ("preset", "data", "split", "size", "final", "data_dir", *SETTINGS)}
    if args.resume:
        refuse_with_resume(args)
        out = folder_path(args.out, args.preset or chosen_preset(None, args.data))
        return resume_run(out, device=args.device, **same)
    try:
        changes = parse_settings(args.set or [])
    except ValueError as error:
        raise UsageError(f"--set: {error}") from error
    experiment = make_run(
        device=args.device, config=args.config, changes=changes, init_from=args.init_from,
        out=args.out, overwrite=args.overwrite, **same,
    )  # fmt: skip
    checked_device(experiment.run.device, args.workers)
    return experiment


def refuse_with_resume(args: argparse.Namespace) -> None:
    """A resumed run is what it was begun as."""
    for option in ("--set", "--config", "--init-from"):
        if getattr(args, option[2:].replace("-", "_")):
            raise UsageError(
                f"--resume goes on with a run as it was begun: leave {option} out, or begin another run with --out"
            )


def train_until_stopped(experiment: Experiment, engine: Engine, stop: StopSignals) -> int:
    """Train to the end, or to the first Ctrl-C; return the number of steps that are done and saved.

    Whichever process hears the signal, all of them know of it at the same step.
    """
    step = experiment.start.step
    heard = engine.together(lambda: stop.received or 0)
    with Progress(experiment.run, step) as progress:
        for record in experiment.train(engine, should_stop=lambda: heard() != 0):
            progress.show(record)
            step = record.step
    stop.at_once = True
    engine.map(abs, ())  # whoever has heard one since the last step tells the others
    stop.received = heard() or None
    return step


GRACE = 10.0
"""Seconds in which a training that was stopped at once has to end by itself."""


class StopSignals:
    """While entered, a first Ctrl-C (SIGTERM, SIGHUP) only asks to stop; a second one raises KeyboardInterrupt.

    With ``at_once`` the first one raises, too. Once ``is_over`` is set there is nothing left to stop: no more of them
    does anything; ``is_told``: the user knows.

    An exception may come where a lock of the standard library was just taken, and will never be given back; a thread
    waits for it then, and the process for the thread: after :data:`GRACE` seconds it ends all the same. (Windows has no
    such alarm.)
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.at_once = self.is_over = self.is_told = False
        self.before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects after the signal."""
        return 128 + (self.received or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of these signals."""
        if self.is_over:
            return
        at_once = self.at_once or self.asked()
        self.received = self.received or number
        if at_once:
            self.is_over = True  # a third one must not disturb what the second has set going
            if hasattr(signal, "setitimer"):
                self.before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self.give_up)
                signal.setitimer(signal.ITIMER_REAL, GRACE)
            raise KeyboardInterrupt

    def give_up(self, number: int, frame: FrameType | None) -> NoReturn:
        """End the process: what has been saved is whole, whenever that is."""
        if not self.is_told:
            with contextlib.suppress(OSError):
                os.write(2, b"stg-np: stopped at once; what was saved before is there\n")
        os._exit(self.exit_code)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            self.before = {number: signal.signal(number, self.handle) for number in handled_signals()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self.before.items():
            signal.signal(number, handler)


def handled_signals() -> list[signal.Signals]:
    """Ctrl-C, a polite ``kill``, and the end of the terminal, but for ``nohup``, which wants it ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        numbers.append(hang_up)
    return numbers


def heading(experiment: Experiment, engine: Engine) -> str:
    """What is about to be trained on what."""
    run, dataset, start = experiment.run, experiment.dataset, experiment.start
    held_out = f"{len(run.validation.labels):,} held out" if run.validation else "none held out (--final)"
    per_epoch = "pictures to train on" if dataset.task is None else "sequences an epoch, each drawn afresh"
    lines = [
        f"{dataset.label}: {len(run.train.labels):,} {per_epoch}, {held_out}, {len(dataset.test_labels):,} to test",
        f"preset {experiment.about.preset}: {start.params.flat.size:,} parameters, {run.config.epochs} epochs of "
        f"{run.steps_per_epoch} steps, seed {run.config.seed}, device {run.device}, workers: {engine}",
    ]
    lines[1:1] = [f"note: {text}" for text in (dataset.note, *experiment.notes) if text]
    if start.step:
        lines.append(f"resumed after step {start.step}")
    for old in experiment.folder.replaced():
        until = "until this run has ended" if old.is_unedited(begun=False) else "and stay: not all is a run's"
        lines.append(f"replaced: {', '.join(old.present())}; they lie in {old.path} {until}")
    return "\n".join(lines)


def told_of_patience(experiment: Experiment, step: int) -> list[str]:
    """A line where the training ended before its last epoch."""
    run = experiment.run
    if step >= run.config.epochs * run.steps_per_epoch:
        return []
    epoch, patience = step // run.steps_per_epoch, run.config.patience
    return [f"stopped after epoch {epoch} of {run.config.epochs}: no better validation accuracy for {patience} epochs"]


def closing_lines(experiment: Experiment, tested: Stored, scores: Scores) -> list[str]:
    """What the user should know at the end; the last line is the contract's."""
    folder, dataset, tested_file = experiment.folder, experiment.dataset, experiment.chosen_file
    validation = experiment.validation_accuracy(tested.now)
    held_out = "" if validation is None else f", validation accuracy {validation:.4f}"
    epoch = experiment.epoch_of(tested.now)
    if scores.confusion is None:
        return [
            f"files in {folder.path}: {', '.join(folder.names())}",
            f"tested {tested_file.name} (epoch {epoch}{held_out}) on {dataset.label}, {scores.pictures:,} sequences",
            f"test {quoted(dataset, scores)}",
        ]
    lines = [
        f"files in {folder.path}: {', '.join(folder.names())}",
        f"try it on a picture: stg-np predict {shlex.quote(str(tested_file))} PICTURE.png",
        f"tested {tested_file.name} (epoch {epoch}{held_out}) on {dataset.label}, {scores.pictures:,} pictures",
        "recall per class: " + per_class(dataset.classes, recall_per_class(scores.confusion)),
    ]
    for views, accuracy in scores.averages.items():
        lines.append(f"test accuracy with {views} averaging {accuracy:.4f} on {dataset.label}")
    named = "" if dataset.label == dataset.name else f" on {dataset.label}"
    return [*lines, f"test accuracy {scores.accuracy:.4f}{named}"]


def per_class(classes: Sequence[str], values: Array) -> str:
    """``name 0.97, name 0.94, …`` in one line."""
    return ", ".join(f"{name} {value:.2f}" for name, value in zip(classes, values))
