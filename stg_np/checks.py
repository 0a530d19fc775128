"""The explicit list of the package's forward/backward pairs, which ``stg-np gradcheck`` runs over.

**To add a pair, yield it** from the function of its group below. Every pair appears with every option that changes
its mathematics: both forms and both kinds of gate of the STM layer, every activation, view and pooling, and the
whole model from pixels to loss. A test finds the ``*_forward`` and ``*_backward`` functions of the package and fails
if one of them is never called from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from stg_np import stm, stm_recurrent, sweep
from stg_np.backend import Array, array_module, get_xp, to_device
from stg_np.fast import choose
from stg_np.fast import conv as fast_conv
from stg_np.fast import walks as fast_walks
from stg_np.gradcheck import Backward, Forward, Report, check_pair
from stg_np.layers.gru import GRU_CELL, gru_step_backward, gru_step_forward, init_gru
from stg_np.layers.lstm import LSTM_CELL, LSTMMemory, init_lstm, lstm_step_backward, lstm_step_forward
from stg_np.layers.maps import MapSpec
from stg_np.layers.rnn import RNN_CELL, init_rnn
from stg_np.layers.spec import Cell, Direction, STMKind, WalkSpec
from stg_np.models.base import Model, loss_and_grad
from stg_np.models.cnn import CNN
from stg_np.models.gru import GRU
from stg_np.models.image_stg import ImageSTG
from stg_np.models.lstm import LSTM
from stg_np.models.mlp import MLP
from stg_np.models.rnn import RNN
from stg_np.models.steps import VIEWS
from stg_np.models.stg import STG
from stg_np.ops.activations import GELU, IDENTITY, RELU, SIGMOID, TANH, Activation
from stg_np.ops.batch_norm import (
    Statistics,
    batch_norm_backward,
    batch_norm_forward,
    fixed_norm_backward,
    fixed_norm_forward,
)
from stg_np.ops.conv import ConvParams, conv2d_backward, conv2d_forward
from stg_np.ops.dropout import dropout_backward, dropout_forward
from stg_np.ops.linear import LinearParams, linear_backward, linear_forward
from stg_np.ops.losses import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_forward,
    squared_error_backward,
    squared_error_forward,
)
from stg_np.ops.norm import rms_norm_backward, rms_norm_forward
from stg_np.ops.pool import (
    POOLS,
    last_pool_backward,
    last_pool_forward,
    mean_pool_backward,
    mean_pool_forward,
    no_pool_backward,
    no_pool_forward,
)
from stg_np.ops.pool2d import (
    average_pool2d_backward,
    average_pool2d_forward,
    global_max_pool_backward,
    global_max_pool_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)
from stg_np.ops.step_losses import step_cross_entropy_backward, step_cross_entropy_forward
from stg_np.ops.views import patches_backward, patches_forward
from stg_np.params import Params, State
from stg_np.workspace import Workspace


class Pair(NamedTuple):
    """One thing to check, in the form that :func:`~stg_np.gradcheck.check_pair` takes."""

    name: str
    forward: Forward  # outputs, cache = forward(**inputs)
    backward: Backward  # gradients of the inputs = backward(doutputs, cache)
    inputs: Mapping[str, Any]  # on the host; of order 1, so that no gradient is small by nature
    numpy_only: bool = False  # the fast path of the CPU


def run_checks(device: str = "cpu", seed: int = 0) -> list[Report]:
    """Check every pair of the package on ``device``; ``seed`` draws inputs and directions.

    Raises:
        DeviceError: if the device cannot be used.
    """
    array_module(device)
    return [
        check_pair(pair.forward, pair.backward, on_device(pair.inputs, device), name=pair.name, seed=seed)
        for pair in package_pairs(np.random.default_rng(seed), device)
    ]


def package_pairs(rng: np.random.Generator, device: str = "cpu") -> Iterator[Pair]:
    """All pairs that ``device`` can run, with inputs drawn from ``rng``."""
    cells = stm_layers, other_cells, layers_of_walks
    for group in (activations, losses, ops, maps, memory, *cells, sweeps, layers_of_maps, models):
        for pair in group(rng):
            if device == "cpu" or not pair.numpy_only:
                yield pair


# --- the list -----------------------------------------------------------------------------------------------


def activations(rng: np.random.Generator) -> Iterator[Pair]:
    """Every φ; the ReLU away from its kink at 0."""
    for name, phi in {"sigmoid": SIGMOID, "tanh": TANH, "identity": IDENTITY, "relu": RELU, "gelu": GELU}.items():
        x = rng.standard_normal((3, 4))
        yield Pair(name, *activation_pair(phi), {"x": x + 0.1 * np.sign(x)})


def losses(rng: np.random.Generator) -> Iterator[Pair]:
    """Losses, one per example."""
    B, C = 3, 5
    for smoothing in (0.0, 0.2):
        forward = partial(cross_entropy_forward, label_smoothing=smoothing)
        inputs = {"logits": rng.standard_normal((B, C)), "labels": rng.integers(0, C, B)}
        yield Pair(f"cross_entropy, smoothing {smoothing}", forward, cross_entropy_backward, inputs)
    inputs = {"outputs": rng.standard_normal((B, C)), "targets": rng.standard_normal((B, C))}
    yield Pair("squared_error", squared_error_forward, squared_error_gradients, inputs)
    inputs = {"logits": rng.standard_normal((B, 4, C)), "labels": rng.integers(0, C, (B, 4))}
    yield Pair("step_cross_entropy", step_cross_entropy_forward, step_cross_entropy_backward, inputs)


def ops(rng: np.random.Generator) -> Iterator[Pair]:
    """Linear map, norm, pooling of steps, dropout, views."""
    B, T, D, C = 3, 4, 6, 5
    x = rng.standard_normal((B, T, D))
    params = LinearParams(rng.standard_normal((D, C)), rng.standard_normal(C))
    yield Pair("linear", *with_params(linear_forward, linear_backward), {"x": x, "params": params})
    yield Pair("rms_norm", rms_norm_forward, rms_norm_backward, {"x": x})
    yield Pair("no_pool", no_pool_forward, no_pool_backward, {"x": x})
    yield Pair("mean_pool", mean_pool_forward, mean_pool_backward, {"x": x})
    for width in (D, D // 2):
        last_pool = partial(last_pool_forward, right_width=width)
        yield Pair(f"last_pool, {width} of {D} to the right", last_pool, last_pool_backward, {"x": x})
    yield Pair("dropout", lambda x: dropout_forward(x, 0.4, np.random.default_rng(0)), dropout_backward, {"x": x})
    for patch in ((1, 9), (2, 3), (1, 1)):
        images = rng.standard_normal((3, 4, 9, 2))  # neighbouring axes differ, so that none can stand for the other
        yield Pair(f"patches, {patch[0]}×{patch[1]}", *patches_pair(patch), {"images": images})


def maps(rng: np.random.Generator) -> Iterator[Pair]:
    """Convolutions, plain and in both ways of the fast path; the pooling of maps."""
    plain = with_params(conv2d_forward, conv2d_backward)
    fast = with_params(fast_conv.conv2d_forward, fast_conv.conv2d_backward, fast=True)
    for name, pair, shape, side, channels in (
        ("3×3", plain, (2, 3, 4, 2), 3, 3),
        ("5×5", plain, (2, 3, 4, 2), 5, 3),
        ("1×1", plain, (2, 3, 4, 2), 1, 3),
        ("fast, columns", fast, (2, 3, 4, 2), 3, 3),
        ("fast, Winograd", fast, (3, 9, 13, 8), 3, 9),
    ):
        kernel = rng.standard_normal((side, side, shape[-1], channels)) / (side * shape[-1] ** 0.5)
        inputs = {"x": rng.standard_normal(shape), "params": ConvParams(kernel, rng.standard_normal(channels))}
        yield Pair(f"conv2d, {name}", *pair, inputs, numpy_only=pair is fast)
    apart = rng.permutation(2 * 4 * 6 * 3).reshape(2, 4, 6, 3) / 50  # no two within 0.02: far from the kinks
    yield Pair("max_pool2d", max_pool2d_forward, max_pool2d_backward, {"x": apart})
    for side in (2, 3):
        average = partial(average_pool2d_forward, side=side)
        maps = {"x": rng.standard_normal((2, 6, 6, 3))}
        yield Pair(f"average_pool2d, {side}×{side}", average, average_pool2d_backward, maps)
    yield Pair("global_max_pool", global_max_pool_forward, global_max_pool_backward, {"x": apart})
    x = rng.standard_normal((3, 2, 4, 3))
    yield Pair("batch_norm", lambda x: first(batch_norm_forward(x)), batch_norm_backward, {"x": x})
    kept = Statistics(rng.standard_normal(3), rng.uniform(0.5, 2, 3))
    yield Pair("fixed_norm", partial(with_statistics, kept=kept), fixed_norm_backward, {"x": x})


def memory(rng: np.random.Generator) -> Iterator[Pair]:
    """The pieces of the STM layer: pre-activations, gates, one update, the scan, one step."""
    B, T, D, H = 3, 5, 4, 3
    for kind, diagonal in {"full": False, "diagonal": True}.items():
        params = draw_stm(rng, D, H, recurrent=True, diagonal=diagonal)
        inputs = {"p": rng.standard_normal((B, params.W.shape[1])), "b": params.b, "w": params.w}
        yield Pair(f"preactivations, {kind}", *preactivations_pair(params), inputs)
        yield Pair(f"step, {kind}", *step_pair(params), {"m": rng.standard_normal((B, H)), **inputs})
    for name, phi_z in {"tanh": TANH, "identity": IDENTITY}.items():
        yield Pair(f"gates, φ_z {name}", *gates_pair(phi_z), {"a": rng.standard_normal((B, T, 4 * H))})
    u, v, m_0 = rng.uniform(0.1, 0.9, (B, T, H)), rng.standard_normal((B, T, H)), rng.standard_normal((B, H))
    update = with_inputs(stm.update_forward, lambda dm, after, u, v, m: stm.update_backward(dm, u, v, m))
    yield Pair("update", *update, {"u": u[:, 0], "v": v[:, 0], "m": m_0})
    yield Pair("scan", *with_inputs(stm.scan_forward, scan_gradients), {"u": u, "v": v, "m_0": m_0})


def stm_layers(rng: np.random.Generator) -> Iterator[Pair]:
    """The STM layer: both forms, the fast path, both kinds of gate, several φ_z and φ; several steps and one."""
    B, D, H = 2, 3, 2
    plain, recurrent = (
        (stm.stm_forward, stm.stm_backward),
        (stm_recurrent.stm_recurrent_forward, stm_recurrent.stm_recurrent_backward),
    )
    phis: dict[str, dict[str, Activation]] = {
        "φ_z tanh": {"phi_z": TANH},
        "φ_z identity": {"phi_z": IDENTITY},
        "φ_z identity, φ tanh": {"phi_z": IDENTITY, "phi": TANH},
    }
    cases = [
        *product({"input-only": plain, "recurrent": recurrent}.items(), (False, True), phis),
        *product({"fast": (fast_walks.stm_forward, fast_walks.stm_backward)}.items(), (False, True), ("φ_z identity",)),
        (("fast", (fast_walks.stm_forward, fast_walks.stm_backward)), False, "φ_z tanh"),
    ]
    for ((path, (forward, backward)), diagonal, phi), T in product(cases, (1, 6)):
        pair = with_params(partial(forward, **phis[phi]), backward, fast=path == "fast")
        params = draw_stm(rng, D, H, recurrent=path == "recurrent", diagonal=diagonal)
        inputs = {"x": rng.standard_normal((B, T, D)), "m_0": rng.standard_normal((B, H)), "params": params}
        name = f"stm, {path}, {'diagonal' if diagonal else 'full'}, {phi}, T={T}"
        yield Pair(name, *pair, inputs, numpy_only=path == "fast")


def other_cells(rng: np.random.Generator) -> Iterator[Pair]:
    """The cells beside which the STM is seen: one step, and walks of several steps and of one."""
    B, D, H = 2, 3, 2
    a, q, m, c = (rng.standard_normal(shape) for shape in ((B, 4 * H), (B, 3 * H), (B, H), (H,)))
    yield Pair("lstm, step", *lstm_step_pair(), {"a": a, "m": m})
    yield Pair("gru, step", *gru_step_pair(), {"a": a[:, : 3 * H], "q": q, "m": m, "c": c})
    for (name, (cell, init)), T in product(CELLS.items(), (1, 6)):
        params = scaled(rng, init(rng, D, H))
        memories = [rng.standard_normal((B, H)) for _ in range(2)]
        start = LSTMMemory(*memories) if cell is LSTM_CELL else memories[0]
        inputs = {"x": rng.standard_normal((B, T, D)), "start": start, "params": params}
        yield Pair(f"{name}, T={T}", *cell_pair(cell), inputs)


CELLS: dict[str, tuple[Cell, Callable[..., Any]]] = {
    "lstm": (LSTM_CELL, init_lstm),
    "gru": (GRU_CELL, init_gru),
    "rnn": (RNN_CELL, init_rnn),
}
"""The other cells, and what draws their parameters."""


def layers_of_walks(rng: np.random.Generator) -> Iterator[Pair]:
    """A layer with its norm, directions and path: plain and fast, the first layer of a model and a turned one."""
    kinds: dict[str, tuple[tuple[Direction, ...], STMKind, float]] = {
        "one direction": (("right",), STMKind(), 0.0),
        "both directions, dropout": (("right", "left"), STMKind(), 0.3),
        "both directions, diagonal": (("right", "left"), STMKind(diagonal=True, phi_z=IDENTITY), 0.0),
    }
    for fast, deeper, (name, (directions, kind, dropout)) in product((False, True), (False, True), kinds.items()):
        spec = WalkSpec(4, directions, (2, 3), turned=deeper, adds=deeper, dropout=dropout)
        h = rng.standard_normal((2, 6, 4))
        h += np.sign(h)  # away from 0, where the norm's derivatives grow beyond what the stencil can follow
        params = tuple(draw_stm(rng, 4, spec.memory_width, diagonal=kind.diagonal) for _ in directions)
        title = f"layer, {'fast' if fast else 'plain'}, {'turned' if deeper else 'first'}, {name}"
        yield Pair(title, *layer_pair(spec, kind, fast=fast), {"h": h, "params": params}, numpy_only=fast)


def sweeps(rng: np.random.Generator) -> Iterator[Pair]:
    """The memory on a map: one line, the joins, what makes slow cells heard; and the image STM layer."""
    shape = (2, 3, 4, 4)
    u, v = rng.uniform(0.1, 0.9, shape), rng.standard_normal(shape)
    for direction in sweep.ALL_WAYS:
        yield Pair(f"sweep, {direction}", *line_pair(direction), {"u": u, "v": v})
    yield Pair("louder", *with_inputs(sweep.louder_forward, lambda d, y, u, v: sweep.louder_backward(d, u, v)), {
        "u": u, "v": v,
    })  # fmt: skip
    joins = {"quarters": sweep.quarters(), "sum": sweep.summed(("down", "left")), "no sweep": sweep.STILL}
    for (name, join), diagonal, window in product(joins.items(), (False, True), (1, 3)):
        kind = sweep.SweepKind(join, phi=TANH if diagonal else IDENTITY, louder=window == 1)
        params = draw_image_stm(rng, 3, 4, window, diagonal=diagonal)
        title = f"image_stm, {name}, {'diagonal' if diagonal else 'full'}, window {window}"
        forward = partial(sweep.image_stm_forward, kind=kind)
        backward = partial(sweep.image_stm_backward, kind=kind)
        inputs = {"x": rng.standard_normal((2, 3, 4, 3)), "params": params}
        yield Pair(title, *with_params(forward, backward), inputs)


def layers_of_maps(rng: np.random.Generator) -> Iterator[Pair]:
    """A layer with its window, pooling and norm, by the batch's statistics or given ones: plain and fast."""
    kept = Statistics(rng.standard_normal(4), rng.uniform(0.5, 2, 4))
    kinds = {"quarters": sweep.SweepKind(), "no sweep": sweep.SweepKind(sweep.STILL)}
    for fast, (name, kind), pools, statistics in product((False, True), kinds.items(), (False, True), (None, kept)):
        spec = MapSpec(kind, pools=pools)
        # far apart, so that the largest of four pixels stays the largest
        inputs = {"h": rng.standard_normal((3, 4, 6, 3)), "params": draw_image_stm(rng, 3, 4, 3, diagonal=True)}
        norm = "given statistics" if statistics else "own statistics"
        title = f"map layer, {'fast' if fast else 'plain'}, {name}, {'pooled, ' if pools else ''}{norm}"
        yield Pair(title, *map_layer_pair(spec, statistics, fast=fast), inputs, numpy_only=fast)


