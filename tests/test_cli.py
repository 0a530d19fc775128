"""The command line as a user meets it: real processes for what only they can show, ``main([...])`` for the rest."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stg_np
from stg_np import streams
from stg_np.cli import main, make_parser
from stg_np.data import load, source
from stg_np.data.augment import normalise
from stg_np.engine import Threads
from stg_np.evaluate import predict_logits
from stg_np.gradcheck import Report
from stg_np.presets import DEFAULT_PRESET, PRESETS, Preset, at
from stg_np.runs import checkpoint
from stg_np.runs.folder import LOCK, RunFolder
from stg_np.train import Record, TrainConfig, TrainState, fit, train_step
from tests.data.builders import binary_files, cifar_records, write_files
from tests.runs.used import Result, Stg, runner

ROOT = Path(stg_np.__file__).parent.parent
PROGRAM = [sys.executable, "-m", "stg_np"]
FILES = {"config.toml", "metrics.jsonl", "checkpoint.npz", "best.npz", "curves.png", "confusion.png"}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def stg(capsys: pytest.CaptureFixture[str]) -> Stg:
    return runner(capsys)


@pytest.fixture(autouse=True)
def nothing_lies_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in an empty folder, and finds no data on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STG_NP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("stg_np.data.fashion_mnist.SYSTEM_FOLDERS", ())
    monkeypatch.setattr("stg_np.data.cifar10.SYSTEM_FOLDERS", ())
    for name in ("curves_png", "confusion_png"):  # drawing takes most of a tiny training; `finished` is drawn for real
        monkeypatch.setattr(f"stg_np.runs.plots.{name}", lambda *_: b"a picture")


PACKAGED = dict(PRESETS)
"""Without the one that follows: help texts are made when a command is imported, by whichever test comes first."""


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset for tests that need some run, quickly: ``--preset tiny``, three steps."""
    model = {"view": "rows", "width": 8, "layers": 1}
    preset = Preset("digits", "for tests", model, TrainConfig(epochs=1, batch_size=400, flip=True, rotate=5.0))
    monkeypatch.setitem(PRESETS, "tiny", preset)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A whole training of two epochs on the digits, begun from an empty folder with no other option.

    The preset is a smaller one, which learns as much in a moment; the real one is trained by the lines of the README.
    """
    home, said = tmp_path_factory.mktemp("finished"), [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    config = TrainConfig(epochs=40, batch_size=32, optimizer=at(0.02))
    small = replace(PRESETS["digits"], model={"view": "rows", "width": 48, "layers": 2}, config=config)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setitem(PRESETS, "digits", small)
        for name, stream in zip(("stdout", "stderr"), said):
            patch.setattr(sys, name, stream)
        code = main(["train", "--epochs", "2"])
    for stream in said:
        stream.seek(0)
    return home / "runs" / "digits", Result(code, *(stream.read() for stream in said))


@pytest.fixture
def trained(finished: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished[0], tmp_path / "trained"))


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Six tiny files in CIFAR-10's format, which are not the official ones."""
    return write_files(tmp_path / "cifar", binary_files(cifar_records(count=8)))


def assert_one_sentence(result: Result, *parts: str, code: int = 2) -> None:
    """The promise about errors: the exit code, and one line on stderr that says what the parts say."""
    assert result.code == code, result
    assert result.err.startswith("stg-np: "), result.err
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err


def files(folder: Path) -> set[str]:
    """What lies in the folder of a run, but for the lock."""
    return {path.name for path in folder.iterdir()} - {LOCK}


def arrays(path: Path) -> dict[str, bytes]:
    """Every array of a checkpoint but its header, as bytes."""
    with np.load(path) as stored:
        return {name: stored[name].tobytes() for name in stored.files if name != "header"}


def untimed_metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


# ---------------------------------------------------------------------------------------------------- training


DIGITS_STEPS = 1293 // PRESETS["digits"].config.batch_size  # an epoch's


def logged_steps(epoch: int) -> list[tuple[str, int, int]]:
    """Every tenth step of an epoch, and its last."""
    steps = [step for step in range(1, DIGITS_STEPS + 1) if step % 10 == 0 or step == DIGITS_STEPS]
    return [("step", epoch, (epoch - 1) * DIGITS_STEPS + step) for step in steps]


def test_training_with_no_option_but_the_epochs_leaves_a_finished_run(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assert result.code == 0, result.err
    assert files(folder) == FILES
    lines = result.out.splitlines()
    assert lines[0] == "digits: 1,293 pictures to train on, 144 held out, 360 to test"
    assert lines[1] == "note: test = the last 360 pictures in file order, other writers"
    assert lines[-1].startswith("test accuracy 0.")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["epoch"], r["step"]) for r in records] == [
        *logged_steps(1), ("epoch", 1, DIGITS_STEPS), *logged_steps(2), ("epoch", 2, 2 * DIGITS_STEPS),
        ("test", 2, 2 * DIGITS_STEPS),
    ]  # fmt: skip
    assert lines[-1] == f"test accuracy {records[-1]['accuracy']:.4f}"
    assert all(record["data"] == "digits" for record in records)
    progress_lines = result.err.splitlines()
    assert [line.split(":")[0] for line in progress_lines] == ["epoch 1/2", "epoch 2/2"]
    assert "images/s" in progress_lines[0]
    for name in ("curves.png", "confusion.png"):
        with Image.open(folder / name) as picture:
            picture.verify()


