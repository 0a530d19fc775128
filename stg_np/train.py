"""The training loop, read from top to bottom: a run, its state, one step, and ``fit``, an iterator of records.

Nothing is printed here and nothing is global. A :class:`Run` (frozen) says everything that the result depends on;
a :class:`TrainState` is everything that changes. So ``fit`` can stop after any step and go on from the saved state to
the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np

from stg_np.backend import DEVICES, Array, get_xp, to_device, to_host
from stg_np.data.augment import Scaling, Variations, normalise, scaled, varied
from stg_np.divergence import refuse_bad_step, refuse_divergence
from stg_np.engine import Engine
from stg_np.evaluate import accuracy, predict_logits
from stg_np.inputs import check_choice, check_examples, check_fields, check_kind, check_scaling, check_whole
from stg_np.models.base import Adapts, LossAndGrad, Model, loss_and_grad
from stg_np.ops.losses import Loss, cross_entropy
from stg_np.optim import SCHEDULES, ByRole, Moments, Optimizer, clip_by_norm, when_finite
from stg_np.params import Params, State


@dataclass(frozen=True)
class TrainConfig(Variations):
    """The hyper-parameters of a run, with those of :class:`~stg_np.data.augment.Variations`, how pictures are varied.

    Attributes:
        epochs: passes over the training pictures.
        batch_size: pictures per step. group_size: pictures per shard, a part of the mathematics (random draws are
            per group) and the unit of work of one thread.
        optimizer: a rule, with its learning rates at the peak of the ``schedule``: ``cosine`` or ``linear``, after a
            linear ``warmup`` (fraction of all steps).
        label_smoothing: see :mod:`stg_np.ops.losses`. clip_norm: longest gradient.
        seed: of the parameters, the order, the augmentation and the validation split.
        patience: stop after so many epochs in which the validation accuracy did not rise; 0: never.
    """

    epochs: int = 10
    batch_size: int = 128
    group_size: int = 32
    optimizer: Optimizer = field(default_factory=ByRole)
    schedule: str = "linear"
    warmup: float = 0.1
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    seed: int = 0
    patience: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        zeros = ("shift", "cutout", "seed", "patience")
        check_fields(self, TrainConfig, choices={"schedule": SCHEDULES}, from_zero=zeros,
                     fractions=("warmup", "label_smoothing"), positive=("clip_norm",))  # fmt: skip
        check_kind("optimizer", self.optimizer, Optimizer)


class Examples(NamedTuple):
    """Pictures (N, height, width, c) uint8 and labels (N,), on the host; a :class:`Run` checks them."""

    images: Array
    labels: Array


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that the result of a training depends on; checked once, here (see :mod:`stg_np.inputs`)."""

    model: Model
    config: TrainConfig
    train: Examples
    validation: Examples | None
    scaling: Scaling
    device: str = "cpu"
    loss: Loss | None = None  # None: cross-entropy, with the label smoothing of the config
    fresh: Callable[[np.random.Generator, int], tuple[Array, Array]] | None = None  # draws others for every batch

    def __post_init__(self) -> None:
        check_kind("model", self.model, Model)
        check_kind("config", self.config, TrainConfig)
        check_choice("device", self.device, DEVICES)
        if self.loss is not None:
            check_kind("loss", self.loss, Loss)
        check_scaling(*self.scaling, self.model.input_shape[-1])
        classes = self.model.classes if self.loss is None else None
        for part in filter(None, (self.train, self.validation)):
            check_examples(*part, self.model.input_shape, self.scaling.value_range, classes)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training pictures (the rest of each order is left out), at least one."""
        return max(1, len(self.train.labels) // self.config.batch_size)


class TrainState(NamedTuple):
    """Everything that changes. Sums and flag are 0-d arrays on the device: adding to them does not wait for it."""

    params: Params
    state: State
    moments: Moments
    step: int  # steps done since the beginning
    loss_sum: Array  # of the epoch's steps
    correct: Array  # pictures of the epoch called right
    bad_step: Array  # the first step whose gradient or update was not finite; −1: none
    best_accuracy: float  # the best validation accuracy of any epoch
    improved_at: int = 0  # the step after which that last rose


class Record(NamedTuple):
    """What ``fit`` reports. Losses are in nats, accuracies in 0 … 1, both means over the epoch so far."""

    kind: Literal["step", "epoch", "stopped"]
    epoch: int  # counted from 1
    step: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    images_per_second: float
    is_best: bool
    now: TrainState


def initial_state(run: Run) -> TrainState:
    """Draw the parameters on the host and move them to the run's device."""
    params, state = run.model.init(np.random.default_rng(run.config.seed))
    if isinstance(run.model, Adapts):
        params = run.model.adapted(params, normalise(run.train.images[:FOR_ADAPTING], *run.scaling))
    params = params.with_flat(to_device(params.flat, run.device))
    state = {name: to_device(array, run.device) for name, array in state.items()}
    xp = get_xp(params.flat)
    moments = run.config.optimizer.init(params)
    return TrainState(params, state, moments, 0, xp.zeros(()), xp.zeros(()), xp.full((), -1), 0.0)


