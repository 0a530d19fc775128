"""The measurements for people: result files in Markdown, and pictures (PNG bytes)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stg_np.bench.growth import FITTED
from stg_np.bench.subjects import OURS, SUBJECTS
from stg_np.runs.plots import png
from stg_np.tables import document, facts_list, milliseconds, section, table, with_range

HOW = (
    "Float32, forward and backward. Everybody runs in a process of its own on the same number of threads and takes "
    "turns (A B C A B C …), while the other processes are stopped. A time is the median over the turns, in brackets "
    "the quartiles. A ratio is a median over that of the first, in brackets the range over the rounds: above 1, the "
    "first is quicker. Before anything is timed, the results are compared with the plain path in float64; an error is "
    "the largest difference, as a part of the largest entry."
)
LAYER = (
    "One layer in one direction, with the gradients of its input and its parameters. stg_np runs what a model calls: "
    "`layer_forward` and `layer_backward` of {timed}."
)
STEP = "Forward, loss and the gradients of all parameters; stg_np runs `loss_and_grad` of {timed}."
IMAGE = (
    "Forward, loss and the gradients of all parameters, without the update; stg_np runs `loss_and_grad` of {timed}, on "
    "shards of the batch. PyTorch gets the same shards one after the other, in memory with the channels last, each on "
    "all threads. The plain CNN has the same windows, with GELU in place of gates and memory."
)
CONV = (
    "3×3, zeros around the picture, channels last, with the gradients of input, kernel and bias. GFLOP/s are those of "
    "the definition: Winograd's way needs fewer multiplications and can be above a product of 1024×1024 matrices, "
    "which reached {product} GFLOP/s here."
)
FLOOR = (
    "The floor is the three matrix products at the rate measured at their shapes, plus the bytes that must be moved at "
    "the rate of a copy of as many; nothing elementwise. tanh is what the 4·B·T·H of them take in cache, beside it."
)


class ResultFile(NamedTuple):
    """What a file shows: the sections of a report, as a document and perhaps as a picture."""

    sections: tuple[str, ...]
    text: Callable[[Mapping[str, Any]], str]
    picture: Callable[[Mapping[str, Any]], bytes] | None = None


def speed_text(report: Mapping[str, Any]) -> str:
    """Layer, step and workers beside the peers, and a GPU beside its limits."""
    layers, steps = report.get("layer", ()), report.get("step", ())
    return document(
        "Speed", report["command"], facts_list(report["machine"]), HOW,
        section("One layer, (B, T, D, H)", LAYER.format(timed=timed(layers)), peers_table(layers)) if layers else "",
        section("A training step", STEP.format(timed=timed(steps)), peers_table(steps)) if steps else "",
        section("The floor", FLOOR, floor_table(layers)) if layers else "",
        section("Workers", peers_table(report.get("workers", ()))),
        section("On the GPU", cuda_text(report["cuda"])) if "cuda" in report else "",
    )  # fmt: skip


def image_text(report: Mapping[str, Any]) -> str:
    """A training step of the image network beside the peers."""
    rows = report["image"]
    return document(
        "A training step of the image network", report["command"], facts_list(report["machine"]), HOW,
        IMAGE.format(timed=timed(rows)), peers_table(rows),
    )  # fmt: skip


def conv_text(report: Mapping[str, Any]) -> str:
    """The convolution beside the peers."""
    rows = report["conv"]
    product = max(row["product_gflops"] for row in rows)
    return document(
        "Convolution", report["command"], facts_list(report["machine"]), HOW, CONV.format(product=f"{product:.0f}"),
        *(section(row["label"], conv_table(row)) for row in rows),
    )  # fmt: skip


def growth_text(report: Mapping[str, Any]) -> str:
    """Time and memory along each axis."""
    how = (
        "Forward, loss and backward on one worker, float32, of a network at a base point with one of its numbers "
        "varied. Memory is the most that is held at once. Exponents are fitted to the last "
        f"{FITTED} points on log-log axes."
    )
    parts = []
    for found in report["growth"]:
        base = ", ".join(f"{name} = {value}" for name, value in found["base"].items())
        parts.append(f"{found['about']}. The base point: {base}.")
        parts += [growth_section(axis, along) for axis, along in found["axes"].items()]
    return document(
        "How the cost of a training step grows", report["command"], facts_list(report["machine"]), how, *parts
    )


def growth_section(axis: str, found: Mapping[str, Any]) -> str:
    """One axis: the exponents, and the points."""
    powers = found["exponents"]
    points = zip(found["values"], found["seconds"], found["bytes"])
    return section(
        f"{axis}: time ∝ {axis}^{powers['seconds']:.2f}, memory ∝ {axis}^{powers['bytes']:.2f}",
        table((axis, "ms", "MB"), ((n, milliseconds(s), f"{b / 1e6:.2f}") for n, s, b in points)),
    )


def timed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The modules of this package whose functions were timed."""
    names = dict.fromkeys(row["subjects"][OURS]["timed"] for row in rows)
    return ", ".join(f"`{name}`" for name in names)


