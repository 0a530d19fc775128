"""The explicit list of the package's forward/backward pairs that ``stg-np gradcheck`` runs over.

Every pair appears with every option that changes its mathematics: both forms and both kinds of gate of the STM
layer, every activation, every view, every pooling, and the whole model from pixels to loss. A test finds the
``*_backward`` functions of the package and fails if one of them is never called from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from stg_np import stm
from stg_np.backend import Array, array_module, get_xp, to_device
from stg_np.fast import conv as fast_conv
from stg_np.fast import layer as fast_layer
from stg_np.fast import walks as fast
from stg_np.gradcheck import Backward, Forward, Report, check_pair
from stg_np.models import stg
from stg_np.models.base import Model, loss_and_grad
from stg_np.models.stg import POOLS, STG, VIEWS
from stg_np.ops.activations import IDENTITY, RELU, SIGMOID, TANH, Activation
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
from stg_np.ops.pool import last_pool_backward, last_pool_forward, mean_pool_backward, mean_pool_forward
from stg_np.ops.pool2d import average_pool2d_backward, average_pool2d_forward, max_pool2d_backward, max_pool2d_forward
from stg_np.ops.views import patches_backward, patches_forward
from stg_np.params import Params, State


class Pair(NamedTuple):
    """One thing to check, in the form that :func:`~stg_np.gradcheck.check_pair` takes."""

    name: str
    forward: Forward
    backward: Backward
    inputs: Mapping[str, Any]


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


def on_device(tree: Any, device: str) -> Any:
    """The same tree of arrays, on the device."""
    if isinstance(tree, Mapping):
        return {key: on_device(value, device) for key, value in tree.items()}
    if isinstance(tree, Params):
        return tree.with_flat(to_device(tree.flat, device))
    if isinstance(tree, tuple):
        moved = [on_device(value, device) for value in tree]
        return type(tree)(*moved) if hasattr(tree, "_fields") else tuple(moved)
    return None if tree is None else to_device(tree, device)


def package_pairs(rng: np.random.Generator, device: str = "cpu") -> Iterator[Pair]:
    """All pairs that ``device`` can run, with inputs of order 1 drawn from ``rng``."""
    yield from activation_pairs(rng)
    yield from op_pairs(rng)
    yield from conv_pairs(rng, device)
    yield from memory_pairs(rng)
    yield from layer_pairs(rng, device)
    yield from stg_layer_pairs(rng, device)
    yield from model_pairs(rng)


def one_input(backward: Callable[..., Any]) -> Backward:
    """A backward that returns the gradient of its only input, as the tuple that the checker expects."""
    return lambda dy, cache: (backward(dy, cache),)


def with_params(forward: Callable[..., Any], backward: Callable[..., Any]) -> tuple[Forward, Backward]:
    """A pair whose backward also takes the parameters: they travel beside the cache."""

    def paired_forward(**inputs: Any) -> tuple[Any, Any]:
        outputs, cache = forward(**inputs)
        return outputs, (cache, inputs["params"])

    def paired_backward(doutputs: Any, kept: Any) -> Any:
        gradients = doutputs if isinstance(doutputs, tuple) else (doutputs,)
        return backward(*gradients, *kept)

    return paired_forward, paired_backward


def activation_pairs(rng: np.random.Generator) -> Iterator[Pair]:
    """Every φ, whose cache is (x, y); the ReLU away from its kink at 0."""
    for name, phi in {"sigmoid": SIGMOID, "tanh": TANH, "identity": IDENTITY, "relu": RELU}.items():
        x = rng.standard_normal((3, 4))

        def forward(x: Array, phi: Activation = phi) -> tuple[Array, tuple[Array, Array]]:
            y = phi.forward(x)
            return y, (x, y)

        def backward(dy: Array, cache: tuple[Array, Array], phi: Activation = phi) -> tuple[Array]:
            return (phi.backward(dy, *cache),)

        yield Pair(name, forward, backward, {"x": x + 0.1 * np.sign(x)})


def op_pairs(rng: np.random.Generator) -> Iterator[Pair]:
    """What lies in ``ops/`` besides activations."""
    B, T, D, C = 3, 4, 6, 5
    x = rng.standard_normal((B, T, D))
    params = LinearParams(rng.standard_normal((D, C)), rng.standard_normal(C))
    yield Pair("linear", *with_params(linear_forward, linear_backward), {"x": x, "params": params})
    yield Pair("rms_norm", rms_norm_forward, one_input(rms_norm_backward), {"x": x})
    yield Pair("mean_pool", mean_pool_forward, one_input(mean_pool_backward), {"x": x})
    for width in (D, D // 2):
        forward = partial(last_pool_forward, forward_width=width)
        yield Pair(f"last_pool, {width} of {D} forwards", forward, one_input(last_pool_backward), {"x": x})
    for smoothing in (0.0, 0.2):
        loss = partial(cross_entropy_forward, label_smoothing=smoothing)
        inputs = {"logits": rng.standard_normal((B, C)), "labels": rng.integers(0, C, B)}
        yield Pair(f"cross_entropy, smoothing {smoothing}", loss, losses_backward, inputs)
    yield Pair("squared_error", squared_error_forward, errors_backward, {"outputs": x[:, 0], "targets": x[:, 1]})
    yield Pair(
        "dropout", lambda x: dropout_forward(x, 0.4, np.random.default_rng(0)), one_input(dropout_backward), {"x": x}
    )
    for patch in ((1, 9), (2, 3), (1, 1)):
        images = rng.standard_normal((3, 4, 9, 2))  # neighbouring axes differ, so that none can stand for the other

        def patches(images: Array, patch: tuple[int, int] = patch) -> tuple[Array, None]:
            return patches_forward(images, *patch), None

        def images_of(dx: Array, cache: None, patch: tuple[int, int] = patch) -> tuple[Array]:
            return (patches_backward(dx, (4, 9, 2), *patch),)

        yield Pair(f"patches, {patch[0]}×{patch[1]}", patches, images_of, {"images": images})


def losses_backward(dlosses: Array, cache: Any) -> tuple[Array, None]:
    """Cross-entropy's gradients: of the logits; none of the labels."""
    return cross_entropy_backward(dlosses, cache), None


