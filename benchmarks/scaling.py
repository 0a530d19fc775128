"""What more processes and machines are worth: measured on one machine, and predicted for several.

    python -m benchmarks.scaling > benchmarks/results/scaling.md
    python -m benchmarks.scaling --quick

Let nothing else run meanwhile. It starts itself again under mpiexec: ``exchange`` adds vectors of several sizes over
the ranks, ``step`` makes training steps of a preset on random pictures. Both are done in turns, and medians are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from stg_np import machine
from stg_np.data.augment import Scaling
from stg_np.mpi import Mpi, Total, on_every_rank
from stg_np.presets import PRESETS
from stg_np.runs.settings import model_of, of_preset, training_of
from stg_np.tables import document, facts_list, milliseconds, section, table
from stg_np.train import Examples, Run, initial_state, train_step

PRESET_NAMES = ("cifar10-patches", "cifar10-fast")
SIZES = [1 << power for power in range(14, 26)]
"""Bytes of one result."""
ARRANGEMENTS = ((1, 1), (1, 2), (2, 1), (4, 1))
"""Ranks and workers of each; the last one has more of them than the machine has cores."""


class Network(NamedTuple):
    """Seconds that a message takes beside its bytes, and bytes a second each way."""

    name: str
    latency: float
    bandwidth: float


NETWORKS = (Network("1 Gbit/s", 50e-6, 117e6), Network("10 Gbit/s", 20e-6, 1.17e9), Network("100 Gbit/s", 3e-6, 11.7e9))
"""Ordinary ones: Ethernet with TCP twice, and a fabric that bypasses the system."""
MACHINES = (1, 2, 4, 8, 16, 32, 64)
CORES = 2


# --- What each rank does ------------------------------------------------------------------------------------------


def exchange(sizes: Sequence[int], repeats: int) -> dict[str, Any]:
    """Medians of the seconds that a sum over the ranks takes, by the bytes of a result."""
    found = {}
    with Mpi(1) as engine:
        for size in sizes:
            vector, seconds = np.ones(size // 4, np.float32), []
            for _ in range(repeats):
                engine.world.gathered(None)  # all begin together
                began = perf_counter()
                engine.world.carry(Total([vector]), 0)
                seconds.append(max(engine.world.gathered(perf_counter() - began)))
            found[str(size)] = median(seconds)
    return found


class Timed(Mpi):
    """An engine that notes where the time of a step goes."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.spent: dict[str, float] = defaultdict(float)
        for name in ("carry", "gathered"):
            setattr(self.world, name, self.noting("exchange", getattr(self.world, name)))

    def noting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its seconds noted."""

        def noted(*arguments: Any) -> Any:
            began = perf_counter()
            result = function(*arguments)
            self.spent[name] += perf_counter() - began
            return result

        return noted

    def map(self, function: Any, items: Any, /) -> Any:
        return self.noting("map", super().map)(function, items)

    def sum(self, function: Any, items: Any, /) -> Any:
        before = self.spent["map"]
        result = self.noting("sum", super().sum)(function, items)
        self.spent["map"] = before  # of the update alone
        return result


def run_of(preset: str) -> Run:
    """A preset on random pictures, one batch of them."""
    table = of_preset(PRESETS[preset])
    config = training_of(table)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (config.batch_size, 32, 32, 3), dtype=np.uint8)
    examples = Examples(images, rng.integers(0, 10, config.batch_size))
    scaling = Scaling(np.full(3, 0.5), np.full(3, 0.25), 255)
    return Run(model_of(table, (32, 32, 3), 10), config, examples, None, scaling)


def step(preset: str, workers: int, steps: int) -> dict[str, Any]:
    """Medians of the seconds of a step and of its parts; of the exchange those of the rank that waited least."""
    run = run_of(preset)
    now, batch, rows = initial_state(run), np.arange(run.config.batch_size), []
    with Timed(workers) as engine:
        for _ in range(steps + 1):  # the first one makes the workspaces
            engine.spent.clear()
            began = perf_counter()
            now = train_step(run, now, batch, engine)
            rows.append({"step": perf_counter() - began, **engine.spent})
        rows = [{name: row.get(name, 0.0) for name in ("step", "sum", "map", "exchange")} for row in rows[1:]]
        of_ranks = engine.world.gathered(rows)
    waited_least = [min(row["exchange"] for row in ranks) for ranks in zip(*of_ranks)]
    matrices = sum(now.params.select(role).flat.nbytes for role in ("matrix", "kernel"))
    return {
        **{name: median(row[name] for row in rows) for name in rows[0]},
        "exchange": median(waited_least),
        "groups": ceil(run.config.batch_size / run.config.group_size),
        "group_size": run.config.group_size,
        "result bytes": now.params.flat.nbytes + sum(array.nbytes for array in now.state.values()),
        "matrix bytes": matrices,
        "matrices": sum(entry.role in ("matrix", "kernel") for entry in now.params.layout.entries),
    }


def started(ranks: int, *arguments: object) -> Any:
    """What the first of so many ranks has found."""
    beside = Path(sys.executable).parent / "mpiexec"
    launcher = [str(beside) if beside.exists() else "mpiexec", "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, "-m", "benchmarks.scaling", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    return json.loads(done.stdout)


# --- The model ----------------------------------------------------------------------------------------------------


def slots(size: int, ranks: int) -> tuple[int, int]:
    """How many messages follow each other in :meth:`World.carry`, and how long one is.

    All pieces pass a rank twice, as a part and as a whole; the first of them has to go all the way round.
    """
    pieces = Total([np.zeros(size // 4, np.float32)]).pieces(ranks)
    return max(len(pieces), ranks - 1) + len(pieces) + ranks - 2, pieces[0].stop


def of_carry(size: int, ranks: int, latency: float, bandwidth: float) -> float:
    """Seconds of a sum of results of so many bytes."""
    if ranks == 1:
        return 0.0
    count, length = slots(size, ranks)
    return count * (latency + min(length, size) / bandwidth)


def fitted(seconds: dict[int, float], ranks: int) -> tuple[float, float]:
    """Latency and bandwidth with which :func:`of_carry` is nearest to what was measured, in relative error."""
    rows, wanted = [], []
    for size, measured in seconds.items():
        count, length = slots(size, ranks)
        rows.append([count / measured, count * min(length, size) / measured])
        wanted.append(1.0)
    latency, per_byte = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return max(float(latency), 0.0), 1 / max(float(per_byte), 1e-12)


class Cost(NamedTuple):
    """What a step of a preset is made of: seconds of two groups on two cores, of Muon, of the rest; and bytes."""

    pair: float
    muon: float
    rest: float
    groups: int
    result_bytes: int
    matrix_bytes: int
    matrices: int

    def seconds(self, machines: int, network: Network, software: float, groups: int) -> tuple[float, float]:
        """Of a step on so many machines of two cores, and of the exchange in it."""
        compute = ceil(ceil(groups / machines) / CORES) * self.pair
        muon = self.muon * ceil(self.matrices / machines) / self.matrices
        latency = network.latency + software
        exchange = of_carry(self.result_bytes, machines, latency, network.bandwidth)
        if machines > 1:  # every machine gets the matrices of the others, one after the other
            exchange += (machines - 1) * latency + self.matrix_bytes / network.bandwidth
        return compute + muon + self.rest + exchange, exchange


def cost_of(parts: dict[str, Any]) -> Cost:
    """From a step of one rank with two workers."""
    return Cost(
        parts["sum"] / (parts["groups"] / CORES), parts["map"], parts["step"] - parts["sum"] - parts["map"],
        parts["groups"], parts["result bytes"], parts["matrix bytes"], parts["matrices"],
    )  # fmt: skip


def predictions(cost: Cost, software: float) -> Iterator[tuple[object, ...]]:
    """A row for each network and number of machines, at the batch of the preset."""
    for network in NETWORKS:
        alone, _ = cost.seconds(1, network, software, cost.groups)
        for machines in MACHINES:
            seconds, exchange = cost.seconds(machines, network, software, cost.groups)
            computing = seconds - exchange
            overlapped = max(computing, exchange + cost.rest + cost.muon / machines)
            yield (
                network.name, machines, milliseconds(seconds), f"{exchange / seconds:.0%}", f"{alone / seconds:.2f}",
                f"{alone / seconds / machines:.0%}", f"{alone / overlapped:.2f}",
            )  # fmt: skip


def batch_for(cost: Cost, machines: int, network: Network, software: float, share: float = 0.8) -> str:
    """The smallest batch, in groups, with which so many machines do so large a share of so many times the work."""
    for per_core in range(1, 1001):
        groups = per_core * CORES * machines
        alone, _ = cost.seconds(1, network, software, groups)
        if alone / machines / cost.seconds(machines, network, software, groups)[0] >= share:
            return f"{groups}"
    return "none"


# --- The document -------------------------------------------------------------------------------------------------


def report(quick: bool) -> str:
    """All of it."""
    rounds, repeats, steps = (1, 3, 1) if quick else (3, 50, 10)
    presets = ("cifar10-patches",) if quick else PRESET_NAMES
    sizes = SIZES[::4] if quick else SIZES
    sums = {
        ranks: {int(size): value for size, value in started(ranks, "exchange", repeats, *sizes).items()}
        for ranks in (2, 4)
    }
    software, bandwidth = fitted(sums[2], 2)
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = defaultdict(list)
    for _ in range(rounds):
        for preset in presets:
            for ranks, workers in ARRANGEMENTS:
                found[preset, ranks, workers].append(started(ranks, "step", steps, preset, workers))
    middle = {
        key: {name: median(one[name] for one in some) for name in some[0]} | {"all": [one["step"] for one in some]}
        for key, some in found.items()
    }
    fit_rows = [
        (f"{size / 1e6:.3g}", f"{2 * size / 1e6:.3g}", milliseconds(sums[2][size]),
         milliseconds(of_carry(size, 2, software, bandwidth)), milliseconds(sums[4][size]))
        for size in sizes
    ]  # fmt: skip
    step_rows = [
        (preset, ranks, workers, milliseconds(parts["step"]),
         f"{milliseconds(min(parts['all']))}–{milliseconds(max(parts['all']))}",
         f"{parts['step'] / middle[preset, 1, 2]['step']:.2f}", f"{parts['exchange'] / parts['step']:.1%}")
        for (preset, ranks, workers), parts in middle.items()
    ]  # fmt: skip
    fit = (
        f"A piece takes {software * 1e6:.0f} µs of software and its bytes at {bandwidth / 1e9:.2f} GB/s (least squares "
        "of the relative errors, two ranks). On a network the software's share stays, and latency and bandwidth are "
        "the network's."
    )
    blocks = [
        section("Sums over the ranks of one machine", fit, table(
            ["MB of a result", "MB that a rank receives", "ms, 2 ranks", "ms, model", "ms, 4 ranks"], fit_rows)),
        section("Training steps", table(
            ["preset", "ranks", "workers of each", "ms a step", "range", "of 1 × 2", "exchange"], step_rows)),
    ]  # fmt: skip
    for preset in presets:
        parts = middle[preset, 1, 2]
        cost = cost_of(parts)
        about = (
            f"A step is {cost.groups} groups of {parts['group_size']:.0f} pictures ({milliseconds(cost.pair)} ms for "
            f"two of them on two cores), Muon {milliseconds(cost.muon)} ms, the rest, which every machine does for "
            f"itself, {milliseconds(cost.rest)} ms. A result has {cost.result_bytes / 1e6:.2f} MB, Muon's matrices "
            f"{cost.matrix_bytes / 1e6:.2f} MB."
        )
        batches = [
            (network.name, *(batch_for(cost, machines, network, software) for machines in (2, 8, 64)))
            for network in NETWORKS
        ]
        head = ["network", "machines", "ms a step", "exchange", "times as fast", "efficiency", "overlapped, at best"]
        what = f"Groups in a batch (of {parts['group_size']:.0f} pictures each) from which on the efficiency is 80 %:"
        blocks.append(
            section(
                f"{preset} on machines of two cores, predicted",
                about,
                table(head, predictions(cost, software)),
                what,
                table(["network", "2 machines", "8 machines", "64 machines"], batches),
            )
        )
    command = "python -m benchmarks.scaling" + (" --quick" if quick else "")
    return document(
        "What more processes and machines are worth", command, facts_list(machine.describe()), ABOUT, *blocks
    )


ABOUT = """*Measured*: sums and steps on this machine, whose ranks share its memory; with four ranks there are more of
them than cores. *Predicted*: everything on several machines; no network was measured. The running total goes round the
ring of ranks twice, in pieces: with `p` pieces of `s` bytes and `P` ranks a sum takes
`(max(p, P − 1) + p + P − 2) (latency + s / bandwidth)`; Muon's matrices, an all-gather,
`(P − 1) latency + bytes / bandwidth`. A step is the groups of the busiest machine, Muon's share, the rest, and the
exchange. "Exchange" in the steps that were measured is the time of the rank that waited least. "Overlapped, at best":
if all of the exchange that could hide behind the backward pass did, as buckets of gradients would have it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="see whether it runs: the figures mean nothing")
    parser.add_argument("part", nargs="*", help="what a rank does (this program starts itself)")
    args = parser.parse_args()
    if args.part:
        what, count, *others = args.part
        found = exchange([int(text) for text in others], int(count)) if what == "exchange" else step(
            others[0], int(others[1]), int(count)
        )  # fmt: skip
        print(json.dumps(found))
    else:
        print(report(args.quick), end="")
    return 0


if __name__ == "__main__":
    sys.exit(on_every_rank(main) if len(sys.argv) > 2 else main())
