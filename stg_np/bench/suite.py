"""The measurements in order, each as plain values: ``layer``, ``step``, ``conv``, ``workers`` and ``growth``.

One harness for all: every subject runs in a process of its own, its results are compared with the plain path in
float64 before it is timed, and then they take turns, all others stopped meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stg_np.bench.cases import QUICK_SIZES, SIZES, Case, ConvCase, ImageCase, LayerCase, to_json
from stg_np.bench.compare import TOLERANCE, WrongResults, checked_error, ratio, spread
from stg_np.bench.growth import AXES, QUICK_AXES, AnyPoint, exponent
from stg_np.bench.remote import (
    BenchError,
    Remote,
    alone,
    ended_by_sigterm,
    exact_results,
    prepared,
    results_of,
    timed_in_turns,
)
from stg_np.bench.subjects import OURS, PEERS, SUBJECTS, Setup, installed
from stg_np.engine import available_cores
from stg_np.machine import describe

COMPILE_LIMIT = 100.0
"""Seconds that a peer may take to compile one size."""


@dataclass(frozen=True)
class Options:
    """What to measure: ``workers`` threads in all on every side, ``rounds`` turns of ``seconds`` each per subject."""

    workers: int
    peers: Sequence[str] = ()
    rounds: int = 7
    seconds: float = 0.3
    say: Callable[[str], None] = lambda line: None
    sizes: Mapping[str, Sequence[Case]] = field(default_factory=lambda: SIZES)
    axes: Mapping[AnyPoint, Mapping[str, Sequence[int]]] = field(default_factory=lambda: AXES)


def make_options(workers: int | None, peers: Sequence[str] | None, quick: bool, say: Callable[[str], None]) -> Options:
    """The options of the command line; ``peers`` None: all of them, with ``quick`` those that start fast."""
    wanted = PEERS if peers is None else peers
    everything = Options(workers or available_cores(), wanted, say=say)
    if not quick:
        return everything
    wanted = [name for name in wanted if peers is not None or "compile" not in name]
    return Options(
        everything.workers, wanted, rounds=2, seconds=0.01, say=say, sizes=QUICK_SIZES, axes=QUICK_AXES
    )  # fmt: skip


Remotes = Mapping[str, Remote]


def run_sections(options: Options, sections: Sequence[str]) -> dict[str, Any]:
    """Measure; the result has ``machine`` and one entry per section of :data:`SECTIONS`."""
    peers = [name for name in options.peers if SUBJECTS[name].builders.keys() & set(sections)]
    with ended_by_sigterm(), ExitStack() as until:
        remotes = {
            name: until.enter_context(Remote(Setup(name, options.workers)))
            for name in (OURS, *filter(installed, peers))
        }
        report: dict[str, Any] = {"machine": facts(peers, remotes) | how_often(options)}
        for section in sections:
            report[section] = SECTIONS[section](options, remotes)
    return report


def facts(peers: Sequence[str], remotes: Remotes) -> dict[str, str]:
    """The machine, and the packages of the peers."""
    found = describe()
    packages = {SUBJECTS[name].package: name for name in peers}
    for package, name in packages.items():
        if package != SUBJECTS[OURS].package:  # that is described already
            found |= remotes[name].ask("facts") if name in remotes else {package: "not installed: left out"}
    return found


def how_often(options: Options) -> dict[str, str]:
    """How it is measured."""
    return {"threads on every side": f"{options.workers}", "turns": f"{options.rounds} of {options.seconds} s"}


def beside_peers(kind: str, options: Options, remotes: Remotes) -> list[dict[str, Any]]:
    """Every case of a kind, beside the peers that know it; a layer with its floor, a convolution with a product."""
    names = [name for name in remotes if name != OURS and kind in SUBJECTS[name].builders]
    patience = Patience(COMPILE_LIMIT)
    rows = []
    for case in options.sizes[kind]:
        row = side_by_side(case, names, options, remotes, patience)
        with alone(remotes[OURS], remotes.values()):
            if isinstance(case, LayerCase):
                row["floor"] = remotes[OURS].ask("floor", case=to_json(case))
            if isinstance(case, ConvCase):
                row |= {"flops": case.flops, "product_gflops": remotes[OURS].ask("product_rate")["gflops"]}
        rows.append(row)
    return rows


def side_by_side(
    case: Case, names: Sequence[str], options: Options, remotes: Remotes, patience: Patience
) -> dict[str, Any]:
    """Prepare everybody, check the results, and only then time them in turns.

    Returns ``case``, ``label`` and ``subjects``: by name either ``seconds``, ``ratio`` (to ours) and ``error``, or
    a ``note`` that says why there is no time.

    Raises:
        BenchError: if this package itself fails.
    """
    exact = exact_results(remotes[OURS], case)
    subjects: dict[str, dict[str, Any]] = {}
    for name in (OURS, *names):
        options.say(f"{case.label}: preparing {name}")
        try:
            subjects[name] = prepare(name, remotes[name], case, exact, patience)
        except BenchError as error:
            if name == OURS:
                raise
            subjects[name] = {"note": str(error), "wrong": isinstance(error, WrongResults)}
            remotes[name].end()  # so that what it has left does not disturb the others
    ready = {name: remotes[name] for name, subject in subjects.items() if "note" not in subject}
    timed(case, ready, subjects, options, remotes)
    for name in ready:
        remotes[name].ask("drop")
    return row_of(case, subjects)


def timed(
    case: Case, ready: Remotes, subjects: dict[str, dict[str, Any]], options: Options, everybody: Remotes
) -> None:
    """Add the times to the subjects that are ready, and their ratios to the first."""
    options.say(f"{case.label}: timing {', '.join(ready)}")
    times = timed_in_turns(ready, options.rounds, options.seconds, everybody.values())
    first = times[next(iter(times))]
    for name, seconds in times.items():
        subjects[name] |= {"seconds": spread(seconds), "ratio": ratio(seconds, first), "rounds": seconds}


def row_of(case: Case, subjects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One row of a section."""
    return {"case": to_json(case), "label": case.label, "subjects": subjects}


