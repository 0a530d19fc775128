"""Evaluation: the two readings of "accuracy per class", and logits that depend on the picture alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stg_np import evaluate
from stg_np.backend import Array
from stg_np.data.augment import normalise
from stg_np.engine import Threads
from stg_np.evaluate import (
    AS_STORED,
    SHIFTED,
    View,
    accuracy,
    confusion_matrix,
    f1_per_class,
    one_vs_rest_accuracy,
    precision_per_class,
    predict_logits,
    recall_per_class,
)
from stg_np.models.image_stg import ImageSTG
from stg_np.models.stg import STG
from stg_np.ops.losses import SQUARED_ERROR, TOLERANCE
from stg_np.train import initial_state, prepare
from stg_np.workspace import Workspace
from tests.training import MODEL, as_float64, make_run, pictures


@st.composite
def answers(draw: st.DrawFn) -> tuple[Array, Array]:
    """Logits (N, C), half of them better than chance, and labels (N,), perhaps without some of the classes."""
    N, C, seed = draw(st.integers(1, 60)), draw(st.integers(1, 12)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, draw(st.integers(1, C)), N)
    logits = rng.standard_normal((N, C))
    logits[: N // 2][np.arange(N // 2), labels[: N // 2]] += 2
    return logits, labels


# --- Two readings -----------------------------------------------------------------------------------------------


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    """Three pictures of class 0, two of them called 2; one of class 1, called 1."""
    logits = np.eye(3)[[2, 0, 2, 1]]
    confusion = confusion_matrix(logits, np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(confusion, [[1, 0, 2], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(recall_per_class(confusion), [1 / 3, 1, np.nan])
    np.testing.assert_array_equal(one_vs_rest_accuracy(confusion), [0.5, 1, 0.5])
    np.testing.assert_array_equal(precision_per_class(confusion), [1, 1, 0])
    np.testing.assert_array_equal(f1_per_class(confusion), [0.5, 1, 0])


def test_a_class_that_is_never_said_has_the_precision_0_and_one_that_is_nowhere_has_none() -> None:
    confusion = np.array([[0, 2, 0], [0, 3, 0], [0, 0, 0]])
    np.testing.assert_array_equal(precision_per_class(confusion), [0, 0.6, np.nan])
    np.testing.assert_array_equal(f1_per_class(confusion), [0, 0.75, np.nan])


@given(answers())
def test_each_figure_by_its_definition(drawn: tuple[Array, Array]) -> None:
    logits, labels = drawn
    said = [int(np.argmax(row)) for row in logits]
    confusion = confusion_matrix(logits, labels)
    assert confusion.dtype.kind == "i"
    assert confusion.sum() == len(labels)
    recalls, one_vs_rest = recall_per_class(confusion), one_vs_rest_accuracy(confusion)
    precisions, f1s = precision_per_class(confusion), f1_per_class(confusion)
    for k in range(logits.shape[1]):
        called = [answer == k for answer, label in zip(said, labels) if label == k]
        assert recalls[k] == pytest.approx(np.mean(called) if called else np.nan, nan_ok=True)
        right = [label == k for answer, label in zip(said, labels) if answer == k]
        assert precisions[k] == pytest.approx(np.mean(right) if right else 0.0 if called else np.nan, nan_ok=True)
        if sum(called) and sum(right):
            assert f1s[k] == pytest.approx(2 / (1 / recalls[k] + 1 / precisions[k]))
        else:
            assert f1s[k] == pytest.approx(0.0 if called or right else np.nan, nan_ok=True)
        agree = [(answer == k) == (label == k) for answer, label in zip(said, labels)]
        assert one_vs_rest[k] == pytest.approx(np.mean(agree))


@given(answers())
def test_the_mean_of_one_vs_rest_is_one_minus_two_errors_over_the_classes(drawn: tuple[Array, Array]) -> None:
    """Whatever the frequencies of the classes: a wrong answer is wrong for two of them."""
    logits, labels = drawn
    _, share = accuracy(logits, labels)
    mean = one_vs_rest_accuracy(confusion_matrix(logits, labels)).mean()
    assert mean == pytest.approx(1 - 2 * (1 - share) / logits.shape[1], abs=1e-12)


@given(answers())
def test_recall_weighted_by_the_pictures_of_each_class_is_the_accuracy(drawn: tuple[Array, Array]) -> None:
    logits, labels = drawn
    confusion = confusion_matrix(logits, labels)
    weights = confusion.sum(1) / confusion.sum()
    assert np.nansum(recall_per_class(confusion) * weights) == pytest.approx(accuracy(logits, labels)[1], abs=1e-12)


@given(answers(), st.randoms(use_true_random=False))
def test_equally_frequent_classes_have_the_accuracy_as_mean_recall(drawn: tuple[Array, Array], random: Any) -> None:
    logits, _ = drawn
    N, C = logits.shape
    assume(N >= C)
    logits = logits[: N - N % C]
    labels = np.array(random.sample(list(np.arange(len(logits)) % C), len(logits)))
    recalls = recall_per_class(confusion_matrix(logits, labels))
    assert recalls.mean() == pytest.approx(accuracy(logits, labels)[1], abs=1e-12)


def test_loss_is_the_mean_surprise_in_nats() -> None:
    loss, share = accuracy(np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), np.array([0, 1]))
    assert loss == pytest.approx((np.log(2) + np.log(10)) / 2)
    assert share == 0.5
    assert accuracy(np.array([[1e4, 0.0]], np.float32), np.array([1])) == (1e4, 0.0)  # and nothing overflows


# --- Logits -----------------------------------------------------------------------------------------------------


def logits_of(images: Array, count: int = 1, **options: Any) -> Array:
    run = make_run(model=MODEL)
    now = initial_state(run)
    with Threads(count) as engine:
        return predict_logits(
            MODEL, as_float64(now.params), now.state, images, engine,
            lambda group: normalise(group, *run.scaling, dtype=np.float64), **options,
        )  # fmt: skip


@pytest.mark.parametrize("view", [AS_STORED, View(True), *SHIFTED[:2]])
def test_logits_depend_on_the_picture_alone(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on its neighbours, on the size of the groups, or on the number of workers (there, not by one bit)."""
    images = pictures(23).images
    images.flags.writeable = False
    whole = logits_of(images, view=view)
    assert whole.shape == (23, 4)
    order = np.random.default_rng(0).permutation(23)
    np.testing.assert_allclose(logits_of(images[order], view=view), whole[order], rtol=1e-11)
    for group in (1, 4, 23):
        monkeypatch.setattr(evaluate, "GROUP", group)
        found = logits_of(images, view=view)
        np.testing.assert_allclose(found, whole, rtol=1e-11)
        for count in (2, 3):
            assert logits_of(images, count, view=view).tobytes() == found.tobytes()