FOR_ADAPTING = 5000
"""Pictures from which a model computes what it does not learn (:class:`~stg_np.models.base.Adapts`)."""


def stream(run: Run, use: Literal["order", "group"], *numbers: int) -> np.random.Generator:
    """Random numbers of their own for each use of them: the seed alone is for the parameters."""
    return np.random.default_rng([run.config.seed, {"order": 1, "group": 2}[use], *numbers])


def prepare(
    run: Run, pictures: Array, rng: np.random.Generator | None = None, *, numbers: Array | None = None, epoch: int = 0
) -> Array:
    """Pixels (B, height, width, c) as the model's input on the device.

    With an ``rng`` they are varied first, as the config says; then ``numbers`` (B,) are those of the training pictures,
    and the epoch is counted from 0.
    """
    if rng is None:
        return to_device(scaled(pictures, run.scaling), run.device)
    when = {"epoch": epoch, "epochs": run.config.epochs, "seed": run.config.seed}
    return to_device(varied(pictures, rng, run.config, run.scaling, numbers=numbers, **when), run.device)


def batch_gradient(run: Run, now: TrainState, batch: Array, engine: Engine) -> LossAndGrad:
    """Forward, loss and backward: the mean loss over the batch (indices of training pictures) and its gradient.

    The engine shares out the groups of the batch. What is random in a group follows from seed, step and group.
    """
    loss = run.loss or cross_entropy(run.config.label_smoothing)
    size = run.config.group_size
    groups = [batch[start : start + size] for start in range(0, len(batch), size)]

    def group_gradient(number: int) -> LossAndGrad:
        rng = stream(run, "group", now.step, number)
        own, epoch = groups[number], now.step // run.steps_per_epoch
        images, labels = run.fresh(rng, len(own)) if run.fresh else (part[own] for part in run.train)
        x, targets = prepare(run, images, rng, numbers=own, epoch=epoch), to_device(labels, run.device)
        return loss_and_grad(
            run.model, now.params, now.state, x, targets,
            loss=loss, weight=1 / len(batch), rng=rng, work=engine.workspace,
        )  # fmt: skip

    total = engine.sum(group_gradient, range(len(groups)))
    return total._replace(state={name: array / len(groups) for name, array in total.state.items()})


def train_step(run: Run, now: TrainState, batch: Array, engine: Engine) -> TrainState:
    """Forward, loss and backward, clip, update. What is not finite changes nothing but the flag."""
    xp = get_xp(now.params.flat)
    update = when_finite(run.config.optimizer)
    with np.errstate(over="ignore", invalid="ignore"):  # the flag reports it, with the step
        result = batch_gradient(run, now, batch, engine)
        grads = clip_by_norm(result.grads, run.config.clip_norm)
        rate, kept = rate_at(run, now.step), result.state.values()
        params, moments, good = update(grads, now.moments, now.params, rate, each=engine.map, also=kept)
    return now._replace(
        params=params,
        state={name: xp.where(good, array, now.state[name]) for name, array in result.state.items()},
        moments=moments,
        step=now.step + 1,
        loss_sum=now.loss_sum + result.loss,
        correct=now.correct + result.correct,
        bad_step=xp.where(good | (now.bad_step >= 0), now.bad_step, now.step + 1),
    )


