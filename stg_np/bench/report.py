"""The measurements for people: markdown tables and pictures (PNG bytes)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stg_np.bench.growth import FITTED
from stg_np.bench.profile import PHASES
from stg_np.bench.subjects import OURS, PEERS
from stg_np.runs.plots import png

HOW = (
    "Float32; forward and backward, with the gradients of the input (layer) and of all parameters. Everybody runs in a "
    "process of its own on the same number of threads and takes turns (A B C A B C …), while the other processes are "
    "stopped; a time is the median over the turns, in brackets the quartiles. A ratio is their median over ours, in "
    "brackets the range over the rounds: above 1, ours is quicker."
)
FLOOR = (
    "The floor is the three matrix products at the rate measured at their shapes, plus the bytes that must be moved at "
    "the rate of a copy of as many; nothing elementwise. tanh is what the 4·B·T·H of them take in cache, beside it."
)


def speed_markdown(report: Mapping[str, Any], command: str) -> str:
    """All sections but growth."""
    lines = ["# Speed", "", f"`{command}`", "", *machine_lines(report["machine"]), "", HOW]
    for section, title in (("layer", "One layer, (B, T, D, H)"), ("step", "A training step without the optimizer")):
        if section in report:
            lines += ["", f"## {title}", "", *beside_peers(report[section])]
    if "layer" in report:
        lines += ["", "## The floor", "", FLOOR, "", *floor_table(report["layer"])]
        lines += ["", "## Where the time goes", "", *profile_table(report["layer"])]
    if report.get("workers"):
        lines += ["", "## Workers", "", *beside_peers(report["workers"])]
    if "cuda" in report:
        lines += ["", "## On the GPU", "", *cuda_table(report["cuda"])]
    return "\n".join(lines) + "\n"


def machine_lines(machine: Mapping[str, Any]) -> list[str]:
    """The facts as a list."""
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in machine.items()}
    return [f"* {name}: {value}" for name, value in shown.items() if value != ""]


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """A markdown table; the first row is its head."""
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|" + " --- |" * (head.count("|") - 1), *rest]


def about(name: str) -> str:
    """What a subject is called in tables."""
    return PEERS[name].about if name in PEERS else name


def ms(seconds: float) -> str:
    """Milliseconds to three digits."""
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:,.0f}"


def beside_peers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per case and subject."""
    cells = [("", "who", "ms", "ratio to the first", "largest difference, setting up")]
    for row in rows:
        for name, subject in row["subjects"].items():
            if "note" in subject:
                cells.append((row["label"], about(name), "–", "–", subject["note"].replace("|", "/")))
                continue
            seconds, ratio = subject["seconds"], subject["ratio"]
            notes = [f"{subject['difference']:.0e}"] if "difference" in subject else []
            notes += [f"{subject['prepare_seconds']:.0f} s"] if subject.get("prepare_seconds", 0) >= 5 else []
            cells.append((
                row["label"], about(name),
                f"**{ms(seconds['median'])}** ({ms(seconds['low'])}–{ms(seconds['high'])})",
                f"**{ratio['median']:.2f}** ({ratio['min']:.2f}–{ratio['max']:.2f})",
                ", ".join(notes),
            ))  # fmt: skip
    return table(cells)


def floor_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per layer."""
    cells = [("", "GFLOP/s x W, da Wᵀ, xᵀ da", "products ms", "GB/s", "memory ms", "floor ms", "tanh ms", "ours ms",
              "ours / floor", "ours / (floor + tanh)")]  # fmt: skip
    for row in rows:
        floor, ours = row["floor"], row["subjects"][OURS]["seconds"]["median"]
        cells.append((
            row["label"], ", ".join(f"{rate:.0f}" for rate in floor["gflops"].values()),
            ms(sum(floor["product_seconds"].values())), f"{floor['gigabytes_per_second']:.0f}",
            ms(floor["memory_seconds"]), ms(floor["seconds"]), ms(floor["tanh_seconds"]), ms(ours),
            f"**{ours / floor['seconds']:.2f}**", f"{ours / (floor['seconds'] + floor['tanh_seconds']):.2f}",
        ))  # fmt: skip
    return table(cells)


def profile_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The share of each phase per layer, and the dearest lines."""
    cells: list[Sequence[str]] = [("", *PHASES, "page faults a run")]
    lines = []
    for row in rows:
        profile = row["profile"]
        shares = [f"{100 * profile['phases'][phase]:.0f} %" for phase in PHASES]
        cells.append((row["label"], *shares, f"{profile['page_faults']:,.0f}"))
        dearest = [f"{100 * line['share']:.0f} % `{line['line']}`" for line in profile["lines"][:5]]
        lines.append(f"* {row['label']}: " + "; ".join(dearest))
    return [*table(cells), "", "The dearest lines:", "", *lines]


