"""What is asked of arguments where they enter the library: one sentence for whoever got one wrong.

Shapes and types are looked at everywhere: that costs nothing. The *values* of an array are looked at only where there
are few of them and they are on the host, or once, where data enter: to look at what lies on a device means to wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np

from stg_np.backend import Array, check_dtypes, get_xp, refuse_masks

# --- numbers ------------------------------------------------------------------------------------------------


def check_whole(name: str, value: Any, *, least: int = 0) -> None:
    """Refuse what is no whole number from ``least`` up.

    Raises:
        TypeError: if it is no whole number (True is none). ValueError: if it is below ``least``.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r:.60}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Refuse what is no finite number within the bounds.

    Raises:
        TypeError: if it is no number (True is none). ValueError: if it is NaN, infinite, or out of bounds.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r:.60}")
    number = float(value)
    if math.isfinite(number) and least <= number <= most and above < number < below:
        return
    bounds = (("at least", least), ("above", above), ("at most", most), ("below", below))
    wanted = " and ".join(f"{words} {bound:g}" for words, bound in bounds if math.isfinite(bound))
    raise ValueError(f"{name} must be {wanted or 'finite'}, got {value}")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False: a text like "no" would count as yes.

    Raises:
        TypeError: if it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r:.60}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse what is none of ``choices``.

    Raises:
        ValueError: naming them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is one of {', '.join(choices)}, not {value!r:.60}")


def check_kind(name: str, value: Any, kind: type) -> None:
    """Refuse what is no object of ``kind``; a class is none.

    Raises:
        TypeError: naming the kind.
    """
    if not isinstance(value, kind) or isinstance(value, type):
        raise TypeError(f"{name} must be of the kind {kind.__name__}, got {value!r:.60}")


def check_sizes(name: str, sizes: Any, *, fewest: int = 0, lengths: tuple[int, ...] = ()) -> None:
    """Refuse what is no tuple of whole numbers from 1 up; ``fewest``, ``lengths``: how many there may be.

    Raises:
        TypeError: if it is none. ValueError: if a number is below 1, or there are too few or too many.
    """
    if not isinstance(sizes, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of whole numbers, got {sizes!r:.60}")
    if lengths and len(sizes) not in lengths:
        raise ValueError(f"{name} must have {' or '.join(map(str, lengths))} numbers, got {sizes!r:.60}")
    check_whole(f"the length of {name}", len(sizes), least=fewest)
    for size in sizes:
        check_whole(f"each number of {name}", size, least=1)


def check_fields(
    config: Any,
    kind: Any,
    *,
    choices: Mapping[str, Iterable[str]] | None = None,
    from_zero: tuple[str, ...] = (),
    fractions: tuple[str, ...] = (),
    positive: tuple[str, ...] = (),
    signed: tuple[str, ...] = (),
) -> None:
    """Whether what the dataclass ``kind`` declares is, in this object of it or of a subclass, as declared.

    A bool is True or False; an int is a whole number from 1 up; a float is a number from 0 up. Those named are
    different: ``from_zero``: whole numbers from 0 up; ``fractions``: from 0 up and below 1; ``positive``: above 0;
    ``signed``: any finite number; ``choices``: one of these texts.

    Raises:
        TypeError, ValueError: naming the first field that is not.
    """
    for name, options in (choices or {}).items():
        check_choice(name, getattr(config, name), options)
    for field in fields(kind):
        name, value = field.name, getattr(config, field.name)
        if field.type == "bool":
            check_flag(name, value)
        elif field.type == "int":
            check_whole(name, value, least=0 if name in from_zero else 1)
        elif field.type == "float" and name in fractions:
            check_number(name, value, least=0, below=1)
        elif field.type == "float" and name in positive:
            check_number(name, value, above=0)
        elif field.type == "float":
            check_number(name, value, least=-math.inf if name in signed else 0)


# --- shapes and types of arrays -----------------------------------------------------------------------------


def check_shape(name: str, array: Array, *wanted: int | str) -> None:
    """Refuse an array of another shape; a number is the size of an axis, a text stands for any size.

    Raises:
        TypeError: if it is no array. ValueError: with both shapes.
    """
    get_xp(array)
    if array.ndim != len(wanted) or any(
        size != want for size, want in zip(array.shape, wanted) if not isinstance(want, str)
    ):
        raise ValueError(f"{name} must be {shape_text(wanted)}, got {shape_text(array.shape)}")


def shape_text(shape: Iterable[int | str]) -> str:
    """``(B, 8, 8, 1)``, ``(4,)``."""
    sizes = list(map(str, shape))
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def check_floating(name: str, array: Array, *wanted: int | str) -> None:
    """As :func:`check_shape`, and of a floating dtype.

    Raises:
        TypeError: if it is no array of floating numbers. ValueError: with both shapes.
    """
    check_shape(name, array, *wanted)
    check_dtypes(array)


def check_linear(x: Array, W: Array, b: Array) -> None:
    """What ``x W + b`` asks for: x (..., D), W (D, H), b (H,), of one floating dtype.

    Raises:
        ValueError: if they do not fit together. TypeError: see :func:`~stg_np.backend.check_dtypes`.
    """
    get_xp(x, W, b)
    if W.ndim != 2 or b.shape != W.shape[1:] or x.ndim < 1 or x.shape[-1] != W.shape[0]:
        raise ValueError(f"x must be (..., D), W (D, H) and b (H,), got {x.shape}, {W.shape} and {b.shape}")
    check_dtypes(x, W, b)


def check_sequence(x: Array, m_0: Array, params: tuple[Any, Any, Any, Any], *, recurrent: bool = False) -> None:
    """What every path of an STM asks for: x (B, T, D) with T ≥ 1, m_0 (B, H), parameters that fit, one floating dtype.

    Args:
        x, m_0: the input and the first memory. params: :class:`~stg_np.stm.STMParams`.
        recurrent: whether the gates see the memory, so that there must be an R.

    Raises:
        ValueError: if a shape does not fit, or the parameters are for the other form.
        TypeError: see :func:`~stg_np.backend.check_dtypes`.
    """
    W, b, R, w = params
    get_xp(x, m_0, W, b, R, w)
    if W.ndim != 2 or b.ndim != 1 or b.shape[0] % 4:
        raise ValueError(f"W must be (D, 4H), or (D, H) with diagonal gates, and b (4H,), got {W.shape} and {b.shape}")
    D, H = W.shape[0], b.shape[0] // 4
    if x.ndim != 3 or x.shape[1] < 1 or x.shape[2] != D or m_0.shape != (x.shape[0], H):
        raise ValueError(f"x must be (B, T, {D}) with T ≥ 1 and m_0 (B, {H}), got {x.shape} and {m_0.shape}")
    if recurrent and R is None:
        raise ValueError("these parameters have no R: draw them with init_stm(…, recurrent=True), or use stm_forward")
    if not recurrent and R is not None:
        raise ValueError("these parameters have an R, and here the gates do not see the memory: use stm_recurrent")
    columns = 4 * H if w is None else H
    for name, array, shape in (("W", W, (D, columns)), ("R", R, (H, columns)), ("w", w, (3 * H,))):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} must be {shape} where b is {b.shape}, got {array.shape}")
    check_dtypes(x, m_0, W, b, R, w)


