"""The benchmark: that it times what it says, checks results first, and reports what it could not do."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import tables
from stg_np.bench import suite
from stg_np.bench.cases import SIZES, Case, ConvCase, ImageCase, LayerCase, StepCase, from_json, to_json
from stg_np.bench.compare import WrongResults, checked_error, ratio, spread
from stg_np.bench.floor import layer_floor, product_rate
from stg_np.bench.growth import FITTED, AnyPoint, ImagePoint, Point, cost, exponent
from stg_np.bench.ours import exact
from stg_np.bench.remote import BenchError, Remote, alone, ended_by_sigterm, exact_results, prepared, results_of
from stg_np.bench.subjects import OURS, PEERS, SUBJECTS, Setup, build
from stg_np.cli import main
from stg_np.models.stg import STG

LAYER, STEP, CONV = LayerCase(4, 5, 3, 2), StepCase("digits", 3), ConvCase(3, 6, 2, 5)
IMAGE = ImageCase("digits-image", 50)  # shards of 48 and 2


# --- the command ---------------------------------------------------------------------------------------------


def test_the_whole_command_writes_tables_numbers_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--quick", "--workers", "2", "--peers", "columns", "--out", str(tmp_path)]) == 0
    names = ["conv.json", "conv.md", "growth.json", "growth.md", "growth.png", "image.json", "image.md",
             "speed.json", "speed.md", "speed.png"]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    texts = [(tmp_path / f"{name}.md").read_text("utf-8") for name in ("speed", "image", "conv", "growth")]
    assert capsys.readouterr().out == "\n".join(texts)
    assert all(f"NumPy {np.__version__}" in text and "`stg-np bench --workers 2" in text for text in texts)
    assert str(tmp_path) not in "".join(texts)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    speed, image, conv = (
        json.loads((tmp_path / f"{name}.json").read_text("utf-8")) for name in ("speed", "image", "conv")
    )
    for row in (*speed["layer"], *speed["step"], *image["image"], *conv["conv"]):
        assert row["subjects"][OURS]["error"] < 1e-4
    for row in (*speed["layer"], *speed["step"], *speed["workers"], *image["image"], *conv["conv"]):
        for subject in row["subjects"].values():
            assert 0 < subject["seconds"]["min"] <= subject["seconds"]["median"] <= subject["seconds"]["max"]
    assert [list(row["subjects"]) for row in speed["workers"]] == 3 * [
        ["2 workers", "1 worker", "1 worker, 2 BLAS threads"]
    ]
    assert [row["subjects"][OURS]["timed"] for row in conv["conv"]] == ["winograd", "columns"]
    assert [row["subjects"]["columns"]["timed"] for row in conv["conv"]] == ["columns", "columns"]


def test_json_goes_to_stdout_and_an_absent_package_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "installed", lambda name: False)
    options = ["--quick", "--workers", "1", "--only", "step", "--peers", "torch-eager,jax-scan", "--json"]
    assert main(["bench", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"command", "machine", "step"}
    assert list(report["step"][0]["subjects"]) == [OURS]
    assert report["machine"]["torch"] == "not installed: left out"
    assert "jax" not in report["machine"]  # it has nothing to do with a step


def test_an_unknown_peer_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--peers", "keras"]) == 2
    assert "keras is unknown: use some of columns, torch-lstm" in capsys.readouterr().err


# --- what is timed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [LAYER, STEP, CONV])
def test_a_case_survives_the_way_to_its_process_and_draws_the_same_there(case: Any) -> None:
    assert from_json(json.loads(json.dumps(to_json(case)))) == case
    for first, second in zip(case.draw()[:2], case.draw()[:2]):
        np.testing.assert_array_equal(first, second)


def error_of(name: str, case: Case, workers: int = 1) -> float:
    subject = build(Setup(name, workers), case)
    try:
        return checked_error(subject.results(subject.run()), exact(case))
    finally:
        subject.close()


@pytest.mark.parametrize(
    ("name", "case"), [(OURS, LAYER), (OURS, STEP), (OURS, CONV), (OURS, ConvCase(8, 8, 8, 9)), ("columns", CONV)]
)
def test_what_is_timed_is_right_however_many_workers_share_it(name: str, case: Case) -> None:
    for workers in (1, 2, 7):
        assert error_of(name, case, workers) < 1e-5


def test_the_layer_is_timed_as_a_model_runs_it() -> None:
    subject = build(Setup(OURS, 1), LAYER)
    subject.close()
    assert subject.timed == "stg_np.fast.layer"


@pytest.mark.parametrize(
    ("name", "case"),
    [
        (name, case)
        for name in PEERS
        for case in (LAYER, STEP, CONV)
        if case.kind in SUBJECTS[name].builders and SUBJECTS[name].same and "compile" not in name
    ],
)
def test_a_peer_computes_the_same(name: str, case: Case) -> None:
    pytest.importorskip(SUBJECTS[name].package)
    assert error_of(name, case) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"tanh_candidate": False},
        {"tanh_candidate": False, "diagonal": True},
        {"pool": "last"},
        {"bidirectional": False},
    ],
)
def test_pytorch_computes_the_same_network(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    model = STEP.model()
    assert isinstance(model, STG)
    model = replace(model, width=8, **changes)
    monkeypatch.setattr(StepCase, "model", lambda case: model)
    assert error_of("torch-eager", STEP) < 1e-5


def test_pytorch_computes_the_same_image_network() -> None:
    pytest.importorskip("torch")
    assert error_of("torch-eager", IMAGE) < 1e-4


# --- processes that are asked --------------------------------------------------------------------------------


def test_results_cross_the_border_of_the_process() -> None:
    with Remote(Setup(OURS, 2)) as remote:
        assert prepared(remote, CONV)["seconds"] > 0
        assert checked_error(results_of(remote), exact_results(remote, CONV)) < 1e-5


def test_a_process_that_is_late_ends_and_another_takes_its_place() -> None:
    with Remote(Setup(OURS, 1)) as remote:
        with pytest.raises(BenchError, match="took longer than 0 s"):
            prepared(remote, LAYER, 0.01)
        with pytest.raises(BenchError, match="nothing has been prepared"):
            remote.ask("turn", seconds=0.0)
        assert prepared(remote, LAYER)["timed"] == "stg_np.fast.layer"
        assert len(remote.ask("turn", seconds=0.0)["seconds"]) == 1
        assert remote.process is not None
        remote.process.kill()
        with pytest.raises(BenchError, match="its process ended"):
            remote.ask("facts")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux for the state of a process")
def test_while_one_is_timed_the_others_are_held() -> None:
    def is_held(remote: Remote) -> bool:
        assert remote.process is not None
        return Path(f"/proc/{remote.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    def soon(condition: Callable[[], bool]) -> bool:  # a signal arrives when the process is next scheduled
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        return condition()

    with Remote(Setup(OURS, 1)) as one, Remote(Setup(OURS, 1)) as other, Remote(Setup(OURS, 1)) as never_started:
        for remote in (one, other):
            prepared(remote, LAYER)
        with alone(one, [one, other, never_started]):
            assert len(one.ask("turn", seconds=0.0)["seconds"]) == 1
            assert soon(lambda: is_held(other))
            assert not is_held(one)
        assert soon(lambda: not is_held(other))
        assert len(other.ask("turn", seconds=0.0)["seconds"]) == 1


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_program_that_is_told_to_end_leaves_nobody_behind() -> None:
    seen = []

    def program() -> None:
        with ended_by_sigterm(), Remote(Setup(OURS, 1)) as remote:
            prepared(remote, LAYER)
            seen.append(remote.process)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)  # the signal arrives meanwhile

    with pytest.raises(SystemExit, match="143"):
        program()
    assert seen[0] is not None
    assert seen[0].poll() is not None


def test_a_process_that_cannot_begin_says_why() -> None:
    with Remote(Setup("nobody", 1)) as remote, pytest.raises(BenchError, match="KeyError: 'nobody'"):
        prepared(remote, LAYER)


class Actor(Remote):
    """Plays a process: how long it takes to prepare, and what it answers."""

    def __init__(self, arrays: dict[str, Any], prepare_seconds: float = 1.0, turn_seconds: float = 1.0) -> None:
        super().__init__(Setup(OURS, 1))
        self.arrays, self.prepare_seconds, self.turn_seconds = arrays, prepare_seconds, turn_seconds

    def ask(self, do: str, *, limit: float = 600.0, **request: Any) -> dict[str, Any]:
        if do in ("results", "exact"):
            np.savez(request["path"], **self.arrays)
        if do == "prepare" and self.prepare_seconds > limit:
            raise BenchError("took longer")
        if do == "turn":
            return {"seconds": [self.turn_seconds]}
        return {"seconds": self.prepare_seconds, "timed": "a play"}


def play(actors: dict[str, Any], case: Case = LAYER, patience: suite.Patience | None = None) -> dict[str, Any]:
    names = [name for name in actors if name != OURS]
    return suite.side_by_side(case, names, suite.Options(1), actors, patience or suite.Patience(300.0))


def test_who_is_wrong_is_not_timed() -> None:
    right = {"y": np.array([1.0, -4.0]), "dx": np.array([2.0])}
    close, far = right | {"y": np.array([1.0001, -4.0])}, right | {"y": np.array([1.002, -4.0])}
    row = play({OURS: Actor(right), "torch-eager": Actor(close, turn_seconds=3.0), "jax-scan": Actor(far)})
    assert row["subjects"]["torch-eager"]["error"] == pytest.approx(2.5e-5)
    assert row["subjects"]["torch-eager"]["ratio"]["median"] == 3
    assert "seconds" not in row["subjects"]["jax-scan"]
    assert suite.failures({"layer": [row]}) == [
        "(4, 5, 3, 2), jax-scan: its y is wrong by 5.0e-04 of the largest entry"
    ]


def test_without_ours_there_is_nothing_to_compare() -> None:
    with pytest.raises(BenchError, match="took longer"):
        play({OURS: Actor({"y": np.ones(1)}, prepare_seconds=1e9)})


def test_what_would_compile_too_long_is_not_tried() -> None:
    right = {"y": np.ones(1)}
    patience = suite.Patience(300.0)

    def compiled(steps: int, seconds: float, name: str = "torch-compile") -> Any:
        actors = {OURS: Actor(right), name: Actor(right, prepare_seconds=seconds)}
        return play(actors, replace(LAYER, T=steps), patience)["subjects"][name].get("note")

    assert compiled(32, 100.0) is None
    assert compiled(1024, 0.0) == "not tried: 32 steps took 100 s to compile, and these are 1024"
    assert compiled(64, 301.0) == "took longer"
    assert compiled(65, 0.0) == "not tried: 64 steps took 300 s to compile, and these are 65"
    assert compiled(1024, 0.0, "torch-compile-16") is None


# --- figures -------------------------------------------------------------------------------------------------


def test_an_error_is_a_part_of_the_largest_entry_of_its_array() -> None:
    right = {"a": np.array([100.0, 1.0]), "b": np.array([1.0])}
    assert checked_error({"a": np.array([100.0, 1.002]), "b": np.array([1.0])}, right) == pytest.approx(2e-5)
    with pytest.raises(WrongResults, match="its b is wrong by nan"):
        checked_error(right | {"b": np.array([np.nan])}, right)
    with pytest.raises(WrongResults, match="shapes"):
        checked_error({"a": np.zeros(3), "b": np.zeros(1)}, right)
    with pytest.raises(WrongResults, match="shapes"):
        checked_error({"a": right["a"]}, right)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=9))
def test_statistics_are_in_order(values: list[float]) -> None:
    found = spread(values)
    assert found["min"] <= found["low"] <= found["median"] <= found["high"] <= found["max"]
    assert ratio([3 * value for value in values], values)["median"] == pytest.approx(3)


@given(st.floats(-2, 3), st.floats(1e-6, 1e6))
def test_the_exponent_of_a_power_is_found_above_its_constant_part(power: float, factor: float) -> None:
    values = [2.0**k for k in range(2 + FITTED)]
    costs = [1e9, 1e9, *(factor * value**power for value in values[2:])]
    assert exponent(values, costs) == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Point(T=16, B=16, H=8, L=1, D=4), Point(T=16, B=64, H=8, L=1, D=4)),
        (ImagePoint(256, 2, 8), ImagePoint(1024, 2, 8)),
        (ImagePoint(256, 4, 8), ImagePoint(256, 16, 8)),
    ],
)
def test_memory_of_a_step_grows_with_its_batch_and_its_pixels(small: AnyPoint, large: AnyPoint) -> None:
    one, four = cost(small, 0.0), cost(large, 0.0)
    assert 3 < four["bytes"] / one["bytes"] < 4.5
    assert min(one["seconds"], four["seconds"]) > 0


def test_the_floor_counts_products_and_bytes() -> None:
    found = layer_floor(LayerCase(8, 16, 5, 12), 2)
    assert found["multiply_adds"] == 12 * 8 * 16 * 5 * 12
    assert found["bytes"] == 4 * 8 * 16 * (3 * 5 + 12 * 12)
    assert found["seconds"] == pytest.approx(sum(found["product_seconds"].values()) + found["memory_seconds"])
    assert product_rate(2, 16) > 0


def test_flops_are_those_of_the_definition() -> None:
    assert LayerCase(2, 3, 5, 7).flops == 3 * 2 * (2 * 3) * 5 * (4 * 7)
    assert ConvCase(2, 3, 5, 7).flops == 3 * 2 * (2 * 3 * 3) * (9 * 5) * 7


def test_the_bytes_on_a_gpu_are_those_of_kernels_and_products() -> None:
    from stg_np.bench.cuda import needed_bytes
    from stg_np.fast.cuda import VARIANTS, sequence_walk, traffic_bytes

    products = 4 * 6 * ((5 + 28) + (28 + 5) + (5 + 28))  # of 2 × 3 rows: read and written by x W, da Wᵀ, xᵀ da
    assert needed_bytes(LayerCase(2, 3, 5, 7)) == sum(traffic_bytes(VARIANTS[0], sequence_walk(2, 3, 7))) + products


# --- result files --------------------------------------------------------------------------------------------


def test_a_table_keeps_its_columns() -> None:
    assert tables.table(("a", "b"), [(1, "x | y"), ("two\nlines", "")]) == (
        "| a | b |\n| --- | --- |\n| 1 | x \\| y |\n| two lines |  |"
    )
    assert tables.table(("a", "b"), []) == ""
    with pytest.raises(ValueError, match="needs 2 cells: a, b"):
        tables.table(("a", "b"), [(1,)])


def test_a_document_leaves_out_what_is_empty() -> None:
    text = tables.document("Title", "command", "", tables.section("Part", "text"), tables.section("None", ""))
    assert text == "# Title\n\n`command`\n\n## Part\n\ntext\n"
    assert tables.facts_list({"a": 1, "b": "", "c": 0}) == "* a: 1\n* c: 0"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.23456, "1,235"), (0.9994, "999"), (0.99951, "1,000"), (0.0123456, "12.3"), (1e-5, "0.01")]
)
def test_milliseconds_have_three_digits(seconds: float, shown: str) -> None:
    assert tables.milliseconds(seconds) == shown


def test_every_step_that_is_measured_is_one_that_the_peers_know() -> None:
    for case in (*SIZES["step"], *SIZES["image"]):
        assert isinstance(case, StepCase)
        assert case.model().layout().size > 1000
