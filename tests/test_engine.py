"""Engines: order, exceptions, BLAS held to one thread, streams, sums the same for any number of workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from stg_np.backend import Array, to_device, to_host
from stg_np.data.augment import normalise
from stg_np.engine import ENGINES, QUIET, SWITCH_INTERVAL, Quiet, Threads, added, available_cores, engine_class
from stg_np.models.base import LossAndGrad, loss_and_grad
from stg_np.ops.losses import cross_entropy
from stg_np.params import Entry, Layout, Params
from stg_np.train import TrainState, batch_gradient, initial_state, prepare
from stg_np.workspace import Workspace
from tests.training import MODEL, as_float64, make_run, pictures

ResultT = TypeVar("ResultT")


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


# --- Threads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_map_keeps_the_order_even_if_the_first_is_the_slowest(count: int) -> None:
    def slow_first(k: int) -> int:
        time.sleep(0.02 if k == 0 else 0)
        return k * k

    with Threads(count) as engine:
        assert engine.map(slow_first, range(7)) == [k * k for k in range(7)]
        assert engine.map(slow_first, []) == []
        assert engine.map(str, (k for k in "ab")) == ["a", "b"]


def test_items_run_at_the_same_time_on_threads_of_their_own() -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(_: int) -> str:
        together.wait()  # passes only if three are inside at once
        return threading.current_thread().name

    with Threads(3) as engine:
        names = engine.map(meet, range(3))
    assert len(set(names)) == 3
    assert threading.current_thread().name in names
    assert sum(name.startswith("stg-np-worker") for name in names) == 2


def on_every_thread(function: Any, engine: Threads) -> Any:
    """``function`` of 0, 1, …, one more than there are threads, of which each takes at least one."""
    together = threading.Barrier(engine.count, timeout=10)

    def meet(k: int) -> Any:
        if k < engine.count:
            together.wait()
        return function(k)

    return engine.map(meet, range(engine.count + 1))


def test_an_exception_arrives_from_whichever_thread() -> None:
    with Threads(4) as engine:
        threads = set(on_every_thread(lambda _: threading.get_ident(), engine))
        assert len(threads) == 4
        for one in threads:

            def fail_there(_: int, one: int = one) -> None:
                if threading.get_ident() == one:
                    raise RuntimeError(f"thread {one}")

            with pytest.raises(RuntimeError, match=f"thread {one}"):
                on_every_thread(fail_there, engine)


@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_arrives_and_the_workers_go_on_working(count: int) -> None:
    def fail_at_two(k: int) -> int:
        if k == 2:
            raise RuntimeError("picture 2")
        return k

    def index_error(k: int) -> int:
        raise IndexError("of the function, not of the queue")

    with Threads(count) as engine:
        with pytest.raises(RuntimeError, match="picture 2"):
            engine.map(fail_at_two, range(5))
        with pytest.raises(IndexError, match="of the function, not of the queue"):
            engine.map(index_error, range(5))
        assert engine.map(abs, [-1, -2]) == [1, 2]


@pytest.mark.parametrize("count", [1, 3])
def test_no_thread_is_left_behind(count: int) -> None:
    before = set(threading.enumerate())
    with Threads(count) as engine:
        engine.map(time.sleep, [0.001] * 6)
    assert set(threading.enumerate()) == before


def test_an_exception_keeps_the_others_from_starting_anew() -> None:
    begun = []

    def fail_first(k: int) -> None:
        begun.append(k)
        if k == 0:
            raise RuntimeError
        time.sleep(0.05)

    with Threads(2) as engine, pytest.raises(RuntimeError):
        engine.map(fail_first, range(100))
    assert len(begun) < 50  # 2 or 3, unless the machine is so busy that the error waits for its turn


def test_an_exception_arrives_when_nothing_runs_any_more() -> None:
    """Else what the others write, or free, could meet what the caller does next."""
    both, at_work = threading.Barrier(2, timeout=10), threading.Event()
    finished = []

    def fail_while_the_other_works(_: int) -> None:
        both.wait()
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError
        at_work.wait(0.05)
        finished.append(True)

    with Threads(2) as engine:
        with pytest.raises(RuntimeError):
            engine.map(fail_while_the_other_works, range(2))
        assert finished == [True]


def test_every_thread_has_a_workspace_of_its_own_and_keeps_it() -> None:
    together = threading.Barrier(2, timeout=10)

    with Threads(2) as engine:

        def workspace_of(_: int) -> tuple[str, Workspace | None]:
            together.wait()
            return threading.current_thread().name, engine.workspace

        found = [engine.map(workspace_of, range(2)) for _ in range(3)]
        assert found[0][0][1] is not found[0][1][1]
        assert all(dict(pairs) == dict(found[0]) for pairs in found)


def test_one_worker_is_the_calling_thread_whose_memory_is_let_go_of_afterwards() -> None:
    engine = Threads(1)
    with engine:
        inside = engine.workspace
        assert engine.map(lambda _: engine.workspace, range(2)) == [inside, inside]
    assert engine.workspace is not inside


@pytest.mark.parametrize(("outside", "inside"), [(5e-3, SWITCH_INTERVAL), (1e-6, 1e-6)])
def test_threads_insist_on_the_interpreter_lock_sooner_inside(outside: float, inside: float) -> None:
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(outside)
        with Threads(2):
            assert sys.getswitchinterval() == pytest.approx(inside)
        assert sys.getswitchinterval() == pytest.approx(outside)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("count", [1, 2])
def test_blas_has_one_thread_inside_and_its_own_number_afterwards(count: int) -> None:
    with threadpool_limits(2, user_api="blas"):
        outside = blas_threads()
        if not outside:
            pytest.skip("NumPy's BLAS is none that threadpoolctl knows")
        with Threads(count) as engine:
            assert set(blas_threads()) == {1}
            assert {n for seen in engine.map(lambda _: blas_threads(), range(3)) for n in seen} == {1}
        assert blas_threads() == outside
        with pytest.raises(KeyError), Threads(count):
            raise KeyError
        assert blas_threads() == outside


def test_the_same_threads_can_be_entered_again() -> None:
    engine = Threads(2)
    for _ in range(2):
        with engine:
            assert engine.map(abs, [-3]) == [3]


def within_seconds(function: Callable[[], ResultT], seconds: float = 20) -> ResultT:
    """What the function returns; a test of what could wait for ever fails instead."""
    found: list[ResultT] = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it waits for ever, or has raised"
    return found[0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_map_inside_a_map(count: int) -> None:
    def sweep() -> list[int]:
        with Threads(count) as engine:
            return engine.map(lambda row: sum(engine.map(lambda k: 10 * row + k, range(4))), range(4))

    assert within_seconds(sweep) == [40 * row + 6 for row in range(4)]


def test_two_engines_whose_maps_call_each_other() -> None:
    def there_and_back() -> list[list[list[int]]]:
        with Threads(2) as one, Threads(2) as other:
            inner = partial(one.map, abs)
            return one.map(lambda _: other.map(inner, [[-1, 2], [3, -4]]), range(3))

    assert within_seconds(there_and_back) == [[[1, 2], [3, 4]]] * 3


def test_a_map_inside_a_map_has_other_memory_than_the_function_around() -> None:
    def around(_: int) -> bool:
        own = engine.workspace
        inside = engine.map(lambda _: engine.workspace, range(3))
        return own is engine.workspace and all(work is not own for work in inside)

    with Threads(1) as engine:
        assert engine.map(around, range(2)) == [True, True]


def test_an_exception_inside_both_maps_arrives_and_leaves_the_memory_in_order() -> None:
    def fail(_: int) -> None:
        raise RuntimeError(f"innermost, with {engine.workspace}")

    with Threads(1) as engine:
        before = engine.workspace
        with pytest.raises(RuntimeError, match="innermost"):
            engine.map(lambda _: engine.map(fail, range(2)), range(2))
        assert engine.workspace is before


def test_maps_inside_maps_start_no_more_threads_than_were_asked_for() -> None:
    def helpers(_: int) -> int:
        return sum(thread.name.startswith("stg-np-worker") for thread in threading.enumerate())

    with Threads(2) as engine:
        found = on_every_thread(lambda _: max(engine.map(helpers, range(3))), engine)
    assert max(found) == 1


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # what it warns of is what is tested
def test_a_forked_process_starts_threads_of_its_own() -> None:
    with Threads(2) as engine:
        engine.map(abs, range(4))
        receive, send = multiprocessing.Pipe(duplex=False)

        def in_the_child() -> None:
            with engine:
                send.send(engine.map(abs, [-1, -2, -3]))
            engine.__exit__(None, None, None)

        child = multiprocessing.get_context("fork").Process(target=in_the_child)
        child.start()
        arrived = receive.poll(20)
        if not arrived:
            child.kill()
        child.join()
        assert arrived, "the child waits for ever"
        assert receive.recv() == [1, 2, 3]
        assert child.exitcode == 0
        assert engine.map(abs, [-1, -2]) == [1, 2]


@pytest.mark.parametrize("uses_it", [True, False])
def test_another_process_leaves_the_context_that_it_was_forked_in(
    uses_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate()), sys.getswitchinterval()
    with Threads(2) as engine:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert not uses_it or engine.map(abs, [-1, -2]) == [1, 2]
    assert (set(threading.enumerate()), sys.getswitchinterval()) == before


@pytest.mark.parametrize("first_out", [0, 1])
def test_contexts_that_overlap_leave_nothing_behind(first_out: int) -> None:
    with threadpool_limits(2, user_api="blas"):
        outside = blas_threads(), sys.getswitchinterval()
        engines = [Threads(2), Threads(2)]
        for engine in engines:
            engine.__enter__()
        engines[first_out].__exit__(None, None, None)
        assert set(blas_threads()) <= {1}
        assert engines[1 - first_out].map(abs, [-1, -2]) == [1, 2]
        engines[1 - first_out].__exit__(None, None, None)
        assert (blas_threads(), sys.getswitchinterval()) == outside


def test_two_engines_in_two_threads_leave_nothing_behind() -> None:
    outside, both = (blas_threads(), sys.getswitchinterval()), threading.Barrier(2, timeout=10)

    def work(_: int) -> list[int]:
        with Threads(2) as engine:
            both.wait()
            return engine.map(abs, [-1, -2])

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [[1, 2], [1, 2]]
    assert (blas_threads(), sys.getswitchinterval()) == outside


def test_an_engine_that_is_entered_twice_is_open_until_it_is_left_twice() -> None:
    before = set(threading.enumerate()), sys.getswitchinterval()
    with Threads(2) as engine:

        def threads_and_memory() -> tuple[set[threading.Thread], Workspace | None]:
            return set(on_every_thread(lambda _: threading.current_thread(), engine)), engine.workspace

        found = [threads_and_memory()]
        with engine:
            found.append(threads_and_memory())
        found.append(threads_and_memory())
        assert found == [found[0]] * 3
    assert (set(threading.enumerate()), sys.getswitchinterval()) == before


def test_settings_of_the_process_are_put_back_by_whoever_changed_them() -> None:
    outside, quiet = sys.getswitchinterval(), Quiet()
    quiet.enter()
    inside = sys.getswitchinterval()
    quiet.leave()
    assert (inside, sys.getswitchinterval()) == pytest.approx((SWITCH_INTERVAL, outside))


def test_who_comes_and_goes_is_counted_under_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that come in the same moment are too rare to wait for."""
    taken = []

    class Noting:
        def __enter__(self) -> None:
            taken.append(True)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(QUIET, "lock", Noting())
    with Threads(2) as engine:
        assert len(taken) == 2  # of the process's settings, and of the engine
        engine.map(abs, range(2))
        assert len(taken) == 3  # of its threads
    assert len(taken) == 5


