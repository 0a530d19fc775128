"""The training loop: its records, its resumption to the same bits, its guard, and when the host waits."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from stg_np import evaluate
from stg_np.backend import Array, to_host
from stg_np.data.augment import (
    Scaling,
    alternate_flip,
    cutout,
    normalise,
    random_flip,
    random_rotation,
    random_shift,
    resized,
)
from stg_np.divergence import TrainingError
from stg_np.engine import Engine, Threads
from stg_np.evaluate import accuracy, predict_logits
from stg_np.models.base import loss_and_grad
from stg_np.models.image_stg import ImageSTG
from stg_np.models.stg import STG
from stg_np.ops.losses import SQUARED_ERROR, TOLERANCE, cross_entropy
from stg_np.optim import SCHEDULES, SGD, Optimizer, with_learning_rate
from stg_np.params import Params, State
from stg_np.presets import PRESETS
from stg_np.train import (
    Examples,
    Record,
    Run,
    TrainConfig,
    TrainState,
    fit,
    initial_state,
    prepare,
    rate_at,
    train_step,
)
from tests.training import MODEL, RULES, SCALING, as_float64, bits, make_run, pictures

Waits = Callable[[], AbstractContextManager[list[str]]]


def records(run: Run, workers: int = 1, **options: Any) -> list[Record]:
    with Threads(workers) as threads:
        return list(fit(run, threads, **options))


# --- Records ----------------------------------------------------------------------------------------------------


def test_the_sequence_of_records() -> None:
    found = records(make_run(), log_every=2)
    steps = [(record.kind, record.epoch, record.step) for record in found]
    assert steps == [
        ("step", 1, 2), ("step", 1, 3), ("epoch", 1, 3),
        ("step", 2, 5), ("step", 2, 6), ("epoch", 2, 6),
    ]  # fmt: skip
    for record in found:
        assert record.now.step == record.step
        assert (record.validation_loss is not None) == (record.kind == "epoch")
        assert 0 <= record.accuracy <= 1
        assert 0 < record.loss < 3
        assert record.images_per_second > 0
        assert type(record.loss) is type(record.accuracy) is float  # ready for JSON


def test_only_whole_batches_and_each_picture_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Array] = []

    def note(run: Run, now: TrainState, batch: Array, engine: Engine) -> TrainState:
        seen.append(batch)
        return train_step(run, now, batch, engine)

    monkeypatch.setattr("stg_np.train.train_step", note)
    records(make_run())
    assert [len(batch) for batch in seen] == [16] * 6
    first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert len(set(first.tolist())) == len(set(second.tolist())) == 48
    assert first.tolist() != second.tolist()  # another order in the second epoch
    seen.clear()
    records(make_run(seed=1))
    assert np.concatenate(seen[:3]).tolist() != first.tolist()


def test_loss_and_accuracy_are_means_over_the_epoch_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against an account of the same steps, which begins anew with every epoch."""
    run = make_run(flip=False, shift=0, label_smoothing=0.0, epochs=3)
    figures: list[tuple[float, float]] = []

    def note(run: Run, now: TrainState, batch: Array, engine: Engine) -> TrainState:
        logits, _, _ = MODEL.forward(prepare(run, run.train.images[batch]), now.params, now.state)
        figures.append(accuracy(logits, run.train.labels[batch]))
        return train_step(run, now, batch, engine)

    monkeypatch.setattr("stg_np.train.train_step", note)
    for record in records(run, log_every=1):
        steps = figures[3 * (record.epoch - 1) : record.step]
        assert 1 <= len(steps) <= 3
        loss, share = np.mean(steps, 0)
        assert record.loss == pytest.approx(loss, rel=1e-5)
        assert record.accuracy == pytest.approx(share, abs=1e-12)