def models(rng: np.random.Generator) -> Iterator[Pair]:
    """The whole STG, in every view, pooling, form and kind of gate, and its loss; the baselines."""
    in_order = product((view for view in VIEWS if view != "permuted"), (False, True), (False, True))
    for view, recurrent, diagonal in (*in_order, ("permuted", False, False)):
        model = STG(
            (4, 2, 2), 3, view=view, patch=(2, 1), width=4, layers=3, recurrent=recurrent, diagonal=diagonal,
            alternate=True,
        )  # fmt: skip
        name = f"STG, {view}, {'recurrent' if recurrent else 'input-only'}, {'diagonal' if diagonal else 'full'}"
        yield model_pair(name, model, rng)
    for pooling, bidirectional in product(POOLS, (False, True)):
        model = STG((5, 3), 3, width=8, layers=2, pool=pooling, bidirectional=bidirectional, tanh_candidate=False)
        name = f"STG, sequence, {pooling}, {'both directions' if bidirectional else 'one direction'}"
        yield model_pair(name, model, rng)
    kinds: dict[str, dict[str, Any]] = {"full": {}, "diagonal": {"diagonal": True, "tanh_candidate": False}}
    for kind, fields in kinds.items():
        model = STG((4, 4, 2), 3, view="pixels", width=8, layers=3, alternate=True, **fields)
        yield model_pair(f"STG, fast, {kind}", model, rng, fast=True)
    image: dict[str, dict[str, Any]] = {
        "quarters": {"sweeping": (1, 4)},
        "sum, full gates": {"sweeping": (2, 3), "join": "sum", "diagonal": False, "louder": True},
        "patches, no convolution": {"sweeping": (1, 2), "window": 1, "patch": 2, "stem": 0, "directions": 2},
    }
    for (name, fields), fast in product(image.items(), (False, True)):
        picture = ImageSTG((8, 8, 2), 3, **{"widths": (8, 4), "depth": 2, "stem": 3, "length": 4.0} | fields)
        yield model_pair(f"image STG, {'fast, ' if fast else ''}{name}", picture, rng, fast=fast)
    yield loss_pair("loss of the image STG", ImageSTG((4, 4, 2), 3, widths=(8,), sweeping=(2,), stem=3), rng)
    for activation, fast in product(("gelu", "relu"), (False, True)):
        cnn = CNN((8, 8, 2), 3, widths=(8, 4), depth=1, stem=3, activation=activation)
        yield model_pair(f"CNN, {activation}{', fast' if fast else ''}", cnn, rng, fast=fast)
    yield loss_pair("loss of the CNN", CNN((4, 4, 2), 3, widths=(8,), stem=3), rng)
    yield model_pair("MLP", MLP((4, 3, 2), 3, widths=(6, 5)), rng)
    for other in (LSTM, GRU, RNN):
        stack = other((4, 4, 1), 3, width=4, layers=3, alternate=True, view="patches", patch=(2, 2))
        yield model_pair(other.__name__, stack, rng)
        yield model_pair(f"{other.__name__}, fast", stack, rng, fast=True)
    yield loss_pair("loss of the STG with dropout", STG((4, 4, 1), 3, view="rows", width=8, dropout=0.3), rng)


