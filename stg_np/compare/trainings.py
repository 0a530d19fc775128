"""The trainings of a comparison: what is done already is not done again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import stg_np
from stg_np.compare.plan import Comparison, ComparisonError, Entry
from stg_np.data import Dataset, load
from stg_np.data.augment import validation_split
from stg_np.divergence import refuse_infinite_state
from stg_np.engine import Engine
from stg_np.evaluate import accuracy, predict_logits
from stg_np.foreign import parse_json, read_limited, showable
from stg_np.optim import with_learning_rate
from stg_np.presets import PRESETS
from stg_np.runs import checkpoint
from stg_np.runs.archive import write_atomically
from stg_np.runs.description import About, DataFacts
from stg_np.runs.experiment import examples, first_state, of_task, refuse_drift
from stg_np.runs.settings import laid_over, model_of, of_preset, training_of
from stg_np.strict_json import to_json
from stg_np.train import Examples, Record, Run, TrainState, fit, prepare

RESULTS = "results.jsonl"
LARGEST_FILE = 10**8
"""Bytes of results."""


class Result(NamedTuple):
    """What came out of one entry with one seed.

    ``training_loss`` and ``training_accuracy`` are those of the last epoch, on varied pictures; ``seconds`` those of
    the training, all None where there was none; ``multiply_adds`` of one picture, forward; ``what``: see
    :attr:`Job.what`; ``factor``: of the learning rate, and ``rate``, what came of it; ``trial``: whether it only helped
    to find it.
    """

    entry: str
    seed: int
    what: str
    accuracy: float
    loss: float
    training_loss: float | None
    training_accuracy: float | None
    seconds: float | None
    parameters: int
    multiply_adds: int
    factor: float = 1.0
    rate: float | None = None
    trial: bool = False


class Told(NamedTuple):
    """Where a comparison stands: ``done`` of ``total`` results, and the latest record of the training that goes on.

    ``label``: of the data set.
    """

    label: str
    entry: str
    seed: int
    done: int
    total: int
    record: Record | None = None
    result: Result | None = None


class Pictures(NamedTuple):
    """What all entries learn from and are measured on with one seed; and what a run has of the data's own task."""

    train: Examples
    measured: Examples
    facts: DataFacts
    task: Mapping[str, Any]


def pictures_for(comparison: Comparison, seed: int, dataset: Dataset) -> Pictures:
    """The pictures of the data set as the comparison and a seed divide them."""
    train, held_out, facts = examples(dataset, seed, comparison.on == "test", None)
    if held_out is None:
        held_out = Examples(dataset.test_images, dataset.test_labels)
    return Pictures(fewer(train, comparison.pictures, seed), held_out, facts, of_task(dataset))


def described(
    comparison: Comparison, entry: Entry, seed: int, pictures: Pictures, factor: float = 1.0
) -> tuple[Run, About]:
    """The training of an entry with a seed, its learning rate times a factor.

    Raises:
        ComparisonError: if its changes do not fit the preset, or the preset the data.
    """
    train, measured, facts, task = pictures
    preset, shape = comparison.preset_of(entry), train.images.shape[1:]
    try:
        table = reduce(laid_over, comparison.changes_of(entry), of_preset(PRESETS[preset]))
        model, config = model_of(table, shape, len(facts.classes)), training_of(table)
    except ValueError as error:
        raise ComparisonError(f"{showable(entry.name, 60)!r} cannot be made: {showable(error)}") from None
    optimizer = config.optimizer
    if factor != 1:  # or nothing: a product with 1 may be another number where rates are in proportion
        optimizer = with_learning_rate(optimizer, factor * optimizer.learning_rate)
    config = replace(config, optimizer=optimizer, seed=seed, flip=config.flip and facts.flip)
    about = About(stg_np.__version__, preset, comparison.on == "test", "cpu", facts, model, config)
    return Run(model, config, train, measured, facts.scaling, **task), about


def fewer(examples: Examples, count: int, seed: int) -> Examples:
    """About ``count`` of the examples, drawn by the seed, of each class its share; all of them where count is 0."""
    total = len(examples.labels)
    if not 0 < count < total:
        return examples
    _, chosen = validation_split(examples.labels, count / total, seed)
    return Examples(examples.images[chosen], examples.labels[chosen])


