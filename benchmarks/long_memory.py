"""Long memory on trial: trainings over growing distances, the gradient's way back, time scales before and after.

python -m benchmarks.long_memory list                     the chains, by name
python -m benchmarks.long_memory train DIR [NAME ...]     train what DIR does not hold yet (a stage a folder; resumed)
python -m benchmarks.long_memory report DIR               results/long-memory.md and its pictures, from what DIR holds

A chain is trained on short sequences first and goes on, with the same parameters, on longer ones. A stage is a run like
any other: ``stg-np train --preset … --data … --init-from …`` does the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from stg_np.backend import Array
from stg_np.data.sequences import adding_problem, sequences
from stg_np.engine import Threads
from stg_np.layers.gru import GRU_CELL, init_gru
from stg_np.layers.lstm import LSTM_CELL, init_lstm
from stg_np.layers.rnn import RNN_CELL, init_rnn
from stg_np.layers.spec import Cell
from stg_np.layers.walk import empty_memory
from stg_np.machine import describe
from stg_np.models.stg import STG
from stg_np.optim import AdamW
from stg_np.runs import checkpoint
from stg_np.runs.experiment import make_run, resume_run
from stg_np.runs.folder import RunFolder
from stg_np.runs.plots import png
from stg_np.stm import STMCache, init_stm, stm_backward, stm_forward
from stg_np.stm_recurrent import stm_recurrent_backward, stm_recurrent_forward
from stg_np.tables import document, facts_list, section, table

RESULTS = Path(__file__).parent / "results"
PAGE = RESULTS / "long-memory.md"
NOTES = Path(__file__).with_name("long_memory_notes.md")
"""What a person has to say about it: the beginning of the page."""
COST = "cost.json"
"""What a stage has cost, in its folder."""


@dataclass(frozen=True)
class Stage:
    """One run of a chain: a data set, how long, in which batches, at which rate."""

    data: str
    epochs: int
    batch: int
    rate: float


@dataclass(frozen=True)
class Chain:
    """Runs of which each begins with the parameters of the one before."""

    name: str
    preset: str
    stages: tuple[Stage, ...]
    model: dict[str, Any] = field(default_factory=dict)


ADDING = (
    Stage("adding-200", 26, 32, 0.01), Stage("adding-600", 13, 32, 0.004), Stage("adding-2000", 5, 16, 0.003),
    Stage("adding-5000", 4, 16, 0.002),
)  # fmt: skip
COPY = (
    Stage("copy-10", 40, 32, 0.005), Stage("copy-30", 5, 16, 0.003), Stage("copy-100", 5, 16, 0.003),
    Stage("copy-300", 4, 16, 0.002), Stage("copy-1000", 3, 10, 0.002),
)  # fmt: skip
ONE_WAY = {"layers": 2, "bidirectional": False, "pool": "last"}
EVERY_STEP = {"layers": 3, "bidirectional": False, "pool": "none"}

CHAINS = [
    Chain("adding: STG", "adding-5000", ADDING, {"length": 5000.0}),
    Chain("adding: STG, recurrent", "adding-5000", ADDING[:3], {"recurrent": True, "width": 27, "length": 5000.0}),
    Chain("adding: LSTM", "adding-5000", ADDING[:3], {"kind": "lstm", "width": 19, **ONE_WAY}),
    Chain(
        "adding: LSTM, chrono", "adding-5000", ADDING[:3], {"kind": "lstm", "width": 19, "length": 5000.0, **ONE_WAY}
    ),
    Chain("adding: GRU", "adding-5000", ADDING[:3], {"kind": "gru", "width": 22, **ONE_WAY}),
    Chain("copy: STG", "copy-1000", COPY, {"length": 1000.0}),
    Chain("copy: LSTM", "copy-1000", COPY[:3], {"kind": "lstm", "width": 91, **EVERY_STEP}),
    Chain("copy: GRU", "copy-1000", COPY[:3], {"kind": "gru", "width": 105, **EVERY_STEP}),
]
"""Widths are such that the parameters of a task's models are about as many."""


