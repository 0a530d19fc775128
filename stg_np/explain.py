"""What the gates and the memory of an STG did with one picture, and what it would have said without them.

The gates and memories are read from the caches of the plain forward pass. A gate is taken away by a bias so large that
the gate is open whatever it sees; the memory, by making every pixel a line of its own, so that nothing is carried on.
Nothing is trained again: an answer without a gate says how the network that is there depends on it.

A kind of model is explained by a :class:`Reader`, which is a line in :data:`READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array, to_host
from stg_np.layers.walk import LayerCache, in_order
from stg_np.models.base import Model
from stg_np.models.image_stg import ImageSTG
from stg_np.models.map_stack import MapStackCache
from stg_np.models.stack import StackCache
from stg_np.models.stg import STG
from stg_np.ops.losses import log_softmax
from stg_np.ops.views import patches_forward, transpose_grid
from stg_np.params import Params, State
from stg_np.stm import Gates, STMCache, STMParams
from stg_np.stm_recurrent import RecurrentCache
from stg_np.sweep import GatedSweepCache, SumCache, Sweep, shares, to_steps
from stg_np.workspace import Workspace

GATES = ("input gate", "update gate", "output gate")
"""In the order of :class:`~stg_np.stm.Gates`."""

MEMORY = "carried memory"

WIDE_OPEN = 1e4
"""A bias that outweighs whatever a gate sees: σ of it is 1 to the last bit."""


class Way(NamedTuple):
    """Memory cells that go through a map in the same order.

    Attributes:
        name: for people: ``right``, ``row by row``, …
        lines: (lines, T), the numbers of the pixels (row by row, from 0) in the order in which a memory meets them.
        kept, written, memories: (height, width, cells): 1 − u, what is added to the memory, and the memory after it.
    """

    name: str
    lines: Array
    kept: Array
    written: Array
    memories: Array


class LayerSeen(NamedTuple):
    """What one layer did: its gates, each (height, width, H), and its ways; none where a memory lasts for one step."""

    name: str
    gates: Gates
    ways: list[Way]

    @property
    def kept(self) -> float:
        """mean(1 − u): the share of a memory that the update gate keeps from one step to the next."""
        return float(np.mean(1 - self.gates.u, dtype=np.float64))


class Explanation(NamedTuple):
    """What a model said of a picture, and why.

    Attributes:
        probabilities: (C,), the answer.
        layers: what each layer did, from the input on.
        without: the answer (C,) without each gate, or without what is carried, in all layers at once.
        without_in: the same for one layer only, by its name; as far as there is such a thing.
    """

    probabilities: Array
    layers: list[LayerSeen]
    without: dict[str, Array]
    without_in: dict[str, dict[str, Array]]


class Reader(NamedTuple):
    """How a kind of model is read.

    ``layers(model, cache)``: what each layer did with the one picture of the cache of a plain forward pass.
    ``walks(model)``: by the name of each layer, the prefixes of its parameters.
    ``forgetful(model, x, names)``: a model and a batch x whose mean logits are the answer where the layers of these
    names carry nothing from step to step; None where there is no such thing.
    """

    layers: Callable[[Any, Any], list[LayerSeen]]
    walks: Callable[[Any], dict[str, list[str]]]
    forgetful: Callable[[Any, Array, Sequence[str]], tuple[Model, Array] | None]


def can_explain(model: Model) -> bool:
    """Whether there is a reader for a model, and it takes pictures."""
    return type(model) in READERS and len(model.input_shape) == 3


def explain(model: Model, params: Params, state: State, x: Array) -> Explanation:
    """What the model did with one picture x (1, height, width, c), scaled as in training.

    Raises:
        ValueError: if the model is of a kind that cannot be explained, or x is not one picture for it.
    """
    if not can_explain(model) or len(x) != 1:
        raise ValueError(f"one picture and one of {', '.join(kind.__name__ for kind in READERS)} can be explained")
    reader = READERS[type(model)]
    logits, cache, _ = model.forward(x, params, state)
    walks, work = reader.walks(model), Workspace()

    def without(names: Sequence[str]) -> dict[str, Array]:
        prefixes = [prefix for name in names for prefix in walks[name]]
        answers = {
            gate: answer(model, opened(params, prefixes, number), state, x, work) for number, gate in enumerate(GATES)
        }
        if (cut := reader.forgetful(model, x, names)) is not None:
            answers[MEMORY] = answer(cut[0], params, state, cut[1], work)
        return answers

    return Explanation(
        likely(logits), reader.layers(model, cache), without(list(walks)), {name: without([name]) for name in walks}
    )


def opened(params: Params, prefixes: Sequence[str], gate: int) -> Params:
    """The parameters with one of the :data:`GATES` open in the layers whose parameters have these prefixes."""
    arrays = {}
    for prefix in prefixes:
        b = params.group(prefix, STMParams).b.copy()  # (4H,): input, update, output gate, candidate
        b.reshape(4, -1)[gate] = WIDE_OPEN
        arrays[f"{prefix}.b"] = b
    return params.replaced(arrays)


def answer(model: Model, params: Params, state: State, x: Array, work: Workspace) -> Array:
    """The probabilities (C,) by the mean of the logits of x."""
    return likely(model.forward(x, params, state, work=work)[0])


def likely(logits: Array) -> Array:
    """The probabilities (C,), on the host in float64, by the mean of logits (B, C)."""
    probabilities: Array = np.exp(log_softmax(to_host(logits).astype(np.float64).mean(0)))
    return probabilities


# --- a memory's way -------------------------------------------------------------------------------------------


class Track(NamedTuple):
    """One memory cell on one line: at each step, (T,), what it carried there and what was written to it.

    ``memory = carried + written``. ``pixels`` are the numbers of the pixels that it meets; ``kept``: the cell's
    mean(1 − u) over the map.
    """

    way: Way
    cell: int
    pixels: Array
    carried: Array
    written: Array
    kept: float


def longest(way: Way) -> Track:
    """The cell that keeps most, of the half that hold most, on the line on which it carries most."""
    held = np.abs(way.memories).mean((0, 1))  # (cells,)
    kept = np.where(held >= np.median(held), way.kept.mean((0, 1)), -1)
    cell = int(kept.argmax())
    written, memories = (maps[..., cell].reshape(-1)[way.lines] for maps in (way.written, way.memories))  # (lines, T)
    carried = memories - written
    line = int(np.abs(carried).sum(1).argmax())
    return Track(way, cell, way.lines[line], carried[line], written[line], float(kept[cell]))


# --- the image STG --------------------------------------------------------------------------------------------


def image_layers(model: ImageSTG, cache: MapStackCache) -> list[LayerSeen]:
    """The layers of an image STG."""
    return [
        image_layer(name, model.spec(name).kind.sweep, layer.gated) for name, layer in zip(model.names, cache.layers)
    ]


def image_layer(name: str, sweep: Sweep, gated: GatedSweepCache) -> LayerSeen:
    """Gates and sweeps of one layer of maps."""
    gates = Gates(*(to_host(gate)[0] for gate in gated.gates))
    written = gates.u * to_host(gated.inflow)[0]
    pixels = np.arange(written[..., 0].size).reshape(1, *written.shape[:2], 1)
    everything = [slice(None)] * len(sweep.directions)
    if isinstance(gated.sweep, SumCache):
        cells, memories = everything, gated.sweep.memories
    else:
        cells = [own for own, _ in shares(written.shape[-1], sweep.directions)] if sweep.directions else []
        memories = [gated.memories[..., own] for own in cells]
    ways = [
        Way(
            direction, to_steps(pixels, direction)[0, :, :, 0].T, 1 - gates.u[..., own], written[..., own],
            to_host(memory)[0],
        )
        for direction, own, memory in zip(sweep.directions, cells, memories)
    ]  # fmt: skip
    return LayerSeen(name, gates, ways)


def image_walks(model: ImageSTG) -> dict[str, list[str]]:
    """Every layer has one set of gates."""
    return {name: [name] for name in model.names}


@dataclass(frozen=True)
class Forgetful(ImageSTG):
    """An image STG that carries no memory from step to step in the layers named; for answers, not for training."""

    forgets: tuple[str, ...] = ()

    def spec(self, name: str) -> Any:
        """What a layer is."""
        spec = super().spec(name)
        return replace(spec, kind=spec.kind._replace(sweep=alone(spec.kind.sweep))) if name in self.forgets else spec


def alone(sweep: Sweep) -> Sweep:
    """The same sweep where every pixel is a map of its own, through which each direction takes one step."""

    def forward(u: Array, v: Array, directions: Any) -> tuple[Array, Any]:
        pixels = (-1, 1, 1, u.shape[-1])
        memories, cache = sweep.forward(u.reshape(pixels), v.reshape(pixels), directions)
        return memories.reshape(u.shape), cache

    return sweep._replace(forward=forward)


def image_forgetful(model: ImageSTG, x: Array, names: Sequence[str]) -> tuple[Model, Array] | None:
    """Without what the sweeps of these layers carry, if any of them sweeps."""
    forgets = tuple(name for name in names if model.spec(name).kind.sweep.directions)
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    return (Forgetful(**values, forgets=forgets), x) if forgets else None


# --- the sequence STG -----------------------------------------------------------------------------------------


def sequence_layers(model: STG, cache: StackCache) -> list[LayerSeen]:
    """The layers of an STG that walks a picture as a sequence of steps, which are laid out as the picture is."""
    return [sequence_layer(model, layer, walks) for layer, walks in enumerate(cache.layers)]


def sequence_layer(model: STG, number: int, layer: LayerCache) -> LayerSeen:
    """Gates and walks of a layer, the walks' cells side by side."""
    spec, ways, gates = model.spec(number), [], []
    for direction, walk in zip(spec.directions, layer.walks):
        steps: Array = np.arange(spec.grid[0] * spec.grid[1]).reshape(1, -1, 1)
        order = in_order(transpose_grid(steps, spec.grid) if spec.turned else steps, direction).reshape(-1)
        own, v, memories = walk_of(walk)
        i, u, o, z, v, m = (in_place(walked, order, spec.grid) for walked in (*own, v, memories))
        gates.append(Gates(i, u, o, z))
        name = f"{'column by column' if spec.turned else 'row by row'}{', backwards' if direction == 'left' else ''}"
        ways.append(Way(name, order[None], 1 - u, u * v, m))
    together = Gates(*(np.concatenate(parts, -1) for parts in zip(*gates)))
    return LayerSeen(f"stm{number + 1}", together, ways)