class Job(NamedTuple):
    """An entry with a seed: what is trained, or tested."""

    entry: Entry
    seed: int
    run: Run
    about: About
    factor: float = 1.0
    trial: bool = False

    @property
    def name(self) -> str:
        """Of the entry, with what is tried."""
        return f"{self.entry.name}, learning rate × {self.factor:g}" if self.trial else self.entry.name

    @property
    def what(self) -> str:
        """A digest of everything that the result depends on."""
        said = to_json({"about": self.about.as_table(), "pictures": len(self.run.train.labels), "of": self.entry.of})
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def state(self, folder: Path) -> Path:
        """The file of its state, a checkpoint like any other."""
        return folder / f"state-{self.what}.npz"


def compare(
    comparison: Comparison,
    engine: Engine,
    folder: Path,
    *,
    data_dir: str | PathLike[str] | None = None,
    told: Callable[[Told], None] = lambda _: None,
) -> list[Result]:
    """Train and measure every entry with every seed; what the folder holds already is not done again.

    Where the list has a search, the learning rate of each entry is found first; those trials are results, too.

    Seed by seed, so that a comparison which is stopped half-way has compared something. Each result is written as soon
    as it is there, and the state of a training after each epoch: the same call goes on where another was stopped. Of
    several processes the root of the engine reads and writes.

    Args:
        comparison: the list. engine: who does the work, entered. folder: of results and states.
        data_dir: where the data lie. told: what is to be told meanwhile.

    Raises:
        ComparisonError: if an entry cannot be made. DataError: if the data cannot be had.
        TrainingError: if a training diverges. CheckpointError: if something cannot be read or written.
    """
    dataset = engine.from_root(partial(load, comparison.data or PRESETS[comparison.preset].data, data_dir))
    trials, jobs = trials_of(comparison, dataset), jobs_of(comparison, dataset)
    check_layouts(jobs)
    if engine.is_root:
        folder.mkdir(parents=True, exist_ok=True)
    earlier = engine.from_root(partial(results_in, folder))
    known = {result.what: result for result in earlier}  # what has changed since stays in the file, too
    results: list[Result] = []

    def do(some: list[Job]) -> None:
        trained = {(job.entry.name, job.seed): job for job in some}
        for job in some:
            standing = Told(dataset.label, job.name, job.seed, len(results), len(trials) + len(jobs))
            result = known.get(job.what)
            if result is None:
                if job.entry.of:
                    state = trained[job.entry.of, job.seed].state(folder)
                    result = measured(job, engine.from_root(partial(checkpoint.load, state)).now, engine)
                else:
                    result = trained_and_measured(job, folder, engine, partial(pass_on, told, standing))
                known[job.what] = result
                if engine.is_root:
                    write_results(folder, known.values())
            # it may have had another name when it was trained, or have been a trial
            result = result._replace(entry=job.entry.name, factor=job.factor, trial=job.trial)
            results.append(result)
            told(standing._replace(done=len(results), result=result))

    do(trials)
    best = best_factors(results)
    do(jobs_of(comparison, dataset, best) if best else jobs)
    return results


def trials_of(comparison: Comparison, dataset: Dataset) -> list[Job]:
    """Every factor of the search with every entry that is trained, on pictures that are held out; none without one."""
    held_out, trials = replace(comparison, on="validation"), []
    for seed in comparison.search.seeds if comparison.search else ():
        pictures = pictures_for(held_out, seed, dataset)
        for entry in comparison.entries:
            for factor in comparison.search.factors if comparison.search and not entry.of else ():
                made = described(held_out, entry, seed, pictures, factor)
                trials.append(Job(entry, seed, *made, factor, trial=True))
    return trials


def best_factors(trials: Sequence[Result]) -> dict[str, float]:
    """For each entry the factor of the highest accuracy, in the mean of the seeds; of equal ones the lowest loss."""
    best = {}
    for name in dict.fromkeys(result.entry for result in trials):
        own = [result for result in trials if result.entry == name]
        scores = {
            factor: merit([result for result in own if result.factor == factor])
            for factor in dict.fromkeys(result.factor for result in own)
        }
        best[name] = max(scores, key=lambda factor: scores[factor])
    return best