# --- from the package's signatures to the checker's -----------------------------------------------------------


def with_params(
    forward: Callable[..., Any], backward: Callable[..., Any], *, fast: bool = False
) -> tuple[Forward, Backward]:
    """A pair whose backward also takes the parameters: ``backward(*doutputs, cache, params)``.

    ``fast``: both also take ``work``, and get a new workspace with every forward.
    """

    def paired_forward(**inputs: Any) -> tuple[Any, Any]:
        options = {"work": Workspace()} if fast else {}
        outputs, cache = forward(**inputs, **options)
        return outputs, (cache, inputs["params"], options)

    def paired_backward(doutputs: Any, kept: Any) -> Any:
        cache, params, options = kept
        doutputs = doutputs if isinstance(doutputs, tuple) else (doutputs,)
        return backward(*doutputs, cache, params, **options)

    return paired_forward, paired_backward


def with_inputs(forward: Callable[..., Any], backward: Callable[..., Any]) -> tuple[Forward, Backward]:
    """A pair without a cache: ``outputs = forward(**inputs)`` and ``backward(doutputs, outputs, **inputs)``."""

    def paired_forward(**inputs: Any) -> tuple[Any, Any]:
        outputs = forward(**inputs)
        return outputs, (outputs, inputs)

    def paired_backward(doutputs: Any, kept: Any) -> Any:
        outputs, inputs = kept
        return backward(doutputs, outputs, **inputs)

    return paired_forward, paired_backward