def rate_at(run: Run, step: int) -> float:
    """The schedule's factor of the learning rates in step number ``step`` (from 0)."""
    progress = (step + 1) / (run.config.epochs * run.steps_per_epoch + 1)
    return SCHEDULES[run.config.schedule](progress, run.config.warmup)


def fit(
    run: Run,
    engine: Engine,
    *,
    start: TrainState | None = None,
    log_every: int = 10,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Train; yield a record every ``log_every`` steps and after each epoch.

    Args:
        run: what to train, on what. engine: who does the work, entered.
        start: a state to go on from (None: from the beginning).
        log_every: steps between two records; only then does the host wait for the device.
        should_stop: asked before each step; when it says so, a last record of the kind ``stopped`` follows.

    Raises:
        TrainingError: at the first record after a step, or of a loss, that was not finite.
    """
    check_whole("log_every", log_every, least=1)
    now = initial_state(run) if start is None else start
    steps, config = run.steps_per_epoch, run.config
    while now.step < steps * min(config.epochs, now.improved_at // steps + (config.patience or config.epochs)):
        epoch, first = divmod(now.step, steps)
        order = stream(run, "order", epoch).permutation(len(run.train.labels))
        began = perf_counter()
        for k in range(first, steps):
            if should_stop():
                yield make_record("stopped", run, now, k, 0.0)
                return
            batch = order[k * run.config.batch_size : (k + 1) * run.config.batch_size]
            now = train_step(run, now, batch, engine)
            if (k + 1) % log_every == 0 or k + 1 == steps:
                speed = (k + 1 - first) * len(batch) / (perf_counter() - began)
                record = make_record("step", run, now, k + 1, speed)
                yield record
        record = end_of_epoch(run, record, engine)
        yield record
        now = record.now


def end_of_epoch(run: Run, last: Record, engine: Engine) -> Record:
    """Evaluate on the held-out pictures, and start the sums of the next epoch."""
    now, loss, score = last.now, None, None
    if run.validation is not None:
        images, labels = run.validation.images, run.validation.labels
        with np.errstate(over="ignore", invalid="ignore"):  # the loss tells
            logits = predict_logits(run.model, now.params, now.state, images, engine, partial(prepare, run))
            loss, score = accuracy(logits, labels, run.loss)
        refuse_divergence(loss, f"after step {now.step}")
    zero = 0 * now.loss_sum
    is_best = score is not None and score >= now.best_accuracy  # of equal ones the later: it has learned longer
    improved_at = now.step if score is None or score > now.best_accuracy else now.improved_at
    best = max(score or 0.0, now.best_accuracy)
    now = now._replace(loss_sum=zero, correct=zero, best_accuracy=best, improved_at=improved_at)
    return last._replace(kind="epoch", validation_loss=loss, validation_accuracy=score, is_best=is_best, now=now)


def make_record(kind: Literal["step", "stopped"], run: Run, now: TrainState, done: int, speed: float) -> Record:
    """Read the sums of the epoch's ``done`` steps: the one place where the host waits for the device."""
    sums = get_xp(now.params.flat).stack([now.loss_sum, now.correct, now.bad_step])
    loss, correct, bad_step = to_host(sums).tolist()
    refuse_bad_step(bad_step)
    refuse_divergence(loss, f"after step {now.step}")
    seen = done * min(run.config.batch_size, len(run.train.labels))
    epoch = 1 + (now.step - 1) // run.steps_per_epoch if now.step else 1
    rate = run.config.optimizer.learning_rate * rate_at(run, max(now.step - 1, 0))
    return Record(
        kind, epoch, now.step, loss / max(done, 1), correct / max(seen, 1), None, None, rate, speed, False, now
    )