def merit(results: Sequence[Result]) -> tuple[float, float]:
    """What the higher the better: accuracy, then the loss, negated; means."""
    count = len(results)
    return sum(result.accuracy for result in results) / count, -sum(result.loss for result in results) / count


def jobs_of(comparison: Comparison, dataset: Dataset, factors: Mapping[str, float] | None = None) -> list[Job]:
    """Every entry with every seed; ``factors``: of the learning rates, by the names of the entries."""
    jobs: list[Job] = []
    for seed in comparison.seeds:
        pictures = pictures_for(comparison, seed, dataset)
        for entry in sorted(comparison.entries, key=lambda entry: bool(entry.of)):
            factor = (factors or {}).get(entry.of or entry.name, 1.0)
            jobs.append(Job(entry, seed, *described(comparison, entry, seed, pictures, factor), factor))
    return jobs


def check_layouts(jobs: Sequence[Job]) -> None:
    """Whether every entry that tests another's networks has parameters like theirs.

    Raises:
        ComparisonError: if not.
    """
    trained = {(job.entry.name, job.seed): job for job in jobs}
    for job in jobs:
        of = job.entry.of
        if of and job.run.model.layout() != trained[of, job.seed].run.model.layout():
            name, of = showable(job.entry.name, 60), showable(of, 60)
            raise ComparisonError(f"{name!r} has other parameters than {of!r}: it cannot test those")


def pass_on(told: Callable[[Told], None], standing: Told, record: Record) -> None:
    """Tell of a record, and where it stands."""
    told(standing._replace(record=record))


def trained_and_measured(job: Job, folder: Path, engine: Engine, told: Callable[[Record], None]) -> Result:
    """The result of a training, from its first epoch or from the last one that was saved."""
    run, path = replace(job.run, validation=None), job.state(folder)

    def start() -> TrainState:
        stored = checkpoint.load(path) if path.exists() else None
        return first_state(run) if stored is None or stored.about != job.about else stored.now

    now = engine.from_root(start)
    first, began, last = now.step, perf_counter(), None
    for record in fit(run, engine, start=now):
        told(record)
        refuse_drift(record, engine)
        if record.kind == "epoch":
            refuse_infinite_state(checkpoint.arrays_of(record.now).values(), record.step)
            if engine.is_root:
                checkpoint.save(path, job.about, record.now)
            now, last = record.now, record
    steps = run.config.epochs * run.steps_per_epoch
    seconds = (perf_counter() - began) * steps / max(steps - first, 1)  # the earlier part at the pace of this one
    result = measured(job, now, engine)
    if last is not None:
        result = result._replace(training_loss=last.loss, training_accuracy=last.accuracy, seconds=seconds)
    return result


def measured(job: Job, now: TrainState, engine: Engine) -> Result:
    """The result of a state on the pictures that its training has not seen."""
    model, seen = job.run.model, job.run.validation
    assert seen is not None  # there are always pictures to measure on
    logits = predict_logits(model, now.params, now.state, seen.images, engine, partial(prepare, job.run))
    loss, share = accuracy(logits, seen.labels, job.run.loss)
    multiply_adds = sum(part.multiply_adds for part in model.parts(now.params))
    rate = job.run.config.optimizer.learning_rate
    return Result(
        job.entry.name, job.seed, job.what, share, loss, None, None, None, now.params.flat.size, multiply_adds,
        job.factor, rate, job.trial,
    )  # fmt: skip


def write_results(folder: Path, results: Iterable[Result]) -> None:
    """``results.jsonl``, a line for each, whole or not at all."""
    lines = "".join(f"{to_json(result._asdict())}\n" for result in results)
    write_atomically(folder / RESULTS, lines.encode())


def results_in(folder: Path) -> list[Result]:
    """The results that a folder holds.

    Raises:
        ComparisonError: if its file is no list of results.
    """
    try:
        lines = read_limited(folder / RESULTS, LARGEST_FILE).splitlines()
        return [Result(**parse_json(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, OSError) as error:
        path = showable(folder / RESULTS)
        raise ComparisonError(f"{path} is no list of results: {showable(error)}: name another folder") from None