def errors_backward(dlosses: Array, cache: Any) -> tuple[Array, Array]:
    """The squared error's gradients: of the outputs, and of the targets, which count with the opposite sign."""
    doutputs = squared_error_backward(dlosses, cache)
    return doutputs, -doutputs


def conv_pairs(rng: np.random.Generator, device: str) -> Iterator[Pair]:
    """Convolutions, plain and in both ways of the CPU's fast path; the pooling of maps."""
    cases: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[int, ...], int, int]] = {
        "3×3": (conv2d_forward, conv2d_backward, (2, 3, 4, 2), 3, 3),
        "5×5": (conv2d_forward, conv2d_backward, (2, 3, 4, 2), 5, 3),
        "1×1": (conv2d_forward, conv2d_backward, (2, 3, 4, 2), 1, 3),
    }
    if device == "cpu":  # NumPy only
        cases["fast, columns"] = (fast_conv.conv2d_forward, fast_conv.conv2d_backward, (2, 3, 4, 2), 3, 3)
        cases["fast, Winograd"] = (fast_conv.conv2d_forward, fast_conv.conv2d_backward, (3, 9, 13, 8), 3, 9)
    for name, (forward, backward, shape, k, C_out) in cases.items():
        C_in = shape[3]
        params = ConvParams(rng.standard_normal((k, k, C_in, C_out)) / (k * C_in**0.5), rng.standard_normal(C_out))
        inputs = {"x": rng.standard_normal(shape), "params": params}
        yield Pair(f"conv2d, {name}", *with_params(forward, backward), inputs)
    x = rng.permutation(2 * 4 * 6 * 3).reshape(2, 4, 6, 3) / 50  # no two within 0.02: far from the kinks
    yield Pair("max_pool2d", max_pool2d_forward, one_input(max_pool2d_backward), {"x": x})
    for side in (2, 3):
        average = partial(average_pool2d_forward, side=side)
        maps = {"x": rng.standard_normal((2, 6, 6, 3))}
        yield Pair(f"average_pool2d, {side}×{side}", average, one_input(average_pool2d_backward), maps)