def test_threads_stop_when_another_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, working = [], threading.Event()

    def note(k: int) -> None:
        begun.append(k)
        working.set()
        time.sleep(0.005)

    only_one = iter([copy_context()])

    def context() -> Context:
        for one in only_one:
            return one
        working.wait(10)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("stg_np.engine.copy_context", context)
    with Threads(3) as engine, pytest.raises(RuntimeError, match="can't start new thread"):
        engine.map(note, range(200))
    assert len(begun) < 100  # one or two, unless the machine is very busy


@pytest.mark.parametrize("count", [1, 2])
def test_an_engine_that_is_not_open_says_so(count: int) -> None:
    engine = Threads(count)
    for _ in range(2):  # never entered, and closed again
        with pytest.raises(RuntimeError, match="this engine is not open: use it inside"):
            engine.map(abs, [1, 2])
        with engine:
            pass


@pytest.fixture
def _heard_interrupts() -> Iterator[None]:
    """Who was started in the background ignores Ctrl-C, and so would the test."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("_heard_interrupts")
def test_ctrl_c_during_a_map_stops_the_others_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate()), sys.getswitchinterval()

    def interrupted(_: int) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)

    def until_the_calling_thread_is_quick_enough_to_get_one() -> None:
        with Threads(2) as engine:
            while True:
                engine.map(interrupted, range(50))

    with pytest.raises(KeyboardInterrupt):
        until_the_calling_thread_is_quick_enough_to_get_one()
    assert (set(threading.enumerate()), sys.getswitchinterval()) == before


@pytest.mark.parametrize("count", [1.0, True, "2"])
def test_the_number_of_workers_is_a_whole_number(count: Any) -> None:
    with pytest.raises(TypeError, match="the number of workers must be a whole number, got"):
        Threads(count)


@pytest.mark.parametrize("count", [0, -2])
def test_less_than_one_worker_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"the number of workers must be at least 1, got {count}"):
        Threads(count)


def test_one_worker_per_core_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Threads().count == available_cores() >= 1
    monkeypatch.setattr(os, "sched_getaffinity", {0: {0, 3, 5}}.get, raising=False)  # 0 is the process that asks
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert available_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_by_its_name(name: str) -> None:
    if name == "mpi":
        pytest.importorskip("mpi4py", reason="needs the extra mpi")
    with engine_class(name)(2) as engine:
        assert engine.count == 2
        assert str(engine) == "2"
        assert engine.is_root
        assert engine.map(abs, [-1, 2, -3]) == [1, 2, 3]
        assert engine.sum(abs, [-1, 2, -3]) == 6
        assert isinstance(engine.workspace, Workspace)
        assert engine.from_root(lambda: "here") == "here"
        assert engine.together(lambda: 3)() == 3
        assert engine.is_alike(np.arange(3))
    with engine_class(name)(1, fast=False) as engine:
        assert engine.workspace is None
        assert engine.map(lambda _: engine.workspace, range(2)) == [None, None]


def test_an_engine_without_the_fast_path_takes_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Workspace | None] = []

    def note(*args: Any, work: Workspace | None, **options: Any) -> LossAndGrad:
        given.append(work)
        return loss_and_grad(*args, work=work, **options)

    monkeypatch.setattr("stg_np.train.loss_and_grad", note)
    run = make_run()
    with Threads(2, fast=False) as plain, Threads(1) as fast:
        slow = batch_gradient(run, initial_state(run), np.arange(16), plain)
        quick = batch_gradient(run, initial_state(run), np.arange(16), fast)
    assert given[:3] == [None] * 3
    assert all(isinstance(work, Workspace) for work in given[3:])
    np.testing.assert_allclose(slow.grads.flat, quick.grads.flat, rtol=1e-3, atol=1e-5)


def test_threads_inherit_which_warnings_are_off() -> None:
    together = threading.Barrier(2, timeout=10)

    def setting(_: int) -> str:
        together.wait()
        return np.geterr()["over"]

    with Threads(2) as engine:
        for wanted in ("ignore", "raise", "warn"):
            with np.errstate(over=wanted):
                assert engine.map(setting, range(2)) == [wanted, wanted]


# --- Streams of a device ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
def test_threads_begin_after_what_the_caller_queued_and_the_caller_goes_on_after_them(
    count: int, stand_in: Any, synchronisations: Any
) -> None:
    """In the stand-in each thread has a stream, which refuses what it has not waited for; the host never waits."""
    with synchronisations() as waits, Threads(count) as engine:
        x = stand_in.ones(3)
        for _ in range(3):  # what the threads made in one round, they and the caller use in the next
            found = on_every_thread(lambda k, x=x: x * k, engine)
            x = sum(found[2:], found[0] + found[1])
        total = engine.sum(lambda k: x + k, range(4))
    assert waits == []
    np.testing.assert_array_equal(to_host(total), np.full(3, 4 * (count * (count + 1) / 2) ** 3 + 6))


def test_streams_that_nobody_joins_are_found_out(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above proves something: without either of the two marks it fails."""
    for place in ("mark_queue", "wait_for_mark"):
        with monkeypatch.context() as patch, Threads(2) as engine:
            patch.setattr(f"stg_np.engine.{place}", lambda *_: None)
            x = stand_in.ones(3)
            with pytest.raises(RuntimeError, match="did not wait"):
                on_every_thread(lambda k, x=x: x * k, engine)
            with pytest.raises(RuntimeError, match="did not wait"):
                sum(on_every_thread(lambda k: stand_in.ones(3) * k, engine))


