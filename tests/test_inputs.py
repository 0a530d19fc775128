"""What enters the library is checked there, in one sentence; what leaves it belongs to its caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import stm, stm_recurrent
from stg_np.backend import Array, to_host
from stg_np.checks import Pair, package_pairs
from stg_np.data.augment import (
    Scaling,
    Variations,
    channel_statistics,
    normalise,
    random_shift,
    validation_split,
)
from stg_np.engine import Threads
from stg_np.evaluate import (
    accuracy,
    confusion_matrix,
    f1_per_class,
    one_vs_rest_accuracy,
    precision_per_class,
    predict_logits,
    recall_per_class,
)
from stg_np.fast import walks
from stg_np.models.image_stg import ImageSTG
from stg_np.models.mlp import MLP
from stg_np.models.stg import STG
from stg_np.ops.activations import sigmoid_backward, sigmoid_forward
from stg_np.ops.batch_norm import Statistics, batch_norm_forward, fixed_norm_forward
from stg_np.ops.dropout import dropout_forward
from stg_np.ops.linear import LinearParams, linear_forward
from stg_np.ops.losses import SQUARED_ERROR, count_hits, cross_entropy, cross_entropy_backward, cross_entropy_forward
from stg_np.ops.norm import rms_norm_forward
from stg_np.ops.pool import last_pool_forward, mean_pool_forward
from stg_np.ops.pool2d import average_pool2d_forward, global_max_pool_forward, max_pool2d_forward
from stg_np.ops.views import patches_forward
from stg_np.optim import SGD, AdamW, ByRole, Muon, clip_by_norm
from stg_np.params import Params
from stg_np.train import Examples, Run, TrainConfig, fit, prepare
from stg_np.workspace import Workspace
from tests.contract import leaves
from tests.training import MODEL, SCALING, make_run, pictures

DATA = pictures(12)
LOGITS = np.random.default_rng(0).standard_normal((4, 3))
LABELS = np.array([0, 1, 2, 1])
IMAGE_MODEL = ImageSTG((8, 8, 1), 4, (4, 4), stem=0, sweeping=())
MAPS = np.ones((2, 4, 4, 3))


def refused(call: Callable[[], Any], words: str) -> None:
    """Whether a call is refused, in one clear sentence."""
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- labels -------------------------------------------------------------------------------------------------

WRONG_LABELS: dict[str, tuple[Callable[[Array], Any], str]] = {
    "counted from 1": (lambda y: y + 1, "from 0 to . for . classes"),
    "negative": (lambda y: y - 1, "from 0 to . for . classes"),
    "of the type float": (lambda y: y.astype(float), "whole numbers"),
    "texts": (lambda y: y.astype(str), "whole numbers"),
    "flags": (lambda y: y == 1, "whole numbers"),
    "a column": (lambda y: y[:, None], r"take labels\[:, 0\]"),
    "one-hot": (lambda y: np.eye(int(y.max()) + 1)[y], r"argmax\(1\)"),
    "too few": (lambda y: y[:1], "one for each example"),
    "a number": (lambda y: y[0], "one for each example"),
    "a list": (lambda y: y.tolist(), "array"),
}


@pytest.mark.parametrize(("spoil", "words"), WRONG_LABELS.values(), ids=WRONG_LABELS.keys())
def test_labels_are_checked_by_losses_scores_and_runs(spoil: Callable[[Array], Any], words: str) -> None:
    labels = spoil(LABELS)
    for call in (cross_entropy_forward, count_hits, accuracy, confusion_matrix):
        refused(lambda call=call: call(LOGITS, labels), f"{words}|array|len")  # type: ignore[misc]
    refused(lambda: make_run(data=(Examples(DATA.images, spoil(DATA.labels)), None)), words)
    refused(lambda: make_run(data=(DATA, Examples(DATA.images, spoil(DATA.labels)))), words)


@given(st.lists(st.integers(-5, 8), min_size=1, max_size=6))
def test_a_label_is_refused_if_and_only_if_no_class_has_it(given_labels: list[int]) -> None:
    labels, logits = np.array(given_labels), np.zeros((len(given_labels), 3))
    if all(0 <= label < 3 for label in given_labels):
        np.testing.assert_allclose(cross_entropy_forward(logits, labels)[0], np.log(3))
    else:
        refused(lambda: cross_entropy_forward(logits, labels), "labels go from 0 to 2")


def test_targets_of_a_regression() -> None:
    outputs = np.zeros((4, 2))
    for targets in (outputs[:, 0], outputs[:, :1], outputs[:1], outputs.astype(np.float32), outputs.astype(int)):
        for call in (SQUARED_ERROR.forward, SQUARED_ERROR.correct):
            refused(lambda call=call, targets=targets: call(outputs, targets), "targets must be|one floating dtype")  # type: ignore[misc]
    good = np.zeros((12, 4), np.float32)
    make_run(data=(Examples(DATA.images, good), None), loss=SQUARED_ERROR)
    bad = good.copy()
    bad[7, 2] = np.nan
    for wrong, words in ((bad, "targets hold nan in example 7"), (good[:3], "one target for each")):
        data = Examples(DATA.images, wrong), None
        refused(lambda data=data: make_run(data=data, loss=SQUARED_ERROR), words)  # type: ignore[misc]


def test_other_arguments_of_losses() -> None:
    refused(lambda: cross_entropy_forward(LOGITS.astype(int), LABELS), "floating dtype")
    refused(lambda: cross_entropy_forward(LOGITS[0], LABELS), r"logits must be \(B, C\), got \(3,\)")
    for smoothing in (-0.1, 1.5, np.nan):
        refused(lambda s=smoothing: cross_entropy_forward(LOGITS, LABELS, label_smoothing=s), "label_smoothing must be")  # type: ignore[misc]


def test_a_class_may_be_ruled_out_by_a_logit_of_minus_infinity() -> None:
    logits = np.array([[-np.inf, 0.0, 1.0]])
    losses, cache = cross_entropy_forward(logits, np.array([1]))
    np.testing.assert_allclose(losses, cross_entropy_forward(logits[:, 1:], np.array([0]))[0])
    assert np.isfinite(cross_entropy_backward(np.ones(1), cache)).all()
    assert cross_entropy_forward(logits, np.array([0]))[0] == np.inf  # the right one is ruled out


# --- pictures -----------------------------------------------------------------------------------------------

WRONG_PICTURES: dict[str, tuple[Callable[[Array], Any], str]] = {
    "NCHW": (lambda x: x.transpose(0, 3, 1, 2), r"NCHW.*transpose\(0, 2, 3, 1\)"),
    "no channels": (lambda x: x[..., 0], r"x\[..., None\]"),
    "smaller": (lambda x: x[:, :4], r"must be \(N, 8, 8, 1\), got \(12, 4, 8, 1\)"),
    "one picture": (lambda x: x[0], r"x\[None\]"),
    "0 … 1": (lambda x: x / 255, "scaled already"),
    "negative": (lambda x: x.astype(int) - 100, "from 0 to 255 here, and these from -"),
    "too large": (lambda x: x.astype(int) + 100, "from 0 to 255 here"),
    "NaN": (lambda x: np.where(np.arange(12)[:, None, None, None] == 5, np.nan, x), "pictures hold nan in example 5"),
    "infinite": (lambda x: np.where(x == x.max(), np.inf, x), "pictures hold inf"),
    "texts": (lambda x: x.astype(str), "must be numbers"),
    "none at all": (lambda x: x[:0], "no pictures|one for each"),
    "a list": (lambda x: x.tolist(), "array"),
}


@pytest.mark.parametrize(("spoil", "words"), WRONG_PICTURES.values(), ids=WRONG_PICTURES.keys())
def test_a_run_checks_its_pictures(spoil: Callable[[Array], Any], words: str) -> None:
    images = spoil(DATA.images)
    refused(lambda: make_run(data=(Examples(images, DATA.labels[: len(images)]), None)), words)
    refused(lambda: make_run(data=(DATA, Examples(images, DATA.labels[: len(images)]))), words)


def test_pictures_that_are_right() -> None:
    """Black ones, floating ones up to the value range, and those of 0 … 1 that say so."""
    for images in (0 * DATA.images, DATA.images.astype(np.float32), 0.0 * DATA.images, DATA.images.astype(int)):
        make_run(data=(Examples(images, DATA.labels), None))
    Run(MODEL, TrainConfig(), Examples(DATA.images / 255, DATA.labels), None, SCALING._replace(value_range=1))
    Run(MODEL, TrainConfig(), Examples(DATA.images > 99, DATA.labels), None, SCALING._replace(value_range=1))


def test_numbers_that_are_no_pixels_have_no_range_and_must_be_finite() -> None:
    scaling = SCALING._replace(value_range=None)
    numbers = np.random.default_rng(0).standard_normal((12, 8, 8, 1))
    run = Run(MODEL, TrainConfig(), Examples(numbers, DATA.labels), None, scaling)
    np.testing.assert_allclose(prepare(run, numbers), (numbers - 0.5) / 0.3, rtol=1e-4, atol=1e-5)
    numbers[4, 2, 1, 0] = np.nan
    refused(lambda: Run(MODEL, TrainConfig(), Examples(numbers, DATA.labels), None, scaling), "nan in example 4")


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("model", STG, "of the kind Model"),
        ("model", None, "of the kind Model"),
        ("config", None, "of the kind TrainConfig"),
        ("device", "gpu", "cpu, cuda"),
        ("loss", "mse", "of the kind Loss"),
    ],
)
def test_a_run_checks_what_it_is_made_of(part: str, value: Any, words: str) -> None:
    parts: dict[str, Any] = {"model": MODEL, "config": TrainConfig(), "train": DATA, "validation": None}
    refused(lambda: Run(**(parts | {"scaling": SCALING, part: value})), words)


def test_a_mask_is_not_dropped() -> None:
    masked, labels = np.ma.masked_array(DATA.images, DATA.images > 99), np.ma.masked_array(DATA.labels, DATA.labels > 1)
    refused(lambda: make_run(data=(Examples(masked, DATA.labels), None)), "filled")
    refused(lambda: make_run(data=(Examples(DATA.images, labels), None)), "filled")
    x = np.ma.masked_array(normalise(DATA.images, *SCALING), False)
    refused(lambda: MODEL.forward(x, *MODEL.init(np.random.default_rng(0))), "filled")
    refused(lambda: cross_entropy_forward(x[:, 0, :4, 0], DATA.labels), "filled")


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, np.nan, "x", None, True])
def test_a_loss_is_checked_when_it_is_made(smoothing: Any) -> None:
    refused(lambda: cross_entropy(smoothing), "label_smoothing")


@pytest.mark.parametrize(
    "scaling",
    [
        Scaling(np.zeros(3), np.ones(1), 255),
        Scaling(np.zeros(1), np.ones(()), 255),
        Scaling(np.zeros(1), np.zeros(1), 255),
        Scaling(np.array([np.nan]), np.ones(1), 255),
        Scaling(np.zeros(1), np.ones(1), 0),
        Scaling([0.0], np.ones(1), 255),  # type: ignore[arg-type]
    ],
)
def test_a_run_checks_the_scaling(scaling: Scaling) -> None:
    refused(lambda: Run(MODEL, TrainConfig(), DATA, None, scaling), "mean|std|value_range|array")


def test_what_is_on_a_device_is_no_example(stand_in: Any) -> None:
    for data in ((stand_in.asarray(DATA.images), DATA.labels), (DATA.images, stand_in.asarray(DATA.labels))):
        refused(lambda data=data: make_run(data=(Examples(*data), None)), "on the host")  # type: ignore[misc]


@pytest.mark.parametrize(
    "model", [MODEL, replace(MODEL, recurrent=True), MLP((8, 8, 1), 4), IMAGE_MODEL],
    ids=["STG", "recurrent", "MLP", "ImageSTG"],
)  # fmt: skip
def test_every_model_checks_its_input(model: Any) -> None:
    params, state = model.init(np.random.default_rng(0))
    x = normalise(DATA.images, *SCALING)
    for spoilt, words in (
        (DATA.images, "uint8 .* pixels with normalise"),
        (x.astype(np.float64), "float64 .* convert or scale it first"),
        (x.transpose(0, 3, 1, 2), "NCHW"),
        (x[0], r"batch of one is x\[None\]"),
        (x[0].transpose(2, 0, 1), "NCHW.*1, 2, 0"),
        (x[..., 0], r"x\[..., None\]"),
        (x.tolist(), "array"),
        (None, "array"),
    ):
        refused(lambda spoilt=spoilt: model.forward(spoilt, params, state), words)  # type: ignore[misc]


def test_what_is_asked_of_pictures_before_a_run() -> None:
    refused(lambda: channel_statistics(DATA.images / 255, 255), "uint8")  # type: ignore[arg-type]
    refused(lambda: channel_statistics(DATA.images[:0], 255), "no pixels")
    refused(lambda: normalise(DATA.images[0], *SCALING), r"\(B, height, width, 1\)")
    refused(lambda: normalise(DATA.images, np.zeros(3), np.ones(3), 255), r"\(B, height, width, 3\)")
    refused(lambda: validation_split(DATA.labels[:, None], 0.5, 0), r"labels must be \(N\)|labels must be \(N,\)")
    refused(lambda: random_shift(DATA.images, np.random.default_rng(0), 1, "wrap"), "reflect, zero")  # type: ignore[arg-type]
    refused(lambda: patches_forward(LOGITS, 1, 1), "height, width")


# --- numbers that are chosen ----------------------------------------------------------------------------------

WRONG_SETTINGS: dict[str, list[Any]] = {
    "epochs": [0, -1, 2.5, "3", True, None],
    "batch_size": [0, 2.5],
    "group_size": [0, 2.5],
    "seed": [-1, 0.5],
    "shift": [-1, 0.5],
    "cutout": [-1, 0.5],
    "rotate": [-1.0, np.nan, np.inf, "5", 181.0],
    "warmup": [-0.1, 1.0, np.nan],
    "label_smoothing": [-0.1, 1.0, np.nan, "0"],
    "clip_norm": [0.0, -1.0, np.nan, np.inf],
    "flip": ["no", 1, None],
    "flip_in_turn": ["no"],
    "schedule": ["step", 3],
    "shift_padding": ["wrap"],
    "sides": [(0,), (2.5,), 8, (8, 4097), (10**12,)],
    "optimizer": ["adamw", AdamW, None],
}


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_settings_of_a_training(name: str) -> None:
    for value in WRONG_SETTINGS[name]:
        refused(lambda value=value: TrainConfig(**{name: value}), name)  # type: ignore[misc]
    if name in ("sides", "shift_padding"):
        refused(lambda: Variations(**{name: WRONG_SETTINGS[name][0]}), name)


@pytest.mark.parametrize(
    ("rule", "name"),
    [(SGD, "momentum"), (Muon, "momentum"), (AdamW, "beta1"), (AdamW, "beta2"), (AdamW, "epsilon")],
)
def test_hyper_parameters_of_a_rule(rule: Any, name: str) -> None:
    for key, value in (
        (name, -0.1), (name, np.nan), (name, "0.9"), ("learning_rate", 0.0), ("learning_rate", -1),
        ("learning_rate", np.inf), ("weight_decay", -0.1), ("weight_decay", np.nan),
    ):  # fmt: skip
        refused(lambda key=key, value=value: rule(**{key: value}), f"{key} must be")  # type: ignore[misc]


def test_other_hyper_parameters() -> None:
    for call, words in {
        lambda: SGD(nesterov="no"): "nesterov",  # type: ignore[arg-type]
        lambda: SGD(momentum=1.0): "momentum must be at least 0 and below 1",
        lambda: Muon(iterations=2.5): "iterations",  # type: ignore[arg-type]
        lambda: Muon(iterations=0): "iterations",
        lambda: ByRole(head="adamw"): "head must be of the kind Optimizer",  # type: ignore[arg-type]
        lambda: clip_by_norm(MODEL.init(np.random.default_rng(0))[0], 0.0): "max_norm",
        lambda: next(fit(make_run(), Threads(1), log_every=0)): "log_every",
        lambda: dropout_forward(LOGITS, 1.0, np.random.default_rng(0)): "rate",
        lambda: stm.init_stm(np.random.default_rng(0), 2, 0, length=3): "D and H",
        lambda: stm.init_stm(np.random.default_rng(0), 2, 3, length=np.nan): "length",
    }.items():
        refused(call, words)


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (MODEL, {"classes": 0, "width": 2.5, "layers": 0, "patch": (4,), "dropout": -0.1, "length": -1.0, "view": "x",
                 "pool": "max", "recurrent": "no", "input_shape": (8,)}),
        (MLP((8, 8, 1), 4), {"classes": 0, "widths": (2.5,), "input_shape": ()}),
        (IMAGE_MODEL,
         {"classes": 2.5, "widths": (), "depth": 0, "window": 2, "stem": -1, "sweeping": (0,), "directions": 5,
          "join": "x", "louder": "no", "slope": np.nan, "length": -1.0, "head_scale": 0.0, "norm_rate": 1.5,
          "input_shape": (8, 8)}),
    ],
    ids=["STG", "MLP", "ImageSTG"],
)  # fmt: skip
def test_sizes_of_a_model(model: Any, wrong: dict[str, Any]) -> None:
    for name, value in wrong.items():
        refused(lambda name=name, value=value: replace(model, **{name: value}), name)  # type: ignore[misc]


# --- layers ---------------------------------------------------------------------------------------------------


def test_norms_and_pools() -> None:
    steps = np.ones((2, 5, 3))
    for call, good in (
        (rms_norm_forward, steps),
        (batch_norm_forward, steps),
        (mean_pool_forward, steps),
        (partial(last_pool_forward, right_width=1), steps),
        (max_pool2d_forward, MAPS),
        (average_pool2d_forward, MAPS),
        (global_max_pool_forward, MAPS),
        (sigmoid_forward, steps),
    ):
        call(good)
        refused(lambda call=call, good=good: call(good.astype(np.uint8)), "floating dtype")  # type: ignore[misc]
        if call not in (rms_norm_forward, batch_norm_forward, sigmoid_forward):
            refused(lambda call=call: call(LOGITS), "x must be")  # type: ignore[misc]
    wrong: dict[Callable[[], Any], str] = {
        lambda: mean_pool_forward(steps[:, :0]): "no step",
        lambda: last_pool_forward(steps, 4): "4 channels",
        lambda: last_pool_forward(steps, -1): "right_width",
        lambda: max_pool2d_forward(MAPS, side=0): "side",
        lambda: max_pool2d_forward(MAPS, side=3): "cut into windows",
        lambda: global_max_pool_forward(MAPS[:, :0]): "no pixel",
        lambda: rms_norm_forward(steps, epsilon=-1): "epsilon",
        lambda: rms_norm_forward(steps[..., :0]): "D ≥ 1",
        lambda: batch_norm_forward(steps[:0]): "at least one row",
        lambda: fixed_norm_forward(steps, Statistics(np.zeros(3), np.ones(1))): "variance must be",
        lambda: linear_forward(steps, LinearParams(np.ones((2, 4)), np.ones(4))): r"x must be \(..., D\)",
    }
    for wrong_call, words in wrong.items():
        refused(wrong_call, words)


def test_every_path_of_an_stm_asks_for_the_same() -> None:
    rng = np.random.default_rng(0)
    full, diagonal = (stm.init_stm(rng, 3, 4, length=5, diagonal=diagonal) for diagonal in (False, True))
    recurrent = stm.init_stm(rng, 3, 4, length=5, recurrent=True)
    x, m_0 = rng.standard_normal((2, 5, 3)), np.zeros((2, 4))
    fast = partial(walks.stm_forward, work=Workspace())
    for call in (stm.stm_forward, fast):
        for arguments, words in (
            ((x, m_0.astype(int), full), "one floating dtype"),
            ((x.astype(np.uint8), m_0, full), "one floating dtype"),
            ((x[:, :0], m_0, full), "T ≥ 1"),
            ((x, m_0[:1], full), "m_0"),
            ((x, m_0, recurrent), "have an R"),
            ((x, m_0, full._replace(b=full.b[:-1])), r"b \(4H,\)"),
            ((x, m_0, full._replace(W=full.W[:, :4])), r"W must be \(3, 16\)"),
            ((x, m_0, diagonal._replace(w=np.ones(4))), "w must be"),
        ):
            refused(lambda call=call, arguments=arguments: call(*arguments), words)  # type: ignore[misc]
    refused(lambda: stm_recurrent.stm_recurrent_forward(x, m_0, full), "no R")
    refused(lambda: stm_recurrent.stm_recurrent_forward(x, m_0, recurrent._replace(R=np.ones((3, 3)))), "R must be")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_logistic_function_far_out(dtype: Any) -> None:
    """Exact to rounding wherever it is a normal number, 0 and 1 beyond, and never a warning."""
    x = np.linspace(-80, 80, 321).astype(dtype)
    np.testing.assert_allclose(
        sigmoid_forward(x), 1 / (1 + np.exp(-x.astype(np.float64))), rtol=4 * np.finfo(dtype).eps
    )
    assert sigmoid_forward(np.array([-np.inf, -1e4, 1e4, np.inf], dtype)).tolist() == [0, 0, 1, 1]
    assert np.isfinite(sigmoid_backward(np.ones_like(x), x, sigmoid_forward(x))).all()


# --- scores -----------------------------------------------------------------------------------------------------


def test_scores() -> None:
    for call in (recall_per_class, precision_per_class, f1_per_class, one_vs_rest_accuracy):
        refused(lambda call=call: call(np.ones((2, 3), int)), r"\(C, C\)")  # type: ignore[misc]
        refused(lambda call=call: call(np.array([[1, -1], [0, 2]])), "counts")  # type: ignore[misc]
        refused(lambda call=call: call(np.array([[1, np.inf], [0, 2]])), "counts")  # type: ignore[misc]
    refused(lambda: one_vs_rest_accuracy(np.zeros((3, 3), int)), "no pictures")
    refused(lambda: accuracy(LOGITS[:0], LABELS[:0]), "no examples")
    params, state = MODEL.init(np.random.default_rng(0))
    refused(lambda: predict_logits(MODEL, params, state, DATA.images[:0], Threads(1), lambda x: x), "no pictures")


# --- what a forward returns is its caller's -----------------------------------------------------------------------


def copied(tree: Any) -> Any:
    """The same tree, with arrays of its own."""
    if isinstance(tree, Params):
        return tree.with_flat(tree.flat.copy())
    if isinstance(tree, dict):
        return {name: copied(part) for name, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        parts = [copied(part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree.copy() if isinstance(tree, np.ndarray) else tree


OUTPUTS_ARE_ARGUMENTS = ("sigmoid", "tanh", "preactivations", "gates", "scan", "sweep, ")
"""Pairs without a cache, whose backward is given what the forward returned."""
PAIRS = {
    pair.name: pair
    for pair in package_pairs(np.random.default_rng(0))
    if not pair.name.startswith(OUTPUTS_ARE_ARGUMENTS)
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_what_a_forward_returns_can_be_changed_without_harm_to_its_backward(pair: Pair) -> None:
    gradients = []
    for touched in (False, True):
        outputs, cache = pair.forward(**pair.inputs)
        doutputs = copied(outputs)
        for array in leaves(outputs) if touched else ():
            if array.dtype.kind == "f" and not any(np.shares_memory(array, given) for given in leaves(pair.inputs)):
                array[...] = np.nan
        gradients.append([to_host(array).copy() for array in leaves(pair.backward(doutputs, cache))])
    for before, after in zip(*gradients):
        np.testing.assert_array_equal(after, before)


def test_the_fast_walk_gives_away_nothing_that_it_needs() -> None:
    rng, work = np.random.default_rng(0), Workspace()
    params, x, m_0 = stm.init_stm(rng, 3, 4, length=5), rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 4))
    gradients = []
    for touched in (False, True):
        (y, m_T), cache = walks.stm_forward(x, m_0, params, work=work)
        dy, dm_T = np.ones_like(y), np.ones_like(m_T)
        if touched:
            y *= 0.5
            m_T[0] = 0
        gradients.append(walks.stm_backward(dy, dm_T, cache, params, work=work)[2].W.copy())
    np.testing.assert_array_equal(gradients[1], gradients[0])
