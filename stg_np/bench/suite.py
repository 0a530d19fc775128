"""The measurements in order, each a plain dictionary: ``layer``, ``step``, ``workers``, ``growth``, and ``cuda``."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stg_np
from stg_np.bench import cases
from stg_np.bench.cases import Case, LayerCase
from stg_np.bench.growth import AXES, QUICK_AXES, Point, exponent
from stg_np.bench.remote import (
    TOLERANCE,
    BenchError,
    Remote,
    Setup,
    alone,
    largest_difference,
    prepared,
    ratio,
    results_of,
    spread,
    timed_in_turns,
)
from stg_np.bench.subjects import OURS, PEERS
from stg_np.engine import available_cores

SECTIONS = ("layer", "step", "workers", "growth")
COMPILE_LIMIT = 300.0
"""Seconds that a peer may take to compile one size."""


@dataclass(frozen=True)
class Options:
    """What to measure: ``workers`` threads in all on every side, ``rounds`` turns of ``seconds`` each per subject."""

    workers: int
    peers: tuple[str, ...]
    quick: bool = False
    rounds: int = 7
    seconds: float = 0.3
    say: Callable[[str], None] = lambda line: None
    compile_limit: float = COMPILE_LIMIT
    layers: Sequence[LayerCase] = cases.LAYERS
    steps: Sequence[cases.StepCase] = cases.STEPS
    axes: Mapping[str, Sequence[int]] = field(default_factory=lambda: AXES)
    base: Point = Point()  # noqa: RUF009 - immutable


def make_options(workers: int | None, peers: Sequence[str] | None, quick: bool, say: Callable[[str], None]) -> Options:
    """The options of the command line; ``peers`` None: all that are installed, with ``quick`` those that start fast."""
    wanted = tuple(peers if peers is not None else (name for name in PEERS if not (quick and "compile" in name)))
    if not quick:
        return Options(workers or available_cores(), wanted, say=say)
    return Options(
        workers or available_cores(), wanted, quick=True, rounds=2, seconds=0.01, say=say, layers=cases.QUICK_LAYERS,
        steps=cases.QUICK_STEPS, axes=QUICK_AXES, base=Point(T=8, B=4, H=8, L=1),
    )  # fmt: skip


def run_sections(options: Options, sections: Sequence[str]) -> dict[str, Any]:
    """Measure; the result has ``machine`` and one entry per section."""
    measures = {"layer": layer_section, "step": step_section, "workers": workers_section, "growth": growth_section}
    with ExitStack() as until:
        remotes = {name: until.enter_context(Remote(Setup(name, options.workers))) for name in (OURS, *options.peers)}
        report: dict[str, Any] = {"machine": machine(options, remotes)}
        for section in sections:
            report[section] = measures[section](options, remotes)
    return report


def machine(options: Options, remotes: Mapping[str, Remote]) -> dict[str, Any]:
    """Processor, threads, versions and BLAS of all that takes part, and what is absent."""
    facts: dict[str, Any] = {
        "stg_np": stg_np.__version__,
        "processor": processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": available_cores(),
        "threads on every side": options.workers,
        "turns": f"{options.rounds} of {options.seconds} s",
        "absent": sorted({PEERS[name].package for name in options.peers if not installed(name)}),
    }
    asked = set()
    for name, remote in remotes.items():
        package = PEERS[name].package if name in PEERS else OURS
        if package not in asked and (name == OURS or installed(name)):
            asked.add(package)
            facts |= remote.ask("facts")
    return facts


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def installed(name: str) -> bool:
    """Whether a peer's package can be found (it is not imported here)."""
    return importlib.util.find_spec(PEERS[name].package) is not None


def layer_section(options: Options, remotes: Mapping[str, Remote]) -> list[dict[str, Any]]:
    """Forward and backward of one layer beside the peers, with the floor and the profile of ours."""
    rows = []
    compile_seconds: dict[int, float] = {}  # by the number of steps
    for case in sorted(options.layers, key=lambda case: case.T):
        names = [name for name in options.peers if PEERS[name].on_layer]
        row = side_by_side(case, names, options, remotes, compile_seconds)
        with alone(remotes[OURS], remotes.values()):
            row["floor"] = remotes[OURS].ask("floor", case=case._asdict())
            row["profile"] = remotes[OURS].ask("profile", seconds=4 * options.seconds)
        rows.append(row)
    return sorted(rows, key=lambda row: options.layers.index(LayerCase(**row["case"])))


def step_section(options: Options, remotes: Mapping[str, Remote]) -> list[dict[str, Any]]:
    """Forward, loss and backward of each preset's network."""
    names = [name for name in options.peers if PEERS[name].on_step]
    return [side_by_side(case, names, options, remotes, {}) for case in options.steps]


