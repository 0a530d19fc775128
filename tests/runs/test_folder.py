"""A run's folder: its configuration, its metrics, and who may write there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stg_np.engine import Threads
from stg_np.runs.archive import CheckpointError
from stg_np.runs.description import about_from
from stg_np.runs.folder import RunFolder, metrics_line
from stg_np.train import fit, initial_state
from tests.runs.described import ABOUT, FACTS, refusal, trained_state
from tests.training import make_run


def begun(path: Path) -> RunFolder:
    """A folder with a run of one saved step, and files of later ones."""
    folder = RunFolder(path)
    folder.path.mkdir(parents=True)
    folder.begin(ABOUT, trained_state())
    for file in (folder.best, folder.metrics, folder.curves):
        file.write_text("old")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder, at every depth."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_run_sets_an_older_one_aside_until_it_has_ended(tmp_path: Path) -> None:
    folder = begun(tmp_path / "deep" / "run")
    (folder.path / "notes.txt").write_text("mine")
    old = ["best.npz", "checkpoint.npz", "config.toml", "curves.png", "metrics.jsonl"]
    assert folder.would_be_lost() == folder.present() == old
    aside = folder.begin(ABOUT, initial_state(make_run()))
    assert folder.names() == ["checkpoint.npz", "config.toml", "notes.txt"]
    assert folder.would_be_lost() == []
    (replaced,) = folder.replaced()
    assert (replaced.path, replaced.present()) == (aside, old)
    assert folder.chosen == folder.last
    folder.discard_replaced()
    assert sorted(contents(folder.path)) == ["checkpoint.npz", "config.toml", "notes.txt"]


def test_a_run_that_cannot_begin_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(tmp_path / "run")
    before = contents(folder.path)

    def full(*_: object) -> None:
        raise CheckpointError("the disk is full")

    for where in ("checkpoint.save", "archive.write_atomically"):
        with monkeypatch.context() as patch:
            patch.setattr(f"stg_np.runs.{where}", full)
            assert "full" in refusal(lambda: folder.begin(ABOUT, initial_state(make_run())))
        assert contents(folder.path) == before


def test_what_was_put_aside_before_is_not_mixed_with_what_follows(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    first = folder.begin(ABOUT, trained_state(steps=5))
    second = folder.begin(ABOUT, initial_state(make_run()))
    assert [old.path for old in folder.replaced()] == [first, second]


@pytest.mark.parametrize(
    "name", ["config.toml", "metrics.jsonl", "checkpoint.npz", "best.npz", "curves.png", "confusion.png"]
)
def test_a_file_of_anybody_else_would_be_lost(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "notes.txt").write_text("in nobody's way")
    assert folder.would_be_lost() == []
    (tmp_path / name).write_text('{"mine": 1}')
    assert folder.would_be_lost() == [name]
    folder.begin(ABOUT, initial_state(make_run()))
    folder.discard_replaced()  # it is no run: it stays, aside
    assert (tmp_path / ".replaced" / name).read_text() == '{"mine": 1}'


def test_what_others_have_under_similar_names_is_not_touched(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / ".lock").write_text("of another program")
    RunFolder(tmp_path / ".replaced_by_hand").path.mkdir()
    RunFolder(tmp_path / ".replaced_by_hand").begin(ABOUT, trained_state())
    with folder.locked():
        folder.begin(ABOUT, trained_state())
        folder.discard_replaced()
    assert (tmp_path / ".lock").read_text() == "of another program"
    assert (tmp_path / ".replaced_by_hand" / "checkpoint.npz").exists()


def test_a_link_to_nowhere_is_somebodys_file(tmp_path: Path) -> None:
    (tmp_path / "best.npz").symlink_to(tmp_path / "a disk that is not mounted")
    assert RunFolder(tmp_path).would_be_lost() == ["best.npz"]


def test_a_beginning_is_no_loss_unless_somebody_wrote_in_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(ABOUT, initial_state(make_run()))
    folder.append({"kind": "step", "step": 1})
    assert folder.would_be_lost() == []
    folder.append({"kind": "epoch", "step": 3})
    assert folder.would_be_lost() == ["checkpoint.npz", "config.toml", "metrics.jsonl"]
    folder.begin(ABOUT, initial_state(make_run()))
    folder.config.write_text(folder.config.read_text() + "# what I want to try next\n")
    assert folder.would_be_lost() == ["checkpoint.npz", "config.toml"]


def test_metrics_are_json_whatever_the_numbers_are(tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    folder = RunFolder(tmp_path)
    folder.append(
        {"kind": "step", "step": 1, "loss": float("nan"), "more": [float("inf"), {"deep": -float("inf")}, 1.5]}
    )
    line = json.loads(folder.metrics.read_text(), parse_constant=refuse)
    assert line == {"kind": "step", "step": 1, "loss": None, "more": [None, {"deep": None}, 1.5]}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_is_honoured(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = begun(tmp_path / "run")
    finally:
        os.umask(before)
    for path in (folder.last, folder.config, folder.metrics):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_configuration_is_complete_and_compared(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_config(ABOUT)  # there is none to contradict
    folder.write_config(ABOUT)
    folder.check_config(ABOUT)
    assert about_from(tomllib.loads(folder.config.read_text())) == ABOUT
    other = replace(ABOUT, training=replace(ABOUT.training, seed=7))
    assert "training.seed" in refusal(lambda: folder.check_config(other))
    assert "data.split_seed" in refusal(lambda: folder.check_config(replace(ABOUT, data=replace(FACTS, split_seed=1))))
    folder.config.write_bytes(b"\xff")
    assert str(folder.config) in refusal(lambda: folder.check_config(ABOUT))


def test_metrics_know_no_more_than_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() == []
    with Threads(1) as workers:
        for record in fit(make_run(), workers, log_every=1):
            folder.append(metrics_line(record, FACTS.label))
    folder.append({"kind": "test", "step": 6, "accuracy": 1.0})
    whole = folder.read_metrics()
    assert len(whole) == 6 + 2 + 1
    assert all(line["data"] == FACTS.label for line in whole[:-1])
    with folder.metrics.open("a") as file:
        file.write('{"kind": "step", "step": 7, "lo')  # the power failed here
    assert folder.read_metrics() == whole
    folder.forget_after(6)
    assert folder.read_metrics() == whole[:-1]
    folder.forget_after(4)
    assert [(line["kind"], line["step"]) for line in folder.read_metrics()] == [
        ("step", 1), ("step", 2), ("step", 3), ("epoch", 3), ("step", 4),
    ]  # fmt: skip
    assert folder.metrics.read_text().endswith("}\n")


@pytest.mark.parametrize(
    "line", ["[]", "3", "{}", '{"step": "7", "kind": "step"}', '{"step": 7}', "\x00", "[" * 9_000, "9" * 9_000]
)
def test_lines_that_are_no_records_are_left_out(tmp_path: Path, line: str) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text(line + "\n")
    assert folder.read_metrics() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda good: "x = " + "[" * 50_000,
        lambda good: "x = " + "[" * 300 + "]" * 300,
        lambda good: "a." * 3_000 + "b = 1",
        lambda good: good.replace("epochs = ", "epochs = 0x" + "f" * 8_000),
        lambda good: '"a\\nb" = 1\n' + good,
        lambda good: '"\\u001b[2J" = "\\u202e"\n' + good,
        lambda good: 'x = "' + "x" * 100_000 + '"\n' + good,
        lambda good: good + "#" * (1 << 20),
    ],
)
def test_a_strange_configuration_is_one_sentence(tmp_path: Path, change: Callable[[str], str]) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config(ABOUT)
    folder.config.write_text(change(folder.config.read_text()))
    assert refusal(lambda: folder.check_config(ABOUT)).isprintable()


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    os.mkfifo(folder.config)
    os.mkfifo(folder.metrics)
    assert "no regular file" in refusal(lambda: folder.check_config(ABOUT))
    assert "no regular file" in refusal(folder.read_metrics)


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file" / "run")
    assert "--out" in refusal(lambda: folder.locked().__enter__())
    assert "--out" in refusal(lambda: folder.begin(ABOUT, trained_state()))
    assert "metrics.jsonl" in refusal(lambda: folder.append({"kind": "step"}))


HOLDS_THE_LOCK = """
import sys, time
from pathlib import Path
from stg_np.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        assert str(folder.path) in refusal(lambda: RunFolder(folder.path).locked().__enter__())
    with folder.locked():
        pass  # the first one has let go


def test_a_process_that_is_killed_lets_go_of_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert "another training" in refusal(lambda: folder.locked().__enter__())
        other.kill()
        other.wait()
    with folder.locked():
        pass