def activation_pair(phi: Activation) -> tuple[Forward, Backward]:
    """φ with its derivative."""
    return with_inputs(phi.forward, lambda dy, y, x: phi.backward(dy, x, y))


def squared_error_gradients(dlosses: Array, cache: Any) -> tuple[Array, Array]:
    """Of the outputs, and of the targets, which count with the opposite sign."""
    doutputs = squared_error_backward(dlosses, cache)
    return doutputs, -doutputs


def patches_pair(patch: tuple[int, int]) -> tuple[Forward, Backward]:
    """Pictures cut into patches, and put together again."""
    return with_inputs(
        lambda images: patches_forward(images, *patch),
        lambda dx, x, images: patches_backward(dx, images.shape[1:], *patch),
    )


def preactivations_pair(params: stm.STMParams) -> tuple[Forward, Backward]:
    """Pre-activations as a function of products, biases and diagonal weights."""
    return with_inputs(
        lambda p, b, w: stm.preactivations_forward(p, params._replace(b=b, w=w)),
        lambda da, a, p, b, w: stm.preactivations_backward(da, a, params._replace(b=b, w=w)),
    )


def gates_pair(phi_z: Activation) -> tuple[Forward, Backward]:
    """All gates of all steps."""
    return with_inputs(
        lambda a: stm.gates_forward(a, phi_z), lambda dgates, gates, a: stm.gates_backward(dgates, gates, a, phi_z)
    )