def test_a_view_is_the_picture_mirrored_then_moved() -> None:
    images = pictures(9).images
    padded = np.pad(images[:, :, ::-1], ((0, 0), (2, 2), (1, 1), (0, 0)), mode="reflect")
    down_two_left_one = padded[:, 0:8, 2:10]
    expected = logits_of(down_two_left_one)
    assert np.abs(expected - logits_of(images)).max() > 1e-3
    np.testing.assert_allclose(logits_of(images, view=View(True, 2, -1)), expected, rtol=1e-12)
    assert len(set(SHIFTED)) == 4
    assert {(view.mirrored, view.down == view.right, abs(view.down)) for view in SHIFTED} == {
        (False, True, 1), (True, True, 1),
    }  # fmt: skip


def test_both_libraries_agree_and_logits_come_back_to_the_host(device: str) -> None:
    run, reference = make_run(device=device), make_run()
    images = run.train.images
    found = []
    for each in (run, reference):
        now = initial_state(each)
        with Threads(1) as engine:
            found.append(predict_logits(MODEL, now.params, now.state, images, engine, partial(prepare, each)))
    assert isinstance(found[0], np.ndarray)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_dropout_is_off() -> None:
    run = make_run()
    now = initial_state(run)
    with Threads(1) as engine:
        found = [
            predict_logits(model, now.params, now.state, run.train.images, engine, partial(prepare, run))
            for model in (MODEL, replace(MODEL, dropout=0.5))
        ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_normalisation_is_by_the_running_statistics() -> None:
    """Not by those of the pictures that happen to be tested together."""
    model = ImageSTG((8, 8, 1), 4, widths=(4,), depth=1, stem=0, sweeping=(1,))
    run = make_run(model=model)
    now, images = initial_state(run), pictures(5).images
    with Threads(1) as engine:

        def logits(some: Array) -> Array:
            return predict_logits(
                model, as_float64(now.params), now.state, some, engine,
                lambda group: normalise(group, *run.scaling, dtype=np.float64),
            )  # fmt: skip

        together, alone = logits(images), [logits(images[k : k + 1]) for k in range(5)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-9)


@pytest.mark.parametrize("fast", [True, False])
def test_the_path_is_the_engine_s(fast: bool) -> None:
    given: list[Workspace | None] = []

    class Noting(STG):
        def forward(self, *args: Any, work: Workspace | None = None, **options: Any) -> Any:
            given.append(work)
            return super().forward(*args, work=work, **options)

    run = make_run(model=Noting(**vars(MODEL)))
    now = initial_state(run)
    with Threads(1, fast=fast) as engine:
        predict_logits(run.model, now.params, now.state, run.train.images, engine, partial(prepare, run))
        assert given == [engine.workspace]


def test_accuracy_by_another_loss_and_a_mean_in_double_precision() -> None:
    """In float32 the sum of these four losses is that of the first alone."""
    targets = np.zeros((4, 1), np.float32)
    outputs = np.array([[2**13], [2**0.5], [2**0.5], [TOLERANCE / 2]], np.float32)
    loss, share = accuracy(outputs, targets, SQUARED_ERROR)
    assert loss == pytest.approx((2**25 + 2) / 4, rel=1e-9)
    assert share == 0.25