def folder_of(root: Path, chain: Chain, seed: int, stage: Stage) -> Path:
    name = chain.name.replace(": ", "-").replace(", ", "-").lower()
    return root / name / f"seed-{seed}" / stage.data


def tested(folder: Path) -> dict[str, Any] | None:
    """The record of a stage's test; None if it has not come so far."""
    records = RunFolder(folder).read_metrics() if (folder / "metrics.jsonl").exists() else []
    return next((record for record in records if record["kind"] == "test"), None)


def train(root: Path, chain: Chain, seed: int, workers: int | None) -> None:
    """The stages of a chain, but for those that are done."""
    before = None
    for stage in chain.stages:
        folder = folder_of(root, chain, seed, stage)
        if tested(folder) is None:
            with Threads(workers) as engine:
                train_stage(folder, chain, stage, seed, before, engine)
        before = folder


def train_stage(folder: Path, chain: Chain, stage: Stage, seed: int, before: Path | None, engine: Threads) -> None:
    """One run, from the start or from where it was stopped."""
    training = {"group_size": stage.batch // 2, "optimizer": {"learning_rate": stage.rate}}
    if (folder / "checkpoint.npz").exists():
        made = resume_run(folder)
    else:
        changes = {"model": chain.model, "training": training}
        made = make_run(
            chain.preset, data=stage.data, changes=changes, init_from=before, out=folder,
            epochs=stage.epochs, batch_size=stage.batch, seed=seed,
        )  # fmt: skip
    with made as experiment:
        began = process_time()
        for record in experiment.train(engine):
            if record.kind == "epoch":
                print(f"{chain.name}, {stage.data}: epoch {record.epoch}, loss {record.loss:.3g}, "
                      f"right {record.accuracy:.3f}", flush=True)  # fmt: skip
        cost = {"seconds": process_time() - began, "steps": stage.epochs * experiment.run.steps_per_epoch}
        (folder / COST).write_text(json.dumps(cost), encoding="utf-8")
        chosen = experiment.chosen()
        scores = experiment.test(engine)
        for failed in experiment.write_results(chosen, scores):
            print(failed)
        print(f"{chain.name}, {stage.data}: tested, loss {scores.loss:.3g}, right {scores.accuracy:.3f}", flush=True)


# --- the gradient's way back ------------------------------------------------------------------------------------------

WIDTH, DISTANCE = 64, 1000
STM_CELL = Cell(stm_forward, stm_backward, empty_memory)
RECURRENT_STM_CELL = Cell(stm_recurrent_forward, stm_recurrent_backward, empty_memory)


def untrained_cells(rng: np.random.Generator) -> dict[str, tuple[Cell, Any]]:
    """A cell and its drawn parameters, by name; all read two numbers a step and have 64 memory cells."""
    return {
        "STM": (STM_CELL, init_stm(rng, 2, WIDTH, length=DISTANCE)),
        "STM, recurrent": (RECURRENT_STM_CELL, init_stm(rng, 2, WIDTH, length=DISTANCE, recurrent=True)),
        "LSTM, forget bias 1": (LSTM_CELL, init_lstm(rng, 2, WIDTH)),
        "LSTM, chrono biases": (LSTM_CELL, init_lstm(rng, 2, WIDTH, length=DISTANCE)),
        "GRU": (GRU_CELL, init_gru(rng, 2, WIDTH)),
        "GRU, chrono biases": (GRU_CELL, init_gru(rng, 2, WIDTH, length=DISTANCE)),
        "plain RNN": (RNN_CELL, init_rnn(rng, 2, WIDTH)),
    }


def gradient_by_distance(cell: Cell, params: Any, x: Array, rng: np.random.Generator) -> Array:
    """How strongly what stands d steps before the end moves the last output: ‖dx_{T−d}‖ / ‖dx_T‖, (T,), float64."""
    start = cell.empty(x, WIDTH)
    (y, end), cache = cell.forward(x, start, params)
    dy = np.zeros_like(y)
    dy[:, -1] = rng.standard_normal(dy[:, -1].shape)
    dend = type(end)(*map(np.zeros_like, end)) if isinstance(end, tuple) else np.zeros_like(end)
    dx = cell.backward(dy, dend, cache, params)[0]
    norms = np.sqrt((dx**2).sum((0, 2)))[::-1]
    result: Array = norms / norms[0]
    return result


def gradients(seeds: int = 2) -> dict[str, Array]:
    """The geometric mean over the seeds of :func:`gradient_by_distance`, by cell."""
    found: dict[str, list[Array]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x = adding_problem(rng, 4, DISTANCE + 1, np.float64)[0]
        for name, (cell, params) in untrained_cells(rng).items():
            found.setdefault(name, []).append(gradient_by_distance(cell, params, x, rng))
    return {name: np.exp(np.log(np.maximum(each, 1e-300)).mean(0)) for name, each in found.items()}


def kept_gradients(root: Path) -> dict[str, Array]:
    """:func:`gradients`, computed once and kept with the runs."""
    path = root / "gradients.json"
    if not path.exists():
        path.write_text(json.dumps({name: norms.tolist() for name, norms in gradients().items()}), encoding="utf-8")
    return {name: np.array(norms) for name, norms in json.loads(path.read_text(encoding="utf-8")).items()}


def gradient_picture(found: dict[str, Array]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, norms in found.items():
        axes.semilogy(np.maximum(norms, 1e-30), label=name, linewidth=2.6 if name == "STM" else 1.2)
    axes.set(
        xlabel="distance (steps)", ylabel="‖gradient‖, relative to distance 0", ylim=(1e-16, 10), xlim=(0, DISTANCE)
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center right")
    axes.set_title("What the last output still feels of an input so many steps before, untrained")
    return png(figure)


# --- time scales ------------------------------------------------------------------------------------------------------


def scales(folder: Path) -> list[tuple[Array, Array]] | None:
    """Time scales of each layer of a trained STG, as drawn at the start of its chain and as learned, in order (H,)."""
    if tested(folder) is None:
        return None
    about, now = checkpoint.load(folder / "checkpoint.npz")
    model, source = about.model, sequences(about.data.name)
    assert isinstance(model, STG)
    assert source is not None
    drawn, state = model.init(np.random.default_rng(about.training.seed))
    x = source.task.draw(np.random.default_rng(0), 4)[0]
    before, after = (
        [np.sort(1 / walks_of(layer).gates.u.mean((0, 1))) for layer in model.forward(x, params, state)[1].layers]
        for params in (drawn, now.params)
    )
    return list(zip(before, after))


def walks_of(layer: Any) -> STMCache:
    """The cache of the one walk in that of a layer."""
    (cache,) = layer.walks
    assert isinstance(cache, STMCache)
    return cache


def scales_picture(found: dict[str, list[tuple[Array, Array]]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, (name, layers) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items()):
        for layer, (before, after) in enumerate(layers):
            share = np.linspace(0, 1, len(before))
            axes.semilogy(share, before, color=f"C{layer}", linestyle=":", label=f"layer {layer + 1}, as drawn")
            axes.semilogy(share, after, color=f"C{layer}", label=f"layer {layer + 1}, learned")
        axes.set(title=name, xlabel="share of the memory cells", ylabel="τ = 1 / mean u (steps)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return png(figure)


# --- the page ---------------------------------------------------------------------------------------------------------

READING = """\
Strictly from left to right: one direction, and the head sees the last step (copying: each step for itself). Every batch
is drawn afresh, so that no sequence is seen twice; the test is 1,000 other sequences. Each stage begins with the
parameters of the one above it. Rates and budgets were tried on the input-only STG with one seed and are the same for
all: the others were not tuned. CPU seconds: of this process, on a machine that was shared."""


def rows(root: Path, task: str) -> Iterator[tuple[str, ...]]:
    """A line for each stage that has been tested."""
    for chain in (chain for chain in CHAINS if chain.name.startswith(task)):
        for stage in chain.stages:
            for folder in sorted(root.glob(str(folder_of(Path(), chain, 0, stage)).replace("seed-0", "seed-*"))):
                record = tested(folder)
                if record is None:
                    continue
                source, (about, now) = sequences(stage.data), checkpoint.load(folder / "checkpoint.npz")
                assert source is not None
                cost = json.loads((folder / COST).read_text(encoding="utf-8"))
                yield (
                    chain.name.removeprefix(f"{task}: "), f"{now.params.flat.size:,}", stage.data,
                    str(about.training.seed), f"{cost['steps']:,}", f"{source.task.scale * record['loss']:.3g}",
                    f"{source.task.untrained:.3g}", f"{100 * record['accuracy']:.1f}", f"{cost['seconds']:.0f}",
                )  # fmt: skip


def report(root: Path) -> None:
    """The page and its pictures."""
    head = ("model", "parameters", "data", "seed", "steps", "{}", "without a memory", "{}", "CPU seconds")
    columns = {"adding": ("mean squared error", "within 0.04 (%)"), "copy": ("cross-entropy", "symbols right (%)")}
    sections = []
    for task, (loss, right) in columns.items():
        names = [loss if k == 5 else right if k == 7 else name for k, name in enumerate(head)]
        title = {"adding": "The adding problem", "copy": "Copy memory"}[task]
        sections.append(section(title, table(names, rows(root, task))))
    found = kept_gradients(root)
    (RESULTS / "long-memory-gradient.png").write_bytes(gradient_picture(found))
    at = (1, 10, 100, 300, DISTANCE)
    lines = [(name, *(f"{norms[d]:.1e}" for d in at)) for name, norms in found.items()]
    gradient = section(
        "The gradient's way back",
        f"One layer of {WIDTH} cells, untrained, reading the adding problem: the norm of the gradient of the last "
        "output with respect to the input so many steps before it, relative to the last input; geometric mean of two "
        "draws.",
        "![gradient against distance](long-memory-gradient.png)",
        table(("cell", *(f"{d:,} steps" for d in at)), lines),
    )
    learned = {
        f"{chain.name}, {stage.data}": layers  # of the last stage that has been tested
        for chain in CHAINS
        for stage in [stage for stage in chain.stages if tested(folder_of(root, chain, 0, stage))][-1:]
        if chain.name in ("adding: STG", "copy: STG")
        and (layers := scales(folder_of(root, chain, 0, stage))) is not None
    }
    memory = ""
    if learned:
        (RESULTS / "long-memory-scales.png").write_bytes(scales_picture(learned))
        lines = [
            (name, str(layer + 1), *(f"{np.quantile(part, q):.3g}" for part in both for q in (0, 0.5, 1)))
            for name, layers in learned.items()
            for layer, both in enumerate(layers)
        ]
        of = (
            "chain",
            "layer",
            *(f"{when}, {q}" for when in ("drawn", "learned") for q in ("least", "median", "most")),
        )
        memory = section(
            "Time scales before and after",
            "τ = 1 / u, with the mean of u over the steps of four sequences: how long a cell keeps what it holds.",
            "![time scales](long-memory-scales.png)",
            table(of, lines),
        )
    notes = NOTES.read_text(encoding="utf-8").strip()
    optimizer = {"optimizer": f"AdamW, β = {AdamW().beta1}, {AdamW().beta2}; gradient clipped at the norm 1"}
    text = document(
        "Long memory", "python -m benchmarks.long_memory report DIR", notes, facts_list({**optimizer, **describe()}),
        READING, *sections, gradient, memory,
    )  # fmt: skip
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("list", "train", "report"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    if args.action == "list" or args.folder is None:
        print("\n".join(f"{chain.name}: {' → '.join(stage.data for stage in chain.stages)}" for chain in CHAINS))
    elif args.action == "report":
        report(args.folder)
    else:
        for chain in CHAINS:
            if not args.names or chain.name in args.names:
                train(args.folder, chain, args.seed, args.workers)


if __name__ == "__main__":
    main()
