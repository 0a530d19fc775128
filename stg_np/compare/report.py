"""The report of a comparison: a table with the spread over the seeds, and a picture with every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np

from stg_np.compare.plan import Comparison, Entry
from stg_np.compare.trainings import Result, best_factors
from stg_np.machine import describe
from stg_np.runs.description import flattened
from stg_np.tables import document, facts_list, section, table

HEAD = ("", "accuracy", "median", "difference", "loss", "training loss", "parameters", "multiply-adds", "seconds")
READING = """\
Accuracy in per cent and loss in nats (no label smoothing) on {pictures}: mean ± standard deviation over {seeds}.
Difference: to the first line, in points, seed by seed: mean ± standard error of the mean; a difference of less than two
standard errors is none that these trainings show. Training loss: of the last epoch, on varied pictures, smoothed as the
preset says. Multiply-adds: of one picture, forward. Seconds: of one training."""

SEARCHED = """\
Accuracy in per cent on the pictures that seed {seeds} holds out, by the factor of the preset's learning rate. The
highest is chosen, of equal ones that of the lowest loss; the last column is the rate, of the matrices."""


def report(comparison: Comparison, results: Sequence[Result], label: str, command: str) -> str:
    """The results so far as Markdown.

    Args:
        comparison: the list. results: of :func:`~stg_np.compare.trainings.compare`, or the first of them.
        label: of the data set. command: what makes this report again.
    """
    measured_on = {"validation": "pictures that were held out", "test": "the test pictures"}[comparison.on]
    seeds = sorted({result.seed for result in results if not result.trial})
    reading = READING.format(
        pictures=f"{measured_on} of {label}",
        seeds=f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed, so that no spread is known",
    )
    trials = [result for result in results if result.trial]
    results = [result for result in results if not result.trial]
    facts = {"seeds": ", ".join(map(str, seeds)), "pictures to train on": comparison.pictures or "all", **describe()}
    differences = "\n".join(map(differing, comparison.entries))
    everybody = f", with {showing(comparison.set)}" if comparison.set else ""
    return document(
        comparison.about[:1].upper() + comparison.about[1:], command, facts_list(facts), reading,
        table(HEAD, rows(comparison, results)),
        section("Learning rates", searched(comparison, trials)),
        section("What differs", f"From the preset {comparison.preset}{everybody}:", differences),
    )  # fmt: skip


def searched(comparison: Comparison, trials: Sequence[Result]) -> str:
    """What every trial of the search gave, the best in bold; empty without a search."""
    if comparison.search is None or not trials:
        return ""
    best, lines = best_factors(trials), []
    for name in best:
        own = [result for result in trials if result.entry == name]
        cells = []
        for factor in comparison.search.factors:
            tried = [result for result in own if result.factor == factor]
            share = f"{100 * np.mean([result.accuracy for result in tried]):.2f}" if tried else ""
            cells.append(f"**{share}**" if factor == best[name] else share)
        rate = next(result.rate for result in own if result.factor == best[name])
        lines.append((name, *cells, f"{rate:g}"))
    about = SEARCHED.format(seeds=", ".join(map(str, comparison.search.seeds)))
    head = ("", *(f"× {factor:g}" for factor in comparison.search.factors), "chosen")
    return f"{about}\n\n{table(head, lines)}"


def differing(entry: Entry) -> str:
    """What one entry has of its own, as an item of a list."""
    parts = [f"the preset {entry.preset}"] if entry.preset else []
    parts += [showing(entry.set)] if entry.set else []
    parts += [f"in the trained network of “{entry.of}”"] if entry.of else []
    return f"* {entry.name}: {', '.join(parts) or 'nothing'}"


def showing(changes: dict[str, Any]) -> str:
    """Changes as ``model.width = 128, …``."""
    return ", ".join(f"`{name} = {change}`" for name, change in flattened(changes))


def of_entry(results: Sequence[Result], name: str) -> dict[int, Result]:
    """The results of one entry, by seed, without its trials."""
    return {result.seed: result for result in results if result.entry == name and not result.trial}


def rows(comparison: Comparison, results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A line for each entry of which there is a result."""
    first = of_entry(results, comparison.entries[0].name)
    found: list[tuple[str, ...]] = []
    for entry in comparison.entries:
        own = of_entry(results, entry.name)
        if not own:
            continue
        some = list(own.values())
        differences = [100 * (own[seed].accuracy - first[seed].accuracy) for seed in own if seed in first]
        found.append((
            entry.name,
            spread([100 * result.accuracy for result in some], 2),
            f"{np.median([100 * result.accuracy for result in some]):.2f}",
            spread(differences, 2, of_the_mean=True, signed=True) if found else "",
            spread([result.loss for result in some], 3),
            spread([result.training_loss for result in some if result.training_loss is not None], 3),
            f"{some[0].parameters:,}",
            f"{some[0].multiply_adds:,}",
            spread([result.seconds for result in some if result.seconds is not None], 0),
        ))  # fmt: skip
    return found


def spread(values: Sequence[float], digits: int, *, of_the_mean: bool = False, signed: bool = False) -> str:
    """``mean ± deviation`` (of the sample, or of its mean); the mean alone of one value; a dash of none."""
    if not values:
        return "–"
    mean = f"{np.mean(values):{'+' if signed else ''}.{digits}f}".replace("-", "−")
    if len(values) < 2:
        return mean
    deviation = np.std(values, ddof=1) / (np.sqrt(len(values)) if of_the_mean else 1)
    return f"{mean} ± {deviation:.{digits}f}"


def picture(comparison: Comparison, results: Sequence[Result]) -> bytes:
    """The accuracy of every training as a point, and the mean of each entry as a line, as PNG."""
    from matplotlib.figure import Figure

    from stg_np.runs.plots import png

    names = [entry.name for entry in comparison.entries if of_entry(results, entry.name)]
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        values = [100 * result.accuracy for result in of_entry(results, name).values()]
        axes.plot(values, [row] * len(values), "o", color="C0", markersize=5, alpha=0.6)
        axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color="C0", linewidth=2)
        if row == 0:
            axes.axvline(float(np.mean(values)), color="grey", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy (%)")
    figure.suptitle(fill(comparison.about, 80), fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    return png(figure)