# --- Sums ------------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    loss: Array
    grads: Params
    state: dict[str, Array]


def test_results_are_added_array_by_array_in_their_order(device: str) -> None:
    layout = Layout((Entry("w", (2,), "vector"),))

    def result(k: float) -> Result:
        loss, grads, mean = (to_device(np.array(value), device) for value in (k, [k, 1.0], [k, 10 * k]))
        return Result(loss, Params(layout, grads), {"mean": mean})

    total = added([result(1.0), result(2.0), result(6.0)])
    assert type(total) is Result
    assert to_host(total.loss) == 9
    np.testing.assert_array_equal(to_host(total.grads.flat), [9, 3])
    np.testing.assert_array_equal(to_host(total.state["mean"]), [9, 90])
    assert total.grads.layout is layout
    assert added([1e16, 1.0, -1e16]) == 0.0  # (1e16 + 1) - 1e16: another order gives 1
    assert added([1e16, -1e16, 1.0]) == 1.0


def test_one_result_is_itself() -> None:
    params, state = MODEL.init(np.random.default_rng(0), np.float64)
    x, labels = np.ones((2, 8, 8, 1)), np.array([0, 1])
    result = loss_and_grad(MODEL, params, state, x, labels, loss=cross_entropy(), weight=1)
    assert added([result]).grads.flat.tobytes() == result.grads.flat.tobytes()
    assert added([result]).state == {}