def side_by_side(
    case: Case, names: Sequence[str], options: Options, remotes: Mapping[str, Remote], compiled: dict[int, float]
) -> dict[str, Any]:
    """Prepare everybody, compare results, and only then time them in turns.

    Returns ``case``, ``label`` and ``subjects``: by name either ``seconds``, ``ratio`` (to ours) and ``difference``, or
    a ``note`` that says why there is no time.
    """
    options.say(f"{case.label}: preparing {OURS}")
    subjects: dict[str, dict[str, Any]] = {OURS: {"prepare_seconds": prepared(remotes[OURS], case, 600)}}
    ours = results_of(remotes[OURS])
    ready = {OURS: remotes[OURS]}
    for name in names:
        options.say(f"{case.label}: preparing {name}")
        try:
            subjects[name] = prepare_peer(name, remotes[name], case, ours, options.compile_limit, compiled)
            ready[name] = remotes[name]
        except BenchError as error:
            subjects[name] = {"note": str(error)}
            remotes[name].end()  # so that what it has left does not disturb the others
    options.say(f"{case.label}: timing {', '.join(ready)}")
    times = timed_in_turns(ready, options.rounds, options.seconds)
    for name, seconds in times.items():
        subjects[name] |= {"seconds": spread(seconds), "ratio": ratio(seconds, times[OURS]), "rounds": seconds}
        if name != OURS:
            ready[name].ask("drop")
    return {"case": case._asdict(), "label": case.label, "subjects": subjects}


def prepare_peer(
    name: str, remote: Remote, case: Case, ours: Mapping[str, Any], limit: float, compiled: dict[int, float]
) -> dict[str, Any]:
    """Prepare a peer and hold its results against ours.

    Raises:
        BenchError: with the reason why it is not to be timed.
    """
    if not installed(name):
        raise BenchError(f"{PEERS[name].package} is not installed")
    if PEERS[name].unrolled and isinstance(case, LayerCase):
        for steps, seconds in compiled.items():
            if seconds * case.T / steps > limit:
                took = f"took {seconds:.0f} s" if seconds < limit else f"did not compile in {limit:.0f} s"
                raise BenchError(f"not tried: {steps} steps {took}, and these are {case.T}")
    try:
        seconds = prepared(remote, case, limit)
    except BenchError:
        if PEERS[name].unrolled and isinstance(case, LayerCase):
            compiled[case.T] = limit + 1
        raise
    if PEERS[name].unrolled and isinstance(case, LayerCase):
        compiled[case.T] = seconds
    found: dict[str, Any] = {"prepare_seconds": seconds}
    if PEERS[name].same:
        worst, difference = largest_difference(results_of(remote), ours)
        if not difference <= TOLERANCE:
            raise BenchError(f"not timed: its {worst} differs from ours by {difference:.1e} of the maximum")
        found["difference"] = difference
    return found


def failures(report: Mapping[str, Any]) -> list[str]:
    """The peers whose results are not ours."""
    return [
        f"{row['label']}, {name}: {subject['note']}"
        for section in ("layer", "step")
        for row in report.get(section, [])
        for name, subject in row["subjects"].items()
        if subject.get("note", "").startswith("not timed")
    ]


def workers_section(options: Options, remotes: Mapping[str, Remote]) -> list[dict[str, Any]]:
    """N workers, beside one worker with one thread of BLAS and one worker with N; nothing where N is 1."""
    if options.workers == 1:
        options.say("workers: left out, for there is only one")
        return []
    setups = {
        f"{options.workers} workers": Setup(OURS, options.workers),
        "1 worker": Setup(OURS, 1),
        f"1 worker, {options.workers} BLAS threads": Setup(OURS, 1, options.workers),
    }
    rows = []
    with ExitStack() as until:
        mine = {name: until.enter_context(Remote(setup)) for name, setup in setups.items()}
        work: list[Case] = [*options.layers, *options.steps]
        for case in work:
            options.say(f"{case.label}: timing {', '.join(mine)}")
            for remote in mine.values():
                prepared(remote, case, 600)
            times = timed_in_turns(mine, options.rounds, options.seconds, remotes.values())
            first = times[next(iter(mine))]
            subjects = {
                name: {"seconds": spread(seconds), "ratio": ratio(seconds, first), "rounds": seconds}
                for name, seconds in times.items()
            }
            rows.append({"case": case._asdict(), "label": case.label, "subjects": subjects})
    return rows


def growth_section(options: Options, remotes: Mapping[str, Remote]) -> dict[str, Any]:
    """Time and memory along each axis from the base point, with the fitted exponents."""
    found: dict[str, Any] = {"base": options.base._asdict(), "axes": {}}
    with Remote(Setup(OURS, 1)) as remote:
        for axis, values in options.axes.items():
            options.say(f"growth with {axis}: {values[0]} … {values[-1]}")
            points = [options.base._replace(**{axis: value})._asdict() for value in values]
            with alone(remote, remotes.values()):
                costs = [remote.ask("growth", point=point, seconds=options.seconds) for point in points]
            measured = {key: [cost[key] for cost in costs] for key in ("seconds", "bytes")}
            exponents = {key: exponent(values, measured[key]) for key in measured}
            found["axes"][axis] = {"values": list(values), **measured, "exponents": exponents}
    return found