def scan_gradients(dm: Array, memories: Array, u: Array, v: Array, m_0: Array) -> tuple[Array, Array, Array]:
    """Of a scan whose last memory nobody reads besides."""
    return stm.scan_backward(dm, get_xp(dm).zeros_like(m_0), u, v, memories, m_0)


def step_pair(params: stm.STMParams) -> tuple[Forward, Backward]:
    """One step: its outputs are what goes out and the new memory."""

    def forward(m: Array, p: Array, b: Array, w: Array | None) -> Any:
        own = params._replace(b=b, w=w)
        outputs, cache = stm_recurrent.step_forward(p, m, own, phi=TANH)
        return outputs, (cache, own)

    def backward(doutputs: tuple[Array, Array], kept: Any) -> Any:
        dp, dm, db, dw = stm_recurrent.step_backward(*doutputs, *kept)
        return dm, dp, db, dw

    return forward, backward


def lstm_step_pair() -> tuple[Forward, Backward]:
    """One step of an LSTM: its outputs are the new memory and what goes out."""

    def forward(a: Array, m: Array) -> Any:
        return lstm_step_forward(a, m)

    def backward(doutputs: LSTMMemory, cache: Any) -> Any:
        return lstm_step_backward(doutputs.y, doutputs.m, cache)

    return forward, backward


