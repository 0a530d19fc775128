"""What the ranks do that ``tests/test_mpi.py`` starts: ``mpiexec -n 3 python -m tests.mpi_ranks SCENE FOLDER``."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stg_np import mpi
from stg_np.backend import Array
from stg_np.engine import Engine, added
from stg_np.params import Entry, Layout, Params

LAYOUT = Layout((Entry("w", (5, 3), "matrix"), Entry("b", (3,), "vector")))
BATCHES = {"six groups": 3, "three groups": 6, "two groups": 12}
"""Group sizes of a batch of 16."""


class Result(NamedTuple):
    loss: Any
    grads: Params
    state: dict[str, Array]
    correct: int


def result(k: int) -> Result:
    """Numbers of which another order gives another sum."""
    rng = np.random.default_rng(k)
    flat = (rng.standard_normal(LAYOUT.size) * 10.0 ** rng.integers(-8, 8)).astype(np.float32)
    large = rng.standard_normal((50, 100)) * 10.0 ** rng.integers(-8, 8)
    return Result(np.float32(0.1 * k), Params(LAYOUT, flat), {"large": large, "mean": flat[:3]}, k)


def digest(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def everything(folder: Path) -> int:
    """One start for all that can be tried in one: starting is what costs time. It ends in wrong use."""
    from stg_np.cli import run

    whole, found = mpi.world(), dict[str, Any]()
    MPI = whole.mpi
    for size in (1, 2, 3):
        whole.gathered(None)  # a polite wait: the next one is not
        part = MPI.COMM_WORLD.Split(0 if whole.rank < size else MPI.UNDEFINED)
        if whole.rank < size:
            world = mpi.World(MPI, part)
            mpi.world = lambda world=world: world  # type: ignore[assignment]
            found |= {f"{size} ranks, {name}": value for name, value in of_size(size, folder).items()}
    if whole.rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    return run(["train", "--engine", "mpi", "--device", "cuda"])


def of_size(size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for workers in (1, 2):
        with mpi.Mpi(workers) as engine:
            assert engine.is_root == (engine.world.rank == 0)
            assert str(engine) == (f"{size} ranks × {workers}" if size > 1 else str(workers))
            for name, group_size in BATCHES.items():
                found[f"{workers} workers, {name}"] = trained(engine, group_size)
            if workers == 1:
                check_sums(engine)
                check_maps(engine, size)
                check_what_ranks_say(engine, size)
                if size > 1:
                    found["went on"] = gone_on_with(engine, folder, begins=size == 2)
                if size == 2:
                    found["compared"] = compared(engine, folder)
    return found


def check_sums(engine: Engine) -> None:
    for count in (1, 2, 5):
        total, wanted = engine.sum(result, range(count)), added([result(k) for k in range(count)])
        assert digest(*mpi.leaves(total)) == digest(*mpi.leaves(wanted)), count
        assert type(total) is Result
        assert total.grads.layout == LAYOUT
        assert (type(total.loss), type(total.correct)) == (np.float32, int)
        assert list(total.state) == ["large", "mean"]
        assert total.state["large"].shape == (50, 100)


def trained(engine: Engine, group_size: int) -> str:
    """A digest of all that is left of a training in which Muon has matrices, and pictures are held out."""
    from stg_np.train import fit
    from tests.training import bits, make_run

    *_, last = fit(make_run(group_size=group_size, epochs=1), engine)
    return digest(*map(np.frombuffer, bits(last.now).values(), [np.uint8] * 99))


def check_maps(engine: mpi.Mpi, size: int) -> None:
    ranks = engine.map(lambda _: engine.world.rank, range(7))
    assert set(ranks) == set(range(size))  # shared out
    assert engine.map(str, iter("ab")) == ["a", "b"]
    assert engine.map(str, ()) == []
    inner = partial(engine.sum, abs)  # whoever calls it inside of a map does it alone
    assert engine.map(lambda row: inner(range(row)) if row else 0, range(5)) == [0, 0, 1, 3, 6]
    for error in (KeyError("picture 2"), Unsendable("picture 2", 3)):

        def fail_at_two(k: int, error: Exception = error) -> int:
            if k == 2:
                raise error
            return k

        with refused("picture 2"):
            engine.map(fail_at_two, range(4))


class Unsendable(Exception):
    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)


def check_what_ranks_say(engine: mpi.Mpi, size: int) -> None:
    rank = engine.world.rank
    said = [0]
    heard = engine.together(lambda: said[0])
    if rank == size - 1:
        said[0] = 7
    assert heard() == (7 if size == 1 else 0)  # of the others nobody knows before the next exchange
    engine.sum(abs, range(size))
    assert heard() == 7
    engine.together(lambda: 0)

    called = []
    zeros = engine.from_root(lambda: called.append(rank) or np.zeros((600, 600)))  # type: ignore[func-returns-value]
    name, numbers = engine.from_root(lambda: ("digits", np.arange(3)))
    assert called == [0] * (rank == 0)
    assert zeros.shape == (600, 600)
    assert not zeros.any()
    assert (name, numbers.tolist()) == ("digits", [0, 1, 2])
    assert size == 1 or not (zeros.flags.writeable or numbers.flags.writeable)
    if size > 1 and sys.platform == "linux":
        files = {line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines() if "/stg-np-" in line}
        assert len(files) == 1
        assert len(set(engine.world.gathered(files.pop()))) == 1  # the same memory
    for error in (KeyError("no data"), Unsendable("no data", 3)):
        with refused("no data"):
            engine.from_root(partial(throw, error))
    assert engine.is_alike(np.arange(3))
    assert engine.is_alike(np.array([rank])) == (size == 1)


def throw(error: Exception) -> None:
    raise error


def gone_on_with(engine: mpi.Mpi, folder: Path, *, begins: bool) -> str:
    """A run that two ranks begin, and leave after a step in the middle, and three go on with."""
    from stg_np.runs.experiment import make_run, refuse_drift, resume_run

    out = folder / "run"
    begin = partial(make_run, "rows", out=out, epochs=2, data=str(folder / "quarters.npz"), changes=SMALL)
    experiment = engine.from_root(begin if begins else partial(resume_run, out))
    records: list[str] = []
    with experiment if engine.is_root else nullcontext():
        asked = engine.together(lambda: int(begins and engine.is_root and len(records) > 0))
        for record in experiment.train(engine, should_stop=lambda: asked() != 0):
            records.append(record.kind)
    assert records[-1] == ("stopped" if begins else "epoch")
    if engine.world.size == 3:
        drifted = record.now.params.flat + engine.world.rank
        with refused("the processes have come to different parameters in step 6"):
            refuse_drift(record._replace(now=record.now._replace(params=record.now.params.with_flat(drifted))), engine)
    return digest(record.now.params.flat, *record.now.moments.values())


SMALL = {"model": {"width": 4}, "training": {"batch_size": 16, "group_size": 4, "shift": 0}}


def compared(engine: mpi.Mpi, folder: Path) -> list[float]:
    """The accuracies of a comparison, by two ranks, the second time from the file of the first."""
    from stg_np.compare.plan import read_comparison
    from stg_np.compare.trainings import compare

    comparison = read_comparison(str(folder / "widths.toml"))
    first = compare(comparison, engine, folder / "compared")
    again = compare(comparison, engine, folder / "compared", told=lambda news: refuse(news.record is not None))
    assert [one.accuracy for one in again] == [one.accuracy for one in first]
    return [one.accuracy for one in first]


@contextmanager
def refused(why: str) -> Iterator[None]:
    """``pytest.raises``, without the time that importing it takes in each rank."""
    arrived = ""
    try:
        yield
    except Exception as error:
        arrived = str(error)
    assert why in arrived


def refuse(is_wrong: bool) -> None:
    assert not is_wrong


def one_fails(_: Path) -> int:
    """A rank that fails in a sum, where the others wait for it."""
    from stg_np.cli import explained
    from stg_np.streams import complain

    with mpi.Mpi(1) as engine:
        try:
            engine.sum(lambda k: 1 // (1 - engine.world.rank), range(2))
        except ZeroDivisionError as error:
            complain(explained(error)[0])
            return 1
    return 0


def one_is_killed(_: Path) -> int:
    def kill(k: int) -> int:
        if not engine.is_root:
            os.kill(os.getpid(), signal.SIGKILL)
        return k

    with mpi.Mpi(1) as engine:
        return engine.sum(kill, range(2))


SCENES: dict[str, Callable[[Path], int]] = {scene.__name__: scene for scene in (everything, one_fails, one_is_killed)}

if __name__ == "__main__":
    sys.exit(mpi.on_every_rank(lambda: SCENES[sys.argv[1]](Path(sys.argv[2]))))