def test_the_speed_is_that_of_the_steps_since_the_epoch_began_or_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is asked when an epoch begins and at each record, and says one second more each time."""
    monkeypatch.setattr("stg_np.train.perf_counter", itertools.count().__next__)
    run = make_run()
    every_step, every_second = records(run, log_every=1), records(run, log_every=2)
    assert {record.images_per_second for record in every_step} == {16.0}
    assert [record.images_per_second for record in every_second] == 2 * [2 * 16, 3 * 16 / 2, 3 * 16 / 2]
    again = records(run, start=every_step[1].now, log_every=1)
    assert again[0].images_per_second == 16.0


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_it_learns(rule: Optimizer) -> None:
    data = (pictures(160, seed=1), pictures(80, seed=2))
    run = make_run(data=data, epochs=4, optimizer=rule)
    epochs = [record for record in records(run) if record.kind == "epoch"]
    assert epochs[-1].loss < 0.8 * epochs[0].loss
    assert epochs[-1].validation_accuracy is not None
    assert epochs[-1].validation_accuracy > 0.9


def test_the_validation_pictures_are_measured_and_never_learned_from() -> None:
    data = (pictures(50, seed=1), pictures(20, seed=2))
    run, without = make_run(data=data), make_run(data=(data[0], None))
    wrong = make_run(data=(data[0], Examples(data[1].images[::-1], (data[1].labels + 1) % 4)))
    found, found_without, found_wrong = records(run), records(without), records(wrong)
    assert len({record[-1].now.params.flat.tobytes() for record in (found, found_without, found_wrong)}) == 1
    for record in found:
        if record.kind == "epoch":
            with Threads(1) as engine:
                logits = predict_logits(
                    run.model, record.now.params, record.now.state, data[1].images, engine, lambda x: prepare(run, x)
                )
            loss, share = accuracy(logits, data[1].labels)
            assert record.validation_loss == pytest.approx(loss, rel=1e-5)
            assert record.validation_accuracy == share
    assert {(r.validation_loss, r.validation_accuracy, r.is_best) for r in found_without} == {(None, None, False)}
    assert found_wrong[-1].validation_loss != found[-1].validation_loss


def test_the_best_epoch_is_the_last_with_the_highest_validation_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.4, 0.7, 0.7])
    monkeypatch.setattr("stg_np.train.accuracy", lambda *_: (1.0, next(scores)))
    epochs = [record for record in records(make_run(epochs=4)) if record.kind == "epoch"]
    assert [record.is_best for record in epochs] == [True, False, True, True]
    assert [record.now.best_accuracy for record in epochs] == [0.5, 0.5, 0.7, 0.7]


def test_an_epoch_without_one_right_answer_is_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.0, 0.0, 0.1])
    monkeypatch.setattr("stg_np.train.accuracy", lambda *_: (1.0, next(scores)))
    epochs = [record for record in records(make_run(epochs=3)) if record.kind == "epoch"]
    assert [record.is_best for record in epochs] == [True, True, True]
    assert [record.now.best_accuracy for record in epochs] == [0.0, 0.0, 0.1]
    assert records(make_run(validation=0))[-1].now.best_accuracy == 0.0


def test_a_loss_of_nought_is_no_fault() -> None:
    """A network that is right has it: here, by targets that any output meets."""
    nothing = SQUARED_ERROR._replace(forward=lambda *both: (0 * both[0][:, 0], SQUARED_ERROR.forward(*both)[1]))
    found = records(make_run(data=(one_hot(50), one_hot(20)), loss=nothing, epochs=3))
    assert [record.loss for record in found] == [0.0] * len(found)


def test_the_state_before_a_step_stays_what_it_was() -> None:
    """So a record can be kept, and gone on from, while the training goes on."""
    run = make_run()
    with Threads(1) as engine:
        first = train_step(run, initial_state(run), np.arange(16), engine)
        before = bits(first)
        train_step(run, first, np.arange(16, 32), engine)
    assert bits(first) == before


def test_the_matrices_of_a_step_are_shared_out_by_the_engine() -> None:
    """Their Newton–Schulz iterations take as long as some layers do."""
    run = make_run()
    with Threads(1) as engine:
        mapped: list[Any] = []
        around = engine.map
        engine.map = lambda function, items, /: [mapped.append(item) or function(item) for item in items]  # type: ignore
        train_step(run, initial_state(run), np.arange(16), engine)
        engine.map = around  # type: ignore[method-assign]
    assert {name for name in mapped if isinstance(name, str)} >= {"stm1.right.W", "stm2.right.W"}


def test_one_picture_a_step_is_right_or_wrong() -> None:
    found = records(make_run(batch_size=1, train=3, epochs=1), log_every=1)
    shares = [record.accuracy * count for record, count in zip(found, (1, 2, 3))]
    assert all(abs(share - round(share)) < 1e-6 for share in shares)
    assert max(shares) >= 1


def test_a_record_every_ten_steps_unless_told_otherwise() -> None:
    found = records(make_run(batch_size=1, train=21, epochs=1))
    assert [(record.kind, record.step) for record in found] == [("step", 10), ("step", 20), ("step", 21), ("epoch", 21)]


@pytest.mark.parametrize(
    ("patience", "trained"), [(0, 6), (1, 2), (2, 5), (3, 6)], ids=["never", "at once", "after two", "too late"]
)
def test_patience_ends_a_training_that_learns_nothing_more(
    monkeypatch: pytest.MonkeyPatch, patience: int, trained: int
) -> None:
    scores = iter([0.5, 0.5, 0.7, 0.6, 0.7, 0.7])  # the same accuracy again is no better one
    monkeypatch.setattr("stg_np.train.accuracy", lambda *_: (1.0, next(scores)))
    epochs = [record for record in records(make_run(epochs=6, patience=patience)) if record.kind == "epoch"]
    assert len(epochs) == trained
    with Threads(1) as engine:
        assert list(fit(make_run(epochs=trained, patience=patience), engine, start=epochs[-1].now)) == []


def test_patience_is_counted_on_after_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr("stg_np.train.accuracy", lambda *_: (1.0, next(scores)))
    run = make_run(epochs=6, patience=2)
    with Threads(1) as engine:
        stopped = next(record for record in fit(run, engine, log_every=1) if record.step == 5)  # in the second epoch
        assert [record.step for record in fit(run, engine, start=stopped.now) if record.kind == "epoch"] == [6, 9]


def test_patience_waits_for_nothing_where_no_pictures_are_held_out() -> None:
    assert records(make_run(validation=0, patience=1))[-1].epoch == 2


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_rises_and_falls_and_is_never_zero(schedule: str) -> None:
    run = make_run(epochs=20, schedule=schedule, warmup=0.25)
    rates = [rate_at(run, step) for step in range(60)]
    assert rates == [SCHEDULES[schedule]((step + 1) / 61, 0.25) for step in range(60)]
    assert min(rates) > 0
    assert max(rates) <= 1
    assert int(np.argmax(rates)) in (14, 15)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_record_says_the_learning_rate_of_its_step(rule: Optimizer) -> None:
    run = make_run(schedule="cosine", optimizer=rule)
    found = [record.learning_rate for record in records(run, log_every=1) if record.kind == "step"]
    assert found == [rule.learning_rate * rate_at(run, step) for step in range(6)]


@pytest.mark.parametrize("batch_size", [50, 51, 1000])
def test_a_batch_larger_than_the_data_is_the_data(batch_size: int) -> None:
    run = make_run(batch_size=batch_size)
    found = records(run, workers=2)
    assert [(record.kind, record.step) for record in found] == [("step", 1), ("epoch", 1), ("step", 2), ("epoch", 2)]
    whole = records(make_run(batch_size=50))
    assert bits(found[-1].now) == bits(whole[-1].now)
    assert [record.accuracy for record in found] == [record.accuracy for record in whole]


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch_size": 0}, {"group_size": -1}, {"schedule": "step"},
        {"warmup": 1.0}, {"warmup": -0.1},
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**wrong)


# --- Stop and go on ------------------------------------------------------------------------------------------------


STATISTICS: dict[str, Callable[[Array], Array]] = {
    "mean": lambda x: x.mean((0, 1, 2)),
    "least": lambda x: x.min((0, 1, 2)),
    "largest": lambda x: x.max((0, 1, 2)),
}


class Noisy(STG):
    """An STG that draws random numbers in training, and keeps a state."""

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        params, _ = super().init(rng, dtype)
        return params, {name: np.zeros(1, dtype) for name in STATISTICS}

    def forward(
        self, x: Array, params: Params, state: State, *, train: bool = False, **options: Any
    ) -> tuple[Array, Any, State]:
        logits, cache, _ = super().forward(x, params, state, train=train, **options)
        if train:
            state = {name: 0.9 * state[name] + 0.1 * statistic(x) for name, statistic in STATISTICS.items()}
        return logits, cache, state


NOISY = Noisy((8, 8, 1), 4, view="patches", patch=(4, 4), width=8, layers=2, dropout=0.2)


def test_a_step_keeps_the_mean_of_what_its_groups_found() -> None:
    run = make_run(model=NOISY, batch_size=12, flip=False, shift=0)
    now, batch = initial_state(run), np.arange(12)
    groups = [prepare(run, run.train.images[batch[start : start + 6]]) for start in (0, 6)]
    with Threads(1) as engine:
        kept = train_step(run, now, batch, engine).state
    assert kept.keys() == now.state.keys() == STATISTICS.keys()
    for name, statistic in STATISTICS.items():
        np.testing.assert_allclose(kept[name], 0.1 * np.mean([statistic(x) for x in groups], 0), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_resuming_from_any_record_gives_the_same_bits(rule: Optimizer) -> None:
    run = make_run(model=NOISY, optimizer=rule)
    whole = records(run, log_every=1)
    assert [record.kind for record in whole].count("step") == 6
    assert "state mean" in bits(whole[-1].now)
    for k, record in enumerate(whole):
        rest = records(run, workers=1 + k % 2, start=record.now, log_every=1)
        if record.kind == "epoch" or record.step % 3:
            expected = whole[k + 1 :]
            assert [without_speed(r) for r in rest] == [without_speed(r) for r in expected]
        if rest:
            assert bits(rest[-1].now)["params"] == bits(whole[-1].now)["params"]
            assert {k: v for k, v in bits(rest[-1].now).items() if "moment" in k or "state" in k} == {
                k: v for k, v in bits(whole[-1].now).items() if "moment" in k or "state" in k
            }


def without_speed(record: Record) -> tuple[Any, ...]:
    return (*record._replace(images_per_second=0.0)[:-1], bits(record.now))


@pytest.mark.parametrize("after", range(7))
def test_stopping_at_any_step_and_going_on_gives_the_same_bits(after: int) -> None:
    run = make_run(model=NOISY)
    whole = records(run, log_every=1)
    asked = itertools.count()
    first = records(run, log_every=1, should_stop=lambda: next(asked) == after)
    if after == 6:  # nobody stopped it
        assert [without_speed(r) for r in first] == [without_speed(r) for r in whole]
        return
    stopped = first[-1]
    assert (stopped.kind, stopped.step, stopped.is_best) == ("stopped", after, False)
    assert stopped.validation_accuracy is None
    so_far = first[-2] if after % 3 else None  # the last step of the same epoch
    assert (stopped.loss, stopped.accuracy) == ((so_far.loss, so_far.accuracy) if so_far else (0.0, 0.0))
    second = records(run, log_every=1, start=stopped.now)
    assert [without_speed(r) for r in [*first[:-1], *second]] == [without_speed(r) for r in whole]


@pytest.mark.parametrize("after", [2, 5, 6, 7, 11])
def test_stopping_while_the_pictures_grow_gives_the_same_bits(after: int) -> None:
    """With sizes that change between the epochs, pictures mirrored in turn and the running statistics of a norm."""
    model = ImageSTG((8, 8, 1), 4, widths=(4, 4), depth=1, stem=3, sweeping=(1, 2))
    run = make_run(model=model, sides=(4, 8), epochs=4, flip_in_turn=True, cutout=2)
    whole = records(run, workers=2, log_every=1)
    asked = itertools.count()
    first = records(run, log_every=1, should_stop=lambda: next(asked) == after)
    second = records(run, workers=2, log_every=1, start=first[-1].now)
    assert first[-1].kind == "stopped"
    assert [without_speed(r) for r in [*first[:-1], *second]] == [without_speed(r) for r in whole]


@pytest.mark.parametrize(("after", "epoch"), [(0, 1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_who_stops_between_two_epochs_stops_in_the_one_that_is_done(after: int, epoch: int) -> None:
    asked, run = itertools.count(), make_run(epochs=3)
    stopped = records(run, should_stop=lambda: next(asked) == after)[-1]
    assert stopped.epoch == epoch
    assert stopped.images_per_second == 0.0
    assert stopped.learning_rate == run.config.optimizer.learning_rate * rate_at(run, max(after - 1, 0))


def test_a_finished_run_has_nothing_more_to_do() -> None:
    run = make_run()
    assert records(run, start=records(run)[-1].now) == []


def test_a_longer_run_goes_on_where_a_shorter_one_ended() -> None:
    """The steps of one order depend on seed and epoch alone, not on how many epochs were asked for."""
    shorter, longer = make_run(epochs=1, schedule="linear"), make_run(epochs=2)
    assert [r.step for r in records(longer, start=records(shorter)[-1].now)] == [6, 6]


def test_two_runs_are_alike_and_another_seed_is_not() -> None:
    assert bits(records(make_run())[-1].now) == bits(records(make_run(), workers=3)[-1].now)
    assert bits(records(make_run())[-1].now) != bits(records(make_run(seed=1))[-1].now)


def one_hot(count: int, seed: int = 0) -> Examples:
    """Pictures with four numbers each to be reached: 1 for their class, 0 for the others."""
    drawn = pictures(count, seed)
    return Examples(drawn.images, np.eye(4, dtype=np.float32)[drawn.labels])


# --- The guard ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Poisoned(Noisy):
    """An STG with a state, whose gradient is NaN (or infinite) in the given calls of ``backward``, counted from 1."""

    calls: Any = field(default_factory=itertools.count)
    bad: tuple[int, ...] = (4,)
    poison: float = float("nan")

    def __post_init__(self) -> None:
        """What it has besides is no configuration, and not checked as such."""

    def backward(self, dlogits: Array, cache: Any, params: Params, **options: Any) -> Params:
        grads = super().backward(dlogits, cache, params, **options)
        if next(self.calls) + 1 in self.bad:
            grads.flat[5] = self.poison
        return grads


def poisoned(*bad: int, poison: float = float("nan")) -> Poisoned:
    return Poisoned((8, 8, 1), 4, view="patches", patch=(4, 4), width=8, layers=1, bad=bad, poison=poison)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_bad_gradient_changes_nothing_but_the_flag(rule: Optimizer, poison: float, device: str) -> None:
    run = make_run(model=poisoned(2, 4, poison=poison), group_size=16, optimizer=rule, device=device)
    states, batch = [initial_state(run)], np.arange(16)
    with Threads(1) as engine:
        for _ in range(4):
            states.append(train_step(run, states[-1], batch, engine))

    def learned(now: TrainState) -> dict[str, bytes]:
        return {name: array for name, array in bits(now).items() if name.startswith(("params", "moment", "state"))}

    assert learned(states[1]) != learned(states[0])
    assert learned(states[2]) == learned(states[1])
    assert learned(states[3]) != learned(states[2])
    assert learned(states[4]) == learned(states[3])
    assert [int(to_host(now.bad_step)) for now in states] == [-1, -1, 2, 2, 2]  # the first one stays named
    assert [now.step for now in states] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("log_every", "logged"), [(1, [1, 2, 3]), (3, [3]), (10, [])])
def test_training_ends_at_the_next_record_and_names_the_first_bad_step(log_every: int, logged: list[int]) -> None:
    run = make_run(model=poisoned(4, 5), group_size=16, train=100)  # six steps an epoch
    found: list[Record] = []
    with (
        Threads(1) as engine,
        pytest.raises(TrainingError, match="the gradient of step 4, or what it made of"),
    ):
        collections.deque(map(found.append, fit(run, engine, log_every=log_every)))  # walks to the error
    assert [record.step for record in found] == logged


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_learning_rate_that_explodes_ends_in_that_error_and_no_warning(rule: Optimizer, workers: int) -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        records(make_run(optimizer=with_learning_rate(rule, 1e30)), workers=workers)
    with pytest.raises(TrainingError, match="the gradient of step 1, or what it made of the parameters,"):
        records(make_run(optimizer=with_learning_rate(rule, 1e39)), workers=workers)


@pytest.mark.parametrize("validation", [0, 20])
def test_the_last_step_is_guarded_as_well(validation: int) -> None:
    run = make_run(epochs=1, batch_size=50, validation=validation, optimizer=with_learning_rate(RULES["sgd"], 1e39))
    with pytest.raises(TrainingError, match="step 1, or what it made of the parameters, is not finite"):
        records(run)


def test_a_validation_loss_that_is_not_finite_ends_the_training() -> None:
    """Parameters of 1e28 are finite, and so are their outputs; the squares of these are not."""
    rule = with_learning_rate(RULES["sgd"], 1e30)
    run = make_run(epochs=1, batch_size=50, data=(one_hot(50), one_hot(20)), optimizer=rule, loss=SQUARED_ERROR)
    with pytest.raises(TrainingError, match=r"the loss after step 1 is not finite"):
        records(run)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_training_loss_that_is_not_finite_ends_the_training_whatever_its_gradient(bad: float) -> None:
    right = cross_entropy()
    run = make_run(
        validation=0, loss=right._replace(forward=lambda *given: (bad * given[0][:, 0], right.forward(*given)[1]))
    )
    with pytest.raises(TrainingError, match=r"the loss after step . is not finite"):
        records(run)


# --- Both array libraries --------------------------------------------------------------------------------------------


def test_the_host_waits_once_for_a_record_and_once_for_a_group_of_validation_pictures(
    stand_in: Any, synchronisations: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget: nothing in a step, 1 for each step that is logged, 1 for each group that is evaluated."""
    monkeypatch.setattr(evaluate, "GROUP", 8)
    for rule in RULES.values():
        run = make_run(device="cuda", optimizer=rule, model=replace(MODEL, dropout=0.2))
        with synchronisations() as waits:
            found = records(run, log_every=2)
        logged = sum(record.kind == "step" for record in found)
        assert (logged, len(waits)) == (4, 4 + 2 * 3)  # 2 epochs, 20 validation pictures in groups of 8
    now = initial_state(run)
    with synchronisations() as waits, Threads(1) as engine:
        for _ in range(3):
            now = train_step(run, now, np.arange(16), engine)
    assert waits == []