def gru_step_pair() -> tuple[Forward, Backward]:
    """One step of a GRU: its output is the new memory."""

    def forward(a: Array, q: Array, m: Array, c: Array) -> Any:
        return gru_step_forward(a, q, m, c)

    def backward(dm: Array, cache: Any) -> Any:
        da, dq, dm_before = gru_step_backward(dm, cache)
        return da, dq, dm_before, dq[:, -dm.shape[1] :].sum(0)

    return forward, backward


def cell_pair(cell: Cell) -> tuple[Forward, Backward]:
    """A walk: its outputs are y and the last memory."""

    def forward(x: Array, start: Any, params: Any) -> Any:
        outputs, cache = cell.forward(x, start, params)
        return outputs, (cache, params)

    def backward(doutputs: Any, kept: Any) -> Any:
        return cell.backward(*doutputs, *kept)

    return forward, backward


def layer_pair(spec: WalkSpec, kind: STMKind, *, fast: bool) -> tuple[Forward, Backward]:
    """A layer, with the same dropout every time; ``fast`` as in :func:`with_params`."""

    def layer_forward(h: Array, params: Any) -> tuple[Array, Any]:
        pair = choose.layer_pair(h, spec, kind, Workspace() if fast else None)
        y, cache = pair.forward(h, params, spec, rng=np.random.default_rng(0))
        return y, (pair, cache, params)

    def layer_backward(dh: Array, kept: Any) -> tuple[Array, Any]:
        pair, cache, params = kept
        dx, dparams = pair.backward(dh, cache, params, spec)
        return dx, tuple(dparams)

    return layer_forward, layer_backward