def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the first epoch by Ctrl-C, in the second by SIGTERM, with another number of workers each time."""
    options = ("train", "--preset", "tiny", "--batch-size", 100, "--epochs", 2, "--workers", 1, "--out")
    whole = stg(*options, "whole")
    assert whole.code == 0, whole.err
    with monkeypatch.context() as patch:
        signal_after(patch, 5, signal.SIGINT)
        result = stg(*options, "run")
    assert result.code == 130
    assert result.err == "stg-np: stopped and saved after step 5: go on with `stg-np train --resume --out run`\n"
    assert checkpoint.load(Path("run/checkpoint.npz")).now.step == 5
    assert not Path("run/confusion.png").exists()
    with monkeypatch.context() as patch:
        signal_after(patch, 15, signal.SIGTERM)
        result = stg("train", "--resume", "--out", "run", "--workers", 2)
    assert result.code == 143
    assert "resumed after step 5" in result.out
    resumed = stg("train", "--resume", "--out", "run")
    assert resumed.code == 0, resumed.err
    for name in ("checkpoint.npz", "best.npz"):
        assert arrays(Path("run") / name) == arrays(Path("whole") / name)
    assert untimed_metrics(Path("run")) == untimed_metrics(Path("whole"))
    assert Path("run/config.toml").read_bytes() == Path("whole/config.toml").read_bytes()
    assert resumed.out.splitlines()[-1] == whole.out.splitlines()[-1]


def signal_after(patch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Let this process get a signal at the end of a step of training."""

    def train_step_and_signal(*arguments: Any) -> TrainState:
        now = train_step(*arguments)
        if now.step == step:
            signal.raise_signal(number)
        return now

    patch.setattr("stg_np.train.train_step", train_step_and_signal)


