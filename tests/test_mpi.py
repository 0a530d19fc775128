"""The ranks of MPI in real processes: the same bits for any number of them, one voice, and an end for all or none."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stg_np import mpi
from stg_np.cli import main
from stg_np.compare.plan import read_comparison
from stg_np.compare.trainings import compare
from stg_np.engine import Threads
from stg_np.runs import checkpoint
from stg_np.runs.experiment import make_run
from tests.mpi_ranks import BATCHES, SMALL, digest, trained
from tests.training import pictures

ROOT = Path(__file__).parents[1]
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
WRONG_USE = "stg-np: --engine mpi is for the CPU: an exchange between GPUs (NCCL) is not written: leave --engine out"
LIST = """
about = "is a wider network better?"
preset = "rows"
data = "quarters.npz"
seeds = [0]
set.training = {epochs = 1, batch_size = 16, group_size = 4, shift = 0}
[[entry]]
name = "4 wide"
set.model.width = 4
[[entry]]
name = "cut"
of = "4 wide"
set.model.dropout = 0.5
"""

try:
    import mpi4py
except ImportError:
    pytest.skip("needs the extra mpi", allow_module_level=True)
if MPIEXEC is None:
    pytest.skip(f"mpi4py {mpi4py.__version__} is here, but no mpiexec", allow_module_level=True)


def command(ranks: int, *arguments: Any) -> list[str]:
    assert MPIEXEC is not None
    return [MPIEXEC, "-n", str(ranks), sys.executable, "-m", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def ranks(count: int, *arguments: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(count, *arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )


def prepared(folder: Path) -> Path:
    train, test = pictures(60, seed=1), pictures(24, seed=2)
    np.savez(
        folder / "quarters.npz", x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels
    )
    (folder / "widths.toml").write_text(LIST.replace("quarters.npz", str(folder / "quarters.npz")))
    return folder


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = prepared(tmp_path_factory.mktemp("ranks"))
    done = ranks(3, "tests.mpi_ranks", "everything", folder, folder=folder)
    assert done.stderr.splitlines() == [WRONG_USE]
    assert (done.returncode, done.stdout) == (2, "")
    return folder, json.loads((folder / "found.json").read_text())


def test_any_number_of_ranks_and_workers_gives_the_bits_of_one_process(everything: Any) -> None:
    _, found = everything
    with Threads(1) as engine:
        for name, group_size in BATCHES.items():
            alone = trained(engine, group_size)
            of_ranks = {key: value for key, value in found.items() if key.endswith(name)}
            assert len(of_ranks) == 6
            assert set(of_ranks.values()) == {alone}, of_ranks


def test_a_run_that_two_ranks_began_and_three_went_on_with_is_that_of_one_process(
    everything: Any, tmp_path: Path
) -> None:
    folder, found = everything
    with (
        make_run("rows", data=str(folder / "quarters.npz"), epochs=2, changes=SMALL, out=tmp_path) as experiment,
        Threads(1) as engine,
    ):
        *_, last = experiment.train(engine)
    alone = digest(last.now.params.flat, *last.now.moments.values())
    assert found["2 ranks, went on"] != alone
    assert found["3 ranks, went on"] == alone
    stored = checkpoint.load(folder / "run" / "checkpoint.npz").now
    assert digest(stored.params.flat, *stored.moments.values()) == alone


def test_ranks_compare_as_one_process_does(everything: Any, tmp_path: Path) -> None:
    folder, found = everything
    with Threads(1) as engine:
        alone = compare(read_comparison(str(folder / "widths.toml")), engine, tmp_path)
    assert found["2 ranks, compared"] == [result.accuracy for result in alone]


@pytest.mark.parametrize("data", ["digits", "adding-30", "copy-30"])
def test_a_run_can_be_sent_to_another_process(data: str, tmp_path: Path) -> None:
    preset = None if data == "digits" else "adding-600" if data == "adding-30" else "copy-1000"
    run = make_run(preset, data=data, out=tmp_path).run
    sent = pickle.loads(pickle.dumps(run))
    assert sent.config == run.config
    assert sent.train.images.tobytes() == run.train.images.tobytes()


def test_a_signal_that_one_rank_hears_stops_all_at_one_step_and_one_speaks(tmp_path: Path) -> None:
    prepared(tmp_path)
    arguments = ["stg_np", "train", "--engine", "mpi", "--workers", "1", "--data", "quarters.npz", "--out", "run"]
    arguments += ["--epochs", "100000", "--preset", "rows", "--set", "model.width=4", "training.shift=0"]
    with subprocess.Popen(
        command(2, *arguments), cwd=tmp_path, env=environment(), stdout=-1, stderr=-1, text=True
    ) as started:
        assert started.stderr is not None
        first = started.stderr.readline()
        os.kill(rank_of(started.pid), signal.SIGTERM)
        out, err = started.communicate(timeout=60)
    assert started.returncode == 143
    assert out.count("pictures to train on") == 1
    assert out.count("workers: 2 ranks × 1") == 1
    assert first.startswith("epoch 1/100000")
    lines = [line for line in err.splitlines() if not line.startswith("epoch")]
    step = checkpoint.load(tmp_path / "run" / "checkpoint.npz").now.step
    assert lines == [
        f"stg-np: stopped and saved after step {step}: go on with `stg-np train --resume --out run --data quarters.npz`"
    ]


def rank_of(launcher: int) -> int:
    """The process of a rank that is not the root."""
    for found in Path("/proc").glob("[0-9]*"):
        try:
            if b"\0PMI_RANK=1\0" in b"\0" + (found / "environ").read_bytes() and launcher in ancestors(found):
                return int(found.name)
        except OSError:
            continue
    pytest.skip("this MPI does not say which process is which rank")


def ancestors(process: Path) -> list[int]:
    """The numbers of a process's parents."""
    number = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return [number, *ancestors(Path("/proc") / str(number))] if number > 1 else [number]


def test_a_rank_that_fails_says_so_and_ends_all_of_them(tmp_path: Path) -> None:
    done = ranks(2, "tests.mpi_ranks", "one_fails", tmp_path, folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "stg-np: an error inside the program (ZeroDivisionError: integer division or modulo by zero): run it again "
        "with --debug and report it"
    ]


def test_a_rank_that_is_killed_ends_all_of_them(tmp_path: Path) -> None:
    done = ranks(2, "tests.mpi_ranks", "one_is_killed", tmp_path, folder=tmp_path)
    assert done.returncode not in (0, None)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("mpi4py", ImportError("No module named 'mpi4py'"), "--engine mpi needs mpi4py: install the extra"),
        ("mpi4py", RuntimeError("cannot load MPI library\nlibmpi.so"), "no MPI library (cannot load MPI library)"),
    ],
)
def test_without_mpi_one_sentence_says_what_to_install(
    name: str, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refused:
        def find_spec(self, asked: str, *_: object) -> None:
            if asked == name:
                raise error

    monkeypatch.setattr(mpi, "world", mpi.world.__wrapped__)
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Refused(), *sys.meta_path])
    assert main(["train", "--engine", "mpi", "--out", "/dev/null/never"]) == 2
    assert said in capsys.readouterr().err


def test_a_launcher_of_another_mpi_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mpi, "world", mpi.world.__wrapped__)
    monkeypatch.setattr(mpi, "loaded", lambda: type("MPI", (), {"COMM_WORLD": type("Comm", (), {"size": 1})}))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert main(["train", "--engine", "mpi", "--out", "/dev/null/never"]) == 2
    assert "4 ranks were started, and the library of mpi4py knows of one" in capsys.readouterr().err