def first(result: tuple[tuple[Array, Any], Any]) -> tuple[Array, Any]:
    """Of ``(y, statistics), cache`` what is learned through: y, and the cache."""
    (y, _), cache = result
    return y, cache


def with_statistics(x: Array, kept: Statistics) -> tuple[Array, Any]:
    """Normalised by given statistics."""
    return fixed_norm_forward(x, like(kept, x))


def like(statistics: Statistics, x: Array) -> Statistics:
    """The statistics as arrays of the library and dtype of x."""
    return Statistics(*(get_xp(x).asarray(array, x.dtype) for array in statistics))


def line_pair(direction: sweep.Direction) -> tuple[Forward, Backward]:
    """One sweep."""
    return with_inputs(
        lambda u, v: sweep.line_forward(u, v, direction),
        lambda dm, memories, u, v: sweep.line_backward(dm, u, v, memories, direction),
    )


def map_layer_pair(spec: MapSpec, statistics: Statistics | None, *, fast: bool) -> tuple[Forward, Backward]:
    """A layer of maps; ``fast`` as in :func:`with_params`."""

    def layer_forward(h: Array, params: stm.STMParams) -> tuple[Array, Any]:
        pair = choose.map_layer_pair(h, spec, params, Workspace() if fast else None)
        y, cache = first(pair.forward(h, params, spec, statistics and like(statistics, h)))
        return y, (pair, cache, params)

    def layer_backward(dy: Array, kept: Any) -> tuple[Array, Any]:
        pair, cache, params = kept
        gradients: tuple[Array, Any] = pair.backward(dy, cache, params, spec)
        return gradients

    return layer_forward, layer_backward