def memory_pairs(rng: np.random.Generator) -> Iterator[Pair]:
    """The pieces of the STM layer: pre-activations, gates, one update, the scan, one step."""
    B, T, D, H = 3, 5, 4, 3
    for diagonal in (False, True):
        params = draw_stm(rng, D, H, recurrent=True, diagonal=diagonal)
        p = rng.standard_normal((B, params.W.shape[1]))
        kind = "diagonal" if diagonal else "full"

        def pre_forward(p: Array, b: Array, w: Array | None, params: stm.STMParams = params) -> tuple[Array, Any]:
            own = params._replace(b=b, w=w)
            a = stm.preactivations_forward(p, own)
            return a, (a, own)

        inputs = {"p": p, "b": params.b, "w": params.w}
        yield Pair(f"preactivations, {kind}", pre_forward, lambda da, c: stm.preactivations_backward(da, *c), inputs)

        def step_forward(p: Array, m: Array, b: Array, w: Array | None, params: stm.STMParams = params) -> Any:
            own = params._replace(b=b, w=w)
            y, cache = stm.step_forward(p, m, own, (TANH, TANH))
            return (y, cache.m), (cache, own)

        def step_backward(doutputs: tuple[Array, Array], kept: Any) -> Any:
            dy, dm = doutputs
            cache, own = kept
            return stm.step_backward(dy, dm, cache, own, (TANH, TANH))

        yield Pair(f"step, {kind}", step_forward, step_backward, {"p": p, "m": rng.standard_normal((B, H)), **inputs})
    for name, phi_z in {"tanh": TANH, "identity": IDENTITY}.items():

        def gates_forward(a: Array, phi_z: Activation = phi_z) -> tuple[stm.Gates, tuple[stm.Gates, Array]]:
            gates = stm.gates_forward(a, phi_z)
            return gates, (gates, a)

        def gates_backward(dgates: stm.Gates, kept: tuple[stm.Gates, Array], phi_z: Activation = phi_z) -> tuple[Array]:
            return (stm.gates_backward(dgates, *kept, phi_z),)

        yield Pair(f"gates, φ_z {name}", gates_forward, gates_backward, {"a": rng.standard_normal((B, T, 4 * H))})
    u, v, m_0 = rng.uniform(0.1, 0.9, (B, T, H)), rng.standard_normal((B, T, H)), rng.standard_normal((B, H))
    yield Pair(
        "update",
        lambda u, v, m: (stm.update_forward(u, v, m), (u, v, m)),
        lambda dm, kept: stm.update_backward(dm, *kept),
        {"u": u[:, 0], "v": v[:, 0], "m": m_0},
    )

    def scan_forward(u: Array, v: Array, m_0: Array) -> tuple[Array, tuple[Array, ...]]:
        memories = stm.scan_forward(u, v, m_0)
        return memories, (u, v, memories, m_0)

    def scan_backward(dm: Array, kept: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        return stm.scan_backward(dm, get_xp(dm).zeros_like(kept[-1]), *kept)

    yield Pair("scan", scan_forward, scan_backward, {"u": u, "v": v, "m_0": m_0})


def layer_pairs(rng: np.random.Generator, device: str) -> Iterator[Pair]:
    """The STM layer: both forms, the CPU's fast path, both kinds of gate, both φ_z; several steps and one."""
    B, D, H = 2, 3, 2
    forms: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "input-only": (stm.stm_forward, stm.stm_backward),
        "recurrent": (stm.stm_recurrent_forward, stm.stm_recurrent_backward),
    }
    if device == "cpu":
        forms["fast"] = (fast.stm_forward, fast.stm_backward)  # NumPy only
    candidates = {
        "φ_z tanh": (TANH, IDENTITY),
        "φ_z identity": (IDENTITY, IDENTITY),
        "φ_z identity, φ tanh": (IDENTITY, TANH),
    }
    for form, diagonal, candidate, T in product(forms, (False, True), candidates, (1, 6)):
        params = draw_stm(rng, D, H, recurrent=form == "recurrent", diagonal=diagonal)
        phi_z, phi = candidates[candidate]
        forward, backward = forms[form]
        inputs = {"x": rng.standard_normal((B, T, D)), "m_0": rng.standard_normal((B, H)), "params": params}
        name = f"stm, {form}, {'diagonal' if diagonal else 'full'}, {candidate}, T={T}"
        yield Pair(name, *with_params(partial(forward, phi_z=phi_z, phi=phi), backward), inputs)


def draw_stm(rng: np.random.Generator, D: int, H: int, *, recurrent: bool, diagonal: bool) -> stm.STMParams:
    """Parameters of order ½ to 1 in every entry, so that no gradient is small by nature.

    The recurrent form has the smaller ones: there a memory passes through its own gates at every step, and high
    derivatives, which limit the stencil, grow with the weights.
    """
    scale = 0.5 if recurrent else 1.0
    drawn = stm.init_stm(rng, D, H, length=4, recurrent=recurrent, diagonal=diagonal)
    return stm.STMParams._make(scale * rng.standard_normal(a.shape) if a is not None else None for a in drawn)