def test_both_libraries_train_alike(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision, several steps end within rounding of each other."""
    monkeypatch.setattr("stg_np.data.augment.normalise", partial(normalise, dtype=np.float64))

    def trained(where: str) -> Array:
        run = make_run(device=where, model=replace(MODEL, dropout=0.1))
        start = initial_state(run)
        params = as_float64(start.params)
        now = start._replace(params=params, moments=run.config.optimizer.init(params))
        with Threads(1) as engine:
            for step in range(4):
                now = train_step(run, now, np.arange(step, step + 16), engine)
        assert now.params.flat.dtype == np.float64
        return to_host(now.params.flat)

    np.testing.assert_allclose(trained(device), trained("cpu"), rtol=1e-9, atol=1e-12)


SMALL: dict[str, dict[str, Any]] = {
    **{kind: {"width": 8, "layers": 2} for kind in ("stg", "lstm", "gru", "rnn")},
    "mlp": {"widths": (8, 4)},
    "cnn": {},
    "image-stg": {"stem": 4},
}
"""Fields that make a model of each kind small."""
CHANNELS = {"digits": 1, "fashion-mnist": 1, "cifar10": 3}
OF_PICTURES = [name for name, preset in PRESETS.items() if preset.data in CHANNELS]
ONE_OF_EACH_KIND = {PRESETS[name].kind: name for name in OF_PICTURES}.values()
EVERY_PRESET = [pytest.param(name, RULES["by_role"], id=name) for name in OF_PICTURES]
EVERY_RULE = [
    pytest.param(name, RULES[rule], id=f"{name}-{rule}")
    for name in ONE_OF_EACH_KIND
    for rule in RULES
    if rule != "by_role"
]


@pytest.mark.parametrize(("name", "rule"), [*EVERY_PRESET, *EVERY_RULE])
def test_one_step_of_every_preset(name: str, rule: Optimizer, device: str, synchronisations: Waits) -> None:
    preset = PRESETS[name]
    maps = preset.kind in ("image-stg", "cnn")
    side = 16 if maps and preset.data != "digits" else 8
    shape = side, side, CHANNELS[preset.data]
    narrow = {"widths": (8,) * len(preset.model["widths"])} if maps else {}
    quiet = {"noise": 4} if "noise" in preset.model else {}
    small = replace(preset, model={**preset.model, **SMALL[preset.kind], **narrow, **quiet})
    rng = np.random.default_rng(0)
    data = Examples(rng.integers(0, 256, (6, *shape), dtype=np.uint8), np.arange(6))
    scaling = Scaling(np.full(shape[2], 0.5), np.full(shape[2], 0.25), 255)
    config = replace(preset.config, optimizer=rule, group_size=4)
    run = Run(small.make_model(shape, 10), config, data, None, scaling, device)
    now = initial_state(run)
    with Threads(1) as engine, synchronisations() as waits:
        after = train_step(run, now, np.arange(6), engine)
    assert waits == []
    assert int(to_host(after.bad_step)) == -1
    assert after.params.flat.dtype == np.float32
    learned, before = (state.params.select("matrix", "kernel", "vector", "head").flat for state in (after, now))
    assert (to_host(learned) != to_host(before)).mean() > 0.9
    assert (to_host(after.params.select("frozen").flat) == to_host(now.params.select("frozen").flat)).all()


# --- Randomness -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorder(STG):
    """An STG that keeps what it was given in training, and the next numbers of its generator."""

    seen: list[Array] = field(default_factory=list)
    draws: list[tuple[int, ...]] = field(default_factory=list)

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Params, State]:
        self.draws.append(tuple(rng.permutation(50).tolist()))
        return super().init(rng, dtype)

    def forward(
        self,
        x: Array,
        params: Params,
        state: State,
        *,
        train: bool = False,
        rng: np.random.Generator | None = None,
        **options: Any,
    ) -> tuple[Array, Any, State]:
        if rng is not None:
            self.seen.append(to_host(x))
            self.draws.append(tuple(rng.permutation(50).tolist()))
        return super().forward(x, params, state, train=train, rng=rng, **options)


SIDES = Examples(np.tile(np.repeat(np.array([40, 200], np.uint8), 4)[:, None], (50, 8, 1, 1)), np.arange(50) % 4)
"""Fifty times the same picture: dark on the left, bright on the right."""


def recorded(workers: int = 1, **config: Any) -> Recorder:
    """What the model was given, in three groups a step and six steps."""
    model = Recorder((8, 8, 1), 4, width=4)
    records(make_run(model=model, data=(SIDES, None), **config), workers)
    assert len(model.seen) == 18
    return model


def test_the_seed_draws_the_parameters() -> None:
    for seed in (0, 7):
        drawn, _ = MODEL.init(np.random.default_rng(seed))
        np.testing.assert_array_equal(initial_state(make_run(seed=seed)).params.flat, drawn.flat)


@pytest.mark.parametrize("augmentation", [{"rotate": 30.0}, {"shift": 3}, {"flip": True}])
def test_every_group_of_every_step_and_epoch_draws_anew(augmentation: dict[str, Any]) -> None:
    """The pictures are all the same, so what differs was drawn."""

    def drawn(workers: int = 1, seed: int = 0) -> list[bytes]:
        settings: dict[str, Any] = {"flip": False, "shift": 0, "batch_size": 24, "group_size": 8, "epochs": 3}
        return [x.tobytes() for x in recorded(workers, **{**settings, "seed": seed, **augmentation}).seen]

    found = drawn()
    assert len(set(found)) == 18
    assert drawn() == found
    assert set(drawn(workers=3)) == set(found)
    assert set(drawn(seed=1)) != set(found)


def mirrored(**config: Any) -> list[bool]:
    """Which pictures came to the model with the bright side on the left."""
    x = np.concatenate(recorded(**{"flip": True, "shift": 0, **config}).seen)
    flipped: list[bool] = (x[:, 0, 0, 0] > x[:, 0, -1, 0]).tolist()
    return flipped


def test_what_is_flipped_in_turn_is_mirrored_in_every_second_epoch() -> None:
    """A picture is known by its last row, and what was done to it by its first."""
    images = np.repeat(np.arange(50, dtype=np.uint8), 64).reshape(50, 8, 8, 1)
    images[:, 0] = SIDES.images[:, 0]
    model = Recorder((8, 8, 1), 4, width=4)
    records(make_run(model=model, data=(Examples(images, SIDES.labels), None), shift=0, flip_in_turn=True, epochs=4), 2)
    seen: dict[int, list[tuple[int, bool]]] = {}
    for number, x in enumerate(model.seen):  # two groups of a step may change places, two epochs not
        who = np.rint((x[:, -1, 0, 0] * SCALING.std + SCALING.mean) * SCALING.value_range).astype(int)
        for k, mirrored in zip(who, x[:, 0, 0, 0] > x[:, 0, -1, 0]):
            seen.setdefault(int(k), []).append((number // 9, bool(mirrored)))
    for looks in seen.values():
        assert len({(epoch + mirrored) % 2 for epoch, mirrored in looks}) == 1
    assert (
        len({(looks[0][0] + looks[0][1]) % 2 for looks in seen.values()}) == 2
    )  # some begin as they are, some mirrored


def test_the_pictures_of_a_training_grow_from_epoch_to_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def note(model: Any, params: Params, state: State, x: Array, *args: Any, **options: Any) -> Any:
        sides.append(x.shape[1])
        return loss_and_grad(model, params, state, x, *args, **options)

    monkeypatch.setattr("stg_np.train.loss_and_grad", note)
    model = ImageSTG((8, 8, 1), 4, widths=(4,), depth=1, stem=0, sweeping=())
    records(make_run(model=model, sides=(4, 8), epochs=4, group_size=16))
    assert sides == [4] * 6 + [8] * 6


def test_a_stem_is_made_from_the_first_training_pictures_as_they_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ImageSTG((8, 8, 1), 4, widths=(4,), depth=1, stem=3, sweeping=())
    run = make_run(model=model, seed=3)
    drawn, _ = model.init(np.random.default_rng(3))
    few, all_of_them = (
        model.adapted(drawn, normalise(run.train.images[:count], *run.scaling)).flat.tolist() for count in (20, 50)
    )
    assert few != all_of_them
    assert initial_state(run).params.flat.tolist() == all_of_them
    monkeypatch.setattr("stg_np.train.FOR_ADAPTING", 20)
    assert initial_state(run).params.flat.tolist() == few


def test_augmentations_of_one_group_draw_one_after_the_other() -> None:
    """Did the second begin the stream anew, it would draw the same whether the first draws or not."""
    flips = mirrored()
    assert 0 < sum(flips) < len(flips) == 96
    assert mirrored() == flips
    assert mirrored(shift=1) != flips
    assert mirrored(rotate=1e-6) != flips
    still: dict[str, Any] = {"flip": False, "shift": 2}
    shifts, turned = recorded(**still), recorded(**still, rotate=1e-6)
    assert any((x != y).any() for x, y in zip(shifts.seen, turned.seen))


def test_what_the_model_draws_comes_after_the_augmentation_and_from_no_other_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parameters, the order of each epoch and each group have streams of their own."""
    orders: list[tuple[int, ...]] = []

    def note(run: Run, now: TrainState, batch: Array, engine: Engine) -> TrainState:
        orders.append(tuple(batch.tolist()))
        return train_step(run, now, batch, engine)

    monkeypatch.setattr("stg_np.train.train_step", note)
    plain = recorded(flip=False, shift=0, batch_size=50, group_size=17, epochs=6)
    assert len({*plain.draws, *orders}) == 1 + 18 + 6
    augmented = recorded(flip=True, shift=0, batch_size=50, group_size=17, epochs=6)
    assert plain.draws[0] == augmented.draws[0]
    assert not set(plain.draws[1:]) & set(augmented.draws[1:])


def test_pictures_are_turned_then_moved_then_mirrored_then_scaled() -> None:
    run = make_run(rotate=20.0)
    images, rng = run.train.images[:9], np.random.default_rng(5)
    rotated = random_rotation(images, rng, 20.0)
    expected = random_flip(random_shift(rotated, rng, 1, "reflect"), rng)
    found = prepare(run, images, np.random.default_rng(5))
    np.testing.assert_array_equal(found, normalise(expected, *SCALING))


def test_pictures_grow_by_epochs_are_turned_by_their_numbers_and_covered_last() -> None:
    run = make_run(flip=True, flip_in_turn=True, shift=0, sides=(4, 8), cutout=3, epochs=4)
    numbers = np.array([5, 7, 11])
    images = run.train.images[numbers]
    for epoch, side in enumerate((4, 4, 8, 8)):
        found = prepare(run, images, np.random.default_rng(5), numbers=numbers, epoch=epoch)
        turned = normalise(alternate_flip(images, numbers, epoch, run.config.seed), *SCALING)
        np.testing.assert_array_equal(found, cutout(resized(turned, side), np.random.default_rng(5), 3))


def test_validation_pictures_are_not_augmented() -> None:
    run = make_run()
    images = run.train.images[:5]
    np.testing.assert_array_equal(prepare(run, images), normalise(images, *SCALING))
    rng = np.random.default_rng(0)
    assert (prepare(run, images, rng) != prepare(run, images)).any()
    still = make_run(flip=False, shift=0)
    np.testing.assert_array_equal(prepare(still, images, rng), prepare(still, images))


def test_the_gradient_of_a_step_is_clipped_and_smoothed_as_configured() -> None:
    """One plain SGD step, by hand."""
    settings: dict[str, Any] = {"optimizer": SGD(0.3), "flip": False, "shift": 0, "group_size": 16}
    run = make_run(clip_norm=1e-3, label_smoothing=0.2, **settings)
    now, batch = initial_state(run), np.arange(16)
    x, labels = prepare(run, run.train.images[batch]), run.train.labels[batch]
    grads = loss_and_grad(MODEL, now.params, now.state, x, labels, loss=cross_entropy(0.2), weight=1 / 16).grads.flat
    assert np.linalg.norm(grads) > 1e-3
    step = 1.9 * 0.3 * rate_at(run, 0) * 1e-3 * grads / np.linalg.norm(grads)  # Nesterov: g + 0.9 g
    with Threads(1) as engine:
        after = train_step(run, now, batch, engine)
    np.testing.assert_allclose(after.params.flat, now.params.flat - step, rtol=1e-5, atol=1e-8)


# --- Another loss -----------------------------------------------------------------------------------------------------


def test_a_run_may_descend_another_loss() -> None:
    """A regression: each picture's class as four numbers, by the squared error."""
    learn, watch = one_hot(160), one_hot(40, 3)
    run = make_run(data=(learn, watch), epochs=4, label_smoothing=0.9, loss=SQUARED_ERROR)
    found = [record for record in records(run) if record.kind == "epoch"]
    assert found[-1].loss < 0.5 * found[0].loss
    now = found[-1].now
    outputs, _, _ = MODEL.forward(prepare(run, watch.images), now.params, now.state)
    errors = outputs - watch.labels
    assert found[-1].validation_loss == pytest.approx((errors**2).sum(1).mean() / 2, rel=1e-4)
    assert found[-1].validation_accuracy == (np.abs(errors) < TOLERANCE).all(1).mean()


# --- Any number of workers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_any_number_of_workers_trains_to_the_same_bits(rule: Optimizer, device: str) -> None:
    run = make_run(device=device, optimizer=rule, epochs=1)
    found = [bits(records(run, workers)[-1].now) for workers in (1, 2, 5)]
    assert found[0] == found[1] == found[2]