def check_cell(x: Array, memories: Sequence[Array], params: tuple[Array, ...], *, blocks: int) -> None:
    """What every path of a cell that feeds its output back asks for, all of one floating dtype.

    Args:
        x: (B, T, D) with T ≥ 1. memories: each (B, H). params: W (D, blocks · H), b (blocks · H,), R (H, blocks · H),
            and vectors (H,).
        blocks: gates and candidates.

    Raises:
        ValueError: if a shape does not fit. TypeError: see :func:`~stg_np.backend.check_dtypes`.
    """
    W, b, R, *vectors = params
    get_xp(x, *memories, *params)
    if R.ndim != 2 or R.shape[1] != blocks * R.shape[0]:
        raise ValueError(f"R must be (H, {blocks}H), got {R.shape}")
    H = R.shape[0]
    if W.ndim != 2 or W.shape[1] != blocks * H or b.shape != (blocks * H,):
        raise ValueError(
            f"W must be (D, {blocks * H}) and b ({blocks * H},) where R is {R.shape}, got {W.shape} and {b.shape}"
        )
    if x.ndim != 3 or x.shape[1] < 1 or x.shape[2] != W.shape[0]:
        raise ValueError(f"x must be (B, T, {W.shape[0]}) with T ≥ 1, got {x.shape}")
    for array, shape in [*((memory, (x.shape[0], H)) for memory in memories), *((vector, (H,)) for vector in vectors)]:
        if array.shape != shape:
            raise ValueError(f"memories must be ({x.shape[0]}, {H}) and vectors ({H},) here, got {array.shape}")
    check_dtypes(x, *memories, *params)


# --- labels and targets -------------------------------------------------------------------------------------