def about(name: str) -> str:
    """What a subject is called in tables."""
    return SUBJECTS[name].about if name in SUBJECTS else name


def peers_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per case and subject."""
    return table(
        ("", "who", "ms", "ratio to the first", "worst error", "note"),
        (
            (row["label"], about(name), *time_cells(subject), error_cell(subject), note_cell(subject))
            for row in rows
            for name, subject in row["subjects"].items()
        ),
    )


def conv_table(row: Mapping[str, Any]) -> str:
    """One line per subject, with the rate and the way that was chosen."""
    flops = row["flops"]
    return table(
        ("who", "ms", "ratio to the first", "GFLOP/s", "worst error", "way or note"),
        (
            (
                about(name), *time_cells(subject),
                f"{1e-9 * flops / subject['seconds']['median']:.0f}" if "seconds" in subject else "–",
                error_cell(subject), subject.get("timed") or note_cell(subject),
            )
            for name, subject in row["subjects"].items()
        ),
    )  # fmt: skip


def time_cells(subject: Mapping[str, Any]) -> tuple[str, str]:
    """Milliseconds and ratio, or dashes where nothing was timed."""
    if "seconds" not in subject:
        return "–", "–"
    seconds, ratio = subject["seconds"], subject["ratio"]
    return (
        with_range(*(milliseconds(seconds[key]) for key in ("median", "low", "high"))),
        with_range(*(f"{ratio[key]:.2f}" for key in ("median", "min", "max"))),
    )


def error_cell(subject: Mapping[str, Any]) -> str:
    """The error, of those who compute the same."""
    return f"{subject['error']:.0e}" if "error" in subject else ""


def note_cell(subject: Mapping[str, Any]) -> str:
    """Why there is no time; or how long setting up took, if long."""
    if "note" in subject:
        return str(subject["note"])
    seconds = subject.get("prepare_seconds", 0)
    return f"{seconds:.0f} s to set up" if seconds >= 5 else ""


def floor_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per layer."""
    head = ("", "GFLOP/s x W, da Wᵀ, xᵀ da", "products ms", "GB/s", "memory ms", "floor ms", "tanh ms", "ours ms",
            "ours / floor", "ours / (floor + tanh)")  # fmt: skip
    cells = []
    for row in rows:
        floor, ours = row["floor"], row["subjects"][OURS]["seconds"]["median"]
        cells.append((
            row["label"], ", ".join(f"{rate:.0f}" for rate in floor["gflops"].values()),
            milliseconds(sum(floor["product_seconds"].values())), f"{floor['gigabytes_per_second']:.0f}",
            milliseconds(floor["memory_seconds"]), milliseconds(floor["seconds"]), milliseconds(floor["tanh_seconds"]),
            milliseconds(ours), f"**{ours / floor['seconds']:.2f}**",
            f"{ours / (floor['seconds'] + floor['tanh_seconds']):.2f}",
        ))  # fmt: skip
    return table(head, cells)


def cuda_text(cuda: Mapping[str, Any]) -> str:
    """The ceilings of the device, and one line per layer with parts of them."""
    top = cuda["ceilings"]
    ceilings = f"copy {top['gigabytes_per_second']:.0f} GB/s, float32 product {top['gflops']:.0f} GFLOP/s"
    rows = (
        (
            row["label"], milliseconds(row["seconds"]),
            f"{row['gigabytes_per_second']:.0f}", f"{row['gigabytes_per_second'] / top['gigabytes_per_second']:.0%}",
            f"{row['gflops']:.0f}", f"{row['gflops'] / top['gflops']:.0%}",
        )
        for row in cuda["layers"]
    )  # fmt: skip
    lines = table(("", "ms", "GB/s", "of a copy", "GFLOP/s", "of a product"), rows)
    return f"{cuda['device']}, CuPy {cuda['cupy']}; ceilings: {ceilings}.\n\n{lines}"


def speed_png(report: Mapping[str, Any]) -> bytes:
    """A panel of bars for each case: milliseconds, with quartiles; for layers the floor as a dotted line."""
    from matplotlib.figure import Figure

    rows = [row for name in ("layer", "step", "workers") for row in report.get(name, ())]
    columns = max(1, min(2, len(rows)))
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


def growth_png(report: Mapping[str, Any]) -> bytes:
    """Time and memory against each axis on log-log axes, with the fitted power."""
    from matplotlib.figure import Figure

    axes_found = {axis: along for found in report["growth"] for axis, along in found["axes"].items()}
    figure = Figure(figsize=(2.7 * len(axes_found), 5.4), layout="constrained")
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


FILES = {
    "speed": ResultFile(("layer", "step", "workers", "cuda"), speed_text, speed_png),
    "image": ResultFile(("image",), image_text),
    "conv": ResultFile(("conv",), conv_text),
    "growth": ResultFile(("growth",), growth_text, growth_png),
}
"""The result files by name."""
