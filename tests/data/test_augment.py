"""Augmentation, scaling and the validation split, held against plain loops and the definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stg_np.backend import Array
from stg_np.data.augment import (
    alternate_flip,
    channel_statistics,
    cutout,
    moved,
    normalise,
    random_flip,
    random_rotation,
    random_shift,
    resized,
    validation_split,
)

shapes = st.tuples(st.integers(0, 5), st.integers(2, 7), st.integers(2, 7), st.integers(1, 4))
batches = shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(1, 255)))
seeds = st.integers(0, 2**32)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def frozen(images: Array) -> Array:
    images.flags.writeable = False
    return images


@given(batches, seeds)
def test_a_flip_gives_each_picture_or_its_mirror_image(images: Array, seed: int) -> None:
    flipped = random_flip(frozen(images), rng(seed))
    assert flipped.dtype == images.dtype
    for before, after in zip(images, flipped):
        assert np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])


def test_half_of_the_pictures_are_flipped() -> None:
    images = np.tile(np.arange(2, dtype=np.float32)[:, None], (4000, 1, 1, 1))
    share = (random_flip(images, rng(0))[:, 0, 0, 0] == 1).mean()
    assert 0.45 < share < 0.55


@pytest.mark.parametrize(("padding", "numpys_name"), [("reflect", "reflect"), ("zero", "constant")])
@given(data=st.data(), images=batches, seed=seeds)
def test_a_shift_is_a_window_on_the_padded_picture(
    data: st.DataObject, images: Array, seed: int, padding: str, numpys_name: str
) -> None:
    pixels = data.draw(st.integers(0, min(images.shape[1:3]) - 1))
    shifted = random_shift(frozen(images), rng(seed), pixels, padding)  # type: ignore[arg-type]
    assert shifted.shape == images.shape
    assert shifted.dtype == images.dtype
    height, width = images.shape[1:3]
    for before, after in zip(images, shifted):
        margin = ((pixels, pixels), (pixels, pixels), (0, 0))
        padded = np.pad(before, margin, mode=numpys_name)  # type: ignore[call-overload]
        places = [(down, right) for down in range(2 * pixels + 1) for right in range(2 * pixels + 1)]
        assert any(np.array_equal(after, padded[d : d + height, r : r + width]) for d, r in places)


@given(data=st.data(), images=batches)
def test_pictures_are_moved_and_what_comes_in_is_mirrored(data: st.DataObject, images: Array) -> None:
    _, height, width, _ = images.shape
    down, right = (data.draw(st.integers(1 - size, size - 1)) for size in (height, width))
    padded = np.pad(images, ((0, 0), (height - 1,) * 2, (width - 1,) * 2, (0, 0)), mode="reflect")
    top, left = height - 1 - down, width - 1 - right
    result = moved(frozen(images), down, right)
    np.testing.assert_array_equal(result, padded[:, top : top + height, left : left + width])


@pytest.mark.parametrize(("down", "right"), [(3, 0), (-3, 0), (0, 4), (0, -4)])
def test_pictures_are_not_moved_out_of_sight(down: int, right: int) -> None:
    with pytest.raises(ValueError, match=f"cannot move pictures of 3x4 by {down} and {right} pixels"):
        moved(np.zeros((1, 3, 4, 1)), down, right)


def test_every_shift_is_equally_likely() -> None:
    dot = np.zeros((9000, 7, 7, 1), np.uint8)
    dot[:, 3, 3] = 1
    _, row, column, _ = np.nonzero(random_shift(dot, rng(0), 1, "zero"))
    counts = np.bincount((row - 2) * 3 + (column - 2), minlength=9)
    assert counts.sum() == 9000
    assert np.ptp(counts) < 250  # about 3.5 standard deviations either way


def test_shifting_by_nothing_changes_nothing() -> None:
    images = rng(0).random((4, 8, 8, 3))
    np.testing.assert_array_equal(random_shift(images, rng(1), 0), images)


@pytest.mark.parametrize("pixels", [-1, 8])
@pytest.mark.parametrize(("height", "width"), [(8, 9), (9, 8)])
def test_an_impossible_shift_is_refused(height: int, width: int, pixels: int) -> None:
    with pytest.raises(ValueError, match=f"cannot shift pictures of {height}x{width}"):
        random_shift(np.zeros((1, height, width, 3)), rng(0), pixels)


def test_a_shift_by_more_than_the_picture_is_possible_with_zeros() -> None:
    assert random_shift(np.ones((50, 2, 2, 1)), rng(0), 5, "zero").min() == 0
    in_sight = random_shift(np.ones((4000, 2, 3, 1)), rng(0), 4, "zero").any((1, 2, 3)).mean()
    assert abs(in_sight - 3 / 9 * 5 / 9) < 0.03  # 9 shifts each way: 3 leave a row, 5 a column


def test_a_shift_needs_no_memory_for_what_is_out_of_sight() -> None:
    assert not random_shift(np.ones((50, 2, 2, 1)), rng(0), 10**12, "zero").any()


@given(batches, seeds, st.integers(0, 9))
def test_cutout_blanks_one_rectangle_and_nothing_else(images: Array, seed: int, size: int) -> None:
    covered = cutout(frozen(images), rng(seed), size)
    assert covered.dtype == images.dtype
    for before, after in zip(images, covered):  # the pictures hold no zeros of their own
        blank = (after == 0).all(axis=-1)
        np.testing.assert_array_equal(after[~blank], before[~blank])
        rows, columns = blank.any(axis=1), blank.any(axis=0)
        np.testing.assert_array_equal(blank, rows[:, None] & columns)
        for side in (rows, columns):  # a run of `size`, or less where the border cuts it
            assert side.sum() <= size
            assert side.sum() == size or side[0] or side[-1]
            assert (np.diff(np.flatnonzero(side)) == 1).all()
        assert blank.any() == (size > 0)


def test_the_middle_of_a_cutout_is_any_pixel() -> None:
    """So a pixel at the border is covered more rarely; and rows and columns are drawn one after the other."""
    pictures, height, width = 8000, 5, 7
    covered = (cutout(np.ones((pictures, height, width, 1)), rng(0), 4) == 0)[..., 0]
    covers = [[-2 <= pixel - middle < 2 for middle in range(width)] for pixel in range(width)]
    rows, columns = np.mean([middles[:height] for middles in covers[:height]], 1), np.mean(covers, 1)
    np.testing.assert_allclose(covered.mean(0), np.outer(rows, columns), atol=0.03)  # 5 standard deviations
    other = (cutout(np.ones((pictures, height, width, 1)), rng(1), 4) == 0)[..., 0]
    assert (covered.any(1) != other.any(1)).any()
    assert (covered.any(2) != other.any(2)).any()


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 2**32 - 1), st.floats(0, 180))
def test_a_rotation_is_scipys(height: int, width: int, seed: int, degrees: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy, the oracle, is not installed")
    images = np.random.default_rng(seed).standard_normal((3, height, width, 2))
    turned = random_rotation(images, np.random.default_rng(seed), degrees)
    angles = np.random.default_rng(seed).uniform(-degrees, degrees, 3)
    for image, angle, got in zip(images, angles, turned):
        wanted = ndimage.rotate(image, angle, reshape=False, order=1, mode="grid-constant")
        np.testing.assert_allclose(got, wanted, atol=1e-9)


def test_a_rotation_of_integers_is_rounded_and_by_nothing_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 1), dtype=np.uint8)
    np.testing.assert_array_equal(random_rotation(images, np.random.default_rng(0), 0), images)
    exact = random_rotation(images.astype(float), np.random.default_rng(1), 20)
    turned = random_rotation(images, np.random.default_rng(1), 20)
    assert turned.dtype == np.uint8
    assert np.abs(turned - exact).max() <= 0.5 + 1e-9


def test_a_negative_rotation_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot turn"):
        random_rotation(np.zeros((1, 2, 2, 1)), np.random.default_rng(0), -1)


def test_a_square_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="side -1"):
        cutout(np.zeros((1, 4, 4, 1)), rng(0), -1)


@pytest.mark.parametrize("function", [random_flip, lambda i, r: random_shift(i, r, 2), lambda i, r: cutout(i, r, 3)])
def test_equal_generators_give_equal_batches(function: Callable[[Array, np.random.Generator], Array]) -> None:
    images = rng(5).random((20, 8, 8, 3))
    np.testing.assert_array_equal(function(images, rng(1)), function(images, rng(1)))
    assert not np.array_equal(function(images, rng(1)), function(images, rng(2)))


@given(batches.filter(len), st.sampled_from([16, 255]), st.sampled_from([np.float32, np.float64]))
def test_statistics_are_numpys_and_normalising_gives_mean_0_deviation_1(
    images: Array, value_range: int, dtype: type[np.floating[np.typing.NBitBase]]
) -> None:
    mean, std = channel_statistics(frozen(images), value_range)
    scaled = images.astype(np.float64) / value_range
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    constant = np.ptp(images, axis=(0, 1, 2)) == 0
    expected = np.where(constant, 1, scaled.std(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, expected, rtol=1e-6)
    normal = normalise(images, mean, std, value_range, dtype)
    assert normal.dtype == dtype
    tolerance = 1e-4 if dtype is np.float32 else 1e-9
    np.testing.assert_allclose(normal, (scaled - mean) / std, atol=100 * tolerance, rtol=tolerance)


def test_a_channel_that_hardly_changes_has_a_small_deviation() -> None:
    images = np.array([7, 8], np.uint8).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(channel_statistics(images, 255)[1], 0.5 / 255)


def test_statistics_go_over_all_blocks() -> None:
    images = rng(0).integers(0, 256, (2500, 2, 2, 3), np.uint8)
    mean, std = channel_statistics(images, 255)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)) / 255)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2)) / 255)


@given(st.lists(st.integers(0, 4), min_size=4, max_size=200), st.floats(0.2, 0.8), seeds)
def test_the_validation_split_is_a_stratified_partition(labels: list[int], fraction: float, seed: int) -> None:
    array = np.array(labels)
    train, validation = validation_split(array, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert abs(len(validation) - fraction * len(labels)) <= 0.5 + 1e-9
    for label in range(5):
        held_out = (array[validation] == label).sum()
        assert abs(held_out - fraction * (array == label).sum()) < 1 + 1e-9
    again = validation_split(array, fraction, seed)
    np.testing.assert_array_equal(train, again[0])
    np.testing.assert_array_equal(validation, again[1])


@pytest.mark.parametrize(("pictures", "fraction", "held_out"), [(54, 0.12, 6), (55, 0.12, 7), (5, 0.5, 3)])
def test_the_number_held_out_is_rounded_and_halves_go_up(pictures: int, fraction: float, held_out: int) -> None:
    assert len(validation_split(np.zeros(pictures, int), fraction, 0)[1]) == held_out


def test_a_tenth_of_cifar10_is_exactly_500_of_each_class() -> None:
    labels = rng(0).permutation(np.repeat(np.arange(10), 5000))
    _, validation = validation_split(labels, 0.1, seed=0)
    assert np.bincount(labels[validation]).tolist() == [500] * 10
    other = validation_split(labels, 0.1, seed=1)[1]
    assert len(np.intersect1d(validation, other)) < 1000  # 500 by chance


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        validation_split(np.zeros(10, int), fraction, 0)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_an_empty_side_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="one side is empty"):
        validation_split(np.zeros(10, int), fraction, 0)


@given(seeds, st.integers(0, 9))
def test_in_turn_each_picture_is_shown_both_ways_and_about_half_of_them_mirrored(seed: int, epoch: int) -> None:
    images = frozen(np.arange(400 * 6, dtype=np.int32).reshape(400, 1, 6, 1))
    numbers = rng(seed).permutation(50_000)[:400]
    now, then, again = (alternate_flip(images, numbers, epoch + k, seed) for k in range(3))
    turned = (now != images).any((1, 2, 3))
    np.testing.assert_array_equal(now[turned], images[turned, :, ::-1])
    np.testing.assert_array_equal(then, now[:, :, ::-1])
    np.testing.assert_array_equal(again, now)
    assert 120 < turned.sum() < 280  # eight standard deviations of a fair coin
    part = slice(100, 200)  # a picture is turned by its number, in whatever batch it comes
    np.testing.assert_array_equal(alternate_flip(images[part], numbers[part], epoch, seed), now[part])


@pytest.mark.parametrize("side", [3, 6, 8, 12, 17])
def test_resizing_is_that_of_pillow(side: int) -> None:
    images = rng(side).standard_normal((2, 12, 6, 3)).astype(np.float32)
    found = resized(images, side)
    assert found.shape == (2, side, side, 3)
    assert found.dtype == np.float32
    for picture, channel in np.ndindex(2, 3):
        wanted = Image.fromarray(images[picture, ..., channel]).resize((side, side), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(found[picture, ..., channel], np.asarray(wanted), atol=1e-6)


def test_resizing_to_their_own_side_changes_nothing_and_less_than_a_pixel_is_refused() -> None:
    images = rng(0).standard_normal((2, 6, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(resized(images, 6), images)
    with pytest.raises(ValueError, match="at least one pixel"):
        resized(images, 0)