def walk_of(cache: STMCache | RecurrentCache) -> tuple[Gates, Array, Array]:
    """The gates, what comes in and the memories of a walk of one sequence, each (T, H), on the host."""
    if isinstance(cache, STMCache):
        gates, v, memories = cache.gates, cache.v, cache.memories
        return Gates(*(to_host(gate)[0] for gate in gates)), to_host(v)[0], to_host(memories)[0]
    steps = cache.steps
    gates = Gates(*(np.concatenate(parts) for parts in zip(*([to_host(gate) for gate in one.gates] for one in steps))))
    return gates, np.concatenate([to_host(one.v) for one in steps]), np.concatenate([to_host(one.m) for one in steps])


def in_place(steps: Array, order: Array, grid: tuple[int, int]) -> Array:
    """Steps (T, H) as a map (rows, columns, H): the step number t stands at the pixel ``order[t]``."""
    result = np.empty_like(steps)
    result[order] = steps
    return result.reshape(*grid, -1)


def sequence_walks(model: STG) -> dict[str, list[str]]:
    """Every layer walks in one or two directions, each with gates of its own."""
    return {f"stm{layer + 1}": model.walks(layer) for layer in range(model.layers)}


def sequence_forgetful(model: STG, x: Array, names: Sequence[str]) -> tuple[Model, Array] | None:
    """Every step a sequence of its own; the head is linear, so the mean of its logits is that of the mean step.

    Only for all layers together, and where the steps are pooled by their mean.
    """
    if len(names) < model.layers or model.pool != "mean":
        return None
    steps = patches_forward(x, *model.patch_size)  # (1, T, D)
    return replace(model, input_shape=(1, model.features)), steps.reshape(-1, 1, model.features)


READERS: Mapping[type[Any], Reader] = {
    ImageSTG: Reader(image_layers, image_walks, image_forgetful),
    STG: Reader(sequence_layers, sequence_walks, sequence_forgetful),
}
"""How each kind of model is read."""