def test_a_second_ctrl_c_stops_at_once_and_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """A process like a user's, with real signals: one to stop, one because it takes too long, one out of anger."""
    out = tmp_path / "run"
    with subprocess.Popen(
        [*PROGRAM, "train", "--out", str(out), "--epochs", "9"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            metrics = out / "metrics.jsonl"
            deadline = time.monotonic() + 60
            while '"step": 10,' not in (metrics.read_text() if metrics.exists() else ""):
                assert running.poll() is None, running.communicate()
                assert time.monotonic() < deadline, "the training does not get there"
                time.sleep(0.01)
            for _ in range(3):
                running.send_signal(signal.SIGINT)
                time.sleep(0.004)
            _, error = running.communicate(timeout=60)
        finally:
            running.kill()  # or else a failure would wait for it
    assert running.returncode == 130
    assert "Traceback" not in error
    said = [line for line in error.splitlines() if line.startswith("stg-np: ")]
    assert said[0].startswith("stg-np: stopped ")
    assert said[1:] in ([], ["stg-np: interrupted"])  # the last one may come when nothing is left but to end
    assert checkpoint.load(out / "checkpoint.npz").now.step >= 0
    assert not list(out.glob(".*.tmp"))


STUCK = """
import signal, sys, threading
from stg_np import cli
from stg_np.commands import train
from stg_np.engine import Threads

def wait_for_ever(*_):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def stopped_twice(*_):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)

def stopped_in_a_map(*_):
    try:
        stopped_twice()
    finally:
        wait_for_ever()

train.GRACE = 0.3
if sys.argv.pop(1) == "in a map":
    train.train_until_stopped = stopped_in_a_map
else:
    train.train_until_stopped = stopped_twice
    Threads.__exit__ = wait_for_ever
sys.exit(cli.main())
"""
"""The program, where a second Ctrl-C has left a lock behind."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms on this system")
@pytest.mark.parametrize("where", ["in a map", "at the end"])
def test_a_stop_at_once_ends_even_where_a_lock_is_never_given_back(tmp_path: Path, where: str) -> None:
    command = [sys.executable, "-c", STUCK, where, "train", "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("stg-np: stopped at once; ")


def test_a_folder_in_which_another_training_is_going_on_is_left_alone(stg: Stg) -> None:
    with RunFolder(Path("run")).locked():
        for option in ([], ["--overwrite"]):
            result = stg("train", "--preset", "tiny", "--out", "run", *option)
            assert_one_sentence(result, "another training is going on in run", "--out")
        assert files(Path("run")) == set()
    assert stg("train", "--preset", "tiny", "--out", "run").code == 0
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    with RunFolder(Path("run")).locked():
        assert_one_sentence(stg("train", "--resume", "--out", "run"), "another training is going on in run")
    assert before == {path.name: path.read_bytes() for path in Path("run").iterdir()}


def test_final_trains_on_everything_and_tests_the_last_state(stg: Stg, cifar: Path) -> None:
    result = stg("train", "--preset", "tiny", "--data", "cifar10", "--data-dir", cifar, "--final", "--out", "run")
    assert result.code == 0, result.err
    label = load("cifar10", cifar).label
    assert result.out.splitlines()[0] == f"{label}: 40 pictures to train on, none held out (--final), 8 to test"
    assert not Path("run/best.npz").exists()
    assert "tested checkpoint.npz" in result.out
    *_, mirrored, shifted, plain = result.out.splitlines()
    for line, views in (mirrored, "mirror"), (shifted, "mirror and shift"):
        assert line.startswith(f"test accuracy with {views} averaging ")
        assert line.endswith(f" on {label}")
    assert plain.startswith("test accuracy ")
    assert plain.endswith(f" on {label}")
    epoch, test = untimed_metrics(Path("run"))[-2:]
    assert epoch["validation_accuracy"] is None
    assert test["fingerprint"] in label
    assert label in Path("run/config.toml").read_text()


def test_the_random_split_of_the_digits_is_named_wherever_an_accuracy_is(stg: Stg) -> None:
    result = stg("train", "--preset", "tiny", "--split", "random", "--seed", 3, "--out", "run")
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1].endswith("on digits (random split, seed 3)")
    scores = json.loads(stg("eval", "run/best.npz", "--json").out)
    assert scores["data"] == "digits (random split, seed 3)"
    assert f"test accuracy {scores['accuracy']:.4f}" in result.out


def test_a_preset_may_learn_from_other_data_and_mirrors_only_what_may_be_mirrored(stg: Stg) -> None:
    assert stg("train", "--preset", "tiny", "--data", "digits").code == 0
    assert not checkpoint.load(Path("runs/tiny/best.npz")).about.training.flip


def test_a_preset_that_does_not_fit_the_pictures_is_refused(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "odd", Preset("digits", "", {"view": "patches", "patch": (3, 3)}))
    assert_one_sentence(stg("train", "--preset", "odd"), "odd", "patches")


def test_a_run_is_not_overwritten_unless_asked(stg: Stg, trained: Path) -> None:
    before = arrays(trained / "checkpoint.npz")
    assert_one_sentence(stg("train", "--out", trained), "--resume", "--overwrite", "--out")
    assert arrays(trained / "checkpoint.npz") == before
    result = stg("train", "--out", trained, "--overwrite", "--preset", "tiny")
    assert result.code == 0, result.err
    assert "replaced: best.npz, checkpoint.npz, config.toml, confusion.png, curves.png, metrics.jsonl; " in result.out
    assert files(trained) == FILES  # the old run is gone, now that the new one has ended
    assert checkpoint.load(trained / "checkpoint.npz").now.step == 3


def test_what_is_no_checkpoint_is_not_overwritten_either(stg: Stg) -> None:
    Path("run").mkdir()
    Path("run/checkpoint.npz").write_bytes(b"precious")
    assert_one_sentence(stg("train", "--out", "run"), "--overwrite")
    assert Path("run/checkpoint.npz").read_bytes() == b"precious"


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_that_are_no_run_are_not_overwritten(stg: Stg, name: str) -> None:
    Path("run").mkdir()
    Path("run", name).write_bytes(b"precious")
    assert_one_sentence(stg("train", "--preset", "tiny", "--out", "run"), name, "--out")
    assert files(Path("run")) == {name}
    assert Path("run", name).read_bytes() == b"precious"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_programs_save(stg: Stg, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # whoever started the tests may ignore it
    try:
        signal_after(monkeypatch, 2, number)
        assert stg("train", "--preset", "tiny", "--out", "run").code == 128 + number
    finally:
        signal.signal(number, before)
    assert checkpoint.load(Path("run/checkpoint.npz")).now.step == 2


def test_nohup_is_respected(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signal_after(monkeypatch, 2, signal.SIGHUP)
        assert stg("train", "--preset", "tiny", "--out", "run").code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


TRAIN_QUICKLY = """if True:
    import sys
    from stg_np.cli import main
    from stg_np.presets import PRESETS, Preset
    from stg_np.runs import plots
    from stg_np.train import TrainConfig
    config = TrainConfig(epochs=1, batch_size=1300, group_size=1300)
    PRESETS["digits"] = Preset("digits", "for tests", {"view": "rows", "width": 4, "layers": 1}, config)
    plots.curves_png = plots.confusion_png = lambda *_: b"a picture"
    sys.argv[1:] = ["train", "--workers", "1", "--out", "run"]
    sys.exit(main())
"""
"""The program for real, but for a training of one step whose results are not drawn."""


@pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full | true"])
def test_a_finished_training_is_a_success_whoever_listens(tmp_path: Path, redirection: str) -> None:
    """Closed, full and broken streams; a number of a stream that is closed must not be that of a checkpoint."""
    command = f"set -o pipefail; {shlex.join([sys.executable, '-c', TRAIN_QUICKLY])} {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path / "run") == FILES
    if "2>" not in redirection:
        assert done.stderr.splitlines()[-1].startswith("test accuracy 0.")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_letters_that_an_encoding_lacks_are_no_error(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    for prepared in (True, False):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        if prepared:
            streams.prepare()
            print("8×8 ≤ 9, \udcff", flush=True)
        else:
            assert streams.say("8×8 ≤ 9, \udcff")
        assert b"8 \\u2264 9, \\udcff" in raw.getvalue()


def test_a_training_that_explodes_ends_with_1_and_may_be_begun_again(stg: Stg) -> None:
    options = ("train", "--preset", "tiny", "--epochs", 4, "--learning-rate", 1e30)
    assert_one_sentence(stg(*options), "step", "learning rate", code=1)
    assert_one_sentence(stg(*options), "step", "learning rate", code=1)  # not refused: there was no step to lose


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--epochs", 3], ["--epochs 3", "--epochs 2"]),
        (["--seed", 1], ["--seed 1", "--seed 0"]),
        (["--learning-rate", 0.5], ["--learning-rate 0.5"]),
        (["--batch-size", 7], ["--batch-size 7"]),
        (["--data", "cifar10"], ["--data cifar10", "--data digits"]),
        (["--preset", "cifar10-rows"], ["--preset cifar10-rows"]),
        (["--split", "random"], ["--split random"]),
        (["--final"], ["--final", "without it"]),
    ],
)
def test_a_resumed_run_refuses_to_change_on_the_way(
    stg: Stg, trained: Path, options: list[object], parts: list[str]
) -> None:
    assert_one_sentence(stg("train", "--resume", "--out", trained, *options), "cannot be changed", *parts)


def test_resuming_a_finished_run_tests_it_again_and_changes_nothing(stg: Stg, trained: Path) -> None:
    before = {name: (trained / name).read_bytes() for name in ("config.toml", "metrics.jsonl", "best.npz")}
    (trained / "config.toml").unlink()  # the checkpoint knows it all
    result = stg("train", "--resume", "--out", trained, "--epochs", 2, "--preset", "digits", "--device", "cpu")
    assert result.code == 0, result.err
    assert before == {name: (trained / name).read_bytes() for name in before}


def test_an_edited_configuration_is_not_ignored(stg: Stg, trained: Path) -> None:
    config = trained / "config.toml"
    config.write_text(config.read_text().replace("epochs = 2", "epochs = 50"))
    assert_one_sentence(stg("train", "--resume", "--out", trained), "training.epochs = 50", "2")
    config.write_text("epochs = = 2")
    assert_one_sentence(stg("train", "--resume", "--out", trained), "cannot read", "config.toml")


def test_other_bytes_are_not_trained_on_without_a_word(stg: Stg, cifar: Path) -> None:
    assert stg("train", "--preset", "tiny", "--data", "cifar10", "--data-dir", cifar, "--out", "run").code == 0
    other = write_files(cifar.parent / "other", binary_files(cifar_records(count=8, seed=1)))
    assert_one_sentence(stg("train", "--resume", "--out", "run", "--data-dir", other), "fingerprint", "--data-dir")
    result = stg("eval", "run/checkpoint.npz", "--data-dir", other)
    assert result.code == 0
    assert "not the bytes that it learned from" in result.out
    assert load("cifar10", other).label in result.out.splitlines()[-1]


# ------------------------------------------------------------------------------------ what can go wrong on the way


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["COMMAND"]),
        (["trane"], ["trane", "did you mean train?"]),
        (["train", "--epoch", "3"], ["did you mean --epochs?"]),
        (["train", "--presett=rows"], ["did you mean --preset?"]),
        (["train", "digits"], ["digits", "leave it out"]),
        (["eval", "best.npz", "--device", "cuds"], ["--device", "did you mean cuda?"]),
        (["train", "--preset", "digts"], ["did you mean digits?"]),
        (["train", "--data", "digitz"], ["digitz", "did you mean digits"]),
        (["train", "--preset", "nope"], ["nope", "cifar10-rows"]),
        (["train", "--epochs", "-1"], ["--epochs", "at least 1", "-1"]),
        (["train", "--epochs", "many"], ["--epochs", "many"]),
        (["train", "--epochs", "9" * 9999], ["--epochs"]),
        (["train", "--seed", "-1"], ["--seed"]),
        (["train", "--workers", "0"], ["--workers", "at least 1"]),
        (["train", "--learning-rate", "nan"], ["--learning-rate", "nan"]),
        (["train", "--learning-rate", "fast"], ["--learning-rate", "fast"]),
        (["train", "--resume", "--overwrite"], ["--overwrite"]),
        (["train", "--resume"], ["no run to resume", "runs/digits"]),
        (["train", "--data", "cifar10"], ["stg-np data fetch cifar10", "--data-dir"]),
        (["train", "--data", "cifar10", "--data-dir", "missing"], ["missing"]),
        (["train", "--data-dir", "."], ["digits"]),
        (["train", "--data", "cifar10", "--split", "random"], ["official split"]),
        (["data", "verify", "cifar"], ["cifar10"]),
        (["eval", "missing.npz"], ["missing.npz"]),
        (["eval", "."], ["there is no checkpoint"]),
        (["predict", "missing.npz", "picture.png"], ["missing.npz"]),
        (["summary", "missing.npz"], ["missing.npz"]),
    ],
)
def test_wrong_use_is_one_sentence(stg: Stg, arguments: list[str], parts: list[str]) -> None:
    assert_one_sentence(stg(*arguments), *parts)


def test_a_data_set_without_a_preset_is_said_to_have_none(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(DEFAULT_PRESET, "digits")
    assert_one_sentence(stg("train", "--data", "digits"), "--preset")


def test_a_truncated_archive_is_one_sentence(stg: Stg) -> None:
    with tarfile.open("cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in binary_files(cifar_records(count=8)).items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    whole = Path("cifar-10-binary.tar.gz").read_bytes()
    Path("cifar-10-binary.tar.gz").write_bytes(whole[: len(whole) // 2])
    result = stg("train", "--data", "cifar10", "--data-dir", "cifar-10-binary.tar.gz")
    assert_one_sentence(result, "cifar-10-binary.tar.gz")
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", [["eval"], ["summary"], ["predict"], ["train", "--resume", "--out"]])
@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_one_sentence(stg: Stg, trained: Path, command: list[str], damage: str) -> None:
    path = trained / "checkpoint.npz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    damaged = {"garbage": b"PK garbage", "truncated": bytes(content[:-500]), "empty": b""}.get(damage, bytes(content))
    path.write_bytes(damaged)
    arguments = [*command, trained if command[0] == "train" else path, *(["x.png"] if command == ["predict"] else [])]
    assert_one_sentence(stg(*arguments), str(path))
    assert path.read_bytes() == damaged


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond ``limit`` bytes: what a full disk feels like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_found_before_training(stg: Stg) -> None:
    with full_disk(100_000):
        result = stg("train", "--out", "run")
    assert_one_sentence(result, "run/checkpoint.npz", "free some space")
    assert files(Path("run")) == set()


@pytest.mark.parametrize(("limit", "named"), [(4_000, "best.npz"), (1, "metrics.jsonl")])
def test_a_disk_that_fills_up_on_the_way_costs_nothing_that_was_saved(
    stg: Stg, monkeypatch: pytest.MonkeyPatch, limit: int, named: str
) -> None:

    def fit_on_a_full_disk(*arguments: Any, **options: Any) -> Iterator[Record]:
        for record in fit(*arguments, **options):
            with full_disk(limit):
                yield record

    with monkeypatch.context() as patch:
        patch.setattr("stg_np.runs.experiment.fit", fit_on_a_full_disk)
        result = stg("train", "--preset", "tiny", "--out", "run")
    assert_one_sentence(result, f"run/{named}", "free some space")
    assert checkpoint.load(Path("run/checkpoint.npz")).now.step == 0
    assert files(Path("run")) <= {"config.toml", "metrics.jsonl", "checkpoint.npz"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_write_permission_is_one_sentence(stg: Stg) -> None:
    Path("closed").mkdir(mode=0o500)
    assert_one_sentence(stg("train", "--out", "closed/run"), "closed/run", "--out")


@pytest.mark.parametrize("command", ["train", "compare", "bench"])
def test_a_variable_that_is_not_set_is_no_folder(stg: Stg, command: str) -> None:
    assert_one_sentence(stg(command, "--out", ""), "--out", "is empty")
    assert files(Path()) == set()


def test_a_file_where_the_folder_should_be_is_one_sentence(stg: Stg) -> None:
    Path("taken").write_text("")
    assert_one_sentence(stg("train", "--out", "taken/run"), "taken/run", "--out")
    assert_one_sentence(stg("train", "--out", "taken"), "taken", "--out")


def test_no_network_is_one_sentence_at_the_end(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    result = stg("data", "fetch", "cifar10")
    last = result.err.splitlines(keepends=True)[-1]  # before it, the bar of the download
    assert_one_sentence(Result(result.code, result.out, last), "no connection", "put it")


def test_a_device_that_is_not_there_is_one_sentence(
    stg: Stg, finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    best = finished[0] / "best.npz"
    for command in (["train"], ["eval", best], ["predict", best, "x.png"], ["gradcheck"]):
        assert_one_sentence(stg(*command, "--device", "cuda"), "CuPy", "pip install")


def test_more_workers_on_a_gpu_are_refused(stg: Stg, stand_in: Any) -> None:
    assert_one_sentence(stg("train", "--device", "cuda", "--workers", 2), "--workers 2")


def test_training_on_a_device_evaluates_there_and_can_be_used_on_the_cpu(stg: Stg, stand_in: Any) -> None:
    result = stg("train", "--preset", "tiny", "--out", "run", "--device", "cuda")
    assert result.code == 0, result.err
    on_cpu, on_device = (json.loads(stg("eval", "run/best.npz", "--json", "--device", d).out) for d in ("cpu", "cuda"))
    assert on_cpu["confusion"] == on_device["confusion"]
    assert f"test accuracy {on_cpu['accuracy']:.4f}" in result.out


def test_a_full_disk_behind_stdout_is_one_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "summary"], cwd=tmp_path, env=environment(), stdout=full, stderr=-1, text=True)
    assert_one_sentence(Result(done.returncode, "", done.stderr), "No space left")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "summary"], cwd=tmp_path, env=environment(), stdout=writing, stderr=-1, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("error", "part", "code"),
    [
        (KeyError("planted"), "--debug", 1),
        (MemoryError(), "memory", 2),
        (ImportError("no tqdm"), "no tqdm", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (OSError(28, "No space left on device", "somewhere"), "somewhere", 2),
    ],
)
def test_even_an_error_of_ours_is_one_sentence_without_debug(
    stg: Stg, monkeypatch: pytest.MonkeyPatch, error: BaseException, part: str, code: int
) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr("stg_np.summary.info_text", fail)
    assert_one_sentence(stg("info"), part, code=code)
    with pytest.raises(type(error)):
        main(["info", "--debug"])


# ------------------------------------------------------------------------------------------- using what was trained


def test_eval_reports_both_readings_by_name(stg: Stg, finished: tuple[Path, Result]) -> None:
    best = finished[0] / "best.npz"
    scores = json.loads(stg("eval", best, "--json", "--workers", 1).out)
    assert finished[1].out.splitlines()[-1] == f"test accuracy {scores['accuracy']:.4f}"
    confusion = np.array(scores["confusion"])
    assert confusion.sum() == scores["pictures"] == 360
    assert scores["accuracy"] == pytest.approx(np.trace(confusion) / 360)
    assert scores["recall_per_class"] == pytest.approx(np.diag(confusion) / confusion.sum(1))
    assert scores["recall_macro"] == pytest.approx(np.mean(scores["recall_per_class"]))
    assert scores["precision_per_class"] == pytest.approx(np.diag(confusion) / confusion.sum(0))
    assert scores["f1_macro"] == pytest.approx(np.mean(scores["f1_per_class"]))
    assert scores["one_vs_rest_accuracy_mean"] == pytest.approx(1 - 2 * (1 - scores["accuracy"]) / 10)
    assert scores["accuracy_mirror"] is scores["accuracy_averaged"] is None  # a mirrored digit is no digit
    assert scores["fingerprint"] == scores["trained_on_fingerprint"]
    text = stg("eval", best).out
    assert text.splitlines()[-1] == f"accuracy {scores['accuracy']:.4f} on digits"
    assert "one-vs-rest accuracy" in text
    assert f"{scores['recall_macro']:.4f}" in text
    assert "learned from" not in text


def test_eval_refuses_another_task(stg: Stg, finished: tuple[Path, Result], trained: Path, cifar: Path) -> None:
    result = stg("eval", finished[0] / "best.npz", "--data", "cifar10", "--data-dir", cifar)
    assert_one_sentence(result, "8×8×1", "32×32×3")
    about, now = checkpoint.load(trained / "best.npz")
    letters = replace(about, data=replace(about.data, classes=tuple("abcdefghij")))
    checkpoint.save(trained / "letters.npz", letters, now)
    assert_one_sentence(stg("eval", trained / "letters.npz"), "a, b, c", "digits")


def test_predict_sees_in_a_picture_file_what_the_model_sees_in_the_data(
    stg: Stg, finished: tuple[Path, Result]
) -> None:
    about, now = checkpoint.load(finished[0] / "best.npz")
    pictures = load("digits").test_images[:4]
    with Threads(1) as workers:
        logits = predict_logits(
            about.model, now.params, now.state, pictures, workers, lambda p: normalise(p, *about.data.scaling)
        )
    for k, picture in enumerate(pictures):
        Image.fromarray(np.rint(picture[:, :, 0] * (255 / 16)).astype(np.uint8)).save(f"{k}.png")
    arguments = [finished[0] / "best.npz", *(f"{k}.png" for k in range(4))]
    found = json.loads(stg("predict", *arguments, "--json", "--top", 10).out)
    assert [entry["image"] for entry in found] == [f"{k}.png" for k in range(4)]
    for entry, row in zip(found, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)):
        given = {one["class"]: one["probability"] for one in entry["classes"]}
        assert sum(given.values()) == pytest.approx(1)
        assert [given[str(k)] for k in range(10)] == pytest.approx(row.tolist(), rel=1e-4)
        assert list(given.values()) == sorted(given.values(), reverse=True)
    lines = stg("predict", *arguments, "--top", 2).out.splitlines()
    assert lines[0].startswith(f"0.png: {found[0]['classes'][0]['class']} ")
    assert lines[0].count("%") == 2


def test_a_picture_that_is_no_picture_costs_one_line_and_not_the_other_answers(
    stg: Stg, finished: tuple[Path, Result]
) -> None:
    Path("text.png").write_bytes(b"I am no picture")
    for name in ("a.png", "z.png"):
        Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(name)
    best = finished[0] / "best.npz"
    result = stg("predict", best, "a.png", "text.png", "z.png")
    assert_one_sentence(result, "text.png", "cannot be read as a picture")
    assert [line.split(":")[0] for line in result.out.splitlines()] == ["a.png", "z.png"]
    assert_one_sentence(stg("predict", best, "missing.png"), "there is no picture missing.png")
    Path("\x1b[2J.png").write_bytes(b"I am no picture")
    assert_one_sentence(stg("predict", best, "\x1b[2J.png"), r"\x1b[2J.png cannot be read")


def test_predict_takes_a_run_and_a_folder_and_standard_input(
    stg: Stg, finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("set/deep").mkdir(parents=True)
    Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save("set/deep/a.png")
    content = Path("set/deep/a.png").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    result = stg("predict", finished[0], "set", "-", "--json")
    from_folder, from_pipe = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    assert from_folder["image"] == "set/deep/a.png"
    assert from_pipe == from_folder | {"image": "-"}
    assert_one_sentence(stg("predict", finished[0], "set", "no-such-folder/"), "there is no picture no-such-folder")
    assert_one_sentence(stg("predict", "set", "set"), "set")
    for command in ("eval", "summary"):
        assert stg(command, finished[0]).out == stg(command, finished[0] / "best.npz").out
    monkeypatch.setattr("sys.stdin", None)
    assert_one_sentence(stg("predict", finished[0], "-"), "pipe a picture in")


def test_predict_prints_a_table(stg: Stg, finished: tuple[Path, Result]) -> None:
    Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save("a, b.png")
    found = json.loads(stg("predict", finished[0], "a, b.png", "--json").out)[0]["classes"]
    (row,) = csv.DictReader(io.StringIO(stg("predict", finished[0], "a, b.png", "--csv").out))
    more = [f"{what}_{place}" for place in (2, 3, 4, 5) for what in ("class", "probability")]
    assert list(row) == ["image", "class", "probability", *more]
    assert row["image"] == "a, b.png"
    assert (row["class"], row["class_5"]) == (found[0]["class"], found[4]["class"])
    assert float(row["probability"]) == pytest.approx(found[0]["probability"], abs=1e-6)


def test_predict_says_when_an_answer_cannot_be_trusted(stg: Stg, finished: tuple[Path, Result]) -> None:
    Image.new("L", (50, 40), 200).save("blank.png")
    Image.fromarray(255 - np.eye(20, dtype=np.uint8) * 255).save("ink.png")
    result = stg("predict", finished[0], "blank.png", "ink.png")
    assert result.code == 0
    blank, ink = result.err.splitlines()
    assert blank.startswith("stg-np: blank.png: blank")
    assert ink.startswith("stg-np: ink.png: dark on light")
    assert "--invert" in ink
    assert "dark" not in stg("predict", finished[0], "ink.png", "--invert").err


def test_predict_shows_what_the_network_saw(stg: Stg, finished: tuple[Path, Result]) -> None:
    Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save("a.png")
    assert stg("predict", finished[0], *["a.png"] * 9, "--show", "seen.png").code == 0
    with Image.open("seen.png") as sheet:
        grey = np.asarray(sheet.convert("L"))
    assert grey.shape[1] > grey.shape[0]  # eight in a row, one below
    assert grey[12 + 3, 12 + 3] > 150 > 20 > grey[12 + 3, 12 + 120]  # the diagonal of the first
    before = Path("a.png").read_bytes()
    assert_one_sentence(stg("predict", finished[0], "a.png", "--show", "a.png"), "would replace")
    assert_one_sentence(stg("predict", finished[0], "a.png", "--show", "a.jpg"), "ends in .png")
    assert Path("a.png").read_bytes() == before


def test_a_digit_in_a_wide_margin_is_still_that_digit(stg: Stg, finished: tuple[Path, Result]) -> None:
    """What the model says of a digit, it says of the same digit, smaller than the frame, on white paper."""
    agreed = 0
    for k, picture in enumerate(load("digits").test_images[:30, :, :, 0]):
        digit = Image.fromarray(np.rint(picture * (255 / 16)).astype(np.uint8))
        digit.save(f"{k}-plain.png")
        paper = Image.new("L", (300, 260), 0)
        paper.paste(digit.resize((80, 80)), (140, 60))
        paper.point([255 - value for value in range(256)]).save(f"{k}-paper.png")
    plain = stg("predict", finished[0], *(f"{k}-plain.png" for k in range(30)), "--csv", "--top", 1).out.splitlines()
    paper_out = stg("predict", finished[0], *(f"{k}-paper.png" for k in range(30)), "--csv", "--top", 1, "--invert").out
    for one, other in zip(plain[1:], paper_out.splitlines()[1:]):
        agreed += one.split(",")[1] == other.split(",")[1]
    assert agreed >= 26


def test_data_of_a_users_own_from_training_to_predicting(stg: Stg, tmp_path: Path) -> None:
    for part, count in (("train", 12), ("test", 3)):
        for kind, level in (("dark", 40), ("light", 200)):
            Path("own", part, kind).mkdir(parents=True)
            for k in range(count):
                Image.new("L", (20, 20), level + k).save(Path("own", part, kind, f"{k}.png"))
    Path("own/train/dark/broken.png").write_bytes(b"no picture")
    result = stg("train", "--data", "own", "--size", "6x5", "--epochs", 2, "--out", "run")
    assert result.code == 0, result.err
    assert "left out: " in result.err
    assert "broken.png" in result.err
    assert "on own (fingerprint " in result.out
    assert checkpoint.load(Path("run/best.npz")).about.model.input_shape == (6, 5, 1)
    # from where it was trained it finds the data by their name; from elsewhere it is told where they are
    assert "on own (fingerprint " in stg("eval", "run/best.npz").out
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    for arguments in (["train", "--resume", "--out", "../run"], ["eval", "../run/best.npz"]):
        result = stg(*arguments)
        assert_one_sentence(result, "own", "--data")
        assert "on own (fingerprint " in stg(*arguments, "--data", "../own").out.splitlines()[-1]
    for file in Path("../run").iterdir():  # nothing of this machine goes with a model
        assert str(tmp_path).encode() not in file.read_bytes()
    answer = json.loads(stg("predict", "../run", "../own/test/light/0.png", "--json").out)[0]["classes"]
    assert {entry["class"] for entry in answer} == {"dark", "light"}
    os.chdir(tmp_path)
    result = stg("train", "--resume", "--out", "run", "--size", 7)
    assert_one_sentence(result, "--size 7x7 cannot be changed", "with --size 6x5")
    assert stg("train", "--resume", "--out", "run", "--data", "own").code == 0
    Path("own/train/light/0.png").unlink()
    result = stg("train", "--resume", "--out", "run")
    assert result.code == 2
    assert "fingerprint" in result.err.splitlines()[-1]
    assert_one_sentence(stg("train", "--data", "digits", "--size", 9), "--size")
    assert_one_sentence(stg("train", "--data", "own", "--size", "9x"), "height and width")
    assert_one_sentence(stg("train", "--data", "nowhere"), "no data set 'nowhere'", "folder")


def test_arrays_of_a_users_own_are_trained_on(stg: Stg) -> None:
    load("digits").save("mine.npz")
    result = stg("train", "--data", "mine.npz", "--preset", "tiny", "--out", "run")
    assert result.code == 0, result.err
    assert "on mine.npz (fingerprint " in result.out
    assert checkpoint.load(Path("run/best.npz")).about.data.value_range == 16
    assert stg("eval", "run/best.npz", "--data", "digits").code == 0


# ----------------------------------------------------------------------------------------- looking without training


def test_summary_counts_every_parameter(stg: Stg, finished: tuple[Path, Result]) -> None:
    for name, preset in PRESETS.items():
        about = source(preset.data).INFO
        model = preset.make_model(about.shape, len(about.classes))
        size = model.init(np.random.default_rng(0))[0].flat.size
        result = stg("summary", "--preset", name)
        assert result.code == 0, result.err
        total = next(line for line in result.out.splitlines() if line.startswith("total"))
        assert total.split()[1] == f"{size:,}"
        assert all(f"\n{part.name}" in result.out for part in model.parts(model.init(np.random.default_rng(0))[0]))
    assert stg("summary").out == stg("summary", "--preset", "digits").out
    assert f"state after step {2 * DIGITS_STEPS}" in stg("summary", finished[0] / "checkpoint.npz").out


def test_info_and_data_list_say_what_there_is(stg: Stg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = stg("info").out
    for part in (f"stg_np {stg_np.__version__}", f"numpy {np.__version__}", "BLAS", "device cpu: available"):
        assert part in text
    assert str(tmp_path / "data") in text
    monkeypatch.setattr("stg_np.summary.PACKAGES", ("no-such-package-at-all",))
    assert "no-such-package-at-all not installed" in stg("info").out
    listed = stg("data", "list").out
    assert "stg-np data fetch cifar10" in listed
    assert "CC BY 4.0" in listed


def test_data_verify_fails_where_a_byte_is_not_the_publishers(stg: Stg, cifar: Path) -> None:
    result = stg("data", "verify", "digits")
    assert (result.code, result.out.split()[0]) == (0, "official")
    assert stg("data", "fetch", "digits").code == 0
    result = stg("data", "verify", "cifar10", "--data-dir", cifar)
    assert result.code == 1
    assert result.out.count("DIFFERENT") == 6
    assert load("cifar10", cifar).fingerprint in result.out


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("wrong", 1)])
def test_gradcheck_prints_a_table_and_fails_with_the_checks(
    stg: Stg, monkeypatch: pytest.MonkeyPatch, status: Any, code: int
) -> None:
    asked: dict[str, Any] = {}

    def run_checks(device: str = "cpu", seed: int = 0) -> list[Report]:
        asked.update(device=device, seed=seed)
        return [Report("gate", status, 1e-12, 1e-8, 1e-3, {"x": 1e-12})]

    stub = ModuleType("stg_np.checks")
    stub.run_checks = run_checks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stg_np.checks", stub)
    result = stg("gradcheck", "--seed", 5)
    assert result.code == code
    assert "gate" in result.out
    assert asked == {"device": "cpu", "seed": 5}
    result = stg("gradcheck", "--json")
    assert result.code == code
    assert json.loads(result.out)[0]["name"] == "gate"


def test_help_teaches(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = stg("train", "--help").out
    for name, preset in PACKAGED.items():
        assert name in text
        assert preset.about in text
    for command in ("eval", "predict", "data"):
        assert "examples:" in stg(command, "--help").out
    assert stg("--version").out == f"stg-np {stg_np.__version__}\n"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_is_as_wide_as_the_terminal(stg: Stg, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = stg("train", "--help").out.splitlines()
    assert columns - 20 < max(map(len, lines)) <= columns
    (held_out,) = (number for number, line in enumerate(lines) if line.startswith("A tenth of the training pictures"))
    assert len(lines[held_out]) > columns - 20  # a paragraph is filled,
    assert any(line.startswith("  stg-np train --resume --out runs/try") for line in lines)  # an example is a line


def test_every_option_is_explained() -> None:
    (commands,) = (action for action in make_parser()._actions if action.choices)
    for parser in dict(commands.choices or {}).values():
        assert all(action.help for action in parser._actions if action.dest != "command" and action.metavar != "ACTION")
