"""The benchmark: that it times what it says, holds results together first, and reports what it could not do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import stm
from stg_np.bench import profile, suite
from stg_np.bench.cases import LayerCase, StepCase, case_from
from stg_np.bench.floor import layer_floor
from stg_np.bench.growth import FITTED, Point, cost, exponent
from stg_np.bench.remote import (
    BenchError,
    Remote,
    Setup,
    alone,
    largest_difference,
    prepared,
    ratio,
    results_of,
    spread,
)
from stg_np.bench.subjects import OURS, PEERS, build_ours, build_peer
from stg_np.cli import main

ROOT = Path(__file__).parent.parent
LAYER, STEP = LayerCase(4, 5, 3, 2), StepCase("digits", 3)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stg_np", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_whole_command_writes_tables_numbers_and_pictures(tmp_path: Path) -> None:
    done = run("--quick", "--workers", "2", "--peers", "none", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    names = {"speed.md", "speed.json", "speed.png", "growth.md", "growth.json", "growth.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert done.stdout == (tmp_path / "speed.md").read_text("utf-8") + "\n" + (tmp_path / "growth.md").read_text(
        "utf-8"
    )
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    speed = json.loads((tmp_path / "speed.json").read_text("utf-8"))
    assert speed["command"].startswith("stg-np bench --workers 2")
    assert speed["machine"]["numpy"] == np.__version__
    for row in [*speed["layer"], *speed["step"], *speed["workers"]]:
        for subject in row["subjects"].values():
            assert 0 < subject["seconds"]["min"] <= subject["seconds"]["median"] <= subject["seconds"]["max"]
    assert [list(row["subjects"]) for row in speed["workers"]] == 3 * [
        ["2 workers", "1 worker", "1 worker, 2 BLAS threads"]
    ]


def test_json_goes_to_stdout_and_an_absent_peer_gets_a_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "installed", lambda name: False)
    options = ["--quick", "--workers", "1", "--only", "step", "--peers", "torch-eager", "--json"]
    assert main(["bench", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["step"][0]["subjects"]["torch-eager"] == {"note": "torch is not installed"}
    assert report["machine"]["absent"] == ["torch"]
    assert report.keys() == {"command", "machine", "step"}


def test_an_unknown_peer_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--peers", "keras"]) == 2
    assert "keras is unknown: use some of torch-lstm" in capsys.readouterr().err


@pytest.mark.parametrize("case", [LAYER, STEP])
def test_a_case_survives_the_way_to_its_process_and_draws_the_same_there(case: Any) -> None:
    assert case_from(json.loads(json.dumps(case._asdict()))) == case
    for first, second in zip(case.draw()[:2], case.draw()[:2]):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_our_layer_is_the_plain_layer_however_many_workers_share_it(workers: int) -> None:
    with ExitStack() as until:
        subject = build_ours(LAYER, workers, 1, until)
        got = subject.results(subject.run())
    x, dy, params = LAYER.draw()
    nothing = np.zeros((LAYER.B, LAYER.H), np.float32)
    (y, _), cache = stm.stm_forward(x, nothing, params)
    dx, _, grads = stm.stm_backward(dy, nothing, cache, params)
    assert largest_difference(got, {"y": y, "dx": dx, "dW": grads.W, "db": grads.b})[1] < 1e-5


def test_results_cross_the_border_of_the_process() -> None:
    with Remote(Setup(OURS, 2)) as remote, ExitStack() as until:
        assert prepared(remote, STEP, 60) > 0
        subject = build_ours(STEP, 2, 1, until)
        assert largest_difference(results_of(remote), subject.results(subject.run()))[1] < 1e-6


def test_a_process_that_is_late_ends_and_another_takes_its_place() -> None:
    with Remote(Setup(OURS, 1)) as remote:
        with pytest.raises(BenchError, match="took longer than 0 s"):
            remote.ask("prepare", limit=0.01, case=LAYER._asdict())
        with pytest.raises(BenchError, match="nothing has been prepared"):
            remote.ask("turn", seconds=0.0)
        assert prepared(remote, LAYER, 60) > 0
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
        deadline = time.monotonic() + 10
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        return condition()

    with Remote(Setup(OURS, 1)) as one, Remote(Setup(OURS, 1)) as other, Remote(Setup(OURS, 1)) as never_started:
        for remote in (one, other):
            prepared(remote, LAYER, 60)
        with alone(one, [one, other, never_started]):
            assert len(one.ask("turn", seconds=0.0)["seconds"]) == 1
            assert soon(lambda: is_held(other))
            assert not is_held(one)
        assert soon(lambda: not is_held(other))
        assert len(other.ask("turn", seconds=0.0)["seconds"]) == 1


def test_a_process_that_cannot_begin_says_why() -> None:
    with Remote(Setup("nobody", 1)) as remote, pytest.raises(BenchError, match="KeyError: 'nobody'"):
        prepared(remote, LAYER, 60)


class Answers:
    """A peer's process, as far as :func:`suite.prepare_peer` asks it."""

    def __init__(self, arrays: dict[str, Any], seconds: float = 1.0) -> None:
        self.arrays, self.seconds = arrays, seconds

    def ask(self, do: str, **request: Any) -> dict[str, float]:
        if do == "results":
            np.savez(request["path"], **self.arrays)
        elif self.seconds > request["limit"]:
            raise BenchError("took longer")
        return {"seconds": self.seconds}