def test_of_the_states_of_the_groups_a_step_keeps_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    means = iter([1.0, 2.0, 6.0])

    def noted(*args: Any, **options: Any) -> LossAndGrad:
        return loss_and_grad(*args, **options)._replace(state={"mean": np.array([next(means)])})

    monkeypatch.setattr("stg_np.train.loss_and_grad", noted)
    run = make_run()
    with Threads(1) as engine:
        total = batch_gradient(run, initial_state(run), np.arange(16), engine)
    assert total.state["mean"].tolist() == [3.0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_uneven_shards_add_up_to_the_whole_batch(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    params, state = MODEL.init(rng, np.float64)
    N = sum(sizes)
    x, labels = rng.standard_normal((N, 8, 8, 1)), rng.integers(0, 4, N)
    whole = loss_and_grad(MODEL, params, state, x, labels, loss=cross_entropy(0.1), weight=1 / N)
    cuts = np.cumsum(sizes)[:-1]
    parts = [
        loss_and_grad(MODEL, params, state, part, names, loss=cross_entropy(0.1), weight=1 / N)
        for part, names in zip(np.split(x, cuts), np.split(labels, cuts))
    ]
    total = added(parts)
    np.testing.assert_allclose(total.grads.flat, whole.grads.flat, rtol=1e-9, atol=1e-14)
    assert total.loss == pytest.approx(whole.loss, rel=1e-12)
    assert total.correct == whole.correct


@pytest.mark.parametrize("group_size", [5, 7, 16, 100])
@pytest.mark.parametrize("batch_size", [1, 16, 23])
def test_the_number_of_workers_changes_not_one_bit(group_size: int, batch_size: int) -> None:
    run = make_run(group_size=group_size)
    now, batch = initial_state(run), np.random.default_rng(3).permutation(50)[:batch_size]

    def result(count: int) -> tuple[Any, ...]:
        with Threads(count) as engine:
            total = batch_gradient(run, now, batch, engine)
        return total.grads.flat.tobytes(), float(total.loss), int(total.correct)

    assert result(1) == result(2) == result(3)


def test_groups_only_cut_the_work_where_nothing_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without augmentation, any group size gives the gradient of the whole batch."""
    for where in ("stg_np.train.normalise", "stg_np.data.augment.normalise"):
        monkeypatch.setattr(where, partial(normalise, dtype=np.float64))
    data = (pictures(23), None)

    def gradient(group_size: int) -> Any:
        run = make_run(group_size=group_size, flip=False, shift=0, data=data)
        start = initial_state(run)
        now: TrainState = start._replace(params=as_float64(start.params))
        with Threads(2) as engine:
            return batch_gradient(run, now, np.arange(23), engine).grads.flat

    whole_run = make_run(flip=False, shift=0, data=data)
    params = as_float64(initial_state(whole_run).params)
    x = prepare(whole_run, data[0].images)
    whole = loss_and_grad(MODEL, params, {}, x, data[0].labels, loss=cross_entropy(0.1), weight=1 / 23).grads.flat
    for group_size in (1, 4, 23, 64):
        np.testing.assert_allclose(gradient(group_size), whole, rtol=1e-9, atol=1e-13)