class Patience:
    """How long to wait for those that compile a copy of the step for every step: longer, the more steps."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.seconds_of: dict[int, float] = {}  # by the number of steps

    def check(self, steps: int) -> None:
        """Refuse what would take too long, by what fewer steps took.

        Raises:
            BenchError: if it is not to be tried.
        """
        for fewer, seconds in self.seconds_of.items():
            if seconds * steps / fewer > self.limit:
                raise BenchError(f"not tried: {fewer} steps took {seconds:.0f} s to compile, and these are {steps}")


def prepare(name: str, remote: Remote, case: Case, exact: Mapping[str, Any], patience: Patience) -> dict[str, Any]:
    """Prepare a subject and check its results.

    Raises:
        BenchError: with the reason why it is not to be timed.
    """
    entry = SUBJECTS[name]
    if entry.unrolled and isinstance(case, LayerCase):
        patience.check(case.T)
        patience.seconds_of[case.T] = patience.limit  # unless it is done earlier
    answer = prepared(remote, case, patience.limit)
    if entry.unrolled and isinstance(case, LayerCase):
        patience.seconds_of[case.T] = answer["seconds"]
    found = {"prepare_seconds": answer["seconds"], "timed": answer["timed"]}
    return found | {"error": checked_error(results_of(remote), exact, tolerance_of(case))} if entry.same else found


def tolerance_of(case: Case) -> float:
    """More for a network that passes on the largest of several pixels: in float32 that may be another one."""
    return 10 * TOLERANCE if isinstance(case, ImageCase) else TOLERANCE


def failures(report: Mapping[str, Any]) -> list[str]:
    """The peers whose results are wrong."""
    return [
        f"{row['label']}, {name}: {subject['note']}"
        for kind in SIZES
        for row in report.get(kind, [])
        for name, subject in row["subjects"].items()
        if subject.get("wrong")
    ]


def workers_section(options: Options, remotes: Remotes) -> list[dict[str, Any]]:
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
        for case in (*options.sizes["layer"], *options.sizes["step"]):
            subjects: dict[str, dict[str, Any]] = {name: {} for name in mine}
            for remote in mine.values():
                prepared(remote, case)
            timed(case, mine, subjects, options, remotes)
            rows.append(row_of(case, subjects))
    return rows


def growth_section(options: Options, remotes: Remotes) -> list[dict[str, Any]]:
    """Of each base point, time and memory along each of its axes, with the fitted exponents."""
    found = []
    with Remote(Setup(OURS, 1)) as remote, alone(remote, remotes.values()):
        for base, axes in options.axes.items():
            along = {axis: growth_along(axis, values, base, options, remote) for axis, values in axes.items()}
            found.append({"about": base.about, "base": base._asdict(), "axes": along})
    return found


def growth_along(axis: str, values: Sequence[int], base: AnyPoint, options: Options, remote: Remote) -> dict[str, Any]:
    """Time and memory at the base point with one of its numbers changed, and the exponents."""
    options.say(f"growth with {axis}: {values[0]} … {values[-1]}")
    points = [base._asdict() | {axis: value} for value in values]
    costs = [remote.ask("growth", point=point, seconds=options.seconds) for point in points]
    measured = {key: [cost[key] for cost in costs] for key in ("seconds", "bytes")}
    exponents = {key: exponent(values, measured[key]) for key in measured}
    return {"values": list(values), **measured, "exponents": exponents}


Section = Callable[[Options, Remotes], Any]
SECTIONS: dict[str, Section] = {
    **{kind: partial(beside_peers, kind) for kind in SIZES},
    "workers": workers_section,
    "growth": growth_section,
}
"""What can be measured, by name."""