def prepare(name: str, case: Any, remote: Answers, ours: dict[str, Any], compiled: dict[int, float]) -> dict[str, Any]:
    return suite.prepare_peer(name, remote, case, ours, 300.0, compiled)  # type: ignore[arg-type]


def test_a_peer_with_other_results_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "installed", lambda name: True)
    ours = {"y": np.array([1.0, -4.0]), "dx": np.array([2.0])}
    close, far = ours | {"y": np.array([1.00003, -4.0])}, ours | {"y": np.array([1.0001, -4.0])}
    found = prepare("jax-scan", LAYER, Answers(close), ours, {})
    assert found["difference"] == pytest.approx(0.75e-5)
    with pytest.raises(BenchError, match=r"not timed: its y differs from ours by 2\.5e-05") as caught:
        prepare("jax-scan", LAYER, Answers(far), ours, {})
    row = {"label": "a layer", "subjects": {"jax-scan": {"note": str(caught.value)}}}
    assert suite.failures({"layer": [row]}) == [f"a layer, jax-scan: {caught.value}"]


def test_what_would_compile_too_long_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "installed", lambda name: True)
    compiled: dict[int, float] = {}
    ours = {"y": np.ones(1)}
    prepare("torch-compile", LAYER._replace(T=32), Answers(ours, 100.0), ours, compiled)
    assert compiled == {32: 100.0}
    with pytest.raises(BenchError, match="not tried: 32 steps took 100 s"):
        prepare("torch-compile", LAYER._replace(T=1024), Answers(ours), ours, compiled)
    with pytest.raises(BenchError, match="took longer"):
        prepare("torch-compile", LAYER._replace(T=64), Answers(ours, 301.0), ours, compiled)
    with pytest.raises(BenchError, match="not tried"):
        prepare("torch-compile", LAYER._replace(T=64), Answers(ours), ours, compiled)
    prepare("torch-compile-16", LAYER._replace(T=1024), Answers(ours), ours, compiled)


def test_differences_are_parts_of_the_largest_entry() -> None:
    expected = {"a": np.array([100.0, 1.0]), "b": np.array([1.0])}
    assert largest_difference({"a": np.array([100.0, 2.0]), "b": np.array([1.001])}, expected) == ("a", 0.01)
    worst, difference = largest_difference({"a": expected["a"], "b": np.array([np.nan])}, expected)
    assert worst == "b"
    assert np.isnan(difference)
    with pytest.raises(BenchError, match="shapes"):
        largest_difference({"a": np.zeros(3), "b": np.zeros(1)}, expected)


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


def test_memory_of_a_step_grows_with_its_batch() -> None:
    one, four = (cost(Point(T=16, B=B, H=8, L=1, D=4), 0.0) for B in (16, 64))
    assert 3 < four["bytes"] / one["bytes"] < 4.5
    assert min(one["seconds"], four["seconds"]) > 0


def test_the_floor_counts_products_and_bytes() -> None:
    found = layer_floor(LayerCase(8, 16, 5, 12), 2)
    assert found["multiply_adds"] == 12 * 8 * 16 * 5 * 12
    assert found["bytes"] == 4 * 8 * 16 * (3 * 5 + 12 * 12)
    assert found["seconds"] == pytest.approx(sum(found["product_seconds"].values()) + found["memory_seconds"])


def test_every_phase_has_lines_in_the_fast_path() -> None:
    found = profile.phases_of("stg_np.fast.walks")
    assert set(found.values()) == set(profile.PHASES) - {"outside"}
    for line, name in found.items():
        text = profile.text("stg_np.fast.walks", line)
        assert "np.tanh(" not in text or name == "gates"
        assert "dW +=" not in text or name == "weight gradient"


def test_a_profile_finds_the_dear_line() -> None:
    case = LayerCase(32, 16, 2, 512)  # hardly a product: tanh and the elementwise rest
    with ExitStack() as until:
        found = profile.sample(build_ours(case, 2, 1, until).run, 0.3)
    assert found["samples"] > 10
    assert sum(found["phases"].values()) == pytest.approx(1)
    assert found["phases"]["gates"] > found["phases"]["input gradient"]


def test_the_bytes_on_a_gpu_are_those_of_kernels_and_products() -> None:
    from stg_np.bench.cuda import needed_bytes
    from stg_np.fast.cuda import traffic_bytes

    products = 4 * 6 * ((5 + 28) + (28 + 5) + (5 + 28))  # of 2 × 3 rows: read and written by x W, da Wᵀ, xᵀ da
    assert needed_bytes(LayerCase(2, 3, 5, 7)) == sum(traffic_bytes(2, 3, 7, np.float32)) + products


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.same and "compile" not in name])
def test_a_peer_computes_the_same_layer(name: str) -> None:
    pytest.importorskip(PEERS[name].package)
    assert_equal_to_ours(name, LAYER)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tanh_candidate": False},
        {"tanh_candidate": False, "diagonal": True},
        {"pool": "last"},
        {"bidirectional": False},
    ],
)
def test_pytorch_computes_the_same_network(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    model = replace(STEP.model(), width=8, **changes)
    monkeypatch.setattr(StepCase, "model", lambda case: model)
    assert_equal_to_ours("torch-eager", STEP)


def assert_equal_to_ours(name: str, case: Any) -> None:
    with ExitStack() as until:
        ours, theirs = build_ours(case, 1, 1, until), build_peer(name, case, 1)
        assert largest_difference(theirs.results(theirs.run()), ours.results(ours.run()))[1] < 1e-5