def cuda_table(cuda: Mapping[str, Any]) -> list[str]:
    """One line per layer, with parts of the ceilings."""
    top = cuda["ceilings"]
    cells = [("", "ms", "GB/s", "of a copy", "GFLOP/s", "of a product")]
    for row in cuda["layers"]:
        cells.append((
            row["label"], ms(row["seconds"]),
            f"{row['gigabytes_per_second']:.0f}", f"{row['gigabytes_per_second'] / top['gigabytes_per_second']:.0%}",
            f"{row['gflops']:.0f}", f"{row['gflops'] / top['gflops']:.0%}",
        ))  # fmt: skip
    ceilings = f"copy {top['gigabytes_per_second']:.0f} GB/s, float32 product {top['gflops']:.0f} GFLOP/s"
    return [f"{cuda['device']}, CuPy {cuda['cupy']}; ceilings: {ceilings}.", "", *table(cells)]


def growth_markdown(report: Mapping[str, Any], command: str) -> str:
    """Time and memory along each axis."""
    growth = report["growth"]
    base = ", ".join(f"{name} = {value}" for name, value in growth["base"].items())
    lines = [
        "# How the cost of a training step grows", "", f"`{command}`", "", *machine_lines(report["machine"]), "",
        f"Forward, loss and backward of an STG in one direction on one worker, float32; {base}, one of them varied. "
        f"Memory is the most that is held at once. Exponents are fitted to the last {FITTED} points on log-log axes.",
    ]  # fmt: skip
    for axis, found in growth["axes"].items():
        powers = found["exponents"]
        lines += ["", f"## {axis}: time ∝ {axis}^{powers['seconds']:.2f}, memory ∝ {axis}^{powers['bytes']:.2f}", ""]
        points = zip(found["values"], found["seconds"], found["bytes"])
        lines += table([(axis, "ms", "MB"), *((str(n), ms(s), f"{b / 1e6:.2f}") for n, s, b in points)])
    return "\n".join(lines) + "\n"


def speed_png(report: Mapping[str, Any]) -> bytes:
    """A panel of bars per layer and step: milliseconds, with quartiles; for layers the floor as a line."""
    from matplotlib.figure import Figure

    rows = [*report.get("layer", []), *report.get("step", []), *report.get("workers", [])]
    columns = min(2, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(6.5 * columns, 2.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(rows) :]:
        axes.set_axis_off()
    for axes, row in zip(panels, rows):
        timed = {about(name): found["seconds"] for name, found in row["subjects"].items() if "seconds" in found}
        middle = [1e3 * times["median"] for times in timed.values()]
        spread = [[1e3 * abs(times["median"] - times[side]) for times in timed.values()] for side in ("low", "high")]
        colours = ["tab:orange", *["tab:blue"] * (len(timed) - 1)]
        axes.barh(list(timed), middle, xerr=spread, color=colours, ecolor="black")
        if "floor" in row:
            axes.axvline(1e3 * row["floor"]["seconds"], color="black", linestyle=":", label="floor")
            axes.legend()
        axes.invert_yaxis()
        axes.set(title=row["label"], xlabel="ms, forward + backward")
    return png(figure)


def growth_png(growth: Mapping[str, Any]) -> bytes:
    """Time and memory against each axis on log-log axes, with the fitted power."""
    from matplotlib.figure import Figure

    axes_found = growth["axes"]
    figure = Figure(figsize=(3.4 * len(axes_found), 6), layout="constrained")
    panels = figure.subplots(2, len(axes_found), squeeze=False)
    for column, (axis, found) in zip(panels.T, axes_found.items()):
        for panel, key, scale, unit in zip(column, ("seconds", "bytes"), (1e3, 1e-6), ("ms", "MB")):
            values, costs, power = found["values"], [scale * cost for cost in found[key]], found["exponents"][key]
            panel.loglog(values, costs, "o", color="tab:orange")
            last = [math.log(cost) - power * math.log(value) for value, cost in zip(values, costs)][-FITTED:]
            fitted = [math.exp(sum(last) / len(last)) * value**power for value in values]
            panel.loglog(values, fitted, ":", color="black", label=f"∝ {axis}^{power:.2f}")
            panel.set(xlabel=axis, ylabel=f"{unit} a step")
            panel.grid(alpha=0.3)
            panel.legend()
    return png(figure)