def model_pair(name: str, model: Model, rng: np.random.Generator, *, fast: bool = False) -> Pair:
    """Parameters to logits; ``fast`` as in :func:`with_params`."""
    params, state = draw_params(model, rng)
    x = rng.standard_normal((2, *model.input_shape))

    def forward(params: Params) -> tuple[Array, Any]:
        work = Workspace() if fast else None
        x_alike = get_xp(params.flat).asarray(x, params.flat.dtype)
        own_state = {key: get_xp(params.flat).asarray(array, params.flat.dtype) for key, array in state.items()}
        logits, cache, _ = model.forward(x_alike, params, own_state, work=work)
        return logits, (cache, params, work)

    def backward(dlogits: Array, kept: Any) -> Params:
        cache, params, work = kept
        return model.backward(dlogits, cache, params, work=work)

    return Pair(name, forward, backward, {"params": params}, numpy_only=fast)


def loss_pair(name: str, model: Model, rng: np.random.Generator) -> Pair:
    """Parameters to the smoothed loss that training descends, dropout included."""
    params, state = draw_params(model, rng)
    x, labels = rng.standard_normal((4, *model.input_shape)), rng.integers(0, model.classes, 4)

    def forward(params: Params) -> tuple[Array, Params]:
        xp = get_xp(params.flat)
        own_state = {key: xp.asarray(array, params.flat.dtype) for key, array in state.items()}
        result = loss_and_grad(
            model, params, own_state, xp.asarray(x, params.flat.dtype), xp.asarray(labels),
            loss=cross_entropy(0.1), weight=0.25, rng=np.random.default_rng(1),
        )  # fmt: skip
        return xp.asarray(result.loss), result.grads

    return Pair(name, forward, lambda dloss, grads: grads.with_flat(grads.flat * dloss), {"params": params})


# --- inputs ---------------------------------------------------------------------------------------------------


def draw_stm(
    rng: np.random.Generator, D: int, H: int, *, recurrent: bool = False, diagonal: bool = False
) -> stm.STMParams:
    """Parameters of order ½ to 1 in every entry.

    The recurrent form has the smaller ones: there a memory passes through its own gates at every step, and high
    derivatives, which limit the stencil, grow with the weights.
    """
    scale = 0.5 if recurrent else 1.0
    drawn = stm.init_stm(rng, D, H, length=4, recurrent=recurrent, diagonal=diagonal)
    return stm.STMParams._make(scale * rng.standard_normal(a.shape) if a is not None else None for a in drawn)


def scaled(rng: np.random.Generator, params: Any) -> Any:
    """Parameters of the same shapes, of order ½ in every entry; see :func:`draw_stm` for why not larger."""
    return type(params)(*(0.5 * rng.standard_normal(array.shape) for array in params))


def draw_image_stm(rng: np.random.Generator, D: int, H: int, window: int, *, diagonal: bool) -> stm.STMParams:
    """Parameters of an image STM layer, of order 1 in every entry, the kernel's sums of order 1."""
    W = rng.standard_normal((window, window, D, H if diagonal else 4 * H)) / window
    return stm.STMParams(W, rng.standard_normal(4 * H), None, rng.standard_normal(3 * H) if diagonal else None)


def draw_params(model: Model, rng: np.random.Generator) -> tuple[Params, State]:
    """Parameters of order ½ in every entry instead of the zeros and the small ones that training starts from."""
    params, state = model.init(rng, np.float64)
    return params.with_flat(0.5 * rng.standard_normal(params.flat.size)), state


def on_device(tree: Any, device: str) -> Any:
    """The same tree of arrays, on the device."""
    if isinstance(tree, Mapping):
        return {key: on_device(value, device) for key, value in tree.items()}
    if isinstance(tree, Params):
        return tree.with_flat(to_device(tree.flat, device))
    if isinstance(tree, (tuple, list)):
        moved = [on_device(value, device) for value in tree]
        return type(tree)(*moved) if hasattr(tree, "_fields") else type(tree)(moved)
    return None if tree is None else to_device(tree, device)
