"""Light augmentation and scaling of pictures ``(B, height, width, channels)``: pure functions on host arrays.

Every random draw comes from the generator that the caller gives, in a fixed order, so equal generators give equal
batches. All keep the dtype (but :func:`normalise`) and return new arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike, NDArray

from stg_np.backend import Array
from stg_np.inputs import check_choice, check_number, check_shape, check_sizes

Padding: TypeAlias = Literal["reflect", "zero"]
LARGEST_SIDE = 4096
"""Of pictures, in pixels."""

PADDINGS = get_args(Padding)
"""What comes in at the border of a picture that is moved: the picture mirrored at its outermost pixels, or zeros."""


def channel_statistics(images: NDArray[np.uint8], value_range: int) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel of ``images / value_range``: two float64 vectors ``(c,)``.

    The sums are exact (integers). A channel that never changes gets the deviation 1, so that dividing is safe.

    Raises:
        TypeError: if the pictures are not uint8. ValueError: if there are none.
    """
    check_shape("pictures", images, "N", "height", "width", "c")
    check_number("value_range", value_range, above=0)
    if images.dtype != np.uint8:
        raise TypeError(f"pictures must be uint8, pixels from 0 to {value_range}, got the dtype {images.dtype}")
    if not images.size:
        raise ValueError(f"there are no pixels in {images.shape}")
    channels = images.shape[-1]
    total, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, len(images), 1024):  # block by block: no copy of the whole in a wide type
        block = images[start : start + 1024].reshape(-1, channels)
        for channel in range(channels):
            counts = np.bincount(block[:, channel], minlength=256)
            total[channel] += counts @ np.arange(256)
            squares[channel] += counts @ np.arange(256) ** 2
    pixels = images.size // channels
    mean = total / pixels
    deviation = np.sqrt(squares / pixels - mean**2)
    return mean / value_range, np.where(deviation > 0, deviation / value_range, 1.0)


def normalise(images: Array, mean: Array, std: Array, value_range: int | None, dtype: DTypeLike = np.float32) -> Array:
    """``(images / value_range − mean) / std`` channel by channel, as ``dtype``; same shape.

    Raises:
        ValueError: if there is not a mean for each channel, or the pictures are not (B, height, width, c).
    """
    check_shape("pictures", images, "B", "height", "width", np.size(mean))
    batch, height, width, channels = images.shape
    # a whole row of pixels against a row of constants: three channels alone are too short an inner loop
    scale = np.tile(1 / ((value_range or 1) * np.asarray(std)), width).astype(dtype)
    offset = np.tile(np.asarray(mean) / np.asarray(std), width).astype(dtype)
    scaled: Array = images.reshape(batch, height, width * channels).astype(dtype)
    scaled *= scale
    scaled -= offset
    return scaled.reshape(images.shape)


class Scaling(NamedTuple):
    """How pixels become numbers: ``(pixel / value_range − mean) / std`` per channel.

    ``value_range``: the largest pixel; None for numbers that are no pixels, and have no range.
    """

    mean: Array
    std: Array
    value_range: int | None


def scaled(examples: Array, scaling: Scaling) -> Array:
    """Pictures (B, height, width, c), or sequences (B, T, c), by :func:`normalise`."""
    if examples.ndim == 3:
        return normalise(examples[:, None], *scaling)[:, 0]  # like a picture of one row
    return normalise(examples, *scaling)


@dataclass(frozen=True)
class Variations:
    """How training pictures are varied.

    Attributes:
        flip: mirror pictures at random; ``flip_in_turn``: in each epoch those that the one before did not.
        shift: move them by up to so many pixels; ``shift_padding``: what comes in at the border, ``reflect`` or
            ``zero``. rotate: turn them by up to so many degrees. cutout: cover a square of this side.
        sides: heights (and widths) of the pictures, each for an equal part of the epochs; empty: their own.
    """

    flip: bool = False
    flip_in_turn: bool = False
    shift: int = 0
    shift_padding: Padding = "reflect"
    rotate: float = 0.0
    cutout: int = 0
    sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("shift_padding", self.shift_padding, PADDINGS)
        check_sizes("sides", self.sides)
        if max(self.sides, default=0) > LARGEST_SIDE:
            raise ValueError(f"sides must be at most {LARGEST_SIDE:,}, got {self.sides!r:.60}")
        check_number("rotate", self.rotate, least=0, most=180)