def stg_layer_pairs(rng: np.random.Generator, device: str) -> Iterator[Pair]:
    """A layer of the STG with its norm, directions and path: plain and fast, the first layer and a turned one."""
    paths: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {"plain": (stg.layer_forward, stg.layer_backward)}
    if device == "cpu":  # NumPy only
        paths["fast"] = (fast_layer.layer_forward, fast_layer.layer_backward)
    kinds: dict[str, dict[str, Any]] = {
        "one direction": {"bidirectional": False},
        "both directions, dropout": {"dropout": 0.3},
        "both directions, diagonal": {"diagonal": True, "tanh_candidate": False},
    }
    for path, layer, (kind, fields) in product(paths, (0, 1), kinds.items()):
        model = STG((2, 3, 4), 2, view="pixels", width=4, layers=2, alternate=True, **fields)
        walk = partial(draw_stm, rng, 4, model.memory_width, recurrent=False, diagonal=model.diagonal)
        h = rng.standard_normal((2, 6, 4))
        h += np.sign(h)  # away from 0, where the norm's derivatives grow beyond what the stencil can follow
        inputs = {"h": h, "walks": tuple(walk() for _ in model.directions)}
        name = f"layer, {path}, {'turned' if layer else 'first'}, {kind}"
        yield Pair(name, *layer_of(model, layer, *paths[path]), inputs)


def layer_of(
    model: STG, layer: int, forward: Callable[..., Any], backward: Callable[..., Any]
) -> tuple[Forward, Backward]:
    """A layer of a model, with dropout where the model has it, in the form that the checker takes."""

    def layer_forward(h: Array, walks: Any) -> tuple[Array, Any]:
        y, cache = forward(model, h, list(walks), layer, rng=np.random.default_rng(0))
        return y, (cache, list(walks))

    def layer_backward(dh: Array, kept: Any) -> tuple[Array, Any]:
        dx, dwalks = backward(model, dh, *kept, layer)
        return dx, tuple(dwalks)

    return layer_forward, layer_backward


def model_pairs(rng: np.random.Generator) -> Iterator[Pair]:
    """The whole STG, in every view, pooling, form and kind of gate, and its loss."""
    for view, recurrent, diagonal in product(VIEWS, (False, True), (False, True)):
        model = STG(
            (4, 4, 2), 3, view=view, patch=(2, 1), width=8, layers=3, recurrent=recurrent, diagonal=diagonal,
            alternate=True,
        )  # fmt: skip
        name = f"STG, {view}, {'recurrent' if recurrent else 'input-only'}, {'diagonal' if diagonal else 'full'}"
        yield model_pair(name, model, rng)
    for pooling, bidirectional in product(POOLS, (False, True)):
        model = STG((5, 3), 3, width=8, layers=2, pool=pooling, bidirectional=bidirectional, tanh_candidate=False)
        name = f"STG, sequence, {pooling}, {'both directions' if bidirectional else 'one direction'}"
        yield model_pair(name, model, rng)
    yield loss_pair(STG((4, 4, 1), 3, view="rows", width=8, layers=2, dropout=0.3), rng)


def draw_params(model: Model, rng: np.random.Generator) -> tuple[Params, State]:
    """Parameters of order ½ in every entry instead of the zeros and the small ones that training starts from."""
    params, state = model.init(rng, np.float64)
    return params.with_flat(0.5 * rng.standard_normal(params.flat.size)), state


def model_pair(name: str, model: Model, rng: np.random.Generator) -> Pair:
    """Parameters to logits."""
    params, state = draw_params(model, rng)
    x = rng.standard_normal((2, *model.input_shape))

    def forward(params: Params) -> tuple[Array, tuple[Any, Params]]:
        logits, cache, _ = model.forward(get_xp(params.flat).asarray(x, params.flat.dtype), params, state)
        return logits, (cache, params)

    return Pair(name, forward, lambda dlogits, kept: (model.backward(dlogits, *kept),), {"params": params})


def loss_pair(model: Model, rng: np.random.Generator) -> Pair:
    """Parameters to the smoothed loss that training descends, dropout included."""
    params, state = draw_params(model, rng)
    x, labels = rng.standard_normal((4, *model.input_shape)), rng.integers(0, model.classes, 4)

    def forward(params: Params) -> tuple[Array, Params]:
        xp = get_xp(params.flat)
        result = loss_and_grad(
            model, params, state, xp.asarray(x, params.flat.dtype), xp.asarray(labels),
            loss=cross_entropy(0.1), weight=0.25, rng=np.random.default_rng(1),
        )  # fmt: skip
        return xp.asarray(result.loss), result.grads

    return Pair(
        "loss of the STG with dropout", forward, lambda d, grads: (grads.with_flat(grads.flat * d),), {"params": params}
    )