def check_labels(labels: Array, count: int, classes: int) -> None:
    """Refuse what is not one whole number from 0 to ``classes − 1`` for each of ``count`` examples.

    Raises:
        TypeError: if they are no whole numbers. ValueError: for another shape, and (on the host) for one out of range.
    """
    xp = get_xp(labels)
    refuse_masks(labels)
    if labels.shape != (count,):
        hints = {(count, classes): ": one-hot rows become labels by argmax(1)", (count, 1): ": take labels[:, 0]"}
        raise ValueError(
            f"labels must be ({count},), one for each example, got {labels.shape}{hints.get(labels.shape, '')}"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be whole numbers, the classes counted from 0, got the dtype {labels.dtype}")
    if xp is np and count and not 0 <= labels.min() <= labels.max() < classes:
        k = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
        raise ValueError(
            f"labels go from 0 to {classes - 1} for {classes} classes, and that of example {k} is {labels[k]}"
        )


def check_classified(logits: Array, labels: Array) -> None:
    """What a loss or a score of a classifier asks for: logits (B, C), floating, and labels (B,).

    Raises:
        ValueError, TypeError: see :func:`check_floating` and :func:`check_labels`.
    """
    get_xp(logits, labels)
    check_floating("logits", logits, "B", "C")
    check_labels(labels, *logits.shape)


def check_targets(outputs: Array, targets: Array) -> None:
    """Refuse targets that are not (B, K) like the outputs, or not of the same floating dtype.

    Raises:
        ValueError, TypeError: as said.
    """
    get_xp(outputs, targets)
    check_floating("outputs", outputs, "B", "K")
    check_shape("targets", targets, *outputs.shape)
    check_dtypes(outputs, targets)


def check_confusion(confusion: Array) -> None:
    """Refuse what is no table (C, C) of numbers from 0 up.

    Raises:
        ValueError, TypeError: as said.
    """
    get_xp(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"a confusion matrix is (C, C), got {confusion.shape}")
    if confusion.dtype.kind not in "iuf" or not ((confusion >= 0) & (confusion < math.inf)).all():
        raise ValueError("a confusion matrix holds counts, from 0 up")


# --- pictures -----------------------------------------------------------------------------------------------


def layout_hint(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What may have gone wrong where arrays of the shape ``wanted`` were asked for; empty if nobody knows."""
    wanted = tuple(wanted)
    if shape == wanted:
        return ": a batch of one is x[None]"
    if len(wanted) == 3 and shape[-3:] == (wanted[2], *wanted[:2]):
        axes = "0, 2, 3, 1" if len(shape) == 4 else "1, 2, 0"
        return f": the channels come first here (NCHW) and must come last, x.transpose({axes})"
    if len(wanted) == 3 and wanted[2] == 1 and shape[1:] == wanted[:2]:
        return ": the axis of the channels is missing, x[..., None]"
    return ""


def check_pictures(pictures: Array, shape: tuple[int, ...], value_range: int | None) -> None:
    """Refuse what is not (N, *shape) pixels from 0 to ``value_range``; looks at every one of them, on the host.

    Where there is no range (None), any finite numbers are good.

    Raises:
        TypeError: if they are no NumPy array of numbers.
        ValueError: for another shape; for pixels that are NaN, negative or too large, or that were scaled already.
    """
    if get_xp(pictures) is not np:
        raise TypeError("pictures are kept on the host: give a NumPy array")
    refuse_masks(pictures)
    if pictures.shape[1:] != tuple(shape) or not pictures.ndim:
        hint = layout_hint(pictures.shape, shape)
        raise ValueError(f"pictures must be {shape_text(('N', *shape))}, got {shape_text(pictures.shape)}{hint}")
    if pictures.dtype.kind not in "buif":
        raise TypeError(f"pixels must be numbers, got the dtype {pictures.dtype}")
    floating = pictures.dtype.kind == "f"
    if floating:
        check_finite("pictures", pictures)
    if value_range is None or not pictures.size:
        return
    least, most = float(pictures.min()), float(pictures.max())
    if least < 0 or most > value_range:
        raise ValueError(f"pixels go from 0 to {value_range} here, and these from {least:g} to {most:g}")
    if floating and 0 < most <= 1 < value_range:
        raise ValueError(
            f"these pixels go up to {most:g} only, and the value range is {value_range}: they seem to be scaled "
            f"already; multiply them by {value_range}, or name a value range of 1"
        )


def check_examples(
    pictures: Array, labels: Array, shape: tuple[int, ...], value_range: int | None, classes: int | None
) -> None:
    """Refuse what a model cannot learn from: see :func:`check_pictures` and :func:`check_labels`.

    Where ``classes`` is None the labels are no classes, but targets (N, …) of a loss of the caller's own.

    Raises:
        TypeError, ValueError: as said; also if there are no pictures.
    """
    check_pictures(pictures, shape, value_range)
    if get_xp(labels) is not np:
        raise TypeError("labels are kept on the host: give a NumPy array")
    if not len(pictures):
        raise ValueError("there are no pictures")
    if classes is not None:
        check_labels(labels, len(pictures), classes)
    elif not labels.ndim or len(labels) != len(pictures):
        raise ValueError(f"there must be one target for each of {len(pictures)} pictures, got the shape {labels.shape}")
    elif labels.dtype.kind == "f":
        check_finite("targets", labels)


def check_finite(name: str, array: Array) -> None:
    """Refuse an array on the host in which a number is NaN or infinite.

    Raises:
        ValueError: naming the first example that has one.
    """
    finite = np.isfinite(array)
    if not finite.all():
        k = int(np.argwhere(~finite)[0, 0])
        found = array[k][~finite[k]].reshape(-1)[0]
        raise ValueError(f"{name} hold {found} in example {k}: leave it out, or give it finite numbers")


def check_scaling(mean: Array, std: Array, value_range: Any, channels: int) -> None:
    """Refuse what is no mean and standard deviation (> 0) of each channel, or a value range that is not above 0.

    Raises:
        TypeError, ValueError: as said.
    """
    if value_range is not None:
        check_number("value_range", value_range, above=0)
    for name, values in (("mean", mean), ("std", std)):
        check_shape(name, values, channels)
        if not np.isfinite(values).all() or (name == "std" and not (values > 0).all()):
            raise ValueError(f"{name} must be finite{' and above 0' if name == 'std' else ''}, got {values}")