def varied(
    images: Array,
    rng: np.random.Generator,
    how: Variations,
    scaling: Scaling,
    *,
    epoch: int = 0,
    epochs: int = 1,
    numbers: Array | None = None,
    seed: int = 0,
) -> Array:
    """Pixels (B, height, width, c), varied and then scaled: what a network sees of them in one epoch.

    Args:
        how: which variations there are. scaling: how they are scaled afterwards.
        epoch: counted from 0, of ``epochs``; it decides the side.
        numbers: (B,), which pictures of the data set they are, and the ``seed``: both for flips in turn.
    """
    if how.rotate:
        images = random_rotation(images, rng, how.rotate)
    if how.shift:
        images = random_shift(images, rng, how.shift, how.shift_padding)
    if how.flip and how.flip_in_turn and numbers is not None:
        images = alternate_flip(images, numbers, epoch, seed)
    elif how.flip:
        images = random_flip(images, rng)
    x = scaled(images, scaling)
    if how.sides:
        x = resized(x, how.sides[epoch * len(how.sides) // epochs])
    if how.cutout:
        x = cutout(x, rng, how.cutout)
    return x


def random_flip(images: Array, rng: np.random.Generator) -> Array:
    """Mirror each picture left to right with probability ½."""
    return mirrored(images, rng.random(len(images)) < 0.5)


def alternate_flip(images: Array, numbers: Array, epoch: int, seed: int) -> Array:
    """Mirror half of the pictures in one epoch and the other half in the next (Jordan, arXiv:2404.00498).

    A random choice shows some pictures the same way several times in a row; this shows each both ways, in turn.

    Args:
        images: pictures (B, height, width, c). numbers: (B,), which pictures of the data set they are.
        epoch: counted from 0. seed: of which half is first.
    """
    bits = (numbers.astype(np.uint64) + np.uint64(seed % 2**32)) * np.uint64(0x9E3779B97F4A7C15)  # wraps
    bits = (bits ^ (bits >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return mirrored(images, ((bits >> np.uint64(63)) + np.uint64(epoch)) % 2 == 1)


def mirrored(images: Array, which: Array) -> Array:
    """Pictures (B, height, width, c), those marked in ``which`` (B,) from left to right."""
    flipped = images.copy()
    flipped[which] = images[which, :, ::-1]
    return flipped


def resized(images: Array, side: int) -> Array:
    """Pictures (B, height, width, c) of a floating dtype, made square with this side by linear interpolation.

    Smaller ones are averaged (a triangle as wide as the new pixel), so that nothing is skipped.

    Raises:
        ValueError: if ``side`` is below 1.
    """
    if side < 1:
        raise ValueError(f"a picture has at least one pixel a side, not {side}")
    rows, columns = (resampling(old, side).astype(images.dtype) for old in images.shape[1:3])
    B, height, width, c = images.shape
    fewer_rows = np.matmul(rows, images.reshape(B, height, width * c)).reshape(B, side, width, c)
    result: Array = np.matmul(columns, fewer_rows)
    return result


@cache
def resampling(old: int, new: int) -> Array:
    """The matrix (new, old) of a linear interpolation; each row adds up to 1."""
    step = old / new
    centres = (np.arange(new)[:, None] + 0.5) * step - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(old) - centres) / max(step, 1.0))
    matrix: Array = weights / weights.sum(1, keepdims=True)
    return matrix


def random_shift(images: Array, rng: np.random.Generator, pixels: int, padding: Padding = "reflect") -> Array:
    """Move each picture by −pixels … +pixels in both directions, each shift equally likely.

    What comes in at the border is the picture mirrored at its outermost pixels (``"reflect"``) or zeros.

    Raises:
        ValueError: if ``pixels`` is negative, or too large for the picture to be reflected, or the padding unknown.
    """
    check_choice("padding", padding, PADDINGS)
    batch, height, width, channels = images.shape
    if pixels < 0 or (padding == "reflect" and pixels >= min(height, width)):
        raise ValueError(f"cannot shift pictures of {height}x{width} by {pixels} pixels with {padding} padding")
    above, left = min(pixels, height), min(pixels, width)  # whoever is moved further is out of sight
    margin = ((0, 0), (above, above), (left, left), (0, 0))
    padded = np.pad(images, margin, mode="reflect" if padding == "reflect" else "constant")
    # every placement of the window on the padded picture, as a view; a row with its channels is one run of memory
    rows = padded.reshape(batch, height + 2 * above, (width + 2 * left) * channels)
    windows = sliding_window_view(rows, (height, width * channels), axis=(1, 2))[:, :, ::channels]
    down, right = rng.integers(-pixels, pixels + 1, (2, batch))
    places = down.clip(-above, above) + above, right.clip(-left, left) + left
    shifted: Array = windows[np.arange(batch), *places].reshape(images.shape)
    return shifted


def moved(images: Array, down: int, right: int) -> Array:
    """Pictures (B, height, width, c) moved by whole pixels; what comes in is mirrored at the outermost pixels.

    Raises:
        ValueError: if a picture is too small to be moved so far.
    """
    _, height, width, _ = images.shape
    if abs(down) >= height or abs(right) >= width:
        raise ValueError(f"cannot move pictures of {height}x{width} by {down} and {right} pixels with reflect padding")
    margin = ((0, 0), (abs(down), abs(down)), (abs(right), abs(right)), (0, 0))
    padded = np.pad(images, margin, mode="reflect")
    top, left = abs(down) - down, abs(right) - right
    result: Array = padded[:, top : top + height, left : left + width]
    return result


def random_rotation(images: Array, rng: np.random.Generator, degrees: float) -> Array:
    """Turn each picture about its centre by −degrees … +degrees; bilinear, zeros from outside.

    Raises:
        ValueError: if ``degrees`` is negative.
    """
    if degrees < 0:
        raise ValueError(f"cannot turn pictures by up to {degrees} degrees")
    batch, height, width, _ = images.shape
    angle = np.deg2rad(rng.uniform(-degrees, degrees, (batch, 1, 1)))
    y, x = np.mgrid[:height, :width]
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    source_y = np.cos(angle) * y + np.sin(angle) * x + (height - 1) / 2  # (batch, height, width)
    source_x = np.cos(angle) * x - np.sin(angle) * y + (width - 1) / 2
    top, left = np.floor(source_y).astype(int), np.floor(source_x).astype(int)
    down, right = source_y - top, source_x - left  # how far beyond the pixel above, to the left
    turned = np.zeros(images.shape)
    picture = np.arange(batch)[:, None, None]
    for row, column, weight in (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        pixels = images[picture, row.clip(0, height - 1), column.clip(0, width - 1)]
        turned += (weight * inside)[..., None] * pixels
    return (np.rint(turned) if images.dtype.kind in "iu" else turned).astype(images.dtype)


def cutout(images: Array, rng: np.random.Generator, size: int) -> Array:
    """Put a square of ``size × size`` zeros somewhere on each picture (DeVries & Taylor 2017, arXiv:1708.04552).

    Its centre is any pixel, so at the border part of the square falls outside. Use it after :func:`normalise`,
    where zero is the mean.

    Raises:
        ValueError: if ``size`` is negative.
    """
    if size < 0:
        raise ValueError(f"a square cannot have the side {size}")
    batch, height, width, _ = images.shape
    tops = rng.integers(0, height, (batch,)) - size // 2
    lefts = rng.integers(0, width, (batch,)) - size // 2
    covered = images.copy()
    for k, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist())):
        covered[k, max(top, 0) : top + size, max(left, 0) : left + size] = 0
    return covered


def validation_split(
    labels: NDArray[np.integer[Any]], fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split ``0 … N−1`` at random into training and validation indices, both ascending.

    Stratified: of each class, the same fraction is held out, to within one picture. In all it is
    ``fraction · N``, rounded. Equal arguments give equal splits.

    Raises:
        ValueError: if ``fraction`` is not between 0 and 1, or one side would be empty, or labels are not (N,).
    """
    check_shape("labels", labels, "N")
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction held out must lie between 0 and 1, not at {fraction}")
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, at random within each
    # walking along, hold one out whenever fraction · (number passed) has grown by one
    held_out = np.diff(np.floor(fraction * np.arange(len(labels) + 1) + 0.5)) > 0
    train, validation = np.sort(order[~held_out]), np.sort(order[held_out])
    if not (train.size and validation.size):
        raise ValueError(f"{len(labels)} pictures cannot be split with a fraction of {fraction}: one side is empty")
    return train, validation
